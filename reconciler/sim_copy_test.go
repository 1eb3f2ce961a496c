package reconciler

// Copied states in the small world: a copy of the state folder beside its original, with
// a server that only watches, and which takes over in the end.

import (
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// copyState copies what aob serve keeps, and starts a server in the copy. It shares the
// repository and the forge with the original.
func (s *sim) copyState() {
	c := *s
	c.copy, c.did, c.crashIn, c.watching = nil, nil, 0, true
	c.memory = plan.Memory{} // of another server, which counts changes of its own evidence
	c.trained, c.learned, c.inferred = maps.Clone(s.trained), maps.Clone(s.learned), maps.Clone(s.inferred)
	c.repo, c.forge = &simRepo{}, &simForge{}
	c.runs, c.signed, c.fleet, c.ledger = s.runs.clone(&c), s.signed.clone(&c), s.fleet.clone(&c),
		s.ledger.clone(&sim{})
	s.copy = &c
	c.shares(s)
	c.restart(watching)
}

// watching makes a loop one of a server in a copy of the state folder.
func watching(r *Reconciler) { r.Watch(delivery.Blocked{What: "this is a copy", Do: "adopt it"}) }

// shares lets a copy see the repository and the forge as they are now.
func (s *sim) shares(original *sim) {
	observed := s.repo.observed
	*s.repo, *s.forge = *original.repo, *original.forge
	s.repo.sim, s.forge.sim, s.repo.observed, s.now = s, s, observed, original.now
}

// copyTurns lets the server in the copy take a turn. A turn that does something to the
// world ends the test.
func (s *sim) copyTurns() {
	if s.copy == nil {
		return
	}
	s.copy.shares(s)
	s.copy.wake()
	s.copy.turn()
	if len(s.copy.loop.observed.plan.Steps) > 0 {
		s.happens(copyWatched)
	}
}

// takeOver goes on with the copy as with a restored backup: the original is lost.
func (s *sim) takeOver() {
	c := s.copy
	if c == nil {
		return
	}
	s.happens(copyAdopted)
	s.runs, s.signed, s.ledger = c.runs.clone(s), c.signed.clone(s), c.ledger.clone(s)
	s.trained, s.learned, s.copy = c.trained, c.learned, nil
	s.memory = plan.Memory{} // what was remembered is of the evidence of the server that is lost
	s.fleet.published, s.fleet.least = c.fleet.published, s.now.Unix()
	s.server.Least = s.now.Unix()
	s.restart()
}

// clone copies runs. Nobody works on those of a copy.
func (r *simRuns) clone(s *sim) *simRuns {
	c := *r
	c.sim, c.states = s, map[delivery.Digest]*delivery.RunState{}
	for key, state := range r.states {
		one := *state
		if one.Phase == delivery.RunRunning {
			one.Phase = delivery.RunDied
		}
		c.states[key] = &one
	}
	return &c
}

func (e *simEvidence) clone(s *sim) *simEvidence {
	c := *e
	c.sim, c.bundles, c.known, c.variants = s, maps.Clone(e.bundles), maps.Clone(e.known), maps.Clone(e.variants)
	c.order, c.statements = slices.Clone(e.order), slices.Clone(e.statements)
	i := &c.index
	i.BySpec, i.ByRun, i.Scores, i.Resolved = maps.Clone(i.BySpec), maps.Clone(i.ByRun), maps.Clone(i.Scores),
		maps.Clone(i.Resolved)
	i.Variants = maps.Clone(i.Variants)
	i.Verdicts, i.Accepted, i.Bundles = maps.Clone(i.Verdicts), maps.Clone(i.Accepted), maps.Clone(i.Bundles)
	i.Releases, i.Aborts = slices.Clone(i.Releases), slices.Clone(i.Aborts)
	for name, list := range i.Accepted {
		i.Accepted[name] = slices.Clone(list)
	}
	return &c
}

func (f *simFleet) clone(s *sim) *simFleet {
	c := *f
	c.sim, c.published, c.devices = s, maps.Clone(f.published), slices.Clone(f.devices)
	return &c
}

func (l *simLedger) clone(s *sim) *simLedger {
	c := *l
	c.sim, c.gos, c.clocks, c.said, c.trials = s, slices.Clone(l.gos), maps.Clone(l.clocks), maps.Clone(l.said),
		maps.Clone(l.trials)
	return &c
}
