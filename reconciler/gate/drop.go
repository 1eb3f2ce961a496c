package gate

// This file holds a candidate to a baseline: the release, or a fixed version.

import (
	"fmt"
	"math"
	"strings"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A baseline is what a check compares the candidate with.
type baseline struct {
	name    string // release, or pallets@12
	over    string // which classes both have, where the candidate has more
	compare *delivery.CompareResult
}

func orRelease(against string) string {
	if against == "" {
		return "release"
	}
	return against
}

func the(baseline string) string {
	if baseline == "release" {
		return "the release"
	}
	return baseline
}

// baseline finds what a check compares with, or the answer where nothing is to be
// compared.
func (in Input) baseline(c delivery.GateCheck) (b baseline, outcome delivery.Outcome, why string) {
	scores := func(m *Measured) *delivery.ScoreSet {
		if m == nil {
			return nil
		}
		return &m.Scores
	}
	b.name = orRelease(c.Against)
	same, with := in.SameBundle, scores(in.Baseline)
	b.compare = in.Compare
	if strings.Contains(c.Against, "@") {
		a, known := in.Anchors[c.Against]
		switch {
		case !known:
			return b, delivery.Unsure, "not compared with " + c.Against
		case a.Missing != "":
			return b, delivery.Fail, a.Missing
		}
		same, with, b.compare = a.SameBundle, &a.Measured.Scores, a.Compare
	}
	switch {
	case same:
		return b, delivery.Pass, "it is " + the(b.name) + " itself"
	case with == nil:
		return b, delivery.NotApplicable, "no release to compare with"
	case with.Protocol != in.Candidate.Scores.Protocol:
		return b, delivery.Fail, "it and " + b.name +
			" were scored by different protocols; their numbers cannot be compared"
	case b.compare == nil:
		return b, delivery.Unsure, "not compared with " + the(b.name)
	case delivery.MetricOfFigure(c.Metric).AtThreshold && !with.AtThreshold():
		return b, delivery.NotApplicable, the(b.name) + " has no thresholds to compare with"
	}
	if shared := b.compare.Classes; len(shared) < len(in.Candidate.Scores.Classes) {
		b.over = " over " + strings.Join(shared[:min(len(shared), 4)], ", ")
		if more := len(shared) - 4; more > 0 {
			b.over += fmt.Sprintf(" and %d more", more)
		}
	}
	return b, "", ""
}

// drops judges differences against maxDrop. The two sides are two families of
// hypotheses: that a class has dropped too far, and that it has not.
func drops(c delivery.GateCheck, in Input, base baseline, figures []figure, known []int) {
	limit := 0 - *c.MaxDrop // 0, not -0
	alpha := 1 - float64(c.Confidence)
	lowAt := make([]float64, len(figures))
	coco.Holm(alpha, known, func(i int) float64 { return 1 - below(figures[i].samples, limit) },
		func(i int, confidence float64) bool {
			lowAt[i] = confidence
			low, _ := figures[i].samples.Bounds(confidence)
			return low >= limit && figures[i].samples.Resolves(confidence)
		})
	coco.Holm(alpha, known, func(i int) float64 { return below(figures[i].samples, limit) },
		func(i int, confidence float64) bool {
			drop(c, base, &figures[i], limit, lowAt[i], confidence)
			in.dropKept(base, &figures[i], limit)
			return figures[i].verdict.Outcome == delivery.Fail
		})
}

// dropKept holds the difference of a mean or a share to its bound over the classes that
// the gate has asked for, too: what one of the others gains makes up for nothing.
func (in Input) dropKept(base baseline, f *figure, limit float64) {
	c, v := base.compare, &f.verdict
	added := in.unasked(c.Classes)
	if !overClasses(f.metric) || len(added) == 0 || v.Outcome == delivery.Fail {
		return
	}
	truths := c.Truths
	if truths == nil {
		truths = in.Candidate.Scores.Truths
	}
	candidate := func(metric string) (float64, bool) { d, ok := c.Metrics[metric]; return d.Candidate, ok }
	with := func(metric string) (float64, bool) { d, ok := c.Metrics[metric]; return d.Baseline, ok }
	of := without(c.Classes, added)
	is, weight := over(f.metric, of, candidate, truths, c.Images)
	was, weighed := over(f.metric, of, with, truths, c.Images)
	_, all := over(f.metric, c.Classes, candidate, truths, c.Images)
	_, allWas := over(f.metric, c.Classes, with, truths, c.Images)
	if weight == 0 || weighed == 0 {
		return
	}
	kept, scale := is-was, max(all/weight, allWas/weighed)
	low, high := kept+(*v.Low-f.value)*scale, kept+(*v.High-f.value)*scale
	text := fmt.Sprintf("%s %+.4f without %s, which the gate has not asked for", f.metric, kept,
		strings.Join(added, ", "))
	switch {
	case high < limit && f.samples.Resolves(v.Confidence):
		v.Outcome, v.Reason = delivery.Fail, fmt.Sprintf("%s, at best %+.4f < %g", text, high, limit)
	case low < limit && v.Outcome == delivery.Pass:
		v.Outcome, v.Reason = delivery.Unsure,
			fmt.Sprintf("%s, at worst %+.4f, at best %+.4f: too wide to tell a drop of %s", text, low, high,
				num(-limit))
	}
}

// drop decides one difference with a lower bound at one confidence and an upper
// bound at another.
func drop(c delivery.GateCheck, base baseline, f *figure, limit, lowAt, highAt float64) {
	low, _ := f.samples.Bounds(lowAt)
	_, high := f.samples.Bounds(highAt)
	v := &f.verdict
	v.Low, v.High = &low, &high
	v.Confidence = lowAt
	name := fmt.Sprintf("%s %.4f, %s %.4f", label(c.Metric, f.class), *v.Value, base.name, *v.Baseline)
	if f.class == "" {
		name += base.over
	}
	resolved := f.samples.Resolves(lowAt)
	switch {
	case low >= limit && resolved:
		v.Outcome, v.Reason = delivery.Pass, fmt.Sprintf("%s: %+.4f, at worst %+.4f >= %g", name, f.value, low, limit)
		return
	case high < limit && f.samples.Resolves(highAt):
		v.Outcome, v.Confidence = delivery.Fail, highAt
		v.Reason = fmt.Sprintf("%s: %+.4f, at best %+.4f < %g (%s)", name, f.value, high, limit, sure(highAt))
	default:
		v.Outcome = delivery.Unsure
		v.Reason = fmt.Sprintf("%s: %+.4f, at worst %+.4f, at best %+.4f (each %s), too wide to tell a drop of %s",
			name, f.value, low, high, sure(min(lowAt, highAt)), num(*c.MaxDrop))
		if !resolved || !f.samples.Resolves(highAt) {
			v.Reason += " (" + unresolved(f.samples, max(lowAt, highAt)) + ")"
			break
		}
		var text string
		text, v.Settle = settle((high-low)/2, math.Abs(f.value-limit), base.compare.Images)
		v.Reason += text
	}
	if f.value < 0 {
		if v.Loss = loss(base.compare, f.class); v.Loss != "" {
			v.Reason += "; " + v.Loss
		}
	}
}

// lost lists what the candidate is worse at than the release, each figure surely
// so: over all classes, and class by class, adjusted for their number.
func lost(c *delivery.CompareResult) []delivery.Loss {
	var figures []figure
	for _, m := range delivery.Metrics() {
		if m.Name == delivery.MetricMAP || m.AtThreshold && !m.OnDemand {
			figures = append(figures, figure{metric: m.Name})
		}
	}
	all := len(figures)
	for _, class := range c.Classes {
		figures = append(figures, figure{class: class, metric: delivery.MetricAP + "/" + class})
	}
	var list []delivery.Loss
	for _, family := range [][2]int{{0, all}, {all, len(figures)}} {
		var known []int
		for i := family[0]; i < family[1]; i++ {
			f := &figures[i]
			if d, ok := c.Metrics[f.metric]; ok && len(d.Resamples) > 0 {
				f.samples = d.Resamples
				if delivery.MetricOfFigure(f.metric).LessIsBetter {
					f.samples = negated(d.Resamples)
				}
				known = append(known, i)
			}
		}
		coco.Holm(0.05, known, func(i int) float64 { return below(figures[i].samples, 0) },
			func(i int, confidence float64) bool {
				f := figures[i]
				_, best := f.samples.Bounds(confidence)
				if best >= 0 || !f.samples.Resolves(confidence) {
					return false
				}
				d := c.Metrics[f.metric]
				l := delivery.Loss{Metric: f.metric, Class: f.class, Value: d.Candidate, Baseline: d.Baseline,
					Diff: d.Value, AtBest: best}
				switch {
				case f.class != "":
					l.Metric, l.Why = delivery.MetricAP, loss(c, f.class)
				case delivery.MetricOfFigure(f.metric).LessIsBetter:
					l.AtBest = -best
				case f.metric == delivery.MetricMAP:
					l.Why = loss(c, "")
				}
				list = append(list, l)
				return true
			})
	}
	return list
}

func negated(s delivery.Samples) delivery.Samples {
	out := make(delivery.Samples, len(s))
	for i, v := range s {
		out[len(s)-1-i] = -v
	}
	return out
}

// loss says in TIDE's words why AP50 fell: over all classes, or of one.
func loss(c *delivery.CompareResult, class string) string {
	metric := delivery.MetricAP50
	if class != "" {
		metric += "/" + class
	}
	d, ok := c.Metrics[metric]
	worst, why := delivery.ErrorShift{}, ""
	of, classes := class, []string{class}
	if class == "" { // the class that it is worst in, and why there
		classes = c.Classes
	}
	for _, name := range classes {
		for _, s := range c.Shifts[name] {
			if s.AP50 > worst.AP50 {
				worst, of = s, name
			}
		}
	}
	switch worst.Type {
	case "Miss":
		why = "missed " + of
	case "Loc":
		why = of + " in the wrong place"
	case "Cls":
		why = "others taken for " + of
	case "Both":
		why = of + " of wrong class and place"
	case "Dupe":
		why = of + " found twice"
	case "Bkg":
		why = "false " + of
	}
	if !ok || d.Value >= 0 || why == "" {
		return ""
	}
	text := fmt.Sprintf("%+.1f AP50, mostly %s", d.Value*100, why)
	if worst.Type == "Miss" && worst.Count > 0 {
		text += fmt.Sprintf(" (%d more)", worst.Count)
	}
	return text
}
