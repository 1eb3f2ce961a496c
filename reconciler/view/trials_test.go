package view

import (
	"maps"
	"testing"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// More of it is better, of all but false positives.
func TestCompared(t *testing.T) {
	c := delivery.CompareResult{Images: 40, Classes: []string{"box"}, Metrics: map[string]delivery.Difference{}}
	for _, metric := range []string{"mAP", "AP75", "recall", "falsePositivesPerImage"} {
		c.Metrics[metric] = delivery.Difference{Candidate: 0.6, Baseline: 0.5, Value: 0.1, Resamples: spread(0.1)}
	}
	got := map[string]coco.Answer{}
	for _, row := range compared(c) {
		got[row.Metric] = row.Answer
	}
	want := map[string]coco.Answer{"mAP": coco.Better, "AP75": coco.Better, "recall": coco.Better,
		"falsePositivesPerImage": coco.Worse}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// spread returns samples around a value.
func spread(v float64) delivery.Samples {
	s := make(delivery.Samples, 201)
	for i := range s {
		s[i] = v + float64(i-100)*0.00005
	}
	return s
}
