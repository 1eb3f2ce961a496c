// Package gate answers whether a model may be released, with a reason for every
// check. It is pure: measurements go in, a [delivery.Verdict] comes out.
//
// How a check decides (the design, section 3):
//
//   - min: pass at or above the bound; fail where even the upper bound of the
//     value lies below it; else unsure.
//   - max: for size, pass at or below it, else fail. For falsePositivesPerImage,
//     pass at or below it; fail where even the lower bound lies above; else unsure.
//   - maxDrop: pass where the lower bound of candidate minus baseline is at
//     least -maxDrop; fail where its upper bound is below; else unsure, with
//     what would settle it. The baseline is the release, or a version that the
//     check is against, as pallets@12; without a release it does not apply.
//
// Bounds are one-sided at the check's confidence and come from the bootstrap
// over test images that the measurements carry: they cover the choice of test
// images, not the noise of training. Where the eval set names a group, whole
// groups are drawn, as the frames of one video are not independent; fewer than 20
// groups, or images, are unsure.
//
// Over several classes bounds are adjusted by Holm's step-down method, so that
// twenty equal classes do not raise twenty alarms. A class with fewer truths than
// the check's support is unsure, and not adjusted for. A bound that takes more
// resamples than there are decides nothing.
//
// Recall, precision and falsePositivesPerImage are taken at the model's own
// thresholds; a model without any fails what asks for them.
//
// A gate names its classes, and every mean, share, count and difference is over those, computed resample by resample:
// other classes of a model never count. A model that lacks one of them fails. A class without a truth that counts has
// a line of its own, which is unsure. Comparisons run over those of the classes that both models and the eval set have,
// which the verdict lists, and over images that neither model was trained on: a class that only the candidate has is
// held to floors alone.
//
// What is unsure is left to an owner of the gate (review), counts as a fail, or is
// ignored, as the check says. Left to an owner, whatever the checks say unless one
// fails, are verdicts beyond the gate's looks, as the best of many models looks better
// on one eval set than it is, and those on models that were trained on more than 5 %
// of the eval set, as the rest is another eval set.
package gate

import (
	"fmt"
	"maps"
	"slices"
	"strings"

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
	Classes    []string // the model's, by the gate's names
	Size       int64    // of the largest variant, bytes
	Bundle     delivery.Digest
	EvalSet    delivery.Digest // of its content
	Candidate  Measured
	Baseline   *Measured               // the target branch's release on the same eval set; nil for a first model
	Compare    *delivery.CompareResult // nil where Baseline is nil
	CompareKey delivery.Digest
	SameBundle bool // the candidate is the release: nothing can have dropped

	BaselineBundle delivery.Digest
	Look           int               // which model the eval set judges against this baseline, from 1; 0 is not counted
	Anchors        map[string]Anchor // by what a check is against, as pallets@12
}

// An Anchor is a fixed version that checks compare with, on the same eval set.
type Anchor struct {
	Missing    string // why there is none to compare with, as "pallets@12 is no version that main accepted"
	SameBundle bool
	Measured   Measured
	Compare    *delivery.CompareResult
	CompareKey delivery.Digest
}

// Resamples says how many resamples a gate's checks need over so many classes.
func Resamples(checks []delivery.GateCheck, classes int) int {
	n := coco.ResamplesFor(classes, 0.95) // for what got lost
	for _, c := range checks {
		family := 1
		if perClass(c) {
			family = classes
		}
		if !ofModel(c) {
			n = max(n, coco.ResamplesFor(family, float64(c.Confidence)))
		}
	}
	return n
}

// Measures lists the metrics that a gate's checks ask for and that are measured on demand alone, sorted.
func Measures(checks []delivery.GateCheck) []string {
	var names []string
	for _, c := range checks {
		if delivery.MetricOfFigure(c.Metric).OnDemand {
			names = append(names, c.Metric)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Judge lets a gate answer under a name.
func Judge(name string, g delivery.Gate, in Input) delivery.Verdict {
	v := delivery.Verdict{Gate: name, GateSpec: g.Digest(), Model: in.Model, Bundle: in.Bundle,
		Baseline: in.BaselineBundle, EvalSet: in.EvalSet,
		Inputs: []delivery.Digest{in.Candidate.Key}, Classes: among(g.Classes, in.Candidate.Scores.Classes),
		Images: in.Candidate.Scores.Images, LeftOut: in.Candidate.Scores.LeftOut, Look: in.Look, Looks: g.Looks}
	if in.Baseline != nil {
		v.Inputs = append(v.Inputs, in.Baseline.Key, in.CompareKey)
		if in.Compare != nil {
			v.Classes = among(g.Classes, in.Compare.Classes)
			v.Images, v.LeftOut = in.Compare.Images, in.Compare.LeftOut
		}
	}
	for _, against := range slices.Sorted(maps.Keys(in.Anchors)) {
		if a := in.Anchors[against]; a.Compare != nil {
			v.Inputs = append(v.Inputs, a.Measured.Key, a.CompareKey)
		}
	}
	v.Key = delivery.VerdictKey(v.GateSpec, v.Inputs)
	if in.Compare != nil && !in.SameBundle {
		v.Lost = lost(in.Compare, v.Classes)
	}
	var outcomes []delivery.Outcome
	for _, class := range g.Classes {
		if !slices.Contains(in.Classes, class) {
			v.Checks = append(v.Checks, lacking(name, in.Model, class))
			outcomes = append(outcomes, delivery.Fail)
		}
	}
	for _, c := range g.Checks {
		for _, cv := range check(c, g, in) {
			cv.Check = describe(c)
			if cv.Outcome == delivery.Unsure {
				switch c.Unsure {
				case "fail":
					cv.Outcome = delivery.Fail
					cv.Reason += "; the gate takes that for a fail"
				case "ignore":
					cv.Outcome = delivery.Ignored
				}
			}
			v.Checks = append(v.Checks, cv)
			outcomes = append(outcomes, cv.Outcome)
		}
	}
	if g.Looks > 0 && in.Look > g.Looks {
		looked := float64(in.Look)
		limit := float64(g.Looks)
		v.Checks = append(v.Checks, delivery.CheckVerdict{Check: fmt.Sprintf("looks <= %d", g.Looks), Metric: "looks",
			Value: &looked, Limit: &limit, Outcome: delivery.Unsure,
			Reason: fmt.Sprintf("this is model %d that the eval set judges against %s, and the gate allows %d: the "+
				"best of many looks better than it is; freeze a new eval set (aob gate freeze)", in.Look, orFirst(in),
				g.Looks)})
		outcomes = append(outcomes, delivery.Unsure)
	}
	// Whoever chooses what a model is trained on must not choose what it is judged on.
	if s := in.Candidate.Scores; !in.SameBundle && float64(s.LeftOut) > maxLeftOut*float64(s.Images+s.LeftOut) {
		share, limit := float64(s.LeftOut)/float64(s.Images+s.LeftOut), maxLeftOut
		v.Checks = append(v.Checks, delivery.CheckVerdict{Check: fmt.Sprintf("left out <= %g%%", limit*100),
			Metric: "leftOut", Value: &share, Limit: &limit, Outcome: delivery.Unsure,
			Reason: fmt.Sprintf("the model was trained on %d of the %d images of the eval set (%.1f%%), and at most "+
				"%g%% may be left out of it; train it anew, without them", s.LeftOut, s.Images+s.LeftOut, share*100,
				limit*100)})
		outcomes = append(outcomes, delivery.Unsure)
	}
	v.Outcome = delivery.Overall(outcomes)
	v.Reason = reason(v)
	return v
}

// maxLeftOut is the greatest share of an eval set that a model may have been trained
// on, or what it was fine-tuned from.
const maxLeftOut = 0.05

func orFirst(in Input) string {
	if in.BaselineBundle == "" {
		return "no release"
	}
	return "this release"
}

// among lists those of a gate's classes that were measured, in the gate's order.
func among(classes, measured []string) []string {
	return slices.DeleteFunc(slices.Clone(classes), func(class string) bool {
		return !slices.Contains(measured, class)
	})
}

// lacking is the line of a class of the gate that the model does not have.
func lacking(gate, model, class string) delivery.CheckVerdict {
	return delivery.CheckVerdict{Check: "classes", Metric: "classes", Class: class, Outcome: delivery.Fail,
		Reason: fmt.Sprintf("the model has no class %s, which gate %s holds it to; add %s to classes: in "+
			"models/%s.yaml, or take it out of classes: in gates/%s.yaml in an earlier pull request", class, gate,
			class, model, gate)}
}

// describe is a check as people wrote it.
func describe(c delivery.GateCheck) string {
	text := c.Metric
	switch {
	case c.Min != nil:
		text = fmt.Sprintf("%s >= %s", c.Metric, num(*c.Min))
	case c.Max != nil:
		text = fmt.Sprintf("%s <= %s", c.Metric, *c.Max)
	case c.MaxDrop != nil:
		text = fmt.Sprintf("%s drop <= %s", c.Metric, num(*c.MaxDrop))
	}
	if strings.Contains(c.Against, "@") {
		text += " against " + c.Against
	}
	return text
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
	text := ""
	switch {
	case len(decisive) == 0:
		text = "nothing to judge: every check is ignored or does not apply"
	case v.Outcome == delivery.Pass:
		text = decisive[0].Reason + others(v)
	case len(decisive) > 1:
		text = fmt.Sprintf("%s (and %d more)", decisive[0].Reason, len(decisive)-1)
	default:
		text = decisive[0].Reason
	}
	if v.LeftOut > 0 {
		text += fmt.Sprintf("; over %d of %d images, as %s", v.Images, v.Images+v.LeftOut, trainedOn(v.LeftOut))
	}
	return text
}

func trainedOn(n int) string {
	if n == 1 {
		return "a model was trained on the other one"
	}
	return fmt.Sprintf("a model was trained on the other %d", n)
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
