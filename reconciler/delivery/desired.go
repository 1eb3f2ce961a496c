package delivery

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"
)

// DesiredPayload is the DSSE payload type of a Desired document.
const DesiredPayload = "application/vnd.aob.desired.v1+json"

// Desired tells the devices of one ring which release to run. AOB signs it. Each device computes for itself whether it
// is in the wave; see InWave. A rollback is a document with a higher Version and an older bundle.
type Desired struct {
	Ring     string            `json:"ring"`    // the fleet's name
	Version  int64             `json:"version"` // devices refuse a lower version than they have accepted
	Match    map[string]string `json:"match,omitempty"`
	Model    string            `json:"model"`
	Release  Target            `json:"release"`            // for devices in the wave
	Previous *Target           `json:"previous,omitempty"` // for the other devices; nil: they keep what they run
	Share    float64           `json:"share"`              // of the devices in the wave, 0 to 1; see WavePosition
	Salt     string            `json:"salt"`
	// Also lists the positions of further devices in the wave. Positions stand in for ids, so that a document does not
	// disclose the names of other devices. It is not used where Share is 0.
	Also     []float64 `json:"also,omitempty"`
	Soak     Duration  `json:"soak"`
	NextPoll Duration  `json:"nextPoll"`
	// the longest time between two reports; 0: the device decides
	Report  Duration  `json:"report,omitempty"`
	Expires time.Time `json:"expires"` // devices refuse to install it afterwards; what runs goes on
}

// A Target names a release to devices.
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

// WavePosition returns a device's position in a rollout, in [0, 1): the first 53 bits of SHA-256(salt + id). A device
// is in the wave if its position is below the share. Another salt gives another order of devices.
func WavePosition(salt, device string) float64 {
	sum := sha256.Sum256([]byte(salt + device))
	return float64(binary.BigEndian.Uint64(sum[:8])>>11) / (1 << 53)
}

// DevicePhase is the state of a device's installation.
type DevicePhase string

// The phases of a device.
const (
	DeviceIdle        DevicePhase = "idle"        // has no release yet
	DeviceDownloading DevicePhase = "downloading" // the old release still runs
	DeviceStarting    DevicePhase = "starting"    // the new detector is being checked; the old release still runs
	DeviceSoaking     DevicePhase = "soaking"     // the new release runs; its soak time has not passed
	DeviceHealthy     DevicePhase = "healthy"     // the new release ran through its soak time
	// the device went back to the old release; Report.Failed names the new one
	DeviceFailed DevicePhase = "failed"
)

// A Report is what a device tells the server about itself. Reports are identified by
// device and sequence, so a repeated report has no effect.
type Report struct {
	Device   string            `json:"device"`
	Ring     string            `json:"ring"`
	Sequence int64             `json:"sequence"`
	Labels   map[string]string `json:"labels,omitempty"`
	Desired  int64             `json:"desired"`          // version of the Desired document that the device follows
	Bundle   Digest            `json:"bundle,omitempty"` // the bundle that runs now
	Release  int               `json:"release,omitempty"`
	Slot     string            `json:"slot,omitempty"` // a or b
	Phase    DevicePhase       `json:"phase"`
	Failed   Digest            `json:"failed,omitempty"` // the last bundle that failed on the device
	Why      string            `json:"why,omitempty"`
	// Blocked says why the device does not follow the document, where no bundle is the cause.
	Blocked    string    `json:"held,omitempty"`
	Downloaded int64     `json:"downloaded"` // bytes of models downloaded since the agent was installed
	At         time.Time `json:"at"`         // when the report was made, by the device's clock; for display only

	Installation string `json:"installation,omitempty"` // a random id, made once for each state folder of the agent
	Boot         string `json:"boot,omitempty"`         // an id of the machine and its last boot
	Receipt      string `json:"receipt,omitempty"`      // from the server's response to the report before this one
	// when the report was sent, by the device's clock; a repeated report has a later time
	Sent time.Time `json:"sent,omitzero"`
}

// A Device is what the server knows about one device.
type Device struct {
	Report     Report    `json:"report"`
	LastHeard  time.Time `json:"seen"`           // when the server last heard from it
	FirstHeard time.Time `json:"first,omitzero"` // when the server first heard from it
	Healthy    []Digest  `json:"healthy"`        // bundles that passed their soak time on it, newest last, at most 16

	// Ignored says why the report's result for a bundle is not used; empty if it is.
	Ignored string `json:"ignored,omitempty"`
	// the device's clock minus the server's
	Skew time.Duration `json:"skew,omitempty"`
	// installations that report under this name, the most recent first, at most 4
	Places      []Place   `json:"places,omitempty"`
	TwoPlacesAt time.Time `json:"twice,omitzero"` // when two of them last reported in turn; zero: never
}

// A Place is one installation that reports as a device. The server answers each report with a receipt, which the
// installation sends with its next report. A copy of a state folder sends a receipt that the original has already used.
// From then on the two are separate places.
type Place struct {
	Installation string    `json:"installation,omitempty"`
	Boot         string    `json:"boot,omitempty"`
	Receipt      string    `json:"receipt"` // the last one that the server gave it
	LastHeard    time.Time `json:"seen"`
}

// TwoPlaces reports whether two installations reported as this device within the given time before now.
func (d Device) TwoPlaces(now time.Time, within time.Duration) bool {
	return !d.TwoPlacesAt.IsZero() && now.Sub(d.TwoPlacesAt) <= within
}
