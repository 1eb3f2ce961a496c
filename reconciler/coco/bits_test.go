package coco

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Figures of one class and of all classes, and their samples, stay what they were to the last bit when how they are
// computed changes. The digests were written before resamples were kept as tables.
func TestFiguresAreBitEqual(t *testing.T) {
	for seed, want := range bitDigests {
		truth, detections := random(uint64(seed), 40, 4, true)
		other := make([]Detection, len(detections))
		for i, d := range detections {
			d.Box.X += float64(i%7) - 3
			d.Score = math.Mod(d.Score+float64(i%5)*0.13, 1)
			other[i] = d
		}
		scores := map[string]float64{}
		for i, c := range truth.Categories {
			scores[c.Name] = 0.15 + 0.2*float64(i)
		}
		a, b := match(t, truth, detections), match(t, truth, other)
		params := CompareParams{Resamples: 200, Seed: uint64(seed + 1)}
		h := sha256.New()
		put := func(name string, samples []float64, values ...float64) {
			h.Write([]byte(name))
			for _, v := range append(values, samples...) {
				binary.Write(h, binary.LittleEndian, math.Float64bits(v))
			}
		}
		c := whole(a, compare(t, a, b, params))
		for _, d := range append([]WholeDifference{c.MAP, c.AP50, c.AP75}, c.Classes...) {
			put(d.Metric+"/"+d.Class, d.Samples, d.A, d.B, d.Diff, d.Lower, d.Upper, d.StdErr)
		}
		for _, e := range []Estimate{c.A, c.B} {
			put(e.Metric, e.Samples, e.Value, e.Lower, e.Upper)
		}
		table, sampling, err := Interval(a, params)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range estimates(a, table, sampling) {
			put(e.Metric+"/"+e.Class, e.Samples, e.Value, e.Lower, e.Upper, e.StdErr)
		}
		for _, e := range estimatesAt(t, AtThresholds{a, scores}, params) {
			put(e.Metric+"/"+e.Class, e.Samples, e.Value, e.Lower, e.Upper)
		}
		for _, d := range differencesAt(t, AtThresholds{a, scores}, AtThresholds{b, scores}, params) {
			put(d.Metric+"/"+d.Class, d.Samples, d.A, d.B, d.Diff, d.Lower, d.Upper)
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != want {
			t.Errorf("seed %d: %q, want %q", seed, got, want)
		}
	}
}

var bitDigests = []string{
	"6625217ebb6a7e92c52a0d7666d9043fd5dbcde10cd0ab94e4cc43abd80395e3",
	"91d656c3dcff7da1ceefcb58b56a2fee1f67645d349239797d1aafb2a110a3c6",
	"e5f6632abbdac3aa8c439a668b9eca50228df4c09da991f6658bd26c38ae9a3e",
	"07826b5e4d980077395d02e996711f47ba8fa6627d5e1c866cdcb38328c7024a",
	"ba8587c408f9bc569258fa0311f8fd64427b627bc4e2c33332279d8a154d57c0",
	"f0c3c383c1c15747501bdfdc4748f14b9e6f10b7bc92f42a301e654e9163b6eb",
	"2da33561692de9671c9af39623d3db89d512e03218ec7ea828fca49b5bb1fb23",
	"770d776625cd9d2cf7e8e5b1d903f9161a7c08dc3fa958e40ebd530d96058454",
}

var atThresholds = []string{delivery.MetricRecall, delivery.MetricPrecision, delivery.MetricFalsePositives,
	delivery.MetricF1}

// figuresAt calls visit with each figure at thresholds: over all classes, and of each class.
func (r *resampling) figuresAt(visit func(s Subject, over []int)) {
	classes := append(append([]int(nil), r.classes...), r.empty...)
	for i := range len(classes) + 1 {
		for _, metric := range atThresholds {
			s, over := r.all(metric), classes
			if i > 0 {
				s, over = r.class(classes[i-1]), classes[i-1:i]
				s.Metric = metric
			}
			visit(s, over)
		}
	}
}

// differencesAt compares two models at their thresholds.
func differencesAt(t *testing.T, a, b AtThresholds, params CompareParams) (list []WholeDifference) {
	r, of := countsAt(t, a, params)
	_, with := countsAt(t, b, params)
	r.figuresAt(func(s Subject, over []int) {
		if d := r.wholeDifference(s, over, of, with); len(d.Samples) > 0 {
			list = append(list, d)
		}
	})
	return list
}

// estimatesAt measures one model at its thresholds.
func estimatesAt(t *testing.T, a AtThresholds, params CompareParams) (list []Estimate) {
	r, table := countsAt(t, a, params)
	r.figuresAt(func(s Subject, over []int) {
		if e := r.estimate(s, over, table); len(e.Samples) > 0 {
			list = append(list, e)
		}
	})
	return list
}

func countsAt(t *testing.T, a AtThresholds, params CompareParams) (*resampling, delivery.Table) {
	t.Helper()
	r, err := newResampling(a.Matched, params)
	if err != nil {
		t.Fatal(err)
	}
	table, err := a.Counts(params)
	if err != nil {
		t.Fatal(err)
	}
	return r, table
}
