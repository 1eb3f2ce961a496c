package words

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
	"github.com/autonomos/aob/reconciler/plan"
)

var update = flag.Bool("update", false, "write the comments of testdata as they come out now; then read every one")

func plain(text string) delivery.Fact {
	return delivery.Fact{Code: code.Plain, Values: delivery.Values{Text: text}}
}

// A reader of the comment alone learns what a pull request waits for, unless
// that is only time.
func TestCommentSaysWhatIsWaitedFor(t *testing.T) {
	release := func(state delivery.CheckState, text string) []plan.Check {
		return []plan.Check{{Context: delivery.ContextRelease, State: state, Facts: []delivery.Fact{plain(text)}}}
	}
	asking := plan.ProposalReport{ApprovalCommands: []string{"/aob run 3f9c2a10", "/aob run 77aa00ff"}}
	paid := plan.ProposalReport{ApprovalCommands: []string{"/aob run 3f9c2a10"}, Costs: map[string]delivery.Fact{
		"3f9c2a10": {Code: code.CostQuote, Values: delivery.Values{Model: "<shapes>", By: "g5.xlarge spot"}}}}
	doubtful := func(d plan.UnsureVerdict) plan.ProposalReport {
		d.Gate, d.Code = "production", "0a1b2c3d4e5f"
		return plan.ProposalReport{Models: []plan.ModelReport{{Model: "shapes", Unsure: []plan.UnsureVerdict{d}}}}
	}
	data := func(c delivery.Code, classes int, names []string, counts map[string]int) delivery.Fact {
		return delivery.Fact{Code: c, Values: delivery.Values{Count: classes, Names: names, Counts: counts}}
	}
	changed := func(from string, changes ...delivery.Fact) plan.ProposalReport {
		return plan.ProposalReport{Models: []plan.ModelReport{{Model: "shapes", DataChanged: delivery.Fact{
			Code: code.DataChanged, Values: delivery.Values{Dataset: "shapes", FromDataset: from, Version: 12,
				Facts: changes}}}}}
	}
	settled := func(pr plan.ProposalReport) plan.ProposalReport { // by more images
		pr.Models[0].Verdicts = []delivery.Verdict{{Checks: []delivery.CheckVerdict{{Outcome: delivery.Unsure,
			Settle: 139}}}}
		return pr
	}
	for _, c := range []struct {
		pr     plan.ProposalReport
		checks []plan.Check
		want   []string
		not    string
	}{
		{plan.ProposalReport{}, release(delivery.CheckPending, "epoch 3/8"), []string{"AOB: working on it"}, "epoch"},
		{asking, release(delivery.CheckPending, "train: needs approval"), []string{"1. Comment `/aob run 3f9c2a10`",
			"react to that comment with 👍"}, "approve"},
		{plan.ProposalReport{Models: []plan.ModelReport{{Model: "shapes"}}}, release(delivery.CheckPending,
			"epoch 3/8"), []string{"Approve after that commit"}, "epoch"},
		{plan.ProposalReport{Models: []plan.ModelReport{{Model: "shapes"}}, PR: delivery.PullRequest{Fork: true}},
			release(delivery.CheckPending, "epoch 3/8"), []string{"AOB: working on it"}, "Approve after"},
		{plan.ProposalReport{}, release(delivery.CheckSuccess, "version 2"), []string{"AOB: ready to merge",
			"version 2"}, "working"},
		{plan.ProposalReport{}, release(delivery.CheckFailure, "mAP 0.1 < 0.3"), []string{"AOB: not to be merged",
			"mAP 0.1 &lt; 0.3"}, "working"},
		{doubtful(plan.UnsureVerdict{Owners: []string{"lead", "ada"}}), release(delivery.CheckPending,
			"gate/production: unsure"),
			[]string{"AOB: an owner of the gate must decide", "Its owner lead or ada may comment",
				"```\n/aob accept 0a1b2c3d4e5f because …\n```", "push a better model"}, "more test images"},
		{settled(doubtful(plan.UnsureVerdict{Owners: []string{"lead"},
			Refused: []delivery.Fact{plain("ben is no <owner>")}})),
			release(delivery.CheckPending, "gate/production: unsure"),
			[]string{"or give the gate more test images", "- ben is no &lt;owner>"}, "working"},
		{doubtful(plan.UnsureVerdict{}), release(delivery.CheckPending, "gate/production: unsure"),
			[]string{"nobody can accept that"}, "/aob accept"},
		{doubtful(plan.UnsureVerdict{Accept: &delivery.Accept{By: "lead", Because: "seen <it>"}}),
			release(delivery.CheckSuccess, "version 2"), []string{"lead accepted that: seen &lt;it>"}, "may comment"},
		{changed(""), release(delivery.CheckPending, "epoch 3/8"), []string{"**Changed data:** dataset shapes has " +
			"changed since version 12: other files, with as many images and objects as before."}, "aob data diff"},
		{changed("<old>", data(code.DataImages, 0, nil, map[string]int{"train": 120, "valid": -3, "test": 1}),
			data(code.DataObjects, 7, []string{"cat", "<b>"}, map[string]int{"cat": -1, "<b>": 2})),
			release(delivery.CheckPending, "epoch 3/8"), []string{"**Changed data:** dataset &lt;old> -> shapes: " +
				"120 images more in train, 3 fewer in valid, 1 more in test; 1 object of cat fewer in train, 2 of " +
				"&lt;b> more, 5 more classes changed. `aob data diff` shows which images and boxes have changed."},
			"since"},
		{asking, release(delivery.CheckPending, "train: needs approval"), []string{"AOB: needs approval",
			"Its author has no write permission here", "`/aob run 3f9c2a10`, and `/aob run 77aa00ff`"}, "working"},
		{paid, release(delivery.CheckPending, "train: needs approval"), []string{"AOB: needs approval",
			"Its training costs money", "1. Comment `/aob run 3f9c2a10`",
			"- `/aob run 3f9c2a10`: &lt;shapes> trains on g5.xlarge spot"}, "Its author"},
		{plan.ProposalReport{Models: []plan.ModelReport{{Model: "shapes"}}}, []plan.Check{{
			Context: delivery.ContextRelease, State: delivery.CheckPending, Facts: []delivery.Fact{
				{Code: code.CostOverDay, Values: delivery.Values{Cost: 45 * delivery.Dollar}}}}},
			[]string{"AOB: a training does not start", "&#36;45 of this day"}, "working"},
	} {
		got := Comment(c.pr, c.checks)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%v: the comment does not say %q:\n%s", c.checks, want, got)
			}
		}
		if strings.Contains(got, c.not) {
			t.Errorf("%v: the comment says %q:\n%s", c.checks, c.not, got)
		}
		if delivery.CommandLine(got) != "" {
			t.Errorf("the comment is a command itself:\n%s", got)
		}
	}
}

// The comments of pull requests that are better, worse and uncertain, as people
// read them. What is wrong with one is seen best by reading it.
func TestComments(t *testing.T) {
	small, large := 0.01, 0.05
	checks := []delivery.GateCheck{
		{Metric: "mAP", Min: &small, Confidence: 0.95, Support: 1, Unsure: "review"},
		{Metric: "mAP", MaxDrop: &small, Confidence: 0.95, Support: 1, Unsure: "review"},
		{Metric: "AP", Classes: delivery.Selection{All: true}, MaxDrop: &large, Confidence: 0.95, Support: 1,
			Unsure: "ignore"},
	}
	classes := []string{"Platelets", "RBC", "WBC"}
	row := func(v, half float64) delivery.Row {
		r := delivery.Row{Value: v, Resamples: make([]float64, 1001)}
		for i := range r.Resamples {
			r.Resamples[i] = v + half*float64(i-500)/450
		}
		return r
	}
	for name, c := range map[string]struct {
		state   delivery.CheckState
		now     map[string]float64
		half    float64
		because string // the owner's, where one has accepted
	}{
		"better": {state: delivery.CheckSuccess, now: map[string]float64{"mAP": 0.30, "Platelets": 0.1, "RBC": 0.4,
			"WBC": 0.4, "falsePositivesPerImage": 12, "precision": 0.2}, half: 0.02},
		"worse": {state: delivery.CheckFailure, now: map[string]float64{"mAP": 0.12, "Platelets": 0.1, "RBC": 0.06,
			"WBC": 0.2, "falsePositivesPerImage": 0.3, "precision": 0.8}, half: 0.02},
		"unsure": {state: delivery.CheckPending, now: map[string]float64{"mAP": 0.19, "Platelets": 0.1, "RBC": 0.35,
			"WBC": 0.12, "falsePositivesPerImage": 0.3, "precision": 0.8}, half: 0.04},
		"accepted": {state: delivery.CheckSuccess, now: map[string]float64{"mAP": 0.19, "Platelets": 0.1, "RBC": 0.3,
			"WBC": 0.2, "falsePositivesPerImage": 0.3, "precision": 0.8}, half: 0.04,
			because: "the night shots are new"},
	} {
		t.Run(name, func(t *testing.T) {
			was := map[string]float64{"mAP": 0.2, "Platelets": 0.1, "RBC": 0.3, "WBC": 0.2,
				"falsePositivesPerImage": 0.3, "precision": 0.8}
			table := func(of map[string]float64) delivery.Table {
				t := delivery.Table{Classes: classes, Images: delivery.Row{Value: 72},
					Overall: map[string]float64{"AP": of["mAP"], "AP50": of["mAP"]},
					Columns: map[string][]delivery.Row{}}
				wrong := of["falsePositivesPerImage"] * 72
				counts := map[string]float64{"truths": 1000, "found": wrong * of["precision"] / (1 - of["precision"]),
					"false": wrong}
				for i, class := range classes {
					for _, column := range []string{"AP", "AP50"} {
						t.Columns[column] = append(t.Columns[column], row(of[class], c.half))
					}
					for column, v := range counts {
						if i > 0 {
							v = 0
						}
						t.Columns[column] = append(t.Columns[column], row(v, 0))
					}
				}
				return t
			}
			now, before := table(c.now), table(was)
			score := delivery.ScoreSet{Protocol: "p", Images: 72, Classes: classes, Table: now,
				Truths: map[string]int{"Platelets": 100, "RBC": 100, "WBC": 100}}
			compare := delivery.CompareResult{Images: 72, Classes: classes, Truths: score.Truths,
				Candidate: now.Values(), Baseline: before.Values(), Difference: now.Minus(before),
				Shifts: map[string][]delivery.ErrorShift{}}
			for _, column := range []string{"AP", "AP50"} {
				for i, r := range compare.Difference.Columns[column] {
					compare.Difference.Columns[column][i] = row(r.Value, c.half)
				}
			}
			for _, class := range classes {
				compare.Shifts[class] = []delivery.ErrorShift{{Type: "Miss", AP50: was[class] - c.now[class],
					Count: int(1000 * (was[class] - c.now[class]))}}
			}
			in := gate.Input{Model: "cells", Classes: classes, Bundle: "b2", BaselineBundle: "b1", EvalSet: "e",
				Look:      2,
				Candidate: gate.Measured{Key: "s2", Scores: score}, Baseline: &gate.Measured{Key: "s1",
					Scores: delivery.ScoreSet{Protocol: "p", Truths: score.Truths}}, Compare: &compare, CompareKey: "c"}
			v := gate.Judge("cells", delivery.Gate{Looks: 10, Classes: classes, Checks: checks}, in)
			m := plan.ModelReport{Model: "cells", Bundle: "sha256:75fd845c6c2c0000",
				Baseline: &delivery.Release{Version: 2}, Verdicts: []delivery.Verdict{v},
				Fleets: []delivery.Fact{plain("line (waves 1, 10%, 100%; soak 24h)")},
				Links:  []plan.Link{{Gate: "cells", URL: "https://aob.example.org/pictures/9c87/"}},
				Measured: []delivery.Measured{{Gate: "cells", Images: 72,
					Baseline: &delivery.BaselineMeasured{Version: 2, Metrics: map[string]float64{"mAP": was["mAP"]}},
					Metrics:  map[string]delivery.Figure{"mAP": delivery.FigureOf("mAP", now.Figure("mAP", classes))}}},
				Points: map[string]delivery.OperatingPoint{"RBC": {Score: 0.131, Precision: 0.9, Recall: 0.5},
					"WBC": {Score: 0.04, Precision: 0.7, Recall: 0.8, Note: "no threshold reaches precision 0.9"}}}
			text := plain("cells: version 3, bundle 75fd845c6c2c, mAP 0.3000 (version 2: 0.2000)")
			switch c.state {
			case delivery.CheckFailure:
				m.Fact = plan.ReasonOf(v).In(code.OfStage, delivery.Values{Stage: "gate/cells"})
				text = m.Summary()
			default:
				m.Release = &delivery.Release{Version: 3}
			}
			if v.Outcome == delivery.Unsure {
				d := plan.UnsureVerdict{Gate: "cells", Owners: []string{"ada"}, Code: "0a1b2c3d4e5f",
					Reason: plan.ReasonOf(v)}
				if c.because != "" {
					d.Accept = &delivery.Accept{By: "ada", Because: c.because, At: time.Unix(0, 0)}
				}
				m.Unsure = append(m.Unsure, d)
			}
			got := Comment(plan.ProposalReport{Models: []plan.ModelReport{m}},
				[]plan.Check{{Context: delivery.ContextRelease, State: c.state, Facts: []delivery.Fact{text}}})
			file := filepath.Join("testdata", "comment-"+name+".md")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil || got != string(want) {
				t.Errorf("%s, %v:\n%s", file, err, got)
			}
		})
	}
}

// What comes from outside is text in a comment, whatever its Go type is.
func TestValuesAreEscaped(t *testing.T) {
	for _, c := range []struct {
		value any
		want  string
	}{
		{"<b>", "&lt;b>"},
		{delivery.Outcome("<b>"), "&lt;b>"},
		{delivery.Digest("<b>"), "&lt;b>"},
		{[]string{"<b>", "|"}, "&#91;&lt;b> &#124;&#93;"},
		{plain("<b>"), "&lt;b>"},
		{struct{ Name string }{"<b>"}, "&#123;&lt;b>&#125;"},
		{markdown("<br>"), "<br>"},
		{7, "7"},
		{0.5, "0.5"},
		{nil, "&lt;nil>"},
	} {
		got := &comment{}
		got.printf("%v", c.value)
		if got.String() != c.want {
			t.Errorf("%T: %q, want %q", c.value, got, c.want)
		}
	}
}

func TestCapital(t *testing.T) {
	for text, want := range map[string]string{"": "", "a": "A", "gate b": "Gate b", "éclair": "Éclair", "3 d": "3 d"} {
		if got := capital(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
