package coco

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

const tinyTruth = `{"info": {"year": 2026, "odd": [null, true, {"x": "é\n"}]},
 "annotations": [{"id": 0, "image_id": 4, "category_id": 1, "bbox": [1.5, 2, 3e1, 4], "area": 100.25,
   "segmentation": [[1, 2, 3.5]], "iscrowd": 0},
  {"iscrowd": true, "id": -3, "image_id": 4, "category_id": 2, "bbox": [0,0,0,0], "area": 0}],
 "images": [{"id": 4, "width": 640, "height": 480, "file_name": "a\u00e9.jpg", "video": 12, "license": 3}],
 "categories": [{"id": 1, "name": "cat", "supercategory": "none"}, {"id": 2, "name": "dog"}]}
`

func TestParseTruth(t *testing.T) {
	want := &Truth{
		Images:     []Image{{ID: 4, Width: 640, Height: 480, FileName: "aé.jpg"}},
		Categories: []Category{{1, "cat"}, {2, "dog"}},
		Annotations: []Annotation{
			{ID: 0, Image: 4, Category: 1, Box: Box{1.5, 2, 30, 4}, Area: 100.25},
			{ID: -3, Image: 4, Category: 2, Crowd: true},
		},
	}
	got, err := parseTruth([]byte(tinyTruth))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	grouped, err := (Loader{Group: "video"}).ReadTruth(bytes.NewReader([]byte(tinyTruth)))
	if err != nil {
		t.Fatal(err)
	}
	if grouped.Images[0].Group != "12" {
		t.Errorf("got group %q, want 12", grouped.Images[0].Group)
	}
	for field, want := range map[string]string{"id": "4", "width": "640", "height": "480", "file_name": "aé.jpg"} {
		grouped, err := (Loader{Group: field}).ReadTruth(bytes.NewReader([]byte(tinyTruth)))
		if err != nil || grouped.Images[0].Group != want {
			t.Errorf("by %s: got %+v, %v, want group %q", field, grouped, err, want)
		}
	}
	if _, err := (Loader{Group: "scene"}).ReadTruth(bytes.NewReader([]byte(tinyTruth))); err == nil ||
		!strings.Contains(err.Error(), "images[0].scene: missing") {
		t.Errorf("missing group: got %v", err)
	}
}

func TestParseTruthRefuses(t *testing.T) {
	// file puts annotations into an otherwise sound file.
	file := func(annotations string) string {
		return `{"images":[{"id":1}],"categories":[{"id":1,"name":"a"}],"annotations":[` + annotations + `]}`
	}
	const ok = `{"id":1,"image_id":1,"category_id":1,"bbox":[1,1,2,2],"area":4}`
	tests := []struct{ name, text, want string }{
		{"empty", " \n", "2:1 (byte 2): empty file: want an object with images, categories and annotations"},
		{"array", "[]", "1:1 (byte 0): want an object with images, categories and annotations, got an array"},
		{"no lists", "{}", "1:3 (byte 2): images: missing: want an object with images, categories and annotations"},
		{"cut off", `{"images":[{"id":1`, "1:19 (byte 18): images[0]: want a comma or '}', got the end of the file"},
		{"two documents", file("") + "{}", "want the end of the file, got an object"},
		{"images an object", `{"images":{}}`, "1:11 (byte 10): images: want an array, got an object"},
		{"images twice", `{"images":[],"images":[]}`, "images: a second field of this name"},
		{"comma at the end", `{"images":[{"id":1},]}`, "a comma before ']'"},
		{"unquoted name", `{images:[]}`, "1:2 (byte 1): want a field's name in quotes, got 'i'"},
		{"byte order mark", "\ufeff{}", "want an object with images"},
		{"image a number", `{"images":[3]}`, "images[0]: want an object, got a number"},
		{"image without id", `{"images":[{}]}`, "images[0].id: missing"},
		{"image id a text", `{"images":[{"id":"7"}]}`, "1:18 (byte 17): images[0].id: want a whole number, got a text"},
		{"image id a fraction", `{"images":[{"id":7.5}]}`, "images[0].id: want a whole number, got 7.5"},
		{"image id too large", `{"images":[{"id":92233720368547758070}]}`, "images[0].id: want a whole number"},
		{"image twice", `{"images":[{"id":7},{"id":7}]}`, "1:21 (byte 20): images[1].id: 7 is there twice"},
		{"image too wide", `{"images":[{"id":7,"width":10000000000}]}`,
			"images[0].width: want a whole number from 0 to 1000000000"},
		{"file name null", `{"images":[{"id":7,"file_name":null}]}`, "images[0].file_name: want a text, got null"},
		{"file name too long", `{"images":[{"id":7,"file_name":"` + strings.Repeat("x", 5000) + `"}]}`,
			"want a text of at most 4096 bytes"},
		{"file name not UTF-8", `{"images":[{"id":7,"file_name":"` + "\xff" + `"}]}`,
			"a text that is not in UTF-8; save the file as UTF-8"},
		{"category without name", `{"categories":[{"id":1}]}`, "categories[0].name: missing"},
		{"annotation twice", file(ok + "," + ok), "annotations[1].id: 1 is there twice"},
		{"unknown image", file(strings.Replace(ok, `"image_id":1`, `"image_id":5`, 1)),
			"annotations[0].image_id: 5 is not among the images"},
		{"unknown category", file(strings.Replace(ok, `"category_id":1`, `"category_id":5`, 1)),
			"annotations[0].category_id: 5 is not among the categories"},
		{"no bbox", file(`{"id":1,"image_id":1,"category_id":1,"area":4}`), "annotations[0].bbox: missing"},
		{"no area", file(`{"id":1,"image_id":1,"category_id":1,"bbox":[1,1,2,2]}`), "annotations[0].area: missing"},
		{"bbox of three", file(strings.Replace(ok, "[1,1,2,2]", "[1,1,2]", 1)),
			"annotations[0].bbox: want 4 numbers, got 3"},
		{"bbox of five", file(strings.Replace(ok, "[1,1,2,2]", "[1,1,2,2,2]", 1)),
			"annotations[0].bbox: want 4 numbers, got 5"},
		{"bbox with NaN", file(strings.Replace(ok, "[1,1,2,2]", "[1,NaN,2,2]", 1)),
			"annotations[0].bbox: want a finite number, got NaN"},
		{"bbox with infinity", file(strings.Replace(ok, "[1,1,2,2]", "[1,-Infinity,2,2]", 1)),
			"annotations[0].bbox: want a finite number, got -Inf"},
		{"bbox with 1e999", file(strings.Replace(ok, "[1,1,2,2]", "[1,1e999,2,2]", 1)),
			"annotations[0].bbox: want a finite number, got +Inf"},
		{"bbox with text", file(strings.Replace(ok, "[1,1,2,2]", `[1,"1",2,2]`, 1)),
			"annotations[0].bbox: want a number, got a text"},
		{"bbox negative", file(strings.Replace(ok, "[1,1,2,2]", "[1,1,-2,2]", 1)),
			"annotations[0].bbox: want width and height from 0 up, got -2 x 2"},
		{"bbox huge", file(strings.Replace(ok, "[1,1,2,2]", "[1,1,2e10,2]", 1)),
			"annotations[0].bbox: want pixels up to 1e+09"},
		{"bbox twice", file(strings.Replace(ok, `"area"`, `"bbox":[1,1,2,2],"area"`, 1)),
			"annotations[0].bbox: a second field of this name"},
		{"area negative", file(strings.Replace(ok, `"area":4`, `"area":-4`, 1)),
			"annotations[0].area: want a number from 0 up, got -4"},
		{"crowd out of range", file(strings.Replace(ok, `"area"`, `"iscrowd":256,"area"`, 1)),
			"annotations[0].iscrowd: want 0 or 1, got 256"},
		{"crowd a half", file(strings.Replace(ok, `"area"`, `"iscrowd":0.5,"area"`, 1)),
			"annotations[0].iscrowd: want 0 or 1, got 0.5"},
		{"crowd a text", file(strings.Replace(ok, `"area"`, `"iscrowd":"no","area"`, 1)),
			"annotations[0].iscrowd: want 0 or 1, got a text"},
		{"leading zero", file(strings.Replace(ok, `"area":4`, `"area":04`, 1)),
			`annotations[0].area: want a number, got "04"`},
		{"plus sign", file(strings.Replace(ok, `"area":4`, `"area":+4`, 1)),
			"annotations[0].area: want a number, got '+'"},
		{"too deep", `{"x":` + strings.Repeat("[", 1000) + `}`, "nested more than 64 deep"},
		{"control character", "{\"x\":\"a\tb\"}", "a control character in a text"},
		{"text without end", `{"x":"abc`, "1:6 (byte 5): a text without an end"},
		{"word", `{"x":nul}`, "want null"},
		{"line and column", "{\n \"images\": [\n  {\"id\": x}]}",
			"3:10 (byte 24): images[0].id: want a whole number, got 'x'"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := parseTruth([]byte(test.text))
			var parse *ParseError
			if !errors.As(err, &parse) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			_, streamed := readTruth(iotest.OneByteReader(strings.NewReader(test.text)))
			if streamed == nil || streamed.Error() != err.Error() {
				t.Errorf("streamed: got %v, want %v", streamed, err)
			}
		})
	}
}

func TestParseDetectionsRefuses(t *testing.T) {
	truth, _ := single(1)
	const ok = `{"image_id":1,"category_id":1,"bbox":[1,1,2,2],"score":0.5}`
	tests := []struct{ name, text, want string }{
		{"empty", "", "1:1 (byte 0): empty file: want an array of detections"},
		{"object", "{}", "want an array of detections, got an object"},
		{"no score", `[{"image_id":1,"category_id":1,"bbox":[1,1,2,2]}]`, "1:2 (byte 1): detections[0].score: missing"},
		{"unknown image", "[" + ok + ",\n" + strings.Replace(ok, `"image_id":1`, `"image_id":8`, 1) + "]",
			"2:13 (byte 74): detections[1].image_id: image 8 is not in the ground truth"},
		{"unknown category", "[" + strings.Replace(ok, `"category_id":1`, `"category_id":8`, 1) + "]",
			"detections[0].category_id: category 8 is not in the ground truth"},
		{"score NaN", "[" + strings.Replace(ok, "0.5", "NaN", 1) + "]",
			"detections[0].score: want a finite number, got NaN"},
		{"score null", "[" + strings.Replace(ok, "0.5", "null", 1) + "]",
			"detections[0].score: want a number, got null"},
		{"no comma", "[" + ok + ok + "]", "want a comma or ']', got an object"},
		{"no end", "[" + ok, "want a comma or ']', got the end of the file"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := parseDetections([]byte(test.text), truth)
			var parse *ParseError
			if !errors.As(err, &parse) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	if _, err := parseDetections([]byte("["+strings.Replace(ok, `"image_id":1`, `"image_id":8`, 1)+"]"),
		nil); err != nil {
		t.Errorf("without a truth: got %v", err)
	}
}

func TestLoaderBounds(t *testing.T) {
	if _, err := (Loader{MaxBytes: 100}).ReadTruth(bytes.NewReader([]byte(tinyTruth))); err == nil ||
		!strings.Contains(err.Error(), "want at most 100 bytes") {
		t.Errorf("bytes: got %v", err)
	}
	if _, err := (Loader{MaxBytes: 100}).ReadTruth(strings.NewReader(tinyTruth)); err == nil ||
		!strings.Contains(err.Error(), "want at most 100 bytes") {
		t.Errorf("streamed bytes: got %v", err)
	}
	if _, err := (Loader{MaxItems: 1}).ReadTruth(bytes.NewReader([]byte(tinyTruth))); err == nil ||
		!strings.Contains(err.Error(), "want at most 1 annotations") {
		t.Errorf("items: got %v", err)
	}
	broken := errors.New("disk on fire")
	if _, err := readTruth(io.MultiReader(strings.NewReader(tinyTruth[:50]), iotest.ErrReader(broken))); !errors.Is(err,
		broken) {
		t.Errorf("reader: got %v", err)
	}
}

// Streams are read in pieces; where they are cut must not matter.
func TestReadInPieces(t *testing.T) {
	long := strings.Repeat("0123456789", bufferSize/5)
	var file bytes.Buffer
	fmt.Fprintf(&file, `{"long":"%s\\","numbers":[1.25%s],"images":[`, long, strings.Repeat(", -12.5e-1", bufferSize/8))
	for i := range 20_000 {
		fmt.Fprintf(&file, "\n  {\"id\": %d, \"file_name\": \"%d \\u00e9.jpg\"},", i, i)
	}
	fmt.Fprintf(&file, ` {"id":-1}],"annotations":[],"categories":[]}`)
	want, err := parseTruth(file.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]io.Reader{
		"whole":         bytes.NewReader(file.Bytes()),
		"bytes":         iotest.OneByteReader(bytes.NewReader(file.Bytes())),
		"end with data": iotest.DataErrReader(bytes.NewReader(file.Bytes())),
	} {
		got, err := readTruth(r)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: another truth", name)
		}
	}
}

func TestParseNumber(t *testing.T) {
	for _, text := range []string{
		"0", "-0", "1", "-1", "0.1", "123456789.123456", "0.000000000000001", "999999999999999", "9007199254740993",
		"-9223372036854775808",
		"0.30000000000000004", "1e5", "1E+5", "1.5e-7", "5e-324", "1e-400", "179769313486231570000000000000000000000",
	} {
		var want float64
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		if got, _, _, ok := parseNumber([]byte(text)); !ok || got != want {
			t.Errorf("%s: got %v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "-", "01", "1.", ".5", "1e", "1e+", "1.5.2", "--1", "1e5e5", "Nan", "-NaN", "Inf",
		"1N"} {
		if got, _, _, ok := parseNumber([]byte(text)); ok {
			t.Errorf("%q: got %v, want none", text, got)
		}
	}
}

func TestParseTruthLenient(t *testing.T) {
	const text = `{
"images": [{"id": 1, "width": 100, "height": 100}, {"id": 1, "width": 9, "height": 9}, {"id": 2}, 7, ` +
		`{"width": 5, "height": 5}],
"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}, {"id": 3}],
"annotations": [
 {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "area": 400},
 {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "area": 400},
 {"id": 2, "image_id": 5, "category_id": 9, "bbox": [10, 10, 20, 20], "area": 400},
 {"id": 3, "image_id": 1, "category_id": 1, "area": 400},
 {"id": 4, "image_id": 1, "category_id": 1, "bbox": [NaN, 1, 2, 2], "area": 4},
 {"id": 5, "image_id": 1, "category_id": 1, "bbox": [90, 10, 20, 20], "area": 400},
 {"id": 6, "image_id": 1, "category_id": 1, "bbox": [80.5, 10, 20, 20], "area": 400},
 {"id": 7, "image_id": 1, "category_id": 1, "bbox": [10, 10, 0, 20], "area": 0},
 {"id": 8, "image_id": 1, "category_id": 1, "bbox": [10, 10, 0.5, 20], "area": 10},
 {"id": 9, "image_id": 1, "category_id": 1, "bbox": [10, 10, -5, 20], "area": 10},
 {"id": 10, "image_id": 1, "category_id": 1, "bbox": [10, 10, 5, 20]},
 {"id": 11, "image_id": 1, "category_id": 1, "bbox": "no", "area": Infinity},
 {"id": 12, "image_id": 2, "category_id": 2, "bbox": [999, 10, 5, 20], "area": 5, "area": 6},
 {"id": 13, "image_id": 6, "category_id": 1, "bbox": [10, 10, 5, 20], "area": 100}
]}`
	truth, problems, err := parseTruthLenient([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range problems {
		got = append(got, fmt.Sprintf("%d %s %d %s", p.Line, p.Path, p.ID, p.Kind))
	}
	want := []string{
		"2 images[1].id 1 duplicate-id",
		"2 images[2].width 2 missing-field",
		"2 images[2].height 2 missing-field",
		"2 images[3] 0 wrong-type",
		"2 images[4].id 0 missing-field",
		"3 categories[1].name 2 duplicate-name",
		"3 categories[2].name 3 missing-field",
		"6 annotations[1].id 1 duplicate-id",
		"7 annotations[2].image_id 2 unknown-image",
		"7 annotations[2].category_id 2 unknown-category",
		"8 annotations[3].bbox 3 missing-box",
		"9 annotations[4].bbox 4 not-finite",
		"10 annotations[5].bbox 5 outside-image",
		"12 annotations[7].bbox 7 empty-box",
		"13 annotations[8].bbox 8 degenerate-box",
		"14 annotations[9].bbox 9 negative-box",
		"15 annotations[10].area 10 missing-field",
		"16 annotations[11].bbox 11 wrong-type",
		"16 annotations[11].area 11 not-finite",
		"17 annotations[12].area 12 duplicate-field",
		"18 annotations[13].image_id 13 unknown-image",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var kept []int64
	for _, a := range truth.Annotations {
		kept = append(kept, a.ID)
	}
	if !reflect.DeepEqual(kept, []int64{1, 5, 6, 7, 8, 10, 12}) {
		t.Errorf("kept annotations %v", kept)
	}
	if _, err := Match(truth, nil, Params{}); err != nil {
		t.Errorf("what is kept is not sound: %v", err)
	}
	for _, text := range []string{"", "[]", "{}", `{"images":[]`, `{"images":3,"categories":[],"annotations":[]}`} {
		if _, _, err := parseTruthLenient([]byte(text)); err == nil {
			t.Errorf("%q: got no error", text)
		}
	}
}

// The annotations of an image whose id cannot be read are not reported as well.
func TestImagesWithoutID(t *testing.T) {
	const text = `{"images": [{"id": 1, "width": 9, "height": 9}, {"width": 9, "height": 9}],
"categories": [{"id": 1, "name": "a"}], "annotations": [
 {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "area": 4},
 {"id": 2, "image_id": 2, "category_id": 1, "bbox": [1, 1, 2, 2], "area": 4},
 {"id": 3, "image_id": 2, "category_id": 1, "bbox": [4, 4, 2, 2], "area": 4}]}`
	truth, problems, err := parseTruthLenient([]byte(text))
	if err != nil || len(problems) != 1 || problems[0].Path != "images[1].id" || len(truth.Annotations) != 1 {
		t.Errorf("%v, %+v, %d annotations", err, problems, len(truth.Annotations))
	}
	other := strings.Replace(text, `"id": 3, "image_id": 2`, `"id": 3, "image_id": 3`, 1)
	_, problems, err = parseTruthLenient([]byte(other))
	if err != nil || len(problems) != 3 || problems[2].Kind != UnknownImage {
		t.Errorf("one image without id, and annotations of two: %v, %+v", err, problems)
	}
}

func TestParseTruthLenientBoundsProblems(t *testing.T) {
	text := `{"categories":[],"annotations":[],"images":[0` + strings.Repeat(",0", 12_000) + "]}"
	_, problems, err := parseTruthLenient([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	last := problems[len(problems)-1]
	if len(problems) != maxProblems+1 || last.Kind != MoreProblems || last.Text != "and 2001 more problems" {
		t.Errorf("got %d, the last %+v", len(problems), last)
	}
}

func TestWriteDetections(t *testing.T) {
	_, want := random(1, 10, 3, false)
	want[0].Box = Box{-0.1, 1e-300, 123456789.125, 1e6}
	for _, list := range [][]Detection{want, {}} {
		var file bytes.Buffer
		if err := writeDetections(&file, list); err != nil {
			t.Fatal(err)
		}
		if !json.Valid(file.Bytes()) {
			t.Errorf("not JSON: %s", file.Bytes())
		}
		got, err := readDetections(&file, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, list) {
			t.Errorf("got %v, want %v", got, list)
		}
	}
}

// Real labels have real faults; they must be found, and the rest be read.
func TestRealDataset(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(sharedDir(t), "data", "*", "*", "_annotations.coco.json"))
	if err != nil || len(files) == 0 {
		t.Skipf("no datasets in the shared folder: %v", err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		truth, problems, err := parseTruthLenient(data)
		if err != nil {
			t.Fatal(err)
		}
		if len(truth.Images) == 0 || len(truth.Annotations) == 0 {
			t.Errorf("%s: %d images, %d annotations", name, len(truth.Images), len(truth.Annotations))
		}
		t.Logf("%s: %d images, %d annotations, %d problems: %.5v", filepath.Base(filepath.Dir(name)), len(truth.Images),
			len(truth.Annotations), len(problems), problems)
	}
}

// What is valid and misleads is noted: equal truths, and areas that are not those of their boxes.
func TestNotes(t *testing.T) {
	box := Box{10, 10, 20, 20}
	truth := &Truth{Images: []Image{{ID: 1}}, Categories: []Category{{1, "a"}, {2, "b"}}, Annotations: []Annotation{
		{ID: 1, Image: 1, Category: 1, Box: box, Area: 400}, {ID: 2, Image: 1, Category: 2, Box: box, Area: 400},
		{ID: 3, Image: 1, Category: 1, Box: box, Area: 440}, // rounding
		{ID: 4, Image: 1, Category: 1, Box: Box{10, 10, 20, 21}, Area: 1},
		{ID: 5, Image: 1, Category: 1, Box: Box{10, 10, 20, 22}, Area: 1e6},
		{ID: 6, Image: 1, Category: 1, Box: box, Area: 1e6, Crowd: true}}}
	got := strings.Join(truth.Notes(), "\n")
	want := "1 of 6 truths are listed before with the same box and category; a model that finds such an object once " +
		"misses the other\nthe area is larger than the box in 1 of 6 truths; APs, APm, APl, ARs, ARm and ARl use it\n" +
		"the area is less than a hundredth of the box in 1 of 6 truths; APs, APm, APl, ARs, ARm and ARl use it"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	truth.Annotations = truth.Annotations[:2]
	if notes := truth.Notes(); len(notes) > 0 {
		t.Errorf("a sound truth: %q", notes)
	}
}
