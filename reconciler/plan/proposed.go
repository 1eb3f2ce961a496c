package plan

// This file finds what a pull request changes about gates, fleets and quarantines.

import (
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// shortenedQuarantine says which quarantine entry a proposal removes, of its base or of main. Entries are only added,
// or lifted with a reason that stays in the file.
func (m *maker) shortenedQuarantine(p Proposal) delivery.Fact {
	if where, is := shortened(p.Base, p.Intent); is {
		return fact(code.EntryRemoved, where)
	}
	where, is := shortened(m.w.Main.Intent, p.Merged)
	if where.Branch = m.w.Main.Branch; is {
		return fact(code.EntryWouldBeRemoved, where)
	}
	return delivery.Fact{}
}

// changedQuarantines returns the bundles that a proposal quarantines or lifts.
func changedQuarantines(p Proposal) []delivery.Fact {
	var list []delivery.Fact
	changed := p.Base.Quarantines.Changed(p.Intent.Quarantines, func(name string) bool {
		return sameBlob(p, "models/"+name+".quarantine.yaml")
	})
	for _, name := range changed {
		if !p.Intent.Quarantines.Has(name) {
			continue
		}
		base, head := p.Base.Quarantines.Of(name), p.Intent.Quarantines.Of(name)
		var done []delivery.Digest
		for _, e := range slices.Concat(base.Entries, head.Entries) {
			if slices.Contains(done, e.Digest) {
				continue
			}
			done = append(done, e.Digest)
			_, before := base.Forbids(e.Digest)
			why, after := head.Forbids(e.Digest)
			switch {
			case after && !before:
				v := values{Bundle: e.Digest, Model: name, Text: why}
				if release, ok := p.Merged.Releases.Get(name); ok && release.Bundle == e.Digest {
					v.Version = release.Version
				}
				forbids := fact(code.BundleForbidden, v)
				named := p.Merged.Releases.Of(name)
				of := func(v delivery.ReleasedVariant) bool { return v.Bundle == e.Digest }
				if variant, ok := delivery.Find(named.Variants, of); ok {
					forbids.Code, forbids.Variant = code.BundleVariantForbidden, variant.Variant
					forbids.Version = named.Version
				}
				list = append(list, forbids)
			case !after && (before || head.Lifts(e.Digest) > base.Lifts(e.Digest)): // fleets try it again
				list = append(list, fact(code.BundleLifted,
					values{Bundle: e.Digest, Model: name, Text: lifted(head, e.Digest)}))
			}
		}
	}
	// Files that cannot be read: their entries are unknown.
	for _, path := range p.Base.Files.Changed(p.Intent.Files, func(path string) bool { return sameBlob(p, path) }) {
		name, ok := strings.CutSuffix(strings.TrimPrefix(path, "models/"), ".quarantine.yaml")
		if ok && p.Base.Files.Has(path) && !p.Base.Quarantines.Has(name) && !sameBlob(p, path) {
			list = append(list, fact(code.QuarantineUnread, values{File: path}))
		}
	}
	return list
}

// lifted returns the reason of a bundle's last lift.
func lifted(q delivery.Quarantine, bundle delivery.Digest) (why string) {
	for _, e := range q.Entries {
		if e.Digest == bundle && e.Lifted != "" {
			why = e.Lifted
		}
	}
	return why
}

// changedGates lists the gates that a proposal adds, changes or removes.
func changedGates(p Proposal) []string {
	return p.Base.Gates.Changed(p.Intent.Gates, func(name string) bool {
		return sameBlob(p, "gates/"+name+".yaml") || p.Base.Gates.Of(name).Digest() == p.Intent.Gates.Of(name).Digest()
	})
}

// changedFleets returns what a proposal changes about fleets.
func changedFleets(p Proposal) []delivery.Fact {
	var list []delivery.Fact
	names := p.Base.Fleets.Changed(p.Intent.Fleets, func(name string) bool {
		return sameBlob(p, "fleets/"+name+".yaml")
	})
	for _, name := range names {
		head, there := p.Intent.Fleets.Get(name)
		if !there {
			continue
		}
		base, ok := p.Base.Fleets.Get(name)
		switch {
		case !ok:
			list = append(list, fact(code.FleetNew, values{Fleet: name, Model: head.Runs, Version: head.Version,
				Variant: variantNamed(head.Ships())}))
		case delivery.DigestOf("fleet", base) != delivery.DigestOf("fleet", head):
			f := fact(code.FleetChanged, values{Fleet: name, Model: head.Runs, Version: head.Version,
				Names: waves(head), Lasts: head.Soak, Paused: head.Paused})
			if base.Runs != head.Runs || base.Version != head.Version || base.Ships() != head.Ships() {
				f.Code, f.FromModel, f.FromVersion = code.FleetRepointed, base.Runs, base.Version
				if base.Ships() != head.Ships() {
					f.FromVariant, f.Variant = base.Ships(), head.Ships()
				}
			}
			list = append(list, f)
		}
	}
	for _, name := range names {
		if _, ok := p.Intent.Fleets.Get(name); !ok {
			list = append(list, fact(code.FleetRemoved, values{Fleet: name}))
		}
	}
	return list
}

// fleetsOf returns the fleets that follow a model's release, and how they roll it out.
func fleetsOf(p Proposal, model string) []delivery.Fact {
	var list []delivery.Fact
	for _, name := range p.Merged.Fleets.Keyed(model) {
		f := p.Merged.Fleets.Of(name)
		variant := variantNamed(f.Ships())
		follows := fact(code.FleetFollows, values{Fleet: name, Variant: variant, Names: waves(f), Lasts: f.Soak})
		if variant != "" && f.Target != TargetOfServer {
			follows.Text = f.Target // the times of variants are not measured there
		}
		switch {
		case f.Version > 0:
			follows = fact(code.FleetPinned, values{Fleet: name, Version: f.Version, Variant: variant})
		case f.Paused:
			follows = fact(code.FleetPaused, values{Fleet: name, Variant: variant})
		}
		list = append(list, follows)
	}
	return list
}

func waves(f delivery.Fleet) []string { return delivery.Each(f.Waves, delivery.Wave.String) }
