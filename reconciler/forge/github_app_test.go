package forge

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/github/githubtest"
)

// asGitHubApp returns the forge as an App that is installed on a repository.
func asGitHubApp(t *testing.T, server *githubtest.Server, repo *githubtest.Repo, in *githubtest.App,
	change ...func(*AppSettings)) *GitHub {
	t.Helper()
	settings := AppSettings{URL: server.URL, Repo: repo.Owner + "/" + repo.Name, ID: in.ID,
		Key: func() ([]byte, error) { return in.Key, nil }}
	for _, c := range change {
		c(&settings)
	}
	app, err := NewApp(settings)
	if err != nil {
		t.Fatal(err)
	}
	f, err := NewGitHub(Settings{URL: server.URL, Repo: repo.Owner + "/" + repo.Name, Main: "main", App: app})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// newGitHubApp is the server of newGitHub, and AOB is an App there.
func newGitHubApp(t *testing.T) (*stage, *GitHub, *githubtest.Server, *githubtest.Repo, *githubtest.App) {
	t.Helper()
	s, _, server, repo := newGitHub(t)
	in := server.App(repo, "aob")
	f := asGitHubApp(t, server, repo, in)
	s.forge = f
	delete(s.may, "aob")
	s.may["aob[bot]"] = delivery.PermissionWrite // of AOB's own pull requests
	s.forged = nil                               // nobody else can change AOB's check runs
	states := map[string]string{"success": "success", "failure": "failure", "cancelled": "error", "": "pending"}
	s.checks = func(commit string) map[string]string {
		checks := map[string]string{}
		for _, r := range server.CheckRuns(repo, commit) {
			checks[r.Name] = state(delivery.CheckState(states[r.Conclusion]), strings.TrimPrefix(r.Title, r.Name))
		}
		return checks
	}
	return s, f, server, repo, in
}

// TestGitHubApp runs the story of all forges as a GitHub App.
func TestGitHubApp(t *testing.T) {
	s, _, _, _, _ := newGitHubApp(t)
	conform(t, s)
}

// Tokens are renewed before they end, and one that GitHub rejects is replaced.
func TestGitHubAppRenewsItsTokens(t *testing.T) {
	s, f, _, _, in := newGitHubApp(t)
	head := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	set := func(description string) error {
		return f.SetStatus(t.Context(), head, delivery.Check{Context: "aob/data", State: delivery.CheckSuccess,
			Description: description})
	}
	made := func(want int, why string) {
		t.Helper()
		if got := in.Tokens(); got != want {
			t.Errorf("%s: %d tokens, want %d", why, got, want)
		}
	}
	for range 3 {
		if err := set("an hour"); err != nil {
			t.Fatal(err)
		}
	}
	made(2, "one for finding the repository, and one for it alone, which lasts an hour")
	in.Revoke()
	if err := set("revoked"); err != nil {
		t.Errorf("the token was revoked: %v", err)
	}
	made(1, "a new one after the old one was revoked")
	in.Revoke()
	in.Ends = renewBefore - time.Minute
	for range 2 {
		if err := set("soon over"); err != nil {
			t.Fatal(err)
		}
	}
	made(2, "one that ends soon is renewed before each request")
}

// An App that was removed or suspended, or a wrong key: AOB says what to do, and goes on when it is done.
func TestGitHubAppRefused(t *testing.T) {
	s, f, server, repo, in := newGitHubApp(t)
	s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	blocked := func(f *GitHub, want string) {
		t.Helper()
		_, err := f.PullRequests(t.Context())
		_, is := errors.AsType[delivery.Blocked](err)
		if !is || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "PRIVATE KEY") {
			t.Errorf("got %v, want Blocked with %q", err, want)
		}
	}
	works := func() {
		t.Helper()
		if _, err := f.PullRequests(t.Context()); err != nil {
			t.Errorf("it works again: %v", err)
		}
	}
	works()
	in.Suspend(true)
	blocked(f, "is suspended")
	in.Suspend(false)
	works()
	in.Remove()
	blocked(f, "is not installed on ada/intent")
	in.Install(repo)
	works()

	other := server.App(server.Repo("ada", "other"), "other")
	key := func(key []byte, err error) func(*AppSettings) {
		return func(s *AppSettings) { s.Key = func() ([]byte, error) { return key, err } }
	}
	blocked(asGitHubApp(t, server, repo, in, key(other.Key, nil)), "does not believe the key of App")
	blocked(asGitHubApp(t, server, repo, in, key([]byte("-----BEGIN PRIVATE KEY-----\nxx"), nil)), "no private RSA key")
	blocked(asGitHubApp(t, server, repo, in, key(nil, &fs.PathError{Op: "open", Path: "/x", Err: fs.ErrNotExist})),
		"keyFile cannot be read: file does not exist")
	blocked(asGitHubApp(t, server, repo, in, func(s *AppSettings) { s.Installation = 999 }), "is not installed on")
	blocked(asGitHubApp(t, server, repo, other), "is not installed on")
}

// What the installation lacks is said.
func TestGitHubAppLacksPermissions(t *testing.T) {
	s, f, server, repo, in := newGitHubApp(t)
	s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	server.RequireFrom(repo, in.ID, "aob/release")
	setup, err := f.Check(t.Context())
	if err != nil || len(setup.Problems()) > 0 {
		t.Fatalf("all is right: %v, %v", setup.Problems(), err)
	}
	in.Grant("deployments", "")
	in.Grant("issues", "read")
	in.Revoke()
	setup, err = f.Check(t.Context())
	if err != nil || len(setup.Problems()) != 1 ||
		!strings.Contains(setup.Problems()[0], "may not write Deployments, Issues;") {
		t.Errorf("got %v, %v", setup.Problems(), err)
	}
	s.work.branch("side", s.work.git("rev-parse", "main"))
	s.work.push("side", map[string]string{"models/a.yaml": "2"}, "second")
	number := s.propose("side", "Second")
	if err := f.Comment(t.Context(), number, "report", "hello"); err == nil ||
		!strings.Contains(err.Error(), "the GitHub App lacks a permission") {
		t.Errorf("a comment: %v", err)
	}
}

// A rule must take aob/release from AOB's App alone, as everybody who may write can set a status.
func TestGitHubAppIsTheSource(t *testing.T) {
	s, f, server, repo, in := newGitHubApp(t)
	s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	byToken := as(t, server, repo, server.User("aob").Token)
	server.Allow(repo, server.User("aob"), "write")
	for name, c := range map[string]struct {
		source       int64
		asApp, asOne string
	}{
		"any source":  {0, "takes the check aob/release from any source", ""},
		"AOB's App":   {in.ID, "", "from App %d alone, and aob uses a token"},
		"another App": {999, "from App 999 alone, and aob is App", "from App 999 alone, and aob uses a token"},
	} {
		server.RequireFrom(repo, c.source, "aob/release")
		asOne := strings.ReplaceAll(c.asOne, "%d", fmt.Sprint(in.ID))
		for of, want := range map[*GitHub]string{f: c.asApp, byToken: asOne} {
			setup, err := of.Check(t.Context())
			got := strings.Join(faults(setup), "; ")
			if err != nil || (want == "") != (got == "") || !strings.Contains(got, want) {
				t.Errorf("%s: got %q, %v; want %q", name, got, err, want)
			}
		}
	}
}

// As an App, AOB sees teams and their members with permissions of their own, and says which where it cannot.
func TestGitHubAppTeams(t *testing.T) {
	server := githubtest.Start(t)
	ada := server.User("ada")
	repo := server.Repo("vision", "intent")
	in := server.App(repo, "aob")
	server.Team(repo, "leads", "push", ada)
	f := asGitHubApp(t, server, repo, in)
	owner := func(want string) {
		t.Helper()
		if got, err := f.Owner(t.Context(), "leads"); err != nil || (want == "") != (got == "") ||
			!strings.Contains(got, want) {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
	owner("")
	if teams, err := f.Teams(t.Context(), "ada"); err != nil || !teams["leads"] {
		t.Errorf("the teams of ada: %v, %v", teams, err)
	}
	in.Grant("members", "")
	owner("whose members aob cannot see; as a GitHub App")
	in.Grant("administration", "")
	owner("no team of the repository and no user who may write here; as a GitHub App")
	if teams, err := f.Teams(t.Context(), "ada"); err != nil || len(teams) != 0 {
		t.Errorf("the teams of ada: %v, %v", teams, err)
	}
}
