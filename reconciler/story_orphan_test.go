package reconciler

// Stories of what runs leave in a cloud account.

import (
	"errors"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A pull request shows what its runs left behind, and no other one does. What cannot be ended is in the status too.
func TestPullRequestShowsItsOrphans(t *testing.T) {
	s, main := begun(t)
	for _, branch := range []string{"first", "second"} {
		s.repo.commit(branch, main, s.now, map[string]string{"models/shapes.yaml": model("shapes", 8)})
		s.forge.open(branch, "dev")
	}
	orphan := delivery.Orphan{Kind: delivery.OrphanInstance, ID: "i-0abc", Region: "eu-central-1", Run: "train-1",
		Pull: 1, Why: delivery.OrphanExpired, At: s.now}
	left := orphan
	left.ID, left.Error = "i-0def", "it is protected from termination"
	foreign := orphan
	foreign.ID, foreign.Pull = "i-0ffe", 77
	s.loop.Orphans = func() []delivery.Orphan { return []delivery.Orphan{orphan, left, foreign} }
	s.loop.Swept(nil)
	s.settle()
	said := s.forge.comments[1]
	for _, want := range []string{"Left in the cloud account", "ended instance i-0abc in eu-central-1 of run train-1",
		"lived longer than its tag", "i-0def in eu-central-1 of run train-1 cannot be ended", "is protected"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in\n%s", want, said)
		}
	}
	if strings.Contains(said, "i-0ffe") || strings.Contains(s.forge.comments[2], "i-0") {
		t.Errorf("an orphan is shown with a pull request that did not make it:\n%s\n%s", said, s.forge.comments[2])
	}
	status := s.loop.Last().Status()
	if notices := strings.Join(status.Notices, "\n"); !strings.Contains(notices, "i-0def") ||
		strings.Contains(notices, "i-0abc") {
		t.Errorf("the status says %s", notices)
	}
	s.loop.Swept(errors.New("no answer"))
	if notices := strings.Join(s.loop.Notices(), "\n"); !strings.Contains(notices, "cannot be swept") {
		t.Errorf("after a sweep that failed: %s", notices)
	}
}
