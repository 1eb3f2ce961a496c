package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// This file tests pull requests of attackers: each is refused without affecting others, and
// at a limited cost.

// tree writes a tree with entries made by line, without git's checks.
func (r *repo) tree(lines ...string) string {
	return r.gitIn(strings.NewReader(strings.Join(lines, "")),
		"hash-object", "-w", "-t", "tree", "--literally", "--stdin")
}

func line(mode, name, hash string) string {
	h, _ := parseHash(hash)
	return mode + " " + name + "\x00" + string(h[:])
}

// pull makes a commit with a tree on top of main, as the head of a pull request.
func (r *repo) pull(n int, tree, main string) string {
	head := r.git("commit-tree", tree, "-p", main, "-m", "x")
	r.git("update-ref", fmt.Sprintf("refs/pull/%d/head", n), head)
	return head
}

// wantRefused checks that err is a TreeError with ErrTooBig, the commit and a hint.
func wantRefused(t *testing.T, err error, commit string) {
	t.Helper()
	e, ok := errors.AsType[TreeError](err)
	if !ok || !errors.Is(err, ErrTooBig) || !strings.Contains(e.What, commit[:10]) || e.Do == "" || len(e.What) > 300 {
		t.Errorf("got %.300v, want a TreeError that is ErrTooBig and contains commit %.10s", err, commit)
	}
}

// TestManyFolders checks that folders count like files, because each is read.
func TestManyFolders(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	both(t, func(t *testing.T, r *repo, remote Remote) {
		main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
		blob := r.git("rev-parse", main+":models/a.yaml")
		nest := func(inner string, width, levels int) string {
			for range levels {
				var lines []string
				for i := range width {
					lines = append(lines, line("40000", fmt.Sprintf("d%05d", i), inner))
				}
				inner = r.tree(lines...)
			}
			return inner
		}
		empty := r.tree()
		wide := nest(empty, maxFiles+1, 1)
		third := nest(empty, maxFiles/3+1, 1)
		// A large tree that is read many times.
		long := make([]string, 1000)
		for i := range long {
			long[i] = line("100644", fmt.Sprintf("%04d%s", i, strings.Repeat("x", maxName-4)), blob)
		}
		heads := map[string]string{
			"empty folders in folders": r.tree(line("40000", "models", nest(empty, 10, 5))),
			"many empty folders":       r.tree(line("40000", "gates", wide)),
			"in three folders together": r.tree(line("40000", "fleets", third), line("40000", "gates", third),
				line("40000", "models", third)),
			"a folder and a file beside it": r.tree(line("40000", "models",
				r.tree(line("40000", "b", nest(empty, 10, 5)), line("100644", "c", blob)))),
			"long names":   r.tree(line("40000", "models", nest(r.tree(long...), 15, 2))),
			"deep folders": r.tree(line("40000", "models", nest(empty, 1, maxDepth+1))),
		}
		n := 0
		for name, tree := range heads {
			n++
			heads[name] = r.pull(n, tree, main)
		}
		good := r.pull(100, r.tree(line("40000", "models", r.tree(line("100644", "a.yaml", blob),
			line("40000", "b", nest(empty, 100, 2))))), main)
		m := open(t, t.TempDir(), remote)
		observe(t, m)
		for name, head := range heads {
			_, err := m.Files(head)
			if t.Run(name, func(t *testing.T) { wantRefused(t, err, head) }); err == nil {
				continue
			}
			packs, folder := m.own.packs, m.folder
			m.own.packs, m.folder = nil, nil
			if _, err2 := m.Files(head); err2 == nil || err2.Error() != err.Error() {
				t.Errorf("%s: it is read again: %v", name, err2)
			}
			m.own.packs, m.folder = packs, folder
		}
		for _, head := range []string{main, good} {
			if files, err := m.Files(head); err != nil || len(files) != 1 {
				t.Errorf("another head: got %v, %v", files, err)
			}
		}
	})
}

// TestLongNames checks the limits of names and paths. The name of a folder is in the path of each file below it.
func TestLongNames(t *testing.T) {
	r := newRepo(t)
	main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
	blob := r.git("rev-parse", main+":models/a.yaml")
	files := func(n, size int) string {
		lines := make([]string, n)
		for i := range lines {
			lines[i] = line("100644", fmt.Sprintf("%05d%s", i, strings.Repeat("x", size-5)), blob)
		}
		return r.tree(lines...)
	}
	name := func(size int) string { return strings.Repeat("n", size) }
	heads := map[string]string{
		"a folder":       r.tree(line("40000", "models", r.tree(line("40000", name(1<<18), files(400, 5))))),
		"a file":         r.tree(line("40000", "models", r.tree(line("100644", name(maxName+1), blob)))),
		"a link":         r.tree(line("40000", "models", r.tree(line("120000", name(maxName+1), blob)))),
		"a submodule":    r.tree(line("40000", "models", r.tree(line("160000", name(maxName+1), main)))),
		"paths together": r.tree(line("40000", "models", r.tree(line("40000", name(maxName), files(9000, maxName))))),
	}
	n := 0
	for name, tree := range heads {
		n++
		heads[name] = r.pull(n, tree, main)
	}
	good := r.pull(100, r.tree(line("40000", "models", r.tree(line("40000", name(maxName), files(5, maxName))))), main)
	m := open(t, t.TempDir(), serve(t, r).remote())
	observe(t, m)
	for name, head := range heads {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := m.Files(head)
		runtime.ReadMemStats(&after)
		t.Run(name, func(t *testing.T) { wantRefused(t, err, head) })
		if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 64 {
			t.Errorf("%s: reading took %d MiB", name, used)
		}
	}
	if list, err := m.Files(good); err != nil || len(list) != 5 {
		t.Errorf("names of the maximum length: got %d files, %v", len(list), err)
	}
	if list, err := m.Files(main); err != nil || len(list) != 1 {
		t.Errorf("main: got %v, %v", list, err)
	}
}

// raw writes a commit with a number of equal parents, which git itself would not create.
func (r *repo) raw(tree, parent string, parents int, message string) string {
	return r.gitIn(strings.NewReader("tree "+tree+"\n"+strings.Repeat("parent "+parent+"\n", parents)+
		"author e <e@e> 1700000000 +0000\ncommitter e <e@e> 1700000000 +0000\n\n"+message),
		"hash-object", "-t", "commit", "-w", "--stdin", "--literally")
}

// TestLargeCommits checks the limits of a commit's size and number of parents.
func TestLargeCommits(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	both(t, func(t *testing.T, r *repo, remote Remote) {
		main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
		m := open(t, t.TempDir(), remote)
		observe(t, m)
		tree := r.git("rev-parse", main+"^{tree}")
		large := r.raw(tree, main, 1, strings.Repeat("x", maxCommit+1))
		heads := map[string]string{
			"many parents":          r.raw(tree, main, maxParents+1, "x"),
			"very many parents":     r.raw(tree, main, 100_000, "x"),
			"a long message":        large,
			"behind a small commit": r.raw(tree, large, 1, "x"),
		}
		n := 0
		for _, h := range heads {
			n++
			r.git("update-ref", fmt.Sprintf("refs/pull/%d/head", n), h)
		}
		good := r.raw(tree, main, maxParents, "x")
		r.git("update-ref", "refs/pull/100/head", good)
		next := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "2"}, main)
		if refs, _ := observe(t, m); refs["refs/heads/main"] != next || m.Has(next) != nil {
			t.Errorf("main is not read: %v, %v", refs, m.Has(next))
		}
		for name, h := range heads {
			_, err := m.MergeBases(h, next)
			if _, ok := errors.AsType[TreeError](err); !ok || !isBlocked(err) {
				t.Errorf("%s: got %v, want a TreeError", name, err)
			}
		}
		if bases, err := m.MergeBases(good, next); err != nil || len(bases) != 1 || bases[0] != main {
			t.Errorf("the maximum number of parents: got %v, %v", bases, err)
		}
		if _, changed := observe(t, m); changed {
			t.Error("a refused commit is fetched again")
		}
	})
}

// TestPackBomb checks that a small pack of a pull request that unpacks to many bytes or objects is refused and not
// fetched again, and that other pull requests are fetched.
func TestPackBomb(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	zeros := strings.Repeat("0", 2<<20)
	for name, most := range map[string]bounds{
		"bytes":   {objects: 1000, pack: 1 << 20, unpacked: 10 << 20, commit: maxCommit},
		"objects": {objects: 5, pack: 1 << 20, unpacked: 1 << 30, commit: maxCommit},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t)
			r.git("config", "uploadpack.allowFilter", "false")
			main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
			files := map[string]string{}
			for i := range 6 {
				files[fmt.Sprint("junk/", i)] = fmt.Sprint(i) + zeros
			}
			head := r.commit("refs/pull/7/head", files, main)
			other := r.commit("refs/pull/8/head", map[string]string{"models/b.yaml": "1"}, main)
			dir := t.TempDir()
			m := open(t, dir, serve(t, r).remote())
			m.KeepPulls(nil)
			observe(t, m)
			session, adv, err := m.remote.advertised(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			f := &fetch{m: m, session: session, adv: adv, haves: []plumbing.Hash{must(hash(main))}, tries: maxFetches}
			f.fetchOthers(t.Context(), []plumbing.Hash{must(hash(head)), must(hash(other))}, most, time.Hour)
			wantRefused(t, m.Has(head), head)
			if m.Has(main) != nil || m.Has(other) != nil {
				t.Errorf("main: %v, another pull request: %v", m.Has(main), m.Has(other))
			}
			m.KeepPulls([]int{7, 8})
			if observe(t, m); disk(t, dir) > 100_000 {
				t.Errorf("it was fetched again: %d bytes on disk", disk(t, dir))
			}
		})
	}
}

// TestPullRequestThatServerCannotSend has a server that fails or hangs if one pull request is fetched. Main, other
// branches and other pull requests must be read.
func TestPullRequestThatServerCannotSend(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	for name, answer := range map[string]func(w http.ResponseWriter, req *http.Request){
		"hangs":         func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() },
		"is overloaded": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"breaks off":    func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t)
			main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
			s := serve(t, r)
			m := open(t, t.TempDir(), s.remote())
			observe(t, m)
			next := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "2"}, main)
			side := r.commit("refs/heads/side", map[string]string{"models/a.yaml": "3"}, main)
			bad := r.commit("refs/pull/7/head", map[string]string{"models/b.yaml": "1"}, main)
			good := r.commit("refs/pull/8/head", map[string]string{"models/c.yaml": "1"}, main)
			requests := 0
			s.before = func(w http.ResponseWriter, req *http.Request) bool {
				body := must(io.ReadAll(req.Body))
				req.Body = io.NopCloser(bytes.NewReader(body))
				if !bytes.Contains(body, []byte("want "+bad)) {
					return false
				}
				requests++
				answer(w, req)
				return true
			}
			for range 3 {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				refs, _, err := m.Observe(ctx)
				cancel()
				if err != nil || refs["refs/heads/main"] != next || refs["refs/heads/side"] != side {
					t.Fatalf("got %v, %v", refs, err)
				}
			}
			if m.Has(next) != nil || m.Has(side) != nil || m.Has(good) != nil {
				t.Errorf("main %v, a branch %v, a pull request %v", m.Has(next), m.Has(side), m.Has(good))
			}
			if b := m.Unreadable()["refs/pull/7/head"]; !strings.Contains(b.What, bad[:10]) || b.Do == "" {
				t.Errorf("got %v", m.Unreadable())
			}
			if requests > 2 {
				t.Errorf("it was requested %d times", requests)
			}
			s.before = nil
			m.failed = map[plumbing.Hash]failure{} // end the pause
			refs, _ := observe(t, m)
			if refs["refs/pull/7/head"] != bad || m.Has(bad) != nil || len(m.Unreadable()) > 0 {
				t.Errorf("repaired: got %v, %v, %v", refs, m.Has(bad), m.Unreadable())
			}
		})
	}
}

// TestPushDoesNotWalkPullRequests checks that the cost of a push does not depend on the histories of pull requests, and
// that a damaged branch does not prevent pushes to others.
func TestPushDoesNotWalkPullRequests(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	both(t, func(t *testing.T, r *repo, remote Remote) {
		r.git("config", "receive.fsckObjects", "false")
		root := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
		behind := long(r, "main", root, 20)
		main := long(r, "main", behind, 20)
		r.git("update-ref", "refs/pull/1/head", long(r, "junk", main, 2*maxAhead))
		r.git("update-ref", "-d", "refs/heads/junk")
		tree := r.git("rev-parse", main+"^{tree}")
		bad := r.raw(tree, r.raw(tree, main, maxParents+1, "x"), 1, "x")
		r.git("update-ref", "refs/heads/bad", bad)
		// The head of a pull request whose author pushes another head.
		empty := r.tree()
		for range 8 {
			var lines []string
			for i := range 20 {
				lines = append(lines, line("40000", fmt.Sprintf("d%04d", i), empty))
			}
			empty = r.tree(lines...)
		}
		models := r.git("rev-parse", main+":models")
		left := r.pull(9, r.tree(line("40000", "junk", empty), line("40000", "models", models)), main)
		m := open(t, t.TempDir(), remote)
		observe(t, m)
		if m.Has(left) != nil {
			t.Fatal(m.Has(left))
		}
		r.commit("refs/pull/9/head", map[string]string{"models/b.yaml": "1"}, main)
		for i := range 2 { // first without main's history in the cache, then with it
			for name, parents := range map[string][]string{
				"on top of main":    {main},
				"behind main":       {behind},
				"of a pull request": {main, r.git("rev-parse", "refs/pull/1/head")},
				"of an old head":    {left},
			} {
				clear(m.commits)
				next, err := m.Commit(parents, map[string][]byte{"models/a.yaml": []byte(name)}, committed, name)
				if err != nil {
					t.Fatal(err)
				}
				ref := fmt.Sprintf("refs/heads/%d-%s", i, strings.ReplaceAll(name, " ", "-"))
				if err := m.Push(t.Context(), next, ref, ""); err != nil {
					t.Errorf("%s: %v", name, err)
				} else if got := r.git("show", ref+":models/a.yaml"); got != name {
					t.Errorf("%s: got %q", name, got)
				}
				if n := len(m.commits); n > 200 {
					t.Errorf("%s: %d commits were read", name, n)
				}
				r.git("update-ref", "-d", ref) // else the next push would walk this branch
				delete(m.observedRefs, ref)
			}
			if _, err := m.MergeBases(behind, main); err != nil {
				t.Fatal(err)
			}
		}
		far := long(r, "far", main, maxAhead+1)
		observe(t, m)
		next := must(m.Commit([]string{far}, map[string][]byte{"models/a.yaml": []byte("2")}, committed, "x"))
		r.git("update-ref", "-d", "refs/heads/far")
		m.observedRefs = nil // as after an Observe without refs
		wantBlocked(t, m.Push(t.Context(), next, "refs/heads/next", ""), next[:10], "on top of main")
	})
}

// TestManyChanges checks that a head whose commits change many files again and again is refused.
func TestManyChanges(t *testing.T) {
	r := newRepo(t)
	main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
	var trees []string
	for _, text := range []string{"1", "2"} {
		blob := r.gitIn(strings.NewReader(text), "hash-object", "-w", "--stdin")
		lines := make([]string, maxFiles/3)
		for i := range lines {
			lines[i] = line("100644", fmt.Sprintf("%06d", i), blob)
		}
		trees = append(trees, r.tree(line("40000", "models", r.tree(lines...))))
	}
	commits := []string{main}
	for i := range 6 {
		last := commits[len(commits)-1]
		commits = append(commits, r.git("commit-tree", trees[i%2], "-p", last, "-m", "x"))
	}
	r.git("update-ref", "refs/pull/1/head", commits[6])
	m := open(t, t.TempDir(), Remote{URL: r.dir})
	observe(t, m)
	_, err := m.Ahead(commits[6], main)
	wantRefused(t, err, commits[6])
	if ahead, err := m.Ahead(commits[2], main); err != nil || len(ahead.Changes) != 2*(maxFiles/3)+1 {
		t.Errorf("the maximum: got %d, %v", len(ahead.Changes), err)
	}
}
