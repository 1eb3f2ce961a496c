package dataset

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/semaphore"
)

// header is a PNG's first chunk.
func header(width, height uint32, depth, colour, interlace byte) []byte {
	chunk := []byte("IHDR")
	chunk = binary.BigEndian.AppendUint32(chunk, width)
	chunk = binary.BigEndian.AppendUint32(chunk, height)
	chunk = append(chunk, depth, colour, 0, 0, interlace)
	out := append([]byte("\x89PNG\r\n\x1a\n"), 0, 0, 0, 13)
	return binary.BigEndian.AppendUint32(append(out, chunk...), crc32.ChecksumIEEE(chunk))
}

func encoded(t *testing.T, m image.Image, format string) []byte {
	t.Helper()
	var b bytes.Buffer
	var err error
	if format == "png" {
		err = png.Encode(&b, m)
	} else {
		err = jpeg.Encode(&b, m, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestMemoryOfAnImageIsKnownBeforeItIsDecoded(t *testing.T) {
	small := image.Rect(0, 0, 8, 8)
	photo := encoded(t, image.NewRGBA(small), "jpeg")
	progressive := bytes.Replace(photo, []byte{0xff, 0xc0}, []byte{0xff, 0xc2}, 1)
	for name, test := range map[string]struct {
		data []byte
		want int64 // bytes of a pixel, times 2
	}{
		"gray":               {encoded(t, image.NewGray(small), "png"), 2},
		"gray, 16 bit":       {encoded(t, image.NewGray16(small), "png"), 4},
		"colour":             {encoded(t, image.NewRGBA(small), "png"), 8},
		"colour, 16 bit":     {encoded(t, image.NewNRGBA64(small), "png"), 16},
		"interlaced":         {header(8, 8, 8, 6, 1), 12},
		"interlaced, 16 bit": {header(8, 8, 16, 6, 1), 24},
		"palette": {encoded(t, image.NewPaletted(small, color.Palette{color.Black, color.White}), "png"),
			2},
		"photo":               {photo, 6},
		"photo, gray":         {encoded(t, image.NewGray(small), "jpeg"), 2},
		"photo, progressive":  {progressive, 30},
		"photo without frame": {photo[:2], 0},
	} {
		config, format, err := image.DecodeConfig(bytes.NewReader(test.data))
		if err != nil {
			if test.want != 0 {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if got := decoded(config, format, bytes.NewReader(test.data)); got != 64*test.want/2 {
			t.Errorf("%s takes %d bytes, want %d", name, got, 64*test.want/2)
		}
	}
}

// An image that takes too much is refused by its first bytes.
func TestImagesThatTakeTooMuchMemoryAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"a Git LFS pointer": {[]byte("version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 1\n"),
			"git lfs pull"},
		"many pixels":             {header(65535, 65535, 8, 6, 0), "want at most 67108864 in all"},
		"many bits":               {header(8192, 8192, 16, 6, 1), "8192 x 8192 pixels take 768MiB of memory"},
		"as large as is allowed":  {header(8192, 8192, 16, 6, 0), "damaged or truncated"},
		"as many as are allowed":  {header(8192, 8192, 8, 6, 0), "damaged or truncated"},
		"a line of many pixels":   {header(1<<31-1, 1, 8, 6, 0), "want at most 67108864 in all"},
		"pixels past all numbers": {header(1<<31-1, 1<<31-1, 16, 6, 1), "dimension overflow"},
	} {
		path := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(path, test.data, 0o600); err != nil {
			t.Fatal(err)
		}
		h := readHeader(bytes.NewReader(test.data))
		code, text := h.Code, h.Text
		if code == "" {
			picture, err := h.decode(t.Context(), func() (*os.File, error) { return os.Open(path) }, false,
				semaphore.NewWeighted(memory))
			if err != nil {
				t.Fatal(err)
			}
			code, text = picture.Code, picture.Text
		}
		if code == "" || !strings.Contains(text, test.want) {
			t.Errorf("%s: %s, %s; want %s", name, code, text, test.want)
		}
	}
}

// All workers together take no more than the budget.
func TestWorkersShareTheMemory(t *testing.T) {
	free := semaphore.NewWeighted(memory)
	var taken, most atomic.Int64
	done := make(chan error)
	for i := range 16 {
		need := int64(memory / (1 + i%4))
		go func() {
			done <- spend(t.Context(), free, need, func() {
				now := taken.Add(need)
				for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
				}
				taken.Add(-need)
			})
		}()
	}
	for range 16 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if most.Load() > memory {
		t.Errorf("%d bytes at one time", most.Load())
	}
}

func FuzzSpecial(f *testing.F) {
	f.Add("png", header(8, 8, 8, 6, 1))
	f.Add("jpeg", []byte{0xff, 0xd8, 0xff, 0xe0, 0, 2, 0xff, 0xff, 0xc2})
	f.Fuzz(func(t *testing.T, format string, data []byte) {
		special(format, bytes.NewReader(data))
	})
}
