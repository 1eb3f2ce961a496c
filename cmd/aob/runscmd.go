package main

// This file lists, shows and ends experiments.

import (
	"bytes"
	"cmp"
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
		Short: "List, show and end experiments",
		Long: `Runs lists the experiments that aob try asked for, the newest first. They are kept
for two weeks; what they trained is kept longer. With -o csv there is a row for each
variant, for a spreadsheet. The runs of pull requests are no experiments: aob status
and aob pr show N show them.`,
		Example: "  aob runs\n  aob runs --model shapes --sort mAP\n  aob runs -o csv >runs.csv\n  aob runs show " +
			"0a1b2c3d4e\n  aob runs write 3f9c2a10ab models/shapes.yaml\n  " +
			"aob runs stop 0a1b2c3d4e",
	}
	group(c)
	listsTrials(c) // without a command it lists
	c.AddCommand(listsTrials(&cobra.Command{
		Use:     "list",
		Short:   "List the experiments",
		Example: "  aob runs list\n  aob runs list --sort diff\n  aob runs list -o json | jq -r '.[].id'",
	}), newRunsShowCommand(), newRunsWriteCommand(), newRunsStopCommand())
	return c
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
		if f := of(v); f != nil {
			value = max(value, f.Value)
		}
	}
	return value
}

// listsTrials completes a command that lists experiments.
func listsTrials(c *cobra.Command) *cobra.Command {
	var o client
	var model, by string
	c.RunE = func(c *cobra.Command, _ []string) error {
		before, ok := sortsOf[by]
		if !ok {
			return hinted{fmt.Errorf("--sort: want %s, got %q", strings.Join(slices.Sorted(maps.Keys(sortsOf)), ", "),
				by),
				c.CommandPath() + " --help shows how"}
		}
		trials, err := o.dial().Trials(c.Context())
		if err != nil {
			return err
		}
		trials = slices.DeleteFunc(trials, func(t web.Trial) bool { return model != "" && t.Model != model })
		slices.SortStableFunc(trials, before)
		if o.format == "csv" {
			return writeTrials(delivery.LogWriter{W: c.OutOrStdout()}, trials)
		}
		return o.print(c.OutOrStdout(), trials, func(t *terminal) { t.trials(trials, time.Now()) })
	}
	o.output.register(c, "csv")
	o.registerSocket(c)
	c.Flags().StringVar(&model, "model", "", "only the experiments of this `model`")
	c.Flags().StringVar(&by, "sort", "asked", "the `order`: asked (newest first), mAP or diff (best variant first)")
	return c
}

// writeTrials writes a row for each variant of experiments.
func writeTrials(w io.Writer, trials []web.Trial) error {
	rows := [][]string{{"experiment", "model", "asked", "by", "variant", "set", "state", "text", "mAP", "mAP at least",
		"mAP at most", "diff", "diff at least", "diff at most", "seeds", "bundle"}}
	for _, t := range trials {
		for _, v := range t.Variants {
			row := []string{t.ID, t.Model, t.At.UTC().Format(time.RFC3339), t.By, v.ID, strings.Join(v.Set, " "),
				string(v.State), v.Text}
			for i, text := range row {
				row[i] = spreadsheetText(text)
			}
			row = append(row, figures(v.MAP)...)
			row = append(row, figures(v.Diff)...)
			rows = append(rows, append(row, strconv.Itoa(len(v.Seeds)), string(v.Bundle)))
		}
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

// spreadsheetText returns text that no spreadsheet takes for a formula.
func spreadsheetText(s string) string {
	return formula.ReplaceAllStringFunc(delivery.Terminal(s), func(found string) string {
		if after, ok := strings.CutPrefix(found, ";"); ok {
			return ";'" + after
		}
		return "'" + found
	})
}

func (t *terminal) trials(trials []web.Trial, now time.Time) {
	if len(trials) == 0 {
		t.printf("no experiment; aob try --help shows how to begin one. aob status shows the runs of pull requests.\n")
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
