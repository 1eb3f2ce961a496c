package plan

// This file limits how many runs go on at once. Trainings have one queue, and all other runs have another. Each queue
// starts runs in rounds, one per pull request and round, so that a large pull request does not delay a small one.

import (
	"cmp"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A queue holds the runs that want to start. Make fills it in a first pass; schedule then decides which runs wait, and
// Make uses that in a second pass.
type queue struct {
	trains   bool // it holds trainings
	limit    int  // how many may run at once; 0 is any number
	running  int
	busy     map[int]int       // how many run for each pull request
	last     map[int]time.Time // when one was last started for each
	requests []request         // in the order of the plan
	places   map[delivery.Digest]int
}

type request struct {
	key   delivery.Digest
	pr    int
	round int
}

func newQueue(w World, trains bool) *queue {
	q := &queue{trains: trains, limit: w.Server.Runs, busy: map[int]int{}, last: map[int]time.Time{}}
	if trains {
		q.limit = w.Server.Trainings
	}
	for _, r := range w.Runs {
		if trains != (r.Spec.Kind == delivery.RunTrain) {
			continue
		}
		if r.Phase == delivery.RunRunning {
			q.running++
		}
		if len(r.Need.PRs) == 0 {
			continue
		}
		pr := r.Need.PRs[0]
		if r.Phase == delivery.RunRunning {
			q.busy[pr]++
		}
		if r.Started.After(q.last[pr]) {
			q.last[pr] = r.Started
		}
	}
	return q
}

// enter adds a run to the queue. It returns what the run waits for, or false if the run may start.
func (q *queue) enter(key delivery.Digest, pr int) (Stage, bool) {
	if q.limit == 0 {
		return Stage{}, false
	}
	if q.places == nil {
		if !slices.ContainsFunc(q.requests, func(a request) bool { return a.key == key }) {
			q.requests = append(q.requests, request{key: key, pr: pr})
		}
		return Stage{}, false
	}
	place := q.places[key]
	if place == 0 {
		return Stage{}, false
	}
	v := values{Count: place, Total: len(q.places), Limit: q.limit}
	if q.trains {
		return pending(fact(code.TrainingQueued, v)), true
	}
	return pending(fact(code.RunQueued, v)), true
}

// schedule decides which runs start, and reports whether any must wait. Runs of main come first, then those of pull
// requests, then those of experiments.
func (q *queue) schedule() bool {
	if q.limit == 0 || q.running+len(q.requests) <= q.limit {
		return false
	}
	next := map[int]int{}
	for i, a := range q.requests {
		q.requests[i].round = q.busy[a.pr] + next[a.pr]
		next[a.pr]++
	}
	rank := func(a request) int {
		switch {
		case a.pr == 0:
			return 0
		case a.pr > 0:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(q.requests, func(a, b request) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		// In the same round, the pull request whose last run started earliest goes first.
		return cmp.Or(a.round-b.round, q.last[a.pr].Compare(q.last[b.pr]))
	})
	q.places = map[delivery.Digest]int{}
	for i, a := range q.requests[max(0, q.limit-q.running):] {
		q.places[a.key] = i + 1
	}
	return true
}
