package gate

// This file judges one check: which figures it is about, and that enough is known
// of each.

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// perClass reports whether a check holds each class to its bound.
func perClass(c delivery.GateCheck) bool {
	return delivery.MetricOfFigure(c.Metric).Of == delivery.OfClass || !c.Classes.IsZero()
}

// ofModel reports whether a check is about a model's files, and not about what it detects.
func ofModel(c delivery.GateCheck) bool {
	return delivery.MetricOfFigure(c.Metric).Of == delivery.OfModel
}

// A figure is one thing that a check is about, and what is said of it.
type figure struct {
	class   string // empty is over all classes
	metric  string // as scores name it: mAP, AP/person
	samples delivery.Samples
	value   float64 // what the samples are about: the value, or its difference
	verdict delivery.CheckVerdict
}

func check(c delivery.GateCheck, in Input) []delivery.CheckVerdict {
	if ofModel(c) {
		return []delivery.CheckVerdict{size(c, in)}
	}
	verdict := delivery.CheckVerdict{Metric: c.Metric}
	if c.MaxDrop != nil {
		verdict.Against = orRelease(c.Against)
	}
	one := func(outcome delivery.Outcome, format string, args ...any) []delivery.CheckVerdict {
		verdict.Outcome, verdict.Reason = outcome, fmt.Sprintf(format, args...)
		return []delivery.CheckVerdict{verdict}
	}
	if delivery.MetricOfFigure(c.Metric).AtThreshold && !in.Candidate.Scores.AtThreshold() {
		return one(delivery.Fail, "%s: the model has no thresholds; add thresholds: {default: bestF1} to it", c.Metric)
	}
	var base baseline
	if c.MaxDrop != nil {
		var outcome delivery.Outcome
		var why string
		if base, outcome, why = in.baseline(c); outcome != "" {
			return one(outcome, "%s: %s", c.Metric, why)
		}
	}
	var figures []figure
	if !perClass(c) {
		figures = []figure{{metric: c.Metric}}
	}
	for _, class := range classesOf(c, in, base) {
		figures = append(figures, figure{class: class, metric: c.Metric + "/" + class})
	}
	if len(figures) == 0 {
		return one(delivery.Unsure, "%s: model and eval set share no class to judge", c.Metric)
	}
	var known []int // of which enough is known
	for i := range figures {
		f := &figures[i]
		f.verdict = verdict
		f.verdict.Class = f.class
		if f.class != "" && len(in.Classes) > 0 && !slices.Contains(in.Classes, f.class) {
			f.verdict.Outcome, f.verdict.Reason = delivery.Fail, label(c.Metric, f.class)+
				": the model does not detect it; its classes are "+strings.Join(in.Classes, ", ")
			continue
		}
		if why := look(c, in, base, f); why != "" {
			f.verdict.Outcome, f.verdict.Reason = delivery.Unsure, label(c.Metric, f.class)+": "+why
			continue
		}
		known = append(known, i)
	}
	switch {
	case c.Min != nil:
		floors(c, in, figures, known)
	case c.Max != nil:
		ceilings(c, in, figures, known)
	default:
		drops(c, in, base, figures, known)
	}
	verdicts := make([]delivery.CheckVerdict, len(figures))
	for i, f := range figures {
		verdicts[i] = f.verdict
	}
	return verdicts
}

// look finds a figure's value and samples, or says why too little is known of it.
func look(c delivery.GateCheck, in Input, base baseline, f *figure) (why string) {
	scores := in.Candidate.Scores
	value, measured := scores.Values[f.metric]
	if measured {
		f.verdict.Value = &value
	}
	truths, units, groups := scores.Truths, scores.Images, scores.Groups
	if base.compare != nil {
		if units, groups = base.compare.Images, base.compare.Groups; base.compare.Truths != nil {
			truths = base.compare.Truths
		}
	}
	if f.class != "" && truths[f.class] < c.Support {
		return fmt.Sprintf("%s, the check asks for %d", count(truths[f.class], "truth"), c.Support)
	}
	if base.compare != nil {
		d, ok := base.compare.Metrics[f.metric]
		if !ok || len(d.Resamples) == 0 {
			return fmt.Sprintf("model, %s and eval set do not share it", base.name)
		}
		candidate, with, diff := d.Candidate, d.Baseline, d.Value
		f.verdict.Value, f.verdict.Baseline, f.verdict.Diff = &candidate, &with, &diff
		f.value, f.samples = d.Value, d.Resamples
		f.verdict.Limit = c.MaxDrop
	} else {
		if !measured {
			return cmp.Or(delivery.MetricOfFigure(c.Metric).Undefined, "the eval set has no truths for it")
		}
		f.value, f.samples = value, scores.Resamples[f.metric]
		f.verdict.Limit = c.Min
	}
	if groups > 0 && groups < coco.MinUnits {
		return fmt.Sprintf("the eval set has %s of images, and an interval needs %d", count(groups, "group"),
			coco.MinUnits)
	}
	if groups == 0 && units < coco.MinUnits {
		return fmt.Sprintf("the eval set has %s, and an interval needs %d", count(units, "image"), coco.MinUnits)
	}
	return ""
}

// classesOf lists the classes that a check holds to its bound, by the candidate's
// names.
func classesOf(c delivery.GateCheck, in Input, base baseline) []string {
	if !perClass(c) {
		return nil
	}
	var names []string
	if !c.Classes.All {
		for _, class := range c.Classes.Names {
			names = append(names, in.now(class))
		}
		return names
	}
	shared := in.Candidate.Scores.Classes
	if base.compare != nil {
		shared = base.compare.Classes
	}
	for _, class := range shared {
		// A class that gets an excepted name was not excepted.
		if !slices.Contains(c.Except, in.then(class)) {
			names = append(names, class)
		}
	}
	return names
}

func size(c delivery.GateCheck, in Input) delivery.CheckVerdict {
	limit, err := c.Max.Bytes()
	if err != nil {
		return delivery.CheckVerdict{Metric: c.Metric, Outcome: delivery.Fail, Reason: err.Error()}
	}
	value, bound := float64(in.Size), float64(limit)
	v := delivery.CheckVerdict{Metric: c.Metric, Value: &value, Limit: &bound, Outcome: delivery.Pass,
		Reason: fmt.Sprintf("size %s <= %s", megabytes(in.Size), limit)}
	if in.Size > int64(limit) {
		v.Outcome, v.Reason = delivery.Fail, fmt.Sprintf("size %s > %s", megabytes(in.Size), limit)
	}
	return v
}

func megabytes(n int64) string { return fmt.Sprintf("%.1fMB", float64(n)/1e6) }

func sure(confidence float64) string { return fmt.Sprintf("%.4g%% sure", confidence*100) }

func label(metric, class string) string {
	if class == "" {
		return metric
	}
	return metric + " of " + class
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// below returns the part of samples that lies below a bound.
func below(s delivery.Samples, bound float64) float64 {
	if len(s) == 0 {
		return 0
	}
	n, _ := slices.BinarySearch(s, bound)
	return float64(n) / float64(len(s))
}

// unresolved says that a bound takes more resamples than there are.
func unresolved(s delivery.Samples, confidence float64) string {
	return fmt.Sprintf("a bound that is %s takes %d resamples, and there are %d", sure(confidence),
		coco.ResamplesFor(1, confidence), len(s))
}
