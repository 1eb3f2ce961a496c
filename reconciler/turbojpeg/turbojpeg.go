// Package turbojpeg decodes JPEG files with libjpeg-turbo, the decoder of Pillow, OpenCV and torchvision. A model so
// sees the pixels that it was trained on, to the last bit. Go's own decoder differs from it by up to 4 of 255, and is
// slower.
//
// The library is linked statically (Debian and Ubuntu: libturbojpeg0-dev and libjpeg-dev). It is C code that reads
// untrusted files, so only aob-detect, a child process with limits, uses it.
package turbojpeg

/*
#cgo linux LDFLAGS: -l:libturbojpeg.a
#cgo darwin LDFLAGS: -lturbojpeg -ljpeg
#cgo CFLAGS: -std=c11 -O2
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <jpeglib.h>
#include <turbojpeg.h>
#include "stretch.h"

// The library keeps the text of a warning for the thread, and Go may call the next function on another one. So these
// two return it at once. text has room for JMSG_LENGTH_MAX bytes.
static int failed(tjhandle d, char *text) {
	strncpy(text, tjGetErrorStr2(d), JMSG_LENGTH_MAX - 1);
	text[JMSG_LENGTH_MAX - 1] = 0;
	return tjGetErrorCode(d) == TJERR_WARNING ? 1 : -1;
}

static int header(tjhandle d, const unsigned char *data, unsigned long size, int *w, int *h, int *space, char *text) {
	int sampling;
	return tjDecompressHeader3(d, data, size, w, h, &sampling, space) == 0 ? 0 : failed(d, text);
}

static int decompress(tjhandle d, const unsigned char *data, unsigned long size, unsigned char *pixels, int w, int h,
                      int format, int flags, char *text) {
	return tjDecompress2(d, data, size, pixels, w, 0, h, format, flags) == 0 ? 0 : failed(d, text);
}
*/
import "C"

import (
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"unsafe"
)

// A Decoder decodes JPEG files. It implements detect.JPEG. The zero value is ready to use, from any goroutine.
type Decoder struct{}

// A handle can be used by one goroutine at a time. It is reused, because a new one costs some microseconds.
type handle struct {
	c       C.tjhandle
	cleanup runtime.Cleanup
}

var handles = sync.Pool{New: func() any {
	h := &handle{c: C.tjInitDecompress()}
	h.cleanup = runtime.AddCleanup(h, destroy, h.c)
	return h
}}

func destroy(c C.tjhandle) {
	if c != nil { // nil: there was no memory for it
		C.tjDestroy(c)
	}
}

// done gives the handle back. One whose last file was wrong is destroyed: after an error in a file's header the library
// (2.1) goes on with that file's state, and would refuse the next file.
func (d *handle) done(err error) {
	if err == nil {
		handles.Put(d)
		return
	}
	d.cleanup.Stop()
	destroy(d.c)
}

// The slow, exact inverse DCT and interpolated chroma, as Pillow decodes; at most 500 scans, because each scan of a
// progressive file costs a pass over all pixels.
const flags = C.TJFLAG_ACCURATEDCT | C.TJFLAG_LIMITSCANS

// Size returns a JPEG file's size in pixels from its header.
func (Decoder) Size(data []byte) (width, height int, err error) {
	d := handles.Get().(*handle)
	defer func() { d.done(err) }()
	width, height, _, err = d.header(data)
	return width, height, err
}

func (d *handle) header(data []byte) (width, height int, space C.int, err error) {
	if d.c == nil {
		return 0, 0, 0, errors.New("no memory for a decoder")
	}
	if len(data) == 0 {
		return 0, 0, 0, io.ErrUnexpectedEOF
	}
	var w, h C.int
	var text [C.JMSG_LENGTH_MAX]C.char
	if C.header(d.c, (*C.uchar)(unsafe.SliceData(data)), C.ulong(len(data)), &w, &h, &space, &text[0]) < 0 {
		return 0, 0, 0, reason(&text)
	}
	if w < 1 || h < 1 { // the library does not reach the size, or returns it as it is
		return 0, 0, 0, io.ErrUnexpectedEOF
	}
	return int(w), int(h), space, nil
}

// Decode returns the pixels of a JPEG file as RGB bytes, row by row from its top. It uses the memory of buffer if
// that is large enough. CMYK becomes RGB as in Pillow. EXIF orientation and colour profiles are ignored.
//
// A file with wrong data is an error, also where libjpeg would fill the gap, and one that ends too early is an
// io.ErrUnexpectedEOF. Bytes between segments
// that do not belong there are skipped: some cameras write them.
func (Decoder) Decode(data, buffer []byte) (rgb []byte, width, height int, err error) {
	d := handles.Get().(*handle)
	defer func() { d.done(err) }()
	width, height, space, err := d.header(data)
	if err != nil {
		return nil, 0, 0, err
	}
	format, channels := C.int(C.TJPF_RGB), 3
	if space == C.TJCS_CMYK || space == C.TJCS_YCCK {
		format, channels = C.TJPF_CMYK, 4
	}
	if n := width * height * channels; cap(buffer) < n {
		buffer = make([]byte, n)
	} else {
		buffer = buffer[:n]
	}
	decode := func(more C.int) error {
		var text [C.JMSG_LENGTH_MAX]C.char
		if C.decompress(d.c, (*C.uchar)(unsafe.SliceData(data)), C.ulong(len(data)),
			(*C.uchar)(unsafe.SliceData(buffer)), C.int(width), C.int(height), format, flags|more, &text[0]) != 0 {
			return reason(&text)
		}
		return nil
	}
	err = decode(C.TJFLAG_STOPONWARNING)
	if isExtraneous(err) {
		if err = decode(0); isExtraneous(err) {
			err = nil
		}
	}
	if err != nil {
		return nil, 0, 0, err
	}
	if channels == 4 {
		buffer = rgbOfCMYK(buffer)
	}
	return buffer, width, height, nil
}

func isExtraneous(err error) bool {
	return err != nil && strings.Contains(err.Error(), "extraneous bytes before marker")
}

// reason is the error that a text of the library stands for.
func reason(message *[C.JMSG_LENGTH_MAX]C.char) error {
	text := C.GoString(&message[0])
	if strings.Contains(text, "Premature end of JPEG file") {
		return io.ErrUnexpectedEOF
	}
	return errors.New(strings.TrimPrefix(text, "Corrupt JPEG data: "))
}

// rgbOfCMYK converts in place, as Pillow's cmyk2rgb. JPEG files hold CMYK inverted, by Adobe's convention.
func rgbOfCMYK(cmyk []byte) []byte {
	n := len(cmyk) / 4
	for i := range n {
		k := int(cmyk[4*i+3])
		for c := range 3 {
			product := (255-int(cmyk[4*i+c]))*k + 128
			cmyk[3*i+c] = uint8(max(0, k-(product>>8+product)>>8))
		}
	}
	return cmyk[:3*n]
}

// Stretch decodes a file of a known size straight into a tensor of three planes. out[x, y] of a plane mixes the pixels
// lo[0][x] and lo[0][x]+1 of the rows lo[1][y] and lo[1][y]+1, of which the second has the share far, and the first the
// rest. values has the number of each byte of each channel. The numbers are those of a mix of the pixels of Decode, in
// less time: the pixels stay in the processor's cache. With more than one thread, two decode a part each.
//
// It returns false where the file is of a rarer kind than baseline JPEG in colour, or where anything is wrong with it.
// Then out has no meaning, and Decode says what the file is.
func (Decoder) Stretch(data []byte, width, height int, lo [2][]int32, far [2][]float32, values *[3][256]float32,
	out []float32, threads int) bool {
	w, h := len(lo[0]), len(lo[1])
	if len(data) == 0 || w == 0 || h == 0 || width < 2 || height < 2 || len(far[0]) != w || len(far[1]) != h ||
		len(out) != 3*w*h || !within(lo[0], width) || !within(lo[1], height) {
		return false
	}
	two := C.int(0)
	if threads > 1 {
		two = 1
	}
	return C.aob_stretch((*C.uchar)(unsafe.SliceData(data)), C.ulong(len(data)), C.int(width), C.int(height), C.int(w),
		C.int(h), (*C.int32_t)(&lo[0][0]), (*C.float)(&far[0][0]), (*C.int32_t)(&lo[1][0]), (*C.float)(&far[1][0]),
		(*C.float)(&values[0][0]), (*C.float)(&out[0]), two) != 0
}

// within says whether places never go back, and each has a next one below size.
func within(places []int32, size int) bool {
	last := int32(0)
	for _, p := range places {
		if p < last || int(p) > size-2 {
			return false
		}
		last = p
	}
	return true
}
