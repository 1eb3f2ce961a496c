package work

// What happens inside the runs that measure, on real files: an eval set in a folder,
// bundles in a store, and detections that are stored already, so that nothing is
// inferred.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/dataset"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/run"
	"github.com/autonomos/aob/reconciler/store"
)

// A bench measures on forty images, of twenty videos, each with a circle and a square.
type bench struct {
	dir string
	*testing.T
	stages *Stages
	runs   int
}

const benchImages = 40

// The boxes of each image.
var (
	circleAt = delivery.Box{X: 1, Y: 1, W: 6, H: 6}
	squareAt = delivery.Box{X: 9, Y: 9, W: 6, H: 6}
)

func newBench(t *testing.T) *bench {
	dir := t.TempDir()
	bundles, err := artifact.Open(filepath.Join(dir, "bundles"))
	if err != nil {
		t.Fatal(err)
	}
	files := store.Folder(dir)
	b := &bench{T: t, dir: dir, stages: &Stages{Datasets: dataset.Catalog{
		Sources:   map[string]dataset.Source{"dir": dataset.Dir{}},
		Locations: map[string]map[string]string{"dir": {"d": filepath.Join(dir, "d")}}}, Files: files, Bundles: bundles,
		Log: slog.New(slog.DiscardHandler)}}
	var images, annotations []map[string]any
	for i := range benchImages {
		name := fmt.Sprintf("%02d.png", i)
		var f *os.File
		path := filepath.Join(dir, "d", "test", name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			f, err = os.Create(path)
		}
		if err == nil {
			picture := image.NewGray(image.Rect(0, 0, 16, 16))
			picture.Pix[i] = 255
			err = errors.Join(png.Encode(f, picture), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, map[string]any{"id": i, "file_name": name, "width": 16, "height": 16,
			"video": fmt.Sprint(i / 2)})
		for k, at := range []delivery.Box{circleAt, squareAt} {
			annotations = append(annotations, map[string]any{"id": 2*i + k + 1, "image_id": i, "category_id": k + 1,
				"bbox": []float64{at.X, at.Y, at.W, at.H}, "area": at.W * at.H, "iscrowd": 0})
		}
	}
	b.write(filepath.Join(dir, "d", "test", dataset.AnnotationsFile), map[string]any{"images": images,
		"annotations": annotations,
		"categories":  []map[string]any{{"id": 1, "name": "circle"}, {"id": 2, "name": "square"}}})
	return b
}

func (b *bench) write(path string, v any) {
	b.Helper()
	data, err := json.Marshal(v)
	if err == nil {
		err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644))
	}
	if err != nil {
		b.Fatal(err)
	}
}

// bundle stores a model of two classes whose second is found on some images.
func (b *bench) bundle(second string, finds func(i int) bool) delivery.Digest {
	b.Helper()
	model := filepath.Join(b.TempDir(), "model.onnx")
	b.write(model, second)
	digest, err := b.stages.Bundles.Push(b.Context(), artifact.Bundle{ModelPath: model, Golden: []byte("golden"),
		Labels:     []string{"circle", second},
		Provenance: map[string]string{"run": string(delivery.Sum([]byte(second)))},
		Signature: delivery.Signature{SchemaVersion: 1, Input: "input", Boxes: "dets", Logits: "labels", Width: 16,
			Height: 16,
			Resize: delivery.Resize{Algorithm: "bilinear", Padding: "none", DType: "float32"}, Means: []float64{0, 0,
				0}, Stds: []float64{1, 1, 1},
			Slots: []string{"circle", second, ""}, Background: 2, Select: 10}})
	if err != nil {
		b.Fatal(err)
	}
	var found []detect.ImageDetections
	for i := range benchImages {
		im := detect.ImageDetections{ID: int64(i), Detections: detect.Detections{Width: 16, Height: 16}}
		add := func(class string, at delivery.Box) {
			at.Class, at.Score = class, 0.9
			im.Boxes = append(im.Boxes, at)
		}
		add("circle", circleAt)
		if finds(i) {
			add(second, squareAt)
		}
		found = append(found, im)
	}
	b.write(filepath.Join(b.dir, "detections", detectKey(digest).Hex()+".json"), found)
	return digest
}

func detectKey(bundle delivery.Digest) delivery.Digest {
	return delivery.DigestOf("detect", bundle)
}

// ask is an evaluation of a bundle, the gate's squares as one of its classes.
func (b *bench) ask(bundle delivery.Digest, class string, change func(*delivery.EvalRun)) delivery.EvalRun {
	b.Helper()
	ask := delivery.EvalRun{Bundle: bundle,
		EvalSet: delivery.EvalSet{Dataset: delivery.Dataset{Source: "dir", Path: "d"},
			Split: "test"}, Detect: detectKey(bundle),
		Classes: delivery.Classes{{Name: "circle", Labels: []string{"circle"}},
			{Name: class, Labels: []string{"square"}}}}
	if change != nil {
		change(&ask)
	}
	data, err := b.stages.Datasets.EvalSet(b.Context(), ask.EvalSet, ask.Classes)
	if err != nil {
		b.Fatal(err)
	}
	ask.Images, ask.Truths = data.Content.Images, data.Content.Truths
	return ask
}

// do does the work of a run.
func (b *bench) do(spec delivery.RunSpec) any {
	b.Helper()
	b.runs++
	spec.Key = delivery.DigestOf("run", b.runs)
	dir := run.Folder(filepath.Join(b.dir, "runs"), spec.Kind, spec.Key)
	b.write(filepath.Join(dir, "spec.json"), spec)
	r, err := run.Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	result, err := b.stages.Work(b.Context(), r)
	if err != nil {
		b.Fatal(err)
	}
	return result
}

func (b *bench) eval(ask delivery.EvalRun) delivery.ScoreSet {
	b.Helper()
	return b.do(delivery.RunSpec{Kind: delivery.RunEval, Eval: &ask}).(delivery.ScoreSet)
}

func (b *bench) compare(candidate, baseline delivery.EvalRun, resamples int) delivery.CompareResult {
	b.Helper()
	ask := delivery.CompareRun{Candidate: candidate, Baseline: baseline, Resamples: resamples, Seed: 1}
	return b.do(delivery.RunSpec{Kind: delivery.RunCompare, Compare: &ask}).(delivery.CompareResult)
}

// saw keeps a list of images that a model was trained on.
func (b *bench) saw(images ...int) delivery.Digest {
	b.Helper()
	list := delivery.TrainingImages{Train: []string{}, Valid: []string{}}
	for _, i := range images {
		list.Train = append(list.Train, fmt.Sprintf("source:%02d_png", i))
	}
	data := delivery.Canonical(list)
	b.write(filepath.Join(b.dir, "seen", delivery.Sum(data).Hex()+".json"), json.RawMessage(data))
	return delivery.Sum(data)
}

func always(int) bool { return true }

func byVideo(e *delivery.EvalRun) { e.EvalSet.Group = "video" }

func apOf(s delivery.ScoreSet, class string) float64 {
	return s.Table.Figure("AP", []string{class}).Value
}

func TestEvalStage(t *testing.T) {
	b := newBench(t)
	half := b.bundle("box", func(i int) bool { return i%2 == 0 })
	all := b.eval(b.ask(half, "box", nil))
	if !slices.Equal(all.Classes, []string{"circle", "box"}) || all.Images != benchImages || all.Groups != 0 ||
		apOf(all, "circle") != 1 || apOf(all, "box") > 0.6 || all.Truths["box"] != benchImages {
		t.Errorf("%+v", all)
	}
	for _, metric := range []string{"mAP", "AP50", "AP75"} { // whatever a gate may bound has bounds
		row := all.Table.Figure(metric, all.Classes)
		if n := len(row.Samples()); n != 1000 || row.Value != all.Values[metric] {
			t.Errorf("%d resamples of %s where nobody asks for more", n, metric)
		}
	}
	if n := len(b.eval(b.ask(half, "box", func(e *delivery.EvalRun) {
		e.Resamples = 3000
	})).Table.Figure("AP", []string{"box"}).Resamples); n != 3000 {
		t.Errorf("%d resamples, and 3000 were asked for", n)
	}
	if grouped := b.eval(b.ask(half, "box", byVideo)); grouped.Groups != benchImages/2 ||
		grouped.Values["mAP"] != all.Values["mAP"] {
		t.Errorf("by video: %d groups, %v", grouped.Groups, grouped.Values)
	}
	// A class is found by its name, or else by a name that means it, and by no other.
	if renamed := b.eval(b.ask(half, "crate", func(e *delivery.EvalRun) {
		e.Classes[1].Labels = []string{"box", "square"}
	})); apOf(renamed, "crate") != apOf(all, "box") {
		t.Errorf("renamed: %v", renamed.Values)
	}
	if lost := b.eval(b.ask(half, "crate", nil)); !slices.Equal(lost.Classes, []string{"circle"}) {
		t.Errorf("of a class that it does not know: %v", lost.Classes)
	}
	if two := b.eval(b.ask(half, "crate", func(e *delivery.EvalRun) {
		e.Classes = delivery.Classes{{Name: "crate", Labels: []string{"box", "circle", "square"}}}
	})); len(two.Classes) > 0 {
		t.Errorf("of a class that two names of the bundle mean: %v", two.Classes)
	}
	seen := b.eval(b.ask(half, "box", func(e *delivery.EvalRun) {
		e.TrainingImages = []delivery.Digest{b.saw(1, 3, 5)}
	}))
	if seen.Images != benchImages-3 || seen.LeftOut != 3 || seen.Truths["box"] != benchImages-3 {
		t.Errorf("three images seen: %d, %d left out, %v", seen.Images, seen.LeftOut, seen.Truths)
	}
}

func TestCompareStage(t *testing.T) {
	b := newBench(t)
	half, all := b.bundle("box", func(i int) bool { return i%2 == 0 }), b.bundle("square", always)
	r := b.compare(b.ask(half, "box", nil), b.ask(all, "box", nil), 1000)
	d, _ := r.Compared("AP", []string{"box"})
	if !slices.Equal(r.Classes, []string{"circle", "box"}) || r.Images != benchImages || d.Baseline != 1 ||
		d.Candidate > 0.6 || len(d.Samples) != 1000 || len(r.Pictures) == 0 {
		t.Errorf("%+v, %v, %v", d, r.Classes, r.Pictures)
	}
	for _, metric := range []string{"AP50", "AP75"} {
		d, _ := r.Compared(metric, r.Classes)
		box, _ := r.Compared(metric, []string{"box"})
		if len(d.Samples) != 1000 || d.Value >= 0 || box.Value >= 0 {
			t.Errorf("%s: %d resamples, %+.4f, of box %+.4f", metric, len(d.Samples), d.Value, box.Value)
		}
	}
	// Of what only one knows nothing is compared.
	lamp := b.bundle("lamp", always)
	if r := b.compare(b.ask(half, "box", nil), b.ask(lamp, "box", nil), 1000); !slices.Equal(r.Classes,
		[]string{"circle"}) {
		t.Errorf("classes %v", r.Classes)
	}
	// What either was trained on counts for neither.
	seen := b.compare(
		b.ask(half, "box", func(e *delivery.EvalRun) { e.TrainingImages = []delivery.Digest{b.saw(0, 1)} }),
		b.ask(all, "box", func(e *delivery.EvalRun) { e.TrainingImages = []delivery.Digest{b.saw(1, 2), b.saw(3)} }),
		2500)
	if seen.Images != benchImages-4 || seen.LeftOut != 4 || seen.Truths["box"] != benchImages-4 ||
		len(seen.Difference.Figure("mAP", seen.Classes).Resamples) != 2500 {
		t.Errorf("four images seen: %d, %d left out, %v, %d resamples", seen.Images, seen.LeftOut, seen.Truths,
			len(seen.Difference.Figure("mAP", seen.Classes).Resamples))
	}
	grouped := b.compare(b.ask(half, "box", byVideo), b.ask(all, "box", byVideo), 1000)
	if grouped.Groups != benchImages/2 {
		t.Errorf("%d groups", grouped.Groups)
	}
}

// An eval set of pictures without objects measures false positives, and a comparison compares them.
func TestPicturesWithoutObjects(t *testing.T) {
	b := newBench(t)
	file := filepath.Join(b.dir, "d", "test", dataset.AnnotationsFile)
	data, err := os.ReadFile(file)
	var whole map[string]any
	if err := errors.Join(err, json.Unmarshal(data, &whole)); err != nil {
		t.Fatal(err)
	}
	whole["annotations"] = []any{}
	b.write(file, whole)
	at := func(e *delivery.EvalRun) {
		e.Classes[1].Labels = []string{"box", "package", "square"}
		e.Thresholds = map[string]float64{"circle": 0.5, "box": 0.5, "package": 0.5}
	}
	half := b.ask(b.bundle("box", func(i int) bool { return i%2 == 0 }), "box", at)
	all := b.ask(b.bundle("package", always), "box", at)
	score := b.eval(half)
	for classes, want := range map[string]float64{"circle": 1, "box": 0.5, "circle box": 1.5} {
		row := score.Table.Figure(delivery.MetricFalsePositives, strings.Fields(classes))
		if row.Value != want || len(row.Samples()) == 0 {
			t.Errorf("%s: %v false positives an image, want %v, %d samples", classes, row.Value, want,
				len(row.Samples()))
		}
	}
	if _, err := json.Marshal(score); err != nil || len(score.Classes) > 0 {
		t.Errorf("%v, classes %v", err, score.Classes)
	}
	c := b.compare(all, half, 200)
	if d, ok := c.Compared(delivery.MetricFalsePositives,
		[]string{"box"}); !ok || d.Value != 0.5 || len(d.Samples) == 0 {
		t.Errorf("%v: %v more, %d samples", ok, d.Value, len(d.Samples))
	}
}

// once is a detector that answers when the other run has begun, and counts.
type once struct {
	Detector
	found []detect.ImageDetections
	begun chan struct{}
	calls atomic.Int32
}

func (o *once) Evaluate(context.Context, detect.Request, func(done, total int)) ([]detect.ImageDetections, error) {
	o.calls.Add(1)
	<-o.begun
	return o.found, nil
}

// Two gates, or a gate and the test split, that have the same images are one pass of the detector, also if their runs
// go on at the same time.
func TestSameImagesAreDetectedOnce(t *testing.T) {
	b := newBench(t)
	bundle := b.bundle("square", always)
	stored := filepath.Join(b.dir, "detections", detectKey(bundle).Hex()+".json")
	want := b.eval(b.ask(bundle, "square", nil))
	data, err := os.ReadFile(stored)
	detector := &once{begun: make(chan struct{})}
	if err = errors.Join(err, json.Unmarshal(data, &detector.found), os.Remove(stored)); err != nil {
		t.Fatal(err)
	}
	b.stages.Detector = detector
	asks := []delivery.EvalRun{b.ask(bundle, "square", nil), b.ask(bundle, "square", byVideo)}
	opened := make([]*opened, len(asks))
	var runs sync.WaitGroup
	for i, ask := range asks {
		spec := delivery.RunSpec{Kind: delivery.RunEval, Key: delivery.DigestOf("same", i), Eval: &ask}
		dir := run.Folder(filepath.Join(b.dir, "runs"), spec.Kind, spec.Key)
		b.write(filepath.Join(dir, "spec.json"), spec)
		r, err := run.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		runs.Go(func() {
			if i == 1 {
				close(detector.begun)
			}
			if opened[i], err = b.stages.open(t.Context(), r, ask); err != nil {
				t.Error(err)
			}
		})
	}
	runs.Wait()
	if n := detector.calls.Load(); n != 1 {
		t.Errorf("the detector ran %d times", n)
	}
	for i, o := range opened {
		if o == nil || o.digest != want.Detections {
			t.Errorf("run %d has other detections", i)
		}
	}
	again, err := os.ReadFile(stored)
	if err != nil || !bytes.Equal(again, data) {
		t.Errorf("the stored detections differ, %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(b.dir, "runs", ".detect-*")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}
