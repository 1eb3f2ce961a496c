package archive

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/evidence"
	"github.com/autonomos/aob/reconciler/plan"
)

// An Archive contains bundles and signed statements about them. Only the loop's goroutine may use it.
type Archive struct {
	Bundles    *artifact.Store
	Statements *evidence.Store
	Log        *slog.Logger

	described map[delivery.Digest]plan.Bundle
	last      *evidence.Snapshot // of which index was made
	removed   map[delivery.Digest]bool
	index     plan.Evidence
	given     plan.Evidence      // as returned last
	givenOf   *evidence.Snapshot // of which given was made
	logged    map[delivery.Digest]bool
}

// Sign signs a statement about a bundle.
func (a *Archive) Sign(ctx context.Context, bundle delivery.Digest, predicateType string, predicate any) error {
	return a.Statements.Sign(ctx, bundle, predicateType, predicate)
}

// Evidence returns all bundles and statements. Scores are large, so it reads only those of the given bundles.
func (a *Archive) Evidence(ctx context.Context, scored []delivery.Digest) (plan.Evidence, error) {
	s, err := a.Statements.Load(ctx)
	if err != nil {
		return plan.Evidence{}, err
	}
	removed, err := a.Bundles.Removed(ctx)
	if err != nil {
		return plan.Evidence{}, err
	}
	if s != a.last || !maps.Equal(removed, a.removed) {
		a.last, a.removed, a.index = s, removed, indexed(s, removed)
		a.log(s.Skipped)
	}
	e := a.index
	if e.Bundles, err = a.bundles(ctx); err != nil {
		return e, err
	}
	var skipped []evidence.Skipped
	if e.Scores, skipped, err = a.Statements.Scores(ctx, scored); err != nil {
		return e, err
	}
	a.log(skipped)
	e.Scored = make(map[delivery.Digest]bool, len(scored))
	for _, bundle := range scored {
		e.Scored[bundle] = true
	}
	// A bundle and a statement have the same content for ever, so that their names tell whether anything changed.
	if e.Version = a.given.Version; s != a.givenOf || !sameKeys(e.Bundles, a.given.Bundles) ||
		!sameKeys(e.Scores, a.given.Scores) || !sameKeys(e.Scored, a.given.Scored) {
		e.Version++
	}
	a.given, a.givenOf = e, s
	return e, nil
}

// sameKeys reports whether two maps have the same keys.
func sameKeys[V any](a, b map[delivery.Digest]V) bool {
	return maps.EqualFunc(a, b, func(V, V) bool { return true })
}

// log logs each skipped bundle or statement once.
func (a *Archive) log(list []evidence.Skipped) {
	for _, s := range list {
		if a.logged[s.Referrer] {
			continue
		}
		if a.logged == nil {
			a.logged = map[delivery.Digest]bool{}
		}
		a.logged[s.Referrer] = true
		a.Log.Warn("a bundle or statement does not count", "digest", s.Referrer.Short(), "why", s.Why)
	}
}

// indexed converts a snapshot for plans. What was made and then removed, because nothing needed it any more, counts as
// not made: whoever needs it again gets it made again. What main has accepted is never removed.
func indexed(s *evidence.Snapshot, removed map[delivery.Digest]bool) plan.Evidence {
	e := plan.Evidence{BySpec: map[delivery.Digest]plan.Trained{}, ByRun: map[delivery.Digest]plan.Trained{},
		Resolved: s.Resolved, Variants: s.VariantsOf, Benches: s.BenchesOf, Verdicts: s.Verdicts,
		Accepted: map[string][]delivery.Acceptance{}, Newer: s.Newer}
	for model, list := range s.AcceptancesOf {
		e.Accepted[model] = delivery.Each(list, func(a delivery.Acceptance) delivery.Acceptance {
			if len(a.Variants) == 0 {
				a.Variants = signedVariants(a, s.ReleasesOf[a.Bundle])
			}
			return a
		})
	}
	for spec, list := range s.TrainingsOf {
		for _, t := range list {
			trained := plan.Trained{Bundle: t.Result.Bundle, Training: t}
			if removed[trained.Bundle] {
				continue
			}
			// Later trainings of the same spec are by other servers. They are the same model.
			if _, there := e.BySpec[spec]; !there {
				e.BySpec[spec] = trained
			}
			again, there := e.ByRun[t.Run]
			if removed[s.Trainings[t.Run].Result.Bundle] && (!there || spec < again.Training.Spec) {
				e.ByRun[t.Run] = trained // it was trained again
			}
		}
	}
	for key, t := range s.Trainings {
		if !removed[t.Result.Bundle] {
			e.ByRun[key] = plan.Trained{Bundle: t.Result.Bundle, Training: t}
		}
	}
	if len(removed) > 0 {
		e.Resolved, e.Variants = maps.Clone(e.Resolved), maps.Clone(e.Variants)
		maps.DeleteFunc(e.Resolved, func(_ delivery.Digest, r delivery.Resolved) bool {
			return removed[r.Result.Bundle]
		})
		for of, list := range e.Variants {
			e.Variants[of] = slices.DeleteFunc(slices.Clone(list), func(v delivery.MadeVariant) bool {
				return removed[v.Result.Bundle]
			})
		}
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

// signedVariants returns the variants of a release whose acceptance lists none, because an older aob signed it or
// because it has none: those that each of its release statements lists.
func signedVariants(a delivery.Acceptance, statements []delivery.ReleaseStatement) []delivery.AcceptedVariant {
	var list []delivery.AcceptedVariant
	first := true
	for _, s := range statements {
		if s.Model != a.Model || s.Version != a.Version || s.Spec != a.Spec {
			continue
		}
		of := delivery.Each(s.Variants, func(v delivery.JudgedVariant) delivery.AcceptedVariant {
			return delivery.AcceptedVariant{Variant: v.Variant, Bundle: v.Bundle}
		})
		if first {
			list, first = of, false
		}
		list = slices.DeleteFunc(list, func(v delivery.AcceptedVariant) bool { return !slices.Contains(of, v) })
	}
	return list
}

// bundles describes all bundles of the store. Each is read once.
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
				// A damaged or missing bundle is skipped.
				if !errors.Is(err, fs.ErrNotExist) {
					a.log([]evidence.Skipped{{Referrer: d, Why: err.Error()}})
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
