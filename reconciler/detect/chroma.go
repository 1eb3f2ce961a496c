package detect

import (
	"image"
	"image/color"
)

// Most JPEG files store chroma at half the resolution. Go's decoder does not upsample it. libjpeg,
// which training uses, interpolates ("fancy upsampling"). This code does the same, with the same
// rounding, so that a model gets the pixels that it was trained on.

// ycbcrRows returns a function that converts row y of a decoded JPEG to RGB.
func ycbcrRows(m *image.YCbCr) func(y int, rgb []uint8) {
	w, h := m.Rect.Dx(), m.Rect.Dy()
	// Two more than w, for the last pair of an odd width.
	cb, cr := make([]uint8, w+2), make([]uint8, w+2)
	sums := make([]int, w+2)
	upsample := func(plane []uint8, y int, out []uint8) {
		row := func(y int) []uint8 { return plane[y*m.CStride:] }
		half := (w + 1) / 2
		switch {
		case m.SubsampleRatio == image.YCbCrSubsampleRatio444:
			copy(out, row(y)[:w])
		case m.SubsampleRatio == image.YCbCrSubsampleRatio440:
			near, far := row(y/2), row(neighbour(y, (h+1)/2))
			for x := range w {
				out[x] = uint8((3*int(near[x]) + int(far[x]) + 1 + y%2) >> 2)
			}
		case m.SubsampleRatio == image.YCbCrSubsampleRatio422 && half > 2:
			near := row(y)
			for x := range half {
				sums[x] = int(near[x])
			}
			upsampleRow(sums[:half], 1, 2, 2, out)
		case m.SubsampleRatio == image.YCbCrSubsampleRatio420 && half > 2:
			near, far := row(y/2), row(neighbour(y, (h+1)/2))
			for x := range half {
				sums[x] = 3*int(near[x]) + int(far[x])
			}
			upsampleRow(sums[:half], 8, 7, 4, out)
		default: // rare ratios; libjpeg repeats pixels too
			for x := range w {
				out[x] = plane[m.COffset(x, y)]
			}
		}
	}
	return func(y int, rgb []uint8) {
		upsample(m.Cb, y, cb)
		upsample(m.Cr, y, cr)
		luma := m.Y[y*m.YStride:]
		for x := range w {
			rgb[3*x], rgb[3*x+1], rgb[3*x+2] = color.YCbCrToRGB(luma[x], cb[x], cr[x])
		}
	}
}

// neighbour returns the second nearest row, after row y/2, to row y of the image in a plane of half the height.
func neighbour(y, rows int) int {
	if y%2 == 0 {
		return max(y/2-1, 0)
	}
	return min(y/2+1, rows-1)
}

// upsampleRow writes two pixels for each value of in: (3 * value + neighbour + rounding) >> shift. left and right are
// the rounding terms of the two pixels; they differ so that halves are not always rounded in the same direction.
func upsampleRow(in []int, left, right, shift int, out []uint8) {
	last := len(in) - 1
	for i, v := range in {
		out[2*i] = uint8((3*v + in[max(i-1, 0)] + left) >> shift)
		out[2*i+1] = uint8((3*v + in[min(i+1, last)] + right) >> shift)
	}
}
