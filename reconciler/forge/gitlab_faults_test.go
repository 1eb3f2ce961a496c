package forge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/gitlab/gitlabtest"
)

// A project that is renamed stays the one it is, and another one at its path does not take its place.
func TestGitLabProjects(t *testing.T) {
	s := newGitLab(t)
	ctx := t.Context()
	head, number := s.start()
	kept := &keeper{}
	connect := func(path string) *GitLab {
		t.Helper()
		f, err := NewGitLab(Settings{URL: s.server.URL, Repo: path, Main: "main", Kept: kept,
			Token: func() string { return s.aob.Token }})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	connect("ada/intent").pullsOf(t, number)
	s.server.Rename(s.project, "ada/renamed")
	other := s.server.Project(s.ada, "intent")
	s.server.Allow(other, s.aob, gitlabtest.Developer)

	f := connect("ada/intent") // after a restart
	f.pullsOf(t, number)
	if err := f.SetStatus(ctx, head, delivery.Check{Context: delivery.ContextRelease,
		State: delivery.CheckPending}); err != nil {
		t.Error(err)
	}
	setup := must(f.Check(ctx))(t)
	if got := setup.Problems(); len(got) != 1 || !strings.Contains(got[0], "ada/renamed") {
		t.Errorf("got %q", got)
	}

	s.server.Delete(s.project)
	_, err := f.PullRequests(ctx)
	if b, blocked := errors.AsType[delivery.Blocked](err); !blocked || !strings.Contains(b.Do, "forge.gitlab.project") {
		t.Errorf("of a deleted project: %v", err)
	}
	if _, ended, err := f.Ended(ctx, delivery.PullRequest{Number: number}); err == nil || ended {
		t.Errorf("a merge request of a deleted project: ended %t, %v", ended, err)
	}
	f = connect(fmt.Sprint(other.ID)) // as the hint says
	f.pullsOf(t)
	if f.Address() != s.server.URL+"/projects/"+fmt.Sprint(other.ID) {
		t.Errorf("its address is %s", f.Address())
	}
}

func (f *GitLab) pullsOf(t *testing.T, want ...int) {
	t.Helper()
	got := delivery.Each(must(f.PullRequests(t.Context()))(t), func(pr delivery.PullRequest) int { return pr.Number })
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Whatever the server answers, nothing is lost, nothing is said twice, and the error says what to do. No error has the
// token.
func TestGitLabFaults(t *testing.T) {
	always := func(code int, header http.Header, body string) func(*http.Request) (int, http.Header, string) {
		return func(*http.Request) (int, http.Header, string) { return code, header, body }
	}
	reset := http.Header{"RateLimit-Remaining": {"0"}, "Ratelimit-Remaining": {"0"},
		"Ratelimit-Reset": {fmt.Sprint(time.Now().Add(5 * time.Minute).Unix())}}
	for name, c := range map[string]struct {
		refuse func(*http.Request) (int, http.Header, string)
		half   bool
		revoke bool
		wait   time.Duration // at least; 0 for another error than a Wait
		hint   string        // of a Blocked
	}{
		"429 with Retry-After": {refuse: always(429, http.Header{"Retry-After": {"40"}}, "Retry later\n"),
			wait: 40 * time.Second},
		"429 with a reset": {refuse: always(429, reset, `{"message":{"error":"This endpoint has been requested too `+
			`many times. Try again later."}}`), wait: 4 * time.Minute},
		"502":            {refuse: always(502, nil, "<html>GitLab is not responding</html>"), wait: 1},
		"half an answer": {half: true},
		"a page of HTML": {refuse: always(200, nil, "<html>sign in</html>")},
		"revoked":        {revoke: true, hint: "check the token"},
		"too small a scope": {refuse: always(403, nil, `{"error":"insufficient_scope","error_description":"The `+
			`request requires higher privileges than provided by the access token.","scope":"api"}`),
			hint: "scopes api and write_repository"},
		"too small a role": {refuse: always(403, nil, `{"message":"403 Forbidden"}`), hint: "the role Developer"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newGitLab(t)
			head, number := s.start()
			s.pulls(t)
			s.say(number, "bob", "hello") // so that the list is another one than AOB remembers
			token := s.aob.Token
			s.server.Refuse(c.refuse)
			s.server.Half(func(*http.Request) bool { return c.half })
			if c.revoke {
				s.server.Revoke(token)
			}
			check := delivery.Check{Context: delivery.ContextRelease, State: delivery.CheckFailure, Description: "no"}
			calls := map[string]func(context.Context) error{
				"PullRequests": func(ctx context.Context) error {
					list, err := s.lab.PullRequests(ctx)
					if err != nil && len(list) > 0 {
						t.Errorf("a list with an error: %v", list)
					}
					return err
				},
				"Ended": func(ctx context.Context) error {
					_, ended, err := s.lab.Ended(ctx, delivery.PullRequest{Number: number})
					if err != nil && ended {
						t.Error("it counts as ended")
					}
					return err
				},
				"SetStatus": func(ctx context.Context) error { return s.lab.SetStatus(ctx, head, check) },
				"Comment":   func(ctx context.Context) error { return s.lab.Comment(ctx, number, "report", "hello") },
				"Commands":  func(ctx context.Context) error { _, err := s.lab.Commands(ctx, number); return err },
				"Permission": func(ctx context.Context) error {
					may, err := s.lab.Permission(ctx, "ada")
					if err != nil && may == delivery.PermissionWrite {
						t.Error("the permission of an error")
					}
					return err
				},
				"Check": func(ctx context.Context) error { _, err := s.lab.Check(ctx); return err },
			}
			for call, do := range calls {
				err := do(t.Context())
				if err == nil {
					t.Errorf("%s: no error", call)
					continue
				}
				if strings.Contains(err.Error(), token) {
					t.Errorf("%s: the error has the token: %v", call, err)
				}
				wait, waits := errors.AsType[delivery.Wait](err)
				if waits != (c.wait > 0) || waits && c.wait > 1 && wait.For < c.wait {
					t.Errorf("%s: got %v (%s), want a wait of %s", call, err, wait.For, c.wait)
				}
				if b, blocked := errors.AsType[delivery.Blocked](err); blocked != (c.hint != "") ||
					!strings.Contains(b.Do, c.hint) {
					t.Errorf("%s: got %v, want a hint with %q", call, err, c.hint)
				}
			}

			s.server.Refuse(nil)
			s.server.Half(nil)
			if c.revoke { // the new token is in the same file
				s.aob.Token = s.server.NewToken(s.aob, "api", "write_repository")
			}
			for call, do := range calls {
				for range 2 {
					if err := do(t.Context()); err != nil && call != "Check" {
						t.Errorf("%s afterwards: %v", call, err)
					}
				}
			}
			if got := s.comments(number); len(got) != 2 {
				t.Errorf("%d notes afterwards", len(got))
			}
			if got := s.checks(head); got[delivery.ContextRelease] != "failure no" {
				t.Errorf("afterwards the statuses are %v", got)
			}
		})
	}
}

// An answer that was lost on its way says nothing twice.
func TestGitLabLostAnswers(t *testing.T) {
	s := newGitLab(t)
	head, number := s.start()
	s.pulls(t)
	s.server.Half(func(r *http.Request) bool { return r.Method != http.MethodGet })
	check := delivery.Check{Context: delivery.ContextRelease, State: delivery.CheckPending, Description: "waits"}
	say := func() (errs []error) {
		_, err := s.lab.OpenPR(t.Context(), "aob/back", "main", "Back", "because")
		return append(errs, err, s.lab.SetStatus(t.Context(), head, check),
			s.lab.Comment(t.Context(), number, "report", "hello"))
	}
	s.work.branch("aob/back", "longer")
	s.work.push("aob/back", map[string]string{"models/a.yaml": "0"}, "Back")
	for i, err := range say() {
		if err == nil {
			t.Errorf("call %d: half an answer is no error", i)
		}
	}
	s.server.Half(nil)
	for i, err := range say() {
		if err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if n, notes, prs := s.server.Sets(s.project), len(s.comments(number)), len(s.pulls(t)); n != 1 || notes != 1 ||
		prs != 2 {
		t.Errorf("%d statuses, %d notes, %d merge requests", n, notes, prs)
	}
}

// All pages are read, also where a proxy removes the headers that tell of them.
func TestGitLabPages(t *testing.T) {
	s := newGitLab(t)
	_, number := s.start()
	for i := range 250 {
		s.say(number, "bob", fmt.Sprintf("note %d", i))
	}
	s.say(number, "ada", "/aob run 1")
	if list := must(s.lab.Commands(t.Context(), number))(t); len(list) != 1 || list[0].Author != "ada" {
		t.Errorf("got %+v", list)
	}
	before := s.server.Spent()
	must(s.lab.Commands(t.Context(), number))(t)
	if n := s.server.Spent() - before; n != 3 {
		t.Errorf("%d requests for 251 notes", n)
	}
}
