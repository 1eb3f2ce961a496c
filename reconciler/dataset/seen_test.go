package dataset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/store"
)

// sharedBCCD is the real dataset of blood cells, or the test is skipped.
func sharedBCCD(t testing.TB) string {
	t.Helper()
	shared := os.Getenv("AOB_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "shared")
	}
	dir, err := filepath.Abs(filepath.Join(shared, "data", "bccd"))
	if err == nil {
		_, err = os.Stat(dir)
	}
	if err != nil {
		t.Skipf("the dataset BCCD is not there: %v; AOB_SHARED names the folder of data/bccd", err)
	}
	return dir
}

var bloodCells = delivery.Classes{{Name: "Platelets", Labels: []string{"Platelets"}},
	{Name: "RBC", Labels: []string{"RBC"}}, {Name: "WBC", Labels: []string{"WBC"}}}

// leaking copies BCCD and puts test images into train: encoded anew, under the
// names that name gives them.
func leaking(t *testing.T, n int, name func(stem string) string) (root string, leaked []string) {
	from, root := sharedBCCD(t), t.TempDir()
	to := filepath.Join(root, "bccd")
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		if e.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	annotations := func(split string) (file map[string]any, images []any) {
		data, err := os.ReadFile(filepath.Join(to, split, AnnotationsFile))
		if err == nil {
			err = json.Unmarshal(data, &file)
		}
		if err != nil {
			t.Fatal(err)
		}
		return file, file["images"].([]any)
	}
	_, test := annotations("test")
	train, images := annotations("train")
	for i := range n {
		im := test[i].(map[string]any)
		old := im["file_name"].(string)
		stem, _, _ := strings.Cut(strings.TrimSuffix(old, filepath.Ext(old)), ".rf.")
		file := name(stem)
		leaked = append(leaked, "train/"+file)
		source, err := os.Open(filepath.Join(to, "test", old))
		if err != nil {
			t.Fatal(err)
		}
		decoded, _, err := image.Decode(source)
		source.Close()
		var out bytes.Buffer
		if err = errors.Join(err, jpeg.Encode(&out, decoded, &jpeg.Options{Quality: 70}),
			os.WriteFile(filepath.Join(to, "train", file), out.Bytes(), 0o644)); err != nil {
			t.Fatal(err)
		}
		images = append(images, map[string]any{"id": 100_000 + i, "file_name": file, "width": im["width"],
			"height": im["height"]})
	}
	train["images"] = images
	data, err := json.Marshal(train)
	if err == nil {
		err = os.WriteFile(filepath.Join(to, "train", AnnotationsFile), data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return root, leaked
}

// checked is a data run of a copy, with the list of what the trainer gets.
func checked(t *testing.T, root string) (delivery.DataResult, delivery.TrainingImages) {
	t.Helper()
	seen := store.Folder(t.TempDir())
	r, err := folders("data", root).Check(t.Context(), delivery.DataRun{Dataset: inDir("data/bccd"),
		Classes: bloodCells}, filepath.Join(t.TempDir(), "prepared"), seen, nil)
	if err != nil {
		t.Fatal(err)
	}
	var list delivery.TrainingImages
	if !r.Failed() {
		if list, err = ReadTrainingImages(seen, r.TrainingImages); err != nil {
			t.Fatal(err)
		}
	}
	return r, list
}

func find(r delivery.DataResult, code string) delivery.Finding {
	for _, f := range r.Findings {
		if f.Code == code {
			return f
		}
	}
	return delivery.Finding{}
}

func TestLeaksUnderRoboflowNames(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	robo := func(stem string) string {
		return strings.TrimSuffix(stem, "_jpg") + "_jpg.rf." + strings.Repeat("0a", 16) + ".jpg"
	}
	root, leaked := leaking(t, 3, robo)
	r, seen := checked(t, root)
	if f := find(r, "leak"); r.Failed() || r.LeftOut != 3 || f.Count != 3 || f.Level != delivery.LevelWarning ||
		!slices.Contains(leaked, f.Where) {
		t.Errorf("three leaks: %d left out, %+v", r.LeftOut, r.Findings)
	}
	if f := find(r, "perceptual-twin"); f.Count != 0 {
		t.Errorf("what is left out is no twin too: %+v", f)
	}
	for _, file := range leaked {
		name, _ := source(file)
		if slices.Contains(seen.Train, "source:"+name) {
			t.Errorf("%s is left out of training, and counts as seen", file)
		}
	}
	// Six in a hundred are too many: nothing is prepared.
	root, _ = leaking(t, (r.Images["train"]+14)*6/100, robo)
	r, _ = checked(t, root)
	if f := find(r, "leaks"); !r.Failed() || f.Level != delivery.LevelError ||
		!strings.Contains(f.Text, "at most 5% may") || r.Prepared != "" {
		t.Errorf("six per cent: %+v", r.Findings)
	}
}

func TestTwinsUnderOtherNames(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	n := 0
	root, leaked := leaking(t, 3, func(string) string { n++; return fmt.Sprintf("upload-%d.jpg", n) })
	r, _ := checked(t, root)
	f := find(r, "perceptual-twin")
	if lines := f.Lines(); len(lines) != 3 ||
		!strings.HasPrefix(lines[2], leaked[2]+`: looks the same as "test/BloodImage`) {
		t.Errorf("want every pair: %q", lines)
	}
	if r.Failed() || r.LeftOut != 0 || f.Count != 3 || f.Level != delivery.LevelWarning || f.Where != leaked[0] ||
		!strings.Contains(f.Text, `looks the same as "test/BloodImage`) {
		t.Errorf("%d left out, %+v", r.LeftOut, f)
	}
}

// BCCD's own images are of one kind, and none is another's twin.
func TestNoTwinsInBCCD(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	dir := sharedBCCD(t)
	r, seen := checked(t, filepath.Dir(dir))
	if len(r.Findings) > 0 && find(r, "perceptual-twin").Count != 0 {
		t.Errorf("%+v", r.Findings)
	}
	if len(seen.Train) != 2*r.Images["train"] || len(seen.Valid) != 2*r.Images["valid"] ||
		r.Valid.Count != r.Images["valid"] || r.Valid.EvalSet.Split != "valid" {
		t.Errorf("%d and %d seen, %+v", len(seen.Train), len(seen.Valid), r)
	}
}

func TestSameImage(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"cells_jpg.rf.0a1b.jpg", "cells_jpg.rf.ffff.jpg", true},
		{"cells_jpg.rf.0a1b.jpg", "test/cells.jpg", true},
		{"cells_jpg.rf.0a1b.jpg", "cells.JPEG", true},
		{"cells_png.rf.0a1b.jpg", "cells.png", true},
		{"cells_png.rf.0a1b.jpg", "cells.jpg", false},
		{"frame_1.jpg", "other/frame_1.jpg", false}, // two cameras
		{"cells_jpg.rf.0a1b.jpg", "cells2.jpg", false},
		{".rf.0a1b.jpg", ".rf.ffff.jpg", false},
		{"a.rf.b.rf.c.jpg", "a.rf.b_jpg.rf.d.jpg", false},
		{"a.rf.b_jpg.rf.d.jpg", "x/a.rf.b_jpg.rf.e.png", true},
		{"1", "2", false},
		{"IMG_1436_JPG_jpg.rf.0a1b.jpg", "IMG_1436.JPG", true},
		{"IMG_1436_JPG_jpg.rf.0a1b.jpg", "IMG_1436_JPG.rf.ffff.jpg", true},
		{"IMG_3147_jpeg_jpg.rf.0a1b.jpg", "IMG_3147.jpg", true},
		{"DJI_0097_Z_JPG_jpg.rf.0a1b.jpg", "DJI_0098_Z.JPG", false},
		{"cells_webp_png_jpg.rf.0a1b.jpg", "cells.webp", true},
		{"cells_jpg.rf.0123456789abcdef0123456789abcdef_jpg.rf.0a1b.jpg", "cells.jpg", true},
	} {
		for _, pair := range [][2]string{{c.a, c.b}, {c.b, c.a}} {
			same := false
			for _, id := range matches(pair[0], "sum"+pair[0]) {
				same = same || slices.Contains(identities(pair[1], "sum"+pair[1]), id)
			}
			if same != c.same {
				t.Errorf("%v: the same: %v", pair, same)
			}
		}
	}
}

// What a model has seen of an eval set that came later is found by content and by
// source; on a validation split it was trained on alone counts.
func TestUsedInTraining(t *testing.T) {
	b := newDataset(t)
	seen := store.Folder(t.TempDir())
	check := func() delivery.DataResult {
		r, err := folders("d", b.dir).Check(t.Context(), delivery.DataRun{Dataset: inDir("d"),
			Classes: classes}, filepath.Join(t.TempDir(), "p"), seen, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	digest := check().TrainingImages
	list, err := ReadTrainingImages(seen, digest)
	if err != nil {
		t.Fatal(err)
	}
	for split, want := range map[string]int{"test": 1, "valid": 0, "train": 4} {
		if split == "test" { // one of its images was trained on
			b.image("test", "late.png", 102)
			b.annotate("test", nil)
		}
		data, err := folders("d", b.dir).EvalSet(t.Context(), delivery.EvalSet{Dataset: inDir("d"),
			Split: split}, classes)
		if err != nil {
			t.Fatal(err)
		}
		if got := data.UsedInTraining(list); len(got) != want {
			t.Errorf("%s: seen %v, want %d", split, got, want)
		}
	}
	if err := os.WriteFile(filepath.Join(string(seen), seenFile(digest)), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadTrainingImages(seen, digest); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("damaged: %v", err)
	}
	if _, err := ReadTrainingImages(store.Folder(t.TempDir()), digest); err == nil ||
		strings.Contains(err.Error(), "/") {
		t.Errorf("gone: %v", err)
	}
}

func TestFreeze(t *testing.T) {
	b := newDataset(t)
	roots := folders("d", b.dir)
	f, err := roots.Freeze(t.Context(), delivery.EvalSet{Dataset: inDir("d"), Split: "test"})
	if err != nil || f.Images != 4 || f.Truths["circle"] != 4 || f.EvalSet.Content == "" {
		t.Fatalf("%v %+v", err, f)
	}
	open := func() error {
		_, err := roots.EvalSet(t.Context(), f.EvalSet, classes)
		r, checkErr := b.check(classes, f.EvalSet)
		if (err == nil) == (checkErr != nil || r.Failed()) {
			t.Errorf("opening says %v, checking %v %+v", err, checkErr, r.Findings)
		}
		return err
	}
	if err := open(); err != nil {
		t.Fatal(err)
	}
	// One truth moved, in a class that the model does not know too, is noticed.
	b.annotate("test", func(file object) {
		file["annotations"].([]object)[3]["bbox"] = []float64{2, 3, 10, 9}
	})
	if err := open(); err == nil || !strings.Contains(err.Error(), "but the gate froze") ||
		!strings.Contains(err.Error(), "aob gate freeze") {
		t.Errorf("%v", err)
	}
	b.annotate("test", nil)
	b.image("test", "test-0.png", 999)
	b.names["test"] = b.names["test"][:4]
	if open() == nil {
		t.Error("another image, and nobody notices")
	}
}

// A validation image that stands in an eval set is left out of validation, too: no
// experiment is scored on what a gate judges on.
func TestWithheld(t *testing.T) {
	b := newDataset(t)
	for i := range 30 {
		b.image("valid", fmt.Sprintf("more-%d.png", i), 1000+i)
	}
	b.image("valid", "copy-of-a-test-image.png", testSeed) // the bytes of test-0.png
	b.annotate("valid", nil)
	seen := store.Folder(t.TempDir())
	roots := folders("d", b.dir)
	r, err := roots.Check(t.Context(), delivery.DataRun{Dataset: inDir("d"), Classes: classes},
		filepath.Join(t.TempDir(), "p"), seen, nil)
	if err != nil || r.Failed() || r.LeftOut != 1 || r.Images["valid"] != 34 || r.Valid.Count != 35 {
		t.Fatalf("%v, %+v", err, r)
	}
	list, err := ReadTrainingImages(seen, r.Valid.LeaveOut)
	if err != nil {
		t.Fatal(err)
	}
	data, err := roots.EvalSet(t.Context(), r.Valid.EvalSet, classes)
	if err != nil {
		t.Fatal(err)
	}
	if got := data.UsedInTraining(list); len(got) != 1 {
		t.Errorf("withheld %v", got)
	}
}
