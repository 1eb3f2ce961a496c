package detect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Tolerance is how far a replayed output may be from the golden one, absolute.
// Sums are taken in another order on another processor; a wrong weight, output
// or engine is off by far more.
const Tolerance = 1e-3

// A Golden is one input and what the model made of it where it was inspected.
// Whoever loads the model replays it before the model serves: that catches
// another model's weights, swapped outputs and broken arithmetic.
type Golden struct {
	Seed   uint64         // of the input; see Input
	Width  int            // of the input
	Height int            //
	Slots  int            // numbers of Logits a query
	Boxes  []float32      // Queries x 4
	Logits []float32      // Queries x Slots
	Best   []delivery.Box // the first boxes decoded, for an image of Width x Height
}

// The input and how many of its boxes are kept.
const (
	goldenSeed = 1
	goldenBest = 50
)

// Input returns the input tensor [1,3,Height,Width]: numbers spread evenly over
// -2 to 2.5, about what normalised pixels are, drawn by SplitMix64 from Seed.
func (g Golden) Input() []float32 {
	input := make([]float32, 3*g.Width*g.Height)
	state := g.Seed
	for i := range input {
		state += 0x9e3779b97f4a7c15
		z := state
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		z ^= z >> 31
		share := float64(z>>40) / (1 << 24)
		input[i] = float32(float64(4.5*share) - 2)
	}
	return input
}

// check compares a replay with the golden, and this program's way of decoding
// with the way that was used then.
func (g Golden) check(sig delivery.Signature, boxes, logits []float32) error {
	if g.Width != sig.Width || g.Height != sig.Height || g.Slots != len(sig.Slots) {
		return fmt.Errorf("golden is for %dx%d pixels and %d slots, the signature says %dx%d and %d: they belong to "+
			"different models",
			g.Width, g.Height, g.Slots, sig.Width, sig.Height, len(sig.Slots))
	}
	if err := near(sig.Boxes, boxes, g.Boxes); err != nil {
		return err
	}
	if err := near(sig.Logits, logits, g.Logits); err != nil {
		return err
	}
	// The stored outputs, not the replayed ones: two scores that are equal but
	// for their last digits may change places in a replay.
	list, err := decode(sig, g.Boxes, g.Logits, g.Width, g.Height)
	if err != nil {
		return fmt.Errorf("golden: %w", err)
	}
	best := named(sig, list[:min(len(list), goldenBest)])
	if len(best) != len(g.Best) {
		return fmt.Errorf("golden holds %d boxes, its outputs decode to %d here", len(g.Best), len(best))
	}
	for i, b := range best {
		if !sameBox(b, g.Best[i]) {
			return fmt.Errorf("golden box %d is %+v, its outputs decode to %+v here", i, g.Best[i], b)
		}
	}
	return nil
}

func near(name string, got, want []float32) error {
	if len(got) != len(want) {
		return fmt.Errorf("golden replay: output %s has %d numbers, want %d", name, len(got), len(want))
	}
	worst, at := 0.0, -1
	for i := range want {
		if got[i] == want[i] { // also infinities
			continue
		}
		diff := math.Abs(float64(got[i]) - float64(want[i]))
		if !(diff <= worst) { // also NaN
			worst, at = diff, i
		}
		if math.IsNaN(diff) {
			break
		}
	}
	if !(worst <= Tolerance) {
		return fmt.Errorf("golden replay: output %s differs by %.3g at %d (%v, want %v), more than %g: "+
			"another model's weights, or arithmetic that this machine does wrong", name, worst, at, got[at], want[at],
			Tolerance)
	}
	return nil
}

func sameBox(a, b delivery.Box) bool {
	const slack = 1e-6 // of a pixel; the arithmetic is the same, the last bit may not be
	like := func(x, y float64) bool { return math.Abs(x-y) <= slack }
	return a.Class == b.Class && like(a.Score, b.Score) && like(a.X, b.X) && like(a.Y, b.Y) && like(a.W, b.W) &&
		like(a.H, b.H)
}

// The form of golden.bin, all little-endian: the magic, seed (uint64), width,
// height, queries, slots, best (uint32 each), boxes and logits (float32), then
// for each of best the class (uint16 length and bytes) and score, x, y, w, h
// (float64). Nothing follows.
const goldenMagic = "AOBgold\x01"

// Bounds of what a golden may say about itself.
const (
	maxSide    = 8192
	maxQueries = 10_000
	maxSlots   = 4096
	maxOutputs = 1 << 20 // queries x slots
	maxClass   = 256     // bytes of a class name
)

// MaxGoldenBytes bounds golden.bin.
const MaxGoldenBytes = 8 << 20

func (g Golden) validate() error {
	queries := len(g.Boxes) / 4
	switch {
	case g.Width < 1 || g.Width > maxSide || g.Height < 1 || g.Height > maxSide:
		return fmt.Errorf("golden: %d x %d pixels, want 1 to %d each", g.Width, g.Height, maxSide)
	case queries < 1 || queries > maxQueries || len(g.Boxes) != 4*queries:
		return fmt.Errorf("golden: %d numbers of boxes, want four times 1 to %d", len(g.Boxes), maxQueries)
	case g.Slots < 1 || g.Slots > maxSlots || queries*g.Slots > maxOutputs || len(g.Logits) != queries*g.Slots:
		return fmt.Errorf("golden: %d logits for %d queries of %d slots", len(g.Logits), queries, g.Slots)
	case len(g.Best) > goldenBest:
		return fmt.Errorf("golden: %d decoded boxes, want at most %d", len(g.Best), goldenBest)
	}
	for _, v := range g.Boxes {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return fmt.Errorf("golden: %v among the boxes", v)
		}
	}
	for _, v := range g.Logits {
		if math.IsNaN(float64(v)) {
			return errors.New("golden: NaN among the logits")
		}
	}
	for _, b := range g.Best {
		if b.Class == "" || len(b.Class) > maxClass || !utf8.ValidString(b.Class) {
			return fmt.Errorf("golden: class %.40q", b.Class)
		}
		for _, v := range []float64{b.Score, b.X, b.Y, b.W, b.H} {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return fmt.Errorf("golden: %v in a decoded box", v)
			}
		}
	}
	return nil
}

// MarshalBinary writes the form of golden.bin.
func (g Golden) MarshalBinary() ([]byte, error) {
	if err := g.validate(); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	out := []byte(goldenMagic)
	out = le.AppendUint64(out, g.Seed)
	for _, n := range []int{g.Width, g.Height, len(g.Boxes) / 4, g.Slots, len(g.Best)} {
		out = le.AppendUint32(out, uint32(n))
	}
	for _, list := range [][]float32{g.Boxes, g.Logits} {
		for _, v := range list {
			out = le.AppendUint32(out, math.Float32bits(v))
		}
	}
	for _, b := range g.Best {
		out = le.AppendUint16(out, uint16(len(b.Class)))
		out = append(out, b.Class...)
		for _, v := range []float64{b.Score, b.X, b.Y, b.W, b.H} {
			out = le.AppendUint64(out, math.Float64bits(v))
		}
	}
	return out, nil
}

// ParseGolden reads the form of golden.bin. The bytes may be anything: what is
// not exactly that form is an error, and memory stays in proportion to them.
func ParseGolden(data []byte) (Golden, error) {
	if len(data) > MaxGoldenBytes {
		return Golden{}, fmt.Errorf("golden: %d bytes, more than the %d that are allowed", len(data), MaxGoldenBytes)
	}
	rest, ok := bytes.CutPrefix(data, []byte(goldenMagic))
	if !ok {
		return Golden{}, errors.New("golden: not a golden.bin of this version")
	}
	r := reader{rest: rest}
	g := Golden{Seed: r.uint64()}
	width, height, queries, slots, best := r.uint32(), r.uint32(), r.uint32(), r.uint32(), r.uint32()
	if r.short || width > maxSide || height > maxSide || queries > maxQueries || slots > maxSlots || best > goldenBest {
		return Golden{}, errors.New("golden: the header is short or out of bounds")
	}
	g.Width, g.Height, g.Slots = int(width), int(height), int(slots)
	g.Boxes = r.floats(int(queries) * 4)
	g.Logits = r.floats(int(queries) * g.Slots)
	for range best {
		b := delivery.Box{Class: string(r.take(int(r.uint16())))}
		for _, v := range []*float64{&b.Score, &b.X, &b.Y, &b.W, &b.H} {
			*v = math.Float64frombits(r.uint64())
		}
		g.Best = append(g.Best, b)
	}
	if r.short || len(r.rest) > 0 {
		return Golden{}, fmt.Errorf("golden: the file ends at another place than its header says")
	}
	if err := g.validate(); err != nil {
		return Golden{}, err
	}
	return g, nil
}

// A reader takes numbers off the front of bytes; short is set, and zeros come,
// once they do not suffice.
type reader struct {
	rest  []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.rest) {
		r.rest, r.short = nil, true
		return nil
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *reader) floats(n int) []float32 {
	b := r.take(4 * n)
	list := make([]float32, len(b)/4)
	for i := range list {
		list[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return list
}
