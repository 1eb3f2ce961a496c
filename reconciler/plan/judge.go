package plan

// This file lets gates judge a trained model: scores, comparisons, verdicts.

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
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
	key     delivery.Digest // of the comparison
	anchors map[string]gate.Anchor
	verdict delivery.Verdict
	accept  *delivery.Accept // of an unsure verdict
}

// settled reports whether the gate is in nobody's way. acceptOf has seen to it
// that an accept is an owner's, and of an unsure verdict.
func (j judgement) settled() bool {
	return verdictState(j.verdict.Outcome) == delivery.CheckSuccess || j.accept != nil
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
			if jt.compare, jt.key, stage = m.compare(score, base, j.gate, run); stage.State != delivery.CheckSuccess {
				wait(stage)
				continue
			}
		}
		if jt.anchors, stage = m.anchors(jt, func(bundle delivery.Digest) (delivery.Scores, Stage) { return m.score(mdl, bundle, content, run) }, run); stage.State != delivery.CheckSuccess {
			wait(stage)
			continue
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
	if data.Valid.Count > 0 { // so that its detections are there when thresholds change
		score, stage := m.score(mdl, r.Bundle, data.Valid, run)
		if stage.State == delivery.CheckSuccess {
			r.Valid = &score
		} else {
			stage.Text = prefixed("validation: ", stage.Text)
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
		if c := list[i].compare; c != nil && len(c.Pictures) > 0 {
			link := Link{Gate: label, Path: "/pictures/" + list[i].key.Hex() + "/"}
			if m.w.Server.URL != "" {
				link.URL = m.w.Server.URL + link.Path
			}
			r.Links = append(r.Links, link)
		}
		r.Measured, r.Verdicts = append(r.Measured, measured(list[i], r.Baseline)), append(r.Verdicts, v)
		if _, signed := m.w.Evidence.Verdicts[v.Key]; !signed {
			m.step(Sign{Bundle: r.Bundle, Type: delivery.VerdictType, Predicate: v, What: "verdict of gate " + label})
		}
		state, text := verdictState(v.Outcome), v.Reason
		if v.Outcome == delivery.Unsure {
			list[i].accept = m.acceptOf(r.asked, j, v)
			doubt := Doubt{Gate: label, Owners: m.owners(j), Code: AcceptCode(v), Reason: v.Reason, Accept: list[i].accept}
			if doubt.Accept == nil {
				doubt.Refused = m.refused(r.asked.Accepts, doubt.Owners, v)
			}
			r.Doubts = append(r.Doubts, doubt)
			text = doubt.String()
			if list[i].settled() {
				state = delivery.CheckSuccess
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

// evalRun says how a bundle is scored on an eval set for a model that it is, or
// is compared with.
func (m *maker) evalRun(mdl delivery.Model, bundle delivery.Digest, content delivery.EvalSetContent) (delivery.EvalRun, Stage) {
	info, ok := m.w.Evidence.Bundles[bundle]
	if !ok {
		return delivery.EvalRun{}, Stage{State: delivery.CheckFailure, Text: fmt.Sprintf("bundle %s is gone from the registry; restore it", bundle.Short())}
	}
	without := m.w.Evidence.seen(bundle)
	if content.Without != "" {
		without = append(without, content.Without)
		slices.Sort(without)
	}
	return delivery.EvalRun{Bundle: bundle, Model: info.Model, Signature: info.Signature, EvalSet: content.EvalSet, Classes: mdl.Classes.Renamed(mdl.Was),
		Images: content.Images, Truths: content.Truths, Protocol: m.w.Server.Protocol,
		Detect: delivery.DetectKey(info.Model, info.Signature, content.Images, m.w.Server.Numerics, "cpu"),
		Was:    wasOf(mdl, info), Thresholds: info.Thresholds, Seen: without}, Stage{State: delivery.CheckSuccess}
}

// wasOf tells which classes a bundle knows by their former names alone.
func wasOf(mdl delivery.Model, b Bundle) map[string]string {
	var was map[string]string
	for name, old := range mdl.Was {
		if slices.Contains(b.Classes, old) && !slices.Contains(b.Classes, name) {
			if was == nil {
				was = map[string]string{}
			}
			was[name] = old
		}
	}
	return was
}

// score finds what a bundle scored on an eval set, or plans the run for it.
func (m *maker) score(mdl delivery.Model, bundle delivery.Digest, content delivery.EvalSetContent, run runner) (delivery.Scores, Stage) {
	ask, stage := m.evalRun(mdl, bundle, content)
	if stage.State != delivery.CheckSuccess {
		return delivery.Scores{}, stage
	}
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

// compare finds the paired bootstrap of two scores, with as many resamples as a
// gate's checks need, or plans the run for it.
func (m *maker) compare(candidate, baseline delivery.Scores, g delivery.Gate, run runner) (*delivery.CompareResult, delivery.Digest, Stage) {
	ask := delivery.CompareRun{Candidate: candidate.Input, Baseline: baseline.Input, Seed: bootstrapSeed,
		Resamples: gate.Resamples(g.Checks, len(candidate.Scores.Classes))}
	key := delivery.CompareKey(ask)
	state, stage := run(delivery.RunSpec{Key: key, Kind: delivery.RunCompare, Limit: m.w.Server.EvalTime, Compare: &ask})
	if stage.State != delivery.CheckSuccess {
		stage.Text = prefixed("comparing: ", stage.Text)
		return nil, key, stage
	}
	var result delivery.CompareResult
	if err := json.Unmarshal(state.Result, &result); err != nil {
		return nil, key, Stage{State: delivery.CheckError, Text: "the comparison cannot be read: " + err.Error()}
	}
	return &result, key, stage
}

// bootstrapSeed is that of every comparison. Another makes other keys.
const bootstrapSeed = 1

// anchors compares a candidate with the fixed versions that a gate's checks name.
func (m *maker) anchors(j judgement, score func(delivery.Digest) (delivery.Scores, Stage), run runner) (map[string]gate.Anchor, Stage) {
	anchors := map[string]gate.Anchor{}
	for _, c := range j.gate.Checks {
		name, version, ok := strings.Cut(c.Against, "@")
		if _, done := anchors[c.Against]; !ok || done {
			continue
		}
		bundle, why := m.version(name, version)
		a := gate.Anchor{Missing: why, SameBundle: bundle == j.score.Input.Bundle}
		if why == "" && !a.SameBundle {
			base, stage := score(bundle)
			if stage.State == delivery.CheckSuccess {
				a.Measured = gate.Measured{Key: base.Key, Scores: base.Scores}
				a.Compare, a.CompareKey, stage = m.compare(j.score, base, j.gate, run)
			}
			if stage.State != delivery.CheckSuccess {
				stage.Text = prefixed(c.Against+": ", stage.Text)
				return nil, stage
			}
		}
		anchors[c.Against] = a
	}
	return anchors, Stage{State: delivery.CheckSuccess}
}

// version finds the bundle of a version that main accepted, or says why there is
// none to compare with.
func (m *maker) version(model, version string) (bundle delivery.Digest, why string) {
	for _, name := range m.w.names(model) {
		for _, a := range m.w.Evidence.Accepted[name] {
			if strconv.Itoa(a.Version) != version {
				continue
			}
			if _, there := m.w.Evidence.Bundles[a.Bundle]; !there {
				return "", fmt.Sprintf("bundle %s of %s@%s is gone from the registry; restore it", a.Bundle.Short(), model, version)
			}
			return a.Bundle, ""
		}
	}
	return "", fmt.Sprintf("%s@%s is no version that main accepted; name one that it did in the gate", model, version)
}

// A look is one baseline on one eval set.
type look struct{ baseline, evalSet delivery.Digest }

// lookOf says which model a bundle is, from 1, that an eval set judges against a
// baseline. It keeps the number that it got first.
func (m *maker) lookOf(bundle, baseline, evalSet delivery.Digest) int {
	at := look{baseline, evalSet}
	if m.looks == nil {
		m.looks = map[look]map[delivery.Digest]int{}
		for _, v := range m.w.Evidence.Verdicts {
			at := look{v.Baseline, v.EvalSet}
			if v.Look == 0 || v.Bundle == "" {
				continue
			}
			if m.looks[at] == nil {
				m.looks[at] = map[delivery.Digest]int{}
			}
			if n, ok := m.looks[at][v.Bundle]; !ok || v.Look < n {
				m.looks[at][v.Bundle] = v.Look
			}
		}
	}
	n, ok := m.looks[at][bundle]
	if !ok {
		for _, taken := range m.looks[at] {
			n = max(n, taken)
		}
		n++
		if m.looks[at] == nil {
			m.looks[at] = map[delivery.Digest]int{}
		}
		m.looks[at][bundle] = n
	}
	return n
}

// verdict lets one gate answer.
func (m *maker) verdict(r *progress, j judgement, mdl delivery.Model) delivery.Verdict {
	in := m.gateInput(mdl, r.Bundle, j.score)
	if r.Baseline != nil {
		in.BaselineBundle, in.BaselineClasses = r.Baseline.Bundle, m.w.Evidence.Bundles[r.Baseline.Bundle].Classes
		in.SameBundle = r.Baseline.Bundle == r.Bundle
	}
	if j.base != nil {
		in.Baseline = &gate.Measured{Key: j.base.Key, Scores: j.base.Scores}
		in.Compare, in.CompareKey = j.compare, j.key
	}
	if !in.SameBundle {
		in.Look = m.lookOf(r.Bundle, in.BaselineBundle, in.EvalSet)
	}
	in.Anchors = j.anchors
	return gate.Judge(j.label, j.gate, in)
}

// gateInput is what a gate judges a bundle by, without a baseline.
func (m *maker) gateInput(mdl delivery.Model, bundle delivery.Digest, score delivery.Scores) gate.Input {
	return gate.Input{Model: mdl.Name, Classes: mdl.Classes.Names(), Size: m.w.Evidence.Bundles[bundle].Size, Bundle: bundle,
		EvalSet: score.Content.Digest(), Was: mdl.Was, Candidate: gate.Measured{Key: score.Key, Scores: score.Scores}}
}
