package serve

import (
	"cmp"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
)

// An Agreement says how alike the boxes of two models are, on some images. Agreements of other images can be added.
type Agreement struct {
	Images  int `json:"images"`
	First   int `json:"first"`   // boxes of the first model
	Second  int `json:"second"`  // boxes of the second model
	Matched int `json:"matched"` // pairs of boxes of one class with an IoU of at least 0.5
	Flipped int `json:"flipped"` // pairs of the other boxes with such an IoU: the models differ in the class alone
	// The sum, over matched pairs, of the second score minus the first one, and of its absolute value.
	Shift    float64 `json:"shift"`
	AbsShift float64 `json:"absShift"`
}

// minIoU is the least intersection over union of a pair.
const minIoU = 0.5

// Agree compares the boxes of two models on one image. Pairs are taken in the order of their IoU, the highest first.
func Agree(first, second []delivery.Box) Agreement {
	a := Agreement{Images: 1, First: len(first), Second: len(second)}
	type pair struct {
		i, k int
		iou  float64
	}
	var same, other []pair
	for i, f := range first {
		for k, s := range second {
			v := iou(f, s)
			switch {
			case v < minIoU:
			case f.Class == s.Class:
				same = append(same, pair{i, k, v})
			default:
				other = append(other, pair{i, k, v})
			}
		}
	}
	usedFirst, usedSecond := make([]bool, len(first)), make([]bool, len(second))
	take := func(pairs []pair, use func(pair)) {
		slices.SortStableFunc(pairs, func(a, b pair) int { return cmp.Compare(b.iou, a.iou) })
		for _, p := range pairs {
			if !usedFirst[p.i] && !usedSecond[p.k] {
				usedFirst[p.i], usedSecond[p.k] = true, true
				use(p)
			}
		}
	}
	take(same, func(p pair) {
		a.Matched++
		shift := second[p.k].Score - first[p.i].Score
		a.Shift += shift
		a.AbsShift += max(shift, -shift)
	})
	take(other, func(pair) { a.Flipped++ })
	return a
}

// F1 is the harmonic mean of precision and recall of the second model's boxes, with the first model's as truth; 1 if
// neither has boxes.
func (a Agreement) F1() float64 {
	if a.First+a.Second == 0 {
		return 1
	}
	return 2 * float64(a.Matched) / float64(a.First+a.Second)
}

// Add returns the agreement on the images of both.
func (a Agreement) Add(b Agreement) Agreement {
	return Agreement{a.Images + b.Images, a.First + b.First, a.Second + b.Second, a.Matched + b.Matched,
		a.Flipped + b.Flipped, a.Shift + b.Shift, a.AbsShift + b.AbsShift}
}

// iou is the intersection over union of two boxes.
func iou(a, b delivery.Box) float64 {
	w := min(a.X+a.W, b.X+b.W) - max(a.X, b.X)
	h := min(a.Y+a.H, b.Y+b.H) - max(a.Y, b.Y)
	if w <= 0 || h <= 0 {
		return 0
	}
	return w * h / (a.W*a.H + b.W*b.H - w*h)
}
