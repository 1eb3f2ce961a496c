package giteatest

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestServer checks the functions that other tests use.
func TestServer(t *testing.T) {
	s := Start(t)
	ada, bob := s.User(t, "ada"), s.User(t, "bob")
	r := s.Repo(t, ada, "intent")
	s.Allow(t, r, bob, "read")

	work := t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", work, "-c", "user.name=Ada", "-c",
			"user.email=ada@example.com"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %s: %v: %s", args[0], err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q", "-b", "main")
	git("commit", "-q", "--allow-empty", "-m", "first")
	git("push", "-q", s.PushURL(r, ada), "main")
	s.Protect(t, r, "main", "aob/release")
	git("commit", "-q", "--allow-empty", "-m", "second")
	if out, err := exec.Command("git", "-C", work, "push", s.PushURL(r, ada), "main").CombinedOutput(); err == nil {
		t.Errorf("a push to a protected branch succeeded: %s", out)
	}
	git("push", "-q", s.PushURL(r, ada), "HEAD:refs/heads/side")
	pr := s.PullRequest(t, ada, r, "side", "main", "Second")
	if err := s.Merge(ada, r, pr); err == nil {
		t.Error("merged without aob/release")
	}
	head := git("rev-parse", "HEAD")
	if err := s.Call(ada, "POST", "/repos/ada/intent/statuses/"+head, map[string]string{"context": "aob/release",
		"state": "success"}, nil); err != nil {
		t.Fatal(err)
	}
	if got := s.Statuses(t, r, head)["aob/release"].State; got != "success" {
		t.Errorf("the status is %q", got)
	}
	if err := s.Merge(ada, r, pr); err != nil {
		t.Error(err)
	}
	if f := s.Fork(t, bob, r); f.Owner != "bob" || filepath.Base(f.CloneURL) != "intent.git" {
		t.Errorf("the fork is %v", f)
	}
	s.PostComment(t, bob, r, pr, "nice")
	if list := s.Comments(t, r, pr); len(list) != 1 || list[0].Body != "nice" || list[0].Poster.UserName != "bob" {
		t.Errorf("the comments are %v", list)
	}
}
