package dataset

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash/fnv"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/tools/txtar"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/store"
)

// unpack writes the files of an archive into a new folder. The content of an image is its size, as 64x48: it becomes a
// picture of its own.
func unpack(t testing.TB, files []txtar.File) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		data := f.Data
		if isImage(f.Name) {
			data = picture(t, f.Name, strings.TrimSpace(string(f.Data)))
		}
		file := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// picture returns an image file with noise that its name decides.
func picture(t testing.TB, name, size string) []byte {
	t.Helper()
	var w, h int
	if _, err := fmt.Sscanf(size, "%dx%d", &w, &h); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	seed := fnv.New64a()
	seed.Write([]byte(name))
	state := seed.Sum64()
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			if x%8 == 0 {
				state = state*6364136223846793005 + 1442695040888963407
			}
			m.SetRGBA(x, y, color.RGBA{uint8(state >> 33), uint8(state >> 41), uint8(state >> 49), 255})
		}
	}
	var b bytes.Buffer
	var err error
	if strings.EqualFold(path.Ext(name), ".png") {
		err = png.Encode(&b, m)
	} else {
		err = jpeg.Encode(&b, m, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// told describes a dataset in the form of the archives' want.
func told(d Description) string {
	var b strings.Builder
	fmt.Fprintf(&b, "layout: %s\n", d.Layout)
	for _, s := range d.Splits {
		name := s.Name
		if name == "" {
			name = "unsplit"
		}
		fmt.Fprintf(&b, "%s: %s", name, delivery.Count(s.Images, "image"))
		for _, label := range slices.Sorted(maps.Keys(s.Boxes)) {
			fmt.Fprintf(&b, ", %s %d", label, s.Boxes[label])
		}
		if s.Crowds > 0 {
			fmt.Fprintf(&b, ", %s", delivery.Count(s.Crowds, "crowd"))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// Public datasets and exports of tools, written anew in small, are read with the right counts and boxes, and what is
// found about them is only what the archive says.
func TestLayouts(t *testing.T) {
	archives, err := filepath.Glob("testdata/layouts/*.txtar")
	if err != nil || len(archives) < 12 {
		t.Fatal(err, archives)
	}
	for _, archive := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(archive), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(archive)
			if err != nil {
				t.Fatal(err)
			}
			dir := unpack(t, a.Files[1:])
			c, d, err := Folder(dir)
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.Describe(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			var want, found strings.Builder
			var boxes []string
			for line := range strings.Lines(string(a.Files[0].Data)) {
				switch kind, rest, _ := strings.Cut(line, " "); kind {
				case "box":
					boxes = append(boxes, strings.TrimSuffix(rest, "\n"))
				case "finding":
					found.WriteString(rest)
				default:
					parts := strings.Split(strings.TrimSuffix(line, "\n"), ", ")
					slices.SortFunc(parts[1:], func(a, b string) int {
						if a, b := strings.HasSuffix(a, "crowd"), strings.HasSuffix(b, "crowd"); a != b {
							return map[bool]int{true: 1, false: -1}[a]
						}
						return strings.Compare(a, b)
					})
					want.WriteString(strings.Join(parts, ", ") + "\n")
				}
			}
			if told(got) != want.String() {
				t.Errorf("got\n%swant\n%s", told(got), want.String())
			}
			if all := boxesOf(t, dir); !containsAll(all, boxes) {
				t.Errorf("boxes\n%s\nwant\n%s", strings.Join(all, "\n"), strings.Join(boxes, "\n"))
			}
			findings(t, c, d, found.String())
		})
	}
}

// boxesOf lists all boxes of a dataset: split, file, label and box.
func boxesOf(t *testing.T, dir string) []string {
	t.Helper()
	v, err := openFolder(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, name := range splitNames {
		s, ok, err := v.split(name, "")
		if l, _ := v.layout(); err != nil {
			if sub, unsplit := l.unsplit(); unsplit {
				s, err = sub.read("")
				ok, name = true, ""
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			continue
		}
		label := map[int64]string{}
		for _, c := range s.truth.Categories {
			label[c.ID] = c.Name
		}
		for _, a := range s.truth.Annotations {
			b := a.Box
			out = append(out, fmt.Sprintf("%s %s %s %.6g %.6g %.6g %.6g", name, strings.TrimPrefix(s.images[a.Image],
				"train2017/"), label[a.Category], b.X, b.Y, b.W, b.H))
		}
	}
	return out
}

func containsAll(all, some []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

// findings checks a dataset and compares levels and codes. Findings that any set of a few images has are left out.
func findings(t *testing.T, c Catalog, d delivery.Dataset, want string) {
	t.Helper()
	description, _ := c.Describe(t.Context(), d)
	var classes delivery.Classes
	for _, s := range description.Splits {
		if s.Name == "train" {
			for _, label := range slices.Sorted(maps.Keys(s.Boxes)) {
				if s.Boxes[label] > 0 {
					classes = append(classes, delivery.Class{Name: label, Labels: []string{label}})
				}
			}
		}
	}
	r, err := c.Check(t.Context(), delivery.DataRun{Dataset: d, Classes: classes}, "", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, f := range r.Findings {
		switch f.Code {
		case "few-images", "no-truth", "eval-set", "leaks", "perceptual-twin":
		default:
			line := f.Level + " " + f.Code + "\n"
			if !strings.Contains(got.String(), line) {
				got.WriteString(line)
			}
			if !strings.Contains(want, line) {
				t.Errorf("%+v", f)
			}
		}
	}
	for line := range strings.Lines(want) {
		if !strings.Contains(got.String(), line) {
			t.Errorf("no finding %sin\n%s", line, got.String())
		}
	}
}

// What cannot be read is refused with what it is and what to do.
func TestRefusals(t *testing.T) {
	const task = `[{"annotations": [], "data": {"image": "a.jpg"}}]`
	for _, c := range []struct {
		name  string
		files map[string]string
		says  string
		do    string
	}{
		{"nothing", nil, "holds no dataset", "name the folder of a dataset"},
		{"only images", map[string]string{"a.jpg": "8x8", "b.png": "8x8"}, "holds 2 images and no annotations",
			"docs/datasets.md"},
		{"not unpacked", map[string]string{"export.zip": "PK"}, "export.zip: the folder holds an archive", "unpack"},
		{"CrowdHuman", map[string]string{"annotation_train.odgt": `{"ID": "x", "gtboxes": []}`, "Images/a.jpg": "8x8"},
			"CrowdHuman's annotations", "convert them to COCO"},
		{"KITTI", map[string]string{"training/label_2/000000.txt": "Pedestrian 0.00 0 -0.20 712.40 143.00 810.73 " +
			"307.92 1.89 " +
			"0.48 1.20 1.84 1.47 8.41 0.01\n", "training/image_2/000000.png": "8x8"}, "labels of KITTI",
			"COCO or YOLO"},
		{"DOTA", map[string]string{"labelTxt/P0000.txt": "imagesource:GoogleEarth\ngsd:0.146\n",
			"images/P0000.png": "8x8"}, "labels of DOTA", "the upright box"},
		{"DOTA without a head", map[string]string{"labelTxt/P1.txt": "10.0 10 20 10 20 20 10 20 plane 0\n"},
			"labels of DOTA", "the upright box"},
		{"MOT Challenge", map[string]string{"train/MOT17-02/gt/gt.txt": "1,1,912,484,97,109,0,7,1\n",
			"train/MOT17-02/img1/000001.jpg": "8x8"}, "tracks of MOT Challenge", "convert them to COCO"},
		{"VisDrone", map[string]string{"annotations/a.txt": "684,8,273,116,0,0,0,0\n", "images/a.jpg": "8x8"},
			"labels of VisDrone", "VisDrone.yaml"},
		{"WIDER FACE", map[string]string{"wider_face_split/wider_face_train_bbx_gt.txt": "0--Parade/a.jpg\n1\n1 2 3 " +
			"4\n"},
			"WIDER FACE", "convert"},
		{"Open Images", map[string]string{"train-annotations-bbox.csv": "ImageID,Source\n"}, "tables of boxes",
			"convert"},
		{"xView", map[string]string{"xView_train.geojson": `{"type": "FeatureCollection"}`}, "GeoJSON", "convert"},
		{"CreateML", map[string]string{"train/_annotations.createml.json": `[]`}, "CreateML", "export it as COCO"},
		{"TFRecord", map[string]string{"train/cells.tfrecord": "x"}, "TFRecord", "export it as COCO"},
		{"Datumaro", map[string]string{"annotations/default.json": `{"info":{},"categories":{},"items":[]}`},
			"Datumaro",
			"export it as COCO"},
		{"labelme", map[string]string{"a.json": `{"version":"5.0","shapes":[]}`, "a.jpg": "8x8"}, "labelme",
			"labelme2coco"},
		{"VIA 3", map[string]string{"via.json": `{"project": {"vid_list": ["1"]}}`}, "VGG Image Annotator 3",
			"version 2"},
		{"JSON-MIN of Label Studio",
			map[string]string{"min.json": `[{"image":"a.jpg","label":[{"rectanglelabels":["a"]}]}]`},
			"export of Label Studio", "export it as COCO or YOLO"},
		{"only captions", map[string]string{"annotations/captions_train2017.json": `{"images":[],"annotations":[]}`},
			"without boxes", "add instances_*.json"},
		{"YOLO without names", map[string]string{"labels/a.txt": "0 0.5 0.5 0.1 0.1\n", "images/a.jpg": "8x8"},
			"YOLO labels without the names", "add data.yaml"},
		{"CVAT for video", map[string]string{"annotations.xml": `<annotations><version>1.1</version><track id="0"/>` +
			`</annotations>`}, "CVAT for video", "CVAT for images 1.1"},
		{"two of VOC", map[string]string{"VOC2007/Annotations/a.xml": "<annotation/>",
			"VOC2012/Annotations/a.xml": "<annotation/>"},
			"in VOC2007 and VOC2012", "name the folder of one"},
		{"two of COCO", map[string]string{"a.json": `{"images":[]}`, "b.json": `{"images":[]}`},
			"2 COCO annotation files",
			"instances_train.json"},
		{"two of train", map[string]string{"a_train.json": `{"images":[]}`, "b_train.json": `{"images":[]}`},
			"a_train.json and b_train.json both hold the images of train", "leave one"},
		{"two of Label Studio", map[string]string{"a.json": task, "b.json": task}, "both exports of Label Studio",
			"leave one"},
		{"data.yaml of nothing", map[string]string{"data.yaml": "train: images/train\nnames: [a]\n"},
			`"images/train" is not in the folder`, "put the images there"},
		{"data.yaml with an alias", map[string]string{"data.yaml": "train: &a [x]\nval: *a\nnames: [a]\n"},
			"val: want a path",
			""},
		{"data.yaml with another count", map[string]string{
			"data.yaml":    "train: images\nval: images\nnc: 3\nnames: [a, b]\n",
			"images/a.jpg": "8x8"}, "data.yaml: line 3: nc is 3, and names has 2 classes", "correct one of them"},
		{"data.yaml in GBK", map[string]string{"data.yaml": "train: images\nval: images\nnames: [\xcd\xd0\xc5\xcc]\n",
			"images/a.jpg": "8x8"}, "data.yaml is not in UTF-8", "save it as UTF-8"},
		{"classes.txt in GBK", map[string]string{"classes.txt": "\xcd\xd0\xc5\xcc\n\xb2\xe6\xb3\xb5\n",
			"images/a.jpg": "8x8"}, "classes.txt is not in UTF-8", "save it as UTF-8"},
		{"obj.names in GBK", map[string]string{"obj.data": "names = data/obj.names\ntrain = data/train.txt\n",
			"obj.names": "\xcd\xd0\xc5\xcc\n", "train.txt": "a.jpg\n", "a.jpg": "8x8"},
			"obj.names is not in UTF-8", "save it as UTF-8"},
		{"COCO of each image", map[string]string{"a.json": `{"images":[]}`, "b.json": `{"images":[]}`,
			"c.json": `{"images":[]}`, "d.json": `{"images":[]}`}, "4 COCO annotation files",
			"join them into one for each split"},
		{"data.yaml without names", map[string]string{"data.yaml": "train: x\nnames:\n"}, "names: want a list", ""},
		{"subsets of CVAT", map[string]string{"annotations.xml": `<annotations><image name="a.jpg" subset="Train"/>` +
			`<image name="b.jpg" subset="Monday"/></annotations>`}, `subset "Monday" is no split`,
			"call the project's subsets"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var files []txtar.File
			for name, content := range c.files {
				files = append(files, txtar.File{Name: name, Data: []byte(content)})
			}
			catalog, d, err := Folder(unpack(t, files))
			if err != nil {
				t.Fatal(err)
			}
			_, err = catalog.Describe(t.Context(), d)
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), c.do) {
				t.Fatalf("got %v", err)
			}
			r, err := catalog.Check(t.Context(), delivery.DataRun{Dataset: d}, "", nil, nil)
			if err != nil || len(r.Findings) != 1 || r.Findings[0].Code != "layout" ||
				!strings.Contains(r.Findings[0].Text, c.says) {
				t.Errorf("%v, %+v", err, r.Findings)
			}
		})
	}
}

// A fault is named with its file and line, and the others of the file are read.
func TestLabelFaults(t *testing.T) {
	voc := func(object string) map[string]string {
		return map[string]string{"Annotations/a.xml": "<annotation>\n<filename>a.jpg</filename>\n" +
			"<size><width>64</width><height>48</height></size>\n" + object + "</annotation>\n",
			"JPEGImages/a.jpg": "64x48"}
	}
	yolo := func(labels string) map[string]string {
		return map[string]string{"classes.txt": "car\n", "images/a.jpg": "64x48",
			"labels/a.txt": "0 0.5 0.5 0.1 0.1\n" + labels}
	}
	cvat := func(shape string) map[string]string {
		return map[string]string{"annotations.xml": "<annotations>\n<image name=\"a.jpg\" width=\"64\" " +
			"height=\"48\">\n" + shape +
			"\n</image>\n</annotations>\n", "images/a.jpg": "64x48"}
	}
	tasks := func(value string) map[string]string {
		return map[string]string{"project.json": `[{"annotations": [{"result": [{"type": "rectanglelabels", ` +
			`"value": ` + value + `}]}], "data": {"image": "a.jpg"}}]`, "images/a.jpg": "64x48"}
	}
	for _, c := range []struct {
		name  string
		files map[string]string
		where string
		says  string
	}{
		{"yolo: not a number", yolo("0 0.5 nan 0.1 0.1\n"), "labels/a.txt:2", `got "nan"`},
		{"yolo: infinite", yolo("0 0.5 Inf 0.1 0.1\n"), "labels/a.txt:2", `got "Inf"`},
		{"yolo: overflow", yolo("0 0.5 1e999 0.1 0.1\n"), "labels/a.txt:2", `got "1e999"`},
		{"yolo: a word", yolo("0 0.5 x 0.1 0.1\n"), "labels/a.txt:2", `want a number, got "x"`},
		{"yolo: pixels", yolo("0 120 80 30 20\n"), "labels/a.txt:2", "are these pixels?"},
		{"yolo: a score", yolo("0 0.5 0.5 0.1 0.1 0.9\n"), "labels/a.txt:2", "with a score"},
		{"yolo: too few", yolo("\n0 0.5 0.5\n"), "labels/a.txt:3", "got 2 numbers"},
		{"yolo: unknown class", yolo("1 0.5 0.5 0.1 0.1\n"), "labels/a.txt:2", "class 1 has no name"},
		{"yolo: class -1", yolo("-1 0.5 0.5 0.1 0.1\n"), "labels/a.txt:2", "class's number first"},
		{"yolo: class 0.5", yolo("0.5 0.5 0.5 0.1 0.1\n"), "labels/a.txt:2", "class's number first"},
		{"voc: not a number",
			voc("<object><name>a</name><bndbox><xmin>1</xmin><ymin>NaN</ymin><xmax>9</xmax><ymax>9</ymax>" +
				"</bndbox></object>"), "Annotations/a.xml:4", `bndbox: want a number up to 1e9, got "NaN"`},
		{"voc: no box", voc("<object><name>a</name></object>"), "Annotations/a.xml:4", "want one bndbox"},
		{"voc: no name", voc("<object><bndbox/></object>"), "Annotations/a.xml:4", "without a name"},
		{"voc: an entity", voc("<object><name>&x;</name></object>"), "Annotations/a.xml",
			"line 4: no XML: invalid character entity"},
		{"voc: entities that grow",
			map[string]string{"Annotations/a.xml": `<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]>` +
				`<annotation><filename>&c;</filename></annotation>`, "JPEGImages/a.jpg": "8x8"}, "Annotations/a.xml",
			"entity"},
		{"voc: a file of the machine",
			map[string]string{"Annotations/a.xml": `<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>` +
				`<annotation><filename>&b;</filename></annotation>`, "JPEGImages/a.jpg": "8x8"}, "Annotations/a.xml",
			"entity"},
		{"voc: cut", map[string]string{"Annotations/a.xml": "<annotation><object>", "JPEGImages/a.jpg": "8x8"},
			"Annotations/a.xml", "unexpected EOF"},
		{"voc: no image", map[string]string{"Annotations/b.xml": "<annotation/>", "JPEGImages/a.jpg": "8x8"},
			"Annotations/b.xml", `there is no image "b".jpg`},
		{"voc: out of the folder",
			map[string]string{"Annotations/b.xml": "<annotation><filename>../../../etc/hostname</filename>" +
				"</annotation>", "JPEGImages/a.jpg": "8x8"}, "Annotations/b.xml", "there is no image"},
		{"voc: a list of nothing", map[string]string{"Annotations/a.xml": "<annotation/>", "JPEGImages/a.jpg": "8x8",
			"ImageSets/Main/train.txt": "a\nb\n"}, "ImageSets/Main/train.txt:2", `names "b"`},
		{"cvat: not a number", cvat(`<box label="a" xtl="1" ytl="x" xbr="9" ybr="9"/>`), "annotations.xml:3",
			`ytl: want a number`},
		{"cvat: no label", cvat(`<box xtl="1" ytl="1" xbr="9" ybr="9"/>`), "annotations.xml:3", "has no label"},
		{"cvat: half a point", cvat(`<polygon label="a" points="1,2;3"/>`), "annotations.xml:3",
			"points: want a number"},
		{"cvat: no image", map[string]string{"annotations.xml": "<annotations>\n<image " +
			"name=\"../x/b.jpg\"/>\n</annotations>"},
			"annotations.xml:2", `names the image "../x/b.jpg", which is not in the folder`},
		{"label studio: overflow", tasks(`{"x": 1e999, "y": 1, "width": 1, "height": 1, "rectanglelabels": ["a"]}`),
			"project.json: tasks[0].annotations[0].result[0]", "1e999"},
		{"label studio: no number", tasks(`{"x": 1, "y": 1, "width": 1, "rectanglelabels": ["a"]}`),
			"project.json: tasks[0].annotations[0].result[0]", `want a number, got ""`},
		{"label studio: turned in the editor",
			tasks(`{"x": 1, "y": 1, "width": 9, "height": 9, "rectanglelabels": ["a"]}, "image_rotation": 90`),
			"project.json: tasks[0].annotations[0].result[0]", `was turned by "90" degrees in the editor`},
		{"label studio: no image",
			map[string]string{"project.json": `[{"annotations": [], "data": {"image": "../../b.jpg"}}]`},
			"project.json: tasks[0]", `"../../b.jpg"`},
		{"yolo: of two images", map[string]string{"classes.txt": "car\n", "images/a.jpg": "64x48",
			"images/a.png": "64x48", "images/b.jpg": "64x48", "labels/a.txt": "",
			"labels/b.txt": "0 0.5 0.5 0.1 0.1\n"},
			"labels/a.txt", `both "images/a.jpg" and "images/a.png"; give each image a name of its own`},
		{"yolo: UTF-16 without a mark", map[string]string{"classes.txt": "car\n", "images/a.jpg": "64x48",
			"images/b.jpg": "64x48", "labels/a.txt": "0 0.5 0.5 0.1 0.1\n", "labels/b.txt": "0\xff 1 1 1 1\n"},
			"labels/b.txt", "labels/b.txt is not in UTF-8; save it as UTF-8"},
		{"yolo: list of nothing", map[string]string{"data.yaml": "train: train.txt\nval: val.txt\nnames: [a]\n",
			"train.txt": "images/a.jpg\n../../b.jpg\n", "val.txt": "images/a.jpg", "images/a.jpg": "8x8"},
			"train.txt:2",
			`names the image "../../b.jpg"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var files []txtar.File
			for name, content := range c.files {
				files = append(files, txtar.File{Name: name, Data: []byte(content)})
			}
			v, err := openFolder(t.Context(), unpack(t, files))
			if err != nil {
				t.Fatal(err)
			}
			l, err := v.layout()
			if err != nil {
				t.Fatal(err)
			}
			s, err := l.subsets[0].read("")
			if err != nil {
				t.Fatal(err)
			}
			if len(s.faults) != 1 || s.faults[0].level != delivery.LevelError || s.faults[0].where != c.where ||
				!strings.Contains(s.faults[0].text, c.says) {
				t.Errorf("got %+v", s.faults)
			}
			if strings.HasPrefix(c.name, "yolo: ") && !strings.Contains(c.name, "list") &&
				len(s.truth.Annotations) != 1 {
				t.Errorf("the good label is lost: %+v", s.truth.Annotations)
			}
		})
	}
}

// The same pictures and boxes give the same training input in every layout, and the digest of a dataset covers all
// files.
func TestLayoutsAreOneForm(t *testing.T) {
	const coco = `{"images":[{"id":7,"file_name":"a.jpg","width":64,"height":48},` +
		`{"id":9,"file_name":"b.jpg","width":64,"height":48}],"categories":[{"id":3,"name":"car"}],` +
		`"annotations":[{"id":4,"image_id":7,"category_id":3,"bbox":[8,12,32,24],"area":768,"iscrowd":0}]}`
	voc := func(objects string) string {
		return `<annotation><size><width>64</width><height>48</height></size>` + objects + `</annotation>`
	}
	const object = `<object><name>car</name><bndbox><xmin>8</xmin><ymin>12</ymin><xmax>40</xmax><ymax>36</ymax>` +
		`</bndbox></object>`
	const shape = `<box label="car" xtl="8" ytl="12" xbr="40" ybr="36"/>`
	const task = `[{"annotations":[{"result":[{"type":"rectanglelabels","value":{"x":12.5,"y":25,"width":50,` +
		`"height":50,"rectanglelabels":["car"]}}]}],"data":{"image":"a.jpg"}},` +
		`{"annotations":[{"result":[]}],"data":{"image":"b.jpg"}}]`
	const splits = `{"train":["images/a.jpg"],"valid":["images/b.jpg"]}`
	layouts := map[string]map[string]string{
		"native": {"train/_annotations.coco.json": strings.Replace(coco, `,{"id":9,"file_name":"b.jpg","width":64,`+
			`"height":48}`, "", 1),
			"valid/_annotations.coco.json": `{"images":[{"id":9,"file_name":"b.jpg","width":64,` +
				`"height":48}],"categories":[{"id":3,"name":"car"}],"annotations":[]}`, "train/a.jpg": "64x48",
			"valid/b.jpg": "64x48"},
		"COCO files": {"annotations/instances_default.json": coco, SplitsFile: splits},
		"VOC":        {"Annotations/a.xml": voc(object), "Annotations/b.xml": voc(""), SplitsFile: splits},
		"CVAT": {"annotations.xml": `<annotations><image name="a.jpg" width="64" height="48">` + shape + `</image>` +
			`<image name="b.jpg" width="64" height="48"/></annotations>`, SplitsFile: splits},
		"YOLO":         {"classes.txt": "car\n", "labels/a.txt": "0 0.375 0.5 0.5 0.5\n", SplitsFile: splits},
		"Label Studio": {"export.json": task, SplitsFile: splits},
	}
	training := map[delivery.Digest][]string{}
	for name, content := range layouts {
		var files []txtar.File
		for file, text := range content {
			files = append(files, txtar.File{Name: file, Data: []byte(text)})
		}
		if name != "native" {
			files = append(files, txtar.File{Name: "images/a.jpg", Data: []byte("64x48")},
				txtar.File{Name: "images/b.jpg", Data: []byte("64x48")})
		}
		dir := unpack(t, files)
		for _, image := range []string{"a.jpg", "b.jpg"} { // the same bytes in every layout
			for _, in := range []string{"images/", "train/", "valid/"} {
				if _, err := os.Stat(filepath.Join(dir, in+image)); err == nil {
					if err := os.WriteFile(filepath.Join(dir, in+image), picture(t, image, "64x48"),
						0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		c, d, err := Folder(dir)
		if err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(t.TempDir(), "out")
		r, err := c.Check(t.Context(), delivery.DataRun{Dataset: d, Classes: delivery.Classes{{Name: "car",
			Labels: []string{"car"}}}}, out, store.Folder(t.TempDir()), nil)
		if err != nil || r.Failed() {
			t.Fatalf("%s: %v, %+v", name, err, r.Findings)
		}
		training[r.Training] = append(training[r.Training], name)
		v, err := openFolder(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		for _, file := range v.names() {
			data, err := os.ReadFile(v.path(file))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(h, "%x  %s\n", sha256.Sum256(data), file)
		}
		if want := fmt.Sprintf("sha256:%x", h.Sum(nil)); string(r.Content) != want {
			t.Errorf("%s: content %s, want %s", name, r.Content, want)
		}
	}
	if len(training) != 1 {
		t.Errorf("the training input differs: %v", training)
	}
}

// Texts that editors of Windows saved, with a byte order mark or in UTF-16, are read as those in UTF-8.
func TestEncodings(t *testing.T) {
	const word = "托盘"
	coco := func() string {
		return `{"images":[{"id":1,"file_name":"a.jpg","width":64,"height":48}],"categories":[{"id":1,"name":"` + word +
			`"}],"annotations":[{"id":1,"image_id":1,"category_id":1,"bbox":[1,2,30,20],"area":600,"iscrowd":0}]}`
	}
	layouts := map[string]map[string]string{
		"COCO in folders": {"train/_annotations.coco.json": coco(), "train/a.jpg": "64x48"},
		"COCO":            {"result.json": coco(), "images/a.jpg": "64x48"},
		"YOLO": {"data.yaml": "train: images\nnames: [" + word + "]\n", "images/a.jpg": "64x48",
			"labels/a.txt": "0 0.5 0.5 0.5 0.5\n"},
		"YOLO with classes": {"classes.txt": word + "\n", "images/a.jpg": "64x48",
			"labels/a.txt": "0 0.5 0.5 0.5 0.5\n"},
		"CVAT": {"annotations.xml": `<annotations><image name="a.jpg" width="64" height="48"><box label="` + word +
			`" xtl="1" ytl="1" xbr="9" ybr="9"/></image></annotations>`, "images/a.jpg": "64x48"},
		"VOC": {"Annotations/a.xml": "<annotation><filename>a.jpg</filename><object><name>" + word + "</name>" +
			"<bndbox>" +
			"<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>",
			"JPEGImages/a.jpg": "64x48"},
		"Label Studio": {"project.json": `[{"annotations": [{"result": [{"type": "rectanglelabels", "value": {` +
			`"x": 1, "y": 1, "width": 9, "height": 9, ` +
			`"rectanglelabels": ["` + word + `"]}}]}], "data": {"image": "a.jpg"}}]`,
			"images/a.jpg": "64x48"},
	}
	encodings := map[string]encoding.Encoding{"UTF-8 with a mark": unicode.UTF8BOM,
		"UTF-16":                unicode.UTF16(unicode.LittleEndian, unicode.UseBOM),
		"UTF-16 of other order": unicode.UTF16(unicode.BigEndian, unicode.UseBOM)}
	for name, files := range layouts {
		for with, enc := range encodings {
			t.Run(name+" in "+with, func(t *testing.T) {
				var written []txtar.File
				for name, content := range files {
					if !isImage(name) {
						var err error
						if content, err = enc.NewEncoder().String(content); err != nil {
							t.Fatal(err)
						}
					}
					written = append(written, txtar.File{Name: name, Data: []byte(content)})
				}
				c, d, err := Folder(unpack(t, written))
				if err != nil {
					t.Fatal(err)
				}
				got, err := c.Stats(t.Context(), d, nil)
				if err != nil {
					t.Fatal(err)
				}
				if len(got.Splits) != 1 || got.Splits[0].Boxes != 1 || got.Splits[0].Classes[0].Label != word {
					t.Errorf("got %+v", got)
				}
			})
		}
	}
}

// A folder with labels of two kinds is read by one, and that is said.
func TestTwoLayouts(t *testing.T) {
	const coco = `{"images":[{"id":1,"file_name":"a.jpg","width":64,"height":48}],"categories":[{"id":1,` +
		`"name":"car"}],"annotations":[{"id":1,"image_id":1,"category_id":1,"bbox":[1,2,30,20],"area":600,` +
		`"iscrowd":0}]}`
	const cvat = `<annotations><image name="a.jpg" width="64" height="48"><box label="car" xtl="1" ytl="1" xbr="9" ` +
		`ybr="9"/></image></annotations>`
	const voc = "<annotation><filename>a.jpg</filename></annotation>"
	for _, c := range []struct {
		files map[string]string
		says  string // "" if there is one kind
	}{
		{map[string]string{"annotations.xml": cvat, "annotations/instances_default.json": coco},
			"those of CVAT for images 1.1 are used, and those of COCO annotation files " +
				"(annotations/instances_default.json) are not"},
		{map[string]string{"train/_annotations.coco.json": coco, "train/a.jpg": "64x48", "labels.json": coco},
			"those of COCO in split folders (Roboflow) are used, and those of COCO annotation files (labels.json) " +
				"are not"},
		{map[string]string{"Annotations/a.xml": voc, "result.json": coco}, "those of Pascal VOC are used"},
		{map[string]string{"data.yaml": "train: images\nnames: [car]\n", "labels/a.txt": "0 0.5 0.5 0.5 0.5\n",
			"Annotations/a.xml": voc}, "and those of Pascal VOC (Annotations) are not"},
		{map[string]string{"result.json": coco, "tasks.json": `[{"annotations": [], "data": {"image": "a.jpg"}}]`},
			"those of COCO annotation files are used, and those of Label Studio"},
		{map[string]string{"annotations.xml": cvat}, ""},
		{map[string]string{"train/_annotations.coco.json": coco, "train/a.jpg": "64x48"}, ""},
		{map[string]string{"data.yaml": "train: images\nnames: [car]\n", "classes.txt": "car\n",
			"labels/a.txt": "0 0.5 0.5 0.5 0.5\n"}, ""},
	} {
		files := []txtar.File{{Name: "images/a.jpg", Data: []byte("64x48")}, {Name: SplitsFile,
			Data: []byte(`{"train":["images/a.jpg"]}`)}}
		if c.files["train/_annotations.coco.json"] != "" {
			files = nil
		}
		for name, content := range c.files {
			files = append(files, txtar.File{Name: name, Data: []byte(content)})
		}
		catalog, d, err := Folder(unpack(t, files))
		if err != nil {
			t.Fatal(err)
		}
		r, err := catalog.Check(t.Context(), delivery.DataRun{Dataset: d}, "", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		f := find(r, "two-layouts")
		if (f.Code != "") != (c.says != "") || !strings.Contains(f.Text, c.says) || find(r, "layout").Code != "" {
			t.Errorf("%v: %+v", slices.Sorted(maps.Keys(c.files)), r.Findings)
		}
	}
}

// What cannot be read is said of a folder that is not divided too: dividing it would not help.
func TestUnsplitAndUnreadable(t *testing.T) {
	const coco = `{"images":[{"id":1,"file_name":"a.jpg","width":64,"height":48}],"categories":[{"id":1,"name":"` +
		"\xcd\xd0\xc5\xcc" + `"}],"annotations":[]}` // in GBK
	c, d, err := Folder(unpack(t, []txtar.File{{Name: "annotations/instances_default.json", Data: []byte(coco)},
		{Name: "images/a.jpg", Data: []byte("64x48")}}))
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Check(t.Context(), delivery.DataRun{Dataset: d}, "", nil, nil)
	if err != nil || len(r.Findings) != 1 || !strings.Contains(r.Findings[0].Text, "instances_default.json: 1:94 "+
		"(byte 93): categories[0].name: a text that is not in UTF-8; save the file as UTF-8") ||
		strings.Contains(r.Findings[0].Text, "data split") {
		t.Errorf("%v, %+v", err, r.Findings)
	}
}

// Stats of a single set whose annotations cannot be read are refused with the cause.
func TestStatsOfUnreadable(t *testing.T) {
	const task = `[{"annotations": [{"result": [{"type": "rectanglelabels", "value": {"x": 1, "y": 1, "width": 9, ` +
		`"height": 9, "rectanglelabels": ["LABEL"]}}]}], "data": {"image": "a.jpg"}}]`
	for file, content := range map[string]string{
		"result.json":  `{"images":[], "annotations":`,
		"project.json": strings.Replace(task, "LABEL", "\xcd\xd0", 1),
		"cut.json":     task[:len(task)-1],
	} {
		c, d, err := Folder(unpack(t, []txtar.File{{Name: file, Data: []byte(content)},
			{Name: "a.jpg", Data: []byte("8x8")}}))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Stats(t.Context(), d, nil); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %+v, %v", file, got, err)
		}
	}
}

// A box of Label Studio without a label is left out, and named for what it lacks.
func TestBoxWithoutLabel(t *testing.T) {
	v, err := openFolder(t.Context(), unpack(t, []txtar.File{{Name: "project.json", Data: []byte(`[{"annotations": ` +
		`[{"result": [{"type": "rectanglelabels", "value": {"x": 1, "y": 1, "width": 9, "height": 9}}, {"type": ` +
		`"brushlabels", "value": {"rle": [0], "brushlabels": ["a"]}}]}], "data": {"image": "a.jpg"}}]`)},
		{Name: "a.jpg", Data: []byte("64x48")}}))
	if err != nil {
		t.Fatal(err)
	}
	l, err := v.layout()
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.subsets[0].read("")
	if err != nil || len(s.faults) != 2 || !strings.Contains(s.faults[0].text, "has no label; it is left out") ||
		!strings.Contains(s.faults[1].text, "has no box; it is left out") {
		t.Errorf("%+v, %v", s, err)
	}
}

// Labels that no image has, as of two images of one name that the tool renamed, are named.
func TestLabelsOfNoImage(t *testing.T) {
	files := []txtar.File{{Name: "data.yaml", Data: []byte("train: images/train\nval: images/val\nnames: [car]\n")},
		{Name: "labels/train/0000.txt", Data: []byte("0 0.5 0.5 0.1 0.1\n")}, {Name: "labels/train/notes.txt",
			Data: []byte("made by hand\n")}}
	for _, name := range []string{"train/0000_7436", "train/0000_6dd1", "train/c", "val/d"} {
		files = append(files, txtar.File{Name: "images/" + name + ".jpg", Data: []byte("64x48")},
			txtar.File{Name: "labels/" + name + ".txt", Data: []byte("0 0.5 0.5 0.5 0.5\n")})
	}
	files = slices.DeleteFunc(files, func(f txtar.File) bool { return strings.HasPrefix(f.Name, "labels/train/0000_") })
	c, d, err := Folder(unpack(t, files))
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Check(t.Context(), delivery.DataRun{Dataset: d}, "", nil, nil)
	if err != nil || len(r.Findings) != 1 || r.Findings[0].Code != "unlisted-file" ||
		r.Findings[0].Where != "labels/train/0000.txt" || r.Findings[0].Level != delivery.LevelWarning ||
		!strings.Contains(r.Findings[0].Text, "no image has this name") {
		t.Errorf("%v, %+v", err, r.Findings)
	}
}

// CVAT numbers the frames of each video from 0, and puts those of all videos into one folder.
func TestOneFileInBothSplits(t *testing.T) {
	list := `{"images": [{"id": 1, "file_name": "frame_000000.png", "width": 64, "height": 48}],
		"categories": [{"id": 1, "name": "a"}],
		"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 6, 20, 10], "area": 200}]}`
	dir := t.TempDir()
	writeAll(t, dir, map[string]string{"images/frame_000000.png": string(picture(t, "a.png", "64x48")),
		"annotations/instances_Train.json": list, "annotations/instances_Validation.json": list})
	r := checkFolder(t, dir)
	if !slices.ContainsFunc(r.Findings, func(f delivery.Finding) bool {
		return f.Code == "split-leak" && f.Text == "is in both splits; it is left out of training"
	}) {
		t.Errorf("%+v", r.Findings)
	}
}
