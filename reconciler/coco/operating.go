package coco

// This file measures what a model does where it is used: with a score threshold
// for each class, at an IoU of .5.

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/autonomos/aob/reconciler/delivery"
)

// An AtThresholds is a model with score thresholds by class name: a detection
// counts from its class's score on. A class without one has no detections.
type AtThresholds struct {
	*Matched
	Scores map[string]float64
}

// unknownScore is the threshold of a class of which the split says nothing.
const unknownScore = 0.5

// Points finds the thresholds that are asked for, by class name. Of a class that
// nothing is asked for there is none. Where what is asked for cannot be had, a
// point says so and is on the safe side: of precisions the highest, of recalls
// the highest.
//
// Detections of a class are kept from a score on, those of equal score together.
// The threshold lies halfway to the next lower score, so that the same ones are
// kept where a machine computes a little differently.
func (m *Matched) Points(ask delivery.Thresholds) map[string]delivery.OperatingPoint {
	points := map[string]delivery.OperatingPoint{}
	for k := range m.classes {
		name := m.category[k].Name
		if t, ok := ask.For(name); ok {
			points[name] = m.classes[k].point(t)
		}
	}
	return points
}

// A cut keeps some detections of a class, the surest ones.
type cut struct {
	tp, n int64
	score float64 // of the last that is kept
	next  float64 // of the first that is not; below it nothing
}

// cuts goes through the ways to cut a class's detections, the strictest first.
func (c *class) cuts(yield func(cut) bool) {
	b := bit(0, at50)
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

func (c *class) point(t delivery.Threshold) delivery.OperatingPoint {
	truths := int64(c.truths[0])
	var best cut
	found := false
	note := ""
	better := func(with func(a, b cut) bool) {
		for at := range c.cuts {
			if !found || with(at, best) {
				best, found = at, true
			}
		}
	}
	switch {
	case t.Score != nil:
		for at := range c.cuts {
			if at.score >= *t.Score {
				best, found = at, true
			}
		}
	case truths == 0 && t.Precision == nil:
	case t.Precision != nil:
		for at := range c.cuts {
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
		for at := range c.cuts {
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

// threshold is a score that makes this cut: six digits where those tell the two
// detections apart.
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

// The metrics at thresholds.
const (
	metricRecall    = "recall"
	metricPrecision = "precision"
	metricFalse     = "falsePositivesPerImage"
	metricF1        = "F1"
)

var operating = [...]string{metricRecall, metricPrecision, metricFalse, metricF1}

// IntervalAt measures recall, precision, false positives per image and F1 at a model's
// thresholds: over all classes, every truth and detection counting alike, and for
// each class. What there is none of is left out: recall without truths, precision
// without detections.
func IntervalAt(a AtThresholds, params CompareParams) ([]Estimate, error) {
	r, err := newResampling(a.Matched, params)
	if err != nil {
		return nil, err
	}
	var out []Estimate
	for _, f := range r.operate(a) {
		if f.figure.value < 0 {
			continue
		}
		if e := estimate(f.Subject, f.figure, r.params.Confidence); len(e.Samples) > 0 {
			out = append(out, e)
		}
	}
	return out, nil
}

// CompareAt does so for two models on the same images, each at its own thresholds.
func CompareAt(a, b AtThresholds, params CompareParams) ([]Difference, error) {
	if a.protocol != b.protocol {
		return nil, fmt.Errorf("coco: the two models were scored in different ways: %+v and %+v", a.protocol,
			b.protocol)
	}
	r, err := newResampling(a.Matched, params)
	if err != nil {
		return nil, err
	}
	of, with := r.operate(a), r.operate(b)
	var out []Difference
	for i := range of {
		fa, fb := of[i].figure, with[i].figure
		if fa.value < 0 || fb.value < 0 {
			continue
		}
		for s := range fa.samples { // one may have no detection where the other has
			if fb.samples[s] < 0 {
				fa.samples[s] = -1
			}
		}
		if d := difference(of[i].Subject, fa, fb, r.params.Confidence); len(d.Samples) > 0 {
			out = append(out, d)
		}
	}
	return out, nil
}

// An operated is one figure at thresholds.
type operated struct {
	Subject
	figure
}

// tally is what one class has in one image.
type tally struct{ image, truths, tp, fp int32 }

// operate measures the chosen images and every resample of them.
func (r *resampling) operate(a AtThresholds) []operated {
	classes := append(append([]int(nil), r.classes...), r.empty...) // a class without truths has false positives too
	tallies := make([][]tally, len(classes))
	out := make([]operated, 0, len(operating)*(len(classes)+1))
	for _, metric := range operating {
		s := r.all(metric)
		out = append(out, operated{Subject: s})
	}
	for i, k := range classes {
		tallies[i] = a.tallies(k, r.chosen)
		for _, metric := range operating {
			s := r.class(k)
			s.Metric = metric
			out = append(out, operated{Subject: s})
		}
	}
	record := func(put func(f *figure, v float64), weights []int32, images int64) {
		var truths, tp, fp int64
		for i, list := range tallies {
			var t, found, wrong int64
			for _, v := range list {
				w := int64(weights[v.image])
				t, found, wrong = t+w*int64(v.truths), found+w*int64(v.tp), wrong+w*int64(v.fp)
			}
			truths, tp, fp = truths+t, tp+found, fp+wrong
			at := len(operating) * (i + 1)
			for j, v := range rates(t, found, wrong, images) {
				put(&out[at+j].figure, v)
			}
		}
		for j, v := range rates(truths, tp, fp, images) {
			put(&out[j].figure, v)
		}
	}
	record(func(f *figure, v float64) { f.value = v }, r.chosen, int64(r.images))
	source := rand.NewPCG(r.params.Seed, drawStream)
	weights := make([]int32, len(r.m.images))
	for range r.params.Resamples {
		r.draw(source, weights)
		images := int64(0)
		for _, w := range weights {
			images += int64(w)
		}
		record(func(f *figure, v float64) { f.samples = append(f.samples, v) }, weights, images)
	}
	return out
}

// rates are the metrics of counts, in the order of operating; -1 where there is
// nothing to measure.
func rates(truths, tp, fp, images int64) [len(operating)]float64 {
	out := [len(operating)]float64{-1, -1, -1, -1}
	if truths > 0 {
		out[0] = float64(tp) / float64(truths)
	}
	if tp+fp > 0 {
		out[1] = float64(tp) / float64(tp+fp)
	}
	if images > 0 {
		out[2] = float64(fp) / float64(images)
	}
	if all := tp + fp + truths; all > 0 { // the harmonic mean of the first two, and 0 where nothing is right
		out[3] = 2 * float64(tp) / float64(all)
	}
	return out
}

// tallies counts a class by image, in the order of images.
func (a AtThresholds) tallies(k int, chosen []int32) []tally {
	c, b := &a.classes[k], bit(0, at50)
	score, ok := a.Scores[a.category[k].Name]
	counts := make([]tally, len(chosen))
	for _, p := range c.places {
		counts[p.image].truths += p.truths
	}
	for i := range c.dets {
		d := &c.dets[i]
		if !ok || d.score < score {
			break // the rest is less sure
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
		if chosen[i] > 0 && t != (tally{}) {
			t.image = int32(i)
			out = append(out, t)
		}
	}
	return out
}
