package gate

// This file judges one check. It finds the figures that the check is about, and whether the data suffice for each.

import (
	"cmp"
	"math"
	"slices"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// perClass reports whether a check judges each class separately.
func perClass(c delivery.GateCheck) bool {
	return delivery.MetricOfFigure(c.Metric).Of == delivery.OfClass || !c.Classes.IsZero()
}

// ofModel reports whether a check is about a model's files, and not about what it detects.
func ofModel(c delivery.GateCheck) bool {
	return delivery.MetricOfFigure(c.Metric).Of == delivery.OfModel
}

// A figure is one number that a check judges, with the result.
type figure struct {
	class   string   // empty if it is over several classes
	classes []string // nil if the eval set has no annotation of class
	samples delivery.Samples
	value   float64 // of the samples: the metric, or its difference to the baseline
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
	verdict := delivery.CheckVerdict{Metric: c.Metric}
	if c.MaxDrop != nil {
		verdict.Against = cmp.Or(c.Against, "release")
	}
	one := func(outcome delivery.Outcome, why delivery.Fact) []delivery.CheckVerdict {
		verdict.Outcome, verdict.Because = outcome, of(c.Metric, "", why)
		return []delivery.CheckVerdict{verdict}
	}
	limit, err := limitOf(c)
	switch {
	case err != nil: // a gate of a newer version of AOB
		return one(delivery.Fail, fact(code.BoundInvalid, delivery.Values{Text: err.Error()}))
	case ofModel(c):
		return []delivery.CheckVerdict{size(c, limit, in.Size)}
	}
	metric := delivery.MetricOfFigure(c.Metric)
	if metric.AtThreshold && !in.Candidate.Scores.AtThreshold() {
		return one(delivery.Fail, delivery.Fact{Code: code.NoThresholds})
	}
	var base baseline
	if c.MaxDrop != nil {
		var outcome delivery.Outcome
		var why delivery.Fact
		if base, outcome, why = in.baseline(c); outcome != "" {
			return one(outcome, why)
		}
	}
	classes := slices.DeleteFunc(covered(g, c), func(class string) bool {
		// Judge fails classes that the model lacks. Classes that the baseline lacks cannot be compared with it.
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
		return one(delivery.Unsure, delivery.Fact{Code: code.NoClassToJudge})
	}
	var known []int // figures that can be judged
	for i := range figures {
		f := &figures[i]
		f.verdict = verdict
		f.verdict.Class = f.class
		if f.classes == nil {
			f.verdict.Outcome = delivery.Unsure
			f.verdict.Because = of(c.Metric, "", fact(code.NoTruthOfClass, delivery.Values{Class: f.class}))
			continue
		}
		if why := measure(c, in, base, truths, f); !why.IsZero() {
			f.verdict.Outcome, f.verdict.Because = delivery.Unsure, of(c.Metric, f.class, why)
			continue
		}
		known = append(known, i)
	}
	if c.MaxDrop != nil {
		drops(c, limit, base, figures, known)
	} else {
		bounds(c, limit, in.Candidate.Scores.Images, figures, known)
	}
	verdicts := make([]delivery.CheckVerdict, len(figures))
	for i, f := range figures {
		verdicts[i] = f.verdict
	}
	return verdicts
}

// unmeasured reports whether the eval set has no annotation of a class that the metric counts, such as of one size.
func (in Input) unmeasured(m delivery.Metric, base baseline, class string) bool {
	table := in.Candidate.Scores.Table
	if base.compare != nil {
		table = base.compare.Candidate
	}
	return m.Column != "" && math.IsNaN(table.Figure(m.Name, []string{class}).Value)
}

// truths returns the number of annotations by class, on the images that a check uses.
func (in Input) truths(base baseline) map[string]int {
	if base.compare != nil {
		return base.compare.Truths
	}
	return in.Candidate.Scores.Truths
}

// measure computes a figure and its samples. It returns the reason if the figure cannot be judged.
func measure(c delivery.GateCheck, in Input, base baseline, truths map[string]int, f *figure) (why delivery.Fact) {
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
		return fact(code.FewTruths, delivery.Values{Count: truths[f.class], Limit: c.Support})
	}
	if base.compare != nil {
		d, ok := base.compare.Compared(c.Metric, f.classes)
		if !ok || len(d.Samples) == 0 {
			return fact(code.NotShared, delivery.Values{FromModel: base.name})
		}
		f.verdict.Value, f.verdict.Baseline, f.verdict.Diff = &d.Candidate, &d.Baseline, &d.Value
		f.value, f.samples = d.Value, d.Samples
		f.verdict.Limit = c.MaxDrop
	} else {
		if !measured {
			if text := delivery.MetricOfFigure(c.Metric).Undefined; text != "" {
				return fact(code.Undefined, delivery.Values{Text: text})
			}
			return fact(code.NoTruths, delivery.Values{})
		}
		f.value, f.samples = row.Value, row.Samples()
		f.verdict.Limit = c.Min
	}
	if groups > 0 && groups < coco.MinUnits {
		return fact(code.FewGroups, delivery.Values{Count: groups, Limit: coco.MinUnits})
	}
	if groups == 0 && units < coco.MinUnits {
		return fact(code.FewImages, delivery.Values{Count: units, Limit: coco.MinUnits})
	}
	return delivery.Fact{}
}

// limitOf returns the bound of a check; of maxDrop, the lowest difference that it allows.
func limitOf(c delivery.GateCheck) (float64, error) {
	switch {
	case c.Min != nil:
		return *c.Min, nil
	case c.MaxDrop != nil:
		return 0 - *c.MaxDrop, nil // 0, not -0
	case ofModel(c):
		size, err := c.Max.Bytes()
		return float64(size), err
	}
	return c.Max.Number()
}

func size(c delivery.GateCheck, limit float64, size int64) delivery.CheckVerdict {
	value := float64(size)
	v := delivery.CheckVerdict{Metric: c.Metric, Value: &value, Limit: &limit, Outcome: delivery.Pass,
		Because: []delivery.Fact{fact(code.SizeWithin, delivery.Values{Bytes: size, Bound: limit})}}
	if value > limit {
		v.Outcome, v.Because[0].Code = delivery.Fail, code.SizeAbove
	}
	return v
}

func fact(c delivery.Code, v delivery.Values) delivery.Fact { return delivery.Fact{Code: c, Values: v} }

// of returns a fact with the figure that it is about.
func of(metric, class string, why delivery.Fact) []delivery.Fact {
	return []delivery.Fact{why.In(code.OfMetric, delivery.Values{Metric: metric, Class: class})}
}

// unresolved is the fact that a bound needs more resamples than there are.
func unresolved(s delivery.Samples, confidence float64) delivery.Fact {
	return fact(code.Unresolved, delivery.Values{Confidence: confidence, Limit: coco.ResamplesFor(1, confidence),
		Count: len(s)})
}
