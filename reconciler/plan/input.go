package plan

// This file has the inputs of runs and gates. They follow from a model, its gates, and the results of earlier runs.

import (
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
)

// DataInput returns the check of a model's dataset, and of the eval sets of gates.
func DataInput(mdl delivery.Model, gates []delivery.Gate) delivery.DataRun {
	input := delivery.DataRun{Dataset: mdl.Dataset, Classes: mdl.Classes, Scenes: mdl.Scenes}
	for _, g := range gates {
		input.EvalSets = append(input.EvalSets, g.Evaluate)
	}
	slices.SortFunc(input.EvalSets, func(a, b delivery.EvalSet) int { return strings.Compare(a.String(), b.String()) })
	input.EvalSets = slices.Compact(input.EvalSets)
	return input
}

// TrainInput returns the training of one seed, on the result of the data run with a key, or says why this server cannot
// do it. The parent of a training that starts from a release is left to the caller.
func (s Server) TrainInput(mdl delivery.Model, seed int64, dataKey delivery.Digest, data delivery.DataResult) (
	input delivery.TrainRun, why delivery.Fact) {
	train := mdl.Train
	trainer, ok := s.Trainers[train.With]
	if !ok {
		return input, fact(code.TrainerUnknown, values{Text: train.With})
	}
	if trainer.Unusable != "" {
		return input, fact(code.TrainerUnusable, values{Names: []string{train.With}, Text: trainer.Unusable})
	}
	input = delivery.TrainRun{Spec: mdl.SeedSpec(seed), Seed: seed, Data: dataKey, Training: data.Training,
		Trainer: trainer.Files, Environment: trainer.Runs, Accelerator: trainer.Accelerator,
		Machine: train.Machine.Terraform, Limit: train.Machine.Limit,
		Licences: []delivery.Licensed{{Part: "architecture " + train.Architecture,
			Licence: trainer.Licence(train.Architecture)}}}
	if train.Start() == delivery.StartWeights {
		weights, ok := s.Weights[train.From]
		if !ok {
			return input, fact(code.WeightsUnknown, values{Text: train.From})
		}
		input.Weights = &weights
		input.Licences = append(input.Licences, delivery.Licensed{Part: "weights " + train.From,
			Licence: weights.Licence})
	}
	return input, delivery.Fact{}
}

// OwnInput returns the evaluation of a bundle on a split of its model's own dataset. without has digests of lists of
// images that are not measured; see [delivery.EvalRun].
func (s Server) OwnInput(mdl delivery.Model, content delivery.EvalSetContent, bundle delivery.Digest, info Bundle,
	without []delivery.Digest) delivery.EvalRun {
	return s.evalInput(bundle, info, ownSet(mdl, content), without)
}

// EvalInput returns the evaluation of a bundle on a gate's eval set, as OwnInput does on its own dataset.
func (s Server) EvalInput(mdl delivery.Model, g delivery.Gate, content delivery.EvalSetContent,
	bundle delivery.Digest, info Bundle, without []delivery.Digest) delivery.EvalRun {
	return s.evalInput(bundle, info, gateSet(mdl, g, content), without)
}

func (s Server) evalInput(bundle delivery.Digest, info Bundle, on evalSet, without []delivery.Digest) delivery.EvalRun {
	if on.LeaveOut != "" {
		without = append(slices.Clone(without), on.LeaveOut)
		slices.Sort(without)
	}
	return delivery.EvalRun{Bundle: bundle, Model: info.Model, Signature: info.Signature, EvalSet: on.EvalSet,
		Classes: on.classes, Images: on.Images, Truths: on.Truths, Protocol: s.Protocol,
		Detect:   delivery.DetectKey(info.Model, info.Signature, on.Images, s.Numerics, s.Provider),
		Measures: on.measures, Resamples: on.resamples, Thresholds: info.Thresholds, TrainingImages: without}
}

// Again returns the evaluation of another bundle, as an earlier evaluation was done.
func (s Server) Again(was delivery.EvalRun, bundle delivery.Digest, info Bundle) delivery.EvalRun {
	was.Bundle, was.Model, was.Signature, was.Thresholds = bundle, info.Model, info.Signature, info.Thresholds
	was.Protocol = s.Protocol
	was.Detect = delivery.DetectKey(info.Model, info.Signature, was.Images, s.Numerics, s.Provider)
	return was
}

// CompareInput returns the comparison of two scores, with as many resamples as the gate's checks need.
func CompareInput(candidate, baseline delivery.Scores, g delivery.Gate) delivery.CompareRun {
	return delivery.CompareRun{Candidate: candidate.Input, Baseline: baseline.Input, Seed: bootstrapSeed,
		Resamples: gate.Resamples(g.Checks, len(candidate.Scores.Classes))}
}

// GateInput returns what a gate judges of a scored bundle, without a baseline.
func GateInput(mdl delivery.Model, g delivery.Gate, info Bundle, score delivery.Scores) gate.Input {
	return gate.Input{Model: mdl.Name, Classes: classesOf(mdl, g), Size: info.Size, Bundle: score.Input.Bundle,
		EvalSet: score.Content.Digest(), Candidate: gate.Measured{Key: score.Key, Scores: score.Scores}}
}
