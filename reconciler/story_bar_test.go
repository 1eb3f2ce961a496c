package reconciler

// Stories of the bar: what is judged is what merging yields, and nothing that main
// holds gets lost on the way.

import (
	"fmt"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
)

// wantIntent fails unless a branch's aob/intent is in a state, and says what is wanted: see wantContext.
func (s *sim) wantIntent(branch string, state delivery.CheckState, wants ...any) {
	s.helper()
	s.wantContext(branch, delivery.ContextIntent, state, wants...)
}

// crossing makes a branch from an older merge commit of main and merges into it,
// with the strategy "ours", the branch that main merged after that. Its tree is that
// of the older commit, and the forge's diff shows nothing.
func (s *sim) crossing(name string, older, merged string, files map[string]string) {
	head := s.repo.write([]string{older, merged}, s.repo.with(older, files), s.now, name)
	s.repo.refs[git.Branch+name] = head
	s.forge.open(name, "dev")
}

// raised is a world where main raised its gate by merging a branch. It returns
// main's commit before that merge, and the branch's head.
func raised(t *testing.T) (s *sim, before, branch string) {
	s, _ = begun(t)
	s.released("first", 8)
	before = s.main()
	// The branch does not start from main's newest commit, as most do not.
	from := s.repo.commits[before].parents[0]
	branch = s.repo.commit("raise", from, s.now, map[string]string{"gates/production.yaml": gateFile("production",
		"shapes", 0.59),
		"models/shapes.quarantine.yaml": "apiVersion: aob/v1\nkind: Quarantine\nname: shapes\nentries:\n" +
			"  - {digest: \"" + string(delivery.Sum([]byte("bad"))) + "\", why: smoke}\n"})
	s.forge.open("raise", "lead")
	s.settle()
	s.merge("raise")
	s.settle()
	return s, before, branch
}

func TestCrossedHistoryFailsIntent(t *testing.T) {
	for name, cross := range map[string]func(s *sim, before, branch string){
		"ours": func(s *sim, before, branch string) {
			s.crossing("evil", before, branch, s.note("x"))
		},
		"no change":  func(s *sim, before, branch string) { s.crossing("evil", before, branch, nil) },
		"other side": func(s *sim, before, branch string) { s.crossing("evil", branch, before, nil) },
		"octopus": func(s *sim, before, branch string) {
			side := s.repo.write([]string{branch}, s.repo.with(branch, map[string]string{"a": "a"}), s.now, "side")
			s.repo.refs[git.Branch+"evil"] = s.repo.write([]string{before, branch, side}, s.repo.commits[before].files,
				s.now, "octopus")
			s.forge.open("evil", "dev")
		},
		"a commit on top": func(s *sim, before, branch string) {
			s.crossing("evil", before, branch, nil)
			s.repo.commit("evil", s.head("evil"), s.now, map[string]string{"models/shapes.yaml": model("shapes", 14)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, before, branch := raised(t)
			cross(s, before, branch)
			s.settle()
			s.wantIntent("evil", delivery.CheckFailure, "crosses that of main", "rebase onto main")
			s.want("evil", delivery.CheckFailure, "crosses that of main", "rebase onto main")
			s.quiet()
		})
	}
}

// Two people who merge each other's branches cross without any malice. Rebased, the
// same change is judged as it always was.
func TestCrissCrossByHonestMerges(t *testing.T) {
	s, before, branch := raised(t)
	s.crossing("honest", branch, before, map[string]string{"models/shapes.yaml": model("shapes", 14)})
	s.settle()
	s.want("honest", delivery.CheckFailure, "rebase onto main")
	s.repo.refs[git.Branch+"honest"] = s.repo.write([]string{s.main()},
		s.repo.with(s.main(), map[string]string{"models/shapes.yaml": model("shapes", 14)}), s.now, "rebased")
	s.settle()
	s.want("honest", delivery.CheckSuccess, "version 2")
}

// A head that has nothing in common with main cannot be merged by git, or only in a
// way that nobody reviewed.
func TestUnrelatedHistoryFailsIntent(t *testing.T) {
	s, _ := begun(t)
	s.released("first", 8)
	s.repo.refs[git.Branch+"alien"] = s.repo.write(nil,
		s.repo.with(s.main(), map[string]string{"models/shapes.yaml": model("shapes", 14)}), s.now, "alien")
	s.forge.open("alien", "dev")
	s.settle()
	s.wantIntent("alien", delivery.CheckFailure, "nothing in common with that of main", "new branch from main")
	s.want("alien", delivery.CheckFailure, "nothing in common")
}

// A branch that was made while main was broken inherits that, and merging it does not
// bring it back.
func TestBranchOfABrokenMainIsJudgedByWhatMergingYields(t *testing.T) {
	s, _ := begun(t)
	s.repo.commit("main", s.main(), s.now, map[string]string{"models/bad.yaml": "kind: Oops\n"})
	s.propose("first", 8)
	s.settle()
	s.wantIntent("first", delivery.CheckFailure, "models/bad.yaml")
	s.repo.commit("main", s.main(), s.now, map[string]string{"models/bad.yaml": ""})
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
}

// Two changes that are good each by itself may be bad together.
func TestMergeThatBreaksMainFailsIntent(t *testing.T) {
	s, _ := begun(t)
	s.repo.commit("main", s.main(), s.now, map[string]string{"models/signs.yaml": model("signs", 1),
		"gates/signs.yaml": gateFile("signs", "signs", 0.3)})
	s.repo.commit("east", s.main(), s.now, map[string]string{"fleets/east.yaml": fleet("east", "signs", "")})
	s.forge.open("east", "dev")
	s.settle()
	s.want("east", delivery.CheckSuccess, "east is new")
	s.repo.commit("main", s.main(), s.now, map[string]string{"models/signs.yaml": "", "gates/signs.yaml": ""})
	s.settle()
	s.wantIntent("east", delivery.CheckFailure, "fleets/east.yaml", "signs", "rebase onto main")
	s.want("east", delivery.CheckFailure, "rebase onto main")
}

// note is a change that asks for nothing.
func (s *sim) note(text string) map[string]string {
	return map[string]string{"fleets/demo.yaml": "# " + text + "\n" + s.repo.read(s.main(), "fleets/demo.yaml")}
}

// onGold lets a gate judge on an eval set of its own.
func onGold(gate string) string { return strings.Replace(gate, "dir: shapes", "dir: gold", 1) }

// withHeld is a world whose second release is in quarantine on main, and whose fleet
// is back on the first. It returns that bundle.
func withHeld(t *testing.T) (*sim, delivery.Digest) {
	s, _ := begun(t)
	s.released("first", 8)
	s.released("second", 14)
	bad := s.signed.last()
	s.quarantine("shapes", func(q *delivery.Quarantine) {
		q.Entries = append(q.Entries, delivery.Quarantined{Digest: bad, Why: "smoke"})
	})
	s.settle()
	if got := s.serving(); got != "1 1 1" {
		t.Fatalf("devices serve %s, want version 1", got)
	}
	return s, bad
}

const heldFile = "models/shapes.quarantine.yaml"

func TestRemovedQuarantineEntryHoldsUntilItIsLifted(t *testing.T) {
	for name, lose := range map[string]func(s *sim){
		"the file is removed": func(s *sim) { s.repo.commit("main", s.main(), s.now, map[string]string{heldFile: ""}) },
		"the entry is replaced": func(s *sim) {
			s.repo.commit("main", s.main(), s.now,
				map[string]string{
					heldFile: "apiVersion: aob/v1\nkind: Quarantine\nname: shapes\nentries:\n  - {digest: \"" +
						string(delivery.Sum([]byte("other"))) + "\", why: smoke}\n",
				})
		},
		"several commits in one push": func(s *sim) {
			s.repo.commit("main", s.main(), s.now, map[string]string{heldFile: ""})
			s.repo.commit("main", s.main(), s.now, s.note("x"))
			s.repo.commit("main", s.main(), s.now, s.note("y"))
		},
		"a revert":                func(s *sim) { s.revert() },
		"read after a restart":    func(s *sim) { s.revert(); s.restart() },
		"read without the ledger": func(s *sim) { s.revert(); s.ledger = newSimLedger(s); s.restart() },
		"a merge of the old side": func(s *sim) {
			old := s.repo.commits[s.main()].parents[0]
			side := s.repo.write([]string{old}, s.repo.with(old, s.note("x")), s.now, "side")
			s.repo.refs[git.Branch+"main"] = s.repo.write([]string{s.main(), side}, s.repo.commits[side].files, s.now,
				"merge")
		},
		"main is moved back": func(s *sim) { s.repo.refs[git.Branch+"main"] = s.repo.commits[s.main()].parents[0] },
		"main goes on along another line": func(s *sim) {
			old := s.repo.commits[s.main()].parents[0]
			s.repo.refs[git.Branch+"main"] = s.repo.write([]string{old, s.main()}, s.repo.commits[old].files, s.now,
				"ours")
		},
		"moved back, and a restart": func(s *sim) {
			s.repo.refs[git.Branch+"main"] = s.repo.commits[s.main()].parents[0]
			s.restart()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, bad := withHeld(t)
			lose(s)
			s.settle()
			if got := s.serving(); got != "1 1 1" {
				t.Errorf("devices serve %s, want version 1 still", got)
			}
			c := s.check(s.main(), delivery.ContextIntent)
			if c.State != delivery.CheckFailure || !strings.Contains(c.Description, heldFile) ||
				!strings.Contains(c.Description, bad.Short()) || !strings.Contains(c.Description, "lifted:") {
				t.Errorf("main's aob/intent: %s: %s", c.State, c.Description)
			}
			s.quiet()

			// A lift ends it, also one of an entry that was lost.
			s.quarantine("shapes", func(q *delivery.Quarantine) {
				q.Entries = append(q.Entries, delivery.Quarantined{Digest: bad, Why: "smoke",
					Lifted: "it was the camera"})
			})
			s.settle()
			if got := s.serving(); got != "2 2 2" {
				t.Errorf("after the lift devices serve %s, want version 2", got)
			}
			if c := s.check(s.main(), delivery.ContextIntent); c.State != delivery.CheckSuccess {
				t.Errorf("main's aob/intent after the lift: %s: %s", c.State, c.Description)
			}
		})
	}
}

// A branch that never saw an entry may not take it out by merging, and one that puts
// a lost entry back is welcome.
func TestLostEntryMayBePutBack(t *testing.T) {
	s, _ := withHeld(t)
	text := s.repo.read(s.main(), heldFile)
	s.repo.commit("main", s.main(), s.now, map[string]string{heldFile: ""})
	s.repo.commit("back", s.main(), s.now, map[string]string{heldFile: text})
	s.forge.open("back", "dev")
	s.settle()
	s.want("back", delivery.CheckSuccess)
	s.merge("back")
	s.settle()
	if c := s.check(s.main(), delivery.ContextIntent); c.State != delivery.CheckSuccess {
		t.Errorf("main's aob/intent: %s: %s", c.State, c.Description)
	}
}

// A gate that main loses or weakens is reported on main unless a pull request showed it.
func TestGateLostWithoutPullRequestIsReported(t *testing.T) {
	lowered := map[string]string{"gates/production.yaml": gateFile("production", "shapes", 0.01)}
	second := map[string]string{"gates/second.yaml": onGold(gateFile("second", "shapes", 0.5))}
	for name, c := range map[string]struct {
		do   func(s *sim)
		want string
	}{
		"removed by a push": {func(s *sim) {
			s.repo.commit("main", s.main(), s.now, map[string]string{"gates/second.yaml": ""})
		}, "removed gate second on main"},
		"lowered by a push": {func(s *sim) { s.repo.commit("main", s.main(), s.now, lowered) },
			"weakened gate production on main"},
		"covers another model": {func(s *sim) {
			s.repo.commit("main", s.main(), s.now, map[string]string{"models/signs.yaml": model("signs", 1),
				"gates/second.yaml": gateFile("second", "signs", 0.5)})
		}, "weakened gate second on main"},
		"another owner": {func(s *sim) {
			s.repo.commit("main", s.main(), s.now,
				map[string]string{"gates/second.yaml": strings.Replace(second["gates/second.yaml"], "[lead]",
					"[lead, mallory]", 1)})
		}, "weakened gate second on main"},
		"two commits in a push": {func(s *sim) {
			s.repo.commit("main", s.main(), s.now, lowered)
			s.repo.commit("main", s.main(), s.now, s.note("x"))
		}, "weakened gate production on main"},
		"a merge that does more than its branch": {func(s *sim) {
			side := s.repo.write([]string{s.main()}, s.repo.with(s.main(), s.note("x")), s.now, "side")
			s.repo.refs[git.Branch+"main"] = s.repo.write([]string{s.main(), side}, s.repo.with(side, lowered), s.now,
				"evil merge")
		}, "weakened gate production on main"},
		"a crossed merge": {func(s *sim) {
			base := s.main()
			raise := s.repo.write([]string{s.repo.commits[base].parents[0]},
				s.repo.with(s.repo.commits[base].parents[0],
					map[string]string{"gates/production.yaml": gateFile("production", "shapes", 0.55)}), s.now, "raise")
			s.repo.refs[git.Branch+"main"] = s.repo.write([]string{base, raise},
				s.repo.with(base, map[string]string{"gates/production.yaml": gateFile("production", "shapes", 0.55)}),
				s.now, "merge raise")
			s.settle()
			evil := s.repo.write([]string{base, raise}, s.repo.with(base, s.note("x")), s.now, "evil")
			s.repo.refs[git.Branch+"main"] = s.repo.write([]string{s.main(), evil}, s.repo.commits[evil].files, s.now,
				"merge evil")
		}, "weakened gate production on main"},
		"raised by a push": {func(s *sim) {
			s.repo.commit("main", s.main(), s.now, map[string]string{"gates/production.yaml": gateFile("production",
				"shapes", 0.55)})
		}, ""},
		"renamed": {func(s *sim) {
			s.repo.commit("main", s.main(), s.now, map[string]string{"gates/second.yaml": "",
				"gates/third.yaml": onGold(gateFile("third", "shapes", 0.5))})
		}, ""},
		"merged from a branch": {func(s *sim) {
			s.repo.commit("lower", s.main(), s.now, lowered)
			s.forge.open("lower", "lead")
			s.settle()
			s.merge("lower")
		}, ""},
		"squashed from a branch": {func(s *sim) {
			s.repo.commit("lower", s.main(), s.now, lowered)
			n := s.forge.open("lower", "lead")
			s.repo.refs[git.Pull+fmt.Sprint(n)+"/head"] = s.head("lower")
			s.settle()
			s.repo.commit("main", s.main(), s.now, s.note("x"))
			s.repo.commit("main", s.main(), s.now, lowered)
			s.forge.prs[n].closed, s.forge.prs[n].Merged = true, true
			delete(s.repo.refs, git.Branch+"lower")
		}, ""},
		"put back": {func(s *sim) {
			s.repo.commit("main", s.main(), s.now, map[string]string{"gates/second.yaml": ""})
			s.settle()
			s.repo.commit("main", s.main(), s.now, second)
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := begun(t)
			s.repo.commit("main", s.main(), s.now, second)
			s.released("first", 8)
			c.do(s)
			s.settle()
			got := s.check(s.main(), delivery.ContextIntent)
			if state := map[bool]delivery.CheckState{true: delivery.CheckSuccess,
				false: delivery.CheckFailure}[c.want == ""]; got.State != state ||
				!strings.Contains(got.Description, c.want) {
				t.Errorf("main's aob/intent: %s: %s; want %s: …%s…", got.State, got.Description, state, c.want)
			}
			if c.want != "" && !strings.Contains(got.Description, "without a pull request") {
				t.Errorf("main's aob/intent: %s", got.Description)
			}
			s.quiet()
		})
	}
}

// A branch that is older than a rename on main fails. Otherwise its merge would bring the old model back.
func TestOldBranchFailsAfterMainRenamedItsModel(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"renamed": {renamedTo("shapes", "figures", model("shapes", 8)), "main renamed shapes to figures (commit "},
		"renamed and trained otherwise": {renamedTo("shapes", "figures", model("shapes", 20)),
			"main renamed shapes to figures (commit "},
		"removed": {map[string]string{"models/shapes.yaml": "", "models/shapes.release.yaml": "",
			"gates/production.yaml": "", "fleets/demo.yaml": ""}, "main removed models/shapes.yaml (commit "},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := begun(t)
			s.released("first", 8)
			s.propose("old", 14)
			s.repo.commit("change", s.main(), s.now, c.files)
			s.forge.open("change", "dev")
			s.settle()
			s.want("change", delivery.CheckSuccess)
			s.merge("change")
			s.settle()
			s.want("old", delivery.CheckFailure, c.want, "rebase onto main")
			s.quiet()
		})
	}
}

// Git joins lines from both sides into a file that neither the head nor main has. Here the pull request adds a wave
// while main pauses the fleet.
func TestFileChangedOnBothSidesNeedsARebase(t *testing.T) {
	for name, files := range map[string][2]map[string]string{
		"gate": {{"gates/production.yaml": gateFile("production", "shapes", 0.6)},
			{"gates/production.yaml": gateFile("production", "shapes", 0.55)}},
		"fleet": {{"fleets/demo.yaml": demoRuns("shapes", "paused: true\n")["fleets/demo.yaml"]},
			{"fleets/demo.yaml": demoRuns("shapes",
				"window: {days: [mon], from: \"01:00\", to: \"05:00\", zone: UTC}\n")["fleets/demo.yaml"]}},
		"renamed away": {{"gates/production.yaml": gateFile("production", "shapes", 0.6)},
			{"gates/production.yaml": "", "gates/other.yaml": gateFile("other", "shapes", 0.5)}},
	} {
		t.Run(name, func(t *testing.T) {
			s := barred(t)
			s.repo.commit("change", s.main(), s.now, files[1])
			s.repo.commit("main", s.main(), s.now, files[0])
			s.forge.open("change", "dev")
			s.settle()
			s.want("change", delivery.CheckFailure, "rebase onto main (git rebase main): main has changed ",
				" too, and nobody can see")

			// The same change on top of main is judged.
			s.repo.commit("rebased", s.main(), s.now, files[1])
			s.forge.open("rebased", "dev")
			s.settle()
			s.want("rebased", delivery.CheckSuccess)
		})
	}
}

// What the ledger keeps of a target branch has a place of its own, whatever the branch is called. Also what an earlier
// version of AOB kept is found again.
func TestQuarantineIsKeptForATargetBranchOfAnyName(t *testing.T) {
	for _, branch := range []string{"held", "main", "quarantine/held"} {
		for _, earlier := range []bool{false, true} { // the ledger was written by an earlier version
			t.Run(fmt.Sprintf("%s, earlier %t", branch, earlier), func(t *testing.T) {
				s, bad := withHeld(t)
				if earlier {
					s.ledger.said["main/held"] = s.ledger.said["quarantine/held"]
					delete(s.ledger.said, "quarantine/held")
				}
				s.repo.refs[git.Branch+branch] = s.main()
				restart := func() {
					s.restart(func(r *Reconciler) { r.Main = branch })
					s.settle()
				}
				restart()
				before := s.repo.commits[s.head(branch)].parents[0]
				s.repo.refs[git.Branch+branch] = before // to a line that does not show the entry
				s.settle()
				s.repo.commit(branch, before, s.now, s.note("x"))
				for range 3 {
					restart()
					if good := s.ledger.said["main/"+branch].Content; good != s.head(branch) {
						t.Errorf("the last good commit is %q, want %q", good, s.head(branch))
					}
					if got := s.serving(); got != "1 1 1" {
						t.Errorf("devices serve %s, want version 1 still", got)
					}
					c := s.check(s.head(branch), delivery.ContextIntent)
					if c.State != delivery.CheckFailure || !strings.Contains(c.Description, bad.Short()) {
						t.Errorf("aob/intent of %s: %s: %s", branch, c.State, c.Description)
					}
				}
			})
		}
	}
}
