package plan

// This file finds what a fleet gets of a release: the bundle of the variant that its file names. A fleet never gets
// another variant. While a release has no such variant, the fleet goes on with what it runs, and main's commit, pull
// requests and aob status say why.

import (
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// shipped returns a release with the bundle that a fleet gets in place of FP32's. It says why the fleet cannot have it:
// the release has no such variant, or that variant is in quarantine.
func (m *maker) shipped(f delivery.Fleet, r delivery.Release) (_ delivery.Release, why delivery.Fact) {
	variant := f.Ships()
	if variant == delivery.FP32 {
		return r, delivery.Fact{}
	}
	a, _ := m.w.Evidence.acceptance(m.w.names(f.Runs), func(a delivery.Acceptance) bool {
		return a.Version == r.Version && a.Bundle == r.Bundle
	})
	v := values{Fleet: f.Name, Model: f.Runs, Version: r.Version, Variant: variant}
	bundle, ok := a.As(variant)
	if !ok {
		mdl, there := m.w.Main.Intent.Models.Get(f.Runs)
		if there && mdl.SpecDigest() == r.Spec && !slices.Contains(mdl.Variants, variant) {
			return r, fact(code.VariantUndeclared, v)
		}
		return r, fact(code.VariantUnreleased, v)
	}
	if q, is := m.quarantined(m.w.names(f.Runs), bundle); is {
		return r, q.why.In(code.VariantQuarantined, v)
	}
	r.Bundle = bundle
	return r, delivery.Fact{}
}

// allShipped returns the releases that a fleet can have, with the bundles that it gets.
func (m *maker) allShipped(f delivery.Fleet, list []delivery.Release) []delivery.Release {
	var has []delivery.Release
	for _, r := range list {
		if ships, why := m.shipped(f, r); why.IsZero() {
			has = append(has, ships)
		}
	}
	return has
}

// keepsRelease says that a fleet goes on with the release that its published document names, as it cannot have the one
// that its file asks for, and returns the fleet as it runs now. If it must not run that either, it goes back to the
// newest of the releases that it can have. It reports false if there is none.
func (m *maker) keepsRelease(r *FleetReport, f delivery.Fleet, releases []delivery.Release, why delivery.Fact) (
	_ delivery.Fleet, has delivery.Release, ok bool) {
	stays := values{Fleet: f.Name}
	if d, known := m.w.Published[f.Name]; known && d.Release.Bundle != "" {
		has, ok = *m.published(d), true
	}
	if can := m.allShipped(f, releases); ok && f.Version == 0 && len(can) > 0 &&
		slices.Contains(m.aborted(f), has.Bundle) {
		has = can[0]
	}
	if ok {
		stays.FromModel, stays.FromVersion = has.Name, has.Version
		stays.FromVariant, _ = m.variantOf(has.Bundle)
		f.Runs, f.Version, f.Variant = has.Name, 0, stays.FromVariant
		r.Model = has.Name
	}
	r.Stays = failed(why.In(code.FleetKeepsRelease, stays))
	return f, has, ok
}

// variantOf returns which variant of an accepted release a bundle is.
func (m *maker) variantOf(bundle delivery.Digest) (variant string, ok bool) {
	a, ok := m.releaseOf(bundle)
	variant, _ = a.Variant(bundle)
	return variant, ok
}

// fp32Of returns the FP32 bundle of the accepted release that has a bundle as a variant; any other bundle itself.
func (m *maker) fp32Of(bundle delivery.Digest) delivery.Digest {
	if a, ok := m.releaseOf(bundle); ok {
		return a.Bundle
	}
	return bundle
}

// releaseOf returns an accepted release that has a bundle.
func (m *maker) releaseOf(bundle delivery.Digest) (a delivery.Acceptance, ok bool) {
	if list := m.releasesOf(bundle); len(list) > 0 {
		return list[0], true
	}
	return a, false
}

// releasesOf lists the accepted releases that have a bundle.
func (m *maker) releasesOf(bundle delivery.Digest) []delivery.Acceptance {
	return m.w.Evidence.acceptancesOf(bundle)
}

// withVariants adds the variants of releases whose FP32 bundle is in a list.
func (m *maker) withVariants(list []delivery.Digest) []delivery.Digest {
	all := slices.Clone(list)
	for _, bundle := range list {
		for _, a := range m.releasesOf(bundle) {
			if a.Bundle != bundle {
				continue // it is the release of another bundle, of which this one is a variant
			}
			for _, v := range a.Variants {
				if !slices.Contains(all, v.Bundle) {
					all = append(all, v.Bundle)
				}
			}
		}
	}
	return all
}

// variantsByFiles lists the bundles that main's release files, now or before, name as variants of the bundles in a
// list. They count where no signed acceptance can be read that says what a bundle is of.
func (m *maker) variantsByFiles(list []delivery.Digest) (variants []delivery.Digest) {
	add := func(r delivery.Release) {
		for _, v := range r.Variants {
			if slices.Contains(list, r.Bundle) && len(m.releasesOf(v.Bundle)) == 0 {
				variants = append(variants, v.Bundle)
			}
		}
	}
	for _, model := range slices.Sorted(maps.Keys(m.w.Main.Quarantine)) {
		if r, ok := m.w.Main.Intent.Releases.Get(model); ok {
			add(r)
		}
		for _, past := range m.history(model) {
			if past.Release != nil {
				add(*past.Release)
			}
		}
	}
	return variants
}

// variantNamed returns the variant of a fleet for its facts; empty for FP32, which needs no word.
func variantNamed(variant string) string {
	if variant == delivery.FP32 {
		return ""
	}
	return variant
}

// lackingFleets says which fleets keep what they run when a release of a model is merged: those whose variant it does
// not have. missing says why it does not have a variant; zero if it has.
func lackingFleets(p Proposal, model string, missing func(f delivery.Fleet) delivery.Fact) (list []delivery.Fact) {
	for _, name := range p.Merged.Fleets.Names() {
		f := p.Merged.Fleets.Of(name)
		if f.Runs != model || f.Version > 0 {
			continue
		}
		if why := missing(f); !why.IsZero() {
			list = append(list, why.In(code.FleetLacks, values{Fleet: name}))
		}
	}
	return list
}

// lacks returns what lackingFleets needs for a release that main has accepted.
func (m *maker) lacks(r delivery.Release) func(f delivery.Fleet) delivery.Fact {
	return func(f delivery.Fleet) delivery.Fact {
		_, why := m.shipped(f, r)
		return why
	}
}

// lacking adds to a model's report which fleets keep what they run; see lackingFleets.
func (r ModelReport) lacking(p Proposal, missing func(f delivery.Fleet) delivery.Fact) ModelReport {
	list := lackingFleets(p, r.Model, missing)
	if r.State == delivery.CheckFailure || len(list) == 0 {
		return r
	}
	r.Fact = several(append([]delivery.Fact{r.Fact}, list...)...)
	r.Fleets = slices.DeleteFunc(slices.Clone(r.Fleets), func(follows delivery.Fact) bool {
		return slices.ContainsFunc(list, func(lacks delivery.Fact) bool { return lacks.Fleet == follows.Fleet })
	})
	return r
}

// missingOf says why a candidate's release does not have a fleet's variant; zero if it has. version is that of the
// release.
func (r *ModelReport) missingOf(mdl delivery.Model, f delivery.Fleet) delivery.Fact {
	variant := f.Ships()
	v, listed := delivery.Find(r.Variants, func(v ModelVariant) bool { return v.Variant == variant })
	say := values{Fleet: f.Name, Model: r.Model, Variant: variant}
	switch {
	case variant == delivery.FP32, listed && v.Passed:
		return delivery.Fact{}
	case listed:
		return v.Fact.In(code.OfVariant, values{Names: []string{variant}})
	case r.Release != nil && slices.Contains(mdl.Variants, variant):
		if slices.ContainsFunc(r.Release.Variants, func(v delivery.ReleasedVariant) bool {
			return v.Variant == variant
		}) {
			return delivery.Fact{}
		}
		say.Version = r.Release.Version
		return fact(code.VariantUnreleased, say)
	}
	return fact(code.VariantUndeclared, say)
}

// changedFleetsLack says which fleets that a proposal adds or changes cannot have what their files ask for once it is
// merged, or what must be known before that can be said. Other fleets block nothing: they keep what they run.
func (m *maker) changedFleetsLack(p Proposal, models []ModelReport) (failing, waiting []delivery.Fact) {
	if p.Landed {
		return nil, nil
	}
	unread := !m.w.MainUnknown().IsZero() // a pull request that mends main must not wait for main
	for _, name := range p.Merged.Fleets.Names() {
		f := p.Merged.Fleets.Of(name)
		before, there := m.w.Main.Intent.Fleets.Get(name)
		if f.Ships() == delivery.FP32 || there && before.Runs == f.Runs && before.Version == f.Version &&
			before.Ships() == f.Ships() {
			continue
		}
		var why delivery.Fact
		mr, changed := delivery.Find(models, func(mr ModelReport) bool { return mr.Model == f.Runs })
		switch unknown := m.whyFleetWaits(f); {
		case changed && f.Version == 0 && mr.Release == nil && mr.State != delivery.CheckSuccess:
			continue // it waits or fails already
		case changed && f.Version == 0 && mr.Release != nil && m.w.Evidence.accepted(*mr.Release):
			_, why = m.shipped(f, *mr.Release)
		case changed && f.Version == 0 && mr.Release != nil:
			why = mr.missingOf(p.Merged.Models.Of(f.Runs), f)
		case unread:
			why = m.lacksInTree(p.Merged, f)
		case !unknown.IsZero():
			waiting = append(waiting, unknown.In(code.OfFleet, values{Fleet: name}))
			continue
		default:
			if target, ok := m.target(f); ok {
				_, why = m.shipped(f, target)
			} else if why = undeclared(p.Merged, f); !why.IsZero() {
				failing = append(failing, why)
				continue
			}
		}
		if !why.IsZero() {
			failing = append(failing, why.In(code.OfFleet, values{Fleet: name}))
		}
	}
	return failing, waiting
}

// lacksInTree says why the release that a tree names does not have a fleet's variant, by its files alone; zero if it
// has, if the fleet is pinned, or if that release is in quarantine and another one follows.
func (m *maker) lacksInTree(in delivery.Intent, f delivery.Fleet) delivery.Fact {
	release, named := in.Releases.Get(f.Runs)
	if !named || f.Version > 0 || slices.ContainsFunc(release.Variants, func(v delivery.ReleasedVariant) bool {
		return v.Variant == f.Ships()
	}) {
		return delivery.Fact{}
	}
	say := values{Fleet: f.Name, Model: f.Runs, Version: release.Version, Variant: f.Ships()}
	if !slices.Contains(in.Models.Of(f.Runs).Variants, f.Ships()) {
		return fact(code.VariantUndeclared, say)
	}
	if _, is := m.quarantined(m.w.names(f.Runs), release.Bundle); is {
		return delivery.Fact{}
	}
	return fact(code.VariantUnreleased, say)
}

// UndeclaredVariants warns about fleets that ask for a variant which their model's file does not list. A fleet that is
// pinned to a version may have it of that version.
func UndeclaredVariants(in delivery.Intent) (list []delivery.Fact) {
	for _, name := range in.Fleets.Names() {
		if why := undeclared(in, in.Fleets.Of(name)); !why.IsZero() {
			list = append(list, why)
		}
	}
	return list
}

// undeclared says that a fleet asks for a variant which its model's file does not list; zero if the file lists it, or
// if the fleet is pinned.
func undeclared(in delivery.Intent, f delivery.Fleet) delivery.Fact {
	if f.Version > 0 || f.Ships() == delivery.FP32 {
		return delivery.Fact{} // the model's file is not read
	}
	mdl, there := in.Models.Get(f.Runs)
	if !there || slices.Contains(mdl.Variants, f.Ships()) {
		return delivery.Fact{}
	}
	return fact(code.VariantUndeclared, values{Fleet: f.Name, Model: f.Runs, Variant: f.Ships()}).
		In(code.OfFleet, values{Fleet: f.Name})
}
