package dataset

import (
	"bufio"
	"context"
	"errors"
	"image"
	"image/color"
	"io"
	"runtime/debug"

	"golang.org/x/sync/semaphore"
)

// A small file can decode to a large image. So the memory of one decoded image, and of
// all images that are decoded at one time, is bounded.
const (
	maxMemory  = 512 << 20 // bytes of one image
	memory     = maxMemory // of all workers together; enough for the largest image alone
	largeImage = 64 << 20  // memory of a larger image is returned to the system at once
)

// spend reserves need bytes of free while work runs. It waits until they are free.
func spend(ctx context.Context, free *semaphore.Weighted, need int64, work func()) error {
	if err := free.Acquire(ctx, need); err != nil {
		return err
	}
	defer free.Release(need)
	work()
	if need >= largeImage {
		debug.FreeOSMemory()
	}
	return nil
}

// decoded returns the peak memory of decoding an image, in bytes, from its header. The
// caller must have checked the image's size.
func decoded(config image.Config, format string, file io.Reader) int64 {
	pixels := int64(config.Width) * int64(config.Height)
	channels := int64(3)
	var each int64
	switch config.ColorModel {
	case color.GrayModel:
		channels, each = 1, 1
	case color.Gray16Model:
		each = 2
	case color.RGBA64Model, color.NRGBA64Model:
		each = 8
	case color.YCbCrModel:
		each = 3
	case color.CMYKModel:
		channels, each = 4, 8 // it is turned into another image of the same size
	default:
		each = 4
		if _, ok := config.ColorModel.(color.Palette); ok {
			each = 1
		}
		if format == "jpeg" {
			each = 7 // as CMYK
		}
	}
	special, err := special(format, file)
	switch {
	case err != nil || !special:
	case format == "jpeg": // progressive: a number of four bytes for each channel
		each += 4 * channels
	default: // interlaced: a second image of half the size
		return pixels*each + pixels*each/2
	}
	return pixels * each
}

// special reports whether a JPEG is progressive, or a PNG interlaced: decoding
// those takes more. An error is left to the decoder.
func special(format string, file io.Reader) (bool, error) {
	r := bufio.NewReader(file)
	if format == "png" {
		const interlace = 28 // after the signature, in the first chunk
		head := make([]byte, interlace+1)
		_, err := io.ReadFull(r, head)
		return err == nil && head[interlace] != 0, err
	}
	if _, err := r.Discard(2); err != nil { // start of image
		return false, err
	}
	for {
		marker, err := r.ReadByte()
		if err != nil {
			return false, err
		}
		if marker != 0xff {
			continue
		}
		for marker == 0xff {
			if marker, err = r.ReadByte(); err != nil {
				return false, err
			}
		}
		switch {
		case marker == 0 || marker == 1 || marker >= 0xd0 && marker <= 0xd8: // without content
			continue
		case marker == 0xc2:
			return true, nil
		case marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 &&
			marker != 0xcc, marker == 0xd9, marker == 0xda:
			return false, nil // another kind of frame, or there is none
		}
		var length [2]byte
		if _, err := io.ReadFull(r, length[:]); err != nil {
			return false, err
		}
		n := int(length[0])<<8 | int(length[1])
		if n < 2 {
			return false, errors.New("a segment is shorter than its length")
		}
		if _, err := r.Discard(n - 2); err != nil {
			return false, err
		}
	}
}
