package coco

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
)

// blockSize is how many resamples are held at once: memory does not grow with
// their number times the images.
const blockSize = 64

// drawStream is the other half of the seed of what is drawn; it never changes.
const drawStream = 0x616f622f636f636f

// figure is a metric's value and, for each resample, what it was there; -1
// where it had nothing to measure.
type figure struct {
	value   float64
	samples []float64
}

// figures are those of one model.
type figures struct {
	mAP, ap50, ap75 figure
	classes         []figure // AP, as resampling.classes
}

// resampling draws images and scores models on what it drew.
type resampling struct {
	params  CompareParams
	m       *Matched
	chosen  []int32   // 1 for each image to look at, else 0
	images  int       // that are looked at
	units   [][]int32 // images that are drawn together
	classes []int     // indexes of the classes with truths in the chosen images
	empty   []int     // and of those without
}

func newResampling(m *Matched, params CompareParams) (*resampling, error) {
	params, err := params.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &resampling{params: params, m: m, chosen: make([]int32, len(m.images))}
	if err := r.choose(); err != nil {
		return nil, err
	}
	wanted := make(map[int64]bool, len(params.Classes))
	for _, id := range params.Classes {
		wanted[id] = true
	}
	for k, c := range m.category {
		if params.Classes != nil && !wanted[c.ID] {
			continue
		}
		delete(wanted, c.ID)
		if truths, _ := m.classes[k].support(r.chosen); truths > 0 {
			r.classes = append(r.classes, k)
		} else {
			r.empty = append(r.empty, k)
		}
	}
	for _, id := range params.Classes {
		if wanted[id] {
			return nil, fmt.Errorf("coco: class to look at: category %d is not in the ground truth", id)
		}
	}
	if len(r.classes) == 0 {
		return nil, ErrNoTruth
	}
	return r, nil
}

// choose finds the images to look at and what is drawn together.
func (r *resampling) choose() error {
	if r.params.Images == nil {
		for i := range r.chosen {
			r.chosen[i] = 1
		}
	}
	for _, id := range r.params.Images {
		i, ok := slices.BinarySearchFunc(r.m.images, id, func(v Image, id int64) int {
			switch {
			case v.ID < id:
				return -1
			case v.ID > id:
				return 1
			}
			return 0
		})
		if !ok {
			return fmt.Errorf("coco: image to look at: %d is not in the ground truth", id)
		}
		r.chosen[i] = 1
	}
	groups := map[string]int{}
	for i, v := range r.m.images {
		if r.chosen[i] == 0 {
			continue
		}
		r.images++
		if !r.params.ByGroup {
			r.units = append(r.units, []int32{int32(i)})
			continue
		}
		if v.Group == "" {
			return fmt.Errorf("coco: image %d has no group; read the truth with Loader.Group", v.ID)
		}
		g, ok := groups[v.Group]
		if !ok {
			g = len(r.units)
			groups[v.Group] = g
			r.units = append(r.units, nil)
		}
		r.units[g] = append(r.units[g], int32(i))
	}
	return nil
}

// support counts a class's truths, and the images that have any.
func (c *class) support(weights []int32) (truths, images int) {
	for _, p := range c.places {
		if w := weights[p.image]; w > 0 {
			truths += int(w) * int(p.truths)
			images++
		}
	}
	return truths, images
}

func (r *resampling) sampling() Sampling {
	return Sampling{
		Resamples: r.params.Resamples, Seed: r.params.Seed, Confidence: r.params.Confidence,
		Images: r.images, Units: len(r.units), ByGroup: r.params.ByGroup,
	}
}

func (r *resampling) class(k int) Subject {
	s := Subject{Metric: "AP", CategoryID: r.m.category[k].ID, Class: r.m.category[k].Name}
	s.Truths, s.Images = r.m.classes[k].support(r.chosen)
	return s
}

// all is the subject of a metric over all classes.
func (r *resampling) all(metric string) Subject {
	s := Subject{Metric: metric}
	with := make([]bool, len(r.m.images))
	for _, k := range r.classes {
		for _, p := range r.m.classes[k].places {
			if r.chosen[p.image] == 0 {
				continue
			}
			s.Truths += int(p.truths)
			if !with[p.image] {
				with[p.image] = true
				s.Images++
			}
		}
	}
	return s
}

// draw makes one resample: how often each image is in it. The sequence is part
// of the meaning of a seed and never changes.
func (r *resampling) draw(source *rand.PCG, weights []int32) {
	clear(weights)
	n := uint64(len(r.units))
	floor := -n % n // 2^64 mod n: below it numbers would be drawn unevenly
	for range r.units {
		pick, low := bits.Mul64(source.Uint64(), n)
		for low < floor {
			pick, low = bits.Mul64(source.Uint64(), n)
		}
		for _, i := range r.units[pick] {
			weights[i]++
		}
	}
}

// run scores models on the chosen images and on each resample of them, the
// same for all models.
func (r *resampling) run(models ...*Matched) []figures {
	scores := make([][]outcome, len(models)) // by model, then class and resample
	paths := make([][]path, len(models))
	out := make([]figures, len(models))
	n := r.params.Resamples
	for i, m := range models {
		paths[i] = make([]path, len(r.classes))
		scores[i] = make([]outcome, len(r.classes)*n)
		out[i] = r.point(m, paths[i])
	}
	source := rand.NewPCG(r.params.Seed, drawStream)
	block := make([][]int32, blockSize)
	for i := range block {
		block[i] = make([]int32, len(r.m.images))
	}
	for from := 0; from < n; from += blockSize {
		drawn := block[:min(blockSize, n-from)]
		for i := range drawn {
			r.draw(source, drawn[i])
		}
		inParallel(len(r.classes), func() func(int) {
			var w weighing
			return func(c int) {
				places := &r.m.classes[r.classes[c]]
				for i, weights := range drawn {
					truths, _ := places.support(weights)
					if truths > 0 {
						recallCounts(truths, &w.need)
					}
					for k := range models {
						at := &scores[k][c*n+from+i]
						*at = outcome{-1, -1, -1}
						if truths > 0 {
							*at = w.score(&paths[k][c], weights)
						}
					}
				}
			}
		})
	}
	for i := range out {
		out[i].collect(scores[i], n)
	}
	return out
}

// collect turns outcomes by class into figures, the means over classes
// included.
func (f *figures) collect(scores []outcome, n int) {
	f.mAP.samples, f.ap50.samples, f.ap75.samples = make([]float64, n), make([]float64, n), make([]float64, n)
	for c := range f.classes {
		f.classes[c].samples = make([]float64, n)
		for i := range n {
			f.classes[c].samples[i] = scores[c*n+i].ap
		}
	}
	for i := range n {
		var sum outcome
		measured := 0
		for c := range f.classes {
			if v := scores[c*n+i]; v.ap >= 0 {
				sum.ap += v.ap
				sum.ap50 += v.ap50
				sum.ap75 += v.ap75
				measured++
			}
		}
		f.mAP.samples[i], f.ap50.samples[i], f.ap75.samples[i] = -1, -1, -1
		if measured > 0 {
			f.mAP.samples[i] = sum.ap / float64(measured)
			f.ap50.samples[i] = sum.ap50 / float64(measured)
			f.ap75.samples[i] = sum.ap75 / float64(measured)
		}
	}
}

// point computes the figures of the chosen images themselves, adding up in
// the order of Matched.Result, and prepares the paths.
func (r *resampling) point(m *Matched, paths []path) figures {
	f := figures{classes: make([]figure, len(r.classes))}
	t := newTable(recalls, len(r.classes))
	inParallel(len(r.classes), func() func(int) {
		var w weighing
		return func(c int) {
			k := r.classes[c]
			paths[c] = newPath(m.classes[k].dets, r.chosen)
			truths, _ := m.classes[k].support(r.chosen)
			recallCounts(truths, &w.need)
			w.add(&paths[c], r.chosen)
			for threshold := range thresholds {
				w.curve.weigh(&paths[c], threshold, r.chosen, w.total)
				w.curve.interpolate(&w.need, &w.q)
				for i, v := range w.q {
					t.set(threshold, i, c, v)
				}
			}
			f.classes[c].value = t.class(c, 0, thresholds)
		}
	})
	f.mAP.value, f.ap50.value, f.ap75.value = t.mean(0, thresholds), t.mean(at50, at50+1), t.mean(at75, at75+1)
	return f
}

// path is what resampling needs of one class: the detections by falling score,
// of size class "all", and which of them are not simply false.
type path struct {
	images []int32             // of each detection
	truths [thresholds][]int32 // indexes of the detections that are true
	aside  [thresholds][]int32 // and of those that do not count
}

// newPath leaves out detections in images that are never drawn, and those past
// the last true one, which change nothing.
func newPath(dets []verdict, chosen []int32) path {
	var p path
	last := 0
	for i := range dets {
		d := &dets[i]
		if chosen[d.image] == 0 {
			continue
		}
		at := int32(len(p.images))
		p.images = append(p.images, d.image)
		for t := range thresholds {
			switch b := bit(0, t); {
			case d.aside&b != 0:
				p.aside[t] = append(p.aside[t], at)
			case d.found&b != 0:
				p.truths[t] = append(p.truths[t], at)
				last = int(at) + 1
			}
		}
	}
	p.images = slices.Clip(p.images[:last])
	return p
}

// outcome is one class in one resample; -1 without truths.
type outcome struct{ ap, ap50, ap75 float64 }

// weighing scores paths under weights; it keeps its working memory.
type weighing struct {
	sweep
	total []int32
}

// add sums up the weights of the detections so far.
func (w *weighing) add(p *path, weights []int32) {
	w.total = slices.Grow(w.total[:0], len(p.images))[:len(p.images)]
	sum := int32(0)
	for i, image := range p.images {
		sum += weights[image]
		w.total[i] = sum
	}
}

// score computes AP, AP50 and AP75; w.need is that of the weighted truths.
func (w *weighing) score(p *path, weights []int32) outcome {
	w.add(p, weights)
	var o outcome
	sum := 0.0
	for t := range thresholds {
		w.curve.weigh(p, t, weights, w.total)
		w.curve.interpolate(&w.need, &w.q)
		of := 0.0
		for _, v := range w.q {
			of += v
		}
		sum += of
		switch t {
		case at50:
			o.ap50 = of / recalls
		case at75:
			o.ap75 = of / recalls
		}
	}
	o.ap = sum / (thresholds * recalls)
	return o
}

// weigh makes the curve of one threshold, each image counting as often as its
// weight says.
func (c *curve) weigh(p *path, threshold int, weights, total []int32) {
	c.tp, c.n = c.tp[:0], c.n[:0]
	var tp, left int32
	aside := p.aside[threshold]
	for _, i := range p.truths[threshold] {
		for len(aside) > 0 && aside[0] < i {
			left += weights[p.images[aside[0]]]
			aside = aside[1:]
		}
		if w := weights[p.images[i]]; w > 0 {
			tp += w
			c.tp, c.n = append(c.tp, tp), append(c.n, total[i]-left)
		}
	}
}
