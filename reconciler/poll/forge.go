package poll

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/queue"
	"github.com/autonomos/aob/reconciler/turn"
)

// How often the forge is asked, and how long its answers are believed.
const (
	listDeadline     = 30 * time.Second
	askDeadline      = 10 * time.Second
	questionDeadline = 3 * time.Minute // of all calls that one question takes

	permissionLasts  = time.Minute      // then it is asked again
	PermissionStands = 5 * time.Minute  // what is older is not believed
	StatusLasts      = time.Minute      // then a commit's statuses are read back again
	WrongLasts       = time.Minute      // the same, of what is wrong with the settings or an owner
	SetupLasts       = 10 * time.Minute // then the settings and the owners of gates are asked for again
	BodyLasts        = 2 * time.Minute  // then AOB's comment is read back again
	maxReadBacks     = 50               // that wait in the queue, so that nothing else waits long behind them
)

// Marker finds AOB's one comment on a pull request again. Forges hide it.
const Marker = "report"

// Troubles of what is asked.
const (
	ListTrouble  = "the list of pull requests cannot be read"
	SetupTrouble = "the forge is not set up as AOB needs it"
	AskTrouble   = "the forge does not answer all questions"
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

// A StatusRead is the statuses of a commit.
type StatusRead struct {
	List []delivery.Status
	At   time.Time // when they were asked for
	new  bool      // the loop has not seen them
}

// A BodyRead is what AOB's comment on a pull request says on the forge.
type BodyRead struct {
	Body    string
	At      time.Time // when it was asked for
	found   bool
	updated time.Time // of the pull request
	new     bool      // the loop has not seen it
}

// An API is what is asked of the forge.
type API interface {
	PullRequests(ctx context.Context) ([]delivery.PullRequest, error)
	// Ended says how a pull request stands that is not in the list of open ones any more; ended is false where it
	// is open all the same.
	Ended(ctx context.Context, pr delivery.PullRequest) (now delivery.PullRequest, ended bool, err error)
	// Statuses returns the newest status of each context under "aob/" on a commit.
	Statuses(ctx context.Context, commit string) ([]delivery.Status, error)
	// CommentBody returns AOB's own comment with a marker as it stands now, without the marker.
	CommentBody(ctx context.Context, pr int, marker string) (body string, found bool, err error)
	Commands(ctx context.Context, pr int) ([]delivery.Comment, error)
	// Ask makes sure that a question of AOB's stands on a pull request, in a comment that nobody has changed, and
	// returns who has agreed to it by a sign that only they can give.
	Ask(ctx context.Context, pr int, question string) ([]delivery.Consent, error)
	// Check returns what is wrong with how the forge is set up.
	Check(ctx context.Context) (delivery.Setup, error)
	Permission(ctx context.Context, user string) (delivery.Permission, error)
	Teams(ctx context.Context, user string) (map[string]bool, error)
	// Owner returns why a name can own no gate, as "no team of the repository and no user who may write here", or
	// "" where it can.
	Owner(ctx context.Context, name string) (problem string, err error)
	// Knows reports whether the forge has a pull request of that number that AOB opened from that branch, open or
	// not.
	Knows(ctx context.Context, number int, branch string) (bool, error)
}

// A Ledger keeps who has let something run.
type Ledger interface {
	PutApproval(ctx context.Context, g ledger.Approval) error
}

// Metrics counts. See package web for the names.
type Metrics interface {
	ForgeCall(what string, took time.Duration, err error)
	GitObserve(took time.Duration)
}

// A Config is what git and the forge are read with.
type Config struct {
	API     API
	Repo    Repo
	Ledger  Ledger
	Metrics Metrics
	Turn    *turn.Turn
	Wake    turn.Signal // sent when there is news for the loop

	Main    string        // the target branch
	GitPoll time.Duration // the longest time between two reads of git
	Every   time.Duration // the longest time between two reads of the list of pull requests
}

// New returns what reads git and the forge.
func New(c Config) (*Git, *Forge) {
	g := &Git{Config: c, Look: turn.NewSignal()}
	f := newForge(c, g)
	g.changed = []turn.Signal{c.Wake, f.Look} // a list of pull requests that is older than main says less
	return g, f
}

// A Forge is what was read of the forge. The loop reads it, and one goroutine fills it; tests fill it themselves.
type Forge struct {
	Config
	Look turn.Signal // send it to have what is due asked at once
	git  *Git

	mu       sync.Mutex
	prs      []delivery.PullRequest
	listed   bool      // the last try to list them succeeded
	ever     bool      // one did
	listAt   time.Time // when the last list that came was asked for
	listAsOf int       // the number of [Git.Known] at that time
	tried    time.Time // when the list was last asked for
	due      bool      // the list is to be read at the next step
	next     time.Time // nothing is asked before, after the list could not be read
	pause    time.Duration

	asking   *queue.Queue  // the questions that are being asked
	answered turn.Signal   // a question was asked
	retry    queue.Backoff // of the questions that failed
	more     bool          // there is more to ask than the queue takes

	permission map[string]permitted
	teams      map[string]teamsOf
	asks       map[int]waiting // by pull request: what its comments may say, as the last plan asks
	orders     map[int]Orders  // by pull request: what its comments say
	heads      []string        // commits besides the heads of pull requests whose statuses are read back
	own        []Own           // pull requests of AOB's own that the forge may have lost
	owns       map[string]ownRead
	owners     []string // of gates, on main and in pull requests
	known      map[string]ownerRead
	setupAt    time.Time // when the settings were asked for
	wrong      bool      // something is wrong with them
	woken      bool      // somebody said that there is something new
	refuses    string    // why the forge refuses to merge AOB's commits
	statuses   map[string]StatusRead
	again      map[string]bool // commits whose statuses have to be read at once
	bodies     map[int]BodyRead
	gone       map[int]delivery.PullRequest // that were open and are not in the list
	ends       map[int]delivery.PullRequest // those of them that are known to be closed, as they are now
	fresh      bool                         // something was read back that the loop has not seen
	version    int                          // grows with each answer that is news
}

func newForge(c Config, git *Git) *Forge {
	f := &Forge{Config: c, git: git, Look: turn.NewSignal(), due: true, retry: queue.Backoff{},
		permission: map[string]permitted{}, teams: map[string]teamsOf{},
		asks: map[int]waiting{}, orders: map[int]Orders{}, statuses: map[string]StatusRead{}, again: map[string]bool{},
		bodies: map[int]BodyRead{}, owns: map[string]ownRead{}}
	f.answered = turn.NewSignal()
	f.asking = queue.New(queue.Workers{First: 4, Again: 2, Limit: questionDeadline}, c.Turn.Now, f.answered)
	return f
}

// news counts an answer that is new, and wakes the loop; f.mu is held.
func (f *Forge) news() {
	f.version++
	f.Wake.Send()
}

// Step reads the list of pull requests, and puts all other questions that are due into the queue.
func (f *Forge) Step(ctx context.Context) {
	now := f.Turn.Now()
	f.asking.Results() // each question has kept its answer itself
	f.mu.Lock()
	wait := now.Before(f.next)
	_, asOf := f.git.Known()
	due := f.due || !f.listed || asOf != f.listAsOf || now.Sub(f.tried) >= f.Every
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
func (f *Forge) put(key string, ask func(context.Context) error) bool {
	f.mu.Lock()
	failed, again := f.retry[key]
	pauses := f.retry.Due(key, f.Turn.Now()) != nil
	f.mu.Unlock()
	if pauses {
		return false
	}
	f.asking.Put(queue.Job{Key: key, Lane: key, Again: again, Took: failed.Took,
		Do: func(ctx context.Context) error {
			return f.try(key, func() error { return ask(ctx) })
		}})
	return true
}

// isAsked reports whether a question is in the queue or being asked.
func (f *Forge) isAsked(key string) bool {
	_, _, ok := f.asking.Waiting(key)
	return ok
}

// try asks a question at once, unless it has failed lately: then that error is the answer.
func (f *Forge) try(key string, ask func() error) error {
	f.mu.Lock()
	err := f.retry.Due(key, f.Turn.Now())
	f.mu.Unlock()
	if err != nil {
		return err
	}
	start := f.Turn.Now()
	err = ask()
	now := f.Turn.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	_, failed := f.retry[key]
	f.retry.Note(key, now, now.Sub(start), err)
	if err != nil || failed {
		f.Turn.Note(AskTrouble, turn.First(f.retry.Errors(), "questions"))
	}
	return err
}

// forget drops the questions that failed and that nobody asks any more, such as those about a closed pull request.
func (f *Forge) forget(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := len(f.retry)
	f.retry.Forget(now.Add(-f.Every-askDeadline), f.isAsked)
	if len(f.retry) < before {
		f.Turn.Note(AskTrouble, turn.First(f.retry.Errors(), "questions"))
	}
}

// goesOn reports whether there is more to ask and the queue can take it now.
func (f *Forge) goesOn() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	goesOn := f.more && f.asking.Fresh() < maxReadBacks/2
	f.more = f.more && !goesOn
	return goesOn
}

// wait returns how long the forge need not be asked anything.
func (f *Forge) wait() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.Turn.Now()
	if now.Before(f.next) {
		return f.next.Sub(now)
	}
	wait := f.Every - now.Sub(f.tried)
	for _, e := range f.retry {
		if now.Before(e.Next) {
			wait = min(wait, e.Next.Sub(now))
		}
	}
	return max(0, wait)
}

// failed sets when the list is asked for again.
func (f *Forge) failed(now time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pause = min(max(2*f.pause, time.Second), queue.MaxPause)
	wait := f.pause
	if w, ok := errors.AsType[delivery.Wait](err); ok {
		wait = w.For
	}
	f.next = now.Add(wait)
}

// call asks the forge one thing, within a time.
func call[T any](ctx context.Context, f *Forge, what string, limit time.Duration, ask func(context.Context) (T,
	error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := f.Turn.Now()
	answer, err := ask(ctx)
	f.Metrics.ForgeCall(what, f.Turn.Now().Sub(start), err)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %s: %w", limit, err)
	}
	return answer, err
}

// readList reads the open pull requests, and reports whether it could.
func (f *Forge) readList(ctx context.Context, now time.Time, asOf int) bool {
	prs, err := call(ctx, f, "pull requests", listDeadline, f.API.PullRequests)
	f.Turn.Note(ListTrouble, err)
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
	keep := maps.Clone(open) // the final status of those that are gone needs their heads
	for n := range f.gone {
		keep[n] = true
	}
	f.Repo.KeepPulls(slices.Sorted(maps.Keys(keep)))
	if !f.listed || !slices.Equal(prs, f.prs) || f.listAsOf != asOf {
		f.news()
	}
	f.prs, f.listed, f.ever, f.listAt, f.listAsOf = prs, true, true, now, asOf
	f.pause, f.next = 0, time.Time{}
	maps.DeleteFunc(f.orders, func(n int, _ Orders) bool { return !open[n] })
	maps.DeleteFunc(f.bodies, func(n int, _ BodyRead) bool { return !open[n] })
	return true
}

// Want says what is to be asked: comments that the last plan waits for, the statuses of commits besides the heads of
// pull requests, the owners of gates, and the pull requests of AOB's own that the forge may have lost.
func (f *Forge) Want(p plan.Plan, heads, owners []string, own []Own) {
	asks := map[int]waiting{}
	for _, pr := range p.Proposals {
		if w := waits(pr); len(w.codes()) > 0 {
			asks[pr.PR.Number] = w
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for n, w := range asks {
		if !slices.Equal(f.asks[n].codes(), w.codes()) {
			f.Look.Send() // the comment may be there already
		}
	}
	if !slices.Equal(f.own, own) {
		f.Look.Send()
	}
	f.asks, f.heads, f.owners, f.own = asks, heads, owners, own
}

// News returns what was read back and not taken before.
func (f *Forge) News() (statuses map[string]StatusRead, bodies map[int]BodyRead) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.fresh {
		return nil, nil
	}
	f.fresh = false
	statuses, bodies = map[string]StatusRead{}, map[int]BodyRead{}
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

// Pulls is the open pull requests as they were read last.
type Pulls struct {
	Open    []delivery.PullRequest
	Known   bool      // the last try to read the list succeeded
	Ever    bool      // it was read at all
	AsOf    int       // the number of [Git.Known] when it was asked for
	At      time.Time // when it was asked for
	Version int       // grows with each answer of the forge that is news
}

// List returns the open pull requests.
func (f *Forge) List() Pulls {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Pulls{f.prs, f.listed, f.ever, f.listAsOf, f.listAt, f.version}
}

// Author returns what a user may do, where that is known.
func (f *Forge) Author(user string) (delivery.Permission, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.permission[user]
	return p.permission, ok && f.Turn.Now().Sub(p.at) < PermissionStands
}

// Orders returns what the comments of a pull request ask for.
func (f *Forge) Orders(pr int) Orders {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.orders[pr]
}

// Head returns a pull request's head: the ref is newer than the list, where the forge keeps one.
func Head(pr delivery.PullRequest, refs map[string]string) string {
	if head, ok := refs[pr.Ref]; ok && pr.Ref != "" {
		return head
	}
	return pr.Head
}

// LookAt asks for the list, and for the statuses of a commit, at once.
func (f *Forge) LookAt(commit string) {
	f.mu.Lock()
	f.due, f.woken = true, true
	if commit != "" {
		f.again[commit] = true
	}
	f.mu.Unlock()
	f.Look.Send()
}

// rest waits until the next step is due.
func (f *Forge) rest(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.Look:
			return
		case <-timer.C:
			return
		case <-f.answered:
			if f.goesOn() {
				return
			}
		}
	}
}

// Run asks until ctx ends.
func (f *Forge) Run(ctx context.Context) {
	var workers sync.WaitGroup
	defer workers.Wait()
	workers.Go(func() { f.asking.Run(ctx) })
	for ctx.Err() == nil {
		f.Step(ctx)
		f.rest(ctx, max(f.wait(), 50*time.Millisecond))
	}
}

// Drain asks all questions that are due, for those who drive the loop themselves.
func (f *Forge) Drain(ctx context.Context) { f.asking.Drain(ctx) }

// Again returns when the first question that failed is asked again; zero where none has failed.
func (f *Forge) Again() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	again := f.next
	for _, e := range f.retry {
		if e.Next.After(f.Turn.Now()) && (again.IsZero() || e.Next.Before(again)) {
			again = e.Next
		}
	}
	return again
}
