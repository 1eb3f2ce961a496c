package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/dataset"
	"github.com/autonomos/aob/reconciler/delivery"
)

// ownDataset writes a dataset of squares, with n images in each split.
func ownDataset(t *testing.T, splits map[string]int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "Pallets 2026")
	shade := 0
	for split, n := range splits {
		if err := os.MkdirAll(filepath.Join(dir, split), 0o755); err != nil {
			t.Fatal(err)
		}
		type object map[string]any
		coco := map[string][]object{"categories": {{"id": 1, "name": "EUR pallet"}, {"id": 2, "name": "yes"},
			{"id": 3, "name": "never seen"}}, "images": {}, "annotations": {}}
		for i := range n {
			shade++
			img := image.NewGray(image.Rect(0, 0, 40, 40))
			for p := range img.Pix {
				img.Pix[p] = uint8(shade * (p%7 + 1))
			}
			img.SetGray(1, 1, color.Gray{Y: uint8(shade >> 8)})
			var b bytes.Buffer
			if err := png.Encode(&b, img); err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprintf("%s-%d.png", split, i)
			if err := os.WriteFile(filepath.Join(dir, split, name), b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
			coco["images"] = append(coco["images"], object{"id": i + 1, "file_name": name, "width": 40, "height": 40})
			coco["annotations"] = append(coco["annotations"], object{"id": i + 1, "image_id": i + 1,
				"category_id": 1 + i%2, "bbox": []int{4, 4, 20, 20}, "area": 400, "iscrowd": 0})
		}
		data, err := json.Marshal(coco)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, split, "_annotations.coco.json"), data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func gitOutput(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("git", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v: %s", args, err, out)
	}
	return string(out)
}

// A first model of RF-DETR has the resolution that its size is made for.
func TestInitOfRFDETR(t *testing.T) {
	data := ownDataset(t, map[string]int{"train": 30, "valid": 8, "test": 24})
	for size, want := range map[string]int{"nano": 384, "rf-detr-small": 512, "medium": 576, "large": 704} {
		size, err := sizeOfRFDETR(size)
		if err != nil || size.resolution != want || !strings.HasPrefix(size.with, "rfdetr@") {
			t.Errorf("%+v, %v; want %d", size, err, want)
		}
	}
	dir, link := filepath.Join(t.TempDir(), "w"), filepath.Join(t.TempDir(), filepath.Base(data))
	if err := os.Symlink(data, link); err != nil { // the configuration has the folder that it leads to
		t.Fatal(err)
	}
	w, err := initWorld(t.Context(), initRequest{dir: dir, python: "python3", dataset: link, rfdetr: "nano"},
		io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(w.Own.Needs, "rfdetr@") {
		t.Errorf("it needs %q", w.Own.Needs)
	}
	v, err := validate(w.Clone, w.Config, "")
	if err != nil || len(v.Complaints) > 0 {
		t.Errorf("%v, %v", err, v.Complaints)
	}
	model, err := os.ReadFile(filepath.Join(w.Clone, "models", "pallets-2026.yaml"))
	if err != nil || !strings.Contains(string(model), "architecture: rf-detr-nano\n  resolution: 384 ") {
		t.Errorf("%v: %s", err, model)
	}
	for what, r := range map[string]initRequest{"has no size": {rfdetr: "base", dataset: data},
		"needs a dataset": {rfdetr: "small"}} {
		r.dir = filepath.Join(t.TempDir(), "w")
		_, err := initWorld(t.Context(), r, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

// A dataset of the user's own gets a gate on main that they own, and a first model in a pull request.
func TestInitOfADataset(t *testing.T) {
	data := ownDataset(t, map[string]int{"train": 30, "valid": 8, "test": 24})
	w, err := initWorld(t.Context(), initRequest{dir: filepath.Join(t.TempDir(), "w"), python: "python3",
		dataset: data},
		io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	own := w.Own
	if own.Model != "pallets-2026" || own.Owner != me.Username || !slices.Equal(own.Classes, []string{"EUR pallet",
		"yes"}) ||
		len(own.Splits) != 3 || own.Splits[0].Images != 30 || own.Splits[2].Objects["EUR pallet"] != 12 {
		t.Errorf("found %+v", own)
	}
	if got := gitOutput(t, "-C", w.Repository, "ls-tree", "-r", "--name-only",
		"main"); got != "gates/pallets-2026.yaml\n" {
		t.Errorf("main has %s", got)
	}
	if got := gitOutput(t, "-C", w.Repository, "ls-tree", "-r", "--name-only", "first-model"); got !=
		"fleets/demo.yaml\ngates/pallets-2026.yaml\nmodels/pallets-2026.yaml\n" {
		t.Errorf("the branch has %s", got)
	}
	gate := gitOutput(t, "-C", w.Repository, "show", "main:gates/pallets-2026.yaml")
	for _, want := range []string{"split: test, content: \"sha256:", `classes: [EUR pallet, "yes"]`,
		"covers: [pallets-2026]", "{metric: size, max: 200MB}"} { // RF-DETR has 150 MB
		if !strings.Contains(gate, want) {
			t.Errorf("the gate has no %s:\n%s", want, gate)
		}
	}
	// The gate on main is complete before its model, and so is the branch.
	for _, branch := range []string{"main", "first-model"} {
		gitOutput(t, "-C", w.Clone, "checkout", "-q", branch)
		if v, err := validate(w.Clone, w.Config, ""); err != nil || len(v.Complaints) > 0 ||
			len(v.Notes) != map[string]int{"main": 1}[branch] {
			t.Errorf("%s: %+v, %v", branch, v, err)
		}
		if r, err := freeze(t.Context(), freezeRequest{name: own.Gate, config: w.Config, dir: w.Clone,
			check: true}); err != nil || r.Changed {
			t.Errorf("%s: the gate is not frozen: %v", branch, err)
		}
	}
	if bad := slices.DeleteFunc(diagnose(t.Context(), w.Config, false), func(d diagnosis) bool {
		return d.Check != "dataset dir:pallets-2026" && !strings.HasPrefix(d.Check, "owners")
	}); len(bad) != 2 || bad[0].State != diagnosisOK || bad[1].State != diagnosisOK {
		t.Errorf("the doctor says %+v", bad)
	}
}

// A dataset that is not divided gets as many test images as a gate needs, if it can.
func TestInitDividesADataset(t *testing.T) {
	// One with train alone is one that is not divided.
	data := ownDataset(t, map[string]int{"train": 60})
	splits := filepath.Join(data, dataset.SplitsFile)
	if _, err := initWorld(t.Context(), initRequest{dir: filepath.Join(data, "train"), dataset: data}, io.Discard,
		io.Discard); err == nil {
		t.Error("a folder that is not empty is written into")
	}
	if _, err := os.Stat(splits); err == nil {
		t.Error("a failed init leaves splits.json in the dataset")
	}
	w, err := initWorld(t.Context(), initRequest{dir: filepath.Join(t.TempDir(), "w"), dataset: data,
		python: "python3"},
		io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if got := w.Own.Splits; len(got) != 3 || got[0].Images+got[1].Images+got[2].Images != 60 || got[2].Images < 20 {
		t.Errorf("divided into %+v", got)
	}
	if _, err := os.Stat(splits); err != nil {
		t.Error(err)
	}
}

// What makes the gate's decisions hard is said at once.
func TestInitWarnsOfASmallTestSplit(t *testing.T) {
	data := ownDataset(t, map[string]int{"train": 6, "valid": 3, "test": 5})
	w, err := initWorld(t.Context(), initRequest{dir: filepath.Join(t.TempDir(), "w"), dataset: data, name: "p",
		python: "python3"}, io.Discard, io.Discard)
	if err != nil || !strings.Contains(strings.Join(w.Own.Warnings, "\n"), "5 images are too few") {
		t.Errorf("%+v, %v", w.Own, err)
	}
}

// An interrupted init says so, and leaves nothing behind.
func TestInitThatIsInterrupted(t *testing.T) {
	python := filepath.Join(t.TempDir(), "python")
	if err := os.WriteFile(python, []byte("#!/bin/sh\n[ \"$1\" = -c ] && exit\nexec sleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	dir := filepath.Join(t.TempDir(), "world")
	_, err := initWorld(ctx, initRequest{dir: dir, python: python, images: 8}, stopAt{"making", cancel}, io.Discard)
	if err == nil || err.Error() != context.Canceled.Error() {
		t.Errorf("an interrupted init says %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it leaves its folder: %v", err)
	}
}

// stopAt cancels once a text is written.
type stopAt struct {
	text   string
	cancel func()
}

func (s stopAt) Write(p []byte) (int, error) {
	if strings.Contains(string(p), s.text) {
		s.cancel()
	}
	return len(p), nil
}

// A damaged dataset is refused before anything is written, with its first fault and how many there are.
func TestInitOfADamagedDataset(t *testing.T) {
	data := ownDataset(t, map[string]int{"train": 6, "valid": 3, "test": 5})
	for _, name := range []string{"train-1.png", "valid-2.png"} {
		if err := os.Remove(filepath.Join(data, strings.Split(name, "-")[0], name)); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(t.TempDir(), "w")
	_, err := initWorld(t.Context(), initRequest{dir: dir, dataset: data, name: "p", python: "python3"}, io.Discard,
		io.Discard)
	if err == nil || !strings.Contains(err.Error(), "train/train-1.png") || !strings.Contains(err.Error(),
		"more findings)") {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it leaves a folder: %v", err)
	}
}

// What cannot work is said before anything is written, or leaves nothing behind.
func TestInitLeavesNothingAfterAFailure(t *testing.T) {
	python := filepath.Join(t.TempDir(), "python")
	for name, c := range map[string]struct {
		script    string
		request   initRequest
		want, fix string
	}{
		"Python without NumPy": {"#!/bin/sh\necho numpy\n", initRequest{images: 8}, "has no module numpy",
			"apt-get install python3-numpy"},
		"no Python": {"", initRequest{images: 8}, "Python does not run", "apt-get install python3"},
		"a generator that fails": {"#!/bin/sh\n[ \"$1\" = -c ] && exit\necho broken\nexit 1\n", initRequest{images: 8},
			"make the dataset: exit status 1: broken", ""},
		"no dataset": {"", initRequest{dataset: filepath.Join(t.TempDir(), "none")}, "there is no folder",
			"name the folder"},
		"a folder of no use": {"", initRequest{dataset: t.TempDir(), name: "p"}, "holds no dataset", "CVAT"},
		"no name": {"", initRequest{dataset: ownDataset(t, map[string]int{"train": 1, "valid": 1, "test": 1}),
			name: "Ä b"},
			`"Ä b" is no name for a model`, "--name"},
	} {
		os.Remove(python)
		if c.script != "" {
			if err := os.WriteFile(python, []byte(c.script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for _, there := range []bool{false, true} {
			c.request.dir, c.request.python = filepath.Join(t.TempDir(), "world"), python
			if there {
				if err := os.Mkdir(c.request.dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			_, err := initWorld(t.Context(), c.request, io.Discard, io.Discard)
			hint := ""
			if b, ok := errors.AsType[delivery.Blocked](err); ok {
				hint = b.Do
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(hint, c.fix) {
				t.Errorf("%s: %v; hint %q", name, err, hint)
			}
			list, err := os.ReadDir(c.request.dir)
			if there != (err == nil) || len(list) > 0 {
				t.Errorf("%s: it leaves %v, %v", name, list, err)
			}
		}
	}
}

// A label that cannot be the name of a class is mapped to one.
func TestInitMapsOddLabels(t *testing.T) {
	data := ownDataset(t, map[string]int{"train": 6, "valid": 3, "test": 5})
	for _, split := range []string{"train", "valid", "test"} {
		path := filepath.Join(data, split, dataset.AnnotationsFile)
		text, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, bytes.ReplaceAll(text, []byte("EUR pallet"), []byte("EUR\u00a0pallet ")), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	w, err := initWorld(t.Context(), initRequest{dir: filepath.Join(t.TempDir(), "w"), dataset: data, name: "p",
		python: "python3"}, io.Discard, io.Discard)
	if err != nil || !slices.Equal(w.Own.Classes, []string{"EUR pallet", "yes"}) ||
		w.Own.Splits[0].Objects["EUR pallet"] == 0 {
		t.Fatalf("%+v, %v", w.Own, err)
	}
	for file, want := range map[string]string{"models/p.yaml": "classes: {EUR pallet: [\"EUR\\u00a0pallet \"], " +
		"\"yes\": [\"yes\"]}",
		"gates/p.yaml": "labels: {EUR pallet: [\"EUR\\u00a0pallet \"]}"} {
		if got := gitOutput(t, "-C", w.Repository, "show", "first-model:"+file); !strings.Contains(got, want) {
			t.Errorf("%s has no %s:\n%s", file, want, got)
		}
	}
}

// A folder that is not empty is left alone; what an init that was killed has left is named as that.
func TestInitIntoAFolderOfAnother(t *testing.T) {
	for name, c := range map[string]struct {
		there     []string
		what, fix string
	}{
		"something else": {[]string{"notes"}, "is not empty", "name another folder, or empty it"},
		"one that was killed": {[]string{"state", "intent.git"},
			"parts of an aob init that was ended before it was done", "rm -r"},
		"one that was killed early": {[]string{"state"}, "parts of an aob init that was ended", "rm -r"},
		"a whole one": {[]string{"state", "intent.git", "devices"}, "has what an earlier aob init wrote",
			"aob serve --config "},
	} {
		dir := filepath.Join(t.TempDir(), "a world")
		for _, part := range c.there {
			if err := os.MkdirAll(filepath.Join(dir, part), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		_, err := initWorld(t.Context(), initRequest{dir: dir, images: 8, python: "python3"}, io.Discard, io.Discard)
		b, ok := errors.AsType[delivery.Blocked](err)
		if !ok || !strings.Contains(b.What, c.what) || !strings.Contains(b.Do, c.fix) {
			t.Errorf("%s: %v", name, err)
		}
		if list, err := os.ReadDir(dir); err != nil || len(list) != len(c.there) {
			t.Errorf("%s: the folder has %v, %v", name, list, err)
		}
	}
}
