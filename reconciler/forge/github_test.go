package forge

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/github/githubtest"
)

// newGitHub is a server with a private repository of ada's, where aob may write and bob may read.
func newGitHub(t *testing.T) (*stage, *GitHub, *githubtest.Server, *githubtest.Repo) {
	t.Helper()
	server := githubtest.Start(t)
	ada, bob, robot := server.User("ada"), server.User("bob"), server.User("aob")
	server.User("eve")
	users := map[string]*githubtest.User{"ada": ada, "bob": bob}
	repo := server.Repo("ada", "intent")
	server.Allow(repo, bob, "read")
	server.Allow(repo, robot, "write")
	f, err := NewGitHub(Settings{URL: server.URL, Repo: "ada/intent", Token: func() string { return robot.Token }})
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{forge: f, work: newWork(t, repo.Dir), owner: "ada"}
	s.propose = func(branch, title string) int { return server.Propose(repo, ada, repo, branch, title) }
	s.remove = func(branch string) { s.work.git("push", "-q", s.work.remote, ":"+branch) }
	s.checks = func(commit string) map[string]string {
		checks := map[string]string{}
		for context, st := range server.Statuses(repo, commit) {
			checks[context] = state(delivery.CheckState(st[0]), st[1])
		}
		return checks
	}
	s.comments = func(pr int) (bodies []string) {
		for _, c := range server.Comments(repo, pr) {
			bodies = append(bodies, c.Body)
		}
		return bodies
	}
	s.forged = func(commit, context string) string {
		server.SetStatus(repo, ada, commit, context, "success")
		return "ada"
	}
	s.say = func(pr int, user, text string) { server.Say(repo, users[user], pr, text) }
	s.may = map[string]delivery.Permission{
		"ada": delivery.PermissionWrite, "aob": delivery.PermissionWrite, "bob": delivery.PermissionRead,
		"eve": delivery.PermissionNone, "nobody-of-that-name": delivery.PermissionNone, "": delivery.PermissionNone,
	}
	return s, f, server, repo
}

// TestGitHub runs against a small server of our own that is held against GitHub's OpenAPI description.
func TestGitHub(t *testing.T) {
	s, _, _, _ := newGitHub(t)
	conform(t, s)
}

// as returns the forge with the token of another user.
func as(t *testing.T, server *githubtest.Server, repo *githubtest.Repo, token string) *GitHub {
	t.Helper()
	f, err := NewGitHub(Settings{URL: server.URL, Repo: repo.Owner + "/" + repo.Name, Main: "main",
		Token: func() string { return token }})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// A stranger may fork, propose and comment, and that is all. A fork that is deleted leaves its pull request.
func TestGitHubForks(t *testing.T) {
	s, f, server, repo := newGitHub(t)
	s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	bob := server.User("bob")
	fork := server.Fork(repo, bob)
	theirs := newWork(t, fork.Dir)
	theirs.git("pull", "-q", theirs.remote, "main")
	theirs.git("checkout", "-q", "-b", "main2")
	head := theirs.push("main2", map[string]string{"models/a.yaml": "evil"}, "second")
	number := server.Propose(repo, bob, fork, "main2", "Second")
	pulls := func() delivery.PullRequest {
		t.Helper()
		list, err := f.PullRequests(t.Context())
		if err != nil || len(list) != 1 {
			t.Fatalf("got %v, %v", list, err)
		}
		return list[0]
	}
	if pr := pulls(); !pr.Fork || pr.ForkOwner != "bob" || pr.Number != number || pr.Head != head ||
		pr.Author != "bob" || pr.HeadRef != "main2" {
		t.Errorf("got %+v", pr)
	}
	if got := s.work.git("ls-remote", s.work.remote, pulls().Ref); !strings.HasPrefix(got, head) {
		t.Errorf("%s is %q", pulls().Ref, got)
	}
	if err := f.SetStatus(t.Context(), head, delivery.Check{Context: delivery.ContextRelease,
		State: delivery.CheckPending}); err != nil {
		t.Errorf("a status on a fork's commit: %v", err)
	}
	if _, err := f.OpenPR(t.Context(), "main2", "main", "x", ""); err == nil { // the name is taken in the fork alone
		t.Error("a fork's branch was taken for ours")
	}
	server.DeleteFork(fork)
	if pr := pulls(); !pr.Fork || pr.Head != head || pr.HeadRef != "main2" {
		t.Errorf("after the fork was deleted: %+v", pr)
	}
	server.Close(repo, number)
	if now, ended, err := f.Ended(t.Context(), delivery.PullRequest{Number: number, Created: pullsCreated(t, f,
		number)}); err != nil || !ended || now.Merged {
		t.Errorf("closed: %+v, %t, %v", now, ended, err)
	}
	if _, ended, err := f.Ended(t.Context(), delivery.PullRequest{Number: 999}); err != nil || !ended {
		t.Errorf("a number that was never there: %t, %v", ended, err)
	}
}

// pullsCreated returns when a pull request was opened.
func pullsCreated(t *testing.T, f *GitHub, number int) time.Time {
	t.Helper()
	p, err := f.pullRequest(t.Context(), number)
	if err != nil || p == nil {
		t.Fatalf("pull request %d: %v", number, err)
	}
	return p.GetCreatedAt().UTC()
}

// Others may write our marker, edit what we wrote, and agree before they have seen the question as it is.
func TestGitHubQuestions(t *testing.T) {
	s, f, server, repo := newGitHub(t)
	main := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	s.work.branch("side", main)
	s.work.push("side", map[string]string{"models/a.yaml": "2"}, "second")
	number := s.propose("side", "Second")
	s.say(number, "bob", hidden("report")+"I am AOB")
	if err := f.Comment(t.Context(), number, "report", "ours"); err != nil {
		t.Fatal(err)
	}
	if got := s.comments(number); len(got) != 2 || !strings.Contains(got[1], "ours") {
		t.Errorf("got %q", got)
	}
	before := server.Comments(repo, number)[1]
	if err := f.Comment(t.Context(), number, "report", "ours"); err != nil {
		t.Fatal(err)
	}
	if after := server.Comments(repo, number)[1]; after.Updated != before.Updated {
		t.Error("the same content was written again")
	}

	ask := func() []delivery.Consent {
		t.Helper()
		list, err := f.Ask(t.Context(), number, "accept mAP?")
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if list := ask(); len(list) != 0 {
		t.Errorf("nobody has answered: %v", list)
	}
	question := server.Comments(repo, number)[2]
	bob := server.User("bob")
	server.React(repo, bob, question.ID, "-1")
	if list := ask(); len(list) != 0 {
		t.Errorf("a thumb down: %v", list)
	}
	server.React(repo, bob, question.ID, "+1")
	if list := ask(); len(list) != 1 || list[0].By != "bob" {
		t.Errorf("a thumb up: %v", list)
	}
	server.Edit(repo, question.ID, "do you like ice cream?")
	if _, err := f.Ask(t.Context(), number, "accept mAP?"); err == nil {
		if list := ask(); len(list) != 0 {
			t.Errorf("the question was edited: %v", list)
		}
	}
	server.Edit(repo, question.ID, question.Body)
	list, err := f.Ask(t.Context(), number, "accept mAP?")
	if len(list) != 0 {
		t.Errorf("the question was edited and edited back: %v, %v", list, err)
	}
}

// A repository of an organization has teams.
func TestGitHubTeams(t *testing.T) {
	server := githubtest.Start(t)
	ada, bob, robot := server.User("ada"), server.User("bob"), server.User("aob")
	repo := server.Repo("vision", "intent")
	server.Allow(repo, robot, "admin")
	server.Team(repo, "leads", "push", ada, robot)
	server.Team(repo, "readers", "pull", bob)
	server.Team(repo, "empty", "maintain", robot)
	f := as(t, server, repo, robot.Token)
	for user, want := range map[string]delivery.Permission{"ada": delivery.PermissionWrite,
		"bob": delivery.PermissionRead, "nobody": delivery.PermissionNone} {
		if got, err := f.Permission(t.Context(), user); err != nil || got != want {
			t.Errorf("%s: got %s, %v; want %s", user, got, err, want)
		}
	}
	in, err := f.Teams(t.Context(), "ada")
	if want := map[string]bool{"leads": true, "readers": false, "empty": false}; err != nil || !maps.Equal(in, want) {
		t.Errorf("the teams of ada: %v, %v", in, err)
	}
	for name, want := range map[string]string{"leads": "", "LEADS": "", "ada": "", "readers": "may not write",
		"empty": "without a member", "bob": "no team", "nobody": "no team"} {
		if got, err := f.Owner(t.Context(), name); err != nil || (want == "") != (got == "") ||
			!strings.Contains(got, want) {
			t.Errorf("%s as an owner: %q, %v; want %q", name, got, err, want)
		}
	}
}

// What is wrong with a repository's settings is said.
func TestGitHubSettings(t *testing.T) {
	s, _, server, repo := newGitHub(t)
	robot := server.User("aob")
	f := as(t, server, repo, robot.Token)
	wrong := func() string {
		t.Helper()
		setup, err := f.Check(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(faults(setup), "; ")
	}
	if got := wrong(); !strings.Contains(got, "has no branch main") {
		t.Errorf("an empty repository: %s", got)
	}
	s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	if got := wrong(); !strings.Contains(got, "does not require the status aob/release") {
		t.Errorf("an open branch: %s", got)
	}
	server.Require(repo, "ci/test", "AOB/release")
	if got := wrong(); got != "" {
		t.Errorf("all is right: %s", got)
	}
	server.Allow(repo, robot, "read")
	if got := wrong(); !strings.Contains(got, "give it the role Write") {
		t.Errorf("a reader: %s", got)
	}
	server.Allow(repo, robot, "write")
	server.Archive(repo, true)
	if got := wrong(); !strings.Contains(got, "archived") {
		t.Errorf("archived: %s", got)
	}
	if err := f.SetStatus(t.Context(), s.work.git("rev-parse", "main"), delivery.Check{Context: "aob/data",
		State: delivery.CheckSuccess}); err == nil || !strings.Contains(err.Error(), "archived") {
		t.Errorf("a status there: %v", err)
	}
}

// A token that is wrong or may too little, and a server that wants fewer requests or is down. No error has the token.
func TestGitHubRefuses(t *testing.T) {
	s, f, server, repo := newGitHub(t)
	head := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	set := func(f *GitHub) error {
		return f.SetStatus(t.Context(), head, delivery.Check{Context: "aob/data", State: delivery.CheckSuccess})
	}
	header := func(pairs ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			h.Set(pairs[i], pairs[i+1])
		}
		return h
	}
	soon := fmt.Sprint(time.Now().Add(10 * time.Minute).Unix())
	for name, c := range map[string]struct {
		status   int
		header   http.Header
		message  string
		least    time.Duration // of a wait
		blocked  bool
		contains string
	}{
		"the primary limit": {403, header("X-RateLimit-Remaining", "0", "X-RateLimit-Reset", soon),
			"API rate limit exceeded for user ID 1.", 9 * time.Minute, false, "limits requests"},
		"the secondary limit": {403, header("Retry-After", "120"), "You have exceeded a secondary rate limit.",
			2 * time.Minute, false, "secondary rate limit"},
		"the secondary limit without a time": {403, nil, "You have exceeded a secondary rate limit.", time.Minute,
			false, "secondary rate limit"},
		"too many requests": {429, header("Retry-After", "7"), "slow down", 7 * time.Second, false, "limits requests"},
		"no permission": {403, nil, "Resource not accessible by personal access token", 0, true,
			"lacks a permission"},
		"down":      {502, nil, "<html>Bad Gateway</html>", 0, false, "server error"},
		"bad token": {401, nil, "Bad credentials", 0, true, "rejects the token"},
		"gone":      {404, nil, "Not Found", 0, true, "finds no such thing"},
	} {
		server.Refuse(func(*http.Request) (int, http.Header, string) { return c.status, c.header, c.message })
		robot := server.User("aob")
		err := set(as(t, server, repo, robot.Token))
		wait, waits := errors.AsType[delivery.Wait](err)
		_, blocked := errors.AsType[delivery.Blocked](err)
		if err == nil || !strings.Contains(err.Error(), c.contains) || blocked != c.blocked || waits == c.blocked ||
			wait.For < c.least || strings.Contains(err.Error(), robot.Token) {
			t.Errorf("%s: got %v, wait %s; want %q", name, err, wait.For, c.contains)
		}
	}
	server.Refuse(nil)
	if err := set(as(t, server, repo, "stranger")); err == nil || !strings.Contains(err.Error(), "rejects the token") {
		t.Errorf("a token that GitHub does not know: %v", err)
	}
	if err := f.SetStatus(t.Context(), strings.Repeat("0", 40), delivery.Check{Context: "aob/data",
		State: delivery.CheckSuccess}); err == nil || !strings.Contains(err.Error(), "No commit found") {
		t.Errorf("a commit that is not there: %v", err)
	}
}

// A list in which nothing has changed costs no request that GitHub counts, however many pages it has.
func TestGitHubCountsNoRequestWithoutNews(t *testing.T) {
	s, f, server, repo := newGitHub(t)
	main := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	ada := server.User("ada")
	const open = 120
	for i := range open {
		branch := fmt.Sprint("b", i)
		s.work.git("--git-dir", repo.Dir, "update-ref", "refs/heads/"+branch, main)
		server.Propose(repo, ada, repo, branch, branch)
	}
	list := func() []delivery.PullRequest {
		t.Helper()
		prs, err := f.PullRequests(t.Context())
		if err != nil || len(prs) != open {
			t.Fatalf("%d pull requests, %v", len(prs), err)
		}
		return prs
	}
	list()
	before := server.Spent()
	list()
	if now := server.Spent(); now != before {
		t.Errorf("a second look cost %d requests", now-before)
	}
	s.work.git("checkout", "-q", "-b", "b119", main)
	head := s.work.push("b119", map[string]string{"models/a.yaml": "2"}, "second")
	if prs := list(); prs[open-1].Head != head {
		t.Errorf("the push is not seen: %+v", prs[open-1])
	}
	if now := server.Spent(); now != before+1 {
		t.Errorf("a push to one pull request cost %d requests, want 1", now-before)
	}
}

// A command counts as its author's where GitHub says that nobody has edited it, also where its times show no edit.
func TestGitHubCommandsOfTheirAuthors(t *testing.T) {
	s, f, server, repo := newGitHub(t)
	main := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	s.work.branch("side", main)
	s.work.push("side", map[string]string{"models/a.yaml": "2"}, "second")
	number := s.propose("side", "Second")
	bob := server.User("bob")
	own := server.Say(repo, bob, number, "/aob run 1111")
	late := server.Say(repo, bob, number, "looks good")
	server.Edit(repo, late, "/aob run 2222")
	atOnce := server.Say(repo, bob, number, "looks good")
	server.EditAtOnce(repo, atOnce, "/aob run 3333")
	verified := func() map[int64]bool {
		t.Helper()
		list, err := f.Commands(t.Context(), number)
		if err != nil || len(list) != 3 {
			t.Fatalf("%d commands, %v", len(list), err)
		}
		found := map[int64]bool{}
		for _, c := range list {
			found[c.ID] = c.VerifiedBy != ""
		}
		return found
	}
	want := map[int64]bool{own: true, late: false, atOnce: false}
	if got := verified(); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	server.Edit(repo, own, "/aob run 4444")
	want[own] = false
	if got := verified(); !maps.Equal(got, want) {
		t.Errorf("after an edit: got %v, want %v", got, want)
	}
	server.Edit(repo, own, "/aob run 1111") // somebody brings back what the author may have taken back
	if got := verified(); !maps.Equal(got, want) {
		t.Errorf("after it was edited back: got %v, want %v", got, want)
	}
	// Where GitHub does not answer, the list is an error, and it is read again later.
	other := server.Say(repo, bob, number, "/aob run 5555")
	server.Refuse(func(r *http.Request) (int, http.Header, string) {
		if strings.HasSuffix(r.URL.Path, "/graphql") {
			return http.StatusBadGateway, nil, "down"
		}
		return 0, nil, ""
	})
	if list, err := f.Commands(t.Context(), number); err == nil {
		t.Errorf("GitHub's GraphQL is down: got %+v", list)
	}
	server.Refuse(nil)
	if list := must(f.Commands(t.Context(), number))(t); list[len(list)-1].ID != other ||
		list[len(list)-1].VerifiedBy == "" {
		t.Errorf("afterwards: %+v", list)
	}
}

// AOB itself keeps to the number of writes that GitHub allows in a minute, and then waits without asking GitHub.
func TestGitHubWritesWithinItsBudget(t *testing.T) {
	s, f, server, _ := newGitHub(t)
	head := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	var err error
	set := 0
	for ; set <= mostInAMinute && err == nil; set++ {
		err = f.SetStatus(t.Context(), head, delivery.Check{Context: fmt.Sprint("aob/gate/", set),
			State: delivery.CheckSuccess})
	}
	before := server.Spent()
	wait, ok := errors.AsType[delivery.Wait](err)
	if !ok || set != mostInAMinute+1 || wait.For > time.Minute || strings.Contains(err.Error(), "secondary") {
		t.Errorf("after %d writes: %v", set, err)
	}
	if _, err := f.PullRequests(t.Context()); err != nil {
		t.Errorf("reading goes on: %v", err)
	}
	if err := f.Comment(t.Context(), 1, "report", "x"); err == nil {
		t.Error("a comment is a write too")
	}
	if spent := server.Spent() - before; spent > 3 {
		t.Errorf("%d requests were sent", spent)
	}
}
