package detect

import (
	"cmp"
	"context"
	"fmt"
	"math"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/profile"
)

// A Parity says how far the outputs of a model are from the golden ones, which the CPU has computed.
type Parity struct {
	Largest float64 `json:"largest"` // difference of a number of the tensors
	Boxes   int     `json:"boxes"`   // the best ones of the CPU
	Found   float64 `json:"found"`   // share of them with a partner of the same class
	Score   float64 `json:"score"`   // mean difference of the scores of partners
	Differs string  `json:"differs"` // the first output with a number beyond the bounds; "" if there is none
}

// parity compares outputs with the golden ones.
func (g Golden) parity(sig delivery.Signature, boxes, logits []float32, iou float64) (Parity, error) {
	if err := cmp.Or(sameLength(sig.Boxes, boxes, g.Boxes), sameLength(sig.Logits, logits, g.Logits)); err != nil {
		return Parity{}, err
	}
	p := Parity{Boxes: len(g.Best)}
	for i := range boxes {
		p.Largest = larger(p.Largest, boxes[i], g.Boxes[i])
	}
	if !(p.Largest <= g.bounds.Tensor) {
		p.Differs = sig.Boxes
	}
	for i := range logits {
		p.Largest = larger(p.Largest, logits[i], g.Logits[i])
	}
	if p.Differs == "" && !(p.Largest <= g.bounds.Tensor) {
		p.Differs = sig.Logits
	}
	list, err := decode(sig, boxes, logits, g.Width, g.Height)
	if err != nil {
		return Parity{}, fmt.Errorf("golden replay: %w", err)
	}
	found := withClasses(sig, list)
	taken := make([]bool, len(found))
	partners, shift := 0, 0.0
	for _, want := range g.Best {
		best, at := iou, -1
		for i, b := range found {
			if !taken[i] && b.Class == want.Class && overlap(b, want) >= best {
				if best, at = overlap(b, want), i; sameBox(b, want) {
					break
				}
			}
		}
		if at >= 0 {
			taken[at] = true
			partners++
			shift += math.Abs(found[at].Score - want.Score)
		}
	}
	if len(g.Best) > 0 {
		p.Found = float64(partners) / float64(len(g.Best))
	}
	if partners > 0 {
		p.Score = shift / float64(partners)
	}
	return p, nil
}

// larger returns the larger of a difference and the difference of two numbers; NaN stays.
func larger(worst float64, a, b float32) float64 {
	if a == b { // also for infinities
		return worst
	}
	if diff := math.Abs(float64(a) - float64(b)); !(diff <= worst) && !math.IsNaN(worst) {
		return min(diff, math.MaxFloat64) // has a JSON form
	}
	return worst
}

// overlap returns the intersection over the union of two boxes. Equal boxes have 1, also without an area.
func overlap(a, b delivery.Box) float64 {
	if a.X == b.X && a.Y == b.Y && a.W == b.W && a.H == b.H {
		return 1
	}
	w := min(a.X+a.W, b.X+b.W) - max(a.X, b.X)
	h := min(a.Y+a.H, b.Y+b.H) - max(a.Y, b.Y)
	if w <= 0 || h <= 0 {
		return 0
	}
	return w * h / (a.W*a.H + b.W*b.H - w*h)
}

// judge returns an error unless outputs are as near to the golden ones as the bounds say.
func (p Parity) judge(b profile.Bounds) error {
	if p.Largest <= b.Tensor {
		return nil
	}
	if b.IoU > 0 && p.Boxes > 0 && p.Found >= b.Found && p.Score <= b.Score {
		return nil
	}
	return fmt.Errorf("golden replay: output %s differs from that of the CPU; the largest difference of a number is "+
		"%.3g (want at most %g), and of the CPU's %d best boxes %.0f %% are found again (want %.0f %%), with scores "+
		"that differ by %.3g (want %g): the weights are another model's, or the number format costs too much; "+
		"take a profile with precision fp32",
		p.Differs, p.Largest, b.Tensor, p.Boxes, 100*p.Found, 100*b.Found, p.Score, b.Score)
}

// Parity runs the golden input and says how far the outputs are from those of the CPU.
func (s *Server) Parity(ctx context.Context) (Parity, error) {
	boxes, logits, _, err := s.engine.run(ctx, s.golden.Input())
	if err != nil {
		return Parity{}, err
	}
	return s.golden.parity(s.sig, boxes, logits, s.golden.bounds.IoU)
}
