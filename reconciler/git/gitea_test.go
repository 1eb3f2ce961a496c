package git

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/autonomos/aob/tools/gitea/giteatest"
)

// TestGitea reads from and writes to a real Gitea.
func TestGitea(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	server := giteatest.Start(t)
	ada, bob := server.User(t, "ada"), server.User(t, "bob")
	repo := server.Repo(t, ada, "intent")
	server.Allow(t, repo, bob, "read")
	as := func(u giteatest.User) *Mirror {
		return open(t, t.TempDir(), Remote{URL: repo.CloneURL, Auth: func() (string, string) {
			return u.Name, u.Token
		}})
	}
	m := as(ada)
	if refs, changed := observe(t, m); len(refs) != 0 || !changed {
		t.Fatalf("an empty repository: got %v, %v", refs, changed)
	}
	commit := func(parents []string, text string) string {
		t.Helper()
		c, err := m.Commit(parents, map[string][]byte{"models/a.yaml": []byte(text),
			"docs/big.md": []byte(strings.Repeat(text, MaxBlob))}, committed, text)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	main := commit(nil, "1")
	if err := m.Push(t.Context(), main, "refs/heads/main", ""); err != nil {
		t.Fatal(err)
	}
	side := commit([]string{main}, "22")
	if err := m.Push(t.Context(), side, "refs/heads/side", ""); err != nil {
		t.Fatal(err)
	}
	pr := server.PullRequest(t, ada, repo, "side", "main", "Second")
	head := fmt.Sprintf("refs/pull/%d/head", pr)
	other := as(bob)
	if refs, _ := observe(t, other); refs["refs/heads/main"] != main || refs["refs/heads/side"] != side ||
		refs[head] != side {
		t.Fatalf("got %v", refs)
	}
	files, err := other.Files(side)
	if err != nil || len(files) != 1 || files[0].Size != 2 {
		t.Errorf("got %v, %v", files, err)
	}
	big := plumbing.ComputeHash(plumbing.BlobObject, []byte(strings.Repeat("22", MaxBlob)))
	if p, _ := other.own.find(big); p != nil {
		t.Error("a large file was fetched")
	}

	next := commit([]string{side}, "33")
	if err := other.Push(t.Context(), main, "refs/heads/x", ""); !isBlocked(err) {
		t.Errorf("read only: got %v, want Blocked", err)
	}
	if err := m.Push(t.Context(), next, "refs/heads/side", main); !errors.Is(err, ErrMoved) {
		t.Errorf("got %v, want ErrMoved", err)
	}
	if err := m.Push(t.Context(), next, "refs/heads/side", side); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for refs, _ := observe(t, other); refs[head] != next; refs, _ = observe(t, other) {
		if time.Now().After(deadline) {
			t.Fatal("Gitea did not move the pull request's head")
		}
	}
	server.Protect(t, repo, "main", "aob/release")
	if err := m.Push(t.Context(), next, "refs/heads/main", main); !isBlocked(err) ||
		!strings.Contains(err.Error(), "protected branch") {
		t.Errorf("a protected branch: got %v, want Blocked with Gitea's message", err)
	}
	if at, err := m.At(t.Context(), "refs/heads/main"); err != nil || at != main {
		t.Errorf("main is at %s, %v", at, err)
	}
	stranger := as(server.User(t, "eve"))
	if _, _, err := stranger.Observe(t.Context()); !isBlocked(err) {
		t.Errorf("a user without access: got %v, want Blocked", err)
	}
}
