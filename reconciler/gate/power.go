package gate

// This file says how small a drop an eval set can show, before anybody waits for an
// answer that it cannot give.

import (
	"math"
	"slices"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A Power is what one check that bounds a drop can show on an eval set.
type Power struct {
	Check   string  `json:"check"` // as people wrote it
	Class   string  `json:"class,omitempty"`
	MaxDrop float64 `json:"maxDrop"`
	Images  int     `json:"images"` // of the eval set
	// StdErr is the standard error of a difference between two models on these
	// images. AtMost: it comes from one model's figures and not from two compared
	// on the same images, which differ less.
	StdErr float64 `json:"stdErr"`
	AtMost bool    `json:"atMost,omitempty"`
	// Smallest is the drop that the check shows four times in five: one that large
	// fails it, and a model that is as good passes a maxDrop that large.
	Smallest float64 `json:"smallest"`
	// EqualPasses is how often a model that is exactly as good as the release
	// passes; else the check is unsure.
	EqualPasses float64 `json:"equalPasses"`
	Need        int     `json:"need"` // about how many images would make MaxDrop the smallest
}

// A ModelPower is how small a drop of a model's release a gate's eval set can show.
type ModelPower struct {
	Gate   string  `json:"gate"`
	Model  string  `json:"model"`
	Images int     `json:"images"`
	Groups int     `json:"groups,omitempty"`
	Checks []Power `json:"checks"`
}

// Powers says what a gate's checks on drops can show, by what is known of models on
// its eval set: verdicts that compared two there, else the release's own scores.
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
			if class != "" && release.Truths[class] < c.Support {
				continue
			}
			over := []string{class}
			if class == "" {
				over = covered(g, c)
			}
			p := Power{Check: describe(c), Class: class, MaxDrop: *c.MaxDrop, Images: release.Images}
			var known bool
			if p.StdErr, known = paired(verdicts, c.Metric, class); !known {
				if p.StdErr, known = spreadOf(release.Table.Figure(c.Metric, over)); !known {
					continue
				}
				p.AtMost = true
			}
			// Among many classes each bound is held to what Holm leaves to the first.
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

// shown is how often a drop must show to be called one that an eval set can show.
const shown = 0.8

// paired is the median of the standard errors that verdicts' bounds on a difference
// stand for.
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

// spreadOf is what two independent models of one's spread would differ by.
func spreadOf(r delivery.Row) (float64, bool) {
	if len(r.Samples()) < coco.MinUnits {
		return 0, false
	}
	return math.Sqrt(2 * r.Variance()), true
}

// quantile and normal are the standard normal distribution's.
func quantile(p float64) float64 { return math.Sqrt2 * math.Erfinv(2*p-1) }

func normal(x float64) float64 { return math.Erfc(-x/math.Sqrt2) / 2 }
