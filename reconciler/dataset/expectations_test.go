package dataset

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/venvtest"
)

// agree fails if the expectations that the tables do not meet are not those of the findings, or if a place of a finding
// is not among the rows.
func agree(t *testing.T, r delivery.DataResult, tables Tables) {
	t.Helper()
	severities := map[string]string{"critical": delivery.LevelError, "warning": delivery.LevelWarning}
	rows := map[string][]string{} // by level and rule
	for _, v := range tables.Judge() {
		table := tables[slices.IndexFunc(tables, func(t Table) bool { return t.Name == v.Table })]
		for _, i := range v.Unexpected {
			key := severities[v.Severity] + " " + v.Rule
			if v.Table == tableProblems { // of which the level is that of the finding
				key = table.Rows[i][table.column("level")].(string) + " " + v.Rule
			}
			rows[key] = append(rows[key], fmt.Sprint(table.Rows[i][0]))
		}
	}
	for _, f := range r.Findings {
		key := f.Level + " " + f.Code
		found := rows[key]
		if delete(rows, key); len(found) == 0 {
			t.Errorf("finding %s of %s: no row of a table is against it", key, f.Where)
		}
		switch f.Code {
		case "exif-orientation", "implausible-area", "class-balance", "duplicate-name", "site-leak":
			continue // one finding for many rows
		}
		for _, place := range append([]string{f.Where}, f.Places...) {
			if !slices.Contains(found, place) {
				t.Errorf("finding %s: place %s is not among the rows %q", key, place, found)
			}
		}
		for _, more := range f.More {
			if !slices.ContainsFunc(found, func(place string) bool { return strings.HasPrefix(more, place+": ") }) {
				t.Errorf("finding %s: %s is not among the rows %q", key, more, found)
			}
		}
	}
	for key, found := range rows {
		t.Errorf("rows %q are against %s, which is no finding", found, key)
	}
}

// writeReport writes what aob data check -o gx --tables writes.
func writeReport(t *testing.T, dir string, r delivery.DataResult, tables Tables) {
	t.Helper()
	data, err := tables.Validation("d", r.Content)
	if err := errors.Join(err, tables.Write(dir), os.WriteFile(filepath.Join(dir, "validation.json"), data,
		0o644)); err != nil {
		t.Fatal(err)
	}
}

// Great Expectations loads the validation results of damaged copies, and repeats each verdict and each row on the same
// tables. AOB_GX=all takes all copies; without it those are taken that fail an expectation which no other has failed.
func TestGreatExpectations(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	python := venvtest.Python(t, "great-expectations")
	root := t.TempDir()
	args := []string{"testdata/judge_tables.py"}
	failed := map[string]bool{}
	for i, d := range append(damages(t), damagedForms(t)...) {
		c := newCells(t)
		d.damage(c)
		r, tables := c.report()
		isNew := i == 0 || os.Getenv("AOB_GX") == "all"
		for _, f := range r.Findings {
			isNew = isNew || !failed[f.Level+f.Code]
			failed[f.Level+f.Code] = true
		}
		if !isNew {
			continue
		}
		args = append(args, filepath.Join(root, fmt.Sprintf("%03d", i)))
		writeReport(t, args[len(args)-1], r, tables)
	}
	for i, o := range oddDatasets() {
		r, tables := o.report(t)
		if len(o.want) > 0 {
			args = append(args, filepath.Join(root, fmt.Sprintf("odd-%03d", i)))
			writeReport(t, args[len(args)-1], r, tables)
		}
	}
	if len(args) < 31 {
		t.Fatalf("%d datasets", len(args)-1)
	}
	out, err := exec.Command(python, args...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"different": 0`) {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// The example of docs/datasets.md prints what a damaged copy fails.
func TestGuideJudgesTables(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	python := venvtest.Python(t, "great-expectations")
	doc, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile("(?s)```python\n(.*?)```").FindSubmatch(doc)
	if code == nil {
		t.Fatalf("%s has no example in Python", guide)
	}
	c := newCells(t)
	c.boxes("test", 2)[3]["bbox"] = []any{9, 9, -9, 9}
	r, tables := c.report()
	dir := t.TempDir()
	writeReport(t, filepath.Join(dir, "gx"), r, tables)
	run := exec.Command(python, "-c", string(code[1]))
	run.Dir, run.Env = dir, append(os.Environ(), "GX_ANALYTICS_ENABLED=false")
	out, err := run.Output()
	want := fmt.Sprintf("critical negative-box [['test/%s', '%v']]\n", c.name("test", 2), c.boxes("test", 2)[3]["id"])
	if err != nil || string(out) != want {
		t.Errorf("%v, got %q, want %q", err, out, want)
	}
}
