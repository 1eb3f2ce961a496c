package plan

// This file finds how fast bundles are on the hardware of fleets, by the signed evidence, and asks bench devices for
// what is missing.

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
)

// benches sets what a gate's checks of latency need: the hardware profiles of main's fleets that run this variant of
// the model, those that run other variants alone, and what is known of the bundle on the profiles that the gate is
// about. A pull request does not choose the profiles.
func (m *maker) benches(in *gate.Input, g delivery.Gate, ask bool) {
	names, variant := m.w.names(in.Model), m.formatOf(in.Bundle)
	mine, others := map[string]bool{}, map[string]string{}
	for _, name := range m.fleetsRunning(names) {
		f := m.w.Main.Intent.Fleets.Of(name)
		for profile := range f.Profiles {
			if f.Ships() == variant {
				mine[profile] = true
			} else {
				others[profile] = f.Ships()
			}
		}
	}
	maps.DeleteFunc(others, func(profile, _ string) bool { return mine[profile] })
	in.Profiles, in.Others = slices.Sorted(maps.Keys(mine)), others
	for _, profile := range gate.LatencyProfiles(g.Checks, in.Profiles, in.Others) {
		if in.Benches == nil {
			in.Benches = map[string]gate.Benched{}
		}
		in.Benches[profile] = m.bench(in.Bundle, profile, ask)
	}
}

// formatOf returns which variant of a model a bundle is, also before it is released.
func (m *maker) formatOf(bundle delivery.Digest) string {
	if variant, ok := m.variantOf(bundle); ok {
		return variant
	}
	bundle = m.w.Evidence.resolvedOf(bundle)
	if v, ok := m.w.Evidence.variantOf(bundle); ok {
		return v.Input.Variant
	}
	return delivery.FP32
}

// profilesOf lists the hardware profiles of main's fleets that run a model, which has these names.
func (m *maker) profilesOf(names []string) []string {
	all := map[string]bool{}
	for _, name := range m.fleetsRunning(names) {
		for profile := range m.w.Main.Intent.Fleets.Of(name).Profiles {
			all[profile] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// fleetsRunning lists main's fleets that run a model, which has these names.
func (m *maker) fleetsRunning(names []string) []string {
	var fleets []string
	for _, name := range names {
		fleets = append(fleets, m.w.Main.Intent.Fleets.Keyed(name)...)
	}
	slices.Sort(fleets)
	return fleets
}

// maxBenches is how often a bench device measures a bundle whose benches say nothing.
const maxBenches = 3

// bench finds the newest bench of a bundle on a profile that says something, or says why none counts.
func (m *maker) bench(bundle delivery.Digest, profile string, ask bool) gate.Benched {
	var found *delivery.Bench
	sound, stale, attempts := false, false, 0
	for _, b := range m.w.Evidence.Benches[bundle] {
		if b.Profile != profile || b.Settings.Version != delivery.BenchVersion || b.Settings.Pictures != "" {
			continue
		}
		attempts++
		if m.staleBench(b) {
			stale = true
			continue
		}
		if ok := b.Fault("p95") == delivery.BenchSound; found == nil || ok || !sound {
			found, sound = &b, ok
		}
	}
	missing := values{Bundle: bundle, Names: []string{profile},
		Command: "aob bench " + string(bundle) + " --profile " + profile + " --sign"}
	if ask && !sound && (stale || attempts < maxBenches) {
		if why := m.askBench(bundle, profile, attempts, &missing); !why.IsZero() {
			return gate.Benched{Why: why}
		}
	}
	switch {
	case found != nil:
		return gate.Benched{Bench: found}
	case stale:
		return gate.Benched{Why: fact(code.BenchStale, missing)}
	}
	return gate.Benched{Why: fact(code.BenchMissing, missing)}
}

// fasterOn says how many times as fast a variant is as its model, on each of some hardware profiles where the signed
// benches show that it is faster. The newest two count that one machine made of both with the same settings.
func (m *maker) fasterOn(profiles []string, fp32, variant delivery.Digest) map[string]float64 {
	faster, newest := map[string]float64{}, map[string]time.Time{}
	for _, b := range m.w.Evidence.Benches[variant] {
		for _, a := range m.w.Evidence.Benches[fp32] {
			at := a.At
			if b.At.After(at) {
				at = b.At
			}
			if !slices.Contains(profiles, b.Profile) || !b.ComparesWith(a) || m.staleBench(a) || m.staleBench(b) ||
				at.Before(newest[b.Profile]) {
				continue
			}
			newest[b.Profile] = at
			delete(faster, b.Profile)
			if times, ok := b.FasterThan(a); ok {
				faster[b.Profile] = round(times)
			}
		}
	}
	return faster
}

// staleBench reports whether a bench device had other settings or software when it last measured anything on this
// profile.
func (m *maker) staleBench(b delivery.Bench) bool {
	if b.Device == "" {
		return false
	}
	last := b
	for _, list := range m.w.Evidence.Benches {
		for _, other := range list {
			if other.Fleet == b.Fleet && other.Device == b.Device && other.Profile == b.Profile &&
				other.At.After(last.At) {
				last = other
			}
		}
	}
	return last.Machine.Settings() != b.Machine.Settings()
}

// askBench asks a bench device of a fleet with the profile to measure a bundle, takes its answer, or says what it waits
// for. It is zero if there is no such device, or if the answer is signed; device and fleet in what are then filled in
// where one was asked.
func (m *maker) askBench(bundle delivery.Digest, profile string, attempt int, what *values) (why delivery.Fact) {
	m.isLive() // devices are heard, and answer
	var busy delivery.Fact
	for _, name := range m.w.Main.Intent.Fleets.Names() {
		f := m.w.Main.Intent.Fleets.Of(name)
		for _, d := range m.benchDevices(f, profile) {
			r := delivery.BenchRequest{Ring: name, Device: d.Report.Device, Attempt: attempt,
				BenchRun: delivery.BenchRun{Bundle: bundle, Profile: profile, Settings: delivery.GateBench()}}
			of := values{Bundle: bundle, Names: []string{profile}, Fleet: name, Device: r.Device}
			asked, ok := delivery.Find(m.w.Asked, func(a delivery.BenchAsked) bool {
				return a.Request.Ring == name && a.Request.Device == r.Device
			})
			same := ok && asked.Request.Key() == r.Key()
			open := ok && asked.Answer == nil && m.w.At.Before(asked.Request.Expires)
			switch {
			case same && asked.Answer != nil && asked.Answer.Bench != nil:
				b := *asked.Answer.Bench
				b.Fleet, b.Device = name, r.Device
				m.step(Sign{Bundle: bundle, Type: delivery.BenchType, Predicate: b, Of: profile})
				return fact(code.BenchSigning, of)
			case same && asked.Answer != nil && m.w.At.Before(asked.Request.Expires):
				of.Text = asked.Answer.Why
				m.wake(asked.Request.Expires) // then it is asked again
				busy = orFact(busy, fact(code.BenchFailed, of))
				continue // another device may be able to
			case open && !same:
				of.Bundle = asked.Request.Bundle
				busy = orFact(busy, fact(code.BenchQueued, of))
				continue
			case m.asking[name+"/"+r.Device] != "" && m.asking[name+"/"+r.Device] != r.Key():
				busy = orFact(busy, fact(code.BenchQueued, of))
				continue
			}
			if m.asking == nil {
				m.asking = map[string]delivery.Digest{}
			}
			m.asking[name+"/"+r.Device] = r.Key()
			if !open {
				m.step(AskBench{Request: r})
			} else {
				m.wake(asked.Request.Expires)
			}
			what.Fleet, what.Device = name, r.Device
			return fact(code.BenchMissing, *what)
		}
	}
	return busy
}

// orFact returns the first of two facts that is one.
func orFact(a, b delivery.Fact) delivery.Fact {
	if a.IsZero() {
		return b
	}
	return a
}

// benchDevices lists the devices of a fleet that measure on a profile and were heard of lately, by name. A device that
// is in the fleet but does not have the labels of bench: is never asked.
func (m *maker) benchDevices(f delivery.Fleet, profile string) (list []delivery.Device) {
	p, ok := f.Profiles[profile]
	if f.Bench == nil || len(f.Bench.Match) == 0 || !ok {
		return nil
	}
	for _, d := range m.w.Devices[f.Name] {
		labels := d.Report.Labels
		has := func(want map[string]string) bool {
			for k, v := range want {
				if got, ok := labels[k]; !ok || got != v {
					return false
				}
			}
			return true
		}
		if has(f.Match) && has(f.Bench.Match) && labels["board"] == p.Board &&
			m.w.At.Sub(d.LastHeard) <= time.Duration(m.w.Server.Deadline) {
			list = append(list, d)
		}
	}
	slices.SortFunc(list, func(a, b delivery.Device) int { return cmp.Compare(a.Report.Device, b.Report.Device) })
	return list
}
