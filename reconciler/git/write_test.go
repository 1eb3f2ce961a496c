package git

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func mkdirs(objects string) error { return os.MkdirAll(filepath.Join(objects, "pack"), 0o700) }

// committed is the time of AOB's commits in these tests.
var committed = time.Unix(1_800_000_000, 999)

func TestCommit(t *testing.T) {
	both(t, func(t *testing.T, r *repo, remote Remote) {
		main := r.commit("refs/heads/main", map[string]string{
			"models/a.yaml": "a", "models/a.release.yaml": "old", "models/gone/x.yaml": "x", "models.txt": "m",
			"README.md": "read me", "infra/deep/er/x.tf": "x",
		})
		m := open(t, t.TempDir(), remote)
		observe(t, m)
		files := map[string][]byte{
			"models/a.release.yaml": []byte("new"),
			"models/b.yaml":         {},
			"models/gone/x.yaml":    nil,
			"models/never.yaml":     nil,
			"gates/new/g.yaml":      []byte("g"),
			"README.md":             nil,
		}
		c, err := m.Commit([]string{main}, files, committed, "aob: release\n\nwith a body\n")
		if err != nil {
			t.Fatal(err)
		}
		again, err := m.Commit([]string{main}, files, committed.In(time.FixedZone("x", 3600)),
			"aob: release\n\nwith a body")
		if err != nil || again != c {
			t.Errorf("the same again: got %s, %v; want %s", again, err, c)
		}
		if r.try("cat-file", "-t", c) != "" {
			t.Error("the commit is on the remote before Push")
		}
		if err := m.Push(t.Context(), c, "refs/heads/main", main); err != nil {
			t.Fatal(err)
		}
		r.git("fsck", "--strict", "--no-dangling")
		got := r.git("diff-tree", "-r", "--name-status", "--no-commit-id", c)
		if d := cmp.Diff(
			"D\tREADME.md\nA\tgates/new/g.yaml\nM\tmodels/a.release.yaml\nA\tmodels/b.yaml\nD\tmodels/gone/x.yaml",
			got); d != "" {
			t.Error(d)
		}
		if got := r.git("log", "-1", "--format=%an|%ae|%at|%cn|%ct|%B",
			c); got != "aob|aob@users.noreply.localhost|1800000000|aob|1800000000|aob: release\n\nwith a body" {
			t.Errorf("got %q", got)
		}
		if got := r.git("show", c+":models/a.release.yaml"); got != "new" {
			t.Errorf("got %q", got)
		}
		refs, changed := observe(t, m)
		if !changed || refs["refs/heads/main"] != c {
			t.Errorf("got %v, %v", refs, changed)
		}
		for _, bad := range []string{"", "/etc/passwd", "../x", "models/../x", "models//x", ".git/config",
			"models/.GIT/x", "a\nb", "models/"} {
			if _, err := m.Commit([]string{main}, map[string][]byte{bad: []byte("x")}, committed, "x"); err == nil {
				t.Errorf("the path %q is accepted", bad)
			}
		}
		if _, err := m.Commit([]string{main}, map[string][]byte{"models.txt/x": []byte("x")}, committed,
			"x"); !isBlocked(err) {
			t.Errorf("a file in a file: got %v, want Blocked", err)
		}
		if _, err := m.Commit([]string{strings.Repeat("1", 40)}, nil, committed, "x"); err == nil {
			t.Error("an unknown parent: no error")
		}
		m.CommitAs(Committer{Name: "a\nparent x <", Email: "<b>\n"})
		evil, err := m.Commit([]string{c}, nil, time.Unix(1, 0), "x\x00y")
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Push(t.Context(), evil, "refs/heads/evil", ""); err != nil {
			t.Fatal(err)
		}
		r.git("fsck", "--strict", "--no-dangling")
	})
}

func TestFirstCommit(t *testing.T) {
	both(t, func(t *testing.T, r *repo, remote Remote) {
		m := open(t, t.TempDir(), remote)
		observe(t, m)
		c, err := m.Commit(nil, map[string][]byte{"models/a.yaml": []byte("a")}, committed, "first")
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Push(t.Context(), c, "refs/heads/main", ""); err != nil {
			t.Fatal(err)
		}
		if got := r.git("ls-tree", "-r", "--name-only", "main"); got != "models/a.yaml" {
			t.Errorf("got %q", got)
		}
	})
}

func TestMerge(t *testing.T) {
	both(t, func(t *testing.T, r *repo, remote Remote) {
		base := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
		r.commit("refs/heads/side", map[string]string{"models/a.yaml": "2", "docs/big.md": strings.Repeat("x", MaxBlob+
			10)}, base)
		head := r.commit("refs/heads/side", map[string]string{"models/b.yaml": "3"})
		other := r.commit("refs/heads/other", map[string]string{"models/c.yaml": "3"}, base)
		m := open(t, t.TempDir(), remote)
		observe(t, m)
		c, err := m.Merge(base, head, "Ada", "ada@example.com", time.Unix(1_800_000_000, 0), "Merge #1")
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Push(t.Context(), c, "refs/heads/main", base); err != nil {
			t.Fatal(err)
		}
		if got, want := r.git("rev-list", "--parents", "-1", "main"), c+" "+base+" "+head; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got := r.git("diff-tree", "main", "side"); got != "" {
			t.Errorf("the tree is not head's: %s", got)
		}
		r.git("fsck", "--strict", "--no-dangling")
		if _, err := m.Merge(c, other, "Ada", "ada@example.com", time.Unix(1_800_000_000, 0), "Merge #2"); !isBlocked(
			err) {
			t.Errorf("not a descendant of main: got %v, want Blocked", err)
		}
		// A release commit on the branch. The large file in docs/ stays on the remote.
		c, err = m.Commit([]string{head}, map[string][]byte{"models/a.release.yaml": []byte("1")}, committed, "release")
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Push(t.Context(), c, "refs/heads/side", head); err != nil {
			t.Fatal(err)
		}
		r.git("fsck", "--strict", "--no-dangling")
	})
}

func TestPush(t *testing.T) {
	both(t, func(t *testing.T, r *repo, remote Remote) {
		one := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
		m := open(t, t.TempDir(), remote)
		observe(t, m)
		make := func(parent, text string) string {
			t.Helper()
			c, err := m.Commit([]string{parent}, map[string][]byte{"models/a.yaml": []byte(text)}, committed, text)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		two, three := make(one, "2"), make(one, "3")
		push := func(hash, ref, old string, want error) {
			t.Helper()
			err := m.Push(t.Context(), hash, ref, old)
			if want == nil && err != nil || want != nil && !errors.Is(err, want) {
				t.Errorf("push %s: got %v, want %v", ref, err, want)
			}
		}
		push(two, "refs/heads/main", one, nil)
		push(two, "refs/heads/main", one, nil) // again
		push(three, "refs/heads/main", one, ErrMoved)
		push(three, "refs/heads/main", "", ErrMoved)
		push(three, "refs/heads/new", one, ErrMoved)
		push(three, "refs/heads/new", "", nil)
		push(two, "refs/heads/new", three, nil) // not a fast-forward
		push("", "refs/heads/new", three, ErrMoved)
		push("", "refs/heads/new", two, nil)
		push("", "refs/heads/new", two, nil) // again
		if got := r.git("for-each-ref", "--format=%(refname) %(objectname)"); got != "refs/heads/main "+two {
			t.Errorf("got %q", got)
		}
		for _, bad := range [][3]string{{three, "main", two}, {three, "refs/heads/a..b", ""}, {"", "refs/heads/x", ""},
			{"zz", "refs/heads/x", ""}, {three, "refs/heads/x", "zz"}} {
			if err := m.Push(t.Context(), bad[0], bad[1], bad[2]); err == nil {
				t.Errorf("%v: no error", bad)
			}
		}
		hook := filepath.Join(r.dir, "hooks", "pre-receive")
		must(0, os.MkdirAll(filepath.Dir(hook), 0o700))
		must(0, os.WriteFile(hook, []byte("#!/bin/sh\nprintf 'main is \\033[31mprotected\\033[0m\\n' >&2\nexit 1\n"),
			0o700))
		err := m.Push(t.Context(), make(two, "4"), "refs/heads/main", two)
		if !isBlocked(err) || !strings.Contains(err.Error(), "protected") ||
			!strings.Contains(err.Error(), "hook declined") || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("a hook that declines: got %q, want Blocked with its message", err)
		}
	})
}

// TestPushRace has several mirrors push to the same branch at the same time.
func TestPushRace(t *testing.T) {
	both(t, func(t *testing.T, r *repo, remote Remote) {
		at := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "0"})
		var mirrors []*Mirror
		for range 5 {
			m := open(t, t.TempDir(), remote)
			observe(t, m)
			mirrors = append(mirrors, m)
		}
		for round := range 4 {
			var wg sync.WaitGroup
			commits, errs := make([]string, len(mirrors)), make([]error, len(mirrors))
			for i, m := range mirrors {
				wg.Go(func() {
					commits[i], errs[i] = m.Commit([]string{at}, map[string][]byte{"models/a.yaml": fmt.Append(nil,
						round, i)}, committed, "x")
					if errs[i] == nil {
						errs[i] = m.Push(t.Context(), commits[i], "refs/heads/main", at)
					}
				})
			}
			wg.Wait()
			now := r.git("rev-parse", "main")
			for i, err := range errs {
				if won := commits[i] == now; won && err != nil || !won && !errors.Is(err, ErrMoved) {
					t.Errorf("%d: main is at its commit: %v; error %v", i, won, err)
				}
			}
			if now == at {
				t.Fatal("no push succeeded")
			}
			at = now
			for _, m := range mirrors {
				observe(t, m)
			}
		}
	})
}
