package plan

// This file trains a model with each of its seeds, picks the best on the validation split, and finds its score
// thresholds, which need no training.

import (
	"cmp"
	"encoding/json"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// trained fills the aob/train stage and returns the bundle. A spec keeps the bundle that it got first: new data under
// the same dataset name starts no training.
func (m *maker) trained(r *progress) (delivery.Digest, bool) {
	bundle, stage := m.chosen(r)
	if stage.State == delivery.CheckSuccess && len(r.model.Thresholds) > 0 {
		var resolved Stage
		bundle, resolved = m.resolved(r, bundle)
		if resolved.State != delivery.CheckSuccess {
			stage = resolved
		} else {
			stage.Fact = several(stage.Fact, resolved.Fact)
		}
	}
	r.stage(delivery.ContextTrain, stage.State, stage.Fact)
	return bundle, stage.State == delivery.CheckSuccess
}

// chosen returns a spec's bundle: of its only seed, or of the best seed.
func (m *maker) chosen(r *progress) (delivery.Digest, Stage) {
	digests := r.model.SeedDigests()
	for i, seed := range r.model.Train.Seeds {
		r.Seeds = append(r.Seeds, m.seed(r, seed, digests[i]))
	}
	if t, ok := m.w.Evidence.BySpec[r.Spec]; ok {
		for i, s := range t.Training.Seeds {
			m.hasScores(s.Bundle)
			if score, ok := m.signedScores(s.Score); ok && i < len(r.Seeds) && r.Seeds[i].Seed == s.Seed {
				r.Seeds[i].Score = &score
			}
		}
		return t.Bundle, m.bundleStage(t)
	}
	if len(r.Seeds) == 1 {
		// Its training is not signed for this spec yet; the seed's spec may have no thresholds.
		return "", m.adopt(r, 0)
	}
	slowest := Stage{State: delivery.CheckSuccess}
	trained := 0
	for i := range r.Seeds {
		s := &r.Seeds[i]
		if s.State == delivery.CheckSuccess {
			trained++
			score, stage := m.scoreOnOwn(r, s.Bundle, r.data.Valid)
			if stage.State == delivery.CheckSuccess {
				s.Score = &score
				continue
			}
			s.State, s.Fact = stage.State, stage.Fact.In(code.OfValidation, values{})
		}
		if slowest.State == delivery.CheckSuccess || severity(s.State) > severity(slowest.State) {
			slowest = Stage{State: s.State, Fact: s.Fact.In(code.OfSeed, values{Seed: s.Seed})}
		}
	}
	if slowest.State != delivery.CheckSuccess {
		slowest.Fact = several(fact(code.SeedsTrained, values{Count: trained, Total: len(r.Seeds)}), slowest.Fact)
		return "", slowest
	}
	return "", m.adopt(r, best(r.Seeds))
}

// bundleStage describes the bundle that a spec got.
func (m *maker) bundleStage(t Trained) Stage {
	if _, there := m.w.Evidence.Bundles[t.Bundle]; !there {
		return failed(fact(code.TrainedBundleGone, values{Bundle: t.Bundle}))
	}
	done := fact(code.Trained, values{Bundle: t.Bundle, Bytes: t.Training.Result.Size})
	if seeds := t.Training.Seeds; len(seeds) > 1 {
		done.Code, done.Seed, done.Total = code.TrainedBest, t.Training.Input.Seed, len(seeds)
		done.Low, done.High = seeds[0].MAP, seeds[0].MAP
		for _, s := range seeds {
			done.Low, done.High = min(done.Low, s.MAP), max(done.High, s.MAP)
			if s.Bundle == t.Bundle {
				done.Value = s.MAP
			}
		}
	}
	return Stage{State: delivery.CheckSuccess, Fact: done}
}

// adopt signs that a spec has the bundle of one of its seeds.
func (m *maker) adopt(r *progress, i int) Stage {
	s := r.Seeds[i]
	if s.State != delivery.CheckSuccess {
		return Stage{State: s.State, Fact: s.Fact}
	}
	t, ok := m.w.Evidence.ByRun[s.Key]
	if !ok {
		return pending(fact(code.TrainedSigning, values{}))
	}
	signed := t.Training
	signed.Spec, signed.Seeds = r.Spec, nil
	signed.Input.Spec = r.model.SeedSpec(s.Seed) // the training may have been started for another spec
	signing := fact(code.TrainedSame, values{Bundle: t.Bundle})
	if len(r.Seeds) > 1 {
		for _, o := range r.Seeds {
			signed.Seeds = append(signed.Seeds, delivery.SeedScore{Seed: o.Seed, Bundle: o.Bundle, Score: o.Score.Key,
				MAP: o.Score.Scores.Values["mAP"]})
		}
		signing = fact(code.SeedBestSigning, values{Seed: s.Seed, Total: len(r.Seeds)})
	}
	m.step(Sign{Bundle: t.Bundle, Type: delivery.TrainingType, Predicate: signed, Of: r.Model})
	return pending(signing)
}

// seed trains a model with one seed. digest is of the seed's spec.
func (m *maker) seed(r *progress, seed int64, digest delivery.Digest) SeedReport {
	s := SeedReport{Seed: seed}
	is := func(state delivery.CheckState, f delivery.Fact) SeedReport {
		s.State, s.Fact = state, f
		return s
	}
	if t, ok := m.w.Evidence.BySpec[digest]; ok {
		s.Bundle, s.Key = t.Bundle, t.Training.Run
		stage := m.bundleStage(t)
		return is(stage.State, stage.Fact)
	}
	input, why := m.trainInput(r, seed)
	if !why.IsZero() {
		return is(delivery.CheckFailure, why)
	}
	s.Key, input = m.begunTraining(input)
	if t, ok := m.w.Evidence.ByRun[s.Key]; ok {
		// Another spec had the same training, as of a dataset with another name.
		m.signTraining(r, s.Key, digest, input, r.data, t.Training.Result)
		return is(delivery.CheckPending, fact(code.TrainedSame, values{Bundle: t.Bundle}))
	}
	s.Run = s.Key
	result, stage := resultOf[delivery.TrainResult](r.run, delivery.RunSpec{Key: s.Key, Kind: delivery.RunTrain,
		Limit: input.Limit, Train: &input}, code.TrainResultUnreadable)
	if stage.State != delivery.CheckSuccess {
		return is(stage.State, stage.Fact)
	}
	data, ok := m.dataOf(input, r.data)
	if !ok {
		return is(delivery.CheckPending, fact(code.TrainDataReading, values{}))
	}
	m.signTraining(r, s.Key, digest, input, data, result)
	return is(delivery.CheckPending, fact(code.TrainedSigning, values{}))
}

func (m *maker) signTraining(r *progress, key, spec delivery.Digest, input delivery.TrainRun, data delivery.DataResult,
	result delivery.TrainResult) {
	m.step(Sign{Bundle: result.Bundle, Type: delivery.TrainingType, Of: r.Model,
		Predicate: delivery.Training{Run: key, Spec: spec, Input: input, Data: data, Result: result}})
}

// resolved finds a bundle's thresholds on the validation split, and returns the bundle with them. It infers nothing if
// the detections are stored.
func (m *maker) resolved(r *progress, trained delivery.Digest) (delivery.Digest, Stage) {
	if r.data.Valid.Count == 0 {
		return "", failed(fact(code.ThresholdsNoValidation, values{}))
	}
	valid, stage := m.evalRun(trained, ownSet(r.model, r.data.Valid))
	if stage.State != delivery.CheckSuccess {
		return "", stage
	}
	input := delivery.ThresholdRun{Valid: valid, Ask: r.model.Thresholds}
	key := delivery.ThresholdKey(input)
	if t, ok := m.w.Evidence.Resolved[key]; ok {
		if _, there := m.w.Evidence.Bundles[t.Result.Bundle]; !there {
			return "", failed(fact(code.ThresholdsBundleGone, values{Bundle: t.Result.Bundle}))
		}
		r.Points = t.Result.Points
		found := values{Scores: map[string]float64{}}
		for class, p := range t.Result.Points {
			found.Scores[class] = p.Score
		}
		return t.Result.Bundle, Stage{State: delivery.CheckSuccess, Fact: fact(code.Thresholds, found)}
	}
	result, stage := resultOf[delivery.ThresholdResult](r.run, delivery.RunSpec{Key: key, Kind: delivery.RunThresholds,
		Limit: m.w.Server.EvalTime, Thresholds: &input}, code.ThresholdsUnreadable)
	if stage.State != delivery.CheckSuccess {
		stage.Fact = stage.Fact.In(code.OfThresholds, values{})
		return "", stage
	}
	m.step(Sign{Bundle: result.Bundle, Type: delivery.ThresholdsType, Of: r.Model,
		Predicate: delivery.Resolved{Key: key, Input: input, Result: result}})
	return "", pending(fact(code.ThresholdsSigning, values{}))
}

// begunTraining returns a training that has already begun for the same work, and its key. An upgrade may change how
// keys are computed, but it must not end or repeat trainings: a training keeps its key while a proposal has its spec.
func (m *maker) begunTraining(input delivery.TrainRun) (delivery.Digest, delivery.TrainRun) {
	key := delivery.TrainKey(input)
	if _, begun := m.stateOf(key); begun {
		return key, input
	}
	m.isLive()
	first, best := delivery.Digest(""), 0
	for k, r := range m.w.Runs {
		if r.Spec.Train == nil {
			continue
		}
		if rank := m.serves(r, key, input); rank > best || rank == best && best > 0 && k < first {
			first, best = k, rank
		}
	}
	if best == 0 {
		return key, input
	}
	return first, *m.w.Runs[first].Spec.Train
}

// serves ranks how well a run that has begun serves a request; 0 if it does not.
func (m *maker) serves(r delivery.RunState, key delivery.Digest, input delivery.TrainRun) int {
	begun := *r.Spec.Train
	begun.Accelerator = cmp.Or(begun.Accelerator, input.Accelerator) // older servers did not record it
	if begun.Seed != input.Seed {
		return 0
	}
	lives := r.Phase == delivery.RunRunning || r.Phase == delivery.RunDied || r.Phase == delivery.RunDone
	if begun.Training == input.Training && lives {
		other := begun
		if other.Trainer = input.Trainer; delivery.TrainKey(other) == key {
			return 3
		}
	}
	if begun.Spec.Digest() != input.Spec.Digest() {
		return 0
	}
	switch data := m.w.Runs[begun.Data]; {
	case begun.Training == input.Training && (lives || r.Phase == delivery.RunStopped):
		return 2
	case lives && data.Phase == delivery.RunDone: // its data is known, so it can be signed
		return 1
	}
	return 0
}

// dataOf returns the data that a training reads. It is older data if the training began before an upgrade.
func (m *maker) dataOf(input delivery.TrainRun, now delivery.DataResult) (delivery.DataResult, bool) {
	if input.Training == now.Training {
		return now, true
	}
	state, _ := m.stateOf(input.Data)
	var then delivery.DataResult
	if state.Result == nil {
		m.readResult(input.Data)
		return now, false
	}
	return then, json.Unmarshal(state.Result, &then) == nil && then.Training == input.Training
}
