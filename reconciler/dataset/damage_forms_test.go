package dataset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Faults in how names, numbers, files and texts are written. A fault is said once, and nothing that follows from it.
func TestDamagedForms(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	for _, test := range damagedForms(t) {
		t.Run(test.name, test.test)
	}
}

// damagedForms are copies with faults in how they are written.
func damagedForms(t *testing.T) []damagedCopy {
	whole := newCells(t)
	const annotations = "train/" + AnnotationsFile
	first, second := whole.name("train", 0), whole.name("train", 1)
	box := func(split string, i, k int, v ...any) func(c *cells) {
		return func(c *cells) { c.boxes(split, i)[k]["bbox"] = v }
	}
	each := func(list string, change func(object)) func(c *cells) {
		return func(c *cells) {
			for _, item := range c.files["train"][list].([]any) {
				change(item.(object))
			}
		}
	}
	rename := func(name, listed string) func(c *cells) {
		return func(c *cells) {
			os.Rename(c.path("train", first), c.path("train", name))
			c.image("train", 0)["file_name"] = listed
		}
	}
	file := func(data string) func(c *cells) { return func(c *cells) { c.put("train", first, []byte(data)) } }
	return []damagedCopy{
		{"names begin with ./", each("images", func(im object) { im["file_name"] = "./" + im["file_name"].(string) }),
			[]string{fmt.Sprintf(`error missing-file %s: "./%s" x6`, annotations, first)},
			"6 files of these names are in train: write file_name without a folder"},
		{"names are paths of another machine", each("images", func(im object) {
			im["file_name"] = "/home/a/" + im["file_name"].(string)
		}), []string{fmt.Sprintf(`error missing-file %s: "/home/a/%s" x6`, annotations, first)},
			"6 files of these names are in train: write file_name without a folder"},
		{"accents in two characters in the name of the file", rename("e\u0301.jpg", "\u00e9.jpg"),
			[]string{"error missing-file train/\u00e9.jpg"}, "accents in another form of Unicode"},
		{"bytes that are no text in the name of a file", func(c *cells) { c.put("train", "\xfc.jpg", nil) },
			[]string{`warning unlisted-file "train/\xfc.jpg"`}, "not used"},
		{"file_name is a number", func(c *cells) {
			os.Remove(c.path("train", first))
			c.image("train", 0)["file_name"] = 7
		}, []string{"error wrong-type " + annotations + ": images[0].file_name"}, "want a text"},
		{"name that reads like a box", func(c *cells) {
			rename("a, box 2.jpg", "a, box 2.jpg")(c)
			box("train", 0, 0, 9, 9, -9, 9)(c)
		}, []string{`warning negative-box "train/a, box 2.jpg", box 1`}, ""},
		{"files of the operating system", func(c *cells) {
			for _, name := range []string{".DS_Store", "._" + first, "Thumbs.db", "desktop.ini"} {
				c.put("train", name, []byte("x"))
			}
		}, nil, ""},
		{"ids are texts", func(c *cells) {
			each("images", func(im object) { im["id"] = fmt.Sprint(im["id"]) })(c)
			c.files["train"]["annotations"] = []any{}
		}, []string{"error wrong-type train/" + first + " x6", "error empty-class " + annotations + " x3"},
			"want a whole number, got a text"},
		{"id of an image is a fraction", func(c *cells) { c.image("train", 0)["id"] = 0.5 },
			[]string{"error wrong-type train/" + first}, "got 0.5"},
		{"ids are floating point numbers below zero", func(c *cells) {
			each("images", func(im object) { im["id"] = json.Number(fmt.Sprintf("-%v.0", im["id"].(float64)+1)) })(c)
			each("annotations", func(a object) {
				a["image_id"] = json.Number(fmt.Sprintf("-%v.0", a["image_id"].(float64)+1))
			})(c)
		}, nil, ""},
		{"sizes are 0", each("images", func(im object) { im["width"], im["height"] = 0, 0 }),
			[]string{"error size-mismatch train/" + first + " x6"}, "its annotations say 0 x 0"},
		{"sizes are texts", each("images", func(im object) { im["width"] = "640" }),
			[]string{"error wrong-type train/" + first + " x6"}, "width: want a whole number, got a text"},
		{"boxes are texts", func(c *cells) {
			for _, a := range c.boxes("valid", 0) {
				a["bbox"] = []any{"1", "2", "3", "4"}
			}
		}, []string{fmt.Sprintf("error wrong-type valid/%s, box 1 x%d", whole.name("valid", 0),
			len(whole.boxes("valid", 0)))}, "got a text"},
		{"box beside the image by a pixel", box("test", 0, 0, 640, 9, 1, 90),
			[]string{"error off-image test/" + whole.name("test", 0) + ", box 1"}, "wholly outside its image"},
		{"box of which a part of a pixel is inside", func(c *cells) {
			box("test", 0, 0, 639.6, 9, 90, 90)(c)
			c.boxes("test", 0)[0]["area"] = 8100
		}, []string{"warning degenerate-box test/" + whole.name("test", 0) + ", box 1"}, "only 0.4 x 90 pixels of it"},
		{"box that leaves the image by less than a pixel", func(c *cells) {
			box("test", 0, 0, 600, 9, 40.5, 90)(c)
			c.boxes("test", 0)[0]["area"] = 3600
		}, nil, ""},
		{"many negative boxes", each("annotations", func(a object) {
			b := a["bbox"].([]any)
			if a["category_id"].(float64) == whole.category("train", "RBC")["id"] {
				b[2] = -b[2].(float64)
			}
		}), []string{"error empty-class " + annotations, fmt.Sprintf("warning negative-box train/%s, box 2 x%d", first,
			len(whole.of("train", "RBC")))}, `class "RBC": no object in train with a box that can be used`},
		{"a box again after one that is left out", func(c *cells) {
			list := c.boxes("train", 0)
			list[0]["bbox"] = []any{9, 9, -9, 9}
			again := maps.Clone(list[2])
			again["id"] = 9000
			c.add("train", "annotations", again)
		}, []string{"warning negative-box train/" + first + ", box 1",
			fmt.Sprintf("warning duplicate-truth train/%s, box %d", first, len(whole.boxes("train", 0))+1)}, ""},
		{"empty files", func(c *cells) { c.put("train", first, nil); c.put("train", second, nil) },
			[]string{"error unreadable-image train/" + first + " x2"}, "the file is empty"},
		{"WebP", file("RIFF\x24\x00\x00\x00WEBPVP8 "), []string{"error unreadable-image train/" + first},
			"no JPEG or PNG but WebP, whatever its name says; save it"},
		{"JPEG XL", file("\x00\x00\x00\x0cJXL \r\n\x87\n"), []string{"error unreadable-image train/" + first},
			"JPEG XL"},
		{"HEIC", file("\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"),
			[]string{"error unreadable-image train/" + first}, "HEIC"},
		{"JPEG of four colours without their names", func(c *cells) { c.put("train", first, fourColours()) },
			[]string{"error unreadable-image train/" + first}, "save it as an RGB JPEG or PNG"},
		{"category is renamed in valid", func(c *cells) { c.category("valid", "WBC")["name"] = "White" },
			[]string{"warning no-truth valid"}, `no object of class "WBC" that counts, and no such category; it has ` +
				`objects of "White"`},
		{"category is written in small letters in test", func(c *cells) { c.category("test", "WBC")["name"] = "wbc" },
			[]string{"warning no-truth dir:d test"}, `its category "wbc" is written in another way than "WBC"`},
		{"all of a class are crowds in test", func(c *cells) {
			c.each("test", "WBC", func(a object) { a["iscrowd"] = 1 })
		}, []string{"warning no-truth dir:d test"}, `no object of class "WBC" that counts`},
		{"no image in test", func(c *cells) {
			for i := range cellImages["test"] {
				os.Remove(c.path("test", c.name("test", i)))
			}
			c.files["test"]["images"], c.files["test"]["annotations"] = []any{}, []any{}
		}, []string{"warning no-truth dir:d test"}, "has no image"},
	}
}

// of returns the annotations of a category in a split.
func (c *cells) of(split, category string) (list []object) {
	c.each(split, category, func(a object) { list = append(list, a) })
	return list
}

// fourColours returns a JPEG of four channels without Adobe's marker, which says what they are.
func fourColours() []byte {
	var b bytes.Buffer
	_ = jpeg.Encode(&b, image.NewGray(image.Rect(0, 0, 640, 480)), nil)
	data := b.Bytes()
	at := bytes.Index(data, []byte{0xff, 0xc0})
	frame := []byte{0xff, 0xc0, 0, 20, 8, 1, 0xe0, 2, 0x80, 4, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0, 4, 0x11, 0}
	scan := bytes.Index(data, []byte{0xff, 0xda})
	out := append(append([]byte{}, data[:at]...), frame...)
	out = append(out, data[at+2+int(data[at+3]):scan]...)
	out = append(out, 0xff, 0xda, 0, 14, 4, 1, 0, 2, 0, 3, 0, 4, 0, 0, 63, 0)
	for range 640 / 8 * 480 / 8 { // four blocks, each with no difference to the one before
		out = append(out, 0x28, 0xa2, 0x8a)
	}
	return append(out, 0xff, 0xd9)
}

// An annotation file may begin with the mark of UTF-8 or UTF-16. One in UTF-16 without it is refused with what to do.
func TestByteOrderMarks(t *testing.T) {
	for name, test := range map[string]struct {
		write func(text string) []byte
		says  string
	}{
		"UTF-8":         {func(text string) []byte { return []byte("\ufeff" + text) }, ""},
		"UTF-16":        {func(text string) []byte { return wide("\ufeff" + text) }, ""},
		"UTF-16, plain": {wide, "in UTF-16; save it as UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCells(t)
			c.check()
			data := test.write(string(c.read("train", AnnotationsFile)))
			c.put("train", AnnotationsFile, data)
			r, err := folders("d", c.dir).Check(t.Context(), delivery.DataRun{Dataset: inDir("d"), Classes: bloodCells},
				"", nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if (test.says == "") != (len(r.Findings) == 0) || test.says != "" && (len(r.Findings) != 1 ||
				!strings.Contains(r.Findings[0].Text, test.says)) {
				t.Errorf("%+v", r.Findings)
			}
		})
	}
}

func wide(text string) (data []byte) {
	for _, unit := range utf16.Encode([]rune(text)) {
		data = append(data, byte(unit), byte(unit>>8))
	}
	return data
}

// Without classes of a model, each label is a class; if there is no object at all, each is one that cannot be learnt.
func TestNothingLeftWithoutClasses(t *testing.T) {
	c := newCells(t)
	c.each("train", "", func(a object) { a["bbox"] = []any{9, 9, -9, -9} })
	c.check()
	r, err := folders("d", c.dir).Check(t.Context(), delivery.DataRun{Dataset: inDir("d")}, "", nil, nil)
	if err != nil || len(r.Findings) < 2 || r.Findings[0].Code != "empty-class" || r.Findings[1].Code == "empty-class" {
		t.Errorf("%v, %+v", err, r.Findings)
	}
}

// Boxes have the numbers of findings where they are shown, also after one that is left out.
func TestShownNumbers(t *testing.T) {
	c := newCells(t)
	c.boxes("train", 0)[1]["bbox"] = []any{9, 9, -9, 9}
	c.check()
	im, err := folders("d", c.dir).Image(t.Context(), inDir("d"), filepath.Join("train", c.name("train", 0)))
	if err != nil || len(im.Boxes) < 2 || im.Boxes[0].Number != 1 || im.Boxes[1].Number != 3 ||
		!strings.HasPrefix(im.Drawn()[1].Class, "3 ") {
		t.Errorf("%v, %+v", err, im.Boxes)
	}
}

// Where splits.json divides a dataset, a box that cannot be used is a finding of its own split, with its number.
func TestDamagedInSplits(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	splits := map[string][]string{}
	var images, annotations []object
	for i, name := range []string{"train", "valid", "test"} {
		var b bytes.Buffer
		m := image.NewGray(image.Rect(0, 0, 64, 48))
		for at := range m.Pix {
			m.Pix[at] = uint8(60 * i)
		}
		if err := jpeg.Encode(&b, m, nil); err != nil {
			t.Fatal(err)
		}
		write("images/"+name+".jpg", b.Bytes())
		splits[name] = []string{"images/" + name + ".jpg"}
		images = append(images, object{"id": i, "file_name": name + ".jpg", "width": 64, "height": 48})
		for k, width := range []int{-5, 5, 5} {
			if name != "test" {
				width = 5 + k
			}
			annotations = append(annotations, object{"id": 10*i + k, "image_id": i, "category_id": 1, "area": 25,
				"bbox": []int{9, 9, width, 5}})
		}
	}
	for name, v := range map[string]any{SplitsFile: splits, "annotations/instances_default.json": object{
		"images": images, "annotations": annotations, "categories": []object{{"id": 1, "name": "a"}}}} {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		write(name, data)
	}
	r, err := folders("d", dir).Check(t.Context(), delivery.DataRun{Dataset: inDir("d")}, "", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range r.Findings {
		got = append(got, f.Level+" "+f.Code+" "+f.Where)
	}
	if want := []string{"error negative-box test: test.jpg, box 1",
		"warning duplicate-truth test: test.jpg, box 3"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// What a dataset is said to have, before and after it is frozen, is what is judged on.
func TestDescribedIsUsed(t *testing.T) {
	c := newCells(t)
	boxes := c.boxes("test", 0)
	boxes[0]["iscrowd"] = 1
	boxes[1]["bbox"] = []any{9, 9, 0, 9}
	boxes[2]["bbox"] = []any{639.5, 9, 40, 90}
	c.put("test", "copy.jpg", c.read("test", c.name("test", 1)))
	c.another("test", "copy.jpg", c.image("test", 1), 1)
	c.check()
	catalog := folders("d", c.dir)
	frozen, err := catalog.Freeze(t.Context(), delivery.EvalSet{Dataset: inDir("d"), Split: "test"})
	described, err2 := catalog.Describe(t.Context(), inDir("d"))
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	test := described.Splits[len(described.Splits)-1]
	if test.Name != "test" || test.Images != frozen.Images || !maps.Equal(test.Boxes, frozen.Truths) {
		t.Errorf("%+v, frozen %+v", test, frozen)
	}
}
