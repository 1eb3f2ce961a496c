package web

import (
	"cmp"
	"context"
	"io"
	"math"
	"time"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/explain"
	"github.com/autonomos/aob/reconciler/gate"
)

// A Source has the data and actions behind the API. A [Client] is one too, at the other end of the
// socket. It must be safe for concurrent use.
//
// Errors: [explain.Unknown] and fs.ErrNotExist give status 404, [delivery.Blocked] 409, [delivery.Wait] 503, [Error]
// its own status, and all others 500 with their text. No error may contain a secret.
type Source interface {
	Status(ctx context.Context) (Status, error)
	// PRs returns the open pull requests, the newest first, without the fields that only PR sets.
	PRs(ctx context.Context) ([]PR, error)
	PR(ctx context.Context, number int) (PR, error)
	Explain(ctx context.Context, kind explain.Kind, id string) (explain.Chain, error)
	Plan(ctx context.Context) (Plan, error)
	// Log opens a run's log at an offset in bytes. run is the run's key or the first digits of it. An
	// offset beyond the end means the end.
	Log(ctx context.Context, run string, offset int64) (Log, error)

	// Merge merges a pull request for a user and returns main's new commit, if its head is still the
	// reviewed commit. Only the local forge can merge; for others the error is a Blocked that says where
	// to merge. Over the socket, the user is the one that opened it according to the operating system.
	Merge(ctx context.Context, number int, head, user string) (commit string, err error)
	// Adopt copies a fork's pull request into the repository and returns the number of the new one, if its
	// head is still the reviewed commit.
	Adopt(ctx context.Context, number int, head string) (int, error)
	// Command posts a command of a user on a pull request, such as "/aob run 3f9c2a10". Over the socket, the
	// user is the one that opened it according to the operating system.
	Command(ctx context.Context, number int, user, text string) error
	// Recheck evaluates a pull request again and retries what has failed.
	Recheck(ctx context.Context, number int) error

	// ForgetDevice removes a device from a fleet. If it reports again, it is a new device.
	ForgetDevice(ctx context.Context, fleet, device string) error

	// Try starts an experiment, or returns the existing one with the same content.
	Try(ctx context.Context, ask TrialRequest) (Trial, error)
	// Trials returns the experiments, newest first.
	Trials(ctx context.Context) ([]Trial, error)
	// Trial returns an experiment by the first characters of its ID.
	Trial(ctx context.Context, id string) (Trial, error)
	// EndTrial removes an experiment. Trainings that nothing else needs are ended.
	EndTrial(ctx context.Context, id string) error
	// Trainings returns what was trained by experiments and open pull requests, and what main has released, newest
	// first.
	Trainings(ctx context.Context) ([]Training, error)
	// Compare compares two models on their validation split. A model is a variant (the first characters of
	// its ID), #12, pallets@12, or release. The result is pending until the work is done; the work
	// continues as long as requests repeat.
	Compare(ctx context.Context, a, b string) (Comparison, error)
	// Release returns a release that main has accepted; version 0 is the one that it has now.
	Release(ctx context.Context, model string, version int) (Released, error)
	// Spends returns what trainings have cost, the earliest first.
	Spends(ctx context.Context) ([]delivery.Spend, error)
	// Retention returns what the server has stored, and what of it is not needed.
	Retention(ctx context.Context, ask RetentionAsk) (Retention, error)
	// Remove removes what is not needed, for some seconds.
	Remove(ctx context.Context) (Retention, error)
	// Power returns the smallest drops that a gate of main can detect, for each model that it covers and has judged.
	Power(ctx context.Context, gate string) ([]gate.ModelPower, error)
}

// A Sentence is a text and its facts: codes and values, for programs.
type Sentence struct {
	Text  string          `json:"text"`
	Facts []delivery.Fact `json:"facts,omitempty"`
}

// A Check is a commit status, and the facts of its description.
type Check struct {
	delivery.Check
	Facts []delivery.Fact `json:"facts,omitempty"`
}

// A TrialRequest requests an experiment: variants of one model's file.
type TrialRequest struct {
	User     string           `json:"user,omitempty"` // the server sets it from the socket's connection
	File     string           `json:"file"`           // such as models/pallets.yaml
	Note     string           `json:"note,omitempty"` // why, for people
	Variants []VariantRequest `json:"variants"`
}

// A VariantRequest is one variant.
type VariantRequest struct {
	Set  []string `json:"set"`  // differences from the file, such as train.optimizer.lr=2e-4
	Text string   `json:"text"` // of the whole file
}

// A Trial is the state of an experiment. It is judged on validation splits only.
type Trial struct {
	ID    string              `json:"id"`
	Model string              `json:"model"`
	By    string              `json:"by"`
	Note  string              `json:"note,omitempty"` // of whoever asked for it first
	At    time.Time           `json:"at"`
	State delivery.CheckState `json:"state"`
	Sentence
	Release     *delivery.Release `json:"release,omitempty"` // main's release, which variants are compared with
	Total       int               `json:"total"`             // number of trainings
	Trained     int               `json:"trained"`
	Known       int               `json:"known"`  // trainings that existed before
	AtOnce      int               `json:"atOnce"` // parallel trainings; 0: no limit
	SecondsLeft float64           `json:"secondsLeft,omitempty"`
	Variants    []Variant         `json:"variants"` // in the order of the request
	// NotMade are the number formats that the file asks for besides FP32: experiments train FP32 alone.
	NotMade []string `json:"notMade,omitempty"`
}

// A Variant is the state of one variant of an experiment.
type Variant struct {
	ID    string              `json:"id"`
	Set   []string            `json:"set"`
	Spec  delivery.Digest     `json:"spec"`
	State delivery.CheckState `json:"state"`
	Sentence
	Bundle delivery.Digest `json:"bundle,omitempty"` // of the best seed
	// of that bundle on the validation split, with bounds over images
	MAP   *delivery.Figure `json:"mAP,omitempty"`
	Diff  *delivery.Figure `json:"diff,omitempty"` // difference to main's release there
	Seeds []Seed           `json:"seeds"`
}

// A Seed is one training of a variant.
type Seed struct {
	Seed  int64               `json:"seed"`
	Run   delivery.Digest     `json:"run,omitempty"` // empty if it was trained before
	State delivery.CheckState `json:"state"`
	Sentence
	Bundle delivery.Digest `json:"bundle,omitempty"`
	MAP    *float64        `json:"mAP,omitempty"`
}

// A Training is one content of a model's file with what its training got, wherever it comes from: a variant of an
// experiment, a pull request, or a release.
type Training struct {
	ID      string              `json:"id"`                // as aob compare takes it: a variant's ID, #12, or pallets@3
	From    string              `json:"from"`              // try, #12, or pallets@3
	Trial   string              `json:"trial,omitempty"`   // the experiment of a variant
	PR      int                 `json:"pr,omitempty"`      // of a release: the one that merged it, if it is known
	Version int                 `json:"version,omitempty"` // of a release
	Model   string              `json:"model"`
	Title   string              `json:"title,omitempty"` // of the pull request or commit, or the note
	Set     []string            `json:"set,omitempty"`   // of a variant: differences from the file
	By      string              `json:"by,omitempty"`
	At      time.Time           `json:"at,omitzero"` // when it was asked for, pushed, or released
	State   delivery.CheckState `json:"state"`
	Sentence
	Spec   delivery.Digest `json:"spec,omitempty"`
	Bundle delivery.Digest `json:"bundle,omitempty"`
	Seeds  []Seed          `json:"seeds"`
	// MAP is on the validation split, and Diff its difference to main's release there.
	MAP  *delivery.Figure `json:"mAP,omitempty"`
	Diff *delivery.Figure `json:"diff,omitempty"`
	// GateMAP is on the eval set of a gate, and GateDiff its difference to the release of that time.
	Gate     string           `json:"gate,omitempty"`
	GateMAP  *delivery.Figure `json:"gateMAP,omitempty"`
	GateDiff *float64         `json:"gateDiff,omitempty"`
}

// Kind is what the training is from: try, release or pr.
func (t Training) Kind() string {
	switch {
	case t.Trial != "":
		return "try"
	case t.Version > 0:
		return "release"
	}
	return "pr"
}

// TrainingSorts are the ways to sort what was trained.
var TrainingSorts = map[string]func(a, b Training) int{
	"asked": func(a, b Training) int { return b.At.Compare(a.At) },
	"mAP":   func(a, b Training) int { return cmp.Compare(ValueOf(b.MAP), ValueOf(a.MAP)) },
	"diff":  func(a, b Training) int { return cmp.Compare(ValueOf(b.Diff), ValueOf(a.Diff)) },
	"gate":  func(a, b Training) int { return cmp.Compare(ValueOf(b.GateMAP), ValueOf(a.GateMAP)) },
}

// ValueOf is a figure's value; one that is missing comes last.
func ValueOf(f *delivery.Figure) float64 {
	if f == nil {
		return math.Inf(-1)
	}
	return f.Value
}

// A Comparison compares two models on one validation split.
type Comparison struct {
	State   delivery.CheckState `json:"state"`
	A       string              `json:"a"`
	B       string              `json:"b"`
	Images  int                 `json:"images,omitempty"`
	LeftOut int                 `json:"leftOut,omitempty"` // because one of the models was trained on them
	Groups  int                 `json:"groups,omitempty"`
	Rows    []Compared          `json:"rows,omitempty"`
}

// Compared is one metric of two models.
type Compared struct {
	Metric string      `json:"metric"`
	Class  string      `json:"class,omitempty"`
	Truths int         `json:"truths,omitempty"`
	A      float64     `json:"a"`
	B      float64     `json:"b"`
	Diff   float64     `json:"diff"` // a minus b
	Low    float64     `json:"low"`  // one-sided bounds of the difference over images, each with 95 % confidence
	High   float64     `json:"high"`
	Answer coco.Answer `json:"answer"`
}

// A Log is a part of a run's log. The caller must close it.
type Log struct {
	io.ReadCloser
	Name   string // of the log file; a run may continue in another file, from its start
	Offset int64  // where this part begins, in bytes from the file's start
	Ended  bool   // the run had ended when the log was opened, so nothing follows
}

// Status is the state of everything.
type Status struct {
	At time.Time `json:"at"`
	// LastTurn is when the last turn of the loop that worked began; zero if none has worked since the start.
	LastTurn time.Time `json:"lastTurn,omitzero"`
	Main     Main      `json:"main"`
	Models   []Model   `json:"models"`  // by name
	PRs      []PR      `json:"prs"`     // open ones, the newest first; without the fields that only Source.PR sets
	Runs     []Run     `json:"runs"`    // running, or requested
	Fleets   []Fleet   `json:"fleets"`  // by name
	Notices  []string  `json:"notices"` // why this may be incomplete or out of date
	// More says which lists go on; empty if all are complete.
	More []More `json:"more,omitempty"`
}

// Main is the state of the main branch.
type Main struct {
	Branch string  `json:"branch"`
	Commit string  `json:"commit"`
	Checks []Check `json:"checks"`
}

// A Model is one model on main.
type Model struct {
	Name     string            `json:"name"`
	Accepted *delivery.Release `json:"accepted,omitempty"` // the release that fleets get
	// the release in the release file; differs from Accepted if it was refused
	Named *delivery.Release   `json:"named,omitempty"`
	State delivery.CheckState `json:"state"`
	Sentence
}

// A PR is a pull request. Of a merged one, it has what its releases say.
type PR struct {
	delivery.PullRequest
	State    delivery.CheckState `json:"state"` // of aob/release
	Sentence                     // of aob/release
	WaitsFor string              `json:"waitsFor,omitempty"` // whom or what it waits for, in a few words
	Checks   []Check             `json:"checks"`
	Runs     []Run               `json:"runs"` // of its content: running ones first, then newest first

	// The fields below are set by Source.PR only.

	Models     []Change             `json:"models,omitempty"`
	Gates      []delivery.Verdict   `json:"gates,omitempty"`  // of current releases, by the gates that it changes
	Powers     []gate.ModelPower    `json:"powers,omitempty"` // smallest drops that those gates can detect
	Fleets     []Sentence           `json:"fleets,omitempty"` // changes of fleets
	Complaints []delivery.Complaint `json:"complaints,omitempty"`
}

// A Change is one model that a pull request changes.
type Change struct {
	Model string              `json:"model"`
	Spec  delivery.Digest     `json:"spec,omitempty"`
	State delivery.CheckState `json:"state"`
	Sentence
	Findings []delivery.Finding `json:"findings,omitempty"` // about its dataset
	Bundle   delivery.Digest    `json:"bundle,omitempty"`   // empty until trained
	Baseline *delivery.Release  `json:"baseline,omitempty"` // main's accepted release
	Verdicts []delivery.Verdict `json:"verdicts,omitempty"`
	Release  *delivery.Release  `json:"release,omitempty"` // what the release file must contain

	// of its spec, with their mAP on the validation split
	Seeds    []Seed                             `json:"seeds,omitempty"`
	Points   map[string]delivery.OperatingPoint `json:"points,omitempty"`   // its score thresholds, by class
	Measured []delivery.Measured                `json:"measured,omitempty"` // by the gates with a verdict
	Settle   []Sentence                         `json:"settle,omitempty"`   // unsure verdicts: what to do, or who did
	Trainer  *Sentence                          `json:"trainer,omitempty"`  // which defaults another version has
	// Pictures are the pages of the images that got worse, by gate: URLs, or paths of the server's site if
	// its address is not configured.
	Pictures map[string]string `json:"pictures,omitempty"`
	Variants []ModelVariant    `json:"variants,omitempty"`
}

// A ModelVariant is the same model in another number format.
type ModelVariant struct {
	Variant string              `json:"variant"` // fp16 or int8
	State   delivery.CheckState `json:"state"`
	Sentence
	Bundle   delivery.Digest    `json:"bundle,omitempty"` // the rest is there once it has been made
	Passed   bool               `json:"passed"`           // every gate
	Size     int64              `json:"size,omitempty"`   // of its ONNX file, bytes
	Parity   *delivery.Parity   `json:"parity,omitempty"`
	Times    *delivery.Times    `json:"times,omitempty"`
	Verdicts []delivery.Verdict `json:"verdicts,omitempty"`
}

// A Run is the state of one run.
type Run struct {
	Key     delivery.Digest   `json:"key"`
	Kind    delivery.RunKind  `json:"kind"`
	Note    string            `json:"note"` // the first reason for the run
	PRs     []int             `json:"prs,omitempty"`
	Phase   delivery.RunPhase `json:"phase"`
	Stage   string            `json:"stage,omitempty"`
	Attempt int               `json:"attempt"`          // attempts that were ended on request are not counted
	Ending  string            `json:"ending,omitempty"` // why it was asked to end, until it has ended
	Epoch   int               `json:"epoch,omitempty"`
	Epochs  int               `json:"epochs,omitempty"`
	Batch   int               `json:"batch,omitempty"` // of the epoch; or the number of processed images
	Batches int               `json:"batches,omitempty"`
	// best mAP on validation so far, as reported by the trainer
	MAP         *float64  `json:"map,omitempty"`
	SecondsLeft *float64  `json:"secondsLeft,omitempty"` // as reported by the trainer
	Heartbeat   time.Time `json:"heartbeat,omitzero"`
	Started     time.Time `json:"started,omitzero"`
	Ended       time.Time `json:"ended,omitzero"`
	Message     string    `json:"message,omitempty"`
	Error       string    `json:"error,omitempty"`
}

// A Fleet is the state of one fleet.
type Fleet struct {
	Name   string          `json:"name"`
	Model  string          `json:"model"`
	Target delivery.Target `json:"target"`
	// which variant of the release Target is; empty if there is no target, or if it is not known
	Variant string              `json:"variant,omitempty"`
	State   delivery.CheckState `json:"state"`
	Sentence
	Wave  int `json:"wave"`  // from 1; 0: none
	Waves int `json:"waves"` // number of waves
	// share of the line of device positions, 0 to 1; InWave is the number of devices
	Share   float64  `json:"share"`
	InWave  int      `json:"inWave"`         // devices that are to run Target
	Back    bool     `json:"back,omitempty"` // it is a rollback to a release that the fleet ran before
	Done    bool     `json:"done"`
	Paused  bool     `json:"paused"`
	Count   Count    `json:"count"`
	Devices []Device `json:"devices"`        // by id; only the first ones if there are many
	More    int      `json:"more,omitempty"` // number of devices that are not listed
}

// Count counts a fleet's devices by their state with respect to Target, in all waves together.
type Count struct {
	Devices int `json:"devices"`
	Heard   int `json:"heard"`   // heard from within the deadline; the next three are part of these
	Healthy int `json:"healthy"` // on Target
	Failed  int `json:"failed"`
	Held    int `json:"held"` // report and do not install, or have another anomaly
}

// A Device is the state of one device by its last report.
type Device struct {
	ID      string               `json:"id"`
	Phase   delivery.DevicePhase `json:"phase"`
	Version int                  `json:"version,omitempty"` // of the serving model; 0: none
	Bundle  delivery.Digest      `json:"bundle,omitempty"`
	Slot    string               `json:"slot,omitempty"`
	Seen    time.Time            `json:"seen"` // when its last report was received
	Desired int64                `json:"desired"`
	Failed  delivery.Digest      `json:"failed,omitempty"` // the last bundle that failed on it
	Why     string               `json:"why,omitempty"`
	// not heard from within the deadline: the other fields may be out of date
	Silent bool `json:"silent,omitempty"`
	// anomalies: why it is held, its clock, two places
	Notes      []string          `json:"notes,omitempty"`
	Installed  string            `json:"installed,omitempty"` // id of the agent's state folder
	Labels     map[string]string `json:"labels,omitempty"`
	Downloaded int64             `json:"downloaded"` // bytes of bundles since the agent was installed
}

// Released is a release that main has accepted.
type Released struct {
	Model       string          `json:"model"`
	Version     int             `json:"version"`
	Bundle      delivery.Digest `json:"bundle"`
	Quarantined string          `json:"quarantined,omitempty"` // why the bundle must not run any more
	Variants    []Accepted      `json:"variants,omitempty"`    // that main accepted with it, besides FP32
}

// An Accepted is a variant of a release.
type Accepted struct {
	delivery.AcceptedVariant
	Quarantined string `json:"quarantined,omitempty"`
}

// A Plan is the server's current plan.
type Plan struct {
	At    time.Time `json:"at"`   // when the state that it is made from was observed
	Text  string    `json:"text"` // in the style of a diff
	Steps []Step    `json:"steps"`
	// Notices are the errors of a dry run in observing the forge and git.
	Notices []string `json:"notices,omitempty"`
}

// A Step is one thing to do.
type Step struct {
	Key  string `json:"key"`
	Text string `json:"text"`
}

// Counts are current counts for the metrics.
type Counts struct {
	Runs    map[RunCount]int
	Devices map[DeviceCount]int
	Queues  map[string]int    // what waits, by queue
	Stored  map[string]Amount // what the server has stored, by kind
	Blocked time.Duration     // how long nothing has been removed, because it is not known what is needed
	Lost    int               // bundles with missing or damaged files in the store
	// Cost is what trainings have cost, by model and outcome: running, done, failed, or superseded by another push.
	Cost    map[CostCount]delivery.Money
	Orphans int // things in a cloud account that cannot be ended
}

// Phases that no device reports. The server shows them for devices whose own phase is not meaningful.
const (
	PhaseSilent delivery.DevicePhase = "silent" // not heard from within the deadline
	// reports and does not install, or has another anomaly
	PhaseHeld delivery.DevicePhase = "held"
)

// CostCount is a model and an outcome of trainings.
type CostCount struct{ Model, Outcome string }

// RunCount is a kind and a phase of runs.
type RunCount struct {
	Kind  delivery.RunKind
	Phase delivery.RunPhase
}

// DeviceCount is a fleet and a phase of devices.
type DeviceCount struct {
	Fleet string
	Phase delivery.DevicePhase
}
