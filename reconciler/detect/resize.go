package detect

import (
	"bytes"
	"image"
	"math"
	"slices"
	"time"

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
// The arithmetic on floats is torch's, in float32, but for one thing: bytes are scaled and normalised before they are
// mixed, and not after it, which is the same but for rounding (the weights of a mix have the sum 1) and takes half the
// time, because there are only 256 bytes. Each product is converted explicitly, so that no processor fuses it with the
// sum, which would round once instead of twice.

// toTensor returns the model's input for an image: CHW, stretched, scaled, normalised.
func toTensor(img image.Image, sig delivery.Signature) []float32 {
	out := make([]float32, 3*sig.Width*sig.Height)
	fillTensor(img, sig, out)
	return out
}

// fillOfFile decodes a file and writes its tensor, on the given number of threads. decode is the time of the first, or
// of both where they are one step. The error has no path.
func fillOfFile(data []byte, decoder JPEG, sig delivery.Signature, out []float32, threads int) (f filled, err error) {
	began := time.Now()
	if threads > 1 { // beside other runs, one step takes 4 % more CPU for a picture than two
		if f.width, f.height = stretched(data, decoder, sig, out, threads); f.width > 0 {
			f.pre = time.Since(began)
			f.decode = f.pre
			return f, nil
		}
	}
	img, release, err := decodeImage(data, decoder)
	if err != nil {
		return f, err
	}
	defer release()
	f.decode = time.Since(began)
	f.width, f.height = img.Bounds().Dx(), img.Bounds().Dy()
	fillTensor(img, sig, out)
	f.pre = time.Since(began)
	return f, nil
}

// stretched is fillOfFile for the resize of RF-DETR and a file that the decoder can stretch. The width is 0 where it is
// another. An image with fewer rows than the tensor is another one too: its rows would be mixed several times.
func stretched(data []byte, decoder JPEG, sig delivery.Signature, out []float32, threads int) (width, height int) {
	if sig.Resize.DType == "uint8" || sig.Resize.Antialias || !bytes.HasPrefix(data, jpegStart) {
		return 0, 0
	}
	width, height, err := decoder.Size(data)
	if err != nil || checkSize(width, height) != nil || width < 2 || height < max(2, sig.Height) {
		return 0, 0
	}
	var lo [2][]int32
	var far [2][]float32
	for axis, list := range [][]mix{mixes(width, sig.Width), mixes(height, sig.Height)} {
		for _, m := range list {
			lo[axis], far[axis] = append(lo[axis], int32(m.lo)), append(far[axis], m.whi)
		}
	}
	values := normalised(sig)
	if !decoder.Stretch(data, width, height, lo, far, (*[3][256]float32)(&values), out, threads) {
		return 0, 0
	}
	return width, height
}

// fillTensor is toTensor into memory that is there. It sets every number.
func fillTensor(img image.Image, sig delivery.Signature, out []float32) {
	w, h := sig.Width, sig.Height
	normal := normalised(sig)
	switch rounded := sig.Resize.DType == "uint8"; {
	case rounded && sig.Resize.Antialias:
		shrinkBytes(img, w, h, func(y int, pixels []uint8) {
			for c, table := range normal {
				row := out[(c*h+y)*w:][:w]
				for x := range row {
					row[x] = table[pixels[3*x+c]]
				}
			}
		})
	case sig.Resize.Antialias:
		shrinkFloats(img, w, h, &normal, out)
	case rounded:
		interpolate(img, w, h, &unchanged, out)
		for c, table := range normal {
			plane := out[c*w*h:][:w*h]
			for i, v := range plane {
				plane[i] = table[uint8(math.RoundToEven(float64(v)))]
			}
		}
	default:
		interpolate(img, w, h, &normal, out)
	}
}

// tables has a number for each byte of each channel.
type tables [3][256]float32

// normalised is each byte times the scale, minus the mean, by the standard deviation. The scale 0 stands for 1/255,
// which is a division, as in torch.
func normalised(sig delivery.Signature) (t tables) {
	for c := range t {
		mean, std := float32(sig.Means[c]), float32(sig.Stds[c])
		for i := range t[c] {
			v := float32(i) / 255
			if sig.Scale != 0 {
				v = float32(i) * float32(sig.Scale)
			}
			t[c][i] = (v - mean) / std
		}
	}
	return t
}

// unchanged is each byte itself.
var unchanged = func() (t tables) {
	for c := range t {
		for i := range t[c] {
			t[c][i] = float32(i)
		}
	}
	return t
}()

// interpolate resizes without antialias.
func interpolate(img image.Image, w, h int, values *tables, out []float32) {
	bounds := img.Bounds()
	across, down := mixes(bounds.Dx(), w), mixes(bounds.Dy(), h)
	// Only the source rows that an output row mixes are read, and each is resized once: their numbers only increase.
	rows := rowReader(img)
	if bounds.Dx() == 1 { // a mix reads two pixels
		read := rows
		rows = func(y int) []uint8 { pixel := read(y); return slices.Concat(pixel, pixel) }
	}
	if m, ok := img.(*rgbImage); ok && m.height >= 2*h && m.width > 1 { // no source row is in two output rows
		for y, d := range down {
			mixRows(across, d, rows(d.lo), rows(d.lo+1), values, out[y*w:], w*h)
		}
		return
	}
	type resized struct {
		y      int
		planes []float32 // red, green, blue
	}
	cache := [2]resized{{-1, make([]float32, 3*w)}, {-1, make([]float32, 3*w)}}
	row := func(y int) []float32 {
		entry := &cache[y&1] // the two rows of a mix are adjacent
		if entry.y != y {
			mixRow(across, rows(y), values, entry.planes)
			entry.y = y
		}
		return entry.planes
	}
	for y, m := range down {
		top, bottom := row(m.lo), row(min(m.lo+1, bounds.Dy()-1))
		for c := range 3 {
			mixed := out[(c*h+y)*w:][:w]
			t, b := top[c*w:][:w], bottom[c*w:][:w]
			for x := range mixed {
				mixed[x] = float32(m.wlo*t[x]) + float32(m.whi*b[x])
			}
		}
	}
}

// A mix says which two adjacent pixels of one axis an output pixel is computed from.
type mix struct {
	lo       int     // the other is the next one
	wlo, whi float32 // their weights, with the sum 1
}

// mixes has the mix of each output pixel. An axis of one pixel counts as two equal ones.
func mixes(in, out int) []mix {
	scale := float32(in) / float32(out)
	list := make([]mix, out)
	for i := range list {
		src := max(float32(scale*(float32(i)+0.5))-0.5, 0)
		lo := min(int(src), max(in-2, 0))
		w := min(src-float32(lo), 1)
		list[i] = mix{lo: lo, wlo: 1 - w, whi: w}
	}
	return list
}

func mixRow(across []mix, pixels []uint8, values *tables, planes []float32) {
	w := len(across)
	red, green, blue := planes[:w], planes[w:2*w], planes[2*w:3*w]
	for i, m := range across {
		p := pixels[min(3*m.lo, len(pixels)-6):][:6:6] // min never changes it; with it, this is a tenth faster
		red[i] = float32(m.wlo*values[0][p[0]]) + float32(m.whi*values[0][p[3]])
		green[i] = float32(m.wlo*values[1][p[1]]) + float32(m.whi*values[1][p[4]])
		blue[i] = float32(m.wlo*values[2][p[2]]) + float32(m.whi*values[2][p[5]])
	}
}

// mixRows writes an output row that mixes two source rows. plane is the distance of the channels in out. It does what
// mixRow for both and a mix of the results would, without writing these to memory, in four fifths of the time.
func mixRows(across []mix, down mix, top, bottom []uint8, values *tables, out []float32, plane int) {
	w := len(across)
	red, green, blue := out[:w], out[plane:][:w], out[2*plane:][:w]
	for i, m := range across {
		at := 3 * m.lo
		t, b := top[at:][:6:6], bottom[at:][:6:6]
		upper := float32(m.wlo*values[0][t[0]]) + float32(m.whi*values[0][t[3]])
		lower := float32(m.wlo*values[0][b[0]]) + float32(m.whi*values[0][b[3]])
		red[i] = float32(down.wlo*upper) + float32(down.whi*lower)
		upper = float32(m.wlo*values[1][t[1]]) + float32(m.whi*values[1][t[4]])
		lower = float32(m.wlo*values[1][b[1]]) + float32(m.whi*values[1][b[4]])
		green[i] = float32(down.wlo*upper) + float32(down.whi*lower)
		upper = float32(m.wlo*values[2][t[2]]) + float32(m.whi*values[2][t[5]])
		lower = float32(m.wlo*values[2][b[2]]) + float32(m.whi*values[2][b[5]])
		blue[i] = float32(down.wlo*upper) + float32(down.whi*lower)
	}
}

// A window says which pixels of one axis, from start on, an output pixel is the weighted sum of.
type window[T float32 | int32] struct {
	start   int
	weights []T
}

// shrinkFloats resizes with antialias as torch does it on floats: its _compute_weights_aa in float32, the horizontal
// pass first.
func shrinkFloats(img image.Image, w, h int, values *tables, out []float32) {
	bounds := img.Bounds()
	across, down := floatWindows(bounds.Dx(), w), floatWindows(bounds.Dy(), h)
	rows := rowReader(img)
	narrow := make([]float32, 3*w*bounds.Dy()) // for each row its three channels
	for y := range bounds.Dy() {
		pixels := rows(y)
		for c := range 3 {
			table, row := &values[c], narrow[(3*y+c)*w:][:w]
			for x, win := range across {
				var sum float32
				for i, weight := range win.weights {
					sum += float32(weight * table[pixels[3*(win.start+i)+c]])
				}
				row[x] = sum
			}
		}
	}
	for y, win := range down {
		for c := range 3 {
			row := out[(c*h+y)*w:][:w]
			clear(row)
			for i, weight := range win.weights {
				from := narrow[(3*(win.start+i)+c)*w:][:w]
				for x := range row {
					row[x] += float32(weight * from[x])
				}
			}
		}
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
