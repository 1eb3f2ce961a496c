package dataset

// This file finds training images that look like an image of an eval set but have another
// identity. They are only warnings: two different frames of one camera may look alike.

import (
	"fmt"
	"image"
	"math/bits"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// An imageHash is a difference hash: one bit for each cell of a grid of 16 x 16, set where the image gets brighter from
// left to right ("dHash"; Krawetz, "Kind of like that", 2013). Hashes of images without texture are not compared.
type imageHash struct {
	bits    [4]uint64
	texture bool
}

const (
	grid       = 16
	samples    = 8  // of each cell and direction, at most
	minTexture = 12 // of 255: the least difference between the brightest and the darkest cell
	// maxApart is how many of the 256 bits may differ between an image and a re-encoded or
	// scaled copy. Measured on BCCD: at most 11 at JPEG quality 50. Different images of BCCD
	// differ in 77 bits or more, except for one pair with 23.
	maxApart = 15
	// maxBand is the most images with equal bits in a band; a more common band is ignored.
	maxBand = 64
)

// hashImage computes the hash of an image.
func hashImage(m image.Image) imageHash {
	b := m.Bounds()
	var cells [grid][grid + 1]int
	low, high := 255, 0
	for y := range grid {
		for x := range grid + 1 {
			v := brightness(m, image.Rect(b.Min.X+b.Dx()*x/(grid+1), b.Min.Y+b.Dy()*y/grid,
				b.Min.X+b.Dx()*(x+1)/(grid+1), b.Min.Y+b.Dy()*(y+1)/grid))
			cells[y][x] = v
			low, high = min(low, v>>8), max(high, v>>8)
		}
	}
	out := imageHash{texture: high-low >= minTexture}
	for y := range grid {
		for x := range grid {
			if cells[y][x+1] > cells[y][x] {
				out.bits[y/4] |= 1 << (y%4*grid + x)
			}
		}
	}
	return out
}

// brightness returns the mean brightness of a part of an image, 0 to 65535.
func brightness(m image.Image, r image.Rectangle) int {
	if r.Dx() < 1 {
		r.Max.X = r.Min.X + 1
	}
	if r.Dy() < 1 {
		r.Max.Y = r.Min.Y + 1
	}
	r = r.Intersect(m.Bounds())
	sum, n := 0, 0
	for i := range min(samples, r.Dy()) {
		y := r.Min.Y + r.Dy()*(2*i+1)/(2*min(samples, r.Dy()))
		for j := range min(samples, r.Dx()) {
			x := r.Min.X + r.Dx()*(2*j+1)/(2*min(samples, r.Dx()))
			switch m := m.(type) {
			case *image.YCbCr:
				sum += int(m.Y[m.YOffset(x, y)]) * 257
			case *image.Gray:
				sum += int(m.GrayAt(x, y).Y) * 257
			default:
				red, green, blue, _ := m.At(x, y).RGBA()
				sum += (299*int(red) + 587*int(green) + 114*int(blue)) / 1000
			}
			n++
		}
	}
	return sum / max(n, 1)
}

// apart counts the bits in which two hashes differ.
func (l imageHash) apart(o imageHash) int {
	n := 0
	for i := range l.bits {
		n += bits.OnesCount64(l.bits[i] ^ o.bits[i])
	}
	return n
}

// bands returns the hash in 16 bands of 16 bits. Two hashes that differ in fewer than 16
// bits have at least one equal band.
func (l imageHash) bands() [16]uint32 {
	var out [16]uint32
	for i := range out {
		out[i] = uint32(i)<<16 | uint32(l.bits[i/4]>>(i%4*16)&0xffff)
	}
	return out
}

// twins reports training images whose hash is close to that of an eval set's image, and whose identities differ.
func (c *checker) twins(v *version, splits map[string]*split) {
	byBand := map[uint32][]int{}
	for i, im := range c.decodes {
		if c.sets[im.path] == "" || !im.hash.texture {
			continue
		}
		for _, band := range im.hash.bands() {
			byBand[band] = append(byBand[band], i)
		}
	}
	index := map[string]int{}
	for i, im := range c.decodes {
		index[im.path] = i
	}
	for _, name := range []string{"train", "valid"} {
		s := splits[name]
		if s == nil {
			continue
		}
		for _, file := range c.used(s) {
			i, decoded := index[v.path(file)]
			if !decoded || c.sets[v.path(file)] != "" || !c.decodes[i].hash.texture {
				continue
			}
			twin, nearest := -1, maxApart+1
			for _, band := range c.decodes[i].hash.bands() {
				if len(byBand[band]) > maxBand {
					continue
				}
				for _, j := range byBand[band] {
					if n := c.decodes[i].hash.apart(c.decodes[j].hash); n < nearest || n == nearest && j < twin {
						twin, nearest = j, n
					}
				}
			}
			if twin >= 0 {
				other := c.decodes[twin]
				c.finding(delivery.LevelWarning, "perceptual-twin", file,
					fmt.Sprintf("looks the same as %s of %s; take it out of training if it is the same picture",
						strings.TrimPrefix(other.where, c.sets[other.path]+"/"), c.sets[other.path]))
			}
		}
	}
}
