package view

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/explain"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/run"
	"github.com/autonomos/aob/reconciler/store"
	"github.com/autonomos/aob/reconciler/web"
	"github.com/autonomos/aob/reconciler/words"
)

var viewTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func digestOf(s string) delivery.Digest { return delivery.Sum([]byte(s)) }

func hashOf(s string) string { return digestOf(s).Hex()[:40] }

// viewModel is a model of so many epochs.
func viewModel(epochs int) delivery.Model {
	return delivery.Model{Name: "shapes", Dataset: delivery.Dataset{Source: "dir", Path: "shapes"},
		Classes: delivery.Classes{{Name: "circle", Labels: []string{"circle"}}},
		Train:   delivery.Train{With: "tiny@1", Epochs: epochs, Seeds: []int64{1}}, Variants: []string{"fp32"}}
}

// viewed is the snapshot of a world with one release, a fleet of three devices
// and two pull requests, of which one is in its data run.
func viewed(t *testing.T) *Snapshot {
	t.Helper()
	now := viewModel(4)
	release := delivery.Release{APIVersion: delivery.APIVersion, Kind: "Release", Name: "shapes", Version: 1,
		Bundle: digestOf("bundle"), Spec: now.SpecDigest(),
		Measured: []delivery.Measured{{Gate: "production", EvalSet: digestOf("eval set"), Images: 40,
			Metrics: map[string]delivery.Figure{"mAP": {Value: 0.4}}}}}
	floor := 0.3
	main := delivery.Intent{Models: delivery.NamedOf(map[string]delivery.Model{"shapes": now}),
		Releases: delivery.NamedOf(map[string]delivery.Release{"shapes": release}),
		Gates: delivery.NamedOf(map[string]delivery.Gate{"production": {Name: "production", Covers: []string{"shapes"},
			Evaluate: delivery.EvalSet{Dataset: delivery.Dataset{Source: "dir", Path: "shapes"}, Split: "test"},
			Checks:   []delivery.GateCheck{{Metric: "mAP", Min: &floor}}}}),
		Fleets: delivery.NamedOf(map[string]delivery.Fleet{"demo": {Name: "demo", Runs: "shapes",
			Waves: []delivery.Wave{{Devices: 1}, {Share: 1}}, Advance: "all-healthy"}})}
	changed := main
	changed.Models = delivery.NamedOf(map[string]delivery.Model{"shapes": viewModel(8)})
	trained := plan.Trained{Bundle: release.Bundle, Training: delivery.Training{Run: digestOf("run"),
		Spec: release.Spec, Input: delivery.TrainRun{Spec: now.Spec(), Seed: 1, Machine: "train-local"},
		Result: delivery.TrainResult{Bundle: release.Bundle, Model: digestOf("onnx")}}}
	device := func(id string, phase delivery.DevicePhase, bundle delivery.Digest) delivery.Device {
		return delivery.Device{LastHeard: viewTime, Report: delivery.Report{Device: id, Ring: "demo", Phase: phase,
			Bundle: bundle, Release: 1, Slot: "a"}}
	}
	w := plan.World{At: viewTime, ProposalsKnown: true,
		Main: plan.Main{Branch: "main", Commit: hashOf("main"), Intent: main},
		Proposals: []plan.Proposal{
			{PullRequest: delivery.PullRequest{Number: 9, Title: "A typo", Author: "jonas", Head: hashOf("typo"),
				Base: "main"}, Bases: []string{hashOf("main")},
				Complaints: []delivery.Complaint{{File: "models/shapes.yaml", Line: 3, Text: "unknown key"}}},
			{PullRequest: delivery.PullRequest{Number: 3, Title: "Longer", Author: "maria", Head: hashOf("longer"),
				HeadRef: "longer", Base: "main"}, Permission: delivery.PermissionWrite, Intent: changed, Base: main,
				Merged: changed, Bases: []string{hashOf("main")}},
		},
		Runs: map[delivery.Digest]delivery.RunState{},
		Evidence: plan.Evidence{BySpec: map[delivery.Digest]plan.Trained{release.Spec: trained},
			ByRun:   map[delivery.Digest]plan.Trained{trained.Training.Run: trained},
			Bundles: map[delivery.Digest]plan.Bundle{release.Bundle: {Size: 4_000_000}},
			Accepted: map[string][]delivery.Acceptance{"shapes": {{Model: "shapes", Version: 1, Spec: release.Spec,
				Bundle: release.Bundle, Commit: hashOf("main")}}},
			Releases: []delivery.ReleaseStatement{{Model: "shapes", Version: 1, Spec: release.Spec,
				Bundle: release.Bundle, File: release}}},
		Devices: map[string][]delivery.Device{
			"demo": {device("dock-2", delivery.DeviceFailed, ""), device("dock-1", delivery.DeviceHealthy,
				release.Bundle), device("dock-3", delivery.DeviceHealthy, digestOf("other"))},
			"old": {{LastHeard: viewTime, Report: delivery.Report{Device: "cart", Ring: "old",
				Phase: delivery.DeviceIdle}}},
		},
		Server: plan.Server{Trainers: map[string]delivery.Trainer{
			"tiny@1": {Files: digestOf("trainer"), Accelerator: "cpu"}}},
	}
	// What the pull request asks for first is running, and another run is over.
	for _, s := range plan.Make(w).Steps {
		if start, ok := s.(plan.StartRun); ok {
			w.Runs[start.Spec.Key] = delivery.RunState{Spec: start.Spec, Phase: delivery.RunRunning, Stage: "check",
				Attempt: 1, Started: viewTime, Status: delivery.RunStatus{Batch: 10, Batches: 40}}
		}
	}
	if len(w.Runs) != 1 {
		t.Fatalf("%d runs started, want the data run", len(w.Runs))
	}
	w.Runs[trained.Training.Run] = delivery.RunState{Spec: delivery.RunSpec{Key: trained.Training.Run,
		Kind: delivery.RunTrain}, Phase: delivery.RunDone}
	return &Snapshot{World: w, Plan: plan.Make(w), At: viewTime}
}

func TestViewOfStatus(t *testing.T) {
	s := viewed(t).Status()
	if s.Main.Branch != "main" || s.Main.Commit != hashOf("main") || len(s.Main.Checks) == 0 {
		t.Errorf("main: %+v", s.Main)
	}
	if len(s.Models) != 1 || s.Models[0].Accepted == nil || s.Models[0].Accepted.Version != 1 ||
		s.Models[0].State != delivery.CheckSuccess {
		t.Errorf("models: %+v", s.Models)
	}
	if len(s.PRs) != 2 || s.PRs[1].Number != 3 || s.PRs[1].State != delivery.CheckPending ||
		s.PRs[0].State != delivery.CheckFailure {
		t.Errorf("pull requests: %+v", s.PRs)
	}
	if len(s.Runs) != 1 || s.Runs[0].Kind != delivery.RunData || s.Runs[0].Batch != 10 ||
		fmt.Sprint(s.Runs[0].PRs) != "[3]" {
		t.Errorf("runs: %+v; want the one that runs, and not what is over", s.Runs)
	}
	if len(s.PRs[1].Runs) != 1 || len(s.PRs[0].Runs) != 0 {
		t.Errorf("runs of pull requests: %+v, %+v", s.PRs[0].Runs, s.PRs[1].Runs)
	}
	if len(s.Fleets) != 2 {
		t.Fatalf("fleets: %+v", s.Fleets)
	}
	demo, old := s.Fleets[0], s.Fleets[1]
	if demo.Name != "demo" || demo.Target.Version != 1 ||
		demo.Count != (web.Count{Devices: 3, Heard: 3, Healthy: 1, Failed: 1}) || demo.Waves != 2 {
		t.Errorf("fleet: %+v", demo)
	}
	if len(demo.Devices) != 3 || demo.Devices[0].ID != "dock-1" || demo.Devices[1].Phase != delivery.DeviceFailed {
		t.Errorf("devices: %+v", demo.Devices)
	}
	if old.Name != "old" || !strings.Contains(old.Text, "no fleet on main") || len(old.Devices) != 1 {
		t.Errorf("a ring without a fleet: %+v", old)
	}
	if len(s.Notices) != 0 {
		t.Errorf("notices: %q", s.Notices)
	}
	if _, err := json.Marshal(s); err != nil {
		t.Error(err)
	}
}

func TestViewOfTrouble(t *testing.T) {
	snap := viewed(t)
	snap.World.ProposalsKnown = false
	snap.World.Main.Complaints = []delivery.Complaint{{File: "models/shapes.yaml", Text: "is too large"}}
	snap.Plan = plan.Make(snap.World)
	s := snap.Status()
	if len(s.Notices) != 2 || !strings.Contains(s.Notices[1], "models/shapes.yaml: is too large") {
		t.Errorf("notices: %q", s.Notices)
	}
}

// Nothing is said to be missing from a main that cannot be read, or whose evidence a newer aob has signed.
func TestUnreadableMainLacksNothing(t *testing.T) {
	for name, c := range map[string]struct {
		blind func(*plan.World)
		why   string
	}{
		"a typo": {func(w *plan.World) {
			w.Main.Complaints = []delivery.Complaint{{File: "fleets/old.yaml", Line: 3, Column: 1, Text: "unknown key"}}
		}, "main cannot be read: fleets/old.yaml:3:1: unknown key"},
		"a newer format": {func(w *plan.World) {
			w.Main.Complaints = []delivery.Complaint{{File: "models/shapes.release.yaml",
				Text: "this file is for a newer aob"}, {File: "x", Text: "y"}}
		}, "main cannot be read: models/shapes.release.yaml: this file is for a newer aob (and 1 more)"},
		"newer statements": {func(w *plan.World) {
			w.Evidence.Newer = []delivery.NewerStatements{{Kind: "acceptance", Format: 2, Known: 1, Count: 3}}
		}, "a newer aob has signed what this one cannot read: 3 acceptance statements of format 2"},
	} {
		t.Run(name, func(t *testing.T) {
			snap := viewed(t)
			c.blind(&snap.World)
			snap.World.Main.Intent.Models = delivery.Named[delivery.Model]{}
			snap.World.Main.Intent.Fleets = delivery.Named[delivery.Fleet]{}
			snap.World.Main.Intent.Gates = delivery.Named[delivery.Gate]{}
			snap.Plan = plan.Make(snap.World)
			s := snap.Status()
			rings := 0
			for _, f := range s.Fleets {
				rings++
				has := func(c delivery.Code) bool {
					return slices.ContainsFunc(f.Facts, func(f delivery.Fact) bool { return f.Has(c) })
				}
				if has(code.RingOfNoFleet) || !has(code.DevicesKeep) || !strings.Contains(f.Text, c.why) {
					t.Errorf("fleet %s: %v: %s", f.Name, f.Facts, f.Text)
				}
			}
			if rings < 2 {
				t.Errorf("%d fleets are shown; want those of all devices", rings)
			}
			if notices := strings.Join(s.Notices, "\n"); !strings.Contains(notices, "stay as they are") {
				t.Errorf("the notices are %q", notices)
			}
			if _, err := snap.Explain(explain.Model, "nobody-knows", nil); err == nil ||
				strings.Contains(err.Error(), "nothing is known") || !strings.Contains(err.Error(), c.why) {
				t.Errorf("a model: %v", err)
			}
			if chain, err := snap.Explain(explain.Model, "shapes", nil); err != nil ||
				strings.Contains(chain.Title, "not on main") || !strings.Contains(chain.Title, c.why) {
				t.Errorf("a model that was released: %q, %v", chain.Title, err)
			}
			if _, err := snap.side("release", "shapes"); err == nil ||
				strings.Contains(err.Error(), "has no release") || !strings.Contains(err.Error(), c.why) {
				t.Errorf("its release: %v", err)
			}
			if err := snap.unknown(explain.Unknown{Kind: "gate", ID: "production"}); !strings.Contains(err.Error(),
				c.why) {
				t.Errorf("a gate: %v", err)
			}
			if err := snap.unknown(explain.Unknown{Kind: explain.PR, ID: "99"}); strings.Contains(err.Error(), c.why) {
				t.Errorf("a pull request, which main says nothing of: %v", err)
			}
		})
	}
}

func TestViewOfAPullRequest(t *testing.T) {
	snap := viewed(t)
	p, err := snap.PR(3)
	if err != nil || len(p.Models) != 1 || p.Models[0].Model != "shapes" || p.Models[0].Baseline == nil {
		t.Errorf("%+v, %v", p, err)
	}
	if of := p.Models[0].Trainer; of != nil {
		t.Errorf("the trainer is the same, and it says %+v", of)
	}
	snap.Plan.Proposals[slices.IndexFunc(snap.Plan.Proposals, func(p plan.ProposalReport) bool {
		return p.PR.Number == 3
	})].Models[0].Moved = delivery.Fact{Code: code.DefaultsMoved, Values: delivery.Values{FromModel: "tiny@1",
		Model: "tiny@2", Names: []string{"momentum 0.9 -> 0.8"}}}
	if p, err = snap.PR(3); err != nil || p.Models[0].Trainer == nil ||
		p.Models[0].Trainer.Text != "tiny@1 -> tiny@2: momentum 0.9 -> 0.8" {
		t.Errorf("%+v, %v", p.Models[0].Trainer, err)
	}
	if p, err = snap.PR(9); err != nil || len(p.Complaints) != 1 {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err = snap.PR(1); !errors.As(err, new(explain.Unknown)) {
		t.Errorf("a pull request that is not open: %v", err)
	}
}

// The training behind stored evidence belongs to a pull request of its content.
func TestViewOfAnOldTraining(t *testing.T) {
	snap := viewed(t)
	back := snap.World.Proposals[1]
	back.Intent = snap.World.Main.Intent
	back.Merged = back.Intent
	back.Base.Models = delivery.NamedOf(map[string]delivery.Model{})
	snap.World.Proposals = []plan.Proposal{back}
	snap.Plan = plan.Make(snap.World)
	p, err := snap.PR(3)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, r := range p.Runs {
		found = found || r.Key == digestOf("run")
	}
	if !found {
		t.Errorf("runs: %+v", p.Runs)
	}
}

func TestViewOfManyDevices(t *testing.T) {
	snap := viewed(t)
	list := snap.World.Devices["demo"]
	for i := range 5000 {
		d := list[1]
		d.Report.Device = fmt.Sprintf("a-%04d", i)
		list = append(list, d)
	}
	snap.World.Devices["demo"] = list
	demo := snap.Status().Fleets[0]
	if len(demo.Devices) != maxDevices || demo.More != 5003-maxDevices || demo.Count.Devices != 5003 {
		t.Errorf("%d devices and %d more of %d", len(demo.Devices), demo.More, demo.Count.Devices)
	}
	if last := demo.Devices[len(demo.Devices)-1]; last.ID != "dock-2" {
		t.Errorf("the failed one is not listed; the last is %s", last.ID)
	}
}

func TestViewCounts(t *testing.T) {
	c := viewed(t).Counts()
	if c.Runs[web.RunCount{Kind: delivery.RunData, Phase: delivery.RunRunning}] != 1 ||
		c.Runs[web.RunCount{Kind: delivery.RunTrain, Phase: delivery.RunDone}] != 1 ||
		c.Devices[web.DeviceCount{Fleet: "demo", Phase: delivery.DeviceHealthy}] != 2 ||
		c.Devices[web.DeviceCount{Fleet: "old", Phase: delivery.DeviceIdle}] != 1 {
		t.Errorf("%+v", c)
	}
	s := &Source{Loop: starting{}}
	if c := s.Counts(); len(c.Runs) != 0 {
		t.Errorf("before the first turn: %+v", c)
	}
	if err := s.Ready(); err == nil {
		t.Error("ready before the first turn")
	}
}

// A log is shown without the secrets of the configuration, from each offset.
func TestViewMasksLogs(t *testing.T) {
	key := delivery.Sum([]byte("run"))
	last := &Snapshot{World: plan.World{Runs: map[delivery.Digest]delivery.RunState{
		key: {Spec: delivery.RunSpec{Kind: delivery.RunTrain, Key: key}, Phase: delivery.RunDone}}}}
	dir := t.TempDir()
	file := filepath.Join(dir, run.Folder("runs", delivery.RunTrain, key), "output", "log.txt")
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700),
		os.WriteFile(file, []byte("a ?token=hf_S3cr3t b\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	s := &Source{Loop: loopAt{last: last}, Logs: []Files{store.Folder(dir)},
		Mask: func() delivery.Mask { return delivery.NewMask(slices.Values([]string{"hf_S3cr3t"})) }}
	for offset, want := range map[int64]string{0: "a ?token=********* b\n", 12: "****** b\n", 100: ""} {
		log, err := s.Log(t.Context(), string(key), offset)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(log)
		if err != nil || string(got) != want || log.Offset != min(offset, 21) {
			t.Errorf("from %d: %q at %d, %v, want %q", offset, got, log.Offset, err, want)
		}
		log.Close()
	}
}

// A number is no key of a run, but may be that of a pull request.
func TestLogOfANumber(t *testing.T) {
	s := &Source{Loop: loopAt{last: &Snapshot{}}}
	for name, want := range map[string]string{"12": "aob logs pr 12 prints", "ffff": "aob status lists"} {
		_, err := s.Log(t.Context(), name, 0)
		if u, ok := errors.AsType[explain.Unknown](err); !ok || !strings.HasPrefix(u.Do, want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
}

// loopAt is a loop after a turn.
type loopAt struct {
	Loop
	last *Snapshot
}

func (l loopAt) Last() *Snapshot { return l.last }

// A starting loop has not taken a turn yet.
type starting struct{ Loop }

func (starting) Waiting() map[string]int { return nil }

func (starting) Last() *Snapshot { return nil }
func (starting) Unknown() error  { return errors.New("nothing is known yet") }

// past is a repository with two commits that named the release.
type past struct{ release delivery.Release }

func (p past) History(head, path string) ([]git.FileVersion, error) {
	if path != "models/shapes.release.yaml" || head != hashOf("main") {
		return nil, nil
	}
	return []git.FileVersion{{Commit: hashOf("main"), Blob: "blob"}, {Commit: hashOf("branch"), Blob: "blob"},
		{Commit: hashOf("before"), Blob: "large"}, {Commit: hashOf("first")}}, nil
}

func (p past) Blob(hash string, _ int64) ([]byte, error) {
	if hash == "large" {
		return nil, fmt.Errorf("blob: %w", git.ErrTooBig)
	}
	return intent.FormatRelease(p.release, nil), nil
}

func (p past) Subject(commit string) (string, error) {
	switch commit {
	case hashOf("main"):
		return "Train longer (#2)", nil
	case hashOf("gate only"):
		return "Merge 5: raise the gate", nil
	}
	return "Release shapes version 1", nil
}

func (p past) FirstParents(head string, _ int) ([]string, error) {
	return []string{head, hashOf("gate only")}, nil
}

func (p past) Author(string) (name, email string, when time.Time, err error) {
	return "maria", "", viewTime, nil
}

func (p past) Refs() map[string]string {
	return map[string]string{"refs/heads/main": hashOf("main"), "refs/pull/1/head": hashOf("branch"),
		"refs/pull/x/head": "bad", "refs/pull/9": "bad"}
}

func TestViewExplains(t *testing.T) {
	snap := viewed(t)
	commits := past{snap.World.Main.Intent.Releases.Of("shapes")}
	for _, c := range []struct {
		kind explain.Kind
		id   string
		want []string
	}{
		{explain.PR, "3", []string{"#3 Longer, by maria", "content"}},
		{explain.PR, "2", []string{"#2, no longer open: shapes version 1", "Train longer (#2), by maria",
			"fleet       demo"}},
		{explain.PR, "1", []string{"#1, no longer open: shapes version 1"}},
		{explain.PR, "5", []string{"#5, no longer open: merged into main as", "(Merge 5: raise the gate)",
			"by maria; it released no model"}},
		{explain.Commit, hashOf("main")[:10], []string{"shapes version 1", "acceptance"}},
		{explain.Model, "shapes", []string{"shapes@1", "by maria", "removed, or could not be read",
			"fleet       demo"}},
		{explain.Device, "dock-1", []string{"dock-1 runs shapes version 1", "train-local",
			"signed: every gate passed"}},
		{explain.Device, "cart", []string{"runs nothing yet"}},
	} {
		chain, err := snap.Explain(c.kind, c.id, commits)
		if err != nil {
			t.Errorf("%s %s: %v", c.kind, c.id, err)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(words.ChainText(chain, 80), want) {
				t.Errorf("%s %s lacks %q:\n%s", c.kind, c.id, want, words.ChainText(chain, 80))
			}
		}
	}
	for kind, id := range map[explain.Kind]string{explain.Model: "../secret", explain.Device: "nobody",
		explain.Commit: "ffffffff"} {
		if _, err := snap.Explain(kind, id, commits); !errors.As(err, new(explain.Unknown)) {
			t.Errorf("%s %s: %v", kind, id, err)
		}
	}
	// Without the repository: what signed statements say.
	chain, err := snap.Explain(explain.Model, "shapes", nil)
	if err != nil || !strings.Contains(words.ChainText(chain, 80), "shapes@1") {
		t.Errorf("without commits: %v\n%s", err, words.ChainText(chain, 80))
	}
}

// A merged pull request is shown with what its release says, as long as main's history has it.
func TestMergedPullRequestsAreShown(t *testing.T) {
	snap := viewed(t)
	release := snap.World.Main.Intent.Releases.Of("shapes")
	snap.World.Evidence.Releases[0].Gates = []delivery.GateJudged{{Name: "production", Verdict: delivery.Verdict{
		Gate: "production", Model: "shapes", Outcome: delivery.Pass}}}
	source := Source{Loop: taken{snap: snap}, Commits: past{release}}
	pr, err := source.PR(t.Context(), 2)
	if err != nil || !pr.Merged || pr.Number != 2 || pr.Title != "Train longer (#2)" || pr.Author != "maria" ||
		pr.State != delivery.CheckSuccess || !strings.Contains(pr.Text,
		"shapes: merged: version 1") || len(pr.Models) == 0 ||
		pr.Models[0].Bundle != release.Bundle || len(pr.Models[0].Verdicts) != 1 || len(pr.Models[0].Measured) != 1 {
		t.Errorf("%+v, %v", pr, err)
	}
	snap.World.Evidence.Releases[0].Gates[0].Verdict.Outcome = delivery.Unsure
	snap.World.Evidence.Releases[0].Gates[0].Accept = &delivery.Accept{By: "ada", Because: "the set is small"}
	if pr, err = source.PR(t.Context(), 2); err != nil || len(pr.Models) == 0 || len(pr.Models[0].Settle) != 1 ||
		!strings.Contains(pr.Models[0].Settle[0].Text, "production was unsure, and ada accepted it") ||
		!strings.HasSuffix(pr.Models[0].Settle[0].Text, ": the set is small") {
		t.Errorf("one that an owner accepted: %+v, %v", pr, err)
	}
	if pr, err = source.PR(t.Context(), 5); err != nil || !pr.Merged || pr.Text != "merged" || len(pr.Models) > 0 {
		t.Errorf("one that released nothing: %+v, %v", pr, err)
	}
	if _, err = source.PR(t.Context(), 77); !errors.As(err, new(explain.Unknown)) {
		t.Errorf("one that nobody knows: %v", err)
	}
	if pr, err = source.PR(t.Context(), 3); err != nil || pr.Merged {
		t.Errorf("an open one: %+v, %v", pr, err)
	}
}

// taken is a loop that has taken a turn.
type taken struct {
	Loop
	snap *Snapshot
}

func (l taken) Last() *Snapshot { return l.snap }

// The status says whom each pull request waits for.
func TestStatusSaysWhomAPullRequestWaitsFor(t *testing.T) {
	doubt := []plan.ModelReport{{Unsure: []plan.UnsureVerdict{{Owners: []string{"vera", "ada"}}}},
		{Unsure: []plan.UnsureVerdict{
			{Owners: []string{"ada"}}, {Owners: []string{"eve"}, Accept: &delivery.Accept{}}}}}
	for want, c := range map[string]struct {
		report plan.ProposalReport
		state  delivery.CheckState
	}{
		"a merge":          {plan.ProposalReport{}, delivery.CheckSuccess},
		"ready for review": {plan.ProposalReport{PR: delivery.PullRequest{Draft: true}}, delivery.CheckSuccess},
		"its author":       {plan.ProposalReport{}, delivery.CheckFailure},
		"approval":         {plan.ProposalReport{ApprovalCommands: []string{"/aob run 1"}}, delivery.CheckPending},
		"ada or vera":      {plan.ProposalReport{Models: doubt}, delivery.CheckPending},
		"AOB":              {plan.ProposalReport{}, delivery.CheckPending},
		"":                 {plan.ProposalReport{PR: delivery.PullRequest{Merged: true}}, delivery.CheckSuccess},
	} {
		if got := waitsFor(c.report, c.state); got != want {
			t.Errorf("%+v: %q, want %q", c.report, got, want)
		}
	}
}

// Only what was heard within the deadline is current: a dead fleet is not healthy,
// in the status and in the metrics.
func TestDeadFleetIsNotShownAsHealthy(t *testing.T) {
	s := viewed(t)
	s.World.Server.Deadline = delivery.Duration(2 * time.Minute)
	s.At = viewTime.Add(8 * time.Minute)
	s.Plan.Fleets[0].State = delivery.CheckSuccess // as the last turn saw it
	demo := s.Status().Fleets[0]
	if demo.Count != (web.Count{Devices: 3}) || !demo.Devices[0].Silent || demo.State != delivery.CheckPending ||
		demo.Text != "0 of 3 devices seen in the last 2m" {
		t.Errorf("got %+v", demo)
	}
	if c := s.Counts().Devices; c[web.DeviceCount{Fleet: "demo", Phase: web.PhaseSilent}] != 3 ||
		c[web.DeviceCount{Fleet: "demo", Phase: delivery.DeviceHealthy}] != 0 {
		t.Errorf("metrics: %v", c)
	}
	// One that speaks again counts again, without a turn of the loop.
	devices := s.World.Devices["demo"]
	devices[1].LastHeard = s.At
	if demo = s.now(devices, s.At).Status().Fleets[0]; demo.Count != (web.Count{Devices: 3, Heard: 1, Healthy: 1}) {
		t.Errorf("got %+v", demo.Count)
	}
}

// What is strange about a device has a name.
func TestDeviceProblemsHaveNames(t *testing.T) {
	s := viewed(t)
	d := &s.World.Devices["demo"][1] // dock-1
	d.Skew = 72 * time.Hour
	d.Report.Blocked = "the document expired"
	d.TwoPlacesAt = s.At
	demo := s.Status().Fleets[0]
	if got := strings.Join(demo.Devices[0].Notes, ""); !strings.Contains(got, "its clock is 72h ahead") ||
		!strings.Contains(got, "the document expired") || !strings.Contains(got, "two places") {
		t.Errorf("got %q", got)
	}
	if demo.Count.Held != 1 || demo.Count.Healthy != 0 ||
		s.Counts().Devices[web.DeviceCount{Fleet: "demo", Phase: web.PhaseHeld}] != 1 {
		t.Errorf("got %+v", demo.Count)
	}
}

// The status says what the server's store has lost, and what to do.
func TestStatusSaysWhatTheStoreHasLost(t *testing.T) {
	s := viewed(t)
	bundle := s.Plan.Fleets[0].Target.Bundle
	s.World.Stored = map[delivery.Digest]plan.Stored{bundle: {At: s.At, Lost: []string{"model.onnx (blobs/sha256/x)"}}}
	notices := strings.Join(s.Status().Notices, "\n")
	for _, want := range []string{"model.onnx (blobs/sha256/x)", "shapes version 1", "copy the file from a backup"} {
		if !strings.Contains(notices, want) {
			t.Errorf("%q is not in %q", want, notices)
		}
	}
	if s.Counts().Lost != 1 {
		t.Error("not counted")
	}
}

// Who asks for a version that does not exist is told where the versions are.
func TestReleaseOfAVersion(t *testing.T) {
	s := &Snapshot{}
	s.World.Evidence.Accepted = map[string][]delivery.Acceptance{"shapes": {{Version: 2, Bundle: digestOf("two"),
		Variants: []delivery.AcceptedVariant{{Variant: "int8", Bundle: digestOf("int8")}}}}}
	s.World.Main.Intent.Quarantines = delivery.NamedOf(map[string]delivery.Quarantine{"shapes": {
		Entries: []delivery.Quarantined{{Digest: digestOf("int8"), Why: "smoke"}}}})
	if r, err := s.Release("shapes", 2); err != nil || r.Bundle != digestOf("two") || r.Quarantined != "" ||
		len(r.Variants) != 1 || r.Variants[0].Bundle != digestOf("int8") || r.Variants[0].Quarantined != "smoke" {
		t.Errorf("%+v, %v", r, err)
	}
	for _, c := range []struct {
		model   string
		version int
		want    string
	}{{"shapes", 7, "aob explain model shapes lists the versions"}, {"signs", 1, "no such model"}} {
		_, err := s.Release(c.model, c.version)
		if u, ok := errors.AsType[explain.Unknown](err); !ok || !strings.Contains(u.Do, c.want) {
			t.Errorf("%s@%d: %v", c.model, c.version, err)
		}
	}
}
