package detect

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// pngHead is a PNG file that ends after its header.
func pngHead(width, height uint32, depth, colour, interlace byte) []byte {
	chunk := binary.BigEndian.AppendUint32(append([]byte("IHDR"), 0, 0, 0, 0)[:4], width)
	chunk = append(binary.BigEndian.AppendUint32(chunk, height), depth, colour, 0, 0, interlace)
	file := append(bytes.Clone(pngStart), 0, 0, 0, 13)
	return binary.BigEndian.AppendUint32(append(file, chunk...), crc32.ChecksumIEEE(chunk))
}

// What memory has no room for is refused by its header, however small the file is.
func TestImagesLargerThanMemory(t *testing.T) {
	jpeg := read(t, "picture.jpg") // 67 x 51
	scan := bytes.Index(jpeg, []byte("\xff\xda"))
	scans := func(n int) []byte {
		one := jpeg[scan:][:2+binary.BigEndian.Uint16(jpeg[scan+2:])]
		return append(bytes.Clone(jpeg[:scan]), bytes.Repeat(one, n)...)
	}
	large := bytes.Clone(scans(20))
	frame := bytes.Index(large, []byte("\xff\xc0"))
	copy(large[frame+5:], "\x1f\x40\x1f\x40") // 8000 x 8000
	thumbnail := append([]byte("\xff\xd8\xff\xe1\x00\x0a\xff\xda\xff\xda\xff\xda\xff\xda"), jpeg[2:]...)
	for _, c := range []struct {
		name   string
		data   []byte
		memory delivery.Bytes
		need   int64
		want   string // of the error
	}{
		{"JPEG", jpeg, 1 << 30, 67 * 51 * 4, ""},
		{"JPEG with a thumbnail", thumbnail, 1 << 30, 67 * 51 * 4, ""},
		{"JPEG in scans", scans(10), 1 << 30, 67 * 51 * 10, "truncated"},
		{"a large JPEG in many scans", large, 0, 0, "8000 x 8000 pixels in 20 scans"},
		{"PNG", read(t, "picture.png"), 1 << 30, 67 * 51 * 4, ""},
		{"a large PNG", pngHead(8192, 8192, 8, 2, 0), 1 << 30, 256 << 20, "truncated"},
		{"a large PNG of 16 bits", pngHead(8192, 8192, 16, 6, 0), 1 << 30, 512 << 20,
			"512MiB of memory, and this process has 256MiB"},
		{"an interlaced PNG of 16 bits", pngHead(8192, 8192, 16, 6, 1), 0, 1 << 30, "truncated"},
		{"a PNG of too many pixels", pngHead(1<<31, 1<<31, 8, 2, 0), 0, 0, "want at most 64 Mpx"},
		{"a PNG's start", pngStart, 0, 0, "truncated"},
		{"a JPEG's start", jpegStart, 0, 0, "truncated"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if need, _, err := costOf(c.data, decoder); need != c.need {
				t.Errorf("%d bytes, %v; want %d", need, err, c.need)
			}
			d := newDecoder(decoder, c.memory)
			sig := testSignature()
			_, err := d.fill(t.Context(), c.data, sig, make([]float32, 3*sig.Width*sig.Height))
			bad, ok := errors.AsType[*ImageError](err)
			if (err == nil) != (c.want == "") || err != nil && (!ok || !strings.Contains(bad.Why, c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if !d.room.TryAcquire(d.size) {
				t.Error("the room is not free again")
			}
		})
	}
}

// No other image waits for one that takes long to decode, however little memory that takes.
func TestSlowImages(t *testing.T) {
	jpeg := read(t, "picture.jpg")
	scan, frame := bytes.Index(jpeg, []byte("\xff\xda")), bytes.Index(jpeg, []byte("\xff\xc0"))
	sized := func(width, height uint16, scans int) []byte {
		file := append(bytes.Clone(jpeg[:scan]), bytes.Repeat(jpeg[scan:], scans)...)
		binary.BigEndian.PutUint16(file[frame+5:], height)
		binary.BigEndian.PutUint16(file[frame+7:], width)
		return file
	}
	d := newDecoder(decoder, 1<<30)
	for name, c := range map[string]struct {
		data []byte
		slow bool
	}{
		"JPEG":                 {sized(2000, 2000, 1), false},
		"a large JPEG":         {sized(3000, 2000, 1), true},
		"JPEG in 4 scans":      {sized(1000, 1000, 4), false},
		"JPEG in 20 scans":     {sized(1000, 1000, 20), true},
		"PNG":                  {pngHead(640, 480, 8, 2, 0), false},
		"PNG of a megapixel":   {pngHead(1000, 1000, 8, 2, 0), true},
		"what is no image":     {[]byte("text"), false},
		"an image of no bytes": {nil, false},
	} {
		free, slow, err := d.reserve(t.Context(), c.data)
		if err != nil || slow != c.slow {
			t.Errorf("%s: slow is %v, %v", name, slow, err)
			continue
		}
		free()
	}
}

// An image waits until those before it have given their memory back, and its caller can leave.
func TestImagesWaitForRoom(t *testing.T) {
	d := newDecoder(decoder, 1<<30)
	if !d.room.TryAcquire(d.size) {
		t.Fatal("no room")
	}
	ctx, leave := context.WithCancel(t.Context())
	leave()
	large := pngHead(4096, 4096, 8, 2, 0)
	if _, _, err := d.reserve(ctx, large); !errors.Is(err, context.Canceled) {
		t.Errorf("without room: %v", err)
	}
	sig := testSignature()
	tensor := make([]float32, 3*sig.Width*sig.Height)
	if _, err := d.fill(t.Context(), read(t, "picture.jpg"), sig, tensor); err != nil {
		t.Errorf("a small one waits: %v", err)
	}
	d.room.Release(d.size)
	free, _, err := d.reserve(t.Context(), large)
	if err != nil {
		t.Fatal(err)
	}
	free()
	free()
	if !d.room.TryAcquire(d.size) {
		t.Error("the room is not free again")
	}
}
