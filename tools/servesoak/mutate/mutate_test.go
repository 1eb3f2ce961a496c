package mutate

import (
	"bytes"
	"image"
	"image/jpeg"
	"os"
	"testing"
)

// What is made depends on the seed alone, and changes neither the good model nor the good pictures.
func TestSameForASeed(t *testing.T) {
	model, err := os.ReadFile("../../../reconciler/detect/testdata/detector.onnx")
	if err != nil {
		t.Fatal(err)
	}
	var picture bytes.Buffer
	if err := jpeg.Encode(&picture, image.NewGray(image.Rect(0, 0, 40, 30)), nil); err != nil {
		t.Fatal(err)
	}
	target := Target{"m", "1", "input", "dets", "labels", 24, 32, [][]byte{picture.Bytes()}}
	before, pictureBefore := bytes.Clone(model), bytes.Clone(picture.Bytes())
	kinds := map[string]bool{}
	for i := range 200 {
		for _, make := range []func() Made{
			func() Made { return Model(model, 3, i) },
			func() Made { return Picture(target.Pictures, 3, i) },
			func() Made { return Request(target, 3, i).Made },
		} {
			a := make()
			if kinds[a.Kind] = true; i < 10 {
				if b := make(); a.Kind != b.Kind || !bytes.Equal(a.Data, b.Data) {
					t.Errorf("%d: %s is another the second time", i, a.Kind)
				}
			}
		}
	}
	if !bytes.Equal(model, before) || !bytes.Equal(picture.Bytes(), pictureBefore) {
		t.Error("what is good was changed")
	}
	if len(kinds) < 90 {
		t.Errorf("%d kinds: %v", len(kinds), kinds)
	}
}

// A model that is read and written is the same.
func TestEncode(t *testing.T) {
	model, err := os.ReadFile("../../../reconciler/detect/testdata/detector.onnx")
	if err != nil {
		t.Fatal(err)
	}
	if again := parse(model, inModel).encode(); !bytes.Equal(again, model) {
		t.Error("another model")
	}
}
