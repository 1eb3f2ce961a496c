package forge

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/gitea/giteatest"
)

// TestGitea runs against a real server.
func TestGitea(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	server := giteatest.Start(t)
	ada, bob, eve, robot := server.User(t, "ada"), server.User(t, "bob"), server.User(t, "eve"), server.User(t, "aob")
	users := map[string]giteatest.User{"ada": ada, "bob": bob, "eve": eve}
	setup := func(t *testing.T, name string) (*stage, *Gitea, giteatest.Repo) {
		t.Helper()
		repo := server.Repo(t, ada, name)
		server.Allow(t, repo, bob, "read")
		server.Allow(t, repo, robot, "admin")
		f, err := NewGitea(Settings{URL: server.URL, Repo: repo.Owner + "/" + repo.Name, Token: func() string {
			return robot.Token
		}})
		if err != nil {
			t.Fatal(err)
		}
		s := &stage{forge: f, work: newWork(t, server.PushURL(repo, ada))}
		s.propose = func(branch, title string) int { return server.PullRequest(t, ada, repo, branch, "main", title) }
		s.remove = func(branch string) { s.work.git("push", "-q", s.work.remote, ":"+branch) }
		s.checks = func(commit string) map[string]string {
			checks := map[string]string{}
			for context, st := range server.Statuses(t, repo, commit) {
				checks[context] = state(delivery.CheckState(st.State), st.Description)
			}
			return checks
		}
		s.comments = func(pr int) []string {
			var bodies []string
			for _, c := range server.Comments(t, repo, pr) {
				bodies = append(bodies, c.Body)
			}
			return bodies
		}
		s.forged = func(commit, context string) string {
			path := fmt.Sprintf("/repos/%s/%s/statuses/%s", repo.Owner, repo.Name, commit)
			if err := server.Call(ada, "POST", path, map[string]string{"state": "success", "context": context},
				nil); err != nil {
				t.Fatal(err)
			}
			return ada.Name
		}
		s.owner = ada.Name
		s.say = func(pr int, user, text string) { server.PostComment(t, users[user], repo, pr, text) }
		s.may = map[string]delivery.Permission{
			"ada": delivery.PermissionWrite, "aob": delivery.PermissionWrite, "bob": delivery.PermissionRead,
			"eve": delivery.PermissionNone, "nobody-of-that-name": delivery.PermissionNone, "": delivery.PermissionNone,
		}
		return s, f, repo
	}

	t.Run("conformance", func(t *testing.T) {
		s, _, _ := setup(t, "intent")
		conform(t, s)
	})

	// An organization's repository has teams. Gitea leaves the rights of a team for single units out of what it says
	// that a member may do.
	t.Run("teams", func(t *testing.T) {
		call := func(method, path string, in, out any) {
			t.Helper()
			if err := server.Call(server.Admin, method, path, in, out); err != nil {
				t.Fatal(err)
			}
		}
		call("POST", "/orgs", map[string]any{"username": "vision"}, nil)
		call("POST", "/orgs/vision/repos", map[string]any{"name": "intent", "private": true}, nil)
		call("PUT", "/repos/vision/intent/collaborators/"+robot.Name, map[string]any{"permission": "admin"}, nil)
		for _, name := range []string{"dora", "max", "sue"} {
			server.User(t, name)
		}
		write, read := map[string]string{"repo.code": "write", "repo.pulls": "write", "repo.issues": "read"},
			map[string]string{"repo.code": "read", "repo.pulls": "write"}
		for _, team := range []struct {
			name    string
			units   map[string]string
			members []string
		}{
			{"leads", write, []string{"ada", robot.Name}},
			{"crew", read, []string{"ada", "bob", robot.Name}},
			{"readers", read, []string{"bob", robot.Name}},
			{"secret", write, []string{"sue"}},
			{"elsewhere", write, []string{"max", robot.Name}},
		} {
			var made struct{ ID int64 }
			call("POST", "/orgs/vision/teams", map[string]any{"name": team.name, "permission": "write",
				"units_map": team.units}, &made)
			for _, user := range team.members {
				call("PUT", fmt.Sprintf("/teams/%d/members/%s", made.ID, user), nil, nil)
			}
			if team.name != "elsewhere" {
				call("PUT", "/repos/vision/intent/teams/"+team.name, nil, nil)
			}
		}
		call("PUT", "/repos/vision/intent/collaborators/dora", map[string]any{"permission": "write"}, nil)
		as := func(token string) *Gitea {
			t.Helper()
			f, err := NewGitea(Settings{URL: server.URL, Repo: "vision/intent", Token: func() string {
				return token
			}})
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		f := as(robot.Token)
		for user, want := range map[string]delivery.Permission{
			"ada": delivery.PermissionWrite, "dora": delivery.PermissionWrite, robot.Name: delivery.PermissionWrite,
			"root": delivery.PermissionWrite,
			"bob":  delivery.PermissionNone, "max": delivery.PermissionNone, "eve": delivery.PermissionNone,
			"sue": delivery.PermissionNone, // aob's user does not see who is in her team
		} {
			if got, err := f.Permission(t.Context(), user); err != nil || got != want {
				t.Errorf("%s: got %s, %v; want %s", user, got, err, want)
			}
		}
		nobody := "no team of the repository and no user who may write here"
		for name, want := range map[string]string{
			"leads": "", "LEADS": "", "ada": "", "dora": "", "crew": "", "eve": nobody, "elsewhere": nobody,
			"vision-leads": nobody,
			"secret":       "add aob's user aob to it", "readers": "no member may write here: give the team Write",
		} {
			if got, err := f.Owner(t.Context(), name); err != nil || (want == "") != (got == "") ||
				!strings.Contains(got, want) {
				t.Errorf("%s as an owner: %q, %v; want %q", name, got, err, want)
			}
		}
		for user, want := range map[string]string{"ada": "crew leads", "bob": "crew readers", "eve": "",
			"nobody-of-that-name": ""} {
			got, err := f.Teams(t.Context(), user)
			var of, teams []string
			for team, in := range got {
				teams = append(teams, team)
				if in {
					of = append(of, team)
				}
			}
			slices.Sort(of)
			slices.Sort(teams)
			if err != nil || strings.Join(of, " ") != want ||
				strings.Join(teams, " ") != "Owners crew leads readers secret" {
				t.Errorf("%s: in %q of %q, %v; want %q of Owners crew leads readers secret", user, of, teams, err, want)
			}
		}
		wrong := func(f *Gitea) string {
			t.Helper()
			setup, err := f.Check(t.Context())
			if err != nil {
				return err.Error()
			}
			return strings.Join(setup.Problems(), "; ")
		}
		if got := wrong(f); !strings.Contains(got, "aob cannot see who is in the teams secret of vision") {
			t.Errorf("a team that AOB's user is not in: %s", got)
		}

		// A token with too few scopes: the scope is named.
		token := func(as giteatest.User, scopes ...string) string {
			t.Helper()
			var made struct{ SHA1 string }
			if err := server.Call(giteatest.User{Name: as.Name, Password: as.Password}, "POST", "/users/"+as.Name+
				"/tokens", map[string]any{"name": strings.Join(scopes, " "), "scopes": scopes}, &made); err != nil {
				t.Fatal(err)
			}
			return made.SHA1
		}
		if got := wrong(as(token(robot, "write:repository", "write:issue", "read:user",
			"read:organization"))); strings.Contains(got, "scope") {
			t.Errorf("the scopes of the documentation are not enough: %s", got)
		}
		for missing, has := range map[string][]string{
			"read:organization": {"write:repository", "write:issue", "read:user"},
			"write:issue":       {"write:repository", "read:issue", "read:user", "read:organization"},
			"write:repository":  {"read:repository", "write:issue", "read:user", "read:organization"},
			"read:user":         {"write:repository", "write:issue", "read:organization"},
		} {
			f := as(token(robot, has...))
			if got := wrong(f); !strings.Contains(got, "aob's token has no scope "+missing) ||
				strings.Contains(got, "write permission") || !strings.Contains(got, "docs/gitea.md") {
				t.Errorf("without %s: %s", missing, got)
			}
			if missing == "read:organization" {
				in, err := f.Teams(t.Context(), "ada")
				if in["leads"] || len(in) != 5 || err == nil ||
					!strings.Contains(err.Error(), "no scope read:organization") {
					t.Errorf("the teams of ada without the scope: %v, %v", in, err)
				}
			}
		}

		// The role Write is not enough here, and that is said once.
		call("PUT", "/repos/vision/intent/collaborators/"+robot.Name, map[string]any{"permission": "write"}, nil)
		if got := wrong(f); !strings.Contains(got, "belongs to an organization") ||
			strings.Contains(got, "role Write") || strings.Count(got, "administrator") != 2 {
			t.Errorf("the role Write: %s", got)
		}
	})

	// A protected branch is merged when aob/release says so, and not before.
	t.Run("protection", func(t *testing.T) {
		s, f, repo := setup(t, "protected")
		main := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
		server.Protect(t, repo, "main", delivery.ContextRelease)
		s.work.branch("side", main)
		head := s.work.push("side", map[string]string{"models/a.yaml": "2"}, "second")
		number := s.propose("side", "Second")
		for _, st := range []delivery.CheckState{"", delivery.CheckPending, delivery.CheckFailure,
			delivery.CheckError} {
			if st != "" {
				if err := f.SetStatus(t.Context(), head, delivery.Check{Context: delivery.ContextRelease,
					State: st}); err != nil {
					t.Fatal(err)
				}
			}
			if err := server.Merge(ada, repo, number); err == nil {
				t.Fatalf("merged while aob/release is %q", st)
			}
		}
		if err := f.SetStatus(t.Context(), head, delivery.Check{Context: delivery.ContextRelease,
			State: delivery.CheckSuccess}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the pull request can be merged", func() bool { return server.Merge(ada, repo, number) == nil })
		eventually(t, "it is open no more", func() bool {
			list, err := f.PullRequests(t.Context())
			return err == nil && len(list) == 0
		})
	})

	// A stranger may fork, propose and comment, and that is all.
	t.Run("fork", func(t *testing.T) {
		s, f, repo := setup(t, "forked")
		s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
		fork := server.Fork(t, bob, repo)
		theirs := newWork(t, server.PushURL(fork, bob))
		theirs.git("pull", "-q", theirs.remote, "main")
		theirs.git("checkout", "-q", "-b", "main2")
		head := theirs.push("main2", map[string]string{"models/a.yaml": "evil"}, "second")
		number := server.PullRequest(t, bob, repo, "bob:main2", "main", "Second")
		list, err := f.PullRequests(t.Context())
		if err != nil || len(list) != 1 {
			t.Fatalf("got %v, %v", list, err)
		}
		if pr := list[0]; !pr.Fork || pr.ForkOwner != "bob" || pr.Number != number || pr.Head != head ||
			pr.Author != "bob" || pr.HeadRef != "main2" {
			t.Errorf("got %+v", pr)
		}
		ref := fmt.Sprintf("refs/pull/%d/head", number)
		if got := s.work.git("ls-remote", s.work.remote, ref); !strings.HasPrefix(got, head) {
			t.Errorf("%s is %q", ref, got)
		}
		if err := f.SetStatus(t.Context(), head, delivery.Check{Context: delivery.ContextRelease,
			State: delivery.CheckPending}); err != nil {
			t.Errorf("a status on a fork's commit: %v", err)
		}
		// The branch's name is taken in the fork, and not here.
		if _, err := f.OpenPR(t.Context(), "main2", "main", "x", ""); err == nil {
			t.Error("a fork's branch was taken for ours")
		}
		if err := f.Comment(t.Context(), number, "report", "ours"); err != nil {
			t.Fatal(err)
		}
	})

	// Others may write our marker, and edit what they wrote.
	t.Run("comments of others", func(t *testing.T) {
		s, f, repo := setup(t, "comments")
		main := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
		s.work.branch("side", main)
		s.work.push("side", map[string]string{"models/a.yaml": "2"}, "second")
		number := s.propose("side", "Second")
		s.say(number, "bob", hidden("report")+"I am AOB")
		if err := f.Comment(t.Context(), number, "report", "ours"); err != nil {
			t.Fatal(err)
		}
		if got := s.comments(number); len(got) != 2 || !strings.Contains(got[0], "I am AOB") ||
			!strings.Contains(got[1], "ours") {
			t.Errorf("got %q", got)
		}
		before := server.Comments(t, repo, number)[1]
		if err := f.Comment(t.Context(), number, "report", "ours"); err != nil {
			t.Fatal(err)
		}
		if after := server.Comments(t, repo, number)[1]; after.Updated != before.Updated {
			t.Error("the same content was written again")
		}
	})

	// In a user's own repository the role Write is enough.
	t.Run("no administrator", func(t *testing.T) {
		s, _, repo := setup(t, "modest")
		writer := server.User(t, "writer")
		server.Allow(t, repo, writer, "write")
		s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
		f, err := NewGitea(Settings{URL: server.URL, Repo: repo.Owner + "/" + repo.Name, Main: "main",
			Token: func() string { return writer.Token }})
		if err != nil {
			t.Fatal(err)
		}
		for user, want := range map[string]delivery.Permission{"ada": delivery.PermissionWrite,
			"writer": delivery.PermissionWrite, "bob": delivery.PermissionNone, "eve": delivery.PermissionNone} {
			if got, err := f.Permission(t.Context(), user); err != nil || got != want {
				t.Errorf("%s: got %s, %v; want %s", user, got, err, want)
			}
		}
		eventually(t, "nothing is wrong with the settings", func() bool { // Gitea takes it for empty for a moment
			setup, err := f.Check(t.Context())
			return err == nil && len(setup.Problems()) == 0
		})
		// Whether main requires aob/release, and the server's clock, everybody may see.
		for _, c := range []struct {
			contexts []string
			open     bool
		}{{nil, true}, {[]string{"ci/build"}, true}, {[]string{"ci/build", "aob/release"}, false}, {[]string{"aob/*"},
			false}} {
			if c.contexts != nil {
				if err := server.Call(ada, "POST", fmt.Sprintf("/repos/%s/%s/branch_protections", repo.Owner,
					repo.Name),
					map[string]any{"rule_name": "main", "enable_status_check": true,
						"status_check_contexts": c.contexts},
					nil); err != nil {
					t.Fatal(err)
				}
			}
			setup, err := f.Check(t.Context())
			if err != nil || c.open != strings.Contains(strings.Join(faults(setup), "; "), "main of ada/modest does "+
				"not require the status aob/release") || time.Until(setup.Now).Abs() > time.Minute {
				t.Errorf("with %q required: %+v, %v", c.contexts, setup, err)
			}
			if c.contexts != nil {
				if err := server.Call(ada, "DELETE", fmt.Sprintf("/repos/%s/%s/branch_protections/main", repo.Owner,
					repo.Name), nil, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		// Gitea shows webhooks to administrators alone, so a missing one shows by its silence.
		f.hooks, f.started = "http://127.0.0.1:1/webhook", time.Unix(0, 0)
		if setup, err := f.Check(t.Context()); err != nil ||
			!strings.Contains(strings.Join(setup.Problems(), "; "), "Gitea shows webhooks to administrators") {
			t.Errorf("a webhook that nobody made: %q, %v", setup.Problems(), err)
		}
	})

	// What is wrong with the repository's settings is said, with what to do.
	t.Run("settings", func(t *testing.T) {
		s, f, repo := setup(t, "settings")
		check := func(f *Gitea, want string) {
			t.Helper()
			setup, err := f.Check(t.Context())
			if err != nil || !strings.Contains(strings.Join(setup.Problems(), "; "), want) {
				t.Errorf("got %q, %v; want %q", setup.Problems(), err, want)
			}
		}
		check(f, "is empty; push a branch main")
		s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
		reader, err := NewGitea(Settings{URL: server.URL, Repo: repo.Owner + "/" + repo.Name, Token: func() string {
			return bob.Token
		}})
		if err != nil {
			t.Fatal(err)
		}
		check(reader, "give it the role Write")
		f.hooks = "http://127.0.0.1:1/webhook"
		check(f, "has no webhook to http://127.0.0.1:1/webhook")
		server.Hook(t, repo, f.hooks, "secret")
		f.started = time.Unix(0, 0)
		check(f, "no webhook has arrived")
		f.arrived.note(ErrSignature)
		check(f, "arrive at http://127.0.0.1:1/webhook with a wrong signature")
		f.arrived.note(nil)
		eventually(t, "after a webhook all is well", func() bool {
			setup, err := f.Check(t.Context()) // Gitea takes a repository for empty for a moment after the first push
			return err == nil && len(setup.Problems()) == 0
		})
		path := fmt.Sprintf("/repos/%s/%s", repo.Owner, repo.Name)
		edit := func(path string, change map[string]any) {
			t.Helper()
			if err := server.Call(ada, "PATCH", path, change, nil); err != nil {
				t.Fatal(err)
			}
		}
		edit(path, map[string]any{"archived": true})
		check(f, "is archived")
		edit(path, map[string]any{"archived": false})
		edit(path, map[string]any{"name": "renamed"})
		check(f, "is called ada/renamed now")
	})

	// A head that was pushed for review is no branch, and AOB cannot push to it.
	t.Run("a head that is no branch is a fork", func(t *testing.T) {
		s, f, repo := setup(t, "agit")
		s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
		stranger := newWork(t, server.PushURL(repo, bob))
		stranger.git("pull", "-q", stranger.remote, "main")
		stranger.git("checkout", "-q", "-b", "topic")
		stranger.git("commit", "-q", "--allow-empty", "-m", "second")
		stranger.git("push", "-q", "-o", "topic=review", stranger.remote, "HEAD:refs/for/main")
		list, err := f.PullRequests(t.Context())
		if err != nil || len(list) != 1 || !list[0].Fork || list[0].ForkOwner != "" ||
			list[0].LimitPermission(delivery.PermissionWrite) != delivery.PermissionNone {
			t.Errorf("got %+v, %v", list, err)
		}
	})

	// Every writer may edit AOB's comments. What is so edited counts for nothing, and
	// neither does what was agreed to before or after.
	t.Run("only a reaction to the question as it stands is a word", func(t *testing.T) {
		s, f, repo := setup(t, "asked")
		mal := server.User(t, "mal")
		server.Allow(t, repo, mal, "write")
		main := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
		s.work.branch("side", main)
		s.work.push("side", map[string]string{"models/a.yaml": "2"}, "second")
		number := s.propose("side", "Second")
		s.work.branch("other", main)
		s.work.push("other", map[string]string{"models/a.yaml": "3"}, "third")
		elsewhere := s.propose("other", "Third")

		ask := func(pr int, question string) []string {
			t.Helper()
			list, err := f.Ask(t.Context(), pr, question)
			if _, wait := errors.AsType[delivery.Wait](err); err != nil && !wait {
				t.Fatal(err)
			}
			var by []string
			for _, c := range list {
				by = append(by, c.By)
			}
			return by
		}
		find := func(pr int, text string) giteatest.Comment {
			t.Helper()
			var found giteatest.Comment
			for _, c := range server.Comments(t, repo, pr) {
				if strings.Contains(c.Body, text) {
					found = c
				}
			}
			if found.ID == 0 {
				t.Fatalf("no comment with %q on #%d", text, pr)
			}
			return found
		}
		at := func(c giteatest.Comment) string {
			return fmt.Sprintf("/repos/%s/%s/issues/comments/%d", repo.Owner, repo.Name, c.ID)
		}
		call := func(as giteatest.User, method, path string, in any) {
			t.Helper()
			if err := server.Call(as, method, path, in, nil); err != nil {
				t.Fatal(err)
			}
		}
		react := func(as giteatest.User, c giteatest.Comment) {
			t.Helper()
			// Gitea's clock has whole seconds: nobody reads and answers within one.
			eventually(t, "the second is over", func() bool { return time.Now().Unix() > c.Created.Unix() })
			call(as, "POST", at(c)+"/reactions", map[string]string{"content": "+1"})
		}

		// The plain case: asked once, and only the thumb counts.
		if by := ask(number, "run cheap?"); len(by) != 0 {
			t.Errorf("nobody has answered: got %q", by)
		}
		cheap := find(number, "run cheap?")
		call(ada, "POST", at(cheap)+"/reactions", map[string]string{"content": "heart"})
		if by := ask(number, "run cheap?"); len(by) != 0 {
			t.Errorf("a heart: got %q", by)
		}
		react(ada, cheap)
		if by := ask(number, "run cheap?"); !slices.Equal(by, []string{"ada"}) {
			t.Errorf("ada's thumb: got %q", by)
		}
		// A consent belongs to its question and its pull request.
		for pr, question := range map[int]string{number: "run dear?", elsewhere: "run cheap?"} {
			if by := ask(pr, question); len(by) != 0 {
				t.Errorf("%q on #%d: got %q", question, pr, by)
			}
		}
		// mal makes the dear question of the cheap one that ada has agreed to.
		call(mal, "PATCH", at(cheap), map[string]string{"body": comment("question", "run dear?")})
		if by := ask(number, "run dear?"); len(by) != 0 {
			t.Errorf("an edited question: got %q", by)
		}
		// And back again: it was edited, so the thumb counts no more.
		call(mal, "PATCH", at(cheap), map[string]string{"body": comment("question", "run cheap?")})
		if by := ask(number, "run cheap?"); len(by) != 0 {
			t.Errorf("edited and put back: got %q", by)
		}
		// mal writes the question himself, and ada agrees to that.
		fake := server.PostComment(t, mal, repo, number, comment("question", "run mine?"))
		react(ada, fake)
		if by := ask(number, "run mine?"); len(by) != 0 {
			t.Errorf("a question that AOB did not ask: got %q", by)
		}
		// mal deletes a question: it is asked again.
		dear := find(number, "run dear?")
		call(mal, "DELETE", at(dear), nil)
		eventually(t, "a deleted question is asked again", func() bool {
			ask(number, "run dear?")
			return slices.ContainsFunc(server.Comments(t, repo, number), func(c giteatest.Comment) bool {
				return c.Poster.UserName == robot.Name && strings.Contains(c.Body, "run dear?") && c.ID != dear.ID
			})
		})
		// mal edits as fast as he can: another text is shown while ada reacts, and the
		// question is put back before AOB looks. Either the edits show, or the question
		// was there when ada reacted.
		for i := range 5 {
			question := fmt.Sprintf("run fast %d?", i)
			ask(number, question)
			c := find(number, question)
			call(mal, "PATCH", at(c), map[string]string{"body": "Lunch at noon? 👍"})
			react(ada, c)
			call(mal, "PATCH", at(c), map[string]string{"body": comment("question", question)})
			if by := ask(number, question); len(by) != 0 {
				t.Errorf("%s: ada agreed to lunch, and AOB took it for %q", question, by)
			}
		}
	})

	t.Run("webhook", func(t *testing.T) {
		s, _, repo := setup(t, "hooked")
		const secret = "between us"
		read, err := Webhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		events := make(chan Event, 100)
		target := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
			e, err := read(req)
			if err != nil {
				t.Errorf("got %v", err)
			}
			events <- e
		}))
		t.Cleanup(target.Close)
		server.Hook(t, repo, target.URL, secret)
		wait := func(kind, ref, commit string) {
			t.Helper()
			deadline := time.After(20 * time.Second)
			for {
				select {
				case e := <-events:
					if e == (Event{kind, ref, commit}) {
						return
					}
				case <-deadline:
					t.Fatalf("no %s of %s within 20 s", kind, ref)
				}
			}
		}
		main := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
		wait("push", "refs/heads/main", main)
		s.work.branch("side", main)
		head := s.work.push("side", map[string]string{"models/a.yaml": "2"}, "second")
		wait("push", "refs/heads/side", head)
		s.propose("side", "Second")
		wait("pull_request", "side", head)
	})

	t.Run("errors", func(t *testing.T) {
		s, _, repo := setup(t, "denied")
		main := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
		as := func(token string, name string) *Gitea {
			f, err := NewGitea(Settings{URL: server.URL, Repo: repo.Owner + "/" + name, Token: func() string {
				return token
			}})
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		check := delivery.Check{Context: "x", State: delivery.CheckPending}
		for what, err := range map[string]error{
			"no such token":       as(strings.Repeat("0", 40), repo.Name).SetStatus(t.Context(), main, check),
			"read only":           as(bob.Token, repo.Name).SetStatus(t.Context(), main, check),
			"a stranger":          as(eve.Token, repo.Name).SetStatus(t.Context(), main, check),
			"no such repository":  as(robot.Token, "nothing").SetStatus(t.Context(), main, check),
			"permission, nowhere": second(as(robot.Token, "nothing").Permission(t.Context(), "ada")),
		} {
			if _, ok := errors.AsType[delivery.Blocked](err); !ok {
				t.Errorf("%s: got %v, want Blocked", what, err)
			}
			for _, token := range []string{bob.Token, eve.Token, robot.Token} {
				if err != nil && strings.Contains(err.Error(), token) {
					t.Errorf("%s: a token is in %q", what, err)
				}
			}
		}
		// Gitea answers 500 here, as it does where it is not well.
		for what, err := range map[string]error{
			"no such commit": as(robot.Token, repo.Name).SetStatus(t.Context(), strings.Repeat("1", 40), check),
			"no such PR":     as(robot.Token, repo.Name).Comment(t.Context(), 99, "x", "x"),
		} {
			if err == nil {
				t.Errorf("%s: no error", what)
			}
		}
	})
}

func second[A, B any](_ A, b B) B { return b }

// TestGiteaErrors is about servers that are not well.
func TestGiteaErrors(t *testing.T) {
	const token = "s3cr3t-t0k3n"
	var answer http.HandlerFunc
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { answer(w, req) }))
	defer server.Close()
	f, err := NewGitea(Settings{URL: server.URL, Repo: "ada/intent", Token: func() string { return token }})
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("it went elsewhere")
	}))
	defer elsewhere.Close()
	status := func(code int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			if len(header) == 2 {
				w.Header().Set(header[0], header[1])
			}
			w.WriteHeader(code)
			fmt.Fprintf(w, `{"message": "you sent %s\u001b[31m\n"}`, req.Header.Get("Authorization"))
		}
	}
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
		kind   error
	}{
		{"401", status(401), "check the token", delivery.Blocked{}},
		{"403", status(403), "write permission", delivery.Blocked{}},
		{"403, a scope", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(403)
			fmt.Fprint(w, `{"message": "token does not have at least one of required scope(s), required=[read:issue], `+
				`token scope=read:user"}`)
		}, "no scope write:issue", delivery.Blocked{}},
		{"404", status(404), "check owner and name", delivery.Blocked{}},
		{"429", status(429, "Retry-After", "90"), "again in 1m30s", delivery.Wait{}},
		{"500", status(500), "again in 10s", delivery.Wait{}},
		{"503", status(503, "Retry-After", "99999"), "again in 10m0s", delivery.Wait{}},
		{"422", status(422), "you sent token …", nil},
		{"another host", func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, elsewhere.URL, http.StatusTemporaryRedirect)
		}, "new address", delivery.Blocked{}},
		{"in circles", func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, req.URL.Path, http.StatusTemporaryRedirect)
		}, "redirects", nil},
		{"no JSON", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, "", nil},
		{"another JSON", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `"hello"`) }, "", nil},
		{"without end", func(w http.ResponseWriter, _ *http.Request) {
			for _, err := w.Write([]byte("[")); err == nil; _, err = w.Write([]byte(strings.Repeat("{},", 1<<18))) {
			}
		}, "more than 32 MiB", nil},
		{"hang up", func(w http.ResponseWriter, _ *http.Request) {
			c, _, _ := w.(http.Hijacker).Hijack()
			c.Close()
		}, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answer = tt.answer
			ctx := t.Context()
			for what, err := range map[string]error{
				"PullRequests": second(f.PullRequests(ctx)),
				"SetStatus":    f.SetStatus(ctx, strings.Repeat("1", 40), delivery.Check{Context: "x"}),
				"Comment":      f.Comment(ctx, 1, "x", "x"),
				"Commands":     second(f.Commands(ctx, 1)),
				"Permission":   second(f.Permission(ctx, "bob")),
				"OpenPR":       second(f.OpenPR(ctx, "a", "b", "c", "d")),
				"Knows":        second(f.Knows(ctx, 1, "a")),
			} {
				if err == nil {
					t.Errorf("%s: no error", what)
					continue
				}
				if strings.Contains(err.Error(), token) || strings.ContainsAny(err.Error(), "\x1b\n") {
					t.Errorf("%s: %q", what, err)
				}
				_, blocked := errors.AsType[delivery.Blocked](err)
				_, wait := errors.AsType[delivery.Wait](err)
				if what == "Permission" && tt.name == "403" {
					continue // has words of its own
				}
				if _, want := tt.kind.(delivery.Blocked); want != blocked {
					t.Errorf("%s: Blocked is %v: %v", what, blocked, err)
				}
				if _, want := tt.kind.(delivery.Wait); want != wait {
					t.Errorf("%s: Wait is %v: %v", what, wait, err)
				}
				if !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%s: got %q, want %q in it", what, err, tt.want)
				}
			}
		})
	}
	for _, s := range []Settings{{}, {URL: "git.example.com", Repo: "a/b", Token: func() string { return "" }},
		{URL: "https://" + token + "@x.example", Repo: "a/b", Token: func() string { return "" }},
		{URL: "https://x.example"}} {
		_, err := NewGitea(s)
		if _, ok := errors.AsType[delivery.Blocked](err); !ok || strings.Contains(err.Error(), token) {
			t.Errorf("%q: got %v", s.URL, err)
		}
	}
}

// TestPages lists pull requests over several pages, with one seen twice.
func TestPages(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		pr := func(n int) string {
			return fmt.Sprintf(
				`{"number":%d,"title":"t","user":{"login":"ada"},"head":{"ref":"b","sha":"c","repo_id":1},`+
					`"base":{"ref":"main","repo_id":1}}`, n)
		}
		page := req.URL.Query().Get("page")
		if page == "1" {
			w.Header().Set("Link", `<http://x/?page=2>; rel="next",<http://x/?page=2>; rel="last"`)
			fmt.Fprintf(w, "[%s,%s,null,{\"number\":9}]", pr(3), pr(1))
		} else {
			fmt.Fprintf(w, "[%s,%s]", pr(3), pr(2))
		}
	}))
	defer server.Close()
	f, err := NewGitea(Settings{URL: server.URL + "/", Repo: "ada/intent", Token: func() string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	list, err := f.PullRequests(t.Context())
	if err != nil || len(list) != 3 || list[0].Number != 1 || list[2].Number != 3 {
		t.Errorf("got %+v, %v", list, err)
	}
}

// What Gitea says of the repository itself is told as a sentence that says what to do, and the cause comes alone.
func TestSettingsThatStopAOBAreNamed(t *testing.T) {
	repo := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch w.Header().Set("Content-Type", "application/json"); strings.TrimPrefix(req.URL.Path, "/api/v1") {
		case "/version":
			fmt.Fprint(w, `{"version": "1.25.5"}`)
		case "/user":
			fmt.Fprint(w, `{"id": 7, "login": "aob"}`)
		case "/repos/ada/intent":
			fmt.Fprint(w, repo)
		case "/repos/ada/intent/teams":
			w.WriteHeader(http.StatusMethodNotAllowed)
			fmt.Fprint(w, `{"message": "repo is not owned by an organization"}`)
		default:
			fmt.Fprint(w, `{"permission": "read"}`)
		}
	}))
	defer server.Close()
	const may = `"full_name": "ada/intent", "permissions": {"pull": true, "push": true, "admin": false}`
	for name, c := range map[string]struct{ repo, want string }{
		"a pull mirror": {`{` + may + `, "mirror": true, "has_pull_requests": false}`,
			"a mirror has no pull requests; name the repository that it mirrors"},
		"no pull requests":       {`{` + may + `, "has_pull_requests": false}`, "pull requests are switched off"},
		"an archived repository": {`{` + may + `, "archived": true, "has_pull_requests": true}`, "is archived"},
		"a transferred one": {
			`{"full_name": "eve/moved", "permissions": {"pull": true, "push": true}, "has_pull_requests": true}`,
			"is called eve/moved now",
		},
		"a user that may not push": {
			`{"full_name": "ada/intent", "permissions": {"pull": true, "push": false}, "has_pull_requests": true}`,
			"give it the role Write",
		},
		"all is well": {`{` + may + `, "has_pull_requests": true}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := NewGitea(Settings{URL: server.URL, Repo: "ada/intent", Token: func() string {
				return "t"
			}})
			if err != nil {
				t.Fatal(err)
			}
			repo = c.repo
			setup, err := f.Check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if c.want == "" && len(setup.Problems()) > 0 || c.want != "" && (len(setup.Problems()) != 1 ||
				!strings.Contains(setup.Problems()[0], c.want)) {
				t.Errorf("got %q, want %q", setup.Problems(), c.want)
			}
		})
	}
}
