package gate

// This file judges the values of one model against min and max.

import (
	"math"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// bounds judges values against min or max.
func bounds(c delivery.GateCheck, limit float64, images int, figures []figure, known []int) {
	atMost := c.Max != nil
	reached, missed, maybe := code.CheckReached, code.CheckBelow, code.CheckMaybeReached
	if atMost {
		reached, missed, maybe = code.CheckWithin, code.CheckAbove, code.CheckMaybeWithin
	}
	missing := func(i int) float64 { // the share of samples that miss the limit
		below := figures[i].samples.Below(limit)
		if atMost {
			return 1 - below
		}
		return below
	}
	coco.Holm(1-float64(c.Confidence), known, missing, func(i int, confidence float64) bool {
		f := &figures[i]
		f.verdict.Limit = &limit
		if len(f.samples) > 0 {
			low, high := delivery.MetricOfFigure(c.Metric).Bound(f.samples, confidence)
			f.verdict.Low, f.verdict.High, f.verdict.Confidence = &low, &high, confidence
		}
		passes, end := f.value >= limit, f.verdict.High
		fails := end != nil && *end < limit
		if atMost {
			passes, end = f.value <= limit, f.verdict.Low
			fails = end != nil && *end > limit
		}
		values := f.values(c, limit, images)
		switch {
		case passes:
			f.decide(delivery.Pass, reached, values)
		case fails && f.samples.Resolves(confidence):
			f.decide(delivery.Fail, missed, values)
		default:
			values.Facts = f.whyUnsure(end, limit, images, confidence)
			f.decide(delivery.Unsure, maybe, values)
		}
		return f.verdict.Outcome == delivery.Fail
	})
}

// values returns the values of the facts about a figure.
func (f *figure) values(c delivery.GateCheck, limit float64, images int) delivery.Values {
	v := delivery.Values{Metric: c.Metric, Class: f.class, Value: f.value, Bound: limit, Images: images,
		Confidence: f.verdict.Confidence}
	if f.verdict.Low != nil && f.verdict.High != nil {
		v.Low, v.High = *f.verdict.Low, *f.verdict.High
	}
	return v
}

// decide sets the outcome of a figure and the reason.
func (f *figure) decide(outcome delivery.Outcome, c delivery.Code, v delivery.Values) {
	f.verdict.Outcome, f.verdict.Because = outcome, []delivery.Fact{{Code: c, Values: v}}
}

// whyUnsure says why a figure is unsure although it has samples, and how many images would settle it. end is its bound
// on the side of the limit.
func (f *figure) whyUnsure(end *float64, limit float64, images int, confidence float64) []delivery.Fact {
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

// settle estimates how many images would settle an unsure result: the half-width of an interval falls with the square
// root of their number.
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
