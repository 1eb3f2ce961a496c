package delivery

import (
	"maps"
	"math"
	"slices"
	"strings"
)

// Outcome is the result of a check or a gate.
type Outcome string

// The outcomes.
const (
	Pass          Outcome = "pass"
	Fail          Outcome = "fail"
	Unsure        Outcome = "unsure"         // too little evidence; an owner may accept it
	Ignored       Outcome = "ignored"        // unsure, with unsure: ignore in the gate
	NotApplicable Outcome = "not-applicable" // nothing to check, for example no baseline
)

// A Verdict is a gate's result for one model, with the result of each check.
type Verdict struct {
	Gate     string         `json:"gate"`
	GateSpec Digest         `json:"gateSpec"` // Gate.Digest
	Model    string         `json:"model"`
	Outcome  Outcome        `json:"outcome"`
	Because  []Fact         `json:"because,omitempty"` // the reasons
	Reason   string         `json:"reason,omitempty"`  // the reasons as text, in statements of older versions of AOB
	Checks   []CheckVerdict `json:"checks"`
	Classes  []string       `json:"classes"` // classes of the gate that were measured
	Inputs   []Digest       `json:"inputs"`  // the score and compare keys that were used
	Key      Digest         `json:"key"`

	Bundle   Digest `json:"bundle,omitempty"`
	Baseline Digest `json:"baseline,omitempty"` // the release's bundle; empty for a first model
	EvalSet  Digest `json:"evalSet,omitempty"`
	Images   int    `json:"images,omitempty"`  // number of images that were measured
	LeftOut  int    `json:"leftOut,omitempty"` // images of the eval set left out because a model was trained on them
	// Refresh counts the models that were judged on the eval set against the baseline, this one included. Looks is how
	// many the gate allows. Look is 0 if it is not counted, Looks if there is no limit. Look is not part of the key:
	// the same content keeps its first number.
	Look  int `json:"look,omitempty"`
	Looks int `json:"looks,omitempty"`
	// Lost lists the figures in which the candidate is significantly worse than the release, including those that no
	// check covers.
	Lost []Loss `json:"lost,omitempty"`
}

// A CheckVerdict is the result of one check, or of one class of it.
type CheckVerdict struct {
	Check    string   `json:"check"`             // as "mAP >= 0.48" or "mAP drop <= 0.01"
	Metric   string   `json:"metric"`            // the name of a Metric, or looks
	Class    string   `json:"class,omitempty"`   // if the check selects classes
	Against  string   `json:"against,omitempty"` // of a drop: release, or NAME@VERSION
	Outcome  Outcome  `json:"outcome"`
	Because  []Fact   `json:"because,omitempty"`
	Reason   string   `json:"reason,omitempty"` // as Verdict.Reason
	Value    *float64 `json:"value,omitempty"`
	Baseline *float64 `json:"baseline,omitempty"`
	Diff     *float64 `json:"diff,omitempty"`
	// one-sided bounds at the check's confidence; nil if another check of the gate has those of the same figure
	Low   *float64 `json:"low,omitempty"`
	High  *float64 `json:"high,omitempty"`
	Limit *float64 `json:"limit,omitempty"`

	Confidence float64 `json:"confidence,omitempty"` // of the bound that was used, after adjustment for several classes
	// Settle estimates how many images would make an unsure result definite; 0 if unknown.
	Settle int `json:"settle,omitempty"`
}

// Change returns how far a figure is from the release's. It is the difference that a check of the verdict judges, if
// one does: that of the rounded figures can be another in its last digit.
func (m Measured) Change(figure string, v Verdict) (diff float64, ok bool) {
	if m.Baseline == nil {
		return 0, false
	}
	base, ok := m.Baseline.Metrics[figure]
	if !ok {
		return 0, false
	}
	diff = m.Metrics[figure].Value - base
	metric, class, _ := strings.Cut(figure, "/")
	// A check can be of other classes, or compare with another version.
	if c, judged := v.CheckOf(Loss{Metric: metric, Class: class}); judged && math.Abs(*c.Diff-diff) < 0.00011 {
		return *c.Diff, true
	}
	return diff, true
}

// OneInterval returns figures for a page that shows verdicts too. It leaves out the bounds of each figure that a check
// bounds, because the check's bounds of the same value are adjusted for its classes and differ.
func OneInterval(list []Measured, verdicts []Verdict) []Measured {
	list = slices.Clone(list)
	for i := range list {
		list[i].Metrics = maps.Clone(list[i].Metrics)
		for _, v := range verdicts {
			for _, c := range v.Checks {
				name := c.Metric
				if c.Class != "" {
					name += "/" + c.Class
				}
				f, ok := list[i].Metrics[name]
				if ok && c.Diff == nil && c.Low != nil && math.Abs(*c.Value-f.Value) < 1e-4 { // figures are rounded
					list[i].Metrics[name] = Figure{Value: f.Value}
				}
			}
		}
	}
	return list
}

// CheckOf returns the check of the difference that a loss is about; of several, that with the bounds. Of a single
// class, AP and mAP are one number.
func (v Verdict) CheckOf(l Loss) (found CheckVerdict, ok bool) {
	single := func(metric, class string) bool {
		return len(v.Classes) == 1 && (metric == MetricMAP || metric == MetricAP && class == v.Classes[0])
	}
	for _, c := range v.Checks {
		same := c.Metric == l.Metric && c.Class == l.Class || single(c.Metric, c.Class) && single(l.Metric, l.Class)
		of := same && c.Diff != nil && c.Outcome != NotApplicable
		if of && (!ok || found.Low == nil) {
			found, ok = c, true
		}
	}
	return found, ok
}

// OtherLosses lists the losses that no check reports. A check that did not pass reports the same difference with its
// own bounds.
func (v Verdict) OtherLosses() []Loss {
	return slices.DeleteFunc(slices.Clone(v.Lost), func(l Loss) bool {
		c, ok := v.CheckOf(l)
		return ok && c.Outcome != Pass
	})
}

// Subject returns what got worse, as in "AP of WBC".
func (l Loss) Subject() string {
	if l.Class != "" {
		return l.Metric + " of " + l.Class
	}
	return MetricOfFigure(l.Metric).String()
}

// Overall combines outcomes: Fail if any is Fail, else Unsure if any is Unsure, else Pass
// if any is Pass, else NotApplicable.
func Overall(outcomes []Outcome) Outcome {
	for _, o := range []Outcome{Fail, Unsure, Pass} {
		if slices.Contains(outcomes, o) {
			return o
		}
	}
	return NotApplicable
}
