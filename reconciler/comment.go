package reconciler

// This file writes the one comment that a pull request gets.

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// Comment renders a pull request's report as Markdown. It holds no progress and
// no clock, so that it is edited when something is decided and not while
// something runs.
func Comment(pr plan.ProposalReport, checks []delivery.Check) string {
	var b strings.Builder
	for _, c := range checks {
		if c.Context == delivery.ContextRelease {
			switch {
			case c.State != delivery.CheckPending:
				fmt.Fprintf(&b, "### AOB: %s\n\n%s\n\n", verdictWord(c.State), escape(c.Description))
			case len(settle(pr)) > 0:
				fmt.Fprintf(&b, "### AOB: an owner of the gate decides\n\n%s. A comment that was edited does not count, and what is accepted is signed with its reason. More test images would settle it without anybody.\n\n",
					escape(strings.Join(settle(pr), "; ")))
			case len(pr.Asks) > 0:
				fmt.Fprintf(&b, "### AOB: waits for a go\n\nIts author has no write permission here, so nothing runs until someone who has comments `%s`. A comment that was edited does not count.\n\n",
					strings.Join(pr.Asks, "`, and `"))
			default:
				fmt.Fprintf(&b, "### AOB: %s\n\n", verdictWord(c.State))
			}
		}
	}
	if len(pr.Problem) > 0 {
		b.WriteString("```\n")
		for i, c := range pr.Problem {
			if i == 50 {
				fmt.Fprintf(&b, "and %d more; run aob validate\n", len(pr.Problem)-i)
				break
			}
			b.WriteString(strings.ReplaceAll(c.String(), "```", "'''") + "\n")
		}
		b.WriteString("```\n")
	}
	for _, m := range pr.Models {
		commentModel(&b, m)
	}
	if len(pr.Gates) > 0 {
		b.WriteString("**Current releases, judged by the changed gates** (for information)\n\n| model | gate | answer |\n| --- | --- | --- |\n")
		for _, v := range pr.Gates {
			fmt.Fprintf(&b, "| %s | %s | %s: %s |\n", v.Model, v.Gate, orWaiting(v.Outcome), escape(v.Reason))
		}
		b.WriteString("\n")
	}
	for _, line := range pr.Fleets {
		fmt.Fprintf(&b, "- fleet %s\n", escape(line))
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// settle is what waits for owners of gates, in a pull request for which nothing
// else is to be done.
func settle(pr plan.ProposalReport) []string {
	if len(pr.Asks) > 0 {
		return nil
	}
	var list []string
	for _, m := range pr.Models {
		list = append(list, m.Settle...)
	}
	return list
}

func verdictWord(s delivery.CheckState) string {
	switch s {
	case delivery.CheckSuccess:
		return "ready to merge"
	case delivery.CheckPending:
		return "working on it"
	}
	return "not to be merged"
}

func orWaiting(o delivery.Outcome) string {
	if o == "" {
		return "waiting"
	}
	return string(o)
}

func commentModel(b *strings.Builder, m plan.ModelReport) {
	fmt.Fprintf(b, "**%s**", m.Model)
	if m.Was != "" {
		fmt.Fprintf(b, ", until now **%s**, whose gates and release judge it", m.Was)
	}
	if m.Bundle != "" {
		fmt.Fprintf(b, ", bundle `%s`", m.Bundle.Short())
	}
	b.WriteString("\n\n")
	for _, e := range m.Measured {
		commentMeasured(b, e)
	}
	if len(m.Verdicts) > 0 {
		b.WriteString("| gate | check | answer | |\n| --- | --- | --- | --- |\n")
		for _, v := range m.Verdicts {
			for _, c := range v.Checks {
				check := c.Check
				if c.Class != "" {
					check += ", " + c.Class
				}
				fmt.Fprintf(b, "| %s | %s | %s | %s |\n", v.Gate, escape(check), c.Outcome, escape(c.Reason))
			}
		}
		for _, s := range m.Settled {
			fmt.Fprintf(b, "\n%s\n", escape(s))
		}
		b.WriteString("\nIntervals cover the choice of test images, not the noise of training.\n\n")
	}
	if m.Data != nil && len(m.Data.Findings) > 0 {
		b.WriteString("<details><summary>findings in the dataset</summary>\n\n")
		for _, f := range m.Data.Findings {
			fmt.Fprintf(b, "- %s: %s: %s (%d)\n", f.Level, escape(f.Where), escape(f.Text), max(1, f.Count))
		}
		b.WriteString("\n</details>\n\n")
	}
}

// commentMeasured writes one eval set's figures beside those of main's release.
func commentMeasured(b *strings.Builder, e delivery.Measured) {
	version := ""
	if e.Baseline != nil {
		version = fmt.Sprintf(" | version %d | change", e.Baseline.Version)
	}
	fmt.Fprintf(b, "| %s, %d images | value | 95 %% interval%s |\n| --- | --- | ---", e.Gate, e.Images, version)
	if e.Baseline != nil {
		b.WriteString(" | --- | ---")
	}
	b.WriteString(" |\n")
	for _, name := range slices.SortedFunc(maps.Keys(e.Metrics), byImportance) {
		f := e.Metrics[name]
		interval := ""
		if f.Low != nil && f.High != nil {
			interval = fmt.Sprintf("%.4f to %.4f", *f.Low, *f.High)
		}
		fmt.Fprintf(b, "| %s | %.4f | %s", escape(name), f.Value, interval)
		if e.Baseline != nil {
			if base, ok := e.Baseline.Metrics[name]; ok {
				fmt.Fprintf(b, " | %.4f | %+.4f", base, f.Value-base)
			} else {
				b.WriteString(" | |")
			}
		}
		b.WriteString(" |\n")
	}
	b.WriteString("\n")
}

// byImportance puts mAP first and classes last.
func byImportance(a, b string) int {
	rank := func(s string) string {
		if i := slices.Index([]string{"mAP", "AP50", "AP75"}, s); i >= 0 {
			return string(rune('0' + i))
		}
		return "9" + s
	}
	return strings.Compare(rank(a), rank(b))
}

// escape keeps text from a repository or a dataset from becoming markup, a link
// or a mention.
func escape(s string) string {
	return strings.NewReplacer("<", "&lt;", "|", "\\|", "@", "@\u200b", "`", "'", "[", "\\[", "\n", " ", "\r", " ").Replace(s)
}
