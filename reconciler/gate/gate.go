// Package gate answers whether a model may be released, with a reason for every
// check. It is pure: measurements go in, a [delivery.Verdict] comes out.
//
// How a check decides (the design, section 3):
//
//   - min: pass at or above the bound; fail where even the upper bound of the
//     value lies below it; else unsure.
//   - max, for size: pass at or below the bound, else fail.
//   - maxDrop: pass where the lower bound of candidate minus baseline is at
//     least -maxDrop; fail where its upper bound is below; else unsure, with
//     what would settle it.
//
// Bounds are one-sided at the check's confidence and come from the bootstrap
// over test images that the measurements carry: they cover the choice of test
// images, not the noise of training. Where the eval set names a group, whole
// groups are drawn, as the frames of one video are not independent; less than 20
// groups are unsure. Over several classes bounds are adjusted by Holm's step-down
// method, so that twenty equal classes do not raise twenty alarms. A class with
// less truths than the check's support is unsure.
package gate

import (
	"fmt"
	"math"
	"slices"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// Measured is what one bundle scored on the gate's eval set.
type Measured struct {
	Key    delivery.Digest // the score key
	Scores delivery.ScoreSet
}

// Input is all that a gate reads.
type Input struct {
	Model      string
	Classes    []string // the model's, in order
	Size       int64    // of the largest variant, bytes
	Bundle     delivery.Digest
	EvalSet    delivery.Digest // of its content
	Candidate  Measured
	Baseline   *Measured               // the target branch's release on the same eval set; nil for a first model
	Compare    *delivery.CompareResult // nil where Baseline is nil
	CompareKey delivery.Digest
	SameBundle bool // the candidate is the release: nothing can have dropped

	BaselineBundle  delivery.Digest
	BaselineClasses []string          // the release's, by its own names
	Was             map[string]string // renamed classes, new name to old
	Look            int               // which model the eval set judges against this baseline, from 1; 0 is not counted
	Anchors         map[string]Anchor // by what a check is against, as pallets@12
}

// An Anchor is a fixed version that checks compare with, on the same eval set.
type Anchor struct {
	Missing    string // why there is none to compare with, as "pallets@12 is no version that main accepted"
	SameBundle bool
	Measured   Measured
	Compare    *delivery.CompareResult
	CompareKey delivery.Digest
}

// Judge lets a gate answer under a name.
func Judge(name string, g delivery.Gate, in Input) delivery.Verdict {
	v := delivery.Verdict{Gate: name, GateSpec: g.Digest(), Model: in.Model, Inputs: []delivery.Digest{in.Candidate.Key}}
	v.Classes = in.Candidate.Scores.Classes
	if in.Baseline != nil {
		v.Inputs = append(v.Inputs, in.Baseline.Key, in.CompareKey)
		if in.Compare != nil {
			v.Classes = in.Compare.Classes
		}
	}
	v.Key = delivery.VerdictKey(v.GateSpec, v.Inputs)
	if in.Baseline != nil && in.Baseline.Scores.Protocol != in.Candidate.Scores.Protocol {
		v.Outcome, v.Reason = delivery.Fail, "candidate and release were scored by different protocols; their numbers cannot be compared"
		return v
	}
	var outcomes []delivery.Outcome
	for _, c := range g.Checks {
		for _, cv := range check(c, in) {
			cv.Check = describe(c)
			if cv.Outcome == delivery.Unsure {
				switch c.Unsure {
				case "fail":
					cv.Outcome = delivery.Fail
				case "ignore":
					cv.Outcome = delivery.Ignored
				}
			}
			v.Checks = append(v.Checks, cv)
			outcomes = append(outcomes, cv.Outcome)
		}
	}
	v.Outcome = delivery.Overall(outcomes)
	v.Reason = reason(v)
	return v
}

func describe(c delivery.GateCheck) string {
	switch {
	case c.Min != nil:
		return fmt.Sprintf("%s >= %s", c.Metric, num(*c.Min))
	case c.Max != nil:
		return fmt.Sprintf("%s <= %s", c.Metric, *c.Max)
	case c.MaxDrop != nil:
		return fmt.Sprintf("%s drop <= %s", c.Metric, num(*c.MaxDrop))
	}
	return c.Metric
}

// num prints a bound as people wrote it.
func num(v float64) string { return fmt.Sprintf("%g", v) }

// reason sums a verdict up in a line: what decided it, and how much else.
func reason(v delivery.Verdict) string {
	var decisive []delivery.CheckVerdict
	for _, c := range v.Checks {
		if c.Outcome == v.Outcome {
			decisive = append(decisive, c)
		}
	}
	switch {
	case len(decisive) == 0:
		return "nothing to judge: every check is ignored or does not apply"
	case v.Outcome == delivery.Pass:
		return decisive[0].Reason + others(v)
	case len(decisive) > 1:
		return fmt.Sprintf("%s (and %d more)", decisive[0].Reason, len(decisive)-1)
	}
	return decisive[0].Reason
}

// others counts a passing verdict's checks, where there is more than one. What
// did not apply is named, so that nobody looks for what failed.
func others(v delivery.Verdict) string {
	if len(v.Checks) < 2 {
		return ""
	}
	n := map[delivery.Outcome]int{}
	for _, c := range v.Checks {
		n[c.Outcome]++
	}
	text := fmt.Sprintf("; passed %d of %d checks", n[delivery.Pass], len(v.Checks))
	if n[delivery.NotApplicable] > 0 {
		text += fmt.Sprintf(", %d not applicable", n[delivery.NotApplicable])
	}
	if n[delivery.Ignored] > 0 {
		text += fmt.Sprintf(", %d ignored", n[delivery.Ignored])
	}
	return text
}

func check(c delivery.GateCheck, in Input) []delivery.CheckVerdict {
	switch {
	case c.Metric == "size":
		return []delivery.CheckVerdict{size(c, in)}
	case c.Metric == "AP":
		return perClass(c, in)
	case c.Min != nil:
		return []delivery.CheckVerdict{floor(c, c.Metric, "", in)}
	case c.MaxDrop != nil:
		return []delivery.CheckVerdict{drop(c, c.Metric, "", in)}
	}
	// The parser lets nothing else through; a gate never passes what it does not know.
	return []delivery.CheckVerdict{{Metric: c.Metric, Outcome: delivery.Fail, Reason: "this version of aob cannot judge " + c.Metric}}
}

func size(c delivery.GateCheck, in Input) delivery.CheckVerdict {
	limit, err := c.Max.Bytes()
	if err != nil {
		return delivery.CheckVerdict{Metric: c.Metric, Outcome: delivery.Fail, Reason: err.Error()}
	}
	v := delivery.CheckVerdict{Metric: c.Metric, Value: ptr(float64(in.Size)), Limit: ptr(float64(limit)), Outcome: delivery.Pass,
		Reason: fmt.Sprintf("size %s <= %s", megabytes(in.Size), limit)}
	if in.Size > int64(limit) {
		v.Outcome, v.Reason = delivery.Fail, fmt.Sprintf("size %s > %s", megabytes(in.Size), limit)
	}
	return v
}

func megabytes(n int64) string { return fmt.Sprintf("%.1fMB", float64(n)/1e6) }

func ptr(v float64) *float64 { return &v }

// floor judges one value against min, without adjustment.
func floor(c delivery.GateCheck, metric, class string, in Input) delivery.CheckVerdict {
	return floorAt(c, metric, class, in, float64(c.Confidence))
}

func floorAt(c delivery.GateCheck, metric, class string, in Input, confidence float64) delivery.CheckVerdict {
	v := delivery.CheckVerdict{Metric: c.Metric, Class: class, Limit: c.Min}
	s := in.Candidate.Scores
	value, ok := s.Values[metric]
	if !ok {
		v.Outcome, v.Reason = delivery.Unsure, fmt.Sprintf("%s: the eval set has no truths for it", label(c.Metric, class))
		return v
	}
	v.Value = &value
	name := label(c.Metric, class)
	if few, ok := tooFewGroups(s.Groups); ok {
		v.Outcome, v.Reason = delivery.Unsure, name+": "+few
		return v
	}
	if samples := s.Resamples[metric]; len(samples) > 0 {
		low, high := samples.Bounds(confidence)
		v.Low, v.High = &low, &high
	}
	switch {
	case value >= *c.Min:
		v.Outcome, v.Reason = delivery.Pass, fmt.Sprintf("%s %.4f >= %s", name, value, num(*c.Min))
	case v.High != nil && *v.High < *c.Min:
		v.Outcome, v.Reason = delivery.Fail, fmt.Sprintf("%s %.4f < %s (at most %.4f, %s sure, %d images)", name, value, num(*c.Min), *v.High, sure(confidence), s.Images)
	default:
		v.Outcome = delivery.Unsure
		v.Reason = fmt.Sprintf("%s %.4f < %s, but %d images cannot rule out that it reaches it", name, value, num(*c.Min), s.Images)
		if v.High != nil {
			v.Reason += settle(*v.High-value, *c.Min-value, s.Images)
		}
	}
	return v
}

// minGroups is how many groups of images a bootstrap needs: of fewer it draws too
// much the same, and its intervals are too short.
const minGroups = 20

// tooFewGroups reports whether the images come in too few groups; none is that
// each stands for itself.
func tooFewGroups(groups int) (why string, few bool) {
	if groups == 0 || groups >= minGroups {
		return "", false
	}
	return fmt.Sprintf("the eval set has %d groups of images, and an interval needs %d", groups, minGroups), true
}

// drop judges one difference against maxDrop, without adjustment.
func drop(c delivery.GateCheck, metric, class string, in Input) delivery.CheckVerdict {
	v, d, ok := difference(c, metric, class, in)
	if !ok {
		return v
	}
	return dropAt(c, v, d, in, float64(c.Confidence), float64(c.Confidence))
}

// difference looks a difference up, or says why there is none to judge.
func difference(c delivery.GateCheck, metric, class string, in Input) (delivery.CheckVerdict, delivery.Difference, bool) {
	v := delivery.CheckVerdict{Metric: c.Metric, Class: class, Limit: c.MaxDrop}
	name := label(c.Metric, class)
	switch {
	case in.SameBundle:
		v.Outcome, v.Reason = delivery.Pass, name+": it is the release itself"
		return v, delivery.Difference{}, false
	case in.Baseline == nil:
		v.Outcome, v.Reason = delivery.NotApplicable, name+": no release to compare with"
		return v, delivery.Difference{}, false
	case in.Compare == nil:
		v.Outcome, v.Reason = delivery.Unsure, name+": not compared with the release"
		return v, delivery.Difference{}, false
	}
	d, ok := in.Compare.Metrics[metric]
	if !ok || len(d.Resamples) == 0 {
		v.Outcome, v.Reason = delivery.Unsure, name+": model, release and eval set do not share it"
		return v, d, false
	}
	v.Value, v.Baseline, v.Diff = &d.Candidate, &d.Baseline, &d.Value
	if few, ok := tooFewGroups(in.Compare.Groups); ok {
		v.Outcome, v.Reason = delivery.Unsure, name+": "+few
		return v, d, false
	}
	return v, d, true
}

// dropAt decides a difference with a lower bound at one confidence and an upper
// bound at another.
func dropAt(c delivery.GateCheck, v delivery.CheckVerdict, d delivery.Difference, in Input, lowAt, highAt float64) delivery.CheckVerdict {
	low, _ := d.Resamples.Bounds(lowAt)
	_, high := d.Resamples.Bounds(highAt)
	v.Low, v.High = &low, &high
	name := fmt.Sprintf("%s %.4f, release %.4f", label(c.Metric, v.Class), d.Candidate, d.Baseline)
	limit := -*c.MaxDrop
	switch {
	case low >= limit:
		v.Outcome, v.Reason = delivery.Pass, fmt.Sprintf("%s: %+.4f, at worst %+.4f >= %+g", name, d.Value, low, limit)
	case high < limit:
		v.Outcome, v.Reason = delivery.Fail, fmt.Sprintf("%s: %+.4f, at best %+.4f < %+g (%s sure)", name, d.Value, high, limit, sure(highAt))
	default:
		v.Outcome = delivery.Unsure
		v.Reason = fmt.Sprintf("%s: %+.4f, between %+.4f and %+.4f, cannot tell a drop of %s", name, d.Value, low, high, num(*c.MaxDrop))
		v.Reason += settle((high-low)/2, math.Abs(d.Value-limit), in.Compare.Images)
	}
	return v
}

// settle says how many images would decide, as the half-width of an interval
// falls with the square root of their number.
func settle(half, distance float64, images int) string {
	if distance <= 0 || half <= distance {
		return fmt.Sprintf(" (half-width %.4f)", half)
	}
	need := float64(images) * (half / distance) * (half / distance)
	if need > 1e6 {
		return fmt.Sprintf(" (half-width %.4f; more images would hardly settle it)", half)
	}
	return fmt.Sprintf(" (half-width %.4f; about %.0f images would settle it)", half, math.Ceil(need))
}

func sure(confidence float64) string { return fmt.Sprintf("%.4g%%", confidence*100) }

func label(metric, class string) string {
	if class == "" {
		return metric
	}
	return metric + " of " + class
}

// classesOf lists the classes that a check holds to its bound.
func classesOf(c delivery.GateCheck, in Input) []string {
	if !c.Classes.All {
		return c.Classes.Names
	}
	shared := in.Candidate.Scores.Classes
	if c.MaxDrop != nil && in.Compare != nil {
		shared = in.Compare.Classes
	}
	return slices.DeleteFunc(slices.Clone(shared), func(s string) bool { return slices.Contains(c.Except, s) })
}

// perClass judges AP class by class.
func perClass(c delivery.GateCheck, in Input) []delivery.CheckVerdict {
	if c.MaxDrop != nil && (in.SameBundle || in.Baseline == nil) {
		v, _, _ := difference(c, "AP", "", in) // one answer for all classes
		return []delivery.CheckVerdict{v}
	}
	classes := classesOf(c, in)
	if len(classes) == 0 {
		return []delivery.CheckVerdict{{Metric: c.Metric, Outcome: delivery.Unsure, Reason: "AP: model and eval set share no class to judge"}}
	}
	verdicts := make([]delivery.CheckVerdict, len(classes))
	var adjust []int // places whose bounds are adjusted together
	for i, class := range classes {
		if n := in.Candidate.Scores.Truths[class]; n < c.Support {
			verdicts[i] = delivery.CheckVerdict{Metric: c.Metric, Class: class, Outcome: delivery.Unsure,
				Reason: fmt.Sprintf("AP of %s: %d truths, the check asks for %d", class, n, c.Support)}
			if value, ok := in.Candidate.Scores.Values["AP/"+class]; ok {
				verdicts[i].Value = &value
			}
			continue
		}
		adjust = append(adjust, i)
	}
	if c.Min != nil {
		holm(c, adjust, func(i int) float64 { return below(in.Candidate.Scores.Resamples["AP/"+classes[i]], *c.Min) },
			func(i int, confidence float64) bool {
				verdicts[i] = floorAt(c, "AP/"+classes[i], classes[i], in, confidence)
				return verdicts[i].Outcome == delivery.Fail
			})
		return verdicts
	}
	var comparable []int
	diffs := make([]delivery.Difference, len(classes))
	for _, i := range adjust {
		var ok bool
		if verdicts[i], diffs[i], ok = difference(c, "AP/"+classes[i], classes[i], in); ok {
			comparable = append(comparable, i)
		}
	}
	low := make([]float64, len(classes))
	limit := -*c.MaxDrop
	// The two sides are two families of hypotheses: that a class has dropped too
	// far, and that it has not.
	holm(c, comparable, func(i int) float64 { return 1 - below(diffs[i].Resamples, limit) }, func(i int, confidence float64) bool {
		low[i] = confidence
		lower, _ := diffs[i].Resamples.Bounds(confidence)
		return lower >= limit
	})
	holm(c, comparable, func(i int) float64 { return below(diffs[i].Resamples, limit) }, func(i int, confidence float64) bool {
		verdicts[i] = dropAt(c, verdicts[i], diffs[i], in, low[i], confidence)
		return verdicts[i].Outcome == delivery.Fail
	})
	return verdicts
}

// below returns the part of samples that lies below a bound.
func below(s delivery.Samples, bound float64) float64 {
	if len(s) == 0 {
		return 0
	}
	n, _ := slices.BinarySearch(s, bound)
	return float64(n) / float64(len(s))
}

// holm tests hypotheses at a check's confidence; see [coco.Holm].
func holm(c delivery.GateCheck, places []int, evidence func(int) float64, reject func(place int, confidence float64) bool) {
	coco.Holm(1-float64(c.Confidence), places, evidence, reject)
}
