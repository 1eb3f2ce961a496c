package detect

import (
	"bytes"
	"encoding/binary"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// testGolden is a golden that fits testSignature.
func testGolden(t testing.TB) Golden {
	g := Golden{Seed: 7, Width: 32, Height: 24, Slots: 4,
		Boxes:  []float32{0.5, 0.5, 0.5, 0.25, 0.25, 0.75, 0.125, 0.5},
		Logits: []float32{2, 0, 1, 0, -1, 0, -2, float32(math.Inf(-1))}}
	list, err := decode(testSignature(), g.Boxes, g.Logits, g.Width, g.Height)
	if err != nil {
		t.Fatal(err)
	}
	g.Best = withClasses(testSignature(), list)
	return g
}

func TestGoldenRoundTrip(t *testing.T) {
	g := testGolden(t)
	data, err := g.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseGolden(data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, g) {
		t.Errorf("got  %+v\nwant %+v", back, g)
	}
	for n := range data {
		if _, err := ParseGolden(data[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes parse", n, len(data))
		}
	}
	if _, err := ParseGolden(append(data, 0)); err == nil {
		t.Error("a byte more parses")
	}
}

func TestGoldenRefuses(t *testing.T) {
	nan := math.NaN()
	for name, spoil := range map[string]func(*Golden){
		"no width":       func(g *Golden) { g.Width = 0 },
		"huge height":    func(g *Golden) { g.Height = 1 << 20 },
		"no queries":     func(g *Golden) { g.Boxes, g.Logits = nil, nil },
		"odd boxes":      func(g *Golden) { g.Boxes = g.Boxes[:7] },
		"few logits":     func(g *Golden) { g.Logits = g.Logits[:7] },
		"no slots":       func(g *Golden) { g.Slots, g.Logits = 0, nil },
		"NaN box":        func(g *Golden) { g.Boxes[3] = float32(nan) },
		"NaN logit":      func(g *Golden) { g.Logits[3] = float32(nan) },
		"NaN score":      func(g *Golden) { g.Best[0].Score = nan },
		"endless box":    func(g *Golden) { g.Best[0].W = math.Inf(1) },
		"no class":       func(g *Golden) { g.Best[0].Class = "" },
		"long class":     func(g *Golden) { g.Best[0].Class = strings.Repeat("x", 1000) },
		"class of bytes": func(g *Golden) { g.Best[0].Class = "\xff" },
		"too many":       func(g *Golden) { g.Best = make([]delivery.Box, 51) },
	} {
		g := testGolden(t)
		spoil(&g)
		if _, err := g.MarshalBinary(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// The header may contain large counts; memory use must stay proportional to the number of bytes.
func TestParseGoldenMemory(t *testing.T) {
	data := []byte(goldenMagic)
	data = binary.LittleEndian.AppendUint64(data, 1)
	for _, n := range []uint32{8192, 8192, 10_000, 4096, 50} {
		data = binary.LittleEndian.AppendUint32(data, n)
	}
	if n := testing.AllocsPerRun(10, func() {
		if _, err := ParseGolden(data); err == nil {
			t.Error("no error")
		}
	}); n > 500 {
		t.Errorf("%v allocations", n)
	}
	if _, err := ParseGolden(make([]byte, MaxGoldenBytes+1)); err == nil {
		t.Error("too large: no error")
	}
}

func FuzzParseGolden(f *testing.F) {
	data, err := testGolden(f).MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(goldenMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := ParseGolden(data)
		if err != nil {
			return
		}
		back, err := g.MarshalBinary()
		if err != nil || !bytes.Equal(back, data) {
			t.Fatalf("%d bytes came back as %d (%v)", len(data), len(back), err)
		}
	})
}

func TestGoldenInput(t *testing.T) {
	g := Golden{Seed: 1, Width: 64, Height: 64}
	input := g.Input()
	low, high, sum := math.Inf(1), math.Inf(-1), 0.0
	for _, v := range input {
		low, high, sum = min(low, float64(v)), max(high, float64(v)), sum+float64(v)
	}
	if mean := sum / float64(len(input)); low < -2 || high > 2.5 || low > -1.9 || high < 2.4 ||
		math.Abs(mean-0.25) > 0.05 {
		t.Errorf("numbers from %v to %v with mean %v", low, high, mean)
	}
	// golden.bin has only the seed, so these numbers are part of its format.
	if got, want := input[:3], []float32{0.5495268, 1.3560177, 2.369512}; !reflect.DeepEqual(got, want) {
		t.Errorf("the input starts with %v, want %v", got, want)
	}
}

func TestGoldenCheck(t *testing.T) {
	sig := testSignature()
	for _, c := range []struct {
		name   string
		change func(g *Golden, sig *delivery.Signature, boxes, logits []float32)
		want   string // "" passes
	}{
		{"the same", func(*Golden, *delivery.Signature, []float32, []float32) {}, ""},
		{"within tolerance", func(_ *Golden, _ *delivery.Signature, _, logits []float32) { logits[0] += 0.0009 }, ""},
		{"beyond tolerance", func(_ *Golden, _ *delivery.Signature, _, logits []float32) { logits[2] += 0.0011 },
			"output labels differs"},
		{"NaN", func(_ *Golden, _ *delivery.Signature, boxes, _ []float32) { boxes[1] = float32(math.NaN()) },
			"output dets differs by NaN"},
		{"infinite in the golden, finite in the replay", func(_ *Golden, _ *delivery.Signature, _, logits []float32) {
			logits[7] = 0
		},
			"output labels differs by +Inf"},
		{"other size", func(_ *Golden, s *delivery.Signature, _, _ []float32) { s.Width = 64 }, "different models"},
		{"other slots", func(_ *Golden, s *delivery.Signature, _, _ []float32) { s.Slots = s.Slots[:3] },
			"different models"},
		{"classes swapped", func(_ *Golden, s *delivery.Signature, _, _ []float32) {
			s.Slots[0], s.Slots[2] = "blue", "red"
		}, "golden box 0"},
		{"one class more", func(_ *Golden, s *delivery.Signature, _, _ []float32) { s.Slots[1] = "green" },
			"golden has 4 boxes"},
		{"another way of scaling", func(g *Golden, _ *delivery.Signature, _, _ []float32) { g.Best[1].X += 0.01 },
			"golden box 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, s := testGolden(t), testSignature()
			boxes, logits := append([]float32(nil), g.Boxes...), append([]float32(nil), g.Logits...)
			c.change(&g, &s, boxes, logits)
			err := g.check(s, boxes, logits)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if err := testGolden(t).check(sig, nil, nil); err == nil {
		t.Error("no outputs: no error")
	}
}
