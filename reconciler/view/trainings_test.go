package view

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/web"
)

// One list has the trainings of experiments, pull requests and releases, each with its figures.
func TestTrainings(t *testing.T) {
	snap := viewed(t)
	release := snap.World.Main.Intent.Releases.Of("shapes")
	scores := func(dataset string, mAP float64) delivery.Scores {
		return delivery.Scores{Input: delivery.EvalRun{Bundle: release.Bundle}, Content: delivery.EvalSetContent{
			EvalSet: delivery.EvalSet{Dataset: delivery.Dataset{Source: "dir", Path: dataset}, Split: "valid"}},
			Scores: delivery.ScoreSet{Classes: []string{"circle"}, Table: delivery.Table{Classes: []string{"circle"},
				Columns: map[string][]delivery.Row{"AP": {{Value: mAP}}}}}}
	}
	valid := scores("shapes", 0.5)
	// It was scored as another bundle with the same ONNX file, from a training that made the same bytes.
	valid.Input = delivery.EvalRun{Bundle: digestOf("twin"), Model: digestOf("onnx")}
	snap.World.Evidence.Bundles[release.Bundle] = plan.Bundle{Model: digestOf("onnx"), Size: 4_000_000}
	snap.World.Evidence.Scores = map[delivery.Digest]delivery.Scores{digestOf("a"): scores("other", 0.9),
		digestOf("b"): valid, digestOf("c"): scores("third", 0.9)}
	diff := 0.09957
	i := slices.IndexFunc(snap.Plan.Proposals, func(p plan.ProposalReport) bool { return p.PR.Number == 3 })
	m := &snap.Plan.Proposals[i].Models[0]
	m.Valid, m.Seeds = &valid, []plan.SeedReport{{Seed: 1}, {Seed: 2}}
	m.Measured = []delivery.Measured{{Gate: "size"}, {Gate: "production", Metrics: map[string]delivery.Figure{
		"mAP": {Value: 0.2175}}, Baseline: &delivery.BaselineMeasured{Metrics: map[string]float64{"mAP": 0.118}}}}
	m.Verdicts = []delivery.Verdict{{Gate: "production", Checks: []delivery.CheckVerdict{{Metric: "mAP", Diff: &diff}}}}
	snap.Plan.Proposals[i].PR.Updated = viewTime.Add(time.Minute)
	snap.Plan.Proposals = append(snap.Plan.Proposals, plan.ProposalReport{PR: delivery.PullRequest{Number: 2,
		Merged: true}, Models: []plan.ModelReport{{Model: "shapes"}}})
	snap.Plan.Trials = []plan.TrialReport{{Trial: plan.Trial{ID: "0a1b", Model: "shapes", By: "ada",
		Note: "night images",
		At:   viewTime.Add(time.Hour), Variants: []plan.Variant{{Set: []string{"train.epochs=9"}}}},
		Variants: []plan.VariantReport{{ID: "3f9c", State: delivery.CheckFailure}}}}
	source := Source{Loop: taken{snap: snap}, Commits: past{release}}
	list, err := source.Trainings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	of := func(id string) web.Training {
		found, ok := delivery.Find(list, func(t web.Training) bool { return t.ID == id })
		if !ok {
			t.Fatalf("no %s in %+v", id, list)
		}
		return found
	}
	var ids []string
	for _, r := range list {
		ids = append(ids, r.ID)
	}
	if got := strings.Join(ids, " "); got != "3f9c #3 shapes@1" {
		t.Errorf("listed: %s", got)
	}
	if r := of("3f9c"); r.From != "try" || r.Trial != "0a1b" || r.By != "ada" || r.Set[0] != "train.epochs=9" ||
		r.Title != "night images" ||
		r.MAP != nil {
		t.Errorf("%+v", r)
	}
	if r := of("#3"); r.PR != 3 || r.By != "maria" || len(r.Seeds) != 2 || r.MAP.Value != 0.5 ||
		r.Gate != "production" || r.GateMAP.Value != 0.2175 || *r.GateDiff != diff || r.Text == "" {
		t.Errorf("%+v", r)
	}
	if r := of("shapes@1"); r.Version != 1 || r.PR != 2 || r.By != "maria" || r.At.IsZero() || len(r.Seeds) != 1 ||
		r.MAP.Value != 0.5 || r.Gate != "production" || r.GateMAP.Value != 0.4 || r.GateDiff != nil ||
		r.State != delivery.CheckSuccess || r.Text != "main released version 1" {
		t.Errorf("%+v", r)
	}
	snap.World.Main.Intent.Quarantines = delivery.NamedOf(map[string]delivery.Quarantine{"shapes": {
		Entries: []delivery.Quarantined{{Digest: release.Bundle, Why: "it smoked"}}}})
	snap.World.Evidence.BySpec = nil
	source.Commits = nil // nobody knows when, and by whom
	if list, err = source.Trainings(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := of("shapes@1"); r.State != delivery.CheckFailure || !strings.Contains(r.Text, "must not run: it smoked") ||
		!r.At.IsZero() || len(r.Seeds) != 0 {
		t.Errorf("%+v", r)
	}
}
