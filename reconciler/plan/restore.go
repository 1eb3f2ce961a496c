package plan

import (
	"cmp"
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/rollout"
)

// Restored rebuilds a fleet's published document when it is lost, so that the fleet keeps its gates and its devices
// keep what they run. The content comes from the fleet's clock, or else from what most devices report. It has version
// 0, so it is published again.
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
			return d, false // unknown, or a release of the named model, whose waves begin again
		}
		d.Share, d.Salt = 1, rollout.Salt(f.Name, d.Release.Bundle)
	}
	others := slices.Sorted(maps.Keys(w.Evidence.Accepted))
	d.Model = cmp.Or(d.Model, w.acceptedAs(slices.Concat(w.names(f.Runs), others), d.Release.Bundle))
	return d, d.Model != ""
}

// mostRun returns the release that most devices of a fleet report.
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

// acceptedAs returns the first of some models of which main has accepted a bundle, or as a variant of a release; empty
// for none.
func (w World) acceptedAs(models []string, bundle delivery.Digest) string {
	a, _ := w.Evidence.acceptance(models, func(a delivery.Acceptance) bool {
		_, is := a.Variant(bundle)
		return is
	})
	return a.Model
}

// acceptance returns main's first accepted release of some models for which is returns true.
func (e Evidence) acceptance(models []string, is func(delivery.Acceptance) bool) (delivery.Acceptance, bool) {
	for _, name := range models {
		if a, ok := delivery.Find(e.Accepted[name], is); ok {
			return a, true
		}
	}
	return delivery.Acceptance{}, false
}
