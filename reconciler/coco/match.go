package coco

import (
	"cmp"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

const (
	areas      = 4  // all, small, medium, large
	thresholds = 10 // IoU .50, .55, … .95
	recalls    = 101
)

// areaRanges are COCO's area ranges in square pixels, both ends included: an object of exactly 32² is small and medium.
var areaRanges = [areas][2]float64{{0, 1e10}, {0, 32 * 32}, {32 * 32, 96 * 96}, {96 * 96, 1e10}}

// iouThresholds and recallThresholds are numpy's linspace(.5, .95, 10) and linspace(0, 1, 101). Some of their values
// differ from the decimal literals.
var iouThresholds, recallThresholds = func() (iou [thresholds]float64, recall [recalls]float64) {
	first, last := 0.5, 0.95 // variables: constant arithmetic would be exact
	step := (last - first) / (thresholds - 1)
	for i := range iou {
		iou[i] = float64(float64(i)*step) + first
	}
	iou[thresholds-1] = last
	step = 0.01
	for i := range recall {
		recall[i] = float64(i) * step
	}
	recall[recalls-1] = 1
	return iou, recall
}()

// bit returns the bit of an area range and an IoU threshold in the masks of a verdict.
func bit(area, threshold int) uint64 { return 1 << (area*thresholds + threshold) }

// areaMask has the bits of all thresholds of one area range.
func areaMask(area int) uint64 { return (1<<thresholds - 1) << (area * thresholds) }

// Matched is the assignment of detections to annotations, for every area range and IoU threshold. All metrics are
// computed from it.
type Matched struct {
	params   Params
	protocol Protocol
	ids      indexes
	images   []Image    // by id
	category []Category // by id
	classes  []class    // as category
	used     int        // detections with at least the score floor
}

// class is the matching of one category.
type class struct {
	truths [areas]int // annotations in the area range, without crowds
	places []place    // by image, of images with such annotations
	dets   []verdict  // by descending score, then by image id
}

// place is the number of annotations of one class in one image.
type place struct {
	image  int32        // index into Matched.images
	truths [areas]int32 // without crowds, by area range
}

// verdict is the result for one detection. The masks have a bit for each area range and threshold.
type verdict struct {
	score float64
	found uint64 // matched to an annotation, ignored or not
	aside uint64 // ignored: neither a true nor a false positive
	image int32  // index into Matched.images
	rank  int32  // by score within image and class, from 0
}

// Match assigns detections to annotations. Duplicate ids, unknown images or categories, numbers that are not finite and
// negative sizes are errors.
func Match(truth *Truth, detections []Detection, params Params) (*Matched, error) {
	params, err := params.withDefaults()
	if err != nil {
		return nil, err
	}
	ids, err := truth.check()
	if err != nil {
		return nil, err
	}
	m := &Matched{params: params, protocol: params.protocol(truth.Digest()), ids: ids,
		images: make([]Image, len(truth.Images)), category: make([]Category, len(truth.Categories)),
		classes: make([]class, len(truth.Categories))}
	for _, v := range truth.Images {
		m.images[ids.images[v.ID]] = v
	}
	for _, v := range truth.Categories {
		m.category[ids.categories[v.ID]] = v
	}
	truths := newCells(len(truth.Annotations))
	for i := range truth.Annotations {
		a := &truth.Annotations[i]
		truths.add(i, ids.categories[a.Category], ids.images[a.Image])
	}
	found := newCells(len(detections))
	var last *Detection
	var image, category int32
	for i := range detections {
		d := &detections[i]
		if text := d.fault(); text != "" {
			return nil, fmt.Errorf("coco: detections[%d]: %s", i, text)
		}
		ok := true
		if last == nil || d.Image != last.Image {
			if image, ok = ids.images[d.Image]; !ok {
				return nil, fmt.Errorf("coco: detections[%d]: image %d is not in the ground truth", i, d.Image)
			}
		}
		if last == nil || d.Category != last.Category {
			if category, ok = ids.categories[d.Category]; !ok {
				return nil, fmt.Errorf("coco: detections[%d]: category %d is not in the ground truth", i, d.Category)
			}
		}
		last = d
		if params.ScoreFloor > 0 && d.Score < params.ScoreFloor {
			continue
		}
		found.add(i, category, image)
	}
	m.used = len(found.items)
	truths.sort(len(m.category), len(m.images))
	found.sort(len(m.category), len(m.images))
	inParallel(len(m.classes), func() func(int) {
		w := &matcher{m: m, truth: truth, detections: detections}
		return func(k int) { w.class(&m.classes[k], truths.of(k), found.of(k)) }
	})
	return m, nil
}

// cells sorts items by category, then by image. The sort is stable.
type cells struct {
	items []cell
	ends  []int32 // of each category
}

type cell struct{ item, category, image int32 }

func (c cell) ofImage() int32    { return c.image }
func (c cell) ofCategory() int32 { return c.category }

func newCells(n int) *cells { return &cells{items: make([]cell, 0, n)} }

func (c *cells) add(item int, category, image int32) {
	c.items = append(c.items, cell{int32(item), category, image})
}

func (c *cells) sort(categories, images int) {
	spare := make([]cell, len(c.items))
	distribute(c.items, spare, images, cell.ofImage)
	c.ends = distribute(spare, c.items, categories, cell.ofCategory)
}

func (c *cells) of(category int) []cell {
	start := int32(0)
	if category > 0 {
		start = c.ends[category-1]
	}
	return c.items[start:c.ends[category]]
}

// distribute copies from into to, sorted by key with a counting sort, and returns where each key ends.
func distribute(from, to []cell, keys int, key func(cell) int32) []int32 {
	next := make([]int32, keys+1)
	for _, v := range from {
		next[key(v)+1]++
	}
	for i := 1; i <= keys; i++ {
		next[i] += next[i-1]
	}
	for _, v := range from {
		k := key(v)
		to[next[k]] = v
		next[k]++
	}
	return next[:keys]
}

// matcher matches one class at a time. It reuses its buffers.
type matcher struct {
	m          *Matched
	truth      *Truth
	detections []Detection

	gts  []target
	near []candidate
	keys []sortKey
	raw  []verdict
}

// target is an annotation of one image and class.
type target struct {
	box   Box
	area  float64     // of the box
	aside [areas]bool // ignored in that area range
	taken uint64      // matched to a detection, by area range and threshold
	crowd bool        // may be matched more than once
	zero  bool        // a match counts as none: annotation id 0 in Strict mode
}

type candidate struct {
	target *target
	iou    float64
}

type sortKey struct {
	score float64
	index int32
}

// class matches the images of one class. Both lists are sorted by image.
func (w *matcher) class(c *class, truths, dets []cell) {
	w.raw = slices.Grow(w.raw[:0], len(dets))
	for len(truths) > 0 || len(dets) > 0 {
		image := int32(math.MaxInt32)
		if len(truths) > 0 {
			image = truths[0].image
		}
		if len(dets) > 0 {
			image = min(image, dets[0].image)
		}
		nt, nd := leading(truths, cell.ofImage, image), leading(dets, cell.ofImage, image)
		w.targets(c, truths[:nt], image)
		w.image(dets[:nd], image)
		truths, dets = truths[nt:], dets[nd:]
	}
	w.keys = slices.Grow(w.keys[:0], len(w.raw))
	for i := range w.raw {
		w.keys = append(w.keys, sortKey{w.raw[i].score, int32(i)})
	}
	sortKeys(w.keys)
	c.dets = make([]verdict, len(w.raw))
	for i, k := range w.keys {
		c.dets[i] = w.raw[k.index]
	}
}

// leading counts the cells with one key at the start of a list.
func leading(cells []cell, key func(cell) int32, want int32) int {
	n := 0
	for n < len(cells) && key(cells[n]) == want {
		n++
	}
	return n
}

// sortKeys sorts by descending score. The sort is stable.
func sortKeys(keys []sortKey) {
	slices.SortFunc(keys, func(a, b sortKey) int {
		switch {
		case a.score > b.score:
			return -1
		case a.score < b.score:
			return 1
		}
		return cmp.Compare(a.index, b.index)
	})
}

// targets prepares and counts the annotations of one image.
func (w *matcher) targets(c *class, cells []cell, image int32) {
	w.gts = w.gts[:0]
	var counted [areas]int32
	for _, v := range cells {
		a := &w.truth.Annotations[v.item]
		t := target{box: a.Box, area: float64(a.Box.W * a.Box.H), crowd: a.Crowd, zero: a.ID == 0 &&
			w.m.params.Mode == Strict}
		for k, r := range areaRanges {
			t.aside[k] = a.Crowd || a.Area < r[0] || a.Area > r[1]
			if !t.aside[k] {
				c.truths[k]++
				counted[k]++
			}
		}
		w.gts = append(w.gts, t)
	}
	if counted[0] > 0 {
		c.places = append(c.places, place{image, counted})
	}
}

// image appends the verdicts of one image's detections, by descending score.
func (w *matcher) image(cells []cell, image int32) {
	w.keys = w.keys[:0]
	for i, v := range cells {
		w.keys = append(w.keys, sortKey{w.detections[v.item].Score, int32(i)})
	}
	sortKeys(w.keys)
	for rank, k := range w.keys[:min(len(w.keys), w.m.params.MaxDets[2])] {
		d := &w.detections[cells[k.index].item]
		v := verdict{score: d.Score, image: image, rank: int32(rank)}
		area := float64(d.Box.W * d.Box.H)
		w.near = w.near[:0]
		for i := range w.gts {
			g := &w.gts[i]
			// not >=: 0/0 counts as near, as in the reference
			if iou := overlap(d.Box, area, g); !(iou < iouThresholds[0]) {
				w.near = append(w.near, candidate{g, iou})
			}
		}
		if len(w.near) > 0 {
			v.found, v.aside = assign(w.near)
		}
		for a, r := range areaRanges {
			if area < r[0] || area > r[1] {
				v.aside |= areaMask(a) &^ v.found
			}
		}
		w.raw = append(w.raw, v)
	}
}

// assign matches one detection, for each area range and threshold, to the unmatched annotation of the highest IoU.
// Annotations that are not ignored come first. Of those with equal IoU it takes the last one in the file.
func assign(near []candidate) (found, aside uint64) {
	for a := range areas {
		for t := range thresholds {
			b := bit(a, t)
			var m *target
			for _, wantAside := range [2]bool{false, true} {
				best := iouThresholds[t]
				for i := range near {
					c := &near[i]
					if c.target.aside[a] != wantAside || c.iou < best || c.target.taken&b != 0 && !c.target.crowd {
						continue
					}
					best, m = c.iou, c.target
				}
				if m != nil {
					break
				}
			}
			if m == nil {
				continue
			}
			m.taken |= b
			if m.aside[a] {
				aside |= b
			}
			if !m.zero {
				found |= b
			}
		}
	}
	return found, aside
}

// overlap returns the intersection over union of a detection and an annotation; for a crowd, the intersection over the
// area of the detection. The conversion keeps the compiler from fusing a product with the next addition, which would
// change the last bit.
func overlap(d Box, area float64, g *target) float64 {
	w := min(d.W+d.X, g.box.W+g.box.X) - max(d.X, g.box.X)
	if w <= 0 {
		return 0
	}
	h := min(d.H+d.Y, g.box.H+g.box.Y) - max(d.Y, g.box.Y)
	if h <= 0 {
		return 0
	}
	i := float64(w * h)
	if g.crowd {
		return i / area
	}
	return i / (area + g.area - i)
}

// inParallel calls a function for each of 0 to n-1, on as many threads as there are processors. start is called once
// for each thread, and makes its buffers.
func inParallel(n int, start func() func(int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			do := start()
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	wg.Wait()
}
