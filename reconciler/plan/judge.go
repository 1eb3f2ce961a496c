package plan

// This file lets gates judge a trained model: scores, comparisons, verdicts.

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
)

// judgement is one gate's answer with what it read.
type judgement struct {
	judged
	label   string
	content delivery.EvalSetContent
	score   delivery.Scores
	base    *delivery.Scores
	compare *delivery.CompareResult
	verdict delivery.Verdict
	accept  *delivery.Accept // of an unsure verdict
}

// settled reports whether the gate is in nobody's way. acceptOf has seen to it
// that an accept is an owner's.
func (j judgement) settled() bool {
	return verdictState(j.verdict.Outcome) == delivery.CheckSuccess || j.verdict.Outcome == delivery.Unsure && j.accept != nil
}

// judge takes the aob/eval stage and every aob/gate/NAME stage.
func (m *maker) judge(r *progress, mdl delivery.Model, gates []judged, data delivery.DataResult, run runner) ([]judgement, bool) {
	var list []judgement
	eval := Stage{State: delivery.CheckSuccess}
	wait := func(s Stage) {
		if severity(s.State) > severity(eval.State) {
			eval = s
		}
	}
	baseline := r.Baseline
	if baseline != nil && baseline.Bundle == r.Bundle {
		baseline = nil // the same bytes; nothing can have got worse
	}
	for _, j := range gates {
		jt := judgement{judged: j, label: j.label(gates)}
		content, ok := contentOf(data, j.gate.Evaluate)
		if !ok {
			wait(Stage{State: delivery.CheckPending, Text: "the eval set of gate " + jt.label + " is not read yet"})
			continue
		}
		jt.content = content
		score, stage := m.score(mdl, r.Bundle, content, run)
		wait(stage)
		if stage.State != delivery.CheckSuccess {
			continue
		}
		jt.score = score
		if baseline != nil {
			base, stage := m.score(mdl, baseline.Bundle, content, run)
			stage.Text = prefixed("release: ", stage.Text)
			wait(stage)
			if stage.State != delivery.CheckSuccess {
				continue
			}
			jt.base = &base
			compare, stage := m.compare(score.Input, base.Input, run)
			wait(stage)
			if stage.State != delivery.CheckSuccess {
				continue
			}
			jt.compare = compare
		}
		jt.verdict = m.verdict(r, jt, mdl)
		list = append(list, jt)
	}
	if own, ok := contentOf(data, delivery.EvalSet{Dataset: mdl.Dataset, Split: "test"}); ok {
		score, stage := m.score(mdl, r.Bundle, own, run)
		if stage.State == delivery.CheckSuccess {
			r.Own = &score
		} else {
			wait(stage)
		}
	}
	if eval.State == delivery.CheckSuccess && len(list) == len(gates) {
		eval.Text = evalText(list[0])
	}
	r.stage(delivery.ContextEval, eval.State, "%s", eval.Text)
	judgedAll := eval.State == delivery.CheckSuccess && len(list) == len(gates)
	for _, j := range gates {
		label := j.label(gates)
		i := slices.IndexFunc(list, func(jt judgement) bool { return jt.label == label })
		if i < 0 {
			r.stage(delivery.ContextGate+label, delivery.CheckPending, "waiting for the evaluation")
			continue
		}
		v := list[i].verdict
		r.Measured, r.Verdicts = append(r.Measured, measured(list[i], r.Baseline)), append(r.Verdicts, v)
		if !m.w.Evidence.Verdicts[v.Key] {
			m.step(Sign{Bundle: r.Bundle, Type: delivery.VerdictType, Predicate: v, What: "verdict of gate " + label})
		}
		state, text := verdictState(v.Outcome), v.Reason
		if v.Outcome == delivery.Unsure {
			list[i].accept = m.acceptOf(r.asked, j, v)
			text = m.acceptText(j, v, list[i].accept)
			if list[i].settled() {
				state = delivery.CheckSuccess
				r.Settled = append(r.Settled, fmt.Sprintf("gate %s cannot tell, and %s takes it for good enough: %s", label, list[i].accept.By, list[i].accept.Because))
			} else {
				r.Settle = append(r.Settle, "gate "+label+" cannot tell: "+strings.TrimPrefix(text, "unsure: "))
			}
		}
		r.stage(delivery.ContextGate+label, state, "%s", text)
		if !list[i].settled() {
			judgedAll = false
		}
	}
	return list, judgedAll
}

// anyPassed reports whether a check of a verdict passed: what is only unsure,
// ignored and not applicable shows nothing.
func anyPassed(v delivery.Verdict) bool {
	return slices.ContainsFunc(v.Checks, func(c delivery.CheckVerdict) bool { return c.Outcome == delivery.Pass })
}

// verdictState maps a verdict to a check. A gate of which nothing applies is in
// nobody's way; that something passed is asked of all gates together.
func verdictState(o delivery.Outcome) delivery.CheckState {
	switch o {
	case delivery.Pass, delivery.NotApplicable:
		return delivery.CheckSuccess
	case delivery.Unsure:
		return delivery.CheckPending
	}
	return delivery.CheckFailure
}

func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

func evalText(j judgement) string {
	text := fmt.Sprintf("mAP %.4f on %d images", j.score.Scores.Values["mAP"], j.score.Scores.Images)
	if j.base != nil {
		text += fmt.Sprintf(", release %.4f", j.base.Scores.Values["mAP"])
	}
	return text
}

func contentOf(data delivery.DataResult, e delivery.EvalSet) (delivery.EvalSetContent, bool) {
	for _, c := range data.EvalSets {
		if c.EvalSet == e {
			return c, true
		}
	}
	return delivery.EvalSetContent{}, false
}

// score finds what a bundle scored on an eval set, or plans the run for it.
func (m *maker) score(mdl delivery.Model, bundle delivery.Digest, content delivery.EvalSetContent, run runner) (delivery.Scores, Stage) {
	info, ok := m.w.Evidence.Bundles[bundle]
	if !ok {
		return delivery.Scores{}, Stage{State: delivery.CheckFailure, Text: fmt.Sprintf("bundle %s is gone from the registry; restore it", bundle.Short())}
	}
	ask := delivery.EvalRun{Bundle: bundle, Model: info.Model, Signature: info.Signature, EvalSet: content.EvalSet, Classes: mdl.Classes,
		Images: content.Images, Truths: content.Truths, Protocol: m.w.Server.Protocol,
		Detect: delivery.DetectKey(info.Model, info.Signature, content.Images, m.w.Server.Numerics, "cpu")}
	key := delivery.ScoreKey(ask)
	if s, ok := m.w.Evidence.Scores[key]; ok {
		return s, Stage{State: delivery.CheckSuccess}
	}
	state, stage := run(delivery.RunSpec{Key: key, Kind: delivery.RunEval, Limit: m.w.Server.EvalTime, Eval: &ask})
	if stage.State != delivery.CheckSuccess {
		return delivery.Scores{}, stage
	}
	var scores delivery.ScoreSet
	if err := json.Unmarshal(state.Result, &scores); err != nil {
		return delivery.Scores{}, Stage{State: delivery.CheckError, Text: "the scores cannot be read: " + err.Error()}
	}
	s := delivery.Scores{Key: key, Input: ask, Content: content, Scores: scores}
	m.step(Sign{Bundle: bundle, Type: delivery.ScoresType, Predicate: s, What: "scores on " + content.EvalSet.String()})
	return s, Stage{State: delivery.CheckPending, Text: "scored; signing"}
}

// The bootstrap of every comparison. Changing either makes other keys.
const (
	resamples     = 1000
	bootstrapSeed = 1
)

// compare finds the paired bootstrap of two scores, or plans the run for it.
func (m *maker) compare(candidate, baseline delivery.EvalRun, run runner) (*delivery.CompareResult, Stage) {
	ask := delivery.CompareRun{Candidate: candidate, Baseline: baseline, Resamples: resamples, Seed: bootstrapSeed}
	state, stage := run(delivery.RunSpec{Key: delivery.CompareKey(ask), Kind: delivery.RunCompare, Limit: m.w.Server.EvalTime, Compare: &ask})
	if stage.State != delivery.CheckSuccess {
		stage.Text = prefixed("comparing: ", stage.Text)
		return nil, stage
	}
	var result delivery.CompareResult
	if err := json.Unmarshal(state.Result, &result); err != nil {
		return nil, Stage{State: delivery.CheckError, Text: "the comparison cannot be read: " + err.Error()}
	}
	return &result, stage
}

// verdict lets one gate answer.
func (m *maker) verdict(r *progress, j judgement, mdl delivery.Model) delivery.Verdict {
	in := gate.Input{Model: r.Model, Classes: mdl.Classes.Names(), Size: m.w.Evidence.Bundles[r.Bundle].Size,
		Candidate: gate.Measured{Key: j.score.Key, Scores: j.score.Scores}}
	if j.base != nil {
		in.Baseline = &gate.Measured{Key: j.base.Key, Scores: j.base.Scores}
		in.Compare = j.compare
		in.CompareKey = delivery.CompareKey(delivery.CompareRun{Candidate: j.score.Input, Baseline: j.base.Input, Resamples: resamples, Seed: bootstrapSeed})
	}
	in.SameBundle = r.Baseline != nil && r.Baseline.Bundle == r.Bundle
	return gate.Judge(j.label, j.gate, in)
}
