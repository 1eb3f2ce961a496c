package words

import (
	"fmt"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// VerdictReason says what decided a verdict.
func VerdictReason(v delivery.Verdict) string { return Text(plan.ReasonOf(v)) }

// WithTexts returns a verdict with its facts written beside them, for people who read JSON.
func WithTexts(v delivery.Verdict) delivery.Verdict {
	v.Reason, v.Checks = VerdictReason(v), slices.Clone(v.Checks)
	for i, c := range v.Checks {
		v.Checks[i].Reason = Reason(c)
	}
	return v
}

// About says what a verdict is about besides its checks.
func About(v delivery.Verdict) []string {
	var lines []string
	if v.Images > 0 {
		line := "on " + delivery.Count(v.Images, "image")
		if v.LeftOut > 0 {
			line += fmt.Sprintf(", without %d that a model was trained on", v.LeftOut)
		}
		lines = append(lines, line)
	}
	if v.Baseline != "" {
		lines = append(lines, fmt.Sprintf("compared with bundle %s over the classes %s", v.Baseline.Short(),
			strings.Join(v.Classes, ", ")))
	}
	if v.Look > 0 {
		line := fmt.Sprintf("look %d", v.Look)
		if v.Looks > 0 {
			line += fmt.Sprintf(" of %d", v.Looks)
		}
		against := ""
		if v.Baseline != "" {
			against = " against that release"
		}
		lines = append(lines, line+": so many models were judged on this eval set"+against+", with this one")
	}
	return lines
}

// CheckName names a check, and the class that it is about.
func CheckName(c delivery.CheckVerdict) string {
	if c.Class == "" {
		return c.Check
	}
	return c.Check + ", " + c.Class
}

// CheckText says what decided a check, and the bounds of what passed.
func CheckText(c delivery.CheckVerdict) string {
	if c.Outcome == delivery.Pass && c.Diff == nil && c.Low != nil && c.High != nil {
		return Reason(c) + fmt.Sprintf(" (at least %.4f, at most %.4f, each %.4g%% sure)", *c.Low, *c.High,
			c.Confidence*100)
	}
	return Reason(c)
}

// verdictLines says what a verdict is about, and what its checks and comparisons found.
func verdictLines(v delivery.Verdict) []string {
	lines := About(v)
	for _, l := range v.OtherLosses() {
		lines = append(lines, "worse than that release: "+Loss(l))
	}
	for _, c := range v.Checks {
		lines = append(lines, fmt.Sprintf("%s: %s: %s", c.Outcome, CheckName(c), CheckText(c)))
	}
	return lines
}

// ReleaseNotes returns what the comments in a release file say of a gate's figures: why a check did not pass, and what
// the model is worse at.
func ReleaseNotes(verdicts []delivery.Verdict) func(m delivery.Measured) (checks, lost []string) {
	return func(m delivery.Measured) (checks, lost []string) {
		i := slices.IndexFunc(verdicts, func(v delivery.Verdict) bool { return v.Gate == m.Gate })
		if i < 0 {
			return nil, nil
		}
		note := func(c delivery.CheckVerdict) string {
			if c.Outcome == delivery.Pass {
				return ""
			}
			return Reason(c)
		}
		loss := func(l delivery.Loss) string { return "worse than the release: " + Loss(l) }
		return delivery.Each(verdicts[i].Checks, note), delivery.Each(m.Lost, loss)
	}
}
