package detect

import (
	"fmt"
	"math"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
)

// detection is a box with its slot, before the slot is replaced by a class name.
type detection struct {
	slot       int
	score      float64
	x, y, w, h float64
}

// decode converts one image's outputs to detections; see the package comment. boxes has Q x 4 numbers, logits Q x
// slots. NaN, or an infinite box, is an error: such a model is broken, and skipping the box would hide that.
func decode(sig delivery.Signature, boxes, logits []float32, width, height int) ([]detection, error) {
	return decodeAbove(sig, boxes, logits, width, height, 0)
}

// decodeAbove is decode without the detections below a score, in less time.
func decodeAbove(sig delivery.Signature, boxes, logits []float32, width, height int, score float64) ([]detection,
	error) {
	slots := len(sig.Slots)
	if slots == 0 || len(logits)%slots != 0 || len(boxes) != len(logits)/slots*4 {
		return nil, fmt.Errorf("%d box numbers and %d logits do not fit %d slots", len(boxes), len(logits), slots)
	}
	for i, v := range boxes {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return nil, fmt.Errorf("output %s contains %v (query %d)", sig.Boxes, v, i/4)
		}
	}
	// One integer is the sort key of a pair: the inverted bits of its score, because the bits of positive
	// floats are ordered like their values, then its index. Sorting now and then and keeping the top K is
	// much cheaper than sorting all pairs once.
	room := min(2*sig.Select, len(logits))
	order := make([]uint64, 0, room)
	limit := uint64(math.MaxUint64)
	low := logitBelow(score)
	for i, v := range logits {
		if math.IsNaN(float64(v)) {
			return nil, fmt.Errorf("output %s contains NaN (query %d)", sig.Logits, i/slots)
		}
		if slot := i % slots; slot == sig.Background || sig.Slots[slot] == "" {
			continue
		}
		if v < low {
			continue
		}
		p := sigmoid(v)
		if float64(p) < score {
			continue
		}
		key := uint64(^math.Float32bits(p))<<32 | uint64(i)
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

	list := make([]detection, len(order))
	for n, key := range order {
		i := int(uint32(key))
		b := boxes[i/slots*4:][:4]
		cx, cy := float64(b[0]), float64(b[1])
		w, h := math.Max(float64(b[2]), 0), math.Max(float64(b[3]), 0)
		list[n] = detection{
			slot:  i % slots,
			score: float64(math.Float32frombits(^uint32(key >> 32))),
			x:     (cx - w/2) * float64(width),
			y:     (cy - h/2) * float64(height),
			w:     w * float64(width),
			h:     h * float64(height),
		}
		if sig.Clip {
			list[n].clip(float64(width), float64(height))
		}
	}
	return list, nil
}

// clip cuts the box to the image. A box beside the image becomes one without area at its edge.
func (d *detection) clip(width, height float64) {
	right, bottom := min(max(d.x+d.w, 0), width), min(max(d.y+d.h, 0), height)
	d.x, d.y = min(max(d.x, 0), width), min(max(d.y, 0), height)
	d.w, d.h = right-d.x, bottom-d.y
}

// sigmoid is computed in float64 and rounded once, so that its last bit, and with it the order of
// nearly equal scores, is the same on every processor.
func sigmoid(v float32) float32 { return float32(1 / (1 + math.Exp(-float64(v)))) }

// logitBelow returns a number below all logits whose sigmoid is at least the score: it saves most of the sigmoids.
func logitBelow(score float64) float32 {
	if score <= 0 {
		return float32(math.Inf(-1))
	}
	const flat = 6 // where a float32 still tells two sigmoids apart
	return float32(min(math.Log(score/(1-score)), flat) - 0.01)
}

// withClasses replaces slots by class names.
func withClasses(sig delivery.Signature, list []detection) []delivery.Box {
	return delivery.Each(list, func(f detection) delivery.Box {
		return delivery.Box{Class: sig.Slots[f.slot], Score: f.score, X: f.x, Y: f.y, W: f.w, H: f.h}
	})
}
