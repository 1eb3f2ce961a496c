package reconciler

// Stories of a merge queue: the forge puts pull requests together on a branch of its own, and makes that commit main's
// when it is green.

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
)

const queuePrefix = "gh-readonly-queue/"

// enqueue makes the commit of a pull request in the merge queue, on top of main or of the commit before it there.
func (s *sim) enqueue(number int, branch, on string) (commit string) {
	ref := fmt.Sprintf("%s%smain/pr-%d-%s", git.Branch, queuePrefix, number, on)
	commit = s.repo.write([]string{on, s.head(branch)}, s.merged(on, s.head(branch)), s.now, "queue")
	s.repo.refs[ref] = commit
	return commit
}

// dequeue makes a commit of the queue main's, and removes its branch.
func (s *sim) dequeue(commit string) {
	s.repo.refs[git.Branch+"main"] = commit
	maps.DeleteFunc(s.repo.refs, func(ref, at string) bool {
		return at == commit && strings.HasPrefix(ref, git.Branch+queuePrefix)
	})
}

// queueing is a sim of a forge with a merge queue, with two models and a gate for each.
func queueing(t *testing.T) *sim {
	s, main := begun(t)
	s.restart(func(r *Reconciler) { r.Queue = queuePrefix })
	s.repo.commit("main", main, s.now, map[string]string{"models/boxes.yaml": model("boxes", 1),
		"gates/boxes.yaml": gateFile("boxes", "boxes", 0.3)})
	s.settle()
	return s
}

// proposeModel opens a pull request for another training of a model, and settles.
func (s *sim) proposeModel(branch, name string, epochs int) (number int) {
	s.repo.commit(branch, s.main(), s.now, map[string]string{"models/" + name + ".yaml": model(name, epochs)})
	s.quality[epochs] = 0.6
	number = s.forge.open(branch, "dev")
	s.settle()
	s.want(branch, delivery.CheckSuccess, "version 1")
	return number
}

// Two pull requests of two models wait in the queue, the second on top of the first. Each commit of the queue is green
// in the turn after it is seen, no run starts for it, and merging it rolls out.
func TestMergeQueueOfTwoModels(t *testing.T) {
	s := queueing(t)
	shapes, boxes := s.proposeModel("first", "shapes", 8), s.proposeModel("second", "boxes", 9)
	s.quiet()
	runs := len(s.runs.states)
	one := s.enqueue(shapes, "first", s.main())
	two := s.enqueue(boxes, "second", one)
	s.wake()
	for range 2 { // the first turn answers, and the second one may read results
		s.turn()
	}
	for name, commit := range map[string]string{"the first": one, "both": two} {
		if c := s.check(commit, delivery.ContextRelease); c.State != delivery.CheckSuccess {
			t.Errorf("%s: %+v", name, c)
		}
	}
	s.settle()
	s.quiet()
	if len(s.runs.states) != runs {
		t.Errorf("%d runs started for the queue", len(s.runs.states)-runs)
	}
	if len(s.forge.comments) != 2 {
		t.Errorf("comments: %v", s.forge.comments)
	}
	s.dequeue(one)
	s.settle()
	if c := s.check(two, delivery.ContextRelease); c.State != delivery.CheckSuccess {
		t.Errorf("the second when the first is main's: %+v", c)
	}
	s.dequeue(two)
	s.settle()
	if at := s.check(two, delivery.ContextRelease); at.State != delivery.CheckSuccess {
		t.Errorf("on main: %+v", at)
	}
}

// What nobody has judged together is red, with the reason: another spec beside a release, or a gate that one pull
// request makes stricter than the other one's model is good.
func TestMergeQueueOfUnjudgedCombinations(t *testing.T) {
	for name, c := range map[string]struct {
		with map[string]string
		want string
	}{
		"another training of the same model": {map[string]string{"models/shapes.yaml": model("shapes", 5)}, "shapes"},
		"a stricter gate": {map[string]string{"gates/production.yaml": gateFile("production", "shapes", 0.9)},
			"production"},
		"a new gate": {map[string]string{"gates/strict.yaml": gateFile("strict", "shapes", 0.9)}, "strict"},
		"another model's spec": {map[string]string{"models/boxes.yaml": model("boxes", 5)},
			"nobody has judged what the merge queue puts together here: boxes; rebase"},
		"a wrong file": {map[string]string{"gates/production.yaml": "x"}, "production"},
	} {
		t.Run(name, func(t *testing.T) {
			s := queueing(t)
			number := s.proposeModel("first", "shapes", 8)
			s.quiet()
			runs := len(s.runs.states)
			one := s.enqueue(number, "first", s.main())
			text := s.repo.with(one, c.with)
			two := s.repo.write([]string{one}, text, s.now, "another one")
			s.repo.refs[git.Branch+queuePrefix+"main/pr-7-"+one] = two
			s.settle()
			got := s.check(two, delivery.ContextRelease)
			if got.State != delivery.CheckFailure || !strings.Contains(got.Description, c.want) {
				t.Errorf("got %+v, want a failure about %s", got, c.want)
			}
			if c := s.check(one, delivery.ContextRelease); c.State != delivery.CheckSuccess {
				t.Errorf("the first alone: %+v", c)
			}
			if len(s.runs.states) != runs {
				t.Error("a run has started for the queue")
			}
			s.quiet()
		})
	}
}

// A forged status of a queue's commit is set right, and a server that starts again answers for what is in the queue.
func TestMergeQueueAfterARestart(t *testing.T) {
	s := queueing(t)
	number := s.proposeModel("first", "shapes", 8)
	one := s.enqueue(number, "first", s.main())
	bad := s.repo.write([]string{one}, s.repo.with(one, map[string]string{"models/shapes.yaml": model("shapes", 5)}),
		s.now, "bad")
	s.repo.refs[git.Branch+queuePrefix+"main/pr-8-"+one] = bad
	s.restart(func(r *Reconciler) { r.Queue = queuePrefix })
	s.settle()
	s.forge.forge(bad, "mallory", delivery.Check{Context: delivery.ContextRelease, State: delivery.CheckSuccess})
	s.now = s.now.Add(2 * time.Minute)
	s.settle()
	if c := s.check(bad, delivery.ContextRelease); c.State != delivery.CheckFailure {
		t.Errorf("forged: %+v", c)
	}
	if _, ok := s.forge.statuses[one][delivery.ContextGate+"production"]; !ok {
		t.Errorf("the statuses of the first: %v", slices.Sorted(maps.Keys(s.forge.statuses[one])))
	}
}
