package dataset

// This file compares images by their looks. Training images that look like an image of an eval set, or of valid, but
// have another identity are only warnings: two different frames of one camera may look alike. So are two images of one
// split that look the same. And images of one source name that look clearly different are not the same image.

import (
	"fmt"
	"image"
	"io"
	"math/bits"
	"os"

	"github.com/autonomos/aob/reconciler/delivery"
)

// An imageHash is a difference hash: one bit for each cell of a grid of 16 x 16, set where the image gets brighter from
// left to right ("dHash"; Krawetz, "Kind of like that", 2013). Hashes of images without texture are not compared.
type imageHash struct {
	Bits    [4]uint64
	Texture bool
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
	list, low, high := brightnesses(m, grid+1, grid)
	return imageHash{Bits: brighter(func(x, y int) int { return list[y][x] }), Texture: high-low >= minTexture}
}

// brightnesses returns the brightness of the cells of a grid over an image, row by row, and the least and largest of
// 255.
func brightnesses(m image.Image, across, down int) (rows [grid + 1][grid + 1]int, low, high int) {
	b := m.Bounds()
	low, high = 255, 0
	for y := range down {
		for x := range across {
			v := brightness(m, image.Rect(b.Min.X+b.Dx()*x/across, b.Min.Y+b.Dy()*y/down,
				b.Min.X+b.Dx()*(x+1)/across, b.Min.Y+b.Dy()*(y+1)/down))
			rows[y][x] = v
			low, high = min(low, v>>8), max(high, v>>8)
		}
	}
	return rows, low, high
}

// brighter returns a bit for each cell, set where the next cell of its row is brighter.
func brighter(cell func(x, y int) int) (bits [4]uint64) {
	for y := range grid {
		for x := range grid {
			if cell(x+1, y) > cell(x, y) {
				bits[y/4] |= 1 << (y%4*grid + x)
			}
		}
	}
	return bits
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
	for i := range l.Bits {
		n += bits.OnesCount64(l.Bits[i] ^ o.Bits[i])
	}
	return n
}

// bands returns the hash in 16 bands of 16 bits. Two hashes that differ in fewer than 16
// bits have at least one equal band.
func (l imageHash) bands() [16]uint32 {
	var out [16]uint32
	for i := range out {
		out[i] = uint32(i)<<16 | uint32(l.Bits[i/4]>>(i%4*16)&0xffff)
	}
	return out
}

// A look is the hash of an image as it is, and as it is turned and mirrored in all ways.
type look struct {
	Known  bool
	Turned [8][4]uint64
}

// maxApartNamed is how many of the 256 bits may differ between two images with one source name, in the best of all
// orientations. Measured on BCCD: a copy that is turned by quarters, mirrored, made darker, or has parts cut out
// differs in at most 32 bits, and different images in 86 or more.
const maxApartNamed = 60

// lookOf computes an image's look. It is unknown if the image has no texture.
func lookOf(m image.Image) *look {
	wide, low, high := brightnesses(m, grid+1, grid)
	tall, _, _ := brightnesses(m, grid, grid+1)
	l := &look{Known: high-low >= minTexture}
	for i := range l.Turned {
		flip := func(v, last, bit int) int {
			if i&bit != 0 {
				return last - v
			}
			return v
		}
		l.Turned[i] = brighter(func(x, y int) int {
			if i&4 != 0 {
				return tall[flip(x, grid, 1)][flip(y, grid-1, 2)]
			}
			return wide[flip(y, grid-1, 2)][flip(x, grid, 1)]
		})
	}
	return l
}

// differs reports whether two looks are clearly those of different pictures.
func (l look) differs(o look) bool {
	if !l.Known || !o.Known {
		return false
	}
	for _, turned := range l.Turned {
		if (imageHash{Bits: turned}).apart(imageHash{Bits: o.Turned[0]}) <= maxApartNamed {
			return false
		}
	}
	return true
}

// text writes the look of an image as it is; "" if it is unknown.
func (l imageHash) text() string {
	if !l.Texture {
		return ""
	}
	return fmt.Sprintf("%016x%016x%016x%016x", l.Bits[0], l.Bits[1], l.Bits[2], l.Bits[3])
}

// otherLook reports whether an image file is clearly another picture than all of those whose looks are listed. The
// image was checked before, so one that cannot be decoded now counts as the same.
func otherLook(path string, listed []string) bool {
	if len(listed) == 0 {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	config, format, err := image.DecodeConfig(f)
	header := func() io.Reader { return io.NewSectionReader(f, 0, maxImage) }
	if err != nil || format != "jpeg" && format != "png" || config.Width < 1 || config.Height < 1 ||
		config.Width > maxPixels/config.Height || decoded(config, format, header()) > maxMemory {
		return false
	}
	picture, _, err := image.Decode(header())
	if err != nil {
		return false
	}
	this := lookOf(picture)
	for _, text := range listed {
		other := look{Known: true}
		if n, err := fmt.Sscanf(text, "%16x%16x%16x%16x", &other.Turned[0][0], &other.Turned[0][1], &other.Turned[0][2],
			&other.Turned[0][3]); n != 4 || err != nil || !this.differs(other) {
			return false
		}
	}
	return true
}

// sourceLooks adds the looks of a split's training images to the list, by source name.
func (c *checker) sourceLooks(v *version, s *split, list map[string][]string) {
	hashes := map[string]imageHash{}
	for _, im := range c.decodes {
		hashes[im.path] = im.hash
	}
	for _, file := range c.used(s) {
		name, _ := source(file)
		list[name] = append(list[name], hashes[v.path(file)].text())
	}
}

// twins reports training images whose hash is close to that of an eval set's image, and whose identities differ. Then
// it reports images of train that look like one of valid, and images of one split that look the same.
func (c *checker) twins(v *version, splits map[string]*split) {
	var inSets bands
	bySplit := map[string][]int{}
	index := map[string]int{}
	prefixes := []string{}
	for i, im := range c.decodes {
		if !im.hash.Texture {
			continue
		}
		if _, twice := index[im.path]; !twice {
			index[im.path] = i
			if bySplit[im.prefix] == nil {
				prefixes = append(prefixes, im.prefix)
			}
			bySplit[im.prefix] = append(bySplit[im.prefix], i)
		}
		if c.sets[im.path].path != "" {
			inSets.add(i, im.hash)
		}
	}
	for _, name := range []string{"train", "valid"} {
		s := splits[name]
		if s == nil {
			continue
		}
		for _, file := range c.used(s) {
			i, there := index[v.path(file)]
			if !there || c.sets[v.path(file)].path != "" {
				continue
			}
			if twin := inSets.nearest(c.decodes, i, nil); twin >= 0 {
				c.pairs = append(c.pairs, imagePair{code: "perceptual-twin", where: shown(file), image: file,
					other: c.sets[c.decodes[twin].path].file,
					apart: c.decodes[i].hash.apart(c.decodes[twin].hash)})
				c.finding(delivery.LevelWarning, "perceptual-twin", shown(file), fmt.Sprintf("looks the same as %q; "+
					"take it out of training if it is the same picture", c.sets[c.decodes[twin].path].where))
			}
		}
	}
	c.splitTwins(v, splits, index)
	trainPrefix := ""
	if s := splits["train"]; s != nil {
		trainPrefix = s.prefix()
	}
	for _, prefix := range prefixes {
		var before bands
		for _, i := range bySplit[prefix] {
			im := c.decodes[i]
			name, made := source(im.name)
			twin := before.nearest(c.decodes, i, func(j int) bool {
				other, _ := source(c.decodes[j].name)
				augmented := made && prefix == trainPrefix && name == other // as it should be
				return c.decodes[j].file.sum != im.file.sum && !augmented
			})
			if twin >= 0 {
				c.pairs = append(c.pairs, imagePair{code: "near-duplicate", where: im.where(), image: im.at,
					other: c.decodes[twin].at, apart: im.hash.apart(c.decodes[twin].hash)})
				c.finding(delivery.LevelWarning, "near-duplicate", im.where(), fmt.Sprintf("looks the same as %q; "+
					"remove one of them if they are one picture", c.decodes[twin].name))
			}
			before.add(i, im.hash)
		}
	}
}

// splitTwins reports images of train that look like one of valid. index has the places of images in c.decodes by path.
func (c *checker) splitTwins(v *version, splits map[string]*split, index map[string]int) {
	train, valid := splits["train"], splits["valid"]
	if train == nil || valid == nil {
		return
	}
	var inValid bands
	files := map[int]string{}
	for _, file := range c.used(valid) {
		if i, there := index[v.path(file)]; there && files[i] == "" {
			inValid.add(i, c.decodes[i].hash)
			files[i] = file
		}
	}
	for _, file := range c.used(train) {
		i, there := index[v.path(file)]
		if !there || c.sets[v.path(file)].path != "" {
			continue
		}
		if twin := inValid.nearest(c.decodes, i, func(j int) bool { return j != i }); twin >= 0 {
			c.pairs = append(c.pairs, imagePair{code: "split-twin", where: shown(file), image: file,
				other: files[twin], apart: c.decodes[i].hash.apart(c.decodes[twin].hash)})
			c.finding(delivery.LevelWarning, "split-twin", shown(file), fmt.Sprintf("looks the same as %q; put both "+
				"into one split if they are one picture", files[twin]))
		}
	}
}

// bands finds images by the bands of their hashes.
type bands struct{ images map[uint32][]int }

func (b *bands) add(i int, hash imageHash) {
	if b.images == nil {
		b.images = map[uint32][]int{}
	}
	for _, band := range hash.bands() {
		if len(b.images[band]) <= maxBand {
			b.images[band] = append(b.images[band], i)
		}
	}
}

// nearest returns the image whose hash is nearest to that of image i and at most maxApart away; -1 without one.
func (b *bands) nearest(list []imageFile, i int, want func(j int) bool) int {
	twin, nearest := -1, maxApart+1
	for _, band := range list[i].hash.bands() {
		if len(b.images[band]) > maxBand {
			continue
		}
		for _, j := range b.images[band] {
			n := list[i].hash.apart(list[j].hash)
			if (n < nearest || n == nearest && j < twin) && (want == nil || want(j)) {
				twin, nearest = j, n
			}
		}
	}
	return twin
}
