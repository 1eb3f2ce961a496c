package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/web"
	"github.com/autonomos/aob/reconciler/words"
)

func newPRCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "pr",
		Short: "List, show and merge pull requests",
		Long: `Pull requests as the server sees them. With the local forge every branch but main
is one; on a forge such as Gitea people merge and comment there.`,
		Example: "  aob pr list\n  aob pr show 12\n  aob pr merge 12",
	}
	group(c)
	c.AddCommand(newPRListCommand(), newPRShowCommand(), newPRMergeCommand(), newPRAdoptCommand(), newPRAskCommand(),
		newPRRecheckCommand())
	return c
}

func newPRListCommand() *cobra.Command {
	var ask web.PRAsk
	c := query(&cobra.Command{
		Use:   "list",
		Short: "List the open pull requests",
		Long: `List lists the open pull requests by number, without the facts of their texts. --limit
says how many; where there are more, next in the JSON is what --after takes.`,
		Example: "  aob pr list\n  aob pr list -o json | jq '.prs[] | select(.state == \"success\").number'",
	}, func(c *cobra.Command, api *web.Client, _ []string) (any, func(*terminal), error) {
		v, err := api.PRList(c.Context(), ask)
		return v, func(t *terminal) {
			t.prTable(v.PRs)
			t.more(v.More, v.Next)
		}, err
	})
	registerPage(c, &ask.Page)
	c.Flags().BoolVar(&ask.Full, "full", false, "with the facts of all texts")
	return c
}

// more says that a list goes on.
func (t *terminal) more(count int, next string) {
	if count > 0 {
		t.printf("… and %d more; --after %s shows them\n", count, shellQuoted(next))
	}
}

// shellQuoted returns a text as one word of a shell.
func shellQuoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// onPR completes a command whose first argument is the number of a pull request.
func onPR(c *cobra.Command, act func(ctx context.Context, api *web.Client, number int, args []string) (
	v any, text func(*terminal), err error)) *cobra.Command {
	return query(c, func(c *cobra.Command, api *web.Client, args []string) (any, func(*terminal), error) {
		number, err := numberOf(args[0])
		if err != nil {
			return nil, nil, err
		}
		return act(c.Context(), api, number, args[1:])
	})
}

func newPRShowCommand() *cobra.Command {
	return onPR(&cobra.Command{
		Use:     "show N",
		Short:   "Show a pull request's checks, figures, verdicts and runs",
		Example: "  aob pr show 12",
	}, func(ctx context.Context, api *web.Client, number int, _ []string) (any, func(*terminal), error) {
		pr, err := api.PR(ctx, number)
		return pr, func(t *terminal) { t.pr(pr, time.Now()) }, err
	})
}

// onReviewed completes a command that acts on a reviewed commit of a pull request: the one of the flag --head, or else
// the current head.
func onReviewed(c *cobra.Command, act func(ctx context.Context, api *web.Client, number int, head string) (
	v any, text func(*terminal), err error)) *cobra.Command {
	head := c.Flags().String("head", "", "the reviewed `commit`, at least 7 digits of it")
	return onPR(c, func(ctx context.Context, api *web.Client, number int, _ []string) (any, func(*terminal), error) {
		if c.Flags().Changed("head") {
			if !commitDigits.MatchString(*head) {
				return nil, nil, hinted{fmt.Errorf("--head: want at least 7 digits of a commit, got %q", *head),
					fmt.Sprintf("aob pr show %d shows the head", number)}
			}
			return act(ctx, api, number, *head)
		}
		pr, err := api.PR(ctx, number)
		if err != nil {
			return nil, nil, err
		}
		return act(ctx, api, number, pr.Head)
	})
}

// commitDigits matches a commit's hash or at least 7 digits of it.
var commitDigits = regexp.MustCompile(`^[0-9a-f]{7,64}$`)

func newPRMergeCommand() *cobra.Command {
	return onReviewed(&cobra.Command{
		Use:   "merge N",
		Short: "Merge a pull request of the local forge",
		Long: `Merge moves main to a pull request of the local forge, if aob/release has passed
on its head and nothing was merged since it began. On a forge such as Gitea,
merge there: aob/release is the check that branch protection requires.

Merge merges the commit that --head names, or else the current head. If the head
changes meanwhile, the merge is refused. The merge is in the name of the user that
runs the command.`,
		Example: "  aob pr merge 12\n  aob pr merge 12 --head 4f1c09d2a3",
	}, func(ctx context.Context, api *web.Client, number int, head string) (any, func(*terminal), error) {
		printMessage(os.Stderr, "merging #%d …", number)
		commit, err := api.Merge(ctx, number, head, "")
		return map[string]any{"number": number, "head": head, "commit": commit}, func(t *terminal) {
			t.printf("merged #%d: main is at %s\n", number, short(commit))
		}, err
	})
}

func newPRAdoptCommand() *cobra.Command {
	return onReviewed(&cobra.Command{
		Use:   "adopt N",
		Short: "Bring a fork's pull request into the repository",
		Long: `Adopt opens a pull request with the same commits on a branch of the repository
itself. AOB cannot push the release commit to a fork's branch. Trainings start there
without further approval, so review the commits first.

Adopt uses the commit that --head names, or else the current head. If the head changes
meanwhile, adopt is refused. The author can push between your review and the command,
so name the commit that you reviewed.`,
		Example: "  aob pr adopt 12 --head 4f1c09d2a3",
	}, func(ctx context.Context, api *web.Client, number int, head string) (any, func(*terminal), error) {
		adopted, err := api.Adopt(ctx, number, head)
		return map[string]any{"number": adopted, "head": head}, func(t *terminal) {
			t.printf("#%d is adopted as #%d, at %s\n", number, adopted, short(head))
		}, err
	})
}

func newPRAskCommand() *cobra.Command {
	return onPR(&cobra.Command{
		Use:   "ask N TEXT...",
		Short: "Send a command on a pull request of the local forge: /aob run CODE or /aob accept CODE because …",
		Long: `Ask sends a command on a pull request of the local forge, as a comment does on other
forges. The pull request's checks show the possible commands. An invalid command is
refused with the reason. Its author is the user that runs aob; the user's groups count
as teams. It takes effect at once. On Gitea others can edit a comment, so there AOB
posts a question, and the author confirms the command with a 👍 on it.`,
		Example: "  aob pr ask 12 '/aob run 3f9c2a10'\n  aob pr ask 12 '/aob accept 0a1b2c3d4e5f60718293a4b5c6d7e8f9 " +
			"because the test set is small'",
	}, func(ctx context.Context, api *web.Client, number int, args []string) (any, func(*terminal), error) {
		// A command is one line, and a terminal that shows it may have broken it.
		text := strings.Join(strings.Fields(strings.Join(args, " ")), " ")
		return map[string]any{"number": number, "text": text}, func(t *terminal) {
			t.printf("sent on #%d: %s\n", number, text)
		}, api.Command(ctx, number, "", text)
	})
}

func newPRRecheckCommand() *cobra.Command {
	return onPR(&cobra.Command{
		Use:   "recheck N",
		Short: "Try again what has failed for a pull request",
		Long: `Recheck repeats the failed runs of a pull request and checks its dataset again.
Successful runs are not repeated.`,
		Example: "  aob pr recheck 12",
	}, func(ctx context.Context, api *web.Client, number int, _ []string) (any, func(*terminal), error) {
		return map[string]any{"number": number}, func(t *terminal) {
			t.printf("checking #%d again; aob pr show %d shows the result\n", number, number)
		}, api.Recheck(ctx, number)
	})
}

// pr prints one pull request.
func (t *terminal) pr(p web.PR, now time.Time) {
	t.printf("%s  %s\n", t.styled(bold, fmt.Sprintf("#%d %s", p.Number, p.Title)), t.styled(stateStyle(p.State),
		string(p.State)))
	from := p.HeadRef
	if p.Fork {
		from += " (a fork)"
	}
	if p.Draft {
		from += " (draft)"
	}
	if p.Merged {
		when := ""
		if !p.Updated.IsZero() {
			when = " on " + p.Updated.UTC().Format("2006-01-02 15:04 UTC")
		}
		t.paragraph("", fmt.Sprintf("merged into %s%s, by %s: %s", p.Base, when, p.Author, p.Text))
	} else if p.Head == "" {
		t.paragraph("", fmt.Sprintf("the commit of branch %s is not known", from))
	} else {
		t.paragraph("", fmt.Sprintf("%s wants to merge %s (%s) into %s", p.Author, from, short(p.Head), p.Base))
	}
	if p.URL != "" {
		t.printf("%s\n", p.URL)
	}
	if p.WaitsFor != "" {
		t.printf("waits for %s\n", p.WaitsFor)
	}
	t.printf("\n")
	for _, c := range p.Checks {
		t.printf("%s %s\n", t.styled(stateStyle(c.State), fmt.Sprintf("%-8s", c.State)), t.styled(bold, c.Context))
		t.paragraph("         ", c.Description)
	}
	for _, c := range p.Complaints {
		t.printf("%s\n", c.String()) // never wrapped: editors jump to it
	}
	for _, m := range p.Models {
		t.change(m)
	}
	if len(p.Gates) > 0 {
		t.printf("\nCurrent releases, judged by the changed gates\n")
		t.verdicts(p.Gates)
	}
	if len(p.Powers) > 0 {
		t.printf("\n")
	}
	t.powers(p.Powers)
	for i, line := range p.Fleets {
		if i == 0 {
			t.printf("\n")
		}
		t.paragraph("", "fleet "+line.Text)
	}
	t.runs(p.Runs, now)
}

// change prints one changed model.
func (t *terminal) change(m web.Change) {
	t.printf("\n%s", t.styled(bold, m.Model))
	if m.Bundle != "" {
		t.printf("  bundle %s", m.Bundle.Short())
	}
	t.printf("\n")
	if m.Trainer != nil {
		t.paragraph("", "another version of the trainer: "+m.Trainer.Text)
	}
	for _, e := range delivery.OneInterval(m.Measured, m.Verdicts) {
		t.measured(e, m.Verdicts)
	}
	t.verdicts(m.Verdicts)
	if len(m.Verdicts) > 0 {
		t.printf("\n")
		t.paragraph("", "Bounds cover the choice of test images, not the noise of training.")
	}
	for _, gate := range slices.Sorted(maps.Keys(m.Pictures)) {
		page := m.Pictures[gate]
		if strings.HasPrefix(page, "/") {
			page += " on the server's address (listen.url in its configuration makes it a link)"
		}
		t.paragraph("", fmt.Sprintf("the images that got worse, by gate %s: %s", gate, page))
	}
	for _, s := range m.Settle {
		t.paragraph("", s.Text)
	}
	if len(m.Seeds) > 1 {
		var words []string
		for _, s := range m.Seeds {
			word := fmt.Sprintf("seed %d: %s", s.Seed, s.State)
			if s.MAP != nil {
				word = fmt.Sprintf("seed %d: %.4f", s.Seed, *s.MAP)
			}
			words = append(words, word)
		}
		t.paragraph("", "mAP on validation, "+strings.Join(words, ", ")+"; the best ships")
	}
	if len(m.Points) > 0 {
		rows := [][]cell{heading("CLASS", "FROM SCORE", "PRECISION", "RECALL", "")}
		for _, class := range slices.Sorted(maps.Keys(m.Points)) {
			p := m.Points[class]
			rows = append(rows, cells(class, fmt.Sprintf("%.3g", p.Score), fmt.Sprintf("%.3f", p.Precision),
				fmt.Sprintf("%.3f", p.Recall), p.Note))
		}
		t.printf("\nthresholds, found on the validation split\n")
		t.table("  ", rows)
	}
	for i, f := range m.Findings {
		if i == 10 {
			t.printf("… and %d more findings\n", len(m.Findings)-i)
			break
		}
		for _, line := range f.Lines() {
			t.paragraph("", f.Level+": "+line)
		}
	}
}

// measured prints the figures on an eval set beside the release's.
func (t *terminal) measured(e delivery.Measured, verdicts []delivery.Verdict) {
	verdict, _ := delivery.Find(verdicts, func(v delivery.Verdict) bool { return v.Gate == e.Gate })
	head := []string{"METRIC", "VALUE", "AT LEAST", "AT MOST"}
	if e.Baseline != nil {
		head = append(head, fmt.Sprintf("VERSION %d", e.Baseline.Version), "CHANGE")
	}
	rows := [][]cell{heading(head...)}
	for _, name := range slices.SortedFunc(maps.Keys(e.Metrics), delivery.CompareFigures) {
		f := e.Metrics[name]
		low, high := "", ""
		if f.Low != nil && f.High != nil {
			low, high = fmt.Sprintf("%.4f", *f.Low), fmt.Sprintf("%.4f", *f.High)
		}
		row := cells(name, fmt.Sprintf("%.4f", f.Value), low, high)
		if e.Baseline != nil {
			if diff, ok := e.Change(name, verdict); ok {
				row = append(row, cells(fmt.Sprintf("%.4f", e.Baseline.Metrics[name]), fmt.Sprintf("%+.4f", diff))...)
			}
		}
		rows = append(rows, row)
	}
	t.printf("\ngate %s, %d images; each bound is one-sided and 95%% sure; a check's own bounds stand below\n", e.Gate,
		e.Images)
	t.table("  ", rows)
}

func (t *terminal) verdicts(verdicts []delivery.Verdict) {
	for _, v := range verdicts {
		t.printf("\ngate %s, %s: %s\n", v.Gate, v.Model, t.styled(outcomeStyle(v.Outcome), string(v.Outcome)))
		t.paragraph("  ", strings.Join(words.About(v), "; "))
		for _, c := range v.Checks {
			t.printf("  %s %s\n", t.styled(outcomeStyle(c.Outcome), fmt.Sprintf("%-14s", c.Outcome)),
				words.CheckName(c))
			t.paragraph("                 ", words.CheckText(c))
		}
		if len(v.Checks) == 0 {
			t.paragraph("  ", words.VerdictReason(v))
		}
		for _, l := range v.OtherLosses() {
			t.printf("  %s\n", t.styled(yellow, "worse than the release"))
			t.paragraph("                 ", words.Loss(l))
		}
	}
}

func outcomeStyle(o delivery.Outcome) style {
	styles := map[delivery.Outcome]style{delivery.Pass: green, delivery.Fail: red, delivery.Unsure: yellow}
	return cmp.Or(styles[o], faint)
}
