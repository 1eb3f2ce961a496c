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

// decodeImage decodes a JPEG or PNG file after checking its size in pixels. The caller calls release when it no longer
// needs the image.
func decodeImage(data []byte, decoder JPEG) (img image.Image, release func(), err error) {
	none := func() {}
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xd8")):
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
		return &rgbImage{pix, width, height}, func() { rgbBuffers.Put(buffer) }, nil
	case bytes.HasPrefix(data, []byte("\x89PNG\r\n\x1a\n")):
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

// toTensor returns the model's input for an image: CHW, stretched, normalised.
func toTensor(img image.Image, sig delivery.Signature) []float32 {
	w, h := sig.Width, sig.Height
	bounds := img.Bounds()
	across, down := resizeAxis(bounds.Dx(), w), resizeAxis(bounds.Dy(), h)
	var mean, std [3]float32
	for c := range 3 {
		mean[c], std[c] = float32(sig.Means[c]), float32(sig.Stds[c])
	}

	// Only the source rows that an output row mixes are read, and each is shrunk once: their numbers only increase.
	rows := rowReader(img)
	pixels := make([]uint8, 3*bounds.Dx())
	type shrunk struct {
		y   int
		rgb []float32
	}
	cache := [2]shrunk{{-1, make([]float32, 3*w)}, {-1, make([]float32, 3*w)}}
	row := func(y int) []float32 {
		entry := &cache[y&1] // the two rows of a mix are adjacent
		if entry.y != y {
			rows(y, pixels)
			across.apply(pixels, entry.rgb)
			entry.y = y
		}
		return entry.rgb
	}

	out := make([]float32, 3*w*h)
	for y := range h {
		m := down[y]
		top, bottom := row(m.lo), row(m.hi)
		for x := range w {
			for c := range 3 {
				v := float32(m.wlo*top[3*x+c]) + float32(m.whi*bottom[3*x+c])
				out[(c*h+y)*w+x] = (v - mean[c]) / std[c]
			}
		}
	}
	return out
}

// A mix says which two pixels of one axis an output pixel is computed from. The arithmetic is torch's,
// in float32 and in the same order. Each product is converted explicitly, so that no processor fuses
// it with the sum, which would round once instead of twice.
type mix struct {
	lo, hi   int
	wlo, whi float32
}

type axis []mix

func resizeAxis(in, out int) axis {
	scale := float32(in) / float32(out)
	a := make(axis, out)
	for i := range a {
		src := max(float32(scale*(float32(i)+0.5))-0.5, 0)
		lo := min(int(src), in-1)
		w := min(max(src-float32(lo), 0), 1)
		a[i] = mix{lo: lo, hi: min(lo+1, in-1), wlo: 1 - w, whi: w}
	}
	return a
}

// unit is byte / 255, rounded like a float32 division.
var unit = func() (t [256]float32) {
	for i := range t {
		t[i] = float32(i) / 255
	}
	return t
}()

func (a axis) apply(pixels []uint8, out []float32) {
	for i, m := range a {
		for c := range 3 {
			out[3*i+c] = float32(m.wlo*unit[pixels[3*m.lo+c]]) + float32(m.whi*unit[pixels[3*m.hi+c]])
		}
	}
}

// rowReader returns a function that writes row y of the image, counted from its top, as RGB bytes.
// Alpha is dropped, not blended.
func rowReader(img image.Image) func(y int, rgb []uint8) {
	b := img.Bounds()
	switch m := img.(type) {
	case *rgbImage:
		return func(y int, rgb []uint8) { copy(rgb, m.pix[3*m.width*y:][:3*m.width]) }
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
