package gate

// This file judges one check: which figures it is about, and that enough is known
// of each.

import (
	"cmp"
	"fmt"
	"math"
	"slices"

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
	class   string   // empty where it is over several classes
	classes []string // that it is over
	samples delivery.Samples
	value   float64 // what the samples are about: the value, or its difference
	verdict delivery.CheckVerdict
}

// covered lists the classes of a gate that a check is about.
func covered(g delivery.Gate, c delivery.GateCheck) []string {
	if len(c.Classes.Names) > 0 {
		return slices.Clone(c.Classes.Names)
	}
	return slices.DeleteFunc(slices.Clone(g.Classes), func(class string) bool {
		return slices.Contains(c.Except, class)
	})
}

func check(c delivery.GateCheck, g delivery.Gate, in Input) []delivery.CheckVerdict {
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
	metric := delivery.MetricOfFigure(c.Metric)
	if metric.AtThreshold && !in.Candidate.Scores.AtThreshold() {
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
	classes := slices.DeleteFunc(covered(g, c), func(class string) bool {
		// Judge fails those that the model lacks. To one that the baseline lacks only floors apply.
		return !slices.Contains(in.Classes, class) || len(c.Classes.Names) == 0 && base.lacks(class)
	})
	var figures []figure
	truths := in.truths(base)
	if perClass(c) {
		for _, class := range classes {
			figures = append(figures, figure{class: class, classes: []string{class}})
		}
	} else {
		base.over = base.shared(covered(g, c))
		figures = []figure{{classes: classes}}
		for _, class := range classes {
			if metric.Unit == delivery.UnitShare && (truths[class] == 0 || in.unmeasured(metric, base, class)) {
				figures = append(figures, figure{class: class})
			}
		}
	}
	if len(classes) == 0 {
		return one(delivery.Unsure, "%s: there is no class to judge", c.Metric)
	}
	var known []int // of which enough is known
	for i := range figures {
		f := &figures[i]
		f.verdict = verdict
		f.verdict.Class = f.class
		if f.classes == nil {
			f.verdict.Outcome = delivery.Unsure
			f.verdict.Reason = fmt.Sprintf("%s: the eval set has no truth of class %s that counts", c.Metric, f.class)
			continue
		}
		if why := measure(c, in, base, truths, f); why != "" {
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
		drops(c, base, figures, known)
	}
	verdicts := make([]delivery.CheckVerdict, len(figures))
	for i, f := range figures {
		verdicts[i] = f.verdict
	}
	return verdicts
}

// unmeasured reports whether the eval set has no truth of a class that a metric counts, as of one size.
func (in Input) unmeasured(m delivery.Metric, base baseline, class string) bool {
	table := in.Candidate.Scores.Table
	if base.compare != nil {
		table = base.compare.Candidate
	}
	return m.Column != "" && math.IsNaN(table.Figure(m.Name, []string{class}).Value)
}

// truths counts them by class, in the images that a check looks at.
func (in Input) truths(base baseline) map[string]int {
	if base.compare != nil {
		return base.compare.Truths
	}
	return in.Candidate.Scores.Truths
}

// measure computes a figure and its samples, or says why too little is known of it.
func measure(c delivery.GateCheck, in Input, base baseline, truths map[string]int, f *figure) (why string) {
	scores := in.Candidate.Scores
	row := scores.Table.Figure(c.Metric, f.classes)
	measured := !math.IsNaN(row.Value)
	if measured {
		f.verdict.Value = &row.Value
	}
	units, groups := scores.Images, scores.Groups
	if base.compare != nil {
		units, groups = base.compare.Images, base.compare.Groups
	}
	if f.class != "" && truths[f.class] < c.Support {
		return fmt.Sprintf("%s, the check asks for %d", count(truths[f.class], "truth"), c.Support)
	}
	if base.compare != nil {
		d, ok := base.compare.Compared(c.Metric, f.classes)
		if !ok || len(d.Samples) == 0 {
			return fmt.Sprintf("model, %s and eval set do not share it", base.name)
		}
		f.verdict.Value, f.verdict.Baseline, f.verdict.Diff = &d.Candidate, &d.Baseline, &d.Value
		f.value, f.samples = d.Value, d.Samples
		f.verdict.Limit = c.MaxDrop
	} else {
		if !measured {
			return cmp.Or(delivery.MetricOfFigure(c.Metric).Undefined, "the eval set has no truths for it")
		}
		f.value, f.samples = row.Value, row.Samples()
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
