package coco

import (
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Result holds the scores of one model on one ground truth.
type Result struct {
	Stats      Stats         `json:"stats"`
	PerClass   []ClassResult `json:"per_class"` // by category id, all of the ground truth's
	Images     int           `json:"images"`
	Detections int           `json:"detections"` // with at least the score floor
	Protocol   Protocol      `json:"protocol"`
	Digest     string        `json:"protocol_digest"` // of Protocol
}

// Stats are COCO's twelve numbers, from 0 to 1, or -1 for no value. AP is the mean precision at 101 recalls, over
// classes and the IoU thresholds .50, .55, … .95. AR is the mean of the highest recall. The suffixes 50 and 75 are the
// IoU threshold; s, m and l objects of up to 32², up to 96² and more square pixels; 1, 10 and 100 the limits on
// detections of a class in an image, whatever Params.MaxDets is.
type Stats struct {
	AP    float64 `json:"AP"`
	AP50  float64 `json:"AP50"`
	AP75  float64 `json:"AP75"`
	APs   float64 `json:"APs"`
	APm   float64 `json:"APm"`
	APl   float64 `json:"APl"`
	AR1   float64 `json:"AR1"`
	AR10  float64 `json:"AR10"`
	AR100 float64 `json:"AR100"`
	ARs   float64 `json:"ARs"`
	ARm   float64 `json:"ARm"`
	ARl   float64 `json:"ARl"`
}

// ClassResult holds the scores of one class, as Stats does for all of them.
type ClassResult struct {
	CategoryID int64   `json:"category_id"`
	Name       string  `json:"name"`
	AP         float64 `json:"AP"`
	AP50       float64 `json:"AP50"`
	AP75       float64 `json:"AP75"`
	AR100      float64 `json:"AR100"`
	Truths     int     `json:"truths"` // annotations, without crowds
}

const at50, at75 = 0, 5 // indexes of the IoU thresholds .50 and .75

// Result computes the scores.
func (m *Matched) Result() *Result {
	r := &Result{
		PerClass: make([]ClassResult, len(m.classes)), Images: len(m.images), Detections: m.used,
		Protocol: m.protocol, Digest: m.protocol.Digest(),
	}
	last := len(m.params.MaxDets) - 1
	var precision, recall [areas]table
	for a := range areas {
		precision[a], recall[a] = newTable(recalls, len(m.classes)), newTable(1, len(m.classes))
	}
	recall1, recall10 := newTable(1, len(m.classes)), newTable(1, len(m.classes))
	headline := &precision[0]
	headlineAt := last
	if m.params.Mode == Strict {
		headlineAt = slices.Index(m.params.MaxDets[:], 100)
		if headlineAt >= 0 && headlineAt != last {
			t := newTable(recalls, len(m.classes))
			headline = &t
		}
	}
	inParallel(len(m.classes), func() func(int) {
		var w sweep
		var all pass
		return func(k int) {
			c := &m.classes[k]
			all.walk(c.dets, m.params.MaxDets)
			for a := range areas {
				if c.truths[a] == 0 {
					continue
				}
				recallCounts(c.truths[a], &w.need)
				for t := range thresholds {
					curve := &all.curves[a*thresholds+t]
					curve.interpolate(&w.need, &w.q)
					precision[a].setAll(t, k, &w.q)
					recall[a].set(t, 0, k, float64(curve.total())/float64(c.truths[a]))
					if a == 0 {
						recall1.set(t, 0, k, float64(all.found[0][t])/float64(c.truths[a]))
						recall10.set(t, 0, k, float64(all.found[1][t])/float64(c.truths[a]))
					}
				}
			}
			if headline != &precision[0] && c.truths[0] > 0 {
				recallCounts(c.truths[0], &w.need)
				for t := range thresholds {
					w.curve.walk(c.dets, bit(0, t), 100)
					w.curve.interpolate(&w.need, &w.q)
					headline.setAll(t, k, &w.q)
				}
			}
			r.PerClass[k] = ClassResult{
				CategoryID: m.category[k].ID, Name: m.category[k].Name, Truths: c.truths[0],
				AP: precision[0].class(k, 0, thresholds), AP50: precision[0].class(k, at50, at50+1),
				AP75: precision[0].class(k, at75, at75+1), AR100: recall[0].class(k, 0, thresholds),
			}
		}
	})
	r.Stats = Stats{
		AP50: precision[0].mean(at50, at50+1), AP75: precision[0].mean(at75, at75+1),
		APs: precision[1].mean(0, thresholds), APm: precision[2].mean(0, thresholds),
		APl: precision[3].mean(0, thresholds),
		AR1: recall1.mean(0, thresholds), AR10: recall10.mean(0, thresholds), AR100: recall[0].mean(0, thresholds),
		ARs: recall[1].mean(0, thresholds), ARm: recall[2].mean(0, thresholds), ARl: recall[3].mean(0, thresholds),
	}
	r.Stats.AP = -1
	if headlineAt >= 0 {
		r.Stats.AP = headline.mean(0, thresholds)
	}
	return r
}

// A table has a value for each threshold, recall and class. The class varies fastest, which is the summation order of
// pycocotools.
type table struct {
	recalls, classes int
	cells            []float64 // -1: no value
}

func newTable(recalls, classes int) table {
	t := table{recalls: recalls, classes: classes, cells: make([]float64, thresholds*recalls*classes)}
	for i := range t.cells {
		t.cells[i] = -1
	}
	return t
}

func (t *table) set(threshold, recall, class int, v float64) {
	t.cells[(threshold*t.recalls+recall)*t.classes+class] = v
}

func (t *table) setAll(threshold, class int, q *[recalls]float64) {
	for r, v := range q {
		t.set(threshold, r, class, v)
	}
}

// mean averages the cells of some thresholds over those that are not -1.
func (t *table) mean(from, to int) float64 {
	return mean(t.cells[from*t.recalls*t.classes : to*t.recalls*t.classes])
}

// class averages the cells of some thresholds of one class.
func (t *table) class(class, from, to int) float64 {
	values := make([]float64, 0, (to-from)*t.recalls)
	for i := from * t.recalls; i < to*t.recalls; i++ {
		values = append(values, t.cells[i*t.classes+class])
	}
	return mean(values)
}

// mean averages the values that are not -1; -1 if there are none.
func mean(values []float64) float64 {
	kept := make([]float64, 0, len(values))
	for _, v := range values {
		if v > -1 {
			kept = append(kept, v)
		}
	}
	if len(kept) == 0 {
		return -1
	}
	return delivery.PairwiseSum(kept) / float64(len(kept))
}
