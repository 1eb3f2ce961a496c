package coco

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

func match(t *testing.T, truth *Truth, detections []Detection) *Matched {
	t.Helper()
	m, err := Match(truth, detections, Params{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func compare(t *testing.T, a, b *Matched, p CompareParams) *Comparison {
	t.Helper()
	c, err := Compare(a, b, p)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// worse moves detections off the truth.
func worse(detections []Detection) []Detection {
	other := slices.Clone(detections)
	for i := range other {
		other[i].Box.X += float64(i%5) * .05 * other[i].Box.W
	}
	return other
}

func TestCompareWithItself(t *testing.T) {
	truth, detections := random(3, 30, 5, false)
	m := match(t, truth, detections)
	c := whole(m, compare(t, m, match(t, truth, detections), CompareParams{Resamples: 200}))
	for _, d := range append(c.Classes, c.MAP, c.AP50) {
		if d.Diff != 0 || d.Lower != 0 || d.Upper != 0 || d.StdErr != 0 || d.HalfWidth != 0 {
			t.Errorf("%s %s: got %v in [%v, %v], want all 0", d.Metric, d.Class, d.Diff, d.Lower, d.Upper)
		}
	}
	if c.A.Lower >= c.A.Value || c.A.Upper <= c.A.Value || !reflect.DeepEqual(c.A, c.B) {
		t.Errorf("own intervals: got %v in [%v, %v] and %v", c.A.Value, c.A.Lower, c.A.Upper, c.B.Value)
	}
}

func TestCompareValuesAreThoseOfEvaluate(t *testing.T) {
	truth, detections := random(4, 40, 5, false)
	other := worse(detections)
	a, b := evaluate(t, truth, detections, Params{}), evaluate(t, truth, other, Params{})
	m := match(t, truth, detections)
	c := whole(m, compare(t, m, match(t, truth, other), CompareParams{Resamples: 50}))
	if c.MAP.A != a.Stats.AP || c.MAP.B != b.Stats.AP || c.AP50.A != a.Stats.AP50 || c.AP50.B != b.Stats.AP50 {
		t.Errorf("got %v, %v, want %v, %v", c.MAP.A, c.MAP.B, a.Stats.AP, b.Stats.AP)
	}
	for i, d := range c.Classes {
		if d.A != a.PerClass[i].AP || d.B != b.PerClass[i].AP || d.Truths != a.PerClass[i].Truths {
			t.Errorf("%s: got %v, %v, want %v, %v", d.Class, d.A, d.B, a.PerClass[i].AP, b.PerClass[i].AP)
		}
	}
	if c.MAP.Diff <= 0 || c.MAP.Lower > c.MAP.Diff || c.MAP.Upper < c.MAP.Diff {
		t.Errorf("got %v in [%v, %v]", c.MAP.Diff, c.MAP.Lower, c.MAP.Upper)
	}
	if c.Sampling.Images != 40 || c.Sampling.Units != 40 || c.Sampling.Seed != 1 || c.Sampling.Confidence != .95 {
		t.Errorf("got %+v", c.Sampling)
	}
}

// numbersOf are COCO's own numbers, by the names of metrics.
func numbersOf(r *Result) map[string]float64 {
	s := r.Stats
	return map[string]float64{"mAP": s.AP, "AP50": s.AP50, "AP75": s.AP75, "AR100": s.AR100,
		"APsmall": s.APs, "APmedium": s.APm, "APlarge": s.APl}
}

// A resample is worth what an evaluation is on a set that has each image as
// often as it was drawn.
func TestResampleEqualsEvaluation(t *testing.T) {
	truth, detections := random(5, 12, 3, true)
	m := match(t, truth, detections)
	r, err := newResampling(m, CompareParams{Resamples: 8, Columns: delivery.MetricNames(nil)})
	if err != nil {
		t.Fatal(err)
	}
	got := r.run(m)[0]
	numbers := numbersOf(m.Result())
	for _, c := range columns {
		metric := c.name
		if metric == delivery.MetricAP {
			metric = delivery.MetricMAP
		}
		if _, ok := numbers[metric]; !ok {
			t.Errorf("%s has no expected value in numbersOf", metric)
		}
	}
	for metric, want := range numbers {
		if v := got.Figure(metric, got.Classes).Value; v != want && !(math.IsNaN(v) && want < 0) {
			t.Errorf("%s is %v, want COCO's %v", metric, v, want)
		}
	}
	source := rand.NewPCG(1, 0x616f622f636f636f)
	weights := make([]int32, len(truth.Images))
	for i := range 8 {
		r.draw(source, weights)
		large := &Truth{Categories: truth.Categories}
		var found []Detection
		for k, image := range m.images {
			for copy := range weights[k] {
				id := image.ID*1000 + int64(copy)
				large.Images = append(large.Images, Image{ID: id})
				for _, a := range truth.Annotations {
					if a.Image == image.ID {
						a.ID, a.Image = a.ID*1000+int64(copy), id
						large.Annotations = append(large.Annotations, a)
					}
				}
				for _, d := range detections {
					if d.Image == image.ID {
						d.Image = id
						found = append(found, d)
					}
				}
			}
		}
		want := evaluate(t, large, found, Params{})
		for metric, want := range numbersOf(want) {
			if v := got.Figure(metric, got.Classes).Resamples[i]; math.Abs(v-want) > 1e-12 ||
				math.IsNaN(v) && want >= 0 {
				t.Errorf("resample %d: %s is %v, want %v", i, metric, v, want)
			}
		}
	}
}

// The draw of a seed is part of stored results: it must never change.
func TestDrawIsFixed(t *testing.T) {
	r := &resampling{}
	for i := range int32(10) {
		r.units = append(r.units, []int32{i})
	}
	source := rand.NewPCG(1, 0x616f622f636f636f)
	got := make([][]int32, 3)
	for i := range got {
		got[i] = make([]int32, 10)
		r.draw(source, got[i])
	}
	want := [][]int32{{2, 0, 0, 1, 0, 3, 1, 1, 0, 2}, {0, 0, 2, 0, 2, 0, 1, 2, 1, 2}, {0, 2, 0, 1, 1, 1, 0, 2, 2, 1}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestCompareByGroup(t *testing.T) {
	truth, detections := random(7, 30, 3, false)
	m := match(t, truth, detections)
	r, err := newResampling(m, CompareParams{ByGroup: true})
	if err != nil {
		t.Fatal(err)
	}
	if s := r.sampling(); s.Units != 10 || s.Images != 30 {
		t.Fatalf("got %d groups of %d images, want 10 of 30", s.Units, s.Images)
	}
	weights := make([]int32, 30)
	r.draw(rand.NewPCG(1, 2), weights)
	for i := range 30 {
		if weights[i] != weights[i/3*3] {
			t.Errorf("images of one group were drawn %v times", weights[i/3*3:i/3*3+3])
		}
	}
	truth.Images[4].Group = ""
	if _, _, err := Interval(match(t, truth, detections), CompareParams{ByGroup: true}); err == nil ||
		!strings.Contains(err.Error(), "image 35 has no group") {
		t.Errorf("image without a group: got %v", err)
	}
}

func TestCompareUnmeasured(t *testing.T) {
	truth, detections := single(1, .5)
	m := match(t, truth, detections)
	c := compare(t, m, m, CompareParams{Resamples: 10})
	if len(c.Classes) != 1 || len(c.Unmeasured) != 1 || c.Unmeasured[0].Class != "b" || c.Unmeasured[0].Truths != 0 {
		t.Errorf("got %+v and %+v", c.Classes, c.Unmeasured)
	}
	none := match(t, &Truth{Images: truth.Images, Categories: truth.Categories}, nil)
	if _, err := Compare(none, none, CompareParams{}); !errors.Is(err, ErrNoTruth) {
		t.Errorf("no truths: got %v", err)
	}
	noClass := match(t, &Truth{Images: truth.Images}, nil)
	if _, err := Compare(noClass, noClass, CompareParams{}); !errors.Is(err, ErrNoTruth) {
		t.Errorf("no classes: got %v", err)
	}
	noImage := match(t, &Truth{Categories: truth.Categories}, nil)
	if _, err := Compare(noImage, noImage, CompareParams{}); !errors.Is(err, ErrNoTruth) {
		t.Errorf("no images: got %v", err)
	}
}

func TestCompareRefuses(t *testing.T) {
	truth, detections := single(1, .5)
	m := match(t, truth, detections)
	strict, err := Match(truth, detections, Params{Mode: Strict})
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		b    *Matched
		p    CompareParams
		want string
	}{
		"other protocol":   {strict, CompareParams{}, "different ways"},
		"one resample":     {m, CompareParams{Resamples: 1}, "resamples: want 2 to 100000"},
		"confidence 95":    {m, CompareParams{Confidence: 95}, "confidence: want .5 to below 1"},
		"confidence NaN":   {m, CompareParams{Confidence: math.NaN()}, "confidence"},
		"images, no group": {m, CompareParams{ByGroup: true}, "no group"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := Compare(m, test.b, test.p); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestBounds(t *testing.T) {
	s := Difference{}
	for i := range 999 {
		s.Samples = append(s.Samples, float64(i+1))
	}
	tests := []struct{ confidence, lower, upper float64 }{
		{.5, 500, 500}, {.9, 100, 900}, {.95, 50, 950}, {.99, 10, 990}, {.999, 1, 999}, {.99999, 1, 999},
	}
	for _, test := range tests {
		if lower, upper := s.Bounds(test.confidence); lower != test.lower || upper != test.upper {
			t.Errorf("%v: got [%v, %v], want [%v, %v]", test.confidence, lower, upper, test.lower, test.upper)
		}
	}
}

func TestStoredComparisonIsWhole(t *testing.T) {
	truth, detections := random(8, 20, 3, false)
	m := match(t, truth, detections)
	c := whole(m, compare(t, m, match(t, truth, worse(detections)), CompareParams{Resamples: 100}))
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var back Whole
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(*c, back) {
		t.Error("a comparison changes on its way through JSON")
	}
	r := evaluate(t, truth, detections, Params{Mode: Strict})
	if text, err = json.Marshal(r); err != nil {
		t.Fatal(err)
	}
	var result Result
	if err := json.Unmarshal(text, &result); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(*r, result) {
		t.Error("a result changes on its way through JSON")
	}
}

// A table says how many images or groups have objects of a class that count for a column.
func TestUnitsWithObjects(t *testing.T) {
	truth := &Truth{Categories: []Category{{ID: 1, Name: "a"}, {ID: 2, Name: "b"}, {ID: 3, Name: "none"}}}
	add := func(image, class int64, side float64) {
		truth.Annotations = append(truth.Annotations, Annotation{ID: int64(len(truth.Annotations) + 1), Image: image,
			Category: class, Box: Box{0, 0, side, side}, Area: side * side})
	}
	for i := int64(1); i <= 40; i++ {
		truth.Images = append(truth.Images, Image{ID: i, Group: fmt.Sprint(i / 10)})
		add(i, 1, 50)
	}
	for _, image := range []int64{3, 3, 4, 25} {
		add(image, 2, 50)
	}
	add(35, 2, 10)
	crowd := Annotation{ID: 999, Image: 40, Category: 2, Box: Box{0, 0, 50, 50}, Area: 2500, Crowd: true}
	truth.Annotations = append(truth.Annotations, crowd)
	m, err := Match(truth, nil, Params{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		byGroup bool
		metric  string
		want    [3]int
	}{
		{false, "AP", [3]int{40, 4, 0}},
		{false, "AP75", [3]int{40, 4, 0}},
		{false, "APsmall", [3]int{0, 1, 0}},
		{false, "APmedium", [3]int{40, 3, 0}},
		{true, "AP", [3]int{5, 3, 0}},
		{true, "APmedium", [3]int{5, 2, 0}},
	} {
		table, _, err := Interval(m, CompareParams{Resamples: 2, ByGroup: c.byGroup,
			Columns: []string{"APsmall", "APmedium"}})
		if err != nil {
			t.Fatal(err)
		}
		var got [3]int
		for i, r := range table.Columns[c.metric] {
			got[i] = r.Units
		}
		if got != c.want {
			t.Errorf("%s, by group %v: %v, want %v", c.metric, c.byGroup, got, c.want)
		}
	}
}
