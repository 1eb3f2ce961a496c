// Package stretch prepares images in the bare loops that the benchmarks measure AOB against.
package stretch

import "github.com/autonomos/aob/reconciler/delivery"

// Image resizes by bilinear interpolation with half-pixel centres, and normalises. rgb has three bytes for
// each pixel; out gets the planes of the three channels one after the other.
func Image(rgb []byte, width, height int, sig delivery.Signature, out []float32) {
	type tap struct {
		lo, hi int
		share  float32
	}
	taps := func(in, n int) []tap {
		list := make([]tap, n)
		for i := range list {
			at := max((float32(i)+0.5)*float32(in)/float32(n)-0.5, 0)
			lo := min(int(at), in-1)
			list[i] = tap{lo, min(lo+1, in-1), at - float32(lo)}
		}
		return list
	}
	across, down := taps(width, sig.Width), taps(height, sig.Height)
	for c := range 3 {
		scale, shift := 1/(255*float32(sig.Stds[c])), float32(sig.Means[c]/sig.Stds[c])
		plane := out[c*sig.Width*sig.Height:]
		for y, d := range down {
			top, bottom := rgb[3*d.lo*width+c:], rgb[3*d.hi*width+c:]
			row := plane[y*sig.Width:][:sig.Width]
			for x, a := range across {
				upper := float32(top[3*a.lo]) + a.share*(float32(top[3*a.hi])-float32(top[3*a.lo]))
				lower := float32(bottom[3*a.lo]) + a.share*(float32(bottom[3*a.hi])-float32(bottom[3*a.lo]))
				row[x] = (upper+d.share*(lower-upper))*scale - shift
			}
		}
	}
}
