package reconciler

import (
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
)

// A pull request of AOB's own is open, and somebody with write permission pushes to its branch. It is AOB's word only
// where it asks for what AOB committed.
func TestOwnPullRequestHoldsOnlyWhatAOBCommitted(t *testing.T) {
	lower := map[string]string{"gates/production.yaml": gateFile("production", "shapes", 0)}
	push := func(files map[string]string) func(*sim, string) {
		return func(s *sim, branch string) { s.repo.commit(branch, s.head(branch), s.now, files) }
	}
	for _, c := range []struct {
		name  string
		push  func(s *sim, branch string)
		names string // what the checks name; empty where it goes on
	}{
		{"a lowered gate", push(lower), "gates/production.yaml"},
		{"a gate that is gone", push(map[string]string{"gates/production.yaml": ""}), "gates/production.yaml"},
		{"another file", push(map[string]string{"docs/x.md": "x"}), "docs/x.md"},
		{"another spec", push(map[string]string{"models/shapes.yaml": model("shapes", 20)}), "models/shapes.yaml"},
		{"no quarantine", push(map[string]string{"models/shapes.quarantine.yaml": ""}),
			"models/shapes.quarantine.yaml"},
		{"two files", push(with(lower, map[string]string{"docs/x.md": "x"})), "docs/x.md and 1 more"},
		{"another branch by force", func(s *sim, branch string) { s.repo.commit(branch, s.main(), s.now, lower) },
			"gates/production.yaml and 2 more"},
		{"another branch by force, and a restart", func(s *sim, branch string) {
			s.repo.commit(branch, s.main(), s.now, lower)
			s.restart()
			for range 5 {
				if s.turn(); s.check(s.head(branch), delivery.ContextRelease).State == delivery.CheckSuccess {
					s.fail("it is green for a turn after a restart")
				}
			}
		}, "gates/production.yaml and 2 more"},
		{"taken back", func(s *sim, branch string) {
			was := s.repo.read(s.head(branch), "gates/production.yaml")
			push(lower)(s, branch)
			s.settle()
			push(map[string]string{"gates/production.yaml": was})(s, branch)
		}, ""},
		{"main is brought in", func(s *sim, branch string) {
			note := s.note("docs")
			s.pushMain(note)
			s.repo.refs[git.Branch+branch] = s.repo.write([]string{s.head(branch), s.main()},
				s.repo.with(s.head(branch), note), s.now, "Merge branch 'main'")
		}, ""},
		{"main is brought in with another change", func(s *sim, branch string) {
			note := s.note("docs")
			s.pushMain(note)
			s.repo.refs[git.Branch+branch] = s.repo.write([]string{s.head(branch), s.main()},
				s.repo.with(s.head(branch), with(note, lower)), s.now, "Merge branch 'main'")
		}, "gates/production.yaml"},
		{"the release file of another model", push(map[string]string{"models/other.release.yaml": "x"}),
			"models/other.release.yaml"},
		{"nothing", func(*sim, string) {}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, branch := fellBack(t)
			s.want(branch, delivery.CheckSuccess, "rolls back to version 1")
			c.push(s, branch)
			s.settle()
			if c.names == "" {
				s.want(branch, delivery.CheckSuccess, "rolls back to version 1")
				s.quiet()
				return
			}
			for _, context := range []string{delivery.ContextIntent, delivery.ContextRelease} {
				check := s.check(s.head(branch), context)
				if check.State != delivery.CheckFailure ||
					!strings.Contains(check.Description, "has pushed "+c.names+" to") ||
					!has(s.facts(s.head(branch), context), code.ForeignChange) ||
					!strings.Contains(check.Description, branch+" to commit ") {
					t.Errorf("%s is %s: %s", context, check.State, check.Description)
				}
			}
			s.quiet()
		})
	}
}
