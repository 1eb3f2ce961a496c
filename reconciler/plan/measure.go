package plan

// This file finds the scores of a bundle on an eval set, and comparisons of two bundles there. Signed ones are found by
// key, and missing ones become runs.

import (
	"strconv"
	"strings"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
)

func contentOf(data delivery.DataResult, e delivery.EvalSet) (delivery.EvalSetContent, bool) {
	return delivery.Find(data.EvalSets, func(c delivery.EvalSetContent) bool { return c.EvalSet == e })
}

// An evalSet is an eval set, and how its labels are read.
type evalSet struct {
	delivery.EvalSetContent
	classes   delivery.Classes // which of its labels count, and as which class
	resamples int
	measures  []string // metrics besides the usual ones
}

// gateSet returns a gate's eval set, with labels as the gate reads them.
func gateSet(mdl delivery.Model, g delivery.Gate, content delivery.EvalSetContent) evalSet {
	classes := g.LabelMap(mdl.Classes)
	n := gate.Resamples(g.Checks, len(classes))
	if n == gate.Resamples(nil, len(classes)) {
		n = 0 // the default, so that the score has the same key as without a gate
	}
	return evalSet{content, classes, n, gate.Measures(g.Checks)}
}

// ownSet returns a split of the model's own dataset, with labels as the model reads them.
func ownSet(mdl delivery.Model, content delivery.EvalSetContent) evalSet {
	return evalSet{content, mdl.Classes, 0, nil}
}

// evalRun returns the spec of an eval run.
func (m *maker) evalRun(bundle delivery.Digest, on evalSet) (delivery.EvalRun, Stage) {
	info, ok := m.w.Evidence.Bundles[bundle]
	if !ok {
		return delivery.EvalRun{}, failed(fact(code.BundleGone, values{Bundle: bundle}))
	}
	return m.w.Server.evalInput(bundle, info, on, m.w.Evidence.trainingImages(bundle)),
		Stage{State: delivery.CheckSuccess}
}

// scoreOnOwn finds a bundle's scores on a split of the model's own dataset, or plans the run for them.
func (m *maker) scoreOnOwn(r *progress, bundle delivery.Digest, content delivery.EvalSetContent) (delivery.Scores,
	Stage) {
	return m.score(bundle, ownSet(r.model, content), r.run)
}

// hasScores requests a bundle's scores, and reports whether they were read. Scores are large, so only requested ones
// are in the world.
func (m *maker) hasScores(bundle delivery.Digest) bool {
	m.effect(func(m *maker) { m.scored[bundle] = true })
	return noted(m, func(m *maker) bool { return m.w.Evidence.Scored == nil || m.w.Evidence.Scored[bundle] })
}

// score finds a bundle's scores on an eval set, or plans the run for them.
func (m *maker) score(bundle delivery.Digest, on evalSet, run runner) (delivery.Scores, Stage) {
	input, stage := m.evalRun(bundle, on)
	if stage.State != delivery.CheckSuccess {
		return delivery.Scores{}, stage
	}
	if !m.hasScores(bundle) {
		return delivery.Scores{}, pending(fact(code.RunReading, values{}))
	}
	key := delivery.ScoreKey(input)
	if s, ok := m.signedScores(key); ok {
		s.Input.Bundle = bundle // another bundle with the same ONNX file may have been scored
		return s, Stage{State: delivery.CheckSuccess}
	}
	scores, stage := resultOf[delivery.ScoreSet](run, delivery.RunSpec{Key: key, Kind: delivery.RunEval,
		Limit: m.w.Server.EvalTime, Eval: &input}, code.ScoresUnreadable)
	if stage.State != delivery.CheckSuccess {
		return delivery.Scores{}, stage
	}
	s := delivery.Scores{Key: key, Input: input, Content: on.EvalSetContent, Scores: scores}
	m.step(Sign{Bundle: bundle, Type: delivery.ScoresType, Predicate: s, Of: on.EvalSet.String()})
	return s, pending(fact(code.ScoredSigning, values{}))
}

// compare finds the paired bootstrap of two scores, with as many resamples as the gate's checks need, or plans its run.
func (m *maker) compare(candidate, baseline delivery.Scores, g delivery.Gate, run runner) (*delivery.CompareResult,
	delivery.Digest, Stage) {
	input := CompareInput(candidate, baseline, g)
	key := delivery.CompareKey(input)
	result, stage := resultOf[delivery.CompareResult](run, delivery.RunSpec{Key: key, Kind: delivery.RunCompare,
		Limit: m.w.Server.EvalTime, Compare: &input}, code.CompareUnreadable)
	if stage.State != delivery.CheckSuccess {
		stage.Fact = stage.Fact.In(code.OfComparison, values{})
		return nil, key, stage
	}
	return &result, key, stage
}

// bootstrapSeed is the seed of every comparison. It is part of their keys.
const bootstrapSeed = 1

// anchors compares a candidate with the fixed versions that a gate's checks name, and a variant with FP32.
func (m *maker) anchors(j judgement, score func(delivery.Digest) (delivery.Scores, Stage), run runner) (
	map[string]gate.Anchor, Stage) {
	anchors := map[string]gate.Anchor{}
	for _, c := range j.gate.Checks {
		name, version, ok := strings.Cut(c.Against, "@")
		bundle, why := j.fp32, delivery.Fact{}
		if _, done := anchors[c.Against]; done || !ok && (c.Against != delivery.FP32 || bundle == "") {
			continue
		}
		if ok {
			bundle, why = m.version(name, version)
		}
		a := gate.Anchor{Missing: why, SameBundle: bundle == j.score.Input.Bundle}
		if why.IsZero() && !a.SameBundle {
			base, stage := score(bundle)
			if stage.State == delivery.CheckSuccess {
				a.Measured = gate.Measured{Key: base.Key, Scores: base.Scores}
				a.Compare, a.CompareKey, stage = m.compare(j.score, base, j.gate, run)
			}
			if stage.State != delivery.CheckSuccess {
				stage.Fact = stage.Fact.In(code.OfModel, values{Model: c.Against})
				return nil, stage
			}
		}
		anchors[c.Against] = a
	}
	return anchors, Stage{State: delivery.CheckSuccess}
}

// version finds the bundle of a version that main accepted, or says why it cannot be compared with.
func (m *maker) version(model, version string) (bundle delivery.Digest, why delivery.Fact) {
	a, ok := m.w.Evidence.acceptance(m.w.names(model), func(a delivery.Acceptance) bool {
		return strconv.Itoa(a.Version) == version
	})
	if !ok {
		return "", fact(code.VersionUnknown, values{Text: model + "@" + version})
	}
	if _, there := m.w.Evidence.Bundles[a.Bundle]; !there {
		return "", fact(code.VersionBundleGone, values{Bundle: a.Bundle, Model: model, Version: a.Version})
	}
	return a.Bundle, delivery.Fact{}
}

// storedScore finds a bundle's signed scores on a gate's eval set by the current protocol, with labels as the gate
// reads them. After a correction of labels there may be several; the highest key is taken, so that the choice is always
// the same.
func (m *maker) storedScore(mdl delivery.Model, bundle delivery.Digest, g delivery.Gate) (delivery.Scores, bool) {
	var found delivery.Scores
	if !m.hasScores(bundle) {
		return found, false
	}
	for _, s := range m.scoresOf(bundle) {
		if !m.w.Evidence.ScoresOf(bundle, s.Input) || s.Input.EvalSet != g.Evaluate || s.Key <= found.Key {
			continue
		}
		input, _ := m.evalRun(bundle, gateSet(mdl, g, s.Content))
		input.Detect = s.Input.Detect // any version of the detector counts
		input.Resamples = max(input.Resamples, s.Input.Resamples)
		if delivery.ScoreKey(input) == s.Key {
			found = s
		}
	}
	found.Input.Bundle = bundle
	return found, found.Key != ""
}
