package detect

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// The bounds of two detections that are the same one, and the least score of those that are compared.
const (
	leastScore = 0.05
	leastIoU   = 0.99
	mostShift  = 1e-3
	mostMAP    = 0.003 // the difference in mAP where each side decodes JPEG itself
)

// bccd returns the folder of the dataset of blood cells, or skips the test.
func bccd(t *testing.T) string {
	shared := os.Getenv("AOB_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "shared")
	}
	dir, err := filepath.Abs(filepath.Join(shared, "data", "bccd"))
	if err == nil {
		_, err = os.Stat(filepath.Join(dir, "test", "_annotations.coco.json"))
	}
	if err != nil {
		t.Skipf("the dataset BCCD is not there: %v; AOB_SHARED names the folder of data/bccd", err)
	}
	return dir
}

// A testSplit is BCCD's images for tests.
type testSplit struct {
	truth  *coco.Truth
	images []ImageFile // JPEG
}

func readTestSplit(t *testing.T, bccd string) testSplit {
	data, err := os.ReadFile(filepath.Join(bccd, "test", "_annotations.coco.json"))
	if err != nil {
		t.Fatal(err)
	}
	truth, err := coco.Loader{}.ReadTruth(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	s := testSplit{truth: truth}
	for _, image := range truth.Images {
		s.images = append(s.images, ImageFile{image.ID, filepath.Join(bccd, "test", image.FileName)})
	}
	if len(s.images) != 72 {
		t.Fatalf("BCCD has %d images for tests", len(s.images))
	}
	return s
}

// asPNG returns the images as they lie in a folder of PNG files.
func (s testSplit) asPNG(dir string) []ImageFile {
	return delivery.Each(s.images, func(f ImageFile) ImageFile {
		name := filepath.Base(f.Path)
		return ImageFile{f.ID, filepath.Join(dir, strings.TrimSuffix(name, filepath.Ext(name))+".png")}
	})
}

// mAP returns the mAP of the boxes on each image.
func (s testSplit) mAP(t *testing.T, boxes map[int64][]delivery.Box) float64 {
	category := map[string]int64{}
	for _, c := range s.truth.Categories {
		category[c.Name] = c.ID
	}
	var list []coco.Detection
	for _, image := range s.images {
		for _, b := range boxes[image.ID] {
			list = append(list, coco.Detection{Image: image.ID, Category: category[b.Class],
				Box: coco.Box{X: b.X, Y: b.Y, W: b.W, H: b.H}, Score: b.Score})
		}
	}
	m, err := coco.Match(s.truth, list, coco.Params{})
	if err != nil {
		t.Fatal(err)
	}
	return m.Result().Stats.AP
}

// A likeness says how far the detections of two programs are apart.
type likeness struct {
	boxes   int     // of a score of at least leastScore, of both sides
	alone   int     // of them without a partner within the bounds
	least   float64 // IoU of partners
	shift   float64 // largest difference of the scores of partners
	example string  // a box that is alone
}

func (l likeness) String() string {
	s := fmt.Sprintf("%d boxes, %d without a partner; IoU at least %.6f, scores within %.2g", l.boxes, l.alone, l.least,
		l.shift)
	if l.example != "" {
		s += "; such as " + l.example
	}
	return s
}

// compare finds a partner for each box of one side with a score of at least leastScore, and then for each of the other.
// A partner is a box of the same class within the bounds, and of any score. A box is the partner of one other.
func (s testSplit) compare(ours, theirs map[int64][]delivery.Box) likeness {
	l := likeness{least: 1}
	for _, image := range s.images {
		name := filepath.Base(image.Path)
		l.add(name, ours[image.ID], theirs[image.ID])
		l.add(name, theirs[image.ID], ours[image.ID])
	}
	return l
}

func (l *likeness) add(image string, boxes, others []delivery.Box) {
	taken := make([]bool, len(others))
	for _, b := range boxes {
		if b.Score < leastScore {
			continue
		}
		l.boxes++
		best, at := 0.0, -1
		for i, o := range others {
			if iou := overlap(b, o); !taken[i] && o.Class == b.Class && iou >= leastIoU && iou > best &&
				math.Abs(o.Score-b.Score) <= mostShift {
				best, at = iou, i
			}
		}
		if at < 0 {
			l.alone++
			if l.example == "" {
				l.example = fmt.Sprintf("%s: %+v", image, b)
			}
			continue
		}
		taken[at] = true
		l.least = min(l.least, best)
		l.shift = max(l.shift, math.Abs(others[at].Score-b.Score))
	}
}

// judge compares what Python found with what the model finds in aob-detect: on PNG files of the pixels that Python had,
// where each of at least some boxes must have a partner, and on the JPEG files.
func (s testSplit) judge(t *testing.T, r Request, theirs map[int64][]delivery.Box, pngs string, some int) {
	t.Helper()
	r.Images = s.asPNG(pngs)
	if like := s.near(t, "equal pixels", r, theirs); like.alone > 0 || like.boxes < some {
		t.Errorf("equal pixels: %v; want at least %d boxes, and a partner of each", like, some)
	}
	r.Images = s.images
	s.near(t, "each its own JPEG decoder", r, theirs)
}

// near says how far the model's detections are from Python's. Their mAP must be within the bound.
func (s testSplit) near(t *testing.T, name string, r Request, theirs map[int64][]delivery.Box) likeness {
	t.Helper()
	found, err := withLibrary(t).Evaluate(t.Context(), r, nil)
	if err != nil {
		t.Fatal(err)
	}
	ours := map[int64][]delivery.Box{}
	for _, f := range found {
		ours[f.ID] = f.Boxes
	}
	like, mAP, reference := s.compare(ours, theirs), s.mAP(t, ours), s.mAP(t, theirs)
	t.Logf("%s: %v; mAP %.5f, of Python %.5f", name, like, mAP, reference)
	if math.Abs(mAP-reference) > mostMAP {
		t.Errorf("%s: mAP is %.5f, and of Python %.5f", name, mAP, reference)
	}
	return like
}

// boxesOf turns what reference.py prints, [slot, score, corners] by file name, into boxes by image.
func (s testSplit) boxesOf(t *testing.T, sig delivery.Signature, printed []byte) map[int64][]delivery.Box {
	var found map[string][][6]float64
	if err := json.Unmarshal(printed, &found); err != nil {
		t.Fatal(err)
	}
	boxes := map[int64][]delivery.Box{}
	for _, image := range s.images {
		list, ok := found[filepath.Base(image.Path)]
		if !ok {
			t.Fatalf("Python has nothing on %s", image.Path)
		}
		for _, v := range list {
			if sig.Slots[int(v[0])] == "" {
				continue // no class
			}
			boxes[image.ID] = append(boxes[image.ID], delivery.Box{Class: sig.Slots[int(v[0])], Score: v[1],
				X: v[2], Y: v[3], W: v[4] - v[2], H: v[5] - v[3]})
		}
	}
	return boxes
}

// A model that trainers/tiny has trained finds the same in aob-detect as in PyTorch with NumPy, on all images of the
// test split.
func TestTinyLikePython(t *testing.T) {
	if testing.Short() {
		t.Skip("trains a model for half a minute: run it without -short")
	}
	d, data := withLibrary(t), bccd(t)
	python := referencePython(t, "import torch, onnx, PIL")
	dir := t.TempDir()
	out := filepath.Join(dir, "run")
	spec := map[string]any{"classes": []string{"RBC", "WBC", "Platelets"}, "train": map[string]any{"with": "tiny@1",
		"resolution": 160, "epochs": 3, "batch": map[string]int{"effective": 8, "step": 8},
		"optimizer": map[string]any{"name": "adamw", "lr": 0.003, "warmup": 1, "schedule": "cosine"}}}
	runPython(t, python, "../../trainers/tiny/train.py", map[string]any{"key": "sha256:0", "seed": 1, "dataset": data,
		"output": out, "spec": spec})
	model := filepath.Join(out, "model.onnx")
	sig, _, err := d.Inspect(t.Context(), model)
	if err != nil {
		t.Fatal(err)
	}
	trainer, err := filepath.Abs("../../trainers/tiny")
	if err != nil {
		t.Fatal(err)
	}
	split, pngs := readTestSplit(t, data), filepath.Join(dir, "png")
	if err := os.Mkdir(pngs, 0o755); err != nil {
		t.Fatal(err)
	}
	printed := runPython(t, python, "testdata/reference.py tiny", map[string]any{"trainer": trainer,
		"checkpoint": filepath.Join(out, "checkpoint"), "width": sig.Width, "height": sig.Height, "select": sig.Select,
		"images": delivery.Each(split.images, func(f ImageFile) string { return f.Path }), "pngs": pngs})
	split.judge(t, Request{Model: model, Signature: sig}, split.boxesOf(t, sig, printed), pngs, 1000)
}

// rfdetrPythons returns the Pythons with the versions of RF-DETR that differ in how a category becomes a slot.
func rfdetrPythons(t *testing.T) map[string]string {
	if os.Getenv("AOB_RFDETR") == "" {
		t.Skip("needs environments of three versions of rfdetr: AOB_RFDETR=1 runs it, as make test-rfdetr does")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	lock, err := os.ReadFile("../../trainers/rfdetr/versions/1.11.2/requirements.txt")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for version, pattern := range map[string]string{"1.4.3": "rfdetr-1.4.3-*", "1.9.1": "rfdetr-1.9.1-*",
		"1.11.2": filepath.Join("environments", delivery.Sum(lock).Hex()+"-*")} {
		files, err := filepath.Glob(filepath.Join(cache, "aob", pattern, "bin", "python"))
		if err != nil || len(files) == 0 {
			t.Skipf("there is no environment of rfdetr %s: make rfdetr-epochs", version)
		}
		found[version] = files[0]
	}
	return found
}

// An export of each version of RF-DETR with a rule of its own for slots finds in aob-detect what the version's own
// predict() finds. The weights are of one training of 26 steps, which is too short to find cells well.
func TestRFDETRLikePredict(t *testing.T) {
	programs := rfdetrPythons(t)
	data := bccd(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "run")
	// The model is that of export_as.py.
	spec := map[string]any{"classes": []string{"RBC", "WBC", "Platelets"}, "train": map[string]any{
		"with": "rfdetr@1.11.2", "architecture": "rf-detr-nano", "resolution": 128, "epochs": 1,
		"batch":     map[string]int{"effective": 8, "step": 8},
		"optimizer": map[string]any{"name": "adamw", "lr": 0.0005, "warmup": 0, "schedule": "cosine"},
		"args": map[string]any{"dec_layers": 1, "num_queries": 64, "num_select": 64, "group_detr": 1,
			"num_workers": 0, "multi_scale": "off"}}}
	runPython(t, programs["1.11.2"], "../../trainers/rfdetr/train.py", map[string]any{"key": "sha256:0", "seed": 7,
		"dataset": data, "output": out, "spec": spec})
	split := readTestSplit(t, data)
	for version, python := range programs {
		t.Run(version, func(t *testing.T) {
			folder := filepath.Join(dir, version)
			if err := os.Mkdir(folder, 0o755); err != nil {
				t.Fatal(err)
			}
			printed := runPython(t, python, "../../trainers/rfdetr/test_epochs/export_as.py "+data+" "+folder,
				map[string]any{"weights": filepath.Join(out, "checkpoint"), "pngs": folder,
					"images": delivery.Each(split.images, func(f ImageFile) string { return f.Path })})
			var made struct {
				File  string
				Found json.RawMessage
			}
			if err := json.Unmarshal(printed, &made); err != nil {
				t.Fatal(err)
			}
			slots, err := SlotsOfCategories(version, categoriesOf(t, data))
			if err != nil {
				t.Fatal(err)
			}
			model := importExport(t, python, filepath.Join(folder, made.File), version, slots)
			sig, _, err := withLibrary(t).Inspect(t.Context(), model)
			if err != nil {
				t.Fatal(err)
			}
			theirs := split.boxesOf(t, sig, made.Found)
			// Its predict() shrinks floats with antialias. Its training did so with bytes, as the signature says.
			if version == "1.4.3" {
				split.near(t, "as in training", Request{Model: model, Signature: sig, Images: split.images}, theirs)
				sig.Resize.DType = "float32"
			}
			split.judge(t, Request{Model: model, Signature: sig}, theirs, folder, 2000)
		})
	}
}

// importExport makes what trainers/import makes of an export with the args that aob import writes for its version, and
// returns the file.
func importExport(t *testing.T, python, file, version string, slots []string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	args := map[string]any{"slots": slots, "select": 64 * len(slots)} // as export_as.py does: all pairs
	if resize, err := ResizeOf(version); err != nil {
		t.Fatal(err)
	} else if resize != "" {
		args["resize"] = resize
	}
	if args["clip"], err = Clips(version); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(filepath.Dir(file), "imported")
	runPython(t, python, "../../trainers/import/train.py", map[string]any{"key": "sha256:0", "seed": 1,
		"dataset": "/none", "output": out, "weights": map[string]any{"file": file, "sha256": delivery.Sum(data).Hex()},
		"spec": map[string]any{"classes": []string{"RBC", "WBC", "Platelets"},
			"train": map[string]any{"with": "import@1", "from": "export", "args": args}}})
	return filepath.Join(out, "model.onnx")
}

// categoriesOf returns the categories of the training split.
func categoriesOf(t *testing.T, bccd string) (list []Category) {
	data, err := os.ReadFile(filepath.Join(bccd, "train", "_annotations.coco.json"))
	var document struct {
		Categories []struct {
			ID                  int64
			Name, Supercategory string
		}
		Annotations []struct {
			Category int64 `json:"category_id"`
		}
	}
	if err := errors.Join(err, json.Unmarshal(data, &document)); err != nil {
		t.Fatal(err)
	}
	for _, c := range document.Categories {
		one := Category{ID: c.ID, Name: c.Name, Group: c.Supercategory}
		for _, a := range document.Annotations {
			one.Annotated = one.Annotated || a.Category == c.ID
		}
		list = append(list, one)
	}
	return list
}

// runPython runs a script with its arguments and the path of a file of JSON, and returns what it prints.
func runPython(t *testing.T, python, script string, document any) []byte {
	t.Helper()
	data, err := json.Marshal(document)
	file := filepath.Join(t.TempDir(), "document.json")
	if err := errors.Join(err, os.WriteFile(file, data, 0o600)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, slices.Concat([]string{"-W", "ignore"}, strings.Fields(script), []string{file})...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		said := errs.String()
		t.Fatalf("%s: %v: %s", script, err, said[max(0, len(said)-4000):])
	}
	return out
}
