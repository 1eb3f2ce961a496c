package reconciler

// What nothing needs is removed, and nothing is missed.

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/explain"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/retention"
	"github.com/autonomos/aob/reconciler/words"
)

// nothingNeeds is the event of a sweep.
const nothingNeeds = "what nothing needs is removed"

// sweep removes all runs and bundles that nothing needs, however young they are. It returns how many.
func (s *sim) sweep() (removed int) {
	s.helper()
	err := s.swept(func(w plan.World, p plan.Plan) {
		var items []retention.Item
		for _, key := range s.runs.keys() {
			items = append(items, retention.Item{Ref: retention.Ref{Kind: retention.Run, ID: string(key)}, At: s.now})
		}
		for _, b := range slices.Sorted(maps.Keys(s.signed.index.Bundles)) {
			items = append(items, retention.Item{Ref: retention.Ref{Kind: retention.Bundle, ID: string(b)}, At: s.now})
		}
		n := retention.Needs(w, p)
		for key, r := range s.runs.states { // as package shelf reads results
			of := retention.Ref{Kind: retention.Run, ID: string(key)}
			n.Of[of] = append(n.Of[of], retention.Made(r.Result)...)
		}
		limits := retention.Limits{retention.Run: 0, retention.Bundle: 0}
		for _, d := range retention.Decide(n, items, limits, s.now) {
			if d.Keep {
				continue
			}
			removed++
			id := delivery.Digest(d.ID)
			if d.Kind == retention.Run {
				s.checkRunUnneeded(id)
				s.mayTrainAgain(id)
				if _, err := s.loop.DetachRun(id); err != nil {
					s.fail("%v", err)
				}
				continue
			}
			s.checkBundleUnneeded(id)
			s.signed.remove(id)
		}
	})
	if err != nil {
		return 0
	}
	return removed
}

// swept does what BetweenTurns does, where no loop runs.
func (s *sim) swept(do func(w plan.World, p plan.Plan)) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- s.loop.BetweenTurns(ctx, func(w plan.World, p plan.Plan) error { do(w, p); return nil })
	}()
	(<-s.loop.requests)()
	return <-done
}

// mayTrainAgain lets a run be trained once more: what it made was removed.
func (s *sim) mayTrainAgain(key delivery.Digest) {
	delete(s.trained, key)
	maps.DeleteFunc(s.learned, func(_, by delivery.Digest) bool { return by == key })
}

// remove removes a bundle. As in the archive, what was made of it counts as not made, until it is made again.
func (e *simEvidence) remove(b delivery.Digest) {
	e.index.Bundles = maps.Clone(e.index.Bundles) // the last turn's world has the old one
	e.index.BySpec, e.index.ByRun = maps.Clone(e.index.BySpec), maps.Clone(e.index.ByRun)
	e.index.Resolved, e.index.Variants = maps.Clone(e.index.Resolved), maps.Clone(e.index.Variants)
	delete(e.index.Bundles, b)
	for key, t := range e.index.ByRun {
		if t.Bundle == b {
			e.sim.mayTrainAgain(key)
		}
	}
	of := func(_ delivery.Digest, t plan.Trained) bool { return t.Bundle == b }
	maps.DeleteFunc(e.index.BySpec, of)
	maps.DeleteFunc(e.index.ByRun, of)
	maps.DeleteFunc(e.index.Resolved, func(_ delivery.Digest, r delivery.Resolved) bool { return r.Result.Bundle == b })
	for key, list := range e.index.Variants {
		e.index.Variants[key] = slices.DeleteFunc(slices.Clone(list), func(v delivery.MadeVariant) bool {
			return v.Result.Bundle == b
		})
	}
	for _, st := range e.statements { // they count again once they are signed again
		switch p := st.predicate.(type) {
		case delivery.Training:
			if st.bundle == b {
				delete(e.known, delivery.DigestOf(delivery.TrainingType, []any{b, p}))
			}
		case delivery.Resolved:
			delete(e.known, delivery.DigestOf(delivery.ThresholdsType, []any{st.bundle, p}))
		case delivery.MadeVariant:
			delete(e.known, delivery.DigestOf(delivery.VariantType, []any{st.bundle, p}))
		}
	}
}

// checkBundleUnneeded fails if somebody needs a bundle, found another way than by package retention.
func (s *sim) checkBundleUnneeded(b delivery.Digest) {
	s.helper()
	for model, list := range s.signed.index.Accepted {
		for _, a := range list {
			if _, has := a.Variant(b); has || a.Bundle == b {
				s.fail("bundle %s is removed, and main has accepted it as version %d of %s", b.Short(), a.Version,
					model)
			}
		}
	}
	for _, d := range s.fleet.devices {
		if d.Report.Bundle == b {
			s.fail("bundle %s is removed, and device %s runs it", b.Short(), d.Report.Device)
		}
	}
	for ring, d := range s.fleet.published {
		if d.Release.Bundle == b || d.Previous != nil && d.Previous.Bundle == b {
			s.fail("bundle %s is removed, and fleet %s is told to run it", b.Short(), ring)
		}
	}
	for n, tree := range s.knownTrees() {
		for name, r := range tree.Releases.All() {
			if r.Bundle == b {
				s.fail("bundle %s is removed, and the file of %s in pull request %d names it", b.Short(), name, n)
			}
		}
		main, _ := s.tree(s.main())
		for name, m := range tree.Models.All() {
			if t, ok := s.signed.index.BySpec[m.SpecDigest()]; ok && t.Bundle == b &&
				m.SpecDigest() != main.Models.Of(name).SpecDigest() {
				s.fail("bundle %s is removed, and %s in pull request %d got it", b.Short(), name, n)
			}
		}
	}
}

// checkRunUnneeded fails if a run goes on, or an open pull request began it.
func (s *sim) checkRunUnneeded(key delivery.Digest) {
	s.helper()
	r := s.runs.states[key]
	if r.Phase == delivery.RunRunning || r.Phase == delivery.RunDied {
		s.fail("run %s is removed, and is %s", key.Short(), r.Phase)
	}
	for n := range s.knownTrees() {
		if slices.Contains(r.Need.PRs, n) {
			s.fail("run %s is removed, and pull request %d needs it", key.Short(), n)
		}
	}
}

// knownTrees returns the files at the heads of the open pull requests that the loop knows.
func (s *sim) knownTrees() map[int]delivery.Intent {
	trees := map[int]delivery.Intent{}
	for _, p := range s.loop.observed.world.Proposals {
		if s.repo.refs[git.Branch+p.HeadRef] == p.Head && p.PullRequest.Base == "main" && len(p.Complaints) == 0 {
			trees[p.Number], _ = s.tree(p.Head)
		}
	}
	return trees
}

// Three releases, a pull request that was closed and one that is open: what the closed one made is removed. Every
// release can be explained and rolled back to, and nothing that is needed is made again.
func TestReleasesOutliveRetention(t *testing.T) {
	s, _ := begun(t)
	first := s.released("first", 8)
	s.released("second", 14)
	s.released("third", 20)
	s.propose("abandoned", 2)
	s.settle()
	abandoned := s.signed.last()
	for _, p := range s.forge.prs {
		p.closed = p.closed || p.HeadRef == "abandoned"
	}
	s.settle()
	s.now = s.now.Add(time.Hour)
	s.propose("open", 1)
	s.settle()
	open := s.signed.last()
	trained := maps.Clone(s.trained)

	if n := s.sweep(); n == 0 {
		t.Fatal("nothing was removed")
	}
	if _, there := s.signed.index.Bundles[abandoned]; there {
		t.Error("the bundle of the pull request that was closed is there")
	}
	if _, there := s.signed.index.Bundles[open]; !there {
		t.Error("the bundle of the open pull request is gone")
	}
	runs := len(s.runs.states)
	s.turn()
	s.settle()
	s.quiet()
	if again := len(s.runs.states); again != runs {
		t.Errorf("%d runs after the removal, and %d later: what was removed is needed", runs, again)
	}
	if n := s.sweep(); n != 0 {
		t.Errorf("%d things more are removed", n)
	}

	chain, err := s.source().Explain(t.Context(), explain.Model, "shapes")
	if err != nil {
		t.Fatal(err)
	}
	text := words.ChainText(chain, 200)
	for _, want := range []string{"version 1", "version 2", "version 3"} {
		if !strings.Contains(text, want) {
			t.Errorf("the chain of the model lacks %s:\n%s", want, text)
		}
	}
	if strings.Contains(text, "no longer holds it") {
		t.Errorf("a bundle of a release is gone:\n%s", text)
	}

	// Back to version 1, in a pull request: nothing is trained.
	s.repo.commit("back", s.main(), s.now, map[string]string{"models/shapes.yaml": s.repo.read(first,
		"models/shapes.yaml"), "models/shapes.release.yaml": s.repo.read(first, "models/shapes.release.yaml")})
	s.forge.open("back", "dev")
	s.settle()
	s.want("back", delivery.CheckSuccess)
	s.merge("back")
	s.settle()
	if serving := s.serving(); serving != "1 1 1" {
		t.Errorf("devices serve %s, want version 1", serving)
	}
	for key, n := range s.trained {
		if trained[key] != n {
			t.Errorf("run %s was trained after the removal", key.Short())
		}
	}

	// The content of the pull request that was closed, once more: it is trained again, and judged.
	s.propose("abandoned2", 2)
	s.settle()
	s.want("abandoned2", delivery.CheckFailure)
	if _, there := s.signed.index.Bundles[abandoned]; !there {
		t.Error("the bundle was not made again")
	}
}

// Whatever happens, in whatever order: while all that nothing needs is removed every now and then, no rule breaks.
func TestRetentionInAnyOrderOfEvents(t *testing.T) {
	last := 20
	if testing.Short() {
		last = 3
	}
	for seed := 1; seed <= last; seed++ {
		var events []event
		for i, e := range sequence(seed) {
			if events = append(events, e); i%4 == 3 {
				events = append(events, event{do: nothingNeeds})
			}
		}
		if why, _ := play(events); why != "" {
			events, why = shorter(events, why)
			t.Fatalf("seed %d, made shorter:\n%s\n%s", seed, script(events), why)
		}
	}
}
