package coco

import (
	"reflect"
	"strings"
	"testing"
)

func TestRegressions(t *testing.T) {
	truth := &Truth{Categories: []Category{{ID: 1, Name: "cat"}, {ID: 2, Name: "dog"}}}
	box := func(x float64) Box { return Box{X: x, Y: 10, W: 20, H: 20} }
	for i := int64(1); i <= 4; i++ {
		truth.Images = append(truth.Images, Image{ID: i, Width: 200, Height: 100})
		truth.Annotations = append(truth.Annotations,
			Annotation{ID: 10 * i, Image: i, Category: 1, Box: box(10), Area: 400}, Annotation{ID: 10*i + 1, Image: i,
				Category: 2, Box: box(60), Area: 400})
	}
	truth.Annotations = append(truth.Annotations, Annotation{ID: 99, Image: 4, Category: 1, Box: Box{X: 100, Y: 0,
		W: 100, H: 100}, Area: 10_000, Crowd: true})
	var release, model []Detection
	for i := int64(1); i <= 4; i++ {
		release = append(release, Detection{Image: i, Category: 1, Box: box(10), Score: .9},
			Detection{Image: i, Category: 2, Box: box(60), Score: .8})
	}
	model = append(model,
		// as good
		Detection{Image: 1, Category: 1, Box: box(10), Score: .9}, Detection{Image: 1, Category: 2, Box: box(60),
			Score: .8},
		// misses the dog
		Detection{Image: 2, Category: 1, Box: box(12), Score: .9},
		// misses both, one false
		Detection{Image: 3, Category: 1, Box: box(150), Score: .9}, Detection{Image: 3, Category: 2, Box: box(60),
			Score: .1},
		Detection{Image: 4, Category: 1, Box: box(10), Score: .9}, Detection{Image: 4, Category: 2, Box: box(60),
			Score: .8},
		Detection{Image: 4, Category: 1, Box: box(120), Score: .7}) // in a crowd: no fault
	at := map[string]float64{"cat": .5, "dog": .5}
	got, err := Regressions(truth, model, release, at, at, Params{})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Image != 3 || got[0].Lost != 3 ||
		got[0].Why != "misses 1 cat, 1 dog that the baseline finds; 1 more false cat" ||
		got[1].Image != 2 || got[1].Why != "misses 1 dog that the baseline finds" {
		t.Fatalf("%+v", got)
	}
	if s := got[0].Candidate; s.Found != 0 || s.Missed != 2 || s.False != 1 || len(s.Boxes) != 3 ||
		got[0].Baseline.Found != 2 {
		t.Errorf("%+v", s)
	}
	alone, err := Regressions(truth, model, nil, at, nil, Params{})
	if err != nil || len(alone) != 2 || alone[0].Baseline != nil || strings.Contains(alone[0].Why, "baseline") ||
		alone[0].Why != "misses 1 cat, 1 dog; 1 false cat" {
		t.Errorf("%v: %+v", err, alone)
	}
	if same, err := Regressions(truth, release, release, nil, nil, Params{}); err != nil || len(same) != 0 {
		t.Errorf("%v: %+v", err, same)
	}
}

// Whatever the input, an image is listed for what is marked on it, and the order of
// detections changes nothing.
func TestRegressionsAddUp(t *testing.T) {
	for seed := range uint64(20) {
		truth, detections := random(seed, 20, 3, true)
		list, err := Regressions(truth, detections[:len(detections)/2], detections, nil, nil, Params{})
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range list {
			if i > 0 && list[i-1].Lost < r.Lost || r.Lost < 1 || r.Why == "" ||
				r.Candidate.Found+r.Candidate.Missed != len(r.Truth) ||
				r.Baseline.Found+r.Baseline.Missed != len(r.Truth) {
				t.Fatalf("seed %d: %+v", seed, r)
			}
		}
		again, err := Regressions(truth, detections[:len(detections)/2], detections, nil, nil, Params{})
		if err != nil || !reflect.DeepEqual(list, again) {
			t.Fatalf("seed %d: another time it is another list", seed)
		}
	}
}
