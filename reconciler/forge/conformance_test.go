package forge

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A stage is a forge with what a test needs to see and do beside it.
type stage struct {
	forge    Forge
	work     *work
	propose  func(branch, title string) int        // opens a pull request as a person
	remove   func(branch string)                   // removes the branch
	checks   func(commit string) map[string]string // context to state and description
	comments func(pr int) []string                 // bodies
	say      func(pr int, user, text string)       // comments as a person
	may      map[string]delivery.Permission        // users
	owner    string                                // a user who may own gates
	// sets a status as another writer, and returns who; nil where nobody can
	forged func(commit, context string) string
}

// conform is what every forge must do.
func conform(t *testing.T, s *stage) {
	ctx := t.Context()
	main := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")

	prs := func() []delivery.PullRequest {
		t.Helper()
		list, err := s.forge.PullRequests(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if list := prs(); len(list) != 0 {
		t.Errorf("no pull requests: got %v", list)
	}

	s.work.branch("zebra", main)
	head := s.work.push("zebra", map[string]string{"models/a.yaml": "2"}, "Longer training")
	first := s.propose("zebra", "Longer training")
	s.work.branch("apple", main)
	s.work.push("apple", map[string]string{"models/b.yaml": "2"}, "WIP: another model")
	other := s.propose("apple", "WIP: another model")
	list := prs()
	if len(list) != 2 || list[0].Number != first || list[1].Number != other || first >= other {
		t.Fatalf("two pull requests, %d and %d: got %+v", first, other, list)
	}
	pr := list[0]
	if now, ended, err := s.forge.Ended(ctx, pr); err != nil || ended || now.Merged {
		t.Errorf("an open pull request: %+v, %t, %v", now, ended, err)
	}
	if pr.Title != "Longer training" || pr.Head != head || pr.HeadRef != "zebra" || pr.Base != "main" || pr.Fork ||
		pr.Draft || pr.Author == "" || pr.Updated.IsZero() {
		t.Errorf("got %+v", pr)
	}
	if !list[1].Draft {
		t.Errorf("a draft: got %+v", list[1])
	}

	head = s.work.push("zebra", map[string]string{"models/a.yaml": "3"}, "Longer training")
	eventually(t, "the new head is seen", func() bool { return prs()[0].Head == head })
	if got := prs()[0].Number; got != first {
		t.Errorf("after a push the number is %d, not %d", got, first)
	}

	t.Run("SetStatus", func(t *testing.T) {
		long := strings.Repeat("ä", 139) + "…and more"
		for _, c := range []delivery.Check{
			{Context: delivery.ContextRelease, State: delivery.CheckPending, Description: "waits"},
			{Context: delivery.ContextTrain, State: delivery.CheckPending, Description: "epoch 12 of 50",
				URL: "http://127.0.0.1:8080/runs/1"},
			{Context: delivery.ContextTrain, State: delivery.CheckPending, Description: "epoch 12 of 50",
				URL: "http://127.0.0.1:8080/runs/1"},
			{Context: delivery.ContextRelease, State: delivery.CheckSuccess, Description: "no model change"},
			{Context: delivery.ContextGate + "production", State: delivery.CheckFailure, Description: long},
			{Context: delivery.ContextData, State: delivery.CheckError, Description: ""},
		} {
			if err := s.forge.SetStatus(ctx, head, c); err != nil {
				t.Fatalf("%s: %v", c.Context, err)
			}
		}
		got := s.checks(head)
		want := map[string]string{
			delivery.ContextRelease: "success no model change",
			delivery.ContextTrain:   "pending epoch 12 of 50",
			delivery.ContextData:    "error ",
		}
		for context, text := range want {
			if got[context] != text {
				t.Errorf("%s: got %q, want %q", context, got[context], text)
			}
		}
		cut := strings.TrimPrefix(got[delivery.ContextGate+"production"], "failure ")
		if utf8.RuneCountInString(cut) != MaxDescription || !utf8.ValidString(cut) || !strings.HasSuffix(cut, "ä…") {
			t.Errorf("the long one is %d characters: %q", utf8.RuneCountInString(cut), cut)
		}
		if err := s.forge.SetStatus(ctx, main, delivery.Check{Context: "aob/rollout/north",
			State: delivery.CheckSuccess}); err != nil {
			t.Errorf("on main's commit: %v", err)
		}
	})

	t.Run("Statuses", func(t *testing.T) {
		got, err := s.forge.Statuses(ctx, head)
		if err != nil {
			t.Fatal(err)
		}
		var contexts []string
		for _, st := range got {
			contexts = append(contexts, st.Context)
			if want := s.checks(head)[st.Context]; !st.Mine || state(st.State, st.Description) != want {
				t.Errorf("got %+v, want %q of AOB's own", st, want)
			}
		}
		if want := []string{delivery.ContextData, delivery.ContextGate + "production", delivery.ContextRelease,
			delivery.ContextTrain}; !slices.Equal(contexts, want) {
			t.Errorf("got %q, want %q", contexts, want)
		}
		if got, err := s.forge.Statuses(ctx, s.work.git("rev-parse", "apple")); err != nil || len(got) != 0 {
			t.Errorf("a commit without any: got %v, %v", got, err)
		}
		if s.forged == nil {
			return
		}
		by := s.forged(head, delivery.ContextData)
		for _, st := range must(s.forge.Statuses(ctx, head))(t) {
			if forged := st.Context == delivery.ContextData; st.Mine == forged || forged && st.By != by {
				t.Errorf("after %s has set %s: got %+v", by, delivery.ContextData, st)
			}
		}
	})

	if s.forge.Address() == "" {
		t.Error("it has no address")
	}
	if setup, err := s.forge.Check(ctx); err != nil || len(setup.Problems()) > 0 || setup.MergeRefused != "" {
		t.Errorf("a forge that is set up well: got %+v, %v", setup, err)
	}

	t.Run("Comment", func(t *testing.T) {
		for _, body := range []string{"| metric | value |\n| --- | --- |\n| mAP | 0.44 |", "now 0.52", "now 0.52"} {
			if err := s.forge.Comment(ctx, first, "report", body); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.forge.Comment(ctx, first, "other", "another subject"); err != nil {
			t.Fatal(err)
		}
		if body, found, err := s.forge.CommentBody(ctx, first, "report"); body != "now 0.52" || !found || err != nil {
			t.Errorf("the comment is %q, %v, %v", body, found, err)
		}
		if body, found, err := s.forge.CommentBody(ctx, first, "nothing"); body != "" || found || err != nil {
			t.Errorf("a comment that was never made is %q, %v, %v", body, found, err)
		}
		got := s.comments(first)
		if len(got) != 2 || !strings.Contains(got[0], "now 0.52") || strings.Contains(got[0], "0.44") ||
			!strings.Contains(got[1], "another subject") {
			t.Errorf("got %q", got)
		}
		if err := s.forge.Comment(ctx, first, "report", strings.Repeat("žluťoučký kůň\n", 20_000)); err != nil {
			t.Fatal(err)
		}
		got = s.comments(first)
		if len(got) != 2 || len(got[0]) > MaxComment || !utf8.ValidString(got[0]) ||
			!strings.Contains(got[0], "does not fit") {
			t.Errorf("a long one: %d bytes, ends in %q", len(got[0]), got[0][max(0, len(got[0])-80):])
		}
	})

	t.Run("Commands", func(t *testing.T) {
		s.say(other, "bob", "\n/aob run 3f9c2a\nplease")
		s.say(other, "ada", "I would not do it before we talked:\n\n```\n/aob run 77aa\n```")
		s.say(other, "ada", "> /aob run 77aa")
		if err := s.forge.Comment(ctx, other, "report", "/aob run 77aa"); err != nil {
			t.Fatal(err)
		}
		s.say(other, "bob", "nice /aob but not a command")
		s.say(other, "ada", "/aob accept mAP because the set is small")
		got, err := s.forge.Commands(ctx, other)
		if err != nil || len(got) != 2 || got[0].Author != "bob" || got[1].Author != "ada" ||
			!strings.Contains(got[0].Body, "/aob run 3f9c2a") || got[0].ID >= got[1].ID {
			t.Errorf("got %+v, %v", got, err)
		}
	})

	t.Run("Permission", func(t *testing.T) {
		for user, want := range s.may {
			if got, err := s.forge.Permission(ctx, user); err != nil || got != want {
				t.Errorf("%q: got %q, %v; want %q", user, got, err, want)
			}
		}
	})

	t.Run("Teams", func(t *testing.T) {
		for user := range s.may {
			if got, err := s.forge.Teams(ctx, user); err != nil || len(got) != 0 {
				t.Errorf("%q: got %v, %v; want none", user, got, err)
			}
		}
	})

	t.Run("Owner", func(t *testing.T) {
		for name, want := range map[string]bool{s.owner: true, "vision-leads": false, "nobody-of-that-name": false} {
			if problem, err := s.forge.Owner(ctx, name); err != nil || (problem == "") != want {
				t.Errorf("%q: got %q, %v; want an owner: %v", name, problem, err, want)
			}
		}
	})

	t.Run("OpenPR", func(t *testing.T) {
		s.work.branch("aob/rollback-pallets", main)
		s.work.push("aob/rollback-pallets", map[string]string{"models/a.yaml": "0"}, "Roll pallets back")
		number, err := s.forge.OpenPR(ctx, "aob/rollback-pallets", "main", "Roll pallets back", "because it failed")
		if err != nil || number <= other {
			t.Fatalf("got %d, %v", number, err)
		}
		if again, err := s.forge.OpenPR(ctx, "aob/rollback-pallets", "main", "Roll pallets back",
			"because it failed"); err != nil || again != number {
			t.Errorf("again: got %d, %v; want %d", again, err, number)
		}
		i := slices.IndexFunc(prs(), func(pr delivery.PullRequest) bool { return pr.Number == number })
		if i < 0 || prs()[i].HeadRef != "aob/rollback-pallets" || prs()[i].Title != "Roll pallets back" {
			t.Errorf("it is not among %+v", prs())
		}
		if _, err := s.forge.OpenPR(ctx, "no/such/branch", "main", "x", "x"); err == nil {
			t.Error("a branch that is not there: no error")
		}
		known := func(when string) {
			t.Helper()
			if ok, err := s.forge.Knows(ctx, number, "aob/rollback-pallets"); err != nil || !ok {
				t.Errorf("%s: the forge knows it: %v, %v", when, ok, err)
			}
		}
		known("open")
		s.remove("aob/rollback-pallets")
		eventually(t, "the pull request ends with its branch", func() bool {
			return !slices.ContainsFunc(prs(), func(pr delivery.PullRequest) bool { return pr.Number == number })
		})
		known("closed, and its branch is gone")
	})

	s.remove("apple")
	eventually(t, "the pull request ends with its branch", func() bool {
		return !slices.ContainsFunc(prs(), func(pr delivery.PullRequest) bool { return pr.Number == other })
	})
}

// eventually asks a forge, which does some things later, until it says yes.
func eventually(t *testing.T, what string, yes func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !yes() {
		select {
		case <-deadline:
			t.Fatalf("not within 20 s: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// work is a clone that pushes to a remote as a person does.
type work struct {
	t      *testing.T
	dir    string
	remote string
	pushed func() // told after each push
}

func newWork(t *testing.T, remote string) *work {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	w := &work{t: t, dir: t.TempDir(), remote: remote, pushed: func() {}}
	w.git("init", "-q", "-b", "main")
	return w
}

func (w *work) git(args ...string) string {
	w.t.Helper()
	cmd := exec.Command("git", append([]string{"-C", w.dir, "-c", "user.name=Ada", "-c", "user.email=ada@example.com"},
		args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("git %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// branch makes a branch at a commit.
func (w *work) branch(name, at string) { w.t.Helper(); w.git("branch", "-f", name, at) }

// push commits files on a branch and pushes it.
func (w *work) push(branch string, files map[string]string, message string) string {
	w.t.Helper()
	if branch != "main" || w.git("branch") != "" {
		w.git("checkout", "-q", branch)
	}
	for name, text := range files {
		path := filepath.Join(w.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	w.git("add", "-A")
	w.git("commit", "-q", "-m", message)
	w.git("push", "-q", w.remote, branch)
	w.pushed()
	return w.git("rev-parse", "HEAD")
}

func state(c delivery.CheckState, description string) string {
	return fmt.Sprintf("%s %s", c, description)
}

// must returns what a call returned, and ends the test where it failed.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// faults returns the settings that are not right, as texts.
func faults(setup delivery.Setup) (list []string) {
	for _, one := range setup.Settings {
		if one.State != delivery.SettingRight && one.State != delivery.SettingUnknown {
			list = append(list, one.Problem())
		}
	}
	return list
}
