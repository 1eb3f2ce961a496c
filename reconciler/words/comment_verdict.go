package words

// This file is what a comment says of one gate's verdict.

import (
	"fmt"
	"math"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// shownClasses is how many classes of one check a table shows, where all passed.
const shownClasses = 4

// commentVerdict tells what a gate says: what did not pass with its reason, what
// got worse all the same, and then check by check.
func commentVerdict(b *strings.Builder, v delivery.Verdict, baseline *delivery.Release) {
	fmt.Fprintf(b, "**Gate %s: %s**", delivery.Markdown(v.Gate), outcomeLabel(v.Outcome))
	if v.Images > 0 {
		fmt.Fprintf(b, ", on %s", delivery.Count(v.Images, "test image"))
	}
	if v.LeftOut > 0 {
		fmt.Fprintf(b, " (%d left out, a model was trained on them)", v.LeftOut)
	}
	b.WriteString("\n\n")
	if len(v.Checks) == 0 {
		fmt.Fprintf(b, "%s\n\n", Markdown(plan.ReasonOf(v)))
	}
	for _, outcome := range []delivery.Outcome{delivery.Fail, delivery.Unsure, delivery.Ignored} {
		for _, c := range v.Checks {
			if c.Outcome == outcome {
				fmt.Fprintf(b, "- **%s**: %s\n", outcomeLabel(outcome), delivery.Markdown(Reason(c)))
			}
		}
	}
	commentLost(b, v, baseline)
	b.WriteString("\n")
	var shown, rest []delivery.CheckVerdict
	classes := map[string]int{}
	for _, c := range v.Checks {
		if c.Class != "" && c.Outcome == delivery.Pass {
			if classes[c.Check]++; classes[c.Check] > shownClasses {
				rest = append(rest, c)
				continue
			}
		}
		shown = append(shown, c)
	}
	if len(shown) > 0 {
		commentChecks(b, shown)
	}
	if len(rest) > 0 {
		fold(b, fmt.Sprintf("%s more that pass", delivery.Count(len(rest), "class")), func() { commentChecks(b, rest) })
	}
	if v.Look > 0 {
		against := ", with no release to compare with yet"
		if baseline != nil {
			against = fmt.Sprintf(" against version %d", baseline.Version)
		}
		of, then := "", ""
		if v.Looks > 0 {
			of, then = fmt.Sprintf(" of %d", v.Looks),
				fmt.Sprintf("; after %d even a pass needs an owner's word, as the best of many looks better than it is",
					v.Looks)
		}
		fmt.Fprintf(b, "Look %d%s: %s judged on these images%s, this one included%s.\n\n", v.Look, of,
			were(v.Look, "model"), against, then)
	}
}

// shownLosses is how many a comment tells of.
const shownLosses = 5

// commentLost says what got worse beyond chance and is not told of as a check that
// did not pass: people should not have to look for it.
func commentLost(b *strings.Builder, v delivery.Verdict, baseline *delivery.Release) {
	told := 0
	for _, l := range v.OtherLosses() {
		held := "no check is about it"
		if _, ok := v.CheckOf(l); ok {
			held = "which the gate allows"
		}
		if told++; told > shownLosses {
			continue
		}
		fmt.Fprintf(b, "- **⚠️ worse than version %d**: %s (%s)\n", baseline.Version, delivery.Markdown(Loss(l)),
			held)
	}
	if told > shownLosses {
		fmt.Fprintf(b, "- and %d more that got worse; aob pr show lists them\n", told-shownLosses)
	}
}

// commentChecks writes a row for each check, in four columns that a phone shows. Of
// what is compared the bounds are those of the change, else of the value.
func commentChecks(b *strings.Builder, checks []delivery.CheckVerdict) {
	b.WriteString("| | check | value | change |\n| --- | --- | --- | --- |\n")
	for _, c := range checks {
		name := c.Check
		if c.Class != "" {
			name += ", " + c.Class
		}
		value, change := figureText(c), ""
		if c.Diff != nil {
			value += fmt.Sprintf("<br>was %.4f", *c.Baseline)
			change = signed(*c.Diff) + bounds(c, "at worst", "at best", signed)
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", outcomeSign(c.Outcome), delivery.Markdown(name), value, change)
	}
	b.WriteString("\n")
}

// figureText is a check's value, with its bounds where nothing is compared.
func figureText(c delivery.CheckVerdict) string {
	switch {
	case c.Value == nil:
		return ""
	case delivery.MetricOfFigure(c.Metric).Unit == delivery.UnitBytes:
		return fmt.Sprintf("%.1fMB", *c.Value/1e6)
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

// outcomeSign is an answer at a glance.
func outcomeSign(o delivery.Outcome) string {
	switch o {
	case delivery.Pass:
		return "✅"
	case delivery.Fail:
		return "❌"
	case delivery.Unsure:
		return "❔"
	case delivery.Ignored:
		return "⚠️"
	}
	return "–"
}

// outcomeLabel is an answer as a sign and a word.
func outcomeLabel(o delivery.Outcome) string {
	switch o {
	case delivery.Pass, delivery.Fail, delivery.Unsure:
		return outcomeSign(o) + " " + string(o)
	case delivery.Ignored:
		return outcomeSign(o) + " unsure, does not block"
	case delivery.NotApplicable:
		return "does not apply"
	}
	return string(o)
}
