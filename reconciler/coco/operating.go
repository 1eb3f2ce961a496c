package coco

// This file measures a model with a score threshold for each class, at an IoU of .5.

import (
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
)

// AtThresholds is a model with score thresholds by class name. A detection counts if its score is at least its class's
// threshold. A class without a threshold has no detections.
type AtThresholds struct {
	*Matched
	Scores map[string]float64
}

// unknownScore is the threshold of a class without annotations or detections.
const unknownScore = 0.5

// Points finds the thresholds that are asked for, by class name. If a precision or a recall cannot be reached, the
// point has the highest one and a note.
//
// Detections of equal score are kept or dropped together. A threshold lies halfway to the next lower score, so that the
// same detections are kept on a machine with slightly different scores.
func (m *Matched) Points(wanted delivery.Thresholds) map[string]delivery.OperatingPoint {
	points := map[string]delivery.OperatingPoint{}
	for k := range m.classes {
		name := m.category[k].Name
		if t, ok := wanted.For(name); ok {
			points[name] = m.classes[k].point(t)
		}
	}
	return points
}

// A cut keeps the detections of a class with the highest scores.
type cut struct {
	tp, n int64
	score float64 // of the last one that is kept
	next  float64 // of the first one that is dropped; 0 if none is
}

// cuts returns the ways to cut a class's detections, from the fewest to the most. b is the bit of the IoU threshold.
func (c *class) cuts(b uint64) iter.Seq[cut] {
	return func(yield func(cut) bool) {
		var at cut
		for i := range c.dets {
			d := &c.dets[i]
			if d.aside&b == 0 {
				at.n++
				if d.found&b != 0 {
					at.tp++
				}
			}
			at.score, at.next = d.score, 0
			if i+1 < len(c.dets) {
				if at.next = c.dets[i+1].score; at.next == at.score {
					continue
				}
			}
			if at.n > 0 && !yield(at) {
				return
			}
		}
	}
}

func (c *class) point(t delivery.Threshold) delivery.OperatingPoint {
	truths, cuts := int64(c.truths[0]), c.cuts(bit(0, at50))
	var best cut
	found := false
	note := ""
	better := func(with func(a, b cut) bool) {
		for at := range cuts {
			if !found || with(at, best) {
				best, found = at, true
			}
		}
	}
	switch {
	case t.Score != nil:
		for at := range cuts {
			if at.score >= *t.Score {
				best, found = at, true
			}
		}
	case truths == 0 && t.Precision == nil:
	case t.Precision != nil:
		for at := range cuts {
			if float64(at.tp) >= float64(*t.Precision*float64(at.n)) {
				best, found = at, true
			}
		}
		if !found || best.tp == 0 {
			found = false
			better(func(a, b cut) bool { return a.tp*b.n > b.tp*a.n })
			note = fmt.Sprintf("no score reaches a precision of %g", *t.Precision)
		}
	case t.Recall != nil:
		for at := range cuts {
			if float64(at.tp) >= float64(*t.Recall*float64(truths)) {
				best, found = at, true
				break
			}
		}
		if !found {
			better(func(a, b cut) bool { return true })
			note = fmt.Sprintf("no score reaches a recall of %g", *t.Recall)
		}
	default: // F1 is 2 tp / (n + truths); as fractions the comparison is exact
		better(func(a, b cut) bool { return a.tp*(b.n+truths) > b.tp*(a.n+truths) })
	}
	p := delivery.OperatingPoint{Score: best.threshold(), Truths: c.truths[0], Note: note}
	switch {
	case t.Score != nil:
		p.Score = *t.Score
	case truths == 0:
		p.Score, p.Note = unknownScore, "the validation split has no truth of this class"
	case !found:
		p.Score, p.Note = unknownScore, "nothing of this class is detected on the validation split"
	}
	if best.n > 0 {
		p.Precision = float64(best.tp) / float64(best.n)
	}
	if truths > 0 {
		p.Recall = float64(best.tp) / float64(truths)
	}
	return p
}

// threshold returns a score between the last detection that is kept and the first that is dropped, with six digits if
// that is precise enough.
func (c cut) threshold() float64 {
	half := c.next + float64((c.score-c.next)/2)
	if short := math.Floor(half*1e6) / 1e6; short > c.next {
		return short
	}
	if half <= c.next {
		return c.score
	}
	return half
}

// A tally has the counts of one class in one image.
type tally struct{ image, truths, tp, fp int32 }

// Counts counts annotations, true positives and false positives at a model's thresholds, for each class, on the images
// and on each resample of them. The draws are those of [Interval] and [Compare] with the same parameters.
func (a AtThresholds) Counts(params CompareParams) (delivery.Table, error) {
	r, err := newResampling(a.Matched, params)
	if err != nil {
		return delivery.Table{}, err
	}
	n := r.params.Resamples
	out := delivery.Table{Columns: map[string][]delivery.Row{}}
	names := []string{delivery.ColumnTruths, delivery.ColumnFound, delivery.ColumnFalse}
	for _, name := range names {
		out.Columns[name] = make([]delivery.Row, len(a.category))
	}
	out.Classes = delivery.Each(a.category, func(c Category) string { return c.Name })
	// A class without annotations may have false positives.
	classes := slices.Sorted(slices.Values(slices.Concat(r.classes, r.empty)))
	tallies := make([][]tally, len(classes))
	for i, k := range classes {
		tallies[i] = a.tallies(k)
		for _, name := range names {
			out.Columns[name][k].Resamples = make([]float64, n)
		}
	}
	count := func(put func(row *delivery.Row, v float64), weights []int32) {
		for i, list := range tallies {
			var sums [3]int64
			for _, v := range list {
				w := int64(weights[v.image])
				sums[0], sums[1], sums[2] = sums[0]+w*int64(v.truths), sums[1]+w*int64(v.tp), sums[2]+w*int64(v.fp)
			}
			for j, name := range names {
				put(&out.Columns[name][classes[i]], float64(sums[j]))
			}
		}
	}
	count(func(row *delivery.Row, v float64) { row.Value = v }, r.once)
	out.Images = delivery.Row{Value: float64(len(a.images))}
	if r.params.ByGroup {
		out.Images.Resamples = make([]float64, n)
	}
	source := rand.NewPCG(r.params.Seed, drawStream)
	weights := make([]int32, len(r.m.images))
	for i := range n {
		r.draw(source, weights)
		if r.params.ByGroup {
			for _, w := range weights {
				out.Images.Resamples[i] += float64(w)
			}
		}
		count(func(row *delivery.Row, v float64) { row.Resamples[i] = v }, weights)
	}
	return out, nil
}

// tallies counts a class by image, in the order of images.
func (a AtThresholds) tallies(k int) []tally {
	c, b := &a.classes[k], bit(0, at50)
	score, ok := a.Scores[a.category[k].Name]
	counts := make([]tally, len(a.images))
	for _, p := range c.places {
		counts[p.image].truths += p.truths[0]
	}
	for i := range c.dets {
		d := &c.dets[i]
		if !ok || d.score < score {
			break // scores are descending
		}
		switch {
		case d.aside&b != 0:
		case d.found&b != 0:
			counts[d.image].tp++
		default:
			counts[d.image].fp++
		}
	}
	var out []tally
	for i, t := range counts {
		if t != (tally{}) {
			t.image = int32(i)
			out = append(out, t)
		}
	}
	return out
}
