// Package work does the work of runs: it checks a dataset, trains a model,
// evaluates a model, compares two models and finds score thresholds.
//
// It runs in the process of aob runner, not in the loop. Each kind of run is one method of [Stages]. A run may be
// killed at any time; repeating it gives the same result.
package work

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/dataset"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/run"
	"github.com/autonomos/aob/reconciler/trainer"
)

// Stages does the work of runs.
type Stages struct {
	Datasets  dataset.Catalog
	Files     Store
	Trainers  string             // the folder of trainers: DIGEST/NAME/train.py
	Python    string             // for trainers without an environment of their own
	Secrets   map[string]string  // of this run, by name
	Machines  map[string]Trainer // by the value of train.machine
	Detector  Detector
	Bundles   *artifact.Store
	Heartbeat time.Duration
	Log       *slog.Logger

	Environments Environments
	Containers   Containers
	Weights      map[delivery.Digest]string // the files of base weights, by the digests that they must have
}

// Environments makes the Python environments of trainers, as [trainer.Environments] does.
type Environments interface {
	Make(ctx context.Context, with, lock string, env delivery.Environment, disk delivery.Bytes,
		progress func(trainer.Making)) (trainer.Made, error)
}

// Containers prepares the containers of trainers, as [trainer.Containers] does.
type Containers interface {
	Named(image delivery.Digest) (trainer.Container, error)
	Prepare(ctx context.Context, image delivery.Digest, progress func(trainer.Making)) (trainer.Container, error)
}

// A Store keeps what one run leaves for other runs and for readers: training inputs, lists of training images,
// detections, pictures and logs. Two runs share no other file. The state of a run and its result, which the loop reads,
// stay in the run's folder.
type Store interface {
	dataset.Store
	// Local returns the path of a stored folder on this machine. A store on another machine copies it to dir, which it
	// replaces.
	Local(name, dir string) (path string, err error)
}

// A Detector runs models, as [detect.Detector] does.
type Detector interface {
	Inspect(ctx context.Context, model string) (delivery.Signature, detect.Golden, error)
	Evaluate(ctx context.Context, r detect.Request, progress func(done, total int)) ([]detect.ImageDetections, error)
}

// A Trainer trains on one kind of machine, as [trainer.Request] describes.
type Trainer interface {
	Train(ctx context.Context, req trainer.Request) (trainer.Trained, error)
}

// Protocol returns the digest of the scoring parameters, without the ground truth. It is part of every score key.
func Protocol() (delivery.Digest, error) {
	p, err := scoring.Protocol()
	return protocol(p), err
}

var scoring = coco.Params{Mode: coco.Fixed}

func protocol(p coco.Protocol) delivery.Digest {
	p.Truth = "" // the score key has the truths separately
	return delivery.Digest(p.Digest())
}

// Work does the work of one run and returns its result. The run's secrets are masked in the error and in what the
// trainer tells of itself. While the run is at work, its logs are only in its folder. Then Work stores them; whoever
// reads them masks secrets.
func (s *Stages) Work(ctx context.Context, r *run.Run) (any, error) {
	result, err := s.work(ctx, r)
	for _, log := range run.Logs {
		err := s.Files.Put(run.OutputName(r.Spec.Kind, r.Spec.Key, log), filepath.Join(r.Dir, log))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.Log.Warn("a log of the run is not stored", "log", log, "error", err.Error())
		}
	}
	return result, s.mask().Error(err)
}

func (s *Stages) mask() delivery.Mask { return delivery.NewMask(maps.Values(s.Secrets)) }

func (s *Stages) work(ctx context.Context, r *run.Run) (any, error) {
	own := *s
	own.Datasets.Fetching = s.fetching(r)
	s = &own
	switch r.Spec.Kind {
	case delivery.RunData:
		return s.data(ctx, r, *r.Spec.Data)
	case delivery.RunTrain:
		return s.train(ctx, r, *r.Spec.Train)
	case delivery.RunEval:
		return s.eval(ctx, r, *r.Spec.Eval)
	case delivery.RunCompare:
		return s.compare(ctx, r, *r.Spec.Compare)
	case delivery.RunVariant:
		return s.variant(ctx, r, *r.Spec.Variant)
	case delivery.RunThresholds:
		return s.thresholds(ctx, r, *r.Spec.Thresholds)
	}
	return nil, delivery.Blockedf("use the version of aob that started the run", "there is no run of kind %q",
		r.Spec.Kind)
}

const preparedFolder = "prepared"

func (s *Stages) data(ctx context.Context, r *run.Run, input delivery.DataRun) (any, error) {
	if err := r.Stage("check"); err != nil {
		return nil, err
	}
	prepared := filepath.Join(r.Dir, preparedFolder)
	var phase dataset.Phase
	report := s.progress(r)
	result, err := s.Datasets.Check(ctx, input, prepared, s.Files, func(now dataset.Phase, done, total int) {
		if phase == "" { // after a fetch, which has stages of its own
			s.warn(r.Stage("check"))
		}
		phase = now
		report(string(now), now.Text(done, total), done, total)
	})
	if err == nil && !result.Failed() {
		err = s.Files.Put(run.OutputName(r.Spec.Kind, r.Spec.Key, preparedFolder), prepared)
	}
	return result, err
}

// fetching returns a function that tells how far the fetch of a dataset is, in status.json. The phase of the fetch is
// the stage of a data run.
func (s *Stages) fetching(r *run.Run) dataset.Progress {
	var phase dataset.Phase
	report := s.progress(r)
	return func(now dataset.Phase, done, total int) {
		if phase != now {
			if phase = now; r.Spec.Kind == delivery.RunData {
				s.warn(r.Stage(string(now)))
			}
		}
		report(string(now), now.Text(done, total), 0, 0)
	}
}

func (s *Stages) warn(err error) {
	if err != nil {
		s.Log.Warn("progress not written", "error", err.Error())
	}
}

// progress returns a function that writes status.json, at most every 500 ms of a phase and at its end.
func (s *Stages) progress(r *run.Run) func(phase, message string, done, total int) {
	var began, last time.Time
	var phase string
	return func(at, message string, done, total int) {
		now := time.Now()
		if phase != at {
			phase, began, last = at, now, time.Time{}
		}
		if now.Sub(last) < 500*time.Millisecond && (done != total || total == 0) {
			return
		}
		last = now
		status := delivery.RunStatus{Batch: done, Batches: total, Message: message}
		if total > 0 {
			left := now.Sub(began).Seconds() / float64(max(1, done)) * float64(total-done)
			status.SecondsLeft = &left
		}
		s.status(r, status)
	}
}

// status writes status.json.
func (s *Stages) status(r *run.Run, status delivery.RunStatus) {
	status.Heartbeat = time.Now().UTC()
	data, err := json.Marshal(status)
	if err == nil {
		err = os.MkdirAll(filepath.Join(r.Dir, "output"), 0o700)
	}
	if err == nil {
		err = durable.WriteFile(filepath.Join(r.Dir, "output", "status.json"), data, 0o600)
	}
	s.warn(err)
}

// A trainerRun is run.json, the trainer's only input.
type trainerRun struct {
	Key     delivery.Digest `json:"key"`
	Seed    int64           `json:"seed"`
	Dataset string          `json:"dataset"`
	Output  string          `json:"output"`
	Spec    trainerSpec     `json:"spec"`

	Weights *trainerWeights `json:"weights,omitempty"`
	Parent  *trainerParent  `json:"parent,omitempty"`
	Variant *trainerVariant `json:"variant,omitempty"`
}

// trainerWeights are the base weights that a training starts from.
type trainerWeights struct {
	File   string `json:"file"`
	SHA256 string `json:"sha256"`
}

// A trainerParent is the training whose checkpoint another one starts from.
type trainerParent struct {
	Checkpoint string          `json:"checkpoint"` // its file
	Bundle     delivery.Digest `json:"bundle"`
}

// A trainerVariant asks for a variant of a trained model in place of a training.
type trainerVariant struct {
	Name       string `json:"name"`                 // fp16 or int8
	Model      string `json:"model"`                // the file of the trained model
	Checkpoint string `json:"checkpoint,omitempty"` // that its training left
}

// at returns the same task with each path as place has it.
func (t trainerRun) at(place func(path string) string) any {
	t.Dataset, t.Output = place(t.Dataset), place(t.Output)
	if t.Weights != nil {
		t.Weights = &trainerWeights{place(t.Weights.File), t.Weights.SHA256}
	}
	if t.Parent != nil {
		t.Parent = &trainerParent{place(t.Parent.Checkpoint), t.Parent.Bundle}
	}
	if t.Variant != nil {
		v := *t.Variant
		if v.Model = place(v.Model); v.Checkpoint != "" {
			v.Checkpoint = place(v.Checkpoint)
		}
		t.Variant = &v
	}
	return t
}

// inputs lists the files and folders that the trainer reads.
func (t trainerRun) inputs() []string {
	list := []string{t.Dataset}
	if t.Weights != nil {
		list = append(list, t.Weights.File)
	}
	if t.Parent != nil {
		list = append(list, t.Parent.Checkpoint)
	}
	if t.Variant != nil {
		list = append(list, t.Variant.Model, t.Variant.Checkpoint)
	}
	return slices.DeleteFunc(list, func(path string) bool { return path == "" })
}

type trainerSpec struct {
	Classes []string       `json:"classes"`
	Train   map[string]any `json:"train"`
}

func (s *Stages) train(ctx context.Context, r *run.Run, input delivery.TrainRun) (any, error) {
	weights, parent, err := s.start(r, input)
	if err != nil {
		return nil, err
	}
	trained, err := s.runTrainer(ctx, r, input, trainerRun{Weights: weights, Parent: parent})
	if err != nil {
		return nil, err
	}
	packed, err := s.pack(ctx, r, input, filepath.Join(trained.Output, delivery.ModelFile))
	if err != nil {
		return nil, err
	}
	checkpoint, err := s.keepCheckpoint(input, trained.Output)
	if err != nil {
		return nil, err
	}
	return delivery.TrainResult{Bundle: packed.bundle, Model: packed.info.Model, Size: packed.info.Size,
		Attempts:   trained.Attempts,
		Trainer:    trainerInfo(filepath.Join(trained.Output, "train.json"), s.mask()),
		Checkpoint: checkpoint}, nil
}

// runTrainer runs a trainer to its end. ask has what its run.json says besides the training.
func (s *Stages) runTrainer(ctx context.Context, r *run.Run, input delivery.TrainRun, ask trainerRun) (
	none trainer.Trained, err error) {
	prepared, err := s.Files.Local(run.OutputName(delivery.RunData, input.Data, preparedFolder),
		filepath.Join(r.Dir, preparedFolder))
	if err != nil {
		// Not Blocked: if the data run is gone too, the loop repeats it and then the training.
		return none, fmt.Errorf("the training input of data run %s is missing; aob pr recheck NUMBER makes it "+
			"again: %w", input.Data.Short(), err)
	}
	if err := dataset.CheckPrepared(ctx, prepared, input.Training); err != nil {
		return none, err
	}
	script := trainer.Script(s.Trainers, input.Trainer, input.Spec.Train.With)
	if _, err := os.Stat(script); err != nil {
		return none, delivery.Blockedf("push again, so that the server's current trainer is used",
			"trainer %s of files %s is not on this server", input.Spec.Train.With, input.Trainer.Short())
	}
	if delivery.PaidModule(input.Machine) && ask.Variant != nil {
		input.Machine = delivery.TrainLocal // a variant is made in minutes, and nobody was asked what it costs
	}
	python, container, err := s.surroundings(ctx, r, input)
	if err != nil {
		return none, err
	}
	secrets, err := s.trainerSecrets(input)
	if err != nil {
		return none, err
	}
	output := filepath.Join(r.Dir, "output")
	var spec map[string]any
	if err := json.Unmarshal(delivery.Canonical(input.Spec.Train), &spec); err != nil {
		return none, err
	}
	delete(spec, "seeds") // this run has one
	if spec["args"] == nil {
		spec["args"] = map[string]any{}
	}
	machine, ok := s.Machines[input.Machine]
	if !ok {
		return none, delivery.Blockedf("use one of: "+strings.Join(slices.Sorted(maps.Keys(s.Machines)), ", "),
			"train.machine: this server has no %q", input.Machine)
	}
	ask.Key, ask.Seed, ask.Dataset, ask.Output = r.Spec.Key, input.Seed, prepared, output
	ask.Spec = trainerSpec{input.Spec.Classes.Names(), spec}
	return machine.Train(ctx, trainer.Request{Dir: r.Dir, RunJSON: ask.at, Python: python, Container: container,
		Script: script, Inputs: ask.inputs(), Secrets: secrets, Quote: r.Spec.Quote, Heartbeat: s.Heartbeat,
		Limit: time.Duration(input.Limit), Stage: r.Stage, Progress: r.Progress})
}

// trainerSecrets returns the secrets that a trainer asks for. The run may have more, as those of the store of files.
func (s *Stages) trainerSecrets(input delivery.TrainRun) (map[string]string, error) {
	described, err := trainer.Described(s.Trainers, input.Trainer, input.Spec.Train.With)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	list := map[string]string{}
	for _, name := range described.Secrets {
		if value, ok := s.Secrets[name]; ok {
			list[name] = value
		}
	}
	return list, nil
}

// A packed is a model that was inspected and stored as a bundle.
type packed struct {
	bundle    delivery.Digest
	info      artifact.Info
	signature delivery.Signature
	golden    detect.Golden
}

// pack inspects the model that a trainer has made, and stores it as a bundle.
func (s *Stages) pack(ctx context.Context, r *run.Run, input delivery.TrainRun, model string) (p packed, err error) {
	if err := r.Stage("inspect"); err != nil {
		return p, err
	}
	if p.signature, p.golden, err = s.Detector.Inspect(ctx, model); err != nil {
		return p, blocked(err, "fix the trainer")
	}
	if err := sameClasses(p.signature, input.Spec.Classes.Names()); err != nil {
		return p, err
	}
	golden, err := p.golden.MarshalBinary()
	if err != nil {
		return p, err
	}
	if err := r.Stage("pack"); err != nil {
		return p, err
	}
	if p.bundle, err = s.Bundles.Push(ctx, artifact.Bundle{ModelPath: model, Signature: p.signature, Golden: golden,
		Labels: input.Spec.Classes.Names(), Provenance: map[string]string{"run": string(r.Spec.Key)}}); err != nil {
		return p, err
	}
	p.info, err = s.Bundles.Describe(ctx, p.bundle)
	return p, err
}

// surroundings returns the interpreter that a training runs with, or the container that it runs in. It makes the
// trainer's environment, or pulls the container's image, if that is missing.
func (s *Stages) surroundings(ctx context.Context, r *run.Run, input delivery.TrainRun) (python string,
	container *trainer.Container, err error) {
	progress := func(m trainer.Making) {
		s.status(r, delivery.RunStatus{Batch: m.Done, Batches: m.Total, Message: m.What})
	}
	switch {
	case input.Environment == nil:
		return s.Python, nil, nil
	case input.Environment.Image == "":
		python, err = s.python(ctx, r, input, progress)
		return python, nil, err
	}
	if delivery.PaidModule(input.Machine) { // the instance pulls it itself
		c, err := s.Containers.Named(input.Environment.Image)
		return "", &c, err
	}
	if err := r.Stage(delivery.StageEnvironment); err != nil {
		return "", nil, err
	}
	c, err := s.Containers.Prepare(ctx, input.Environment.Image, progress)
	if input.Accelerator != "cuda" {
		c.Limits.Device = ""
	}
	return "", &c, err
}

// python returns the interpreter of a trainer's environment.
func (s *Stages) python(ctx context.Context, r *run.Run, input delivery.TrainRun, progress func(trainer.Making)) (
	string, error) {
	with := input.Spec.Train.With
	t, err := trainer.Described(s.Trainers, input.Trainer, with)
	if err == nil && t.Environment == nil {
		err = fmt.Errorf("the installed trainer %s has no environment", with)
	}
	if err != nil {
		return "", err
	}
	if err := r.Stage(delivery.StageEnvironment); err != nil {
		return "", err
	}
	made, err := s.Environments.Make(ctx, with, trainer.LockPath(s.Trainers, input.Trainer, with), *input.Environment,
		t.Environment.Disk, progress)
	return made.Python, err
}

// trainerInfo returns the trainer's train.json, which is only shown, or nil if it cannot be read.
func trainerInfo(path string, mask delivery.Mask) json.RawMessage {
	data, err := durable.ReadNoFollow(path, 64<<10)
	if err != nil || !json.Valid(data) {
		return nil
	}
	return mask.JSON(data)
}

// sameClasses returns an error if the model lacks one of the classes.
func sameClasses(s delivery.Signature, classes []string) error {
	for _, c := range classes {
		if !slices.Contains(s.Slots, c) {
			return delivery.Blockedf("fix the trainer", "the trained model has no class %s; it has %s", c,
				strings.Join(s.Slots, ", "))
		}
	}
	return nil
}

// blocked makes a delivery.Blocked of a detector's error about the model or an image: another attempt would fail too.
func blocked(err error, do string) error {
	if _, ok := errors.AsType[*detect.ModelError](err); ok {
		return delivery.Blocked{What: err.Error(), Do: do}
	}
	if _, ok := errors.AsType[*detect.ImageError](err); ok {
		return delivery.Blocked{What: err.Error(), Do: "repair the image in the dataset"}
	}
	return err
}
