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

// Limits of calls.
const (
	listDeadline     = 30 * time.Second // of the list of pull requests
	askDeadline      = 10 * time.Second // of all other calls
	questionDeadline = 3 * time.Minute  // of all calls of one question
)

// How long answers are used before the forge is asked again.
const (
	permissionLasts  = time.Minute
	PermissionStands = 5 * time.Minute  // older permissions are not used, even if the forge does not answer
	StatusLasts      = time.Minute      // the statuses of a commit
	BodyLasts        = 2 * time.Minute  // AOB's comment
	SetupLasts       = 10 * time.Minute // the settings, and the owners of gates
	WrongLasts       = time.Minute      // the same, if something is wrong with them
	OwnLasts         = 5 * time.Minute  // that the forge has a pull request of AOB
)

const (
	maxReadBacks = 50     // queued reads of statuses and comments, so that other questions do not wait long behind them
	maxOwners    = 10_000 // remembered owners of gates
)

// Marker identifies AOB's comment on a pull request. Forges hide it.
const Marker = "report"

// Names of troubles.
const (
	ListTrouble  = "the list of pull requests cannot be read"
	SetupTrouble = "the forge is not set up as AOB needs it"
	AskTrouble   = "the forge does not answer all questions"
)

// A StatusRead is the statuses of a commit.
type StatusRead struct {
	List []delivery.Status
	At   time.Time // when they were asked for
}

// A BodyRead is the text of AOB's comment on a pull request.
type BodyRead struct {
	Body string
	At   time.Time // when it was asked for
}

// An API is the part of the forge that is read.
type API interface {
	PullRequests(ctx context.Context) ([]delivery.PullRequest, error)
	// Ended returns the present state of a pull request that is not in the list of open ones any more. ended is false
	// if it is open nevertheless.
	Ended(ctx context.Context, pr delivery.PullRequest) (now delivery.PullRequest, ended bool, err error)
	// Statuses returns the newest status of each context under "aob/" on a commit.
	Statuses(ctx context.Context, commit string) ([]delivery.Status, error)
	// CommentBody returns the present text of AOB's comment with a marker, without the marker.
	CommentBody(ctx context.Context, pr int, marker string) (body string, found bool, err error)
	Commands(ctx context.Context, pr int) ([]delivery.Comment, error)
	// Ask posts a question as a comment of AOB, unless it was posted already and nobody has edited it. It returns who
	// has agreed to it with a reaction.
	Ask(ctx context.Context, pr int, question string) ([]delivery.Consent, error)
	// Check returns what is wrong with how the forge is set up.
	Check(ctx context.Context) (delivery.Setup, error)
	Permission(ctx context.Context, user string) (delivery.Permission, error)
	Teams(ctx context.Context, user string) (map[string]bool, error)
	// Owner returns why a name cannot own a gate, such as "no team of the repository and no user who may write here",
	// or "" if it can.
	Owner(ctx context.Context, name string) (problem string, err error)
	// Knows reports whether the forge has a pull request, open or closed, with this number and head branch.
	Knows(ctx context.Context, number int, branch string) (bool, error)
}

// A Ledger stores who has approved runs.
type Ledger interface {
	PutApproval(ctx context.Context, g ledger.Approval) error
}

// Metrics counts calls. See package web for the names.
type Metrics interface {
	ForgeCall(what string, took time.Duration, err error)
	GitObserve(took time.Duration)
}

// A Config is the configuration of Git and Forge.
type Config struct {
	API     API
	Repo    Repo
	Ledger  Ledger
	Metrics Metrics
	Turn    *turn.Turn
	Wake    turn.Signal // sent when an answer has changed

	Main    string        // the target branch
	GitPoll time.Duration // the longest time between two reads of git
	Every   time.Duration // the longest time between two reads of the list of pull requests
}

// New returns what reads git and the forge.
func New(c Config) (*Git, *Forge) {
	g := &Git{Config: c, Poll: turn.NewSignal()}
	f := &Forge{Config: c, git: g, Poll: turn.NewSignal(), answered: turn.NewSignal(), listDue: true,
		listRetry: queue.Backoff{}, retry: queue.Backoff{},
		permissions: map[string]answer[delivery.Permission]{}, teams: map[string]answer[map[string]bool]{},
		orders: map[int]Orders{}, ends: map[int]delivery.PullRequest{}, changed: map[string]bool{},
		ownExists: map[Own]answer[bool]{}, ownerProblems: map[string]answer[string]{},
		statusesAt: map[string]time.Time{}, bodiesAt: map[int]bodyAt{},
		newStatuses: map[string]StatusRead{}, newBodies: map[int]BodyRead{}}
	f.asking = queue.New(queue.Workers{First: 4, Again: 2, Limit: questionDeadline}, c.Turn.Now, f.answered)
	g.changed = []turn.Signal{c.Wake, f.Poll} // the list of pull requests is older than main now
	return g, f
}

// A Forge reads the forge. One goroutine calls Run (tests call Step and Drain), and the loop uses the answers.
type Forge struct {
	Config
	Poll turn.Signal // send it to ask at once what is due
	git  *Git

	mu       sync.Mutex
	prs      []delivery.PullRequest
	listed   bool      // the last attempt to list them has succeeded
	ever     bool      // an attempt has succeeded
	listAt   time.Time // when the last successful attempt began
	listAsOf int       // the number of [Git.Known] at that time
	tried    time.Time // when the last attempt began
	listDue  bool      // the next Step reads the list

	listRetry queue.Backoff // of the list; nothing else is asked before it is tried again
	retry     queue.Backoff // of the questions that failed, by their keys
	asking    *queue.Queue  // the questions that are being asked
	answered  turn.Signal   // a question has ended
	more      bool          // more questions are due than the queue takes

	// What is to be asked; see Want, Ends and EventOn.
	waiting map[int]waiting              // by pull request: the codes that a comment may name
	heads   []string                     // commits besides heads of pull requests whose statuses are read
	own     []Own                        // pull requests of AOB that the forge may have lost
	owners  []string                     // of gates, on main and in pull requests
	missing map[int]delivery.PullRequest // that were open and are not in the list
	changed map[string]bool              // commits whose statuses have to be read at once
	event   bool                         // something has happened on the forge since the settings were read

	// The answers.
	permissions    map[string]answer[delivery.Permission] // by user
	teams          map[string]answer[map[string]bool]     // by user
	orders         map[int]Orders                         // by pull request: what its comments ask for
	ends           map[int]delivery.PullRequest           // closed ones of missing, as they are now
	ownExists      map[Own]answer[bool]
	ownerProblems  map[string]answer[string] // why a name cannot own a gate, or ""
	setupAt        time.Time                 // when the settings were asked for
	setupWrong     bool                      // something is wrong with them
	refusesCommits string                    // why the forge refuses to merge AOB's commits, or ""
	statusesAt     map[string]time.Time      // when the statuses of commits were last read
	bodiesAt       map[int]bodyAt            // when AOB's comments were last read
	newStatuses    map[string]StatusRead     // that News has not returned yet
	newBodies      map[int]BodyRead
	version        int // grows with each answer that has changed
}

// A bodyAt is when a comment was read, and the time of the pull request's last update as it was known then.
type bodyAt struct{ at, updated time.Time }

// news counts an answer that has changed, and wakes the loop. f.mu must be held.
func (f *Forge) news() {
	f.version++
	f.Wake.Send()
}

// Step reads the list of pull requests, and puts all other questions that are due into the queue.
func (f *Forge) Step(ctx context.Context) {
	now := f.Turn.Now()
	f.asking.Results() // the questions have stored their answers themselves
	f.mu.Lock()
	pauses := f.listRetry.Due("", now) != nil
	_, asOf := f.git.Known()
	due := f.listDue || !f.listed || asOf != f.listAsOf || now.Sub(f.tried) >= f.Every
	f.mu.Unlock()
	if pauses || due && !f.readList(ctx, now, asOf) {
		return
	}
	f.forget(now)
	f.askEnds()
	f.askOwn(now)
	f.askPermissions(now)
	f.askComments(due)
	f.askPosted(now)
	f.askOwners(now)
	f.askSetup(now)
}

// put puts a question into the queue, unless it has failed lately. It replaces a question with the same key that
// has not begun. It reports whether the question is in the queue now.
func (f *Forge) put(key string, ask func(context.Context) error) bool {
	f.mu.Lock()
	failed, again := f.retry[key]
	pauses := f.retry.Due(key, f.Turn.Now()) != nil
	f.mu.Unlock()
	if pauses {
		return false
	}
	f.asking.Put(queue.Job{Key: key, Lane: key, Again: again, Took: failed.Took, Do: func(ctx context.Context) error {
		return f.try(key, func() error { return ask(ctx) })
	}})
	return true
}

// isQueued reports whether a question is in the queue or being asked.
func (f *Forge) isQueued(key string) bool {
	_, _, ok := f.asking.Waiting(key)
	return ok
}

// try asks a question at once. If it has failed lately, try returns that error and does not ask.
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
		f.noteFailed()
	}
	return err
}

// forget drops failed questions that nobody asks any more, such as those about a closed pull request.
func (f *Forge) forget(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := len(f.retry)
	f.retry.Forget(now.Add(-f.Every-askDeadline), f.isQueued)
	if len(f.retry) < before {
		f.noteFailed()
	}
}

func (f *Forge) noteFailed() { f.Turn.Note(AskTrouble, turn.First(f.retry.Errors(), "questions")) }

// hasRoom reports whether more questions are due and the queue can take them now.
func (f *Forge) hasRoom() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	room := f.more && f.asking.Fresh() < maxReadBacks/2
	f.more = f.more && !room
	return room
}

// Again returns when the first failed question is asked again; zero if none has failed.
func (f *Forge) Again() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.Turn.Now()
	again := f.listRetry[""].Next
	for _, e := range f.retry {
		if e.Next.After(now) && (again.IsZero() || e.Next.Before(again)) {
			again = e.Next
		}
	}
	return again
}

// pause returns how long until the next Step is due.
func (f *Forge) pause() time.Duration {
	again := f.Again()
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.Turn.Now()
	pause := f.Every - now.Sub(f.tried)
	if next := f.listRetry[""].Next; now.Before(next) {
		pause = next.Sub(now)
	} else if !again.IsZero() {
		pause = min(pause, again.Sub(now))
	}
	return max(pause, 50*time.Millisecond)
}

// call makes one call to the forge, with a deadline.
func call[T any](ctx context.Context, f *Forge, kind string, limit time.Duration,
	do func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := f.Turn.Now()
	value, err := do(ctx)
	f.Metrics.ForgeCall(kind, f.Turn.Now().Sub(start), err)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %s: %w", limit, err)
	}
	return value, err
}

// readList reads the open pull requests, and reports whether it could.
func (f *Forge) readList(ctx context.Context, now time.Time, asOf int) bool {
	prs, err := call(ctx, f, "pull requests", listDeadline, f.API.PullRequests)
	f.Turn.Note(ListTrouble, err)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tried, f.listDue = now, false
	f.listRetry.Note("", now, 0, err)
	if err != nil {
		if f.listed {
			f.news()
		}
		f.listed = false
		return false
	}
	open := map[int]bool{}
	for _, pr := range prs {
		open[pr.Number] = true
	}
	keep := maps.Clone(open) // the final status of those that are missing needs their heads
	for n := range f.missing {
		keep[n] = true
	}
	f.Repo.KeepPulls(slices.Sorted(maps.Keys(keep)))
	if !f.listed || !slices.Equal(prs, f.prs) || f.listAsOf != asOf {
		f.news()
	}
	f.prs, f.listed, f.ever, f.listAt, f.listAsOf = prs, true, true, now, asOf
	maps.DeleteFunc(f.orders, func(n int, _ Orders) bool { return !open[n] })
	maps.DeleteFunc(f.bodiesAt, func(n int, _ bodyAt) bool { return !open[n] })
	return true
}

// Want sets what is to be asked: the comments that the last plan waits for, the statuses of commits besides the heads
// of pull requests, the owners of gates, and the pull requests of AOB that the forge may have lost.
func (f *Forge) Want(p plan.Plan, heads, owners []string, own []Own) {
	waiting := map[int]waiting{}
	for _, pr := range p.Proposals {
		if w := waits(pr); len(w.codes()) > 0 {
			waiting[pr.PR.Number] = w
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for n, w := range waiting {
		if !slices.Equal(f.waiting[n].codes(), w.codes()) {
			f.Poll.Send() // the comment may have been written already
		}
	}
	if !slices.Equal(f.own, own) {
		f.Poll.Send()
	}
	f.waiting, f.heads, f.owners, f.own = waiting, heads, owners, own
}

// News returns the statuses and comments that were read since the last call.
func (f *Forge) News() (statuses map[string]StatusRead, bodies map[int]BodyRead) {
	f.mu.Lock()
	defer f.mu.Unlock()
	statuses, bodies = f.newStatuses, f.newBodies
	f.newStatuses, f.newBodies = map[string]StatusRead{}, map[int]BodyRead{}
	return statuses, bodies
}

// Pulls is the open pull requests as they were last read.
type Pulls struct {
	Open    []delivery.PullRequest
	Known   bool      // the last attempt to read the list has succeeded
	Ever    bool      // an attempt has succeeded
	AsOf    int       // the number of [Git.Known] when it was asked for
	At      time.Time // when it was asked for
	Version int       // grows with each answer of the forge that has changed
}

// List returns the open pull requests.
func (f *Forge) List() Pulls {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Pulls{f.prs, f.listed, f.ever, f.listAsOf, f.listAt, f.version}
}

// Author returns what a user may do, if that is known.
func (f *Forge) Author(user string) (delivery.Permission, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.permissions[user].value, !older(f.permissions, user, f.Turn.Now(), PermissionStands)
}

// Orders returns what the comments of a pull request ask for.
func (f *Forge) Orders(pr int) Orders {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.orders[pr]
}

// Head returns a pull request's head. The ref in the mirror is newer than the list, if the forge has such refs.
func Head(pr delivery.PullRequest, refs map[string]string) string {
	if head, ok := refs[pr.Ref]; ok && pr.Ref != "" {
		return head
	}
	return pr.Head
}

// EventOn asks at once for the list and for the statuses of a commit ("" is none), because something has happened.
func (f *Forge) EventOn(commit string) {
	f.mu.Lock()
	f.listDue, f.event = true, true
	if commit != "" {
		f.changed[commit] = true
	}
	f.mu.Unlock()
	f.Poll.Send()
}

// Run asks until ctx ends.
func (f *Forge) Run(ctx context.Context) {
	var workers sync.WaitGroup
	defer workers.Wait()
	workers.Go(func() { f.asking.Run(ctx) })
	for ctx.Err() == nil {
		f.Step(ctx)
		f.rest(ctx)
	}
}

// rest waits until the next Step is due.
func (f *Forge) rest(ctx context.Context) {
	timer := time.NewTimer(f.pause())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.Poll:
			return
		case <-timer.C:
			return
		case <-f.answered:
			if f.hasRoom() {
				return
			}
		}
	}
}

// Drain asks all questions in the queue. Tests use it instead of Run.
func (f *Forge) Drain(ctx context.Context) { f.asking.Drain(ctx) }
