package coco_test

// This file counts a gate's errors in a simulated world whose truth is known. Every test set is judged by a gate whose
// bound is exactly the truth: it may pass, or fail, no more often than its confidence allows. Classes trade places
// between the two models, are rare, and were added to the models and not to the gate.

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
)

// A kind is a class of a world: how many truths an image has, or has on average if that is below one, how often the
// candidate and the release find one, in images of two sorts, and how many wrong detections an image has.
type kind struct {
	name  string
	often float64
	finds [2][2]float64 // by model, the candidate first, and by sort of image
	wrong float64
}

// worldPool makes images of a world up.
func worldPool(t *testing.T, kinds []kind) *coco.Pool {
	const images = 3000
	r := rand.New(rand.NewPCG(5, 1))
	truth := &coco.Truth{}
	var found [2][]coco.Detection
	for k, c := range kinds {
		truth.Categories = append(truth.Categories, coco.Category{ID: int64(k + 1), Name: c.name})
	}
	for i := range int64(images) {
		truth.Images = append(truth.Images, coco.Image{ID: i + 1, Width: 2000, Height: 2000})
		sort, place := r.IntN(2), 0
		for k, c := range kinds {
			next := func() coco.Box { // objects do not overlap
				place++
				return coco.Box{X: float64(place%20) * 100, Y: float64(place/20) * 100, W: 60, H: 60}
			}
			n := int(c.often)
			if n == 0 {
				n = poisson(r, c.often)
			}
			for ; n > 0; n-- {
				box := next()
				truth.Annotations = append(truth.Annotations, coco.Annotation{ID: int64(len(truth.Annotations) + 1),
					Image: i + 1, Category: int64(k + 1), Box: box, Area: box.W * box.H})
				for m := range found {
					if r.Float64() < c.finds[m][sort] {
						found[m] = append(found[m], coco.Detection{Image: i + 1, Category: int64(k + 1), Box: box,
							Score: 0.5 + 0.5*r.Float64()})
					}
				}
			}
			for n := poisson(r, c.wrong); n > 0; n-- {
				box, score := next(), r.Float64()
				for m := range found {
					found[m] = append(found[m], coco.Detection{Image: i + 1, Category: int64(k + 1), Box: box,
						Score: score})
				}
			}
		}
	}
	var matched [2]*coco.Matched
	for m := range found {
		var err error
		if matched[m], err = coco.Match(truth, found[m], coco.Params{}); err != nil {
			t.Fatal(err)
		}
	}
	return coco.NewPool(matched[0], matched[1])
}

// meanOver is the mean AP of a model over some classes.
func meanOver(m *coco.Matched, classes []string) float64 {
	sum, n := 0.0, 0
	for _, c := range m.Result().PerClass {
		for _, class := range classes {
			if c.Name == class && c.AP >= 0 {
				sum, n = sum+c.AP, n+1
			}
		}
	}
	return sum / float64(n)
}

// inputOf is what a gate reads of two models on one test set.
func inputOf(t *testing.T, a, b *coco.Matched, size int, seed uint64) gate.Input {
	params := coco.CompareParams{Resamples: 120, Seed: seed}
	c, err := coco.Compare(a, b, params)
	if err != nil {
		t.Fatal(err)
	}
	result := compared(c)
	thresholds := map[string]float64{}
	for _, class := range result.Candidate.Classes {
		thresholds[class] = 0.3
	}
	counts, err := coco.AtThresholds{Matched: a, Scores: thresholds}.Counts(params)
	if err != nil {
		t.Fatal(err)
	}
	table, err := c.TableA.Add(counts)
	if err != nil {
		t.Fatal(err)
	}
	scores := delivery.ScoreSet{Images: size, Classes: result.Classes, Truths: result.Truths, Table: table}
	return gate.Input{Model: "m", Classes: result.Candidate.Classes, Candidate: gate.Measured{Scores: scores},
		Baseline: &gate.Measured{Scores: delivery.ScoreSet{Truths: result.Truths}}, Compare: result}
}

// tradingPlaces are two classes of which each model finds the one where the other finds the other. The candidate is
// worse at a.
func tradingPlaces() []kind {
	return []kind{
		{"a", 2, [2][2]float64{{0.05, 0.80}, {0.95, 0.05}}, 0.1},
		{"b", 2, [2][2]float64{{0.95, 0.05}, {0.05, 0.80}}, 0.1},
	}
}

// Of drops that are exactly as large as the gate allows, no more pass, and no more fail, than its confidence allows.
func TestGatesAreCalibrated(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	const sets, draws, size = 200, 800, 100
	added := []kind{{"c0", 0.6, [2][2]float64{{0.55, 0.55}, {0.62, 0.62}}, 0.2}}
	for i := range 3 {
		added = append(added, kind{fmt.Sprintf("c%d", i+1), 0.6, [2][2]float64{{0.7, 0.7}, {0.55, 0.55}}, 0.2})
	}
	for _, w := range []struct {
		name    string
		kinds   []kind
		classes []string // the gate's
		most    float64  // of errors; a bootstrap of few truths is a little too narrow
	}{
		{"classes that trade places, one of them the gate's", tradingPlaces(), []string{"a"}, 0.06},
		{"and both", tradingPlaces(), []string{"a", "b"}, 0.06},
		{"a rare class", append(tradingPlaces()[:1], kind{"rare", 0.15, [2][2]float64{{0.5, 0.5}, {0.6, 0.6}}, 0.05}),
			[]string{"a", "rare"}, 0.08},
		{"added classes that make up for a loss", added, []string{"c0"}, 0.06},
	} {
		t.Run(w.name, func(t *testing.T) {
			pool := worldPool(t, w.kinds)
			draw := func(r *rand.Rand) (a, b *coco.Matched) {
				images := make([]int, size)
				for i := range images {
					images[i] = r.IntN(3000)
				}
				return pool.Draw(images, nil, nil)
			}
			truth := inChunks(draws, 7, func(r *rand.Rand) float64 {
				a, b := draw(r)
				return meanOver(b, w.classes) - meanOver(a, w.classes)
			})
			g := delivery.Gate{Classes: w.classes, Checks: []delivery.GateCheck{{Metric: "mAP", MaxDrop: &truth,
				Confidence: 0.95, Support: 1, Unsure: "review"}}}
			r := rand.New(rand.NewPCG(9, 9))
			n := map[delivery.Outcome]int{}
			for range sets {
				a, b := draw(r)
				n[judgeOver(t, g, inputOf(t, a, b, size, r.Uint64()))]++
			}
			t.Logf("a true drop of %.4f, of %d test sets: %v", truth, sets, n)
			if !within(n[delivery.Pass], sets, 0, w.most) || !within(n[delivery.Fail], sets, 0, w.most) {
				t.Errorf("of %d drops of exactly as much as is allowed, %d pass and %d fail", sets, n[delivery.Pass],
					n[delivery.Fail])
			}
			if decided := n[delivery.Pass] + n[delivery.Fail]; decided < sets*3/100 {
				t.Errorf("%d of %d are decided: the bounds are too wide", decided, sets)
			}
		})
	}
	for objects := 1; objects <= 5; objects++ {
		t.Run(fmt.Sprintf("%d objects of a class, and two equal models", objects), func(t *testing.T) {
			rare := kind{"rare", float64(objects) / size, [2][2]float64{{0.8, 0.8}, {0.8, 0.8}}, 0.05}
			pool := worldPool(t, []kind{{"a", 0.6, [2][2]float64{{0.8, 0.8}, {0.8, 0.8}}, 0.1}, rare})
			drop, floor := 0.05, 0.7 // both find 0.8
			check := delivery.GateCheck{Metric: "AP", Classes: delivery.Selection{Names: []string{"rare"}},
				MaxDrop: &drop, Confidence: 0.95, Support: 1, Unsure: "review"}
			checks := map[string]delivery.GateCheck{"AP, maxDrop": check}
			check.MaxDrop, check.Min = nil, &floor
			checks["AP, min"] = check
			check.Metric, check.Classes = "mAP", delivery.Selection{}
			checks["mAP, min"] = check
			check.MaxDrop, check.Min = &drop, nil
			checks["mAP, maxDrop"] = check
			r := rand.New(rand.NewPCG(9, 9))
			failed := map[string]int{}
			for n := 0; n < sets; {
				images := make([]int, size)
				for i := range images {
					images[i] = r.IntN(3000)
				}
				a, b := pool.Draw(images, nil, nil)
				if a.Result().PerClass[1].Truths != objects {
					continue
				}
				n++
				in := inputOf(t, a, b, size, r.Uint64())
				for name, check := range checks {
					g := delivery.Gate{Classes: []string{"a", "rare"}, Checks: []delivery.GateCheck{check}}
					if gate.Judge("g", g, in).Outcome == delivery.Fail {
						failed[name]++
					}
				}
			}
			t.Log(failed)
			for name, n := range failed {
				if !within(n, sets, 0, 0.06) {
					t.Errorf("%s: %d of %d equal models fail", name, n, sets)
				}
			}
		})
	}
	t.Run("what is far below a floor fails, whatever else the model finds", func(t *testing.T) {
		pool := worldPool(t, added)
		floor := 0.68 // c0 has about 0.5
		g := delivery.Gate{Classes: []string{"c0"}, Checks: []delivery.GateCheck{{Metric: "mAP", Min: &floor,
			Confidence: 0.95, Support: 1, Unsure: "review"}}}
		r := rand.New(rand.NewPCG(9, 9))
		failed := 0
		for range sets {
			images := make([]int, size)
			for i := range images {
				images[i] = r.IntN(3000)
			}
			a, b := pool.Draw(images, nil, nil)
			if judgeOver(t, g, inputOf(t, a, b, size, r.Uint64())) == delivery.Fail {
				failed++
			}
		}
		if failed < sets*9/10 {
			t.Errorf("%d of %d fail", failed, sets)
		}
	})
	t.Run("false positives of other classes do not count", func(t *testing.T) {
		pool := worldPool(t, []kind{{"a", 1, [2][2]float64{{0.9, 0.9}, {0.9, 0.9}}, 0.1},
			{"noisy", 1, [2][2]float64{{0.9, 0.9}, {0.9, 0.9}}, 5}})
		most := delivery.Quantity("0.3")
		g := delivery.Gate{Classes: []string{"a"}, Checks: []delivery.GateCheck{{Metric: "falsePositivesPerImage",
			Max: &most, At: "threshold", Confidence: 0.95, Support: 1, Unsure: "review"}}}
		images := make([]int, size)
		for i := range images {
			images[i] = i
		}
		a, b := pool.Draw(images, nil, nil)
		if got := judgeOver(t, g, inputOf(t, a, b, size, 1)); got != delivery.Pass {
			t.Errorf("%s, want pass", got)
		}
	})
}

func judgeOver(t *testing.T, g delivery.Gate, in gate.Input) delivery.Outcome {
	v := gate.Judge("g", g, in)
	if len(v.Checks) != 1 {
		t.Fatalf("%+v", v.Checks)
	}
	return v.Outcome
}
