package reconciler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/view"
	"github.com/autonomos/aob/reconciler/words"
)

// What the loop needs of the world, and nothing more. Each has one real
// implementation in the package of that name, wired in cmd/aob.
type (
	// Repo is the mirror of the intent repository.
	Repo interface {
		Observe(ctx context.Context) (refs map[string]string, changed bool, err error)
		// Refs returns what the last Observe returned, also of the process before this one.
		Refs() map[string]string
		// At asks the repository where a ref is now; "" is nowhere.
		At(ctx context.Context, ref string) (commit string, err error)
		// FirstParents returns a commit, its first parent, and so on, at most limit.
		FirstParents(commit string, limit int) ([]string, error)
		// Missing says why a ref was not found; nil if it was, or if the repository is empty.
		Missing(ref string) error
		// KeepPulls says which pull requests are open: what others have brought may go.
		KeepPulls(open []int)
		Has(commit string) error
		Files(commit string) ([]git.File, error)
		Blob(hash string, limit int64) ([]byte, error)
		History(head, path string) ([]git.FileVersion, error)
		MergeBases(a, b string) ([]string, error)
		// Ahead says what the commits do that a head has and a branch does not have.
		Ahead(head, branch string) (git.Ahead, error)
		// Moved names files that a commit has removed since base, and another one has changed.
		Moved(base, removed, changed string) ([]string, error)
		Line(head, stop, folder string, limit int) (changes []git.LineChange, reached bool, err error)
		// Commit makes a commit of AOB's. The same input makes the same commit.
		Commit(parents []string, files map[string][]byte, when time.Time, message string) (hash string, err error)
		Author(commit string) (name, email string, when time.Time, err error)
		Push(ctx context.Context, hash, ref, old string) error
	}
	// Forge is where people propose and read.
	Forge interface {
		// Address names the forge and the repository on it. What was said at one address was not said at another.
		Address() string
		PullRequests(ctx context.Context) ([]delivery.PullRequest, error)
		// Ended says how a pull request stands that is not in the list of open ones any more; ended is false where it
		// is open all the same.
		Ended(ctx context.Context, pr delivery.PullRequest) (now delivery.PullRequest, ended bool, err error)
		SetStatus(ctx context.Context, commit string, c delivery.Check) error
		// Statuses returns the newest status of each context under "aob/" on a commit.
		Statuses(ctx context.Context, commit string) ([]delivery.Status, error)
		Comment(ctx context.Context, pr int, marker, body string) error
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
		OpenPR(ctx context.Context, head, base, title, body string) (number int, err error)
		// Knows reports whether the forge has a pull request of that number that AOB opened from that branch, open or
		// not.
		Knows(ctx context.Context, number int, branch string) (bool, error)
	}
	// Runs is slow work outside the loop.
	Runs interface {
		Start(ctx context.Context, spec delivery.RunSpec) error
		Observe() ([]delivery.RunState, error)
		State(key delivery.Digest) (delivery.RunState, error)
		End(ctx context.Context, key delivery.Digest, why string) error
		Keep(key delivery.Digest, need delivery.RunNeed) error
		Retry(key delivery.Digest) error
		Remove(key delivery.Digest) error
	}
	// Evidence is what has been signed.
	Evidence interface {
		// Evidence returns what there is to say about the models of a world: main
		// and proposals are filled, the rest is not.
		Evidence(ctx context.Context, w plan.World) (plan.Evidence, error)
		Sign(ctx context.Context, bundle delivery.Digest, predicateType string, predicate any) error
	}
	// Fleet is what devices read and say.
	Fleet interface {
		Publish(ctx context.Context, d delivery.Desired) error
		Published(ring string) (delivery.Desired, bool)
		Devices() []delivery.Device
		// Listening is since when the devices of a ring can reach the server without a break.
		Listening(ring string) time.Time
		// Unreadable says which devices and rings cannot be read, each a sentence that says what to do.
		Unreadable() []string
		Forget(ctx context.Context, ring, device string) error
	}
	// Blobs checks the server's own store. Its methods return at once.
	Blobs interface {
		// Ask has a bundle's bytes checked soon.
		Ask(bundles ...delivery.Digest)
		// Found is what the last check of each bundle found.
		Found() map[delivery.Digest]plan.Stored
	}
	// Ledger is what the world cannot tell.
	Ledger interface {
		Approvals(ctx context.Context, since time.Time) ([]ledger.Approval, error)
		PutApproval(ctx context.Context, g ledger.Approval) error
		Clocks(ctx context.Context) (map[string]json.RawMessage, error)
		PutClock(ctx context.Context, fleet string, state json.RawMessage) error
		Records(ctx context.Context, prefix string) (map[string]Record, error)
		PutRecord(ctx context.Context, key, content string, at time.Time) error
	}
	// Requests is what people have asked for through the commands.
	Requests interface {
		// Trials returns the experiments. Those that cannot be read are left out, and err names them.
		Trials(ctx context.Context, now time.Time) ([]plan.Trial, error)
		Comparisons(now time.Time) []delivery.CompareRun
		// Gates returns the gates whose power somebody asked for.
		Gates(now time.Time) []string
	}
	// Metrics counts. See package web for the names.
	Metrics interface {
		Turn(took time.Duration, steps int, err error)
		ForgeCall(what string, took time.Duration, err error)
		GitObserve(took time.Duration)
		RunStarted(kind delivery.RunKind)
		Step(kind string, err error)
	}
)

// A Record is one row of the ledger: for example what was last posted on the forge under a key.
type Record = ledger.Record

// A Reconciler is the loop. Its fields are set once, before Run.
type Reconciler struct {
	Repo     Repo
	Forge    Forge
	Runs     Runs
	Evidence Evidence
	Fleet    Fleet
	Blobs    Blobs // may be nil: then nothing is checked
	Ledger   Ledger
	Metrics  Metrics
	Requests Requests
	Parser   *intent.Cache

	Main     string        // the target branch
	Server   plan.Server   // what the server's version and configuration decide
	GitPoll  time.Duration // the longest between two looks at git
	Poll     time.Duration // the longest between two looks at the forge's pull requests
	Progress time.Duration // the shortest between two posts of mere progress

	Log *slog.Logger
	Now func() time.Time

	wake  chan struct{}
	woken atomic.Bool                   // a turn is asked for
	asks  chan func()                   // done between turns, for those who ask from outside the loop
	last  atomic.Pointer[view.Snapshot] // of the last turn
	seen  seen                          // what was observed last

	git      *gitView   // what is known of git
	forgeNow *forgeView // what is known of the forge
	outbox   *outbox    // what is being sent
	troubles *troubles

	watches *delivery.Blocked // why nothing is done; nil: it is

	retry      backoff
	taken      map[string]taken // steps that succeeded in the last turn that planned them
	saidCache  map[string]Record
	saidOn     map[string][]string // keys of saidCache by commit
	saidLoaded map[string]bool
	addressed  atomic.Pointer[forgeAddress]
	failing    map[string]error // what cannot be said on the forge, by key
	disputes   map[string]dispute
	rendered   words.Comments
	classes    map[string]jobClass // of lanes of the outbox
	wakeNext   time.Time           // asked for while acting and reporting
}

// Wake asks for a turn soon. It may be called from any goroutine, any number of times.
func (r *Reconciler) Wake() {
	r.woken.Store(true)
	nudge(r.wake)
}

// glance asks the loop to see whether there is something new, and to take a turn only then.
func (r *Reconciler) glance() { nudge(r.wake) }

// Look asks for a look at git and at the forge, and for a turn if something is new there. A webhook does no more than
// this: nothing that it says is believed. commit is where a status was set; empty for none.
func (r *Reconciler) Look(commit string) {
	nudge(r.git.look)
	r.forgeNow.lookAt(commit)
}

// Init makes the reconciler ready; Run and Reconcile come after.
func (r *Reconciler) Init() *Reconciler {
	r.wake, r.asks = make(chan struct{}, 1), make(chan func())
	r.retry, r.taken = backoff{}, map[string]taken{}
	r.troubles = newTroubles(func() time.Time { return r.Now() }, func() *slog.Logger { return r.Log })
	r.git, r.forgeNow = newGitView(r), newForgeView(r)
	r.outbox = newOutbox(func() time.Time { return r.Now() }, r.glance)
	r.saidOn = map[string][]string{}
	r.failing, r.disputes = map[string]error{}, map[string]dispute{}
	r.saidCache, r.saidLoaded = map[string]Record{}, map[string]bool{}
	r.seen, r.rendered = newSeen(), words.Comments{}
	return r
}

// activePoll is how often runs are looked at while one is running.
const activePoll = 500 * time.Millisecond

// Run turns the loop until ctx ends, and beside it what reads git and the forge and what sends. An error of one turn is
// noted and the next turn looks anew: the loop is level-triggered, and forgets nothing by failing.
func (r *Reconciler) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	beside.Go(func() { r.git.run(ctx) })
	beside.Go(func() { r.forgeNow.run(ctx) })
	beside.Go(func() { r.outbox.run(ctx) })
	for {
		again, err := r.Reconcile(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wait := r.GitPoll
		if !again.IsZero() {
			wait = max(0, min(wait, again.Sub(r.Now())))
		}
		if err != nil {
			wait = max(wait, activePoll)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-r.wake:
			r.seen.woken = r.woken.Swap(false) || r.seen.woken
		case ask := <-r.asks:
			ask()
			r.seen.woken = true
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Troubles of turns.
const (
	turnTrouble  = "the loop cannot see how things are"
	stepTrouble  = "a step fails"
	ledgerWrites = "the ledger cannot be written"
	saysTrouble  = "not everything can be said on the forge"
)

// Reconcile takes one turn: observe, plan, act, report. Calling it again is
// always safe. It returns when the next turn is due at the latest; zero is
// whenever something happens.
func (r *Reconciler) Reconcile(ctx context.Context) (again time.Time, err error) {
	start := r.Now()
	r.wakeNext = time.Time{}
	world, changed, err := r.observe(ctx)
	r.retry.note("observe", r.Now(), 0, err)
	if !errors.Is(err, errNotRead) {
		r.troubles.note(turnTrouble, err)
	}
	if err != nil {
		r.Metrics.Turn(r.Now().Sub(start), 0, err)
		return r.retry["observe"].next, fmt.Errorf("observe: %w", err)
	}
	if !changed {
		r.Metrics.Turn(r.Now().Sub(start), 0, nil)
		return r.nextLook(), nil
	}
	p := r.plan(world)
	if r.Blobs != nil && len(p.Doubted) > 0 {
		r.Blobs.Ask(p.Doubted...)
	}
	done, shown := 0, p
	if r.watches == nil {
		var failed map[string]error
		done, failed = r.act(ctx, p.Steps)
		err = errors.Join(r.report(ctx, p, failed), joined(failed), r.keepHeld(ctx))
		shown.Proposals = withAllFailures(p, failed)
	}
	r.troubles.note(stepTrouble, err)
	r.settle(p, done, err, start)
	r.last.Store(&view.Snapshot{World: world, Plan: shown, At: start})
	r.Metrics.Turn(r.Now().Sub(start), len(p.Steps), err)
	return r.nextLook(), err
}

// look reads git and the forge at once, for those who drive the loop themselves.
func (r *Reconciler) look(ctx context.Context) {
	r.git.step(ctx)
	r.forgeNow.step(ctx)
	r.forgeNow.asking.drain(ctx)
}

// ask does something between turns, where the loop's state may be used.
func (r *Reconciler) ask(ctx context.Context, do func() error) error {
	done := make(chan error, 1)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case r.asks <- func() { done <- do() }:
	}
	return <-done
}

// Last returns what the last turn observed and decided; nil before the first turn is over.
func (r *Reconciler) Last() *view.Snapshot { return r.last.Load() }

// Plan observes and decides, and does nothing: the dry run. notices says what could not be read.
func (r *Reconciler) Plan(ctx context.Context) (p plan.Plan, notices []string, err error) {
	defer func() {
		for _, t := range r.troubles.all() {
			notices = append(notices, t.line())
		}
	}()
	for range 2 { // the first plan says which comments have to be read
		r.seen.woken = true
		r.look(ctx)
		world, _, err := r.observe(ctx)
		if err != nil {
			for _, t := range r.troubles.all() {
				if t.what == gitTrouble {
					err = t.err // why nothing is known
				}
			}
			return plan.Plan{}, nil, fmt.Errorf("observe: %w", err)
		}
		p = r.plan(world)
		r.seen.plan = p
		r.wants(p)
	}
	return p, nil, nil
}

// plan makes the plan, reading the results of runs as it asks for them.
func (r *Reconciler) plan(w plan.World) plan.Plan {
	for {
		p := plan.Make(w)
		if r.readResults(w, p.Unread) {
			continue
		}
		r.asBefore(&p)
		return p
	}
}

// asBefore lets what was last reported stand for the pull requests of which nothing can be said now.
func (r *Reconciler) asBefore(p *plan.Plan) {
	for i, now := range p.Proposals {
		if !now.Stale {
			continue
		}
		for _, before := range r.seen.plan.Proposals {
			if before.PR.Number == now.PR.Number {
				p.Proposals[i] = before
				p.Proposals[i].PR, p.Proposals[i].Stale = now.PR, true
			}
		}
	}
}

// wants says which comments and statuses are to be read.
func (r *Reconciler) wants(p plan.Plan) {
	asks := map[int]waiting{}
	for _, pr := range p.Proposals {
		if w := waits(pr); len(w.codes()) > 0 {
			asks[pr.PR.Number] = w
		}
	}
	r.forgeNow.want(asks, r.readBackToo(p), r.seen.owners(), r.doubted(p))
}

// wakeAt asks for a turn at t at the latest.
func (r *Reconciler) wakeAt(t time.Time) {
	if !t.IsZero() && (r.wakeNext.IsZero() || t.Before(r.wakeNext)) {
		r.wakeNext = t
	}
}

// settle remembers what the turn that began at start leaves to do, after it has done some steps.
func (r *Reconciler) settle(p plan.Plan, done int, err error, start time.Time) {
	r.seen.plan = p
	r.wants(p)
	r.wakeAt(p.Wake)
	r.retry.forget(start, r.outbox.has)
	r.forgetFailing()
	r.wakeAt(r.retry.earliest(r.outbox.has))
	r.seen.due = r.wakeNext
	if done > 0 {
		r.seen.woken = true // what was done shows in the next world
		r.seen.due = r.Now()
	}
	if err != nil && r.seen.due.IsZero() {
		r.seen.due = r.Now().Add(time.Second)
	}
}

// joined returns the errors that a turn ends with. What only has to wait is
// none, and neither is what a person was told to settle: it was said where they
// look, and not by every turn again.
func joined(failed map[string]error) error {
	var errs []error
	for key, err := range failed {
		_, waits := errors.AsType[delivery.Wait](err)
		_, blocked := errors.AsType[delivery.Blocked](err)
		if !waits && !blocked {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
	}
	return errors.Join(errs...)
}
