package delivery

import (
	"slices"
	"testing"
)

func ptr(v float64) *float64 { return &v }

func TestOneInterval(t *testing.T) {
	bounded := func(v float64) Figure { return Figure{Value: v, Low: ptr(v - 0.1), High: ptr(v + 0.1)} }
	list := []Measured{{Metrics: map[string]Figure{"mAP": bounded(0.5), "AP50": bounded(0.7), "AP75": bounded(0.4),
		"AP/cat": bounded(0.6), "AP/dog": bounded(0.3), "recall": bounded(0.8)}}}
	verdicts := []Verdict{{Checks: []CheckVerdict{
		{Metric: "mAP", Value: ptr(0.50004), Low: ptr(0.4), High: ptr(0.6)},
		{Metric: "AP", Class: "cat", Value: ptr(0.6), Low: ptr(0.4), High: ptr(0.8)},
		{Metric: "AP50", Value: ptr(0.7), Diff: ptr(0.1), Low: ptr(0), High: ptr(0.2)}, // bounds of a difference
		{Metric: "AP75", Value: ptr(0.45), Low: ptr(0.4), High: ptr(0.5)},              // over fewer classes
		{Metric: "recall", Value: ptr(0.8)},                                            // too few images for bounds
	}}}
	for name, f := range OneInterval(list, verdicts)[0].Metrics {
		if got, want := f.Low != nil && f.High != nil, name != "mAP" && name != "AP/cat"; got != want {
			t.Errorf("%s: bounds are shown: %t, want %t", name, got, want)
		}
		if list[0].Metrics[name].Low == nil {
			t.Errorf("%s: the input was changed", name)
		}
	}
}

func TestOtherLosses(t *testing.T) {
	v := Verdict{
		Checks: []CheckVerdict{
			{Metric: "mAP", Diff: ptr(-0.1), Outcome: Unsure},
			{Metric: "AP", Class: "cat", Diff: ptr(-0.1), Outcome: Pass},
			{Metric: "AP", Class: "dog", Outcome: Fail}, // a floor
		},
		Lost: []Loss{{Metric: "mAP"}, {Metric: "AP", Class: "cat"}, {Metric: "AP", Class: "dog"}},
	}
	if got := v.OtherLosses(); !slices.Equal(got, v.Lost[1:]) {
		t.Errorf("got %v, want %v", got, v.Lost[1:])
	}
	// With one class, mAP is the AP of that class, so the check of mAP says it already.
	v = Verdict{Classes: []string{"cat"}, Checks: []CheckVerdict{{Metric: "mAP", Diff: ptr(-0.1), Outcome: Fail}},
		Lost: []Loss{{Metric: "AP", Class: "cat"}, {Metric: "mAP"}, {Metric: "AP50"}}}
	if got := v.OtherLosses(); !slices.Equal(got, v.Lost[2:]) {
		t.Errorf("of one class: got %v, want %v", got, v.Lost[2:])
	}
	v.Classes = []string{"cat", "dog"}
	if got := v.OtherLosses(); len(got) != 2 {
		t.Errorf("of two classes: got %v", got)
	}
}
