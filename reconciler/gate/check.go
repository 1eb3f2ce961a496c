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

// NeedsTruths reports whether a check can decide nothing on an eval set without objects.
func NeedsTruths(c delivery.GateCheck) bool {
	return delivery.MetricOfFigure(c.Metric).Unit == delivery.UnitShare
}

// ofModel reports whether a check is about a model's files, and not about what it detects.
func ofModel(c delivery.GateCheck) bool {
	return delivery.MetricOfFigure(c.Metric).Of == delivery.OfModel
}

// ofProfile reports whether a check is about the latency on hardware profiles.
func ofProfile(c delivery.GateCheck) bool {
	return delivery.MetricOfFigure(c.Metric).Of == delivery.OfProfile
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
	case ofProfile(c):
		return latency(c, limit, in)
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
	decide := func(figures []figure, known []int) {
		if c.MaxDrop != nil {
			drops(c, limit, base, figures, known)
		} else {
			bounds(c, limit, in.Candidate.Scores.Images, figures, known)
		}
	}
	decide(figures, known)
	if why, others := in.rare(c, base, classes); !perClass(c) && !why.IsZero() && len(others) > 0 {
		without := []figure{{classes: others, verdict: verdict}}
		if measure(c, in, base, truths, &without[0]).IsZero() {
			decide(without, []int{0})
		}
		// A floor passes on the value itself.
		v := &figures[0].verdict
		decided := v.Outcome == delivery.Fail || v.Outcome == delivery.Pass && c.MaxDrop != nil
		if decided && v.Outcome != without[0].verdict.Outcome {
			v.Outcome, v.Because = delivery.Unsure, of(c.Metric, "", why)
			v.Low, v.High, v.Confidence = nil, nil, 0
		}
	}
	return delivery.Each(figures, func(f figure) delivery.CheckVerdict { return f.verdict })
}

// unmeasured reports whether the eval set has no annotation of a class that the metric counts, such as of one size.
func (in Input) unmeasured(m delivery.Metric, base baseline, class string) bool {
	return m.Column != "" && math.IsNaN(in.table(base).Figure(m.Name, []string{class}).Value)
}

// table returns the candidate's values on the images that a check uses.
func (in Input) table(base baseline) delivery.Table {
	if base.compare != nil {
		return base.compare.Candidate
	}
	return in.Candidate.Scores.Table
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
			if text := delivery.MetricOfFigure(c.Metric).WhyNoValue; text != "" {
				return fact(code.Undefined, delivery.Values{Text: text})
			}
			return fact(code.NoTruths, delivery.Values{})
		}
		f.value, f.samples = row.Value, row.Samples()
		f.verdict.Limit = c.Min
	}
	images, groups := scores.Images, scores.Groups
	if base.compare != nil {
		images, groups = base.compare.Images, base.compare.Groups
	}
	if n := cmp.Or(groups, images); n < coco.MinUnits {
		return fewUnits(n, coco.MinUnits, groups > 0)
	}
	if n, known := in.units(c, base, f.classes); known && n < coco.MinUnits {
		return fewUnits(n, coco.MinUnits, groups > 0, f.classes...)
	}
	return delivery.Fact{}
}

// fewUnits is the fact that an eval set has too few images or groups, or too few of them with objects of classes.
func fewUnits(n, limit int, grouped bool, classes ...string) delivery.Fact {
	c := code.FewImages
	if grouped {
		c = code.FewGroups
	}
	return fact(c, delivery.Values{Count: n, Limit: limit, Names: classes})
}

// units returns how many images or groups have objects of classes that count. It is known for no metric that counts on
// all images.
func (in Input) units(c delivery.GateCheck, base baseline, classes []string) (n int, known bool) {
	if delivery.MetricOfFigure(c.Metric).Unit != delivery.UnitShare {
		return 0, false
	}
	return in.table(base).Units(c.Metric, classes)
}

// minInMean is the least number of images or groups with objects of one class of several.
const minInMean = coco.MinUnits / 2

// rare returns the classes of which at least minInMean images or groups have objects, and a fact about the rarest of
// the others. The bounds of a mean do not cover what is chance in rare classes: some resamples have no object of them,
// and the others have the same few.
func (in Input) rare(c delivery.GateCheck, base baseline, classes []string) (why delivery.Fact, others []string) {
	least := minInMean
	grouped := base.compare != nil && base.compare.Groups > 0 || base.compare == nil && in.Candidate.Scores.Groups > 0
	for _, class := range classes {
		n, known := in.units(c, base, []string{class})
		switch {
		case !known || n >= minInMean:
			others = append(others, class)
		case n > 0 && n < least:
			why, least = fewUnits(n, minInMean, grouped, class), n
		}
	}
	return why, others
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
	case ofProfile(c):
		return c.Max.Seconds()
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
