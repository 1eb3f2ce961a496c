package forge

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/github/githubtest"
)

// keeper keeps texts in memory.
type keeper struct {
	mu    sync.Mutex
	texts map[string]string
	err   error
}

func (k *keeper) Kept(_ context.Context, prefix string) (map[string]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	found := maps.Clone(k.texts)
	maps.DeleteFunc(found, func(key, _ string) bool { return !strings.HasPrefix(key, prefix) })
	return found, k.err
}

func (k *keeper) Keep(_ context.Context, key, text string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		if k.texts == nil {
			k.texts = map[string]string{}
		}
		k.texts[key] = text
	}
	return k.err
}

const hookSecret = "between us"

// connectedApp is newGitHubApp with the connection that a server has: it takes webhooks and keeps presses.
func connectedApp(t *testing.T, kept Kept) (*stage, Connection, *githubtest.Server, *githubtest.Repo, *githubtest.App) {
	t.Helper()
	s, f, server, repo, in := newGitHubApp(t)
	c, err := connectGitHub(Settings{URL: server.URL, Repo: f.name(), Main: "main", App: f.app, HookSecret: hookSecret,
		Kept: kept})
	if err != nil || !c.Details {
		t.Fatalf("%+v, %v", c, err)
	}
	s.forge = c.Forge
	return s, c, server, repo, in
}

// A check run says what a status says and more. It is changed in place, and made anew where GitHub takes no change.
func TestGitHubCheckRuns(t *testing.T) {
	s, c, server, repo, _ := connectedApp(t, &keeper{})
	head := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	set := func(check delivery.Check) {
		t.Helper()
		check.Context = "aob/intent"
		if err := c.Forge.SetStatus(t.Context(), head, check); err != nil {
			t.Fatal(err)
		}
		got, err := c.Forge.Statuses(t.Context(), head)
		want := delivery.Status{Check: check, By: "aob[bot]", Mine: true}
		want.Check.Details = nil
		if check.Details != nil {
			want.Details = check.Details.Digest()
		}
		if err != nil || !slices.Equal(got, []delivery.Status{want}) {
			t.Errorf("read back: got %+v, %v; want %+v", got, err, want)
		}
	}
	runs := func(want int) githubtest.CheckRun {
		t.Helper()
		list := server.CheckRuns(repo, head)
		if len(list) != want {
			t.Fatalf("%d check runs, want %d: %+v", len(list), want, list)
		}
		return list[want-1]
	}
	set(delivery.Check{State: delivery.CheckPending, Description: "reading", URL: "https://aob.example.com/x"})
	if r := runs(1); r.Status != "in_progress" || r.Title != "reading" || r.Summary != "reading" ||
		r.Details != "https://aob.example.com/x" {
		t.Errorf("pending: %+v", r)
	}
	notes := []delivery.Complaint{{File: "models/a.yaml", Line: 3, Column: 5, Path: "train", Text: "unknown key"},
		{Text: "about no file"}, {File: "gates/b.yaml", Text: "missing"}}
	bad := &delivery.CheckDetails{Summary: "**2** complaints", Notes: notes}
	set(delivery.Check{State: delivery.CheckFailure, Description: "2 complaints", Details: bad})
	// Its annotations are new, so it is a new run.
	r := runs(2)
	if want := []string{"models/a.yaml:3 unknown key", "gates/b.yaml:1 missing"}; r.Conclusion != "failure" ||
		r.Summary != "**2** complaints" || !slices.Equal(r.Annotations, want) {
		t.Errorf("failed: %+v", r)
	}
	set(delivery.Check{State: delivery.CheckFailure, Description: "2 complaints, still",
		Details: &delivery.CheckDetails{Summary: "other words", Notes: notes}})
	if r := runs(2); len(r.Annotations) != 2 || r.Title != "2 complaints, still" || r.Summary != "other words" {
		t.Errorf("other words about the same lines: %+v", r)
	}
	set(delivery.Check{State: delivery.CheckPending, Description: "again", Details: bad})
	if r := runs(3); r.Status != "in_progress" || len(r.Annotations) != 2 {
		t.Errorf("what has ended begins again as another run: %+v", r)
	}
	many := &delivery.CheckDetails{Summary: "many"}
	for i := range 130 {
		many.Notes = append(many.Notes, delivery.Complaint{File: "models/a.yaml", Line: i + 1, Text: "wrong"})
	}
	set(delivery.Check{State: delivery.CheckError, Description: "many", Details: many})
	if r := runs(4); len(r.Annotations) != 130 || r.Annotations[129] != "models/a.yaml:130 wrong" ||
		r.Conclusion != "cancelled" {
		t.Errorf("130 complaints: %d annotations, %s", len(r.Annotations), r.Conclusion)
	}
	long := strings.Repeat("é long line\n", 20_000)
	set(delivery.Check{State: delivery.CheckSuccess, Description: "long",
		Details: &delivery.CheckDetails{Summary: long}})
	if r := runs(5); utf8.RuneCountInString(r.Summary) > maxSummary || len(r.Summary) < maxSummary/2 {
		t.Errorf("a long summary has %d characters", utf8.RuneCountInString(r.Summary))
	}
}

// A server that starts again finds its check runs, and one that failed between annotations makes the run anew.
func TestGitHubCheckRunsAfterACrash(t *testing.T) {
	s, c, server, repo, in := connectedApp(t, &keeper{})
	head := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	many := delivery.Check{Context: "aob/intent", State: delivery.CheckFailure, Description: "many",
		Details: &delivery.CheckDetails{Summary: "many"}}
	for i := range 70 {
		many.Details.Notes = append(many.Details.Notes, delivery.Complaint{File: "models/a.yaml", Line: i + 1,
			Text: "wrong"})
	}
	server.Refuse(func(r *http.Request) (int, http.Header, string) {
		if r.Method == http.MethodPatch {
			return http.StatusBadGateway, nil, "down"
		}
		return 0, nil, ""
	})
	if err := c.Forge.SetStatus(t.Context(), head, many); err == nil {
		t.Error("the second half was refused")
	}
	server.Refuse(nil)
	again := asGitHubApp(t, server, repo, in)
	if got := must(again.Statuses(t.Context(), head))(t); len(got) != 1 || got[0].Details != "" {
		t.Errorf("half a run has no details: %+v", got)
	}
	for range 2 {
		if err := again.SetStatus(t.Context(), head, many); err != nil {
			t.Fatal(err)
		}
	}
	list := server.CheckRuns(repo, head)
	if len(list) != 2 || len(list[1].Annotations) != 70 {
		t.Errorf("%d runs, the last one with %d annotations", len(list), len(list[len(list)-1].Annotations))
	}
}

// Another App's run of the same name is not AOB's, and does not hide AOB's.
func TestGitHubCheckRunsOfOthers(t *testing.T) {
	s, c, server, repo, _ := connectedApp(t, &keeper{})
	head := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	other := server.App(repo, "evil")
	server.SetCheckRun(repo, other, head, "AOB/release", "success")
	got, err := c.Forge.Statuses(t.Context(), head)
	if err != nil || len(got) != 1 || got[0].Mine || got[0].By != "evil[bot]" {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := c.Forge.SetStatus(t.Context(), head, delivery.Check{Context: "aob/release", State: delivery.CheckPending,
		Description: "not judged"}); err != nil {
		t.Fatal(err)
	}
	server.SetCheckRun(repo, other, head, "aob/release", "success")
	if got, err := c.Forge.Statuses(t.Context(), head); err != nil || len(got) != 1 || !got[0].Mine ||
		got[0].State != delivery.CheckPending {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A pressed button is an order of the person who pressed it, for the head on which it was pressed.
func TestGitHubButtons(t *testing.T) {
	kept := &keeper{}
	s, c, server, repo, in := connectedApp(t, kept)
	main := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	s.work.branch("side", main)
	head := s.work.push("side", map[string]string{"models/a.yaml": "2"}, "second")
	number := s.propose("side", "Second")
	code := strings.Repeat("0123456789abcdef", 2)
	orders := []delivery.Button{
		{Label: "Run for about $8.20", About: "Train shapes, at most $12", Order: "/aob run " + code},
		{Label: "Accept a very long label of a button", Order: "/aob accept " + code + " because it is good"},
		{Label: "third", Order: "/aob run 3"}, {Label: "fourth", Order: "/aob run 4"}}
	if err := c.Forge.SetStatus(t.Context(), head, delivery.Check{Context: "aob/release", State: delivery.CheckPending,
		Description: "needs approval", Details: &delivery.CheckDetails{Summary: "s", Buttons: orders}}); err != nil {
		t.Fatal(err)
	}
	run := server.CheckRuns(repo, head)[0]
	if len(run.Buttons) != 3 || run.Buttons["Run for about $8.20"] == "" {
		t.Fatalf("buttons: %v", run.Buttons)
	}
	bob := server.User("bob")
	press := server.Press(repo, bob, run.ID, run.Buttons["Run for about $8.20"], hookSecret)
	body := press.Header.Clone()
	orderOf := func() []delivery.Comment {
		t.Helper()
		prs := must(c.Forge.PullRequests(t.Context()))(t)
		if len(prs) != 1 {
			t.Fatalf("pull requests: %+v", prs)
		}
		return must(c.Forge.Commands(t.Context(), number))(t)
	}
	if _, err := c.Webhook(press); err != nil {
		t.Fatal(err)
	}
	again := server.Press(repo, bob, run.ID, run.Buttons["Run for about $8.20"], hookSecret)
	again.Header.Set("X-GitHub-Delivery", body.Get("X-GitHub-Delivery")) // GitHub sends it again
	if _, err := c.Webhook(again); err != nil {
		t.Fatal(err)
	}
	got := orderOf()
	if len(got) != 1 || got[0].Author != "bob" || got[0].Body != "/aob run "+code || got[0].VerifiedBy != pressedBy ||
		got[0].At.IsZero() || got[0].ID >= 0 {
		t.Errorf("got %+v", got)
	}
	// What is not signed, of another App, of another repository, of a bot, or no button of AOB's is no order.
	third := run.Buttons["third"]
	for name, change := range map[string]func() *http.Request{
		"another secret": func() *http.Request { return server.Press(repo, bob, run.ID, third, "guess") },
		"no button":      func() *http.Request { return server.Press(repo, bob, run.ID, "run", hookSecret) },
		"a bot":          func() *http.Request { return server.Press(repo, in.User, run.ID, third, hookSecret) },
		"another App": func() *http.Request {
			other := server.App(server.Repo("eve", "x"), "other")
			server.SetCheckRun(repo, other, head, "aob/release", "failure")
			list := server.CheckRuns(repo, head)
			return server.Press(repo, bob, list[len(list)-1].ID, run.Buttons["third"], hookSecret)
		},
		"another repository": func() *http.Request {
			return server.Press(server.Repo("eve", "intent"), bob, run.ID, run.Buttons["third"], hookSecret)
		},
	} {
		event, err := c.Webhook(change())
		if got := orderOf(); len(got) != 1 {
			t.Errorf("%s: got %+v", name, got)
		}
		if (name == "another secret") != errors.Is(err, ErrSignature) || event.Commit != "" {
			t.Errorf("%s: %+v, %v", name, event, err)
		}
	}
	event, err := c.Webhook(server.Rerun(repo, bob, run.ID, hookSecret))
	if err != nil || event.Commit != head {
		t.Errorf("a re-run: %+v, %v", event, err)
	}
	if got := orderOf(); len(got) != 2 || got[1].Body != "/aob recheck" {
		t.Errorf("a re-run: %+v", got)
	}
	event, err = c.Webhook(server.RerunAll(repo, bob, in, head, hookSecret))
	if err != nil || event.Commit != head {
		t.Errorf("a re-run of all: %+v, %v", event, err)
	}
	if got := orderOf(); len(got) != 3 || got[2].Body != "/aob recheck" {
		t.Errorf("a re-run of all: %+v", got)
	}
	if st := must(c.Forge.Statuses(t.Context(), head))(t); len(st) != 1 || st[0].State != delivery.CheckPending {
		t.Errorf("after a re-run: %+v", st)
	}
	kept.err = errors.New("disk full")
	if _, err := c.Webhook(server.Press(repo, bob, run.ID, run.Buttons["third"], hookSecret)); err == nil {
		t.Error("a press that cannot be kept is refused, so that the person hears of it")
	}
	kept.err = nil
	// A press on an earlier head counts for nothing.
	s.work.push("side", map[string]string{"models/a.yaml": "3"}, "third")
	if got := orderOf(); len(got) != 0 {
		t.Errorf("after a push: %+v", got)
	}
}

// A flood of presses is not kept without end.
func TestGitHubButtonsAreKeptWithinLimits(t *testing.T) {
	kept := &keeper{}
	s, c, server, repo, _ := connectedApp(t, kept)
	head := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	if err := c.Forge.SetStatus(t.Context(), head, delivery.Check{Context: "aob/release", State: delivery.CheckPending,
		Description: "x", Details: &delivery.CheckDetails{Summary: "s", Buttons: []delivery.Button{{Label: "Run",
			Order: "/aob run 1"}}}}); err != nil {
		t.Fatal(err)
	}
	run := server.CheckRuns(repo, head)[0]
	for range maxPresses + 5 {
		press := server.Press(repo, server.User("bob"), run.ID, run.Buttons["Run"], hookSecret)
		if _, err := c.Webhook(press); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(kept.texts); n != maxPresses+2 {
		t.Errorf("%d texts are kept, want %d presses, a button and the repository's id", n, maxPresses)
	}
}

// A press is one of a person on a check run of AOB's in AOB's repository, and nothing else.
func TestPressOf(t *testing.T) {
	f := &GitHub{owner: "ada", repo: "intent", app: &App{AppSettings: AppSettings{ID: 7}}}
	f.identity.repo = known{ID: 5, Name: "ada/models"}
	body := `{"action":"requested_action","check_run":{"head_sha":"` + strings.Repeat("a", 40) + `","app":{"id":7}},` +
		`"requested_action":{"identifier":"x"},"repository":{"id":5,"full_name":"ada/intent"},"sender":{` +
		`"login":"bob","type":"User"}}`
	for _, c := range []struct {
		name, old, new string
		event, id      string
		ok             bool
	}{
		{"a press", "", "", "check_run", "00000000-0000", true},
		{"of a renamed repository", "ada/intent", "ada/models", "check_run", "00000000-0000", true},
		{"of another repository", `"id":5`, `"id":6`, "check_run", "00000000-0000", false},
		{"of another App", `"id":7`, `"id":8`, "check_run", "00000000-0000", false},
		{"by a bot", `"User"`, `"Bot"`, "check_run", "00000000-0000", false},
		{"by nobody", `"bob"`, `""`, "check_run", "00000000-0000", false},
		{"by who has no name", `"bob"`, `"b b"`, "check_run", "00000000-0000", false},
		{"on no commit", strings.Repeat("a", 40), "main", "check_run", "00000000-0000", false},
		{"without a button", "requested_action", "created", "check_run", "00000000-0000", false},
		{"of another event", "", "", "push", "00000000-0000", false},
		{"without an id", "", "", "check_run", "", false},
		{"with a path as its id", "", "", "check_run", "../../../etc", false},
	} {
		h := http.Header{"X-Github-Event": {c.event}, "X-Github-Delivery": {c.id}}
		_, _, _, ok := f.pressOf(h, []byte(strings.Replace(body, c.old, c.new, 1)), time.Time{})
		if ok != c.ok {
			t.Errorf("%s: %t", c.name, ok)
		}
	}
}

// FuzzPress reads webhooks about check runs, which are signed, but whose senders write some of the text.
func FuzzPress(f *testing.F) {
	f.Add(`{"action":"requested_action","check_run":{"head_sha":"`+strings.Repeat("a", 40)+`","app":{"id":7}},`+
		`"requested_action":{"identifier":"x"},"repository":{"full_name":"ada/intent"},"sender":{"login":"bob",`+
		`"type":"User"}}`, "00000000-0000-0000-0000-000000000001")
	f.Add("{}", "")
	g := &GitHub{owner: "ada", repo: "intent", app: &App{AppSettings: AppSettings{ID: 7}}}
	f.Fuzz(func(t *testing.T, body, id string) {
		h := http.Header{"X-Github-Event": {"check_run"}, "X-Github-Delivery": {id}}
		p, commit, _, ok := g.pressOf(h, []byte(body), time.Time{})
		if ok && (strings.ContainsAny(p.By+p.ID+commit, " \n/<>\"\\") || p.By == "" || len(commit) < 40) {
			t.Errorf("%+v on %q", p, commit)
		}
		if idOf(p.ID) >= 0 {
			t.Error("an id of a comment")
		}
	})
}
