package view

import (
	"maps"
	"testing"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// More of it is better, of all but false positives.
func TestCompared(t *testing.T) {
	row := func(v float64) []delivery.Row {
		r := delivery.Row{Value: v, Resamples: make([]float64, 201)}
		for i := range r.Resamples {
			r.Resamples[i] = v * (1 + float64(i-100)*0.0005)
		}
		return []delivery.Row{r}
	}
	classes := []string{"box"}
	a := delivery.Table{Classes: classes, Images: delivery.Row{Value: 40}, Columns: map[string][]delivery.Row{
		"AP": row(0.6), "AP75": row(0.6), "truths": row(100), "found": row(60), "false": row(30)}}
	b := delivery.Table{Classes: classes, Images: delivery.Row{Value: 40}, Columns: map[string][]delivery.Row{
		"AP": row(0.5), "AP75": row(0.5), "truths": row(100), "found": row(50), "false": row(10)}}
	c := delivery.CompareResult{Images: 40, Classes: classes, Candidate: a.Values(), Baseline: b.Values(),
		Difference: a.Minus(b)}
	got := map[string]coco.Answer{}
	for _, row := range compared(c) {
		got[row.Metric] = row.Answer
	}
	want := map[string]coco.Answer{"mAP": coco.Better, "AP75": coco.Better, "AP": coco.Better,
		"recall": coco.Better, "precision": coco.Worse, "falsePositivesPerImage": coco.Worse, "F1": coco.Better}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	// Objects in one image tell nothing of a class.
	c.Candidate.Columns["AP"][0].Units = 1
	if rows := compared(c); rows[len(rows)-1].Answer != coco.TooFew {
		t.Errorf("a class in one image: %s", rows[len(rows)-1].Answer)
	}
}
