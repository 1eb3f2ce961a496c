package words

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/tools/hostile"
)

// codes are all codes that package code declares, in its order.
func codes(t *testing.T) []delivery.Code {
	file, err := parser.ParseFile(token.NewFileSet(), "../code/code.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var list []delivery.Code
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || call.Fun.(*ast.Ident).Name != "fact" {
			return true
		}
		text, err := strconv.Unquote(call.Args[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, delivery.Code(text))
		return true
	})
	return list
}

// Every code is declared once, with one sentence.
func TestEveryCodeHasASentence(t *testing.T) {
	known := codes(t)
	slices.Sort(known)
	if declared := slices.Sorted(maps.Keys(code.Sentences)); !slices.Equal(known, declared) {
		t.Errorf("codes in code.go: %q, with sentences: %q", known, declared)
	}
	for _, c := range known {
		if code.Sentences[c] == "" {
			t.Errorf("%s has no sentence", c)
		}
	}
}

// example is a fact with all values.
func example(c delivery.Code) delivery.Fact {
	bundle := delivery.Digest("sha256:" + strings.Repeat("4f0c", 16))
	return delivery.Fact{Code: c, Values: delivery.Values{Model: "pallets", Version: 12, Bundle: bundle,
		Variant: "int8", FromVariant: "fp16", FromModel: "crates", FromVersion: 11,
		FromBundle: delivery.Digest("sha256:" + strings.Repeat("9a1d", 16)),
		Stage:      "train", Outcome: delivery.Fail, Gate: "production", Gates: []string{"production", "night"},
		Fleet: "docks", Class: "person", Metric: delivery.MetricMAP, Dataset: "dir:pallets",
		FromDataset: "dir:crates", EvalSet: "dir:gold",
		Licence: "PML-1.0",
		Seed:    2, Names: []string{"ada", "ben"}, Labels: []string{"box"}, Branch: "main",
		Commit: strings.Repeat("c0ffee12", 5), From: strings.Repeat("badcab1e", 5), PRs: []int{3, 4},
		File: "models/pallets.quarantine.yaml", Files: []string{"gates/a.yaml", "gates/b.yaml"}, By: "ada",
		Text: "what somebody wrote", Command: "3f9c2a10", Count: 2, Total: 5, Limit: 1,
		Counts: map[string]int{"models": 2, "gates": 1, "fleets": 0, "train": 100, "valid": 30, "leftOut": 3,
			"epochs": 8, "pixels": 640, "seeds": 1,
			"ada": 48, "ben": -2,
			"trained": 2, "total": 5, "failed": 1}, Scores: map[string]float64{"box": 0.25, "person": 0.5}, Bytes: 7e6,
		Images: 72, Attempt: 2, Value: 0.5, Baseline: 0.48, Diff: 0.02, Low: 0.01, High: 0.03, Bound: 0.51,
		Cost: 3_100_000, CostHigh: 4_250_000, Ceiling: 8_000_000,
		Confidence: 0.95, Error: "Miss", Device: "dock-7",
		At: time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC), Lasts: delivery.Duration(30 * time.Minute),
		Facts: []delivery.Fact{{Code: "run.starting"}}}}
}

// testdata/sentences.golden has an example of every sentence, for people to read.
func TestSentences(t *testing.T) {
	var b strings.Builder
	for _, c := range codes(t) {
		f := example(c)
		fmt.Fprintf(&b, "%s\n\t%s\n", c, strings.ReplaceAll(Text(f), "\n", "\n\t"))
		if f.Text = ""; strings.Contains(code.Sentences[c], "{text} shows the bounds") { // which is rare
			fmt.Fprintf(&b, "\t%s\n", Text(f))
		}
	}
	const file = "testdata/sentences.golden"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("%s is not what the sentences are now; read the difference after go test -update", file)
	}
}

// A sentence begins as it goes on behind another one, says something without values, and ends without a full stop.
func TestSentencesJoin(t *testing.T) {
	for _, c := range codes(t) {
		text := Text(example(c))
		if c != "propose.restoreBody" && c != "propose.quarantineBody" &&
			c != "propose.quarantineVariantBody" && strings.HasSuffix(text, ".") {
			t.Errorf("%s ends with a full stop: %s", c, text)
		}
		if strings.Contains(text, "%!") {
			t.Errorf("%s: %s", c, text)
		}
	}
}

// Whatever the values are, a sentence is one text in Markdown and one line on a terminal.
func TestValuesAreText(t *testing.T) {
	filled := func(c delivery.Code, text string) delivery.Fact {
		f := delivery.Fact{Code: c}
		hostile.Fill(&f.Values, text)
		f.Facts = []delivery.Fact{{Code: "plain", Values: delivery.Values{Text: text}}}
		return f
	}
	for i, c := range codes(t) {
		harmless := Markdown(filled(c, hostile.Harmless))
		for _, text := range hostile.Lots(20)[i%20 : i%20+1] {
			if err := hostile.Markdown(harmless, Markdown(filled(c, text))); err != nil {
				t.Errorf("%s, %.40q: %v", c, text, err)
			}
		}
	}
}

// BenchmarkStatuses writes what a turn with 3,000 pull requests of 30 statuses each says.
func BenchmarkStatuses(b *testing.B) {
	check := plan.Check{Context: delivery.ContextData, State: delivery.CheckPending, Facts: []delivery.Fact{
		example(code.TrainingQueued).In(code.OfModel, delivery.Values{Model: "pallets"})}}
	for b.Loop() {
		for range 3000 * 30 {
			Check(check)
		}
	}
}

// A forge cuts a status at 140 characters. What somebody has to do comes before that.
func TestStatusesSayFirstWhatIsToBeDone(t *testing.T) {
	long := delivery.Fact{Code: code.Plain, Values: delivery.Values{Text: strings.Repeat("too wide to tell; ", 20)}}
	for _, c := range []struct {
		fact delivery.Fact
		want string
	}{
		{delivery.Fact{Code: code.VerdictUnsure, Values: delivery.Values{Facts: []delivery.Fact{long,
			{Code: code.AcceptByComment, Values: delivery.Values{Names: []string{"ada"}, Command: "0a1b"}}}}},
			"unsure: an owner may accept; see the comment: too wide"},
		{delivery.Fact{Code: code.VerdictUnsure, Values: delivery.Values{Facts: []delivery.Fact{long,
			{Code: code.AcceptBySocket, Values: delivery.Values{Names: []string{"ada"}, PRs: []int{3},
				Command: "0a1b"}}}}}.In(
			code.OfModel, delivery.Values{Model: "shapes"}), "shapes: unsure: an owner may accept; see aob pr show " +
			"3: too"},
		{long.In(code.VerdictUnownable, delivery.Values{}), "unsure, and the gate has no owners who may accept that: " +
			"push"},
		{delivery.Fact{Code: code.Several, Values: delivery.Values{Facts: []delivery.Fact{
			{Code: code.DataReady, Values: delivery.Values{Dataset: "dir:raccoon/1",
				Counts: map[string]int{"train": 117}}},
			{Code: code.Finding, Values: delivery.Values{File: "train/a.jpg", Text: "is in test too", Count: 3}}}}},
			"4 warnings, shown with the pull request: dir:raccoon/1"},
		{long, "too wide to tell"},
	} {
		check := plan.Check{Context: "aob/x", Facts: []delivery.Fact{c.fact}}
		before := Text(c.fact)
		got := Statuses([]plan.Check{check})[0].Description
		if shown := []rune(got); !strings.HasPrefix(string(shown[:min(140, len(shown))]), c.want) {
			t.Errorf("%s: %q, want %q", c.fact.Code, got, c.want)
		}
		if Text(c.fact) != before {
			t.Errorf("%s: the fact itself was changed", c.fact.Code)
		}
	}
}

// A release file says in comments why a check did not pass, and what got worse.
func TestReleaseNotes(t *testing.T) {
	notes := ReleaseNotes([]delivery.Verdict{{Gate: "night"}, {Gate: "production", Checks: []delivery.CheckVerdict{
		{Check: "mAP >= 0.3", Outcome: delivery.Pass, Because: []delivery.Fact{example(code.CheckReached)}},
		{Check: "AP >= 0.2", Outcome: delivery.NotApplicable, Because: []delivery.Fact{{Code: code.NoTruths}}}}}})
	checks, lost := notes(delivery.Measured{Gate: "production", Lost: []delivery.Loss{{Metric: "AP", Class: "WBC",
		Value: 0.1244, Baseline: 0.2285, Diff: -0.104, AtBest: -0.0461}}})
	if want := []string{"", "the eval set has no objects for it"}; !slices.Equal(checks, want) {
		t.Errorf("checks: %q, want %q", checks, want)
	}
	const worse = "worse than the release: AP of WBC 0.1244, was 0.2285: -0.1040, at best -0.0461"
	if !slices.Equal(lost, []string{worse}) {
		t.Errorf("lost: %q, want %q", lost, worse)
	}
	if checks, lost := notes(delivery.Measured{Gate: "other"}); checks != nil || lost != nil {
		t.Errorf("a gate without a verdict has notes: %q, %q", checks, lost)
	}
}
