package plan

import (
	"math"
	"strconv"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A figure is what a reader of the release file gets, to the last bit: the file
// is compared with the evidence that it was written from.
func TestRoundedFiguresSurviveTheFile(t *testing.T) {
	for _, v := range []float64{0, math.Copysign(0, -1), -1e-5, 4.9e-5, 0.20673313792923007, 1, 0.99999, -0.00015} {
		got := round(v)
		text := strconv.FormatFloat(got, 'f', 4, 64)
		if text == "-0.0000" {
			t.Errorf("round(%v) keeps the sign of zero", v)
		}
		if read, err := strconv.ParseFloat(text, 64); err != nil || read != got {
			t.Errorf("round(%v) is %v, and %v when it is read back", v, got, read)
		}
	}
}

// A release file has one interval of each number: the check's, where a check bounds it.
func TestReleaseFileHasOneInterval(t *testing.T) {
	half, drop, low, high := 0.5, -0.1, -0.15, -0.05
	resamples := make([]float64, 1000)
	for i := range resamples {
		resamples[i] = float64(i) / 1000
	}
	row := func(v float64) []delivery.Row { return []delivery.Row{{Value: v, Resamples: resamples}} }
	j := judgement{label: "production", verdict: delivery.Verdict{Outcome: delivery.Pass,
		Checks: []delivery.CheckVerdict{
			{Check: "mAP >= 0.3", Metric: "mAP", Outcome: delivery.Pass, Value: &half, Low: &half, High: &half},
			{Check: "AP drop <= 0.2", Metric: "AP", Class: "cat", Outcome: delivery.Pass, Value: &half, Diff: &drop,
				Low: &low, High: &high},
		},
		Lost: []delivery.Loss{{Metric: "AP", Class: "cat", Diff: drop, AtBest: -0.04}}}}
	j.gate.Classes = []string{"cat"}
	j.score.Scores = delivery.ScoreSet{Classes: []string{"cat"}, Table: delivery.Table{Classes: []string{"cat"},
		Columns: map[string][]delivery.Row{"AP": row(0.5), "AP50": row(0.7)}}}
	r := &progress{ModelReport: ModelReport{Model: "pets"}}
	m := (&maker{}).releaseFile(r, []judgement{j}).Measured[0]
	if f := m.Metrics["mAP"]; f.Value != 0.5 || f.Low != nil || f.High != nil {
		t.Errorf("mAP has the bounds %v, %v beside its check's", f.Low, f.High)
	}
	if f := m.Metrics["AP50"]; f.Low == nil || f.High == nil {
		t.Errorf("AP50, which no check bounds, has no bounds: %+v", f)
	}
	if c := m.Checks[1]; c.Low == nil || c.High != nil {
		t.Errorf("the check of the drop of cat has the bounds %v, %v beside the loss's", c.Low, c.High)
	}
}
