package reconciler

// This file reads the forge, beside the loop. A turn works with the last answers, so that it never waits for the forge.
// The list of pull requests comes first. All else is a queue of questions: each fails alone, and is asked again after a
// pause of its own.

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// How often the forge is asked, and how long its answers are believed.
const (
	listDeadline     = 30 * time.Second
	askDeadline      = 10 * time.Second
	questionDeadline = 3 * time.Minute // of all calls that one question takes

	permissionLasts  = time.Minute      // then it is asked again
	permissionStands = 5 * time.Minute  // what is older is not believed
	statusLasts      = time.Minute      // then a commit's statuses are read back again
	wrongLasts       = time.Minute      // the same, of what is wrong with the settings or an owner
	setupLasts       = 10 * time.Minute // then the settings and the owners of gates are asked for again
	bodyLasts        = 2 * time.Minute  // then AOB's comment is read back again
	maxReadBacks     = 50               // that wait in the queue, so that nothing else waits long behind them
)

const (
	listTrouble    = "the list of pull requests cannot be read"
	setupTrouble   = "the forge is not set up as AOB needs it"
	askTrouble     = "the forge does not answer all questions"
	restartTrouble = "the repository has not been read yet"
)

type permitted struct {
	permission delivery.Permission
	at         time.Time
}

type teamsOf struct {
	in map[string]bool
	at time.Time
}

// An ownerRead is whether a name can own a gate.
type ownerRead struct {
	problem string // why it cannot; empty where it can
	at      time.Time
}

// A statusRead is what stood on a commit.
type statusRead struct {
	list []delivery.Status
	at   time.Time // when it was asked for
	new  bool      // the loop has not seen it
}

// A bodyRead is what AOB's comment on a pull request said.
type bodyRead struct {
	body    string
	found   bool
	updated time.Time // of the pull request
	at      time.Time // when it was asked for
	new     bool      // the loop has not seen it
}

// A forgeView is what was read of the forge. The loop reads it, and one goroutine fills it; tests fill it themselves.
type forgeView struct {
	r    *Reconciler
	look chan struct{} // somebody says that there is something new

	mu       sync.Mutex
	prs      []delivery.PullRequest
	listed   bool      // the last try to list them succeeded
	ever     bool      // one did
	listAt   time.Time // when the last list that came was asked for
	listAsOf int       // gitView's number at that time
	tried    time.Time // when the list was last asked for
	due      bool      // the list is to be read at the next step
	next     time.Time // nothing is asked before, after the list could not be read
	pause    time.Duration

	asking *outbox // the questions that are being asked
	retry  backoff // of the questions that failed
	more   bool    // there is more to ask than the queue takes

	permission map[string]permitted
	teams      map[string]teamsOf
	asks       map[int]waiting // by pull request: what its comments may say, as the last plan asks
	asked      map[int]asked   // by pull request: what its comments say
	heads      []string        // commits besides the heads of pull requests whose statuses are read back
	own        []ownPull       // pull requests of AOB's own that the forge may have lost
	owns       map[string]ownRead
	owners     []string // of gates, on main and in pull requests
	known      map[string]ownerRead
	setupAt    time.Time // when the settings were asked for
	wrong      bool      // something is wrong with them
	woken      bool      // somebody said that there is something new
	refuses    string    // why the forge refuses to merge AOB's commits
	statuses   map[string]statusRead
	again      map[string]bool // commits whose statuses have to be read at once
	bodies     map[int]bodyRead
	gone       map[int]delivery.PullRequest // that were open and are not in the list
	ends       map[int]delivery.PullRequest // those of them that are known to be closed, as they are now
	fresh      bool                         // something was read back that the loop has not seen
	version    int                          // grows with each answer that is news
}

func newForgeView(r *Reconciler) *forgeView {
	f := &forgeView{r: r, look: make(chan struct{}, 1), due: true, retry: backoff{}, permission: map[string]permitted{},
		teams: map[string]teamsOf{},
		asks:  map[int]waiting{}, asked: map[int]asked{}, statuses: map[string]statusRead{}, again: map[string]bool{},
		bodies: map[int]bodyRead{}, owns: map[string]ownRead{}}
	f.asking = newOutbox(func() time.Time { return r.Now() }, f.answered)
	return f
}

// news counts an answer that is news, and wakes the loop; f.mu is held.
func (f *forgeView) news() {
	f.version++
	f.r.glance()
}

// step reads the list of pull requests, and puts all other questions that are due into the queue.
func (f *forgeView) step(ctx context.Context) {
	now := f.r.Now()
	f.asking.results() // each question has kept its answer itself
	f.mu.Lock()
	wait := now.Before(f.next)
	_, asOf := f.r.git.known()
	due := f.due || !f.listed || asOf != f.listAsOf || now.Sub(f.tried) >= f.r.Poll
	f.mu.Unlock()
	if wait {
		return
	}
	if due && !f.readList(ctx, now, asOf) {
		return
	}
	f.forget(now)
	f.readEnds()
	f.readOwn(now)
	f.readPermissions(now)
	f.readComments(due)
	f.readBack(now)
	f.readOwners(now)
	f.readSetup(now)
}

// put puts a question into the queue, unless it waits there already or has failed lately. A key names the question, as
// permission/ann. It reports whether the question is in the queue now.
func (f *forgeView) put(key string, ask func(context.Context) error) bool {
	f.mu.Lock()
	failed, again := f.retry[key]
	pauses := f.retry.due(key, f.r.Now()) != nil
	f.mu.Unlock()
	if pauses {
		return false
	}
	f.asking.put(job{key: key, lane: key, again: again, took: failed.took, limit: questionDeadline,
		send: func(ctx context.Context) error {
			return f.try(key, func() error { return ask(ctx) })
		}})
	return true
}

// isAsked reports whether a question is in the queue or being asked.
func (f *forgeView) isAsked(key string) bool {
	_, _, ok := f.asking.waiting(key)
	return ok
}

// try asks a question at once, unless it has failed lately: then that error is the answer.
func (f *forgeView) try(key string, ask func() error) error {
	f.mu.Lock()
	err := f.retry.due(key, f.r.Now())
	f.mu.Unlock()
	if err != nil {
		return err
	}
	start := f.r.Now()
	err = ask()
	now := f.r.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	_, failed := f.retry[key]
	f.retry.note(key, now, now.Sub(start), err)
	if err != nil || failed {
		f.r.troubles.note(askTrouble, f.retry.first("questions"))
	}
	return err
}

// forget drops the questions that failed and that nobody asks any more, such as those about a closed pull request.
func (f *forgeView) forget(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := len(f.retry)
	f.retry.forget(now.Add(-f.r.Poll-askDeadline), f.isAsked)
	if len(f.retry) < before {
		f.r.troubles.note(askTrouble, f.retry.first("questions"))
	}
}

// answered goes on with what the queue did not take, when a question has been asked.
func (f *forgeView) answered() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.more && f.asking.count(callJob) < maxReadBacks/2 {
		f.more = false
		nudge(f.look)
	}
}

// wait returns how long the forge need not be asked anything.
func (f *forgeView) wait() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.r.Now()
	if now.Before(f.next) {
		return f.next.Sub(now)
	}
	wait := f.r.Poll - now.Sub(f.tried)
	for _, e := range f.retry {
		if now.Before(e.next) {
			wait = min(wait, e.next.Sub(now))
		}
	}
	return max(0, wait)
}

// failed sets when the list is asked for again.
func (f *forgeView) failed(now time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pause = min(max(2*f.pause, time.Second), maxBackoff)
	wait := f.pause
	if w, ok := errors.AsType[delivery.Wait](err); ok {
		wait = w.For
	}
	f.next = now.Add(wait)
}

// call asks the forge one thing, within a time.
func call[T any](ctx context.Context, f *forgeView, what string, limit time.Duration, ask func(context.Context) (T,
	error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := f.r.Now()
	answer, err := ask(ctx)
	f.r.Metrics.ForgeCall(what, f.r.Now().Sub(start), err)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %s: %w", limit, err)
	}
	return answer, err
}

// readList reads the open pull requests, and reports whether it could.
func (f *forgeView) readList(ctx context.Context, now time.Time, asOf int) bool {
	prs, err := call(ctx, f, "pull requests", listDeadline, f.r.Forge.PullRequests)
	f.r.troubles.note(listTrouble, err)
	f.mu.Lock()
	f.tried, f.due = now, false
	if err != nil {
		if f.listed {
			f.news()
		}
		f.listed = false
		f.mu.Unlock()
		f.failed(now, err)
		return false
	}
	f.mu.Unlock()
	open := map[int]bool{}
	for _, pr := range prs {
		open[pr.Number] = true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	keep := maps.Clone(open) // the last word on those that are gone needs their heads
	for n := range f.gone {
		keep[n] = true
	}
	f.r.Repo.KeepPulls(slices.Sorted(maps.Keys(keep)))
	if !f.listed || !slices.Equal(prs, f.prs) || f.listAsOf != asOf {
		f.news()
	}
	f.prs, f.listed, f.ever, f.listAt, f.listAsOf = prs, true, true, now, asOf
	f.pause, f.next = 0, time.Time{}
	maps.DeleteFunc(f.asked, func(n int, _ asked) bool { return !open[n] })
	maps.DeleteFunc(f.bodies, func(n int, _ bodyRead) bool { return !open[n] })
	return true
}

// want says what the last plan asks of comments, which commits besides the heads of pull requests are read back, and
// which pull requests of AOB's own the forge may have lost.
func (f *forgeView) want(asks map[int]waiting, heads, owners []string, own []ownPull) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n, w := range asks {
		if !slices.Equal(f.asks[n].codes(), w.codes()) {
			nudge(f.look) // the comment may be there already
		}
	}
	if !slices.Equal(f.own, own) {
		nudge(f.look)
	}
	f.asks, f.heads, f.owners, f.own = asks, heads, owners, own
}

// readNews returns what was read back and not taken before.
func (f *forgeView) readNews() (statuses map[string]statusRead, bodies map[int]bodyRead) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.fresh {
		return nil, nil
	}
	f.fresh = false
	statuses, bodies = map[string]statusRead{}, map[int]bodyRead{}
	for commit, s := range f.statuses {
		if s.new {
			statuses[commit] = s
			s.new = false
			f.statuses[commit] = s
		}
	}
	for n, b := range f.bodies {
		if b.new {
			bodies[n] = b
			b.new = false
			f.bodies[n] = b
		}
	}
	return statuses, bodies
}

// A pullList is the open pull requests as they were read last.
type pullList struct {
	prs     []delivery.PullRequest
	known   bool      // the last try to read the list succeeded
	ever    bool      // it was read at all
	asOf    int       // gitView's number when it was asked for
	at      time.Time // when it was asked for
	version int
}

func (f *forgeView) list() pullList {
	f.mu.Lock()
	defer f.mu.Unlock()
	return pullList{f.prs, f.listed, f.ever, f.listAsOf, f.listAt, f.version}
}

// author returns what a user may do, where that is known.
func (f *forgeView) author(user string) (delivery.Permission, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.permission[user]
	return p.permission, ok && f.r.Now().Sub(p.at) < permissionStands
}

// said returns what the comments of a pull request ask for.
func (f *forgeView) said(pr int) asked {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[pr]
}

// head returns a pull request's head: the ref is newer than the list, where the forge keeps one.
func head(pr delivery.PullRequest, refs map[string]string) string {
	if head, ok := refs[pr.Ref]; ok && pr.Ref != "" {
		return head
	}
	return pr.Head
}

// lookAt asks for the list, and for the statuses of a commit, at once.
func (f *forgeView) lookAt(commit string) {
	f.mu.Lock()
	f.due, f.woken = true, true
	if commit != "" {
		f.again[commit] = true
	}
	f.mu.Unlock()
	nudge(f.look)
}

// run asks until ctx ends.
func (f *forgeView) run(ctx context.Context) {
	var workers sync.WaitGroup
	defer workers.Wait()
	workers.Go(func() { f.asking.run(ctx) })
	for ctx.Err() == nil {
		f.step(ctx)
		pause(ctx, max(f.wait(), 50*time.Millisecond), f.look)
	}
}
