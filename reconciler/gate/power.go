package gate

// This file computes how small a drop an eval set can show.

import (
	"math"
	"slices"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A Power is how small a drop one check with maxDrop can show on an eval set.
type Power struct {
	Check   string  `json:"check"`
	Class   string  `json:"class,omitempty"`
	MaxDrop float64 `json:"maxDrop"`
	Images  int     `json:"images"` // of the eval set
	// StdErr is the standard error of a difference between two models on these images. AtMost is set if it comes from
	// the figures of one model: two models compared on the same images differ less.
	StdErr float64 `json:"stdErr"`
	AtMost bool    `json:"atMost,omitempty"`
	// Smallest is the drop that the check shows four times in five: a model with a drop that large fails, and an equal
	// model passes a maxDrop that large.
	Smallest float64 `json:"smallest"`
	// EqualPasses is how often a model that is exactly as good as the release passes. Otherwise the check is unsure.
	EqualPasses float64 `json:"equalPasses"`
	Need        int     `json:"need"` // about how many images would make MaxDrop the smallest drop
}

// A ModelPower has the power of each check of a gate for one model.
type ModelPower struct {
	Gate   string  `json:"gate"`
	Model  string  `json:"model"`
	Images int     `json:"images"`
	Groups int     `json:"groups,omitempty"`
	Checks []Power `json:"checks"`
}

// Powers returns the power of a gate's checks with maxDrop. It uses verdicts that compared two models on the gate's
// eval set, or else the release's scores there.
func Powers(g delivery.Gate, release delivery.ScoreSet, verdicts []delivery.Verdict) []Power {
	var list []Power
	for _, c := range g.Checks {
		if c.MaxDrop == nil {
			continue
		}
		classes := []string{""}
		if perClass(c) {
			classes = among(covered(g, c), release.Classes)
		}
		for _, class := range classes {
			n, known := release.Table.Units(c.Metric, []string{class})
			if class != "" && (release.Truths[class] < c.Support || known && n < coco.MinUnits) {
				continue // the check is unsure
			}
			over := []string{class}
			if class == "" {
				over = covered(g, c)
			}
			p := Power{Check: describe(c), Class: class, MaxDrop: *c.MaxDrop, Images: release.Images}
			if p.StdErr, known = paired(verdicts, c.Metric, class); !known {
				if p.StdErr, known = spreadOf(release.Table.Figure(c.Metric, over)); !known {
					continue
				}
				p.AtMost = true
			}
			// Holm's method judges the first of many classes at this confidence.
			z := quantile(1 - (1-float64(c.Confidence))/float64(len(classes)))
			p.Smallest = (z + quantile(shown)) * p.StdErr
			if p.StdErr > 0 {
				p.EqualPasses = normal(p.MaxDrop/p.StdErr - z)
				if p.MaxDrop > 0 {
					p.Need = int(min(math.Ceil(float64(p.Images)*math.Pow(p.Smallest/p.MaxDrop, 2)), 1e9))
				}
			} else {
				p.EqualPasses = 1
			}
			list = append(list, p)
		}
	}
	return list
}

// shown is how often a check must find a drop that it can show.
const shown = 0.8

// paired returns the median of the standard errors, computed from the bounds of differences in verdicts.
func paired(verdicts []delivery.Verdict, metric, class string) (float64, bool) {
	var list []float64
	for _, v := range verdicts {
		for _, c := range v.Checks {
			if c.Metric != metric || c.Class != class || c.Diff == nil || c.Low == nil || c.High == nil ||
				c.Confidence <= 0.5 {
				continue
			}
			if se := (*c.High - *c.Low) / 2 / quantile(c.Confidence); se > 0 {
				list = append(list, se)
			}
		}
	}
	if len(list) == 0 {
		return 0, false
	}
	slices.Sort(list)
	return list[len(list)/2], true
}

// spreadOf returns the standard error of the difference of two independent models that each vary like r.
func spreadOf(r delivery.Row) (float64, bool) {
	if len(r.Samples()) < coco.MinUnits {
		return 0, false
	}
	return math.Sqrt(2 * r.Variance()), true
}

// quantile is the inverse of normal, the distribution function of the standard normal distribution.
func quantile(p float64) float64 { return math.Sqrt2 * math.Erfinv(2*p-1) }

func normal(x float64) float64 { return math.Erfc(-x/math.Sqrt2) / 2 }
