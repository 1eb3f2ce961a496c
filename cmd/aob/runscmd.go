package main

// This file lists, shows and ends experiments.

import (
	"bytes"
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/web"
)

func newRunsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "runs",
		Short: "List what was trained; show and end experiments",
		Long: `Runs lists what was trained, the newest first: the variants of experiments (FROM is try
and the variant's ID), open pull requests (#12) and releases (pallets@3). These names are
those that aob compare takes. mAP is on the validation split, with the difference to
main's release there; beside it is that on the eval set of a gate. Experiments are kept
for two weeks. With -o csv there is a row for each, for a spreadsheet;
else --limit says how many are shown, and --after goes on.`,
		Example: "  aob runs\n  aob runs --model shapes --sort mAP\n  aob runs --from try\n  aob runs -o csv " +
			">runs.csv\n  aob runs show 0a1b2c3d4e\n  aob runs write 3f9c2a10ab models/shapes.yaml\n  " +
			"aob runs stop 0a1b2c3d4e",
	}
	group(c)
	listsTrainings(c) // without a command it lists
	c.AddCommand(listsTrials(&cobra.Command{
		Use:     "list",
		Short:   "List the experiments alone",
		Example: "  aob runs list\n  aob runs list --sort diff\n  aob runs list -o json | jq -r '.[].id'",
	}), newRunsShowCommand(), newRunsWriteCommand(), newRunsStopCommand())
	return c
}

// order returns the comparison that --sort names.
func order[T any](c *cobra.Command, sorts map[string]func(a, b T) int, by string) (func(a, b T) int, error) {
	before, ok := sorts[by]
	if !ok {
		known := strings.Join(slices.Sorted(maps.Keys(sorts)), ", ")
		return nil, hinted{fmt.Errorf("--sort: want %s, got %q", known, by),
			c.CommandPath() + " --help shows how"}
	}
	return before, nil
}

// kinds are the values of --from.
var kinds = []string{"try", "pr", "release"}

// listsTrainings completes the command that lists what was trained.
func listsTrainings(c *cobra.Command) {
	var o client
	var ask web.TrainingAsk
	c.RunE = func(c *cobra.Command, _ []string) error {
		if _, err := order(c, web.TrainingSorts, ask.Sort); err != nil {
			return err
		}
		if ask.From != "" && !slices.Contains(kinds, ask.From) {
			return hinted{fmt.Errorf("--from: want %s, got %q", strings.Join(kinds, ", "), ask.From),
				c.CommandPath() + " --help shows how"}
		}
		api := o.dial()
		if o.format == "csv" { // a spreadsheet takes all of them
			list, err := allTrainings(c.Context(), api, ask)
			if err != nil {
				return err
			}
			return writeTrainings(delivery.LogWriter{W: c.OutOrStdout()}, list)
		}
		v, err := api.TrainingList(c.Context(), ask)
		if err != nil {
			return err
		}
		return o.print(c.OutOrStdout(), v, func(t *terminal) {
			t.trainings(v.Trainings, time.Now())
			t.more(v.More, v.Next)
		})
	}
	o.output.register(c, "csv")
	o.registerSocket(c)
	registerPage(c, &ask.Page)
	c.Flags().BoolVar(&ask.Full, "full", false, "with the facts of all texts")
	c.Flags().StringVar(&ask.Model, "model", "", "only those of this `model`")
	c.Flags().StringVar(&ask.From, "from", "", "only those of one `kind`: "+strings.Join(kinds, ", "))
	c.Flags().StringVar(&ask.Sort, "sort", "asked", "the `order`: asked (newest first), or the highest first of mAP "+
		"and diff (on validation) or gate (the gate's mAP)")
}

// allTrainings reads all pages.
func allTrainings(ctx context.Context, api *web.Client, ask web.TrainingAsk) ([]web.Training, error) {
	var all []web.Training
	for ask.Limit = web.MaxLimit; ; {
		v, err := api.TrainingList(ctx, ask)
		if all = append(all, v.Trainings...); err != nil || v.Next == "" {
			return all, err
		}
		ask.After = v.Next
	}
}

// sortsOf are the ways to sort experiments. Each returns whether a comes before b.
var sortsOf = map[string]func(a, b web.Trial) int{
	"asked": func(a, b web.Trial) int { return b.At.Compare(a.At) },
	"mAP": func(a, b web.Trial) int {
		return cmp.Compare(best(b, func(v web.Variant) *delivery.Figure { return v.MAP }),
			best(a, func(v web.Variant) *delivery.Figure { return v.MAP }))
	},
	"diff": func(a, b web.Trial) int {
		return cmp.Compare(best(b, func(v web.Variant) *delivery.Figure { return v.Diff }),
			best(a, func(v web.Variant) *delivery.Figure { return v.Diff }))
	},
}

// best returns the highest value of a figure among an experiment's variants; one without it comes last.
func best(t web.Trial, of func(web.Variant) *delivery.Figure) float64 {
	value := math.Inf(-1)
	for _, v := range t.Variants {
		value = max(value, web.ValueOf(of(v)))
	}
	return value
}

// listsTrials completes the command that lists experiments.
func listsTrials(c *cobra.Command) *cobra.Command {
	var o client
	var model, by string
	c.RunE = func(c *cobra.Command, _ []string) error {
		before, err := order(c, sortsOf, by)
		if err != nil {
			return err
		}
		trials, err := o.dial().Trials(c.Context())
		if err != nil {
			return err
		}
		trials = slices.DeleteFunc(trials, func(t web.Trial) bool { return model != "" && t.Model != model })
		slices.SortStableFunc(trials, before)
		if o.format == "csv" {
			var list []web.Training
			for _, t := range trials {
				for _, v := range t.Variants {
					list = append(list, web.Training{ID: v.ID, From: "try", Trial: t.ID, Model: t.Model,
						Title: t.Note, Set: v.Set, By: t.By, At: t.At, State: v.State, Sentence: v.Sentence,
						Bundle: v.Bundle, Seeds: v.Seeds, MAP: v.MAP, Diff: v.Diff})
				}
			}
			return writeTrainings(delivery.LogWriter{W: c.OutOrStdout()}, list)
		}
		return o.print(c.OutOrStdout(), trials, func(t *terminal) { t.trials(trials, time.Now()) })
	}
	o.output.register(c, "csv")
	o.registerSocket(c)
	c.Flags().StringVar(&model, "model", "", "only the experiments of this `model`")
	c.Flags().StringVar(&by, "sort", "asked", "the `order`: asked (newest first), mAP or diff (best variant first)")
	return c
}

// writeTrainings writes a row for each training. The columns of experiments come first, as they always did.
func writeTrainings(w io.Writer, list []web.Training) error {
	rows := [][]string{{"experiment", "model", "asked", "by", "variant", "set", "state", "text", "mAP", "mAP at least",
		"mAP at most", "diff", "diff at least", "diff at most", "seeds", "bundle", "from", "title", "gate", "gate mAP",
		"gate mAP at least", "gate mAP at most", "gate diff"}}
	for _, t := range list {
		asked, variant := "", ""
		if !t.At.IsZero() {
			asked = t.At.UTC().Format(time.RFC3339)
		}
		if t.Trial != "" {
			variant = t.ID
		}
		row := spreadsheet(t.Trial, t.Model, asked, t.By, variant, strings.Join(t.Set, " "), string(t.State), t.Text)
		row = append(row, figures(t.MAP)...)
		row = append(row, figures(t.Diff)...)
		row = append(row, strconv.Itoa(len(t.Seeds)), string(t.Bundle))
		row = append(row, spreadsheet(t.From, t.Title, t.Gate)...)
		row = append(row, figures(t.GateMAP)...)
		diff := ""
		if t.GateDiff != nil {
			diff = strconv.FormatFloat(*t.GateDiff, 'g', -1, 64)
		}
		rows = append(rows, append(row, diff))
	}
	var b bytes.Buffer
	out := csv.NewWriter(&b)
	if err := out.WriteAll(rows); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

// figures returns a figure with its bounds, as numbers.
func figures(f *delivery.Figure) []string {
	row := make([]string, 3)
	if f == nil {
		return row
	}
	for i, v := range []*float64{&f.Value, f.Low, f.High} {
		if v != nil {
			row[i] = strconv.FormatFloat(*v, 'g', -1, 64)
		}
	}
	return row
}

// formula matches what begins a formula in a spreadsheet: at the start of a text, or after a semicolon, which divides
// columns where a comma is a decimal point. Some read the wide forms of the signs too.
var formula = regexp.MustCompile(`(^|;)\s*[=+\-@＝＋－＠]`)

// spreadsheet returns texts that no spreadsheet takes for formulas.
func spreadsheet(texts ...string) []string { return delivery.Each(texts, spreadsheetText) }

// spreadsheetText returns text that no spreadsheet takes for a formula.
func spreadsheetText(s string) string {
	return formula.ReplaceAllStringFunc(delivery.Terminal(s), func(found string) string {
		if after, ok := strings.CutPrefix(found, ";"); ok {
			return ";'" + after
		}
		return "'" + found
	})
}

// trainings lists what was trained.
func (t *terminal) trainings(list []web.Training, now time.Time) {
	if len(list) == 0 {
		t.printf("nothing was trained yet; a pull request with a model or aob try begins that\n")
		return
	}
	figure := func(format string, f *delivery.Figure) cell {
		if f == nil {
			return cell{text: "-"}
		}
		return cell{text: fmt.Sprintf(format, f.Value)}
	}
	rows := [][]cell{heading("FROM", "MODEL", "mAP", "DIFF", "GATE", "DIFF", "SEEDS", "AGE", "STATE", "")}
	for _, r := range list {
		from, what, age := r.From, r.Title, "-"
		if r.Trial != "" {
			from, what = r.From+" "+r.ID, strings.Join(append(slices.Clone(r.Set), r.Title), "  ")
		}
		if !r.At.IsZero() {
			age = span(now.Sub(r.At))
		}
		if r.State != delivery.CheckSuccess {
			what = r.Text
		}
		change := cell{text: "-"}
		if r.GateDiff != nil {
			change.text = fmt.Sprintf("%+.4f", *r.GateDiff)
		}
		rows = append(rows, []cell{{text: from}, {text: r.Model}, figure("%.4f", r.MAP), figure("%+.4f", r.Diff),
			figure("%.4f", r.GateMAP), change, {text: strconv.Itoa(len(r.Seeds))}, {text: age},
			{string(r.State), stateStyle(r.State)}, {text: what}})
	}
	t.tableWithTexts(rows, false)
	t.paragraph("", "mAP is on the validation split, GATE on a gate's eval set, DIFF to the release. aob compare "+
		"takes the names under FROM, without try.")
}

func (t *terminal) trials(trials []web.Trial, now time.Time) {
	if len(trials) == 0 {
		t.printf("no experiment; aob try --help shows how to begin one. aob runs lists the other trainings.\n")
		return
	}
	rows := [][]cell{heading("EXPERIMENT", "MODEL", "ASKED", "BY", "VARIANTS", "BEST mAP", "STATE")}
	for _, trial := range trials {
		best := ""
		if v, ok := bestVariant(trial); ok {
			best = fmt.Sprintf("%.4f", v.MAP.Value)
		}
		rows = append(rows, []cell{{text: trial.ID}, {text: trial.Model}, {text: ago(trial.At, now)}, {text: trial.By},
			{text: fmt.Sprint(len(trial.Variants))}, {text: best}, {text: trial.Text, style: stateStyle(trial.State)}})
	}
	t.table("", rows)
}

func newRunsShowCommand() *cobra.Command {
	return query(&cobra.Command{
		Use:     "show ID",
		Short:   "Show an experiment",
		Example: "  aob runs show 0a1b2c3d4e",
	}, func(c *cobra.Command, api *web.Client, args []string) (any, func(*terminal), error) {
		trial, err := api.Trial(c.Context(), args[0])
		return trial, func(t *terminal) { t.trial(trial, time.Now()) }, err
	})
}

func newRunsWriteCommand() *cobra.Command {
	return query(&cobra.Command{
		Use:   "write VARIANT FILE",
		Short: "Write a variant's values into a model's file",
		Long: `Write changes only the values that the variant sets: comments and order stay. A
pull request with the file then finds what the experiment trained.`,
		Example: "  aob runs write 3f9c2a10ab models/shapes.yaml",
	}, func(c *cobra.Command, api *web.Client, args []string) (any, func(*terminal), error) {
		trials, err := api.Trials(c.Context())
		if err != nil {
			return nil, nil, err
		}
		for _, t := range trials {
			for _, v := range t.Variants {
				if len(args[0]) < 4 || !strings.HasPrefix(v.ID, args[0]) {
					continue
				}
				return v, func(t *terminal) {
					t.printf("wrote %s into %s\n", strings.Join(v.Set, " "), args[1])
				}, writeVariant(args[1], v)
			}
		}
		return nil, nil, hinted{fmt.Errorf("there is no variant %q", args[0]), "aob runs show EXPERIMENT lists them"}
	})
}

func newRunsStopCommand() *cobra.Command {
	return query(&cobra.Command{
		Use:   "stop ID",
		Short: "End an experiment",
		Long: `Stop ends what an experiment trains and forgets it. What is trained already stays:
the same aob try finds it.`,
		Example: "  aob runs stop 0a1b2c3d4e",
	}, func(c *cobra.Command, api *web.Client, args []string) (any, func(*terminal), error) {
		return map[string]string{"stopped": args[0]}, func(t *terminal) { t.printf("stopped %s\n", args[0]) },
			api.EndTrial(c.Context(), args[0])
	})
}
