package coco

import (
	"fmt"
	"math"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Pool is what two models found on many images, from which tests draw test sets.
type Pool struct {
	models [2]*Matched
	of     [2][][][]verdict // by model, image and class
	truths [][]int32        // by image and class
}

// NewPool takes two matches of the same truth.
func NewPool(a, b *Matched) *Pool {
	p := &Pool{models: [2]*Matched{a, b}, truths: make([][]int32, len(a.images))}
	for i := range p.truths {
		p.truths[i] = make([]int32, len(a.classes))
	}
	for k := range a.classes {
		for _, at := range a.classes[k].places {
			p.truths[at.image][k] = at.truths[0]
		}
	}
	for m, model := range p.models {
		p.of[m] = make([][][]verdict, len(model.images))
		for i := range p.of[m] {
			p.of[m][i] = make([][]verdict, len(model.classes))
		}
		for k := range model.classes {
			for _, d := range model.classes[k].dets {
				p.of[m][d.image][k] = append(p.of[m][d.image][k], d)
			}
		}
	}
	return p
}

// Draw makes a test set of some images, one drawn twice being two, and gives each
// the group of its place. Where swap says so the two models change places.
func (p *Pool) Draw(images []int, groups []int, swap func(i int) bool) (a, b *Matched) {
	var out [2]*Matched
	for m := range out {
		out[m] = &Matched{params: p.models[m].params, protocol: p.models[m].protocol, category: p.models[m].category,
			images: make([]Image, len(images)), classes: make([]class, len(p.models[m].classes))}
	}
	for place, image := range images {
		im := Image{ID: int64(place)}
		if groups != nil {
			im.Group = fmt.Sprint(groups[place])
		}
		swapped := swap != nil && swap(place)
		for m := range out {
			out[m].images[place] = im
			from := m
			if swapped {
				from = 1 - m
			}
			for k := range out[m].classes {
				c := &out[m].classes[k]
				if n := p.truths[image][k]; n > 0 {
					c.truths[0] += int(n)
					c.places = append(c.places, place32(place, n))
				}
				for _, d := range p.of[from][image][k] {
					d.image = int32(place)
					c.dets = append(c.dets, d)
				}
			}
		}
	}
	for m := range out {
		for k := range out[m].classes {
			slices.SortStableFunc(out[m].classes[k].dets, func(a, b verdict) int {
				switch {
				case a.score > b.score:
					return -1
				case a.score < b.score:
					return 1
				}
				return 0
			})
		}
	}
	return out[0], out[1]
}

func place32(image int, truths int32) place {
	return place{image: int32(image), truths: [areas]int32{truths}}
}

// MeanAP is a model's mAP.
func (m *Matched) MeanAP() float64 {
	r, err := newResampling(m, CompareParams{})
	if err != nil {
		return -1
	}
	return r.point(m, make([][areas]path, len(r.classes))).Overall[delivery.MetricAP]
}

// A Spread is the uncertainty of a figure.
type Spread struct {
	Lower            float64 `json:"lower"` // one-sided bounds
	Upper            float64 `json:"upper"`
	HalfWidth        float64 `json:"half_width"` // of the interval between them
	StdErr           float64 `json:"std_err"`
	delivery.Samples `json:"samples"`
}

// A WholeDifference is a difference with its spread.
type WholeDifference struct {
	Subject
	A    float64 `json:"a"`
	B    float64 `json:"b"`
	Diff float64 `json:"diff"`
	Spread
}

// An Estimate is one figure of one model.
type Estimate struct {
	Subject
	Value float64 `json:"value"`
	Spread
}

// MeanEstimate is mAP with the resamples of a table that [Compare] or [Interval] computed with the given confidence.
func MeanEstimate(m *Matched, t delivery.Table, s Sampling) Estimate {
	r := resamplingOf(m, s)
	return r.estimate(r.all(delivery.MetricMAP), r.classes, t)
}

// A Whole has every figure of a comparison, in the form that tests pin.
type Whole struct {
	MAP        WholeDifference   `json:"mAP"`
	AP50       WholeDifference   `json:"AP50"`
	AP75       WholeDifference   `json:"AP75"`
	Classes    []WholeDifference `json:"classes"`
	Unmeasured []Subject         `json:"unmeasured,omitempty"`
	A          Estimate          `json:"A"`
	B          Estimate          `json:"B"`
	Sampling   Sampling          `json:"sampling"`
	Protocol   Protocol          `json:"protocol"`
	Digest     string            `json:"protocol_digest"`
}

func whole(m *Matched, c *Comparison) *Whole {
	r := resamplingOf(m, c.Sampling)
	w := &Whole{Unmeasured: c.Unmeasured, Sampling: c.Sampling, Classes: []WholeDifference{},
		MAP:  r.wholeDifference(r.all(delivery.MetricMAP), r.classes, c.TableA, c.TableB),
		AP50: r.wholeDifference(r.all(delivery.MetricAP50), r.classes, c.TableA, c.TableB),
		AP75: r.wholeDifference(r.all(delivery.MetricAP75), r.classes, c.TableA, c.TableB),
		A:    MeanEstimate(m, c.TableA, c.Sampling), B: MeanEstimate(m, c.TableB, c.Sampling),
		Protocol: m.protocol, Digest: m.protocol.Digest()}
	for _, d := range c.Classes {
		k := int(m.ids.categories[d.CategoryID])
		w.Classes = append(w.Classes, r.wholeDifference(r.class(k), []int{k}, c.TableA, c.TableB))
	}
	return w
}

func (r *resampling) wholeDifference(s Subject, classes []int, a, b delivery.Table) WholeDifference {
	d := r.difference(s, classes, a, b)
	return WholeDifference{Subject: s, A: d.A, B: d.B, Diff: d.Diff,
		Spread: spread(a.Over(s.Metric, classes).Minus(b.Over(s.Metric, classes)), r.params.Confidence)}
}

// estimates are mAP, AP50, AP75 and the AP of each class, of one model.
func estimates(m *Matched, t delivery.Table, s Sampling) (list []Estimate) {
	r := resamplingOf(m, s)
	for _, metric := range []string{delivery.MetricMAP, delivery.MetricAP50, delivery.MetricAP75} {
		list = append(list, r.estimate(r.all(metric), r.classes, t))
	}
	for _, k := range r.classes {
		if e := r.estimate(r.class(k), []int{k}, t); len(e.Samples) > 0 {
			list = append(list, e)
		}
	}
	return list
}

func resamplingOf(m *Matched, s Sampling) *resampling {
	r, err := newResampling(m, CompareParams{Resamples: s.Resamples, Seed: s.Seed, Confidence: s.Confidence,
		ByGroup: s.ByGroup})
	if err != nil {
		panic(err)
	}
	return r
}

func (r *resampling) estimate(s Subject, classes []int, t delivery.Table) Estimate {
	row := t.Over(s.Metric, classes)
	return Estimate{Subject: s, Value: row.Value, Spread: spread(row, r.params.Confidence)}
}

// spread computes the uncertainty of a figure.
func spread(row delivery.Row, confidence float64) Spread {
	s := Spread{Samples: row.Samples()}
	n := float64(len(s.Samples))
	if n == 0 {
		return s
	}
	if n > 1 {
		s.StdErr = math.Sqrt(row.Variance())
	}
	s.Lower, s.Upper = s.Bounds(confidence)
	s.HalfWidth = (s.Upper - s.Lower) / 2
	return s
}
