package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Gitea closes the pull requests of a fork that is deleted. What runs for one ends, nothing is in trouble by it, and
// adopting it says why not. A head that is no branch on an open pull request, as by AGit, has cells of the table.
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
	c.commit(t, title, small("3e-3"))
	c.git(t, "push", "-q", "origin", "goes")
	if err := m.gitea.Call(m.ben, "DELETE", "/repos/"+fork.Owner+"/"+fork.Name, nil, nil); err != nil {
		t.Fatal(err)
	}
	until(t, func() error {
		status, err := m.status(t)
		if err != nil {
			return err
		}
		if len(status.PRs) > 0 || len(status.Runs) > 0 {
			return fmt.Errorf("pull requests %v, runs %v", status.PRs, status.Runs)
		}
		if len(status.Notices) > 0 {
			return fmt.Errorf("notices %v", status.Notices)
		}
		return nil
	})
	out, err := m.aob(t, "pr", "adopt", fmt.Sprint(number))
	if err == nil || !strings.Contains(fmt.Sprint(out, err), "nothing is known of pr") {
		t.Errorf("adopting it: %v: %s", err, out)
	}
}
