package delivery

import (
	"crypto/sha256"
	"slices"
	"time"
)

// DesiredPayload is the DSSE payload type of a Desired document.
const DesiredPayload = "application/vnd.aob.desired.v1+json"

// Desired is what one ring of devices must run now. AOB signs it; a device
// decides alone whether it is in the wave. Rolling back makes a higher Version
// that names an older bundle.
type Desired struct {
	Ring     string            `json:"ring"`    // the fleet's name
	Version  int64             `json:"version"` // only ever grows; a device refuses a lower one
	Match    map[string]string `json:"match,omitempty"`
	Model    string            `json:"model"`
	Release  Target            `json:"release"`            // for devices in the wave
	Previous *Target           `json:"previous,omitempty"` // for the others; nil: they keep what they run
	Share    float64           `json:"share"`              // of the hash space, 0..1; 1 is every device
	Salt     string            `json:"salt"`
	// places of devices that are in the wave too, so that no document names other devices; not read where Share is 0
	Also     []float64 `json:"also,omitempty"`
	Soak     Duration  `json:"soak"`
	NextPoll Duration  `json:"nextPoll"`
	// how often to report when nothing changes, at least; 0: as the device likes
	Report  Duration  `json:"report,omitempty"`
	Expires time.Time `json:"expires"` // later installs are refused, inference goes on
}

// A Target is a release as a device needs it.
type Target struct {
	Version int    `json:"version"`
	Bundle  Digest `json:"bundle"`
}

// InWave reports whether a device takes d.Release rather than d.Previous.
func (d Desired) InWave(device string) bool {
	switch {
	case d.Share <= 0:
		return false
	case d.Share >= 1:
		return true
	}
	place := WavePosition(d.Salt, device)
	return place < d.Share || slices.Contains(d.Also, place)
}

// WavePosition is a device's place in a rollout, in [0, 1): the first 53 bits
// of SHA-256(salt + id). Another salt shuffles the fleet.
func WavePosition(salt, device string) float64 {
	sum := sha256.Sum256([]byte(salt + device))
	var n uint64
	for _, b := range sum[:8] {
		n = n<<8 | uint64(b)
	}
	return float64(n>>11) / (1 << 53)
}

// DevicePhase is where a device stands with its bundle.
type DevicePhase string

// The phases of a device.
const (
	DeviceIdle        DevicePhase = "idle"        // runs nothing yet
	DeviceDownloading DevicePhase = "downloading" // the old release serves
	DeviceStarting    DevicePhase = "starting"    // the new detector is checked; the old release serves
	DeviceSoaking     DevicePhase = "soaking"     // the new release serves, not yet called a success
	DeviceHealthy     DevicePhase = "healthy"     // served through its soak time
	DeviceFailed      DevicePhase = "failed"      // fell back; Report.Failed names the bundle that failed
)

// A Report is what a device says about itself. It never drives the device's own
// state, and a repeat changes nothing: reports count by (device, sequence).
type Report struct {
	Device   string            `json:"device"`
	Ring     string            `json:"ring"`
	Sequence int64             `json:"sequence"`
	Labels   map[string]string `json:"labels,omitempty"`
	Desired  int64             `json:"desired"`          // version of the document it acts on
	Bundle   Digest            `json:"bundle,omitempty"` // that serves now
	Release  int               `json:"release,omitempty"`
	Slot     string            `json:"slot,omitempty"` // a or b
	Phase    DevicePhase       `json:"phase"`
	Failed   Digest            `json:"failed,omitempty"` // the last bundle that failed here
	Why      string            `json:"why,omitempty"`
	// why the device does not do what the document says, where that is no fault of a bundle
	Blocked    string    `json:"held,omitempty"`
	Downloaded int64     `json:"downloaded"` // bytes of model fetched since the agent was installed
	At         time.Time `json:"at"`         // the device's clock when the report was made: information only

	Installation string `json:"installation,omitempty"` // random, made once for the agent's state folder
	Boot         string `json:"boot,omitempty"`         // changes with the machine and with each of its starts
	Receipt      string `json:"receipt,omitempty"`      // from the server's answer to the report before this one
	// the device's clock when the report was sent; a repeat has another one
	Sent time.Time `json:"sent,omitzero"`
}

// A Device is what the registry knows of one device.
type Device struct {
	Report     Report    `json:"report"`
	LastHeard  time.Time `json:"seen"`           // when the server last heard from it
	FirstHeard time.Time `json:"first,omitzero"` // when the server first heard from it
	Healthy    []Digest  `json:"healthy"`        // bundles it has run through a healthy soak, newest last, at most 16

	// why what the report says of a bundle does not count; empty: it counts
	Ignored string `json:"ignored,omitempty"`
	// how far the device's clock is ahead of the server's; negative: behind
	Skew time.Duration `json:"skew,omitempty"`
	// installations that report under this name, the last one first, at most 4
	Places      []Place   `json:"places,omitempty"`
	TwoPlacesAt time.Time `json:"twice,omitzero"` // when two of them were last seen to take turns; zero: never
}

// A Place is one installation that reports as a device. The server gives each
// report a receipt, and the installation returns it with its next report. A copy
// of a state folder returns a receipt that the original has used already, so the
// two are two places from then on.
type Place struct {
	Installation string    `json:"installation,omitempty"`
	Boot         string    `json:"boot,omitempty"`
	Receipt      string    `json:"receipt"` // the last one that it was given
	LastHeard    time.Time `json:"seen"`
}

// TwoPlaces reports whether a device was seen to report from two installations
// within some time before now.
func (d Device) TwoPlaces(now time.Time, within time.Duration) bool {
	return !d.TwoPlacesAt.IsZero() && now.Sub(d.TwoPlacesAt) <= within
}
