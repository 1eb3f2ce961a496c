package turbojpeg_test

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/autonomos/aob/reconciler/turbojpeg"
)

// encoded returns a JPEG file of noise.
func encoded(t testing.TB, width, height int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			img.Set(x, y, color.RGBA{uint8(r.Uint32()), uint8(r.Uint32()), uint8(r.Uint32()), 255})
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSize(t *testing.T) {
	for _, size := range [][2]int{{1, 1}, {17, 3}, {640, 480}} {
		width, height, err := turbojpeg.Decoder{}.Size(encoded(t, size[0], size[1]))
		if err != nil || width != size[0] || height != size[1] {
			t.Errorf("%d x %d, %v; want %v", width, height, err, size)
		}
	}
}

// The pixels themselves are compared with Pillow's in package detect.
func TestDecodeUsesTheBuffer(t *testing.T) {
	file := encoded(t, 20, 10)
	fresh, width, height, err := turbojpeg.Decoder{}.Decode(file, nil)
	if err != nil || width != 20 || height != 10 || len(fresh) != 600 {
		t.Fatalf("%d x %d, %d bytes, %v", width, height, len(fresh), err)
	}
	for _, n := range []int{0, 599, 600, 5000} {
		buffer := bytes.Repeat([]byte{7}, n)
		pix, _, _, err := turbojpeg.Decoder{}.Decode(file, buffer)
		if err != nil || !bytes.Equal(pix, fresh) {
			t.Errorf("with a buffer of %d bytes: %d bytes, %v", n, len(pix), err)
		}
		if used := n > 0 && &pix[0] == &buffer[0]; used != (n >= 600) {
			t.Errorf("with a buffer of %d bytes: used is %v", n, used)
		}
	}
}

func TestDecodeFaults(t *testing.T) {
	file := encoded(t, 64, 64)
	scan := bytes.Index(file, []byte("\xff\xda"))
	spoiled := bytes.Clone(file)
	for i := scan + 200; i < scan+260; i++ {
		spoiled[i] = 0xff
	}
	// Cameras write such bytes before a segment.
	stuffed := append(append(bytes.Clone(file[:scan]), 0, 1, 2, 3), file[scan:]...)
	for _, c := range []struct {
		name      string
		data      []byte
		truncated bool
		fails     bool
	}{
		{"nothing", nil, true, true},
		{"the start", file[:2], true, true},
		{"half the header", file[:100], true, true},
		{"half the pixels", file[:len(file)/2], true, true},
		{"without its end", file[:len(file)-2], true, true},
		{"spoiled pixels", spoiled, false, true},
		{"not a JPEG", []byte("\x89PNG\r\n\x1a\n"), false, true},
		{"bytes between segments", stuffed, false, false},
		{"bytes after its end", append(bytes.Clone(file), "more"...), false, false},
		{"a segment with a wrong length", []byte("\xff\xd8\xff\xdb\x00\x00"), false, true},
		{"a frame without pixels", []byte("\xff\xd8\xff\xc0\x00\x0b\x08\x00\x00\x00\x00\x01\x01\x11\x00"), false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			pix, _, _, err := turbojpeg.Decoder{}.Decode(c.data, nil)
			if (err != nil) != c.fails || errors.Is(err, io.ErrUnexpectedEOF) != c.truncated {
				t.Errorf("%d bytes, %v", len(pix), err)
			}
			if _, _, _, err := (turbojpeg.Decoder{}).Decode(file, nil); err != nil {
				t.Errorf("a good file after it: %v", err)
			}
		})
	}
}

func TestDecodeAtOnce(t *testing.T) {
	file := encoded(t, 100, 50)
	want, _, _, err := turbojpeg.Decoder{}.Decode(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				if pix, _, _, err := (turbojpeg.Decoder{}).Decode(file, nil); err != nil || !bytes.Equal(pix, want) {
					t.Errorf("%d bytes, %v", len(pix), err)
					return
				}
			}
		})
	}
	all.Wait()
}

func FuzzDecode(f *testing.F) {
	f.Add(encoded(f, 33, 17))
	seeds, _ := filepath.Glob(filepath.Join("..", "detect", "testdata", "*.jpg"))
	for _, file := range seeds {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		width, height, err := turbojpeg.Decoder{}.Size(data)
		if err != nil || width*height > 1<<20 {
			return
		}
		pix, w, h, err := turbojpeg.Decoder{}.Decode(data, nil)
		if err == nil && (w != width || h != height || len(pix) != 3*w*h) {
			t.Fatalf("%d x %d, then %d x %d with %d bytes", width, height, w, h, len(pix))
		}
	})
}

// What is decoded in one step is what Decode and a mix of its pixels give, to the last bit. A file that Decode refuses
// is refused.
func FuzzStretch(f *testing.F) {
	f.Add(encoded(f, 33, 17), uint8(5), uint8(7))
	f.Add(encoded(f, 64, 64), uint8(64), uint8(64))
	seeds, _ := filepath.Glob(filepath.Join("..", "detect", "testdata", "*.jpg"))
	for _, file := range seeds {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, uint8(48), uint8(33))
	}
	var values [3][256]float32
	for c := range values {
		for i := range values[c] {
			values[c][i] = float32(i)/255 - float32(c)/7
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, w, h uint8) {
		width, height, err := turbojpeg.Decoder{}.Size(data)
		if err != nil || width*height > 1<<20 || w == 0 || h == 0 {
			return
		}
		var lo [2][]int32
		var far [2][]float32
		for axis, size := range [2][2]int{{width, int(w)}, {height, int(h)}} {
			for i := range size[1] {
				at := min(float32(i)*float32(size[0])/float32(size[1]), float32(max(size[0]-2, 0)))
				lo[axis], far[axis] = append(lo[axis], int32(at)), append(far[axis], at-float32(int32(at)))
			}
		}
		pix, _, _, wrong := turbojpeg.Decoder{}.Decode(data, nil)
		for threads := 1; threads <= 2; threads++ {
			out := make([]float32, 3*int(w)*int(h))
			if !(turbojpeg.Decoder{}).Stretch(data, width, height, lo, far, &values, out, threads) {
				continue
			}
			if wrong != nil {
				t.Fatalf("%d threads: a file of which Decode says %v", threads, wrong)
			}
			for i, got := range out {
				c, y, x := i/(int(w)*int(h)), i/int(w)%int(h), i%int(w)
				value := func(dy, dx int32) float32 {
					return values[c][pix[3*(int(lo[1][y]+dy)*width+int(lo[0][x]+dx))+c]]
				}
				near, down := 1-far[0][x], 1-far[1][y]
				top := float32(near*value(0, 0)) + float32(far[0][x]*value(0, 1))
				bottom := float32(near*value(1, 0)) + float32(far[0][x]*value(1, 1))
				if want := float32(down*top) + float32(far[1][y]*bottom); got != want {
					t.Fatalf("%d threads, %d x %d of %d x %d: %g at %d %d %d, want %g", threads, w, h, width, height,
						got, c, y, x, want)
				}
			}
		}
	})
}
