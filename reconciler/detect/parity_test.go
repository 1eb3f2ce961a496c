package detect

import (
	"math"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/profile"
)

func TestParity(t *testing.T) {
	bounds := profile.Bounds{Tensor: 0.02, IoU: 0.9, Found: 0.95, Score: 0.02}
	swapped := func(v []float32, n int) { // the two queries change places
		for i := range n {
			v[i], v[n+i] = v[n+i], v[i]
		}
	}
	for _, c := range []struct {
		name   string
		change func(g *Golden)
		bounds profile.Bounds
		want   string // part of the error; "" for none
	}{
		{"equal", func(*Golden) {}, bounds, ""},
		{"equal, on a CPU", func(*Golden) {}, profile.Bounds{}, ""},
		{"a small difference", func(g *Golden) { g.Boxes[0] += 0.01 }, bounds, ""},
		{"a small difference, on a CPU", func(g *Golden) { g.Boxes[0] += 0.01 }, profile.Bounds{}, "differs by 0.01"},
		{"queries in another order", func(g *Golden) { swapped(g.Boxes, 4); swapped(g.Logits, 4) }, bounds, ""},
		{"queries in another order, on a CPU", func(g *Golden) { swapped(g.Boxes, 4); swapped(g.Logits, 4) },
			profile.Bounds{}, "differs by"},
		{"boxes of other queries", func(g *Golden) { swapped(g.Boxes, 4) }, bounds, "output dets differs"},
		{"a box elsewhere", func(g *Golden) { g.Boxes[0] = 0.1 }, bounds, "are found again (want 95 %)"},
		{"another score", func(g *Golden) { g.Logits[0], g.Logits[2] = 1, 0 }, bounds, "scores that differ by"},
		{"logits alone", func(g *Golden) { g.Logits[0], g.Logits[2] = 1, 0 }, bounds, "output labels differs"},
		{"both, the first is named", func(g *Golden) { g.Boxes[0], g.Logits[0] = 0.1, 1 }, bounds,
			"output dets differs"},
		{"NaN", func(g *Golden) { g.Logits[0] = float32(math.NaN()) }, bounds, "golden replay"},
		{"too few numbers", func(g *Golden) { g.Boxes = g.Boxes[:4] }, bounds,
			"golden replay: output dets has 4 numbers, want 8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, got := testGolden(t), testGolden(t)
			c.change(&got)
			g.bounds = c.bounds
			err := g.check(testSignature(), got.Boxes, got.Logits)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// The bounds of every profile refuse another model.
func TestParityRefusesAnotherModel(t *testing.T) {
	g := testGolden(t)
	for _, p := range profile.Builtin() {
		g.bounds = p.Bounds()
		other := testGolden(t)
		for i := range other.Boxes {
			other.Boxes[i] = 1 - other.Boxes[i]
			other.Logits[i] = -other.Logits[len(other.Logits)-1-i]
		}
		other.Logits[0] = 3
		if err := g.check(testSignature(), other.Boxes, other.Logits); err == nil {
			t.Errorf("%s: no error", p.Name)
		}
	}
}
