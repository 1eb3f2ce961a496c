package coco

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
)

// CompareParams are the parameters of the bootstrap. The zero value means 1000
// resamples of all images, seed 1, all classes, and a confidence of 95 %.
type CompareParams struct {
	Resamples  int     // zero means 1000
	Seed       uint64  // zero means 1
	Confidence float64 // of each one-sided bound, from .5 to below 1; zero means .95
	// Classes are the category ids to measure; nil means all.
	Classes []int64
	// Images are the ids of the images to measure; nil means all.
	Images []int64
	// ByGroup resamples whole groups of images (Image.Group), such as the frames
	// of one video, which are not independent of each other.
	ByGroup bool
	// Columns are additional columns of [delivery.Table] to compute.
	Columns []string
}

const maxResamples = 100_000

func (p CompareParams) withDefaults() (CompareParams, error) {
	if p.Resamples == 0 {
		p.Resamples = 1000
	}
	if p.Seed == 0 {
		p.Seed = 1
	}
	if p.Confidence == 0 {
		p.Confidence = 0.95
	}
	if p.Resamples < 2 || p.Resamples > maxResamples {
		return p, fmt.Errorf("coco: resamples: want 2 to %d, got %d", maxResamples, p.Resamples)
	}
	if !(p.Confidence >= 0.5 && p.Confidence < 1) {
		return p, fmt.Errorf("coco: confidence: want .5 to below 1, got %v", p.Confidence)
	}
	return p, nil
}

// Sampling says what was resampled.
type Sampling struct {
	Resamples  int     `json:"resamples"`
	Seed       uint64  `json:"seed"`
	Confidence float64 `json:"confidence"` // of Lower and of Upper, each
	Images     int     `json:"images"`     // measured
	Units      int     `json:"units"`      // drawn independently: images, or groups of them
	ByGroup    bool    `json:"by_group"`
}

// Subject says what a figure measures.
type Subject struct {
	Metric     string `json:"metric"`             // mAP, AP50 or AP75 over all classes, or AP of one class
	CategoryID int64  `json:"category_id"`        // of AP
	Class      string `json:"class,omitempty"`    // of AP
	Truths     int    `json:"truths"`             // annotations without crowds, in the measured images
	Images     int    `json:"images_with_truths"` // measured images with such annotations
}

// Spread is the sampling uncertainty of a figure. Samples are [delivery.Row.Samples]:
// sorted, shifted so that their mean is the figure, without resamples that have no
// annotation.
//
// The bounds are for test sets of this size. The mAP of a small set with many rare
// classes is biased upwards, which the bootstrap does not show. Differences between
// models are hardly affected.
type Spread struct {
	Lower     float64   `json:"lower"` // one-sided bounds
	Upper     float64   `json:"upper"`
	HalfWidth float64   `json:"half_width"` // of the interval between them
	StdErr    float64   `json:"std_err"`
	Samples   []float64 `json:"samples"`
}

// Bounds returns the one-sided bounds; see [delivery.Samples.Bounds].
func (s *Spread) Bounds(confidence float64) (lower, upper float64) {
	return delivery.Samples(s.Samples).Bounds(confidence)
}

// Difference is the difference of a figure between two models, a minus b.
type Difference struct {
	Subject
	A    float64 `json:"a"`
	B    float64 `json:"b"`
	Diff float64 `json:"diff"`
	Spread
}

// Estimate is one figure of one model.
type Estimate struct {
	Subject
	Value float64 `json:"value"`
	Spread
}

// Comparison is the result of a paired bootstrap of two models.
type Comparison struct {
	MAP     Difference   `json:"mAP"`
	AP50    Difference   `json:"AP50"`
	AP75    Difference   `json:"AP75"`
	Classes []Difference `json:"classes"` // AP, by category id
	// Unmeasured are selected classes that have no annotation in the measured
	// images, or in any resample.
	Unmeasured []Subject `json:"unmeasured,omitempty"`
	// A and B are the models' own mAP.
	A        Estimate `json:"A"`
	B        Estimate `json:"B"`
	Sampling Sampling `json:"sampling"`
	Protocol Protocol `json:"protocol"`
	Digest   string   `json:"protocol_digest"`
	// TableA and TableB hold the resamples of both models, of the same draws.
	TableA delivery.Table `json:"-"`
	TableB delivery.Table `json:"-"`
}

// Intervals is the result of a bootstrap of one model.
type Intervals struct {
	MAP        Estimate   `json:"mAP"`
	AP50       Estimate   `json:"AP50"`
	AP75       Estimate   `json:"AP75"`
	Classes    []Estimate `json:"classes"`
	Unmeasured []Subject  `json:"unmeasured,omitempty"`
	Sampling   Sampling   `json:"sampling"`
	Protocol   Protocol   `json:"protocol"`
	Digest     string     `json:"protocol_digest"`

	Table delivery.Table `json:"-"` // the resamples
}

// ErrNoTruth is returned if the selected images have no annotation, other than crowds, of
// the selected classes.
var ErrNoTruth = errors.New("coco: no truth that counts in the chosen images and classes")

// Compare computes a paired bootstrap of two models, which must have been matched with
// the same ground truth and parameters. For twice the same model all differences and
// bounds are exactly 0.
func Compare(a, b *Matched, params CompareParams) (*Comparison, error) {
	if a.protocol != b.protocol {
		return nil, fmt.Errorf("coco: the two models were scored in different ways: %+v and %+v", a.protocol,
			b.protocol)
	}
	r, err := newResampling(a, params)
	if err != nil {
		return nil, err
	}
	tables := r.run(a, b)
	of, with := tables[0], tables[1]
	c := &Comparison{TableA: of, TableB: with, Classes: []Difference{},
		MAP:      r.difference(r.all(delivery.MetricMAP), r.classes, of, with),
		AP50:     r.difference(r.all(delivery.MetricAP50), r.classes, of, with),
		AP75:     r.difference(r.all(delivery.MetricAP75), r.classes, of, with),
		A:        r.estimate(r.all(delivery.MetricMAP), r.classes, of),
		B:        r.estimate(r.all(delivery.MetricMAP), r.classes, with),
		Sampling: r.sampling(), Protocol: a.protocol, Digest: a.protocol.Digest(),
	}
	for _, k := range r.classes {
		d := r.difference(r.class(k), []int{k}, of, with)
		if len(d.Samples) == 0 {
			c.Unmeasured = append(c.Unmeasured, d.Subject)
			continue
		}
		c.Classes = append(c.Classes, d)
	}
	for _, k := range r.empty {
		c.Unmeasured = append(c.Unmeasured, r.class(k))
	}
	slices.SortFunc(c.Unmeasured, byCategory)
	return c, nil
}

// Interval computes a bootstrap of one model.
func Interval(m *Matched, params CompareParams) (*Intervals, error) {
	r, err := newResampling(m, params)
	if err != nil {
		return nil, err
	}
	t := r.run(m)[0]
	v := &Intervals{Table: t, Classes: []Estimate{},
		MAP:      r.estimate(r.all(delivery.MetricMAP), r.classes, t),
		AP50:     r.estimate(r.all(delivery.MetricAP50), r.classes, t),
		AP75:     r.estimate(r.all(delivery.MetricAP75), r.classes, t),
		Sampling: r.sampling(), Protocol: m.protocol, Digest: m.protocol.Digest(),
	}
	for _, k := range r.classes {
		e := r.estimate(r.class(k), []int{k}, t)
		if len(e.Samples) == 0 {
			v.Unmeasured = append(v.Unmeasured, e.Subject)
			continue
		}
		v.Classes = append(v.Classes, e)
	}
	for _, k := range r.empty {
		v.Unmeasured = append(v.Unmeasured, r.class(k))
	}
	slices.SortFunc(v.Unmeasured, byCategory)
	return v, nil
}

func byCategory(a, b Subject) int { return cmp.Compare(a.CategoryID, b.CategoryID) }

// difference computes a figure of two models over some classes.
func (r *resampling) difference(s Subject, classes []int, a, b delivery.Table) Difference {
	of, with := a.Over(s.Metric, classes), b.Over(s.Metric, classes)
	d := Difference{Subject: s, A: of.Value, B: with.Value, Diff: of.Value - with.Value}
	d.Spread = spread(of.Minus(with), r.params.Confidence)
	return d
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
