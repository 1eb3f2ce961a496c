package coco

import (
	"math"
	"strings"
	"testing"
)

// The curves add up to the class's AP, and their scores are where precision
// and recall are those of the curve.
func TestCurves(t *testing.T) {
	for seed := range uint64(10) {
		truth, detections := traps(seed)
		m := match(t, truth, detections)
		result := m.Result()
		for k, c := range m.Curves() {
			want := result.PerClass[k]
			if c.CategoryID != want.CategoryID || c.Truths != want.Truths {
				t.Fatalf("seed %d: got %+v, want %+v", seed, c, want)
			}
			if want.Truths == 0 {
				if len(c.Curves) != 0 {
					t.Errorf("seed %d: a class without truths has %d curves", seed, len(c.Curves))
				}
				continue
			}
			sum := 0.0
			for i, curve := range c.Curves {
				if curve.IoU != iouThresholds[i] {
					t.Errorf("curve %d: got IoU %v", i, curve.IoU)
				}
				for r, q := range curve.Precision {
					sum += q
					if r > 0 && q > curve.Precision[r-1] {
						t.Errorf("seed %d: precision rises at recall %d", seed, r)
					}
					if r > 0 && q > 0 && curve.Scores[r] > curve.Scores[r-1] {
						t.Errorf("seed %d: score rises at recall %d", seed, r)
					}
				}
			}
			if math.Abs(sum/(thresholds*recalls)-want.AP) > 1e-12 {
				t.Errorf("seed %d %s: curves say AP %v, want %v", seed, c.Name, sum/(thresholds*recalls), want.AP)
			}
		}
	}
}

func TestCurveOfFew(t *testing.T) {
	truth, detections := single(1, -.9, .5)
	c := match(t, truth, detections).Curves()[0].Curves[0]
	for r := range recalls {
		score := .5
		if r == 0 {
			score = .9 // nothing has to be found
		}
		if c.Precision[r] != .5 || c.Scores[r] != score {
			t.Errorf("recall %d: got %v at %v, want .5 at %v", r, c.Precision[r], c.Scores[r], score)
		}
	}
}

func TestBestF1(t *testing.T) {
	tests := map[string]struct {
		scores []float64 // negative: a miss with that score
		want   OperatingPoint
	}{
		"nothing":     {nil, OperatingPoint{F1: 0, Truths: 1}},
		"only misses": {[]float64{-.9, -.1}, OperatingPoint{F1: 0, Truths: 1}},
		"found": {[]float64{.5}, OperatingPoint{F1: 1, Score: .5, Precision: 1, Recall: 1, Found: 1,
			Kept: 1, Truths: 1}},
		"misses below": {[]float64{.5, -.4}, OperatingPoint{F1: 1, Score: .5, Precision: 1, Recall: 1,
			Found: 1, Kept: 1, Truths: 1}},
		"a miss above": {[]float64{-.6, .5, -.4}, OperatingPoint{F1: 2. / 3, Score: .5, Precision: .5,
			Recall: 1, Found: 1, Kept: 2, Truths: 1}},
		"an equal miss": {[]float64{.5, -.5}, OperatingPoint{F1: 2. / 3, Score: .5, Precision: .5, Recall: 1,
			Found: 1, Kept: 2, Truths: 1}},
		"an equal miss, before": {[]float64{-.5, .5}, OperatingPoint{F1: 2. / 3, Score: .5, Precision: .5, Recall: 1,
			Found: 1, Kept: 2, Truths: 1}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			truth, detections := single(1, test.scores...)
			points, err := match(t, truth, detections).BestF1(.5)
			if err != nil {
				t.Fatal(err)
			}
			test.want.CategoryID, test.want.Name = 1, "a"
			if points[0] != test.want {
				t.Errorf("got %+v, want %+v", points[0], test.want)
			}
			if points[1].F1 != -1 {
				t.Errorf("class without truths: got %+v", points[1])
			}
		})
	}
	truth, detections := single(1, .5)
	for _, iou := range []float64{0, .52, 1, math.NaN()} {
		if _, err := match(t, truth, detections).BestF1(iou); err == nil ||
			!strings.Contains(err.Error(), "IoU threshold") {
			t.Errorf("%v: got %v", iou, err)
		}
	}
	for _, iou := range []float64{.5, .9, .95} {
		if _, err := match(t, truth, detections).BestF1(iou); err != nil {
			t.Errorf("%v: got %v", iou, err)
		}
	}
}

// No score gives a better F1 than the one that is said to be best.
func TestBestF1IsBest(t *testing.T) {
	for seed := range uint64(20) {
		truth, detections := random(seed, 12, 3, false)
		points, err := match(t, truth, detections).BestF1(.5)
		if err != nil {
			t.Fatal(err)
		}
		for _, cut := range detections {
			kept := []Detection{}
			for _, d := range detections {
				if d.Score >= cut.Score {
					kept = append(kept, d)
				}
			}
			m := match(t, truth, kept)
			for k := range m.classes {
				c := &m.classes[k]
				tp, n := 0, 0
				for _, d := range c.dets {
					if d.aside&1 == 0 {
						n++
						if d.found&1 != 0 {
							tp++
						}
					}
				}
				if c.truths[0] == 0 {
					continue
				}
				f1 := float64(2*tp) / float64(n+c.truths[0])
				if f1 > points[k].F1 || cut.Score == points[k].Score && tp > 0 && f1 != points[k].F1 {
					t.Errorf("seed %d class %s: F1 %v at %v, said to be best is %v at %v", seed, points[k].Name, f1,
						cut.Score, points[k].F1, points[k].Score)
				}
			}
		}
	}
}
