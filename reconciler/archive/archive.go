package archive

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/evidence"
	"github.com/autonomos/aob/reconciler/plan"
)

// An Archive is bundles and what is signed about them, as a plan reads it. It
// belongs to the loop's goroutine.
type Archive struct {
	Bundles    *artifact.Store
	Statements *evidence.Store

	described map[delivery.Digest]plan.Bundle
	last      *evidence.Snapshot // what index was made of
	index     plan.Evidence
	told      map[delivery.Digest]bool
	// Tell is called once for each bundle or statement that does not count, with the reason;
	// it may be nil.
	Tell func(what delivery.Digest, why string)
}

// Sign signs a statement about a bundle.
func (a *Archive) Sign(ctx context.Context, bundle delivery.Digest, predicateType string, predicate any) error {
	return a.Statements.Sign(ctx, bundle, predicateType, predicate)
}

// Evidence returns what is signed. Scores, which are large, are those of the
// bundles that the world's open questions are about.
func (a *Archive) Evidence(ctx context.Context, w plan.World) (plan.Evidence, error) {
	s, err := a.Statements.Load(ctx)
	if err != nil {
		return plan.Evidence{}, err
	}
	if s != a.last {
		a.last, a.index = s, indexed(s)
		a.tell(s.Skipped)
	}
	e := a.index
	if e.Bundles, err = a.bundles(ctx); err != nil {
		return e, err
	}
	wanted := scored(w, s)
	if len(wanted) > 0 {
		var skipped []evidence.Skipped
		if e.Scores, skipped, err = a.Statements.Scores(ctx, wanted); err != nil {
			return e, err
		}
		a.tell(skipped)
	}
	return e, nil
}

// tell passes on what does not count, each once.
func (a *Archive) tell(list []evidence.Skipped) {
	for _, s := range list {
		if a.Tell == nil || a.told[s.Referrer] {
			continue
		}
		if a.told == nil {
			a.told = map[delivery.Digest]bool{}
		}
		a.told[s.Referrer] = true
		a.Tell(s.Referrer, s.Why)
	}
}

// indexed arranges a snapshot as plans read it.
func indexed(s *evidence.Snapshot) plan.Evidence {
	e := plan.Evidence{BySpec: map[delivery.Digest]plan.Trained{}, ByRun: map[delivery.Digest]plan.Trained{},
		Resolved: s.Resolved, Verdicts: s.Verdicts, Accepted: s.AcceptancesOf, Newer: s.Newer}
	for spec, list := range s.TrainingsOf {
		// The first is what the spec was resolved to; a later one is another
		// server's, and both are the same model.
		e.BySpec[spec] = plan.Trained{Bundle: list[0].Result.Bundle, Training: list[0]}
	}
	for key, t := range s.Trainings {
		e.ByRun[key] = plan.Trained{Bundle: t.Result.Bundle, Training: t}
	}
	for _, list := range s.ReleasesOf {
		e.Releases = append(e.Releases, list...)
	}
	for _, list := range s.AbortsOf {
		e.Aborts = append(e.Aborts, list...)
	}
	for _, u := range s.Unread {
		e.Unread = append(e.Unread, plan.UnreadStatement{Bundle: u.Bundle, Type: u.Type, Why: u.Why})
	}
	return e
}

// bundles describes every bundle of the store; each is read once.
func (a *Archive) bundles(ctx context.Context) (map[delivery.Digest]plan.Bundle, error) {
	list, err := a.Bundles.Bundles(ctx)
	if err != nil {
		return nil, err
	}
	if a.described == nil {
		a.described = map[delivery.Digest]plan.Bundle{}
	}
	there := make(map[delivery.Digest]plan.Bundle, len(list))
	for _, d := range list {
		b, ok := a.described[d]
		if !ok {
			info, err := a.Bundles.Describe(ctx, d)
			if err != nil {
				// Damaged or gone: no bundle, and no reason to stop for the others.
				if !errors.Is(err, fs.ErrNotExist) {
					a.tell([]evidence.Skipped{{Referrer: d, Why: err.Error()}})
				}
				continue
			}
			b = plan.Bundle{Model: info.Model, Signature: info.Signature.Digest(), Size: info.Size,
				Classes: info.Labels, Thresholds: info.Thresholds}
			a.described[d] = b
		}
		there[d] = b
	}
	return there, nil
}

// scored lists the bundles whose scores the open questions are about: what the
// specs of proposals and trials were resolved to, seed by seed and with their
// thresholds, and the releases of their models, of what their gates compare with,
// and of the models whose release on main has still to be accepted.
func scored(w plan.World, s *evidence.Snapshot) []delivery.Digest {
	wanted := map[delivery.Digest]bool{}
	model := func(m delivery.Model) {
		for _, spec := range slices.Concat(m.SeedDigests(), []delivery.Digest{m.SpecDigest()}) {
			for _, t := range s.TrainingsOf[spec] {
				wanted[t.Result.Bundle] = true
			}
		}
	}
	models := map[string]bool{}
	gates := func(in delivery.Intent, model string) {
		models[model] = true
		for _, g := range in.Covering(model) {
			for _, c := range in.Gates[g].Checks {
				if name, _, anchored := strings.Cut(c.Against, "@"); anchored {
					models[name] = true
				}
			}
		}
	}
	for _, p := range w.Proposals {
		for name, m := range p.Intent.Models {
			if base, ok := p.Base.Models[name]; ok && base.SpecDigest() == m.SpecDigest() &&
				p.Base.Releases[name].Bundle == p.Intent.Releases[name].Bundle {
				continue
			}
			gates(w.Main.Intent, name)
			gates(p.Intent, name)
			model(m)
			wanted[p.Intent.Releases[name].Bundle] = true
		}
		for name := range p.Base.Models {
			if _, kept := p.Intent.Models[name]; !kept { // it may go on under another name
				gates(w.Main.Intent, name)
			}
		}
		for name, g := range p.Intent.Gates {
			if base, ok := p.Base.Gates[name]; ok && base.Digest() == g.Digest() {
				continue
			}
			for _, model := range g.Covers {
				gates(p.Intent, model)
			}
		}
	}
	repointed := func(from, to string) {
		if from != to && from != "" && to != "" {
			gates(w.Main.Intent, from)
			gates(w.Main.Intent, to)
			model(w.Main.Intent.Models[to])
		}
	}
	for _, p := range w.Proposals {
		for name, f := range p.Merged.Fleets {
			was, there := w.Main.Intent.Fleets[name]
			repointed(w.Published[name].Model, f.Runs)
			repointed(was.Runs, f.Runs)
			for old, was := range w.Main.Intent.Fleets { // whose place a new one may take
				if _, kept := p.Merged.Fleets[old]; !there && !kept {
					repointed(was.Runs, f.Runs)
				}
			}
		}
	}
	for name, f := range w.Main.Intent.Fleets {
		repointed(w.Published[name].Model, f.Runs)
	}
	for _, name := range w.Asked {
		for _, model := range w.Main.Intent.Gates[name].Covers {
			models[model] = true
		}
	}
	for _, t := range w.Trials {
		models[t.Model] = true
		for _, v := range t.Variants {
			model(v.Model)
		}
	}
	for name, r := range w.Main.Intent.Releases {
		accepted := false
		for _, a := range s.AcceptancesOf[name] {
			accepted = accepted || (a.Bundle == r.Bundle && a.Spec == r.Spec && a.Version == r.Version)
		}
		if !accepted {
			gates(w.Main.Intent, name)
			wanted[r.Bundle] = true
		}
	}
	for name := range models {
		for _, a := range s.AcceptancesOf[name] {
			wanted[a.Bundle] = true
		}
	}
	for _, r := range s.Resolved {
		if wanted[r.Input.Valid.Bundle] {
			wanted[r.Result.Bundle] = true
		}
	}
	delete(wanted, "")
	return slices.Sorted(maps.Keys(wanted))
}
