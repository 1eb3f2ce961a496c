package forge

import (
	"net/http"
	"slices"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A fleet is an environment. A deployment of a commit is made once, also after a lost answer, and follows its release.
func TestGitLabDeployments(t *testing.T) {
	s := newGitLab(t)
	old := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	now := s.work.push("main", map[string]string{"models/a.yaml": "2"}, "second")
	d := delivery.Deployment{Fleet: "north", Commit: old, Model: "shapes", Version: 3,
		Bundle: delivery.Sum([]byte("x")), State: delivery.DeploymentRunning, Description: "wave 1 of 3"}
	show := func(d delivery.Deployment) {
		t.Helper()
		for range 2 {
			if err := s.lab.Deploy(t.Context(), d); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.server.Half(func(r *http.Request) bool { return r.Method == http.MethodPost })
	if err := s.lab.Deploy(t.Context(), d); err == nil {
		t.Error("half an answer is no error")
	}
	s.server.Half(nil)
	show(d)
	d.Description = "wave 2 of 3"
	show(d)
	d.State = delivery.DeploymentFailed
	show(d)
	d.State = delivery.DeploymentRunning // GitLab does not let it run again
	show(d)
	d.State = delivery.DeploymentDone
	show(d)
	other := d
	other.Fleet, other.State = "south", delivery.DeploymentFailed
	show(other)
	next := d
	next.Commit, next.Version, next.State = now, 4, delivery.DeploymentRunning
	show(next)
	want := []string{"north " + old + " running failed success", "south " + old + " failed",
		"north " + now + " running"}
	if got := s.server.Deployments(s.project); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	c, err := Kinds["gitlab"].Connect(Settings{Repo: "a/b", Token: func() string { return "x" }})
	if err != nil || c.Deployments == nil {
		t.Errorf("the connection shows no deployments, %v", err)
	}
}
