package edge

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A World is all that a step depends on.
type World struct {
	At      time.Time
	Device  string
	Labels  map[string]string
	Desired *delivery.Desired // the ring's document; nil: none was ever taken
	State   State

	Slots    map[string]Slot // a and b
	Serving  bool            // a detector answers from State.Slot
	Soaked   time.Duration   // for how long it has
	Starting bool            // one is being started there
	Trouble  string          // how the last one ended, if none serves
	Fetch    Fetching
	Unread   string // why documents do not come through; empty: they do
	Refused  string // why the document that the server has now is not followed; empty: it is
}

// A Slot is one of the two places for a bundle.
type Slot struct {
	Bundle    delivery.Digest // complete and checked; empty: none
	Crashes   int             // of its detector, without ten good minutes between them
	NotBefore time.Time       // when it may be started again
	Held      string          // what is wrong with this device, so that the slot cannot be used now; empty: nothing
}

// Fetching is how the last download went.
type Fetching struct {
	Bundle    delivery.Digest
	NotBefore time.Time // when it may be tried again
	Why       string    // why it failed
}

// An Action is what a step does.
type Action string

// The actions.
const (
	Rest     Action = "rest"      // nothing to do before Until
	Start    Action = "start"     // a detector on the slot that the pointer names
	Fetch    Action = "fetch"     // Target into Slot, which does not serve
	Switch   Action = "switch"    // to Target in Slot: start beside, move the pointer, stop the old
	FallBack Action = "fall back" // to Target in Slot, because of Why
	GiveUp   Action = "give up"   // what serves has failed, because of Why, and there is nothing to fall back to
	Forget   Action = "forget"    // what the pointer names is not there any more, because of Why
	Prove    Action = "prove"     // the soak is over: what serves is good
	Relabel  Action = "relabel"   // what serves is Target under another version number
)

// A Step is one thing to do. Two equal steps are the same piece of work.
type Step struct {
	Do     Action
	Slot   string
	Target delivery.Target
}

// A Plan is a step and what to say while it is done.
type Plan struct {
	Step
	Why   string
	Held  string // why the device does not do what the document says, where no bundle is at fault
	Phase delivery.DevicePhase
	Until time.Time // look again then, at the latest; zero: when something happens
}

const (
	maxCrashes = 1 // restarts that a good bundle gets before it is left
	maxTries   = 3 // starts of a bundle that never gets through its soak
)

// Make decides the next step.
func Make(w World) Plan {
	p, busy := w.serve()
	if !busy {
		p = w.follow()
	}
	if p.Phase == "" {
		p.Phase = w.phase()
	}
	if p.Held == "" {
		p.Held = w.held()
	}
	return p
}

// held says what stands in this device's way: a download that does not come
// through, a slot that was damaged, a document that is not followed.
func (w World) held() string {
	want, _ := w.want()
	if w.Refused != "" {
		return w.Refused
	}
	if w.Serving && w.State.Bundle == want.Bundle {
		return w.Unread // it runs what it must, as far as it knows
	}
	if w.Fetch.Why != "" && w.Fetch.Bundle == want.Bundle {
		return w.Fetch.Why
	}
	return cmp.Or(w.Slots["a"].Held, w.Slots["b"].Held, w.Unread)
}

// phase is where the device stands when it does nothing in particular.
func (w World) phase() delivery.DevicePhase {
	want, _ := w.want()
	switch {
	case w.failed(want.Bundle):
		return delivery.DeviceFailed
	case want.Bundle == "" && len(w.State.Failures) > 0 && w.State.FailedAt == w.version():
		return delivery.DeviceFailed // it runs something else than it was left with
	case w.State.Slot == "" || !w.Serving:
		return delivery.DeviceIdle
	case !w.proven():
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

// proven reports whether what the pointer names has passed a soak here.
func (w World) proven() bool { return w.good(w.State.Bundle) }

// failed reports whether a bundle failed here under this document.
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

// serve keeps a detector running on the slot that the pointer names. busy is
// false when one runs, or when there is none to run.
func (w World) serve() (p Plan, busy bool) {
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
	case here.Bundle != w.State.Bundle && canFallBack: // damaged or gone: not the bundle's fault
		back := Plan{Step: Step{Switch, there, fallback.Target}, Why: "the bundle in slot " + slot +
			" was damaged or is gone", Phase: delivery.DeviceStarting}
		return w.after(back, w.Slots[there].NotBefore), true
	case here.Bundle != w.State.Bundle:
		return Plan{Step: Step{Do: Forget}, Why: "its files are gone from slot " + slot}, true
	case !w.proven() && here.Crashes == 0 && (w.Starting || w.State.Tries < maxTries):
		return w.after(start, here.NotBefore), true
	case !w.proven():
		if w.Trouble == "" {
			fallback.Why = "the device went down each time that it was tried"
		}
		if canFallBack {
			return w.after(fallback, w.Slots[there].NotBefore), true
		}
		return Plan{Step: Step{Do: GiveUp}, Why: fallback.Why}, true
	case here.Crashes <= maxCrashes && here.Held == "":
		return start, true
	case canFallBack && w.Slots[there].Crashes <= maxCrashes:
		return fallback, true
	}
	return w.after(start, here.NotBefore), true
}

// after puts a step off until a time.
func (w World) after(p Plan, t time.Time) Plan {
	if w.At.Before(t) {
		return Plan{Step: Step{Do: Rest}, Why: p.Why, Phase: p.Phase, Until: t}
	}
	return p
}

// release is the version number under which a bundle is known.
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

// follow does what the document says.
func (w World) follow() Plan {
	want, why := w.want()
	rest := Plan{Step: Step{Do: Rest}, Why: why}
	if want.Bundle == "" {
		if w.Desired != nil && why != notYet {
			rest.Held = why
		}
		return w.soak(rest)
	}
	if want.Bundle == w.State.Bundle && w.State.Slot != "" {
		if want.Version != w.State.Release {
			return Plan{Step: Step{Do: Relabel, Target: want}}
		}
		return w.soak(rest)
	}
	if w.failed(want.Bundle) {
		rest.Why = "bundle " + want.Bundle.Short() + " failed here, and is not tried again until the document changes"
		if back := w.refuge(); back.Bundle != "" {
			return w.bring(back)
		}
		return w.soak(rest)
	}
	if !w.At.Before(w.Desired.Expires) {
		rest.Why = "the document has expired: nothing is installed"
		rest.Held = fmt.Sprintf("the document expired at %s, and this device's clock says %s: nothing is installed",
			w.Desired.Expires.UTC().Format(time.RFC3339), w.At.UTC().Format("2006-01-02T15Z"))
		return w.soak(rest)
	}
	return w.bring(want)
}

// refuge is what to serve where nothing serves, and what the document wants has
// failed here: the last bundle that is known to be good. It may have to be
// fetched again, as its slot may have been damaged.
func (w World) refuge() (t delivery.Target) {
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

// bring gets a bundle into service: from a slot that holds it, or from the server.
func (w World) bring(want delivery.Target) Plan {
	for _, slot := range []string{"a", "b"} {
		if slot != w.State.Slot && w.Slots[slot].Bundle == want.Bundle {
			return w.after(Plan{Step: Step{Switch, slot, want}, Phase: delivery.DeviceStarting},
				w.Slots[slot].NotBefore)
		}
	}
	free := w.free()
	if back := w.Slots[free].Bundle; w.State.Slot != "" && !w.proven() && w.good(back) {
		// The only bundle known to be good is where the download would go. It
		// serves again first, and the one that never passed its soak makes room.
		return Plan{Step: Step{Switch, free, delivery.Target{Version: w.release(back), Bundle: back}},
			Phase: delivery.DeviceDownloading}
	}
	fetch := Plan{Step: Step{Fetch, free, want}, Phase: delivery.DeviceDownloading}
	if w.Fetch.Bundle == want.Bundle {
		return w.after(fetch, w.Fetch.NotBefore)
	}
	return fetch
}

// want is what the document gives this device; nothing, and why, where that is
// to keep what it runs.
func (w World) want() (t delivery.Target, why string) {
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

// soak calls what serves good once it has served long enough. It is a health
// check after the soak that ends it, not the clock: what died a moment ago is not
// good.
func (w World) soak(rest Plan) Plan {
	if !w.Serving || w.proven() || w.Desired == nil {
		return rest
	}
	if w.Soaked < time.Duration(w.Desired.Soak) {
		return rest // until a later check comes out well
	}
	return Plan{Step: Step{Do: Prove}}
}

// free is the slot for the next download: never the one that serves; of two
// that do not, the one that holds nothing good.
func (w World) free() string {
	if w.State.Slot != "" {
		return other(w.State.Slot)
	}
	if w.good(w.Slots["a"].Bundle) {
		return "b"
	}
	return "a"
}
