package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/web"
)

func newTryCommand() *cobra.Command {
	var o client
	var sets []string
	var write, detach bool
	var note string
	c := &cobra.Command{
		Use:   "try FILE",
		Short: "Train variants of a model without a branch, judged on validation alone",
		Long: `Try trains a model's file in every combination of the values that are set, and
shows how each does on the validation split. No gate's eval set is opened for it.
What it trains a pull request with the same values finds: it trains nothing again.
Other number formats (variants: in the file) are made and judged there, not here.

It can be interrupted at any time: the server goes on, and the same command shows
how far it is and finishes only the rest. aob runs stop ID ends it.`,
		Example: `  aob try models/shapes.yaml --set train.optimizer.lr=1e-3,2e-3 --set train.epochs=4,8
  aob try models/shapes.yaml --set train.epochs=4,8 --set train.seeds=1,2,3
  aob try models/shapes.yaml --set train.epochs=4,8 --write   # the best one's values into the file`,
		RunE: func(c *cobra.Command, args []string) error {
			if write && detach {
				return hinted{errors.New("--write and --detach cannot be used together: --write waits for the best"),
					"leave one out; aob runs write VARIANT " + args[0] + " writes later"}
			}
			data, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			grid, err := intent.Grid(sets)
			if err != nil {
				return hinted{fmt.Errorf("--set: %w", err), c.CommandPath() + " --help shows how"}
			}
			request := web.TrialRequest{File: "models/" + filepath.Base(args[0]), Note: note}
			for _, row := range grid {
				text, err := intent.Set(data, row)
				if err != nil {
					return fmt.Errorf("--set %w", err)
				}
				v := web.VariantRequest{Text: string(text), Set: []string{}}
				for _, a := range row {
					v.Set = append(v.Set, a.String())
				}
				request.Variants = append(request.Variants, v)
			}
			api := o.dial()
			t, err := api.Try(c.Context(), request)
			if err != nil {
				return err
			}
			printMessage(c.ErrOrStderr(), "%s", quote(t))
			if len(t.NotMade) > 0 {
				printMessage(c.ErrOrStderr(), "%s: not made in experiments, which train FP32; a pull request makes "+
					"and judges them", strings.Join(t.NotMade, ", "))
			}
			if !detach {
				again := "aob try " + args[0]
				for _, s := range sets {
					again += " --set '" + s + "'"
				}
				if t, err = follow(c.Context(), api, t, c.ErrOrStderr()); err != nil {
					return interrupted(err, t, again)
				}
			}
			best, ok := bestVariant(t)
			if write && !detach {
				if !ok || t.State == delivery.CheckPending {
					return hinted{errors.New("nothing is written: no variant is validated"), "aob runs show " + t.ID}
				}
				if err := writeVariant(args[0], best); err != nil {
					return err
				}
				printMessage(c.ErrOrStderr(), "wrote %s into %s", strings.Join(best.Set, " "), args[0])
			}
			if err := o.print(c.OutOrStdout(), t, func(p *terminal) { p.trial(t, time.Now()) }); err != nil {
				return err
			}
			if t.State == delivery.CheckFailure {
				return hinted{errors.New("a variant failed"), "aob runs show " + t.ID + " says which and why"}
			}
			return nil
		},
	}
	o.register(c)
	c.Flags().StringArrayVar(&sets, "set", nil,
		"`PATH=VALUE[,VALUE…]`: a value of the file, or several to try; may be given again")
	c.Flags().StringVar(&note, "note", "", "a `text` for people, as why it is tried; aob runs shows it")
	c.Flags().BoolVar(&write, "write", false, "write the best variant's values into FILE")
	c.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait for it")
	return c
}

// interrupted turns a canceled context into an error that says how to resume.
func interrupted(err error, t web.Trial, again string) error {
	if !errors.Is(err, context.Canceled) {
		return err
	}
	return hinted{errors.New("the server goes on with experiment " + t.ID), again +
		" looks at it again; aob runs stop " + t.ID + " ends it"}
}

// quote returns the number of trainings and the estimated time of an experiment.
func quote(t web.Trial) string {
	seeds := 0
	for _, v := range t.Variants {
		seeds = max(seeds, len(v.Seeds))
	}
	words := []string{fmt.Sprintf("experiment %s: %s", t.ID, delivery.Count(len(t.Variants), "variant"))}
	if seeds > 1 {
		words[0] += fmt.Sprintf(" x %d seeds", seeds)
	}
	words[0] += " = " + delivery.Count(t.Total, "training")
	if t.Known > 0 {
		words = append(words, fmt.Sprintf("%d of them done before", t.Known))
	}
	if t.AtOnce > 0 {
		words = append(words, fmt.Sprintf("%d at a time on the server itself, at no cost", t.AtOnce))
	}
	if t.SecondsLeft > 0 {
		words = append(words, "about "+span(time.Duration(t.SecondsLeft*float64(time.Second))))
	}
	return strings.Join(words, "; ")
}

// follow shows an experiment's progress until it has ended: on a terminal as a table that is redrawn, elsewhere as a
// line for each change.
func follow(ctx context.Context, api *web.Client, t web.Trial, w io.Writer) (web.Trial, error) {
	screen := newTerminal(w)
	_, own := shared(t.Variants)
	drawn := 0
	written := map[string]string{}
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		if screen.tty {
			if drawn > 0 {
				screen.printf("\x1b[%dA\x1b[J", drawn)
			}
			drawn = screen.progressTable(t)
		} else {
			for _, v := range t.Variants {
				for _, s := range v.Seeds {
					key := fmt.Sprintf("%s seed %d", v.ID, s.Seed)
					if line := settledText(s); line != "" && written[key] != line {
						written[key] = line
						screen.printf("[%d/%d] %s  %s  seed %d: %s\n", t.Trained, t.Total, v.ID, own(v), s.Seed, line)
					}
				}
			}
		}
		if err := screen.flush(); err != nil {
			return t, err
		}
		if t.State != delivery.CheckPending {
			if screen.tty && drawn > 0 {
				screen.printf("\x1b[%dA\x1b[J", drawn)
			}
			return t, screen.flush()
		}
		select {
		case <-ctx.Done():
			return t, ctx.Err()
		case <-tick.C:
		}
		next, err := api.Trial(ctx, t.ID)
		if e, ok := errors.AsType[*web.Error](err); ok && (e.RetryAfter > 0 || e.Code == 502) {
			continue // the server is restarting
		}
		if err != nil {
			return t, err
		}
		t = next
	}
}

// settledText returns the text of a training that has begun or ended, else "".
func settledText(s web.Seed) string {
	switch {
	case s.MAP != nil:
		return fmt.Sprintf("mAP %.4f on validation", *s.MAP)
	case s.Bundle != "":
		return "trained"
	case s.State == delivery.CheckPending && strings.HasPrefix(s.Text, "epoch"):
		return "training"
	case s.State == delivery.CheckPending:
		return ""
	}
	return s.Text
}

// progressTable draws an experiment's progress and returns the number of lines.
func (t *terminal) progressTable(trial web.Trial) int {
	rows := [][]cell{}
	_, own := shared(trial.Variants)
	for _, v := range trial.Variants {
		words := delivery.Each(v.Seeds, func(s web.Seed) string {
			return strings.TrimSpace(cmp.Or(settledText(s), s.Text))
		})
		text := v.Text
		if len(v.Seeds) > 0 {
			text = strings.Join(words, " | ")
		}
		rows = append(rows, []cell{{text: v.ID}, {text: own(v)}, {text: text, style: stateStyle(v.State)}})
	}
	if limit := t.lines - 3; t.lines > 0 && len(rows) > limit && limit > 0 {
		rows = rows[:limit]
	}
	line := bar(float64(trial.Trained)/float64(max(1, trial.Total)), 20) + " " + trial.Text
	if trial.SecondsLeft > 0 {
		line += ", about " + span(time.Duration(trial.SecondsLeft*float64(time.Second))) + " left"
	}
	t.printf("%s\n", cut(line, t.width))
	t.table("  ", rows)
	return len(rows) + 1
}

// trial prints an experiment, the best variant first, and what can be done now.
func (t *terminal) trial(trial web.Trial, now time.Time) {
	t.printf("%s  %s  %s\n", t.styled(bold, "experiment "+trial.ID), trial.Model, t.styled(stateStyle(trial.State),
		trial.Text))
	head := []string{"VARIANT", "mAP"}
	seeds, diffs := false, false
	for _, v := range trial.Variants {
		seeds = seeds || len(v.Seeds) > 1
		diffs = diffs || v.Diff != nil
	}
	if seeds {
		head = append(head, "SEEDS")
	}
	if diffs {
		head = append(head, fmt.Sprintf("TO VERSION %d", trial.Release.Version))
	}
	rows := [][]cell{heading(append(head, "SET")...)}
	all, own := shared(trial.Variants)
	for _, v := range ranked(trial.Variants) {
		row := cells(v.ID)
		set := cmp.Or(own(v), "as it is")
		if v.MAP == nil {
			rows = append(rows, append(row, slices.Concat(make([]cell, len(head)-1),
				[]cell{{text: set + ": " + v.Text, style: stateStyle(v.State)}})...))
			continue
		}
		row = append(row, cell{text: atLeast("%.4f", *v.MAP)})
		if seeds {
			row = append(row, cell{text: seedSpread(v.Seeds)})
		}
		if diffs {
			text := ""
			if v.Diff != nil {
				text = atLeast("%+.4f", *v.Diff)
			}
			row = append(row, cell{text: text})
		}
		rows = append(rows, append(row, cell{text: set}))
	}
	if trial.Note != "" {
		t.paragraph("", "note: "+trial.Note)
	}
	if len(all) > 0 {
		t.paragraph("", "all with "+strings.Join(all, " "))
	}
	if !t.fits("  ", rows) { // figures uncut, with the settings below
		var figures, sets [][]cell
		for i, row := range rows {
			figures = append(figures, row[:len(row)-1])
			if i > 0 {
				sets = append(sets, []cell{row[0], row[len(row)-1]})
			}
		}
		t.table("  ", figures)
		t.printf("\n")
		t.table("  ", sets)
	} else {
		t.table("  ", rows)
	}
	for _, v := range trial.Variants {
		for _, s := range v.Seeds {
			if s.State == delivery.CheckFailure || s.State == delivery.CheckError {
				t.paragraph("", fmt.Sprintf("%s seed %d: %s", v.ID, s.Seed, s.Text))
			}
		}
		if len(v.Seeds) == 0 && (v.State == delivery.CheckFailure || v.State == delivery.CheckError) {
			t.paragraph("", v.ID+": "+v.Text)
		}
	}
	t.paragraph("", "On the validation split. Each bound is one-sided and 95 % sure; it covers the choice of images "+
		"and not the noise of training. The best of many looks better than it is.")
	best, ok := bestVariant(trial)
	if !ok {
		return
	}
	if trial.State == delivery.CheckPending {
		t.printf("\nbest so far: %s  %s\n", t.styled(bold, best.ID), cmp.Or(own(best), "as it is"))
		return
	}
	t.printf("\nbest: %s  %s\n", t.styled(bold, best.ID), cmp.Or(own(best), "as it is"))
	if list := ranked(trial.Variants); len(list) > 1 && list[1].MAP != nil {
		t.printf("aob compare %s %s   whether it is better than the second\n", best.ID, list[1].ID)
	}
	t.printf("aob runs write %s FILE         its values into the file; its PR trains nothing\n", best.ID)
}

// shared returns the settings of all variants, and a function that returns the other settings of a variant. Those are
// shortened to the last part of their path if that is unambiguous: channels=12.
func shared(variants []web.Variant) (all []string, own func(web.Variant) string) {
	if len(variants) > 1 {
		for _, set := range variants[0].Set {
			if !slices.ContainsFunc(variants, func(v web.Variant) bool { return !slices.Contains(v.Set, set) }) {
				all = append(all, set)
			}
		}
	}
	paths := map[string]map[string]bool{} // by last word
	last := func(set string) (path, word string) {
		path, _, _ = strings.Cut(set, "=")
		return path, path[strings.LastIndex(path, ".")+1:]
	}
	for _, v := range variants {
		for _, set := range v.Set {
			path, word := last(set)
			if paths[word] == nil {
				paths[word] = map[string]bool{}
			}
			paths[word][path] = true
		}
	}
	return all, func(v web.Variant) string {
		var words []string
		for _, set := range v.Set {
			if slices.Contains(all, set) {
				continue
			}
			if path, word := last(set); len(paths[word]) == 1 {
				set = word + strings.TrimPrefix(set, path)
			}
			words = append(words, set)
		}
		return strings.Join(words, " ")
	}
}

// seedSpread returns the range of the mAP of a variant's seeds.
func seedSpread(seeds []web.Seed) string {
	var values []float64
	for _, s := range seeds {
		if s.MAP != nil {
			values = append(values, *s.MAP)
		}
	}
	if len(values) < 2 {
		return ""
	}
	return fmt.Sprintf("%.3f-%.3f", slices.Min(values), slices.Max(values))
}

// atLeast prints a figure with its lower bound.
func atLeast(format string, f delivery.Figure) string {
	text := fmt.Sprintf(format, f.Value)
	if f.Low != nil {
		text += fmt.Sprintf(", at least "+format, *f.Low)
	}
	return text
}

// ranked puts the best variant first, and those without a figure last.
func ranked(variants []web.Variant) []web.Variant {
	list := slices.Clone(variants)
	value := func(v web.Variant) float64 {
		if v.MAP == nil {
			return -1
		}
		return v.MAP.Value
	}
	slices.SortStableFunc(list, func(a, b web.Variant) int { return cmp.Compare(value(b), value(a)) })
	return list
}

func bestVariant(t web.Trial) (web.Variant, bool) {
	list := ranked(t.Variants)
	if len(list) == 0 || list[0].MAP == nil {
		return web.Variant{}, false
	}
	return list[0], true
}

// writeVariant writes a variant's values into a model's file.
func writeVariant(path string, v web.Variant) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var assignments []intent.Assignment
	for _, s := range v.Set {
		key, value, _ := strings.Cut(s, "=")
		assignments = append(assignments, intent.Assignment{Path: key, Value: value})
	}
	text, err := intent.Set(data, assignments)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, text, 0o644)
}
