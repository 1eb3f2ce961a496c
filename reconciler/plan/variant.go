package plan

// This file makes the variants of a trained model and judges them. FP32 alone decides whether there is a release: a
// variant that cannot be made or does not pass a gate is not in the release file. What fleets get is in shipped.go.

import (
	"math"
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A ModelVariant is what is reported about a variant of a model.
type ModelVariant struct {
	Variant  string
	State    delivery.CheckState
	Fact     delivery.Fact
	Made     *delivery.MadeVariant // once it has been made
	Bundle   delivery.Digest       // of the variant with its thresholds, once they are known
	Verdicts []delivery.Verdict
	Passed   bool // every gate

	judgements []judgement
	ofFleets   []judgement // by the gates of fleets that are to run the variant and run another model now
}

// makeVariants finds the variants of a trained model, or plans the runs that make them.
func (m *maker) makeVariants(r *progress) {
	for _, name := range r.model.Made() {
		v := ModelVariant{Variant: name}
		made, stage := m.makeVariant(r, name)
		v.State, v.Fact = stage.State, stage.Fact
		if v.State == delivery.CheckSuccess {
			v.Made = &made
		}
		r.Variants = append(r.Variants, v)
	}
}

// makeVariant finds a variant of a trained model, or plans the run that makes it. A bundle keeps the variant that it
// got first, whatever the trainer is by now.
func (m *maker) makeVariant(r *progress, name string) (made delivery.MadeVariant, stage Stage) {
	trained, ok := m.w.Evidence.Training(r.Bundle)
	if !ok {
		return made, pending(fact(code.TrainedSigning, values{}))
	}
	for _, v := range m.w.Evidence.Variants[trained.Bundle] {
		if v.Input.Variant != name {
			continue
		}
		if _, there := m.w.Evidence.Bundles[v.Result.Bundle]; !there {
			return made, failed(fact(code.VariantGone, values{Bundle: v.Result.Bundle}))
		}
		return v, Stage{State: delivery.CheckSuccess}
	}
	train := trained.Training.Input
	now, why := m.w.Server.TrainInput(r.model, train.Seed, r.dataKey, r.data)
	if !why.IsZero() {
		return made, failed(why.In(code.VariantFailed, values{}))
	}
	train.Spec, train.Trainer, train.Environment = now.Spec, now.Trainer, now.Environment
	train.Machine, train.Limit = now.Machine, now.Limit
	if delivery.PaidModule(train.Machine) { // it takes minutes, and nobody has agreed to another instance
		train.Machine = delivery.TrainLocal
	}
	if train.Training == now.Training { // the data run of that time may be gone
		train.Data = now.Data
	}
	input := delivery.VariantRun{Variant: name, Bundle: trained.Bundle,
		Model: m.w.Evidence.Bundles[trained.Bundle].Model, Checkpoint: trained.Training.Result.Checkpoint, Train: train}
	key := delivery.VariantKey(input)
	result, stage := resultOf[delivery.VariantResult](r.run, delivery.RunSpec{Key: key, Kind: delivery.RunVariant,
		Limit: train.Limit, Variant: &input}, code.VariantUnreadable)
	switch stage.State {
	case delivery.CheckSuccess:
	case delivery.CheckPending:
		return made, stage
	default:
		stage.Fact = stage.Fact.In(code.VariantFailed, values{})
		return made, stage
	}
	m.step(Sign{Bundle: result.Bundle, Type: delivery.VariantType, Of: r.Model,
		Predicate: delivery.MadeVariant{Key: key, Input: input, Result: result}})
	return made, pending(fact(code.VariantSigning, values{}))
}

// judgeVariants judges the variants by the gates that FP32 has passed, and fills the stage of each. It reports whether
// every variant is settled. Variants wait for FP32, so that no eval set is used for a model that is not released.
func (m *maker) judgeVariants(r *progress, gates []judged, passed bool) (settled bool) {
	settled = true
	for i := range r.Variants {
		v := &r.Variants[i]
		switch {
		case v.Made == nil:
		case !passed:
			v.State, v.Fact = delivery.CheckPending, fact(code.VariantAwaits, values{})
		default:
			stage := m.judgeVariant(r, v, gates)
			v.State, v.Fact = stage.State, stage.Fact
		}
		settled = settled && v.State != delivery.CheckPending
		r.stage(delivery.ContextVariant+v.Variant, v.State, v.Fact)
	}
	return settled
}

// judgeVariant judges a variant as FP32 was judged: with its own thresholds, by the same gates on the same images.
func (m *maker) judgeVariant(r *progress, v *ModelVariant, gates []judged) Stage {
	of := *r
	of.ModelReport = ModelReport{Model: r.Model, Spec: r.Spec, Baseline: r.Baseline, Bundle: v.Made.Result.Bundle}
	of.fp32 = r.Bundle
	if len(r.model.Thresholds) > 0 {
		var stage Stage
		if of.Bundle, stage = m.resolved(&of, of.Bundle); stage.State != delivery.CheckSuccess {
			return stage
		}
	}
	v.Bundle = of.Bundle
	if q, is := m.quarantined(r.names, v.Bundle); is {
		return Stage{State: delivery.CheckSuccess, Fact: q.why.In(code.VariantForbidden, values{})}
	}
	waits := Stage{State: delivery.CheckSuccess}
	for _, j := range gates {
		jt := judgement{judged: j, label: j.label(gates), fp32: r.Bundle}
		if stage := m.measureFor(&of, &jt); stage.State != delivery.CheckSuccess {
			if severity(stage.State) > severity(waits.State) {
				waits = stage
			}
			continue
		}
		if jt.verdict, jt.awaits = m.verdict(&of, jt); len(jt.awaits) > 0 {
			waits = pending(several(jt.awaits...))
			continue
		}
		if _, signed := m.w.Evidence.Verdicts[jt.verdict.Key]; !signed {
			m.step(Sign{Bundle: of.Bundle, Type: delivery.VerdictType, Predicate: jt.verdict, Of: jt.label})
		}
		v.judgements, v.Verdicts = append(v.judgements, jt), append(v.Verdicts, jt.verdict)
	}
	if waits.State != delivery.CheckSuccess {
		return waits
	}
	for _, j := range v.judgements {
		if !j.settled() { // an unsure verdict cannot be accepted for a variant
			return Stage{State: delivery.CheckSuccess, Fact: ReasonOf(j.verdict).In(code.VariantFails,
				values{Gate: j.label, Outcome: j.verdict.Outcome})}
		}
	}
	if !slices.ContainsFunc(v.Verdicts, anyPassed) {
		return Stage{State: delivery.CheckSuccess, Fact: fact(code.VariantEmpty, values{})}
	}
	v.Passed = true
	said := fact(code.VariantSlow, values{Value: math.Round(100*v.Made.Result.Times.Speedup()) / 100})
	if v.Made.Result.Times.Faster() {
		said.Code = code.VariantPasses
	}
	return Stage{State: delivery.CheckSuccess, Fact: said}
}

// judgeVariantFleets judges the released variants by the gates of the fleets that are to run them. It reports whether
// they pass, and where not, what the release waits for. A fleet whose variant is not released keeps what it runs.
func (m *maker) judgeVariantFleets(r *progress, fleets []fleetGates) (pass bool, state delivery.CheckState,
	why delivery.Fact) {
	before := len(r.Stages)
	pass = true
	for _, b := range fleets {
		for i := range r.Variants {
			v := &r.Variants[i]
			if !v.Passed || v.Variant != b.fleet.Ships() {
				continue
			}
			answers, passed := m.judgeFleet(r, b, v.Bundle, r.Bundle)
			v.ofFleets, pass = append(v.ofFleets, answers...), pass && passed
		}
	}
	state, why = blockedBy(r.Stages[before:])
	return pass, state, why
}

// waitsForVariants returns what a release waits for whose gates have passed: the first variant that is not settled.
func (p *progress) waitsForVariants() (delivery.CheckState, delivery.Fact) {
	for _, v := range p.Variants {
		if v.State == delivery.CheckPending {
			return v.State, v.Fact.In(code.OfVariant, values{Names: []string{v.Variant}})
		}
	}
	return delivery.CheckPending, fact(code.StageAwaited, values{})
}

// TargetOfServer is the target of fleets for which the times of variants count: aob-detect has measured them on the
// server's processor, and fleets of this target run the same program on processors.
const TargetOfServer = "cloud"

// releasedVariants returns the variants for the release file.
func (m *maker) releasedVariants(p *progress) []delivery.ReleasedVariant {
	var list []delivery.ReleasedVariant
	for _, v := range p.Variants {
		if !v.Passed {
			continue
		}
		released := delivery.ReleasedVariant{Variant: v.Variant, Bundle: v.Bundle, Model: v.Made.Result.Model}
		faster := m.fasterOn(m.profilesOf(p.names), p.Bundle, v.Bundle)
		if t := v.Made.Result.Times; t.Faster() {
			faster[TargetOfServer] = round(t.Speedup())
		}
		if len(faster) > 0 {
			released.Faster = faster
		}
		list = append(list, released)
	}
	return list
}

// judgedVariants returns the variants for the release statement.
func (p *progress) judgedVariants() []delivery.JudgedVariant {
	var list []delivery.JudgedVariant
	for _, v := range p.Variants {
		if v.Passed {
			list = append(list, delivery.JudgedVariant{Variant: v.Variant, Bundle: v.Bundle,
				Gates: delivery.Each(slices.Concat(v.judgements, v.ofFleets), judgement.signed)})
		}
	}
	return list
}
