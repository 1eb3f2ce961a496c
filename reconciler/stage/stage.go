// Package stage takes the stages of one model one at a time, on this machine and without a server: train, evaluate,
// judge. A workflow engine calls them as its tasks; each gets what the one before returned. It also takes the stages of
// a release again, and says whether the figures are within what chance explains.
//
// The runs, their keys and their inputs are the server's own, so a stage that is repeated does nothing again, and one
// that was interrupted goes on. What a stage returns is signed by nobody: it releases nothing, and a pull request of
// the same model is measured again by its server.
package stage

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/run"
	"github.com/autonomos/aob/reconciler/words"
)

// Local takes stages in a folder of this machine. Only one process may use the folder at a time.
type Local struct {
	Runs     *run.Store
	Bundles  *artifact.Store
	Server   plan.Server
	Progress func(delivery.RunState) // called while a run is at work; may be nil
	// Missing reports whether a file of earlier runs is not in the folder. Only Reproduce calls it.
	Missing  func(file string) bool
	Datasets Datasets
}

// Datasets notice that a dataset has changed since it was checked, as [dataset.Catalog] does.
type Datasets interface {
	Changed(ctx context.Context, run delivery.DataRun, states map[string]delivery.Digest) string
}

// The stages, as their results name them.
const (
	Train = "train"
	Eval  = "eval"
)

// Trained is a trained model.
type Trained struct {
	Stage   string              `json:"stage"` // Train
	Model   string              `json:"model"`
	Spec    delivery.Digest     `json:"spec"`
	Seed    int64               `json:"seed"`
	Bundle  delivery.Digest     `json:"bundle"` // with thresholds, if the model has any
	Classes delivery.Classes    `json:"classes"`
	Run     delivery.Digest     `json:"run"` // the run key
	Input   delivery.TrainRun   `json:"input"`
	Data    delivery.DataResult `json:"data"`

	Result     delivery.TrainResult               `json:"result"`
	Thresholds map[string]delivery.OperatingPoint `json:"thresholds,omitempty"` // by class
	Variants   []Variant                          `json:"variants,omitempty"`
}

// Measured has the scores of a trained model, or of a variant of it, on the eval sets of its gates.
type Measured struct {
	Stage    string                 `json:"stage"` // Eval
	Model    string                 `json:"model"`
	Variant  string                 `json:"variant,omitempty"` // empty for FP32
	Bundle   delivery.Digest        `json:"bundle"`
	Classes  delivery.Classes       `json:"classes"`
	Licences []delivery.Licensed    `json:"licences,omitempty"` // of what the model is made of
	Against  delivery.Digest        `json:"against,omitempty"`  // the bundle that it is compared with
	Gates    map[string]Measurement `json:"gates"`
}

// A Measurement has what one gate judges.
type Measurement struct {
	Size       int64                   `json:"size"` // bytes
	Scores     delivery.Scores         `json:"scores"`
	Baseline   *delivery.Scores        `json:"baseline,omitempty"`
	Compare    *delivery.CompareResult `json:"compare,omitempty"`
	CompareKey delivery.Digest         `json:"compareKey,omitempty"`
	FP32       *Compare                `json:"fp32,omitempty"` // of a variant, where a check asks for it
}

// A Compare is the comparison of a variant with the model that it is made of.
type Compare struct {
	Scores  delivery.Scores        `json:"scores"` // of the model
	Compare delivery.CompareResult `json:"compare"`
	Key     delivery.Digest        `json:"key"`
}

// Train checks the dataset of a model and trains one of its seeds. Images in the eval sets of gates are left out, as
// the server does. What the folder has trained is not trained again after an upgrade of AOB, unless fresh asks for the
// present trainer.
func (l *Local) Train(ctx context.Context, mdl delivery.Model, seed int64, gates []delivery.Gate, fresh bool) (Trained,
	error) {
	if mdl.Train.Start() == delivery.StartRelease {
		return Trained{}, delivery.Blockedf("open a pull request with it, or name weights of the configuration",
			"train.from: %s is known to a server alone", mdl.Train.From)
	}
	key, data, err := l.check(ctx, plan.DataInput(mdl, gates))
	if err != nil {
		return Trained{}, err
	}
	input, why := l.Server.TrainInput(mdl, seed, key, data)
	if !why.IsZero() {
		return Trained{}, errors.New(words.Text(why))
	}
	if fresh {
		err = l.removeDone(delivery.TrainKey(input))
	} else {
		input, err = l.kept(input)
	}
	if err != nil {
		return Trained{}, err
	}
	t := Trained{Stage: Train, Model: mdl.Name, Spec: mdl.SeedSpec(seed).Digest(), Seed: seed, Classes: mdl.Classes,
		Input: input,
		Data:  data, Run: delivery.TrainKey(input)}
	if t.Result, err = l.train(ctx, mdl.Name, input); err != nil {
		return t, err
	}
	t.Bundle = t.Result.Bundle
	if len(mdl.Thresholds) == 0 {
		return t, nil
	}
	t.Bundle, t.Thresholds, err = l.resolve(ctx, mdl, t, t.Bundle)
	return t, err
}

// check checks a dataset, and returns the key of the run. It checks it again if its files have changed since.
func (l *Local) check(ctx context.Context, input delivery.DataRun) (delivery.Digest, delivery.DataResult, error) {
	run := delivery.RunSpec{Key: delivery.DataKey(input), Kind: delivery.RunData, Limit: l.Server.DataTime,
		Data: &input}
	before, err := l.Runs.State(run.Key)
	if err != nil {
		return run.Key, delivery.DataResult{}, err
	}
	var seen delivery.DataResult
	if before.Phase == delivery.RunDone && (json.Unmarshal(before.Result, &seen) != nil ||
		l.Datasets.Changed(ctx, input, seen.Folders) != "") {
		if err := l.Runs.Remove(run.Key); err != nil {
			return run.Key, seen, err
		}
	}
	data, err := result[delivery.DataResult](ctx, l, run)
	if err != nil {
		return run.Key, data, fmt.Errorf("the check of %s: %w", input.Dataset, err)
	}
	if data.Failed() {
		return run.Key, data, unusable(input.Dataset, data)
	}
	return run.Key, data, nil
}

func (l *Local) train(ctx context.Context, model string, input delivery.TrainRun) (delivery.TrainResult, error) {
	r, err := result[delivery.TrainResult](ctx, l, delivery.RunSpec{Key: delivery.TrainKey(input),
		Kind: delivery.RunTrain, Limit: input.Limit, Train: &input})
	if err != nil {
		err = fmt.Errorf("the training of %s: %w", model, err)
	}
	return r, err
}

func (l *Local) thresholds(ctx context.Context, model string, ask delivery.ThresholdRun) (delivery.ThresholdResult,
	error) {
	r, err := result[delivery.ThresholdResult](ctx, l, delivery.RunSpec{Key: delivery.ThresholdKey(ask),
		Kind: delivery.RunThresholds, Limit: l.Server.EvalTime, Thresholds: &ask})
	if err != nil {
		err = fmt.Errorf("the thresholds of %s: %w", model, err)
	}
	return r, err
}

func (l *Local) evaluate(ctx context.Context, input delivery.EvalRun) (delivery.ScoreSet, error) {
	return result[delivery.ScoreSet](ctx, l, delivery.RunSpec{Key: delivery.ScoreKey(input), Kind: delivery.RunEval,
		Limit: l.Server.EvalTime, Eval: &input})
}

func unusable(d delivery.Dataset, data delivery.DataResult) error {
	var lines []string
	for _, f := range data.Findings {
		if f.Level == delivery.LevelError {
			lines = append(lines, f.Lines()...)
		}
	}
	return delivery.Blockedf("correct them; aob data check shows all findings", "dataset %s cannot be trained on: %s",
		d, strings.Join(lines[:min(len(lines), 5)], "; "))
}

// input returns an evaluation of a trained model's bundle, which must be in the folder.
func (l *Local) input(ctx context.Context, t Trained, of func(plan.Bundle, []delivery.Digest) delivery.EvalRun) (
	delivery.EvalRun, error) {
	info, err := l.describe(ctx, t.Bundle)
	if err != nil {
		return delivery.EvalRun{}, delivery.Blockedf("name the folder of --work in which it was trained",
			"bundle %s of %s cannot be read: %v", t.Bundle.Short(), t.Model, err)
	}
	var without []delivery.Digest
	if t.Data.TrainingImages != "" {
		without = append(without, t.Data.TrainingImages)
	}
	return of(info, without), nil
}

func (l *Local) describe(ctx context.Context, bundle delivery.Digest) (plan.Bundle, error) {
	info, err := l.Bundles.Describe(ctx, bundle)
	return plan.Bundle{Model: info.Model, Signature: info.Signature.Digest(), Size: info.Size, Classes: info.Labels,
		Thresholds: info.Thresholds}, err
}

// Measure evaluates a trained model on the eval sets of gates, and compares it with another one, if there is one. The
// gates must be those with which both were trained. variant is FP32 for the model itself.
func (l *Local) Measure(ctx context.Context, t Trained, variant string, against *Trained,
	gates map[string]delivery.Gate) (Measured, error) {
	fp32 := t
	t, err := t.As(variant)
	m := Measured{Stage: Eval, Model: t.Model, Bundle: t.Bundle, Classes: t.Classes, Licences: t.Input.Licences,
		Gates: map[string]Measurement{}}
	if err != nil {
		return m, err
	}
	if variant != delivery.FP32 {
		m.Variant = variant
	}
	for _, name := range slices.Sorted(maps.Keys(gates)) {
		one := Measurement{}
		var err error
		if one.Scores, err = l.score(ctx, t, gates[name]); err != nil {
			return m, fmt.Errorf("gate %s: %w", name, err)
		}
		info, err := l.Bundles.Describe(ctx, t.Bundle)
		if err != nil {
			return m, err
		}
		one.Size = info.Size
		if against != nil {
			m.Against = against.Bundle
			if err := l.compare(ctx, &one, *against, gates[name]); err != nil {
				return m, fmt.Errorf("gate %s: %w", name, err)
			}
		}
		if m.Variant != "" && asksFP32(gates[name]) {
			if one.FP32, err = l.compareWith(ctx, one.Scores, fp32, gates[name]); err != nil {
				return m, fmt.Errorf("gate %s: %w", name, err)
			}
		}
		m.Gates[name] = one
	}
	return m, nil
}

func (l *Local) score(ctx context.Context, t Trained, g delivery.Gate) (delivery.Scores, error) {
	content, ok := delivery.Find(t.Data.EvalSets, func(c delivery.EvalSetContent) bool {
		return c.EvalSet == g.Evaluate
	})
	if !ok {
		return delivery.Scores{}, delivery.Blockedf("train it again with aob train",
			"%s was trained before the gate judged on %s", t.Model, g.Evaluate)
	}
	mdl := delivery.Model{Name: t.Model, Classes: t.Classes}
	input, err := l.input(ctx, t, func(info plan.Bundle, without []delivery.Digest) delivery.EvalRun {
		return l.Server.EvalInput(mdl, g, content, t.Bundle, info, without)
	})
	if err != nil {
		return delivery.Scores{}, err
	}
	s := delivery.Scores{Key: delivery.ScoreKey(input), Input: input, Content: content}
	s.Scores, err = l.evaluate(ctx, input)
	return s, err
}

func (l *Local) compare(ctx context.Context, m *Measurement, against Trained, g delivery.Gate) error {
	if against.Bundle == m.Scores.Input.Bundle {
		return nil // nothing can have dropped
	}
	found, err := l.compareWith(ctx, m.Scores, against, g)
	if err == nil {
		m.Baseline, m.Compare, m.CompareKey = &found.Scores, &found.Compare, found.Key
	}
	return err
}

func (l *Local) compareWith(ctx context.Context, scores delivery.Scores, against Trained, g delivery.Gate) (*Compare,
	error) {
	base, err := l.score(ctx, against, g)
	if err != nil {
		return nil, err
	}
	input := plan.CompareInput(scores, base, g)
	c := Compare{Scores: base, Key: delivery.CompareKey(input)}
	c.Compare, err = result[delivery.CompareResult](ctx, l, delivery.RunSpec{Key: c.Key, Kind: delivery.RunCompare,
		Limit: l.Server.EvalTime, Compare: &input})
	return &c, err
}

// asksFP32 says whether a check of a gate compares variants with the model that they are made of.
func asksFP32(g delivery.Gate) bool {
	return slices.ContainsFunc(g.Checks, func(c delivery.GateCheck) bool { return c.Against == delivery.FP32 })
}

// Judge returns the verdict of a gate on what was measured. It reads no file. Checks against fixed versions do not
// apply, because only a server knows those.
func Judge(name string, g delivery.Gate, m Measured) (delivery.Verdict, error) {
	one, ok := m.Gates[name]
	if !ok {
		return delivery.Verdict{}, delivery.Blockedf("run aob eval again",
			"there are no scores of %s for gate %s", m.Model, name)
	}
	in := plan.GateInput(delivery.Model{Name: m.Model, Classes: m.Classes}, g, plan.Bundle{Size: one.Size}, one.Scores)
	in.Licences = m.Licences
	in.BaselineBundle, in.SameBundle = m.Against, m.Against == m.Bundle
	if one.Baseline != nil {
		in.Baseline = &gate.Measured{Key: one.Baseline.Key, Scores: one.Baseline.Scores}
		in.Compare, in.CompareKey = one.Compare, one.CompareKey
	}
	if f := one.FP32; f != nil {
		in.Anchors = map[string]gate.Anchor{delivery.FP32: {Measured: gate.Measured{Key: f.Scores.Key,
			Scores: f.Scores.Scores}, Compare: &f.Compare, CompareKey: f.Key}}
	}
	return gate.Judge(name, g, in), nil
}

// result starts a run, waits for its end and returns its result. Where ctx ends, the run is ended first; it goes on
// where it stopped when it is started again.
func result[T any](ctx context.Context, l *Local, spec delivery.RunSpec) (v T, err error) {
	before, err := l.Runs.State(spec.Key)
	if err == nil && before.Phase == delivery.RunFailed {
		err = l.Runs.Retry(spec.Key) // what was in the way may be mended
	}
	if err == nil {
		err = l.Runs.Start(ctx, spec)
	}
	if err != nil {
		return v, err
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	ended := ctx.Done()
	for {
		state, err := l.Runs.State(spec.Key)
		if err != nil {
			return v, err
		}
		switch {
		case state.Phase == delivery.RunDone:
			return v, json.Unmarshal(state.Result, &v)
		case state.Phase == delivery.RunRunning || state.Phase == delivery.RunUnknown && state.Error == "":
		case ctx.Err() != nil:
			return v, ctx.Err()
		default:
			return v, l.failure(spec, state)
		}
		if l.Progress != nil {
			l.Progress(state)
		}
		select {
		case <-tick.C:
		case <-ended:
			ended = nil
			if err := l.Runs.End(context.WithoutCancel(ctx), spec.Key, "the command was interrupted"); err != nil {
				return v, err
			}
		}
	}
}

// failure is the error of a run, with the file of what it has printed.
func (l *Local) failure(spec delivery.RunSpec, state delivery.RunState) error {
	text := cmp.Or(state.Error, "it ended without a result")
	for _, name := range run.Logs {
		file := filepath.Join(l.Runs.Folder(spec.Kind, spec.Key), filepath.FromSlash(name))
		if at, err := os.Stat(file); err == nil && at.Size() > 0 {
			return fmt.Errorf("%s; its log is %s", text, file)
		}
	}
	return errors.New(text)
}
