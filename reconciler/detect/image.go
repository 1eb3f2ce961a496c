package detect

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"sync"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A JPEG decodes JPEG files. Its methods may be called from any goroutine. Package turbojpeg implements it.
type JPEG interface {
	// Size returns the size in pixels from the file's header.
	Size(data []byte) (width, height int, err error)
	// Decode returns the pixels as RGB bytes, row by row from the top. It may use the memory of buffer for them.
	Decode(data, buffer []byte) (rgb []byte, width, height int, err error)
	// Stretch does what Decode and a resize of its pixels do, in less time: out has three planes, and each number mixes
	// the pixels lo and lo+1 of the rows lo and lo+1, with the shares far of the next; the first of lo and far is
	// across, the second down. values has the number of each byte of each channel. With more threads than one, two
	// compute. It returns false where it cannot: then out has no meaning, and Decode says what the file is.
	Stretch(data []byte, width, height int, lo [2][]int32, far [2][]float32, values *[3][256]float32, out []float32,
		threads int) bool
}

// rgbImage has 3 bytes a pixel, row by row.
type rgbImage struct {
	pix           []byte
	width, height int
}

// Of image.Image, only the size is used.
func (m *rgbImage) ColorModel() color.Model { return color.NRGBAModel }
func (m *rgbImage) Bounds() image.Rectangle { return image.Rect(0, 0, m.width, m.height) }
func (m *rgbImage) At(x, y int) color.Color {
	p := m.pix[3*(y*m.width+x):]
	return color.NRGBA{p[0], p[1], p[2], 255}
}

// rgbBuffers has the memory of decoded JPEG files, which are large and of equal sizes.
var rgbBuffers = sync.Pool{New: func() any { return new([]byte) }}

// How files begin.
var (
	jpegStart = []byte("\xff\xd8")
	pngStart  = []byte("\x89PNG\r\n\x1a\n")
)

// decodeImage decodes a JPEG or PNG file after checking its size in pixels. The caller calls release when it no longer
// needs the image.
func decodeImage(data []byte, decoder JPEG) (img image.Image, release func(), err error) {
	none := func() {}
	switch {
	case bytes.HasPrefix(data, jpegStart):
		width, height, err := decoder.Size(data)
		if err == nil {
			err = checkSize(width, height)
		}
		if err != nil {
			return nil, none, imageError("JPEG", err)
		}
		buffer := rgbBuffers.Get().(*[]byte)
		pix, width, height, err := decoder.Decode(data, *buffer)
		if err != nil {
			rgbBuffers.Put(buffer)
			return nil, none, imageError("JPEG", err)
		}
		*buffer = pix
		return &rgbImage{pix, width, height}, func() {
			if cap(*buffer) >= largeImage {
				*buffer = nil
			}
			rgbBuffers.Put(buffer)
		}, nil
	case bytes.HasPrefix(data, pngStart):
		config, err := png.DecodeConfig(bytes.NewReader(data))
		if err == nil {
			err = checkSize(config.Width, config.Height)
		}
		if err == nil {
			img, err = png.Decode(bytes.NewReader(data))
		}
		if err != nil {
			return nil, none, imageError("PNG", err)
		}
		return img, none, nil
	case len(data) == 0:
		return nil, none, errors.New("empty file")
	}
	return nil, none, errors.New("neither JPEG nor PNG")
}

// A sizeError is a size in pixels that is not accepted.
type sizeError struct{ width, height int }

func (e sizeError) Error() string {
	if e.width <= 0 || e.height <= 0 {
		return fmt.Sprintf("%d x %d pixels", e.width, e.height)
	}
	return fmt.Sprintf("%d x %d pixels, want at most %d Mpx", e.width, e.height, MaxPixels>>20)
}

func checkSize(width, height int) error {
	if width <= 0 || height <= 0 || int64(width)*int64(height) > MaxPixels {
		return sizeError{width, height}
	}
	return nil
}

func imageError(format string, err error) error {
	if size, ok := errors.AsType[sizeError](err); ok {
		return fmt.Errorf("%s of %w", format, size)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fmt.Errorf("truncated %s", format)
	}
	return fmt.Errorf("truncated or malformed %s: %w", format, err)
}

// rowReader returns a function that returns row y of the image, counted from its top, as RGB bytes. They are valid
// until the next call. Alpha is dropped, not blended.
func rowReader(img image.Image) func(y int) []uint8 {
	b := img.Bounds()
	if m, ok := img.(*rgbImage); ok {
		return func(y int) []uint8 { return m.pix[3*m.width*y:][:3*m.width] }
	}
	rgb := make([]uint8, 3*b.Dx())
	read := rowCopier(img)
	return func(y int) []uint8 {
		read(y, rgb)
		return rgb
	}
}

// rowCopier returns a function that writes row y of an image that Go's decoder of PNG made.
func rowCopier(img image.Image) func(y int, rgb []uint8) {
	b := img.Bounds()
	switch m := img.(type) {
	case *image.Gray:
		return func(y int, rgb []uint8) {
			for x, v := range m.Pix[y*m.Stride:][:b.Dx()] {
				rgb[3*x], rgb[3*x+1], rgb[3*x+2] = v, v, v
			}
		}
	case *image.NRGBA:
		return func(y int, rgb []uint8) { copyChannels(m.Pix[y*m.Stride:], rgb, 4, 1) }
	case *image.RGBA: // the decoder uses it only for images without alpha
		return func(y int, rgb []uint8) { copyChannels(m.Pix[y*m.Stride:], rgb, 4, 1) }
	case *image.NRGBA64:
		return func(y int, rgb []uint8) { copyChannels(m.Pix[y*m.Stride:], rgb, 8, 2) }
	case *image.Paletted:
		table := delivery.Each(m.Palette, withoutAlpha)
		return func(y int, rgb []uint8) {
			for x, i := range m.Pix[y*m.Stride:][:b.Dx()] {
				var c [3]uint8 // an index outside the palette is black
				if int(i) < len(table) {
					c = table[i]
				}
				copy(rgb[3*x:], c[:])
			}
		}
	}
	return func(y int, rgb []uint8) {
		for x := range b.Dx() {
			c := withoutAlpha(img.At(b.Min.X+x, b.Min.Y+y))
			copy(rgb[3*x:], c[:])
		}
	}
}

// copyChannels copies the first byte of the first three channels of each pixel. pixel is the size of a pixel
// in bytes, channel the size of a channel.
func copyChannels(pix, rgb []uint8, pixel, channel int) {
	for x := range len(rgb) / 3 {
		rgb[3*x], rgb[3*x+1], rgb[3*x+2] = pix[x*pixel], pix[x*pixel+channel], pix[x*pixel+2*channel]
	}
}

func withoutAlpha(c color.Color) [3]uint8 {
	if n, ok := c.(color.NRGBA); ok {
		return [3]uint8{n.R, n.G, n.B}
	}
	r, g, b, _ := c.RGBA()
	return [3]uint8{uint8(r >> 8), uint8(g >> 8), uint8(b >> 8)}
}
