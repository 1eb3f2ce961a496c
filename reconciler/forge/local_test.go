package forge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"os/user"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

func TestLocal(t *testing.T) {
	s, _, _ := local(t)
	conform(t, s)
}

// local makes a stage with a bare folder.
func local(t *testing.T) (*stage, *Local, *bare) {
	t.Helper()
	dir := t.TempDir() + "/intent.git"
	if out, err := exec.Command("git", "init", "-q", "--bare", "-b", "main", dir).CombinedOutput(); err != nil {
		t.Fatalf("git init: %v: %s", err, out)
	}
	git, rows := &bare{t: t, dir: dir}, newRows()
	f := NewLocal(git, rows, dir, "main")
	s := &stage{forge: f, work: newWork(t, dir)}
	s.work.pushed = git.observe
	s.propose = func(branch, _ string) int {
		list, err := f.PullRequests(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return list[slices.IndexFunc(list, func(pr delivery.PullRequest) bool { return pr.HeadRef == branch })].Number
	}
	s.remove = func(branch string) {
		s.work.git("push", "-q", dir, ":"+branch)
		git.observe()
	}
	s.checks = func(commit string) map[string]string {
		checks := map[string]string{}
		for _, c := range rows.checks[commit] {
			checks[c.Context] = state(c.State, c.Description)
		}
		return checks
	}
	s.comments = func(pr int) []string { return rows.comments[pr] }
	s.say = func(pr int, user, text string) {
		rows.said[pr] = append(rows.said[pr], delivery.Comment{ID: int64(len(rows.said[pr]) + 1), Author: user,
			Body: text})
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s.owner = me.Username
	s.may = map[string]delivery.Permission{"ada@example.com": delivery.PermissionWrite, "": delivery.PermissionNone}
	return s, f, git
}

// TestUnreadableBranchFailsAlone: a damaged ref is a proposal that says why it
// cannot be read, and keeps no other from the list.
func TestUnreadableBranchFailsAlone(t *testing.T) {
	s, f, git := local(t)
	main := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	s.work.branch("side", main)
	s.work.push("side", map[string]string{"models/a.yaml": "2"}, "Second")
	git.unreadable = map[string]delivery.Blocked{"refs/heads/bad": delivery.Blockedf("mend it",
		"the file bad is empty")}
	prs, err := f.PullRequests(t.Context())
	if err != nil || len(prs) != 2 {
		t.Fatalf("got %v, %v", prs, err)
	}
	for _, pr := range prs {
		if bad := pr.HeadRef == "bad"; bad != (pr.Unreadable != "") {
			t.Errorf("%s: unreadable is %q", pr.HeadRef, pr.Unreadable)
		} else if bad {
			if _, err := f.Merge(t.Context(), pr.Number, "", "Ada"); err == nil ||
				!strings.Contains(err.Error(), "is empty") {
				t.Errorf("merge: got %v", err)
			}
		}
	}
}

// TestDamagedPackedRefsIsNoShorterList: where names of refs cannot be read, the list of proposals is not known.
func TestDamagedPackedRefsIsNoShorterList(t *testing.T) {
	s, f, git := local(t)
	main := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	s.work.branch("side", main)
	s.work.push("side", map[string]string{"models/a.yaml": "2"}, "Second")
	git.unreadable = map[string]delivery.Blocked{"packed-refs": delivery.Blockedf("mend it", "packed-refs is damaged")}
	if prs, err := f.PullRequests(t.Context()); err == nil || !strings.Contains(err.Error(), "packed-refs is damaged") {
		t.Errorf("got %v, %v", prs, err)
	}
}

func TestLocalMerge(t *testing.T) {
	s, f, git := local(t)
	ctx := t.Context()
	main := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	s.work.branch("side", main)
	head := s.work.push("side", map[string]string{"models/a.yaml": "2"}, "Second")
	number := s.propose("side", "")
	refuse := func(what, want string) {
		t.Helper()
		t.Run(what, func(t *testing.T) {
			_, err := f.Merge(ctx, number, git.run("rev-parse", "side"), "Ada")
			if _, ok := errors.AsType[delivery.Blocked](err); !ok || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want Blocked with %q", err, want)
			}
			if at, _ := git.At(ctx, "refs/heads/main"); at != main {
				t.Errorf("main moved to %s", at)
			}
		})
	}
	check := func(commit string, state delivery.CheckState, text string) {
		t.Helper()
		if err := f.SetStatus(ctx, commit, delivery.Check{Context: delivery.ContextRelease, State: state,
			Description: text}); err != nil {
			t.Fatal(err)
		}
	}
	refuse("not judged", "has no result")
	check(main, delivery.CheckSuccess, "of another commit")
	refuse("another commit is", "has no result")
	if err := f.SetStatus(ctx, head, delivery.Check{Context: delivery.ContextGate + "g",
		State: delivery.CheckSuccess}); err != nil {
		t.Fatal(err)
	}
	refuse("another check is", "has no result")
	check(head, delivery.CheckPending, "epoch 3 of 9")
	refuse("pending", "pending")
	check(head, delivery.CheckFailure, "mAP 0.41 < 0.48")
	refuse("failed", "mAP 0.41 < 0.48")
	check(head, delivery.CheckError, "the detector crashed")
	refuse("error", "error")
	check(head, delivery.CheckSuccess, "mAP 0.52")

	// Pushed after the last look, and not judged.
	pushed := s.work.pushed
	s.work.pushed = func() {}
	s.work.push("side", map[string]string{"models/a.yaml": "3"}, "WIP: Third")
	refuse("a newer commit, a draft", "draft")
	newer := s.work.push("side", map[string]string{"models/a.yaml": "4"}, "Fourth")
	refuse("a newer commit", "has no result")
	s.work.pushed = pushed
	check(newer, delivery.CheckSuccess, "mAP 0.53")
	git.observe()

	// main moves on.
	s.work.git("checkout", "-q", "main")
	main = s.work.push("main", map[string]string{"README.md": "hello"}, "docs")
	refuse("main moved on", "rebase")
	s.work.git("checkout", "-q", "side")
	s.work.git("rebase", "-q", "main")
	s.work.git("push", "-q", "-f", s.work.remote, "side")
	rebased := s.work.git("rev-parse", "side")
	git.observe()
	refuse("rebased, another commit", "has no result")
	check(rebased, delivery.CheckSuccess, "mAP 0.53")
	none := func(t *testing.T) {
		git.observe()
		if list, err := f.PullRequests(ctx); err != nil || len(list) != 0 {
			t.Errorf("got %v, %v", list, err)
		}
	}
	t.Run("success", func(t *testing.T) {
		commit, err := f.Merge(ctx, number, git.run("rev-parse", "side"), "Ada")
		if err != nil {
			t.Fatal(err)
		}
		if got, want := git.run("rev-list", "--parents", "-1", "main"), commit+" "+main+" "+rebased; got != want {
			t.Errorf("main is %s, want %s", got, want)
		}
		if got := git.run("log", "-1", "--format=%an %s", "main"); got != fmt.Sprintf("Ada Merge %d: Second", number) {
			t.Errorf("got %q", got)
		}
		if got := git.run("for-each-ref", "refs/heads/side"); got != "" {
			t.Errorf("the branch stays: %s", got)
		}
		none(t)
		pr := delivery.PullRequest{Number: number, HeadRef: "side", Head: rebased, Base: "main"}
		if now, ended, err := f.Ended(ctx, pr); err != nil || !ended || !now.Merged {
			t.Errorf("the merged one: %+v, %t, %v", now, ended, err)
		}
	})
	t.Run("merged already", func(t *testing.T) {
		if _, err := f.Merge(ctx, number, rebased, "Ada"); !strings.Contains(fmt.Sprint(err), "no open pull request") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a branch that main contains", func(t *testing.T) {
		s.work.branch("old", main)
		s.work.git("push", "-q", s.work.remote, "old")
		none(t)
	})
}

// A branch that cannot be read is listed with the reason, and the others are listed.
func TestUnreadableBranchDoesNotHideOthers(t *testing.T) {
	s, f, git := local(t)
	main := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	s.work.branch("good", main)
	s.work.push("good", map[string]string{"models/a.yaml": "2"}, "Second")
	git.refs["refs/heads/broken"] = strings.Repeat("1", 40) // a commit that is not there
	list, err := f.PullRequests(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("got %+v, %v", list, err)
	}
	for _, pr := range list {
		if broken := pr.HeadRef == "broken"; broken != (pr.Unreadable != "") || pr.Number == 0 || pr.Head == "" {
			t.Errorf("got %+v", pr)
		}
	}
}

// TestBranchesThatStayCostNothingAgain: a branch is read anew where it or the target has moved, or where it could not
// be read, and else not.
func TestBranchesThatStayCostNothingAgain(t *testing.T) {
	s, f, git := local(t)
	main := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	for _, branch := range []string{"one", "two"} {
		s.work.branch(branch, main)
		s.work.push(branch, map[string]string{"models/a.yaml": branch}, "Title of "+branch)
	}
	look := func() (titles []string) {
		t.Helper()
		git.asked = 0
		list, err := f.PullRequests(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, pr := range list {
			titles = append(titles, pr.Title)
		}
		return titles
	}
	look()
	if titles := look(); git.asked > 0 || !slices.Equal(titles, []string{"Title of one", "Title of two"}) {
		t.Errorf("%d questions, %q", git.asked, titles)
	}
	s.work.push("two", map[string]string{"models/a.yaml": "3"}, "A correction")
	if titles := look(); git.asked == 0 || !slices.Equal(titles, []string{"Title of one", "Title of two"}) {
		t.Errorf("after a push: %d questions, %q", git.asked, titles)
	}
	git.refs["refs/heads/main"] = git.refs["refs/heads/one"]
	if titles := look(); !slices.Equal(titles, []string{"Title of two"}) {
		t.Errorf("after a merge: %q", titles)
	}
	git.refs["refs/heads/broken"] = strings.Repeat("1", 40)
	if look(); len(look()) != 2 || git.asked == 0 {
		t.Errorf("what could not be read is not read again: %d questions", git.asked)
	}
}

// When the rows are lost, an open proposal does not get the number of one that was merged.
func TestNumbersAreNotGivenAgain(t *testing.T) {
	s, f, git := local(t)
	main := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	for i, branch := range []string{"one", "two"} {
		s.work.branch(branch, main)
		s.work.git("checkout", "-q", branch)
		s.work.git("rebase", "-q", "main")
		head := s.work.push(branch, map[string]string{"models/a.yaml": fmt.Sprint(i + 2)}, "Change: "+branch)
		number := s.propose(branch, "")
		if err := f.SetStatus(t.Context(), head, delivery.Check{Context: delivery.ContextRelease,
			State: delivery.CheckSuccess}); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Merge(t.Context(), number, head, "Ada"); err != nil {
			t.Fatal(err)
		}
		s.work.git("checkout", "-q", "main")
		s.work.git("pull", "-q", s.work.remote, "main")
		git.observe()
	}
	f.rows = newRows()
	s.work.branch("three", "main")
	s.work.push("three", map[string]string{"models/a.yaml": "9"}, "Third")
	if number := s.propose("three", ""); number != 3 {
		t.Errorf("the open proposal is #%d, and #1 and #2 are merged", number)
	}
}

// The teams of a user on this machine are the user's groups.
func TestLocalTeamsAreGroups(t *testing.T) {
	_, f, _ := local(t)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroupId(me.Gid)
	if err != nil {
		t.Skip("this user's group has no name here")
	}
	teams, err := f.Teams(t.Context(), me.Username)
	if err != nil || !teams[group.Name] {
		t.Errorf("%s is in %v, %v; want %s", me.Username, teams, err, group.Name)
	}
	if problem, err := f.Owner(t.Context(), group.Name); err != nil || problem != "" {
		t.Errorf("group %s may own a gate: %q, %v", group.Name, problem, err)
	}
	// The name of a group that exists is the group's, also for a user who has only its name.
	if teams, err := f.Teams(t.Context(), group.Name); err != nil || group.Name != me.Username && teams[group.Name] {
		t.Errorf("a user of a group's name: %v, %v", teams, err)
	}
}

// What is merged is what somebody looked at, also where another head has passed.
func TestOnlyTheHeadThatWasLookedAtIsMerged(t *testing.T) {
	s, f, git := local(t)
	main := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	s.work.branch("side", main)
	looked := s.work.push("side", map[string]string{"models/a.yaml": "2"}, "Second")
	number := s.propose("side", "")
	evil := s.work.push("side", map[string]string{"models/a.yaml": "3"}, "Second")
	for _, head := range []string{looked, evil} {
		if err := f.SetStatus(t.Context(), head, delivery.Check{Context: delivery.ContextRelease,
			State: delivery.CheckSuccess}); err != nil {
			t.Fatal(err)
		}
	}
	for _, head := range []string{looked, looked[:7], "", evil[:6], strings.ToUpper(evil) + "0"} {
		_, err := f.Merge(t.Context(), number, head, "Ada")
		if _, ok := errors.AsType[delivery.Blocked](err); !ok || !strings.Contains(err.Error(), "review it again") {
			t.Errorf("%q: got %v", head, err)
		}
		if got := git.run("rev-parse", "main"); got != main {
			t.Fatalf("%q: main moved to %s", head, got)
		}
	}
	if _, err := f.Merge(t.Context(), number, evil[:7], "Ada"); err != nil {
		t.Error(err)
	}
}

// TestLocalMergeRace moves main between Merge's look and its push.
func TestLocalMergeRace(t *testing.T) {
	s, f, git := local(t)
	main := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	s.work.branch("side", main)
	head := s.work.push("side", map[string]string{"models/a.yaml": "2"}, "Second")
	number := s.propose("side", "")
	if err := f.SetStatus(t.Context(), head, delivery.Check{Context: delivery.ContextRelease,
		State: delivery.CheckSuccess}); err != nil {
		t.Fatal(err)
	}
	var moved string
	git.beforePush = func() {
		git.beforePush = nil
		s.work.git("checkout", "-q", "main")
		moved = s.work.push("main", map[string]string{"README.md": "hello"}, "docs")
	}
	if _, err := f.Merge(t.Context(), number, head, "Ada"); err == nil {
		t.Error("no error")
	}
	if got := git.run("rev-parse", "main"); got != moved {
		t.Errorf("main is at %s, not where it was pushed to", got)
	}
	if got := git.run("rev-parse", "side"); got != head {
		t.Errorf("the branch is at %s", got)
	}
}

// bare is Git by the git command.
type bare struct {
	t          *testing.T
	dir        string
	refs       map[string]string
	beforePush func()
	unreadable map[string]delivery.Blocked
	asked      int // questions about commits
}

func (b *bare) run(args ...string) string {
	b.t.Helper()
	out, err := b.try(args...)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

func (b *bare) try(args ...string) (string, error) {
	out, err := exec.Command("git", append([]string{"-C", b.dir}, args...)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("git %s: %w: %s", args[0], err, out)
	}
	return strings.TrimSpace(string(out)), err
}

func (b *bare) observe() {
	b.refs = map[string]string{}
	for line := range strings.Lines(b.run("for-each-ref", "--format=%(refname) %(objectname)")) {
		ref, commit, _ := strings.Cut(strings.TrimSpace(line), " ")
		b.refs[ref] = commit
	}
}

func (b *bare) Refs() map[string]string { return b.refs }

func (b *bare) Unreadable() map[string]delivery.Blocked { return b.unreadable }

func (b *bare) At(_ context.Context, ref string) (string, error) {
	return b.try("for-each-ref", "--format=%(objectname)", ref)
}

func (b *bare) Subject(commit string) (string, error) {
	return b.try("log", "-1", "--format=%s", commit)
}

func (b *bare) FirstParents(head string, limit int) ([]string, error) {
	out, err := b.try("log", "--first-parent", "--format=%H", fmt.Sprintf("-%d", limit), head)
	return strings.Fields(out), err
}

func (b *bare) Author(commit string) (name, email string, when time.Time, err error) {
	out, err := b.try("log", "-1", "--format=%an\n%ae\n%aI", commit)
	if err != nil {
		return "", "", time.Time{}, err
	}
	lines := strings.Split(out, "\n")
	when, err = time.Parse(time.RFC3339, lines[2])
	return lines[0], lines[1], when, err
}

func (b *bare) Mine(commit string) (bool, error) {
	_, email, _, err := b.Author(commit)
	return email == delivery.CommitEmail, err
}

func (b *bare) IsAncestor(a, c string) (bool, error) {
	b.asked++
	_, err := b.try("merge-base", "--is-ancestor", a, c)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 {
		return false, nil
	}
	return err == nil, err
}

func (b *bare) Merge(base, head, name, email string, when time.Time, message string) (string, error) {
	cmd := exec.Command("git", "-C", b.dir, "commit-tree", head+"^{tree}", "-p", base, "-p", head, "-m", message)
	who := fmt.Sprintf("%d +0000", when.Unix())
	cmd.Env = append(cmd.Environ(), "GIT_AUTHOR_NAME="+name, "GIT_AUTHOR_EMAIL="+email, "GIT_COMMITTER_NAME="+name,
		"GIT_COMMITTER_EMAIL="+email, "GIT_AUTHOR_DATE="+who, "GIT_COMMITTER_DATE="+who)
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

func (b *bare) Push(_ context.Context, hash, ref, old string) error {
	if b.beforePush != nil {
		b.beforePush()
	}
	args := []string{"update-ref", ref, hash, old}
	if hash == "" {
		args = []string{"update-ref", "-d", ref, old}
	}
	_, err := b.try(args...)
	return err
}

// memory is Rows in memory.
type memory struct {
	mu       sync.Mutex
	numbers  map[string]int
	checks   map[string][]delivery.Check
	comments map[int][]string
	markers  map[string]int
	said     map[int][]delivery.Comment
}

func newRows() *memory {
	return &memory{numbers: map[string]int{}, checks: map[string][]delivery.Check{}, comments: map[int][]string{},
		markers: map[string]int{}, said: map[int][]delivery.Comment{}}
}

func (m *memory) Number(_ context.Context, branch string, used func() (int, error)) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.numbers[branch] == 0 {
		above, err := used()
		if err != nil {
			return 0, err
		}
		for _, n := range m.numbers {
			above = max(above, n)
		}
		m.numbers[branch] = above + 1
	}
	return m.numbers[branch], nil
}

func (m *memory) PutCheck(_ context.Context, commit string, c delivery.Check) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := slices.DeleteFunc(m.checks[commit], func(old delivery.Check) bool { return old.Context == c.Context })
	m.checks[commit] = append(list, c)
	slices.SortFunc(m.checks[commit], func(a, b delivery.Check) int { return strings.Compare(a.Context, b.Context) })
	return nil
}

func (m *memory) Checks(_ context.Context, commit string) ([]delivery.Check, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.checks[commit]), nil
}

func (m *memory) PutComment(_ context.Context, pr int, marker, body string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := fmt.Sprint(pr, marker)
	i, ok := m.markers[key]
	if !ok {
		i = len(m.comments[pr])
		m.markers = maps.Clone(m.markers)
		m.markers[key] = i
		m.comments[pr] = append(m.comments[pr], "")
	}
	m.comments[pr][i] = body
	return nil
}

func (m *memory) CommentBody(_ context.Context, pr int, marker string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i, ok := m.markers[fmt.Sprint(pr, marker)]; ok {
		return m.comments[pr][i], nil
	}
	return "", nil
}

func (m *memory) UserComments(_ context.Context, pr int) ([]delivery.Comment, error) {
	return slices.Clone(m.said[pr]), nil
}

// A pull request that AOB itself has opened keeps its title and author when main
// goes on.
func TestLocalOwnPullRequest(t *testing.T) {
	s, f, git := local(t)
	main := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	s.work.branch("aob/restore-a", main)
	s.work.git("checkout", "-q", "aob/restore-a")
	s.work.git("commit", "-q", "--allow-empty", "--author", delivery.CommitName+" <"+delivery.CommitEmail+">", "-m",
		"a: back to version 1")
	s.work.git("push", "-q", s.work.remote, "aob/restore-a")
	s.work.git("checkout", "-q", "main")
	for i, when := range []string{"before main moves", "after"} {
		git.observe()
		list, err := f.PullRequests(t.Context())
		if err != nil || len(list) != 1 || list[0].Title != "a: back to version 1" ||
			list[0].Author != delivery.CommitEmail {
			t.Errorf("%s: got %+v, %v", when, list, err)
		}
		s.work.push("main", map[string]string{"README.md": fmt.Sprint(i)}, "docs")
	}
}

// A pull request of the local forge has the title of its first commit, until that was a draft's.
func TestLocalTitle(t *testing.T) {
	s, f, _ := local(t)
	main := s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	s.work.branch("one", main)
	look := func(branch, title string, isDraft bool) {
		t.Helper()
		list, err := f.PullRequests(t.Context())
		pr, ok := delivery.Find(list, func(pr delivery.PullRequest) bool { return pr.HeadRef == branch })
		if err != nil || !ok || pr.Title != title || pr.Draft != isDraft {
			t.Errorf("%v, %+v, want %q, draft %v", err, list, title, isDraft)
		}
	}
	s.work.push("one", map[string]string{"models/a.yaml": "2"}, "Rename the model")
	s.work.push("one", map[string]string{"models/a.yaml": "3"}, "No release file")
	look("one", "Rename the model", false)
	s.work.push("one", map[string]string{"models/a.yaml": "4"}, "WIP: look again")
	look("one", "Rename the model", true)
	s.work.branch("two", main)
	s.work.push("two", map[string]string{"models/a.yaml": "5"}, "WIP: another model")
	look("two", "WIP: another model", true)
	s.work.push("two", map[string]string{"models/a.yaml": "6"}, "Another model")
	look("two", "Another model", false)
}
