package coco

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
)

// CompareParams are the parameters of the bootstrap. The zero value means 1000 resamples, seed 1 and a confidence of
// 95 %.
type CompareParams struct {
	Resamples  int     // zero means 1000
	Seed       uint64  // zero means 1
	Confidence float64 // of each one-sided bound, from .5 to below 1; zero means .95
	// ByGroup resamples whole groups of images (Image.Group), such as the frames
	// of one video, which are not independent of each other.
	ByGroup bool
	// Columns are additional columns of [delivery.Table] to compute.
	Columns []string
}

const maxResamples = 100_000

func (p CompareParams) withDefaults() (CompareParams, error) {
	p.Resamples, p.Seed, p.Confidence = cmp.Or(p.Resamples, 1000), cmp.Or(p.Seed, 1), cmp.Or(p.Confidence, 0.95)
	if p.Resamples < 2 || p.Resamples > maxResamples {
		return p, fmt.Errorf("coco: resamples: want 2 to %d, got %d", maxResamples, p.Resamples)
	}
	if !(p.Confidence >= 0.5 && p.Confidence < 1) {
		return p, fmt.Errorf("coco: confidence: want .5 to below 1, got %v", p.Confidence)
	}
	return p, nil
}

// Sampling describes a bootstrap.
type Sampling struct {
	Resamples  int     `json:"resamples"`
	Seed       uint64  `json:"seed"`
	Confidence float64 `json:"confidence"` // of Lower and of Upper, each
	Images     int     `json:"images"`
	Units      int     `json:"units"` // drawn independently: images, or groups of them
	ByGroup    bool    `json:"by_group"`
}

// A Subject is what a figure measures.
type Subject struct {
	Metric     string `json:"metric"`             // mAP, AP50 or AP75 over all classes, or AP of one class
	CategoryID int64  `json:"category_id"`        // of AP
	Class      string `json:"class,omitempty"`    // of AP
	Truths     int    `json:"truths"`             // annotations without crowds
	Images     int    `json:"images_with_truths"` // images with such annotations
}

// A Difference is the difference of a figure between two models, a minus b.
//
// Its bounds are for test sets of this size. The mAP of a small set with many rare classes is biased upwards, which the
// bootstrap does not show. Differences between models are hardly affected.
type Difference struct {
	Subject
	A, B, Diff       float64
	delivery.Samples // without resamples that have no annotation
}

// Comparison is the result of a paired bootstrap of two models.
type Comparison struct {
	MAP     Difference
	AP50    Difference
	Classes []Difference // AP, by category id
	// Unmeasured are classes that have no annotation, or none in any resample.
	Unmeasured []Subject
	Sampling   Sampling
	// TableA and TableB hold the resamples of both models, of the same draws.
	TableA, TableB delivery.Table
}

// ErrNoTruth is returned if there is no annotation, other than crowds.
var ErrNoTruth = errors.New("coco: the ground truth has no annotation, other than crowds")

// Compare computes a paired bootstrap of two models, which must have been matched with the same ground truth and
// parameters. For twice the same model all differences and bounds are exactly 0.
func Compare(a, b *Matched, params CompareParams) (*Comparison, error) {
	if a.protocol != b.protocol {
		return nil, fmt.Errorf("coco: the two models were scored in different ways: %+v and %+v", a.protocol,
			b.protocol)
	}
	r, err := ofTruths(a, params)
	if err != nil {
		return nil, err
	}
	tables := r.run(a, b)
	of, with := tables[0], tables[1]
	c := &Comparison{TableA: of, TableB: with, Classes: []Difference{},
		MAP:      r.difference(r.all(delivery.MetricMAP), r.classes, of, with),
		AP50:     r.difference(r.all(delivery.MetricAP50), r.classes, of, with),
		Sampling: r.sampling(),
	}
	for _, k := range r.classes {
		if d := r.difference(r.class(k), []int{k}, of, with); len(d.Samples) > 0 {
			c.Classes = append(c.Classes, d)
		} else {
			c.Unmeasured = append(c.Unmeasured, d.Subject)
		}
	}
	for _, k := range r.empty {
		c.Unmeasured = append(c.Unmeasured, r.class(k))
	}
	slices.SortFunc(c.Unmeasured, func(a, b Subject) int { return cmp.Compare(a.CategoryID, b.CategoryID) })
	return c, nil
}

// Interval computes a bootstrap of one model.
func Interval(m *Matched, params CompareParams) (delivery.Table, Sampling, error) {
	r, err := ofTruths(m, params)
	if err != nil {
		return delivery.Table{}, Sampling{}, err
	}
	return r.run(m)[0], r.sampling(), nil
}

// difference computes a figure of two models over some classes.
func (r *resampling) difference(s Subject, classes []int, a, b delivery.Table) Difference {
	of, with := a.Over(s.Metric, classes), b.Over(s.Metric, classes)
	return Difference{Subject: s, A: of.Value, B: with.Value, Diff: of.Value - with.Value,
		Samples: of.Minus(with).Samples()}
}
