package reconciler

// Stories of main and of fleets: the design's section 9, cases 9 to 11.

import (
	"fmt"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/words"
)

// Case 11: only what passed its gates in a PR ships, whatever the road.
func TestMainPushedDirectly(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.settle()
	s.merge("first")
	s.settle()
	accepted := s.head("main")
	forged := strings.NewReplacer("version: 1", "version: 2").Replace(
		string(s.repo.blobs[s.repo.commits[accepted].files["models/shapes.release.yaml"]]))
	s.repo.commit("main", accepted, s.now, map[string]string{"models/shapes.release.yaml": forged})
	s.settle()
	if c := s.check(s.head("main"), delivery.ContextRelease); c.State != delivery.CheckFailure ||
		!strings.Contains(c.Description, "refused") {
		t.Errorf("a bundle without a release statement: %s: %s", c.State, c.Description)
	}
	if got := s.serving(); got != "1 1 1" {
		t.Errorf("devices serve %s, want version 1 still", got)
	}
	opened := false
	for _, p := range s.forge.prs {
		opened = opened || strings.HasPrefix(p.HeadRef, "aob/restore-shapes")
	}
	if !opened {
		t.Error("no pull request sets the file back")
	}
	s.quiet()
}

// A failing wave falls back, and git is made to agree by a pull request.
func TestAbortAndQuarantine(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.settle()
	s.merge("first")
	s.settle()
	s.propose("second", 14)
	s.settle()
	merged := s.merge("second")
	bad := s.signed.last()
	s.fleet.broken = map[delivery.Digest]bool{bad: true}
	s.settle()
	if got := s.serving(); got != "1 1 1" {
		t.Fatalf("devices serve %s, want version 1 after the abort", got)
	}
	if c := s.check(merged, delivery.ContextRollout+"demo"); c.State != delivery.CheckFailure {
		t.Errorf("the rollout's check is %s: %s", c.State, c.Description)
	}
	branch := ""
	for _, p := range s.forge.prs {
		if strings.HasPrefix(p.HeadRef, "aob/quarantine-shapes") {
			branch = p.HeadRef
		}
	}
	if branch == "" {
		t.Fatal("no pull request takes the bad version back")
	}
	s.want(branch, delivery.CheckSuccess, "rolls back to version 1")
	s.quiet()
	s.merge(branch)
	s.settle()
	// What is quarantined does not come back.
	s.propose("again", 14)
	s.settle()
	s.want("again", delivery.CheckFailure, "quarantined")
	s.quiet()

	// The reason is the device's own.
	main, _ := s.tree(s.main())
	held := main.Quarantines.Of("shapes").Entries
	if len(held) != 1 || held[0].Digest != bad || !strings.Contains(held[0].Why, "golden") {
		t.Errorf("quarantined: %+v", held)
	}

	// Once it is lifted it is tried again; where it fails again, a lift of before
	// is none.
	s.quarantine("shapes", func(q *delivery.Quarantine) { q.Entries[0].Lifted = "the cameras were replaced" })
	s.settle()
	s.want("again", delivery.CheckSuccess)
	s.merge("again")
	s.settle()
	if got := s.serving(); got != "1 1 1" {
		t.Fatalf("devices serve %s, want version 1 after the second abort", got)
	}
	if n := len(s.signed.index.Aborts); n != 2 {
		t.Errorf("%d aborts were signed, want 2", n)
	}
	s.want(s.opened("aob/quarantine-shapes-"+bad.Short()+"-2"), delivery.CheckSuccess, "rolls back to version 1")
	s.quiet()
}

// A model file that is changed on main without a release is refused, and the accepted release stays.
func TestSpecPushedToMainKeepsTheRelease(t *testing.T) {
	s, _ := begun(t)
	s.released("first", 8)
	s.released("second", 14)
	s.repo.commit("main", s.main(), s.now, map[string]string{"models/shapes.yaml": model("shapes", 20)})
	s.settle()
	if got := s.serving(); got != "2 2 2" {
		t.Errorf("devices serve %s, want version 2 still", got)
	}
	c := s.check(s.main(), delivery.ContextRelease)
	if c.State != delivery.CheckFailure || !has(s.facts(s.main(), delivery.ContextRelease), code.SpecOther) {
		t.Errorf("main: %s: %s", c.State, c.Description)
	}
	s.want(s.opened("aob/restore-shapes-"), delivery.CheckSuccess, "back to version 2")
	s.quiet()
}

// Nobody is sent back to what is in quarantine by now.
func TestQuarantinedBase(t *testing.T) {
	s, _ := begun(t)
	s.released("first", 8)
	first := s.signed.last()
	s.propose("second", 14)
	s.settle()
	s.merge("second")
	s.turn()
	s.turn() // the first wave is out; two devices stay with version 1
	s.quarantine("shapes", func(q *delivery.Quarantine) {
		q.Entries = append(q.Entries, delivery.Quarantined{Digest: first, Why: "it was unsafe"})
	})
	s.turn()
	s.turn()
	if d := s.fleet.published["demo"]; d.Previous != nil || d.Release.Version != 2 {
		t.Errorf("published: version %d, and to the others %v", d.Release.Version, d.Previous)
	}
	s.settle()
	if got := s.serving(); got != "2 2 2" {
		t.Errorf("devices serve %s, want version 2", got)
	}
}

// Case 9: ways back. None trains, none downloads what a device has had.
func TestRollbacks(t *testing.T) {
	versions := func(t *testing.T) *sim { // 1, 2 and 3 on main
		s, _ := begun(t)
		s.released("first", 8)
		s.released("second", 14)
		s.released("third", 20)
		return s
	}
	back := func(s *sim, commit, branch string) { // to the files of a commit
		s.repo.commit(branch, s.main(), s.now, map[string]string{"models/shapes.yaml": s.repo.read(commit,
			"models/shapes.yaml"),
			"models/shapes.release.yaml": s.repo.read(commit, "models/shapes.release.yaml")})
	}
	landed := func(s *sim, n int) string { // the commit of main that brought a version
		for _, c := range s.repo.ancestors(s.main()) {
			if strings.Contains(s.repo.read(c, "models/shapes.release.yaml"), fmt.Sprintf("\nversion: %d\n", n)) &&
				len(s.repo.commits[c].parents) == 2 {
				return c
			}
		}
		s.fail("main never named version %d", n)
		return ""
	}
	for name, c := range map[string]struct {
		do   func(s *sim)
		want string
	}{
		"past a newer version, in a pull request": {func(s *sim) {
			back(s, landed(s, 1), "back")
			s.forge.open("back", "dev")
			s.settle()
			s.want("back", delivery.CheckSuccess, "rolls back to version 1, released before")
			s.merge("back")
		}, "1 1 1"},
		"and on again, in a pull request": {func(s *sim) {
			back(s, landed(s, 1), "main")
			s.settle()
			back(s, landed(s, 3), "on")
			s.forge.open("on", "dev")
			s.settle()
			s.want("on", delivery.CheckSuccess, "goes on to version 3, released before")
			s.merge("on")
		}, "3 3 3"},
		"past a newer version, pushed": {func(s *sim) { back(s, landed(s, 1), "main") }, "1 1 1"},
		"a revert of a revert":         {func(s *sim) { s.revert(); s.settle(); s.revert() }, "3 3 3"},
		"the gates were raised since": {func(s *sim) {
			s.repo.commit("main", s.main(), s.now, map[string]string{"gates/production.yaml": gateFile("production",
				"shapes", 0.9)})
			s.settle()
			back(s, landed(s, 2), "back")
			s.forge.open("back", "dev")
			s.settle()
			s.want("back", delivery.CheckSuccess, "rolls back to version 2",
				code.TodayFails, "shapes: mAP 0.7000 < 0.9")
			s.merge("back")
			s.settle()
			s.want("main", delivery.CheckSuccess, code.MainAcceptedBack, "shapes: mAP 0.7000 < 0.9")
		}, "2 2 2"},
		"to what is in quarantine": {func(s *sim) {
			s.quarantine("shapes", func(q *delivery.Quarantine) {
				q.Entries = append(q.Entries, delivery.Quarantined{Digest: s.signed.order[0], Why: "it was unsafe"})
			})
			s.settle()
			back(s, landed(s, 1), "back")
			s.forge.open("back", "dev")
			s.settle()
			s.want("back", delivery.CheckFailure, "is quarantined: it was unsafe; to let it run again, set lifted:")
			back(s, landed(s, 1), "main") // whatever the road
			s.settle()
			if c := s.check(s.main(), delivery.ContextRelease); c.State != delivery.CheckFailure ||
				!strings.Contains(c.Description, "is quarantined") {
				s.fail("main: %s: %s", c.State, c.Description)
			}
			s.revert()
		}, "3 3 3"},
		"to what was lifted": {func(s *sim) {
			s.quarantine("shapes", func(q *delivery.Quarantine) {
				q.Entries = append(q.Entries, delivery.Quarantined{Digest: s.signed.order[0], Why: "it was unsafe"})
			})
			s.settle()
			s.quarantine("shapes", func(q *delivery.Quarantine) { q.Entries[0].Lifted = "the scene has changed" })
			back(s, landed(s, 1), "back")
			s.forge.open("back", "dev")
			s.settle()
			s.want("back", delivery.CheckSuccess, "rolls back to version 1")
			s.merge("back")
		}, "1 1 1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := versions(t)
			trained, downloads := len(s.trained), s.fleet.downloads
			c.do(s)
			s.settle()
			if got := s.serving(); got != c.want {
				t.Errorf("devices serve %s, want %s", got, c.want)
			}
			if len(s.trained) != trained || s.fleet.downloads != downloads {
				t.Errorf("it cost %d trainings and %d downloads", len(s.trained)-trained, s.fleet.downloads-downloads)
			}
			s.quiet()
		})
	}
}

// Case 9: versions continue after a rollback, and the next release is judged against main's present release.
func TestVersionsContinue(t *testing.T) {
	s, _ := begun(t)
	s.released("first", 8)
	s.released("second", 14)
	s.revert()
	s.settle()
	s.propose("third", 20)
	s.settle()
	s.want("third", delivery.CheckSuccess, "version 3", "(version 1: 0.6000)")
}

// A rollback to a bundle that the registry has lost is no way back.
func TestRollbackToALostBundle(t *testing.T) {
	s, _ := begun(t)
	first := s.released("first", 8)
	s.released("second", 14)
	delete(s.signed.index.Bundles, s.signed.order[0])
	s.repo.commit("back", s.main(), s.now, map[string]string{"models/shapes.yaml": s.repo.read(first,
		"models/shapes.yaml"), "models/shapes.release.yaml": s.repo.read(first, "models/shapes.release.yaml")})
	s.forge.open("back", "dev")
	s.settle()
	s.want("back", delivery.CheckFailure, "bundle "+s.signed.order[0].Short()+
		" of version 1 is gone from the registry; restore it")
	s.quiet()
}

// Case 10: what a pinned fleet runs, and what it says where it cannot.
func TestPinnedFleets(t *testing.T) {
	for name, c := range map[string]struct {
		version int
		lost    bool
		state   delivery.CheckState
		text    string
		serving string
	}{
		"to an older version": {1, false, delivery.CheckSuccess, "version 1", "1 1 1"},
		"to one that never was": {7, false, delivery.CheckFailure,
			"pinned to version 7 of shapes, which was never released; name a released version", "2 2 2"},
		"to one that is lost": {1, true, delivery.CheckFailure, "version 1 is gone from the registry; restore it",
			"2 2 2"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := begun(t)
			s.released("first", 8)
			s.released("second", 14)
			if c.lost {
				delete(s.signed.index.Bundles, s.signed.order[0])
			}
			s.repo.commit("main", s.main(), s.now, map[string]string{"fleets/demo.yaml": fleetFile +
				fmt.Sprintf("version: %d\n", c.version)})
			s.settle()
			if got := s.serving(); got != c.serving {
				t.Errorf("devices serve %s, want %s", got, c.serving)
			}
			if r := s.loop.observed.plan.Fleets[0]; r.State != c.state || !strings.Contains(words.Join(r.Facts),
				c.text) {
				t.Errorf("the fleet is %s: %s", r.State, words.Join(r.Facts))
			}
			s.quiet()
			// Without the pin it follows main again.
			s.repo.commit("main", s.main(), s.now, map[string]string{"fleets/demo.yaml": fleetFile})
			s.settle()
			if got := s.serving(); got != "2 2 2" {
				t.Errorf("without the pin devices serve %s, want version 2", got)
			}
		})
	}
}

// Case 11, and a pull request of AOB's own: a bundle that nobody has judged is
// refused where nothing was accepted before, and taking its file away trains
// nothing.
func TestForgedFirstRelease(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.settle()
	release := s.repo.read(s.head("first"), "models/shapes.release.yaml")
	s.forge.prs[1].closed = true
	runs := len(s.runs.states)
	forged := strings.Replace(release, string(s.signed.last()), string(delivery.Sum([]byte("forged"))), 1)
	s.repo.commit("main", s.main(), s.now, map[string]string{"models/shapes.yaml": model("shapes", 8),
		"models/shapes.release.yaml": forged})
	s.settle()
	if c := s.check(s.main(), delivery.ContextRelease); c.State != delivery.CheckFailure ||
		!has(s.facts(s.main(), delivery.ContextRelease), code.StatementMissing) {
		t.Errorf("main: %s: %s", c.State, c.Description)
	}
	branch := s.opened("aob/restore-shapes-")
	s.want(branch, delivery.CheckSuccess, "its release file is removed")
	s.merge(branch)
	s.settle()
	if len(s.runs.states) != runs || s.serving() != "0 0 0" ||
		s.repo.read(s.main(), "models/shapes.release.yaml") != "" {
		t.Errorf("%d more runs, devices serve %s", len(s.runs.states)-runs, s.serving())
	}
	s.quiet()
}

// Removing a release file from main leaves the accepted release in place.
func TestReleaseFileRemoved(t *testing.T) {
	s, _ := begun(t)
	s.released("first", 8)
	s.repo.commit("main", s.main(), s.now, map[string]string{"models/shapes.release.yaml": ""})
	s.fleet.add("demo", "late")
	s.settle()
	if got := s.serving(); got != "1 1 1 1" {
		t.Errorf("devices serve %s, want version 1, the new one too", got)
	}
	s.propose("second", 14)
	s.settle()
	s.want("second", delivery.CheckSuccess, "version 2", "(version 1: 0.6000)")
}

// A gate that main gets after the pull request succeeded is judged from stored scores. Nothing is refused while its
// comparison runs.
func TestGateAddedAfterSuccess(t *testing.T) {
	s, _ := begun(t)
	s.released("first", 8)
	s.propose("second", 14)
	s.settle()
	for _, key := range s.runs.keys() {
		if s.runs.states[key].Spec.Kind == delivery.RunCompare {
			_ = s.runs.Remove(key)
		}
	}
	s.restart()
	head := s.head("second")
	s.repo.commit("main", s.main(), s.now, map[string]string{"gates/production.yaml": gateFile("production", "shapes",
		0.65)})
	s.repo.refs[git.Branch+"main"] = s.repo.write([]string{s.main(), head}, s.merged(s.main(), head), s.now,
		"merged meanwhile")
	delete(s.repo.refs, git.Branch+"second")
	s.turn()
	s.turn()
	if c := s.check(s.main(), delivery.ContextRelease); c.State != delivery.CheckPending {
		t.Errorf("while it is compared main is %s: %s", c.State, c.Description)
	}
	s.settle()
	if got := s.serving(); got != "2 2 2" {
		t.Errorf("devices serve %s, want version 2", got)
	}
	for _, p := range s.forge.prs {
		if strings.HasPrefix(p.HeadRef, "aob/") {
			t.Errorf("a pull request takes back what was accepted: %s", p.HeadRef)
		}
	}

	// A gate that it does not pass refuses it.
	s, _ = begun(t)
	s.propose("first", 8)
	s.settle()
	head = s.head("first")
	s.repo.commit("main", s.main(), s.now, map[string]string{"gates/production.yaml": gateFile("production", "shapes",
		0.65)})
	s.repo.refs[git.Branch+"main"] = s.repo.write([]string{s.main(), head}, s.merged(s.main(), head), s.now,
		"merged meanwhile")
	delete(s.repo.refs, git.Branch+"first")
	s.settle()
	if c := s.check(s.main(), delivery.ContextRelease); c.State != delivery.CheckFailure ||
		!strings.Contains(c.Description, "gate production says fail: mAP 0.6000 < 0.65") {
		t.Errorf("main: %s: %s", c.State, c.Description)
	}
}

// A gate that only compares has nothing to say of a first model, and is in
// nobody's way: neither in the pull request nor on main.
func TestGateThatDoesNotApply(t *testing.T) {
	s, _ := begun(t)
	compares := strings.Replace(gateFile("compares", "shapes", 0), "  - {metric: mAP, min: 0}\n", "", 1)
	s.repo.commit("main", s.main(), s.now, map[string]string{"gates/compares.yaml": compares})
	s.settle()
	s.released("first", 8)
	if got := s.serving(); got != "1 1 1" {
		t.Errorf("devices serve %s, want version 1; main: %v", got, s.check(s.main(), delivery.ContextRelease))
	}
	// Alone it lets nothing through.
	s, _ = begun(t)
	s.repo.commit("main", s.main(), s.now, map[string]string{"gates/compares.yaml": compares,
		"gates/production.yaml": ""})
	s.propose("first", 8)
	s.settle()
	s.want("first", delivery.CheckFailure, "no check of any gate applied")
}

// A gate that main got in the moment of a merge answers from what is stored, as it
// would have in the pull request: by its own reading, by as many looks, and on the same
// truths.
func TestGateRaisedAtMerge(t *testing.T) {
	gate := gateFile("production", "shapes", 0.31)
	for name, c := range map[string]struct {
		gate string
		do   func(s *sim)
		want delivery.Code // why main refuses; empty where it takes the release
	}{
		"another bar":  {gate, nil, ""},
		"other labels": {withLines(gate, "labels: {square: [square, easy]}"), nil, code.GateNotJudged},
		"looks":        {withLines(gate, "looks: 1"), nil, code.GateSays},
		"more confidence": {withLines(gate, "  - {metric: AP, classes: all, min: 0.1, confidence: 99.9%}"), nil,
			code.GateNotJudged},
		"other truths of the release": {gate, func(s *sim) {
			for key, r := range s.runs.states { // nor is it scored again
				if r.Spec.Eval != nil {
					_ = s.runs.Remove(key)
				}
			}
			s.runs.fail = map[delivery.RunKind]string{delivery.RunEval: "no"}
			for key, score := range s.signed.index.Scores {
				if score.Input.Bundle == s.signed.order[0] && score.Input.EvalSet.Split == "test" {
					delete(s.signed.index.Scores, key)
					score.Input.Truths, score.Content.Truths = "sha256:other", "sha256:other"
					score.Key = delivery.ScoreKey(score.Input)
					s.signed.index.Scores[score.Key] = score
				}
			}
		}, code.GateNotJudged},
	} {
		t.Run(name, func(t *testing.T) {
			s := shipped(t)
			s.push("other", model("shapes", 20))
			s.push("second", model("shapes", 14))
			s.want("second", delivery.CheckSuccess, "version 2")
			s.repo.commit("main", s.main(), s.now, map[string]string{"gates/production.yaml": c.gate})
			if c.do != nil {
				c.do(s)
			}
			s.merge("second")
			s.settle()
			if c.want != "" {
				s.want("main", delivery.CheckFailure, "version 2 refused", c.want)
				return
			}
			if got := s.serving(); got != "2 2 2" {
				t.Errorf("devices serve %s", got)
			}
		})
	}
}
