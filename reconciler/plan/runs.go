package plan

// This file starts the runs that pull requests need, and says how far they are.

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// run finds a run, or plans its start if that is allowed, and returns its state.
func (m *maker) run(spec delivery.RunSpec, p Proposal, approval string) (delivery.RunState, Stage) {
	m.needs(spec.Key, p.Number)
	m.uses(spec.Key, p.Number)
	state, ok := m.stateOf(spec.Key)
	if !ok {
		state.Phase = delivery.RunUnknown
	}
	switch state.Phase {
	case delivery.RunDone:
		if state.Result == nil {
			m.readResult(spec.Key)
			return state, pending(fact(code.RunReading, values{}))
		}
		return state, Stage{State: delivery.CheckSuccess}
	case delivery.RunFailed:
		return state, failed(fact(code.RunFailed, values{Text: state.Error}))
	case delivery.RunRunning:
		if state.EndReason != "" {
			return state, pending(fact(code.RunEnding, values{Text: state.EndReason}))
		}
		if state.Spec.Quote != nil { // its cost grows
			m.isLive()
		}
		return state, pending(runs(state, m.w.At))
	}
	if spec.Train != nil && delivery.PaidModule(spec.Train.Machine) { // paying has not agreed to it
		return state, failed(fact(code.CostNoQuote, values{By: spec.Train.Machine}))
	}
	if p.Permission != delivery.PermissionWrite && !slices.Contains(p.Approvals, approval) {
		return state, pending(m.ask(p, approval))
	}
	return m.enter(spec, p)
}

// enter plans the start of a run that nobody needs to agree to any more, or says which place it has in the queue.
func (m *maker) enter(spec delivery.RunSpec, p Proposal) (delivery.RunState, Stage) {
	state, _ := m.stateOf(spec.Key)
	queue := m.queue
	if spec.Kind == delivery.RunTrain {
		queue = m.trains
	}
	if queue.limit > 0 {
		m.isLive()
	}
	if stage, waits := queue.enter(spec.Key, p.Number); waits {
		return state, stage
	}
	m.start(spec, p.Number)
	switch state.Phase {
	case delivery.RunDied:
		return state, pending(fact(code.RunRestarting, values{}))
	case delivery.RunStopped:
		return state, pending(fact(code.RunResuming, values{}))
	}
	return state, pending(fact(code.RunStarting, values{}))
}

// start plans the start of a run, once for all pull requests that need it.
func (m *maker) start(spec delivery.RunSpec, pr int) {
	m.effect(func(m *maker) {
		step := StartRun{Spec: spec, PRs: []int{pr}}
		if !m.planned[step.Key()] {
			m.addStep(step)
			return
		}
		for i, s := range m.plan.Steps {
			if s, ok := s.(StartRun); ok && s.Spec.Key == spec.Key && !slices.Contains(s.PRs, pr) {
				s.PRs = append(s.PRs, pr)
				m.plan.Steps[i] = s
			}
		}
	})
}

// uses notes that a pull request has a run.
func (m *maker) uses(run delivery.Digest, pr int) {
	m.effect(func(m *maker) {
		if !slices.Contains(m.runs[pr], run) {
			m.runs[pr] = append(m.runs[pr], run)
		}
	})
}

// runs returns how far a run is.
func runs(r delivery.RunState, now time.Time) delivery.Fact {
	s := r.Status
	f := fact(code.RunRunning, values{})
	switch {
	case r.Spec.Kind == delivery.RunTrain && s.Epochs > 0 && s.Phase == "training":
		f = fact(code.RunTraining, values{Count: s.Epoch, Total: s.Epochs})
		if s.MAP != nil {
			f.Metric, f.Value = delivery.MetricMAP, *s.MAP
		}
	case r.Spec.Training() != nil && r.Stage == delivery.StageEnvironment:
		f = fact(code.RunPreparing, values{Stage: cmp.Or(s.Message, "starting")})
		if s.Batches > 0 {
			f = fact(code.RunInstalling, values{Count: s.Batch, Total: s.Batches})
		}
		f.Names = []string{strings.ReplaceAll(r.Spec.Training().Spec.Train.With, "@", " ")}
	case r.Spec.Kind == delivery.RunEval && s.Batches > 0:
		f = fact(code.RunEvaluating, values{Count: s.Batch, Total: s.Batches})
	case r.Spec.Quote != nil && r.Stage == "training" && s.Phase == "starting" && s.Message != "":
		f = fact(code.RunAtStage, values{Stage: s.Message}) // as long as an instance boots
	case r.Stage != "":
		f = fact(code.RunAtStage, values{Stage: r.Spec.Kind.Doing(r.Stage)})
	}
	if s.SecondsLeft != nil && *s.SecondsLeft >= 1 {
		f.Lasts = delivery.Duration(time.Duration(*s.SecondsLeft) * time.Second)
	}
	if r.Tries() > 1 {
		f.Attempt, f.Text = r.Tries(), r.Error
	}
	if q := r.Spec.Quote; q != nil {
		f.Cost, f.Ceiling = r.Spend(now).Cost, q.Ceiling
	}
	return f
}

// A runner finds a run, or plans its start if that is allowed, and returns its state.
type runner func(delivery.RunSpec) (delivery.RunState, Stage)

// resultOf returns the result of a run. The stage has the code unreadable if the result cannot be decoded.
func resultOf[T any](run runner, spec delivery.RunSpec, unreadable delivery.Code) (result T, stage Stage) {
	state, stage := run(spec)
	if stage.State == delivery.CheckSuccess {
		if err := json.Unmarshal(state.Result, &result); err != nil {
			stage = Stage{State: delivery.CheckError, Fact: fact(unreadable, values{Text: err.Error()})}
		}
	}
	return result, stage
}

// runner returns a runner for a proposal. Its runs need the approval if the author may not start them. note is the text
// that each run shows about its purpose.
func (m *maker) runner(p Proposal, approval, note string) runner {
	return func(spec delivery.RunSpec) (delivery.RunState, Stage) {
		spec.Note = note
		return m.run(spec, p, approval)
	}
}
