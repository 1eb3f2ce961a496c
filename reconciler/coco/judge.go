package coco

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Answer is the result of comparing one figure.
type Answer string

// The answers.
const (
	Better Answer = "better" // a's figure is higher, at the given confidence
	Worse  Answer = "worse"  // it is lower
	Unsure Answer = "unsure" // neither is significant on this test set
	TooFew Answer = "too-few-truths"
)

// MinUnits is the least number of images or groups for an answer. Bounds of a bootstrap over fewer are too narrow.
const MinUnits = 20

// Finding is the answer for one figure of two models.
type Finding struct {
	Subject
	A     float64 `json:"a"`
	B     float64 `json:"b"`
	Diff  float64 `json:"diff"` // a minus b
	Lower float64 `json:"lower"`
	Upper float64 `json:"upper"`
	// LowerAt and UpperAt are the confidences of the one-sided bounds; those of classes are adjusted by Holm's method.
	LowerAt float64 `json:"lower_confidence"`
	UpperAt float64 `json:"upper_confidence"`
	Answer  Answer  `json:"verdict"`
	Reason  string  `json:"reason,omitempty"` // for TooFew, and for Unsure unless the bounds are the reason
}

// Findings are the answers for the figures of a comparison.
type Findings struct {
	MAP     Finding   `json:"mAP"`
	AP50    Finding   `json:"AP50"`
	Classes []Finding `json:"classes"` // AP, by category id, including unmeasured classes
}

// Judge answers for mAP, AP50 and every class whether a is better or worse than b. It is better if the lower bound of
// the difference is above zero, and worse if the upper bound is below zero. The bounds of classes are adjusted by
// Holm's method, with better and worse as two families of hypotheses, which bounds the rate of any false answer in each
// family. Classes with fewer annotations than support are TooFew, and do not count in the adjustment.
func (c *Comparison) Judge(support int) *Findings {
	confidence := c.Sampling.Confidence
	f := &Findings{Classes: make([]Finding, 0, len(c.Classes)+len(c.Unmeasured))}
	f.MAP, f.AP50 = c.find(&c.MAP, confidence, confidence), c.find(&c.AP50, confidence, confidence)
	for _, s := range c.Unmeasured {
		v := Finding{Subject: s, A: -1, B: -1, Answer: TooFew, Reason: fewTruths(s.Truths, max(support, 1))}
		if s.Truths >= max(support, 1) {
			v.Answer, v.Reason = Unsure, noTruthDrawn
		}
		f.Classes = append(f.Classes, v)
	}
	var enough []int // places in Classes
	for i := range c.Classes {
		d := &c.Classes[i]
		if d.Truths >= support {
			enough = append(enough, i)
			continue
		}
		v := c.find(d, confidence, confidence)
		v.Answer, v.Reason = TooFew, fewTruths(d.Truths, support)
		f.Classes = append(f.Classes, v)
	}
	lowerAt, upperAt := make([]float64, len(c.Classes)), make([]float64, len(c.Classes))
	above := func(i int) float64 { return 1 - c.Classes[i].Below(math.SmallestNonzeroFloat64) }
	Holm(1-confidence, enough, above, func(i int, at float64) bool {
		lowerAt[i] = at
		lower, _ := c.Classes[i].Bounds(at)
		return lower > 0 && c.Classes[i].Resolves(at)
	})
	below := func(i int) float64 { return c.Classes[i].Below(0) }
	Holm(1-confidence, enough, below, func(i int, at float64) bool {
		upperAt[i] = at
		_, upper := c.Classes[i].Bounds(at)
		return upper < 0 && c.Classes[i].Resolves(at)
	})
	for _, i := range enough {
		f.Classes = append(f.Classes, c.find(&c.Classes[i], lowerAt[i], upperAt[i]))
	}
	slices.SortFunc(f.Classes, func(a, b Finding) int { return cmp.Compare(a.CategoryID, b.CategoryID) })
	return f
}

// find judges one difference by a lower and an upper bound, each at its own confidence.
func (c *Comparison) find(d *Difference, lowerAt, upperAt float64) Finding {
	v := Finding{Subject: d.Subject, A: d.A, B: d.B, Diff: d.Diff, LowerAt: lowerAt, UpperAt: upperAt, Answer: Unsure}
	if len(d.Samples) == 0 {
		v.Lower, v.Upper, v.Reason = -1, 1, noTruthDrawn
		return v
	}
	v.Lower, _ = d.Bounds(lowerAt)
	_, v.Upper = d.Bounds(upperAt)
	switch {
	case c.Sampling.Units < MinUnits:
		what := map[bool]string{false: "images", true: "groups"}[c.Sampling.ByGroup]
		v.Reason = fmt.Sprintf("%d %s, want %d", c.Sampling.Units, what, MinUnits)
	case v.Lower > 0 && d.Resolves(lowerAt):
		v.Answer = Better
	case v.Upper < 0 && d.Resolves(upperAt):
		v.Answer = Worse
	case v.Lower > 0 || v.Upper < 0:
		at := lowerAt
		if v.Upper < 0 {
			at = upperAt
		}
		v.Reason = fmt.Sprintf("want %d resamples", ResamplesFor(1, at)*c.Sampling.Resamples/len(d.Samples)+1)
	}
	return v
}

const noTruthDrawn = "no resample had a truth"

func fewTruths(n, want int) string {
	return fmt.Sprintf("%s, want %d", delivery.Count(n, "truth"), want)
}

// ResamplesFor returns how many resamples Holm's adjustment over a number of classes needs at a confidence, at least
// 1000.
func ResamplesFor(classes int, confidence float64) int {
	n := math.Ceil(float64(max(classes, 1))/(1-confidence) - 1e-6)
	return int(min(max(n, 1000), maxResamples))
}

// Holm tests a family of hypotheses by Holm's step-down method (Holm, "A simple sequentially rejective multiple test
// procedure", 1979). They are tested in descending order of evidence, each at the level alpha divided by the number not
// yet rejected. After the first that is not rejected, all others are tested at its level. reject tests one hypothesis
// at a confidence, and is called once for each.
func Holm(alpha float64, places []int, evidence func(place int) float64, reject func(place int,
	confidence float64) bool) {
	order := slices.Clone(places)
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(evidence(b), evidence(a)) })
	left, open := len(order), true
	for _, place := range order {
		if reject(place, 1-alpha/float64(left)) && open {
			left--
		} else {
			open = false
		}
	}
}
