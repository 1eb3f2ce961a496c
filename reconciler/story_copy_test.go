package reconciler

import (
	"fmt"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/words"
)

// A loop that only watches sees what there is to do, shows it, and does none of it: at
// a pull request that wants to be trained, at one whose gate asks its owner, at a
// closed one that trains, at main with a new release.
func TestWatchingLoopDoesNothing(t *testing.T) {
	for _, c := range []struct {
		name  string
		until func(s *sim)
		does  func(p plan.Plan) bool
	}{
		{"a pull request that wants to be trained", func(s *sim) { s.propose("more", 14) }, func(p plan.Plan) bool {
			return len(p.Steps) > 0 && len(p.Proposals) == 1
		}},
		{"a closed pull request that trains", func(s *sim) {
			s.runs.slow = true
			s.propose("more", 14)
			for s.runs.running(delivery.RunTrain) == "" {
				s.turn()
				for _, key := range s.runs.keys() {
					if s.runs.states[key].Spec.Kind == delivery.RunData {
						s.runs.finish(key)
					}
				}
			}
			s.forge.prs[1].closed = true
		}, func(p plan.Plan) bool { return len(p.Steps) > 0 }},
		{"main with a release that was not published", func(s *sim) {
			s.propose("more", 14)
			for range 3 {
				s.rest()
			}
			s.fleet.down = true
			s.mergeOne(s.forge.prs[1], 0, false)
			s.turn()
			s.fleet.down = false
		}, func(p plan.Plan) bool { return len(p.Steps) > 0 }},
		{"a status that somebody forged", func(s *sim) {
			s.propose("more", 1)
			for range 3 {
				s.rest()
			}
			head := s.forge.head(s.forge.prs[1])
			s.forge.forge(head, "mallory", delivery.Check{Context: delivery.ContextRelease,
				State: delivery.CheckSuccess})
		}, func(p plan.Plan) bool { return len(p.Proposals) == 1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := begun(t)
			c.until(s)
			s.restart(watching)
			effects, before := s.effects, s.outside()
			seen := false
			for range 30 {
				s.wake()
				s.turn()
				seen = seen || c.does(s.loop.observed.plan)
				if s.failed != nil {
					t.Fatalf("a turn of a loop that watches fails: %v", s.failed)
				}
			}
			if !seen {
				t.Errorf("there is nothing to do, so this shows nothing: %s", words.Plan(s.loop.observed.plan))
			}
			if now := s.outside(); now != before {
				t.Errorf("from\n%s\nto\n%s", before, now)
			}
			if s.effects != effects {
				// What is written in the ledger is in the copy itself.
				t.Logf("%d writes to the copy's own ledger", s.effects-effects)
			}
			if list := s.loop.Notices(); len(list) == 0 || list[0] != "this is a copy; adopt it" {
				t.Errorf("notices: %q", list)
			}
			s.restart() // the original goes on
			s.settle()
		})
	}
}

// outside is all that a server shares with a copy of its state folder: the repository,
// the forge, runs' processes and what devices are told.
func (s *sim) outside() string {
	runs := ""
	for _, key := range s.runs.keys() {
		runs += fmt.Sprintln(key.Short(), s.runs.states[key].Phase, s.runs.states[key].Attempt)
	}
	return fmt.Sprintln(s.repo.refs, s.forge.statuses, s.forge.forged, s.forge.comments, s.forge.questions,
		len(s.forge.prs), s.fleet.published, len(s.signed.statements), s.runs.ends) + runs
}
