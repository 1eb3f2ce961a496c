package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/web"
)

// What people name in an experiment is text in a spreadsheet, and numbers are numbers.
func TestExportedRunsHoldNoFormula(t *testing.T) {
	low := -0.04
	training := web.Training{Trial: "0a1b", Model: "shapes", By: "=cmd|' /C calc'!A0", ID: "3f9c", Title: "=1+1",
		Set:      []string{"+train.args.x=1", "note=a;=HYPERLINK(1)", "b; ＝2"},
		Sentence: web.Sentence{Text: "@SUM(A1)\x1b[2J, \"quoted\"\nline"},
		Diff:     &delivery.Figure{Value: -0.01, Low: &low}}
	var b strings.Builder
	if err := writeTrainings(&b, []web.Training{training}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines: %s", len(lines), b.String())
	}
	for _, want := range []string{",'=cmd|", ",'+train.args.x=1 ", "a;'=HYPERLINK(1)", "b;' ＝2",
		`"'@SUM(A1)`, `""quoted""`, ",'=1+1,", ",,,,-0.01,-0.04,,0,"} {
		if !strings.Contains(lines[1], want) {
			t.Errorf("no %s in %q", want, lines[1])
		}
	}
	if strings.ContainsRune(lines[1], '\x1b') {
		t.Errorf("an escape is left in %q", lines[1])
	}
}

// Experiments are sorted by their best variant; one without the figure comes last.
func TestSortedRuns(t *testing.T) {
	of := func(id string, mAP ...float64) web.Trial {
		t := web.Trial{ID: id, Variants: []web.Variant{{}}}
		for _, v := range mAP {
			t.Variants = append(t.Variants, web.Variant{MAP: &delivery.Figure{Value: v}})
		}
		return t
	}
	list := []web.Trial{of("none"), of("low", 0.1), of("best", 0, 0.5), of("middle", 0.3, 0.2)}
	slices.SortStableFunc(list, sortsOf["mAP"])
	var ids []string
	for _, trial := range list {
		ids = append(ids, trial.ID)
	}
	if got := strings.Join(ids, " "); got != "best middle low none" {
		t.Errorf("sorted: %s", got)
	}
}

// Trainings of experiments, pull requests and releases are one table, which each figure sorts and which fits.
func TestTrainingsOfAllKinds(t *testing.T) {
	list, err := newShop().Trainings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for by, want := range map[string]string{"asked": "77d0c1e2f3 3f9c2a10ab #4 #3 shapes@2",
		"mAP": "3f9c2a10ab 77d0c1e2f3 #4 #3 shapes@2", "diff": "3f9c2a10ab 77d0c1e2f3 #4 #3 shapes@2",
		"gate": "shapes@2 #4 77d0c1e2f3 3f9c2a10ab #3"} {
		sorted := slices.Clone(list)
		slices.SortStableFunc(sorted, web.TrainingSorts[by])
		if got := strings.Join(delivery.Each(sorted, func(r web.Training) string { return r.ID }), " "); got != want {
			t.Errorf("by %s: %s, want %s", by, got, want)
		}
	}
	text := drawn(t, 80, false, func(t *terminal) { t.trainings(list, noon.Add(time.Hour)) })
	for line := range strings.Lines(text) {
		if n := columns(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, want := range []string{"#4 ", "shapes@2 ", "try 3f9c2a10ab", "train.epochs=8"} {
		if !strings.Contains(text, want) {
			t.Errorf("want %q in\n%s", want, text)
		}
	}
}
