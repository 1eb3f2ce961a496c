package reconciler

import (
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/poll"
)

// fellBack is a world in which version 2 has failed on devices, and AOB has opened the pull request that takes it back.
func fellBack(t *testing.T) (s *sim, branch string) {
	s, _ = begun(t)
	s.released("first", 8)
	s.propose("second", 14)
	s.settle()
	s.fleet.broken[s.signed.last()] = true
	s.merge("second")
	s.settle()
	return s, s.opened("aob/quarantine")
}

// The forge is restored from a backup from before AOB opened a pull request, or the repository is moved to another
// forge without its pull requests. What is still needed is opened again. One that a person has closed is not.
func TestOwnPullRequestIsOpenedAgainWhereTheForgeLostIt(t *testing.T) {
	drop := func(s *sim, branch string) {
		for n, p := range s.forge.prs {
			if p.HeadRef == branch {
				delete(s.forge.prs, n)
			}
		}
		clear(s.forge.comments)
		clear(s.forge.statuses)
	}
	move := func(s *sim) { s.forge.address = "https://elsewhere.example/ada/intent" }
	closed := func(s *sim, branch string) {
		for _, p := range s.forge.prs {
			if p.HeadRef == branch {
				p.closed = true
			}
		}
	}
	for _, c := range []struct {
		name   string
		change func(s *sim, branch string)
		open   bool // in the end
	}{
		{"restored, with the branch", drop, true},
		{"restored, without the branch", func(s *sim, branch string) {
			drop(s, branch)
			delete(s.repo.refs, git.Branch+branch)
		}, true},
		{"moved", func(s *sim, branch string) { drop(s, branch); move(s) }, true},
		{"moved, and started again", func(s *sim, branch string) { drop(s, branch); move(s); s.restart() }, true},
		{"restored, and its number is another's", func(s *sim, branch string) {
			for _, p := range s.forge.prs {
				if p.HeadRef == branch {
					p.HeadRef, p.Author, p.closed = "docs", "dev", true
				}
			}
		}, true},
		{"closed", closed, false},
		{"closed, and its branch is removed", func(s *sim, branch string) {
			closed(s, branch)
			delete(s.repo.refs, git.Branch+branch)
		}, false},
		{"closed, moved with its pull requests, and started again", func(s *sim, branch string) {
			closed(s, branch)
			move(s)
			s.restart()
		}, false},
		{"closed, and the forge is down for a while", func(s *sim, branch string) {
			closed(s, branch)
			s.forge.down = true
			for range 10 {
				s.now = s.now.Add(time.Minute)
				s.turn()
			}
			s.forge.down = false
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, branch := fellBack(t)
			c.change(s, branch)
			s.wake()
			s.settle()
			s.now = s.now.Add(2 * poll.OwnLasts)
			s.settle()
			open := false
			for _, p := range s.forge.list() {
				open = open || p.HeadRef == branch && p.Author == "aob"
			}
			if open != c.open {
				t.Errorf("open: %v, want %v; pull requests %+v", open, c.open, s.forge.list())
			}
			if open {
				s.want(branch, delivery.CheckSuccess, "rolls back to version 1")
			}
			s.quiet()
		})
	}
}

// The same for the pull request that puts a release file back.
func TestRestorePullRequestIsOpenedAgainWhereTheForgeLostIt(t *testing.T) {
	s, _ := begun(t)
	s.released("first", 8)
	s.released("second", 14)
	s.pushMain(map[string]string{"models/shapes.yaml": model("shapes", 20)})
	s.settle()
	branch := s.opened("aob/restore-shapes-")
	for n, p := range s.forge.prs {
		if strings.HasPrefix(p.HeadRef, "aob/") {
			delete(s.forge.prs, n)
		}
	}
	delete(s.repo.refs, git.Branch+branch)
	s.wake()
	s.settle()
	s.now = s.now.Add(2 * poll.OwnLasts)
	s.settle()
	s.want(s.opened("aob/restore-shapes-"), delivery.CheckSuccess, "back to version 2")
	s.quiet()
}
