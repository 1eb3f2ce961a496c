package explain_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/explain"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/words"
)

var update = flag.Bool("update", false, "write the golden files as they come out now")

// world is two releases on main, a fleet on the second, a pull request in
// training and one that fails.
func world() explain.Report {
	spec := func(epochs int) delivery.Spec { return model(epochs).Spec() }
	v1, v2 := release(1, spec(2), 0.31, nil), release(2, spec(8), 0.44, &delivery.BaselineMeasured{Version: 1,
		Bundle: sum("bundle 1"), Metrics: map[string]float64{"mAP": 0.31}})
	e := plan.Evidence{
		ByRun:    map[delivery.Digest]plan.Trained{},
		BySpec:   map[delivery.Digest]plan.Trained{},
		Accepted: map[string][]delivery.Acceptance{},
		Scores:   map[delivery.Digest]delivery.Scores{},
		Bundles: map[delivery.Digest]plan.Bundle{v1.Bundle: {Size: 4_100_000}, v2.Bundle: {Size: 4_100_000},
			sum("bundle 4"): {Size: 4_100_000}},
	}
	runs := map[delivery.Digest]delivery.RunState{}
	r := explain.Report{
		World: plan.World{
			Main: plan.Main{Branch: "main", Commit: commit("b"), Intent: delivery.Intent{
				Models: delivery.NamedOf(map[string]delivery.Model{"shapes": model(8)})}},
			Devices: map[string][]delivery.Device{"demo": {device("dock-2", 2, delivery.DeviceHealthy),
				device("dock-1", 2, delivery.DeviceHealthy), device("dock-3", 1, delivery.DeviceFailed)}},
			Published: map[string]delivery.Desired{"demo": {Ring: "demo", Version: 7, Model: "shapes", Share: 1,
				Release: delivery.Target{Version: 2, Bundle: v2.Bundle}, Previous: &delivery.Target{Version: 1,
					Bundle: v1.Bundle}}},
			Runs: runs,
		},
		Plan: plan.Plan{
			Main: plan.MainReport{Models: []plan.MainModel{{Model: "shapes", Named: &v2, Accepted: &v2,
				Fact: delivery.Fact{Code: code.MainAccepted, Values: delivery.Values{Model: "shapes", Version: 2}}}}},
			Fleets: []plan.FleetReport{{Fleet: "demo", Model: "shapes", Target: delivery.Target{Version: 2,
				Bundle: v2.Bundle}, Facts: plain("version 2 is out: 2 of 2 devices healthy")}},
		},
		Versions: map[string][]explain.Version{"shapes": {
			{Commit: commit("b"), Subject: "Merge pull request #2: train for longer", Author: "maria",
				At: noon.Add(time.Hour), Release: &v2},
			{Commit: commit("b1"), Subject: "Release shapes version 2", Author: "aob", At: noon.Add(50 * time.Minute),
				Release: &v2},
			{Commit: commit("a"), Subject: "Merge pull request #1: shapes", Author: "jonas", At: noon, Release: &v1},
			{Commit: commit("a1"), Subject: "Release shapes version 1", Author: "aob", At: noon.Add(-time.Minute),
				Release: &v1},
		}},
		Heads: map[int]string{1: commit("a1"), 2: commit("b1")},
	}
	for i, release := range []delivery.Release{v1, v2} {
		s := spec([]int{2, 8}[i])
		t := training(release.Bundle, s)
		e.ByRun[t.Run] = plan.Trained{Bundle: release.Bundle, Training: t}
		statement := delivery.ReleaseStatement{Model: "shapes", Version: release.Version, Spec: release.Spec,
			Bundle: release.Bundle, File: release, TargetCommit: commit("9")}
		if i == 1 {
			statement.Baseline = v1.Bundle
		}
		statement.Gates = []delivery.GateJudged{{Name: "production", Spec: sum("gate"),
			Verdict: verdict(release.Bundle, delivery.Pass)}}
		e.Releases = append(e.Releases, statement)
		e.Accepted["shapes"] = append(e.Accepted["shapes"], delivery.Acceptance{Model: "shapes",
			Version: release.Version, Spec: release.Spec, Bundle: release.Bundle,
			Commit: commit([]string{"a", "b"}[i])})
	}
	run := sum("run of " + string(v2.Bundle))
	runs[run] = delivery.RunState{Spec: delivery.RunSpec{Key: run, Kind: delivery.RunTrain, Note: "shapes, #2"},
		Phase: delivery.RunDone, Started: noon.Add(30 * time.Minute), Ended: noon.Add(31*time.Minute + 22*time.Second)}
	active := sum("active run")
	runs[active] = delivery.RunState{Spec: delivery.RunSpec{Key: active, Kind: delivery.RunTrain,
		Train: &delivery.TrainRun{Spec: spec(30), Training: sum("training input"), Trainer: sum("trainer")}},
		Phase: delivery.RunRunning, Attempt: 2, Started: noon.Add(2 * time.Hour),
		Status: delivery.RunStatus{Phase: "training", Epoch: 12, Epochs: 30}}

	failing := spec(1)
	data := dataResult()
	propose := func(epochs int, p plan.ProposalReport) {
		p.PR.Base = "main"
		r.Plan.Proposals = append(r.Plan.Proposals, p)
		proposal := plan.Proposal{PullRequest: p.PR}
		if epochs > 0 {
			proposal.Intent.Models = delivery.NamedOf(map[string]delivery.Model{"shapes": model(epochs)})
		}
		r.World.Proposals = append(r.World.Proposals, proposal)
	}
	propose(30, plan.ProposalReport{
		PR: delivery.PullRequest{Number: 3, Title: "Train much longer", Author: "maria", Head: commit("c"),
			HeadRef: "longer"},
		Checks: []plan.Check{{Context: "aob/train", State: delivery.CheckPending, Facts: plain("epoch 12/30")},
			{Context: "aob/release", State: delivery.CheckPending, Facts: plain("shapes: train: epoch 12/30")}},
		Models: []plan.ModelReport{{Model: "shapes", State: delivery.CheckPending,
			Fact: plain("train: epoch 12/30")[0], Data: &data}}})
	propose(1, plan.ProposalReport{
		PR: delivery.PullRequest{Number: 4, Title: "Make it worse", Author: "jonas", Head: commit("d"),
			HeadRef: "worse"},
		Checks: []plan.Check{{Context: "aob/release", State: delivery.CheckFailure,
			Facts: plain("shapes: gate/production: mAP 0.1000 < 0.30")}},
		Models: []plan.ModelReport{{Model: "shapes", State: delivery.CheckFailure,
			Fact: plain("gate/production: mAP 0.1000 < 0.30")[0], Data: &data,
			Bundle: sum("bundle 4"), Baseline: &v2, Verdicts: []delivery.Verdict{verdict(sum("bundle 4"),
				delivery.Fail)}}}})
	propose(0, plan.ProposalReport{
		PR: delivery.PullRequest{Number: 5, Title: "A typo", Author: "jonas", Head: commit("e"), HeadRef: "typo"},
		Problem: []delivery.Complaint{{File: "models/shapes.yaml", Line: 3, Column: 1, Path: "epoch",
			Text: "unknown key; did you mean epochs?"}}})
	e.ByRun[sum("run 4")] = plan.Trained{Bundle: sum("bundle 4"), Training: delivery.Training{Run: sum("run 4"),
		Spec: failing.Digest(),
		Input: delivery.TrainRun{Spec: failing, Seed: 1, Machine: "train-local", Training: sum("training input"),
			Trainer: sum("trainer")}, Data: data,
		Result: delivery.TrainResult{Bundle: sum("bundle 4"), Model: sum("onnx 4"), Attempts: 1}}}
	e.Scores[sum("score of "+string(sum("bundle 4")))] = delivery.Scores{Key: sum("score of " +
		string(sum("bundle 4"))),
		Input: delivery.EvalRun{Bundle: sum("bundle 4"),
			EvalSet:  delivery.EvalSet{Dataset: delivery.Dataset{Source: "dir", Path: "shapes"}, Split: "test"},
			Protocol: sum("protocol")},
		Scores: delivery.ScoreSet{Detections: sum("detections"), Images: 40, Values: map[string]float64{"mAP": 0.1}}}
	r.World.Evidence = e
	return r
}

func model(epochs int) delivery.Model {
	return delivery.Model{Name: "shapes", Dataset: delivery.Dataset{Source: "dir", Path: "shapes"},
		Classes: delivery.Classes{{Name: "circle"}, {Name: "square"}},
		Train: delivery.Train{With: "tiny@1", Resolution: 256, Epochs: epochs,
			Optimizer: delivery.Optimizer{LR: 0.002}, Seeds: []int64{1}}, Variants: []string{"fp32"}}
}

func plain(text string) []delivery.Fact {
	return []delivery.Fact{{Code: code.Plain, Values: delivery.Values{Text: text}}}
}

// told explains, and writes the sentences.
func told(r explain.Report, kind explain.Kind, id string) (explain.Chain, error) {
	c, err := r.Explain(kind, id)
	return words.Chain(c), err
}

func shown(c explain.Chain) string { return words.ChainText(c, 80) }

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func sum(s string) delivery.Digest { return delivery.Sum([]byte(s)) }

func commit(digits string) string { return (digits + strings.Repeat("0", 40))[:40] }

func release(version int, spec delivery.Spec, mAP float64, baseline *delivery.BaselineMeasured) delivery.Release {
	low, high := mAP-0.03, mAP+0.03
	return delivery.Release{APIVersion: delivery.APIVersion, Kind: "Release", Name: "shapes", Version: version,
		Bundle: sum("bundle " + string(rune('0'+version))), Spec: spec.Digest(),
		Measured: []delivery.Measured{{Gate: "production", EvalSet: sum("eval set"), Images: 40, Baseline: baseline,
			Metrics: map[string]delivery.Figure{"mAP": {Value: mAP, Low: &low, High: &high}, "AP/circle": {Value: mAP},
				"AP50": {Value: mAP + 0.2}}}}}
}

func dataResult() delivery.DataResult {
	return delivery.DataResult{Content: sum("content"), Training: sum("training input"),
		Images: map[string]int{"train": 240, "valid": 40, "test": 40}, LeftOut: 2,
		EvalSets: []delivery.EvalSetContent{{Images: sum("images"), Truths: sum("truths")}},
		Findings: []delivery.Finding{{Level: delivery.LevelWarning, Code: "leak", Where: "train/17.png",
			Text: "is an image of the eval set", Count: 2}}}
}

func training(bundle delivery.Digest, spec delivery.Spec) delivery.Training {
	return delivery.Training{Run: sum("run of " + string(bundle)), Spec: spec.Digest(), Data: dataResult(),
		Input: delivery.TrainRun{Spec: spec, Seed: 1, Machine: "train-local", Training: sum("training input"),
			Trainer: sum("trainer")},
		Result: delivery.TrainResult{Bundle: bundle, Model: sum("onnx of " + string(bundle)), Attempts: 2}}
}

func verdict(bundle delivery.Digest, o delivery.Outcome) delivery.Verdict {
	v := delivery.Verdict{Gate: "production", GateSpec: sum("gate"), Model: "shapes", Outcome: o,
		Reason: "mAP 0.4400 >= 0.30 on 40 images",
		Inputs: []delivery.Digest{sum("score of " + string(bundle))}, Key: sum("verdict on " + string(bundle)),
		Checks: []delivery.CheckVerdict{{Check: "mAP >= 0.30", Metric: "mAP", Outcome: o,
			Reason: "0.4400 on 40 images"},
			{Check: "AP >= 0.20", Metric: "AP", Class: "circle", Outcome: delivery.Ignored,
				Reason: "12 truths, want 20"}}}
	if o == delivery.Fail {
		v.Reason, v.Checks[0].Reason = "mAP 0.1000 < 0.30 on 40 images", "0.1000 on 40 images"
	}
	return v
}

func device(id string, version int, phase delivery.DevicePhase) delivery.Device {
	d := delivery.Device{LastHeard: noon.Add(3 * time.Hour), Report: delivery.Report{Device: id, Ring: "demo",
		Desired: 7,
		Slot:    "b", Phase: phase, Release: version, Bundle: sum("bundle " + string(rune('0'+version)))}}
	if phase == delivery.DeviceFailed {
		d.Report.Failed, d.Report.Why = sum("bundle 2"), "the golden inference differs"
	}
	return d
}

func TestChains(t *testing.T) {
	f := world()
	for _, c := range []struct {
		name string
		kind explain.Kind
		id   string
	}{
		{"pr_training", explain.PR, "3"},
		{"pr_failing", explain.PR, "#4"},
		{"pr_complaints", explain.PR, "5"},
		{"pr_merged", explain.PR, "2"},
		{"commit_merge", explain.Commit, commit("b")},
		{"commit_head_of_pr", explain.Commit, commit("c")[:8]},
		{"model", explain.Model, "shapes"},
		{"device", explain.Device, "dock-1"},
		{"device_failed", explain.Device, "dock-3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			chain, err := told(f, c.kind, c.id)
			if err != nil {
				t.Fatal(err)
			}
			if chain.Kind != c.kind {
				t.Errorf("kind %s, want %s", chain.Kind, c.kind)
			}
			golden(t, c.name+".txt", shown(chain))
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), rewrite with -update:\n%s", path, diff)
	}
}

// Text is for people: short digests, 80 columns. JSON has everything.
func TestTextIsShortAndJSONIsFull(t *testing.T) {
	long := regexp.MustCompile(`[0-9a-f]{40}`)
	f := world()
	for _, c := range []struct {
		kind explain.Kind
		id   string
	}{{explain.PR, "3"}, {explain.PR, "4"}, {explain.Model, "shapes"}, {explain.Device, "dock-1"},
		{explain.Commit, commit("a")}} {
		chain, err := told(f, c.kind, c.id)
		if err != nil {
			t.Fatal(err)
		}
		text := shown(chain)
		if s := long.FindString(text); s != "" {
			t.Errorf("%s %s: %s in the text", c.kind, c.id, s)
		}
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
				t.Errorf("%s %s: %d columns: %s", c.kind, c.id, n, line)
			}
		}
		data, err := json.Marshal(chain)
		if err != nil {
			t.Fatal(err)
		}
		var back explain.Chain
		if err := json.Unmarshal(data, &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(chain, back); diff != "" {
			t.Errorf("JSON lost something (-want +got):\n%s", diff)
		}
		for _, l := range back.Links {
			for _, d := range l.Inputs {
				if _, err := delivery.ParseDigest(string(d)); err != nil {
					t.Errorf("%s: %s", l.What, err)
				}
			}
		}
		again, _ := told(f, c.kind, c.id)
		if diff := cmp.Diff(chain, again); diff != "" {
			t.Errorf("the same facts gave another chain:\n%s", diff)
		}
	}
}

// Programs read codes and values beside the text: those of the plan, of gates' checks and of the chain itself.
func TestChainsHaveCodes(t *testing.T) {
	chain, err := told(world(), explain.PR, "4")
	if err != nil {
		t.Fatal(err)
	}
	var codes []delivery.Code
	for _, l := range chain.Links {
		if len(l.Facts) == 0 || l.Text == "" {
			t.Errorf("%s has %d facts and the text %q", l.What, len(l.Facts), l.Text)
		}
		if l.Verdict != nil && len(l.Lines) < len(l.Verdict.Checks) {
			t.Errorf("%d checks in %q", len(l.Verdict.Checks), l.Lines)
		}
		for _, f := range l.Facts {
			codes = append(codes, f.Code)
		}
	}
	want := []delivery.Code{code.ChainPullHead, code.ChainContent, code.ChainTrain, code.ChainData, code.ChainTrained,
		code.ChainBundle, code.ChainScores, code.GateSays, code.OfModel}
	if diff := cmp.Diff(want, codes); diff != "" {
		t.Error(diff)
	}
}

// A merged pull request is found by its last commit, or by its number in the
// subject of a commit on main.
func TestMergedIsFound(t *testing.T) {
	for subject, found := range map[string]bool{
		"Merge pull request #2 from longer": true, "Train for longer (#2)": true, "Merge 2: train for longer": true,
		"See merge request shapes!2": true,
		"Merge 22: other":            false, "Train for 2 epochs": false, "#21": false, "": false,
	} {
		f := world()
		f.Heads = nil
		f.Versions["shapes"][0].Subject = subject
		if _, err := told(f, explain.PR, "2"); (err == nil) != found {
			t.Errorf("%q: %v", subject, err)
		}
	}
	f := world()
	f.Versions["shapes"][0].Subject = "Train for longer"
	if _, err := told(f, explain.PR, "2"); err != nil {
		t.Errorf("by its head: %v", err)
	}
	// Numbers of the local forge come again after a move to another one.
	f = world()
	f.Heads = nil
	f.Versions["shapes"][0].Subject, f.Versions["shapes"][2].Subject = "Train for longer (#2)", "Merge 2: shapes"
	if found := f.Merged(2); len(found) != 1 || found[0].Subject != "Train for longer (#2)" {
		t.Errorf("of two with one number: %+v", found)
	}
}

func TestUnknown(t *testing.T) {
	f := world()
	for _, c := range []struct {
		kind explain.Kind
		id   string
		hint string
	}{
		{explain.PR, "99", "aob explain commit SHA"},
		{explain.PR, "x", "number"},
		{explain.PR, "-3", "number"},
		{explain.Commit, "ffff", "heads of open pull requests"},
		{explain.Commit, "b", "first four"},
		{explain.Commit, "main", "first four"},
		{explain.Model, "pallets", "models/"},
		{explain.Device, "dock-9", "aob status"},
		{explain.Device, "elsewhere/dock-1", "aob status"},
		{explain.Device, "demo/", "aob status"},
		{"fleet", "demo", "pr, a commit"},
	} {
		_, err := told(f, c.kind, c.id)
		unknown, ok := errors.AsType[explain.Unknown](err)
		if !ok || !strings.Contains(unknown.Hint(), c.hint) {
			t.Errorf("%s %s: %v, hint %q, want one with %q", c.kind, c.id, err, unknown.Hint(), c.hint)
		}
	}
}

// Other output names a device after its fleet.
func TestDeviceOfAFleet(t *testing.T) {
	f := world()
	plain, err := told(f, explain.Device, "dock-1")
	if err != nil {
		t.Fatal(err)
	}
	full, err := told(f, explain.Device, "demo/dock-1")
	if err != nil || len(full.Links) == 0 || len(full.Links) != len(plain.Links) {
		t.Errorf("%d links, want %d; %v", len(full.Links), len(plain.Links), err)
	}
}

func TestSeveralCommitsBeginAlike(t *testing.T) {
	f := world()
	f.Plan.Proposals[0].PR.Head = "b000" + strings.Repeat("1", 36)
	_, err := told(f, explain.Commit, "b000")
	unknown, ok := errors.AsType[explain.Unknown](err)
	if !ok || !strings.Contains(unknown.Do, commit("b")) || !strings.Contains(unknown.Do, f.Plan.Proposals[0].PR.Head) {
		t.Errorf("%v: %s", err, unknown.Do)
	}
}

// A release that was withdrawn says so wherever it is told.
func TestWithdrawn(t *testing.T) {
	f := world()
	const why = "2 of 3 devices failed"
	f.World.Evidence.Aborts = []delivery.Abort{{Fleet: "demo", Model: "shapes", Bundle: sum("bundle 2"), Why: why,
		At: noon}}
	f.World.Main.Intent.Quarantines = delivery.NamedOf(map[string]delivery.Quarantine{"shapes": {
		Entries: []delivery.Quarantined{{Digest: sum("bundle 2"), Why: why}}}})
	for kind, id := range map[explain.Kind]string{explain.Model: "shapes", explain.Device: "dock-1",
		explain.Commit: commit("b")} {
		chain, err := told(f, kind, id)
		if err != nil {
			t.Fatal(err)
		}
		if s := shown(chain); !strings.Contains(s, "rolled back from it") || !strings.Contains(s, "must not run") {
			t.Errorf("%s says nothing of it:\n%s", kind, s)
		}
	}
}

// A model that runs without evidence is told as that, never passed over.
func TestBundleThatMainNeverAccepted(t *testing.T) {
	f := world()
	f.World.Devices["demo"][0].Report.Bundle, f.World.Devices["demo"][0].Report.Release = sum("from elsewhere"), 0
	chain, err := told(f, explain.Device, "dock-2")
	if err != nil {
		t.Fatal(err)
	}
	if s := shown(chain); !strings.Contains(s, "main never released this bundle") ||
		!strings.Contains(s, "no longer holds it") {
		t.Error(s)
	}
}

func TestManyDevices(t *testing.T) {
	f := world()
	for range 100 {
		f.World.Devices["demo"] = append(f.World.Devices["demo"], device("more", 2, delivery.DeviceHealthy))
	}
	chain, err := told(f, explain.Commit, commit("b"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(shown(chain), "\ndevice "); n != 21 || !strings.Contains(shown(chain), "and 82 more") {
		t.Errorf("%d devices told:\n%s", n, shown(chain))
	}
}

// What strangers write reaches no terminal as control characters.
func FuzzPlain(f *testing.F) {
	f.Add("\x1b[2Jred", "a\nb\rc", "dock-1")
	f.Add("\u202eevil", string([]byte{0xff, 0xfe}), "#2")
	f.Fuzz(func(t *testing.T, title, why, id string) {
		facts := world()
		facts.Plan.Proposals[0].PR.Title, facts.Plan.Proposals[0].PR.Author = title, id
		facts.World.Devices["demo"][2].Report.Why, facts.World.Devices["demo"][2].Report.Slot = why, title
		facts.Versions["shapes"][0].Subject = why
		for kind, id := range map[explain.Kind]string{explain.PR: "3", explain.Device: "dock-3",
			explain.Model: "shapes", explain.Commit: id} {
			chain, err := told(facts, kind, id)
			text := shown(chain)
			if err != nil {
				text = err.Error()
			}
			for _, r := range text {
				if r != '\n' && !unicode.IsPrint(r) {
					t.Fatalf("%q in %q", r, text)
				}
			}
		}
	})
}

func FuzzExplain(f *testing.F) {
	f.Add("pr", "2")
	f.Add("commit", "b000")
	f.Add("device", "dock-1")
	facts := world()
	f.Fuzz(func(t *testing.T, kind, id string) {
		if _, err := told(facts, explain.Kind(kind), id); err != nil {
			if _, ok := errors.AsType[explain.Unknown](err); !ok {
				t.Fatal(err)
			}
		}
	})
}

// Who settled what a gate could not tell stands with the reason in the chain, and
// so does a former name.
func TestAcceptedAndRenamed(t *testing.T) {
	f := world()
	s := &f.World.Evidence.Releases[1]
	s.RenamedFrom = "forms"
	s.Gates[0].Verdict.Outcome = delivery.Unsure
	s.Gates[0].Accept = &delivery.Accept{Verdict: s.Gates[0].Verdict.Key, By: "lead", Because: "the set is small",
		At: noon}
	c, err := told(f, explain.Device, "dock-1")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"every gate passed or was accepted", "until then it was forms",
		"gate production was unsure, and lead accepted it", "the set is small"} {
		if text := strings.Join(strings.Fields(shown(c)), " "); !strings.Contains(text, want) {
			t.Errorf("the chain does not say %q:\n%s", want, shown(c))
		}
	}
}

// A bundle with thresholds leads to the one that was trained, and a spec with several
// seeds to all of them; a verdict says how often one looked, and at what.
func TestThresholdsSeedsAndLooks(t *testing.T) {
	f := world()
	release := *f.Plan.Main.Models[0].Accepted
	e := &f.World.Evidence
	run := sum("run of " + string(release.Bundle))
	trained := e.ByRun[run].Training
	delete(e.ByRun, run)
	from := sum("trained")
	trained.Result.Bundle = from
	trained.Seeds = []delivery.SeedScore{{Seed: 1, Bundle: from, Score: sum("s1"), MAP: 0.41},
		{Seed: 2, Bundle: sum("other"), Score: sum("s2"), MAP: 0.39}}
	e.BySpec[release.Spec] = plan.Trained{Bundle: from, Training: trained}
	precision := 0.9
	e.Resolved = map[delivery.Digest]delivery.Resolved{sum("thresholds"): {Key: sum("thresholds"),
		Input: delivery.ThresholdRun{Valid: delivery.EvalRun{Bundle: from,
			EvalSet: delivery.EvalSet{Dataset: delivery.Dataset{Source: "dir", Path: "shapes"}, Split: "valid"}},
			Ask: delivery.Thresholds{"default": {Precision: &precision}}},
		Result: delivery.ThresholdResult{Bundle: release.Bundle,
			Points: map[string]delivery.OperatingPoint{"circle": {Score: 0.42, Precision: 0.91, Recall: 0.7}}}}}
	for i, s := range f.World.Evidence.Releases {
		if s.Bundle == release.Bundle {
			v := &f.World.Evidence.Releases[i].Gates[0].Verdict
			v.Look, v.Looks, v.Images, v.LeftOut, v.Baseline = 3, 10, 70, 2, sum("bundle 1")
		}
	}
	c, err := told(f, explain.Commit, commit("b"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"seed 1: mAP 0.4100 on validation, bundle " + from.Short() + ", the best, which is the model",
		"found on dir:shapes valid, which is not trained on, and added to bundle " + from.Short(),
		"circle: from score 0.42, asked for {precision: 0.9}; precision 0.9100, recall 0.7000",
		"look 3 of 10", "without 2 that a model was trained on",
	} {
		if !strings.Contains(string(data), want) {
			t.Errorf("the chain does not say %q:\n%s", want, data)
		}
	}
}

// A release that was written twice on its way to main, as by an earlier aob with other figures, is one version. One
// that came back later is told again.
func TestReleaseWrittenTwiceIsOneVersion(t *testing.T) {
	f := world()
	list := f.Versions["shapes"]
	v2, v1 := list[0], list[2]
	earlier := *v2.Release
	earlier.Measured = nil
	removed := explain.Version{Commit: commit("d"), Subject: "Take it away", Author: "maria"}
	other := explain.Version{Commit: commit("b2"), Subject: "Release shapes version 2, by an earlier aob",
		Author: "aob", Release: &earlier}
	for name, c := range map[string]struct {
		versions []explain.Version
		want     []string
	}{
		"written twice": {[]explain.Version{v2, other, v1}, []string{"shapes@2", "shapes@1"}},
		"three times":   {[]explain.Version{v2, other, list[1], v1}, []string{"shapes@2", "shapes@1"}},
		"it came back":  {[]explain.Version{v2, v1, other}, []string{"shapes@2", "shapes@1", "shapes@2"}},
		"it was away meanwhile": {[]explain.Version{v2, removed, other, v1}, []string{"shapes@2", "", "shapes@2",
			"shapes@1"}},
	} {
		f.Versions["shapes"] = c.versions
		chain, err := told(f, explain.Model, "shapes")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range chain.Links {
			if l.What == "version" {
				got = append(got, l.ID)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
}

// Of several quarantine entries about one bundle, one that is not lifted holds it: the story ends with that.
func TestSecondQuarantineEntryIsReported(t *testing.T) {
	bundle := sum("bundle 2")
	old := delivery.Quarantined{Digest: bundle, Why: "it failed", Lifted: "a camera was broken"}
	again := delivery.Quarantined{Digest: bundle, Why: "it failed again"}
	more := delivery.Quarantined{Digest: bundle, Why: "it is slow"}
	for _, c := range []struct {
		entries, elsewhere []delivery.Quarantined
		want               []string // in this order
		no                 string
	}{
		{[]delivery.Quarantined{old}, nil, []string{"was quarantined (it failed), and lifted: a camera was broken"},
			"must not run"},
		{[]delivery.Quarantined{old, again}, nil,
			[]string{"and lifted: a camera was broken; another entry still quarantines it",
				"must not run: it failed again"},
			""},
		{[]delivery.Quarantined{again, old}, nil,
			[]string{"and lifted: a camera was broken; another entry still quarantines it",
				"must not run: it failed again"},
			""},
		{[]delivery.Quarantined{again, more}, nil, []string{"must not run: it failed again",
			"another entry says that it must not run: it is slow"}, "lifted"},
		{[]delivery.Quarantined{old}, []delivery.Quarantined{more}, []string{"another entry still quarantines it",
			"must not run: it is slow (in models/other.quarantine.yaml)"}, ""},
	} {
		f := world()
		f.World.Main.Intent.Quarantines = delivery.NamedOf(map[string]delivery.Quarantine{
			"shapes": {Entries: c.entries}, "other": {Entries: c.elsewhere}})
		chain, err := told(f, explain.Model, "shapes")
		if err != nil {
			t.Fatal(err)
		}
		s := strings.Join(strings.Fields(shown(chain)), " ")
		at := 0
		for _, want := range c.want {
			i := strings.Index(s[at:], want)
			if i < 0 {
				t.Errorf("%+v: it does not say %q in its place:\n%s", c, want, s)
				break
			}
			at += i
		}
		if c.no != "" && strings.Contains(s, c.no) {
			t.Errorf("%+v: it says %q:\n%s", c, c.no, s)
		}
	}
}

// Of a device that is silent, what it said last is said as such.
func TestSilentDevice(t *testing.T) {
	f := explain.Report{World: plan.World{Devices: map[string][]delivery.Device{"demo": {device("dock-1", 2,
		delivery.DeviceHealthy)}}}}
	for silent, want := range map[bool]string{
		false: "runs version 2 in fleet demo, healthy, slot b",
		true:  "runs version 2 in fleet demo, healthy, slot b; it has been silent since this report",
	} {
		f.Silent = func(delivery.Device) bool { return silent }
		c, err := told(f, explain.Device, "dock-1")
		if err != nil || c.Links[0].Text != want {
			t.Errorf("silent %v: %+v, error %v; want %q", silent, c.Links, err, want)
		}
	}
}
