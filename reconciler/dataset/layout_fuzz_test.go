package dataset

import (
	"bytes"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/autonomos/aob/reconciler/coco"
)

// seed adds the files of the archives whose names end so.
func seed(f *testing.F, end string) {
	archives, err := filepath.Glob("testdata/layouts/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, archive := range archives {
		a, err := txtar.ParseFile(archive)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range a.Files {
			if strings.HasSuffix(file.Name, end) {
				f.Add(file.Data)
			}
		}
	}
}

// fuzzed makes a dataset of one file with an image and reads all of it.
func fuzzed(t *testing.T, file string, data []byte, others ...txtar.File) {
	files := append(others, txtar.File{Name: file, Data: data}, txtar.File{Name: "images/a.jpg", Data: []byte("64x48")})
	v, err := openFolder(t.Context(), unpack(t, files))
	if err != nil {
		t.Fatal(err)
	}
	l, err := v.layout()
	if err != nil {
		return
	}
	for _, sub := range l.subsets {
		s, err := sub.read("")
		if err != nil {
			continue
		}
		sane(t, v, s)
	}
}

// sane checks what holds for every split: finite boxes, known images and categories, files of the dataset.
func sane(t *testing.T, v *version, s *split) {
	categories, missing := map[int64]bool{}, map[int64]bool{}
	for _, im := range s.missing {
		missing[im.ID] = true
	}
	for _, c := range s.truth.Categories {
		categories[c.ID] = true
	}
	for _, a := range s.truth.Annotations {
		for _, n := range []float64{a.Box.X, a.Box.Y, a.Box.W, a.Box.H, a.Area} {
			if math.IsNaN(n) || math.Abs(n) > 1e18 {
				t.Fatalf("%+v", a)
			}
		}
		if !categories[a.Category] || s.images[a.Image] == "" && !missing[a.Image] {
			t.Fatalf("%+v of an unknown image or category", a)
		}
	}
	for _, file := range s.images {
		if v.files[file] == nil {
			t.Fatalf("%q is not a file of the dataset", file)
		}
	}
	if _, err := coco.Match(s.truth, nil, coco.Params{}); err != nil {
		t.Fatal(err)
	}
}

func FuzzCVAT(f *testing.F) {
	seed(f, "annotations.xml")
	f.Fuzz(func(t *testing.T, data []byte) { fuzzed(t, "annotations.xml", data) })
}

func FuzzVOC(f *testing.F) {
	seed(f, ".xml")
	f.Fuzz(func(t *testing.T, data []byte) { fuzzed(t, "Annotations/a.xml", data) })
}

func FuzzYOLOLabels(f *testing.F) {
	seed(f, ".txt")
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzed(t, "labels/a.txt", data, txtar.File{Name: "classes.txt", Data: []byte("a\nb\n")})
	})
}

func FuzzYOLOYAML(f *testing.F) {
	seed(f, ".yaml")
	f.Add([]byte("names: &a [x]\ntrain: *a\n"))
	f.Fuzz(func(t *testing.T, data []byte) { fuzzed(t, "data.yaml", data) })
}

func FuzzDarknet(f *testing.F) {
	seed(f, ".data")
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzed(t, "obj.data", data, txtar.File{Name: "obj.names", Data: []byte("a\n")},
			txtar.File{Name: "train.txt", Data: []byte("images/a.jpg\n")})
	})
}

func FuzzLabelStudio(f *testing.F) {
	seed(f, ".json")
	f.Fuzz(func(t *testing.T, data []byte) { fuzzed(t, "project.json", data) })
}

func FuzzVIA(f *testing.F) {
	seed(f, ".json")
	seed(f, ".csv")
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzed(t, "via_region_data.json", data)
		fuzzed(t, "via_region_data.csv", data)
	})
}

func FuzzSplits(f *testing.F) {
	seed(f, SplitsFile)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := readSplits(data)
		if err != nil {
			return
		}
		for _, list := range s.lists() {
			for _, name := range *list {
				if !validPath(name) || bytes.ContainsRune([]byte(name), 0) {
					t.Fatalf("%q", name)
				}
			}
		}
	})
}
