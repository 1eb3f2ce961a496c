package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/dataset"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/run"
	"github.com/autonomos/aob/reconciler/store"
	"github.com/autonomos/aob/reconciler/trainer"
	"github.com/autonomos/aob/reconciler/view"
	"github.com/autonomos/aob/reconciler/web"
	"github.com/autonomos/aob/reconciler/work"
)

// A model is checked, trained, measured and compared with a store that is not the state folder. Each run has a state
// folder of its own, which is removed when the run has ended: whatever a later run or a reader needs is in the store.
func TestRunsShareOnlyTheStore(t *testing.T) {
	b := newBench(t)
	test := delivery.EvalSet{Dataset: b.dataset, Split: "test"}
	var data delivery.DataResult
	dataKey := b.do(t, delivery.RunSpec{Kind: delivery.RunData, Data: &delivery.DataRun{Dataset: b.dataset,
		Classes: classes, EvalSets: []delivery.EvalSet{test}}}, &data)
	if data.Failed() || len(data.EvalSets) == 0 {
		t.Fatalf("%+v", data)
	}
	var evals [2]delivery.EvalRun
	for i := range evals {
		var trained delivery.TrainResult
		train := b.do(t, delivery.RunSpec{Kind: delivery.RunTrain, Train: &delivery.TrainRun{Seed: int64(i),
			Data: dataKey, Training: data.Training, Trainer: trainerFiles, Machine: "here",
			Spec: delivery.Spec{Classes: classes, Train: delivery.Train{With: "mine@1"}}}}, &trained)
		if log := b.log(t, train, delivery.RunTrain); log != fmt.Sprintf("seed %d, 6 images\n", i) {
			t.Errorf("the log is %q", log)
		}
		evals[i] = delivery.EvalRun{Bundle: trained.Bundle, EvalSet: test, Classes: classes,
			Images: data.EvalSets[0].Images, Truths: data.EvalSets[0].Truths,
			Detect: delivery.DigestOf("detect", trained.Bundle), TrainingImages: []delivery.Digest{data.TrainingImages}}
		var scores delivery.ScoreSet
		b.do(t, delivery.RunSpec{Kind: delivery.RunEval, Eval: &evals[i]}, &scores)
		if scores.Images != 4 || scores.LeftOut != 0 {
			t.Errorf("model %d: %+v", i, scores)
		}
	}
	var compared delivery.CompareResult
	key := b.do(t, delivery.RunSpec{Kind: delivery.RunCompare, Compare: &delivery.CompareRun{Candidate: evals[0],
		Baseline: evals[1], Resamples: 100, Seed: 1}}, &compared)
	if len(compared.Pictures) == 0 {
		t.Fatalf("%+v", compared)
	}
	if b.inferred != len(evals) {
		t.Errorf("%d inferences for %d bundles: detections are not found again", b.inferred, len(evals))
	}
	for _, name := range append(compared.Pictures, "") { // the last is the page
		r := httptest.NewRecorder()
		web.Pictures(b.files, nil).ServeHTTP(r, httptest.NewRequest("GET", "/pictures/"+key.Hex()+"/"+name, nil))
		if r.Code != 200 || r.Body.Len() == 0 {
			t.Errorf("picture %q: %d", name, r.Code)
		}
	}
	gone := delivery.RunSpec{Kind: delivery.RunTrain, Train: &delivery.TrainRun{Data: delivery.Sum(nil),
		Trainer: trainerFiles, Machine: "here", Spec: delivery.Spec{Train: delivery.Train{With: "mine@1"}}}}
	other := delivery.RunSpec{Kind: delivery.RunTrain, Train: &delivery.TrainRun{Seed: 3, Data: dataKey,
		Training: delivery.Sum([]byte("another input")), Trainer: trainerFiles, Machine: "here",
		Spec: delivery.Spec{Classes: classes, Train: delivery.Train{With: "mine@1"}}}}
	if _, _, err := b.try(t, other); err == nil || !strings.Contains(err.Error(), "changed after it was checked") {
		t.Errorf("a training on another input: %v", err)
	}
	_, _, err := b.try(t, gone)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "aob pr recheck") {
		t.Errorf("of a data run that is not there: %v", err)
	}
}

var (
	classes      = delivery.Classes{{Name: "circle", Labels: []string{"circle"}}}
	trainerFiles = delivery.Sum([]byte("mine"))
)

// A bench has a dataset, a store of run outputs and a store of bundles. It is the trainer and the detector of its runs.
type bench struct {
	root     string
	files    *memory
	stages   *work.Stages
	dataset  delivery.Dataset
	runs     int
	inferred int
}

func newBench(t *testing.T) *bench {
	b := &bench{root: t.TempDir(), files: &memory{}, dataset: delivery.Dataset{Source: "dir", Path: "d"}}
	bundles, err := artifact.Open(filepath.Join(b.root, "bundles"))
	if err != nil {
		t.Fatal(err)
	}
	b.stages = &work.Stages{Files: b.files, Bundles: bundles, Trainers: filepath.Join(b.root, "trainers"), Detector: b,
		Machines: map[string]work.Trainer{"here": b}, Log: slog.New(slog.DiscardHandler), Datasets: dataset.Catalog{
			Sources:   map[string]dataset.Source{"dir": dataset.Dir{}},
			Locations: map[string]map[string]string{"dir": {"d": filepath.Join(b.root, "d")}}}}
	b.write(t, trainer.Script(b.stages.Trainers, trainerFiles, "mine@1"), []byte("pass"))
	random := rand.New(rand.NewPCG(1, 1))
	for split, n := range map[string]int{"train": 6, "valid": 4, "test": 4} {
		var images, boxes []map[string]any
		for i := range n {
			name := fmt.Sprintf("%s-%d.png", split, i)
			drawn := image.NewGray(image.Rect(0, 0, 16, 16))
			for p := range drawn.Pix {
				drawn.Pix[p] = byte(random.Uint32())
			}
			var text strings.Builder
			if err := png.Encode(&text, drawn); err != nil {
				t.Fatal(err)
			}
			b.write(t, filepath.Join(b.root, "d", split, name), []byte(text.String()))
			images = append(images, map[string]any{"id": i, "file_name": name, "width": 16, "height": 16})
			boxes = append(boxes, map[string]any{"id": i, "image_id": i, "category_id": 1, "iscrowd": 0,
				"bbox": []int{1, 1, 6, 6}, "area": 36})
		}
		text, err := json.Marshal(map[string]any{"images": images, "annotations": boxes,
			"categories": []map[string]any{{"id": 1, "name": "circle"}}})
		if err != nil {
			t.Fatal(err)
		}
		b.write(t, filepath.Join(b.root, "d", split, dataset.AnnotationsFile), text)
	}
	return b
}

func (b *bench) write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
		t.Fatal(err)
	}
}

// try works on a run in a state folder of its own, which it removes.
func (b *bench) try(t *testing.T, spec delivery.RunSpec) (key delivery.Digest, result any, err error) {
	t.Helper()
	b.runs++
	spec.Key = delivery.DigestOf("run", b.runs)
	state := t.TempDir()
	dir := run.Folder(state, spec.Kind, spec.Key)
	b.write(t, filepath.Join(dir, "spec.json"), delivery.Canonical(spec))
	r, err := run.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	result, err = b.stages.Work(t.Context(), r)
	if err := errors.Join(r.Close(), os.RemoveAll(state)); err != nil {
		t.Fatal(err)
	}
	return spec.Key, result, err
}

// do works on a run that has a result.
func (b *bench) do(t *testing.T, spec delivery.RunSpec, result any) delivery.Digest {
	t.Helper()
	key, done, err := b.try(t, spec)
	if err == nil {
		err = json.Unmarshal(delivery.Canonical(done), result)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// log is what aob logs shows of a run whose folder is gone.
func (b *bench) log(t *testing.T, key delivery.Digest, kind delivery.RunKind) string {
	t.Helper()
	s := view.Source{Logs: []view.Files{store.Folder(t.TempDir()), b.files}, Loop: loop{runs: plan.World{
		Runs: map[delivery.Digest]delivery.RunState{key: {Spec: delivery.RunSpec{Kind: kind, Key: key}}}}}}
	log, err := s.Log(t.Context(), string(key), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	text, err := io.ReadAll(log)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

type loop struct {
	view.Loop
	runs plan.World
}

func (l loop) Last() *view.Snapshot { return &view.Snapshot{World: l.runs} }

// Train writes a model that is its seed.
func (b *bench) Train(_ context.Context, req trainer.Request) (trainer.Trained, error) {
	var task struct {
		Seed            int
		Dataset, Output string
	}
	text, err := json.Marshal(req.RunJSON(func(path string) string { return path }))
	if err == nil {
		err = json.Unmarshal(text, &task)
	}
	if err != nil {
		return trainer.Trained{}, err
	}
	images, err := filepath.Glob(filepath.Join(task.Dataset, "train", "*.png"))
	if err != nil {
		return trainer.Trained{}, err
	}
	err = os.MkdirAll(task.Output, 0o700)
	for name, text := range map[string]string{"log.txt": fmt.Sprintf("seed %d, %d images\n", task.Seed, len(images)),
		"train.json": "{}", "model.onnx": fmt.Sprint(task.Seed)} {
		err = errors.Join(err, os.WriteFile(filepath.Join(task.Output, name), []byte(text), 0o600))
	}
	return trainer.Trained{Output: task.Output, Attempts: 1}, err
}

func (b *bench) Inspect(context.Context, string) (delivery.Signature, detect.Golden, error) {
	golden := detect.Golden{Seed: 1, Width: 16, Height: 16, Slots: 2, Boxes: make([]float32, 4),
		Logits: make([]float32, 2)}
	return delivery.Signature{SchemaVersion: 1, Input: "input", Boxes: "dets", Logits: "labels", Width: 16, Height: 16,
		Resize: delivery.Resize{Algorithm: "bilinear", Padding: "none", DType: "float32"}, Means: []float64{0, 0, 0},
		Stds: []float64{1, 1, 1}, Slots: []string{"circle", ""}, Background: 1, Select: 10}, golden, nil
}

// Evaluate finds every circle with the model of seed 1, and none with that of seed 0.
func (b *bench) Evaluate(_ context.Context, r detect.Request, _ func(done, total int)) ([]detect.ImageDetections,
	error) {
	b.inferred++
	model, err := os.ReadFile(r.Model)
	if err != nil {
		return nil, err
	}
	var list []detect.ImageDetections
	for _, im := range r.Images {
		found := detect.ImageDetections{ID: im.ID, Detections: detect.Detections{Width: 16, Height: 16}}
		if string(model) == "1" {
			found.Boxes = []delivery.Box{{Class: "circle", Score: 0.9, X: 1, Y: 1, W: 6, H: 6}}
		}
		list = append(list, found)
	}
	return list, nil
}
