package work

import (
	"math"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
)

func TestTensors(t *testing.T) {
	for name, c := range map[string]struct {
		a, b            []float32
		cosine, largest float64
	}{
		"equal":          {[]float32{1, 2, 3}, []float32{1, 2, 3}, 1, 0},
		"zeros":          {[]float32{0, 0}, []float32{0, 0}, 1, 0},
		"opposite":       {[]float32{1, 0}, []float32{-1, 0}, -1, 2},
		"at right angle": {[]float32{1, 0}, []float32{0, 1}, 0, 1},
		"other lengths":  {[]float32{1}, []float32{1, 1}, 0, math.MaxFloat32},
	} {
		if cosine, largest := tensors(c.a, c.b); math.Abs(cosine-c.cosine) > 1e-9 || largest != c.largest {
			t.Errorf("%s: cosine %v and largest difference %v, want %v and %v", name, cosine, largest, c.cosine,
				c.largest)
		}
	}
}

func TestBoxParity(t *testing.T) {
	image := func(boxes ...delivery.Box) detect.ImageDetections {
		return detect.ImageDetections{Detections: detect.Detections{Boxes: boxes}}
	}
	box := func(class string, score, x float64) delivery.Box {
		return delivery.Box{Class: class, Score: score, X: x, W: 10, H: 10}
	}
	var p delivery.Parity
	boxParity(&p, []detect.ImageDetections{
		image(box("a", 0.9, 0), box("a", 0.8, 100), box("b", 0.7, 200), box("b", 0.01, 300)),
		image(),
	}, []detect.ImageDetections{
		// nearer, farther, of another class, too low a score
		image(box("a", 0.7, 101), box("a", 0.6, 103), box("a", 0.5, 200), box("b", 0.01, 300)),
		image(box("a", 0.5, 0)),
	})
	if p.Images != 2 || p.Boxes != 3 || p.Found != 4 || p.Matched != 1 || math.Abs(p.ScoreShift-0.1) > 1e-9 {
		t.Errorf("got %+v", p)
	}
	if got := p.F1(); math.Abs(got-2.0/7) > 1e-9 {
		t.Errorf("F1 is %v", got)
	}
	if got := (delivery.Parity{}).F1(); got != 1 {
		t.Errorf("without boxes F1 is %v", got)
	}
}
