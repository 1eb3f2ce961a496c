package detect

import (
	"math"
	"reflect"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

func TestDetectionsWire(t *testing.T) {
	for _, d := range []Detections{
		{Width: 1, Height: MaxPixels, Boxes: []delivery.Box{}},
		{Width: 640, Height: 480, Boxes: []delivery.Box{
			{Class: "RBC", Score: 0.75, X: -1.5, Y: 0, W: math.MaxFloat64, H: math.SmallestNonzeroFloat64},
			{Class: "", Score: 1}, {Class: "größe", Score: math.Nextafter(0, 1)},
		}},
	} {
		data := appendDetections(nil, d)
		got, err := parseDetections(data)
		if err != nil || !reflect.DeepEqual(got, d) {
			t.Errorf("got %+v, %v; want %+v", got, err, d)
		}
		for n := range data {
			if got, err := parseDetections(data[:n]); err == nil && reflect.DeepEqual(got, d) {
				t.Errorf("%d of %d bytes are the same detections", n, len(data))
			}
		}
	}
	infinite := appendDetections(nil, Detections{Boxes: []delivery.Box{{Score: math.Inf(1)}}})
	if _, err := parseDetections(infinite); err == nil {
		t.Error("an infinite score: no error")
	}
}

func FuzzParseDetections(f *testing.F) {
	f.Add(appendDetections(nil, Detections{Width: 3, Height: 4,
		Boxes: []delivery.Box{{Class: "cat", Score: 0.5, W: 2}}}))
	f.Add([]byte("12345678\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := parseDetections(data)
		if err != nil {
			return
		}
		if again, err := parseDetections(appendDetections(nil, d)); err != nil || !reflect.DeepEqual(again, d) {
			t.Fatalf("%+v, then %+v, %v", d, again, err)
		}
	})
}
