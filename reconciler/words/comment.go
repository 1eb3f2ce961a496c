package words

// This file writes the one comment that a pull request gets, in Markdown.

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/autonomos/aob/reconciler/code"
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
		c.approval(pr)
		for _, who := range pr.Refused {
			c.printf("- %s has no write permission here, so that comment does not count.\n", who)
		}
		if len(pr.Refused) > 0 {
			c.printf("\n")
		}
	case slices.ContainsFunc(check.Facts, heldByCost):
		c.printf("### AOB: a training does not start\n\n%s.\n\n", capital(Join(check.Facts)))
	default:
		c.printf("### AOB: %s\n\n", stateTitle(check.State))
		if len(pr.Models) > 0 && !pr.PR.Fork {
			c.printf("When every gate has passed, AOB pushes one more commit to this branch, with the release. " +
				"Approve after that commit: a forge that dismisses stale approvals would drop an earlier one.\n\n")
		}
	}
}

// heldByCost reports whether a fact says that a training does not start for what it costs, whoever agrees to it.
func heldByCost(f delivery.Fact) bool {
	switch f.Code {
	case code.CostNoAccount, code.CostNotListed, code.CostUnknown, code.CostOverDay, code.CostOverMonth,
		code.CostLedger:
		return true
	}
	return slices.ContainsFunc(f.Facts, heldByCost)
}

// approval says what does not start before somebody allows it, and why.
func (c *comment) approval(pr plan.ProposalReport) {
	why := "Its author has no write permission here"
	if !slices.ContainsFunc(pr.ApprovalCommands, func(command string) bool {
		return pr.Cost(command).Code != code.CostQuote
	}) {
		why = "Its training costs money"
	}
	c.printf("### AOB: needs approval\n\n%s, so nothing runs before somebody with write permission allows it:\n\n"+
		"1. Comment `%s`.\n2. If AOB then asks for confirmation in a comment of its own, react to that comment with "+
		"👍. It asks where others can edit your comment: nobody else can make your reaction.\n\n", why,
		markdown(strings.Join(pr.ApprovalCommands, "`, and `")))
	for _, command := range pr.ApprovalCommands {
		if cost := pr.Cost(command); cost.Code == code.CostQuote {
			c.printf("- `%s`: %s %s.\n", markdown(command), cost.Model, cost)
		}
	}
	c.printf("\n")
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

// AdoptCommand is the command that adopts what AOB has seen of a fork's pull request.
func AdoptCommand(pr delivery.PullRequest) string {
	return fmt.Sprintf("aob pr adopt %d --head %.10s", pr.Number, pr.Head)
}

// AdoptedText is the title and the description of a pull request that brings a fork's into the repository.
func AdoptedText(pr delivery.PullRequest) (title, body string) {
	return delivery.CommitText(pr.Title), fmt.Sprintf("Adopted from #%d by %s.", pr.Number,
		delivery.Markdown(pr.Author))
}
