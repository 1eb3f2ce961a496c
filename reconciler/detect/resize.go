package detect

import (
	"image"
	"math"

	"github.com/autonomos/aob/reconciler/delivery"
)

// The ways to resize, by Resize.DType and Resize.Antialias. Each stretches the image to the input's size with
// half-pixel centres.
//
//   - float32: torch's interpolate(mode="bilinear", align_corners=False) on bytes times the scale. RF-DETR's predict().
//   - float32 with antialias: the same with antialias=True: when the image shrinks, an output pixel is the weighted
//     mean of all pixels below a triangle.
//   - uint8: the first on bytes, rounded to bytes before the scale (half to even), as torchvision's resize does it for
//     tensors of bytes. OpenCV's INTER_LINEAR differs by at most 1 of 255.
//   - uint8 with antialias: Pillow's resize(BILINEAR), to the last bit: integer arithmetic with 22 bits of fraction,
//     and bytes between the horizontal and the vertical pass.
//
// The arithmetic on floats is torch's, in float32 and in the same order. Each product is converted explicitly, so that
// no processor fuses it with the sum, which would round once instead of twice.

// toTensor returns the model's input for an image: CHW, stretched, scaled, normalised.
func toTensor(img image.Image, sig delivery.Signature) []float32 {
	out := make([]float32, 3*sig.Width*sig.Height)
	fillTensor(img, sig, out)
	return out
}

// fillTensor is toTensor into memory that is there. It sets every number.
func fillTensor(img image.Image, sig delivery.Signature, out []float32) {
	w, h := sig.Width, sig.Height
	var mean, std [3]float32
	for c := range 3 {
		mean[c], std[c] = float32(sig.Means[c]), float32(sig.Stds[c])
	}
	scaled := scaledBytes(sig.Scale)
	red, green, blue := out[:w*h], out[w*h:2*w*h], out[2*w*h:]
	put := func(y int, row []float32) { // RGB, scaled
		r, g, b := red[y*w:][:w], green[y*w:][:w], blue[y*w:][:w]
		for x := range w {
			p := row[3*x:][:3]
			r[x], g[x], b[x] = (p[0]-mean[0])/std[0], (p[1]-mean[1])/std[1], (p[2]-mean[2])/std[2]
		}
	}
	switch bytes := sig.Resize.DType == "uint8"; {
	case bytes && sig.Resize.Antialias:
		row := make([]float32, 3*w)
		shrinkBytes(img, w, h, func(y int, pixels []uint8) {
			for i, v := range pixels {
				row[i] = scaled[v]
			}
			put(y, row)
		})
	case sig.Resize.Antialias:
		shrinkFloats(img, w, h, &scaled, put)
	case bytes:
		whole := scaledBytes(1)
		interpolate(img, w, h, &whole, func(y int, row []float32) {
			for i, v := range row {
				row[i] = scaled[uint8(math.RoundToEven(float64(v)))]
			}
			put(y, row)
		})
	default:
		interpolate(img, w, h, &scaled, put)
	}
}

// scaledBytes is each byte times the scale; 0 stands for 1/255, which is a division, as in torch.
func scaledBytes(scale float64) (table [256]float32) {
	for i := range table {
		if scale == 0 {
			table[i] = float32(i) / 255
		} else {
			table[i] = float32(i) * float32(scale)
		}
	}
	return table
}

// interpolate resizes without antialias. row has 3*w numbers, which put may overwrite.
func interpolate(img image.Image, w, h int, value *[256]float32, put func(y int, row []float32)) {
	bounds := img.Bounds()
	across, down := mixes(bounds.Dx(), w), mixes(bounds.Dy(), h)
	// Only the source rows that an output row mixes are read, and each is resized once: their numbers only increase.
	rows := rowReader(img)
	type resized struct {
		y   int
		rgb []float32
	}
	cache := [2]resized{{-1, make([]float32, 3*w)}, {-1, make([]float32, 3*w)}}
	row := func(y int) []float32 {
		entry := &cache[y&1] // the two rows of a mix are adjacent
		if entry.y != y {
			mixRow(across, rows(y), value, entry.rgb)
			entry.y = y
		}
		return entry.rgb
	}
	mixed := make([]float32, 3*w)
	for y, m := range down {
		top, bottom := row(m.lo)[:len(mixed)], row(m.hi)[:len(mixed)]
		for i := range mixed {
			mixed[i] = float32(m.wlo*top[i]) + float32(m.whi*bottom[i])
		}
		put(y, mixed)
	}
}

// A mix says which two pixels of one axis an output pixel is computed from.
type mix struct {
	lo, hi   int
	wlo, whi float32
}

func mixes(in, out int) []mix {
	scale := float32(in) / float32(out)
	list := make([]mix, out)
	for i := range list {
		src := max(float32(scale*(float32(i)+0.5))-0.5, 0)
		lo := min(int(src), in-1)
		w := min(max(src-float32(lo), 0), 1)
		list[i] = mix{lo: lo, hi: min(lo+1, in-1), wlo: 1 - w, whi: w}
	}
	return list
}

func mixRow(across []mix, pixels []uint8, value *[256]float32, out []float32) {
	for i, m := range across {
		lo, hi, o := pixels[3*m.lo:][:3], pixels[3*m.hi:][:3], out[3*i:][:3]
		o[0] = float32(m.wlo*value[lo[0]]) + float32(m.whi*value[hi[0]])
		o[1] = float32(m.wlo*value[lo[1]]) + float32(m.whi*value[hi[1]])
		o[2] = float32(m.wlo*value[lo[2]]) + float32(m.whi*value[hi[2]])
	}
}

// A window says which pixels of one axis, from start on, an output pixel is the weighted sum of.
type window[T float32 | int32] struct {
	start   int
	weights []T
}

// shrinkFloats resizes with antialias as torch does it on floats: its _compute_weights_aa in float32, the horizontal
// pass first.
func shrinkFloats(img image.Image, w, h int, value *[256]float32, put func(y int, row []float32)) {
	bounds := img.Bounds()
	across, down := floatWindows(bounds.Dx(), w), floatWindows(bounds.Dy(), h)
	rows := rowReader(img)
	narrow := make([]float32, 3*w*bounds.Dy())
	for y := range bounds.Dy() {
		pixels, out := rows(y), narrow[3*w*y:][:3*w]
		for x, win := range across {
			for c := range 3 {
				var sum float32
				for i, weight := range win.weights {
					sum += float32(weight * value[pixels[3*(win.start+i)+c]])
				}
				out[3*x+c] = sum
			}
		}
	}
	row := make([]float32, 3*w)
	for y, win := range down {
		clear(row)
		for i, weight := range win.weights {
			from := narrow[3*w*(win.start+i):][:len(row)]
			for x := range row {
				row[x] += float32(weight * from[x])
			}
		}
		put(y, row)
	}
}

func floatWindows(in, out int) []window[float32] {
	scale := float32(in) / float32(out)
	stretch := max(scale, 1)
	list := make([]window[float32], out)
	for i := range list {
		centre := float32(scale * (float32(i) + 0.5))
		start := max(int(centre-stretch+0.5), 0)
		weights := make([]float32, min(int(centre+stretch+0.5), in)-start)
		var sum float32
		for j := range weights {
			weights[j] = max(1-float32(math.Abs(float64((float32(j+start)-centre+0.5)/stretch))), 0)
			sum += weights[j]
		}
		for j := range weights {
			weights[j] /= sum
		}
		list[i] = window[float32]{start, weights}
	}
	return list
}

// shrinkBytes resizes with antialias as Pillow does it (Resample.c).
func shrinkBytes(img image.Image, w, h int, put func(y int, row []uint8)) {
	bounds := img.Bounds()
	across, down := byteWindows(bounds.Dx(), w), byteWindows(bounds.Dy(), h)
	rows := rowReader(img)
	narrow := make([]uint8, 3*w*bounds.Dy())
	for y := range bounds.Dy() {
		pixels, out := rows(y), narrow[3*w*y:][:3*w]
		for x, win := range across {
			for c := range 3 {
				sum := int32(half)
				for i, weight := range win.weights {
					sum += int32(pixels[3*(win.start+i)+c]) * weight
				}
				out[3*x+c] = clip8(sum)
			}
		}
	}
	sums, row := make([]int32, 3*w), make([]uint8, 3*w)
	for y, win := range down {
		for x := range sums {
			sums[x] = half
		}
		for i, weight := range win.weights {
			from := narrow[3*w*(win.start+i):][:len(sums)]
			for x := range sums {
				sums[x] += int32(from[x]) * weight
			}
		}
		for x, sum := range sums {
			row[x] = clip8(sum)
		}
		put(y, row)
	}
}

// fraction is the number of bits after the point of Pillow's weights, and half rounds.
const (
	fraction = 32 - 8 - 2
	half     = 1 << (fraction - 1)
)

func clip8(sum int32) uint8 { return uint8(min(max(sum>>fraction, 0), 255)) }

func byteWindows(in, out int) []window[int32] {
	scale := float64(in) / float64(out)
	stretch := max(scale, 1)
	list := make([]window[int32], out)
	for i := range list {
		centre := (float64(i) + 0.5) * scale
		start := max(int(centre-stretch+0.5), 0)
		exact := make([]float64, min(int(centre+stretch+0.5), in)-start)
		sum := 0.0
		for j := range exact {
			exact[j] = max(1-math.Abs((float64(j+start)-centre+0.5)*(1/stretch)), 0)
			sum += exact[j]
		}
		weights := make([]int32, len(exact))
		for j, v := range exact {
			if sum != 0 {
				v /= sum
			}
			weights[j] = int32(0.5 + float64(v*(1<<fraction)))
		}
		list[i] = window[int32]{start, weights}
	}
	return list
}
