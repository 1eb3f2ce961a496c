package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/web"
)

// What people name in an experiment is text in a spreadsheet, and numbers are numbers.
func TestExportedRunsHoldNoFormula(t *testing.T) {
	low := -0.04
	trial := web.Trial{ID: "0a1b", Model: "shapes", By: "=cmd|' /C calc'!A0", Variants: []web.Variant{{ID: "3f9c",
		Set:      []string{"+train.args.x=1", "note=a;=HYPERLINK(1)", "b; ＝2"},
		Sentence: web.Sentence{Text: "@SUM(A1)\x1b[2J, \"quoted\"\nline"},
		Diff:     &delivery.Figure{Value: -0.01, Low: &low}}}}
	var b strings.Builder
	if err := writeTrials(&b, []web.Trial{trial}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines: %s", len(lines), b.String())
	}
	for _, want := range []string{",'=cmd|", ",'+train.args.x=1 ", "a;'=HYPERLINK(1)", "b;' ＝2",
		`"'@SUM(A1)`, `""quoted""`, ",,,,-0.01,-0.04,,0,"} {
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
