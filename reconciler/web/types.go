package web

import (
	"context"
	"io"
	"time"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/explain"
	"github.com/autonomos/aob/reconciler/gate"
)

// A Source is what the API shows and does. A [Client] is one too, at the other
// end of the socket. Its methods may be called from any goroutine.
//
// Errors: [explain.Unknown] and fs.ErrNotExist are answered with 404,
// [delivery.Blocked] with 409, [delivery.Wait] with 503, [Error] as it says, and
// all others with 500 and their text. No error may hold a secret.
type Source interface {
	Status(ctx context.Context) (Status, error)
	// PRs returns the open pull requests, without what only PR tells.
	PRs(ctx context.Context) ([]PR, error)
	PR(ctx context.Context, number int) (PR, error)
	Explain(ctx context.Context, kind explain.Kind, id string) (explain.Chain, error)
	Plan(ctx context.Context) (Plan, error)
	// Log opens a run's log at an offset in bytes. The run is named by its key or
	// by the beginning of the key's digits. An offset beyond the end is the end.
	Log(ctx context.Context, run string, offset int64) (Log, error)

	// Merge merges a pull request for a user and returns main's new commit, if its
	// head is still the commit that the user looked at. Only the local forge can;
	// others answer with a Blocked error that says where to merge. Over the socket
	// the user is whoever the system says opened it.
	Merge(ctx context.Context, number int, head, user string) (commit string, err error)
	// Adopt brings a fork's pull request into the repository and returns the
	// number of the new one, if its head is still the commit that was looked at.
	Adopt(ctx context.Context, number int, head string) (int, error)
	// Ask writes what a user asks on a pull request, as "/aob run 3f9c2a10". Over the
	// socket the user is whoever the system says opened it.
	Ask(ctx context.Context, number int, user, text string) error
	// Recheck looks at a pull request anew and tries again what has failed.
	Recheck(ctx context.Context, number int) error

	// ForgetDevice removes a device from a fleet. One that speaks again is new.
	ForgetDevice(ctx context.Context, fleet, device string) error

	// Try begins an experiment, or finds the same one where it was.
	Try(ctx context.Context, ask TrialRequest) (Trial, error)
	// Trials returns the experiments, the newest first.
	Trials(ctx context.Context) ([]Trial, error)
	// Trial returns one, named by the beginning of its ID.
	Trial(ctx context.Context, id string) (Trial, error)
	// EndTrial forgets one; what is trained for nothing else ends.
	EndTrial(ctx context.Context, id string) error
	// Compare compares two models on their validation split: variants by the
	// beginning of their ID, #12, pallets@12, or release. It is pending until the
	// work is done, which goes on as long as somebody asks.
	Compare(ctx context.Context, a, b string) (Comparison, error)
	// Power says how small a drop a gate of main can show, for each model that it
	// covers and has judged.
	Power(ctx context.Context, gate string) ([]gate.ModelPower, error)
}

// Said is a text, and the facts that it says: codes and values, for programs.
type Said struct {
	Text  string          `json:"text"`
	Facts []delivery.Fact `json:"facts,omitempty"`
}

// A Check is a commit status, and the facts that its description says.
type Check struct {
	delivery.Check
	Facts []delivery.Fact `json:"facts,omitempty"`
}

// A TrialRequest asks for an experiment: one model's file in some variants.
type TrialRequest struct {
	User     string           `json:"user,omitempty"` // the server takes it from the system
	File     string           `json:"file"`           // as models/pallets.yaml
	Variants []VariantRequest `json:"variants"`
}

// A VariantRequest is one of the variants.
type VariantRequest struct {
	Set  []string `json:"set"`  // what is other than in the file, as train.optimizer.lr=2e-4
	Text string   `json:"text"` // of the whole file
}

// A Trial is how an experiment stands. It is judged on validation splits alone.
type Trial struct {
	ID    string              `json:"id"`
	Model string              `json:"model"`
	By    string              `json:"by"`
	At    time.Time           `json:"at"`
	State delivery.CheckState `json:"state"`
	Said
	Release     *delivery.Release `json:"release,omitempty"` // main's, that variants are compared with
	Total       int               `json:"total"`             // trainings
	Trained     int               `json:"trained"`
	Known       int               `json:"known"`  // that were there before
	AtOnce      int               `json:"atOnce"` // how many are trained at once; 0 is any number
	SecondsLeft float64           `json:"secondsLeft,omitempty"`
	Variants    []Variant         `json:"variants"` // in the order asked
}

// A Variant is how one variant of an experiment stands.
type Variant struct {
	ID    string              `json:"id"`
	Set   []string            `json:"set"`
	Spec  delivery.Digest     `json:"spec"`
	State delivery.CheckState `json:"state"`
	Said
	Bundle delivery.Digest  `json:"bundle,omitempty"` // the best seed's
	MAP    *delivery.Figure `json:"mAP,omitempty"`    // of that, on validation, with bounds over images
	Diff   *delivery.Figure `json:"diff,omitempty"`   // to main's release there
	Seeds  []Seed           `json:"seeds"`
}

// A Seed is one training of a variant.
type Seed struct {
	Seed  int64               `json:"seed"`
	Run   delivery.Digest     `json:"run,omitempty"` // empty where it was trained before
	State delivery.CheckState `json:"state"`
	Said
	Bundle delivery.Digest `json:"bundle,omitempty"`
	MAP    *float64        `json:"mAP,omitempty"`
}

// A Comparison is two models on one validation split.
type Comparison struct {
	State   delivery.CheckState `json:"state"`
	A       string              `json:"a"`
	B       string              `json:"b"`
	Images  int                 `json:"images,omitempty"`
	LeftOut int                 `json:"leftOut,omitempty"` // as a model was trained on them
	Groups  int                 `json:"groups,omitempty"`
	Rows    []Compared          `json:"rows,omitempty"`
}

// Compared is one figure of two models.
type Compared struct {
	Metric string      `json:"metric"`
	Class  string      `json:"class,omitempty"`
	Truths int         `json:"truths,omitempty"`
	A      float64     `json:"a"`
	B      float64     `json:"b"`
	Diff   float64     `json:"diff"` // a minus b
	Low    float64     `json:"low"`  // one-sided bounds of the difference over images, each 95 % sure
	High   float64     `json:"high"`
	Answer coco.Answer `json:"answer"`
}

// A Log is part of a run's log.
type Log struct {
	io.ReadCloser
	Name   string // of the file: a run may go on in another one, from its start
	Offset int64  // where it begins, bytes from the file's start
	Ended  bool   // the run had ended when the log was opened, so that nothing follows
}

// Status is how everything stands.
type Status struct {
	At      time.Time `json:"at"`
	Main    Main      `json:"main"`
	Models  []Model   `json:"models"`  // by name
	PRs     []PR      `json:"prs"`     // open ones, by number; without what only Source.PR tells
	Runs    []Run     `json:"runs"`    // running, or waited for
	Fleets  []Fleet   `json:"fleets"`  // by name
	Notices []string  `json:"notices"` // what keeps this from being the whole truth
}

// Main is the branch that says what must run.
type Main struct {
	Branch string  `json:"branch"`
	Commit string  `json:"commit"`
	Checks []Check `json:"checks"`
}

// A Model is one model on main.
type Model struct {
	Name     string              `json:"name"`
	Accepted *delivery.Release   `json:"accepted,omitempty"` // what fleets get
	Named    *delivery.Release   `json:"named,omitempty"`    // what the release file says; differs where it was refused
	State    delivery.CheckState `json:"state"`
	Said
}

// A PR is an open pull request.
type PR struct {
	delivery.PullRequest
	State  delivery.CheckState `json:"state"` // of aob/release
	Said                       // of aob/release
	Checks []Check             `json:"checks"`
	Runs   []Run               `json:"runs"` // of its content: running ones first, then the newest first

	// The rest only Source.PR tells.

	Models     []Change             `json:"models,omitempty"`
	Gates      []delivery.Verdict   `json:"gates,omitempty"`  // of current releases, by gates that it changes
	Powers     []gate.ModelPower    `json:"powers,omitempty"` // how small a drop those gates can show
	Fleets     []Said               `json:"fleets,omitempty"` // what it changes about fleets
	Complaints []delivery.Complaint `json:"complaints,omitempty"`
}

// A Change is one model that a pull request changes.
type Change struct {
	Model string              `json:"model"`
	Spec  delivery.Digest     `json:"spec,omitempty"`
	State delivery.CheckState `json:"state"`
	Said
	Findings []delivery.Finding `json:"findings,omitempty"` // in its dataset
	Bundle   delivery.Digest    `json:"bundle,omitempty"`   // once trained
	Baseline *delivery.Release  `json:"baseline,omitempty"` // main's accepted release
	Verdicts []delivery.Verdict `json:"verdicts,omitempty"`
	Release  *delivery.Release  `json:"release,omitempty"` // what the release file must say

	Seeds    []Seed                             `json:"seeds,omitempty"`    // of its spec, with their mAP on validation
	Points   map[string]delivery.OperatingPoint `json:"points,omitempty"`   // its thresholds, by class
	Measured []delivery.Measured                `json:"measured,omitempty"` // by the gates that have answered
	Settle   []Said                             `json:"settle,omitempty"`   // how unsure verdicts are settled
	// Pictures are the pages of the images that got worse, by gate: addresses, or paths
	// of the server's site where it does not know by which address it is reached.
	Pictures map[string]string `json:"pictures,omitempty"`
}

// A Run is how one run stands.
type Run struct {
	Key         delivery.Digest   `json:"key"`
	Kind        delivery.RunKind  `json:"kind"`
	Note        string            `json:"note"` // what asked for it first
	PRs         []int             `json:"prs,omitempty"`
	Phase       delivery.RunPhase `json:"phase"`
	Stage       string            `json:"stage,omitempty"`
	Attempt     int               `json:"attempt"`          // those that were asked to end are not counted
	Ending      string            `json:"ending,omitempty"` // why it was asked to end, while it has not ended
	Epoch       int               `json:"epoch,omitempty"`
	Epochs      int               `json:"epochs,omitempty"`
	Batch       int               `json:"batch,omitempty"` // of the epoch; or images done
	Batches     int               `json:"batches,omitempty"`
	MAP         *float64          `json:"map,omitempty"`         // best on validation so far, by the trainer's word
	SecondsLeft *float64          `json:"secondsLeft,omitempty"` // by the trainer's word
	Heartbeat   time.Time         `json:"heartbeat,omitzero"`
	Started     time.Time         `json:"started,omitzero"`
	Ended       time.Time         `json:"ended,omitzero"`
	Message     string            `json:"message,omitempty"`
	Error       string            `json:"error,omitempty"`
}

// A Fleet is how one fleet stands.
type Fleet struct {
	Name   string              `json:"name"`
	Model  string              `json:"model"`
	Target delivery.Target     `json:"target"`
	State  delivery.CheckState `json:"state"`
	Said
	Wave  int `json:"wave"`  // from 1; 0 is none
	Waves int `json:"waves"` // how many there are
	// 0..1 of the places that devices have in a rollout; see InWave for people
	Share   float64  `json:"share"`
	InWave  int      `json:"inWave"`         // devices that are told to run Target
	Back    bool     `json:"back,omitempty"` // it goes, or went, back to a release that it had run before
	Done    bool     `json:"done"`
	Paused  bool     `json:"paused"`
	Count   Count    `json:"count"`
	Devices []Device `json:"devices"`        // by id; of many, some
	More    int      `json:"more,omitempty"` // devices that are not listed
}

// Count says how a fleet's devices stand with Target, all waves together.
type Count struct {
	Devices int `json:"devices"`
	Heard   int `json:"heard"`   // within the deadline; the next three are of these
	Healthy int `json:"healthy"` // on Target
	Failed  int `json:"failed"`
	Held    int `json:"held"` // they say why they do not do what they are told, or are strange in another way
}

// A Device is how one device stands, by its last report.
type Device struct {
	ID      string               `json:"id"`
	Phase   delivery.DevicePhase `json:"phase"`
	Version int                  `json:"version,omitempty"` // of the model that serves; 0 is none
	Bundle  delivery.Digest      `json:"bundle,omitempty"`
	Slot    string               `json:"slot,omitempty"`
	Seen    time.Time            `json:"seen"` // when the server last heard from it
	Desired int64                `json:"desired"`
	Failed  delivery.Digest      `json:"failed,omitempty"` // the last bundle that failed here
	Why     string               `json:"why,omitempty"`
	Silent  bool                 `json:"silent,omitempty"` // not heard within the deadline: the rest is old
	// what is odd about it: why it is held, its clock, two places
	Notes      []string          `json:"notes,omitempty"`
	Installed  string            `json:"installed,omitempty"` // the id of the agent's state folder
	Labels     map[string]string `json:"labels,omitempty"`
	Downloaded int64             `json:"downloaded"` // bytes of model since the agent was installed
}

// A Plan is what the server would do, and what it says.
type Plan struct {
	At    time.Time `json:"at"`   // of the world that it was made from
	Text  string    `json:"text"` // like a diff
	Steps []Step    `json:"steps"`
	// Notices are sentences about what a dry run found wrong: it looks at the forge and git as a server does.
	Notices []string `json:"notices,omitempty"`
}

// A Step is one thing to do.
type Step struct {
	Key  string `json:"key"`
	Text string `json:"text"`
}

// Counts is what is counted at the moment of asking.
type Counts struct {
	Runs    map[RunCount]int
	Devices map[DeviceCount]int
	Lost    int // bundles of which the store has lost something
}

// Phases that no device reports: the server gives them to those whose own phase
// says nothing.
const (
	PhaseSilent delivery.DevicePhase = "silent" // not heard within the deadline
	// it says why it does not do what it is told, or is strange in another way
	PhaseHeld delivery.DevicePhase = "held"
)

// RunCount are runs of a kind in a phase.
type RunCount struct {
	Kind  delivery.RunKind
	Phase delivery.RunPhase
}

// DeviceCount are devices of a fleet in a phase.
type DeviceCount struct {
	Fleet string
	Phase delivery.DevicePhase
}
