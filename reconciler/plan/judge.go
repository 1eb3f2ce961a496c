package plan

// This file lets gates judge a trained model: verdicts, what settles them, and how
// often an eval set has been looked at.

import (
	"math"
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
)

// judgement is one gate's answer with what it read.
type judgement struct {
	judged
	label   string
	set     evalSet
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
func (m *maker) judge(r *progress, mdl delivery.Model, gates []judged, data delivery.DataResult, run runner) (
	[]judgement, bool) {
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
			wait(pending(fact(code.EvalSetUnread, values{Gate: jt.label})))
			continue
		}
		jt.set = gateSet(mdl, j.gate, content)
		score, stage := m.score(r.Bundle, jt.set, run)
		wait(stage)
		if stage.State != delivery.CheckSuccess {
			continue
		}
		jt.score = score
		if baseline != nil {
			base, stage := m.score(baseline.Bundle, jt.set, run)
			stage.Fact = stage.Fact.In(code.OfBaseline, values{})
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
		if jt.anchors, stage = m.anchors(jt, func(bundle delivery.Digest) (delivery.Scores, Stage) {
			return m.score(bundle, jt.set, run)
		}, run); stage.State != delivery.CheckSuccess {
			wait(stage)
			continue
		}
		jt.verdict = m.verdict(r, jt, mdl)
		list = append(list, jt)
	}
	if own, ok := contentOf(data, delivery.EvalSet{Dataset: mdl.Dataset, Split: "test"}); ok && r.fleet == "" {
		score, stage := m.score(r.Bundle, ownSet(mdl, own), run)
		if stage.State == delivery.CheckSuccess {
			r.Own = &score
		} else {
			wait(stage)
		}
	}
	if data.Valid.Count > 0 && r.fleet == "" { // so that its detections are there when thresholds change
		score, stage := m.score(r.Bundle, ownSet(mdl, data.Valid), run)
		if stage.State == delivery.CheckSuccess {
			r.Valid = &score
		} else {
			stage.Fact = stage.Fact.In(code.OfValidation, values{})
			wait(stage)
		}
	}
	if eval.State == delivery.CheckSuccess && len(list) == len(gates) {
		first := list[0]
		var baseline *float64
		if first.base != nil {
			v := mapOver(*first.base, first.gate.Classes)
			baseline = &v
		}
		eval.Fact = evaluated(mapOver(first.score, first.gate.Classes), first.score.Scores.Images, baseline)
	}
	r.stage(delivery.ContextEval, eval.State, eval.Fact)
	judgedAll := eval.State == delivery.CheckSuccess && len(list) == len(gates)
	for _, j := range gates {
		label := j.label(gates)
		i := slices.IndexFunc(list, func(jt judgement) bool { return jt.label == label })
		if i < 0 {
			r.stage(delivery.ContextGate+label, delivery.CheckPending, fact(code.EvalAwaited, values{}))
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
			m.step(Sign{Bundle: r.Bundle, Type: delivery.VerdictType, Predicate: v, Of: label})
		}
		state, why := verdictState(v.Outcome), ReasonOf(v)
		if v.Outcome == delivery.Unsure {
			accept, signed := m.acceptOf(r, j, v)
			list[i].accept = accept
			doubt := Doubt{Gate: label, Owners: m.owners(j), Code: AcceptCode(v), Reason: why, Accept: accept,
				Signed: signed}
			doubt.Ask = m.toAccept(doubt, r.asked)
			if doubt.Accept == nil {
				doubt.Refused = m.refused(r.asked.Accepts, doubt.Owners, v)
			}
			for _, o := range doubt.Owners {
				if why := m.w.Nobodies[o]; accept == nil && why != "" {
					doubt.Refused = append(doubt.Refused, fact(code.OwnerInvalid, values{By: o, Text: why}))
				}
			}
			r.Doubts = append(r.Doubts, doubt)
			why = doubt.Fact()
			if list[i].settled() {
				state = delivery.CheckSuccess
			}
		}
		r.stage(delivery.ContextGate+label, state, why)
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

// mapOver is a model's mAP over some classes; 0 where none of them has a truth that counts.
func mapOver(s delivery.Scores, classes []string) float64 {
	if v := s.Scores.Table.Figure(delivery.MetricMAP, classes).Value; !math.IsNaN(v) {
		return v
	}
	return 0
}

// evaluated says what a bundle's mAP is, and the release's where there is one.
func evaluated(mAP float64, images int, baseline *float64) delivery.Fact {
	if baseline == nil {
		return fact(code.Evaluated, values{Value: mAP, Images: images})
	}
	return fact(code.EvaluatedBoth, values{Value: mAP, Images: images, Baseline: *baseline})
}

// A look is the weights of one baseline on one eval set.
type look struct{ baseline, evalSet delivery.Digest }

// lookOf says which model a bundle is, from 1, that an eval set judges against a
// baseline. It keeps the number that it got first. What an eval set said of models
// that main does not have is known to whoever makes the next one: they count, too.
func (m *maker) lookOf(bundle, baseline, evalSet delivery.Digest) int {
	same := func(bundle delivery.Digest) delivery.Digest { // with other thresholds
		if w := m.weights(bundle); w != "" {
			return w
		}
		return bundle
	}
	at := look{same(baseline), evalSet}
	if m.looks == nil {
		m.looks = map[look]map[delivery.Digest]int{}
		m.probes = map[delivery.Digest]map[delivery.Digest]bool{}
		for _, v := range m.w.Evidence.Verdicts {
			at := look{same(v.Baseline), v.EvalSet}
			if v.Look == 0 || v.Bundle == "" {
				continue
			}
			if _, onMain := m.w.Main.Intent.Models[v.Model]; !onMain && v.Baseline == "" {
				if m.probes[v.EvalSet] == nil {
					m.probes[v.EvalSet] = map[delivery.Digest]bool{}
				}
				m.probes[v.EvalSet][v.Bundle] = true
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
		if baseline != "" {
			n = max(n, len(m.probes[evalSet]))
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
	in := m.gateInput(mdl, j.gate, r.Bundle, j.score)
	if r.Baseline != nil {
		in.BaselineBundle = r.Baseline.Bundle
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
func (m *maker) gateInput(mdl delivery.Model, g delivery.Gate, bundle delivery.Digest,
	score delivery.Scores) gate.Input {
	return gate.Input{Model: mdl.Name, Classes: classesOf(mdl, g), Size: m.w.Evidence.Bundles[bundle].Size,
		Bundle: bundle, EvalSet: score.Content.Digest(),
		Candidate: gate.Measured{Key: score.Key, Scores: score.Scores}}
}
