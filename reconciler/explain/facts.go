package explain

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Facts is what is known at one moment. Every statement in it has been
// verified. All of it is read and nothing changed.
type Facts struct {
	Branch string // that says what must run
	Head   string // its commit
	Unread string // why nobody can tell what the branch says now; mostly empty

	Proposals []Proposal // open pull requests
	Models    []Main     // on main
	Fleets    []Fleet    // on main
	Devices   []delivery.Device
	// Silent says of a device that nothing was heard of it for so long that what it said last may not be so.
	Silent    func(delivery.Device) bool
	Published map[string]delivery.Desired // by ring

	// Versions is what main's release files have said, by model, newest first.
	Versions map[string][]Version
	// Heads is the last commit of pull requests that are closed, by number, as
	// far as that is known.
	Heads map[int]string

	Trainings   map[delivery.Digest]delivery.Training // by bundle
	Specs       map[delivery.Digest]delivery.Training // by spec digest: what it was resolved to
	Resolved    map[delivery.Digest]delivery.Resolved // by bundle with thresholds
	Scores      map[delivery.Digest]delivery.Scores   // by score key
	Statements  []delivery.ReleaseStatement
	Acceptances map[string][]delivery.Acceptance // by model
	Aborts      []delivery.Abort
	Quarantines map[string]delivery.Quarantine // by model
	Runs        map[delivery.Digest]delivery.RunState
	Sizes       map[delivery.Digest]int64 // of bundles that the store holds: bytes of the largest variant
}

// A Proposal is an open pull request as the plan has it.
type Proposal struct {
	PR         delivery.PullRequest
	Checks     []delivery.Check
	Complaints []delivery.Complaint
	Models     []Change
}

// A Change is one model that a proposal changes.
type Change struct {
	Model    string
	Spec     *delivery.Spec // nil: the model is removed
	State    delivery.CheckState
	Text     string
	Data     *delivery.DataResult // nil: not read yet
	Bundle   delivery.Digest      // once trained
	Baseline *delivery.Release    // main's accepted release; nil for a first model
	Verdicts []delivery.Verdict
	Release  *delivery.Release // what the release file must say
}

// Main is a model on main.
type Main struct {
	Name     string
	Spec     delivery.Spec
	Named    *delivery.Release // what the release file says; nil for none
	Accepted *delivery.Release // what fleets get; nil for none
	Text     string
}

// A Version is what main's release file of a model said from one commit on.
type Version struct {
	Commit  string
	Subject string // the commit message's first line
	Author  string
	At      time.Time
	Release *delivery.Release // nil: the file was removed, or could not be read
}

// A Fleet is how a fleet stands.
type Fleet struct {
	Name   string
	Model  string
	Target delivery.Target
	Share  float64 // of devices that are told to run Target
	Text   string
}

// origin finds how a bundle of a spec was made: what the spec was resolved to, where
// that is known, and from which bundle its thresholds were added.
func (f Facts) origin(spec, bundle delivery.Digest) (delivery.Training, bool) {
	from := bundle
	if r, ok := f.Resolved[bundle]; ok {
		from = r.Input.Valid.Bundle
	}
	if t, ok := f.Specs[spec]; ok && t.Result.Bundle == from {
		return t, true
	}
	t, ok := f.Trainings[from]
	return t, ok
}

// Explain tells how one thing came to be, or returns [Unknown].
func (f Facts) Explain(kind Kind, id string) (Chain, error) {
	switch kind {
	case PR:
		n, err := strconv.Atoi(strings.TrimPrefix(id, "#"))
		if err != nil || n < 1 {
			return Chain{}, Unknown{kind, id, "a pull request is named by its number, as 12"}
		}
		return f.pr(n)
	case Commit:
		return f.commit(strings.ToLower(id))
	case Model:
		return f.model(id)
	case Device:
		return f.device(id)
	}
	return Chain{}, Unknown{kind, id, "what can be explained is a pr, a commit, a model or a device"}
}

// models returns the models that main has accepted versions of, sorted.
func (f Facts) models() []string { return slices.Sorted(maps.Keys(f.Acceptances)) }
