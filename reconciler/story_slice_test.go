package reconciler

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// together opens pull requests that all have something to do, in a world where each effect takes as long as took.
func together(t *testing.T, n int, took time.Duration) (*sim, *countedSteps) {
	s, _ := begun(t)
	s.released("first", 8)
	for i := range n {
		branch := fmt.Sprint("p", i)
		s.quality[9+i] = 0.7
		s.repo.commit(branch, s.head("main"), s.now, map[string]string{"models/shapes.yaml": model("shapes", 9+i)})
		s.forge.open(branch, "dev")
	}
	var steps countedSteps
	s.restart(func(r *Reconciler) {
		r.Metrics = &steps
		r.Now = func() time.Time { return s.now.Add(time.Duration(s.effects) * took) }
	})
	return s, &steps
}

// countedSteps counts the steps that the loop takes.
type countedSteps struct {
	noMetrics
	n int
}

// Step implements [Metrics].
func (c *countedSteps) Step(string, error) { c.n++ }

// The trainings of many pull requests end together. That does not keep the loop in one turn: a pull request that comes
// later gets its first status after a slice. All are judged in the end.
func TestStepsAreTakenInSlices(t *testing.T) {
	const pulls = 40
	s, steps := together(t, pulls, 100*time.Millisecond)
	for s.runs.starts < pulls {
		s.turn()
		if data := s.runs.running(delivery.RunData); data != "" {
			s.runs.finish(data)
		}
	}
	s.runs.finishAll()
	s.repo.commit("late", s.head("main"), s.now, map[string]string{"models/shapes.yaml": model("shapes", 99)})
	s.forge.open("late", "dev")
	s.quality[99] = 0.7
	for range 4 {
		steps.n = 0
		if s.turn(); steps.n == 0 || steps.n > 6 {
			t.Errorf("a turn took %d steps, want those that half a second is enough for", steps.n)
		}
	}
	if s.check(s.head("late"), delivery.ContextRelease).State == "" {
		t.Error("the pull request that came later has no status after four turns")
	}
	s.settle()
	for i := range pulls {
		s.want(fmt.Sprint("p", i), delivery.CheckSuccess)
	}
	s.want("late", delivery.CheckSuccess)
}

// When the process is told to end in a turn, the turn takes no further step. The next process takes the rest.
func TestATurnEndsWithItsContext(t *testing.T) {
	const pulls = 10
	s, _ := together(t, pulls, 0)
	s.loop.look(t.Context())
	before := s.runs.starts
	ctx, cancel := context.WithCancel(t.Context())
	s.runs.started = cancel
	if _, err := s.loop.Reconcile(ctx); err == nil {
		t.Error("an ended turn has no error")
	}
	if n := s.runs.starts - before; n != 1 {
		t.Errorf("%d runs were started, want the one in whose start the process was told to end", n)
	}
	s.runs.started = nil
	s.restart()
	s.settle()
	for i := range pulls {
		s.want(fmt.Sprint("p", i), delivery.CheckSuccess)
	}
}
