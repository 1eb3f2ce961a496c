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

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/explain"
)

var update = flag.Bool("update", false, "write the golden files as they come out now")

// world is two releases on main, a fleet on the second, a pull request in
// training and one that fails.
func world() explain.Facts {
	spec := func(epochs int) delivery.Spec {
		return delivery.Spec{Dataset: "dir:shapes", Classes: delivery.Classes{{Name: "circle"}, {Name: "square"}},
			Train: delivery.SpecTrain{With: "tiny@1", Resolution: 256, Epochs: epochs,
				Optimizer: delivery.Optimizer{LR: 0.002}, Seeds: []int64{1}}, Variants: []string{"fp32"}}
	}
	v1, v2 := release(1, spec(2), 0.31, nil), release(2, spec(8), 0.44, &delivery.BaselineMeasured{Version: 1,
		Bundle: sum("bundle 1"), Metrics: map[string]float64{"mAP": 0.31}})
	f := explain.Facts{
		Branch: "main", Head: commit("b"),
		Models: []explain.Main{{Name: "shapes", Spec: spec(8), Named: &v2, Accepted: &v2, Text: "shapes version 2"}},
		Fleets: []explain.Fleet{{Name: "demo", Model: "shapes", Target: delivery.Target{Version: 2, Bundle: v2.Bundle},
			Share: 1, Text: "version 2 is out: 2 of 2 devices healthy"}},
		Devices: []delivery.Device{device("dock-2", 2, delivery.DeviceHealthy),
			device("dock-1", 2, delivery.DeviceHealthy), device("dock-3", 1, delivery.DeviceFailed)},
		Published: map[string]delivery.Desired{"demo": {Ring: "demo", Version: 7, Model: "shapes", Share: 1,
			Release: delivery.Target{Version: 2, Bundle: v2.Bundle}, Previous: &delivery.Target{Version: 1,
				Bundle: v1.Bundle}}},
		Versions: map[string][]explain.Version{"shapes": {
			{Commit: commit("b"), Subject: "Merge pull request #2: train for longer", Author: "maria",
				At: noon.Add(time.Hour), Release: &v2},
			{Commit: commit("b1"), Subject: "Release shapes version 2", Author: "aob", At: noon.Add(50 * time.Minute),
				Release: &v2},
			{Commit: commit("a"), Subject: "Merge pull request #1: shapes", Author: "jonas", At: noon, Release: &v1},
			{Commit: commit("a1"), Subject: "Release shapes version 1", Author: "aob", At: noon.Add(-time.Minute),
				Release: &v1},
		}},
		Heads:       map[int]string{1: commit("a1"), 2: commit("b1")},
		Trainings:   map[delivery.Digest]delivery.Training{},
		Acceptances: map[string][]delivery.Acceptance{},
		Runs:        map[delivery.Digest]delivery.RunState{},
		Sizes:       map[delivery.Digest]int64{v1.Bundle: 4_100_000, v2.Bundle: 4_100_000, sum("bundle 4"): 4_100_000},
		Scores:      map[delivery.Digest]delivery.Scores{},
	}
	for i, r := range []delivery.Release{v1, v2} {
		s := spec([]int{2, 8}[i])
		f.Trainings[r.Bundle] = training(r.Bundle, s)
		statement := delivery.ReleaseStatement{Model: "shapes", Version: r.Version, Spec: r.Spec, Bundle: r.Bundle,
			File: r, TargetCommit: commit("9")}
		if i == 1 {
			statement.Baseline = v1.Bundle
		}
		statement.Gates = []delivery.GateJudged{{Name: "production", Spec: sum("gate"), Verdict: verdict(r.Bundle,
			delivery.Pass)}}
		f.Statements = append(f.Statements, statement)
		f.Acceptances["shapes"] = append(f.Acceptances["shapes"], delivery.Acceptance{Model: "shapes",
			Version: r.Version, Spec: r.Spec, Bundle: r.Bundle, Commit: commit([]string{"a", "b"}[i])})
	}
	run := f.Trainings[v2.Bundle].Run
	f.Runs[run] = delivery.RunState{Spec: delivery.RunSpec{Key: run, Kind: delivery.RunTrain, Note: "shapes, #2"},
		Phase: delivery.RunDone, Started: noon.Add(30 * time.Minute), Ended: noon.Add(31*time.Minute + 22*time.Second)}
	active := sum("active run")
	f.Runs[active] = delivery.RunState{Spec: delivery.RunSpec{Key: active, Kind: delivery.RunTrain,
		Train: &delivery.TrainRun{Spec: spec(30), Training: sum("training input"), Trainer: sum("trainer")}},
		Phase: delivery.RunRunning, Attempt: 2, Started: noon.Add(2 * time.Hour),
		Status: delivery.RunStatus{Phase: "training", Epoch: 12, Epochs: 30}}

	training, failing := spec(30), spec(1)
	data := dataResult()
	f.Proposals = []explain.Proposal{
		{PR: delivery.PullRequest{Number: 3, Title: "Train much longer", Author: "maria", Head: commit("c"),
			HeadRef: "longer", Base: "main"},
			Checks: []delivery.Check{{Context: "aob/train", State: delivery.CheckPending, Description: "epoch 12/30"},
				{Context: "aob/release", State: delivery.CheckPending, Description: "shapes: train: epoch 12/30"}},
			Models: []explain.Change{{Model: "shapes", Spec: &training, State: delivery.CheckPending,
				Text: "shapes: train: epoch 12/30", Data: &data}}},
		{PR: delivery.PullRequest{Number: 4, Title: "Make it worse", Author: "jonas", Head: commit("d"),
			HeadRef: "worse", Base: "main"},
			Checks: []delivery.Check{{Context: "aob/release", State: delivery.CheckFailure,
				Description: "shapes: gate/production: mAP 0.1000 < 0.30"}},
			Models: []explain.Change{{Model: "shapes", Spec: &failing, State: delivery.CheckFailure,
				Text: "shapes: gate/production: mAP 0.1000 < 0.30", Data: &data,
				Bundle: sum("bundle 4"), Baseline: &v2, Verdicts: []delivery.Verdict{verdict(sum("bundle 4"),
					delivery.Fail)}}}},
		{PR: delivery.PullRequest{Number: 5, Title: "A typo", Author: "jonas", Head: commit("e"), HeadRef: "typo",
			Base: "main"},
			Complaints: []delivery.Complaint{{File: "models/shapes.yaml", Line: 3, Column: 1, Path: "epoch",
				Text: "unknown key; did you mean epochs?"}}},
	}
	f.Trainings[sum("bundle 4")] = delivery.Training{Run: sum("run 4"), Spec: failing.Digest(),
		Input: delivery.TrainRun{Spec: failing, Seed: 1, Machine: "train-local", Training: sum("training input"),
			Trainer: sum("trainer")}, Data: data,
		Result: delivery.TrainResult{Bundle: sum("bundle 4"), Model: sum("onnx 4"), Attempts: 1}}
	f.Scores[sum("score of "+string(sum("bundle 4")))] = delivery.Scores{Key: sum("score of " +
		string(sum("bundle 4"))),
		Input: delivery.EvalRun{Bundle: sum("bundle 4"),
			EvalSet:  delivery.EvalSet{Dataset: delivery.Dataset{Source: "dir", Path: "shapes"}, Split: "test"},
			Protocol: sum("protocol")},
		Scores: delivery.ScoreSet{Detections: sum("detections"), Images: 40, Values: map[string]float64{"mAP": 0.1}}}
	return f
}

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
			chain, err := f.Explain(c.kind, c.id)
			if err != nil {
				t.Fatal(err)
			}
			if chain.Kind != c.kind {
				t.Errorf("kind %s, want %s", chain.Kind, c.kind)
			}
			golden(t, c.name+".txt", chain.String())
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
		chain, err := f.Explain(c.kind, c.id)
		if err != nil {
			t.Fatal(err)
		}
		text := chain.String()
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
		again, _ := f.Explain(c.kind, c.id)
		if diff := cmp.Diff(chain, again); diff != "" {
			t.Errorf("the same facts gave another chain:\n%s", diff)
		}
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
		if _, err := f.Explain(explain.PR, "2"); (err == nil) != found {
			t.Errorf("%q: %v", subject, err)
		}
	}
	f := world()
	f.Versions["shapes"][0].Subject = "Train for longer"
	if _, err := f.Explain(explain.PR, "2"); err != nil {
		t.Errorf("by its head: %v", err)
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
		{"fleet", "demo", "pr, a commit"},
	} {
		_, err := f.Explain(c.kind, c.id)
		unknown, ok := errors.AsType[explain.Unknown](err)
		if !ok || !strings.Contains(unknown.Hint(), c.hint) {
			t.Errorf("%s %s: %v, hint %q, want one with %q", c.kind, c.id, err, unknown.Hint(), c.hint)
		}
	}
}

func TestSeveralCommitsBeginAlike(t *testing.T) {
	f := world()
	f.Proposals[0].PR.Head = "b000" + strings.Repeat("1", 36)
	_, err := f.Explain(explain.Commit, "b000")
	unknown, ok := errors.AsType[explain.Unknown](err)
	if !ok || !strings.Contains(unknown.Do, commit("b")) || !strings.Contains(unknown.Do, f.Proposals[0].PR.Head) {
		t.Errorf("%v: %s", err, unknown.Do)
	}
}

// A release that was withdrawn says so wherever it is told.
func TestWithdrawn(t *testing.T) {
	f := world()
	f.Aborts = []delivery.Abort{{Fleet: "demo", Model: "shapes", Bundle: sum("bundle 2"), Why: "2 of 3 devices failed",
		At: noon}}
	f.Quarantines = map[string]delivery.Quarantine{"shapes": {Entries: []delivery.Quarantined{{Digest: sum("bundle 2"),
		Why: "2 of 3 devices failed"}}}}
	for kind, id := range map[explain.Kind]string{explain.Model: "shapes", explain.Device: "dock-1",
		explain.Commit: commit("b")} {
		chain, err := f.Explain(kind, id)
		if err != nil {
			t.Fatal(err)
		}
		if s := chain.String(); !strings.Contains(s, "fell back from it") || !strings.Contains(s, "must not run") {
			t.Errorf("%s says nothing of it:\n%s", kind, s)
		}
	}
}

// A model that runs without evidence is told as that, never passed over.
func TestBundleThatMainNeverAccepted(t *testing.T) {
	f := world()
	f.Devices[0].Report.Bundle, f.Devices[0].Report.Release = sum("from elsewhere"), 0
	chain, err := f.Explain(explain.Device, "dock-2")
	if err != nil {
		t.Fatal(err)
	}
	if s := chain.String(); !strings.Contains(s, "main never accepted this bundle") ||
		!strings.Contains(s, "no longer holds it") {
		t.Error(s)
	}
}

func TestManyDevices(t *testing.T) {
	f := world()
	for range 100 {
		f.Devices = append(f.Devices, device("more", 2, delivery.DeviceHealthy))
	}
	chain, err := f.Explain(explain.Commit, commit("b"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(chain.String(), "\ndevice "); n != 21 || !strings.Contains(chain.String(), "and 82 more") {
		t.Errorf("%d devices told:\n%s", n, chain)
	}
}

// What strangers write reaches no terminal as control characters.
func FuzzPlain(f *testing.F) {
	f.Add("\x1b[2Jred", "a\nb\rc", "dock-1")
	f.Add("\u202eevil", string([]byte{0xff, 0xfe}), "#2")
	f.Fuzz(func(t *testing.T, title, why, id string) {
		facts := world()
		facts.Proposals[0].PR.Title, facts.Proposals[0].PR.Author = title, id
		facts.Devices[2].Report.Why, facts.Devices[2].Report.Slot = why, title
		facts.Versions["shapes"][0].Subject = why
		for kind, id := range map[explain.Kind]string{explain.PR: "3", explain.Device: "dock-3",
			explain.Model: "shapes", explain.Commit: id} {
			chain, err := facts.Explain(kind, id)
			text := chain.String()
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
		if _, err := facts.Explain(explain.Kind(kind), id); err != nil {
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
	s := &f.Statements[1]
	s.RenamedFrom = "forms"
	s.Gates[0].Verdict.Outcome = delivery.Unsure
	s.Gates[0].Accept = &delivery.Accept{Verdict: s.Gates[0].Verdict.Key, By: "lead", Because: "the set is small",
		At: noon}
	c, err := f.Explain(explain.Device, "dock-1")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"every gate passed or was accepted", "until then it was forms",
		"gate production was unsure, and lead accepted it", "the set is small"} {
		if text := strings.Join(strings.Fields(c.String()), " "); !strings.Contains(text, want) {
			t.Errorf("the chain does not say %q:\n%s", want, c)
		}
	}
}

// A bundle with thresholds leads to the one that was trained, and a spec with several
// seeds to all of them; a verdict says how often one looked, and at what.
func TestThresholdsSeedsAndLooks(t *testing.T) {
	f := world()
	release := *f.Models[0].Accepted
	trained := f.Trainings[release.Bundle]
	delete(f.Trainings, release.Bundle)
	from := sum("trained")
	trained.Result.Bundle = from
	trained.Seeds = []delivery.SeedScore{{Seed: 1, Bundle: from, Score: sum("s1"), MAP: 0.41},
		{Seed: 2, Bundle: sum("other"), Score: sum("s2"), MAP: 0.39}}
	f.Specs = map[delivery.Digest]delivery.Training{release.Spec: trained}
	precision := 0.9
	f.Resolved = map[delivery.Digest]delivery.Resolved{release.Bundle: {Key: sum("thresholds"),
		Input: delivery.ThresholdRun{Valid: delivery.EvalRun{Bundle: from,
			EvalSet: delivery.EvalSet{Dataset: delivery.Dataset{Source: "dir", Path: "shapes"}, Split: "valid"}},
			Ask: delivery.Thresholds{"default": {Precision: &precision}}},
		Result: delivery.ThresholdResult{Bundle: release.Bundle,
			Points: map[string]delivery.OperatingPoint{"circle": {Score: 0.42, Precision: 0.91, Recall: 0.7}}}}}
	for i, s := range f.Statements {
		if s.Bundle == release.Bundle {
			v := &f.Statements[i].Gates[0].Verdict
			v.Look, v.Looks, v.Images, v.LeftOut, v.Baseline = 3, 10, 70, 2, sum("bundle 1")
		}
	}
	c, err := f.Explain(explain.Commit, commit("b"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"seed 1: mAP 0.4100 on validation, bundle " + from.Short() + ", the best, which is the model",
		"found on dir:shapes valid, which trains nothing, and added to bundle " + from.Short(),
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
func TestAReleaseThatWasWrittenTwiceIsOneVersion(t *testing.T) {
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
		chain, err := f.Explain(explain.Model, "shapes")
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
func TestSecondQuarantineEntryIsToldRight(t *testing.T) {
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
			[]string{"and lifted: a camera was broken; another entry still holds it", "must not run: it failed again"},
			""},
		{[]delivery.Quarantined{again, old}, nil,
			[]string{"and lifted: a camera was broken; another entry still holds it", "must not run: it failed again"},
			""},
		{[]delivery.Quarantined{again, more}, nil, []string{"must not run: it failed again",
			"another entry says that it must not run: it is slow"}, "lifted"},
		{[]delivery.Quarantined{old}, []delivery.Quarantined{more}, []string{"another entry still holds it",
			"must not run: it is slow (in models/other.quarantine.yaml)"}, ""},
	} {
		f := world()
		f.Quarantines = map[string]delivery.Quarantine{"shapes": {Entries: c.entries}, "other": {Entries: c.elsewhere}}
		chain, err := f.Explain(explain.Model, "shapes")
		if err != nil {
			t.Fatal(err)
		}
		s := strings.Join(strings.Fields(chain.String()), " ")
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
	f := explain.Facts{Devices: []delivery.Device{device("dock-1", 2, delivery.DeviceHealthy)}}
	for silent, want := range map[bool]string{
		false: "runs version 2 in fleet demo, healthy, slot b",
		true:  "runs version 2 in fleet demo, healthy, slot b; it has been silent since it said so",
	} {
		f.Silent = func(delivery.Device) bool { return silent }
		c, err := f.Explain(explain.Device, "dock-1")
		if err != nil || c.Links[0].Text != want {
			t.Errorf("silent %v: %+v, error %v; want %q", silent, c.Links, err, want)
		}
	}
}
