package reconciler

// Stories of what commits do on their way: those of a branch, which a forge that merges by rebase makes anew one by
// one, and those of main, which may lose a gate that nobody sees again.

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/history"
)

// takesBack makes a branch whose first commit does what main will do too and whose second commit takes that back, so
// that its diff shows a note alone.
func (s *sim) takesBack(branch, base string, files map[string]string) {
	old := map[string]string{}
	for path := range files {
		old[path] = s.repo.read(base, path)
	}
	s.repo.commit(branch, base, s.now.Add(7*time.Second), files)
	s.repo.commit(branch, s.head(branch), s.now, with(old, s.note("docs")))
	s.forge.open(branch, "dev")
}

// A merge by rebase skips a commit that main already has, and applies the commit that reverts it. No diff shows that.
func TestCommitsThatUndoMainAreRefused(t *testing.T) {
	t.Run("a gate", func(t *testing.T) {
		s, _ := begun(t)
		s.released("first", 8)
		raised := map[string]string{"gates/production.yaml": gateFile("production", "shapes", 0.59)}
		base := s.main()
		s.takesBack("back", base, raised)
		s.settle()
		s.want("back", delivery.CheckSuccess) // while main has the old gate, nothing is brought back
		s.repo.commit("raise", base, s.now.Add(5), raised)
		s.forge.open("raise", "lead")
		s.settle()
		s.merge("raise")
		s.settle()
		s.want("back", delivery.CheckFailure, "a commit of this branch changes gates/production.yaml",
			"git rebase main")
	})
	t.Run("a release", func(t *testing.T) {
		s, _ := begun(t)
		s.released("first", 8)
		base := s.main()
		s.propose("second", 14)
		s.settle()
		files := map[string]string{}
		for _, path := range []string{"models/shapes.yaml", "models/shapes.release.yaml"} {
			files[path] = s.repo.read(s.head("second"), path)
		}
		s.takesBack("back", base, files)
		s.settle()
		s.merge("second")
		s.settle()
		s.want("back", delivery.CheckFailure, "a commit of this branch changes models/shapes.release.yaml")
	})
}

// A merge by rebase drops what only a merge commit in the branch has.
func TestMergesThatUndoMainAreRefused(t *testing.T) {
	s, main := begun(t)
	low := s.repo.commit("side", main, s.now, map[string]string{"gates/production.yaml": gateFile("production",
		"shapes", 0)})
	other := s.repo.commit("other", main, s.now, s.note("docs"))
	s.repo.refs[git.Branch+"side"] = s.repo.write([]string{low, other}, s.repo.commits[other].files, s.now, "merge")
	s.forge.open("side", "dev")
	s.settle()
	s.want("side", delivery.CheckFailure, "a commit of this branch changes gates/production.yaml")
}

// A gate that main lost is reported until main has it again, however many commits follow.
func TestLostGateIsReportedUntilItIsBack(t *testing.T) {
	lowered := map[string]string{"gates/production.yaml": gateFile("production", "shapes", 0.01)}
	named := func(t *testing.T, s *sim, when string, want delivery.CheckState) {
		t.Helper()
		if c := s.check(s.main(), delivery.ContextIntent); c.State != want {
			t.Errorf("%s: %s: %s", when, c.State, c.Description)
		}
	}
	t.Run("one push of many commits", func(t *testing.T) {
		s, _ := begun(t)
		s.settle()
		s.repo.commit("main", s.main(), s.now, lowered)
		for i := range history.FirstCommits + 1 {
			s.repo.commit("main", s.main(), s.now, s.note(fmt.Sprint("docs", i)))
		}
		s.settle()
		named(t, s, "after the push", delivery.CheckFailure)
	})
	t.Run("commits after it", func(t *testing.T) {
		s, _ := begun(t)
		s.settle()
		s.repo.commit("main", s.main(), s.now, lowered)
		s.settle()
		named(t, s, "at once", delivery.CheckFailure)
		for i := range history.FirstCommits + 1 {
			s.repo.commit("main", s.main(), s.now, s.note(fmt.Sprint("docs", i)))
			s.turn()
		}
		s.settle()
		named(t, s, "much later", delivery.CheckFailure)
		s.restart()
		s.settle()
		named(t, s, "after a restart", delivery.CheckFailure)
		s.repo.commit("main", s.main(), s.now, map[string]string{"gates/production.yaml": gateFile("production",
			"shapes", 0.3)})
		s.settle()
		named(t, s, "once it is back", delivery.CheckSuccess)
	})
	t.Run("the bar of a fleet", func(t *testing.T) {
		s := barred(t)
		before := s.fleet.devices[0].Report.Bundle
		s.releasedOther(2)
		low := strings.Replace(gateFile("production", "shapes", 0.01),
			"  - {metric: mAP, maxDrop: 0.02, against: release}\n", "", 1)
		s.pushMain(map[string]string{"gates/production.yaml": low})
		s.pushMain(demoRuns("other", ""))
		s.settle()
		s.runsBundle(before, "its gate was lowered unseen")
		for i := range history.FirstCommits + 1 {
			s.repo.commit("main", s.main(), s.now,
				map[string]string{"models/other.yaml": fmt.Sprintf("# %d\n%s", i, model("other", 2))})
		}
		s.settle()
		s.runsBundle(before, "its gate was lowered unseen, many commits ago")
	})
}

// A file that was too large to be a gate hides no loss after it.
func TestLargeFileAmongGatesHidesNoLoss(t *testing.T) {
	s, _ := begun(t)
	s.settle()
	s.repo.commit("main", s.main(), s.now, map[string]string{"gates/large.yaml": strings.Repeat("# large\n", 20_000)})
	s.repo.commit("main", s.main(), s.now, map[string]string{"gates/large.yaml": "",
		"gates/production.yaml": gateFile("production", "shapes", 0.01)})
	s.settle()
	if c := s.check(s.main(), delivery.ContextIntent); c.State != delivery.CheckFailure ||
		!strings.Contains(c.Description, "weakened gate production") {
		t.Errorf("main's aob/intent: %s: %s", c.State, c.Description)
	}
}

// Only a merged pull request has shown its changes. Anybody may open one and close it.
func TestClosedPullRequestExcusesNoLostGate(t *testing.T) {
	lowered := map[string]string{"gates/production.yaml": gateFile("production", "shapes", 0.01)}
	for name, before := range map[string]bool{"before": true, "afterwards": false} {
		t.Run(name, func(t *testing.T) {
			s, _ := begun(t)
			s.settle()
			base := s.main()
			push := func() {
				s.repo.commit("main", s.main(), s.now, with(lowered, s.note("x")))
				s.settle()
			}
			if !before {
				push()
			}
			n := s.fork("lower", "mallory", base, lowered)
			s.repo.refs[git.Pull+fmt.Sprint(n)+"/head"] = s.forge.head(s.forge.prs[n])
			s.settle()
			s.forge.prs[n].closed = true
			s.settle()
			if before {
				push()
			}
			if c := s.check(s.main(), delivery.ContextIntent); c.State != delivery.CheckFailure {
				t.Errorf("main lost a gate, and says %s: %s", c.State, c.Description)
			}
		})
	}
}

// Older gates have no classes. Main cannot be read until a pull request adds them. It can be merged although main's own
// gate cannot be read, and it cannot weaken a gate unseen.
func TestGatesOfOlderVersions(t *testing.T) {
	before := func(floor float64) map[string]string {
		return map[string]string{"gates/production.yaml": strings.Replace(gateFile("production", "shapes", floor),
			"classes: [circle, square]\n", "", 1)}
	}
	with := map[string]string{"gates/production.yaml": gateFile("production", "shapes", 0.3)}
	t.Run("nothing was released", func(t *testing.T) {
		s := newSim(t)
		main := s.repo.commit("main", "", s.now, map[string]string{"models/shapes.yaml": model("shapes", 1),
			"gates/production.yaml": before(0.3)["gates/production.yaml"], "fleets/demo.yaml": fleetFile})
		s.fleet.add("demo", "a")
		s.settle()
		if c := s.check(main, delivery.ContextIntent); !strings.Contains(c.Description, "gates/production.yaml:1:1: "+
			"classes: missing; a gate lists the classes that it measures: add \"classes: [circle, square]\"") {
			t.Errorf("main says %s", c.Description)
		}
		s.proposes("upgrade", with)
		s.want("upgrade", delivery.CheckSuccess, "no model change; gates: production")
		s.merge("upgrade")
		s.settle()
		s.released("first", 8)
		s.quiet()
	})
	t.Run("a fleet runs", func(t *testing.T) {
		s, _ := begun(t)
		s.released("first", 8)
		s.repo.commit("main", s.main(), s.now, before(0.3))
		s.propose("second", 14)
		s.settle()
		s.want("second", delivery.CheckFailure, "gates/production.yaml:1:1: classes: missing")
		s.proposes("upgrade", with)
		s.want("upgrade", delivery.CheckSuccess, "no model change; gates: production")
		s.merge("upgrade")
		s.settle()
		s.want("main", delivery.CheckSuccess, "shapes version 1")
		if c := s.check(s.main(), delivery.ContextIntent); c.State != delivery.CheckSuccess {
			t.Errorf("main says %s", c.Description)
		}
		s.want("second", delivery.CheckSuccess, "version 2")
		if got := s.serving(); got != "1 1 1" {
			t.Errorf("devices serve %s", got)
		}
		s.quiet()
	})
	t.Run("by a push that lowers the bar", func(t *testing.T) {
		s := newSim(t)
		s.repo.commit("main", "", s.now, map[string]string{"models/shapes.yaml": model("shapes", 1),
			"gates/production.yaml": before(0.5)["gates/production.yaml"], "fleets/demo.yaml": fleetFile})
		s.settle()
		s.repo.commit("main", s.main(), s.now, with)
		s.settle()
		if c := s.check(s.main(), delivery.ContextIntent); c.State != delivery.CheckFailure ||
			!strings.Contains(c.Description, "weakened gate production") {
			t.Errorf("main says %s", c.Description)
		}
		s.repo.commit("main", s.main(), s.now, map[string]string{"gates/production.yaml": gateFile("production",
			"shapes", 0.5)})
		s.settle()
		if c := s.check(s.main(), delivery.ContextIntent); c.State != delivery.CheckSuccess {
			t.Errorf("main says %s", c.Description)
		}
	})
}
