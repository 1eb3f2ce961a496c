package coco

import "math"

// A sweep has the buffers of a pass over one class's detections.
type sweep struct {
	curve curve
	need  [recalls]int32
	q     [recalls]float64
}

// recallCounts sets need to the number of true positives that each of the 101 recalls needs.
func recallCounts(truths int, need *[recalls]int32) {
	of := float64(truths)
	for r, want := range recallThresholds {
		k := math.Ceil(want * of)
		for k > 0 && (k-1)/of >= want {
			k--
		}
		for k/of < want {
			k++
		}
		need[r] = int32(k)
	}
}

// A curve is a precision–recall curve at its true positives. Between them precision only falls, so interpolation needs
// no other points.
type curve struct {
	tp []int32 // true positives so far
	n  []int32 // true and false positives so far
	at []int32 // index of the detection
}

func (c *curve) reset() { c.tp, c.n, c.at = c.tp[:0], c.n[:0], c.at[:0] }

func (c *curve) total() int32 {
	if len(c.tp) == 0 {
		return 0
	}
	return c.tp[len(c.tp)-1]
}

// walk computes the curve of one area range and threshold, whose bit is b.
func (c *curve) walk(dets []verdict, b uint64, maxDets int) {
	c.reset()
	var tp, n int32
	for i := range dets {
		d := &dets[i]
		if d.aside&b != 0 || int(d.rank) >= maxDets {
			continue
		}
		n++
		if d.found&b != 0 {
			tp++
			c.tp, c.n, c.at = append(c.tp, tp), append(c.n, n), append(c.at, int32(i))
		}
	}
}

// interpolate sets q to the highest precision at each recall or a higher one. need is recallCounts of the annotations.
func (c *curve) interpolate(need *[recalls]int32, q *[recalls]float64) {
	r := recalls - 1
	for total := c.total(); r >= 0 && need[r] > total; r-- {
		q[r] = 0
	}
	// Precisions are compared as fractions, which is exact.
	bestTP, bestN := int64(0), int64(1)
	for i := len(c.tp) - 1; i >= 0 && r >= 0; i-- {
		if tp, n := int64(c.tp[i]), int64(c.n[i]); tp*bestN > bestTP*n {
			bestTP, bestN = tp, n
		}
		before := int32(0)
		if i > 0 {
			before = c.tp[i-1]
		}
		for ; r >= 0 && need[r] > before; r-- {
			q[r] = ratio(bestTP, bestN)
		}
	}
	for ; r >= 0; r-- {
		q[r] = ratio(bestTP, bestN)
	}
}

// ratio returns a precision. pycocotools adds the spacing of 1 to the divisor, which has an effect if n is 1.
func ratio(tp, n int64) float64 { return float64(tp) / (float64(n) + 0x1p-52) }

// A pass computes the curves of all area ranges and thresholds at once. It reuses its buffers.
type pass struct {
	curves [areas * thresholds]curve
	found  [2][thresholds]int32 // true positives within the first and the second limit on detections
}

// walk goes through one class's detections. Most of them match nothing and are ignored at all thresholds or at none.
// Those are counted once for an area range.
func (p *pass) walk(dets []verdict, limits [3]int) {
	for b := range p.curves {
		p.curves[b].reset()
	}
	p.found = [2][thresholds]int32{}
	var alike [areas]int32
	var tp, n [areas * thresholds]int32
	for i := range dets {
		d := &dets[i]
		if d.found == 0 && wholeAreas(d.aside) {
			for a := range areas {
				if d.aside&bit(a, 0) == 0 {
					alike[a]++
				}
			}
			continue
		}
		for b := range areas * thresholds {
			if d.aside>>b&1 != 0 {
				continue
			}
			n[b]++
			if d.found>>b&1 == 0 {
				continue
			}
			tp[b]++
			c := &p.curves[b]
			c.tp, c.n = append(c.tp, tp[b]), append(c.n, n[b]+alike[b/thresholds])
			if b < thresholds {
				for k := range p.found {
					if int(d.rank) < limits[k] {
						p.found[k][b]++
					}
				}
			}
		}
	}
}

// wholeAreas reports whether a mask is the same at all thresholds of each area range.
func wholeAreas(mask uint64) bool {
	for a := range areas {
		if m := mask & areaMask(a); m != 0 && m != areaMask(a) {
			return false
		}
	}
	return true
}
