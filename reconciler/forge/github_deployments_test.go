package forge

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A fleet is an environment. A deployment is made once, and gets each status once, also after a crash in between.
func TestGitHubDeployments(t *testing.T) {
	for name, asApp := range map[string]bool{"with a token": false, "as an App": true} {
		t.Run(name, func(t *testing.T) {
			s, f, server, repo := newGitHub(t)
			if asApp {
				f = asGitHubApp(t, server, repo, server.App(repo, "aob"))
			}
			old := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
			now := s.work.push("main", map[string]string{"models/a.yaml": "2"}, "second")
			// A red check of the commit does not matter, nor that main has moved on.
			server.SetStatus(repo, server.User("ada"), old, "ci/test", "failure")
			d := delivery.Deployment{Fleet: "north", Commit: old, Model: "shapes", Version: 3,
				Bundle: delivery.Sum([]byte("x")), State: delivery.DeploymentRunning, Description: "wave 1 of 3",
				URL: "https://aob.example.com"}
			show := func(d delivery.Deployment, times int) {
				t.Helper()
				for range times {
					if err := f.Deploy(t.Context(), d); err != nil {
						t.Fatal(err)
					}
				}
			}
			server.Refuse(func(r *http.Request) (int, http.Header, string) {
				if strings.HasSuffix(r.URL.Path, "/statuses") && r.Method == http.MethodPost {
					return http.StatusBadGateway, nil, "down"
				}
				return 0, nil, ""
			})
			if err := f.Deploy(t.Context(), d); err == nil {
				t.Error("the status was refused")
			}
			server.Refuse(nil)
			show(d, 2)
			d.Description = strings.Repeat("w", 200)
			show(d, 2)
			d.State, d.Description = delivery.DeploymentDone, "all devices"
			show(d, 2)
			other := d
			other.Fleet, other.State, other.Description = "south", delivery.DeploymentFailed, "2 devices failed"
			show(other, 2)
			next := d
			next.Commit, next.Version = now, 4
			show(next, 2)
			list := server.Deployments(repo)
			if len(list) != 3 {
				t.Fatalf("%d deployments: %+v", len(list), list)
			}
			long := "in_progress " + Describe(strings.Repeat("w", 200))
			for i, want := range [][]string{{"in_progress wave 1 of 3", long, "success all devices", "inactive "},
				{"failure 2 devices failed"}, {"success all devices"}} {
				if !slices.Equal(list[i].Statuses, want) {
					t.Errorf("%d: got %q, want %q", i, list[i].Statuses, want)
				}
			}
			if got := list[2]; got.Environment != "north" || got.Commit != now ||
				got.Description != "shapes version 4" || got.Link != "https://aob.example.com" {
				t.Errorf("got %+v", got)
			}
		})
	}
}
