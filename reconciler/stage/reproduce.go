package stage

// This file trains a release again, from its evidence.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/words"
)

// A Reproduction is a release that was trained again.
type Reproduction struct {
	Model   string          `json:"model"`
	Version int             `json:"version"`
	Bundle  delivery.Digest `json:"bundle"` // of the release
	Commit  string          `json:"commit"` // of main, at which the release was accepted
	Seed    int64           `json:"seed"`
	Run     delivery.Digest `json:"run"` // the run key; that of the release if Differences is empty

	Reproduced bool       `json:"reproduced"` // the verdict: all figures that count are within their bounds
	SameModel  bool       `json:"sameModel"`  // model.onnx has the same bytes
	Kept       bool       `json:"kept"`       // the folder of work had the training already
	Figures    []Compared `json:"figures"`
	// Differences lists what was not as it was for the release, and does not forbid a comparison.
	Differences []string `json:"differences"`
	NotMade     []string `json:"notMade,omitempty"` // variants of the release: FP32 alone is trained and compared

	Released Made `json:"released"`
	Again    Made `json:"again"`
}

// Made are the bytes that a training made.
type Made struct {
	Bundle delivery.Digest `json:"bundle"` // without thresholds
	Model  delivery.Digest `json:"onnx"`   // of model.onnx
}

// Reproduce trains the seed of a release again, measures it as the release was measured, and compares the figures. Its
// error says what of then cannot be had. fresh trains also if the folder has this training. The bundles of the other
// seeds are read from the source.
func (l *Local) Reproduce(ctx context.Context, rel Release, from artifact.Source, fresh bool) (r Reproduction,
	err error) {
	was := rel.Training
	r = Reproduction{Model: rel.Statement.Model, Version: rel.Statement.Version, Bundle: rel.Statement.Bundle,
		Commit: rel.Accepted.Commit, Seed: was.Input.Seed, Figures: []Compared{}, Differences: []string{},
		Released: Made{was.Result.Bundle, was.Result.Model}}
	mdl, err := modelOf(rel)
	if err != nil {
		return r, err
	}
	// What can be refused before the dataset is read.
	if _, err := l.again(rel, mdl, was.Input.Data, was.Data); err != nil {
		return r, err
	}
	key, data, err := l.check(ctx, dataRun(was, mdl))
	if err != nil {
		return r, err
	}
	if err := sameData(rel, mdl, data); err != nil {
		return r, err
	}
	input, err := l.again(rel, mdl, key, data)
	if err != nil {
		return r, err
	}
	r.Differences = append(r.Differences, l.differences(rel, input, data)...)
	for _, v := range rel.Statement.Variants {
		r.NotMade = append(r.NotMade, v.Variant)
	}
	r.Run = delivery.TrainKey(input)
	before, err := l.Runs.State(r.Run)
	if err != nil {
		return r, err
	}
	switch {
	case before.Phase == delivery.RunUnknown:
	case fresh:
		err = l.Runs.Remove(r.Run)
	default:
		r.Kept = before.Phase == delivery.RunDone
	}
	if err != nil {
		return r, err
	}
	trained, err := l.train(ctx, r.Model, input)
	if err != nil {
		return r, err
	}
	r.Again = Made{trained.Bundle, trained.Model}
	r.SameModel = trained.Model == was.Result.Model
	now, err := l.measure(ctx, rel, trained.Bundle)
	if err != nil {
		return r, err
	}
	seeds, err := l.seeds(ctx, rel, from)
	if err != nil {
		return r, err
	}
	r.Figures, err = compareAll(rel, seeds, now)
	r.Reproduced = err == nil && reproduced(r.Figures)
	return r, err
}

// reproduced says whether all figures that count are within their bounds. It never says so of none.
func reproduced(figures []Compared) bool {
	counts := func(c Compared) bool { return c.Counts }
	outside := func(c Compared) bool { return c.Counts && !c.Within }
	return slices.ContainsFunc(figures, counts) && !slices.ContainsFunc(figures, outside)
}

// modelOf returns the model of a release, with the one seed that was released.
func modelOf(rel Release) (delivery.Model, error) {
	spec := rel.Training.Input.Spec
	source, path, ok := strings.Cut(spec.Dataset, ":")
	if !ok {
		return delivery.Model{}, fmt.Errorf("the evidence names the dataset %q, want SOURCE:NAME", spec.Dataset)
	}
	m := delivery.Model{Name: rel.Statement.Model, Dataset: delivery.Dataset{Source: source, Path: path},
		Classes: spec.Classes, Train: spec.Train, Variants: spec.Variants}
	m.Train.Machine = delivery.Machine{Terraform: rel.Training.Input.Machine, Limit: rel.Training.Input.Limit}
	return m, nil
}

// dataRun returns the check of the dataset, with the eval sets of the gates of that time.
func dataRun(was delivery.Training, mdl delivery.Model) delivery.DataRun {
	var gates []delivery.Gate
	for _, c := range was.Data.EvalSets {
		gates = append(gates, delivery.Gate{Evaluate: c.EvalSet})
	}
	return plan.DataInput(mdl, gates)
}

// again returns the training of a release as this machine would do it, or says what it lacks.
func (l *Local) again(rel Release, mdl delivery.Model, key delivery.Digest, data delivery.DataResult) (
	delivery.TrainRun, error) {
	was := rel.Training.Input
	for gate, s := range rel.Gates {
		if s.Input.Protocol != l.Server.Protocol {
			return was, delivery.Blockedf("use the version of AOB that released it",
				"this version of AOB computes figures in another way than the one that measured the release for "+
					"gate %s", gate)
		}
	}
	input, why := l.Server.TrainInput(mdl, was.Seed, key, data)
	switch {
	case !why.IsZero():
		return input, delivery.Blockedf("aob trainer list shows the trainers; weights: in the server's configuration "+
			"names base weights", "the release cannot be trained here: %s", words.Text(why))
	case input.Trainer != was.Trainer:
		return input, delivery.Blockedf("name the folder of that time under trainers: in the configuration, or use "+
			"the version of AOB that trained it", "trainer %s has other files than the release was trained with: %s, "+
			"and then %s", was.Spec.Train.With, input.Trainer.Short(), was.Trainer.Short())
	case was.Weights != nil && (input.Weights == nil || input.Weights.SHA256 != was.Weights.SHA256):
		return input, delivery.Blockedf("name that file under weights: in the configuration",
			"the weights %s are not those that the release started from: their SHA-256 was %s", was.Spec.Train.From,
			was.Weights.SHA256.Hex())
	}
	input.Parent, input.Checkpoint, input.Licences = was.Parent, was.Checkpoint, was.Licences
	if was.Checkpoint != "" {
		folder, file := delivery.CheckpointName(was.Checkpoint)
		if l.Missing(folder + "/" + file) {
			return input, delivery.Blockedf("copy the folder "+folder+" of the server's state into the folder of "+
				"--work", "the release was trained from the checkpoint of bundle %s, and that is not here",
				was.Parent.Short())
		}
	}
	return input, nil
}

// sameData says which of the images and annotations are not those of the release.
func sameData(rel Release, mdl delivery.Model, data delivery.DataResult) error {
	was := rel.Training.Data
	if data.Training != was.Training {
		what := fmt.Sprintf("its content is %s, and was %s", data.Content.Short(), was.Content.Short())
		if data.Content == was.Content {
			what = "its files are the same, but an eval set has other images, or this version of AOB reads it " +
				"in another way"
		}
		return delivery.Blockedf("name the dataset of that time under datasets: in the configuration; aob data diff "+
			"shows what has changed", "dataset %s is not what the release was trained on: %s", mdl.Dataset, what)
	}
	for _, gate := range slices.Sorted(maps.Keys(rel.Gates)) {
		s := rel.Gates[gate].Content
		now, ok := delivery.Find(data.EvalSets, func(c delivery.EvalSetContent) bool { return c.EvalSet == s.EvalSet })
		if !ok || now.Digest() != s.Digest() {
			return delivery.Blockedf("name the eval set of that time under datasets: in the configuration",
				"eval set %s of gate %s is not what the release was measured on", s.EvalSet, gate)
		}
	}
	return nil
}

// differences lists what is not as it was for the release.
func (l *Local) differences(rel Release, input delivery.TrainRun, data delivery.DataResult) (list []string) {
	was := rel.Training.Input
	if now, then := environment(input.Environment), environment(was.Environment); now != then {
		list = append(list, fmt.Sprintf("the trainer runs with %s, and then with %s", now, then))
	}
	if input.Accelerator != was.Accelerator {
		list = append(list, fmt.Sprintf("it is trained on %s, and then on %s", cmp.Or(input.Accelerator, "cpu"),
			cmp.Or(was.Accelerator, "an accelerator that is not recorded")))
	}
	if input.Weights != nil && was.Weights != nil && input.Weights.Licence != was.Weights.Licence {
		list = append(list, fmt.Sprintf("the licence of the weights is %s, and was %s", input.Weights.Licence,
			was.Weights.Licence))
	}
	if data.Content != rel.Training.Data.Content {
		list = append(list, "the dataset has other files, but the images and annotations that count are the same")
	}
	for _, gate := range slices.Sorted(maps.Keys(rel.Gates)) {
		in := rel.Gates[gate].Input
		if delivery.DetectKey(in.Model, in.Signature, in.Images, l.Server.Numerics, l.Server.Provider) != in.Detect {
			list = append(list, "models are measured with another ONNX Runtime, or on other hardware")
			break
		}
	}
	return list
}

func environment(e *delivery.Environment) string {
	if e == nil {
		return "the server's Python"
	}
	if e.Image != "" {
		return fmt.Sprintf("the container image %s on %s", e.Image.Short(), e.Platform)
	}
	return fmt.Sprintf("%s on %s, packages %s", e.Python, e.Platform, e.Lock.Short())
}

// measured are the figures of one bundle, by gate or Validation, and then by metric.
type measured map[string]map[string]float64

// measure measures a trained bundle as the release was measured.
func (l *Local) measure(ctx context.Context, rel Release, bundle delivery.Digest) (measured, error) {
	m := measured{}
	info, err := l.describe(ctx, bundle)
	if err != nil {
		return m, err
	}
	if rel.Valid != nil {
		s, err := l.evaluate(ctx, l.Server.Again(rel.Valid.Input, bundle, info))
		if err != nil {
			return m, fmt.Errorf("the validation split: %w", err)
		}
		m[Validation] = map[string]float64{delivery.MetricMAP: decimals(s.Values[delivery.MetricMAP])}
	}
	if rel.Resolved != nil {
		found, err := l.thresholds(ctx, rel.Statement.Model, delivery.ThresholdRun{
			Valid: l.Server.Again(rel.Resolved.Input.Valid, bundle, info), Ask: rel.Resolved.Input.Ask})
		if err != nil {
			return m, err
		}
		bundle = found.Bundle
		if info, err = l.describe(ctx, bundle); err != nil {
			return m, err
		}
	}
	for gate, was := range rel.Gates {
		again := delivery.Scores{Input: l.Server.Again(was.Input, bundle, info)}
		if again.Scores, err = l.evaluate(ctx, again.Input); err != nil {
			return m, fmt.Errorf("gate %s: %w", gate, err)
		}
		m[gate] = map[string]float64{}
		for metric, f := range plan.Figures(again, rel.Classes[gate]) {
			m[gate][metric] = f.Value
		}
	}
	return m, nil
}

// seeds measures the other seeds of a release on its eval sets. What was signed of them is their mAP on the validation
// split; the released seed alone was measured on eval sets.
func (l *Local) seeds(ctx context.Context, rel Release, from artifact.Source) (list []measured, err error) {
	for _, s := range rel.Training.Seeds {
		if s.Bundle == rel.Training.Result.Bundle {
			continue
		}
		if err := l.pull(ctx, from, s.Bundle); err != nil {
			return nil, fmt.Errorf("the bundle of seed %d of the release: %w", s.Seed, err)
		}
		m, err := l.measure(ctx, rel, s.Bundle)
		if err != nil {
			return nil, fmt.Errorf("seed %d of the release: %w", s.Seed, err)
		}
		m[Validation] = map[string]float64{delivery.MetricMAP: s.MAP} // as it was signed
		list = append(list, m)
	}
	return list, nil
}

// pull copies a bundle into the store.
func (l *Local) pull(ctx context.Context, from artifact.Source, bundle delivery.Digest) (err error) {
	if _, err := l.Bundles.Describe(ctx, bundle); err == nil {
		return nil
	}
	tmp, err := os.MkdirTemp("", "aob-seed-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	_, err = l.Bundles.Pull(ctx, from, bundle, tmp+"/bundle")
	return err
}

// compareAll compares all figures of a release, sorted by where and what they measure.
func compareAll(rel Release, seeds []measured, now measured) (list []Compared, err error) {
	add := func(on string, figures map[string]delivery.Figure) error {
		for _, metric := range slices.Sorted(maps.Keys(figures)) {
			again, ok := now[on][metric]
			if !ok {
				return fmt.Errorf("gate %s: the model that was trained again has no %s", on, metric)
			}
			spread := []float64{figures[metric].Value}
			for _, s := range seeds {
				if v, ok := s[on][metric]; ok {
					spread = append(spread, v)
				}
			}
			if len(spread) <= len(seeds) {
				spread = nil // a seed lacks it
			}
			list = append(list, compared(on, metric, figures[metric], spread, again))
		}
		return nil
	}
	for _, gate := range slices.Sorted(maps.Keys(rel.Gates)) {
		if err := add(gate, plan.Figures(rel.Gates[gate], rel.Classes[gate])); err != nil {
			return list, err
		}
	}
	if rel.Valid != nil {
		v := rel.Valid.Scores.Values[delivery.MetricMAP]
		err = add(Validation, map[string]delivery.Figure{delivery.MetricMAP: {Value: decimals(v)}})
	}
	return list, err
}
