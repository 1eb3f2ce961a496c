package dataset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/store"
)

// testSeed is the seed of the first test image.
const testSeed = 300

// A builder writes a small dataset.
type builder struct {
	t     *testing.T
	dir   string
	names map[string][]string // image files by split
}

func newDataset(t *testing.T) *builder {
	b := &builder{t: t, dir: t.TempDir(), names: map[string][]string{}}
	for k, split := range []string{"train", "valid", "test"} {
		for i := range 4 {
			b.image(split, fmt.Sprintf("%s-%d.png", split, i), (k+1)*100+i)
		}
		b.annotate(split, nil)
	}
	return b
}

func (b *builder) write(path string, data []byte) {
	b.t.Helper()
	path = filepath.Join(b.dir, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
		b.t.Fatal(err)
	}
}

// image writes a 32x24 image whose pixels are a function of seed.
func (b *builder) image(split, name string, seed int) {
	img := image.NewGray(image.Rect(0, 0, 32, 24))
	for i := range img.Pix {
		img.Pix[i] = byte(i*seed + seed>>3)
	}
	var out bytes.Buffer
	if err := png.Encode(&out, img); err != nil {
		b.t.Fatal(err)
	}
	b.write(split+"/"+name, out.Bytes())
	b.names[split] = append(b.names[split], name)
}

type object = map[string]any

// annotate writes a split's annotations, one circle and one square an image,
// after change.
func (b *builder) annotate(split string, change func(object)) {
	var images, annotations []object
	for i, name := range b.names[split] {
		images = append(images, object{"id": i, "file_name": name, "width": 32, "height": 24})
		for k := range 2 {
			annotations = append(annotations, object{"id": 2*i + k, "image_id": i, "category_id": k + 1,
				"bbox": []float64{float64(2 + 12*k), 3, 10, 8}, "area": 80, "iscrowd": 0})
		}
	}
	file := object{"images": images, "annotations": annotations, "categories": []object{{"id": 1, "name": "circle"},
		{"id": 2, "name": "square"}}}
	if change != nil {
		change(file)
	}
	data, err := json.Marshal(file)
	if err != nil {
		b.t.Fatal(err)
	}
	b.write(split+"/"+AnnotationsFile, data)
}

// inDir refers to a folder.
func inDir(path string) delivery.Dataset { return delivery.Dataset{Source: "dir", Path: path} }

// folders is a catalog of one folder.
func folders(name, dir string) Catalog {
	return Catalog{Sources: map[string]Source{"dir": Dir{}},
		Locations: map[string]map[string]string{"dir": {name: dir}}}
}

var classes = delivery.Classes{{Name: "circle", Labels: []string{"circle"}},
	{Name: "square", Labels: []string{"square"}}}

func (b *builder) check(classes delivery.Classes, sets ...delivery.EvalSet) (delivery.DataResult, error) {
	out := filepath.Join(b.t.TempDir(), "prepared")
	return folders("d", b.dir).Check(b.t.Context(), delivery.DataRun{Dataset: inDir("d"),
		Classes: classes, EvalSets: sets}, out, store.Folder(b.t.TempDir()), nil)
}

func (b *builder) must() delivery.DataResult {
	b.t.Helper()
	r, err := b.check(classes)
	if err != nil || r.Failed() {
		b.t.Fatalf("%v, %+v", err, r.Findings)
	}
	return r
}

// A trainer that writes into its input writes into the dataset, and into the inputs of other trainings, if they are
// hard links. That is found before anything is trained on it, whatever the file's times say.
func TestChangedInput(t *testing.T) {
	b := newDataset(t)
	out := filepath.Join(t.TempDir(), "prepared")
	r, err := folders("d", b.dir).Check(t.Context(), delivery.DataRun{Dataset: inDir("d"), Classes: classes}, out,
		store.Folder(t.TempDir()), nil)
	if err != nil || r.Failed() {
		t.Fatalf("%v, %+v", err, r.Findings)
	}
	images, err := filepath.Glob(filepath.Join(out, "train", "*.png"))
	if err != nil || len(images) == 0 {
		t.Fatalf("no images: %v", err)
	}
	annotations := filepath.Join(out, "valid", AnnotationsFile)
	rewrite := func(file string) func() error {
		return func() error {
			info, err := os.Stat(file)
			if err != nil {
				return err
			}
			data, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			data[len(data)-3] ^= 1
			return errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, data, 0o600),
				os.Chtimes(file, info.ModTime(), info.ModTime()))
		}
	}
	swap := func(change func() error) func() error {
		return func() error { return errors.Join(os.Rename(images[0], images[0]+".old"), change()) }
	}
	for name, change := range map[string]func() error{
		"nothing":         func() error { return nil },
		"an image":        rewrite(images[0]),
		"annotations":     rewrite(annotations),
		"a link":          swap(func() error { return os.Symlink(images[0]+".old", images[0]) }),
		"a missing image": swap(func() error { return nil }),
	} {
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(out)); err != nil {
			t.Fatal(err)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		err := CheckPrepared(t.Context(), out, r.Training)
		if (err != nil) != (name != "nothing") {
			t.Errorf("%s: %v", name, err)
		}
		if name != "nothing" && name != "a link" && (!isBlocked(err) ||
			!strings.Contains(err.Error(), "the training input was changed after it was checked: ")) {
			t.Errorf("%s: %v", name, err)
		}
		if err := errors.Join(os.RemoveAll(out), os.CopyFS(out, os.DirFS(copied))); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDatasetWithoutFindings(t *testing.T) {
	b := newDataset(t)
	r := b.must()
	if len(r.Findings) != 0 || r.Images["train"] != 4 || r.Truths["circle"] != 4 || len(r.EvalSets) != 1 ||
		r.EvalSets[0].Count != 4 {
		t.Errorf("%+v", r)
	}
	if again := b.must(); again.Content != r.Content || again.Training != r.Training ||
		!reflect.DeepEqual(again.EvalSets, r.EvalSets) {
		t.Error("the same files have other digests")
	}
	// A test image is no training input; a training image is.
	b.image("test", "more.png", 77)
	b.annotate("test", nil)
	if other := b.must(); other.Training != r.Training || other.Content == r.Content ||
		other.EvalSets[0].Images == r.EvalSets[0].Images {
		t.Error("a new test image: the training input must stay, content and eval set must not")
	}
	b.annotate("train", func(f object) { f["annotations"].([]object)[0]["bbox"] = []float64{2, 3, 10, 9} })
	if other := b.must(); other.Training == r.Training {
		t.Error("a moved box leaves the training input as it was")
	}
}

// What is wrong is found, all of it, with its level and code.
func TestFindings(t *testing.T) {
	first := func(f object) object { return f["annotations"].([]object)[0] }
	for _, c := range []struct {
		name  string
		spoil func(b *builder)
		level string
		code  string
		says  string
	}{
		{"missing file", func(b *builder) { os.Remove(filepath.Join(b.dir, "train/train-1.png")) }, "error",
			"missing-file", `"train-1.png", which is not there`},
		{"missing split", func(b *builder) { os.RemoveAll(filepath.Join(b.dir, "valid")) }, "error", "missing-split",
			"there is no valid/"},
		{"unknown category", func(b *builder) { b.annotate("train", func(f object) { first(f)["category_id"] = 9 }) },
			"error", "unknown-category", "9 is not among the categories"},
		{"unknown image", func(b *builder) { b.annotate("train", func(f object) { first(f)["image_id"] = 99 }) },
			"error", "unknown-image", "99"},
		{"duplicate id", func(b *builder) { b.annotate("train", func(f object) { first(f)["id"] = 1 }) }, "error",
			"duplicate-id", "1"},
		{"box outside", func(b *builder) {
			b.annotate("train", func(f object) { first(f)["bbox"] = []float64{20, 3, 30, 8} })
		}, "warning", "outside-image", ""},
		{"empty box", func(b *builder) {
			b.annotate("train", func(f object) { first(f)["bbox"] = []float64{2, 3, 0, 8} })
		}, "warning", "empty-box", ""},
		{"degenerate box", func(b *builder) {
			b.annotate("train", func(f object) { first(f)["bbox"] = []float64{2, 3, 0.2, 8} })
		}, "warning", "degenerate-box", ""},
		{"wrong shape", func(b *builder) { b.write("train/"+AnnotationsFile, []byte(`[1]`)) }, "error", "annotations",
			"want an object"},
		{"no image", func(b *builder) { b.write("train/train-0.png", []byte("text")) }, "error", "unreadable-image",
			"no JPEG or PNG"},
		{"other size", func(b *builder) {
			b.annotate("train", func(f object) { f["images"].([]object)[0]["width"] = 33 })
		}, "error", "size-mismatch", "32 x 24 pixels, its annotations say 33 x 24"},
		{"unlisted file", func(b *builder) { b.write("train/notes.txt", []byte("x")) }, "warning", "unlisted-file",
			"not used"},
		{"unknown class", func(b *builder) {
			b.annotate("train", func(f object) { f["categories"].([]object)[1]["name"] = "box" })
		}, "error", "unknown-class", `class "square": no category is named "square"; ` +
			`the categories are "circle", "box"`},
		{"path out", func(b *builder) {
			b.annotate("train", func(f object) { f["images"].([]object)[0]["file_name"] = "../valid/valid-0.png" })
		}, "error", "missing-file", "not there"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newDataset(t)
			c.spoil(b)
			r, err := b.check(classes)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range r.Findings {
				if f.Level == c.level && f.Code == c.code && strings.Contains(f.Text, c.says) {
					if r.Failed() != (c.level == "error") {
						t.Errorf("failed: %v", r.Failed())
					}
					return
				}
			}
			t.Errorf("not found: %+v", r.Findings)
		})
	}
}

func TestTruncatedImage(t *testing.T) {
	b := newDataset(t)
	path := filepath.Join(b.dir, "valid/valid-2.png")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()/2); err != nil {
		t.Fatal(err)
	}
	r, err := b.check(classes)
	if err != nil || !r.Failed() || r.Findings[0].Code != "truncated-image" ||
		r.Findings[0].Where != "valid/valid-2.png" {
		t.Errorf("%v, %+v", err, r.Findings)
	}
}

// Images of an eval set are left out of training, by content and by Roboflow's
// source name, and from 5 % on that is an error.
func TestLeaks(t *testing.T) {
	b := newDataset(t)
	for i := range 40 {
		b.image("train", fmt.Sprintf("more-%d.png", i), 1000+i)
	}
	b.image("train", "copy-of-a-test-image.png", testSeed) // the bytes of test-0.png
	b.image("train", "frame_jpg.rf.aaaa.png", 5001)
	b.annotate("train", nil)
	b.image("test", "frame_jpg.rf.bbbb.png", 5001+256*8) // nearly the same
	b.annotate("test", nil)
	r := b.must()
	if r.LeftOut != 2 || r.Findings[0].Code != "leak" || r.Findings[0].Count != 2 {
		t.Errorf("left out %d: %+v", r.LeftOut, r.Findings)
	}
	for i := range 3 {
		b.image("train", fmt.Sprintf("copy-%d.png", i), testSeed+1+i)
	}
	b.annotate("train", nil)
	if r, err := b.check(classes); err != nil || !r.Failed() || r.Findings[0].Code != "leaks" {
		t.Errorf("five of 53 leaked: %v, %+v", err, r.Findings)
	}
}

// Several labels become one class, and what is not asked for is left out.
func TestMappedLabels(t *testing.T) {
	b := newDataset(t)
	one := delivery.Classes{{Name: "shape", Labels: []string{"circle", "square"}}}
	r, err := b.check(one)
	if err != nil || r.Failed() || r.Truths["shape"] != 8 {
		t.Errorf("%v, %+v", err, r)
	}
	r, err = b.check(classes[:1])
	if err != nil || r.Failed() || len(r.Findings) != 1 || r.Findings[0].Code != "unused-category" {
		t.Errorf("%v, %+v", err, r.Findings)
	}
}

func TestRefused(t *testing.T) {
	b := newDataset(t)
	if err := errors.Join(os.Symlink(b.dir, filepath.Join(t.TempDir(), "x")),
		os.Symlink("/etc", filepath.Join(b.dir, "link"))); err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{
		"other":      `datasets.dir of the server's configuration has no "other"`,
		"d/gone":     "no such folder",
		"d/../..":    "leads out of its root",
		"d/x/":       "none at its ends",
		"d//x":       "is not written as it must be",
		"d/link":     "is a symbolic link",
		"d/link/ssl": "is a symbolic link",
		"d":          "link is a symbolic link or no file",
	} {
		_, err := folders("d", b.dir).Check(t.Context(), delivery.DataRun{Dataset: inDir(ref),
			Classes: classes}, filepath.Join(t.TempDir(), "p"), store.Folder(t.TempDir()), nil)
		if _, ok := errors.AsType[delivery.Blocked](err); !ok || !strings.Contains(err.Error(), want) ||
			strings.Contains(err.Error(), b.dir) {
			t.Errorf("%s: got %v, want Blocked with %q and without the server's path", ref, err, want)
		}
	}
}

func TestEvalSet(t *testing.T) {
	b := newDataset(t)
	r := b.must()
	e := delivery.EvalSet{Dataset: inDir("d"), Split: "test"}
	got, err := folders("d", b.dir).EvalSet(t.Context(), e, classes)
	if err != nil || !reflect.DeepEqual(got.Content, r.EvalSets[0]) || len(got.Images) != 4 ||
		len(got.Truth.Annotations) != 8 {
		t.Errorf("%v, %+v, want the content of the data run %+v", err, got.Content, r.EvalSets[0])
	}
	if _, err := folders("d", b.dir).EvalSet(t.Context(), delivery.EvalSet{Dataset: e.Dataset, Split: "gold"},
		classes); err == nil || !strings.Contains(err.Error(), "there is no gold/") {
		t.Errorf("a split that is not there: %v", err)
	}
}

// Which images go together is part of what an eval set is; an image that does not
// say so is an error.
func TestGroups(t *testing.T) {
	b := newDataset(t)
	video := func(names ...any) func(object) {
		return func(f object) {
			for i, im := range f["images"].([]object) {
				if names[i] != nil {
					im["video"] = names[i]
				}
			}
		}
	}
	e := delivery.EvalSet{Dataset: inDir("d"), Split: "test", Group: "video"}
	content := map[string]delivery.EvalSetContent{}
	good := map[string]func(object){
		"two":       video("a", "a", "b", "b"),
		"other two": video("a", "b", "a", "b"),
		"numbers":   video(1, 1, 2, 2),
	}
	for name, change := range good {
		b.annotate("test", change)
		r, err := b.check(classes, e)
		if err != nil || r.Failed() || len(r.EvalSets) != 2 {
			t.Fatalf("%s: %v, %+v", name, err, r)
		}
		plain, grouped := r.EvalSets[0], r.EvalSets[1]
		if plain.EvalSet.Group != "" {
			plain, grouped = grouped, plain
		}
		if grouped.Images != plain.Images || grouped.Truths == plain.Truths {
			t.Errorf("%s: the images must be the same and the truths must not: %+v, %+v", name, plain, grouped)
		}
		got, err := folders("d", b.dir).EvalSet(t.Context(), e, classes)
		if err != nil || !reflect.DeepEqual(got.Content, grouped) || got.Truth.Images[0].Group == "" {
			t.Errorf("%s: %v, %+v, want the content of the data run %+v", name, err, got, grouped)
		}
		content[name] = grouped
	}
	if content["two"].Truths == content["other two"].Truths {
		t.Error("other groups, and the same truths")
	}
	bad := map[string]func(object){
		"missing": video("a", nil, "b", "b"),
		"a list":  video("a", []int{1}, "b", "b"),
		"empty":   video("a", "", "b", "b"),
	}
	for name, change := range bad {
		b.annotate("test", change)
		r, err := b.check(classes, e)
		if err != nil || !r.Failed() {
			t.Errorf("%s: %v, %+v", name, err, r.Findings)
		}
		if text := fmt.Sprintf("%+v", r.Findings); !strings.Contains(text, `"test-1.png": video: `) ||
			!strings.Contains(text, "every image needs it") {
			t.Errorf("%s: %s", name, text)
		}
		if _, err := folders("d", b.dir).EvalSet(t.Context(), e, classes); err == nil {
			t.Errorf("%s: the eval set opens", name)
		}
	}
}

// The real dataset of blood cells, where it is.
func TestBCCD(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	shared := os.Getenv("AOB_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "shared")
	}
	dir, err := filepath.Abs(filepath.Join(shared, "data"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "bccd")); err != nil {
		t.Skipf("the dataset BCCD is not in %s; AOB_SHARED names the folder of data/bccd", dir)
	}
	ask := delivery.DataRun{Dataset: inDir("data/bccd")}
	for _, c := range []string{"Platelets", "RBC", "WBC"} {
		ask.Classes = append(ask.Classes, delivery.Class{Name: c, Labels: []string{c}})
	}
	r, err := folders("data", dir).Check(t.Context(), ask, filepath.Join(t.TempDir(), "prepared"),
		store.Folder(t.TempDir()), nil)
	if err != nil || r.Failed() || r.Images["test"] != 72 || len(r.EvalSets) != 1 {
		t.Errorf("%v, %+v", err, r)
	}
}
