package reconciler

import (
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
)

// Main that goes back without a revert, as after a forge was restored from a backup, is said until it is forward again.
func TestMainThatWentBackIsSaid(t *testing.T) {
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
				snap := Snapshot{World: s.loop.seen.world, Plan: s.loop.seen.plan, At: s.now}
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
