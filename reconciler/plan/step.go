package plan

import (
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/rollout"
)

// A Step is one thing to do. Its key is the same across restarts, and doing it twice is the same as doing it once.
type Step interface{ Key() string }

// StartRun starts a run, or starts it again after it died.
type StartRun struct {
	Spec delivery.RunSpec
	PRs  []int // pull requests that wait for it
}

func (s StartRun) Key() string { return "run/" + string(s.Spec.Key) }

// EndRun ends a run that nothing needs.
type EndRun struct {
	Run  delivery.Digest
	Kind delivery.RunKind
	Why  delivery.Fact
}

func (s EndRun) Key() string { return "end/" + string(s.Run) }

// KeepNeed records which pull requests need a run, so that it is known after a restart.
type KeepNeed struct {
	Run  delivery.Digest
	Kind delivery.RunKind
	Need delivery.RunNeed
}

func (s KeepNeed) Key() string {
	return "need/" + string(s.Run) + "/" + string(delivery.DigestOf("need", s.Need))
}

// Sign attaches a signed statement to a bundle.
type Sign struct {
	Bundle    delivery.Digest
	Type      string // predicate type
	Predicate any
	Of        string        // what it is about: a model, a gate, a fleet or an eval set, as its type says
	Why       delivery.Fact // of an abort without a reason
}

func (s Sign) Key() string {
	return "sign/" + string(delivery.DigestOf(s.Type, []any{s.Bundle, s.Predicate}))
}

// CommitRelease commits release files to a pull request's branch, if its head has not moved.
type CommitRelease struct {
	PR       delivery.PullRequest
	Releases []delivery.Release // by model's name
	// Verdicts, by model, only explain the files' figures to reviewers.
	Verdicts map[string][]delivery.Verdict
}

func (s CommitRelease) Key() string {
	return "commit/" + string(delivery.DigestOf("commit", []any{s.PR.HeadRef, s.PR.Fork, s.PR.Head, s.Releases}))
}

// Propose opens a pull request of AOB's own. Its branch identifies it.
type Propose struct {
	Branch string        // without refs/heads/
	Base   string        // commit of main that it starts from
	Title  delivery.Fact // of the pull request and its commit
	Body   delivery.Fact // of both, below the title
	// Restore maps a path to the commit whose content it gets back; "" removes it.
	Restore map[string]string
	// Quarantine is appended to the model's file, where set.
	Quarantine *delivery.Quarantine
}

func (s Propose) Key() string { return "propose/" + s.Branch }

// Publish signs and publishes what a ring of devices must run.
type Publish struct {
	Desired delivery.Desired // the publisher sets its version
	Variant string           // of Desired.Release; empty for FP32
	Wave    int              // devices in the wave, of those that have reported
	Devices int              // of the fleet
}

func (s Publish) Key() string { return "publish/" + string(delivery.DigestOf("desired", s.Desired)) }

// AskBench asks a bench device to measure a bundle.
type AskBench struct{ Request delivery.BenchRequest }

func (s AskBench) Key() string { return "bench/" + string(s.Request.Key()) }

// KeepClock stores the state of a rollout.
type KeepClock struct {
	Fleet string
	State rollout.State
	Why   delivery.Fact // of State.Abort, if it has no reason
}

func (s KeepClock) Key() string {
	return "clock/" + s.Fleet + "/" + string(delivery.DigestOf("clock", s.State))
}
