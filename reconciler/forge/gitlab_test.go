package forge

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/gitlab/gitlabtest"
)

// A labStage is a GitLab with a private project of ada's, where aob is a Developer and bob a Reporter.
type labStage struct {
	*stage
	server        *gitlabtest.Server
	project       *gitlabtest.Project
	lab           *GitLab
	ada, bob, aob *gitlabtest.User
}

func newGitLab(t *testing.T) *labStage {
	t.Helper()
	server := gitlabtest.Start(t)
	ada, bob, robot := server.User("ada"), server.User("bob"), server.User("aob")
	server.User("eve")
	users := map[string]*gitlabtest.User{"ada": ada, "bob": bob}
	project := server.Project(ada, "intent")
	server.Allow(project, bob, gitlabtest.Reporter)
	server.Allow(project, robot, gitlabtest.Developer)
	f, err := NewGitLab(Settings{URL: server.URL, Repo: "ada/intent", Main: "main",
		Token: func() string { return robot.Token }})
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{forge: f, work: newWork(t, server.Remote(project, ada)), owner: "ada"}
	s.propose = func(branch, title string) int { return server.Propose(project, ada, project, branch, title) }
	s.remove = func(branch string) { s.work.git("push", "-q", s.work.remote, ":"+branch) }
	s.checks = func(commit string) map[string]string {
		checks := map[string]string{}
		for context, st := range server.Statuses(project, commit) {
			words := map[string]delivery.CheckState{"failed": delivery.CheckFailure}
			word, known := words[st.State]
			if !known {
				word = delivery.CheckState(st.State)
			}
			description := st.Description
			if text, is := strings.CutPrefix(description, "Error:"); is && st.State == "failed" {
				word, description = delivery.CheckError, strings.TrimSpace(text)
			}
			checks[context] = state(word, description)
		}
		return checks
	}
	s.comments = func(pr int) (bodies []string) {
		for _, n := range server.Notes(project, pr) {
			bodies = append(bodies, n.Body)
		}
		return bodies
	}
	s.forged = func(commit, context string) string {
		server.SetStatus(project, ada, commit, context, "success")
		return "ada"
	}
	s.say = func(pr int, user, text string) { server.Say(project, users[user], pr, text) }
	s.may = map[string]delivery.Permission{
		"ada": delivery.PermissionWrite, "aob": delivery.PermissionWrite, "bob": delivery.PermissionRead,
		"eve": delivery.PermissionNone, "nobody-of-that-name": delivery.PermissionNone, "": delivery.PermissionNone,
	}
	return &labStage{s, server, project, f, ada, bob, robot}
}

// TestGitLab runs against a small server of our own, which answers only what the types of GitLab's official client
// know, and refuses parameters that GitLab's documentation does not name.
func TestGitLab(t *testing.T) {
	conform(t, newGitLab(t).stage)
}

// start pushes main and a branch, and opens a merge request.
func (s *labStage) start() (head string, number int) {
	main := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	s.work.branch("longer", main)
	head = s.work.push("longer", map[string]string{"models/a.yaml": "2"}, "Longer training")
	return head, s.propose("longer", "Longer training")
}

// pulls returns the open merge requests.
func (s *labStage) pulls(t *testing.T) []delivery.PullRequest {
	t.Helper()
	return must(s.lab.PullRequests(t.Context()))(t)
}

var _ = []any{errors.New, http.StatusOK, slices.Sort[[]int], time.Now}
