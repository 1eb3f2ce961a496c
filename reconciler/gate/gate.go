// Package gate decides whether a model may be released, with a reason for every check. It is pure: measurements go in,
// a [delivery.Verdict] comes out.
//
// How a check decides (the design, section 3):
//
//   - min: pass at or above the bound; fail if even the upper bound of the value is below it; else unsure.
//   - max: for size, pass at or below the bound, else fail. For falsePositivesPerImage, pass at or below it; fail if
//     even the lower bound of the value is above it; else unsure.
//   - max of latency: pass if each repeat of the bench is at or below the bound, fail if each is above it, else unsure.
//     Unsure also without a bench that counts: none, one of other settings, or one that says nothing.
//   - maxDrop: pass if the lower bound of candidate minus baseline is at least -maxDrop; fail if its upper bound is
//     below; else unsure, with the number of images that would settle it. The baseline is the release, or a version
//     that the check names, such as pallets@12; without a release the check does not apply.
//
// Bounds are one-sided, at the check's confidence, and come from the bootstrap over test images that is part of the
// measurements. They cover the choice of test images, not the noise of training. If the eval set names a group, whole
// groups are drawn, because the frames of one video are not independent. With fewer than 20 groups or images a check is
// unsure, and so is a class with objects in fewer than 20 of them. A mean is decided only if it comes out the same
// without classes with objects in fewer than 10. Scores of older versions do not say how many there are, and are judged
// without these rules of classes.
//
// Over several classes bounds are adjusted by Holm's step-down method, so that twenty equal classes do not raise twenty
// alarms. A class with fewer annotations than the check's support is unsure and does not count in the adjustment. A
// bound that needs more resamples than there are decides nothing.
//
// Recall, precision, F1 and falsePositivesPerImage are measured at the model's own score thresholds. A model without
// thresholds fails such a check.
//
// A gate names its classes. Every mean, share, count and difference is over those, computed resample by resample; other
// classes of a model never count. A model that lacks one of them fails. A class without annotations that count has its
// own line, which is unsure. Comparisons are over those of the classes that both models and the eval set have, which
// the verdict lists, and over images that neither model was trained on. A class that only the candidate has is judged
// by min and max alone.
//
// A model whose architecture or base weights are under a licence that the gate does not allow fails.
//
// What is unsure is left to an owner of the gate (review), counts as a fail, or is ignored, as the check says. If no
// check fails, two kinds of verdicts are left to an owner whatever the checks say: those beyond the gate's number of
// looks, because the best of many models looks better on one eval set than it is, and those on models that were trained
// on more than 5 % of the eval set.
package gate

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// Measured has the scores of one bundle on the gate's eval set.
type Measured struct {
	Key    delivery.Digest // the score key
	Scores delivery.ScoreSet
}

// Input has everything that a verdict depends on.
type Input struct {
	Model      string
	Classes    []string // the model's, by the gate's names
	Size       int64    // of its ONNX file, bytes
	Bundle     delivery.Digest
	EvalSet    delivery.Digest // of its content
	Candidate  Measured
	Baseline   *Measured               // the target branch's release on the same eval set; nil for a first model
	Compare    *delivery.CompareResult // nil if Baseline is nil
	CompareKey delivery.Digest
	SameBundle bool                // the candidate is the release, so nothing can have dropped
	Licences   []delivery.Licensed // of what the model is made of

	BaselineBundle delivery.Digest
	// how many models were judged on the eval set against this baseline; 0: not counted
	Look    int
	Anchors map[string]Anchor // by version, such as pallets@12, and fp32 for a variant

	Profiles []string           // that all stands for in checks of latency
	Others   map[string]string  // profiles where fleets run another variant alone, which is the value
	Benches  map[string]Benched // by profile, for Profiles and those that checks name
}

// An Anchor is a fixed version that checks compare with, on the same eval set.
type Anchor struct {
	Missing    delivery.Fact // why there is nothing to compare with
	SameBundle bool
	Measured   Measured
	Compare    *delivery.CompareResult
	CompareKey delivery.Digest
}

// Resamples returns how many resamples a gate's checks need over a number of classes.
func Resamples(checks []delivery.GateCheck, classes int) int {
	n := coco.ResamplesFor(classes, 0.95) // for what got lost
	for _, c := range checks {
		family := 1
		if perClass(c) {
			family = classes
		}
		if !ofModel(c) && !ofProfile(c) {
			n = max(n, coco.ResamplesFor(family, float64(c.Confidence)))
		}
	}
	return n
}

// Measures lists the on-demand metrics of a gate's checks, sorted.
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

// Judge returns the verdict of a gate.
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
	for _, profile := range LatencyProfiles(g.Checks, in.Profiles, in.Others) {
		if b := in.Benches[profile].Bench; b != nil {
			v.Inputs = append(v.Inputs, delivery.DigestOf("bench", *b))
		}
	}
	v.Key = delivery.VerdictKey(v.GateSpec, v.Inputs)
	if in.Compare != nil && !in.SameBundle {
		v.Lost = lost(in.Compare, v.Classes)
	}
	for _, class := range g.Classes {
		if !slices.Contains(in.Classes, class) {
			v.Checks = append(v.Checks, delivery.CheckVerdict{Check: "classes", Metric: "classes", Class: class,
				Outcome: delivery.Fail, Because: []delivery.Fact{fact(code.CheckClassMissing,
					delivery.Values{Class: class, Gate: name, Model: in.Model})}})
		}
	}
	if part, forbidden := g.Forbidden(in.Licences); forbidden {
		v.Checks = append(v.Checks, delivery.CheckVerdict{Check: "licence", Metric: "licence", Outcome: delivery.Fail,
			Because: []delivery.Fact{fact(code.CheckLicence, delivery.Values{Text: part.Part, Licence: part.Licence,
				Names: g.Licences()})}})
	}
	figures := map[string][]int{} // places in v.Checks of the checks that bound the same figure
	for _, c := range g.Checks {
		for _, cv := range check(c, g, in) {
			cv.Check = cmp.Or(cv.Check, describe(c))
			if cv.Outcome == delivery.Unsure {
				switch c.Unsure {
				case "fail":
					cv.Outcome = delivery.Fail
					cv.Because = append(cv.Because, delivery.Fact{Code: code.TakenAsFail})
				case "ignore":
					cv.Outcome = delivery.Ignored
				}
			}
			if cv.Low != nil {
				figure := figureOf(c, g, cv)
				figures[figure] = append(figures[figure], len(v.Checks))
			}
			v.Checks = append(v.Checks, cv)
		}
	}
	for _, places := range figures {
		boundOnce(v.Checks, places)
	}
	unsure := func(check, metric string, value, limit float64, why delivery.Fact) {
		v.Checks = append(v.Checks, delivery.CheckVerdict{Check: check, Metric: metric, Value: &value, Limit: &limit,
			Outcome: delivery.Unsure, Because: []delivery.Fact{why}})
	}
	if g.Looks > 0 && in.Look > g.Looks {
		unsure(fmt.Sprintf("looks <= %d", g.Looks), "looks", float64(in.Look), float64(g.Looks),
			fact(code.TooManyLooks, delivery.Values{Count: in.Look, Limit: g.Looks, FromBundle: in.BaselineBundle}))
	}
	// Who chooses the training images must not choose the images that the model is judged on.
	s := in.Candidate.Scores
	if all := s.Images + s.LeftOut; !in.SameBundle && float64(s.LeftOut) > maxLeftOut*float64(all) {
		share := float64(s.LeftOut) / float64(all)
		unsure(fmt.Sprintf("left out <= %g%%", maxLeftOut*100), "leftOut", share, maxLeftOut,
			fact(code.TrainedOnEvalSet, delivery.Values{Count: s.LeftOut, Total: all, Value: share, Bound: maxLeftOut}))
	}
	outcome := func(c delivery.CheckVerdict) delivery.Outcome { return c.Outcome }
	v.Outcome = delivery.Overall(delivery.Each(v.Checks, outcome))
	v.Because = because(v)
	return v
}

// figureOf identifies the figure that a check bounds.
func figureOf(c delivery.GateCheck, g delivery.Gate, v delivery.CheckVerdict) string {
	classes := []string{v.Class}
	if v.Class == "" {
		classes = slices.Sorted(slices.Values(covered(g, c)))
	}
	return fmt.Sprintf("%q %s %q", cmp.Or(delivery.MetricOfFigure(c.Metric).Column, c.Metric), v.Against, classes)
}

// boundOnce leaves the bounds of a figure to one of its checks: the first of those with the worst outcome. The others
// have different bounds if their confidences differ, as they do for checks of different numbers of classes.
func boundOnce(checks []delivery.CheckVerdict, places []int) {
	rank := func(i int) int {
		return slices.Index([]delivery.Outcome{delivery.Fail, delivery.Unsure, delivery.Pass, delivery.Ignored},
			checks[i].Outcome)
	}
	shown := checks[slices.MinFunc(places, func(a, b int) int { return cmp.Compare(rank(a), rank(b)) })]
	for _, i := range places {
		c := &checks[i]
		if *c.Low == *shown.Low && *c.High == *shown.High {
			continue
		}
		c.Low, c.High = nil, nil
		because := &c.Because[0]
		because.Text, because.Low, because.High, because.Facts = shown.Check, 0, 0, nil
	}
}

// maxLeftOut is the largest share of an eval set that a model, or a model that it was fine-tuned from, may have been
// trained on.
const maxLeftOut = 0.05

// among returns the classes of a gate that were measured, in the gate's order.
func among(classes, measured []string) []string {
	return slices.DeleteFunc(slices.Clone(classes), func(class string) bool {
		return !slices.Contains(measured, class)
	})
}

// describe returns a check in a form like that in the gate's file.
func describe(c delivery.GateCheck) string {
	text := c.Metric
	switch {
	case c.Min != nil:
		text = fmt.Sprintf("%s >= %g", c.Metric, *c.Min)
	case c.Max != nil:
		text = fmt.Sprintf("%s <= %s", c.Metric, *c.Max)
	case c.MaxDrop != nil:
		text = fmt.Sprintf("%s drop <= %g", c.Metric, *c.MaxDrop)
	}
	if anchored(c) {
		text += " against " + c.Against
	}
	return text
}

// because returns the reasons of a verdict: those of the first check that decided it, and how many others there are.
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
		// The checks that did not apply are counted too, so that nobody looks for a failed one.
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
