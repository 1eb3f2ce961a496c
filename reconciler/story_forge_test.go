package reconciler

// Stories of a forge that refuses some requests, keeps old statuses, or has several pull requests of one commit.

import (
	"fmt"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
)

// openTo opens a pull request of a branch to another branch. Several may have the same branch.
func (s *sim) openTo(number int, branch, base string) *simPR {
	s.forge.ready[number] = true
	pr := &simPR{PullRequest: delivery.PullRequest{Number: number, Title: branch, Author: "dev", HeadRef: branch, Base: base,
		ForkOwner: "dev", Ref: fmt.Sprintf("%s%d/head", git.Pull, number)}}
	s.forge.prs[number] = pr
	return pr
}

// One branch has two pull requests, to main and to another branch. Statuses belong to their common head, and the pull
// request to main is the one that they have to be about, whichever was opened first.
func TestPullRequestToMainSpeaksForASharedHead(t *testing.T) {
	for name, bases := range map[string][]string{
		"the other one is older":          {"release-1", "main"},
		"the other one is younger":        {"main", "release-1"},
		"two others, one older":           {"release-1", "main", "release-2"},
		"two others, both older":          {"release-1", "release-2", "main"},
		"a branch with the name of a ref": {"refs/heads/main", "main"},
	} {
		t.Run(name, func(t *testing.T) {
			s, main := begun(t)
			s.repo.commit("first", main, s.now, map[string]string{"models/shapes.yaml": model("shapes", 8)})
			for i, base := range bases {
				s.openTo(i+1, "first", base)
			}
			s.settle()
			s.want("first", delivery.CheckSuccess, "version 1")
			s.quiet()
		})
	}
}

// A draft to main speaks before a pull request to another branch. When nothing targets main any more, the status says so.
func TestSharedHeadIsJudgedWhileAnyPullRequestTargetsMain(t *testing.T) {
	s, main := begun(t)
	s.repo.commit("first", main, s.now, map[string]string{"models/shapes.yaml": model("shapes", 8)})
	s.openTo(1, "first", "release-1")
	draft := s.openTo(2, "first", "main")
	draft.Draft, s.forge.ready[2] = true, false
	s.settle()
	s.want("first", delivery.CheckPending, "draft")
	draft.Draft, s.forge.ready[2] = false, true
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
	draft.closed = true
	s.settle()
	s.want("first", delivery.CheckPending, "is judged when it targets main")
	s.quiet()
}
