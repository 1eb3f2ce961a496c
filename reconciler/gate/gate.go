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
	"github.com/autonomos/aob/reconciler/code"
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
	Missing    delivery.Fact // why there is none to compare with
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
					cv.Because = append(cv.Because, delivery.Fact{Code: code.TakenAsFail})
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
			Because: []delivery.Fact{fact(code.TooManyLooks, delivery.Values{Count: in.Look, Limit: g.Looks,
				FromBundle: in.BaselineBundle})}})
		outcomes = append(outcomes, delivery.Unsure)
	}
	// Whoever chooses what a model is trained on must not choose what it is judged on.
	if s := in.Candidate.Scores; !in.SameBundle && float64(s.LeftOut) > maxLeftOut*float64(s.Images+s.LeftOut) {
		share, limit := float64(s.LeftOut)/float64(s.Images+s.LeftOut), maxLeftOut
		v.Checks = append(v.Checks, delivery.CheckVerdict{Check: fmt.Sprintf("left out <= %g%%", limit*100),
			Metric: "leftOut", Value: &share, Limit: &limit, Outcome: delivery.Unsure,
			Because: []delivery.Fact{fact(code.TrainedOnEvalSet, delivery.Values{Count: s.LeftOut,
				Total: s.Images + s.LeftOut, Value: share, Bound: limit})}})
		outcomes = append(outcomes, delivery.Unsure)
	}
	v.Outcome = delivery.Overall(outcomes)
	v.Because = because(v)
	return v
}

// maxLeftOut is the greatest share of an eval set that a model may have been trained
// on, or what it was fine-tuned from.
const maxLeftOut = 0.05

// among lists those of a gate's classes that were measured, in the gate's order.
func among(classes, measured []string) []string {
	return slices.DeleteFunc(slices.Clone(classes), func(class string) bool {
		return !slices.Contains(measured, class)
	})
}

// lacking is the line of a class of the gate that the model does not have.
func lacking(gate, model, class string) delivery.CheckVerdict {
	return delivery.CheckVerdict{Check: "classes", Metric: "classes", Class: class, Outcome: delivery.Fail,
		Because: []delivery.Fact{fact(code.CheckClassMissing, delivery.Values{Class: class, Gate: gate, Model: model})}}
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

// because sums a verdict up: what decided it, and how much else.
func because(v delivery.Verdict) []delivery.Fact {
	var decisive []delivery.CheckVerdict
	outcomes := map[string]int{}
	for _, c := range v.Checks {
		outcomes[string(c.Outcome)]++
		if c.Outcome == v.Outcome {
			decisive = append(decisive, c)
		}
	}
	list := []delivery.Fact{{Code: code.NothingApplies}}
	if len(decisive) > 0 {
		list = slices.Clone(decisive[0].Because)
	}
	switch {
	case len(decisive) == 0:
	case v.Outcome == delivery.Pass && len(v.Checks) > 1:
		// What did not apply is counted, so that nobody looks for what failed.
		list = append(list, fact(code.PassedChecks, delivery.Values{Counts: outcomes, Total: len(v.Checks)}))
	case v.Outcome != delivery.Pass && len(decisive) > 1:
		list = append(list, fact(code.MoreChecks, delivery.Values{Count: len(decisive) - 1, Outcome: v.Outcome}))
	}
	if v.LeftOut > 0 {
		list = append(list, fact(code.ImagesLeftOut, delivery.Values{Images: v.Images, Total: v.Images + v.LeftOut,
			Count: v.LeftOut}))
	}
	return list
}
