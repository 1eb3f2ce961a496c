package gate

// This file holds values to bounds: floors and ceilings of one model.

import (
	"fmt"
	"math"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// floors judges values against min.
func floors(c delivery.GateCheck, in Input, figures []figure, known []int) {
	limit := *c.Min
	coco.Holm(1-float64(c.Confidence), known, func(i int) float64 { return below(figures[i].samples, limit) },
		func(i int, confidence float64) bool {
			f := &figures[i]
			bound(c, f, confidence)
			high := f.verdict.High
			name := label(c.Metric, f.class)
			switch {
			case f.value >= limit:
				f.verdict.Outcome, f.verdict.Reason = delivery.Pass, fmt.Sprintf("%s %.4f >= %s", name, f.value,
					num(limit))
			case high != nil && *high < limit && f.samples.Resolves(confidence):
				f.verdict.Outcome = delivery.Fail
				f.verdict.Reason = fmt.Sprintf("%s %.4f < %s (at most %.4f, %s, %d images)", name, f.value, num(limit),
					*high, sure(confidence), in.Candidate.Scores.Images)
			default:
				f.verdict.Outcome = delivery.Unsure
				f.verdict.Reason = fmt.Sprintf("%s %.4f < %s, but %d images cannot rule out that it reaches it", name,
					f.value, num(limit), in.Candidate.Scores.Images)
				f.doubt("at most", high, limit, in.Candidate.Scores.Images, confidence)
			}
			return f.verdict.Outcome == delivery.Fail
		})
}

// ceilings judges values against max, where less is better.
func ceilings(c delivery.GateCheck, in Input, figures []figure, known []int) {
	limit, err := c.Max.Number()
	if err != nil { // the parser lets none through
		for i := range figures {
			figures[i].verdict.Outcome, figures[i].verdict.Reason = delivery.Fail, err.Error()
		}
		return
	}
	coco.Holm(1-float64(c.Confidence), known, func(i int) float64 { return 1 - below(figures[i].samples, limit) },
		func(i int, confidence float64) bool {
			f := &figures[i]
			bound(c, f, confidence)
			f.verdict.Limit = &limit
			low := f.verdict.Low
			name := label(c.Metric, f.class)
			switch {
			case f.value <= limit:
				f.verdict.Outcome, f.verdict.Reason = delivery.Pass, fmt.Sprintf("%s %.4f <= %s", name, f.value,
					num(limit))
			case low != nil && *low > limit && f.samples.Resolves(confidence):
				f.verdict.Outcome = delivery.Fail
				f.verdict.Reason = fmt.Sprintf("%s %.4f > %s (at least %.4f, %s, %d images)", name, f.value, num(limit),
					*low, sure(confidence), in.Candidate.Scores.Images)
			default:
				f.verdict.Outcome = delivery.Unsure
				f.verdict.Reason = fmt.Sprintf("%s %.4f > %s, but %d images cannot rule out that it is as low", name,
					f.value, num(limit), in.Candidate.Scores.Images)
				f.doubt("at least", low, limit, in.Candidate.Scores.Images, confidence)
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

// doubt adds to an unsure figure's reason the bound that leaves it open, and what
// would settle it.
func (f *figure) doubt(side string, end *float64, limit float64, images int, confidence float64) {
	if end == nil {
		return
	}
	f.verdict.Reason += fmt.Sprintf(": %s %.4f, %s", side, *end, sure(confidence))
	if !f.samples.Resolves(confidence) {
		f.verdict.Reason += " (" + unresolved(f.samples, confidence) + ")"
		return
	}
	var text string
	text, f.verdict.Settle = settle(math.Abs(*end-f.value), math.Abs(f.value-limit), images)
	f.verdict.Reason += text
}

// settle says how many images would decide, as the half-width of an interval
// falls with the square root of their number.
func settle(half, distance float64, images int) (text string, need int) {
	if distance <= 0 || half <= distance {
		return fmt.Sprintf(" (±%.4f)", half), 0
	}
	n := float64(images) * (half / distance) * (half / distance)
	if n > 1e6 {
		return fmt.Sprintf(" (±%.4f; more images would hardly settle it)", half), 0
	}
	need = int(math.Ceil(n))
	return fmt.Sprintf(" (±%.4f; about %d images in all would settle it)", half, need), need
}
