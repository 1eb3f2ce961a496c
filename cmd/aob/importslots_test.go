package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/detect"
)

func TestGivenClasses(t *testing.T) {
	dir := t.TempDir()
	coco := func(categories, annotations string) string {
		return `{"categories": [` + categories + `], "annotations": [` + annotations + `]}`
	}
	for i, c := range []struct {
		classes, file, version string
		slots                  int
		want                   string // the slots as %q, or part of the error
	}{
		{classes: "a,b,", slots: 3, want: `["a" "b" ""]`},
		{classes: " a , , b ", slots: 3, want: `["a" "" "b"]`},
		{classes: "traffic light", slots: 1, want: `["traffic light"]`},
		{classes: "coco", slots: 91, want: `["" "person" "bicycle"`},
		{classes: "coco", slots: 1, want: `["coco"]`}, // a model whose one class has this name
		{classes: "coco", slots: 81, want: "with 91 slots; the file has 81"},
		{classes: "a,b", slots: 3, want: "does not say which slot has no class"},
		{classes: "a,b", slots: 4, want: "--classes names 2 slots, and the file has 4 slots"},
		{classes: "a,b,c,d", slots: 2, want: "--classes names 4 slots, and the file has 2 slots"},
		{classes: "a,b,a", slots: 3, want: `--classes: slots 0 and 2 are both "a"`},
		{classes: "a\x1b[2J,b", slots: 2, want: `--classes: slot 0: want the name of a class`},
		{classes: "a,b\nc", slots: 2, want: `slot 1: want the name of a class`},
		{classes: "\xff", slots: 1, want: "slot 0: want the name of a class"},
		{classes: strings.Repeat("x", 1<<16), slots: 1, want: "slot 0: want the name of a class"},
		{classes: "a", file: "b\n", slots: 1, want: "--classes and --classes-file are both there"},
		{classes: "a", version: "1.4.3", slots: 1, want: `["a"]`},
		{classes: "a", version: "newest", slots: 1, want: "--rfdetr: \"newest\" is not a version of RF-DETR"},

		{file: "a\nb\n\n", slots: 3, want: `["a" "b" ""]`},
		{file: "a\r\nb\r\n", slots: 2, want: `["a" "b"]`},
		{file: `["", "a"]`, slots: 2, want: `["" "a"]`},
		{file: `["a", 1]`, slots: 2, want: "cannot unmarshal number"},
		{file: `["a"`, slots: 1, want: "unexpected end"},
		{file: "[" + strings.Repeat("[", 1<<20), slots: 1, want: "exceeded max depth"},
		{file: strings.Repeat("x\n", 1<<20), slots: 1, want: "it has 2MiB"},
		{file: "", slots: 1, want: "it is empty"},
		{file: `{}`, slots: 1, want: "it has no categories"},
		{file: `{"categories": 3}`, slots: 1, want: "cannot unmarshal"},
		{file: coco(`{"id": 0, "name": "a"}, {"id": 1, "name": "b"}`, ``), slots: 3, want: `["a" "b" ""]`},
		{file: coco(`{"id": 0, "name": "a"}, {"id": 1, "name": "b"}`, ``), version: "1.4.3", slots: 3,
			want: `["a" "b" ""]`},
		{file: coco(`{"id": 1, "name": "a"}, {"id": 2, "name": "b"}`, ``), slots: 3,
			want: "with another class in each (before 1.5: [\"\" \"a\" \"b\"]; 1.5 to 1.9.1: [\"a\" \"b\" \"\"])"},
		{file: coco(`{"id": 0, "name": "a"}, {"id": 0, "name": "b"}`, ``), slots: 3, want: "category id 0"},
		{file: coco(`{"id": 0, "name": "a\u001b"}`, ``), slots: 2, want: "want the name of a class"},
		{file: coco(`{"id": 1e300, "name": "a"}`, ``), slots: 2, want: "cannot unmarshal"},
		{file: coco(`{"id": 0, "name": "a"}`, `{"category_id": 7}`), version: "1.11.2", slots: 5,
			want: "RF-DETR 1.11.2 makes 2 slots of these categories, [a, \"\"], and the model has 5"},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			r := importRequest{classes: c.classes, version: c.version}
			if c.file != "" || c.classes == "" {
				r.classesFile = filepath.Join(dir, fmt.Sprint(i))
				if err := os.WriteFile(r.classesFile, []byte(c.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			given, err := r.given()
			var got []string
			if err == nil {
				got, err = given.slots(c.slots)
			}
			said := fmt.Sprintf("%q", got)
			if err != nil {
				said = err.Error()
			}
			if !strings.Contains(said, c.want) || err == nil && len(got) != c.slots {
				t.Errorf("got %.400s, want %s", said, c.want)
			}
		})
	}
	if _, err := (importRequest{classesFile: dir}).given(); err == nil {
		t.Error("a folder: no error")
	}
}

func TestGivenClassesAgree(t *testing.T) {
	slots := []string{"", "a", "b", ""}
	for i, c := range []struct {
		given givenClasses
		want  string // part of the error; "" for none
	}{
		{givenClasses{}, ""},
		{givenClasses{from: "--classes", names: slots}, ""},
		{givenClasses{from: "--classes", names: []string{"a", "b"}}, ""},
		{givenClasses{from: "--classes", names: []string{"b", "a"}},
			"names 2 slots, [b, a], and the metadata of m.onnx 4"},
		{givenClasses{from: "--classes", names: []string{"a", "b", "", ""}},
			`slot 0 is "" by the metadata of m.onnx, and "a"`},
		{givenClasses{from: "--classes", names: []string{"", "b", "a", ""}},
			`slot 1 is "a" by the metadata of m.onnx, and "b"`},
		{givenClasses{from: "f", categories: []detect.Category{{Name: "b"}, {Name: "a"}, {Name: "c"}}}, ""},
		{givenClasses{from: "f", categories: []detect.Category{{Name: "a"}}}, `slot 2 is "b" by the metadata`},
	} {
		err := c.given.agree("/srv/m.onnx", slices.Clone(slots))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%d: got %v, want %q", i, err, c.want)
		}
	}
}
