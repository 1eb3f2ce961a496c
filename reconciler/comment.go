package reconciler

// This file writes the one comment that a pull request gets.

import (
	"fmt"
	"maps"
	"regexp"
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
				if next := next(pr, c.State); next != "" {
					fmt.Fprintf(&b, "%s\n\n", next)
				}
			case len(settle(pr)) > 0:
				b.WriteString("### AOB: an owner of the gate decides\n\n")
				for _, s := range settle(pr) {
					fmt.Fprintf(&b, "- %s\n", acceptCommand.ReplaceAllString(escape(s), "`$0`"))
				}
				b.WriteString("\nWhat is accepted is signed with its reason; a comment that was edited does not count. Or push a better model to this branch, or give the gate more test images, in a pull request of its own.\n\n")
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
	for _, m := range pr.Powers {
		if len(m.Checks) == 0 {
			continue
		}
		fmt.Fprintf(&b, "**What gate %s can show of %s** (a drop that it finds four times in five)\n\n", escape(m.Gate), escape(m.Model))
		for _, c := range m.Checks {
			fmt.Fprintf(&b, "- %s\n", escape(c.String()))
		}
		b.WriteString("\n")
	}
	for _, line := range pr.Fleets {
		fmt.Fprintf(&b, "- fleet %s\n", escape(line))
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// next says what a person may do about a pull request that was judged.
func next(pr plan.ProposalReport, state delivery.CheckState) string {
	failed := slices.ContainsFunc(pr.Models, func(m plan.ModelReport) bool {
		return slices.ContainsFunc(m.Verdicts, func(v delivery.Verdict) bool { return v.Outcome == delivery.Fail })
	})
	released := slices.ContainsFunc(pr.Models, func(m plan.ModelReport) bool { return m.Release != nil && len(m.Verdicts) > 0 })
	switch {
	case state == delivery.CheckSuccess && released:
		return "Merging it releases the model to the fleets that run it, wave by wave; `git revert` takes it back."
	case state == delivery.CheckFailure && failed:
		return "Push other values to this branch and it is judged again; nobody can accept a fail. Where the bar itself is wrong, change the gate in a pull request of its own. `aob try` finds better values without looking at the eval set."
	}
	return ""
}

// acceptCommand is what an owner may copy.
var acceptCommand = regexp.MustCompile(`/aob accept [0-9a-f]{12} because …`)

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

// commentModel tells of one changed model. What decides stands first and fits a
// phone; the rest is folded.
func commentModel(b *strings.Builder, m plan.ModelReport) {
	fmt.Fprintf(b, "**%s**", m.Model)
	if m.Was != "" {
		fmt.Fprintf(b, ", until now **%s**, whose gates and release judge it", m.Was)
	}
	if m.Bundle != "" {
		fmt.Fprintf(b, ", bundle `%s`", m.Bundle.Short())
	}
	if m.Baseline != nil {
		fmt.Fprintf(b, ", compared with version %d", m.Baseline.Version)
	}
	b.WriteString("\n\n")
	for i, v := range m.Verdicts {
		commentVerdict(b, v, m.Baseline)
		for _, link := range m.Links {
			if link.Gate == v.Gate && link.URL != "" {
				fmt.Fprintf(b, "[The images that got worst](%s): truth, release and this model side by side.\n\n", link.URL)
			}
		}
		if i == len(m.Verdicts)-1 {
			for _, s := range m.Settled {
				fmt.Fprintf(b, "%s\n\n", escape(s))
			}
			b.WriteString("Bounds come from drawing the test images again and again. They cover which images were chosen, not the noise of training: the same training with another seed may differ by more.\n\n")
		}
	}
	if m.Tried != nil {
		commentTried(b, m)
	}
	commentSeeds(b, m)
	for _, e := range m.Measured {
		fold(b, fmt.Sprintf("all figures of gate %s", e.Gate), func() { commentMeasured(b, e) })
	}
	if len(m.Points) > 0 {
		fold(b, "thresholds, found on the validation split", func() {
			b.WriteString("| class | from score | precision | recall | |\n| --- | --- | --- | --- | --- |\n")
			for _, class := range slices.Sorted(maps.Keys(m.Points)) {
				p := m.Points[class]
				fmt.Fprintf(b, "| %s | %.3g | %.3f | %.3f | %s |\n", escape(class), p.Score, p.Precision, p.Recall, escape(p.Note))
			}
			b.WriteString("\n")
		})
	}
	if m.Data != nil && len(m.Data.Findings) > 0 {
		fold(b, "findings in the dataset", func() {
			for _, f := range m.Data.Findings {
				fmt.Fprintf(b, "- %s: %s: %s (%d)\n", f.Level, escape(f.Where), escape(f.Text), max(1, f.Count))
			}
			b.WriteString("\n")
		})
	}
}

func fold(b *strings.Builder, summary string, write func()) {
	fmt.Fprintf(b, "<details><summary>%s</summary>\n\n", escape(summary))
	write()
	b.WriteString("</details>\n\n")
}

// shownClasses is how many classes of one check a table shows, where all passed.
const shownClasses = 4

// commentVerdict tells what a gate says, check by check: what passed as a row, the
// rest with its reason.
func commentVerdict(b *strings.Builder, v delivery.Verdict, baseline *delivery.Release) {
	fmt.Fprintf(b, "**Gate %s: %s**", escape(v.Gate), verdictLabel(v.Outcome))
	if v.Images > 0 {
		fmt.Fprintf(b, ", on %s", count(v.Images, "image"))
	}
	if v.LeftOut > 0 {
		fmt.Fprintf(b, " (%d left out, a model was trained on them)", v.LeftOut)
	}
	b.WriteString("\n\n")
	var passed, rest []delivery.CheckVerdict
	classes := map[string]int{}
	for _, c := range v.Checks {
		if c.Class != "" && c.Outcome == delivery.Pass {
			if classes[c.Check]++; classes[c.Check] > shownClasses {
				rest = append(rest, c)
				continue
			}
		}
		passed = append(passed, c)
	}
	if len(v.Checks) > 0 {
		commentChecks(b, passed)
	}
	if len(rest) > 0 {
		fold(b, fmt.Sprintf("%s more that pass", count(len(rest), "class")), func() { commentChecks(b, rest) })
	}
	if len(v.Checks) == 0 {
		fmt.Fprintf(b, "%s\n\n", escape(v.Reason))
	}
	for _, c := range v.Checks {
		if c.Outcome != delivery.Pass && c.Outcome != delivery.NotApplicable {
			fmt.Fprintf(b, "- **%s**: %s\n", outcomeLabel(c.Outcome), escape(c.Reason))
		}
	}
	commentClasses(b, v)
	if v.Look > 0 {
		against := ", with no release to compare with yet"
		if baseline != nil {
			against = fmt.Sprintf(" against version %d", baseline.Version)
		}
		of := ""
		if v.Looks > 0 {
			of = fmt.Sprintf(" of %d", v.Looks)
		}
		fmt.Fprintf(b, "- look %d%s: so many models were judged on these images%s, this one included\n", v.Look, of, against)
	}
	b.WriteString("\n")
}

// commentClasses says what became of the release's classes.
func commentClasses(b *strings.Builder, v delivery.Verdict) {
	for _, name := range slices.Sorted(maps.Keys(v.Renamed)) {
		fmt.Fprintf(b, "- class %s is what was %s\n", escape(name), escape(v.Renamed[name]))
	}
	if len(v.Added) > 0 {
		fmt.Fprintf(b, "- new, so without a baseline: %s\n", escape(strings.Join(v.Added, ", ")))
	}
	if len(v.Removed) > 0 {
		fmt.Fprintf(b, "- no longer detected: %s\n", escape(strings.Join(v.Removed, ", ")))
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
			change = fmt.Sprintf("%+.4f", *c.Diff) + bounds(c, "%+.4f to %+.4f")
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", outcomeSign(c.Outcome), escape(name), value, change)
	}
	b.WriteString("\n")
}

// figureText is a check's value, with its bounds where nothing is compared.
func figureText(c delivery.CheckVerdict) string {
	switch {
	case c.Value == nil:
		return ""
	case c.Metric == "size":
		return fmt.Sprintf("%.1fMB", *c.Value/1e6)
	case c.Metric == "looks":
		return fmt.Sprintf("%.0f", *c.Value)
	case c.Diff == nil:
		return fmt.Sprintf("%.4f", *c.Value) + bounds(c, "%.4f to %.4f")
	}
	return fmt.Sprintf("%.4f", *c.Value)
}

func bounds(c delivery.CheckVerdict, format string) string {
	if c.Low == nil || c.High == nil {
		return ""
	}
	return "<br>" + fmt.Sprintf(format, *c.Low, *c.High)
}

func verdictLabel(o delivery.Outcome) string {
	if o == delivery.Unsure {
		return "cannot tell"
	}
	return outcomeLabel(o)
}

// outcomeSign is an answer at a glance.
func outcomeSign(o delivery.Outcome) string {
	switch o {
	case delivery.Pass:
		return "✅"
	case delivery.Fail:
		return "❌"
	case delivery.Unsure, delivery.Ignored:
		return "❔"
	}
	return "–"
}

// outcomeLabel is an answer in a word that is seen at a glance.
func outcomeLabel(o delivery.Outcome) string {
	switch o {
	case delivery.Pass:
		return "✅ pass"
	case delivery.Fail:
		return "❌ fail"
	case delivery.Unsure:
		return "❔ unsure"
	case delivery.Ignored:
		return "❔ unsure, which the gate ignores"
	case delivery.NotApplicable:
		return "does not apply"
	}
	return string(o)
}

func count(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case strings.HasSuffix(noun, "ss"):
		return fmt.Sprintf("%d %ses", n, noun)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// commentTried tells what a draft does on its validation split.
func commentTried(b *strings.Builder, m plan.ModelReport) {
	fmt.Fprintf(b, "On %s, compared with version %d:\n\n| | value | was | change (95 %% sure) |\n| --- | --- | --- | --- |\n", count(m.Tried.Images, "validation image"), m.Baseline.Version)
	for _, metric := range append([]string{"mAP", "AP50"}, prefixedClasses(m.Tried.Classes)...) {
		d, ok := m.Tried.Metrics[metric]
		if !ok {
			continue
		}
		low, high := d.Resamples.Bounds(0.975)
		fmt.Fprintf(b, "| %s | %.4f | %.4f | %+.4f (%+.4f to %+.4f) |\n", escape(metric), d.Candidate, d.Baseline, d.Value, low, high)
	}
	b.WriteString("\nNo gate has judged it: an eval set is opened when the pull request is ready for review.\n\n")
}

func prefixedClasses(classes []string) []string {
	names := make([]string, len(classes))
	for i, c := range classes {
		names[i] = "AP/" + c
	}
	return names
}

// commentSeeds tells how far the seeds of a spec lie apart.
func commentSeeds(b *strings.Builder, m plan.ModelReport) {
	if len(m.Seeds) < 2 {
		return
	}
	var words []string
	for _, s := range m.Seeds {
		word := fmt.Sprintf("seed %d ", s.Seed)
		switch {
		case s.Score != nil:
			word += fmt.Sprintf("%.4f", s.Score.Scores.Values["mAP"])
		case s.Bundle != "":
			word += "trained"
		default:
			word += "in training"
		}
		words = append(words, word)
	}
	fmt.Fprintf(b, "mAP on validation, which is the noise of training: %s. The best one ships.\n\n", escape(strings.Join(words, ", ")))
}

// commentMeasured writes one eval set's figures beside those of main's release.
func commentMeasured(b *strings.Builder, e delivery.Measured) {
	version := ""
	if e.Baseline != nil {
		version = fmt.Sprintf(" | version %d | change", e.Baseline.Version)
	}
	fmt.Fprintf(b, "| %s, %d images | value | 95 %% interval%s |\n| --- | --- | ---", escape(e.Gate), e.Images, version)
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
