package stage

import (
	"math"

	"github.com/autonomos/aob/reconciler/delivery"
)

// The bounds between which chance leaves a figure of a training that is repeated, and where they come from.
const (
	FromSeeds  = "seeds"  // what the release's seeds predict of one more training
	FromImages = "images" // the bootstrap of the release over the images that it was measured on
	FromValue  = "value"  // the figure has no spread; it must be the same
)

// studentT has the 97.5 % quantiles of Student's t-distribution for 1 to 30 degrees of freedom: NIST/SEMATECH
// e-Handbook of Statistical Methods, table 1.3.6.7.2. Beyond these the normal distribution is used.
var studentT = []float64{12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
	2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045,
	2.042}

const normal975 = 1.960

// predicted returns the 95 % prediction interval of one more value after at least two: mean ± t·s·√(1+1/n).
//
// The smallest and the largest value would be no bounds: of n values drawn alike, one more lies outside of them with
// probability 2/(n+1), which is half of the time for three seeds.
func predicted(values []float64) (low, high float64) {
	n := float64(len(values))
	mean := 0.0
	for _, v := range values {
		mean += v / n
	}
	squares := 0.0
	for _, v := range values {
		squares += (v - mean) * (v - mean)
	}
	t := normal975
	if df := len(values) - 1; df <= len(studentT) {
		t = studentT[df-1]
	}
	half := t * math.Sqrt(squares/(n-1)) * math.Sqrt(1+1/n)
	return mean - half, mean + half
}

// A Compared is one figure of a release, and the same of the model that was trained again.
type Compared struct {
	On         string  `json:"on"`     // a gate, or Validation
	Metric     string  `json:"metric"` // as in the release file
	Released   float64 `json:"released"`
	Reproduced float64 `json:"reproduced"`
	Low        float64 `json:"low"`
	High       float64 `json:"high"`
	From       string  `json:"from"`   // FromSeeds, FromImages or FromValue
	Counts     bool    `json:"counts"` // for the verdict; others are shown
	Within     bool    `json:"within"`
}

// Validation is what the model's own validation split is called.
const Validation = "validation"

// compared judges one figure. seeds has the figure of each seed of the release, if there are several and all have it.
// Of many figures at 95 % one or another is outside by chance, so only mAP counts: seeds are chosen by it, and gates
// have it first.
func compared(on, metric string, was delivery.Figure, seeds []float64, now float64) Compared {
	c := Compared{On: on, Metric: metric, Released: was.Value, Reproduced: now, Low: was.Value, High: was.Value,
		From: FromValue, Counts: metric == delivery.MetricMAP}
	switch {
	case len(seeds) > 1:
		c.From = FromSeeds
		c.Low, c.High = delivery.MetricOfFigure(metric).Limit(predicted(seeds))
	case was.Low != nil && was.High != nil:
		c.From, c.Low, c.High = FromImages, *was.Low, *was.High
	}
	c.Low, c.High = decimals(c.Low), decimals(c.High)
	c.Within = c.Low <= now && now <= c.High
	return c
}

// decimals keeps as many as release files do.
func decimals(v float64) float64 { return math.Round(v*1e4) / 1e4 }
