package dataset

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// A cells is a small part of BCCD, to be damaged: a few images of each split, with their annotations.
type cells struct {
	t     testing.TB
	dir   string
	files map[string]object // annotation files by split
}

// cellImages is how many images of each split are taken.
var cellImages = map[string]int{"train": 6, "valid": 3, "test": 4}

func newCells(t testing.TB) *cells {
	from := sharedBCCD(t)
	c := &cells{t: t, dir: t.TempDir(), files: map[string]object{}}
	for split, n := range cellImages {
		data, err := os.ReadFile(filepath.Join(from, split, AnnotationsFile))
		var file object
		if err = errors.Join(err, json.Unmarshal(data, &file), os.Mkdir(filepath.Join(c.dir, split),
			0o755)); err != nil {
			t.Fatal(err)
		}
		c.files[split] = object{"images": file["images"].([]any)[:n], "categories": file["categories"]}
		var annotations []any
		kept := map[any]bool{}
		for i := range n {
			name := c.name(split, i)
			kept[c.image(split, i)["id"]] = true
			if err := durable.Link(filepath.Join(from, split, name), c.path(split, name)); err != nil {
				t.Fatal(err)
			}
		}
		for _, a := range file["annotations"].([]any) {
			if kept[a.(object)["image_id"]] {
				annotations = append(annotations, a)
			}
		}
		c.files[split]["annotations"] = annotations
	}
	return c
}

func (c *cells) path(split, name string) string { return filepath.Join(c.dir, split, name) }

// image returns image i of a split.
func (c *cells) image(split string, i int) object {
	return c.files[split]["images"].([]any)[i].(object)
}

func (c *cells) name(split string, i int) string { return c.image(split, i)["file_name"].(string) }

// boxes returns the annotations of image i of a split.
func (c *cells) boxes(split string, i int) []object {
	var list []object
	for _, a := range c.files[split]["annotations"].([]any) {
		if a.(object)["image_id"] == c.image(split, i)["id"] {
			list = append(list, a.(object))
		}
	}
	return list
}

// each calls change for every annotation of a category in a split; "" is every category.
func (c *cells) each(split, category string, change func(object)) {
	for _, a := range c.files[split]["annotations"].([]any) {
		if a := a.(object); category == "" || a["category_id"] == c.category(split, category)["id"] {
			change(a)
		}
	}
}

func (c *cells) category(split, name string) object {
	for _, cat := range c.files[split]["categories"].([]any) {
		if cat.(object)["name"] == name {
			return cat.(object)
		}
	}
	c.t.Fatalf("no category %s", name)
	return nil
}

// add appends an item to a list of a split's annotation file.
func (c *cells) add(split, list string, item object) {
	c.files[split][list] = append(c.files[split][list].([]any), item)
}

// another adds an entry for a file to a split, with the boxes of the same split's image i if that is not negative.
func (c *cells) another(split, name string, of object, i int) {
	entry := maps.Clone(of)
	entry["id"], entry["file_name"] = 9000, name
	if i >= 0 {
		for k, a := range c.boxes(split, i) {
			b := maps.Clone(a)
			b["id"], b["image_id"] = 9000+k, 9000
			c.add(split, "annotations", b)
		}
	}
	c.add(split, "images", entry)
}

func (c *cells) read(split, name string) []byte {
	data, err := os.ReadFile(c.path(split, name))
	if err != nil {
		c.t.Fatal(err)
	}
	return data
}

// put replaces a file; the original, to which it is linked, stays.
func (c *cells) put(split, name string, data []byte) {
	path := c.path(split, name)
	if err := errors.Join(os.RemoveAll(path), os.WriteFile(path, data, 0o644)); err != nil {
		c.t.Fatal(err)
	}
}

// picture decodes a file.
func (c *cells) picture(split, name string) image.Image {
	m, err := jpeg.Decode(bytes.NewReader(c.read(split, name)))
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// again encodes a picture as another file.
func again(m image.Image) []byte {
	var b bytes.Buffer
	_ = jpeg.Encode(&b, m, &jpeg.Options{Quality: 70}) // cannot fail
	return b.Bytes()
}

// mirrored turns a picture around.
func mirrored(m image.Image) image.Image {
	out := image.NewRGBA(m.Bounds())
	for y := range m.Bounds().Dy() {
		for x := range m.Bounds().Dx() {
			out.Set(m.Bounds().Dx()-1-x, y, m.At(x, y))
		}
	}
	return out
}

// withOrientation puts an EXIF orientation into a JPEG.
func withOrientation(data []byte, orientation uint16) []byte {
	tiff := []byte("MM\x00\x2a\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01")
	tiff = append(binary.BigEndian.AppendUint16(tiff, orientation), 0, 0, 0, 0, 0, 0)
	segment := append([]byte("Exif\x00\x00"), tiff...)
	head := binary.BigEndian.AppendUint16([]byte("\xff\xd8\xff\xe1"), uint16(len(segment)+2))
	return slices.Concat(head, segment, data[2:])
}

// check writes the annotation files and checks the dataset.
func (c *cells) check() delivery.DataResult {
	r, _ := c.report()
	return r
}

// report writes the annotation files and checks the dataset, with its tables. NAN in a file becomes NaN.
func (c *cells) report() (delivery.DataResult, Tables) {
	for split, file := range c.files {
		data, err := json.Marshal(file)
		if err != nil {
			c.t.Fatal(err)
		}
		c.put(split, AnnotationsFile, bytes.ReplaceAll(data, []byte(`"NAN"`), []byte("NaN")))
	}
	r, tables, err := folders("d", c.dir).Report(c.t.Context(), delivery.DataRun{Dataset: inDir("d"),
		Classes: bloodCells}, nil, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return r, tables
}

// A damagedCopy is what is done to a copy of BCCD, and what its check finds.
type damagedCopy struct {
	name   string
	damage func(c *cells)
	want   []string // level, code, place, and count if it is not 1
	says   string   // in the first finding
}

func (d damagedCopy) test(t *testing.T) {
	c := newCells(t)
	d.damage(c)
	r, tables := c.report()
	agree(t, r, tables)
	var got []string
	for _, f := range r.Findings {
		line := strings.Join([]string{f.Level, f.Code, f.Where}, " ")
		if f.Count > 1 {
			line += fmt.Sprintf(" x%d", f.Count)
		}
		got = append(got, line)
	}
	if !slices.Equal(got, d.want) || len(got) > 0 && !strings.Contains(r.Findings[0].Text, d.says) {
		t.Errorf("got %q\nwant %q with %s\n%+v", got, d.want, d.says, r.Findings)
	}
}

// Each copy of BCCD has one fault. It is found at its place, and nothing else is.
func TestDamagedCopies(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	for _, test := range damages(t) {
		t.Run(test.name, test.test)
	}
}

// damages are copies with faults in what their annotations and files say.
func damages(t *testing.T) []damagedCopy {
	bbox := func(v ...any) func(a object) { return func(a object) { a["bbox"] = v } }
	whole := newCells(t)
	train := func(i int) string { return "train/" + whole.name("train", i) }
	valid := func(i int) string { return "valid/" + whole.name("valid", i) }
	test := func(i int) string { return "test/" + whole.name("test", i) }
	objects := len(whole.files["train"]["annotations"].([]any))
	const annotations = "train/" + AnnotationsFile
	tests := []damagedCopy{
		{"none", func(*cells) {}, nil, ""},
		{"file of train is missing", func(c *cells) { os.Remove(c.path("train", c.name("train", 1))) },
			[]string{"error missing-file " + train(1)}, "not there"},
		{"file of valid is missing", func(c *cells) { os.Remove(c.path("valid", c.name("valid", 0))) },
			[]string{"error missing-file " + valid(0)}, "not there"},
		{"file of test is missing", func(c *cells) { os.Remove(c.path("test", c.name("test", 3))) },
			[]string{"error missing-file " + test(3)}, "not there"},
		{"images lie a folder too deep", func(c *cells) {
			os.Mkdir(c.path("train", "images"), 0o755)
			for i := range cellImages["train"] {
				os.Rename(c.path("train", c.name("train", i)), c.path("train/images", c.name("train", i)))
			}
		}, []string{"error missing-file " + train(0) + " x6"}, "6 files of these names are in train/images: move " +
			"them up"},
		{"images are in a folder of the names only", func(c *cells) {
			for i := range cellImages["train"] {
				c.image("train", i)["file_name"] = `images\` + c.name("train", i)
			}
		}, []string{`error missing-file train/images\` + whole.name("train", 0) + " x6"},
			"6 files of these names are in train: write file_name without a folder"},
		{"names have the other slash", func(c *cells) {
			for i := range cellImages["train"] {
				to := []string{"train/cam1", "train/cam2"}[i%2]
				os.Mkdir(c.path(to, ""), 0o755)
				os.Rename(c.path("train", c.name("train", i)), c.path(to, c.name("train", i)))
				c.image("train", i)["file_name"] = path.Base(to) + `\` + c.name("train", i)
			}
		}, []string{`error missing-file train/cam1\` + whole.name("train", 0) + " x6"},
			`6 files of these names are there: write / for each \ of file_name`},
		{"name in capitals", func(c *cells) {
			c.image("train", 2)["file_name"] = strings.ToUpper(c.name("train", 2))
		}, []string{"error missing-file train/" + strings.ToUpper(whole.name("train", 2))}, "upper and lower case"},
		{"name leads out", func(c *cells) {
			c.image("train", 2)["file_name"] = "../" + valid(0)
			os.Remove(c.path("train", whole.name("train", 2)))
		}, []string{"error missing-file " + annotations}, "want a path below the folder"},
		{"no name", func(c *cells) {
			os.Remove(c.path("train", c.name("train", 2)))
			delete(c.image("train", 2), "file_name")
		}, []string{"error missing-file " + annotations + fmt.Sprintf(": image %v", whole.image("train", 2)["id"])},
			"no file_name"},
		{"cut off image", func(c *cells) {
			data := c.read("train", c.name("train", 0))
			c.put("train", c.name("train", 0), data[:len(data)/2])
		}, []string{"error truncated-image " + train(0)}, "truncated"},
		{"web page as image", func(c *cells) { c.put("train", c.name("train", 0), []byte("<html>404</html>")) },
			[]string{"error unreadable-image " + train(0)}, "no JPEG or PNG"},
		{"empty image", func(c *cells) { c.put("valid", c.name("valid", 0), nil) },
			[]string{"error unreadable-image " + valid(0)}, "no JPEG or PNG"},
		{"pointers of Git LFS", func(c *cells) {
			for i := range 2 {
				c.put("train", c.name("train", i), fmt.Appendf(nil, "version https://git-lfs.github.com/spec/v1\n"+
					"oid sha256:%064d\nsize 9\n", i))
			}
		}, []string{"error unreadable-image " + train(0) + " x2"}, "run git lfs pull"},
		{"GIF as JPEG", func(c *cells) {
			var b bytes.Buffer
			_ = gif.Encode(&b, image.NewPaletted(image.Rect(0, 0, 640, 480), color.Palette{color.Black}), nil)
			c.put("train", c.name("train", 5), b.Bytes())
		}, []string{"error unreadable-image " + train(5)}, "no JPEG or PNG"},
		{"JPEG with arithmetic coding", func(c *cells) {
			c.put("train", c.name("train", 5), bytes.Replace(c.read("train", c.name("train", 5)), []byte("\xff\xc0"),
				[]byte("\xff\xc9"), 1))
		}, []string{"error unreadable-image " + train(5)}, "save it as an RGB JPEG or PNG"},
		{"grey with 16 bits", func(c *cells) {
			var b bytes.Buffer
			m := c.picture("train", c.name("train", 0))
			grey := image.NewGray16(m.Bounds())
			for y := range m.Bounds().Dy() {
				for x := range m.Bounds().Dx() {
					grey.Set(x, y, m.At(x, y))
				}
			}
			_ = png.Encode(&b, grey)
			c.put("train", c.name("train", 0), b.Bytes())
		}, []string{"error 16-bit-image " + train(0)}, "save it with 8 bits"},
		{"turned by EXIF", func(c *cells) {
			for i := range 3 {
				c.put("train", c.name("train", i), withOrientation(c.read("train", c.name("train", i)), 3))
			}
		}, []string{"warning exif-orientation train"}, "3 of 6 images have an EXIF orientation"},
		{"annotated as turned by EXIF", func(c *cells) {
			c.put("train", c.name("train", 0), withOrientation(c.read("train", c.name("train", 0)), 6))
			im := c.image("train", 0)
			im["width"], im["height"] = im["height"], im["width"]
			delete(c.files["train"], "x")
			c.files["train"]["annotations"] = slices.DeleteFunc(c.files["train"]["annotations"].([]any),
				func(a any) bool {
					return a.(object)["image_id"] == im["id"]
				})
		}, []string{"error size-mismatch " + train(0), "warning exif-orientation train"}, "EXIF orientation 6"},
		{"another size", func(c *cells) { c.image("test", 0)["width"] = 700 },
			[]string{"error size-mismatch " + test(0)}, "its annotations say 700 x"},
		{"image id twice", func(c *cells) { c.another("train", c.name("train", 1), c.image("train", 1), -1) },
			[]string{"error duplicate-file " + train(1)}, "listed twice"},
		{"two images of one id", func(c *cells) {
			c.add("train", "images", maps.Clone(c.image("train", 1)))
		}, []string{"error duplicate-id " + train(1)}, "is there twice"},
		{"annotation id twice", func(c *cells) {
			c.boxes("train", 2)[3]["id"] = c.boxes("train", 2)[1]["id"]
		}, []string{"error duplicate-id " + train(2) + ", box 4"}, "is there twice"},
		{"category id twice", func(c *cells) {
			c.add("train", "categories", object{"id": c.category("train", "RBC")["id"], "name": "other"})
		}, []string{"error duplicate-id " + annotations + ": categories[4].id"}, "is there twice"},
		{"annotation of no image", func(c *cells) { c.boxes("train", 2)[3]["image_id"] = 77777 },
			[]string{"error unknown-image " + annotations + ": annotations[" + fmt.Sprint(at(whole, 2,
				3)) + "].image_id"},
			"77777 is not among the images"},
		{"annotation of no category", func(c *cells) { c.boxes("train", 2)[3]["category_id"] = 77 },
			[]string{"error unknown-category " + train(2) + ", box 4"}, "77 is not among the categories"},
		{"no box", func(c *cells) { delete(c.boxes("train", 2)[3], "bbox") },
			[]string{"error missing-box " + train(2) + ", box 4"}, "bbox: missing"},
		{"box of three", func(c *cells) { bbox(1, 2, 3)(c.boxes("train", 2)[3]) },
			[]string{"error wrong-type " + train(2) + ", box 4"}, "want 4 numbers, got 3"},
		{"box of texts", func(c *cells) { bbox("1", 2, 3, 4)(c.boxes("valid", 2)[3]) },
			[]string{"error wrong-type " + valid(2) + ", box 4"}, "got a text"},
		{"box with NaN", func(c *cells) { bbox("NAN", 2, 3, 4)(c.boxes("valid", 2)[3]) },
			[]string{"error not-finite " + valid(2) + ", box 4"}, "want a finite number"},
		{"no area", func(c *cells) { delete(c.boxes("train", 2)[3], "area") },
			[]string{"error missing-field " + train(2) + ", box 4"}, "area: missing"},
		{"negative width in train", func(c *cells) { bbox(9, 9, -9, 9)(c.boxes("train", 2)[3]) },
			[]string{"warning negative-box " + train(2) + ", box 4"}, "want width and height from 0 up"},
		{"negative width in test", func(c *cells) { bbox(9, 9, -9, 9)(c.boxes("test", 2)[3]) },
			[]string{"error negative-box " + test(2) + ", box 4"}, "want width and height from 0 up"},
		{"box beside the image in train", func(c *cells) { bbox(5041, 9, 90, 90)(c.boxes("train", 2)[0]) },
			[]string{"warning off-image " + train(2) + ", box 1"}, "wholly outside its image"},
		{"box beside the image in test", func(c *cells) { bbox(5041, 9, 90, 90)(c.boxes("test", 2)[0]) },
			[]string{"error off-image " + test(2) + ", box 1"}, "wholly outside its image"},
		{"box over the edge", func(c *cells) {
			bbox(600, 9, 90, 90)(c.boxes("train", 2)[0])
			c.boxes("train", 2)[0]["area"] = 90 * 90
		}, []string{"warning outside-image " + train(2) + ", box 1"}, "by 50 pixels"},
		{"box of no width", func(c *cells) { bbox(60, 9, 0, 90)(c.boxes("train", 2)[0]) },
			[]string{"warning empty-box " + train(2) + ", box 1"}, "the box is empty"},
		{"box of half a pixel", func(c *cells) { bbox(60, 9, 0.5, 90)(c.boxes("test", 2)[0]) },
			[]string{"warning degenerate-box " + test(2) + ", box 1"}, "less than a pixel across"},
		{"boxes are shares", func(c *cells) {
			n := 0.0
			c.each("train", "", func(a object) { n++; bbox(n/1000, 0.1, 0.2, 0.3)(a) })
		}, []string{"error empty-class " + annotations + " x3",
			fmt.Sprintf("warning degenerate-box %s, box 1 x%d", train(0), objects)}, "look like shares of the image"},
		{"all of a class are crowds", func(c *cells) { c.each("train", "WBC", func(a object) { a["iscrowd"] = 1 }) },
			[]string{"error empty-class " + annotations}, `class "WBC": nothing is left to learn it from`},
		{"none of a class", func(c *cells) {
			c.files["train"]["annotations"] = slices.DeleteFunc(c.files["train"]["annotations"].([]any),
				func(a any) bool {
					return a.(object)["category_id"] == c.category("train", "WBC")["id"]
				})
		}, []string{"error empty-class " + annotations}, `class "WBC": no object in train`},
		{"misspelt category", func(c *cells) { c.category("train", "WBC")["name"] = "wbc" },
			[]string{"error unknown-class " + annotations}, `class "WBC": no category is named "WBC"`},
		{"category with a space", func(c *cells) { c.category("train", "WBC")["name"] = "WBC " },
			[]string{"error unknown-class " + annotations}, `To learn it from "WBC ", write in classes: WBC: ["WBC "]`},
		{"two categories of one name", func(c *cells) {
			c.add("train", "categories", object{"id": 50, "name": "RBC"})
		}, []string{"warning duplicate-name " + annotations + ": categories[4].name"}, `"RBC" is the name of`},
		{"another category", func(c *cells) {
			c.add("train", "categories", object{"id": 50, "name": "dust"})
			c.boxes("train", 0)[0]["category_id"] = 50
		}, []string{"warning unused-category " + annotations}, `category "dust" has 1 object`},
		{"a misspelt label", func(c *cells) {
			c.add("train", "categories", object{"id": 50, "name": "rbc"})
			c.boxes("train", 0)[1]["category_id"] = 50
		}, []string{"warning similar-category " + train(0) + ", box 2"}, `which has 1 object, and "RBC" has`},
		{"boxes as corners", func(c *cells) {
			c.each("train", "", func(a object) {
				b := a["bbox"].([]any)
				a["bbox"] = []any{b[0], b[1], b[0].(float64) + b[2].(float64), b[1].(float64) + b[3].(float64)}
			})
		}, []string{"error corner-boxes " + train(0) + ", box 1", "warning outside-image " + train(0) + ", box 1 x79"},
			"is read as two corners"},
		{"areas of images", func(c *cells) { c.each("valid", "", func(a object) { a["area"] = 640 * 480 }) },
			[]string{"warning implausible-area " + valid(0) + ", box 1"}, "larger than the box in"},
		{"an area of 1", func(c *cells) { c.boxes("test", 2)[1]["area"] = 1 },
			[]string{"warning implausible-area " + test(2) + ", box 2"}, "less than a hundredth of the box in 1 of"},
		{"a box twice", func(c *cells) {
			a := maps.Clone(c.boxes("test", 0)[2])
			a["id"] = 9000
			c.add("test", "annotations", a)
		}, []string{fmt.Sprintf("warning duplicate-truth %s, box %d", test(0), len(whole.boxes("test", 0))+1)},
			"is box 3 again"},
		{"a box with two labels", func(c *cells) {
			a := maps.Clone(c.of("test", "RBC")[0])
			a["id"], a["category_id"] = 9000, c.category("test", "WBC")["id"]
			c.add("test", "annotations", a)
		}, []string{fmt.Sprintf("warning two-labels %s, box %d", test(0), len(whole.boxes("test", 0))+1)},
			`of category "WBC" is the box of box`},
		{"an image without an id", func(c *cells) { delete(c.image("train", 1), "id") },
			[]string{"error missing-field " + train(1)}, "id: missing"},
		{"one file with two entries", func(c *cells) { c.another("test", c.name("test", 1), c.image("test", 1), -1) },
			[]string{"error duplicate-file " + test(1)}, "their boxes differ"},
		{"one file with two equal entries", func(c *cells) {
			c.another("test", c.name("test", 1), c.image("test", 1),
				1)
		},
			[]string{"warning duplicate-file " + test(1)}, "it counts once"},
		{"equal bytes with other boxes", func(c *cells) {
			c.put("train", "copy.jpg", c.read("train", c.name("train", 1)))
			c.another("train", "copy.jpg", c.image("train", 1), -1)
		}, []string{"error duplicate-image train/copy.jpg"},
			"is the same picture as " + fmt.Sprintf("%q", whole.name("train", 1))},
		{"equal bytes with equal boxes", func(c *cells) {
			c.put("train", "copy.jpg", c.read("train", c.name("train", 1)))
			c.another("train", "copy.jpg", c.image("train", 1), 1)
		}, []string{"warning duplicate-image train/copy.jpg"},
			"is the same picture as " + fmt.Sprintf("%q", whole.name("train", 1))},
		{"the same picture encoded again", func(c *cells) {
			c.put("valid", "copy.jpg", again(c.picture("valid", c.name("valid", 1))))
			c.another("valid", "copy.jpg", c.image("valid", 1), 1)
		}, []string{"warning near-duplicate valid/copy.jpg"}, fmt.Sprintf("looks the same as %q", whole.name("valid",
			1))},
		{"image of test in train", func(c *cells) {
			c.put("train", "copy.jpg", c.read("test", c.name("test", 1)))
			c.another("train", "copy.jpg", c.image("test", 1), -1)
		}, []string{"error leaks train", "warning leak train/copy.jpg"}, "1 of 7 images (14.3%) are in an eval set"},
		{"image of test in train, encoded again", func(c *cells) {
			c.put("train", "copy.jpg", again(c.picture("test", c.name("test", 1))))
			c.another("train", "copy.jpg", c.image("test", 1), -1)
		}, []string{"warning perceptual-twin train/copy.jpg"}, fmt.Sprintf("looks the same as %q", test(1))},
		{"image of test in train, mirrored by Roboflow", func(c *cells) {
			c.put("train", "IMG_1_JPG_jpg.rf.0011aa.jpg", again(mirrored(c.picture("test", c.name("test", 1)))))
			c.another("train", "IMG_1_JPG_jpg.rf.0011aa.jpg", c.image("test", 1), -1)
			os.Rename(c.path("test", c.name("test", 1)), c.path("test", "IMG_1.JPG"))
			c.image("test", 1)["file_name"] = "IMG_1.JPG"
		}, []string{"error leaks train", "warning leak train/IMG_1_JPG_jpg.rf.0011aa.jpg"}, ""},
		{"image of valid in train, encoded again", func(c *cells) {
			c.put("train", "copy.jpg", again(c.picture("valid", c.name("valid", 1))))
			c.another("train", "copy.jpg", c.image("valid", 1), -1)
		}, []string{"warning split-twin train/copy.jpg"}, fmt.Sprintf("looks the same as %q", valid(1))},
		{"width and height exchanged", func(c *cells) {
			im := c.image("valid", 1)
			im["width"], im["height"] = im["height"], im["width"]
		}, []string{"error size-mismatch " + valid(1)}, "its annotations say 480 x 640"},
		{"category without a name", func(c *cells) { delete(c.category("train", "RBC"), "name") },
			[]string{"error missing-field " + annotations + ": categories[2].name",
				"error unknown-class " + annotations}, "missing"},
		{"box in a list", func(c *cells) { bbox([]any{1, 2, 3, 4})(c.boxes("valid", 2)[3]) },
			[]string{"error wrong-type " + valid(2) + ", box 4"}, "want a number, got an array"},
		{"frames of two videos with one name", func(c *cells) {
			for _, split := range []string{"train", "test"} {
				name := "frame_000000_jpg.rf." + split + ".jpg"
				os.Rename(c.path(split, c.name(split, 1)), c.path(split, name))
				c.image(split, 1)["file_name"] = name
			}
		}, []string{"warning same-name train/frame_000000_jpg.rf.train.jpg"}, "shows another picture"},
		{"image of valid in train", func(c *cells) {
			c.put("train", "copy.jpg", c.read("valid", c.name("valid", 1)))
			c.another("train", "copy.jpg", c.image("valid", 1), -1)
		}, []string{"warning split-leak train/copy.jpg"}, fmt.Sprintf("is the same file as %q", valid(1))},
		{"image of valid in train, with other boxes", func(c *cells) {
			c.put("train", "copy.jpg", c.read("valid", c.name("valid", 1)))
			c.another("train", "copy.jpg", c.image("train", 1), -1)
		}, []string{"warning split-leak train/copy.jpg"}, "and their boxes differ ("},
		{"a file too many", func(c *cells) { c.put("train", "notes.txt", []byte("x")) },
			[]string{"warning unlisted-file train/notes.txt"}, "it is not used"},
		{"no split valid", func(c *cells) {
			delete(c.files, "valid")
			os.RemoveAll(filepath.Join(c.dir, "valid"))
		}, []string{"error missing-split valid"}, "there is no valid/"},
		{"empty split valid", func(c *cells) {
			os.RemoveAll(filepath.Join(c.dir, "valid"))
			os.Mkdir(filepath.Join(c.dir, "valid"), 0o755)
			c.files["valid"]["images"], c.files["valid"]["annotations"] = []any{}, []any{}
		}, []string{"error empty-split valid"}, "has no image"},
		{"no object in test", func(c *cells) { c.files["test"]["annotations"] = []any{} },
			[]string{"warning no-truth dir:d test"}, "has no object that counts"},
		{"not the shape of COCO", func(c *cells) { c.files["train"] = object{"annotations": object{}} },
			[]string{"error annotations " + annotations}, "want an array, got an object"},
	}
	if len(tests) < 41 {
		t.Fatalf("%d damages", len(tests)-1)
	}
	return tests
}

// at returns the number in the file of box k of image i of train.
func at(c *cells, i, k int) int {
	return slices.IndexFunc(c.files["train"]["annotations"].([]any), func(a any) bool {
		return a.(object)["id"] == c.boxes("train", i)[k]["id"]
	})
}
