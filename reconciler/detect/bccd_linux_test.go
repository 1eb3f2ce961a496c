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

// judge compares what Python found with what the model does in aob-detect: on PNG files of the pixels that Python had,
// and on the JPEG files. Both sides must find at least some boxes.
func (s testSplit) judge(t *testing.T, r Request, theirs map[int64][]delivery.Box, pngs string, some int) {
	t.Helper()
	evaluate := func(images []ImageFile) map[int64][]delivery.Box {
		r.Images = images
		found, err := withLibrary(t).Evaluate(t.Context(), r, nil)
		if err != nil {
			t.Fatal(err)
		}
		boxes := map[int64][]delivery.Box{}
		for _, f := range found {
			boxes[f.ID] = f.Boxes
		}
		return boxes
	}
	reference := s.mAP(t, theirs)
	for _, side := range []struct {
		name   string
		images []ImageFile
		bound  float64 // of the difference in mAP
	}{{"equal pixels", s.asPNG(pngs), mostMAP}, {"each its own JPEG decoder", s.images, mostMAP}} {
		ours := evaluate(side.images)
		like, mAP := s.compare(ours, theirs), s.mAP(t, ours)
		t.Logf("%s: %v; mAP %.5f, of Python %.5f", side.name, like, mAP, reference)
		if like.boxes < some {
			t.Errorf("%s: %d boxes are too few to say anything, want %d", side.name, like.boxes, some)
		}
		if like.alone > 0 && side.name == "equal pixels" {
			t.Errorf("%s: %v", side.name, like)
		}
		if math.Abs(mAP-reference) > side.bound {
			t.Errorf("%s: mAP is %.5f, and of Python %.5f", side.name, mAP, reference)
		}
	}
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
