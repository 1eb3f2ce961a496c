package coco

import (
	"fmt"
	"slices"
)

// ClassCurves are one class's precision–recall curves, for objects of all sizes and the last limit on detections. They
// are pycocotools' arrays precision[:, :, k, 0, -1] and scores[:, :, k, 0, -1].
type ClassCurves struct {
	CategoryID int64   `json:"category_id"`
	Name       string  `json:"name"`
	Truths     int     `json:"truths"`
	Curves     []Curve `json:"curves"` // by IoU threshold, .50 to .95; none without annotations
}

// Curve is a precision-recall curve at the 101 recalls 0, .01, … 1.
type Curve struct {
	IoU float64 `json:"iou"`
	// the highest precision at that recall or a higher one; 0 if the recall is not reached
	Precision [recalls]float64 `json:"precision"`
	Scores    [recalls]float64 `json:"scores"` // of the detection that reaches the recall; 0 if none does
}

// Curves returns the precision–recall curves of every class, by category id.
func (m *Matched) Curves() []ClassCurves {
	out := make([]ClassCurves, len(m.classes))
	limit := m.params.MaxDets[len(m.params.MaxDets)-1]
	inParallel(len(m.classes), func() func(int) {
		var w sweep
		return func(k int) {
			c := &m.classes[k]
			out[k] = ClassCurves{CategoryID: m.category[k].ID, Name: m.category[k].Name, Truths: c.truths[0],
				Curves: []Curve{}}
			if c.truths[0] == 0 {
				return
			}
			recallCounts(c.truths[0], &w.need)
			for t := range thresholds {
				w.curve.walk(c.dets, bit(0, t), limit)
				v := Curve{IoU: iouThresholds[t]}
				w.curve.interpolate(&w.need, &v.Precision)
				w.curve.scores(c.dets, &w.need, &v.Scores)
				out[k].Curves = append(out[k].Curves, v)
			}
		}
	})
	return out
}

// scores sets q to the score at which each recall is reached; need is recallCounts of the annotations.
func (c *curve) scores(dets []verdict, need *[recalls]int32, q *[recalls]float64) {
	clear(q[:])
	if len(dets) == 0 {
		return
	}
	i := 0
	for r, want := range need {
		if want == 0 { // reached by the first detection, whatever it is
			q[r] = dets[0].score
			continue
		}
		for i < len(c.tp) && c.tp[i] < want {
			i++
		}
		if i == len(c.tp) {
			return
		}
		q[r] = dets[c.at[i]].score
	}
}

// OperatingPoint is the precision and recall of one class at a score threshold.
type OperatingPoint struct {
	CategoryID int64  `json:"category_id"`
	Name       string `json:"name"`
	// F1 is the harmonic mean of precision and recall. It is -1 for a class without annotations and 0 for one without
	// true positives; the fields below are then not used.
	F1        float64 `json:"F1"`
	Score     float64 `json:"score"` // the threshold; detections with this score are kept
	Precision float64 `json:"precision"`
	Recall    float64 `json:"recall"`
	Found     int     `json:"found"` // true detections kept
	Kept      int     `json:"kept"`  // true and false ones
	Truths    int     `json:"truths"`
}

// BestF1 returns, for every class by category id, the score threshold with the best F1 at an IoU threshold, one of .50,
// .55, … .95; the highest of equally good ones. Detections of equal score are kept or dropped together.
func (m *Matched) BestF1(iou float64) ([]OperatingPoint, error) {
	t := slices.IndexFunc(iouThresholds[:], func(v float64) bool { return v-iou < 1e-9 && iou-v < 1e-9 })
	if t < 0 {
		return nil, fmt.Errorf("coco: IoU threshold: want one of .50, .55, … .95, got %v", iou)
	}
	out := make([]OperatingPoint, len(m.classes))
	for k := range m.classes {
		c := &m.classes[k]
		out[k] = c.bestF1(bit(0, t))
		out[k].CategoryID, out[k].Name = m.category[k].ID, m.category[k].Name
	}
	return out, nil
}

func (c *class) bestF1(b uint64) OperatingPoint {
	truths := int64(c.truths[0])
	best := OperatingPoint{F1: -1, Truths: c.truths[0]}
	if truths == 0 {
		return best
	}
	best.F1 = 0
	var bestTP, bestN int64
	for at := range c.cuts(b) {
		// F1 is 2 tp / (n + truths); as fractions the comparison is exact.
		if at.tp*(bestN+truths) > bestTP*(at.n+truths) {
			bestTP, bestN, best.Score = at.tp, at.n, at.score
		}
	}
	if bestTP > 0 {
		best.F1 = float64(2*bestTP) / float64(bestN+truths)
		best.Precision, best.Recall = float64(bestTP)/float64(bestN), float64(bestTP)/float64(truths)
		best.Found, best.Kept = int(bestTP), int(bestN)
	}
	return best
}
