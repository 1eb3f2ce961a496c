package forge

import (
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/github/githubtest"
)

// newGitHub is a server with a private repository of ada's, where aob may write and bob may read.
func newGitHub(t *testing.T) (*stage, *GitHub, *githubtest.Server, *githubtest.Repo) {
	t.Helper()
	server := githubtest.Start(t)
	ada, bob, robot := server.User("ada"), server.User("bob"), server.User("aob")
	server.User("eve")
	users := map[string]*githubtest.User{"ada": ada, "bob": bob}
	repo := server.Repo("ada", "intent")
	server.Allow(repo, bob, "read")
	server.Allow(repo, robot, "write")
	f, err := NewGitHub(Settings{URL: server.URL, Repo: "ada/intent", Token: func() string { return robot.Token }})
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{forge: f, work: newWork(t, repo.Dir), owner: "ada"}
	s.propose = func(branch, title string) int { return server.Propose(repo, ada, repo, branch, title) }
	s.remove = func(branch string) { s.work.git("push", "-q", s.work.remote, ":"+branch) }
	s.checks = func(commit string) map[string]string {
		checks := map[string]string{}
		for context, st := range server.Statuses(repo, commit) {
			checks[context] = state(delivery.CheckState(st[0]), st[1])
		}
		return checks
	}
	s.comments = func(pr int) (bodies []string) {
		for _, c := range server.Comments(repo, pr) {
			bodies = append(bodies, c.Body)
		}
		return bodies
	}
	s.forged = func(commit, context string) string {
		server.SetStatus(repo, ada, commit, context, "success")
		return "ada"
	}
	s.say = func(pr int, user, text string) { server.Say(repo, users[user], pr, text) }
	s.may = map[string]delivery.Permission{
		"ada": delivery.PermissionWrite, "aob": delivery.PermissionWrite, "bob": delivery.PermissionRead,
		"eve": delivery.PermissionNone, "nobody-of-that-name": delivery.PermissionNone, "": delivery.PermissionNone,
	}
	return s, f, server, repo
}

// TestGitHub runs against a small server of our own that is held against GitHub's OpenAPI description.
func TestGitHub(t *testing.T) {
	s, _, _, _ := newGitHub(t)
	conform(t, s)
}
