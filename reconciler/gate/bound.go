package gate

// This file holds values to bounds: floors and ceilings of one model.

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// floors judges values against min.
func floors(c delivery.GateCheck, in Input, figures []figure, known []int) {
	limit := *c.Min
	coco.Holm(1-float64(c.Confidence), known, func(i int) float64 { return below(figures[i].samples, limit) },
		func(i int, confidence float64) bool {
			f := &figures[i]
			bound(f, confidence)
			high := f.verdict.High
			name := label(c.Metric, f.class)
			kept, scale, added := in.kept(f)
			over := "without " + strings.Join(added, ", ") + ", which the gate has not asked for"
			switch {
			case f.value >= limit && kept >= limit:
				f.verdict.Outcome, f.verdict.Reason = delivery.Pass, fmt.Sprintf("%s %.4f >= %s", name, f.value,
					num(limit))
			case high != nil && *high < limit && f.samples.Resolves(confidence):
				f.verdict.Outcome = delivery.Fail
				f.verdict.Reason = fmt.Sprintf("%s %.4f < %s (at most %.4f, %s, %d images)", name, f.value, num(limit),
					*high, sure(confidence), in.Candidate.Scores.Images)
			case high != nil && kept+(*high-f.value)*scale < limit && f.samples.Resolves(confidence):
				f.verdict.Outcome = delivery.Fail
				f.verdict.Reason = fmt.Sprintf("%s %.4f, but %.4f < %s %s (at most %.4f, %s, %d images)", name, f.value,
					kept, num(limit), over, kept+(*high-f.value)*scale, sure(confidence), in.Candidate.Scores.Images)
			case f.value >= limit:
				f.verdict.Outcome = delivery.Unsure
				f.verdict.Reason = fmt.Sprintf("%s %.4f >= %s, but %.4f %s", name, f.value, num(limit), kept, over)
			default:
				f.verdict.Outcome = delivery.Unsure
				f.verdict.Reason = fmt.Sprintf("%s %.4f < %s, but %d images cannot rule out that it reaches it", name,
					f.value, num(limit), in.Candidate.Scores.Images)
				f.doubt("at most", high, limit, in.Candidate.Scores.Images, confidence)
				if kept < f.value {
					f.verdict.Reason += fmt.Sprintf("; %.4f %s", kept, over)
				}
			}
			return f.verdict.Outcome == delivery.Fail
		})
}

// unasked lists of classes those that the gate has not asked for.
func (in Input) unasked(classes []string) []string {
	var list []string
	for _, class := range classes {
		if in.Asked != nil && !slices.Contains(in.Asked, class) {
			list = append(list, class)
		}
	}
	return list
}

// kept is a figure over the classes that the gate has asked for, and what there is
// besides: an easy class lifts a mean or a share, and makes no model better. Its
// bounds lie at most scale times as far away as those over all classes: so much if
// nothing were doubtful about what is added. A figure of one class is itself.
func (in Input) kept(f *figure) (value, scale float64, added []string) {
	s := in.Candidate.Scores
	if added = in.unasked(s.Classes); !overClasses(f.metric) || len(added) == 0 {
		return f.value, 1, nil
	}
	get := func(metric string) (float64, bool) { v, ok := s.Values[metric]; return v, ok }
	value, of := over(f.metric, without(s.Classes, added), get, s.Truths, s.Images)
	_, all := over(f.metric, s.Classes, get, s.Truths, s.Images)
	return value, all / max(of, 1e-9), added
}

// overClasses reports whether a metric, as scores name it, is a mean or a share over
// classes.
func overClasses(metric string) bool {
	m := delivery.MetricOfFigure(metric)
	return m.Name == metric && m.Unit == delivery.UnitShare && (m.Of == delivery.OfClasses || m.Of == delivery.OfEither)
}

func without(classes, some []string) []string {
	return slices.DeleteFunc(slices.Clone(classes), func(class string) bool { return slices.Contains(some, class) })
}

// over computes a metric over classes from those of each, and how much they weigh: by
// number for a mean, by truths for recall, by what is found for precision.
func over(metric string, classes []string, get func(metric string) (float64, bool), truths map[string]int, images int) (
	value, weight float64) {
	sum := 0.0
	for _, class := range classes {
		v, ok := get(strings.TrimPrefix(metric, "m") + "/" + class)
		w := 1.0
		found, _ := get(delivery.MetricRecall + "/" + class)
		found *= float64(truths[class])
		switch {
		case metric == delivery.MetricPrecision: // of all that is found, also where none of it is right
			false_, _ := get(delivery.MetricFalsePositives + "/" + class)
			if w = found + false_*float64(images); w > 0 {
				v = found / w
			}
		case metric == delivery.MetricF1: // of all that is found or there
			false_, _ := get(delivery.MetricFalsePositives + "/" + class)
			hits, _ := get(delivery.MetricRecall + "/" + class)
			hits *= float64(truths[class])
			if w = hits + false_*float64(images) + float64(truths[class]); w > 0 {
				v = 2 * hits / w
			}
		case !ok:
			continue
		case metric == delivery.MetricRecall:
			w = float64(truths[class])
		}
		sum, weight = sum+v*w, weight+w
	}
	if weight == 0 {
		return 0, 0
	}
	return sum / weight, weight
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
			bound(f, confidence)
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
func bound(f *figure, confidence float64) {
	if len(f.samples) > 0 {
		low, high := Range(f.metric, f.samples, confidence)
		f.verdict.Low, f.verdict.High, f.verdict.Confidence = &low, &high, confidence
	}
}

// Range gives the one-sided bounds of a metric's value, within what the metric can
// be: no AP is below 0 or above 1.
func Range(metric string, s delivery.Samples, confidence float64) (low, high float64) {
	low, high = s.Bounds(confidence)
	if delivery.MetricOfFigure(metric).Unit == delivery.UnitShare {
		high = min(high, 1)
	}
	return max(low, 0), high
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
