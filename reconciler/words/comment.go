package words

// This file writes the one comment that a pull request gets, in Markdown.

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// A comment is Markdown that is being written.
type comment struct{ strings.Builder }

// A markdown is a part of a comment that is not escaped.
type markdown string

// printf formats as package fmt does. Values may come from outside, so all are escaped but numbers and markdown.
func (c *comment) printf(format string, args ...any) {
	safe := make([]any, len(args))
	for i, arg := range args {
		v := reflect.ValueOf(arg)
		switch a := arg.(type) {
		case markdown:
			safe[i] = a
		case delivery.Fact:
			safe[i] = Markdown(a)
		default:
			if v.CanInt() || v.CanUint() || v.CanFloat() {
				safe[i] = a
			} else {
				safe[i] = delivery.Markdown(fmt.Sprint(a))
			}
		}
	}
	fmt.Fprintf(c, format, safe...)
}

// list writes an item for each fact.
func (c *comment) list(items []delivery.Fact) {
	for _, f := range items {
		c.printf("- %s\n", f)
	}
	if len(items) > 0 {
		c.printf("\n")
	}
}

// table begins a table.
func (c *comment) table(heads ...any) {
	c.row(heads...)
	c.printf("%s|\n", markdown(strings.Repeat("| --- ", len(heads))))
}

func (c *comment) row(cells ...any) {
	for _, cell := range cells {
		c.printf("| %v ", cell)
	}
	c.printf("|\n")
}

// fold writes a part that is shown on request.
func (c *comment) fold(summary string, write func()) {
	c.printf("<details><summary>%s</summary>\n\n", summary)
	write()
	c.printf("</details>\n\n")
}

// number writes a figure in a table.
func number(v float64) markdown { return markdown(fmt.Sprintf("%.4f", v)) }

// Comment renders a pull request's report as Markdown. It holds no progress and no clock, so that it is edited when
// something is decided and not while something runs.
func Comment(pr plan.ProposalReport, checks []plan.Check) string {
	c := &comment{}
	for _, check := range checks {
		if check.Context == delivery.ContextRelease {
			c.release(pr, check)
		}
	}
	if noBranch(pr.PR) {
		c.printf("The head of this pull request is no branch: its branch or its fork was deleted, or it was pushed to "+
			"`refs/for/`. AOB judges commit %s, and cannot push to it: a maintainer runs `%s`, or somebody pushes the "+
			"branch again.\n\n", fmt.Sprintf("%.10s", pr.PR.Head), markdown(AdoptCommand(pr.PR)))
	}
	if len(pr.Problem) > 0 {
		var lines []string
		for i, complaint := range pr.Problem {
			if i == 50 {
				lines = append(lines, fmt.Sprintf("and %d more; run aob validate", len(pr.Problem)-i))
				break
			}
			lines = append(lines, complaint.String())
		}
		c.WriteString(delivery.MarkdownCode(lines...))
	}
	for _, m := range pr.Models {
		c.model(m)
	}
	if len(pr.Gates) > 0 {
		c.printf("**Current releases, judged by the changed gates** (for information)\n\n")
		c.table("model", "gate", "answer")
		for _, v := range pr.Gates {
			c.row(v.Model, v.Gate, markdown(cmp.Or(string(v.Outcome), "waiting")+": "+Markdown(plan.ReasonOf(v))))
		}
		c.printf("\n")
	}
	for _, m := range pr.Powers {
		if len(m.Checks) == 0 {
			continue
		}
		c.printf("**%s** (with a probability of 80 %%)\n\n", capital(PowerTitle(m)))
		for _, check := range m.Checks {
			c.printf("- %s\n", Power(check))
		}
		c.printf("\n")
	}
	for _, f := range pr.Quarantined {
		c.printf("\n**Quarantine:** %s\n", f)
	}
	for _, f := range pr.Fleets {
		c.printf("- fleet %s\n", f)
	}
	if len(pr.Orphans) > 0 {
		c.printf("\n**Left in the cloud account by runs of this pull request:**\n\n")
		c.list(pr.Orphans)
	}
	return strings.TrimRight(c.String(), "\n") + "\n"
}

// release writes what aob/release says, and what a person may do.
func (c *comment) release(pr plan.ProposalReport, check plan.Check) {
	switch {
	case pr.OnMain && check.State == delivery.CheckSuccess:
		c.printf("### AOB: %s\n\n", Join(check.Facts))
	case check.State != delivery.CheckPending:
		c.printf("### AOB: %s\n\n", stateTitle(check.State))
		c.headline(pr, check)
		c.next(pr, check.State)
	case pr.Elsewhere:
		c.printf("### AOB: not judged yet\n\n%s\n\n", capital(Join(check.Facts))+".")
	case len(open(pr)) > 0:
		c.printf("### AOB: an owner of the gate must decide\n\n")
		for _, d := range open(pr) {
			c.unsure(d)
		}
		c.worse(pr, "accept")
		c.printf("The code is valid for this verdict alone: another model, gate or release has another one. The " +
			"owner's reason is signed with the release, and merging then ships the model.\n\n" +
			"Or push a better model to this branch")
		if moreImagesSettle(pr) {
			c.printf(", or give the gate more test images in a pull request of its own")
		}
		c.printf(".\n\n")
	case len(pr.ApprovalCommands) > 0:
		c.printf("### AOB: needs approval\n\nIts author has no write permission here, so nothing runs before "+
			"somebody with write permission allows it:\n\n1. Comment `%s`.\n2. If AOB then asks for confirmation in a "+
			"comment of its own, react to that comment with 👍. It asks where others can edit your comment: nobody "+
			"else can make your reaction.\n\n", markdown(strings.Join(pr.ApprovalCommands, "`, and `")))
		for _, who := range pr.Refused {
			c.printf("- %s has no write permission here, so that comment does not count.\n", who)
		}
		if len(pr.Refused) > 0 {
			c.printf("\n")
		}
	default:
		c.printf("### AOB: %s\n\n", stateTitle(check.State))
		if len(pr.Models) > 0 && !pr.PR.Fork {
			c.printf("When every gate has passed, AOB pushes one more commit to this branch, with the release. " +
				"Approve after that commit: a forge that dismisses stale approvals would drop an earlier one.\n\n")
		}
	}
}

// capital returns text with a capital letter at its beginning.
func capital(text string) string {
	_, size := utf8.DecodeRuneInString(text)
	return strings.ToUpper(text[:size]) + text[size:]
}

// noBranch reports whether nobody can push to the head of a pull request, also not who opened it: it is no branch.
func noBranch(pr delivery.PullRequest) bool {
	return pr.Fork && (pr.HeadRef == "" || strings.HasPrefix(pr.HeadRef, "refs/"))
}

// headline writes what aob/release says. Failed checks are counted, because the gates' sections describe them.
func (c *comment) headline(pr plan.ProposalReport, check plan.Check) {
	counted := false
	for _, m := range pr.Models {
		for _, v := range m.Verdicts {
			if v.Outcome == delivery.Fail && len(v.Checks) > 0 && m.Fact.Contains(plan.ReasonOf(v)) {
				failed := slices.DeleteFunc(slices.Clone(v.Checks), func(c delivery.CheckVerdict) bool {
					return c.Outcome != delivery.Fail
				})
				c.printf("**%s** does not pass gate %s: %d of %s failed.\n", m.Model, v.Gate, len(failed),
					delivery.Count(len(v.Checks), "check"))
				counted = true
			}
		}
	}
	if !counted {
		c.printf("%s\n", Join(check.Facts))
	}
	c.printf("\n")
}

// next writes what a person may do about a pull request that was judged.
func (c *comment) next(pr plan.ProposalReport, state delivery.CheckState) {
	failed, released := "", false
	var fleets []string
	for _, m := range pr.Models {
		fails := func(v delivery.Verdict) bool { return v.Outcome == delivery.Fail }
		if failed == "" && slices.ContainsFunc(m.Verdicts, fails) {
			failed = m.Model
		}
		if m.Release != nil && len(m.Verdicts) > 0 {
			released, fleets = true, append(fleets, Lines(m.Fleets)...)
		}
	}
	switch {
	case state == delivery.CheckSuccess && released:
		c.worse(pr, "merge")
		if len(fleets) > 0 {
			c.printf("Merging it releases the model to %s, wave by wave; `git revert` of the merge takes it back.\n\n",
				strings.Join(fleets, ", "))
		} else {
			c.printf("Merging it releases the model; no fleet runs it yet. `git revert` of the merge takes it back." +
				"\n\n")
		}
	case state == delivery.CheckFailure && failed != "":
		c.printf("Change the model in this branch and push: it is judged again. `aob try models/%s.yaml` tries other "+
			"values on the validation images, without opening the test images. Nobody can accept a fail. If "+
			"the gate asks for the wrong thing, change it in a pull request of its own.\n\n", markdown(failed))
	}
}

// worse names what got significantly worse although everything passed. Only a reviewer can hold that back.
func (c *comment) worse(pr plan.ProposalReport, before string) {
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
	if len(list) > 0 {
		c.printf("**Worse than what it replaces: %s. Look at the images before you %s.** ", few(list, shownLosses),
			before)
	}
}

// open lists the unsure verdicts that wait for owners of gates, in a pull request for which nothing else is to be done.
func open(pr plan.ProposalReport) []plan.UnsureVerdict {
	if len(pr.ApprovalCommands) > 0 {
		return nil
	}
	var list []plan.UnsureVerdict
	for _, m := range pr.Models {
		for _, d := range m.Unsure {
			if d.Accept == nil {
				list = append(list, d)
			}
		}
	}
	return list
}

// moreImagesSettle reports whether more test images would settle an unsure check.
func moreImagesSettle(pr plan.ProposalReport) bool {
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

// unsure writes who may accept an unsure verdict, with a line to copy.
func (c *comment) unsure(d plan.UnsureVerdict) {
	if len(d.Owners) == 0 {
		c.printf("Gate %s is unsure, and nobody can accept that, as the gate has no owners.\n\n", d.Gate)
		return
	}
	c.printf("Gate %s is unsure. Its owner %s may comment, with a reason:\n\n```\n/aob accept %s because …\n```\n\n"+
		"If AOB then asks for confirmation in a comment of its own, the owner reacts to that comment with 👍.\n\n",
		d.Gate, strings.Join(d.Owners, " or "), markdown(d.Code))
	c.list(d.Refused)
}

func stateTitle(s delivery.CheckState) markdown {
	switch s {
	case delivery.CheckSuccess:
		return "ready to merge"
	case delivery.CheckPending:
		return "working on it"
	}
	return "not to be merged"
}

// model writes about one changed model. What decides stands first and fits a phone; the rest is folded.
func (c *comment) model(m plan.ModelReport) {
	c.printf("**%s**", m.Model)
	if m.RenamedFrom != "" {
		c.printf(", until now **%s**, whose gates and release judge it", m.RenamedFrom)
	}
	if m.Baseline != nil {
		c.printf(", compared with version %d", m.Baseline.Version)
	}
	if m.Bundle != "" {
		c.printf("; what would ship is bundle `%s`", m.Bundle.Short())
	}
	c.printf("\n\n")
	if !m.Moved.IsZero() {
		c.printf("**Another version of the trainer:** %s.\n\n", m.Moved)
	}
	if !m.DataChanged.IsZero() {
		c.printf("**Changed data:** %s.", m.DataChanged)
		if m.DataChanged.FromDataset != "" {
			c.printf(" `aob data diff` shows which images and boxes have changed.")
		}
		c.printf("\n\n")
	}
	for _, f := range m.Carried {
		c.printf("**Gates of the fleet:** %s.\n\n", f)
	}
	for _, d := range m.Unsure {
		if d.Accept != nil {
			c.printf("Gate %s was unsure, and its owner %s accepted that: %s\n\n", d.Gate, d.Accept.By,
				d.Accept.Because)
		}
	}
	for _, v := range m.Verdicts {
		baseline := m.Baseline
		if runs, ok := m.Against[v.Gate]; ok {
			baseline = runs
		}
		c.verdict(v, baseline)
		for _, link := range m.Links {
			if link.Gate == v.Gate && link.URL != "" {
				c.printf("[The images that got worse](%s), the worst first: ground truth, release and this model "+
					"side by side.\n\n", markdown(link.URL))
			}
		}
	}
	if len(m.Verdicts) > 0 {
		c.printf("Each bound is one-sided, by a bootstrap over the test images, at its check's confidence. Where a " +
			"check has several classes, each has a wider bound, so that all of them hold together. Bounds do not " +
			"include the noise of training: another seed may differ by more")
		if len(m.Seeds) < 2 {
			c.printf(", and `seeds: [1, 2, 3]` shows by how much")
		}
		c.printf(".\n\n")
	}
	if m.Tried != nil {
		c.validation(m)
	}
	c.seeds(m)
	c.variants(m)
	for _, e := range delivery.OneInterval(m.Measured, m.Verdicts) {
		c.fold(fmt.Sprintf("all figures of gate %s", e.Gate), func() { c.measured(e) })
	}
	if len(m.Points) > 0 {
		c.fold("thresholds, found on the validation split", func() { c.thresholds(m.Points) })
	}
	if m.Data != nil && len(m.Data.Findings) > 0 {
		c.fold("findings in the dataset", func() {
			for _, f := range m.Data.Findings {
				for _, line := range f.Lines() {
					c.printf("- %s: %s\n", f.Level, line)
				}
			}
			c.printf("\n")
		})
	}
}

func (c *comment) thresholds(points map[string]delivery.OperatingPoint) {
	c.table("class", "score threshold", "precision", "recall")
	classes := slices.Sorted(maps.Keys(points))
	for _, class := range classes {
		p := points[class]
		c.printf("| %s | %.3g | %.3f | %.3f |\n", class, p.Score, p.Precision, p.Recall)
	}
	c.printf("\n")
	for _, class := range classes {
		if note := points[class].Note; note != "" {
			c.printf("- %s: %s\n", class, note)
		}
	}
	c.printf("\n")
}

// validation writes how a draft does on its validation split.
func (c *comment) validation(m plan.ModelReport) {
	c.printf("On %s, compared with version %d:\n\n", delivery.Count(m.Tried.Images, "validation image"),
		m.Baseline.Version)
	c.table("", "value", "was", "change", "at worst", "at best")
	row := func(name, metric string, classes []string) {
		if d, ok := m.Tried.Compared(metric, classes); ok {
			low, high := d.Samples.Bounds(delivery.FigureConfidence)
			c.printf("| %s | %.4f | %.4f | %+.4f | %+.4f | %+.4f |\n", name, d.Candidate, d.Baseline, d.Value, low,
				high)
		}
	}
	row(delivery.MetricMAP, delivery.MetricMAP, m.Tried.Classes)
	row(delivery.MetricAP50, delivery.MetricAP50, m.Tried.Classes)
	for _, class := range m.Tried.Classes {
		row(delivery.MetricAP+"/"+class, delivery.MetricAP, []string{class})
	}
	c.printf("\nEach bound is one-sided and 95 %% sure. No gate has judged it: an eval set is opened when the pull " +
		"request is ready for review.\n\n")
}

// seeds writes how much the seeds of a spec differ.
func (c *comment) seeds(m plan.ModelReport) {
	if len(m.Seeds) < 2 {
		return
	}
	var list []string
	for _, s := range m.Seeds {
		result := "in training"
		switch {
		case s.Score != nil:
			result = fmt.Sprintf("%.4f", s.Score.Scores.Values[delivery.MetricMAP])
		case s.Bundle != "":
			result = "trained"
		}
		list = append(list, fmt.Sprintf("seed %d %s", s.Seed, result))
	}
	c.printf("mAP on validation, which is the noise of training: %s. The best one ships.\n\n", strings.Join(list, ", "))
}

// variants writes which variants of a model are released, how far they are from it, and how fast they are.
func (c *comment) variants(m plan.ModelReport) {
	if len(m.Variants) == 0 {
		return
	}
	c.printf("**Variants**, made of the trained model without training. FP32 alone decides about the release.\n\n")
	var made []plan.ModelVariant
	for _, v := range m.Variants {
		if v.Made != nil {
			made = append(made, v)
		}
		if v.State == delivery.CheckPending {
			c.printf("- %s: waiting\n", v.Variant)
		} else {
			c.printf("- %s: %s\n", v.Variant, v.Fact)
		}
	}
	c.printf("\n")
	if len(made) == 0 {
		return
	}
	c.table("", "MB", "ms (median)", "ms (95 %)", "boxes that agree", "change of scores", "cosine of outputs",
		"largest difference")
	ms := func(seconds float64) markdown { return markdown(fmt.Sprintf("%.2f", 1000*seconds)) }
	mb := func(bytes int64) markdown { return markdown(fmt.Sprintf("%.1f", float64(bytes)/1e6)) }
	r := made[0].Made.Result
	c.row(delivery.FP32, mb(r.OfSize), ms(r.Times.FP32.P50), ms(r.Times.FP32.P95), "", "", "", "")
	for _, v := range made {
		r := v.Made.Result
		c.row(v.Variant, mb(r.Size), ms(r.Times.Variant.P50), ms(r.Times.Variant.P95),
			markdown(fmt.Sprintf("%.1f %%", 100*r.Parity.F1())), number(r.Parity.ScoreShift), outputs(r.Parity.Cosine),
			outputs(r.Parity.Largest))
	}
	c.printf("\nTimes are for one image on this server (%s, %s, ONNX Runtime on %s), in %s with both models in turn. "+
		"A variant is faster if it is so in each, and by more than %g %% over all. A fleet gets the variant that its "+
		"file names, and FP32 if it names none. Boxes agree (F1) if class and place are the same, on %s, from a "+
		"score of %g on. Outputs are compared for one fixed input.\n\n", r.Times.Processor,
		delivery.Count(r.Times.Threads, "thread"), r.Times.Provider, delivery.Count(len(r.Times.Rounds), "round"),
		100*delivery.NoiseOfTimes, delivery.Count(r.Parity.Images, "validation image"), r.Parity.MinScore)
	c.reported(made)
}

// reported writes what trainers say of their variants' outputs.
func (c *comment) reported(made []plan.ModelVariant) {
	for _, v := range made {
		if p, ok := v.Made.Result.ReportedParity(); ok {
			c.printf("The trainer compared the outputs of %s on %s: cosine at least %s; largest difference %s.\n\n",
				v.Variant, delivery.Count(p.Images, "image"), outputs(p.Cosine), outputs(p.Largest))
		}
	}
}

// outputs lists a figure of each output tensor.
func outputs(figures map[string]float64) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(figures)) {
		list = append(list, fmt.Sprintf("%s %.4g", name, figures[name]))
	}
	return strings.Join(list, ", ")
}

// measured writes one eval set's figures beside those of main's release.
func (c *comment) measured(e delivery.Measured) {
	heads := []any{delivery.Count(e.Images, "test image"), "value", "at least", "at most"}
	if e.Baseline != nil {
		heads = append(heads, fmt.Sprintf("version %d", e.Baseline.Version))
	}
	c.table(heads...)
	for _, name := range slices.SortedFunc(maps.Keys(e.Metrics), delivery.CompareFigures) {
		f := e.Metrics[name]
		cells := []any{name, number(f.Value), "", ""}
		if f.Low != nil && f.High != nil {
			cells[2], cells[3] = number(*f.Low), number(*f.High)
		}
		if e.Baseline != nil {
			cells = append(cells, "")
			if base, ok := e.Baseline.Metrics[name]; ok {
				cells[4] = number(base)
			}
		}
		c.row(cells...)
	}
	c.printf("\nEach bound is one-sided and 95 %% sure. The table of checks has the bounds of the other figures.\n\n")
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
