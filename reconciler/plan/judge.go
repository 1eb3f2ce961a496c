package plan

// This file judges a trained model by its gates: it measures, computes verdicts, finds accepts, and counts how many
// models an eval set has judged.

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
)

// A judgement is a gate's verdict and its inputs.
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
	fp32    delivery.Digest  // of a variant: the bundle of the model that it is made of
	awaits  []delivery.Fact  // benches, without which nothing is judged
}

// settled reports whether the gate blocks nothing: it passed, does not apply, or its unsure verdict was accepted.
func (j judgement) settled() bool {
	return len(j.awaits) == 0 && (verdictState(j.verdict.Outcome) == delivery.CheckSuccess || j.accept != nil)
}

// judge fills the aob/eval stage and every aob/gate/NAME stage. It reports whether every gate is settled.
func (m *maker) judge(r *progress, gates []judged) ([]judgement, bool) {
	list, done := m.measure(r, gates)
	for _, j := range gates {
		label := j.label(gates)
		i := slices.IndexFunc(list, func(jt judgement) bool { return jt.label == label })
		if i < 0 {
			r.stage(delivery.ContextGate+label, delivery.CheckPending, fact(code.EvalAwaited, values{}))
			continue
		}
		m.reportVerdict(r, &list[i])
		done = done && list[i].settled()
	}
	return list, done
}

// measure fills the aob/eval stage: the scores of the candidate, its baseline and the anchors on every gate's eval set.
// It returns the gates that have all their scores, and reports whether everything is measured.
func (m *maker) measure(r *progress, gates []judged) (list []judgement, all bool) {
	eval := Stage{State: delivery.CheckSuccess}
	wait := func(s Stage) {
		if severity(s.State) > severity(eval.State) {
			eval = s
		}
	}
	for _, j := range gates {
		jt := judgement{judged: j, label: j.label(gates), fp32: r.fp32}
		stage := m.measureFor(r, &jt)
		if wait(stage); stage.State == delivery.CheckSuccess {
			jt.verdict, jt.awaits = m.verdict(r, jt)
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
	if r.data.Valid.Count > 0 && r.fleet == "" { // so that its detections exist when thresholds change
		r.Valid = own(r.data.Valid)
	}
	if all = eval.State == delivery.CheckSuccess && len(list) == len(gates); all {
		first := list[0]
		for _, j := range list {
			if measuresMAP(j.score, j.gate) {
				first = j
				break
			}
		}
		var baseline *float64
		if first.base != nil {
			v := mapOver(*first.base, first.gate.Classes)
			baseline = &v
		}
		eval.Fact = evaluated(mapOver(first.score, first.gate.Classes), first.score.Scores.Images, baseline)
		if !measuresMAP(first.score, first.gate) {
			eval.Fact = fact(code.EvaluatedNoTruths, values{Images: first.score.Scores.Images})
		}
	}
	r.stage(delivery.ContextEval, eval.State, eval.Fact)
	return list, all
}

// measureFor finds the scores and comparisons that one gate needs, or plans the runs for them.
func (m *maker) measureFor(r *progress, j *judgement) (stage Stage) {
	content, ok := contentOf(r.data, j.gate.Evaluate)
	if !ok {
		return pending(fact(code.EvalSetUnread, values{Gate: j.label}))
	}
	j.set = gateSet(r.model, j.gate, content)
	if j.score, stage = m.score(r.Bundle, j.set, r.run); stage.State != delivery.CheckSuccess {
		return stage
	}
	if r.Baseline != nil && r.Baseline.Bundle != r.Bundle { // the same bundle is not compared with itself
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

// reportVerdict fills the stage of a gate that has its scores: it signs the verdict, and looks for an accept if it is
// unsure.
func (m *maker) reportVerdict(r *progress, j *judgement) {
	v := j.verdict
	if len(j.awaits) > 0 {
		r.stage(delivery.ContextGate+j.label, delivery.CheckPending, several(j.awaits...))
		return
	}
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
		unsure := m.unsureVerdict(r, j.judged, v)
		unsure.Gate = j.label
		j.accept = unsure.Accept
		r.Unsure = append(r.Unsure, unsure)
		if why = unsure.Fact(); j.settled() {
			state = delivery.CheckSuccess
		}
	}
	r.stage(delivery.ContextGate+j.label, state, why)
}

// unsureVerdict says who may accept an unsure verdict, how, and whether somebody has.
func (m *maker) unsureVerdict(r *progress, j judged, v delivery.Verdict) UnsureVerdict {
	d := UnsureVerdict{Owners: m.owners(j), Code: AcceptCode(v), Reason: ReasonOf(v)}
	d.Accept, d.Signed = m.acceptOf(r, j, v)
	d.HowTo = m.howToAccept(d, r.proposal)
	if d.Accept != nil {
		return d
	}
	d.Refused = m.refused(r.proposal.Accepts, d.Owners, v)
	for _, o := range d.Owners {
		if why := m.w.InvalidOwners[o]; why != "" {
			d.Refused = append(d.Refused, fact(code.OwnerInvalid, values{By: o, Text: why}))
		}
	}
	return d
}

// signed returns what a release statement says of a judgement.
func (j judgement) signed() delivery.GateJudged {
	return delivery.GateJudged{Name: j.label, Spec: j.gate.Digest(), Verdict: j.verdict, Accept: j.accept}
}

// anyPassed reports whether at least one check of a verdict passed. Checks that are unsure, ignored or not applicable
// are no evidence.
func anyPassed(v delivery.Verdict) bool {
	return slices.ContainsFunc(v.Checks, func(c delivery.CheckVerdict) bool { return c.Outcome == delivery.Pass })
}

// verdictState maps an outcome to the state of a check. A gate that does not apply blocks nothing; promote makes sure
// that at least one gate passed.
func verdictState(o delivery.Outcome) delivery.CheckState {
	switch o {
	case delivery.Pass, delivery.NotApplicable:
		return delivery.CheckSuccess
	case delivery.Unsure:
		return delivery.CheckPending
	}
	return delivery.CheckFailure
}

// measuresMAP reports whether an eval set has objects of a gate's classes that count.
func measuresMAP(s delivery.Scores, g delivery.Gate) bool {
	return !math.IsNaN(s.Scores.Table.Figure(delivery.MetricMAP, g.Classes).Value)
}

// mapOver returns a model's mAP over some classes; 0 where none of them has a ground truth that counts.
func mapOver(s delivery.Scores, classes []string) float64 {
	if v := s.Scores.Table.Figure(delivery.MetricMAP, classes).Value; !math.IsNaN(v) {
		return v
	}
	return 0
}

// evaluated says a bundle's mAP, and the baseline's where there is one.
func evaluated(mAP float64, images int, baseline *float64) delivery.Fact {
	if baseline == nil {
		return fact(code.Evaluated, values{Value: mAP, Images: images})
	}
	return fact(code.EvaluatedBoth, values{Value: mAP, Images: images, Baseline: *baseline})
}

// A lookKey names a baseline by its weights, and an eval set.
type lookKey struct{ baseline, evalSet delivery.Digest }

// lookNumber returns how many models an eval set has judged against a baseline, this one included. A bundle keeps its
// first number. Models that main does not have count too: their authors know the results and can use them for the next
// model.
func (m *maker) lookNumber(bundle, baseline, evalSet delivery.Digest) int {
	// Bundles that differ in thresholds only count as one, and so do the variants of a release.
	same := func(bundle delivery.Digest) delivery.Digest {
		bundle = m.fp32Of(bundle)
		if w := m.weights(bundle); w != "" {
			return w
		}
		return bundle
	}
	at := lookKey{same(baseline), evalSet}
	x, models := m.w.Evidence.lookup(), m.w.Main.Intent.Models.ReadNames()
	if x.looks == nil || x.version != m.w.Evidence.Version || !x.looksOver.Same(models) {
		x.version, x.looksOver = m.w.Evidence.Version, models
		x.looks = map[lookKey]map[delivery.Digest]int{}
		x.probes = map[delivery.Digest]map[delivery.Digest]bool{}
		variants := m.w.Evidence.variantBundles()
		for _, v := range m.w.Evidence.Verdicts {
			at := lookKey{same(v.Baseline), v.EvalSet}
			if v.Look == 0 || v.Bundle == "" || variants[v.Bundle] { // a variant has the look of its model
				continue
			}
			if _, onMain := models.Get(v.Model); !onMain && v.Baseline == "" {
				if x.probes[v.EvalSet] == nil {
					x.probes[v.EvalSet] = map[delivery.Digest]bool{}
				}
				x.probes[v.EvalSet][v.Bundle] = true
			}
			if x.looks[at] == nil {
				x.looks[at] = map[delivery.Digest]int{}
			}
			if n, ok := x.looks[at][v.Bundle]; !ok || v.Look < n {
				x.looks[at][v.Bundle] = v.Look
			}
		}
	}
	taken, own := m.looks[at]
	if !own {
		taken = x.looks[at]
	}
	n, ok := taken[bundle]
	if _, signed := x.looks[at][bundle]; !signed {
		m.isLive() // the numbers go on from those of other pull requests, which may have the same bundle
	}
	if !ok {
		for _, other := range taken {
			n = max(n, other)
		}
		if baseline != "" {
			n = max(n, len(x.probes[evalSet]))
		}
		n++
		if !own { // the index stays as the evidence is
			if taken = maps.Clone(taken); taken == nil {
				taken = map[delivery.Digest]int{}
			}
			if m.looks == nil {
				m.looks = map[lookKey]map[delivery.Digest]int{}
			}
			m.looks[at] = taken
		}
		taken[bundle] = n
	}
	return n
}

// gateInput returns what a gate judges of a scored bundle, without a baseline. Its benches are those of the signed
// evidence; with ask, bench devices are asked for those that are missing.
func (m *maker) gateInput(mdl delivery.Model, g delivery.Gate, score delivery.Scores, ask bool) gate.Input {
	bundle := score.Input.Bundle
	in := GateInput(mdl, g, m.w.Evidence.Bundles[bundle], score)
	if t, ok := m.w.Evidence.Training(bundle); ok {
		in.Licences = t.Training.Input.Licences
	}
	m.benches(&in, g, ask)
	return in
}

// verdict judges a model by one gate. awaits are the benches that are missing.
func (m *maker) verdict(r *progress, j judgement) (v delivery.Verdict, awaits []delivery.Fact) {
	in := m.gateInput(r.model, j.gate, j.score, true)
	if r.Baseline != nil {
		in.BaselineBundle = r.Baseline.Bundle
		in.SameBundle = r.Baseline.Bundle == r.Bundle
	}
	if j.base != nil {
		in.Baseline = &gate.Measured{Key: j.base.Key, Scores: j.base.Scores}
		in.Compare, in.CompareKey = j.compare, j.key
	}
	if !in.SameBundle && (r.fp32 == "" || r.fp32 != in.BaselineBundle) { // a variant is no further look
		in.Look = m.lookNumber(cmp.Or(r.fp32, r.Bundle), in.BaselineBundle, in.EvalSet)
	}
	in.Anchors = j.anchors
	return gate.Judge(j.label, j.gate, in), gate.Awaited(j.gate, in)
}
