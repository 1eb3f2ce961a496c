package words

// This file writes the one comment that a pull request gets, in Markdown.

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// Comments keeps the comment of each pull request until its report changes.
type Comments map[int]rendered

// A rendered is a comment and what it was made of.
type rendered struct {
	pr     plan.ProposalReport
	checks []plan.Check
	body   string
}

// Of returns the comment of a pull request.
func (c Comments) Of(pr plan.ProposalReport, checks []plan.Check) string {
	last, ok := c[pr.PR.Number]
	if !ok || !reflect.DeepEqual(last.checks, checks) || !reflect.DeepEqual(last.pr, pr) {
		last = rendered{pr, checks, Comment(pr, checks)}
		c[pr.PR.Number] = last
	}
	return last.body
}

// Keep forgets the comments of pull requests that are not open.
func (c Comments) Keep(open map[int]*plan.Proposal) {
	maps.DeleteFunc(c, func(n int, _ rendered) bool { return open[n] == nil })
}

// Comment renders a pull request's report as Markdown. It holds no progress and
// no clock, so that it is edited when something is decided and not while
// something runs.
func Comment(pr plan.ProposalReport, checks []plan.Check) string {
	var b strings.Builder
	for _, c := range checks {
		if c.Context == delivery.ContextRelease {
			switch {
			case pr.Has && c.State == delivery.CheckSuccess:
				fmt.Fprintf(&b, "### AOB: %s\n\n", delivery.Markdown(Join(c.Facts)))
			case c.State != delivery.CheckPending:
				fmt.Fprintf(&b, "### AOB: %s\n\n%s\n\n", verdictWord(c.State), headline(pr, c))
				if next := next(pr, c.State); next != "" {
					fmt.Fprintf(&b, "%s\n\n", next)
				}
			case pr.Elsewhere:
				fmt.Fprintf(&b, "### AOB: not judged yet\n\n%s\n\n",
					delivery.Markdown(capital(Join(c.Facts))+"."))
			case len(open(pr)) > 0:
				b.WriteString("### AOB: an owner of the gate decides\n\n")
				for _, d := range open(pr) {
					commentDoubt(&b, d)
				}
				b.WriteString(worse(pr, "accept"))
				b.WriteString("The code stands for this verdict on this content alone. What is accepted is signed, " +
					"with its reason, into the release, and merging then ships it. AOB asks back wherever others can " +
					"edit comments: the 👍 of the owner is what counts then. Or push a better model to this branch")
				if settles(pr) {
					b.WriteString(", or give the gate more test images, in a pull request of its own")
				}
				b.WriteString(".\n\n")
			case len(pr.Asks) > 0:
				fmt.Fprintf(&b, "### AOB: waits for approval\n\nIts author has no write permission here, so nothing "+
					"runs before somebody with write permission allows it:\n\n1. Comment `%s`.\n2. If AOB asks back "+
					"in a comment of its own, react to that comment with 👍. It asks wherever others can edit "+
					"comments: the reaction is what counts then, as nobody else can make it.\n\n",
					strings.Join(pr.Asks, "`, and `"))
				for _, who := range pr.Refused {
					fmt.Fprintf(&b, "- %s has no write permission here, so that comment does not count.\n",
						delivery.Markdown(who))
				}
				if len(pr.Refused) > 0 {
					b.WriteString("\n")
				}
			default:
				fmt.Fprintf(&b, "### AOB: %s\n\n", verdictWord(c.State))
				if len(pr.Models) > 0 && !pr.PR.Fork {
					b.WriteString("When every gate has passed, AOB pushes one more commit to this branch, with the " +
						"release. Approve after that commit: a forge that dismisses stale approvals would drop an " +
						"earlier one.\n\n")
				}
			}
		}
	}
	if noBranch(pr.PR) {
		fmt.Fprintf(&b, "The head of this pull request is no branch: its branch or its fork was deleted, or it was "+
			"pushed to `refs/for/`. AOB judges commit %s, and cannot push to it: a maintainer runs `%s`, "+
			"or somebody pushes the branch again.\n\n",
			delivery.Markdown(fmt.Sprintf("%.10s", pr.PR.Head)), AdoptCommand(pr.PR))
	}
	if len(pr.Problem) > 0 {
		var lines []string
		for i, c := range pr.Problem {
			if i == 50 {
				lines = append(lines, fmt.Sprintf("and %d more; run aob validate", len(pr.Problem)-i))
				break
			}
			lines = append(lines, c.String())
		}
		b.WriteString(delivery.MarkdownCode(lines...))
	}
	for _, m := range pr.Models {
		commentModel(&b, m)
	}
	if len(pr.Gates) > 0 {
		b.WriteString("**Current releases, judged by the changed gates** (for information)\n\n| model | gate | " +
			"answer |\n| --- | --- | --- |\n")
		for _, v := range pr.Gates {
			fmt.Fprintf(&b, "| %s | %s | %s: %s |\n", delivery.Markdown(v.Model), delivery.Markdown(v.Gate),
				orWaiting(v.Outcome), Markdown(plan.ReasonOf(v)))
		}
		b.WriteString("\n")
	}
	for _, m := range pr.Powers {
		if len(m.Checks) == 0 {
			continue
		}
		fmt.Fprintf(&b, "**What gate %s can show of %s** (a drop that it finds four times in five)\n\n",
			delivery.Markdown(m.Gate), delivery.Markdown(m.Model))
		for _, c := range m.Checks {
			fmt.Fprintf(&b, "- %s\n", delivery.Markdown(Power(c)))
		}
		b.WriteString("\n")
	}
	for _, line := range pr.Held {
		fmt.Fprintf(&b, "\n**Quarantine:** %s\n", Markdown(line))
	}
	for _, line := range pr.Fleets {
		fmt.Fprintf(&b, "- fleet %s\n", Markdown(line))
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

func capital(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

// noBranch reports whether nobody can push to the head of a pull request, also not who opened it: it is no branch.
func noBranch(pr delivery.PullRequest) bool {
	return pr.Fork && (pr.HeadRef == "" || strings.HasPrefix(pr.HeadRef, "refs/"))
}

// headline is what aob/release says. Where gates failed, it counts, as their
// sections say the rest.
func headline(pr plan.ProposalReport, check plan.Check) string {
	var lines []string
	for _, m := range pr.Models {
		for _, v := range m.Verdicts {
			if v.Outcome == delivery.Fail && len(v.Checks) > 0 && m.Fact.Contains(plan.ReasonOf(v)) {
				failed := outcomes(v)[delivery.Fail]
				lines = append(lines, fmt.Sprintf("**%s** does not pass gate %s: %d of %s failed.",
					delivery.Markdown(m.Model), delivery.Markdown(v.Gate), failed, delivery.Count(len(v.Checks),
						"check")))
			}
		}
	}
	if len(lines) == 0 {
		return delivery.Markdown(Join(check.Facts))
	}
	return strings.Join(lines, "\n")
}

func outcomes(v delivery.Verdict) map[delivery.Outcome]int {
	n := map[delivery.Outcome]int{}
	for _, c := range v.Checks {
		n[c.Outcome]++
	}
	return n
}

// next says what a person may do about a pull request that was judged.
func next(pr plan.ProposalReport, state delivery.CheckState) string {
	var failed, released, fleets []string
	for _, m := range pr.Models {
		if slices.ContainsFunc(m.Verdicts, func(v delivery.Verdict) bool { return v.Outcome == delivery.Fail }) {
			failed = append(failed, m.Model)
		}
		if m.Release != nil && len(m.Verdicts) > 0 {
			released, fleets = append(released, m.Model), append(fleets, Lines(m.Fleets)...)
		}
	}
	switch {
	case state == delivery.CheckSuccess && len(released) > 0 && len(fleets) > 0:
		return worse(pr, "merge") + fmt.Sprintf(
			"Merging it releases the model to %s, wave by wave; `git revert` of the merge takes it back.",
			delivery.Markdown(strings.Join(fleets, ", ")))
	case state == delivery.CheckSuccess && len(released) > 0:
		return worse(pr, "merge") +
			"Merging it releases the model; no fleet runs it yet. `git revert` of the merge takes it back."
	case state == delivery.CheckFailure && len(failed) > 0:
		return fmt.Sprintf("Change the model in this branch and push: it is judged again. `aob try models/%s.yaml` "+
			"tries other values on the validation images, without opening the test images. Nobody can accept a fail; "+
			"where the bar itself is wrong, change the gate in a pull request of its own.", failed[0])
	}
	return ""
}

// worse names what got worse beyond chance in spite of all that passed, as a reviewer
// is the only one who can hold it back.
func worse(pr plan.ProposalReport, before string) string {
	var list []string
	for _, m := range pr.Models {
		for _, v := range m.Verdicts {
			for _, l := range v.Lost {
				if what := l.Subject(); !slices.Contains(list, what) {
					list = append(list, what)
				}
			}
		}
	}
	if len(list) == 0 {
		return ""
	}
	if n := len(list) - shownLosses; n > 0 {
		list = append(list[:shownLosses], fmt.Sprintf("%d more", n))
	}
	return fmt.Sprintf("**Worse than what it replaces: %s. Look before you %s.** ",
		delivery.Markdown(strings.Join(list, ", ")), before)
}

// open lists what waits for owners of gates, in a pull request for which nothing
// else is to be done.
func open(pr plan.ProposalReport) []plan.Doubt {
	if len(pr.Asks) > 0 {
		return nil
	}
	var list []plan.Doubt
	for _, m := range pr.Models {
		for _, d := range m.Doubts {
			if d.Accept == nil {
				list = append(list, d)
			}
		}
	}
	return list
}

// settles reports whether more test images would settle what blocks.
func settles(pr plan.ProposalReport) bool {
	for _, m := range pr.Models {
		for _, v := range m.Verdicts {
			if slices.ContainsFunc(v.Checks, func(c delivery.CheckVerdict) bool {
				return c.Outcome == delivery.Unsure && c.Settle > 0
			}) {
				return true
			}
		}
	}
	return false
}

// commentDoubt says who may settle what, with a line to copy.
func commentDoubt(b *strings.Builder, d plan.Doubt) {
	if len(d.Owners) == 0 {
		fmt.Fprintf(b, "Gate %s is unsure, and nobody can accept that, as it has no owners.\n\n",
			delivery.Markdown(d.Gate))
		return
	}
	fmt.Fprintf(b, "Gate %s is unsure. Its owner %s may comment, with a reason:\n\n```\n/aob accept %s because "+
		"…\n```\n\nIf AOB asks back in a comment of its own, the owner reacts to that comment with 👍.\n\n",
		delivery.Markdown(d.Gate), delivery.Markdown(strings.Join(d.Owners, " or ")), d.Code)
	for _, why := range d.Refused {
		fmt.Fprintf(b, "- %s\n", Markdown(why))
	}
	if len(d.Refused) > 0 {
		b.WriteString("\n")
	}
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
	fmt.Fprintf(b, "**%s**", delivery.Markdown(m.Model))
	if m.Was != "" {
		fmt.Fprintf(b, ", until now **%s**, whose gates and release judge it", delivery.Markdown(m.Was))
	}
	if m.Baseline != nil {
		fmt.Fprintf(b, ", compared with version %d", m.Baseline.Version)
	}
	if m.Bundle != "" {
		fmt.Fprintf(b, "; what would ship is bundle `%s`", m.Bundle.Short())
	}
	b.WriteString("\n\n")
	for _, line := range m.Carried {
		fmt.Fprintf(b, "**The fleet's bar:** %s.\n\n", Markdown(line))
	}
	for _, v := range m.Verdicts {
		baseline := m.Baseline
		if runs, ok := m.Against[v.Gate]; ok {
			baseline = runs
		}
		commentVerdict(b, v, baseline)
		for _, link := range m.Links {
			if link.Gate == v.Gate && link.URL != "" {
				fmt.Fprintf(b,
					"[The images that got worse](%s), the worst first: truth, release and this model side by side.\n\n",
					link.URL)
			}
		}
	}
	for _, d := range m.Doubts {
		if d.Accept != nil {
			fmt.Fprintf(b, "Gate %s is unsure, and %s accepts that: %s\n\n", delivery.Markdown(d.Gate),
				delivery.Markdown(d.Accept.By), delivery.Markdown(d.Accept.Because))
		}
	}
	if len(m.Verdicts) > 0 {
		b.WriteString("Bounds are a bootstrap's over the test images, each one-sided at its check's confidence; " +
			"classes of one check share that, so each of theirs is surer. They cover which images were chosen, not " +
			"the noise of training: the same training with another seed may differ by more")
		if len(m.Seeds) < 2 {
			b.WriteString(", and `seeds: [1, 2, 3]` would show by how much")
		}
		b.WriteString(".\n\n")
	}
	if m.Tried != nil {
		commentTried(b, m)
	}
	commentSeeds(b, m)
	for _, e := range delivery.OneInterval(m.Measured, m.Verdicts) {
		fold(b, fmt.Sprintf("all figures of gate %s", e.Gate), func() { commentMeasured(b, e) })
	}
	if len(m.Points) > 0 {
		fold(b, "thresholds, found on the validation split", func() { commentPoints(b, m.Points) })
	}
	if m.Data != nil && len(m.Data.Findings) > 0 {
		fold(b, "findings in the dataset", func() {
			for _, f := range m.Data.Findings {
				for _, line := range f.Lines() {
					fmt.Fprintf(b, "- %s: %s\n", delivery.Markdown(f.Level), delivery.Markdown(line))
				}
			}
			b.WriteString("\n")
		})
	}
}

func commentPoints(b *strings.Builder, points map[string]delivery.OperatingPoint) {
	b.WriteString("| class | counts from score | precision | recall |\n| --- | --- | --- | --- |\n")
	var notes []string
	for _, class := range slices.Sorted(maps.Keys(points)) {
		p := points[class]
		fmt.Fprintf(b, "| %s | %.3g | %.3f | %.3f |\n", delivery.Markdown(class), p.Score, p.Precision, p.Recall)
		if p.Note != "" {
			notes = append(notes, fmt.Sprintf("- %s: %s\n", delivery.Markdown(class), delivery.Markdown(p.Note)))
		}
	}
	fmt.Fprintf(b, "\n%s\n", strings.Join(notes, ""))
}

func fold(b *strings.Builder, summary string, write func()) {
	fmt.Fprintf(b, "<details><summary>%s</summary>\n\n", delivery.Markdown(summary))
	write()
	b.WriteString("</details>\n\n")
}

// were counts things that something was done to.
func were(n int, noun string) string {
	if n == 1 {
		return "1 " + noun + " was"
	}
	return delivery.Count(n, noun) + " were"
}

// commentTried tells what a draft does on its validation split.
func commentTried(b *strings.Builder, m plan.ModelReport) {
	fmt.Fprintf(b, "On %s, compared with version %d:\n\n| | value | was | change | at worst | at best |\n"+
		"| --- | --- | --- | --- | --- | --- |\n", delivery.Count(m.Tried.Images, "validation image"),
		m.Baseline.Version)
	row := func(name, metric string, classes []string) {
		if d, ok := m.Tried.Compared(metric, classes); ok {
			low, high := d.Samples.Bounds(delivery.FigureConfidence)
			fmt.Fprintf(b, "| %s | %.4f | %.4f | %+.4f | %+.4f | %+.4f |\n", delivery.Markdown(name), d.Candidate,
				d.Baseline, d.Value, low, high)
		}
	}
	row(delivery.MetricMAP, delivery.MetricMAP, m.Tried.Classes)
	row(delivery.MetricAP50, delivery.MetricAP50, m.Tried.Classes)
	for _, class := range m.Tried.Classes {
		row(delivery.MetricAP+"/"+class, delivery.MetricAP, []string{class})
	}
	b.WriteString("\nEach bound is one-sided and 95 % sure. No gate has judged it: an eval set is opened when the " +
		"pull request is ready for review.\n\n")
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
	fmt.Fprintf(b, "mAP on validation, which is the noise of training: %s. The best one ships.\n\n",
		delivery.Markdown(strings.Join(words, ", ")))
}

// commentMeasured writes one eval set's figures beside those of main's release.
func commentMeasured(b *strings.Builder, e delivery.Measured) {
	version, line := "", ""
	if e.Baseline != nil {
		version, line = fmt.Sprintf(" | version %d", e.Baseline.Version), " | ---"
	}
	fmt.Fprintf(b, "| %s | value | at least | at most%s |\n| --- | --- | --- | ---%s |\n",
		delivery.Count(e.Images, "test image"), version, line)
	for _, name := range slices.SortedFunc(maps.Keys(e.Metrics), delivery.CompareFigures) {
		f := e.Metrics[name]
		bounds := " | "
		if f.Low != nil && f.High != nil {
			bounds = fmt.Sprintf("%.4f | %.4f", *f.Low, *f.High)
		}
		fmt.Fprintf(b, "| %s | %.4f | %s", delivery.Markdown(name), f.Value, bounds)
		if e.Baseline != nil {
			b.WriteString(" | ")
			if base, ok := e.Baseline.Metrics[name]; ok {
				fmt.Fprintf(b, "%.4f", base)
			}
		}
		b.WriteString(" |\n")
	}
	b.WriteString("\nEach bound is one-sided and 95 % sure. A figure that a check bounds has its bounds there.\n\n")
}

// AdoptCommand is the command that adopts what AOB has seen of a fork's pull request.
func AdoptCommand(pr delivery.PullRequest) string {
	return fmt.Sprintf("aob pr adopt %d --head %.10s", pr.Number, pr.Head)
}

// AdoptedText is the title and the description of a pull request that brings a fork's into the repository.
func AdoptedText(pr delivery.PullRequest) (title, body string) {
	return delivery.CommitText(pr.Title), fmt.Sprintf("Adopted from #%d by %s.", pr.Number,
		delivery.Markdown(pr.Author))
}
