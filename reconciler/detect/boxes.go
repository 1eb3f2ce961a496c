package detect

import (
	"fmt"
	"math"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A found box, before its slot becomes a class name.
type found struct {
	slot       int
	score      float64
	x, y, w, h float64
}

// decode turns one image's outputs into boxes, as the package comment says.
// boxes holds Q x 4 numbers, logits Q x slots. A NaN among them, or a box
// without end, is an error: such a model is broken, and dropping the box would
// hide it.
func decode(sig delivery.Signature, boxes, logits []float32, width, height int) ([]found, error) {
	slots := len(sig.Slots)
	if slots == 0 || len(logits)%slots != 0 || len(boxes) != len(logits)/slots*4 {
		return nil, fmt.Errorf("%d numbers of boxes and %d of logits do not fit %d slots", len(boxes), len(logits),
			slots)
	}
	for i, v := range boxes {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return nil, fmt.Errorf("output %s holds %v (query %d)", sig.Boxes, v, i/4)
		}
	}
	// One integer orders a pair: its score's bits turned round, for a positive
	// float grows with its bits, then its place. Sorting now and then, and keeping
	// the best, is a good deal cheaper than sorting all once.
	room := min(2*sig.Select, len(logits))
	order := make([]uint64, 0, room)
	limit := uint64(math.MaxUint64)
	for i, v := range logits {
		if math.IsNaN(float64(v)) {
			return nil, fmt.Errorf("output %s holds NaN (query %d)", sig.Logits, i/slots)
		}
		if slot := i % slots; slot == sig.Background || sig.Slots[slot] == "" {
			continue
		}
		key := uint64(^math.Float32bits(sigmoid(v)))<<32 | uint64(i)
		if key >= limit {
			continue
		}
		if len(order) == room {
			slices.Sort(order)
			order = order[:min(sig.Select, room)]
			limit = order[len(order)-1]
		}
		order = append(order, key)
	}
	slices.Sort(order)
	order = order[:min(len(order), sig.Select)]

	list := make([]found, len(order))
	for n, key := range order {
		i := int(uint32(key))
		b := boxes[i/slots*4:][:4]
		cx, cy := float64(b[0]), float64(b[1])
		w, h := math.Max(float64(b[2]), 0), math.Max(float64(b[3]), 0)
		list[n] = found{
			slot:  i % slots,
			score: float64(math.Float32frombits(^uint32(key >> 32))),
			x:     (cx - w/2) * float64(width),
			y:     (cy - h/2) * float64(height),
			w:     w * float64(width),
			h:     h * float64(height),
		}
	}
	return list, nil
}

// sigmoid is computed in float64 and rounded once, so that the last bit, and
// with it the order of near-equal scores, is the same on every processor.
func sigmoid(v float32) float32 { return float32(1 / (1 + math.Exp(-float64(v)))) }

// named puts class names to slots.
func named(sig delivery.Signature, list []found) []delivery.Box {
	out := make([]delivery.Box, len(list))
	for i, f := range list {
		out[i] = delivery.Box{Class: sig.Slots[f.slot], Score: f.score, X: f.x, Y: f.y, W: f.w, H: f.h}
	}
	return out
}
