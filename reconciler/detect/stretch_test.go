package detect

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"math/rand/v2"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// sameStretched checks that a file gives the same tensor, to the last bit, in one step and in two, at several sizes. It
// returns how many of the tensors were made in one step.
func sameStretched(t *testing.T, name string, data []byte) (stretchedOnes int) {
	t.Helper()
	img, release, err := decodeImage(data, decoder)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return 0
	}
	defer release()
	for _, size := range [][2]int{{1, 1}, {3, 2}, {17, 5}, {32, 24}, {40, 33}, {224, 160}, {384, 384}} {
		for _, scale := range []float64{0, 0.5} {
			sig := testSignature()
			sig.Width, sig.Height, sig.Scale = size[0], size[1], scale
			want := toTensor(img, sig)
			for _, threads := range []int{1, 2} {
				got := make([]float32, len(want))
				w, h := stretched(data, decoder, sig, got, threads)
				if w == 0 {
					continue
				}
				stretchedOnes++
				if w != img.Bounds().Dx() || h != img.Bounds().Dy() {
					t.Errorf("%s: %d x %d", name, w, h)
				}
				for i := range got {
					if got[i] != want[i] {
						t.Errorf("%s to %v on %d threads: number %d is %v, want %v", name, size, threads, i, got[i],
							want[i])
						break
					}
				}
			}
		}
	}
	return stretchedOnes
}

// noise is a JPEG file as Go writes it, with half the colours across and down.
func noise(t *testing.T, width, height, quality int) []byte {
	t.Helper()
	r := rand.New(rand.NewPCG(uint64(width), uint64(height)))
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			img.Set(x, y, color.RGBA{uint8(r.Uint32()), uint8(8 * y), uint8(r.Uint32() >> 4 & 8 * uint32(x)), 255})
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: quality}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestPixelsAreThoseOfTraining does the same for files of Pillow, which have other samplings.
func TestStretched(t *testing.T) {
	n := 0
	for _, height := range []int{1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 100, 160, 161, 479, 480,
		481} {
		for _, width := range []int{1, 2, 15, 33, 130} {
			n += sameStretched(t, fmt.Sprintf("%d x %d", width, height), noise(t, width, height, 60))
		}
	}
	if n < 1000 {
		t.Errorf("only %d tensors were made in one step", n)
	}
	for _, name := range []string{"picture.jpg", "whole.jpg", "wide.jpg"} {
		sameStretched(t, name, read(t, name))
	}
}

// Where a file is wrong at any place, both ways say the same, and a good file after it is as before.
func TestStretchedFaults(t *testing.T) {
	good := noise(t, 130, 200, 90)
	sig := testSignature()
	want := make([]float32, 3*sig.Width*sig.Height)
	if w, _ := stretched(good, decoder, sig, want, 2); w == 0 {
		t.Fatal("the good file is not stretched")
	}
	r := rand.New(rand.NewPCG(3, 4))
	refused := 0
	for i := range 1500 {
		data := bytes.Clone(good)
		switch i % 3 {
		case 0:
			data = data[:r.IntN(len(data))]
		case 1:
			data[r.IntN(len(data))] = byte(r.Uint32())
		default:
			at := r.IntN(len(data) - 20)
			for k := range 20 {
				data[at+k] = 0xff
			}
		}
		checkSameAnswer(t, data, sig, &refused)
	}
	if refused < 500 {
		t.Errorf("only %d files were refused", refused)
	}
	again := make([]float32, len(want))
	if w, _ := stretched(good, decoder, sig, again, 2); w == 0 || !sameNumbers(again, want) {
		t.Error("the good file gives another tensor")
	}
}

func checkSameAnswer(t *testing.T, data []byte, sig delivery.Signature, refused *int) {
	t.Helper()
	if width, height, err := decoder.Size(data); err == nil && width*height > 1<<20 {
		return
	}
	img, release, err := decodeImage(data, decoder)
	var want []float32
	if err == nil {
		want = toTensor(img, sig)
		release()
	} else {
		*refused++
	}
	for _, threads := range []int{1, 2} {
		got := make([]float32, 3*sig.Width*sig.Height)
		_, failed := fillOfFile(data, decoder, sig, got, threads)
		if (err == nil) != (failed == nil) || err != nil && err.Error() != failed.Error() {
			t.Fatalf("on %d threads: %v, want %v", threads, failed, err)
		}
		if err == nil && !sameNumbers(got, want) {
			t.Fatalf("on %d threads the tensor is another one", threads)
		}
	}
}

func sameNumbers(a, b []float32) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
