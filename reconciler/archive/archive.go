package archive

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/evidence"
	"github.com/autonomos/aob/reconciler/plan"
)

// An Archive contains bundles and signed statements about them. Only the loop's goroutine may use it, except for
// Recheck.
type Archive struct {
	Bundles    *artifact.Store
	Statements *evidence.Store
	Log        *slog.Logger

	mu         sync.Mutex                      // guards the following up to last
	described  map[delivery.Digest]plan.Bundle // those that the store has
	missing    []delivery.Digest               // bundles that cannot be read
	generation int                             // of the list of bundles
	listed     int                             // bundles of it that were described, or are missing
	recheck    []delivery.Digest               // bundles whose description is from before the start

	last    *evidence.Snapshot // of which index was made
	removed map[delivery.Digest]bool
	index   plan.Evidence
	given   plan.Evidence // as returned last
	changed bool          // since given
	logged  map[delivery.Digest]bool
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
	if same := maps.Equal(removed, a.removed); s != a.last || !same {
		added, ok := a.Statements.Added(a.last, s)
		if ok && same && (len(removed) == 0 || !slices.ContainsFunc(added, makes)) {
			a.index = grown(a.index, s, added)
		} else {
			a.index = indexed(s, removed)
		}
		if !same {
			a.generation = 0 // all bundles are looked at again
		}
		a.last, a.removed, a.changed = s, removed, true
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
	if e.Version = a.given.Version; a.changed { // a plan notes which scores it has used
		e.Version++
	}
	a.given, a.changed = e, false
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
		Accepted: map[string][]delivery.Acceptance{}}
	share(&e, s)
	for model := range s.AcceptancesOf {
		e.Accepted[model] = acceptances(s, model)
	}
	for spec, list := range s.TrainingsOf {
		for _, t := range list {
			trained := trainedBy(t)
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
			e.ByRun[key] = trainedBy(t)
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
	for _, r := range s.Releases {
		e.Releases = append(e.Releases, *r)
	}
	e.Aborts = aborts(s)
	return e
}

// grown is indexed of a snapshot that has a few statements more than the one of which e was made. It copies only the
// maps that change: a plan may still use e.
func grown(e plan.Evidence, s *evidence.Snapshot, added []evidence.Statement) plan.Evidence {
	resolved, variants := e.Resolved, e.Variants
	share(&e, s)
	if !slices.ContainsFunc(added, makes) {
		e.Resolved, e.Variants = resolved, variants // without those of removed bundles
	}
	trained, accepted := false, false
	accept := func(model string) {
		if !accepted {
			e.Accepted, accepted = maps.Clone(e.Accepted), true
		}
		e.Accepted[model] = acceptances(s, model)
	}
	for _, st := range added {
		switch v := st.Value.(type) {
		case *delivery.Training:
			if !trained {
				e.BySpec, e.ByRun, trained = maps.Clone(e.BySpec), maps.Clone(e.ByRun), true
			}
			if _, there := e.BySpec[v.Spec]; !there {
				e.BySpec[v.Spec] = trainedBy(v)
			}
			if _, there := e.ByRun[v.Run]; !there {
				e.ByRun[v.Run] = trainedBy(v)
			}
		case *delivery.ReleaseStatement:
			e.Releases = append(e.Releases, *v)
			if len(s.AcceptancesOf[v.Model]) > 0 {
				accept(v.Model)
			}
		case *delivery.Acceptance:
			accept(v.Model)
		case *delivery.Abort:
			e.Aborts = aborts(s)
		}
	}
	return e
}

// makes reports whether a statement is about the making of a bundle.
func makes(st evidence.Statement) bool {
	switch st.Value.(type) {
	case *delivery.Training, *delivery.Resolved, *delivery.MadeVariant:
		return true
	}
	return false
}

// share sets what evidence and a snapshot have in common.
func share(e *plan.Evidence, s *evidence.Snapshot) {
	e.Resolved, e.Variants, e.Benches, e.Verdicts, e.Newer = s.Resolved, s.VariantsOf, s.BenchesOf, s.Verdicts, s.Newer
	e.Unread = nil
	for _, u := range s.Unread {
		e.Unread = append(e.Unread, plan.UnreadStatement{Bundle: u.Bundle, Type: u.Type, Why: u.Why})
	}
}

func trainedBy(t *delivery.Training) plan.Trained {
	return plan.Trained{Bundle: t.Result.Bundle, Training: *t}
}

func acceptances(s *evidence.Snapshot, model string) []delivery.Acceptance {
	return delivery.Each(s.AcceptancesOf[model], func(a delivery.Acceptance) delivery.Acceptance {
		if len(a.Variants) == 0 {
			a.Variants = signedVariants(a, s.ReleasesOf[a.Bundle])
		}
		return a
	})
}

func aborts(s *evidence.Snapshot) (list []delivery.Abort) {
	for _, fleet := range slices.Sorted(maps.Keys(s.AbortsOf)) {
		list = append(list, s.AbortsOf[fleet]...)
	}
	return list
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

// bundles describes all bundles of the store. Each is read once; those that cannot be read are tried again, which costs
// as much as there are of them.
func (a *Archive) bundles(ctx context.Context) (map[delivery.Digest]plan.Bundle, error) {
	list, generation, length, err := a.Bundles.BundlesSince(ctx, a.generation, a.listed)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	before, there := a.described, a.described
	var notes map[delivery.Digest][]byte
	another := generation != a.generation || before == nil // list has all bundles, not only the new ones
	if another {
		if there = make(map[delivery.Digest]plan.Bundle, len(list)); before == nil {
			notes = a.Statements.Notes()
		}
	} else {
		list = append(a.missing, list...) // they may have been restored
	}
	own := another // whether there may be written: a plan may still use before
	a.missing = nil
	for _, d := range list {
		if a.removed[d] {
			continue
		}
		b, ok := before[d]
		if note := notes[d]; note != nil && json.Unmarshal(note, &b) == nil {
			a.recheck, ok = append(a.recheck, d), true
		}
		if !ok {
			if b, err = a.describe(ctx, d); err != nil {
				a.missing = append(a.missing, d)
				continue
			}
		}
		if !own {
			there, own = maps.Clone(there), true
		}
		there[d] = b
	}
	if a.generation, a.listed = generation, length; own && !sameKeys(there, before) {
		a.changed = true
	} else if before != nil {
		there = before
	}
	a.described = there
	return there, nil
}

// describe reads what plans need of a bundle. A damaged or missing one is logged.
func (a *Archive) describe(ctx context.Context, d delivery.Digest) (b plan.Bundle, err error) {
	info, err := a.Bundles.Describe(ctx, d)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			a.log([]evidence.Skipped{{Referrer: d, Why: err.Error()}})
		}
		return b, err
	}
	b = plan.Bundle{Model: info.Model, Signature: info.Signature.Digest(), Size: info.Size,
		Classes: info.Labels, Thresholds: info.Thresholds}
	if note, err := json.Marshal(b); err == nil {
		a.Statements.Note(d, note)
	}
	return b, nil
}

// recheckPause is the time between two bundles that Recheck reads.
const recheckPause = 10 * time.Millisecond

// Recheck reads the files of the bundles and statements that the cache has, beside the loop. wake is called when some
// are gone or damaged, which the next Evidence says.
func (a *Archive) Recheck(ctx context.Context, wake func()) {
	var statements sync.WaitGroup
	defer statements.Wait()
	statements.Go(func() { a.Statements.Recheck(ctx, wake) })
	for pause := time.Second; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		a.mu.Lock()
		var d delivery.Digest
		if n := len(a.recheck); n > 0 {
			d, a.recheck = a.recheck[n-1], a.recheck[:n-1]
		}
		a.mu.Unlock()
		if d == "" {
			pause = time.Second
			continue
		}
		pause = recheckPause
		if _, err := a.Bundles.Describe(ctx, d); err != nil && ctx.Err() == nil {
			a.mu.Lock()
			a.described = maps.Clone(a.described)
			delete(a.described, d)
			a.missing, a.changed = append(a.missing, d), true
			a.mu.Unlock()
			wake()
		}
	}
}
