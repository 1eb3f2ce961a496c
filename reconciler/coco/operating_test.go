package coco

import (
	"math"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

func share(v float64) *float64 { return &v }

// counted measures a class at a score the plain way: kept detections only, matched
// anew.
func counted(t *testing.T, truth *Truth, detections []Detection, scores map[string]float64, class string) (truths, tp,
	fp int64) {
	t.Helper()
	names := map[int64]string{}
	for _, c := range truth.Categories {
		names[c.ID] = c.Name
	}
	var kept []Detection
	for _, d := range detections {
		if s, ok := scores[names[d.Category]]; ok && d.Score >= s {
			kept = append(kept, d)
		}
	}
	m := match(t, truth, kept)
	b := bit(0, at50)
	for k := range m.classes {
		if class != "" && m.category[k].Name != class {
			continue
		}
		truths += int64(m.classes[k].truths[0])
		for _, d := range m.classes[k].dets {
			switch {
			case d.aside&b != 0:
			case d.found&b != 0:
				tp++
			default:
				fp++
			}
		}
	}
	return truths, tp, fp
}

// What a point claims is what is measured at its score, and matching only what is
// kept gives the same.
func TestPointsAreWhatTheyClaim(t *testing.T) {
	for seed := range uint64(40) {
		truth, detections := random(seed, 30, 4, seed%2 == 0)
		m := match(t, truth, detections)
		for _, ask := range []delivery.Threshold{{BestF1: true}, {Score: share(0.5)}, {Precision: share(0.6)},
			{Precision: share(1)}, {Recall: share(0.3)}, {Recall: share(1)}} {
			points := m.Points(delivery.Thresholds{delivery.DefaultThreshold: ask})
			scores := map[string]float64{}
			for name, p := range points {
				scores[name] = p.Score
			}
			for name, p := range points {
				truths, tp, fp := counted(t, truth, detections, scores, name)
				r := rates(truths, tp, fp, 30)
				if p.Note == "" && (truths > 0 && p.Recall != r[0] || tp+fp > 0 && p.Precision != r[1]) {
					t.Fatalf("seed %d, %s of %s: claims %+v, and %d of %d truths are found, %d false", seed, ask, name,
						p, tp, truths, fp)
				}
				switch {
				case p.Note != "":
				case ask.Precision != nil && p.Precision < *ask.Precision, ask.Recall != nil && p.Recall < *ask.Recall:
					t.Fatalf("seed %d, %s of %s: %+v", seed, ask, name, p)
				}
			}
			if ask.BestF1 {
				best, err := m.BestF1(.5)
				if err != nil {
					t.Fatal(err)
				}
				for _, want := range best {
					if got := points[want.Name]; want.F1 > 0 && (got.Precision != want.Precision ||
						got.Recall != want.Recall || got.Score > want.Score) {
						t.Fatalf("seed %d: best F1 of %s is %+v, got %+v", seed, want.Name, want, got)
					}
				}
			}
		}
	}
}

// Another score would keep less of what is asked for.
func TestPointsAreTheBest(t *testing.T) {
	truth, detections := single(1, .9, .8, .7, .6)
	m := match(t, truth, detections)
	name := truth.Categories[0].Name
	point := func(ask delivery.Threshold) delivery.OperatingPoint {
		return m.Points(delivery.Thresholds{name: ask})[name]
	}
	if p := point(delivery.Threshold{Recall: share(0.1)}); p.Score <= .8 || p.Score > .9 {
		t.Errorf("the highest score with that recall: %+v", p)
	}
	if len(m.Points(delivery.Thresholds{"another": {BestF1: true}})) != 0 {
		t.Error("a point that nobody asked for")
	}
	none := match(t, truth, nil)
	if p := none.Points(delivery.Thresholds{name: {BestF1: true}})[name]; p.Note == "" || p.Score != unknownScore {
		t.Errorf("nothing detected: %+v", p)
	}
}

func TestThresholdSplits(t *testing.T) {
	for _, c := range []cut{{score: 1, next: 0}, {score: .5, next: .4999999999},
		{score: .5, next: math.Nextafter(.5, 0)}, {score: 1e-9, next: 0}, {score: .25, next: .2}} {
		if got := c.threshold(); got > c.score || got <= c.next {
			t.Errorf("%+v: %v does not part them", c, got)
		}
	}
}

// Drawing an image twice counts as having it twice, and the values are those of
// plain counting.
func TestOperateEqualsCounting(t *testing.T) {
	for seed := range uint64(10) {
		truth, detections := random(seed, 25, 3, true)
		m := match(t, truth, detections)
		scores := map[string]float64{}
		for i, c := range truth.Categories {
			scores[c.Name] = 0.2 + 0.2*float64(i)
		}
		estimates := estimatesAt(t, AtThresholds{m, scores}, CompareParams{Resamples: 200})
		seen := 0
		for _, e := range estimates {
			truths, tp, fp := counted(t, truth, detections, scores, e.Class)
			for j, v := range rates(truths, tp, fp, 25) {
				if atThresholds[j] == e.Metric {
					seen++
					if v != e.Value {
						t.Errorf("seed %d: %s of %q is %v, want %v", seed, e.Metric, e.Class, e.Value, v)
					}
				}
			}
			if lower, upper := e.Bounds(.95); lower > e.Value+.1 || upper < e.Value-.1 || lower > upper {
				t.Errorf("seed %d: %s of %q: %v in %v to %v", seed, e.Metric, e.Class, e.Value, lower, upper)
			}
		}
		if seen < 9 {
			t.Errorf("seed %d: only %d figures", seed, seen)
		}
		for _, d := range differencesAt(t, AtThresholds{m, scores}, AtThresholds{m, scores},
			CompareParams{Resamples: 50}) {
			if d.Diff != 0 || d.Lower != 0 || d.Upper != 0 {
				t.Errorf("the same model twice: %+v", d)
			}
		}
	}
}

// rates are the metrics of counts, in the order of atThresholds; -1 where there is nothing to measure.
func rates(truths, tp, fp, images int64) [4]float64 {
	out := [4]float64{-1, -1, -1, -1}
	if truths > 0 {
		out[0] = float64(tp) / float64(truths)
	}
	if tp+fp > 0 {
		out[1] = float64(tp) / float64(tp+fp)
	}
	if images > 0 {
		out[2] = float64(fp) / float64(images)
	}
	if all := tp + fp + truths; all > 0 {
		out[3] = 2 * float64(tp) / float64(all)
	}
	return out
}
