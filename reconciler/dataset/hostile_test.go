package dataset

// Datasets that somebody made to stop a check, to hide something from it, or to be believed without one.

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/tools/txtar"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// checkFolder returns what a check of a folder finds.
func checkFolder(t *testing.T, dir string) delivery.DataResult {
	t.Helper()
	c, d, err := Folder(dir)
	if err != nil {
		t.Fatal(err)
	}
	result, err := c.Check(t.Context(), delivery.DataRun{Dataset: d}, "", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// A path of very many parts is not looked for by each of its ends, which would take hours.
func TestPathsOfManyParts(t *testing.T) {
	long := strings.Repeat("a/", 500_000) + "x.jpg"
	for name, files := range map[string][]txtar.File{
		"data.yaml": {{Name: "data.yaml", Data: []byte(`train: "` + long + `"` + "\nval: images\nnames: [a]\n")}},
		"CVAT": {{Name: "annotations.xml", Data: []byte(`<annotations><image name="` + long +
			`" width="64" height="48"/></annotations>`)}},
		"COCO": {{Name: "result.json", Data: []byte(`{"images":[{"id":1,"file_name":"` + long +
			`","width":64,"height":48}],"categories":[{"id":1,"name":"a"}],"annotations":[]}`)}},
	} {
		t.Run(name, func(t *testing.T) {
			v := listed(t, unpack(t, append(files, txtar.File{Name: "images/b.jpg", Data: []byte("64x48")})))
			done := make(chan struct{})
			go func() {
				defer close(done)
				if l, err := v.layout(); err == nil {
					for _, sub := range l.subsets {
						_, _ = sub.read("")
					}
				}
			}()
			select {
			case <-done:
			case <-time.After(time.Minute): // it takes milliseconds, or hours
				t.Fatal("still looking for the file")
			}
		})
	}
}

// What a reader keeps of a hostile file is bounded.
func TestManyFaults(t *testing.T) {
	const n = maxFaults + 5000
	image := txtar.File{Name: "images/train/a.jpg", Data: []byte("64x48")}
	other := txtar.File{Name: "images/val/b.jpg", Data: []byte("32x48")}
	yaml := txtar.File{Name: "data.yaml", Data: []byte("train: images/train\nval: images/val\nnames: [a]\n")}
	for name, files := range map[string][]txtar.File{
		"lines of labels": {yaml, image, other, {Name: "labels/train/a.txt", Data: []byte(strings.Repeat("x\n", n))}},
		"a list of images": {image, other,
			{Name: "data.yaml", Data: []byte("train: l.txt\nval: images/val\nnames: [a]\n")},
			{Name: "l.txt", Data: []byte("images/train/a.jpg\n" + strings.Repeat("x\n", n))}},
		"shapes": {image, {Name: "annotations.xml", Data: []byte(`<annotations><image name="a.jpg" subset="Train" ` +
			`width="64" height="48">` + strings.Repeat("<box/>", n) + `</image></annotations>`)}},
	} {
		t.Run(name, func(t *testing.T) {
			v := listed(t, unpack(t, files))
			s, ok, err := v.split("train", "")
			if err != nil || !ok {
				t.Fatal(ok, err)
			}
			if len(s.faults) != maxFaults+1 || s.faults[maxFaults].code != string(coco.MoreProblems) {
				t.Errorf("kept %d faults, the last %q", len(s.faults), s.faults[len(s.faults)-1].code)
			}
		})
	}
}

// A finding does not hold a whole file.
func TestLongFinding(t *testing.T) {
	dir := unpack(t, []txtar.File{{Name: "JPEGImages/a.jpg", Data: []byte("64x48")},
		{Name: "Annotations/a.xml", Data: []byte("<annotation><filename>a.jpg</filename></annotation>")},
		{Name: "ImageSets/Main/train.txt", Data: []byte("a\n" + strings.Repeat("z", 1<<20))}})
	for _, f := range checkFolder(t, dir).Findings {
		if n := len(f.Where) + len(f.Text) + len(strings.Join(f.More, "")); n > 5000 {
			t.Errorf("a finding %s of %d bytes", f.Code, n)
		}
	}
}

// An export of Label Studio is refused before its shapes fill the memory.
func TestManyTaskShapes(t *testing.T) {
	many := `[{"id":1,"annotations":[{"result":[` + strings.Repeat("{},", maxTaskShapes) +
		`{}]}],"data":{"image":"a.jpg"}}]`
	if _, err := readTasks(strings.NewReader(many)); err == nil || !strings.Contains(err.Error(), "shapes") {
		t.Errorf("got error %v", err)
	}
}

// What is wrong with the images of one split is said wherever that split is read, also where splits.json makes it.
func TestFaultsOfEvalSet(t *testing.T) {
	label := func(lines string) []byte { return []byte(lines) }
	dir := unpack(t, []txtar.File{{Name: "classes.txt", Data: []byte("a\n")},
		{Name: "images/a.jpg", Data: []byte("64x48")}, {Name: "labels/a.txt", Data: label("0 .5 .5 .5 .5\n")},
		{Name: "images/b.jpg", Data: []byte("32x48")},
		{Name: "labels/b.txt", Data: label("nonsense\n0 .5 .5 .5 .5\n")},
		{Name: "images/c.jpg", Data: []byte("48x48")}, {Name: "labels/c.txt", Data: label("7 .5 .5 .5 .5\n")},
		{Name: "splits.json", Data: []byte(`{"train":["images/a.jpg"],"valid":["images/c.jpg"],` +
			`"test":["images/b.jpg"]}`)}})
	v := listed(t, dir)
	for name, want := range map[string][]string{"train": nil, "valid": {"labels/c.txt:1"}, "test": {"labels/b.txt:1"}} {
		s, ok, err := v.split(name, "")
		if err != nil || !ok {
			t.Fatal(name, ok, err)
		}
		got := delivery.Each(s.faults, func(f fault) string { return f.where })
		if !slices.Equal(got, want) {
			t.Errorf("%s: faults at %q, want %q", name, got, want)
		}
	}
}

// An eval set with images that are not there is refused in each layout, since models would be judged on the rest.
func TestEvalSetWithMissingImages(t *testing.T) {
	dir := unpack(t, []txtar.File{{Name: "images/a.jpg", Data: []byte("64x48")},
		{Name: "annotations.xml", Data: []byte(`<annotations><image name="a.jpg" subset="Test" width="64" ` +
			`height="48"><box label="a" xtl="1" ytl="1" xbr="9" ybr="9"/></image>` +
			`<image name="gone.jpg" subset="Test" width="64" height="48"/></annotations>`)}})
	c, d, err := Folder(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.EvalSet(t.Context(), delivery.EvalSet{Dataset: d, Split: "test"},
		delivery.Classes{{Name: "a", Labels: []string{"a"}}})
	if err == nil || !strings.Contains(err.Error(), `"gone.jpg"`) {
		t.Errorf("got error %v", err)
	}
}

// A text file of ten gigabytes of zeros takes no time.
func TestHugeFiles(t *testing.T) {
	dir := unpack(t, []txtar.File{
		{Name: "data.yaml", Data: []byte("train: images/train\nval: images/val\nnames: [a]\n")},
		{Name: "images/train/a.jpg", Data: []byte("64x48")}, {Name: "images/val/b.jpg", Data: []byte("32x48")}})
	for _, name := range []string{"zeros.txt", "zeros.bin"} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, 10<<30); err != nil {
			t.Skip("no sparse files here: ", err)
		}
	}
	v := listed(t, dir)
	if err := v.hash(t.Context(), v.names(), nil); err != nil {
		t.Fatal(err)
	}
	for name, f := range v.files {
		if huge := strings.HasPrefix(name, "zeros"); huge != (f.sum == "") {
			t.Errorf("%s: digest %q", name, f.sum)
		}
	}
	var large []string
	for _, f := range checkFolder(t, dir).Findings {
		if f.Code == "too-large" {
			large = append(large, f.Lines()...)
		}
	}
	for _, name := range []string{"zeros.txt", "zeros.bin"} {
		if !strings.Contains(strings.Join(large, "\n"), name) {
			t.Errorf("no finding names %s: %q", name, large)
		}
	}
}

// A file name with a line break does not look like two files.
func TestContentOfOddNames(t *testing.T) {
	sum := strings.Repeat("1", 64)
	two := &version{files: map[string]*file{"a": {sum: sum}, "b": {sum: sum}}}
	one := &version{files: map[string]*file{"a\n" + sum + "  b": {sum: sum}}}
	escaped := &version{files: map[string]*file{`a\n` + sum + "  b": {sum: sum}}}
	if two.content() == one.content() || one.content() == escaped.content() {
		t.Error("other files have the same content")
	}
}

// A memory that others may have written is not used.
func TestMemoryOfOthers(t *testing.T) {
	for name, prepare := range map[string]func(dir string) error{
		"others may write": func(dir string) error { return os.Chmod(dir, 0o777) },
		"a link": func(dir string) error {
			if err := os.Rename(dir, dir+"2"); err != nil {
				return err
			}
			return os.Symlink(dir+"2", dir)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "memory")
			c := Catalog{Memory: dir}
			if c.memory("/x") == "" {
				t.Fatal("a folder of one's own is not used")
			}
			if err := prepare(dir); err != nil {
				t.Fatal(err)
			}
			if got := c.memory("/x"); got != "" {
				t.Errorf("used %s", got)
			}
		})
	}
}

// Images that splits.json names and that are not there are named, and an eval set without them is refused.
func TestSplitsOfMissingImages(t *testing.T) {
	dir := unpack(t, []txtar.File{{Name: "classes.txt", Data: []byte("a\n")},
		{Name: "images/a.jpg", Data: []byte("64x48")}, {Name: "images/b.jpg", Data: []byte("32x48")},
		{Name: "images/c.jpg", Data: []byte("48x48")},
		{Name: "splits.json", Data: []byte(`{"train":["images/a.jpg"],"valid":["images/c.jpg"],` +
			`"test":["images/b.jpg","images/gone.jpg"]}`)}})
	var found []string
	for _, f := range checkFolder(t, dir).Findings {
		if f.Code == codeNoImage {
			found = append(found, f.Level+" "+f.Where+": "+f.Text)
		}
	}
	if len(found) != 1 || !strings.HasPrefix(found[0], `error splits.json: names the image "images/gone.jpg" in test`) {
		t.Errorf("findings %q", found)
	}
	c, d, err := Folder(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.EvalSet(t.Context(), delivery.EvalSet{Dataset: d, Split: "test"},
		delivery.Classes{{Name: "a", Labels: []string{"a"}}})
	if err == nil || !strings.Contains(err.Error(), "images/gone.jpg") {
		t.Errorf("got error %v", err)
	}
}

// A folder that becomes a link after the dataset was listed is not followed out of the dataset.
func TestFolderBecomesALink(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "a.txt"), []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := unpack(t, []txtar.File{{Name: "classes.txt", Data: []byte("a\n")},
		{Name: "images/a.jpg", Data: []byte("64x48")}, {Name: "labels/a.txt", Data: []byte("0 .5 .5 .5 .5\n")}})
	v := listed(t, dir)
	if err := os.RemoveAll(filepath.Join(dir, "labels")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "labels")); err != nil {
		t.Fatal(err)
	}
	if data, err := v.read("labels/a.txt", 100); err == nil {
		t.Errorf("read %q outside the dataset", data)
	}
	if err := v.hash(t.Context(), []string{"labels/a.txt"}, nil); err == nil {
		t.Error("hashed a file outside the dataset")
	}
}

// Images are not decoded outside the dataset either.
func TestImageFolderBecomesALink(t *testing.T) {
	outside := unpack(t, []txtar.File{{Name: "a.jpg", Data: []byte("64x48")}})
	dir := unpack(t, []txtar.File{{Name: "classes.txt", Data: []byte("a\n")},
		{Name: "images/a.jpg", Data: []byte("64x48")}})
	v := listed(t, dir)
	f := v.files["images/a.jpg"]
	if f.loadHeader(v.opener("images/a.jpg")); f.header.Code != "" {
		t.Fatalf("%+v", f.header)
	}
	if err := os.RemoveAll(filepath.Join(dir, "images")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "images")); err != nil {
		t.Fatal(err)
	}
	got, err := f.header.decode(t.Context(), v.opener("images/a.jpg"), false, semaphore.NewWeighted(memory))
	if err != nil || got.Code != "unreadable-image" {
		t.Errorf("decoded an image outside the dataset: %+v, %v", got, err)
	}
}
