package reconciler

// Stories of pull requests: the design's section 9, cases 1 to 8. Where each
// case is told:
//
//	 1  release commit           TestReleaseCommit, TestSettledIsQuiet
//	 2  edited release file      TestReleaseFileEditedByHand, TestReleaseFileOfAnotherBundle
//	 3  first model, import      TestPromotionAndRevert, TestNoGateCovers; import: intent/testdata
//	 4  several models           TestTwoModels, TestModelComesAndGoes
//	 5  only a gate or a fleet   TestOnlyAGate, TestOnlyAFleet, TestNoModelChange
//	 6  force-push while it runs TestForcePushDuringTraining
//	 7  ways of merging          TestWaysOfMerging
//	 8  main moves               TestMainMoves, TestMainMovesElsewhere
//	 9  rollbacks                TestRollbacks, TestPromotionAndRevert, TestAbortAndQuarantine
//	10  pinned fleets            TestPinnedFleets
//	11  direct pushes            TestMainPushedDirectly, TestRollbackPushedDirectly,
//	                             TestSpecPushedToMainUnshipsNothing
//	12  a forge in trouble       TestForgeDown, TestForgeInTrouble
//	13  a full disk, a loss      TestLedgerDiskFull, TestPartsThatFailForAWhile, TestSettledIsQuiet
//	14  upgrades                 TestUpgrade
//	15  aob pr merge             forge/local_test.go
//
// All of them, in any order and with kills in between: TestAnyOrderOfEvents. The
// same decisions, as plans to read: plan/testdata.

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
)

// Case 1: what people push is never green; the commit on top is, and nobody
// makes another.
func TestReleaseCommit(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	pushed := s.head("first")
	s.settle()
	released := s.head("first")
	if parents := s.repo.commits[released].parents; !slices.Equal(parents, []string{pushed}) {
		t.Fatalf("the release commit has the parents %v, want the pushed %s alone", parents, pushed)
	}
	if c := s.check(pushed, delivery.ContextRelease); c.State != delivery.CheckPending ||
		!strings.Contains(c.Description, "committing version 1") {
		t.Errorf("the pushed commit: %s: %s", c.State, c.Description)
	}
	for context, c := range s.forge.statuses[released] {
		if c.State != delivery.CheckSuccess {
			t.Errorf("%s on the release commit: %s: %s", context, c.State, c.Description)
		}
	}
	if len(s.forge.statuses[released]) != 6 {
		t.Errorf("the release commit has %d checks, want the 6 of the stages", len(s.forge.statuses[released]))
	}
	// The author pushes the same again, without it: same commit, no new run.
	runs := len(s.runs.states)
	s.repo.refs[git.Branch+"first"] = pushed
	s.settle()
	if s.head("first") != released || len(s.runs.states) != runs {
		t.Errorf("written again it is %s with %d more runs, want %s", s.head("first"), len(s.runs.states)-runs,
			released)
	}
	// Another way of writing the same YAML is the same file.
	path := "models/shapes.release.yaml"
	s.repo.commit("first", released, s.now, map[string]string{path: "# reviewed\n" + s.repo.read(released, path)})
	commented := s.head("first")
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
	if s.head("first") != commented {
		t.Error("a comment in the release file made another commit")
	}
	s.quiet()
}

// Case 2: a release file that names another bundle says nothing that was signed.
func TestReleaseFileOfAnotherBundle(t *testing.T) {
	s, _ := begun(t)
	s.released("first", 8)
	s.propose("second", 14)
	s.settle()
	path := "models/shapes.release.yaml"
	second := s.repo.read(s.head("second"), path)
	first, better := string(s.signed.order[0]), string(s.signed.order[1])
	// With the first's bundle under the second's spec.
	s.repo.commit("second", s.head("second"), s.now, map[string]string{path: strings.Replace(second, better, first, 1)})
	s.settle()
	s.want("second", delivery.CheckFailure, code.ReleaseFileUnsigned, s.signed.order[0].Short())
	// The author takes it away, and AOB writes it again.
	s.repo.commit("second", s.head("second"), s.now, map[string]string{path: s.repo.read(s.main(), path)})
	s.settle()
	s.want("second", delivery.CheckSuccess, "version 2")
}

// Case 4: two models in one pull request are released by one commit, or not at all.
func TestTwoModels(t *testing.T) {
	s, _ := begun(t)
	s.repo.commit("main", s.main(), s.now, map[string]string{"models/signs.yaml": model("signs", 1),
		"gates/signs.yaml": strings.Replace(gateFile("signs", "signs", 0.5), "square", "triangle", 1)})
	s.repo.commit("both", s.main(), s.now, map[string]string{"models/shapes.yaml": model("shapes", 8),
		"models/signs.yaml": strings.Replace(model("signs", 2), "square", "triangle", 1)})
	s.forge.open("both", "dev")
	pushed := s.head("both")
	s.settle()
	s.want("both", delivery.CheckFailure, "signs: gate/signs: mAP 0.4000 < 0.5")
	if s.head("both") != pushed {
		t.Error("half a release was committed")
	}
	if c := s.check(pushed, delivery.ContextEval); !strings.Contains(c.Description, "shapes: mAP 0.6000") ||
		!strings.Contains(c.Description, "signs: mAP 0.4000") {
		t.Errorf("aob/eval says %q, want both models' figures", c.Description)
	}
	s.repo.commit("both", pushed, s.now, map[string]string{"models/signs.yaml": strings.Replace(model("signs", 14),
		"square", "triangle", 1)})
	again := s.head("both")
	s.settle()
	s.want("both", delivery.CheckSuccess, "shapes: version 1", "signs: version 1")
	if parents := s.repo.commits[s.head("both")].parents; !slices.Equal(parents, []string{again}) {
		t.Error("two release files took more than one commit")
	}
	s.merge("both")
	s.settle()
	if len(s.signed.index.Accepted) != 2 {
		t.Errorf("accepted: %v", s.signed.index.Accepted)
	}
}

// Case 4: a removed model releases nothing, one that is added again continues its versions, and a fleet of a removed
// model is a complaint with its line.
func TestModelAddedAndRemoved(t *testing.T) {
	s, _ := begun(t)
	s.released("first", 8)
	s.repo.commit("gone", s.main(), s.now, map[string]string{"models/shapes.yaml": "", "models/shapes.release.yaml": "",
		"gates/production.yaml": ""})
	s.forge.open("gone", "dev")
	s.settle()
	s.want("gone", delivery.CheckFailure, `fleets/demo.yaml:4:7: runs: unknown model "shapes"`)
	s.repo.commit("gone", s.head("gone"), s.now, map[string]string{"fleets/demo.yaml": ""})
	s.settle()
	s.want("gone", delivery.CheckSuccess, "shapes: removed; nothing to train")
	s.merge("gone")
	s.settle()
	if got := s.serving(); got != "1 1 1" {
		t.Errorf("without a fleet file the devices serve %s, want what they had", got)
	}
	s.repo.commit("back", s.main(), s.now, map[string]string{"models/shapes.yaml": model("shapes", 14),
		"gates/production.yaml": gateFile("production", "shapes", 0.3), "fleets/demo.yaml": fleetFile})
	s.forge.open("back", "dev")
	s.settle()
	s.want("back", delivery.CheckSuccess, "version 2")
}

// Case 4: a renamed model goes on as the same one: nothing is trained or
// downloaded, its versions go on, its quarantine and its bar stay, and it can be
// taken back.
func TestModelRenamed(t *testing.T) {
	s, _ := begun(t)
	s.released("first", 8)
	s.released("second", 14)
	trained, downloads := len(s.trained), s.fleet.downloads
	rename := func(branch string, epochs int, bar float64) {
		s.proposes(branch, with(renamedTo("shapes", "figures", model("shapes", epochs)),
			map[string]string{"gates/production.yaml": gateFile("production", "figures", bar)}))
	}
	rename("lower", 1, 0.01)
	s.want("lower", delivery.CheckFailure, "figures: gate/production: mAP 0.1000 < 0.3")
	trained++

	rename("renamed", 14, 0.3)
	s.want("renamed", delivery.CheckSuccess, "figures: version 3")
	s.merge("renamed")
	s.settle()
	if c := s.check(s.main(), delivery.ContextRelease); c.State != delivery.CheckSuccess ||
		!strings.Contains(c.Description, "figures version 3") {
		t.Errorf("main: %s: %s", c.State, c.Description)
	}
	if got := s.serving(); got != "3 3 3" {
		t.Errorf("devices serve %s, want version 3 under the new name", got)
	}
	s.quiet()
	s.revert()
	s.settle()
	if got := s.serving(); got != "2 2 2" {
		t.Errorf("devices serve %s, want version 2 of the old name", got)
	}
	if len(s.trained) != trained || s.fleet.downloads != downloads {
		t.Errorf("renaming cost %d trainings and %d downloads", len(s.trained)-trained, s.fleet.downloads-downloads)
	}
	s.quiet()
}

// Case 5: a gate alone. The current release is judged by it too, and on main it
// re-judges every open pull request.
func TestOnlyAGate(t *testing.T) {
	s, _ := begun(t)
	s.released("first", 8)
	s.propose("second", 14)
	s.settle()
	s.want("second", delivery.CheckSuccess)
	s.repo.commit("raise", s.main(), s.now, map[string]string{"gates/production.yaml": gateFile("production", "shapes",
		0.9)})
	n := s.forge.open("raise", "dev")
	s.settle()
	s.want("raise", delivery.CheckSuccess, code.NoModelChange, code.GatesChanged, code.WouldFail,
		"shapes: mAP 0.6000 < 0.9")
	if !strings.Contains(s.forge.comments[n], "| shapes | production | fail:") {
		t.Errorf("the comment does not say what would fail:\n%s", s.forge.comments[n])
	}
	trained := len(s.trained)
	s.merge("raise")
	s.settle()
	s.want("second", delivery.CheckFailure, "gate/production: mAP 0.7000 < 0.9")
	if c := s.check(s.main(), delivery.ContextRelease); c.State != delivery.CheckSuccess {
		t.Errorf("a gate un-shipped what was accepted: %s: %s", c.State, c.Description)
	}
	if got := s.serving(); got != "1 1 1" || len(s.trained) != trained {
		t.Errorf("devices serve %s, and %d more trainings", got, len(s.trained)-trained)
	}
}

// Case 5: a fleet alone shows what becomes of it, and starts nothing.
func TestOnlyAFleet(t *testing.T) {
	s, _ := begun(t)
	s.repo.commit("waves", s.main(), s.now, map[string]string{"fleets/demo.yaml": strings.Replace(fleetFile,
		"waves: [1, 100%]", "waves: [1, 2, 100%]", 1)})
	n := s.forge.open("waves", "dev")
	s.settle()
	s.want("waves", delivery.CheckSuccess, "no model change; fleets: demo: waves 1, 2, 100%")
	if !strings.Contains(s.forge.comments[n], "- fleet demo: waves 1, 2, 100%, soak 3s") {
		t.Errorf("the comment does not show the rollout:\n%s", s.forge.comments[n])
	}
	if len(s.runs.states) != 0 {
		t.Errorf("it started %d runs", len(s.runs.states))
	}
}

// Case 7: however a pull request lands, its evidence serves.
func TestWaysOfMerging(t *testing.T) {
	for name, land := range map[string]func(s *sim, head string){
		"merge commit": func(s *sim, head string) {
			s.repo.refs[git.Branch+"main"] = s.repo.write([]string{s.main(), head}, s.merged(s.main(), head), s.now,
				"merge")
		},
		"squash": func(s *sim, head string) {
			s.repo.refs[git.Branch+"main"] = s.repo.write([]string{s.main()}, s.merged(s.main(), head), s.now,
				"squashed")
		},
		"fast-forward": func(s *sim, head string) { s.repo.refs[git.Branch+"main"] = head },
		"rebase merge": func(s *sim, head string) {
			pushed := s.repo.commits[head].parents[0]
			first := s.repo.write([]string{s.main()}, s.merged(s.main(), pushed), s.now, "rebased")
			s.repo.refs[git.Branch+"main"] = s.repo.write([]string{first}, s.merged(s.main(), head), s.now,
				"rebased too")
		},
		"merge queue": func(s *sim, head string) {
			// The queue tries a commit of its own, and main moves to it later.
			tried := s.repo.write([]string{s.main(), head}, s.merged(s.main(), head), s.now, "queue")
			s.repo.refs[git.Branch+"queue"] = tried
			n := s.forge.open("queue", "dev")
			s.settle()
			s.want("queue", delivery.CheckSuccess, "version 2")
			if s.head("queue") != tried {
				s.fail("the queue's commit got another on top")
			}
			s.repo.refs[git.Branch+"main"] = tried
			s.forge.prs[n].closed = true
		},
		"cherry-pick": func(s *sim, head string) {
			s.repo.commit("picked", s.main(), s.now, map[string]string{"models/shapes.yaml": s.repo.read(head,
				"models/shapes.yaml")})
			s.forge.open("picked", "dev")
			s.settle()
			s.want("picked", delivery.CheckSuccess, "version 2")
			s.merge("picked")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := begun(t)
			s.released("first", 8)
			s.propose("second", 14)
			s.settle()
			s.want("second", delivery.CheckSuccess, "version 2")
			runs := len(s.runs.states)
			// main is ahead
			s.repo.commit("main", s.main(), s.now, map[string]string{"models/signs.yaml": model("signs", 1)})
			if name == "fast-forward" {
				s.repo.refs[git.Branch+"second"] = s.repo.write([]string{s.main()},
					s.merged(s.main(), s.head("second")), s.now, "rebased")
				s.settle()
			}
			head := s.head("second")
			land(s, head)
			delete(s.repo.refs, git.Branch+"second")
			merged := s.forge.prs[s.forge.open("second", "dev")]
			// squashed by hand: content tells
			merged.closed, merged.Merged = true, name != "cherry-pick" && name != "squash"
			s.settle()
			if c := s.check(head, delivery.ContextRelease); head != s.main() &&
				c.Description != "shapes: merged: version 2" {
				t.Errorf("the merged pull request ends with %s: %s", c.State, c.Description)
			}
			comment := s.forge.comments[merged.Number]
			for _, word := range []string{"merged: version 2", "0.7000", "0.6000", "production"} {
				if !strings.Contains(comment, word) {
					t.Errorf("the last comment does not say %q:\n%s", word, comment)
				}
			}
			if kept := s.keptPulls(); len(kept) != 0 {
				t.Errorf("the loop still keeps %v", kept)
			}
			if got := s.serving(); got != "2 2 2" || len(s.runs.states) != runs {
				t.Errorf("devices serve %s after %d more runs, want version 2 and none", got, len(s.runs.states)-runs)
			}
			if c := s.check(s.main(), delivery.ContextRelease); c.State != delivery.CheckSuccess {
				t.Errorf("main: %s: %s", c.State, c.Description)
			}
			s.quiet()
		})
	}
}

// A merge while AOB is down is reported after the next start.
func TestMergeWhileDownIsReported(t *testing.T) {
	s, _ := begun(t)
	s.released("first", 8)
	s.propose("second", 14)
	s.settle()
	head, n := s.head("second"), s.forge.open("second", "dev")
	s.merge("second")
	s.forge.prs[n].closed = true
	s.restart()
	s.settle()
	if c := s.check(head, delivery.ContextRelease); c.Description != "shapes: merged: version 2" {
		t.Errorf("aob/release of the merged head: %s: %s", c.State, c.Description)
	}
	for key, said := range s.ledger.said {
		if strings.HasPrefix(key, "pull/") && said.Content != "" {
			t.Errorf("the ledger still keeps %s: %s", key, said.Content)
		}
	}
	s.quiet()
}

// A pull request that is closed and not merged says what it said before.
func TestClosedPullRequestIsNotMerged(t *testing.T) {
	s, _ := begun(t)
	s.released("first", 8)
	s.propose("second", 14)
	s.settle()
	head, n := s.head("second"), s.forge.open("second", "dev")
	before := s.forge.comments[n]
	s.forge.prs[n].closed = true
	s.repo.commit("main", s.main(), s.now, map[string]string{"README": "hello"})
	s.settle()
	if c := s.check(head, delivery.ContextRelease); strings.Contains(c.Description, "merged") ||
		s.forge.comments[n] != before {
		t.Errorf("aob/release of the closed head: %s: %s", c.State, c.Description)
	}
	if kept := s.keptPulls(); len(kept) != 0 {
		t.Errorf("the loop still keeps %v", kept)
	}
	s.quiet()
}

// Case 8: main moves elsewhere, and nothing happens.
func TestMainMovesElsewhere(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.settle()
	head, runs, statements := s.head("first"), len(s.runs.states), len(s.signed.statements)
	for i := range 3 {
		s.repo.commit("main", s.main(), s.now, map[string]string{"models/signs.yaml": model("signs", i+1),
			"gates/signs.yaml": gateFile("signs", "signs", 0.3)})
		s.settle()
	}
	s.want("first", delivery.CheckSuccess, "version 1")
	if s.head("first") != head || len(s.runs.states) != runs || len(s.signed.statements) != statements {
		t.Errorf("another model's change: head moved %v, %d runs, %d statements", s.head("first") != head,
			len(s.runs.states)-runs, len(s.signed.statements)-statements)
	}
}

// Case 6: an author who goes back and forth finds what was trained.
func TestBackAndForth(t *testing.T) {
	s, main := begun(t)
	s.propose("first", 8)
	s.settle()
	for range 3 {
		for _, epochs := range []int{14, 8} {
			s.repo.commit("first", main, s.now, map[string]string{"models/shapes.yaml": fmt.Sprintf("# %s\n", s.now) +
				model("shapes", epochs)})
			s.settle()
			s.want("first", delivery.CheckSuccess, fmt.Sprintf("mAP %.4f", s.quality[epochs]))
		}
	}
	if len(s.trained) != 2 {
		t.Errorf("%d trainings for two specs", len(s.trained))
	}
	s.quiet()
}

// keptPulls returns the pull requests that the ledger keeps as open.
func (s *sim) keptPulls() (list []string) {
	for key, kept := range s.ledger.said {
		if strings.HasPrefix(key, "pull/") && kept.Content != "" {
			list = append(list, key)
		}
	}
	return list
}
