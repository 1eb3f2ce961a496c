package gate

// This file holds values to bounds: floors and ceilings of one model.

import (
	"math"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// floors judges values against min.
func floors(c delivery.GateCheck, in Input, figures []figure, known []int) {
	limit := *c.Min
	coco.Holm(1-float64(c.Confidence), known, func(i int) float64 { return figures[i].samples.Below(limit) },
		func(i int, confidence float64) bool {
			f := &figures[i]
			bound(c, f, confidence)
			high := f.verdict.High
			says := f.says(c, limit, in.Candidate.Scores.Images)
			switch {
			case f.value >= limit:
				f.decide(delivery.Pass, code.CheckReached, says)
			case high != nil && *high < limit && f.samples.Resolves(confidence):
				f.decide(delivery.Fail, code.CheckBelow, says)
			default:
				says.Facts = f.doubt(high, limit, in.Candidate.Scores.Images, confidence)
				f.decide(delivery.Unsure, code.CheckMaybeReached, says)
			}
			return f.verdict.Outcome == delivery.Fail
		})
}

// ceilings judges values against max, where less is better.
func ceilings(c delivery.GateCheck, in Input, figures []figure, known []int) {
	limit, err := c.Max.Number()
	if err != nil { // the parser lets none through
		for i := range figures {
			figures[i].decide(delivery.Fail, code.BoundInvalid, delivery.Values{Text: err.Error()})
		}
		return
	}
	coco.Holm(1-float64(c.Confidence), known, func(i int) float64 { return 1 - figures[i].samples.Below(limit) },
		func(i int, confidence float64) bool {
			f := &figures[i]
			bound(c, f, confidence)
			f.verdict.Limit = &limit
			low := f.verdict.Low
			says := f.says(c, limit, in.Candidate.Scores.Images)
			switch {
			case f.value <= limit:
				f.decide(delivery.Pass, code.CheckWithin, says)
			case low != nil && *low > limit && f.samples.Resolves(confidence):
				f.decide(delivery.Fail, code.CheckAbove, says)
			default:
				says.Facts = f.doubt(low, limit, in.Candidate.Scores.Images, confidence)
				f.decide(delivery.Unsure, code.CheckMaybeWithin, says)
			}
			return f.verdict.Outcome == delivery.Fail
		})
}

// bound notes a figure's one-sided bounds.
func bound(c delivery.GateCheck, f *figure, confidence float64) {
	if len(f.samples) > 0 {
		low, high := delivery.MetricOfFigure(c.Metric).Bound(f.samples, confidence)
		f.verdict.Low, f.verdict.High, f.verdict.Confidence = &low, &high, confidence
	}
}

// says are the values of a figure that is held to a bound.
func (f *figure) says(c delivery.GateCheck, limit float64, images int) delivery.Values {
	v := delivery.Values{Metric: c.Metric, Class: f.class, Value: f.value, Bound: limit, Images: images,
		Confidence: f.verdict.Confidence}
	if f.verdict.Low != nil && f.verdict.High != nil {
		v.Low, v.High = *f.verdict.Low, *f.verdict.High
	}
	return v
}

// decide notes the answer about a figure, and why.
func (f *figure) decide(outcome delivery.Outcome, c delivery.Code, v delivery.Values) {
	f.verdict.Outcome, f.verdict.Because = outcome, []delivery.Fact{{Code: c, Values: v}}
}

// doubt is the bound that leaves a figure open, and what would settle it.
func (f *figure) doubt(end *float64, limit float64, images int, confidence float64) []delivery.Fact {
	if end == nil {
		return nil
	}
	if !f.samples.Resolves(confidence) {
		return []delivery.Fact{unresolved(f.samples, confidence)}
	}
	var fact delivery.Fact
	fact, f.verdict.Settle = settle(math.Abs(*end-f.value), math.Abs(f.value-limit), images)
	return []delivery.Fact{fact}
}

// settle says how many images would decide, as the half-width of an interval
// falls with the square root of their number.
func settle(half, distance float64, images int) (fact delivery.Fact, need int) {
	fact = delivery.Fact{Code: code.HalfWidth, Values: delivery.Values{Diff: half}}
	if distance <= 0 || half <= distance {
		return fact, 0
	}
	n := float64(images) * (half / distance) * (half / distance)
	if n > 1e6 {
		fact.Code = code.HardlySettles
		return fact, 0
	}
	need = int(math.Ceil(n))
	fact.Code, fact.Count = code.Settles, need
	return fact, need
}
