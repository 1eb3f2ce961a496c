package coco

import (
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// random makes a case in which truths of one image do not overlap. With
// distinct scores no two detections have the same.
func random(seed uint64, images, classes int, distinct bool) (*Truth, []Detection) {
	r := rand.New(rand.NewPCG(seed, 1))
	t := &Truth{}
	for k := range classes {
		t.Categories = append(t.Categories, Category{ID: int64(10 * (k + 1)), Name: string(rune('a' + k))})
	}
	var detections []Detection
	id := int64(0)
	for i := range images {
		image := int64(7 * (i + 1))
		t.Images = append(t.Images, Image{ID: image, Width: 800, Height: 800, Group: string(rune('A' + i/3))})
		for slot := range r.IntN(8) {
			id++
			side := 20 + 120*r.Float64()
			a := Annotation{
				ID: id, Image: image, Category: t.Categories[r.IntN(classes)].ID, Crowd: r.IntN(20) == 0,
				Box:  Box{float64(200 * (slot % 4)), float64(400 * (slot / 4)), side, side * 1.2},
				Area: side * side * 0.9,
			}
			t.Annotations = append(t.Annotations, a)
			for range r.IntN(3) {
				d := Detection{Image: image, Category: a.Category, Box: a.Box, Score: float64(r.IntN(50)) / 50}
				d.Box.X += r.NormFloat64() * 0.15 * side
				d.Box.W *= math.Exp(r.NormFloat64() * 0.1)
				if r.IntN(8) == 0 {
					d.Category = t.Categories[r.IntN(classes)].ID
				}
				detections = append(detections, d)
			}
		}
	}
	if distinct {
		for i, k := range r.Perm(len(detections)) {
			detections[i].Score = float64(k) / float64(len(detections))
		}
	}
	return t, detections
}

func evaluate(t *testing.T, truth *Truth, detections []Detection, p Params) *Result {
	t.Helper()
	r, err := Evaluate(truth, detections, p)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// single is one image with one truth of 20 x 20 and detections on it or beside.
func single(id int64, scores ...float64) (*Truth, []Detection) {
	t := &Truth{
		Images:      []Image{{ID: 1, Width: 100, Height: 100}},
		Categories:  []Category{{ID: 1, Name: "a"}, {ID: 2, Name: "b"}},
		Annotations: []Annotation{{ID: id, Image: 1, Category: 1, Box: Box{10, 10, 20, 20}, Area: 400}},
	}
	var detections []Detection
	for _, s := range scores {
		d := Detection{Image: 1, Category: 1, Box: Box{10, 10, 20, 20}, Score: math.Abs(s)}
		if s < 0 { // beside it
			d.Box.X = 60
		}
		detections = append(detections, d)
	}
	return t, detections
}

func TestEvaluateEdges(t *testing.T) {
	const one = 1 / (1 + 0x1p-52) // the reference's precision of a single hit
	tests := map[string]struct {
		id       int64
		scores   []float64 // negative: a miss with that score
		params   Params
		ap, ar   float64
		headline bool // stats AP equals the class's
	}{
		"nothing found":             {1, nil, Params{}, 0, 0, true},
		"found":                     {1, []float64{.5}, Params{}, one, 1, true},
		"found twice":               {1, []float64{.5, .4}, Params{}, one, 1, true},
		"a surer miss":              {1, []float64{-.9, .5}, Params{}, .5, 1, true},
		"an equal miss before":      {1, []float64{-.5, .5}, Params{}, .5, 1, true},
		"an equal miss after":       {1, []float64{.5, -.5}, Params{}, one, 1, true},
		"id 0":                      {0, []float64{.5}, Params{}, one, 1, true},
		"id 0, strict":              {0, []float64{.5}, Params{Mode: Strict}, 0, 0, true},
		"below the floor":           {1, []float64{.5}, Params{ScoreFloor: .6}, 0, 0, true},
		"at the floor":              {1, []float64{.5}, Params{ScoreFloor: .5}, one, 1, true},
		"beyond the limit":          {1, []float64{-.9, -.8, -.7, .5}, Params{MaxDets: [3]int{1, 2, 3}}, 0, 0, true},
		"within the limit":          {1, []float64{-.9, -.8, -.7, .5}, Params{MaxDets: [3]int{1, 2, 4}}, .25, 1, true},
		"strict, limit 100 is lost": {1, []float64{.5}, Params{Mode: Strict, MaxDets: [3]int{1, 2, 3}}, one, 1, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			truth, detections := single(test.id, test.scores...)
			r := evaluate(t, truth, detections, test.params)
			if c := r.PerClass[0]; c.AP != test.ap || c.AR100 != test.ar || c.Truths != 1 {
				t.Errorf("got %+v, want AP %v, AR %v, 1 truth", c, test.ap, test.ar)
			}
			if c := r.PerClass[1]; c.AP != -1 || c.AP50 != -1 || c.AP75 != -1 || c.AR100 != -1 || c.Truths != 0 {
				t.Errorf("class without truths: got %+v, want -1 everywhere", c)
			}
			want := test.ap
			if !test.headline {
				want = -1
			}
			if r.Stats.AP != want || math.Abs(r.Stats.AP50-test.ap) > 1e-12 {
				t.Errorf("got AP %v, AP50 %v, want %v, %v", r.Stats.AP, r.Stats.AP50, want, test.ap)
			}
			if r.Stats.APl != -1 || r.Stats.ARl != -1 {
				t.Errorf("no large truths: got APl %v, ARl %v, want -1", r.Stats.APl, r.Stats.ARl)
			}
		})
	}
}

// In Strict mode the headline is that of 100 detections even where more are
// looked at.
func TestStrictHeadline(t *testing.T) {
	scores := make([]float64, 0, 120)
	for i := range 110 {
		scores = append(scores, -1+float64(i)/1000)
	}
	truth, detections := single(1, append(scores, .5)...)
	limits := [3]int{1, 100, 500}
	if r := evaluate(t, truth, detections, Params{Mode: Strict, MaxDets: limits}); r.Stats.AP != 0 ||
		r.Stats.AP50 == 0 {
		t.Errorf("strict: got AP %v, AP50 %v, want 0 and more", r.Stats.AP, r.Stats.AP50)
	}
	if r := evaluate(t, truth, detections, Params{MaxDets: limits}); r.Stats.AP == 0 {
		t.Errorf("fixed: got AP 0, want that of all detections")
	}
}

func TestMatchRefuses(t *testing.T) {
	tests := map[string]struct {
		change func(*Truth, []Detection, *Params)
		want   string
	}{
		"image twice": {func(t *Truth, _ []Detection, _ *Params) { t.Images = append(t.Images, t.Images[0]) },
			"images[1]: id 1 is there twice"},
		"category twice": {func(t *Truth, _ []Detection, _ *Params) { t.Categories[1].ID = 1 },
			"categories[1]: id 1 is there twice"},
		"annotation twice": {func(t *Truth, _ []Detection, _ *Params) {
			t.Annotations = append(t.Annotations, t.Annotations[0])
		}, "annotations[1]: id 1 is there twice"},
		"unknown image": {func(t *Truth, _ []Detection, _ *Params) { t.Annotations[0].Image = 9 },
			"annotations[0]: image 9 is not"},
		"unknown category": {func(t *Truth, _ []Detection, _ *Params) { t.Annotations[0].Category = 9 },
			"annotations[0]: category 9 is not"},
		"NaN area": {func(t *Truth, _ []Detection, _ *Params) { t.Annotations[0].Area = math.NaN() },
			"annotations[0]: area: want a finite"},
		"NaN score": {func(_ *Truth, d []Detection, _ *Params) { d[0].Score = math.NaN() },
			"detections[0]: score: want a finite"},
		"infinite box": {func(_ *Truth, d []Detection, _ *Params) { d[0].Box.X = math.Inf(1) },
			"detections[0]: bbox: want finite"},
		"negative width": {func(_ *Truth, d []Detection, _ *Params) { d[0].Box.W = -1 },
			"width and height from 0 up"},
		"huge box": {func(_ *Truth, d []Detection, _ *Params) { d[0].Box.W = 1e300 }, "pixels up to 1e+09"},
		"foreign image": {func(_ *Truth, d []Detection, _ *Params) { d[0].Image = 9 },
			"detections[0]: image 9 is not"},
		"foreign category": {func(_ *Truth, d []Detection, _ *Params) { d[0].Category = 9 },
			"detections[0]: category 9 is not"},
		"falling limits": {func(_ *Truth, _ []Detection, p *Params) { p.MaxDets = [3]int{10, 1, 100} },
			"three rising numbers"},
		"unknown mode": {func(_ *Truth, _ []Detection, p *Params) { p.Mode = 7 }, "no such mode"},
		"NaN floor":    {func(_ *Truth, _ []Detection, p *Params) { p.ScoreFloor = math.NaN() }, "score floor"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			truth, detections := single(1, .5)
			var p Params
			test.change(truth, detections, &p)
			_, err := Match(truth, detections, p)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestMonotoneScoresChangeNothing(t *testing.T) {
	for seed := range uint64(20) {
		truth, detections := random(seed, 15, 4, false)
		before := evaluate(t, truth, detections, Params{})
		for i, d := range detections {
			detections[i].Score = d.Score*d.Score*d.Score + 2*d.Score - 5
		}
		if after := evaluate(t, truth, detections, Params{}); !reflect.DeepEqual(before, after) {
			t.Errorf("seed %d: got %+v, want %+v", seed, after.Stats, before.Stats)
		}
	}
}

func TestImageOrderChangesNothing(t *testing.T) {
	for seed := range uint64(20) {
		truth, detections := random(seed, 15, 4, true)
		before := evaluate(t, truth, detections, Params{})
		r := rand.New(rand.NewPCG(seed, 2))
		r.Shuffle(len(truth.Images), func(i, j int) {
			truth.Images[i], truth.Images[j] = truth.Images[j], truth.Images[i]
		})
		r.Shuffle(len(detections), func(i, j int) { detections[i], detections[j] = detections[j], detections[i] })
		if after := evaluate(t, truth, detections, Params{}); !reflect.DeepEqual(before, after) {
			t.Errorf("seed %d, other order: got %+v, want %+v", seed, after.Stats, before.Stats)
		}
		other := map[int64]int64{}
		for i, k := range r.Perm(len(truth.Images)) {
			other[truth.Images[i].ID] = int64(k)
			truth.Images[i].ID = int64(k)
		}
		for i := range truth.Annotations {
			truth.Annotations[i].Image = other[truth.Annotations[i].Image]
		}
		for i := range detections {
			detections[i].Image = other[detections[i].Image]
		}
		if after := evaluate(t, truth, detections, Params{}); after.Stats != before.Stats {
			t.Errorf("seed %d, other ids: got %+v, want %+v", seed, after.Stats, before.Stats)
		}
	}
}

func TestDuplicateNeverRaisesAP(t *testing.T) {
	for seed := range uint64(30) {
		truth, detections := random(seed, 8, 3, false)
		before := evaluate(t, truth, detections, Params{})
		for i := range detections {
			after := evaluate(t, truth, append(detections[:len(detections):len(detections)], detections[i]), Params{})
			for k, c := range after.PerClass {
				if c.AP > before.PerClass[k].AP {
					t.Errorf("seed %d: detection %d again: class %s rises from %v to %v", seed, i, c.Name,
						before.PerClass[k].AP, c.AP)
				}
			}
		}
	}
}

func TestThreadsChangeNothing(t *testing.T) {
	truth, detections := random(1, 40, 6, false)
	one, many := scored(t, truth, detections, 1), scored(t, truth, detections, 8)
	if !reflect.DeepEqual(one, many) {
		t.Error("one thread and eight give different results")
	}
}

func scored(t *testing.T, truth *Truth, detections []Detection, threads int) any {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(threads))
	m, err := Match(truth, detections, Params{})
	if err != nil {
		t.Fatal(err)
	}
	table, sampling, err := Interval(m, CompareParams{Resamples: 100})
	if err != nil {
		t.Fatal(err)
	}
	return []any{m.Result(), sampling, estimates(m, table, sampling)}
}

func TestProtocolDigest(t *testing.T) {
	truth, detections := random(1, 5, 2, false)
	seen := map[string]string{}
	add := func(name string, p Params) {
		d := evaluate(t, truth, detections, p).Digest
		if other, again := seen[d]; again {
			t.Errorf("%s has the digest of %s", name, other)
		}
		seen[d] = name
	}
	add("fixed", Params{})
	add("strict", Params{Mode: Strict})
	add("limits", Params{MaxDets: [3]int{1, 10, 500}})
	add("floor", Params{ScoreFloor: .1})
	before := truth.Digest()
	truth.Images[0], truth.Images[1] = truth.Images[1], truth.Images[0]
	if truth.Digest() != before {
		t.Error("the order of images changes the digest")
	}
	truth.Annotations[0].Box.X += .5
	add("other truth", Params{})
}
