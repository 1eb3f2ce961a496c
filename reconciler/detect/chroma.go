package detect

import (
	"image"
	"image/color"
)

// Most JPEG files keep colour at half the size. Go's decoder leaves the other
// half to the reader; libjpeg, by which training sees its images, interpolates.
// So this does what libjpeg does ("fancy upsampling"), to the last bit of its
// rounding, and a model meets the pixels that it was trained on.

// ycbcrRows returns a function that writes row y of a decoded JPEG as RGB.
func ycbcrRows(m *image.YCbCr) func(y int, rgb []uint8) {
	w, h := m.Rect.Dx(), m.Rect.Dy()
	// Two more than w, for an odd width's last pair.
	cb, cr := make([]uint8, w+2), make([]uint8, w+2)
	sums := make([]int, w+2)
	enlarge := func(plane []uint8, y int, out []uint8) {
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
			widen(sums[:half], 1, 2, 2, out)
		case m.SubsampleRatio == image.YCbCrSubsampleRatio420 && half > 2:
			near, far := row(y/2), row(neighbour(y, (h+1)/2))
			for x := range half {
				sums[x] = 3*int(near[x]) + int(far[x])
			}
			widen(sums[:half], 8, 7, 4, out)
		default: // rare ratios, which libjpeg repeats too
			for x := range w {
				out[x] = plane[m.COffset(x, y)]
			}
		}
	}
	return func(y int, rgb []uint8) {
		enlarge(m.Cb, y, cb)
		enlarge(m.Cr, y, cr)
		luma := m.Y[y*m.YStride:]
		for x := range w {
			rgb[3*x], rgb[3*x+1], rgb[3*x+2] = color.YCbCrToRGB(luma[x], cb[x], cr[x])
		}
	}
}

// neighbour returns the row of a plane of half the height that lies nearest to
// row y of the image after row y/2.
func neighbour(y, rows int) int {
	if y%2 == 0 {
		return max(y/2-1, 0)
	}
	return min(y/2+1, rows-1)
}

// widen writes two pixels for each of in: three parts of it and one of its
// neighbour, then the sum shifted right. left and right are what is added
// before that, so that halves do not always round one way.
func widen(in []int, left, right, shift int, out []uint8) {
	last := len(in) - 1
	for i, v := range in {
		out[2*i] = uint8((3*v + in[max(i-1, 0)] + left) >> shift)
		out[2*i+1] = uint8((3*v + in[min(i+1, last)] + right) >> shift)
	}
}
