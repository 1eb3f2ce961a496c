package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A pull request whose fork was deleted is judged at its last head, says that nobody can push to it, waits for a go as
// nobody owns its head any more, and goes on when a maintainer adopts it.
func TestDeletedForkOnGitea(t *testing.T) {
	if os.Getenv("AOB_SECURITY") == "" {
		t.Skip("it takes minutes: make test-security")
	}
	files := small("2e-3")
	files["README.md"] = "# What our devices run\n"
	files["gates/production.yaml"] = strings.ReplaceAll(production, "min: 0.05", "min: 0")
	m := newTeam(t, files)
	m.startServer(t)
	fork := m.gitea.Fork(t, m.ben, m.repo) // of one who may write: it would be trained without a go
	c := m.clone(t, m.ben, fork)
	c.git(t, "checkout", "-q", "main")
	const title = "bccd: from a fork that goes"
	commit := c.push(t, "goes", title, map[string]string{"README.md": "# What they run\n"})
	number := m.open(t, m.ben, "ben:goes", commit, title)
	m.await(t, number, delivery.ContextRelease, "success")
	commit = c.commit(t, title, small("3e-3"))
	c.git(t, "push", "-q", "origin", "goes")
	if err := m.gitea.Call(m.ben, "DELETE", "/repos/"+fork.Owner+"/"+fork.Name, nil, nil); err != nil {
		t.Fatal(err)
	}
	m.commented(t, number, "The head of this pull request is no branch")
	m.commented(t, number, fmt.Sprintf("aob pr adopt %d", number))
	if head := m.pull(t, number).Head.SHA; head != commit {
		t.Fatalf("the forge's head is %.10s, and %.10s was pushed last", head, commit)
	}

	var made struct{ Number int }
	if err := m.ask(t, &made, "pr", "adopt", fmt.Sprint(number)); err != nil {
		t.Fatal(err)
	}
	head, _ := m.settled(t, made.Number, "success")
	if head == commit {
		t.Error("no release was committed to the branch that was adopted")
	}
}
