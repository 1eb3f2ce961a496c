package picture

import (
	"bytes"
	"encoding/json"
	"errors"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-text/typesetting/language"

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

func TestRender(t *testing.T) {
	p := some(grey(t, 120, 90))
	m, _, err := render(p)
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
	again, _, err := render(p)
	if err != nil || string(again.Pix) != string(m.Pix) {
		t.Error("drawing the same input again gives other pixels")
	}
	p.Regression.Baseline = nil
	if alone, _, err := render(p); err != nil || alone.Bounds().Dx() != gap+2*(480+gap) {
		t.Errorf("without a baseline: %v", err)
	}
	if thin, _, err := render(some(grey(t, 3000, 2))); err != nil || thin.Bounds().Dy() < 2*line {
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

// Names are written in their own script; those that the fonts lack have a number, and the index says which they are.
func TestScripts(t *testing.T) {
	for name, want := range map[string]bool{"cat": true, "dög": true, "托盘": true, "フォーク": true, "지게차": true,
		"кошка": true, "γάτα": true, "خودرو": true, "نیم\u200cبها": true, "پلاک": true, "חתול": true, "שָׁלוֹם": true,
		"გემი": true, "แมว": true, "ผู้ใหญ่": true, "हिन्दी": true, "বাংলা": true, "தமிழ்": true, "മലയാളം": true,
		"ශ්\u200dරී": true, "မြန်မာ": true, "བོད": true, "አማርኛ": true, "e\u0301te": true, "x\u0302": true,
		"\U0001f469\u200d\U0001f692": true, "a\U0001f600": true, "\U0001f1e9\U0001f1ea": true,
		"\U00013000": false, "a\U000103a0": false} {
		if got := writable(name); got != want {
			t.Errorf("%q: writable is %v", name, got)
		}
	}
	p := some(grey(t, 120, 90))
	p.Regression.Why = "misses 1 托盘, 1 \U00013000"
	p.Regression.Truth = []coco.Drawn{{Box: coco.Box{X: 10, Y: 30, W: 20, H: 20}, Class: "托盘"},
		{Box: coco.Box{X: 60, Y: 30, W: 20, H: 20}, Class: "\U00013000"}}
	entries, err := Write(filepath.Join(t.TempDir(), "pictures"), []Picture{p})
	if err != nil || entries[0].Why != "misses 1 托盘, 1 \U00013000. In the picture #1 is \U00013000" {
		t.Errorf("%v, %+v", err, entries)
	}
	// Another name gives another picture: it is not made of question marks.
	seen := map[string]string{}
	for _, name := range []string{"托盘", "叉车", "हिन्दी", "हिन्द", "แมว", "แม", "خودرو", "خودر", "\U0001f600"} {
		p.Regression.Truth[0].Class = name
		drawn, _, err := render(p)
		if err != nil {
			t.Fatal(err)
		}
		if same, there := seen[string(drawn.Pix)]; there {
			t.Errorf("%q and %q look the same", name, same)
		}
		seen[string(drawn.Pix)] = name
	}
}

// Letters are joined, stacked and put in order as readers of the script expect it.
func TestShaping(t *testing.T) {
	glyphs := func(s string) (n int) {
		for _, p := range layout(s) {
			n += len(p.shaped.Glyphs)
		}
		return n
	}
	for what, c := range map[string]struct {
		text string
		want int // glyphs
	}{
		"two people and a joiner are one emoji": {"\U0001f469\u200d\U0001f692", 1},
		"two letters are a flag":                {"\U0001f1e9\U0001f1ea", 1},
		"conjuncts of Devanagari":               {"क्ष", 1},
		"Arabic lam and alef are one":           {"لا", 1},
		"a Thai vowel stands on its letter":     {"ที่", 3},
	} {
		if got := glyphs(c.text); got != c.want {
			t.Errorf("%s: %d glyphs of %q, want %d", what, got, c.text, c.want)
		}
	}
	if joined, apart := width("ببب"), width("ب ب ب")-2*width(" "); joined >= apart {
		t.Errorf("joined letters are %d pixels wide, single ones %d", joined, apart)
	}
	// Rows of pieces, from left to right.
	row := func(s string) (list []string) {
		for _, p := range layout(s) {
			list = append(list, string(p.text))
		}
		return list
	}
	for text, want := range map[string][]string{
		"misses 1 כלב": {"misses 1 ", "כלב"},
		"אב 12 גד":     {"גד", " ", "12", "אב "},
		"a \u202e":     {"a "},
		"x \U00013000": {"x ", "?"},
	} {
		if got := row(text); !slices.Equal(got, want) {
			t.Errorf("%q is drawn as %q, want %q", text, got, want)
		}
	}
}

// Each file of fonts can be read, and its name is a script.
func TestFonts(t *testing.T) {
	files, err := fontFiles.ReadDir("fonts")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d fonts, %v", len(files), err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(f.Name(), ".ttf")
		if fontFile(name) == nil {
			t.Errorf("%s cannot be read", f.Name())
		}
		if _, err := language.ParseScript(name); err != nil {
			t.Errorf("%s is not named by a script: %v", f.Name(), err)
		}
	}
}

// Any text can be measured, cut and drawn.
func FuzzText(f *testing.F) {
	for _, s := range []string{"cat", "अ\u094d\u200d", "\u202e\u2067אa1\u2069", "\U0001f469\u200d", "\u0e33\u0e33",
		"\ufeff\ufffd",
		strings.Repeat("\u0301", 200), "\U000e0041\U0001f3f4", "ཨ\u0f71\u0f72"} {
		f.Add(s)
	}
	out := image.NewRGBA(image.Rect(0, 0, 64, 32))
	f.Fuzz(func(t *testing.T, s string) {
		s = clean(s, maxText)
		if cut := fit(s, 50); width(cut) > 50 {
			t.Errorf("%q is %d pixels wide", cut, width(cut))
		}
		text(out, 2, 20, ink, s)
	})
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

// A contact sheet has the images that can be read, side by side, and names those that cannot.
func TestContacts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.png")
	m := image.NewRGBA(image.Rect(0, 0, 64, 48))
	draw.Draw(m, m.Bounds(), image.NewUniform(color.RGBA{0, 0, 255, 255}), image.Point{}, draw.Src)
	var b bytes.Buffer
	if err := errors.Join(png.Encode(&b, m), os.WriteFile(file, b.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
	box := coco.Drawn{Box: coco.Box{X: 10, Y: 10, W: 20, H: 20}, Class: "car", Mark: coco.Missed}
	list := []Change{{Title: "a.png: 1 box moved", Before: &Side{Path: file}, Now: &Side{Path: file,
		Boxes: []coco.Drawn{box}}}, {Title: "b.png: removed", Before: &Side{Path: file + "x"}}}
	sheet := Contacts(list)
	if sheet.Bounds().Dx() != 2*(2*(320+gap)+gap)+gap || sheet.RGBAAt(gap+100, 100+2*line) != (color.RGBA{0, 0, 255,
		255}) {
		t.Errorf("%v, %v", sheet.Bounds(), sheet.RGBAAt(gap+100, 100+2*line))
	}
	if at := sheet.RGBAAt(gap+320+gap+51, gap+2*line+60); at != colours[coco.Missed] {
		t.Errorf("the changed box is %v", at)
	}
	for range MaxChanges {
		list = append(list, list[0])
	}
	if most := Contacts(list).Bounds().Dy(); most > 5000 || Contacts(nil).Bounds().Empty() {
		t.Errorf("%d pixels high", most)
	}
}
