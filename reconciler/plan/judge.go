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

// judge takes the aob/eval stage and every aob/gate/NAME stage. It reports whether every gate is settled.
func (m *maker) judge(r *progress, gates []judged) ([]judgement, bool) {
	list, done := m.measure(r, gates)
	for _, j := range gates {
		label := j.label(gates)
		i := slices.IndexFunc(list, func(jt judgement) bool { return jt.label == label })
		if i < 0 {
			r.stage(delivery.ContextGate+label, delivery.CheckPending, fact(code.EvalAwaited, values{}))
			continue
		}
		m.answer(r, &list[i])
		done = done && list[i].settled()
	}
	return list, done
}

// measure takes the aob/eval stage: what the candidate, its baseline and the anchors score on every gate's eval set. It
// returns the gates that can answer, and reports whether all is measured.
func (m *maker) measure(r *progress, gates []judged) (list []judgement, all bool) {
	eval := Stage{State: delivery.CheckSuccess}
	wait := func(s Stage) {
		if severity(s.State) > severity(eval.State) {
			eval = s
		}
	}
	for _, j := range gates {
		jt := judgement{judged: j, label: j.label(gates)}
		stage := m.measureFor(r, &jt)
		if wait(stage); stage.State == delivery.CheckSuccess {
			jt.verdict = m.verdict(r, jt)
			list = append(list, jt)
		}
	}
	own := func(content delivery.EvalSetContent) *delivery.Scores {
		score, stage := m.scoreOnOwn(r, r.Bundle, content)
		if stage.State == delivery.CheckSuccess {
			return &score
		}
		if content.EvalSet == r.data.Valid.EvalSet {
			stage.Fact = stage.Fact.In(code.OfValidation, values{})
		}
		wait(stage)
		return nil
	}
	if test, ok := contentOf(r.data, delivery.EvalSet{Dataset: r.model.Dataset, Split: "test"}); ok && r.fleet == "" {
		r.Own = own(test)
	}
	if r.data.Valid.Count > 0 && r.fleet == "" { // so that its detections are there when thresholds change
		r.Valid = own(r.data.Valid)
	}
	if all = eval.State == delivery.CheckSuccess && len(list) == len(gates); all {
		first := list[0]
		var baseline *float64
		if first.base != nil {
			v := mapOver(*first.base, first.gate.Classes)
			baseline = &v
		}
		eval.Fact = evaluated(mapOver(first.score, first.gate.Classes), first.score.Scores.Images, baseline)
	}
	r.stage(delivery.ContextEval, eval.State, eval.Fact)
	return list, all
}

// measureFor measures what one gate judges by.
func (m *maker) measureFor(r *progress, j *judgement) (stage Stage) {
	content, ok := contentOf(r.data, j.gate.Evaluate)
	if !ok {
		return pending(fact(code.EvalSetUnread, values{Gate: j.label}))
	}
	j.set = gateSet(r.model, j.gate, content)
	if j.score, stage = m.score(r.Bundle, j.set, r.run); stage.State != delivery.CheckSuccess {
		return stage
	}
	if r.Baseline != nil && r.Baseline.Bundle != r.Bundle { // of the same bytes nothing can have got worse
		base, stage := m.score(r.Baseline.Bundle, j.set, r.run)
		if stage.State != delivery.CheckSuccess {
			stage.Fact = stage.Fact.In(code.OfBaseline, values{})
			return stage
		}
		j.base = &base
		if j.compare, j.key, stage = m.compare(j.score, base, j.gate, r.run); stage.State != delivery.CheckSuccess {
			return stage
		}
	}
	j.anchors, stage = m.anchors(*j, func(bundle delivery.Digest) (delivery.Scores, Stage) {
		return m.score(bundle, j.set, r.run)
	}, r.run)
	return stage
}

// answer takes the stage of a gate that has measured: its verdict is signed, and an owner may settle it where it is
// unsure.
func (m *maker) answer(r *progress, j *judgement) {
	v := j.verdict
	if j.compare != nil && len(j.compare.Pictures) > 0 {
		link := Link{Gate: j.label, Path: "/pictures/" + j.key.Hex() + "/"}
		if m.w.Server.URL != "" {
			link.URL = m.w.Server.URL + link.Path
		}
		r.Links = append(r.Links, link)
	}
	r.Measured, r.Verdicts = append(r.Measured, measured(*j, r.Baseline)), append(r.Verdicts, v)
	if _, signed := m.w.Evidence.Verdicts[v.Key]; !signed {
		m.step(Sign{Bundle: r.Bundle, Type: delivery.VerdictType, Predicate: v, Of: j.label})
	}
	state, why := verdictState(v.Outcome), ReasonOf(v)
	if v.Outcome == delivery.Unsure {
		doubt := m.doubtOf(r, j.judged, v)
		doubt.Gate = j.label
		j.accept = doubt.Accept
		r.Doubts = append(r.Doubts, doubt)
		if why = doubt.Fact(); j.settled() {
			state = delivery.CheckSuccess
		}
	}
	r.stage(delivery.ContextGate+j.label, state, why)
}

// doubtOf says who may settle an unsure verdict, how, and whether somebody has.
func (m *maker) doubtOf(r *progress, j judged, v delivery.Verdict) Doubt {
	d := Doubt{Owners: m.owners(j), Code: AcceptCode(v), Reason: ReasonOf(v)}
	d.Accept, d.Signed = m.acceptOf(r, j, v)
	d.Ask = m.toAccept(d, r.proposal)
	if d.Accept != nil {
		return d
	}
	d.Refused = m.refused(r.proposal.Accepts, d.Owners, v)
	for _, o := range d.Owners {
		if why := m.w.Nobodies[o]; why != "" {
			d.Refused = append(d.Refused, fact(code.OwnerInvalid, values{By: o, Text: why}))
		}
	}
	return d
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

// A lookKey is the weights of one baseline on one eval set.
type lookKey struct{ baseline, evalSet delivery.Digest }

// lookNumber says which model a bundle is, from 1, that an eval set judges against a
// baseline. It keeps the number that it got first. What an eval set said of models
// that main does not have is known to whoever makes the next one: they count, too.
func (m *maker) lookNumber(bundle, baseline, evalSet delivery.Digest) int {
	same := func(bundle delivery.Digest) delivery.Digest { // with other thresholds
		if w := m.weights(bundle); w != "" {
			return w
		}
		return bundle
	}
	at := lookKey{same(baseline), evalSet}
	if m.looks == nil {
		m.looks = map[lookKey]map[delivery.Digest]int{}
		m.probes = map[delivery.Digest]map[delivery.Digest]bool{}
		for _, v := range m.w.Evidence.Verdicts {
			at := lookKey{same(v.Baseline), v.EvalSet}
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
func (m *maker) verdict(r *progress, j judgement) delivery.Verdict {
	in := m.gateInput(r.model, j.gate, r.Bundle, j.score)
	if r.Baseline != nil {
		in.BaselineBundle = r.Baseline.Bundle
		in.SameBundle = r.Baseline.Bundle == r.Bundle
	}
	if j.base != nil {
		in.Baseline = &gate.Measured{Key: j.base.Key, Scores: j.base.Scores}
		in.Compare, in.CompareKey = j.compare, j.key
	}
	if !in.SameBundle {
		in.Look = m.lookNumber(r.Bundle, in.BaselineBundle, in.EvalSet)
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
