package dataset

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/store"
)

// prepared checks a dataset and returns what the trainer gets as train.
func (b *builder) prepared() (delivery.DataResult, preparedFile) {
	b.t.Helper()
	out := filepath.Join(b.t.TempDir(), "prepared")
	r, err := folders("d", b.dir).Check(b.t.Context(), delivery.DataRun{Dataset: inDir("d"), Classes: classes}, out,
		store.Folder(b.t.TempDir()), nil)
	var file preparedFile
	if err == nil && !r.Failed() {
		var data []byte
		data, err = os.ReadFile(filepath.Join(out, "train", AnnotationsFile))
		err = errors.Join(err, json.Unmarshal(data, &file))
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return r, file
}

// twice lists image 1 of a split again, under the id 77 and with its boxes, after change.
func (b *builder) twice(split, name string, change func(annotation object)) {
	b.annotate(split, func(f object) {
		f["images"] = append(f["images"].([]object), object{"id": 77, "file_name": name, "width": 32, "height": 24})
		for i, a := range f["annotations"].([]object) {
			if a["image_id"] == 1 {
				a := object{"id": 700 + i, "image_id": 77, "category_id": a["category_id"], "bbox": a["bbox"],
					"area": a["area"], "iscrowd": 0}
				if change != nil {
					change(a)
				}
				f["annotations"] = append(f["annotations"].([]object), a)
			}
		}
	})
}

// A picture with two entries counts once, everywhere.
func TestCopiesCountOnce(t *testing.T) {
	for name, copied := range map[string]bool{"one file": false, "equal bytes": true} {
		t.Run(name, func(t *testing.T) {
			b := newDataset(t)
			whole, before := b.prepared()
			for _, split := range []string{"train", "valid", "test"} {
				file := split + "-1.png"
				if copied {
					data, err := os.ReadFile(filepath.Join(b.dir, split, file))
					if err != nil {
						t.Fatal(err)
					}
					file = "copy.png"
					b.write(split+"/"+file, data)
				}
				b.twice(split, file, nil)
			}
			r, after := b.prepared()
			if r.Images["train"] != 4 || r.Images["valid"] != 4 || r.Images["test"] != 4 || r.Truths["circle"] != 4 ||
				r.EvalSets[0].Count != 4 || r.Valid.Count != 4 || r.Training != whole.Training ||
				!reflect.DeepEqual(after, before) {
				t.Errorf("%+v, %+v", r, after)
			}
			e := delivery.EvalSet{Dataset: inDir("d"), Split: "test"}
			data, err := folders("d", b.dir).EvalSet(t.Context(), e, classes)
			if err != nil || len(data.Images) != 4 || len(data.Truth.Images) != 4 || len(data.Truth.Annotations) != 8 {
				t.Errorf("eval set: %v, %+v", err, data)
			}
			f, err := folders("d", b.dir).Freeze(t.Context(), e)
			if err != nil || f.Images != 4 || f.Truths["circle"] != 4 ||
				!slices.Contains(f.Problems, "1 image is a copy of another, and does not count again") {
				t.Errorf("freeze: %v, %+v", err, f)
			}
			b.twice("train", r.Findings[0].Where[len("train/"):], func(a object) { a["category_id"] = 1 })
			if r, _ := b.check(classes); !r.Failed() {
				t.Errorf("other labels: %+v", r.Findings)
			}
		})
	}
}

// Crowds, boxes outside the image and boxes of less than a pixel count nowhere.
func TestUnusedBoxesAreNotCounted(t *testing.T) {
	crowd := func(a object) { a["iscrowd"] = 1 }
	outside := func(a object) { a["bbox"] = []float64{40, 3, 10, 8} }
	small := func(a object) { a["bbox"] = []float64{2, 3, 0.5, 8} }
	inside := func(a object) { a["bbox"] = []float64{31.5, 3, 10, 8} } // only half a pixel of it
	for name, change := range map[string]func(object){"crowd": crowd, "outside": outside, "small": small,
		"half a pixel inside": inside} {
		for _, split := range []string{"train", "valid", "test"} {
			t.Run(name+" in "+split, func(t *testing.T) {
				b := newDataset(t)
				b.annotate(split, func(f object) {
					for _, a := range f["annotations"].([]object) {
						if a["category_id"] == 1 {
							change(a)
						}
					}
				})
				r, err := b.check(classes)
				if err != nil {
					t.Fatal(err)
				}
				empty := find(r, "empty-class")
				if split == "train" && (r.Truths["circle"] != 0 || !strings.Contains(empty.Text,
					"all 4 objects in train are")) {
					t.Errorf("%+v, %v", empty, r.Truths)
				}
				if split == "test" {
					e := delivery.EvalSet{Dataset: inDir("d"), Split: "test"}
					f, err := folders("d", b.dir).Freeze(t.Context(), e)
					if err != nil || f.Truths["circle"] != 0 || f.Truths["square"] != 4 {
						t.Errorf("freeze: %v, %+v", err, f)
					}
					if labels := r.EvalSets[0].Labels; !reflect.DeepEqual(labels, []string{"square"}) {
						t.Errorf("labels %q", labels)
					}
				}
			})
		}
	}
}

// Too few images for a decision are said before the training.
func TestFewImages(t *testing.T) {
	b := newDataset(t)
	e := delivery.EvalSet{Dataset: inDir("d"), Split: "test"}
	r, err := b.check(classes, e)
	if f := find(r, "few-images"); err != nil || r.Failed() || f.Where != "dir:d test" ||
		!strings.Contains(f.Text, "has 4 images, and an interval needs 20") {
		t.Errorf("%v, %+v", err, r.Findings)
	}
	for i := range 16 {
		b.image("test", fmt.Sprintf("more-%d.png", i), 3000+97*i)
	}
	b.annotate("test", nil)
	if r, err = b.check(classes, e); err != nil || find(r, "few-images").Count != 0 {
		t.Errorf("%v, %+v", err, r.Findings)
	}
	b.annotate("test", func(f object) {
		for i, im := range f["images"].([]object) {
			im["video"] = i / 2
		}
	})
	e.Group = "video"
	if r, err = b.check(classes, e); err != nil || !strings.Contains(find(r, "few-images").Text, "10 groups") {
		t.Errorf("%v, %+v", err, r.Findings)
	}
}

// An eval set that came later has an image with the source name of a training image. It is left out unless it clearly
// shows something else.
func TestUsedInTrainingByName(t *testing.T) {
	b := newDataset(t)
	b.image("train", "frame_jpg.rf.aaaa.png", 5001)
	b.annotate("train", nil)
	seen := store.Folder(t.TempDir())
	r, err := folders("d", b.dir).Check(t.Context(), delivery.DataRun{Dataset: inDir("d"), Classes: classes},
		filepath.Join(t.TempDir(), "p"), seen, nil)
	if err != nil {
		t.Fatal(err)
	}
	list, err := ReadTrainingImages(seen, r.TrainingImages)
	if err != nil || len(list.Looks["frame_jpg"]) != 1 {
		t.Fatalf("%v, %+v", err, list)
	}
	old := list
	old.Looks = nil
	b.image("test", "frame_jpg.rf.bbbb.png", 0)
	b.annotate("test", nil)
	for seed, want := range map[int]int{5001 + 256*8: 1, 77: 0} {
		b.image("test", "frame_jpg.rf.bbbb.png", seed)
		data, err := folders("d", b.dir).EvalSet(t.Context(), delivery.EvalSet{Dataset: inDir("d"), Split: "test"},
			classes)
		if err != nil {
			t.Fatal(err)
		}
		if got := data.UsedInTraining(list); len(got) != want {
			t.Errorf("seed %d: %v, want %d", seed, got, want)
		}
		if got := data.UsedInTraining(old); len(got) != 1 {
			t.Errorf("seed %d, a list without looks: %v", seed, got)
		}
	}
}

// Two categories whose names look the same are named, with what differs.
func TestCategoriesThatLookTheSame(t *testing.T) {
	b := newDataset(t)
	for _, split := range []string{"train", "valid", "test"} {
		b.annotate(split, func(f object) {
			f["categories"] = []object{{"id": 1, "name": "caf\u00e9"}, {"id": 2, "name": "square"},
				{"id": 3, "name": "cafe\u0301"}}
			if split == "train" {
				f["annotations"].([]object)[0]["category_id"] = 3
			}
		})
	}
	r, err := b.check(delivery.Classes{{Name: "caf\u00e9", Labels: []string{"caf\u00e9"}}, classes[1]})
	if f := find(r, "similar-category"); err != nil || r.Failed() || f.Where != "train/train-0.png, box 1" ||
		!strings.Contains(f.Text, "look the same, and have their accents in two forms of Unicode") {
		t.Errorf("%v, %+v", err, r.Findings)
	}
}

// A Rule has each code that a check can find.
func TestRules(t *testing.T) {
	codes := map[string]bool{}
	for _, r := range Rules {
		if codes[r.Code] || r.Finds == "" || !slices.Contains([]string{delivery.LevelError, delivery.LevelWarning,
			Some},
			r.Level) {
			t.Errorf("%+v", r)
		}
		codes[r.Code] = true
	}
}

func TestOrientation(t *testing.T) {
	photo := []byte("\xff\xd8\xff\xe0\x00\x04xx")
	exif := func(order binary.AppendByteOrder, mark string, value uint16) []byte {
		data := order.AppendUint32(order.AppendUint16([]byte(mark), 42), 8)
		data = order.AppendUint32(order.AppendUint16(order.AppendUint16(order.AppendUint16(data, 1), 0x112), 3), 1)
		return append(order.AppendUint16(data, value), 0, 0, 0, 0, 0, 0)
	}
	segment := func(data []byte) []byte {
		data = append([]byte("Exif\x00\x00"), data...)
		return append(binary.BigEndian.AppendUint16([]byte("\xff\xff\xe1"), uint16(len(data)+2)), data...)
	}
	chunk := func(name string, data []byte) []byte {
		return append(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), name...), append(data, 0, 0, 0,
			0)...)
	}
	big, little := exif(binary.BigEndian, "MM", 6), exif(binary.LittleEndian, "II", 3)
	for name, test := range map[string]struct {
		format string
		data   []byte
		want   int
	}{
		"big endian":    {"jpeg", slices.Concat(photo, segment(big)), 6},
		"little endian": {"jpeg", slices.Concat(photo, segment(little)), 3},
		"none":          {"jpeg", slices.Concat(photo, []byte("\xff\xda\x00\x04xx")), 1},
		"of no meaning": {"jpeg", slices.Concat(photo, segment(exif(binary.BigEndian, "MM", 9))), 1},
		"cut off":       {"jpeg", slices.Concat(photo, segment(big[:20])), 1},
		"png": {"png", slices.Concat(make([]byte, 8), chunk("IHDR", make([]byte, 13)), chunk("eXIf", big)),
			6},
		"png without": {"png", slices.Concat(make([]byte, 8), chunk("IHDR", nil), chunk("IEND", nil)), 1},
	} {
		if got := orientation(test.format, strings.NewReader(string(test.data))); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

// A header from outside never makes the reader fail.
func FuzzOrientation(f *testing.F) {
	f.Add("jpeg", []byte("\xff\xd8\xff\xe1\x00\x20Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03"))
	f.Add("png", []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x08eXIfII\x2a\x00\x08\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, format string, data []byte) {
		if got := orientation(format, strings.NewReader(string(data))); got < 1 || got > 8 {
			t.Errorf("orientation %d", got)
		}
	})
}

// A change of a file is noticed without reading any file, also a change that leaves sizes as they were.
func TestChanged(t *testing.T) {
	b := newDataset(t)
	roots := folders("d", b.dir)
	input := delivery.DataRun{Dataset: inDir("d"), Classes: classes}
	r := b.must()
	want := func(what, text string) {
		t.Helper()
		if got := roots.Changed(t.Context(), input, r.Folders); got != text {
			t.Errorf("%s: %q, want %q", what, got, text)
		}
	}
	want("nothing", "")
	path := filepath.Join(b.dir, "test", "test-0.png")
	info, err := os.Stat(path)
	if err == nil {
		err = os.Chtimes(path, info.ModTime(), info.ModTime().Add(1))
	}
	if err != nil {
		t.Fatal(err)
	}
	want("a time", "dir:d")
	r = b.must()
	want("nothing since", "")
	b.write("train/notes.txt", nil)
	want("a new file", "dir:d")
	if err := os.RemoveAll(b.dir); err != nil {
		t.Fatal(err)
	}
	want("all gone", "dir:d")
	r.Folders = nil
	want("a result of an older version", "")
}
