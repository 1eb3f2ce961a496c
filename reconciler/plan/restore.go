package plan

import (
	"cmp"
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/rollout"
)

// Restored says what a fleet was told to run last, where its published document is lost. A fleet whose document is lost
// is not a new one: it still has a bar, and its devices keep what they run. The fleet's clock says what it was told, or
// else most of its devices do by what they run. The document has no version, so it is published anew.
func Restored(w World, f delivery.Fleet) (delivery.Desired, bool) {
	d := delivery.Desired{Ring: f.Name, Match: f.Match, Soak: f.Soak}
	clock := w.Clocks[f.Name]
	switch {
	case clock.Target.Bundle != "":
		d.Model, d.Release, d.Previous = clock.Model, clock.Target, clock.Base
		d.Share, d.Salt = clock.Share, clock.Salt
	case clock.Base != nil: // the fleet fell back to it
		d.Release, d.Share, d.Salt = *clock.Base, 1, rollout.Salt(f.Name, clock.Base.Bundle)
	default:
		d.Release = w.mostRun(f)
		if d.Release.Bundle == "" || w.acceptedAs(w.names(f.Runs), d.Release.Bundle) != "" {
			return d, false // nothing is known, or it is main's own model, and its waves begin again
		}
		d.Share, d.Salt = 1, rollout.Salt(f.Name, d.Release.Bundle)
	}
	others := slices.Sorted(maps.Keys(w.Evidence.Accepted))
	d.Model = cmp.Or(d.Model, w.acceptedAs(slices.Concat(w.names(f.Runs), others), d.Release.Bundle))
	return d, d.Model != ""
}

// mostRun is the release that most devices of a fleet say they run.
func (w World) mostRun(f delivery.Fleet) (most delivery.Target) {
	count := map[delivery.Digest]int{}
	for _, d := range w.Devices[f.Name] {
		if b := d.Report.Bundle; b != "" {
			count[b]++
			if n := count[b]; n > count[most.Bundle] || n == count[most.Bundle] && b < most.Bundle {
				most = delivery.Target{Version: d.Report.Release, Bundle: b}
			}
		}
	}
	return most
}

// acceptedAs is the first of some models of which main has accepted a bundle; empty for none.
func (w World) acceptedAs(models []string, bundle delivery.Digest) string {
	for _, name := range models {
		if slices.ContainsFunc(w.Evidence.Accepted[name],
			func(a delivery.Acceptance) bool { return a.Bundle == bundle }) {
			return name
		}
	}
	return ""
}
