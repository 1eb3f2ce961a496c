package reconciler

// Stories of trackers, which show what AOB does and never matter for it.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/outbox"
	"github.com/autonomos/aob/reconciler/track"
)

// A simTracker keeps what it is told.
type simTracker struct {
	address string
	runs    map[delivery.Digest]track.Run
	epochs  map[delivery.Digest]int
	models  map[string]track.Model
	order   []string // of what it was told
	err     error    // that it answers with
}

func newSimTracker() *simTracker {
	return &simTracker{address: "https://mlflow.example.com", runs: map[delivery.Digest]track.Run{},
		epochs: map[delivery.Digest]int{}, models: map[string]track.Model{}}
}

func (t *simTracker) Address() string { return t.address }

func (t *simTracker) PutRun(_ context.Context, r track.Run, epochs []track.Epoch) error {
	if t.err != nil {
		return t.err
	}
	t.runs[r.Key], t.epochs[r.Key] = r, len(epochs)
	t.order = append(t.order, fmt.Sprintf("run %s %s", r.Name, r.Status))
	return nil
}

func (t *simTracker) PutModel(_ context.Context, m track.Model) error {
	if t.err != nil {
		return t.err
	}
	t.models[m.Name] = m
	t.order = append(t.order, fmt.Sprintf("model %s %s", m.Name, production(m)))
	return nil
}

// production is the version that has the alias, and how many versions there are.
func production(m track.Model) string {
	if m.Production == nil {
		return fmt.Sprintf("none of %d", len(m.Versions))
	}
	return fmt.Sprintf("%d of %d", m.Production.Number, len(m.Versions))
}

// named returns a run by its name.
func (t *simTracker) named(name string) track.Run {
	r, _ := delivery.Find(slices.Collect(maps.Values(t.runs)), func(r track.Run) bool { return r.Name == name })
	return r
}

// told returns what it was told since the last call, each line once.
func (t *simTracker) told() string {
	list := slices.Compact(t.order)
	t.order = nil
	return strings.Join(list, "\n")
}

func trackedModel(epochs int) string { return model("shapes", epochs) + "track: {mlflow: default}\n" }

func (s *sim) proposeTracked(branch string, epochs int) {
	s.repo.commit(branch, s.head("main"), s.now, map[string]string{"models/shapes.yaml": trackedModel(epochs)})
	s.forge.open(branch, "dev")
}

// tracking has the loop tell a tracker from now on; nil for none.
func (s *sim) tracking(t *simTracker) {
	s.server.Trackers = []string{"mlflow/default"}
	s.restart(func(r *Reconciler) {
		if t != nil {
			r.Trackers = map[string]outbox.Tracker{"mlflow/default": t}
		}
		r.Epochs = func(key delivery.Digest) ([]byte, error) {
			state := s.runs.states[key]
			if state == nil || state.Phase == delivery.RunRunning && state.Status.Epoch == 0 {
				return nil, fs.ErrNotExist
			}
			text := ""
			for i := range max(state.Status.Epoch, 2) {
				text += fmt.Sprintf("{\"epoch\": %d, \"loss\": 0.5}\n", i+1)
			}
			return []byte(text), nil
		}
		r.Bundles = "oci://aob.example.com/bundles"
	})
}

// A promotion, a second one, a refusal, and a rollback, as a tracker sees them.
func TestTrackerSeesPromotionsAndRollback(t *testing.T) {
	s, _ := begun(t)
	tracker := newSimTracker()
	s.tracking(tracker)
	s.proposeTracked("first", 8)
	s.untilTraining()
	s.turn()
	if got := tracker.told(); got != "run PR #1 seed 1 RUNNING" {
		t.Errorf("while it trains the tracker was told:\n%s", got)
	}
	s.runs.states[s.runs.running(delivery.RunTrain)].Status.Epoch = 3
	s.turn()
	run := tracker.named("PR #1 seed 1")
	if tracker.told(); tracker.epochs[run.Key] != 3 || run.Experiment != "shapes" || !run.End.IsZero() ||
		run.Params["train.epochs"] != "8" || run.Params["dataset"] != "dir:shapes" ||
		run.Tags["mlflow.source.git.commit"] != s.head("first") || run.Tags["aob.pull_request.state"] != "open" {
		t.Errorf("%d epochs, %+v", tracker.epochs[run.Key], run)
	}
	trainedAt := s.head("first")
	s.settle()
	run = tracker.named("PR #1 seed 1")
	if run.Status != track.Finished || run.Bundle == "" || run.Tags["aob.verdict"] != "pass" ||
		run.Tags["aob.gate.production"] != "pass" || run.Tags["mlflow.source.git.commit"] != trainedAt {
		t.Errorf("%+v", run)
	}
	gate, ok := delivery.Find(run.Measured, func(m track.Measured) bool { return m.Under == "gate/production" })
	if !ok || gate.Values["mAP"] != 0.6 || gate.Data.Digest == "" || gate.Data.Name != "dir:shapes test" {
		t.Errorf("measured: %+v", run.Measured)
	}
	if len(tracker.models) != 0 {
		t.Errorf("nothing is merged, and there is a registered model: %v", tracker.models)
	}
	tracker.told()
	s.merge("first")
	s.settle()
	run = tracker.named("PR #1 seed 1")
	if run.Tags["aob.pull_request.state"] != "merged" || run.Tags["aob.version"] != "1" ||
		run.Status != track.Finished {
		t.Errorf("after the merge: %v, %s", run.Tags, run.Status)
	}
	m := tracker.models["shapes"]
	if got := production(m); got != "1 of 1" {
		t.Fatalf("production is %s", got)
	}
	v := m.Versions[0]
	if v.Source != "oci://aob.example.com/bundles@"+string(v.Bundle) || v.Run != run.Key ||
		v.Tags["aob.verdict"] != "pass" || v.Tags["aob.pull_request"] != "1" ||
		!strings.Contains(v.Note, "Gate production, on ") || !strings.Contains(v.Note, "mAP 0.6000") {
		t.Errorf("version: %+v", v)
	}

	s.proposeTracked("second", 14)
	s.settle()
	s.merge("second")
	s.settle()
	s.proposeTracked("worse", 2)
	s.settle()
	s.want("worse", delivery.CheckFailure)
	delete(s.repo.refs, git.Branch+"worse")
	s.forge.prs[s.forge.open("worse", "dev")].closed = true
	s.settle()
	if got := production(tracker.models["shapes"]); got != "2 of 2" {
		t.Errorf("production is %s", got)
	}
	worse := tracker.named("PR #3 seed 1")
	if worse.Status != track.Finished || worse.Tags["aob.pull_request.state"] != "closed" ||
		worse.Tags["aob.verdict"] != "fail" || worse.Tags["aob.version"] != "" {
		t.Errorf("a closed pull request: %s, %v", worse.Status, worse.Tags)
	}
	tracker.told()
	s.revert()
	s.settle()
	if got := tracker.told(); got != "model shapes 1 of 2" {
		t.Errorf("the revert told:\n%s", got)
	}
	s.revert()
	s.settle()
	if got := tracker.told(); got != "model shapes 2 of 2" {
		t.Errorf("the revert of the revert told:\n%s", got)
	}

	// Nothing is told again after a restart, and all of it to another server.
	s.tracking(tracker)
	s.settle()
	if got := tracker.told(); got != "" {
		t.Errorf("after a restart the tracker was told again:\n%s", got)
	}
	other := newSimTracker()
	other.address = "https://other.example.com"
	s.tracking(other)
	s.settle()
	if diff := cmp.Diff(tracker.runs, other.runs); diff != "" {
		t.Errorf("another server was told something else:\n%s", diff)
	}
	want := "run PR #1 seed 1 FINISHED\nrun PR #2 seed 1 FINISHED\nrun PR #3 seed 1 FINISHED\n" +
		"model shapes 2 of 2"
	if got := other.told(); got != want {
		t.Errorf("another server was told:\n%s", got)
	}
}

// played is a promotion, a refusal and a rollback, with a tracker that answers with an error, or with none.
func played(t *testing.T, tracker *simTracker) *sim {
	s, _ := begun(t)
	s.tracking(tracker)
	s.proposeTracked("first", 8)
	s.settle()
	s.merge("first")
	s.settle()
	s.proposeTracked("second", 14)
	s.settle()
	s.merge("second")
	s.settle()
	s.revert()
	s.settle()
	return s
}

// shown is all that AOB has done, and when.
func (s *sim) shown() map[string]any {
	runs := map[delivery.Digest]string{}
	for key, r := range s.runs.states {
		runs[key] = fmt.Sprintf("%s %s %s", r.Spec.Kind, r.Phase, r.Started)
	}
	return map[string]any{"statuses": s.forge.statuses, "comments": s.forge.comments, "posts": s.forge.posts,
		"refs": s.repo.refs, "runs": runs, "now": s.now, "serving": s.serving(),
		"statements": len(s.signed.statements)}
}

// A tracker that never answers changes no status, comment, run, commit or time. It catches up later, in order.
func TestTrackerThatIsDownChangesNothing(t *testing.T) {
	without := played(t, nil).shown()
	up := newSimTracker()
	if diff := cmp.Diff(without, played(t, up).shown()); diff != "" {
		t.Errorf("a tracker changes something:\n%s", diff)
	}
	for _, err := range []error{errors.New("connection refused"), delivery.Blockedf("do", "403"),
		delivery.Wait{For: 1, What: "503"}, track.Refused{Status: 400, Code: "INVALID_PARAMETER_VALUE", Text: "no"}} {
		down := newSimTracker()
		down.err = err
		s := played(t, down)
		if diff := cmp.Diff(without, s.shown()); diff != "" {
			t.Errorf("%v: a tracker that is down changes something:\n%s", err, diff)
		}
		const notice = "the tracker mlflow/default, which holds up nothing else, is not up to date since "
		if !slices.ContainsFunc(s.loop.Notices(), func(line string) bool {
			return strings.HasPrefix(line, notice) && strings.Contains(line, err.Error())
		}) {
			t.Errorf("%v is not shown: %q", err, s.loop.Notices())
		}
		down.err = nil
		s.now = s.now.Add(2 * 60 * 1e9) // the longest pause is over
		s.settle()
		want := "run PR #1 seed 1 FINISHED\nrun PR #2 seed 1 FINISHED\nmodel shapes 1 of 2"
		if got := down.told(); got != want {
			t.Errorf("%v: later it was told:\n%s", err, got)
		}
		if diff := cmp.Diff(up.models, down.models); diff != "" {
			t.Errorf("%v: later it has another registry:\n%s", err, diff)
		}
		if diff := cmp.Diff(up.runs, down.runs); diff != "" {
			t.Errorf("%v: later it has other runs:\n%s", err, diff)
		}
		for _, line := range s.loop.Notices() {
			if strings.Contains(line, "tracker") {
				t.Errorf("%v: it is still shown: %s", err, line)
			}
		}
	}
}

// The server is killed at each effect of a promotion. The tracker ends with the same runs and versions.
func TestTrackerAfterCrashes(t *testing.T) {
	up := newSimTracker()
	played(t, up)
	for at := 1; at <= 60; at += 7 {
		tracker := newSimTracker()
		s, _ := begun(t)
		s.tracking(tracker)
		again := s.loop
		restart := func() {
			if s.loop != again { // it was killed: the new loop has no tracker yet
				s.tracking(tracker)
				again = s.loop
			}
		}
		s.crashIn = at
		for i, epochs := range []int{8, 14} {
			s.proposeTracked([]string{"first", "second"}[i], epochs)
			for range 40 {
				s.turn()
				restart()
				s.runs.finishAll()
			}
			s.settle()
			s.merge([]string{"first", "second"}[i])
			s.settle()
		}
		s.revert()
		s.settle()
		got, want := slices.Sorted(maps.Keys(tracker.runs)), slices.Sorted(maps.Keys(up.runs))
		if !slices.Equal(got, want) {
			t.Errorf("killed at effect %d: runs %v, want %v", at, got, want)
		}
		if got := production(tracker.models["shapes"]); got != "1 of 2" {
			t.Errorf("killed at effect %d: production is %s", at, got)
		}
	}
}

// docs/tracking.md lists the tags that a tracker gets, and no others.
func TestTrackingPageListsTags(t *testing.T) {
	tracker := newSimTracker()
	played(t, tracker)
	got := map[string]bool{track.RunTag: true, track.BundleTag: true, "aob.digest": true,
		"aob.error": true, "aob.accepted_by": true, "aob.pull_request.url": true, // package track, or another
		"aob.weights": true, "aob.parent": true, "aob.packages": true}
	add := func(tags map[string]string) {
		for tag := range tags {
			if strings.HasPrefix(tag, "aob.gate.") {
				tag = "aob.gate.GATE"
			}
			if strings.HasPrefix(tag, "aob.") {
				got[tag] = true
			}
		}
	}
	for _, r := range tracker.runs {
		add(r.Tags)
	}
	for _, v := range tracker.models["shapes"].Versions {
		add(v.Tags)
	}
	page, err := os.ReadFile("../docs/tracking.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("`(aob\\.[a-z_.A-Z]+)`").FindAllStringSubmatch(string(page), -1) {
		if m[1] != "aob.yaml" {
			listed[m[1]] = true
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(listed))); diff != "" {
		t.Errorf("the page lists other tags (-told +page):\n%s", diff)
	}
}

// Without the ledger, what main has released is told again, and nothing is taken back.
func TestTrackerWithoutTheLedger(t *testing.T) {
	tracker := newSimTracker()
	s := played(t, tracker)
	runs := maps.Clone(tracker.runs)
	tracker.told()
	s.ledger = newSimLedger(s)
	s.tracking(tracker)
	s.settle()
	if got := tracker.told(); got != "model shapes 1 of 2" {
		t.Errorf("without the ledger the tracker was told:\n%s", got)
	}
	if diff := cmp.Diff(runs, tracker.runs); diff != "" {
		t.Error(diff)
	}
}

// A training that fails, and one that ends because its pull request was closed.
func TestTrackerSeesFailures(t *testing.T) {
	s, _ := begun(t)
	tracker := newSimTracker()
	s.tracking(tracker)
	s.runs.fail = map[delivery.RunKind]string{delivery.RunTrain: "the loss is not a number"}
	s.proposeTracked("fails", 8)
	s.settle()
	r := tracker.named("PR #1 seed 1")
	if r.Status != track.Failed || r.Tags["aob.error"] != "the loss is not a number" || r.Bundle != "" ||
		!strings.Contains(r.Note, "It ended: the loss is not a number") {
		t.Errorf("%s, %v", r.Status, r.Tags)
	}
	s.runs.fail = nil
	s.proposeTracked("ended", 14)
	s.untilTraining()
	s.turn()
	delete(s.repo.refs, git.Branch+"ended")
	s.forge.prs[s.forge.open("ended", "dev")].closed = true
	for range 700 { // a run goes on for a while, in case the pull request comes back
		s.turn()
	}
	s.settle()
	if r := tracker.named("PR #2 seed 1"); r.Status != track.Killed || r.Tags["aob.pull_request.state"] != "closed" {
		t.Errorf("%s, %v", r.Status, r.Tags)
	}
}
