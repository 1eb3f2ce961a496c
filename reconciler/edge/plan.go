package edge

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// World is the input of Make.
type World struct {
	At      time.Time
	Device  string
	Labels  map[string]string
	Desired *delivery.Desired // the ring's document; nil if none was ever accepted
	State   State

	Slots     map[string]Slot // by name, a and b
	Serving   bool            // a detector serves from State.Slot
	Soaked    time.Duration   // how long it has served healthily
	Starting  bool            // a detector is being started on State.Slot
	Trouble   string          // why the last detector ended, if none serves
	Fetch     Fetching
	PollError string // why documents cannot be read; empty if they can
	Refused   string // why the server's current document is not followed; empty if it is
}

// A Slot is one of the two places for a bundle.
type Slot struct {
	Bundle    delivery.Digest // complete and checked; empty if none
	Crashes   int             // of its detector, since it last ran for ten minutes
	NotBefore time.Time       // earliest next start of its detector
	Held      string          // why the device cannot use the slot now; empty if it can
}

// Fetching is the state of a failed download.
type Fetching struct {
	Bundle    delivery.Digest
	NotBefore time.Time // earliest next try
	Why       string    // the error
}

// An Action is what a step does.
type Action string

// Actions.
const (
	Idle     Action = "idle"      // nothing to do before Until
	Start    Action = "start"     // start a detector on the slot that the pointer names
	Fetch    Action = "fetch"     // download Target into Slot, which does not serve
	Switch   Action = "switch"    // start Target in Slot, move the pointer to it, stop the old detector
	FallBack Action = "fall back" // switch to Target in Slot because the serving bundle failed
	GiveUp   Action = "give up"   // the serving bundle failed and no good bundle is left to fall back to
	Forget   Action = "forget"    // the bundle that the pointer names is not in its slot any more
	MarkGood Action = "mark good" // the soak is over: the serving bundle is good
	Relabel  Action = "relabel"   // the serving bundle is Target under another version number
)

// A Step is one thing to do. Equal steps are the same piece of work.
type Step struct {
	Do     Action
	Slot   string
	Target delivery.Target
}

// A Plan is a step and what to report meanwhile.
type Plan struct {
	Step
	Why   string
	Held  string // why the device does not do what the document says, if no bundle is at fault
	Phase delivery.DevicePhase
	Until time.Time // when to plan again at the latest; zero if only an event can change the plan
}

const (
	maxCrashes = 1 // crashes of a good bundle's detector before the other slot is used
	maxTries   = 3 // starts of a bundle that never completes its soak
)

// Make decides the next step. It is pure.
func Make(w World) Plan {
	p, planned := w.keepServing()
	if !planned {
		p = w.followDocument()
	}
	if p.Phase == "" {
		p.Phase = w.phase()
	}
	if p.Held == "" {
		p.Held = w.heldReason()
	}
	return p
}

// heldReason returns why the device cannot do what the document says: a failed download, a damaged slot, or
// a document that is not followed.
func (w World) heldReason() string {
	want, _ := w.wanted()
	if w.Refused != "" {
		return w.Refused
	}
	if w.Serving && w.State.Bundle == want.Bundle {
		return w.PollError // it runs the wanted bundle of the last document
	}
	if w.Fetch.Why != "" && w.Fetch.Bundle == want.Bundle {
		return w.Fetch.Why
	}
	return cmp.Or(w.Slots["a"].Held, w.Slots["b"].Held, w.PollError)
}

// phase returns the phase to report if the step does not set one.
func (w World) phase() delivery.DevicePhase {
	want, _ := w.wanted()
	switch {
	case w.failed(want.Bundle):
		return delivery.DeviceFailed
	case want.Bundle == "" && len(w.State.Failures) > 0 && w.State.FailedAt == w.version():
		return delivery.DeviceFailed // it runs another bundle than the one that failed
	case w.State.Slot == "" || !w.Serving:
		return delivery.DeviceIdle
	case !w.servingIsGood():
		return delivery.DeviceSoaking
	}
	return delivery.DeviceHealthy
}

func (w World) version() int64 {
	if w.Desired == nil {
		return 0
	}
	return w.Desired.Version
}

// servingIsGood reports whether the bundle that the pointer names has passed a soak on this device.
func (w World) servingIsGood() bool { return w.good(w.State.Bundle) }

// failed reports whether a bundle failed on this device under the current document.
func (w World) failed(b delivery.Digest) bool {
	return b != "" && w.State.FailedAt == w.version() && w.State.failure(b).Bundle == b
}

func (w World) good(b delivery.Digest) bool { return b != "" && slices.Contains(w.State.Good, b) }

func other(slot string) string {
	if slot == "a" {
		return "b"
	}
	return "a"
}

// keepServing plans how to keep a detector running on the slot that the pointer names. planned is false if one
// runs, or if the pointer names no slot.
func (w World) keepServing() (p Plan, planned bool) {
	slot := w.State.Slot
	if slot == "" || w.Serving {
		return p, false
	}
	here, there := w.Slots[slot], other(slot)
	start := Plan{Step: Step{Start, slot, delivery.Target{Version: w.State.Release, Bundle: w.State.Bundle}},
		Phase: delivery.DeviceStarting}
	fallback := Plan{Step: Step{FallBack, there, delivery.Target{Version: w.release(w.Slots[there].Bundle),
		Bundle: w.Slots[there].Bundle}}, Why: w.Trouble, Phase: delivery.DeviceStarting}
	canFallBack := w.good(w.Slots[there].Bundle)

	switch {
	case here.Bundle != w.State.Bundle && canFallBack: // damaged or removed: not the bundle's fault
		back := Plan{Step: Step{Switch, there, fallback.Target}, Why: "the bundle in slot " + slot +
			" was damaged or is missing", Phase: delivery.DeviceStarting}
		return w.delayUntil(back, w.Slots[there].NotBefore), true
	case here.Bundle != w.State.Bundle:
		return Plan{Step: Step{Do: Forget}, Why: "its files are missing from slot " + slot}, true
	case !w.servingIsGood() && here.Crashes == 0 && (w.Starting || w.State.Tries < maxTries):
		return w.delayUntil(start, here.NotBefore), true
	case !w.servingIsGood():
		if w.Trouble == "" {
			fallback.Why = "the device went down each time this bundle was started"
		}
		if canFallBack {
			return w.delayUntil(fallback, w.Slots[there].NotBefore), true
		}
		return Plan{Step: Step{Do: GiveUp}, Why: fallback.Why}, true
	case here.Crashes <= maxCrashes && here.Held == "":
		return start, true
	case canFallBack && w.Slots[there].Crashes <= maxCrashes:
		return fallback, true
	}
	return w.delayUntil(start, here.NotBefore), true
}

// delayUntil returns p, or a plan to be idle until t if t is in the future.
func (w World) delayUntil(p Plan, t time.Time) Plan {
	if w.At.Before(t) {
		return Plan{Step: Step{Do: Idle}, Why: p.Why, Phase: p.Phase, Until: t}
	}
	return p
}

// release returns the version number of a bundle; zero if it is not known.
func (w World) release(b delivery.Digest) int {
	if w.Desired != nil {
		if w.Desired.Release.Bundle == b {
			return w.Desired.Release.Version
		}
		if p := w.Desired.Previous; p != nil && p.Bundle == b {
			return p.Version
		}
	}
	return w.State.Releases[b]
}

// followDocument plans how to get to what the document says.
func (w World) followDocument() Plan {
	want, why := w.wanted()
	idle := Plan{Step: Step{Do: Idle}, Why: why}
	if want.Bundle == "" {
		if w.Desired != nil && why != notYet {
			idle.Held = why
		}
		return w.soak(idle)
	}
	if want.Bundle == w.State.Bundle && w.State.Slot != "" {
		if want.Version != w.State.Release {
			return Plan{Step: Step{Do: Relabel, Target: want}}
		}
		return w.soak(idle)
	}
	if w.failed(want.Bundle) {
		idle.Why = "bundle " + want.Bundle.Short() +
			" failed on this device and is not tried again until the document changes"
		if back := w.lastGood(); back.Bundle != "" {
			return w.install(back)
		}
		return w.soak(idle)
	}
	if !w.At.Before(w.Desired.Expires) {
		idle.Why = "the document has expired: nothing is installed"
		idle.Held = fmt.Sprintf("the document expired at %s, and this device's clock says %s: nothing is installed",
			w.Desired.Expires.UTC().Format(time.RFC3339), w.At.UTC().Format("2006-01-02T15Z"))
		return w.soak(idle)
	}
	return w.install(want)
}

// lastGood returns the last good bundle, to serve when nothing serves and the wanted bundle has failed
// here. If its slot was damaged it is downloaded again.
func (w World) lastGood() (t delivery.Target) {
	if w.State.Slot != "" {
		return t
	}
	for _, b := range slices.Backward(w.State.Good) {
		if !w.failed(b) {
			return delivery.Target{Version: w.release(b), Bundle: b}
		}
	}
	return t
}

// install plans how to get a bundle into service: from a slot that holds it, or from the server.
func (w World) install(want delivery.Target) Plan {
	for _, slot := range []string{"a", "b"} {
		if slot != w.State.Slot && w.Slots[slot].Bundle == want.Bundle {
			return w.delayUntil(Plan{Step: Step{Switch, slot, want}, Phase: delivery.DeviceStarting},
				w.Slots[slot].NotBefore)
		}
	}
	downloadSlot := w.downloadSlot()
	if back := w.Slots[downloadSlot].Bundle; w.State.Slot != "" && !w.servingIsGood() && w.good(back) {
		// The only good bundle is in the slot that the download would overwrite. It serves again first, and
		// the slot of the bundle that has not passed its soak is overwritten.
		return Plan{Step: Step{Switch, downloadSlot, delivery.Target{Version: w.release(back), Bundle: back}},
			Phase: delivery.DeviceDownloading}
	}
	fetch := Plan{Step: Step{Fetch, downloadSlot, want}, Phase: delivery.DeviceDownloading}
	if w.Fetch.Bundle == want.Bundle {
		return w.delayUntil(fetch, w.Fetch.NotBefore)
	}
	return fetch
}

// wanted returns the target of this device according to the document. It is zero, with the reason, if
// the device is to keep what it runs.
func (w World) wanted() (t delivery.Target, why string) {
	d := w.Desired
	if d == nil {
		return t, "no document yet"
	}
	for _, k := range slices.Sorted(maps.Keys(d.Match)) {
		v := d.Match[k]
		if got, ok := w.Labels[k]; !ok || got != v {
			return t, fmt.Sprintf("the document is for devices with %s=%s, and this one has %s=%s", k, v, k, got)
		}
	}
	if d.InWave(w.Device) {
		return d.Release, ""
	}
	if d.Previous != nil {
		return *d.Previous, ""
	}
	return t, notYet
}

const notYet = "not in the wave yet"

// soak plans to mark the serving bundle as good after it has served for the soak time. A health check
// after the soak decides this, not the clock: a detector that has just died must not count as good.
func (w World) soak(idle Plan) Plan {
	if !w.Serving || w.servingIsGood() || w.Desired == nil {
		return idle
	}
	if w.Soaked < time.Duration(w.Desired.Soak) {
		return idle // until a later health check succeeds
	}
	return Plan{Step: Step{Do: MarkGood}}
}

// downloadSlot returns the slot for the next download: never the serving one, and if none serves, the one
// without a good bundle.
func (w World) downloadSlot() string {
	if w.State.Slot != "" {
		return other(w.State.Slot)
	}
	if w.good(w.Slots["a"].Bundle) {
		return "b"
	}
	return "a"
}
