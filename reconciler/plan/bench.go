package plan

// This file finds how fast bundles are on the hardware of fleets, by the signed evidence.

import (
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
)

// benches returns the hardware profiles of main's fleets that run a model, and what is known of a bundle on the
// profiles that a gate is about. A pull request does not choose the profiles.
func (m *maker) benches(model string, bundle delivery.Digest, g delivery.Gate) ([]string, map[string]gate.Benched) {
	names := m.w.names(model)
	all := map[string]bool{}
	for _, f := range m.w.Main.Intent.Fleets {
		if slices.Contains(names, f.Runs) {
			for profile := range f.Profiles {
				all[profile] = true
			}
		}
	}
	profiles := slices.Sorted(maps.Keys(all))
	var known map[string]gate.Benched
	for _, profile := range gate.LatencyProfiles(g.Checks, profiles) {
		if known == nil {
			known = map[string]gate.Benched{}
		}
		known[profile] = m.bench(bundle, profile)
	}
	return profiles, known
}

// bench finds the newest bench of a bundle on a profile that says something, or says why none counts.
func (m *maker) bench(bundle delivery.Digest, profile string) gate.Benched {
	var found *delivery.Bench
	for _, b := range m.w.Evidence.Benches[bundle] {
		if b.Profile != profile || b.Settings.Version != delivery.BenchVersion || b.Settings.Pictures != "" {
			continue
		}
		sound := b.Fault("p95") == delivery.BenchSound
		if found == nil || sound || found.Fault("p95") != delivery.BenchSound {
			found = &b
		}
	}
	if found != nil {
		return gate.Benched{Bench: found}
	}
	return gate.Benched{Why: fact(code.BenchMissing, values{Bundle: bundle, Names: []string{profile},
		Command: "aob bench " + string(bundle) + " --profile " + profile + " --sign"})}
}
