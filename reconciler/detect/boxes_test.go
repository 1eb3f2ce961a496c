package detect

import (
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

func logit(p float64) float32 { return float32(math.Log(p / (1 - p))) }

func TestDecode(t *testing.T) {
	inf := float32(math.Inf(1))
	// Two queries: a box in the middle, and one whose size is negative.
	boxes := []float32{0.5, 0.5, 0.5, 0.25, 0.25, 0.75, -1, 0.5}
	for _, c := range []struct {
		name   string
		change func(*delivery.Signature)
		logits []float32 // 2 x (red, unnamed, blue, background)
		want   []delivery.Box
	}{
		{
			name:   "highest score first, unnamed and background slots left out, one query gives two",
			logits: []float32{logit(0.75), 9, logit(0.5), 9, logit(0.25), 9, logit(0.125), 9},
			want: []delivery.Box{
				{Class: "red", Score: 0.75, X: 25, Y: 75, W: 50, H: 50},
				{Class: "blue", Score: 0.5, X: 25, Y: 75, W: 50, H: 50},
				{Class: "red", Score: 0.25, X: 25, Y: 100, W: 0, H: 100},
				{Class: "blue", Score: 0.125, X: 25, Y: 100, W: 0, H: 100},
			},
		},
		{
			name:   "left-out slots do not count in the top K",
			change: func(s *delivery.Signature) { s.Select = 1 },
			logits: []float32{-9, 9, -9, 9, -9, 9, 0, 9},
			want:   []delivery.Box{{Class: "blue", Score: 0.5, X: 25, Y: 100, W: 0, H: 100}},
		},
		{
			name:   "equal scores keep the tensor's order",
			change: func(s *delivery.Signature) { s.Select = 3 },
			logits: []float32{0, 0, 0, 0, 0, 0, 0, 0},
			want: []delivery.Box{
				{Class: "red", Score: 0.5, X: 25, Y: 75, W: 50, H: 50},
				{Class: "blue", Score: 0.5, X: 25, Y: 75, W: 50, H: 50},
				{Class: "red", Score: 0.5, X: 25, Y: 100, W: 0, H: 100},
			},
		},
		{
			name:   "scores that are equal in float32: both are 1",
			change: func(s *delivery.Signature) { s.Select = 2 },
			logits: []float32{40, 0, 80, 0, inf, 0, 0, 0},
			want: []delivery.Box{
				{Class: "red", Score: 1, X: 25, Y: 75, W: 50, H: 50},
				{Class: "blue", Score: 1, X: 25, Y: 75, W: 50, H: 50},
			},
		},
		{
			name:   "a background that has a name is still left out",
			change: func(s *delivery.Signature) { s.Background, s.Select = 0, 1 },
			logits: []float32{9, 9, -inf, 9, 9, 9, 0, 9},
			want:   []delivery.Box{{Class: "blue", Score: 0.5, X: 25, Y: 100, W: 0, H: 100}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			sig := testSignature()
			if c.change != nil {
				c.change(&sig)
			}
			list, err := decode(sig, boxes, c.logits, 100, 200)
			if err != nil {
				t.Fatal(err)
			}
			got := withClasses(sig, list)
			for i := range got {
				got[i].Score = math.Round(got[i].Score*1e6) / 1e6
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	for _, c := range []struct {
		name          string
		boxes, logits []float32
		want          string
	}{
		{"NaN box", []float32{0, 0, nan, 0}, make([]float32, 4), "output dets contains NaN"},
		{"infinite box", []float32{0, inf, 0, 0}, make([]float32, 4), "output dets contains -Inf"},
		{"NaN logit, even of the background", make([]float32, 4), []float32{0, 0, 0, nan},
			"output labels contains NaN"},
		{"sizes", make([]float32, 8), make([]float32, 4), "do not fit"},
	} {
		if _, err := decode(testSignature(), c.boxes, c.logits, 1, 1); err == nil ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// decode is compared with a simple implementation of the definition.
func TestDecodeMatchesDefinition(t *testing.T) {
	draw := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		sig := testSignature()
		queries := 1 + draw.IntN(40)
		sig.Select = 1 + draw.IntN(100)
		boxes, logits := make([]float32, 4*queries), make([]float32, 4*queries)
		for i := range boxes {
			boxes[i] = draw.Float32()*1.5 - 0.25
			logits[i] = float32(draw.IntN(9) - 4) // many ties
		}
		type pair struct{ index int }
		var pairs []pair
		for i := range logits {
			if i%4 == 0 || i%4 == 2 {
				pairs = append(pairs, pair{i})
			}
		}
		sort.SliceStable(pairs, func(a, b int) bool { return logits[pairs[a].index] > logits[pairs[b].index] })
		pairs = pairs[:min(len(pairs), sig.Select)]

		got, err := decode(sig, boxes, logits, 640, 480)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(pairs) {
			t.Fatalf("%d boxes, want %d", len(got), len(pairs))
		}
		for n, p := range pairs {
			b := boxes[p.index/4*4:]
			w, h := max(b[2], 0), max(b[3], 0)
			g := got[n]
			if g.slot != p.index%4 || math.Abs(g.x-float64(b[0]-w/2)*640) > 1e-3 ||
				math.Abs(g.y-float64(b[1]-h/2)*480) > 1e-3 ||
				math.Abs(g.w-float64(w)*640) > 1e-3 || math.Abs(g.h-float64(h)*480) > 1e-3 {
				t.Fatalf("box %d is %+v, want pair %d of %v", n, g, p.index, b[:4])
			}
			if n > 0 && g.score > got[n-1].score {
				t.Fatalf("score %v after %v", g.score, got[n-1].score)
			}
		}
	}
}

// decodeAbove returns what decode does, without the scores below the bound.
func TestDecodeAbove(t *testing.T) {
	sig := testSignature()
	draw := rand.New(rand.NewPCG(1, 2))
	slots := len(sig.Slots)
	boxes, logits := make([]float32, 4*200), make([]float32, slots*200)
	for i := range boxes {
		boxes[i] = draw.Float32()
	}
	edges := []float32{-200, -104, -103, -88, -17, -1, 0, 1, 6, 15, 16, 17, 18, 40, 200, float32(math.Inf(-1)),
		float32(math.Inf(1))}
	for i := range logits {
		logits[i] = draw.Float32()*20 - 10
		if i%3 == 0 {
			logits[i] = edges[draw.IntN(len(edges))]
		}
	}
	scores := []float64{0, 1e-320, 1e-300, 1e-45, 1e-44, 1e-10, 0.25, 0.5, 0.997, 0.9975, 0.9999, 0.99999997, 1}
	for range 200 {
		scores = append(scores, float64(sigmoid(logits[draw.IntN(len(logits))])))
	}
	for _, most := range []int{1, 7, 300, 10_000} {
		sig.Select = most
		all, err := decode(sig, boxes, logits, 640, 480)
		if err != nil {
			t.Fatal(err)
		}
		for _, score := range scores {
			want := slices.DeleteFunc(slices.Clone(all), func(d detection) bool { return d.score < score })
			if got, err := decodeAbove(sig, boxes, logits, 640, 480, score); err != nil || !slices.Equal(got, want) {
				t.Errorf("at most %d of score %v: %d detections, want %d; %v", most, score, len(got), len(want), err)
			}
		}
	}
	logits[slots] = float32(math.NaN())
	if _, err := decodeAbove(sig, boxes, logits, 640, 480, 0.9); err == nil {
		t.Error("NaN passes")
	}
}

func BenchmarkDecode(b *testing.B) { // RF-DETR with COCO's classes
	sig := testSignature()
	sig.Slots, sig.Background, sig.Select = make([]string, 91), -1, 300
	for i := range sig.Slots {
		sig.Slots[i] = string(rune('a' + i))
	}
	draw := rand.New(rand.NewPCG(1, 2))
	boxes, logits := make([]float32, 4*300), make([]float32, 91*300)
	for i := range logits {
		logits[i] = draw.Float32() * 10
	}
	for b.Loop() {
		if _, err := decode(sig, boxes, logits, 1920, 1080); err != nil {
			b.Fatal(err)
		}
	}
}
