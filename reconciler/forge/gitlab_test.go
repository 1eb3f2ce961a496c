package forge

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/gitlab/gitlabtest"
)

// A labStage is a GitLab with a private project of ada's, where aob is a Developer and bob a Reporter.
type labStage struct {
	*stage
	server        *gitlabtest.Server
	project       *gitlabtest.Project
	lab           *GitLab
	ada, bob, aob *gitlabtest.User
}

func newGitLab(t *testing.T) *labStage {
	t.Helper()
	server := gitlabtest.Start(t)
	ada, bob, robot := server.User("ada"), server.User("bob"), server.User("aob")
	server.User("eve")
	users := map[string]*gitlabtest.User{"ada": ada, "bob": bob}
	project := server.Project(ada, "intent")
	server.Allow(project, bob, gitlabtest.Reporter)
	server.Allow(project, robot, gitlabtest.Developer)
	f, err := NewGitLab(Settings{URL: server.URL, Repo: "ada/intent", Main: "main",
		Token: func() string { return robot.Token }})
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{forge: f, work: newWork(t, server.Remote(project, ada)), owner: "ada"}
	s.propose = func(branch, title string) int { return server.Propose(project, ada, project, branch, title) }
	s.remove = func(branch string) { s.work.git("push", "-q", s.work.remote, ":"+branch) }
	s.checks = func(commit string) map[string]string {
		checks := map[string]string{}
		for context, st := range server.Statuses(project, commit) {
			words := map[string]delivery.CheckState{"failed": delivery.CheckFailure, "running": delivery.CheckPending}
			word, known := words[st.State]
			if !known {
				word = delivery.CheckState(st.State)
			}
			description := st.Description
			if text, is := strings.CutPrefix(description, "Error:"); is && st.State == "failed" {
				word, description = delivery.CheckError, strings.TrimSpace(text)
			}
			checks[context] = state(word, description)
		}
		return checks
	}
	s.comments = func(pr int) (bodies []string) {
		for _, n := range server.Notes(project, pr) {
			bodies = append(bodies, n.Body)
		}
		return bodies
	}
	s.forged = func(commit, context string) string {
		server.SetStatus(project, ada, commit, context, "success")
		return "ada"
	}
	s.say = func(pr int, user, text string) { server.Say(project, users[user], pr, text) }
	s.may = map[string]delivery.Permission{
		"ada": delivery.PermissionWrite, "aob": delivery.PermissionWrite, "bob": delivery.PermissionRead,
		"eve": delivery.PermissionNone, "nobody-of-that-name": delivery.PermissionNone, "": delivery.PermissionNone,
	}
	return &labStage{s, server, project, f, ada, bob, robot}
}

// TestGitLab runs against a small server of our own, which answers only what the types of GitLab's official client
// know, and refuses parameters that GitLab's documentation does not name.
func TestGitLab(t *testing.T) {
	conform(t, newGitLab(t).stage)
}

// start pushes main and a branch, and opens a merge request.
func (s *labStage) start() (head string, number int) {
	main := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	s.work.branch("longer", main)
	head = s.work.push("longer", map[string]string{"models/a.yaml": "2"}, "Longer training")
	return head, s.propose("longer", "Longer training")
}

// pulls returns the open merge requests.
func (s *labStage) pulls(t *testing.T) []delivery.PullRequest {
	t.Helper()
	return must(s.lab.PullRequests(t.Context()))(t)
}

// A stranger may fork, propose and comment, and that is all. A fork that is deleted leaves its merge request.
func TestGitLabForks(t *testing.T) {
	s := newGitLab(t)
	s.server.Change(s.project, "public", true)
	s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	eve := s.server.User("eve")
	fork := s.server.Fork(s.project, eve)
	theirs := newWork(t, s.server.Remote(fork, eve))
	theirs.git("pull", "-q", theirs.remote, "main")
	theirs.git("checkout", "-q", "-b", "main2")
	head := theirs.push("main2", map[string]string{"models/a.yaml": "evil"}, "second")
	number := s.server.Propose(s.project, eve, fork, "main2", "Second")
	pull := func() delivery.PullRequest {
		t.Helper()
		list := s.pulls(t)
		if len(list) != 1 {
			t.Fatalf("got %v", list)
		}
		return list[0]
	}
	if pr := pull(); !pr.Fork || pr.ForkOwner != "eve" || pr.Number != number || pr.Head != head ||
		pr.Author != "eve" || pr.HeadRef != "main2" {
		t.Errorf("got %+v", pr)
	}
	ref := strings.Replace(pull().Ref, "refs/pull/", Kinds["gitlab"].Pulls, 1)
	if got := s.work.git("ls-remote", s.work.remote, ref); !strings.HasPrefix(got, head) {
		t.Errorf("%s is %q", ref, got)
	}
	if err := s.lab.SetStatus(t.Context(), head, delivery.Check{Context: delivery.ContextRelease,
		State: delivery.CheckPending}); err != nil {
		t.Errorf("a status on a fork's commit: %v", err)
	}
	if _, err := s.lab.OpenPR(t.Context(), "main2", "main", "x", ""); err == nil { // the fork alone has the name
		t.Error("a fork's branch was taken for ours")
	}
	if may := must(s.lab.Permission(t.Context(), "eve"))(t); may != delivery.PermissionRead {
		t.Errorf("a stranger may %s in a public project", may)
	}
	s.server.Delete(fork)
	if pr := pull(); !pr.Fork || pr.Head != head || pr.HeadRef != "main2" || pr.ForkOwner != "" {
		t.Errorf("after the fork was deleted: %+v", pr)
	}
	now, ended, err := s.lab.Ended(t.Context(), pull())
	if err != nil || ended || now.Head != head {
		t.Errorf("after the fork was deleted: %+v, %v, %v", now, ended, err)
	}
}

// Statuses are jobs of the pipeline that the merge request waits for, so it can be merged once all have succeeded and
// no sooner.
func TestGitLabPipelines(t *testing.T) {
	s := newGitLab(t)
	head, number := s.start()
	s.pulls(t)
	s.work.branch("apple", "longer") // another branch with the same commit
	s.work.git("push", "-q", s.work.remote, "apple")
	set := func(context string, state delivery.CheckState, description string) {
		t.Helper()
		if err := s.lab.SetStatus(t.Context(), head, delivery.Check{Context: context, State: state,
			Description: description}); err != nil {
			t.Fatal(err)
		}
	}
	set(delivery.ContextRelease, delivery.CheckPending, "waits")
	if st := s.server.Statuses(s.project, head)[delivery.ContextRelease]; st.Ref != "longer" {
		t.Errorf("the status is of the branch %s", st.Ref)
	}
	if err := s.server.Merge(s.project, number); err == nil {
		t.Fatal("merged while aob/release was pending")
	}
	set(delivery.ContextRelease, delivery.CheckPending, "epoch 2")
	if n := s.server.Sets(s.project); n != 1 {
		t.Errorf("%d jobs for one status", n)
	}
	if st := s.server.Statuses(s.project, head)[delivery.ContextRelease]; st.Description != "epoch 2" {
		t.Errorf("the description is %q", st.Description)
	}

	// GitLab takes no third text of a status that goes on. It counts as shown, so that it is not set again and again.
	set(delivery.ContextRelease, delivery.CheckPending, "epoch 3")
	if st := s.server.Statuses(s.project, head)[delivery.ContextRelease]; st.Description != "epoch 2" {
		t.Errorf("the description is %q", st.Description)
	}
	if got := must(s.lab.Statuses(t.Context(), head))(t); len(got) != 1 || got[0].Description != "epoch 3" ||
		got[0].State != delivery.CheckPending {
		t.Errorf("got %+v", got)
	}

	// GitLab CI starts a pipeline of the merge request, which counts from now on.
	own := s.server.Pipeline(s.project, s.ada, head, fmt.Sprintf("refs/merge-requests/%d/head", number),
		"merge_request_event", "test", "success")
	set(delivery.ContextRelease, delivery.CheckFailure, "mAP fell")
	if st := s.server.Statuses(s.project, head)[delivery.ContextRelease]; st.Pipeline != own {
		t.Errorf("the status is in pipeline %d, and not in %d", st.Pipeline, own)
	}
	if err := s.server.Merge(s.project, number); err == nil {
		t.Fatal("merged while aob/release had failed")
	}
	set(delivery.ContextRelease, delivery.CheckSuccess, "released")
	err := s.lab.SetStatus(t.Context(), head, delivery.Check{Context: "test", State: delivery.CheckSuccess})
	if b, blocked := errors.AsType[delivery.Blocked](err); !blocked || !strings.Contains(b.Do, ".gitlab-ci.yml") {
		t.Errorf("the name of a job: %v", err)
	}
	if err := s.server.Merge(s.project, number); err != nil {
		t.Errorf("merge: %v", err)
	}
	pr := delivery.PullRequest{Number: number}
	if now, _, err := s.lab.Ended(t.Context(), pr); err != nil {
		t.Errorf("%+v, %v", now, err)
	}
	if state, _ := s.server.State(s.project, number); state != "merged" {
		t.Errorf("it is %s", state)
	}
}

// A long status is shorter than GitLab's limit.
func TestGitLabDescription(t *testing.T) {
	for _, check := range []delivery.Check{{State: delivery.CheckError, Description: strings.Repeat("ä", 300)},
		{State: delivery.CheckError}, {State: delivery.CheckFailure, Description: "x"}} {
		text := gitLabDescription(check)
		if n := len([]rune(text)); n > MaxDescription {
			t.Errorf("%d characters", n)
		}
		if is := strings.HasPrefix(text, "Error:"); is != (check.State == delivery.CheckError) {
			t.Errorf("%s: %q", check.State, text)
		}
	}
}

// A Maintainer who edits a command, or AOB's question, forges nobody's consent.
func TestGitLabEditedNotes(t *testing.T) {
	s := newGitLab(t)
	ctx := t.Context()
	_, number := s.start()
	own := s.server.Say(s.project, s.bob, number, "/aob run 3f9c2a")
	list := must(s.lab.Commands(ctx, number))(t)
	if len(list) != 1 || list[0].VerifiedBy != gitLabNotEdited {
		t.Fatalf("got %+v", list)
	}
	s.server.Award(s.project, s.ada, own, "eyes")
	if list = must(s.lab.Commands(ctx, number))(t); len(list) != 1 || list[0].VerifiedBy != gitLabNotEdited {
		t.Errorf("a note that somebody reacted to: %+v", list)
	}
	before := s.server.Spent()
	must(s.lab.Commands(ctx, number))(t)
	if n := s.server.Spent() - before; n != 1 {
		t.Errorf("%d requests for a note that is known", n)
	}
	s.server.Edit(s.project, own, "/aob run 77aa")
	if list = must(s.lab.Commands(ctx, number))(t); len(list) != 1 || list[0].VerifiedBy != "" {
		t.Errorf("an edited note: %+v", list)
	}

	const question = "Does ada accept `mAP`?"
	ask := func() []delivery.Consent { t.Helper(); return must(s.lab.Ask(ctx, number, question))(t) }
	if got := ask(); len(got) != 0 {
		t.Errorf("before anybody reacted: %v", got)
	}
	ask()
	notes := s.server.Notes(s.project, number)
	asked := notes[len(notes)-1]
	if len(notes) != 2 || asked.Author != "aob" || !strings.Contains(asked.Body, question) {
		t.Fatalf("got %+v", notes)
	}
	s.server.Award(s.project, s.ada, asked.ID, "thumbsdown")
	s.server.Award(s.project, s.bob, asked.ID, "thumbsup")
	s.server.Award(s.project, s.ada, asked.ID, "thumbsup")
	if got := ask(); len(got) != 2 || got[0].By != "bob" || got[1].By != "ada" || got[0].Comment != asked.ID {
		t.Errorf("got %+v", got)
	}
	s.server.Edit(s.project, asked.ID, strings.Replace(asked.Body, "mAP", "everything", 1))
	s.server.Edit(s.project, asked.ID, asked.Body) // and back again
	if _, err := s.lab.Ask(ctx, number, question); err == nil {
		t.Error("it asks again at once")
	} else if _, wait := errors.AsType[delivery.Wait](err); !wait {
		t.Errorf("got %v, want a Wait", err)
	}
}

// What AOB repeats is no command to GitLab.
func TestGitLabQuickActions(t *testing.T) {
	s := newGitLab(t)
	_, number := s.start()
	const body = "The reason was:\n\n/approve\n  /close\n/aob run 1\n\nend  \r\n\n"
	for range 2 {
		if err := s.lab.Comment(t.Context(), number, "report", body); err != nil {
			t.Fatal(err)
		}
	}
	if state, approved := s.server.State(s.project, number); state != "opened" || approved {
		t.Errorf("GitLab took a line of AOB's for a command: %s, approved %t", state, approved)
	}
	got, found, err := s.lab.CommentBody(t.Context(), number, "report")
	if want := strings.TrimRight(strings.ReplaceAll(body, "\r", ""), " \n"); got != want || !found || err != nil {
		t.Errorf("got %q, want %q, %v", got, want, err)
	}
	if got := s.comments(number); len(got) != 1 {
		t.Errorf("%d notes", len(got))
	}
	s.work.branch("aob/back", "longer")
	s.work.push("aob/back", map[string]string{"models/a.yaml": "0"}, "Back")
	back, err := s.lab.OpenPR(t.Context(), "aob/back", "main", "Back", body)
	if err != nil {
		t.Fatal(err)
	}
	if state, approved := s.server.State(s.project, back); state != "opened" || approved {
		t.Errorf("in the description: %s, approved %t", state, approved)
	}
}

// inert leaves nothing that GitLab takes for a command, and plain gives back what was there.
func FuzzGitLabText(f *testing.F) {
	for _, text := range []string{"/close", "a\n /approve now\n", "\\/close", "/aob run", "```\n/merge\n```",
		"/srv/data"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := inert(text)
		for _, m := range quickAction.FindAllStringSubmatch(got, -1) {
			if m[2] != "aob" {
				t.Errorf("%q leaves /%s", text, m[2])
			}
		}
		if again := inert(got); again != got {
			t.Errorf("twice: %q, then %q", got, again)
		}
		kept := strings.TrimRight(strings.ReplaceAll(text, "\r", ""), " \t\n")
		if !strings.Contains(text, `\/`) && plain(got) != kept {
			t.Errorf("%q comes back as %q", text, plain(got))
		}
	})
}

// The groups of a project own gates by their direct members.
func TestGitLabGroups(t *testing.T) {
	server := gitlabtest.Start(t)
	ada, bob, eve, robot := server.User("ada"), server.User("bob"), server.User("eve"), server.User("aob")
	vision := server.Group(nil, "vision", map[*gitlabtest.User]int{ada: gitlabtest.Owner, robot: gitlabtest.Developer})
	models := server.Group(vision, "models", map[*gitlabtest.User]int{robot: gitlabtest.Developer})
	project := server.GroupProject(models, "intent")
	leads := server.Group(vision, "leads", map[*gitlabtest.User]int{bob: gitlabtest.Developer,
		eve: gitlabtest.Reporter})
	guests := server.Group(nil, "guests", map[*gitlabtest.User]int{eve: gitlabtest.Owner})
	server.Invite(project, leads, gitlabtest.Maintainer)
	server.Invite(project, guests, gitlabtest.Reporter)
	f, err := NewGitLab(Settings{URL: server.URL, Repo: "vision/models/intent",
		Token: func() string { return robot.Token }})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for user, want := range map[string]map[string]bool{
		"ada": {"vision/models": false, "vision/leads": false, "guests": false}, // of the parent alone
		"bob": {"vision/models": false, "vision/leads": true, "guests": false},
		"eve": {"vision/models": false, "vision/leads": false, "guests": false}, // a Reporter, and by her group
	} {
		if got := must(f.Teams(ctx, user))(t); !maps.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", user, got, want)
		}
	}
	for user, want := range map[string]delivery.Permission{"ada": delivery.PermissionWrite,
		"bob": delivery.PermissionWrite, "eve": delivery.PermissionRead} {
		if got := must(f.Permission(ctx, user))(t); got != want {
			t.Errorf("%s may %s, want %s", user, got, want)
		}
	}
	for name, want := range map[string]string{"vision/leads": "", "VISION/LEADS": "", "bob": "", "guests": "may not",
		"vision/models": "without a direct member", "vision": "no group of the project"} {
		if got := must(f.Owner(ctx, name))(t); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	server.Block(bob)
	if got := must(f.Permission(ctx, "bob"))(t); got != delivery.PermissionNone {
		t.Errorf("a blocked user may %s", got)
	}
	if got := must(f.Teams(ctx, "bob"))(t); got["vision/leads"] {
		t.Error("a blocked user is in a team")
	}
}
