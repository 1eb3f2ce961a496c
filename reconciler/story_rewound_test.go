package reconciler

import (
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/view"
)

// Main goes back without a revert, as after a restored backup. It is reported until main has the lost commits again.
func TestRewoundMainIsReported(t *testing.T) {
	for name, test := range map[string]struct {
		move func(s *sim, older string) string // returns where main is moved to
		back bool
	}{
		"restored": {func(_ *sim, older string) string { return older }, true},
		"another line": {func(s *sim, older string) string {
			return s.repo.write([]string{older}, s.repo.with(older, nil), s.now, "other")
		}, true},
		"reverted": {func(s *sim, older string) string {
			return s.repo.write([]string{s.main()}, s.repo.with(older, nil), s.now, "revert")
		}, false},
		"while it is off": {func(s *sim, older string) string { s.restart(); return older }, true},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := begun(t)
			s.released("first", 8)
			older := s.main()
			s.released("second", 14)
			newer := s.main()
			s.repo.refs[git.Branch+"main"] = test.move(s, older)
			s.settle()
			said := func() bool {
				s.helper()
				c := s.check(s.main(), delivery.ContextRelease)
				snap := view.Snapshot{World: s.loop.observed.world, Plan: s.loop.observed.plan, At: s.now}
				in := strings.Contains(c.Description, "main went back from "+newer[:12])
				if noted := strings.Contains(strings.Join(snap.Status().Notices, "\n"), "main went back from "+
					newer[:12]); noted != in {
					t.Errorf("aob status says so: %t; main's commit says %q", noted, c.Description)
				}
				return in
			}
			if got := said(); got != test.back {
				t.Errorf("said: %t, want %t", got, test.back)
			}
			s.restart()
			s.settle()
			if got := said(); got != test.back {
				t.Errorf("after a restart it is said: %t, want %t", got, test.back)
			}
			s.quiet()
			s.repo.refs[git.Branch+"main"] = newer
			s.settle()
			if test.back && said() {
				t.Error("it is still said when main is forward again")
			}
		})
	}
}

// Each time that main goes back is reported, with the commit that restores what is missing and a way that keeps main's
// new commits.
func TestEachRewindOfMainIsReported(t *testing.T) {
	back := func(from, to string) string { return "main went back from " + from[:12] + " to " + to[:12] }
	push := func(what string) string { return "push " + what[:12] + " to main again" }
	merge := func(what string) string { return "merge " + what[:12] + " into main" }
	for _, restart := range []bool{false, true} {
		s, _ := begun(t)
		s.released("first", 8)
		a := s.main()
		s.released("second", 14)
		b := s.main()
		commit := func(text string) string {
			s.pushMain(s.note(text))
			s.settle()
			return s.main()
		}
		said := func(want, not []string) {
			t.Helper()
			if restart {
				s.restart()
				s.settle()
			}
			text := s.check(s.main(), delivery.ContextRelease).Description
			for _, w := range want {
				if !strings.Contains(text, w) || !strings.Contains(s.notes(), w) {
					t.Errorf("restart %t: it is not said: %s\n%s\n%s", restart, w, text, s.notes())
				}
			}
			for _, w := range not {
				if strings.Contains(text, w) || strings.Contains(s.notes(), w) {
					t.Errorf("restart %t: it is said: %s\n%s", restart, w, text)
				}
			}
		}
		goes := func(to string) { s.repo.refs[git.Branch+"main"] = to; s.settle() }

		goes(a)
		said([]string{back(b, a), push(b)}, nil)
		x := commit("x")
		said([]string{back(b, a), merge(b)}, []string{push(b)})
		y := commit("y")
		goes(x)
		said([]string{back(y, x), push(y), back(b, a), merge(b)}, []string{push(b)})
		goes(a) // and back once more: y holds x
		said([]string{back(y, a), push(y), back(b, a), push(b)}, []string{back(x, a), push(x)})
		goes(y)
		said([]string{back(b, a), merge(b)}, []string{back(y, a), back(y, x)})
		s.repo.refs[git.Branch+"main"] = s.repo.write([]string{y, b}, s.repo.with(b, nil), s.now, "merge")
		s.settle()
		said(nil, []string{"main went back"})
		s.quiet()
	}
}
