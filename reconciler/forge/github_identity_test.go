package forge

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A repository that is renamed or transferred is the same one, before and after a restart. Another one that takes its
// name is refused.
func TestGitHubFollowsItsRepository(t *testing.T) {
	for name, asApp := range map[string]bool{"with a token": false, "as an App": true} {
		t.Run(name, func(t *testing.T) {
			s, _, server, repo := newGitHub(t)
			head := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
			s.work.branch("side/way", head)
			side := s.work.push("side/way", map[string]string{"models/a.yaml": "2"}, "second")
			number := s.propose("side/way", "Second")
			kept := &keeper{}
			settings := Settings{URL: server.URL, Repo: "ada/intent", Main: "main", Kept: kept,
				Token: func() string { return "github_pat_aob" }}
			if asApp {
				in := server.App(repo, "aob")
				settings.App = must(NewApp(AppSettings{URL: server.URL, Repo: "ada/intent", ID: in.ID,
					Key: func() ([]byte, error) { return in.Key, nil }}))(t)
			}
			start := func() *GitHub { return must(NewGitHub(settings))(t) }
			// An hour later, the name is looked up again.
			later := func(f *GitHub) { f.identity.at = f.identity.at.Add(-time.Hour) }
			const address = "https://git.example.com/ada/intent.git"
			works := func(f *GitHub, wantName string) {
				t.Helper()
				if f.Address() != server.URL+"/ada/intent" {
					t.Errorf("its address is part of keys and stays: %s", f.Address())
				}
				if prs, err := f.PullRequests(t.Context()); err != nil || len(prs) != 1 || prs[0].Head != side {
					t.Errorf("list: %+v, %v", prs, err)
				}
				check := delivery.Check{Context: "aob/data", State: delivery.CheckSuccess, Description: wantName}
				if err := f.SetStatus(t.Context(), side, check); err != nil {
					t.Errorf("write: %v", err)
				}
				if got, err := f.Statuses(t.Context(), side); err != nil || len(got) != 1 ||
					got[0].Description != wantName {
					t.Errorf("read: %+v, %v", got, err)
				}
				if err := f.Comment(t.Context(), number, "report", wantName); err != nil {
					t.Errorf("comment: %v", err)
				}
				setup, err := f.Check(t.Context())
				if err != nil || len(setup.Problems()) > 0 {
					t.Errorf("settings: %v, %v", setup.Problems(), err)
				}
				if got, err := f.Present(t.Context(), address); err != nil ||
					got != "https://git.example.com/"+wantName+".git" {
					t.Errorf("git: %s, %v", got, err)
				}
			}
			f := start()
			works(f, "ada/intent")
			server.Rename(repo, "ada", "models")
			later(f)
			works(f, "ada/models")
			works(start(), "ada/models")
			server.Rename(repo, "vision", "intent")
			later(f)
			works(f, "vision/intent")
			if _, _, err := f.Commit(t.Context(), "side/way", strings.Repeat("0", 40), "x", nil); !errors.As(err,
				new(delivery.Wait)) {
				t.Errorf("a commit on a stale head: %v", err)
			}

			// Somebody takes the first name. Who knows the present one does not care.
			eves := server.Repo("ada", "intent")
			server.Allow(eves, server.User("aob"), "write")
			later(f)
			works(f, "vision/intent")
			works(start(), "vision/intent")
			// Without the present name, or when that repository is gone, the other one is refused.
			kept.texts[f.identityKey()] = strings.Replace(kept.texts[f.identityKey()], "vision/intent", "ada/intent", 1)
			refused, want := start(), "is another repository now"
			if asApp {
				want = "finds no such thing" // the App is not installed there, and the repository is private
			}
			for what, try := range map[string]func() error{
				"list": func() error { _, err := refused.PullRequests(t.Context()); return err },
				"git":  func() error { _, err := refused.Present(t.Context(), address); return err },
				"commit": func() error {
					_, _, err := refused.Commit(t.Context(), "main", head, "x", nil)
					return err
				},
			} {
				if err := try(); !errors.As(err, new(delivery.Blocked)) ||
					!strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v", what, err)
				}
			}
			// While GitHub does not answer, git goes on with the last name.
			later(f)
			server.Refuse(func(*http.Request) (int, http.Header, string) { return 502, nil, "down" })
			if got, err := f.Present(t.Context(), address); err != nil || !strings.Contains(got, "vision/intent") {
				t.Errorf("git while GitHub is down: %s, %v", got, err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if got, err := start().Present(ctx, address); err != nil || got == "" {
				t.Errorf("git before GitHub has answered: %s, %v", got, err)
			}
		})
	}
}
