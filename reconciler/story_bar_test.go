package reconciler

// Stories of the bar: what is judged is what merging yields, and nothing that main
// holds gets lost on the way.

import (
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
)

// wantIntent fails unless a branch's aob/intent is in a state and mentions words.
func (s *sim) wantIntent(branch string, state delivery.CheckState, words ...string) {
	s.helper()
	c := s.check(s.head(branch), delivery.ContextIntent)
	if c.State != state {
		s.fail("%s: aob/intent is %q (%s), want %s", branch, c.State, c.Description, state)
	}
	for _, w := range words {
		if !strings.Contains(c.Description, w) {
			s.fail("%s: aob/intent says %q, want it to mention %q", branch, c.Description, w)
		}
	}
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
	branch = s.repo.commit("raise", from, s.now, map[string]string{"gates/production.yaml": gateFile("production", "shapes", 0.59),
		"models/shapes.quarantine.yaml": "apiVersion: aob/v1\nkind: Quarantine\nname: shapes\nentries:\n  - {digest: \"" + string(delivery.Sum([]byte("bad"))) + "\", why: smoke}\n"})
	s.forge.open("raise", "lead")
	s.settle()
	s.merge("raise")
	s.settle()
	return s, before, branch
}

func TestCrossedHistoryFailsIntent(t *testing.T) {
	for name, cross := range map[string]func(s *sim, before, branch string){
		"ours":       func(s *sim, before, branch string) { s.crossing("evil", before, branch, map[string]string{"NOTES.md": "x"}) },
		"no change":  func(s *sim, before, branch string) { s.crossing("evil", before, branch, nil) },
		"other side": func(s *sim, before, branch string) { s.crossing("evil", branch, before, nil) },
		"octopus": func(s *sim, before, branch string) {
			side := s.repo.write([]string{branch}, s.repo.with(branch, map[string]string{"a": "a"}), s.now, "side")
			s.repo.refs[git.Branch+"evil"] = s.repo.write([]string{before, branch, side}, s.repo.commits[before].files, s.now, "octopus")
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
			s.wantIntent("evil", delivery.CheckFailure, "crosses main's", "rebase onto main")
			s.want("evil", delivery.CheckFailure, "crosses main's", "rebase onto main")
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
	s.repo.refs[git.Branch+"honest"] = s.repo.write([]string{s.main()}, s.repo.with(s.main(), map[string]string{"models/shapes.yaml": model("shapes", 14)}), s.now, "rebased")
	s.settle()
	s.want("honest", delivery.CheckSuccess, "version 2")
}

// A head that has nothing in common with main cannot be merged by git, or only in a
// way that nobody reviewed.
func TestUnrelatedHistoryFailsIntent(t *testing.T) {
	s, _ := begun(t)
	s.released("first", 8)
	s.repo.refs[git.Branch+"alien"] = s.repo.write(nil, s.repo.with(s.main(), map[string]string{"models/shapes.yaml": model("shapes", 14)}), s.now, "alien")
	s.forge.open("alien", "dev")
	s.settle()
	s.wantIntent("alien", delivery.CheckFailure, "nothing in common with main's", "new branch from main")
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
	s.repo.commit("main", s.main(), s.now, map[string]string{"models/signs.yaml": model("signs", 1), "gates/signs.yaml": gateFile("signs", "signs", 0.3)})
	s.repo.commit("east", s.main(), s.now, map[string]string{"fleets/east.yaml": fleet("east", "signs", "")})
	s.forge.open("east", "dev")
	s.settle()
	s.want("east", delivery.CheckSuccess, "east is new")
	s.repo.commit("main", s.main(), s.now, map[string]string{"models/signs.yaml": "", "gates/signs.yaml": ""})
	s.settle()
	s.wantIntent("east", delivery.CheckFailure, "fleets/east.yaml", "signs", "rebase onto main")
	s.want("east", delivery.CheckFailure, "rebase onto main")
}
