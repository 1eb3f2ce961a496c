package serve

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
)

func box(class string, score, x, y, w, h float64) delivery.Box {
	return delivery.Box{Class: class, Score: score, X: x, Y: y, W: w, H: h}
}

func TestAgree(t *testing.T) {
	a, b := box("a", 0.9, 0, 0, 10, 10), box("b", 0.8, 100, 0, 10, 10)
	for _, c := range []struct {
		name          string
		first, second []delivery.Box
		want          Agreement
		f1            float64
	}{
		{"nothing", nil, nil, Agreement{Images: 1}, 1},
		{"the same", []delivery.Box{a, b}, []delivery.Box{b, a},
			Agreement{Images: 1, First: 2, Second: 2, Matched: 2}, 1},
		{"one missing", []delivery.Box{a, b}, []delivery.Box{a}, Agreement{Images: 1, First: 2, Second: 1, Matched: 1},
			2.0 / 3},
		{"another class", []delivery.Box{a}, []delivery.Box{box("b", 0.9, 0, 0, 10, 10)},
			Agreement{Images: 1, First: 1, Second: 1, Flipped: 1}, 0},
		{"another place", []delivery.Box{a}, []delivery.Box{box("a", 0.9, 6, 0, 10, 10)},
			Agreement{Images: 1, First: 1, Second: 1}, 0},
		{"half of it", []delivery.Box{a}, []delivery.Box{box("a", 0.5, 0, 0, 5, 10)},
			Agreement{Images: 1, First: 1, Second: 1, Matched: 1, Shift: -0.4, AbsShift: 0.4}, 1},
		// The class of a box that has a partner of its class is not flipped by a third one.
		{"a second one on top", []delivery.Box{a},
			[]delivery.Box{box("b", 0.9, 0, 0, 10, 10), box("a", 1, 0, 0, 10, 9)},
			Agreement{Images: 1, First: 1, Second: 2, Matched: 1, Shift: 0.1, AbsShift: 0.1}, 2.0 / 3},
		{"without area", []delivery.Box{box("a", 1, 0, 0, 0, 0)}, []delivery.Box{box("a", 1, 0, 0, 0, 0)},
			Agreement{Images: 1, First: 1, Second: 1}, 0},
	} {
		got := Agree(c.first, c.second)
		if near := math.Abs(got.Shift-c.want.Shift) < 1e-9 && math.Abs(got.AbsShift-c.want.AbsShift) < 1e-9; near {
			got.Shift, got.AbsShift = c.want.Shift, c.want.AbsShift
		}
		if got != c.want || math.Abs(got.F1()-c.f1) > 1e-9 {
			t.Errorf("%s: %+v with F1 %g, want %+v with %g", c.name, got, got.F1(), c.want, c.f1)
		}
	}
}

// Swapping the models swaps the counts and turns the shift; the sum of parts is the whole.
func TestAgreeProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	boxes := func() []delivery.Box {
		list := make([]delivery.Box, r.IntN(8))
		for i := range list {
			list[i] = box(string(rune('a'+r.IntN(3))), r.Float64(), 20*r.Float64(), 20*r.Float64(), 20*r.Float64(),
				20*r.Float64())
		}
		return list
	}
	for range 2000 {
		first, second := boxes(), boxes()
		there, back := Agree(first, second), Agree(second, first)
		if there.Matched != back.Matched || math.Abs(there.Shift+back.Shift) > 1e-9 || there.First != back.Second ||
			there.Matched+there.Flipped > min(len(first), len(second)) || there.F1() != back.F1() {
			t.Fatalf("%v and %v: %+v and %+v", first, second, there, back)
		}
		if self := Agree(first, first); self.Matched != len(first) || self.AbsShift != 0 {
			t.Fatalf("%v with itself: %+v", first, self)
		}
	}
}

// A still is a Models with fixed boxes.
type still struct {
	facts Facts
	boxes []delivery.Box
	err   error
	hold  chan struct{}
}

func (s *still) Lease(context.Context) (*Facts, Model, func(), error) {
	return &s.facts, s, func() {}, nil
}

func (s *still) Serving() (Facts, error) { return s.facts, nil }

func (s *still) Detect(ctx context.Context, _ []byte, score float64) (detect.Detections, detect.Timing, error) {
	if s.hold != nil {
		select {
		case <-s.hold:
		case <-ctx.Done():
		}
	}
	found := detect.Detections{Width: 9, Height: 9, Boxes: s.boxes}
	found.Boxes = found.Above(score)
	return found, detect.Timing{}, s.err
}

func (s *still) Run(context.Context, detect.Tensor) ([]detect.Tensor, detect.Timing, error) {
	return nil, detect.Timing{}, nil
}

func ask(t *testing.T, m Models, score float64) []delivery.Box {
	_, model, done, err := m.Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	found, _, err := model.Detect(t.Context(), []byte("image"), score)
	if err != nil {
		t.Fatal(err)
	}
	return found.Boxes
}

func TestShadow(t *testing.T) {
	main := &still{
		facts: Facts{Version: "1"},
		boxes: []delivery.Box{box("a", 0.9, 0, 0, 9, 9), box("b", 0.2, 20, 0, 9, 9)},
	}
	second := &still{facts: Facts{Version: "2"}, boxes: []delivery.Box{box("a", 0.7, 0, 0, 9, 9)}}
	seen := make(chan ShadowResult, 100)
	s := NewShadow(ShadowOptions{Main: main, Second: second, Share: 0.25, Score: 0.5,
		Seen: func(r ShadowResult) { seen <- r }})
	for i := range 8 {
		if got := ask(t, s, 0); !reflect.DeepEqual(got, main.boxes) {
			t.Errorf("answer %d is %v", i, got)
		}
		if i%4 == 3 {
			r := <-seen
			if r.Outcome != "compared" || r.Agreement.F1() != 1 || r.First.Version != "1" || r.Second.Version != "2" ||
				math.Abs(r.Agreement.Shift+0.2) > 1e-9 {
				t.Errorf("%+v", r)
			}
		}
	}
	second.err = errors.New("no answer")
	for range 4 {
		ask(t, s, 0)
	}
	if r := <-seen; r.Outcome != "failed" {
		t.Errorf("%+v", r)
	}
	s.Close()
	for range 8 {
		ask(t, s, 0)
	}
	if len(seen) != 0 {
		t.Errorf("after Close: %+v", <-seen)
	}
}

// While the second model is busy, answers come at once and images beyond the queue are dropped.
func TestShadowDrops(t *testing.T) {
	main := &still{boxes: []delivery.Box{box("a", 0.9, 0, 0, 9, 9)}}
	second := &still{hold: make(chan struct{})}
	seen := make(chan ShadowResult, 100)
	s := NewShadow(ShadowOptions{Main: main, Second: second, Share: 1, Seen: func(r ShadowResult) { seen <- r }})
	const asked = 20
	for range asked {
		ask(t, s, 0)
	}
	dropped := len(seen) // it has at most one in work and the queue full
	if dropped < asked-shadowQueue-1 {
		t.Errorf("%d of %d are dropped", dropped, asked)
	}
	close(second.hold)
	outcomes := []string{}
	for range asked {
		outcomes = append(outcomes, (<-seen).Outcome)
	}
	slices.Sort(outcomes)
	if n := len(slices.DeleteFunc(outcomes, func(o string) bool { return o == "compared" })); n != dropped {
		t.Errorf("%d were not compared, %d dropped", n, dropped)
	}
	s.Close()
}

// A shadow that is ended has not failed on the images that it had no time for.
func TestShadowEnds(t *testing.T) {
	main := &still{boxes: []delivery.Box{box("a", 0.9, 0, 0, 9, 9)}}
	second := &still{hold: make(chan struct{}), err: context.Canceled}
	seen := make(chan ShadowResult, 100)
	s := NewShadow(ShadowOptions{Main: main, Second: second, Share: 1, Seen: func(r ShadowResult) { seen <- r }})
	const asked = 3
	for range asked {
		ask(t, s, 0)
	}
	s.Close()
	if len(seen) != asked {
		t.Fatalf("%d of %d images are counted", len(seen), asked)
	}
	for range asked {
		if r := <-seen; r.Outcome != "dropped" {
			t.Errorf("%+v", r)
		}
	}
}
