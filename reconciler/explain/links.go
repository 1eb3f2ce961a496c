package explain

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// This file makes single links.

func (c *chain) content(model string, digest delivery.Digest, s delivery.Spec) {
	t := s.Train
	seeds := delivery.Each(t.Seeds, func(seed int64) string { return fmt.Sprint(seed) })
	c.add(link("content", string(digest),
		fact(code.ChainContent, values{Model: model, Dataset: s.Dataset, Names: s.Classes.Names()}),
		fact(code.ChainTrain, values{Text: t.With, Counts: map[string]int{"pixels": t.Resolution, "epochs": t.Epochs},
			Value: t.Optimizer.LR, Names: seeds})))
}

func (c *chain) data(dataset string, d delivery.DataResult) {
	l := link("data", string(d.Content), fact(code.ChainData, values{Dataset: dataset, Counts: d.Images,
		Count: d.LeftOut})).from(d.Training)
	for _, f := range d.Findings {
		for _, line := range f.Lines() {
			l.Details = append(l.Details, fact(code.ChainFinding, values{Stage: string(f.Level), Error: f.Code,
				Text: line}))
		}
	}
	for _, e := range d.EvalSets {
		l = l.from(e.Digest())
	}
	c.add(l)
}

// run adds the training of a bundle.
func (c *chain) run(t delivery.Training) {
	v := values{Text: t.Input.Spec.Train.With, Seed: t.Input.Seed, By: t.Input.Machine, Attempt: t.Result.Attempts}
	r := c.World.Runs[t.Run]
	if !r.Started.IsZero() {
		v.Lasts = delivery.Duration(max(0, r.Ended.Sub(r.Started)))
	}
	l := link("run", string(t.Run), fact(code.ChainTrained, v)).from(t.Spec, t.Input.Training, t.Input.Trainer,
		t.Input.Parent, t.Data.TrainingImages)
	if l.At = r.Started; r.Spec.Note != "" {
		l.Facts = append(l.Facts, fact(code.ChainAskedBy, values{Text: r.Spec.Note}))
	}
	for _, s := range t.Seeds {
		which := code.ChainSeed
		if s.Bundle == t.Result.Bundle {
			which = code.ChainSeedBest
		}
		l.Details = append(l.Details, fact(which, values{Seed: s.Seed, Value: s.MAP, Bundle: s.Bundle}))
		l = l.from(s.Score)
	}
	c.add(l)
}

// training adds the running trainings of a spec that has no bundle yet.
func (c *chain) training(spec delivery.Spec) {
	for _, key := range slices.Sorted(maps.Keys(c.World.Runs)) {
		r := c.World.Runs[key]
		if r.Spec.Train == nil || !sameTraining(r.Spec.Train.Spec, spec) {
			continue
		}
		v := values{Stage: r.Phase.String(), Attempt: r.Tries()}
		if r.Phase == delivery.RunRunning {
			v.Count, v.Total = r.Status.Epoch, r.Status.Epochs
		}
		t := r.Spec.Train
		l := link("run", string(key), fact(code.ChainTraining, v)).from(t.Spec.Digest(), t.Training, t.Trainer,
			t.Parent)
		if l.At = r.Started; r.Error != "" {
			l.Details = facts(fact(code.Plain, values{Text: r.Error}))
		}
		c.add(l)
	}
}

// sameTraining reports whether two specs have the same training. Thresholds and variants do not count, because they
// come after it.
func sameTraining(a, b delivery.Spec) bool {
	a.Thresholds, a.Variants = nil, nil
	b.Thresholds, b.Variants = nil, nil
	return a.Digest() == b.Digest()
}

// thresholds adds how a bundle's score thresholds were found.
func (c *chain) thresholds(r delivery.Resolved) {
	valid := r.Input.Valid
	l := link("thresholds", string(r.Key), fact(code.ChainThresholds, values{EvalSet: valid.EvalSet.String(),
		Bundle: valid.Bundle})).from(valid.Bundle, delivery.ScoreKey(valid))
	for _, class := range slices.Sorted(maps.Keys(r.Result.Points)) {
		p := r.Result.Points[class]
		v := values{Class: class, Text: p.Note, Scores: map[string]float64{"score": p.Score, "precision": p.Precision,
			"recall": p.Recall}}
		if t, ok := r.Input.Ask.For(class); ok {
			v.Command = t.String()
		}
		l.Details = append(l.Details, fact(code.ChainThreshold, v))
	}
	c.add(l)
}

func (c *chain) bundle(d delivery.Digest) {
	l := link("bundle", string(d), fact(code.ChainBundleGone, values{}))
	if b, ok := c.World.Evidence.Bundles[d]; ok {
		l.Facts = facts(fact(code.ChainBundle, values{Bytes: b.Size}))
	}
	r, resolved := c.resolved(d)
	if resolved {
		c.thresholds(r)
	}
	if t, ok := c.trained(d); ok {
		l = l.from(t.Run, t.Result.Model)
	} else {
		l = l.from(r.Key, r.Input.Valid.Model)
	}
	c.add(l)
	c.variants(cmp.Or(r.Input.Valid.Bundle, d))
}

// variants adds the variants that were made of a trained bundle.
func (c *chain) variants(trained delivery.Digest) {
	for _, v := range c.World.Evidence.Variants[trained] {
		c.add(link("variant", string(v.Key), fact(code.ChainVariant, values{Names: []string{v.Input.Variant},
			Bundle: v.Result.Bundle, Bytes: v.Result.Size, Value: math.Round(100*v.Result.Times.Speedup()) / 100,
			Text: v.Result.Times.Processor})).from(v.Input.Bundle, v.Input.Model, v.Input.Train.Trainer))
	}
}

// releasedVariant adds the variant of a release that a device runs, and the verdicts on it. FP32 is the release itself.
func (c *chain) releasedVariant(a delivery.Acceptance, variant string, bundle delivery.Digest) {
	if variant == "" {
		return
	}
	c.add(link("bundle", string(bundle), fact(code.ChainVariantReleased, values{Variant: variant, Model: a.Model,
		Version: a.Version})).from(a.Bundle))
	s, _ := c.statement(released(a.Model, a))
	v, _ := delivery.Find(s.Variants, func(v delivery.JudgedVariant) bool { return v.Bundle == bundle })
	verdict := func(g delivery.GateJudged) delivery.Verdict { return g.Verdict }
	c.judged(delivery.Each(v.Gates, verdict), nil)
}

// judged adds what was measured, and the verdicts of gates.
func (c *chain) judged(verdicts []delivery.Verdict, measured []delivery.Measured) {
	measured = delivery.OneInterval(measured, verdicts)
	for _, v := range verdicts {
		i := slices.IndexFunc(measured, func(m delivery.Measured) bool { return m.Gate == v.Gate })
		switch {
		case i >= 0:
			c.measured(v, measured[i])
		case len(v.Inputs) > 0:
			c.scores(v.Inputs[0])
		}
		l := link("verdict", string(v.Key), fact(code.GateSays, values{Gate: v.Gate, Outcome: v.Outcome,
			Facts: facts(plan.ReasonOf(v))})).from(v.GateSpec).from(v.Inputs...)
		l.Verdict = &v
		c.add(l)
	}
}

// measured adds the figures that a release file has for one gate.
func (c *chain) measured(v delivery.Verdict, m delivery.Measured) {
	var key delivery.Digest
	if len(v.Inputs) > 0 {
		key = v.Inputs[0] // the candidate's score key
	}
	on := values{Images: m.Images}
	s, ok := c.World.Evidence.Scores[key]
	if ok {
		on.EvalSet = s.Input.EvalSet.String()
	}
	l := link("scores", string(key), fact(code.ChainScores, on)).from(s.Input.Bundle, m.EvalSet, s.Scores.Detections,
		s.Input.Protocol)
	for _, name := range slices.SortedFunc(maps.Keys(m.Metrics), delivery.CompareFigures) {
		l.Details = append(l.Details, figure(m, name))
	}
	c.add(l)
}

// figure is one metric on a gate's eval set, with its bounds and the baseline's value if there are any.
func figure(m delivery.Measured, name string) delivery.Fact {
	f := m.Metrics[name]
	v := values{Metric: name, Value: f.Value}
	if f.Low != nil && f.High != nil {
		v.Low, v.High, v.Confidence = *f.Low, *f.High, delivery.FigureConfidence
	}
	if b := m.Baseline; b != nil {
		if base, ok := b.Metrics[name]; ok {
			v.Baseline, v.FromVersion = base, b.Version
		}
	}
	return fact(code.ChainFigure, v)
}

// scores tells what was measured where no release file says it yet.
func (c *chain) scores(key delivery.Digest) {
	s, ok := c.World.Evidence.Scores[key]
	if !ok {
		return
	}
	l := link("scores", string(s.Key), fact(code.ChainScores, values{EvalSet: s.Input.EvalSet.String(),
		Images: s.Scores.Images})).from(s.Input.Bundle, s.Content.Digest(), s.Scores.Detections, s.Input.Protocol)
	for _, name := range delivery.MetricNames(func(m delivery.Metric) bool { return m.Headline }) {
		if value, ok := s.Scores.Values[name]; ok {
			l.Details = append(l.Details, fact(code.ChainFigure, values{Metric: name, Value: value}))
		}
	}
	c.add(l)
}

func (c *chain) release(s delivery.ReleaseStatement) {
	l := link("release", at(s.Model, s.Version)).from(s.Spec, s.Bundle, s.Baseline)
	how := code.ChainSigned
	for _, g := range s.Gates {
		l = l.from(g.Spec)
		if a := g.Accept; a != nil {
			how = code.ChainSignedAccepted
			l.Details = append(l.Details, fact(code.ChainGateAccepted, values{Gate: g.Name, By: a.By, At: a.At,
				Text: a.Because}))
		}
	}
	l.Facts = facts(fact(how, values{}), fact(code.ChainBaseline, values{Bundle: s.Baseline}))
	if s.RenamedFrom != "" {
		l.Facts = append(l.Facts, fact(code.ChainWas, values{FromModel: s.RenamedFrom}))
	}
	if s.TargetCommit != "" {
		l.Facts = append(l.Facts, fact(code.ChainGatesAsOf, values{Branch: c.branch(), Commit: s.TargetCommit}))
	}
	c.add(l)
}

// acceptedBy adds whether and where main accepted a release.
func (c *chain) acceptedBy(model string, r delivery.Release) {
	a, ok := c.acceptance(model, r)
	if !ok {
		c.add(link("acceptance", "", fact(code.ChainNotAccepted, values{Branch: c.branch()})))
		return
	}
	v := values{Branch: c.branch(), Version: a.Version}
	l := link("acceptance", a.Commit).from(a.Spec, a.Bundle)
	versions := c.versions(model)
	if i := slices.IndexFunc(versions, func(v Version) bool { return v.Commit == a.Commit }); i >= 0 {
		v.Facts, l.At = facts(c.authored(versions[i])), versions[i].At
	}
	l.Facts = facts(fact(code.ChainAccepted, v))
	c.add(l)
	c.withdrawn(model, r.Bundle)
}

// withdrawn adds aborts and quarantine entries of a bundle.
func (c *chain) withdrawn(model string, bundle delivery.Digest) {
	for _, abort := range c.World.Evidence.Aborts {
		if abort.Model == model && abort.Bundle == bundle {
			l := link("abort", abort.Fleet, fact(code.ChainFellBack, values{Fleet: abort.Fleet, Text: abort.Why}))
			l.At = abort.At
			c.add(l.from(bundle))
		}
	}
	// A bundle is quarantined by its digest, while any entry in any model's file is not lifted.
	var lifted, active []Link
	all := c.World.Main.Quarantine
	if all == nil {
		all = plan.QuarantineOf(c.World.Main.Intent)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		file := ""
		if name != model {
			file = "models/" + name + ".quarantine.yaml"
		}
		for _, q := range all[name] {
			add := func(list *[]Link, which delivery.Code) {
				why := fact(which, values{Text: q.Why, Command: q.Lifted, File: file})
				*list = append(*list, link("quarantine", string(bundle), why))
			}
			switch {
			case q.Digest != bundle:
			case q.Lifted != "":
				add(&lifted, code.ChainLifted)
			case len(active) == 0:
				add(&active, code.ChainMustNotRun)
			default:
				add(&active, code.ChainAlsoMustNotRun)
			}
		}
	}
	for i := range lifted {
		if len(active) > 0 {
			lifted[i].Facts = append(lifted[i].Facts, fact(code.ChainOtherEntry, values{}))
		}
	}
	c.Links = slices.Concat(c.Links, lifted, active)
}
