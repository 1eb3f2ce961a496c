package gate

// This file judges a candidate against a baseline: the release, or a fixed version.

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A baseline is what a check compares the candidate with.
type baseline struct {
	name    string   // release, fp32, or pallets@12
	over    []string // the classes that both have, if the check is about more
	compare *delivery.CompareResult
	scores  *delivery.ScoreSet // its own
}

// baseline returns what a check compares with, or the outcome and the reason if there is nothing to compare.
func (in Input) baseline(c delivery.GateCheck) (b baseline, outcome delivery.Outcome, why delivery.Fact) {
	b.name = cmp.Or(c.Against, "release")
	same, with := in.SameBundle, in.Baseline
	b.compare = in.Compare
	if anchored(c) {
		a, known := in.Anchors[c.Against]
		switch {
		case !known && c.Against == delivery.FP32: // the candidate is FP32 itself
			return b, delivery.NotApplicable, b.is(code.IsBaseline)
		case !known:
			return b, delivery.Unsure, b.is(code.NotCompared)
		case !a.Missing.IsZero():
			return b, delivery.Fail, a.Missing
		}
		same, with, b.compare = a.SameBundle, &a.Measured, a.Compare
	}
	switch {
	case same:
		return b, delivery.Pass, b.is(code.IsBaseline)
	case with == nil:
		return b, delivery.NotApplicable, b.is(code.NoBaseline)
	case with.Scores.Protocol != in.Candidate.Scores.Protocol:
		return b, delivery.Fail, b.is(code.OtherProtocol)
	case b.compare == nil:
		return b, delivery.Unsure, b.is(code.NotCompared)
	case delivery.MetricOfFigure(c.Metric).AtThreshold && !with.Scores.AtThreshold():
		return b, delivery.NotApplicable, b.is(code.BaselineNoThresholds)
	}
	b.scores = &with.Scores
	return b, "", delivery.Fact{}
}

// anchored reports whether a check compares with a bundle in Input.Anchors.
func anchored(c delivery.GateCheck) bool {
	return c.Against == delivery.FP32 || strings.Contains(c.Against, "@")
}

// is returns a fact about the baseline.
func (b baseline) is(c delivery.Code) delivery.Fact {
	return fact(c, delivery.Values{FromModel: b.name})
}

// lacks reports whether the baseline, if there is one, does not have a class.
func (b baseline) lacks(class string) bool {
	if b.scores == nil {
		return false
	}
	_, has := b.scores.Truths[class]
	return !has
}

// shared returns the classes that both models have, or nil if both have all of them.
func (b baseline) shared(classes []string) []string {
	both := slices.DeleteFunc(slices.Clone(classes), b.lacks)
	if len(both) == len(classes) {
		return nil
	}
	return both
}

// drops judges differences against maxDrop. There are two families of hypotheses: that a class has dropped too far, and
// that it has not.
func drops(c delivery.GateCheck, limit float64, base baseline, figures []figure, known []int) {
	alpha := 1 - float64(c.Confidence)
	lowAt := make([]float64, len(figures))
	coco.Holm(alpha, known, func(i int) float64 { return 1 - figures[i].samples.Below(limit) },
		func(i int, confidence float64) bool {
			lowAt[i] = confidence
			low, _ := figures[i].samples.Bounds(confidence)
			return low >= limit && figures[i].samples.Resolves(confidence)
		})
	coco.Holm(alpha, known, func(i int) float64 { return figures[i].samples.Below(limit) },
		func(i int, confidence float64) bool {
			drop(c, base, &figures[i], limit, lowAt[i], confidence)
			return figures[i].verdict.Outcome == delivery.Fail
		})
}

// drop judges one difference by its lower bound at one confidence and its upper bound at another.
func drop(c delivery.GateCheck, base baseline, f *figure, limit, lowAt, highAt float64) {
	low, _ := f.samples.Bounds(lowAt)
	_, high := f.samples.Bounds(highAt)
	v := &f.verdict
	v.Low, v.High = &low, &high
	v.Confidence = lowAt
	values := delivery.Values{Metric: c.Metric, Class: f.class, Value: *v.Value, Baseline: *v.Baseline, Diff: f.value,
		FromModel: base.name, Low: low, High: high, Bound: limit, Confidence: lowAt}
	if f.class == "" {
		values.Names = base.over
	}
	resolved := f.samples.Resolves(lowAt)
	switch {
	case low >= limit && resolved:
		f.decide(delivery.Pass, code.DropAllowed, values)
		return
	case high < limit && f.samples.Resolves(highAt):
		values.Confidence, v.Confidence = highAt, highAt
		f.decide(delivery.Fail, code.DropFound, values)
	default:
		values.Confidence = min(lowAt, highAt)
		if !resolved || !f.samples.Resolves(highAt) {
			values.Facts = []delivery.Fact{unresolved(f.samples, max(lowAt, highAt))}
		} else {
			var why delivery.Fact
			why, v.Settle = settle((high-low)/2, math.Abs(f.value-limit), base.compare.Images)
			values.Facts = []delivery.Fact{why}
		}
		f.decide(delivery.Unsure, code.DropUnsure, values)
	}
	if f.value < 0 {
		if e := errorOf(base.compare, f.classes); e.Error != "" {
			v.Because = append(v.Because, fact(code.ErrorShare, e))
		}
	}
}

// lost lists the figures in which the candidate is significantly worse than the release: over all classes of the gate,
// and class by class, adjusted for their number.
func lost(c *delivery.CompareResult, classes []string) []delivery.Loss {
	type subject struct {
		metric, class string
		classes       []string
		diff          delivery.Difference
		samples       delivery.Samples // of diff, negated if less is better
	}
	var whole, each []subject
	for _, m := range delivery.Metrics() {
		if m.Name == delivery.MetricMAP || m.AtThreshold && !m.OnDemand {
			whole = append(whole, subject{metric: m.Name, classes: classes})
		}
	}
	for _, class := range classes {
		each = append(each, subject{metric: delivery.MetricAP, class: class, classes: []string{class}})
	}
	var list []delivery.Loss
	for _, family := range [][]subject{whole, each} {
		var known []int
		for i := range family {
			s := &family[i]
			if s.diff, _ = c.Compared(s.metric, s.classes); len(s.diff.Samples) == 0 {
				continue
			}
			if n, known := c.Candidate.Units(s.metric, s.classes); s.class != "" && known && n < coco.MinUnits {
				continue
			}
			if s.samples = s.diff.Samples; delivery.MetricOfFigure(s.metric).LessIsBetter {
				s.samples = negated(s.samples)
			}
			known = append(known, i)
		}
		coco.Holm(0.05, known, func(i int) float64 { return family[i].samples.Below(0) },
			func(i int, confidence float64) bool {
				s := family[i]
				_, best := s.samples.Bounds(confidence)
				if best >= 0 || !s.samples.Resolves(confidence) {
					return false
				}
				l := delivery.Loss{Metric: s.metric, Class: s.class, Value: s.diff.Candidate, Baseline: s.diff.Baseline,
					Diff: s.diff.Value, AtBest: best}
				m := delivery.MetricOfFigure(s.metric)
				if m.LessIsBetter {
					l.AtBest = -best
				}
				if m.Column == delivery.MetricAP {
					e := errorOf(c, s.classes)
					l.Error, l.ErrorClass, l.ErrorAP50, l.Errors = e.Error, e.Class, e.Diff, e.Count
				}
				list = append(list, l)
				return true
			})
	}
	return list
}

// negated returns the samples of the opposite figure.
func negated(s delivery.Samples) delivery.Samples {
	out := make(delivery.Samples, len(s))
	for i, v := range s {
		out[len(s)-1-i] = -v
	}
	return out
}

// errorOf returns the type of detection error (see TIDE) that explains most of a drop of AP50, its class, and how many
// more errors of it there are.
func errorOf(c *delivery.CompareResult, classes []string) delivery.Values {
	d, ok := c.Compared(delivery.MetricAP50, classes)
	worst, of := delivery.ErrorShift{}, ""
	for _, name := range classes {
		for _, s := range c.Shifts[name] {
			if s.AP50 > worst.AP50 {
				worst, of = s, name
			}
		}
	}
	if !ok || d.Value >= 0 || worst.Type == "" {
		return delivery.Values{}
	}
	v := delivery.Values{Error: worst.Type, Class: of, Diff: d.Value}
	if worst.Type == "Miss" && worst.Count > 0 {
		v.Count = worst.Count
	}
	return v
}
