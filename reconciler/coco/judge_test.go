package coco

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// differs is a difference with n samples, of which so many are below zero.
func differs(class int64, truths, n, below int) Difference {
	d := Difference{Subject: Subject{Metric: "AP", CategoryID: class, Class: fmt.Sprint(class), Truths: truths}}
	for i := range n {
		d.Samples = append(d.Samples, float64(i-below)+.5)
	}
	return d
}

func TestJudge(t *testing.T) {
	tests := map[string]struct {
		classes    []Difference
		confidence float64
		units      int
		want       []Answer
		reason     string // of the first
	}{
		"alone, all above":       {[]Difference{differs(1, 100, 999, 0)}, .95, 100, []Answer{Better}, ""},
		"alone, all below":       {[]Difference{differs(1, 100, 999, 999)}, .95, 100, []Answer{Worse}, ""},
		"alone, at the edge":     {[]Difference{differs(1, 100, 999, 49)}, .95, 100, []Answer{Better}, ""},
		"alone, beyond the edge": {[]Difference{differs(1, 100, 999, 50)}, .95, 100, []Answer{Unsure}, ""},
		"in the middle":          {[]Difference{differs(1, 100, 999, 500)}, .95, 100, []Answer{Unsure}, ""},
		"two, each alone would do": {[]Difference{differs(1, 100, 999, 49), differs(2, 100, 999, 49)}, .95, 100,
			[]Answer{Unsure, Unsure}, ""},
		"two, the second step is lax": {[]Difference{differs(1, 100, 999, 24), differs(2, 100, 999, 49)}, .95, 100,
			[]Answer{Better, Better}, ""},
		"two, one each way": {[]Difference{differs(1, 100, 999, 24), differs(2, 100, 999, 975)}, .95, 100,
			[]Answer{Better, Worse}, ""},
		"few truths are no burden": {[]Difference{differs(1, 49, 999, 0), differs(2, 50, 999, 49)}, .95, 100,
			[]Answer{TooFew, Better}, "49 truths, want 50"},
		"few images":    {[]Difference{differs(1, 100, 999, 0)}, .95, 19, []Answer{Unsure}, "19 images, want 20"},
		"few resamples": {[]Difference{differs(1, 100, 999, 0)}, .9995, 100, []Answer{Unsure}, "want 2001 resamples"},
		"none":          {[]Difference{differs(1, 100, 0, 0)}, .95, 100, []Answer{Unsure}, "no resample had a truth"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := &Comparison{MAP: differs(0, 100, 999, 0), AP50: differs(0, 100, 999, 999), Classes: test.classes,
				Sampling: Sampling{Confidence: test.confidence, Units: test.units, Resamples: 999}}
			f := c.Judge(50)
			var got []Answer
			for _, v := range f.Classes {
				got = append(got, v.Answer)
			}
			if !slices.Equal(got, test.want) || !strings.HasPrefix(f.Classes[0].Reason, test.reason) ||
				(test.reason == "") != (f.Classes[0].Reason == "") {
				t.Errorf("got %v (%s), want %v (%s)", got, f.Classes[0].Reason, test.want, test.reason)
			}
			if test.units >= MinUnits && test.confidence < .999 && (f.MAP.Answer != Better || f.AP50.Answer != Worse) {
				t.Errorf("got mAP %s, AP50 %s", f.MAP.Answer, f.AP50.Answer)
			}
		})
	}
}

// Ten classes of equal models: each bound is wide enough for all of them.
func TestJudgeAdjusts(t *testing.T) {
	var list []Difference
	for i := range int64(10) {
		list = append(list, differs(i, 100, 1999, 1000))
	}
	c := &Comparison{MAP: list[0], AP50: list[0], Classes: list, Sampling: Sampling{Confidence: .95, Units: 50,
		Resamples: 1999}}
	for _, v := range c.Judge(1).Classes {
		if v.LowerAt != 1-(1-.95)/10 || v.UpperAt != v.LowerAt || v.Lower != list[0].Samples[9] ||
			v.Upper != list[0].Samples[1989] {
			t.Errorf("got %+v", v)
		}
	}
}

func TestJudgeNamesTheUnmeasured(t *testing.T) {
	truth, detections := single(1, .5)
	m := match(t, truth, detections)
	f := compare(t, m, m, CompareParams{Resamples: 10}).Judge(5)
	want := []Finding{
		{Subject: f.Classes[0].Subject, A: f.Classes[0].A, B: f.Classes[0].A, LowerAt: .95, UpperAt: .95,
			Answer: TooFew, Reason: "1 truth, want 5"},
		{Subject: Subject{Metric: "AP", CategoryID: 2, Class: "b"}, A: -1, B: -1, Answer: TooFew,
			Reason: "0 truths, want 5"},
	}
	if !reflect.DeepEqual(f.Classes, want) {
		t.Errorf("got %+v, want %+v", f.Classes, want)
	}
	c := &Comparison{Unmeasured: []Subject{{CategoryID: 1, Truths: 7}}, Sampling: Sampling{Confidence: .95, Units: 19,
		ByGroup: true}, MAP: differs(0, 7, 999, 0)}
	if g := c.Judge(5); g.Classes[0].Answer != Unsure || g.Classes[0].Reason != noTruthDrawn ||
		g.MAP.Reason != "19 groups, want 20" {
		t.Errorf("got %+v", g)
	}
	if f.MAP.Answer != Unsure || f.MAP.Reason != "1 images, want 20" {
		t.Errorf("got %+v", f.MAP)
	}
}

func TestJudgeSameModel(t *testing.T) {
	truth, detections := random(3, 60, 5, false)
	m := match(t, truth, detections)
	f := compare(t, m, m, CompareParams{}).Judge(1)
	for _, v := range append(f.Classes, f.MAP, f.AP50) {
		if v.Answer != Unsure || v.Reason != "" {
			t.Errorf("%s %s: got %s %s", v.Metric, v.Class, v.Answer, v.Reason)
		}
	}
	f = compare(t, m, match(t, truth, worse(detections)), CompareParams{}).Judge(1)
	if f.MAP.Answer != Better {
		t.Errorf("got %+v", f.MAP)
	}
}

func TestResamplesFor(t *testing.T) {
	for _, test := range []struct {
		classes    int
		confidence float64
		want       int
	}{{0, .95, 1000}, {1, .95, 1000}, {50, .95, 1000}, {51, .95, 1020}, {80, .95, 1600}, {1, .9999, 10000},
		{365, .95, 7300}, {1e6, .99, maxResamples}} {
		got := ResamplesFor(test.classes, test.confidence)
		if got != test.want {
			t.Errorf("%d classes at %v: got %d, want %d", test.classes, test.confidence, got, test.want)
		}
		s := Difference{Samples: make([]float64, got)}
		if at := 1 - (1-test.confidence)/float64(max(test.classes, 1)); !s.Resolves(at) && got < maxResamples {
			t.Errorf("%d samples do not reach %v", got, at)
		}
	}
}

func TestHolm(t *testing.T) {
	// P values .001, .02, .03 and .2 at a level of .05: the first is below .05/4,
	// the second is not below .05/3, and the rest is not tested more laxly.
	p := []float64{.03, .001, .2, .02}
	var rejected []int
	at := map[int]float64{}
	Holm(.05, []int{0, 1, 2, 3}, func(i int) float64 { return -p[i] }, func(i int, confidence float64) bool {
		at[i] = confidence
		if p[i] <= 1-confidence {
			rejected = append(rejected, i)
			return true
		}
		return false
	})
	third := .05 / 3 // a variable: constants would be exact
	if !slices.Equal(rejected, []int{1}) || at[1] != 1-.05/4 || at[3] != 1-third || at[0] != at[3] || at[2] != at[3] {
		t.Errorf("rejected %v, at %v", rejected, at)
	}
}
