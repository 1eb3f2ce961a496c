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
