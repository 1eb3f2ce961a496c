package dataset

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/store"
)

// A made is an image of a dataset that a test makes.
type made struct {
	name, size string // the size is as 64x48
	fields     object // more fields of the image
	boxes      map[string][][4]float64
}

// makeDataset writes a dataset in COCO, in split folders.
func makeDataset(t *testing.T, splits map[string][]made) string {
	t.Helper()
	dir := t.TempDir()
	labels := []string{"a", "b", "c"}
	for split, list := range splits {
		var categories, images, annotations []object
		for i, label := range labels {
			categories = append(categories, object{"id": i + 1, "name": label})
		}
		for i, m := range list {
			var w, h int
			if _, err := fmt.Sscanf(m.size, "%dx%d", &w, &h); err != nil {
				t.Fatal(err)
			}
			im := object{"id": i + 1, "file_name": m.name, "width": w, "height": h}
			for k, v := range m.fields {
				im[k] = v
			}
			images = append(images, im)
			for k, label := range labels {
				for _, b := range m.boxes[label] {
					annotations = append(annotations, object{"id": len(annotations) + 1, "image_id": i + 1,
						"category_id": k + 1, "bbox": b, "area": b[2] * b[3]})
				}
			}
			file := filepath.Join(dir, split, m.name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, picture(t, split+m.name,
				m.size), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		data, err := json.Marshal(object{"images": images, "annotations": annotations, "categories": categories})
		if err := errors.Join(err, os.WriteFile(filepath.Join(dir, split, AnnotationsFile), data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// images makes so many images, each with boxes of a and one of b.
func images(n int, prefix string, fields func(i int) object) (list []made) {
	for i := range n {
		m := made{name: fmt.Sprintf("%s%03d.png", prefix, i), size: "64x48", boxes: map[string][][4]float64{
			"a": {{1, 2, 10 + float64(i%3), 9}, {20, 2, 10, 9 + float64(i%4)}}, "b": {{30, 20, 8, 8}}}}
		if fields != nil {
			m.fields = fields(i)
		}
		list = append(list, m)
	}
	return list
}

// An oddDataset is a dataset, and what a check finds about it beside others or the version before.
type oddDataset struct {
	name, pattern string
	before, now   map[string][]made
	want          []string // code and place
	says          string
}

func oddDatasets() []oddDataset {
	at := func(field string, split int) func(i int) object {
		return func(i int) object {
			return object{field: fmt.Sprintf("2026-01-%02dT10:%02d:00", split+1, i)}
		}
	}
	site := func(names ...string) func(i int) object {
		return func(i int) object { return object{"extra": object{"name": "x", "site": names[i%len(names)]}} }
	}
	larger := images(60, "n", nil)
	for i := range larger {
		larger[i].size = "128x96"
		larger[i].boxes = map[string][][4]float64{"a": {{1, 2, 30, 29}}, "c": {{40, 40, 30, 30}, {80, 40, 30, 30}}}
	}
	close := images(3, "v", at("date_captured", 1))
	close[2].fields = object{"date_captured": "2026-01-01T10:01:20"}
	many := images(3, "t", nil)
	for i := range 140 {
		many[0].boxes["a"] = append(many[0].boxes["a"], [4]float64{float64(i % 40), float64(i / 40), 5, 6})
	}
	many[1].boxes, many[2].boxes = map[string][][4]float64{}, map[string][][4]float64{}
	return []oddDataset{
		{name: "sites of their own", now: map[string][]made{"train": images(4, "t", site("1", "2")),
			"valid": images(3, "v", site("3")), "test": images(3, "e", site("4"))}},
		{name: "a site in two splits", now: map[string][]made{"train": images(4, "t", site("1", "2")),
			"valid": images(3, "v", site("2", "3")), "test": images(3, "e", site("4"))},
			want: []string{`site-leak site "2"`}, says: "has 2 images in train, 2 in valid and 0 in test"},
		{name: "a number as camera", now: map[string][]made{
			"train": images(4, "t", func(i int) object { return object{"camera": i} }),
			"valid": images(3, "v", func(i int) object { return object{"camera": 9 - i} }),
			"test":  images(3, "e", func(i int) object { return object{"camera": 3 + 4*i} })},
			want: []string{`site-leak site "3"`, `site-leak site "7"`}[:1], says: "1 in test"},
		{name: "other days", now: map[string][]made{"train": images(4, "t", at("date_captured", 0)),
			"valid": images(3, "v", at("date_captured", 1)), "test": images(3, "e", at("date_captured", 2))}},
		{name: "a time in two splits", now: map[string][]made{"train": images(4, "t", at("date_captured", 0)),
			"valid": close, "test": images(3, "e", at("datetime", 2))},
			want: []string{"time-leak train/t001.png"}, says: `was taken 20s apart from "valid/v002.png" of valid`},
		{name: "the time of the upload", now: map[string][]made{
			"train": images(4, "t", func(int) object { return object{"date_captured": "2026-01-01T10:00:00+00:00"} }),
			"valid": images(3, "v", func(int) object { return object{"date_captured": "2026-01-01T10:00:00+00:00"} })}},
		{name: "sites in names", pattern: `(?P<site>cam[0-9]+)_`, now: map[string][]made{
			"train": images(3, "cam1_", site("x")), "valid": images(3, "cam2_", site("x")),
			"test": images(3, "cam1_e", site("x"))}, want: []string{`site-leak site "cam1"`},
			says: "3 images in train"},
		{name: "a rare class", now: map[string][]made{"train": many, "valid": images(3, "v", nil),
			"test": images(3, "e", nil)}, want: []string{"class-balance train/" + AnnotationsFile},
			says: `class "b" has 1 object in train, and "a" has 142`},
		{name: "more test than train", now: map[string][]made{"train": images(5, "t", nil),
			"valid": images(3, "v", nil), "test": images(21, "e", nil)}, want: []string{"split-size test"},
			says: "has 21 images, and train has only 5"},
		{name: "hardly a valid", now: map[string][]made{"train": images(51, "t", nil), "valid": images(1, "v", nil),
			"test": images(3, "e", nil)}, want: []string{"split-size valid"}, says: "has 1 image, and train has 51"},
		{name: "a larger version", before: map[string][]made{"train": images(40, "t", nil),
			"valid": images(10, "v", nil), "test": images(10, "e", nil)},
			now: map[string][]made{"train": images(80, "t", nil), "valid": images(10, "v", nil),
				"test": images(10, "e", nil)}},
		{name: "a version with other images", before: map[string][]made{"train": images(60, "t", nil),
			"valid": images(10, "v", nil)},
			now:  map[string][]made{"train": append(images(60, "t", nil), larger...), "valid": images(10, "v", nil)},
			want: []string{`label-drift label "a"`, "box-drift the side of boxes", "image-drift the side of images"},
			says: `label "c": 30.8% of all boxes, 0.0% in the version before`},
	}
}

func (o oddDataset) report(t *testing.T) (delivery.DataResult, Tables) {
	t.Helper()
	c := folders("d", makeDataset(t, o.now))
	if o.pattern != "" {
		var err error
		if c.Scenes, err = delivery.ScenePattern(o.pattern); err != nil {
			t.Fatal(err)
		}
	}
	var before *Located
	if o.before != nil {
		before = &Located{folders("d", makeDataset(t, o.before)), inDir("d")}
	}
	r, tables, err := c.Report(t.Context(), delivery.DataRun{Dataset: inDir("d")}, before, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r, tables
}

// What a dataset is beside others is found: sites and times in two splits, rare classes, sizes of splits, and what has
// changed since the version before.
func TestOddDatasets(t *testing.T) {
	for _, o := range oddDatasets() {
		t.Run(o.name, func(t *testing.T) {
			r, tables := o.report(t)
			agree(t, r, tables)
			var got []string
			for _, f := range r.Findings {
				if f.Code != "no-truth" && f.Code != "empty-split" {
					got = append(got, f.Code+" "+f.Where)
				}
			}
			if !slices.Equal(got, o.want) || len(got) > 0 && !strings.Contains(fmt.Sprint(r.Findings), o.says) {
				t.Errorf("got %q, want %q with %s\n%+v", got, o.want, o.says, r.Findings)
			}
		})
	}
}

func TestScenePattern(t *testing.T) {
	for _, text := range []string{"(", "cam[0-9]+"} {
		if _, err := delivery.ScenePattern(text); err == nil || !strings.Contains(err.Error(), "groups site and time") {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{`(?P<site>(?:a?){1000}){1}(?:b{1,900})`, `(?P<site>.{1,900})(?P<time>.{1,900})`} {
		if _, err := delivery.ScenePattern(text); err == nil || !strings.Contains(err.Error(), "too complex") {
			t.Errorf("%s: %v", text, err)
		}
	}
	for text, want := range map[string]string{"2026-01-02T03:04:05+01:00": "2026-01-02 02:04:05",
		"2026:01:02 03:04:05": "2026-01-02 03:04:05", "20260102_030405": "2026-01-02 03:04:05",
		"1767323045": "2026-01-02 03:04:05", "0": "", "2026-01-02": "", "yesterday": "", "0000-00-00 00:00:00": ""} {
		got := ""
		if at := moment(text); !at.IsZero() {
			got = at.Format("2006-01-02 15:04:05")
		}
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// Two halves of one population do not differ, also where boxes come in clusters; halves of two populations do.
func TestDriftOfClusters(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	// draw makes a version of clusters, each with many boxes that are nearly all alike.
	draw := func(prefix string, n int, shift float64) map[measure]ratio {
		boxes, images, sides, tops := map[string]float64{}, map[string]float64{}, map[string]float64{},
			map[string]float64{}
		for i := range n {
			name := fmt.Sprint(prefix, i)
			each := float64(20 + random.IntN(60))
			boxes[name], images[name] = each, 10
			sides[name] = each * (5 + shift + random.NormFloat64())
			tops[name] = math.Round(each * min(1, max(0, 0.3+shift/2+random.NormFloat64()/3)))
		}
		return map[measure]ratio{{"label-drift", boxesAnImage}: {boxes, images},
			{"label-drift", "label a"}: {tops, boxes}, {"box-drift", sideOfBoxes}: {sides, boxes}}
	}
	const trials = 400
	alarms, found := 0, 0
	for range trials {
		if slices.ContainsFunc(drifts(draw("a", 60, 0), draw("b", 60, 0)), driftOf.found) {
			alarms++
		}
		if slices.ContainsFunc(drifts(draw("a", 60, 0), draw("b", 60, 1)), driftOf.found) {
			found++
		}
	}
	if alarms > 3 || found < trials*9/10 {
		t.Errorf("%d alarms without drift, %d of %d drifts found", alarms, found, trials)
	}
	same := draw("a", 60, 0)
	few := maps.Clone(same)
	boxes := measure{"box-drift", sideOfBoxes}
	few[boxes] = ratio{maps.Clone(same[boxes].top), same[boxes].bottom}
	for i := range driftClusters - 1 {
		few[boxes].top[fmt.Sprint("a", i)] += 1e6
	}
	if got := append(drifts(same, same), drifts(same, few)...); len(got) > 0 {
		t.Errorf("of fewer clusters than an interval needs nothing is said: %+v", got)
	}
}

// A data run of a server finds scenes and drift as the report of a folder does, and a version of main that is gone
// holds up nothing.
func TestCheckFindsScenesAndDrift(t *testing.T) {
	for _, o := range oddDatasets() {
		t.Run(o.name, func(t *testing.T) {
			want, _ := o.report(t)
			c := folders("d", makeDataset(t, o.now))
			run := delivery.DataRun{Dataset: inDir("d"), Scenes: o.pattern}
			if o.before != nil {
				c.Locations["dir"]["before"] = makeDataset(t, o.before)
				run.Before = &delivery.Dataset{Source: "dir", Path: "before"}
			}
			check := func() (delivery.DataResult, error) {
				return c.Check(t.Context(), run, filepath.Join(t.TempDir(), "prepared"), store.Folder(t.TempDir()), nil)
			}
			got, err := check()
			if err != nil || !reflect.DeepEqual(got.Findings, want.Findings) {
				t.Errorf("%v\ngot  %+v\nwant %+v", err, got.Findings, want.Findings)
			}
			if want.Failed() {
				return
			}
			run.Before = &delivery.Dataset{Source: "dir", Path: "gone"}
			gone, err := check()
			if err != nil || gone.Training != got.Training {
				t.Fatalf("%v: the training input is %s, want %s", err, gone.Training, got.Training)
			}
			f, ok := delivery.Find(gone.Findings, func(f delivery.Finding) bool { return f.Code == "no-drift" })
			if !ok || f.Level != delivery.LevelWarning || f.Where != "dir:gone" {
				t.Errorf("got %+v", gone.Findings)
			}
		})
	}
}
