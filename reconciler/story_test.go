package reconciler

// The cases of the design's section 9, as stories in a small world.

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/plan"
)

func model(name string, epochs int) string {
	return fmt.Sprintf("apiVersion: aob/v1\nkind: Model\nname: %s\ndataset: {dir: shapes}\nclasses: [circle, "+
		"square]\ntrain:\n  with: tiny@1\n  epochs: %d\n", name, epochs)
}

func gateFile(name, models string, floor float64) string {
	return fmt.Sprintf("apiVersion: aob/v1\nkind: Gate\nname: %s\ncovers: [%s]\nowners: [lead]\nevaluate: {dataset: "+
		"{dir: shapes}, split: test}\nclasses: [circle, square]\nchecks:\n"+
		"  - {metric: mAP, min: %g}\n  - {metric: mAP, maxDrop: 0.02, against: release}\n", name, models, floor)
}

const fleetFile = "apiVersion: aob/v1\nkind: Fleet\nname: demo\nruns: shapes\nmatch: {site: demo}\nwaves: [1, " +
	"100%]\nsoak: 3s\nadvance: all-healthy\n"

// begun is a world with a model of 2 epochs on main that nobody has trained, a
// gate, and a fleet of three.
func begun(t *testing.T) (*sim, string) {
	s := newSim(t)
	main := s.repo.commit("main", "", s.now, map[string]string{
		"models/shapes.yaml": model("shapes", 1), "gates/production.yaml": gateFile("production", "shapes", 0.3),
		"fleets/demo.yaml": fleetFile})
	s.fleet.add("demo", "a", "b", "c")
	s.settle()
	return s, main
}

func (s *sim) check(commit, context string) delivery.Check { return s.forge.statuses[commit][context] }

func (s *sim) head(branch string) string { return s.repo.refs[git.Branch+branch] }

// want fails unless a branch's aob/release is in a state, and says what is wanted: see wantContext.
func (s *sim) want(branch string, state delivery.CheckState, wants ...any) {
	s.helper()
	s.wantContext(branch, delivery.ContextRelease, state, wants...)
}

// wantContext fails unless a status is in a state, and says what is wanted: facts with a code, or values as text.
func (s *sim) wantContext(branch, context string, state delivery.CheckState, wants ...any) {
	s.helper()
	commit := s.head(branch)
	c := s.check(commit, context)
	if c.State != state {
		s.fail("%s: %s is %q (%s), want %s\nall: %v", branch, context, c.State, c.Description, state,
			s.forge.statuses[commit])
	}
	facts := s.facts(commit, context)
	for _, w := range wants {
		switch w := w.(type) {
		case string:
			if !strings.Contains(c.Description, w) {
				s.fail("%s: %s says %q, want it to mention %q", branch, context, c.Description, w)
			}
		case delivery.Code:
			if !has(facts, w) {
				s.fail("%s: %s says %v (%s), want %s", branch, context, facts, c.Description, w)
			}
		default:
			s.fail("want %v: neither a code nor a value", w)
		}
	}
}

// facts are what the last turn says in a check of a commit.
func (s *sim) facts(commit, context string) []delivery.Fact {
	p := s.loop.observed.plan
	checks := map[string][]plan.Check{p.Main.Commit: p.Main.Checks}
	for _, pr := range p.Proposals {
		checks[pr.PR.Head] = append(checks[pr.PR.Head], pr.Checks...)
	}
	var facts []delivery.Fact
	for _, c := range checks[commit] {
		if c.Context == context {
			facts = append(facts, c.Facts...)
		}
	}
	return facts
}

// has reports whether one of some facts, or one inside it, has a code.
func has(facts []delivery.Fact, c delivery.Code) bool {
	return slices.ContainsFunc(facts, func(f delivery.Fact) bool { return f.Has(c) })
}

// merge merges a green branch as a forge does, with two parents.
func (s *sim) merge(branch string) string {
	s.helper()
	s.want(branch, delivery.CheckSuccess)
	head, main := s.head(branch), s.head("main")
	id := s.repo.write([]string{main, head}, s.merged(main, head), s.now, "merge "+branch)
	s.repo.refs[git.Branch+"main"] = id
	delete(s.repo.refs, git.Branch+branch)
	return id
}

// merged is the three-way merge of two trees, file by file.
func (s *sim) merged(a, b string) map[string]string {
	// As git does, it first merges several bases into one.
	bases, _ := s.repo.MergeBases(a, b)
	var from map[string]string
	for i, base := range bases {
		if from = s.repo.commits[base].files; i > 0 {
			from = s.merged(bases[0], base)
		}
	}
	return threeWayFiles(s.repo.commits[a].files, s.repo.commits[b].files, from)
}

// threeWayFiles takes theirs where theirs changed a file, and else ours.
func threeWayFiles(ours, theirs, from map[string]string) map[string]string {
	out := map[string]string{}
	for _, files := range []map[string]string{ours, theirs} {
		for path := range files {
			blob := theirs[path]
			if theirs[path] == from[path] {
				blob = ours[path]
			}
			if blob != "" {
				out[path] = blob
			}
		}
	}
	return out
}

// revert makes main's tree what it was before its head.
func (s *sim) revert() string {
	main := s.head("main")
	before := s.repo.commits[main].parents[0]
	id := s.repo.write([]string{main}, s.repo.commits[before].files, s.now, "revert")
	s.repo.refs[git.Branch+"main"] = id
	return id
}

func (s *sim) serving() string {
	var versions []string
	for _, d := range s.fleet.devices {
		versions = append(versions, fmt.Sprint(d.Report.Release))
	}
	return strings.Join(versions, " ")
}

func (s *sim) propose(branch string, epochs int) {
	s.repo.commit(branch, s.head("main"), s.now, map[string]string{"models/shapes.yaml": model("shapes", epochs)})
	s.forge.open(branch, "dev")
}

func TestPromotionAndRevert(t *testing.T) {
	s, _ := begun(t)
	if len(s.runs.states) != 0 {
		t.Fatalf("a model on main without a release trains nothing, got %d runs", len(s.runs.states))
	}
	s.propose("first", 8)
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
	s.merge("first")
	s.settle()
	if got := s.serving(); got != "1 1 1" {
		t.Fatalf("devices serve %s, want version 1", got)
	}
	s.propose("second", 14)
	s.settle()
	s.want("second", delivery.CheckSuccess, "version 2")
	s.merge("second")
	s.settle()
	if got := s.serving(); got != "2 2 2" {
		t.Fatalf("devices serve %s, want version 2", got)
	}
	s.propose("worse", 2)
	s.settle()
	s.want("worse", delivery.CheckFailure, "0.4000")
	runs, downloads := len(s.runs.states), s.fleet.downloads

	delete(s.repo.refs, git.Branch+"worse")
	s.revert()
	s.settle()
	if got := s.serving(); got != "1 1 1" {
		t.Fatalf("after the revert devices serve %s, want version 1", got)
	}
	if len(s.runs.states) != runs || s.fleet.downloads != downloads {
		t.Errorf("the revert cost %d runs and %d downloads", len(s.runs.states)-runs, s.fleet.downloads-downloads)
	}
	s.revert() // of the revert
	s.settle()
	if got := s.serving(); got != "2 2 2" {
		t.Fatalf("after the revert of the revert devices serve %s, want version 2", got)
	}
	for key, n := range s.trained {
		if n != 1 {
			t.Errorf("run %s was trained %d times", key.Short(), n)
		}
	}
	if s.forge.made != 3 {
		t.Errorf("%d comments were made for 3 pull requests", s.forge.made)
	}
}

// If nothing changes, nothing is posted or committed again, also after a restart and without the ledger.
func TestNothingIsPostedWithoutChanges(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.settle()
	head, posts := s.head("first"), s.forge.posts
	s.settle()
	s.restart()
	s.settle()
	if s.head("first") != head || s.forge.posts != posts {
		t.Errorf("a settled world moved: %d posts, want %d", s.forge.posts, posts)
	}
	statements := len(s.signed.statements)
	s.ledger = newSimLedger(s)
	s.restart()
	s.settle()
	if s.head("first") != head || len(s.signed.statements) != statements || s.forge.made != 1 {
		t.Errorf("without the ledger something was made again: head moved %v, %d statements more, %d comments",
			s.head("first") != head, len(s.signed.statements)-statements, s.forge.made)
	}
	for key, n := range s.trained {
		if n != 1 {
			t.Errorf("run %s was trained %d times", key.Short(), n)
		}
	}
}

// Case 2: a release file written by hand names no evidence.
func TestReleaseFileEditedByHand(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.settle()
	head := s.head("first")
	blob := s.repo.commits[head].files["models/shapes.release.yaml"]
	s.repo.commit("first", head, s.now, map[string]string{"models/shapes.release.yaml": strings.Replace(
		string(s.repo.blobs[blob]), "0.6", "0.9", 1)})
	s.settle()
	s.want("first", delivery.CheckFailure, code.ReleaseFileEdited)
}

// Case 6: another spec ends the old run, the same spec keeps it.
func TestForcePushDuringTraining(t *testing.T) {
	s, main := begun(t)
	s.propose("first", 8)
	s.untilTraining()
	training := s.runs.running(delivery.RunTrain)
	s.repo.commit("first", main, s.now, map[string]string{"models/shapes.yaml": "# amended\n" + model("shapes", 8)})
	s.turn()
	s.turn()
	if now := s.runs.running(delivery.RunTrain); now != training {
		t.Fatalf("an amend with the same spec changed the run from %s to %q", training.Short(), now)
	}
	s.repo.commit("first", main, s.now, map[string]string{"models/shapes.yaml": model("shapes", 14)})
	s.turn()
	s.turn()
	s.untilTraining()
	if now := s.runs.running(delivery.RunTrain); now == training || now == "" {
		t.Fatalf("another spec left the old run running: %q", now)
	}
	if phase := s.runs.states[training].Phase; phase != delivery.RunStopped {
		t.Errorf("the old run is %s, want stopped", phase)
	}
}

// untilTraining turns until a training runs, finishing nothing but data runs.
func (s *sim) untilTraining() {
	s.helper()
	for i := 0; i < 20; i++ {
		s.turn()
		for key, r := range s.runs.states {
			if r.Spec.Kind == delivery.RunData {
				s.runs.finish(key)
			}
		}
		if s.runs.running(delivery.RunTrain) != "" {
			return
		}
	}
	s.fail("nothing is trained")
}

// Pull requests of forks and strangers start no runs until somebody with write permission approves.
func TestRunsOfStrangersNeedApproval(t *testing.T) {
	s, main := begun(t)
	s.repo.commit("first", main, s.now, map[string]string{"models/shapes.yaml": model("shapes", 8)})
	s.forge.open("first", "stranger")
	s.forge.permission["stranger"] = delivery.PermissionRead
	s.settle()
	if len(s.runs.states) != 0 {
		t.Fatal("a stranger's pull request started a run")
	}
	s.want("first", delivery.CheckPending, "/aob run ")
	_, code, _ := strings.Cut(s.check(s.head("first"), delivery.ContextRelease).Description, "/aob run ")
	s.forge.comment(0, "stranger", "/aob run "+code)
	s.settle()
	if len(s.runs.states) != 0 {
		t.Fatal("a stranger gave himself a go")
	}
	s.forge.comment(0, "maintainer", "/aob run "+code+"\nand let us see")
	s.loop.answers.Every = time.Hour
	s.wake()
	s.untilTraining()
	// A training takes thousands of turns: they ask the forge for nothing.
	reads := s.forge.reads
	for range 50 {
		s.turn()
	}
	if n := s.forge.reads - reads; n > 1 { // the training has just been started
		t.Errorf("its comments were read %d times while it trained", n)
	}
	s.loop.answers.Every = time.Second
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
}

// Case 5: a pull request that changes nothing of ours.
func TestNoModelChange(t *testing.T) {
	s, main := begun(t)
	s.repo.commit("docs", main, s.now, map[string]string{"models/shapes.yaml": "# a comment\n" + model("shapes", 1)})
	s.forge.open("docs", "dev")
	s.turn()
	s.want("docs", delivery.CheckSuccess, "no model change")
	s.settle()
	if len(s.runs.states) != 0 {
		t.Errorf("it started %d runs", len(s.runs.states))
	}
}

// Case 3: a model that no gate covers.
func TestNoGateCovers(t *testing.T) {
	s, main := begun(t)
	s.repo.commit("other", main, s.now, map[string]string{"models/other.yaml": model("other", 8)})
	s.forge.open("other", "dev")
	s.settle()
	s.want("other", delivery.CheckFailure, "no gate covers other")
	// With its gate in the same PR it goes through.
	s.repo.commit("other", s.head("other"), s.now, map[string]string{"gates/other.yaml": gateFile("other", "other",
		0.1)})
	s.settle()
	s.want("other", delivery.CheckSuccess, "version 1")
}

// A pull request cannot lower its own gates: main's gates judge it, and its own in addition.
func TestPullRequestCannotLowerItsGates(t *testing.T) {
	s, main := begun(t)
	s.repo.commit("low", main, s.now, map[string]string{"models/shapes.yaml": model("shapes", 1) + "  args: {}\n",
		"gates/production.yaml": gateFile("production", "shapes", 0.01)})
	s.repo.commit("low", s.head("low"), s.now, map[string]string{"models/shapes.yaml": strings.Replace(model("shapes",
		1), "epochs: 1", "epochs: 1\n  resolution: 128", 1)})
	s.forge.open("low", "dev")
	s.settle()
	s.want("low", delivery.CheckFailure, "gate/production")
}

// Case 7: a squash has another commit and the same content.
func TestSquash(t *testing.T) {
	s, main := begun(t)
	s.propose("first", 8)
	s.settle()
	s.want("first", delivery.CheckSuccess)
	id := s.repo.write([]string{main}, s.repo.commits[s.head("first")].files, s.now, "squashed")
	s.repo.refs[git.Branch+"main"] = id
	delete(s.repo.refs, git.Branch+"first")
	runs := len(s.runs.states)
	s.settle()
	if got := s.serving(); got != "1 1 1" || len(s.runs.states) != runs {
		t.Errorf("after a squash devices serve %s and %d more runs", got, len(s.runs.states)-runs)
	}
}

// Case 8: main moves under an open PR.
func TestMainMoves(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.propose("second", 14)
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
	s.want("second", delivery.CheckSuccess, "version 1")
	s.merge("first")
	s.settle()
	// The other is judged against the new release, and becomes version 2.
	s.want("second", delivery.CheckSuccess, "version 2", "version 1: 0.6000")
}

// fork opens a pull request from another repository.
func (s *sim) fork(branch, author, from string, files map[string]string) int {
	n := s.forge.open(branch, author)
	s.forge.prs[n].Fork = true
	s.repo.refs[fmt.Sprintf("%s%d/head", git.Pull, n)] = s.repo.write([]string{from}, s.repo.with(from, files), s.now,
		branch)
	return n
}

// released proposes a model, waits until it is green, merges it, and waits again.
func (s *sim) released(branch string, epochs int) (merge string) {
	s.helper()
	s.propose(branch, epochs)
	s.settle()
	merge = s.merge(branch)
	s.settle()
	return merge
}

// opened returns the branch of an open pull request of AOB's own.
func (s *sim) opened(prefix string) string {
	s.helper()
	for _, pr := range s.forge.list() {
		if strings.HasPrefix(pr.HeadRef, prefix) {
			return pr.HeadRef
		}
	}
	s.fail("there is no pull request from %s…", prefix)
	return ""
}
