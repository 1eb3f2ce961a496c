// Package turbojpeg decodes JPEG files with libjpeg-turbo, the decoder of Pillow, OpenCV and torchvision. A model so
// sees the pixels that it was trained on, to the last bit. Go's own decoder differs from it by up to 4 of 255, and is
// slower.
//
// The library is linked statically (Debian and Ubuntu: libturbojpeg0-dev). It is C code that reads untrusted files, so
// only aob-detect, a child process with limits, uses it.
package turbojpeg

/*
#cgo linux LDFLAGS: -l:libturbojpeg.a
#cgo darwin LDFLAGS: -lturbojpeg
#include <turbojpeg.h>
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
	var w, h, sampling C.int
	if C.tjDecompressHeader3(d.c, (*C.uchar)(unsafe.SliceData(data)), C.ulong(len(data)), &w, &h, &sampling,
		&space) != 0 && C.tjGetErrorCode(d.c) != C.TJERR_WARNING {
		return 0, 0, 0, d.reason()
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
		if C.tjDecompress2(d.c, (*C.uchar)(unsafe.SliceData(data)), C.ulong(len(data)),
			(*C.uchar)(unsafe.SliceData(buffer)), C.int(width), 0, C.int(height), format, flags|more) != 0 {
			return d.reason()
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

// reason is the library's last error.
func (d *handle) reason() error {
	text := C.GoString(C.tjGetErrorStr2(d.c))
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
