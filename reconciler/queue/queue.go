package queue

import (
	"cmp"
	"container/heap"
	"context"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/turn"
)

// A Job is one call. The jobs of a lane run in order, one at a time.
type Job struct {
	Key     string // a newer job with the same key replaces one that has not begun
	Lane    string // such as status/COMMIT or comment/7; all jobs with one key are in one lane
	Content string // distinguishes jobs with the same key
	Do      func(context.Context) error
	Again   bool          // it failed before and may hang again, so it has workers of its own
	Took    time.Duration // of all failed attempts
	Class   Class

	begun bool
	since time.Time // when it was added
	order int       // in which it was added
}

// A Class is the priority of a job.
type Class int

const (
	Urgent Class = iota - 1 // at most one lane may be urgent, so that it never takes all workers
	Normal
	Later
)

// A kind of job has workers of its own, so that slow jobs of the other kind do not delay it.
type kind int

const (
	first kind = iota
	again      // it failed before
	kinds
)

func (j *Job) kind() kind {
	if j.Again {
		return again
	}
	return first
}

// A Result is the result of a job.
type Result struct {
	*Job
	Err  error
	Took time.Duration // this attempt
}

// A lane contains jobs that run one after the other, in the order in which they were added.
type lane struct {
	jobs []*Job // never empty
	at   int    // index in the heap of waiting lanes; -1 while the first job runs
	in   kind   // of the heap
}

// A waitingLanes is a heap of the lanes whose first job has not begun.
type waitingLanes []*lane

func (h waitingLanes) Len() int { return len(h) }

func (h waitingLanes) Less(i, k int) bool { return goesFirst(h[i].jobs[0], h[k].jobs[0]) }

// goesFirst reports whether a runs before b. Jobs whose failed attempts took less time come first, so that jobs that
// hang each time do not delay others.
func goesFirst(a, b *Job) bool {
	if a.Class == Urgent || b.Class == Urgent {
		return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(a.order, b.order)) < 0
	}
	seconds := func(j *Job) int { return int(j.Took / time.Second) }
	return cmp.Or(cmp.Compare(seconds(a), seconds(b)), cmp.Compare(a.Class, b.Class), cmp.Compare(a.order, b.order)) < 0
}

func (h waitingLanes) Swap(i, k int) {
	h[i], h[k] = h[k], h[i]
	h[i].at, h[k].at = i, k
}

// Push is for package heap.
func (h *waitingLanes) Push(x any) {
	l := x.(*lane)
	l.at = len(*h)
	*h = append(*h, l)
}

// Pop is for package heap.
func (h *waitingLanes) Pop() any {
	l := (*h)[len(*h)-1]
	*h, l.at = (*h)[:len(*h)-1], -1
	return l
}

// A Queue runs jobs beside the loop. Its methods may be called from any goroutine.
type Queue struct {
	workers Workers
	now     func() time.Time
	ended   turn.Signal

	mu      sync.Mutex
	lanes   map[string]*lane
	byKey   map[string][]*Job // jobs that have not ended, in order
	wait    [kinds]waitingLanes
	n       [kinds]int // number of jobs that have not ended
	last    int        // order of the last added job
	results []Result
	over    map[string]int // number of results by key
	news    chan struct{}  // closed and replaced when a job was added or has ended
}

// Workers is how many jobs run at a time, and how long one may take.
type Workers struct {
	First, Again int // for jobs that did not fail before, and for those that did
	Limit        time.Duration
}

// New returns an empty queue. ended is sent when a job has ended.
func New(w Workers, now func() time.Time, ended turn.Signal) *Queue {
	return &Queue{workers: w, now: now, ended: ended, lanes: map[string]*lane{}, byKey: map[string][]*Job{},
		over: map[string]int{}, news: make(chan struct{})}
}

// Put adds a job. It replaces a job with the same key that has not begun.
func (q *Queue) Put(j Job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	same := q.byKey[j.Key]
	if n := len(same); n > 0 && !same[n-1].begun { // at most the last job of a key has not begun
		old := same[n-1]
		q.n[old.kind()]--
		j.since, j.order = old.since, old.order
		*old = j
		q.n[old.kind()]++
		if l := q.lanes[j.Lane]; l.jobs[0] == old {
			heap.Remove(&q.wait[l.in], l.at)
			q.waits(l)
			q.changed() // it may be of another kind now, whose workers are idle
		}
		return
	}
	q.last++
	j.since, j.order = q.now(), q.last
	q.byKey[j.Key] = append(same, &j)
	q.n[j.kind()]++
	if l := q.lanes[j.Lane]; l != nil {
		l.jobs = append(l.jobs, &j)
		return
	}
	l := &lane{jobs: []*Job{&j}}
	q.lanes[j.Lane] = l
	q.waits(l)
	q.changed()
}

// waits adds a lane to the heap of its first job's kind. q.mu must be held.
func (q *Queue) waits(l *lane) {
	l.in = l.jobs[0].kind()
	heap.Push(&q.wait[l.in], l)
}

// changed wakes all workers. q.mu must be held.
func (q *Queue) changed() {
	close(q.news)
	q.news = make(chan struct{})
}

// Waiting returns the newest job with a key that has not ended.
func (q *Queue) Waiting(key string) (content string, begun, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.byKey[key]
	if len(list) == 0 {
		return "", false, false
	}
	j := list[len(list)-1]
	return j.Content, j.begun, true
}

// Has reports whether a job with the key has not ended, or Results has not returned its result yet.
func (q *Queue) Has(key string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.byKey[key]) > 0 || q.over[key] > 0
}

// Oldest returns how many jobs have not ended, and when the oldest of them was added.
func (q *Queue) Oldest() (n int, since time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range q.lanes {
		n += len(l.jobs)
		if j := l.jobs[0]; since.IsZero() || j.since.Before(since) {
			since = j.since
		}
	}
	return n, since
}

// Fresh returns the number of jobs that have not ended and did not fail before.
func (q *Queue) Fresh() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n[first]
}

// Results returns the results of the jobs that have ended since the last call, in order.
func (q *Queue) Results() []Result {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.results
	q.results = nil
	clear(q.over)
	return list
}

// begin returns the next job of some kinds, or nil if there is none. The channel is closed when that may have changed.
func (q *Queue) begin(of ...kind) (*Job, <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var next *lane
	for _, k := range of {
		if h := q.wait[k]; len(h) > 0 && (next == nil || goesFirst(h[0].jobs[0], next.jobs[0])) {
			next = h[0]
		}
	}
	if next == nil {
		return nil, q.news
	}
	heap.Remove(&q.wait[next.in], next.at)
	next.jobs[0].begun = true
	return next.jobs[0], q.news
}

// end removes a job that has begun. q.mu must be held.
func (q *Queue) end(j *Job) {
	q.n[j.kind()]--
	if q.byKey[j.Key] = q.byKey[j.Key][1:]; len(q.byKey[j.Key]) == 0 { // the one that has begun is first
		delete(q.byKey, j.Key)
	}
	l := q.lanes[j.Lane]
	if l.jobs = l.jobs[1:]; len(l.jobs) == 0 {
		delete(q.lanes, j.Lane)
		return
	}
	q.waits(l)
}

// do runs a job that has begun.
func (q *Queue) do(ctx context.Context, j *Job) {
	ctx, cancel := context.WithTimeout(ctx, q.workers.Limit)
	defer cancel()
	start := q.now()
	err := j.Do(ctx)
	took := q.now().Sub(start)
	q.mu.Lock()
	q.end(j)
	q.results = append(q.results, Result{j, err, took})
	q.over[j.Key]++
	q.changed()
	q.mu.Unlock()
	q.ended.Send()
}

// Drain runs all jobs, also those that are added meanwhile.
func (q *Queue) Drain(ctx context.Context) {
	for {
		j, _ := q.begin(first, again)
		if j == nil {
			return
		}
		q.do(ctx, j)
	}
}

// Run runs jobs until ctx ends.
func (q *Queue) Run(ctx context.Context) {
	var workers sync.WaitGroup
	work := func(of kind) {
		for ctx.Err() == nil {
			j, news := q.begin(of)
			if j != nil {
				q.do(ctx, j)
				continue
			}
			select {
			case <-ctx.Done():
			case <-news:
			}
		}
	}
	for range q.workers.First {
		workers.Go(func() { work(first) })
	}
	for range q.workers.Again {
		workers.Go(func() { work(again) })
	}
	workers.Wait()
}
