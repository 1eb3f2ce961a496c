package git

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// A repo is a bare repository that tests change with git.
type repo struct {
	t   testing.TB
	dir string
}

func newRepo(t testing.TB) *repo {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	r := &repo{t, filepath.Join(t.TempDir(), "intent.git")}
	if out, err := exec.Command("git", "init", "-q", "--bare", "-b", "main", r.dir).CombinedOutput(); err != nil {
		t.Fatalf("git init: %v: %s", err, out)
	}
	r.git("config", "http.receivepack", "true")
	r.git("config", "uploadpack.allowFilter", "true")
	r.git("config", "receive.autogc", "false")
	return r
}

// git runs git in the repository and returns its output.
func (r *repo) git(args ...string) string { return r.gitIn(nil, args...) }

func (r *repo) gitIn(in io.Reader, args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", append([]string{"-C", r.dir}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=A",
		"GIT_COMMITTER_EMAIL=a@example.com")
	cmd.Stdin = in
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("git %s: %v: %s", strings.Join(args, " "), err, errs.String())
	}
	return strings.TrimSpace(string(out))
}

// commit sets a ref to a new commit with the first parent's tree and changed files; ""
// removes a file. Without parents, the parent is the ref's commit.
func (r *repo) commit(ref string, files map[string]string, parents ...string) string {
	r.t.Helper()
	if len(parents) == 0 {
		if at := r.git("for-each-ref", "--format=%(objectname)", ref); at != "" {
			parents = []string{at}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "commit %s\ncommitter A <a@example.com> %d +0000\ndata 7\nchange\n\n", ref, clock.Add(60))
	for i, p := range parents {
		fmt.Fprintf(&b, "%s %s\n", []string{"from", "merge"}[min(i, 1)], p)
	}
	for name, text := range files {
		if text == "" {
			fmt.Fprintf(&b, "D %s\n", name)
		} else {
			fmt.Fprintf(&b, "M 100644 inline %s\ndata %d\n%s\n", name, len(text), text)
		}
	}
	r.gitIn(strings.NewReader(b.String()), "fast-import", "--quiet", "--force")
	return r.git("rev-parse", ref)
}

var clock atomic.Int64

func init() { clock.Store(1_700_000_000) }

// A server serves a repository over smart HTTP.
type server struct {
	*httptest.Server
	repo   *repo
	token  string // the required password, if not empty
	before func(http.ResponseWriter, *http.Request) (done bool)
}

func serve(t testing.TB, r *repo) *server {
	t.Helper()
	path := strings.TrimSpace(string(must(exec.Command("git", "--exec-path").Output()))) + "/git-http-backend"
	if _, err := os.Stat(path); err != nil {
		t.Skip("git-http-backend is not installed")
	}
	backend := &cgi.Handler{
		Path:   path,
		Env:    []string{"GIT_PROJECT_ROOT=" + filepath.Dir(r.dir), "GIT_HTTP_EXPORT_ALL=1"},
		Stderr: io.Discard,
		Logger: log.New(io.Discard, "", 0),
	}
	s := &server{repo: r}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if s.before != nil && s.before(w, req) {
			return
		}
		if _, password, _ := req.BasicAuth(); password != s.token {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, req)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) remote() Remote {
	return Remote{URL: s.URL + "/" + filepath.Base(s.repo.dir), Auth: func() (string, string) { return "", s.token }}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func open(t testing.TB, dir string, r Remote) *Mirror {
	t.Helper()
	m, err := Open(dir, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// both runs a test with a repository over HTTP and with a local repository.
func both(t *testing.T, test func(t *testing.T, r *repo, remote Remote)) {
	t.Run("http", func(t *testing.T) {
		r := newRepo(t)
		test(t, r, serve(t, r).remote())
	})
	t.Run("folder", func(t *testing.T) {
		r := newRepo(t)
		test(t, r, Remote{URL: r.dir})
	})
}

// observe calls Observe and fails the test if that fails.
func observe(t testing.TB, m *Mirror) (map[string]string, bool) {
	t.Helper()
	refs, changed, err := m.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return refs, changed
}
