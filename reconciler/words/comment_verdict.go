package words

// This file is what a comment says of one gate's verdict.

import (
	"cmp"
	"fmt"
	"math"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// shownClasses is how many classes of one check a table shows, where all passed.
const shownClasses = 4

// verdict writes a gate's answer: what did not pass with its reason, what got worse all the same, and then check by
// check.
func (c *comment) verdict(v delivery.Verdict, baseline *delivery.Release) {
	c.printf("**Gate %s: %s**", v.Gate, outcomeLabel(v.Outcome))
	if v.Images > 0 {
		c.printf(", on %s", delivery.Count(v.Images, "test image"))
	}
	if v.LeftOut > 0 {
		c.printf(" (%d left out, a model was trained on them)", v.LeftOut)
	}
	c.printf("\n\n")
	if len(v.Checks) == 0 {
		c.printf("%s\n\n", plan.ReasonOf(v))
	}
	for _, outcome := range []delivery.Outcome{delivery.Fail, delivery.Unsure, delivery.Ignored} {
		for _, check := range v.Checks {
			if check.Outcome == outcome {
				c.printf("- **%s**: %s\n", outcomeLabel(outcome), Reason(check))
			}
		}
	}
	c.losses(v, baseline)
	c.printf("\n")
	var shown, rest []delivery.CheckVerdict
	classes := map[string]int{}
	for _, check := range v.Checks {
		if check.Class != "" && check.Outcome == delivery.Pass {
			if classes[check.Check]++; classes[check.Check] > shownClasses {
				rest = append(rest, check)
				continue
			}
		}
		shown = append(shown, check)
	}
	if len(shown) > 0 {
		c.checks(shown)
	}
	if len(rest) > 0 {
		c.fold(fmt.Sprintf("%s more that pass", delivery.Count(len(rest), "class")), func() { c.checks(rest) })
	}
	c.looks(v, baseline)
}

// looks writes how often the eval set was used.
func (c *comment) looks(v delivery.Verdict, baseline *delivery.Release) {
	if v.Look == 0 {
		return
	}
	c.printf("This is model %d that was judged on these images", v.Look)
	if baseline != nil {
		c.printf(" against version %d", baseline.Version)
	} else {
		c.printf(", with no release to compare with yet")
	}
	if v.Looks > 0 {
		c.printf(", of %d that the gate allows (looks). After that even a pass needs an owner's acceptance: with many "+
			"tries, the best one is partly luck", v.Looks)
	}
	c.printf(".\n\n")
}

// shownLosses is how many losses a comment lists.
const shownLosses = 5

// losses writes which figures got significantly worse without being a check that did not pass.
func (c *comment) losses(v delivery.Verdict, baseline *delivery.Release) {
	for i, l := range v.OtherLosses() {
		if i == shownLosses {
			c.printf("- and %d more that got worse; aob pr show lists them\n", len(v.OtherLosses())-i)
			break
		}
		why := "no check of the gate covers it"
		if _, ok := v.CheckOf(l); ok {
			why = "which the gate allows"
		}
		c.printf("- **⚠️ worse than version %d**: %s (%s)\n", baseline.Version, Loss(l), why)
	}
}

// checks writes a row for each check, in four columns that a phone shows. The bounds are those of the change if
// something is compared, else of the value.
func (c *comment) checks(checks []delivery.CheckVerdict) {
	c.table("", "check", "value", "change")
	for _, check := range checks {
		value, change := figureText(check), ""
		if check.Diff != nil {
			value += fmt.Sprintf("<br>was %.4f", *check.Baseline)
			change = signed(*check.Diff) + bounds(check, "at worst", "at best", signed)
		}
		c.row(outcomeSign(check.Outcome), CheckName(check), markdown(value), markdown(change))
	}
	c.printf("\n")
}

// figureText is a check's value, with its bounds where nothing is compared.
func figureText(c delivery.CheckVerdict) string {
	switch {
	case c.Value == nil:
		return ""
	case delivery.MetricOfFigure(c.Metric).Unit == delivery.UnitBytes:
		return fmt.Sprintf("%.1fMB", *c.Value/1e6)
	case delivery.MetricOfFigure(c.Metric).Unit == delivery.UnitTime:
		return fmt.Sprintf("%.2f ms", 1e3**c.Value)
	case c.Metric == "looks":
		return fmt.Sprintf("%.0f", *c.Value)
	case c.Diff == nil:
		return fmt.Sprintf("%.4f", *c.Value) + bounds(c, "at least", "at most",
			func(v float64) string { return fmt.Sprintf("%.4f", v) })
	}
	return fmt.Sprintf("%.4f", *c.Value)
}

// bounds says the one-sided bound that decided, or both where the check cannot tell.
func bounds(c delivery.CheckVerdict, low, high string, text func(float64) string) string {
	if c.Low == nil || c.High == nil {
		return ""
	}
	low, high = "<br>"+low+" "+text(*c.Low), "<br>"+high+" "+text(*c.High)
	switch {
	case c.Outcome == delivery.Unsure || c.Outcome == delivery.Ignored:
		return low + high
	case (c.Outcome == delivery.Fail) == delivery.MetricOfFigure(c.Metric).LessIsBetter:
		return low
	}
	return high
}

// signed is a change; what rounds to none has no sign.
func signed(v float64) string {
	if math.Abs(v) < 0.00005 {
		return "0.0000"
	}
	return fmt.Sprintf("%+.4f", v)
}

// outcomeSign is an outcome at a glance.
func outcomeSign(o delivery.Outcome) markdown {
	return cmp.Or(map[delivery.Outcome]markdown{delivery.Pass: "✅", delivery.Fail: "❌", delivery.Unsure: "❔",
		delivery.Ignored: "⚠️"}[o], "–")
}

// outcomeLabel is an outcome as a sign and a word.
func outcomeLabel(o delivery.Outcome) markdown {
	switch o {
	case delivery.Ignored:
		return outcomeSign(o) + " unsure, does not block"
	case delivery.NotApplicable:
		return "does not apply"
	}
	return outcomeSign(o) + " " + markdown(o)
}
