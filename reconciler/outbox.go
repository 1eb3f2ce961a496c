package reconciler

// This file sends: statuses, comments, pushes, pull requests of AOB's own. The loop puts a job into the queue and goes
// on; workers do the jobs, and the loop hears the results at its next turn. The questions to the forge are a queue too.

import (
	"cmp"
	"container/heap"
	"context"
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
	lane    string // as status/COMMIT, comment/7 or push/BRANCH; a key is always of one lane
	content string // what the job says, to tell two jobs with one key apart
	send    func(context.Context) error
	heard   func(result)  // called by the loop; may be nil
	again   bool          // it failed before, and may hang again: it has other workers than the rest
	took    time.Duration // how long the tries that failed took together
	class   jobClass
	limit   time.Duration // how long it may take; zero is callDeadline, or pushDeadline of a push

	begun bool
	since time.Time // when it was put in
	order int       // in which it was put in
}

// A jobClass says which jobs come before others of their kind.
type jobClass int

const (
	firstJobs jobClass = iota - 1 // they must be of one lane, so that they never take all workers
	plainJobs
	laterJobs
)

// A kind of job has workers of its own, so that a slow one of another kind does not hold it up.
type jobKind int

const (
	pushJob  jobKind = iota // which move a branch
	retryJob                // calls that failed before
	callJob                 // all others
	jobKinds
)

func (j *job) kind() jobKind {
	switch {
	case strings.HasPrefix(j.lane, "push/"):
		return pushJob
	case j.again:
		return retryJob
	}
	return callJob
}

// A result is how a job ended.
type result struct {
	*job
	err  error
	at   time.Time
	took time.Duration // this try
}

// A lane is the jobs that are done one after the other, in the order in which they were put in.
type lane struct {
	jobs []*job  // never empty
	at   int     // in the heap of those that wait; -1 while the first job is being done
	in   jobKind // of the heap
}

// A waitingLanes is a heap of the lanes whose first job has not begun.
type waitingLanes []*lane

func (h waitingLanes) Len() int { return len(h) }

func (h waitingLanes) Less(i, k int) bool { return goesFirst(h[i].jobs[0], h[k].jobs[0]) }

// goesFirst reports whether a is done before b. Jobs whose tries took less time come first, so that those that hang
// each time hold no other up.
func goesFirst(a, b *job) bool {
	if a.class == firstJobs || b.class == firstJobs {
		return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(a.order, b.order)) < 0
	}
	seconds := func(j *job) int { return int(j.took / time.Second) }
	return cmp.Or(cmp.Compare(seconds(a), seconds(b)), cmp.Compare(a.class, b.class),
		cmp.Compare(a.order, b.order)) < 0
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

// An outbox is the queue of jobs. Its methods may be called from any goroutine.
type outbox struct {
	now  func() time.Time
	tell func() // called when a job has ended

	mu    sync.Mutex
	lanes map[string]*lane
	byKey map[string][]*job // that have not ended, in order
	wait  [jobKinds]waitingLanes
	n     [jobKinds]int // jobs that have not ended
	last  int           // order of the job that was put in last
	ended []result
	over  map[string]int // how many of ended there are, by key
	news  chan struct{}  // closed and made anew when a job is put in or has ended
}

func newOutbox(now func() time.Time, tell func()) *outbox {
	return &outbox{now: now, tell: tell, lanes: map[string]*lane{}, byKey: map[string][]*job{}, over: map[string]int{},
		news: make(chan struct{})}
}

// put adds a job. It takes the place of a job with the same key that has not begun.
func (o *outbox) put(j job) {
	o.mu.Lock()
	defer o.mu.Unlock()
	same := o.byKey[j.key]
	if n := len(same); n > 0 && !same[n-1].begun { // of one key only the last has not begun
		old := same[n-1]
		o.n[old.kind()]--
		j.since, j.order = old.since, old.order
		*old = j
		o.n[old.kind()]++
		if l := o.lanes[j.lane]; l.jobs[0] == old {
			heap.Remove(&o.wait[l.in], l.at)
			o.waits(l)
			o.changed() // it may be of another kind now, whose workers have nothing to do
		}
		return
	}
	o.last++
	j.since, j.order = o.now(), o.last
	o.byKey[j.key] = append(same, &j)
	o.n[j.kind()]++
	if l := o.lanes[j.lane]; l != nil {
		l.jobs = append(l.jobs, &j)
		return
	}
	l := &lane{jobs: []*job{&j}}
	o.lanes[j.lane] = l
	o.waits(l)
	o.changed()
}

// waits puts a lane where workers find it; o.mu is held.
func (o *outbox) waits(l *lane) {
	l.in = l.jobs[0].kind()
	heap.Push(&o.wait[l.in], l)
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
	list := o.byKey[key]
	if len(list) == 0 {
		return "", false, false
	}
	j := list[len(list)-1]
	return j.content, j.begun, true
}

// has reports whether a job with the key has not ended, or has ended and was not heard of.
func (o *outbox) has(key string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.byKey[key]) > 0 || o.over[key] > 0
}

// oldest returns how many jobs have not ended, and since when the first of them waits.
func (o *outbox) oldest() (n int, since time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.lanes {
		n += len(l.jobs)
		if j := l.jobs[0]; since.IsZero() || j.since.Before(since) {
			since = j.since
		}
	}
	return n, since
}

// count returns how many jobs of a kind have not ended.
func (o *outbox) count(of jobKind) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.n[of]
}

// results returns how jobs ended since the last call, in that order.
func (o *outbox) results() []result {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := o.ended
	o.ended = nil
	clear(o.over)
	return list
}

// begin takes the first job of some kinds, of those that are first in their lane and not being done; nil where there is
// none. The channel is closed when that may change.
func (o *outbox) begin(of ...jobKind) (*job, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var next *lane
	for _, k := range of {
		if h := o.wait[k]; len(h) > 0 && (next == nil || goesFirst(h[0].jobs[0], next.jobs[0])) {
			next = h[0]
		}
	}
	if next == nil {
		return nil, o.news
	}
	heap.Remove(&o.wait[next.in], next.at)
	next.jobs[0].begun = true
	return next.jobs[0], o.news
}

// end takes a job that was begun out of the queue; o.mu is held.
func (o *outbox) end(j *job) {
	o.n[j.kind()]--
	if o.byKey[j.key] = o.byKey[j.key][1:]; len(o.byKey[j.key]) == 0 { // the one that has begun is first
		delete(o.byKey, j.key)
	}
	l := o.lanes[j.lane]
	if l.jobs = l.jobs[1:]; len(l.jobs) == 0 {
		delete(o.lanes, j.lane)
		return
	}
	o.waits(l)
}

// do does a job that was begun.
func (o *outbox) do(ctx context.Context, j *job) {
	limit := j.limit
	switch {
	case limit > 0:
	case j.kind() == pushJob:
		limit = pushDeadline
	default:
		limit = callDeadline
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := o.now()
	err := j.send(ctx)
	end := o.now()
	o.mu.Lock()
	o.end(j)
	o.ended = append(o.ended, result{j, err, end, end.Sub(start)})
	o.over[j.key]++
	o.changed()
	o.mu.Unlock()
	o.tell()
}

// drain does every job that is there, and those that are put in meanwhile.
func (o *outbox) drain(ctx context.Context) {
	for {
		j, _ := o.begin(pushJob, retryJob, callJob)
		if j == nil {
			return
		}
		o.do(ctx, j)
	}
}

// run does jobs until ctx ends.
func (o *outbox) run(ctx context.Context) {
	var workers sync.WaitGroup
	work := func(of jobKind) {
		for ctx.Err() == nil {
			j, news := o.begin(of)
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
		workers.Go(func() { work(pushJob) })
	}
	for range againWorkers {
		workers.Go(func() { work(retryJob) })
	}
	for range callWorkers {
		workers.Go(func() { work(callJob) })
	}
	workers.Wait()
}
