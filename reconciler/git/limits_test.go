package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// TestLockFile pushes while there is a lock file that a killed git left.
func TestLockFile(t *testing.T) {
	both(t, func(t *testing.T, r *repo, remote Remote) {
		main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
		m := open(t, t.TempDir(), remote)
		observe(t, m)
		next := must(m.Commit([]string{main}, map[string][]byte{"models/a.yaml": []byte("2")}, committed, "x"))
		r.write("refs/heads/main.lock", "")
		err := m.Push(t.Context(), next, "refs/heads/main", main)
		wantBlocked(t, err, filepath.Join(r.dir, "refs/heads/main.lock"), "remove the file if no git is running")
		if strings.Contains(err.Error(), "protection") {
			t.Errorf("%q mentions protection", err)
		}
		if refs, _ := observe(t, m); len(refs) != 1 {
			t.Errorf("the lock file is listed as a branch: %v", refs)
		}
		must(0, os.Remove(filepath.Join(r.dir, "refs/heads/main.lock")))
		if err := m.Push(t.Context(), next, "refs/heads/main", main); err != nil {
			t.Error(err)
		}
		r.git("branch", "gone", "main")
		r.git("pack-refs", "--all")
		r.write("packed-refs.lock", "")
		r.git("config", "core.packedRefsTimeout", "1")
		wantBlocked(t, m.Push(t.Context(), "", "refs/heads/gone", next), "packed-refs.lock")
	})
}

// TestRedirect checks the error of a renamed repository.
func TestRedirect(t *testing.T) {
	r := newRepo(t)
	r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
	s := serve(t, r)
	to := ""
	s.before = func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusMovedPermanently)
		return true
	}
	m := open(t, t.TempDir(), s.remote())
	to = "/ada/new.git/info/refs?service=git-upload-pack&token=s3cret"
	_, _, err := m.Observe(t.Context())
	wantBlocked(t, err, "repository: "+s.URL+"/ada/new.git")
	to = strings.Replace(s.URL, "http://", "http://ada:s3cret@", 1) + "/ada/new.git/info/refs"
	_, _, err = m.Observe(t.Context())
	wantBlocked(t, err, s.URL+"/ada/new.git")
	if strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a secret is in %q", err)
	}
	to = "https://evil.example/login?next=x"
	_, _, err = m.Observe(t.Context())
	wantBlocked(t, err, "another host")
	if strings.Contains(err.Error(), "evil.example") {
		t.Errorf("%q contains the untrusted address", err)
	}
}

// TestPresent reads and pushes where the repository is at present, and not where it must not.
func TestPresent(t *testing.T) {
	here, there := newRepo(t), newRepo(t)
	here.commit("refs/heads/main", map[string]string{"models/a.yaml": "old"})
	main := there.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
	old, now := serve(t, here), serve(t, there)
	remote := old.remote()
	var refused error
	remote.Present = func(_ context.Context, url string) (string, error) {
		return strings.Replace(url, old.URL, now.URL, 1), refused
	}
	m := open(t, t.TempDir(), remote)
	refs, _ := observe(t, m)
	if refs["refs/heads/main"] != main {
		t.Errorf("main is at %s, want %s", refs["refs/heads/main"], main)
	}
	next := must(m.Commit([]string{main}, map[string][]byte{"models/a.yaml": []byte("2")}, time.Unix(1e9, 0), "next"))
	must(0, m.Push(t.Context(), next, "refs/heads/side", ""))
	if at := there.git("rev-parse", "refs/heads/side"); at != next {
		t.Errorf("side is at %s, want %s", at, next)
	}
	refused = delivery.Blockedf("look", "it is another repository")
	_, _, err := m.Observe(t.Context())
	wantBlocked(t, err, "another repository")
	wantBlocked(t, m.Push(t.Context(), "", "refs/heads/side", next), "another repository")
}

// TestBranchThatServerCannotSend checks that other branches are read.
func TestBranchThatServerCannotSend(t *testing.T) {
	r := newRepo(t)
	r.git("config", "fastimport.unpackLimit", "1000")
	main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
	bad := r.commit("refs/heads/bad", map[string]string{"models/b.yaml": "2"}, main)
	good := r.commit("refs/heads/good", map[string]string{"models/c.yaml": "3"}, main)
	tree := r.git("rev-parse", bad+"^{tree}")
	object := filepath.Join(r.dir, "objects", tree[:2], tree[2:])
	text := must(os.ReadFile(object))
	must(0, os.Remove(object))
	m := open(t, t.TempDir(), serve(t, r).remote())
	refs, _ := observe(t, m)
	if len(refs) != 2 || refs["refs/heads/main"] != main || refs["refs/heads/good"] != good {
		t.Fatalf("got %v", refs)
	}
	if b := m.Unreadable()["refs/heads/bad"]; !strings.Contains(b.What, bad[:10]) {
		t.Errorf("got %v", m.Unreadable())
	}
	next := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "2"})
	if refs, changed := observe(t, m); !changed || refs["refs/heads/main"] != next {
		t.Errorf("main is not updated: %v", refs)
	}
	must(0, os.WriteFile(object, text, 0o600))
	m.failed = map[plumbing.Hash]failure{} // end the pause
	if refs, _ := observe(t, m); refs["refs/heads/bad"] != bad || len(m.Unreadable()) != 0 {
		t.Errorf("repaired: got %v, %v", refs, m.Unreadable())
	}
}

// disk returns the size of all files in a folder in bytes.
func disk(t *testing.T, dir string) (size int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = e.Info(); err == nil {
				size += info.Size()
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return size
}

// junk pushes a pull request with random files, which cannot be compressed.
func junk(r *repo, ref, parent string, files, size int) string {
	random := rand.NewChaCha8([32]byte{byte(len(ref)), byte(files)})
	list := map[string]string{}
	for i := range files {
		text := make([]byte, size)
		random.Read(text)
		list[fmt.Sprintf("junk/%s/%d", strings.ReplaceAll(ref, "/", "-"), i)] = string(text)
	}
	return r.commit(ref, list, parent)
}

// TestClosedPullRequestIsRemoved checks that the objects of a pull request are removed after
// it is closed, whether the server removes its ref or not.
func TestClosedPullRequestIsRemoved(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	for _, removed := range []bool{true, false} {
		t.Run(fmt.Sprint("ref removed: ", removed), func(t *testing.T) {
			r := newRepo(t)
			r.git("config", "uploadpack.allowFilter", "false")
			main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
			head := junk(r, "refs/pull/1/head", main, 3, 1<<20)
			dir := t.TempDir()
			m := open(t, dir, serve(t, r).remote())
			m.KeepPulls(nil)
			if observe(t, m); m.Has(head) == nil || m.Has(main) != nil {
				t.Error("a closed pull request's head was fetched, or main was not")
			}
			m.KeepPulls([]int{1})
			if _, changed := observe(t, m); !changed || m.Has(head) != nil {
				t.Fatalf("an open pull request: %v, changed %v", m.Has(head), changed)
			}
			if _, changed := observe(t, m); changed || m.Has(head) != nil {
				t.Errorf("again: %v, changed %v", m.Has(head), changed)
			}
			m.KeepPulls([]int{1})
			observe(t, m)
			m.baseSize -= maxGarbage - 100_000 // let the mirror grow by 100 kB only
			if _, changed := observe(t, m); changed || m.Has(head) != nil {
				t.Errorf("an open pull request's pack counts as garbage: %v", m.Has(head))
			}
			m.KeepPulls(nil)
			if removed {
				r.git("update-ref", "-d", "refs/pull/1/head")
			}
			next := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "2"})
			observe(t, m)
			if refs, _ := observe(t, m); refs["refs/heads/main"] != next || m.Has(next) != nil {
				t.Errorf("main: got %v, %v", refs, m.Has(next))
			}
			if size := disk(t, dir); size > 1<<20 {
				t.Errorf("the mirror still has %d MiB", size>>20)
			}
			if files, err := m.Files(next); err != nil || len(files) != 1 {
				t.Errorf("got %v, %v", files, err)
			}
		})
	}
}

// TestClosedPullRequestOfALargeRepository checks that the limit for closed pull requests does not grow with the
// repository.
func TestClosedPullRequestOfALargeRepository(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	r := newRepo(t)
	r.git("config", "uploadpack.allowFilter", "false")
	main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
	head := junk(r, "refs/pull/1/head", main, 9, 4<<20)
	dir := t.TempDir()
	m := open(t, dir, serve(t, r).remote())
	m.KeepPulls([]int{1})
	observe(t, m)
	m.baseSize = 1 << 40 // as if the rest of the repository were large
	if observe(t, m); m.Has(head) != nil || disk(t, dir) < maxGarbage {
		t.Fatalf("while it is open: %v, %d bytes", m.Has(head), disk(t, dir))
	}
	m.KeepPulls(nil)
	if refs, _ := observe(t, m); refs["refs/heads/main"] != main || m.Has(main) != nil {
		t.Errorf("main: got %v, %v", refs, m.Has(main))
	}
	if size := disk(t, dir); size > 1<<20 {
		t.Errorf("the mirror still has %d MiB", size>>20)
	}
}

// TestLargeFilesStayOnTheServer checks that files larger than MaxBlob are not fetched.
func TestLargeFilesStayOnTheServer(t *testing.T) {
	r := newRepo(t)
	main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
	head := junk(r, "refs/pull/1/head", main, 10, MaxBlob+1)
	dir := t.TempDir()
	m := open(t, dir, serve(t, r).remote())
	if observe(t, m); m.Has(head) != nil || disk(t, dir) > 100_000 {
		t.Errorf("%v, %d bytes on disk", m.Has(head), disk(t, dir))
	}
}

// TestPullRequestsPackIsLimited checks that only the commit whose pack exceeds the limit is refused.
func TestPullRequestsPackIsLimited(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	r := newRepo(t)
	r.git("config", "uploadpack.allowFilter", "false")
	main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
	head := junk(r, "refs/pull/1/head", main, 3, 1<<20)
	fine := r.commit("refs/pull/2/head", map[string]string{"models/b.yaml": "1"}, main)
	dir := t.TempDir()
	m := open(t, dir, serve(t, r).remote())
	m.KeepPulls(nil)
	observe(t, m)
	session, adv, err := m.remote.advertised(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f := &fetch{m: m, session: session, adv: adv, tries: maxFetches}
	f.fetchOthers(t.Context(), []plumbing.Hash{must(hash(head)), must(hash(fine))},
		bounds{objects: 1000, pack: 1 << 20, unpacked: 1 << 30, commit: maxCommit}, time.Minute)
	if _, ok := errors.AsType[TreeError](m.Has(head)); !ok || !errors.Is(m.Has(head), ErrTooBig) {
		t.Errorf("got %v", m.Has(head))
	}
	if m.Has(main) != nil || m.Has(fine) != nil || disk(t, dir) > 100_000 {
		t.Errorf("other commits: %v, %v; %d bytes on disk", m.Has(main), m.Has(fine), disk(t, dir))
	}
}

// TestSilentServer checks that calls end with their context if the server does not respond.
func TestSilentServer(t *testing.T) {
	r := newRepo(t)
	main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
	s := serve(t, r)
	m := open(t, t.TempDir(), s.remote())
	observe(t, m)
	next := must(m.Commit([]string{main}, map[string][]byte{"models/a.yaml": []byte("2")}, committed, "x"))
	now := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "3"}, main)
	for _, part := range []string{"/info/refs", "/git-upload-pack", "/git-receive-pack"} {
		s.before = func(_ http.ResponseWriter, req *http.Request) bool {
			if !strings.HasSuffix(req.URL.Path, part) {
				return false
			}
			io.Copy(io.Discard, req.Body) // else net/http does not detect that the client is gone
			<-req.Context().Done()
			return true
		}
		for name, call := range map[string]func(context.Context) error{
			"Observe": func(ctx context.Context) error { _, _, err := m.Observe(ctx); return err },
			"Push":    func(ctx context.Context) error { return m.Push(ctx, next, "refs/heads/main", now) },
		} {
			if (name == "Push") == (part == "/git-upload-pack") || name == "Observe" && part == "/git-receive-pack" {
				if part != "/info/refs" {
					continue
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			err := call(ctx)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s at %s: got %v", name, part, err)
			}
		}
	}
}

// TestDamagedMirrorIsReadable checks that a damaged mirror can be read while the server is
// down and it cannot be cloned again.
func TestDamagedMirrorIsReadable(t *testing.T) {
	r := newRepo(t)
	main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
	s := serve(t, r)
	m := open(t, t.TempDir(), s.remote())
	observe(t, m)
	m.broken = errors.New("damaged")
	s.before = func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusBadGateway)
		return true
	}
	if _, _, err := m.Observe(t.Context()); !isWait(err) {
		t.Errorf("got %v, want Wait", err)
	}
	if files, err := m.Files(main); err != nil || len(files) != 1 || m.Refs()["refs/heads/main"] != main {
		t.Errorf("while it is down: got %v, %v", files, err)
	}
	s.before = nil
	if refs, changed := observe(t, m); !changed || refs["refs/heads/main"] != main {
		t.Errorf("got %v, %v", refs, changed)
	}
	if _, changed := observe(t, m); changed {
		t.Error("the mirror is cloned twice")
	}
}

// long makes a branch with a number of commits on top of a parent, and returns its head.
func long(r *repo, branch, parent string, commits int) string {
	var script strings.Builder
	for i := range commits {
		fmt.Fprintf(&script, "commit refs/heads/%s\ncommitter A <a@example.com> %d +0000\ndata %d\n%s\n", branch,
			1_700_000_000+i, len(branch), branch)
		if i == 0 {
			fmt.Fprintf(&script, "from %s\n", parent)
		}
	}
	r.gitIn(strings.NewReader(script.String()), "fast-import", "--quiet")
	return r.git("rev-parse", branch)
}

// TestLongHistory checks that a head with more than maxAhead commits of its own is refused after a limited number of
// reads, and that a long history of main is allowed.
func TestLongHistory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	r := newRepo(t)
	root := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
	main := long(r, "main", root, maxAhead+10)
	heads := map[string]string{
		"longer than main":  long(r, "junk", main, 2*maxAhead),
		"from an old start": long(r, "old", root, maxAhead+1),
		"merged in": r.git("commit-tree", main+"^{tree}", "-p", main, "-p", long(r, "side", root, maxAhead),
			"-m", "x"),
	}
	good := map[string]string{
		"as long as it may be": long(r, "most", main, maxAhead-1),
		"behind main":          root,
		"one commit":           r.commit("refs/heads/good", map[string]string{"models/a.yaml": "2"}, root),
	}
	r.git("update-ref", "refs/heads/merged", heads["merged in"])
	m := open(t, t.TempDir(), Remote{URL: r.dir})
	observe(t, m)
	for name, h := range heads {
		_, err := m.MergeBases(h, main)
		if _, ok := errors.AsType[TreeError](err); !ok || !errors.Is(err, ErrTooBig) || !isBlocked(err) {
			t.Errorf("%s: got %v, want a TreeError that is ErrTooBig", name, err)
		}
	}
	if n := len(m.commits); n > 5*maxAhead {
		t.Errorf("%d commits were read", n)
	}
	for name, h := range good {
		bases, err := m.MergeBases(h, main)
		if want := strings.Fields(r.git("merge-base", "--all", h, main)); err != nil || !slices.Equal(bases, want) {
			t.Errorf("%s: got %v, %v; want %v", name, bases, err, want)
		}
	}
}

// TestCommitCacheIsLimited checks that the cache of commits is limited, and that all heads can be read.
func TestCommitCacheIsLimited(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	r := newRepo(t)
	main := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
	for i := range 10 {
		long(r, fmt.Sprint("junk", i), main, 100)
	}
	m := open(t, t.TempDir(), Remote{URL: r.dir})
	refs, _ := observe(t, m)
	m.maxKept = 250
	for name, h := range refs {
		if bases, err := m.MergeBases(h, main); err != nil || !slices.Equal(bases, []string{main}) {
			t.Errorf("%s: got %v, %v", name, bases, err)
		}
		if list, err := m.History(h, "models/a.yaml"); err != nil || len(list) != 1 {
			t.Errorf("%s: history %v, %v", name, list, err)
		}
		if n := len(m.commits); n > m.maxKept {
			t.Errorf("%d commits are kept", n)
		}
	}
}

// A fetch ends with its context if the server does not respond, or stops in the middle of a response.
func TestFetchEndsWithItsContext(t *testing.T) {
	for name, path := range map[string]string{"the list of refs": "/info/refs", "the pack": "/git-upload-pack"} {
		for _, begun := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, begun %v", name, begun), func(t *testing.T) {
				r := newRepo(t)
				r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
				s := serve(t, r)
				requested := make(chan struct{}, 10)
				s.before = func(w http.ResponseWriter, req *http.Request) bool {
					if !strings.HasSuffix(req.URL.Path, path) {
						return false
					}
					io.Copy(io.Discard, req.Body) // else net/http does not detect that the client is gone
					if begun {
						w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
						w.WriteHeader(http.StatusOK)
						io.WriteString(w, "0008NAK\n")
						http.NewResponseController(w).Flush()
					}
					requested <- struct{}{}
					<-req.Context().Done()
					return true
				}
				m := open(t, t.TempDir(), s.remote())
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { _, _, err := m.Observe(ctx); ended <- err }()
				<-requested
				cancel()
				if err := <-ended; err == nil {
					t.Error("Observe returns no error")
				}
				s.before = nil
				if _, changed := observe(t, m); !changed {
					t.Error("the next Observe reads nothing")
				}
			})
		}
	}
}
