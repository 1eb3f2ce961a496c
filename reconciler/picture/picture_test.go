package picture

import (
	"encoding/json"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/coco"
)

// grey writes an image of one colour and returns its path.
func grey(t *testing.T, w, h int) string {
	t.Helper()
	m := image.NewGray(image.Rect(0, 0, w, h))
	for i := range m.Pix {
		m.Pix[i] = 90
	}
	path := filepath.Join(t.TempDir(), "grey.png")
	f, err := os.Create(path)
	if err == nil {
		err = png.Encode(f, m)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	return path
}

func some(path string) Picture {
	box := func(x, y float64) coco.Box { return coco.Box{X: x, Y: y, W: 20, H: 20} }
	return Picture{Path: path, Name: "a/b c.jpg", Baseline: "release", Regression: coco.Regression{Image: 7, Lost: 2,
		Why:   "misses 1 cat that the baseline finds; 1 more false dög",
		Truth: []coco.Drawn{{Box: box(10, 30), Class: "cat", Mark: coco.Missed}, {Box: box(60, 30), Class: "cat"}},
		Baseline: &coco.Side{Found: 2, Boxes: []coco.Drawn{{Box: box(10, 30), Class: "cat", Score: .9},
			{Box: box(60, 30), Class: "cat", Score: .8}}},
		Candidate: coco.Side{Found: 1, Missed: 1, False: 1, Boxes: []coco.Drawn{{Box: box(60, 30), Class: "cat",
			Score: .8},
			{Box: box(-500, 1e12), Class: "dög", Score: .7, Mark: coco.False}, {Box: box(90, 60), Class: "dög",
				Score: .6, Mark: coco.False}, {Box: box(10, 30), Class: "cat", Mark: coco.Missed}}}}}
}

func TestDraw(t *testing.T) {
	p := some(grey(t, 120, 90))
	m, err := Draw(p)
	if err != nil {
		t.Fatal(err)
	}
	if m.Bounds().Dx() != gap+3*(480+gap) || m.Bounds().Dy() != 2*line+gap+360+line+2*gap {
		t.Errorf("%v", m.Bounds())
	}
	// The left side of the box at 10, 30, four times as large, in each panel.
	at := func(panel int) color.RGBA { return m.RGBAAt(gap+panel*(480+gap)+40, 2*line+gap+122) }
	if at(0) != colours[coco.Found] || at(1) != colours[coco.Found] || at(2) != colours[coco.Missed] {
		t.Errorf("truth %v, release %v, model %v", at(0), at(1), at(2))
	}
	if got := m.RGBAAt(gap+2*(480+gap)+360, 2*line+gap+242); got != colours[coco.False] {
		t.Errorf("the false positive has colour %v", got)
	}
	again, err := Draw(p)
	if err != nil || string(again.Pix) != string(m.Pix) {
		t.Error("drawing the same input again gives other pixels")
	}
	p.Regression.Baseline = nil
	if alone, err := Draw(p); err != nil || alone.Bounds().Dx() != gap+2*(480+gap) {
		t.Errorf("without a baseline: %v", err)
	}
	if thin, err := Draw(some(grey(t, 3000, 2))); err != nil || thin.Bounds().Dy() < 2*line {
		t.Errorf("an image of 3000 x 2 pixels: %v", err)
	}
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pictures")
	bad := filepath.Join(t.TempDir(), "bad.png")
	if err := os.WriteFile(bad, []byte("\x89PNG\r\n\x1a\nno more"), 0o644); err != nil {
		t.Fatal(err)
	}
	list := []Picture{some(grey(t, 120, 90)), some(bad)}
	list[1].Name = "bad.png"
	for range 20 {
		list = append(list, some(list[0].Path))
	}
	entries, err := Write(dir, list)
	if err == nil || !strings.Contains(err.Error(), "bad.png: not a JPEG or PNG") ||
		strings.Contains(err.Error(), dir) {
		t.Errorf("%v", err)
	}
	if len(entries) != MaxPictures-1 || entries[0] != (Entry{"01-b-c.png", "a/b c.jpg",
		"misses 1 cat that the baseline finds; 1 more false dög"}) {
		t.Errorf("%+v", entries)
	}
	var index []Entry
	data, err := os.ReadFile(filepath.Join(dir, IndexFile))
	if err == nil {
		err = json.Unmarshal(data, &index)
	}
	if err != nil || len(index) != len(entries) {
		t.Errorf("index: %v, %d entries", err, len(index))
	}
	for _, e := range entries {
		if info, err := os.Stat(filepath.Join(dir, e.File)); err != nil || info.Size() == 0 ||
			!FileName.MatchString(e.File) {
			t.Errorf("%s: %v", e.File, err)
		}
	}
	if _, err := os.Stat(dir + ".part"); err == nil {
		t.Error("the temporary folder still exists")
	}
	for _, name := range []string{"../x.png", "01-.png", "01-a/b.png", "index.json", "01-a.PNG"} {
		if FileName.MatchString(name) {
			t.Errorf("FileName matches %s", name)
		}
	}
}

// Names are written in their own script; those that the font lacks have a number, and the index says which they are.
func TestScripts(t *testing.T) {
	for name, want := range map[string]bool{"cat": true, "dög": true, "托盘": true, "叉车": true, "フォーク": true,
		"지게차": true, "кошка": true, "γάτα": true, "خودرو": true, "نیم\u200cبها": true, "חתול": true, "გემი": true,
		"แมว": false, "پلاک": true,
		"e\u0301te": true, "हिन्दी": false, "\U0001f469\u200d\U0001f692": false, "a\U0001f600": false} {
		if got := writable(name); got != want {
			t.Errorf("%q: writable is %v", name, got)
		}
	}
	p := some(grey(t, 120, 90))
	p.Regression.Why = "misses 1 托盘, 1 हिन्दी"
	p.Regression.Truth = []coco.Drawn{{Box: coco.Box{X: 10, Y: 30, W: 20, H: 20}, Class: "托盘"},
		{Box: coco.Box{X: 60, Y: 30, W: 20, H: 20}, Class: "हिन्दी"}}
	entries, err := Write(filepath.Join(t.TempDir(), "pictures"), []Picture{p})
	if err != nil || entries[0].Why != "misses 1 托盘, 1 हिन्दी. In the picture #1 is हिन्दी" {
		t.Errorf("%v, %+v", err, entries)
	}
	// Another name gives another picture: it is not made of question marks.
	one, err := Draw(p)
	if err != nil {
		t.Fatal(err)
	}
	p.Regression.Truth[0].Class = "叉车"
	if other, err := Draw(p); err != nil || string(other.Pix) == string(one.Pix) {
		t.Errorf("two names look the same: %v", err)
	}
}

// The boxes of an image are drawn on it, at a size at which names can be read.
func TestBoxes(t *testing.T) {
	drawn, err := Boxes(grey(t, 40, 20), []coco.Drawn{{Box: coco.Box{X: 10, Y: 5, W: 20, H: 10}, Class: "1 car"},
		{Box: coco.Box{X: -5, Y: 0, W: 1e9, H: 1e9}, Class: "2 \u0000"}})
	if err != nil {
		t.Fatal(err)
	}
	if size := drawn.Bounds().Size(); size.X != 320 || size.Y != 160 {
		t.Errorf("got %v", size)
	}
	if got := drawn.RGBAAt(80, 90); got != colours[coco.Found] {
		t.Errorf("no edge at the left of the box: %v", got)
	}
	if _, err := Boxes("none.png", nil); err == nil {
		t.Error("no error without an image")
	}
}
