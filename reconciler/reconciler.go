package reconciler

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/autonomos/aob/reconciler/commits"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/history"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/outbox"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/poll"
	"github.com/autonomos/aob/reconciler/post"
	"github.com/autonomos/aob/reconciler/pulls"
	"github.com/autonomos/aob/reconciler/queue"
	"github.com/autonomos/aob/reconciler/rollout"
	"github.com/autonomos/aob/reconciler/turn"
	"github.com/autonomos/aob/reconciler/view"
)

// What the loop needs. Each has one real implementation in the package of that name, connected in cmd/aob.
type (
	// Repo is the mirror of the intent repository.
	Repo interface {
		poll.Repo
		history.Repo
		pulls.Repo
		// At reads a ref's present commit from the repository; "" if there is no such ref.
		At(ctx context.Context, ref string) (commit string, err error)
		// Commit makes a commit by AOB. The same input gives the same commit.
		Commit(parents []string, files map[string][]byte, when time.Time, message string) (hash string, err error)
		TreeHash(commit string) (hash string, err error)
		Author(commit string) (name, email string, when time.Time, err error)
		Push(ctx context.Context, hash, ref, old string) error
	}
	// Forge is the pull requests, statuses and comments.
	Forge interface {
		poll.API
		post.API
		OpenPR(ctx context.Context, head, base, title, body string) (number int, err error)
	}
	// Committer makes commits on the forge, which signs them.
	Committer interface {
		// Commit adds files to a branch that is at old, and returns the commit and the hash of its tree. The error is a
		// delivery.Wait if the branch is elsewhere.
		Commit(ctx context.Context, branch, old, message string, files map[string][]byte) (commit, tree string,
			err error)
	}
	// Runs is the slow work outside the loop.
	Runs interface {
		Start(ctx context.Context, spec delivery.RunSpec) error
		Observe() ([]delivery.RunState, error)
		State(key delivery.Digest) (delivery.RunState, error)
		End(ctx context.Context, key delivery.Digest, why string) error
		Keep(key delivery.Digest, need delivery.RunNeed) error
		Retry(key delivery.Digest) error
		Remove(key delivery.Digest) error
		// Detach is Remove without deleting the files, which the caller does.
		Detach(key delivery.Digest) (folder string, err error)
	}
	// Evidence is the signed statements.
	Evidence interface {
		// Evidence returns the statements, with the scores of some bundles.
		Evidence(ctx context.Context, scored []delivery.Digest) (plan.Evidence, error)
		Sign(ctx context.Context, bundle delivery.Digest, predicateType string, predicate any) error
	}
	// Fleet is the published documents and the devices' reports.
	Fleet interface {
		Publish(ctx context.Context, d delivery.Desired) error
		Published(ring string) (delivery.Desired, bool)
		// Ask asks a device to measure a bundle, and Asked returns all requests with their answers.
		Ask(ctx context.Context, r delivery.BenchRequest) error
		Asked() []delivery.BenchAsked
		Devices() []delivery.Device
		// Listening is since when the devices of a ring can reach the server without a break.
		Listening(ring string) time.Time
		// Unreadable says which devices and rings cannot be read, each a sentence that says what to do.
		Unreadable() []string
		Forget(ctx context.Context, ring, device string) error
	}
	// Blobs checks the server's own store. Its methods return at once.
	Blobs interface {
		// Ask requests a check of bundles.
		Ask(bundles ...delivery.Digest)
		// Found returns the last check of each bundle.
		Found() map[delivery.Digest]plan.Stored
	}
	// Datasets are the folders that data runs read.
	Datasets interface {
		// Changed names a dataset of a data run whose files are not as they were when the run read them; "" if there is
		// none. folders is from its result.
		Changed(ctx context.Context, run delivery.DataRun, folders map[string]delivery.Digest) string
	}
	// Ledger is what cannot be observed again.
	Ledger interface {
		poll.Ledger
		ledger.RecordStore
		Approvals(ctx context.Context, since time.Time) ([]ledger.Approval, error)
		Spends(ctx context.Context) ([]delivery.Spend, error)
		PutSpend(ctx context.Context, s delivery.Spend) error
		Clocks(ctx context.Context) (map[string]json.RawMessage, error)
		PutClock(ctx context.Context, fleet string, state json.RawMessage) error
	}
	// Requests is what people have requested with commands.
	Requests interface {
		// Trials returns the experiments. Those that cannot be read are left out, and err names them.
		Trials(ctx context.Context, now time.Time) ([]plan.Trial, error)
		Comparisons(now time.Time) []delivery.CompareRun
		// Gates returns the gates whose power was requested.
		Gates(now time.Time) []string
	}
	// Metrics are counters. Package web has their names.
	Metrics interface {
		Turn(took time.Duration, steps int, err error)
		// Phase counts a part of a turn, and Computed what it has computed.
		Phase(phase string, took time.Duration)
		Computed(what string, n int)
		poll.Metrics // and post.Metrics
		outbox.Metrics
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
	Blobs    Blobs    // nil: the store is not checked
	Datasets Datasets // nil: changes of datasets are not noticed
	Ledger   Ledger
	Metrics  Metrics
	Requests Requests
	Parser   *intent.Cache
	Orphans  func() []delivery.Orphan                      // found in a cloud account; nil for none
	Prices   func(instance string) (delivery.Price, error) // the last known, at once; nil for none
	Trackers map[string]outbox.Tracker                     // by KIND/NAME; nil for none
	Epochs   func(run delivery.Digest) ([]byte, error)     // the metrics.jsonl of a training, for the trackers
	Bundles  string                                        // the address of bundles, for the trackers

	// Deployments shows where releases run; nil: the forge has no page for that.
	Deployments post.Deployments
	// Spare returns when progress may be posted; nil: always. See post.Board.
	Spare func(now time.Time, waiting int) time.Time
	// Queue begins the names of the branches of the forge's merge queue; empty if it has none.
	Queue string
	// Committer makes the release commits; nil: AOB pushes its own.
	Committer Committer
	// CheckDetails: the forge shows delivery.CheckDetails beside checks.
	CheckDetails bool

	Main     string        // the target branch
	Server   plan.Server   // what the server's version and configuration decide
	GitPoll  time.Duration // the longest time between two reads of git
	Poll     time.Duration // the longest time between two reads of the list of pull requests
	Progress time.Duration // the shortest time between two posts of progress

	Log *slog.Logger
	Now func() time.Time

	wake        turn.Signal
	requests    chan func()                   // functions to call between turns
	last        atomic.Pointer[view.Snapshot] // of the last turn
	observed    observed                      // of the last turn
	memory      plan.Memory                   // parts of the last plan
	queueMemory plan.Memory                   // the same, of what the merge queue wants
	written     map[int]written               // reports, by pull request

	git     *poll.Git   // what is known of git
	answers *poll.Forge // what is known of the forge
	commits *commits.Reader
	history *history.History
	pulls   *pulls.Reader
	turn    *turn.Turn
	board   *post.Board // what is posted on the forge
	outbox  *outbox.Outbox
	pushes  *queue.Queue // pushes to branches
	pushing map[string]pendingPush

	repeats map[delivery.Digest]repeats // of data runs, beside the loop

	watchOnly *delivery.Blocked // why steps are not taken; nil: they are

	retry queue.Backoff
	taken map[string]taken // steps that succeeded and are still planned, by key
}

// observed is what the last turns have read and planned.
type observed struct {
	at       time.Time         // start of the last turn
	why      string            // why it was due
	refs     map[string]string // of the repository
	asOf     int               // the version of refs
	answers  int               // the version of the forge's answers that were used
	mainAsOf int               // the version of refs at main's last move
	main     string            // main's commit

	running   bool                                // whether a run is going on
	results   map[delivery.Digest]json.RawMessage // of runs
	approvals []ledger.Approval                   // as the ledger had them last
	clocks    map[string]rollout.State            // as the ledger had them last
	evidence  *plan.Evidence                      // as read last; nil until read
	spent     map[delivery.Digest]delivery.Spend  // as stored last; nil until read

	plan   plan.Plan
	queued []plan.ProposalReport // about the merge queue
	world  plan.World
}

// A taken is a step that succeeded.
type taken struct {
	next  time.Time // when it may be taken again, if it is still planned
	pause time.Duration
}

// A pendingPush is a step that moves a branch and is in the queue.
type pendingPush struct {
	step  plan.Step
	ended func(error) error // called by the loop; may be nil
}

// Wake requests a turn soon. It may be called from any goroutine, any number of times.
func (r *Reconciler) Wake() {
	r.turn.Soon("somebody said that something happened")
	r.wake.Send()
}

// Swept notes a sweep of a cloud account, and requests a turn that shows what it found.
func (r *Reconciler) Swept(err error) {
	r.turn.Note(sweepTrouble, err)
	r.turn.Soon("the cloud account was swept")
	r.wake.Send()
}

// Refresh has git and the forge read at once; a turn follows if anything is new. A webhook does only this, because its
// content is not trusted. commit is where a status was set; empty for none.
func (r *Reconciler) Refresh(commit string) {
	r.git.Poll.Send()
	r.answers.EventOn(commit)
}

// Init prepares the reconciler once its fields are set. Call it before Run or Reconcile.
func (r *Reconciler) Init() *Reconciler {
	r.wake, r.requests = turn.NewSignal(), make(chan func())
	r.retry, r.taken, r.pushing = queue.Backoff{}, map[string]taken{}, map[string]pendingPush{}
	r.turn = turn.New(r.Now, r.Log)
	r.git, r.answers = poll.New(poll.Config{API: r.Forge, Repo: r.Repo, Ledger: r.Ledger, Metrics: r.Metrics,
		Turn: r.turn, Wake: r.wake, Main: r.Main, GitPoll: r.GitPoll, Every: r.Poll})
	r.board = post.New(r.Forge, r.Ledger, r.Metrics, r.Progress, r.turn, r.wake)
	r.board.Deployments, r.board.URL, r.board.Spare = r.Deployments, r.Server.URL, r.Spare
	r.outbox = outbox.New(outbox.Config{Trackers: r.Trackers, Ledger: r.Ledger, Metrics: r.Metrics, Turn: r.turn,
		Epochs: r.Epochs, Bundles: r.Bundles})
	r.pushes = queue.New(queue.Workers{First: pushWorkers, Limit: pushDeadline}, r.Now, r.wake)
	r.written = map[int]written{}
	r.observed = observed{results: map[delivery.Digest]json.RawMessage{}}
	r.commits = commits.New(r.Repo, r.Parser)
	r.history = history.New(r.Repo, r.Ledger, r.turn, r.commits, r.Main)
	r.pulls = pulls.New(r.Repo, r.Ledger, r.Forge, r.answers, r.turn, r.commits, r.Main)
	return r
}

// Limits of what is sent beside the loop.
const (
	pushWorkers  = 2                // a push may take minutes
	pushDeadline = 3 * time.Minute  // of one push
	sendSlow     = 20 * time.Second // a job that waits longer is shown
)

// Troubles of turns.
const (
	turnTrouble = "the loop cannot see how things are"
	stepTrouble = "a step fails"
	// A sweep that fails ends nothing. What is in the account has its own limits of time.
	sweepTrouble = "the cloud account cannot be swept for what no run needs"
)
