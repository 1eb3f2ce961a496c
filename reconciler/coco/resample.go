package coco

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
)

// blockSize is how many resamples are kept in memory at once.
const blockSize = 64

// drawStream is the second half of the random generator's seed. It never changes.
const drawStream = 0x616f622f636f636f

// A column is a value that is computed for each class in each resample.
type column struct {
	name string // in [delivery.Table]
	area int    // index of the area range
	of   func(outcome) float64
}

// columns lists all columns. The first ones are always computed, the others only if CompareParams.Columns has them.
var columns = []column{
	{delivery.MetricAP, 0, func(o outcome) float64 { return o.ap }},
	{delivery.MetricAP50, 0, func(o outcome) float64 { return o.ap50 }},
	{delivery.MetricAP75, 0, func(o outcome) float64 { return o.ap75 }},
	{delivery.MetricAR100, 0, func(o outcome) float64 { return o.ar }},
	{delivery.MetricAPSmall, 1, func(o outcome) float64 { return o.ap }},
	{delivery.MetricAPMedium, 2, func(o outcome) float64 { return o.ap }},
	{delivery.MetricAPLarge, 3, func(o outcome) float64 { return o.ap }},
}

const usual = 3 // columns that are always computed

// resampling draws resamples of images and computes the scores of models on them.
type resampling struct {
	params  CompareParams
	columns []column
	areas   []int // indexes of the area ranges of the columns
	m       *Matched
	once    []int32   // 1 for each image: the weights of the eval set itself
	units   [][]int32 // images that are drawn together
	unit    []int     // of each image, an index into units
	classes []int     // indexes of the classes with annotations
	empty   []int     // indexes of the classes without
}

func newResampling(m *Matched, params CompareParams) (*resampling, error) {
	params, err := params.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &resampling{params: params, m: m, once: slices.Repeat([]int32{1}, len(m.images))}
	for i, c := range columns {
		if i < usual || slices.Contains(params.Columns, c.name) {
			r.columns = append(r.columns, c)
			if !slices.Contains(r.areas, c.area) {
				r.areas = append(r.areas, c.area)
			}
		}
	}
	if err := r.group(); err != nil {
		return nil, err
	}
	for k := range m.classes {
		if m.classes[k].truths[0] > 0 {
			r.classes = append(r.classes, k)
		} else {
			r.empty = append(r.empty, k)
		}
	}
	if len(m.classes) == 0 || len(m.images) == 0 {
		return nil, ErrNoTruth
	}
	return r, nil
}

// ofTruths is newResampling for figures that need annotations.
func ofTruths(m *Matched, params CompareParams) (*resampling, error) {
	r, err := newResampling(m, params)
	if err == nil && len(r.classes) == 0 {
		err = ErrNoTruth
	}
	return r, err
}

// group sets the units that are drawn: images, or groups of them.
func (r *resampling) group() error {
	groups := map[string]int{}
	for i, v := range r.m.images {
		g, ok := len(r.units), false
		if r.params.ByGroup {
			if v.Group == "" {
				return fmt.Errorf("coco: image %d has no group; read the truth with Loader.Group", v.ID)
			}
			if g, ok = groups[v.Group]; !ok {
				g = len(r.units)
				groups[v.Group] = g
			}
		}
		if !ok {
			r.units = append(r.units, nil)
		}
		r.units[g], r.unit = append(r.units[g], int32(i)), append(r.unit, g)
	}
	return nil
}

// unitsWith counts the units that have annotations of a class in one area range.
func (r *resampling) unitsWith(k, area int) int {
	units := map[int]bool{}
	for _, p := range r.m.classes[k].places {
		if p.truths[area] > 0 {
			units[r.unit[p.image]] = true
		}
	}
	return len(units)
}

// weight counts a class's annotations in one area range, each as often as its image was drawn.
func (c *class) weight(area int, weights []int32) (truths int) {
	for i := range c.places {
		truths += int(weights[c.places[i].image]) * int(c.places[i].truths[area])
	}
	return truths
}

func (r *resampling) sampling() Sampling {
	return Sampling{
		Resamples: r.params.Resamples, Seed: r.params.Seed, Confidence: r.params.Confidence,
		Images: len(r.m.images), Units: len(r.units), ByGroup: r.params.ByGroup,
	}
}

func (r *resampling) class(k int) Subject {
	c := &r.m.classes[k]
	return Subject{Metric: delivery.MetricAP, CategoryID: r.m.category[k].ID, Class: r.m.category[k].Name,
		Truths: c.truths[0], Images: len(c.places)}
}

// all returns the subject of a metric over all classes.
func (r *resampling) all(metric string) Subject {
	s := Subject{Metric: metric}
	images := map[int32]bool{}
	for _, k := range r.classes {
		s.Truths += r.m.classes[k].truths[0]
		for _, p := range r.m.classes[k].places {
			images[p.image] = true
		}
	}
	s.Images = len(images)
	return s
}

// draw draws one resample: it sets weights to how often each image is in it. The sequence
// for a seed must never change, since stored scores depend on it.
func (r *resampling) draw(source *rand.PCG, weights []int32) {
	clear(weights)
	n := uint64(len(r.units))
	floor := -n % n // 2^64 mod n: smaller remainders are rejected, so that the draw is uniform
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

// run computes the scores of models on the images and on each resample of them.
// The resamples are the same for all models.
func (r *resampling) run(models ...*Matched) []delivery.Table {
	paths := make([][][areas]path, len(models)) // by model and class
	out := make([]delivery.Table, len(models))
	n := r.params.Resamples
	for i, m := range models {
		paths[i] = make([][areas]path, len(r.classes))
		out[i] = r.point(m, paths[i])
		for _, c := range r.columns {
			rows := out[i].Columns[c.name]
			for k := range rows {
				if !math.IsNaN(rows[k].Value) {
					rows[k].Resamples = make([]float64, n)
				}
			}
		}
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
				k := r.classes[c]
				for i, weights := range drawn {
					for _, a := range r.areas {
						truths := r.m.classes[k].weight(a, weights)
						if truths > 0 {
							recallCounts(truths, &w.need)
						}
						for model := range models {
							o := absent
							if truths > 0 {
								o = w.score(&paths[model][c][a], weights, truths)
							}
							for _, col := range r.columns {
								if list := out[model].Columns[col.name][k].Resamples; col.area == a && list != nil {
									list[from+i] = col.of(o)
								}
							}
						}
					}
				}
			}
		})
	}
	return out
}

// point computes the values on the images themselves, with the summation order of
// Matched.Result, and prepares the paths.
func (r *resampling) point(m *Matched, paths [][areas]path) delivery.Table {
	out := delivery.Table{Columns: map[string][]delivery.Row{}, Overall: map[string]float64{}}
	out.Images.Value = float64(len(m.images))
	out.Classes = delivery.Each(m.category, func(c Category) string { return c.Name })
	for _, c := range r.columns {
		out.Columns[c.name] = slices.Repeat([]delivery.Row{{Value: math.NaN()}}, len(m.category))
	}
	for _, a := range r.areas {
		r.pointOf(m, a, paths, out)
	}
	return out
}

// pointOf is point for one area range.
func (r *resampling) pointOf(m *Matched, area int, paths [][areas]path, out delivery.Table) {
	precision, recall := newTable(recalls, len(r.classes)), newTable(1, len(r.classes))
	inParallel(len(r.classes), func() func(int) {
		var w weighing
		return func(c int) {
			k := r.classes[c]
			truths := m.classes[k].truths[area]
			if truths == 0 {
				return
			}
			p := newPath(m.classes[k].dets, area)
			paths[c][area] = p
			recallCounts(truths, &w.need)
			w.add(&p, r.once)
			for threshold := range thresholds {
				w.curve.weigh(&p, threshold, r.once, w.total)
				w.curve.interpolate(&w.need, &w.q)
				precision.setAll(threshold, c, &w.q)
				recall.set(threshold, 0, c, float64(w.curve.total())/float64(truths))
			}
		}
	})
	value := func(of func(t *table, from, to int) float64) outcome {
		return outcome{of(&precision, 0, thresholds), of(&precision, at50, at50+1), of(&precision, at75, at75+1),
			of(&recall, 0, thresholds)}
	}
	whole := value((*table).mean)
	for _, col := range r.columns {
		if v := col.of(whole); col.area == area && v >= 0 {
			out.Overall[col.name] = v
		}
	}
	for c, k := range r.classes {
		units := r.unitsWith(k, area)
		o := value(func(t *table, from, to int) float64 { return t.class(c, from, to) })
		for _, col := range r.columns {
			if v := col.of(o); col.area == area && v >= 0 {
				out.Columns[col.name][k] = delivery.Row{Value: v, Units: units}
			}
		}
	}
}

// path is what resampling needs of one class and area range: the detections by
// descending score, and which of them are true positives or ignored.
type path struct {
	images []int32             // of each detection
	truths [thresholds][]int32 // indexes of true positives
	aside  [thresholds][]int32 // indexes of ignored detections
}

// newPath leaves out detections after the last true positive, which have no effect.
func newPath(dets []verdict, area int) path {
	p := path{images: make([]int32, len(dets))}
	last := 0
	for i := range dets {
		d, at := &dets[i], int32(i)
		p.images[i] = d.image
		for t := range thresholds {
			switch b := bit(area, t); {
			case d.aside&b != 0:
				p.aside[t] = append(p.aside[t], at)
			case d.found&b != 0:
				p.truths[t] = append(p.truths[t], at)
				last = i + 1
			}
		}
	}
	p.images = slices.Clone(p.images[:last])
	return p
}

// outcome holds the values of one class in one resample.
type outcome struct{ ap, ap50, ap75, ar float64 }

// absent is the outcome of a class without annotations.
var absent = outcome{math.NaN(), math.NaN(), math.NaN(), math.NaN()}

// weighing computes outcomes of paths. It reuses its buffers.
type weighing struct {
	sweep
	total []int32
}

// add computes the cumulative weights of the detections.
func (w *weighing) add(p *path, weights []int32) {
	w.total = slices.Grow(w.total[:0], len(p.images))[:len(p.images)]
	sum := int32(0)
	for i, image := range p.images {
		sum += weights[image]
		w.total[i] = sum
	}
}

// score computes an outcome; w.need is recallCounts of truths.
func (w *weighing) score(p *path, weights []int32, truths int) outcome {
	w.add(p, weights)
	var o outcome
	sum, recall := 0.0, 0.0
	for t := range thresholds {
		w.curve.weigh(p, t, weights, w.total)
		w.curve.interpolate(&w.need, &w.q)
		of := 0.0
		for _, v := range w.q {
			of += v
		}
		sum += of
		recall += float64(w.curve.total()) / float64(truths)
		switch t {
		case at50:
			o.ap50 = of / recalls
		case at75:
			o.ap75 = of / recalls
		}
	}
	o.ap, o.ar = sum/(thresholds*recalls), recall/thresholds
	return o
}

// weigh computes the curve at one threshold, with each image counted by its weight.
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
