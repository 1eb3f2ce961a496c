package reconciler

// This file sends: statuses, comments, pushes, pull requests of AOB's own. The loop puts a job into the queue and goes
// on; workers do the jobs, and the loop hears the results at its next turn. The questions to the forge are a queue too.

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// Limits of what is sent.
const (
	pushWorkers  = 2                // a push may take minutes
	againWorkers = 2                // calls of the forge's API that failed before
	callWorkers  = 4                // other calls of the forge's API
	pushDeadline = 3 * time.Minute  // of one push
	callDeadline = 30 * time.Second // of one call
	sendSlow     = 20 * time.Second // a job that waits longer is shown
)

// A job is one thing to send. The jobs of a lane are done in order, one at a time.
type job struct {
	key     string // a newer job with the same key replaces one that has not begun
	lane    string // as status/COMMIT, comment/7 or push/BRANCH
	content string // what the job says, to tell two jobs with one key apart
	send    func(context.Context) error
	heard   func(error)   // called by the loop with the result; may be nil
	again   bool          // it failed before, and may hang again: it has other workers than the rest
	limit   time.Duration // how long it may take; zero is callDeadline, or pushDeadline of a push

	begun bool
	since time.Time // when it was put in
}

// push reports whether a job moves a branch. Those have workers of their own, so that a slow one holds nothing else up.
func (j *job) push() bool { return strings.HasPrefix(j.lane, "push/") }

// retry reports whether a job is a call that failed before.
func (j *job) retry() bool { return !j.push() && j.again }

// first reports whether a job is a call that has not failed before.
func (j *job) first() bool { return !j.push() && !j.again }

// A result is how a job ended.
type result struct {
	*job
	err error
	at  time.Time
}

// An outbox is the queue of jobs. Its methods may be called from any goroutine.
type outbox struct {
	now  func() time.Time
	tell func() // called when a job has ended

	mu    sync.Mutex
	jobs  []*job // in the order in which they were put in
	ended []result
	news  chan struct{} // closed and made anew when a job is put in or has ended
}

func newOutbox(now func() time.Time, tell func()) *outbox {
	return &outbox{now: now, tell: tell, news: make(chan struct{})}
}

// put adds a job. It takes the place of a job with the same key that has not begun.
func (o *outbox) put(j job) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if i := slices.IndexFunc(o.jobs, func(old *job) bool { return old.key == j.key && !old.begun }); i >= 0 {
		j.since = o.jobs[i].since
		o.jobs[i] = &j
		return
	}
	j.since = o.now()
	o.jobs = append(o.jobs, &j)
	o.changed()
}

// changed wakes all workers; o.mu is held.
func (o *outbox) changed() {
	close(o.news)
	o.news = make(chan struct{})
}

// waiting returns the newest job with a key that has not ended.
func (o *outbox) waiting(key string) (content string, begun, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, j := range slices.Backward(o.jobs) {
		if j.key == key {
			return j.content, j.begun, true
		}
	}
	return "", false, false
}

// has reports whether a job with the key has not ended, or has ended and was not heard of.
func (o *outbox) has(key string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.ContainsFunc(o.jobs, func(j *job) bool { return j.key == key }) ||
		slices.ContainsFunc(o.ended, func(r result) bool { return r.key == key })
}

// oldest returns how many jobs have not ended, and since when the first of them waits.
func (o *outbox) oldest() (n int, since time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.jobs) == 0 {
		return 0, time.Time{}
	}
	return len(o.jobs), o.jobs[0].since
}

// count returns how many jobs of a kind have not ended.
func (o *outbox) count(ofKind func(*job) bool) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, j := range o.jobs {
		if ofKind(j) {
			n++
		}
	}
	return n
}

// results returns how jobs ended since the last call, in that order.
func (o *outbox) results() []result {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := o.ended
	o.ended = nil
	return list
}

// begin takes the first job whose lane is free; nil where there is none. The channel is closed when that may change.
func (o *outbox) begin(mine func(*job) bool) (*job, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	held := map[string]bool{}
	for _, j := range o.jobs {
		if held[j.lane] {
			continue
		}
		held[j.lane] = true
		if !j.begun && mine(j) {
			j.begun = true
			return j, o.news
		}
	}
	return nil, o.news
}

// do does a job that was begun.
func (o *outbox) do(ctx context.Context, j *job) {
	limit := j.limit
	switch {
	case limit > 0:
	case j.push():
		limit = pushDeadline
	default:
		limit = callDeadline
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := j.send(ctx)
	o.mu.Lock()
	o.jobs = slices.DeleteFunc(o.jobs, func(other *job) bool { return other == j })
	o.ended = append(o.ended, result{j, err, o.now()})
	o.changed()
	o.mu.Unlock()
	o.tell()
}

// drain does every job that is there, and those that are put in meanwhile.
func (o *outbox) drain(ctx context.Context) {
	for {
		j, _ := o.begin(func(*job) bool { return true })
		if j == nil {
			return
		}
		o.do(ctx, j)
	}
}

// run does jobs until ctx ends.
func (o *outbox) run(ctx context.Context) {
	var workers sync.WaitGroup
	work := func(mine func(*job) bool) {
		for ctx.Err() == nil {
			j, news := o.begin(mine)
			if j != nil {
				o.do(ctx, j)
				continue
			}
			select {
			case <-ctx.Done():
			case <-news:
			}
		}
	}
	for range pushWorkers {
		workers.Go(func() { work((*job).push) })
	}
	for range againWorkers {
		workers.Go(func() { work((*job).retry) })
	}
	for range callWorkers {
		workers.Go(func() { work((*job).first) })
	}
	workers.Wait()
}
