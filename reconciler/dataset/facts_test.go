package dataset

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// listed opens a folder as if its files were old enough to be remembered.
func listed(t *testing.T, dir string) *version {
	t.Helper()
	v, err := openFolder(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	v.began = time.Now().Add(time.Hour)
	return v
}

// What is remembered of a file counts only while the file is the same.
func TestMemory(t *testing.T) {
	b := newDataset(t)
	memory := filepath.Join(t.TempDir(), "memory")
	v := listed(t, b.dir)
	if err := v.hash(t.Context(), v.names(), nil); err != nil {
		t.Fatal(err)
	}
	v.keep(memory)
	content := v.content()

	again := listed(t, b.dir)
	again.recall(memory)
	for name, f := range again.files {
		if !reflect.DeepEqual(f, v.files[name]) {
			t.Errorf("%s: remembered %+v, was %+v", name, f, v.files[name])
		}
	}
	if again.content() != content {
		t.Error("the remembered content is another")
	}

	// A file of the same size and time, but with other bytes.
	changed := filepath.Join(b.dir, "train", "train-1.png")
	info, err := os.Stat(changed)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(changed)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1]++
	if err := os.WriteFile(changed+"2", data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(changed+"2", changed); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(changed, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	again = listed(t, b.dir)
	again.recall(memory)
	if again.files["train/train-1.png"].sum != "" || again.files["train/train-2.png"].sum == "" {
		t.Error("a changed file is remembered, or another is not")
	}

	// What was just written is not remembered: it may change again within the resolution of its times.
	fresh := listed(t, b.dir)
	fresh.began = time.Now()
	if err := fresh.hash(t.Context(), fresh.names(), nil); err != nil {
		t.Fatal(err)
	}
	fresh.keep(memory)
	again = listed(t, b.dir)
	again.recall(memory)
	if again.files["train/train-2.png"].sum != "" {
		t.Error("a file is remembered that was just written")
	}

	// A damaged memory is none.
	if err := os.WriteFile(memory, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	again.recall(memory)
}

// The result of a check is remembered until a file, the classes or the depth of the check are others.
func TestResultMemory(t *testing.T) {
	b := newDataset(t)
	memory := filepath.Join(t.TempDir(), "memory")
	run := delivery.DataRun{Dataset: inDir("d"), Classes: classes}
	v := listed(t, b.dir)
	key := v.resultKey(run, false)
	keepResult(memory, key, delivery.DataResult{LeftOut: 7})
	if r, ok := recallResult(memory, listed(t, b.dir).resultKey(run, false)); !ok || r.LeftOut != 7 {
		t.Errorf("got %+v, %v", r, ok)
	}
	if _, ok := recallResult(memory, v.resultKey(run, true)); ok {
		t.Error("a check of headers is taken for one of pixels")
	}
	if _, ok := recallResult(memory, v.resultKey(delivery.DataRun{Dataset: run.Dataset}, false)); ok {
		t.Error("a check of other classes is taken for this one")
	}
	if v.began = time.Now(); v.resultKey(run, false) != "" {
		t.Error("the result is remembered of files that were just written")
	}
	b.image("train", "more.png", 99)
	if _, ok := recallResult(memory, listed(t, b.dir).resultKey(run, false)); ok {
		t.Error("the result is remembered of a folder with another file")
	}
}

// A check without pixels finds other sizes, and not damage inside an image; both tell how far they are.
func TestHeadersOnly(t *testing.T) {
	b := newDataset(t)
	name := filepath.Join(b.dir, "train", "train-1.png")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data[:len(data)-20], 0o644); err != nil {
		t.Fatal(err)
	}
	for _, headersOnly := range []bool{true, false} {
		phases := map[Phase]int{}
		c := folders("d", b.dir)
		c.HeadersOnly = headersOnly
		r, err := c.Check(t.Context(), delivery.DataRun{Dataset: inDir("d")}, "", nil,
			func(p Phase, done, total int) { phases[p] = max(phases[p], done*1000+total) })
		if err != nil {
			t.Fatal(err)
		}
		if r.Failed() == headersOnly {
			t.Errorf("headers only %v: %+v", headersOnly, r.Findings)
		}
		want := map[Phase]int{ReadFiles: 15015, DecodeImages: 12012}
		if headersOnly {
			delete(want, DecodeImages)
		}
		if !reflect.DeepEqual(phases, want) {
			t.Errorf("headers only %v: phases %v", headersOnly, phases)
		}
	}
}

// A small dataset gives more of its images to test, as many as a gate needs, if it can.
func TestShares(t *testing.T) {
	for images, want := range map[int][3]int{1000: {70, 15, 15}, 140: {70, 15, 15}, 100: {64, 15, 21}, 60: {50, 15, 35},
		10: {45, 15, 40}, 0: {45, 15, 40}} {
		if got := Shares(images); got != want {
			t.Errorf("%d images: %v, want %v", images, got, want)
		}
	}
}

func TestLikelyTypo(t *testing.T) {
	for _, c := range []struct {
		rare, common string
		n, m         int
		want         bool
	}{
		{"Platlets", "Platelets", 1, 84, true}, {"Plateltes", "Platelets", 1, 84, true},
		{"Platlets", "Platelets", 20, 84, false}, {"Platelets", "Platlets", 84, 1, false},
		{"WBC", "RBC", 1, 500, false}, {"wheel1", "wheel2", 1, 500, false}, {"lorry", "truck", 1, 500, false},
		{"car", "Car", 4, 5, true}, {"Car", "car", 5, 4, false}, {"person ", "person", 5, 5, true},
		{"person", "person ", 5, 5, false}, {"caf\u00e9", "cafe\u0301", 4, 5, true}, {"\u00e9", "e", 4, 5, false},
	} {
		if got := likelyTypo(c.rare, c.common, c.n, c.m); got != c.want {
			t.Errorf("%q (%d) for %q (%d): %v", c.rare, c.n, c.common, c.m, got)
		}
	}
}

// Copies of a file come into one split, with all images of their sources, so that no split is a leak of another.
func TestWriteSplitsKeepsCopiesTogether(t *testing.T) {
	for i := range 20 {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "images"), 0o755); err != nil {
			t.Fatal(err)
		}
		files := map[string]string{"classes.txt": "car\n", "images/copy.jpg": "a",
			"images/a_jpg.rf.0123456789abcdef.jpg": "a", "images/a_jpg.rf.fedcba9876543210.jpg": "turned",
			"images/z.jpg": "turned"}
		for n := range 30 {
			name := fmt.Sprintf("%d-%d", i, n)
			files["images/"+name+".jpg"] = name
		}
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		s, err := WriteSplits(t.Context(), dir, [3]int{40, 30, 30}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, list := range s.lists() {
			n := 0
			for _, file := range *list {
				if len(files[file]) == 1 || files[file] == "turned" {
					n++
				}
			}
			if n != 0 && n != 4 {
				t.Errorf("%s has %d of 4 images of one picture: %v", name, n, *list)
			}
		}
	}
}

// Images of one source come into one split, the same on every machine, and those that were divided stay.
func TestWriteSplits(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("classes.txt", "car\n")
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"} {
		write("images/"+name+".jpg", name)
	}
	write("images/k_jpg.rf.0123456789abcdef.jpg", "k")
	write("images/k_jpg.rf.fedcba9876543210.jpg", "k turned")
	first, err := WriteSplits(t.Context(), dir, [3]int{70, 15, 15}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := []int{len(first.Train), len(first.Valid), len(first.Test)}; !reflect.DeepEqual(n, []int{8, 2, 2}) {
		t.Errorf("12 images became %v: %+v", n, first)
	}
	write("images/new.jpg", "new")
	second, err := WriteSplits(t.Context(), dir, [3]int{70, 15, 15}, nil)
	if err != nil {
		t.Fatal(err)
	}
	where := func(s Splits) map[string]string {
		out := map[string]string{}
		for name, list := range s.lists() {
			for _, file := range *list {
				out[file] = name
			}
		}
		return out
	}
	before, after := where(first), where(second)
	for file, split := range before {
		if after[file] != split {
			t.Errorf("%s moved from %s to %s", file, split, after[file])
		}
	}
	if after["images/new.jpg"] == "" || before["images/k_jpg.rf.0123456789abcdef.jpg"] !=
		before["images/k_jpg.rf.fedcba9876543210.jpg"] {
		t.Errorf("%v", after)
	}
	all, err := WriteSplits(t.Context(), t.TempDir(), [3]int{0, 0, 100}, nil)
	if err == nil {
		t.Errorf("an empty folder is divided: %+v", all)
	}
	if _, err := WriteSplits(t.Context(), dir, [3]int{0, 0, 0}, nil); err == nil {
		t.Error("shares of nothing")
	}
}
