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

	"github.com/autonomos/aob/reconciler/commits"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/history"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/poll"
	"github.com/autonomos/aob/reconciler/post"
	"github.com/autonomos/aob/reconciler/pulls"
	"github.com/autonomos/aob/reconciler/queue"
	"github.com/autonomos/aob/reconciler/turn"
	"github.com/autonomos/aob/reconciler/view"
	"github.com/autonomos/aob/reconciler/words"
)

// What the loop needs of the world, and nothing more. Each has one real
// implementation in the package of that name, wired in cmd/aob.
type (
	// Repo is the mirror of the intent repository.
	Repo interface {
		poll.Repo
		history.Repo
		pulls.Repo
		// At asks the repository where a ref is now; "" is nowhere.
		At(ctx context.Context, ref string) (commit string, err error)
		// Commit makes a commit of AOB's. The same input makes the same commit.
		Commit(parents []string, files map[string][]byte, when time.Time, message string) (hash string, err error)
		Author(commit string) (name, email string, when time.Time, err error)
		Push(ctx context.Context, hash, ref, old string) error
	}
	// Forge is where people propose and read.
	Forge interface {
		poll.API
		post.API
		OpenPR(ctx context.Context, head, base, title, body string) (number int, err error)
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
		poll.Ledger
		post.Ledger
		Approvals(ctx context.Context, since time.Time) ([]ledger.Approval, error)
		Clocks(ctx context.Context) (map[string]json.RawMessage, error)
		PutClock(ctx context.Context, fleet string, state json.RawMessage) error
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
		poll.Metrics // and post.Metrics
		RunStarted(kind delivery.RunKind)
		Step(kind string, err error)
	}
)

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
	GitPoll  time.Duration // the longest time between two reads of git
	Poll     time.Duration // the longest time between two reads of the list of pull requests
	Progress time.Duration // the shortest between two posts of mere progress

	Log *slog.Logger
	Now func() time.Time

	wake     turn.Signal
	asks     chan func()                   // done between turns, for those who ask from outside the loop
	last     atomic.Pointer[view.Snapshot] // of the last turn
	observed observed                      // by the last turn

	git     *poll.Git   // what is known of git
	answers *poll.Forge // what is known of the forge
	commits *commits.Reader
	history *history.History
	pulls   *pulls.Reader
	turn    *turn.Turn
	board   *post.Board  // what is posted on the forge
	pushes  *queue.Queue // what moves a branch
	pushing map[string]push

	watches *delivery.Blocked // why nothing is done; nil: it is

	retry    queue.Backoff
	taken    map[string]taken // steps that succeeded in the last turn that planned them
	rendered words.Comments
}

// Wake asks for a turn soon. It may be called from any goroutine, any number of times.
func (r *Reconciler) Wake() {
	r.turn.Soon("somebody said that something happened")
	r.wake.Send()
}

// Look has git and the forge read at once, and a turn taken if something is new there. A webhook does no more than
// this: nothing that it says is believed. commit is where a status was set; empty for none.
func (r *Reconciler) Look(commit string) {
	r.git.Look.Send()
	r.answers.LookAt(commit)
}

// Init makes the reconciler ready once its fields are set; Run and Reconcile come after.
func (r *Reconciler) Init() *Reconciler {
	r.wake, r.asks = turn.NewSignal(), make(chan func())
	r.retry, r.taken, r.pushing = queue.Backoff{}, map[string]taken{}, map[string]push{}
	r.turn = turn.New(r.Now, r.Log)
	r.git, r.answers = poll.New(poll.Config{API: r.Forge, Repo: r.Repo, Ledger: r.Ledger, Metrics: r.Metrics,
		Turn: r.turn,
		Wake: r.wake, Main: r.Main, GitPoll: r.GitPoll, Every: r.Poll})
	r.board = post.New(r.Forge, r.Ledger, r.Metrics, r.Progress, r.turn, r.wake)
	r.pushes = queue.New(queue.Workers{First: pushWorkers, Limit: pushDeadline}, r.Now, r.wake)
	r.observed, r.rendered = observed{results: map[delivery.Digest]json.RawMessage{}}, words.Comments{}
	r.commits = commits.New(r.Repo, r.Parser)
	r.history = history.New(r.Repo, r.Ledger, r.turn, r.commits, r.Main)
	r.pulls = pulls.New(r.Repo, r.Ledger, r.Forge, r.answers, r.turn, r.commits, r.Main)
	return r
}

// Limits of what is sent and asked beside the loop.
const (
	pushWorkers  = 2                // a push may take minutes
	pushDeadline = 3 * time.Minute  // of one push
	sendSlow     = 20 * time.Second // a job that waits longer is shown
)

// activePoll is how often runs are looked at while one is running.
const activePoll = 500 * time.Millisecond

// Run turns the loop until ctx ends, and beside it what reads git and the forge and what sends. An error of one turn is
// noted, and the next turn observes everything again: the loop is level-triggered, so a failed turn loses nothing.
func (r *Reconciler) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	beside.Go(func() { r.git.Run(ctx) })
	beside.Go(func() { r.answers.Run(ctx) })
	beside.Go(func() { r.board.Run(ctx) })
	beside.Go(func() { r.pushes.Run(ctx) })
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
		case ask := <-r.asks:
			ask()
			r.turn.Soon("a command asked for something")
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Troubles of turns.
const (
	turnTrouble = "the loop cannot see how things are"
	stepTrouble = "a step fails"
)

// Reconcile takes one turn: observe, plan, act, report. Calling it again is
// always safe. It returns when the next turn is due at the latest; zero is
// whenever something happens.
func (r *Reconciler) Reconcile(ctx context.Context) (again time.Time, err error) {
	start := r.Now()
	world, changed, err := r.observe(ctx)
	r.retry.Note("observe", r.Now(), 0, err)
	if !errors.Is(err, errNotRead) {
		r.turn.Note(turnTrouble, err)
	}
	if err != nil {
		r.Metrics.Turn(r.Now().Sub(start), 0, err)
		return r.retry["observe"].Next, fmt.Errorf("observe: %w", err)
	}
	if !changed {
		r.Metrics.Turn(r.Now().Sub(start), 0, nil)
		return r.nextTurn(), nil
	}
	p := r.plan(world)
	if r.Blobs != nil && len(p.Doubted) > 0 {
		r.Blobs.Ask(p.Doubted...)
	}
	done, shown := 0, p
	if r.watches == nil {
		var failed map[string]error
		done, failed = r.act(ctx, p.Steps)
		err = errors.Join(r.report(ctx, p, failed), stepErrors(failed), r.history.KeepQuarantine(ctx))
		shown.Proposals = withAllFailures(p, failed)
	}
	r.turn.Note(stepTrouble, err)
	r.settle(p, done, err, start)
	r.last.Store(&view.Snapshot{World: world, Plan: shown, At: start})
	r.Metrics.Turn(r.Now().Sub(start), len(p.Steps), err)
	return r.nextTurn(), err
}

// look reads git and the forge at once, for tests that drive the loop themselves.
func (r *Reconciler) look(ctx context.Context) {
	r.git.Step(ctx)
	r.answers.Step(ctx)
	r.answers.Drain(ctx)
}

// send sends what waits to be sent, for those who drive the loop themselves.
func (r *Reconciler) send(ctx context.Context) {
	r.board.Drain(ctx)
	r.pushes.Drain(ctx)
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
		for _, t := range r.turn.Troubles() {
			notices = append(notices, t.String())
		}
	}()
	for range 2 { // the first plan says which comments have to be read
		r.turn.Soon("a dry run")
		r.look(ctx)
		world, _, err := r.observe(ctx)
		if err != nil {
			if gitErr := r.turn.Trouble(poll.GitTrouble); gitErr != nil {
				err = gitErr // why nothing is known
			}
			return plan.Plan{}, nil, fmt.Errorf("observe: %w", err)
		}
		p = r.plan(world)
		r.observed.plan = p
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

// asBefore keeps the last report of pull requests about which nothing is known now.
func (r *Reconciler) asBefore(p *plan.Plan) {
	for i, now := range p.Proposals {
		if !now.Stale {
			continue
		}
		for _, before := range r.observed.plan.Proposals {
			if before.PR.Number == now.PR.Number {
				p.Proposals[i] = before
				p.Proposals[i].PR, p.Proposals[i].Stale = now.PR, true
			}
		}
	}
}

// wants says which comments and statuses are to be read.
func (r *Reconciler) wants(p plan.Plan) {
	r.answers.Want(p, r.board.RolloutCommits(p), owners(r.observed.world), r.pulls.Doubted(p))
}

// settle remembers what the turn that began at start leaves to do, after it has done some steps.
func (r *Reconciler) settle(p plan.Plan, done int, err error, start time.Time) {
	r.observed.plan = p
	r.wants(p)
	r.turn.At(p.Wake, "the plan waits for this time")
	r.board.Settle(start)
	r.retry.Forget(start, r.pushes.Has)
	r.turn.At(r.retry.Earliest(r.pushes.Has), "a step that failed is tried again")
	if done > 0 {
		r.turn.Soon("the steps that were taken change the world")
	}
	if err != nil && r.turn.Due().IsZero() {
		r.turn.In(time.Second, "the last turn failed")
	}
}

// stepErrors joins the errors of steps. Wait and Blocked errors are not returned: they are already shown on the pull
// request.
func stepErrors(failed map[string]error) error {
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
