package detect

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"runtime/debug"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/autonomos/aob/reconciler/delivery"
)

// An imageDecoder decodes images, as many at the same time as memory has room for: a file of some kilobytes can have
// pixels of half a gigabyte, and above the limit of its memory this process ends.
type imageDecoder struct {
	jpeg JPEG
	room *semaphore.Weighted
	size int64
}

// newDecoder takes a quarter of the process's memory limit for images.
func newDecoder(jpeg JPEG, memory delivery.Bytes) imageDecoder {
	size := int64(1 << 30)
	if memory > 0 {
		size = int64(memory) / 4
	}
	return imageDecoder{jpeg, semaphore.NewWeighted(size), size}
}

// largeImage is the memory of an image that is given back to the system at once, in bytes.
const largeImage = 64 << 20

// smallImage is the memory of an image that waits for no room, in bytes: 4 Mpx.
const smallImage = 16 << 20

// quickImage is an image that takes no longer to decode than a JPEG file of so many pixels.
const quickImage = 4 << 20

// reserve waits for room for an image's pixels, and free gives it back; it may be called again. Small images do not
// wait behind large ones. slow says that an image takes so long to decode that others should not wait for it. A wrong
// image is an *ImageError without a path.
func (d imageDecoder) reserve(ctx context.Context, data []byte) (free func(), slow bool, err error) {
	need, work, err := costOf(data, d.jpeg)
	if err == nil && need > d.size {
		err = fmt.Errorf("its pixels take %s of memory, and this process has %s for images",
			delivery.Bytes(need>>20<<20), delivery.Bytes(d.size>>20<<20))
	}
	if err != nil {
		return nil, false, &ImageError{Why: err.Error()}
	}
	if need <= smallImage {
		return func() {}, work > quickImage, nil
	}
	if err := d.room.Acquire(ctx, need); err != nil {
		return nil, true, context.Cause(ctx)
	}
	return sync.OnceFunc(func() {
		if need >= largeImage {
			debug.FreeOSMemory() // the next one may be as large
		}
		d.room.Release(need)
	}), true, nil
}

// fill is reserve and fillOfFile on one thread.
func (d imageDecoder) fill(ctx context.Context, data []byte, sig delivery.Signature, out []float32) (filled, error) {
	free, _, err := d.reserve(ctx, data)
	if err != nil {
		return filled{}, err
	}
	defer free()
	f, err := fillOfFile(data, d.jpeg, sig, out, 1)
	if err != nil {
		return f, &ImageError{Why: err.Error()}
	}
	return f, nil
}

// maxScanned limits the pixels of all scans of a JPEG file together. Files of cameras have 1 to 12 scans.
const maxScanned = 16 * MaxPixels

// costOf returns how many bytes decoding an image takes, by its header, and how much time: as much as a JPEG file of so
// many pixels. What is no image takes none.
func costOf(data []byte, decoder JPEG) (memory, work int64, err error) {
	switch {
	case bytes.HasPrefix(data, jpegStart):
		width, height, err := decoder.Size(data)
		if err == nil {
			err = checkSize(width, height)
		}
		if err != nil {
			return 0, 0, imageError("JPEG", err)
		}
		pixels := int64(width) * int64(height)
		scans := scansOf(data)
		if pixels*int64(scans) > maxScanned {
			return 0, 0, fmt.Errorf("JPEG of %d x %d pixels in %d scans, want at most %d Mpx in all scans together",
				width, height, scans, maxScanned>>20)
		}
		if scans > 1 { // the library keeps the coefficients of three channels until the last scan
			return pixels * (4 + 3*2), pixels * int64(scans), nil
		}
		return pixels * 4, pixels, nil // CMYK has four
	case bytes.HasPrefix(data, pngStart) && len(data) >= 29:
		// The header has width, height, depth, colour type, compression, filter and interlace.
		width, height := binary.BigEndian.Uint32(data[16:]), binary.BigEndian.Uint32(data[20:])
		if err := checkSize(int(width), int(height)); err != nil {
			return 0, 0, imageError("PNG", err)
		}
		const slower = 8 // Go's decoder is so many times
		pixels := int64(width) * int64(height)
		need := pixels * 4
		if depth := data[24]; depth == 16 {
			need *= 2
		}
		if interlace := data[28]; interlace != 0 {
			need *= 2
		}
		return need, slower * pixels, nil
	}
	return 0, 0, nil
}

// scansOf counts the scans of a JPEG file. Segments before the first are skipped: they may contain another picture.
func scansOf(data []byte) int {
	scan := []byte("\xff\xda")
	for rest := data[len(jpegStart):]; len(rest) >= 4 && rest[0] == 0xff; {
		if rest[1] == scan[1] {
			return bytes.Count(rest, scan)
		}
		size := 2 + int(binary.BigEndian.Uint16(rest[2:]))
		if size > len(rest) {
			break
		}
		rest = rest[size:]
	}
	return bytes.Count(data, scan) // its segments do not follow each other
}
