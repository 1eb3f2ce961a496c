// Package gitlabtest is a small GitLab for tests: projects with merge requests, pipelines, commit statuses, notes,
// award emoji, members and groups, over bare git repositories on this machine that it serves over HTTP.
//
// Every request is held against schema.go, which has the parameters that GitLab's documentation of its REST API names,
// and fails the test where it does not fit. Every answer must fit the types of GitLab's official Go client, which know
// no other fields. What GitLab refuses is refused: a description of more than 255 characters, a change of a status to
// the state that it has, a commit that is not there, a token without the scope, a role that is too small.
package gitlabtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Server is a GitLab. Its methods may be called from any goroutine.
type Server struct {
	URL string

	t    *testing.T
	http *httptest.Server

	mu       sync.Mutex
	now      time.Time
	ids      int64
	users    map[string]*User // by name
	tokens   map[string]*token
	groups   []*Group
	projects []*Project // a deleted one is gone
	spent    int
	refusal  func(*http.Request) (status int, header http.Header, body string)
	half     func(*http.Request) bool
}

// A Project is a project with a repository.
type Project struct {
	ID   int64
	Dir  string // of the bare repository
	path string // as vision/intent

	group      *Group // that it is in; nil for a user's
	owner      *User
	visibility string
	members    map[int64]int // levels by users' numbers
	invited    map[*Group]int
	parent     *Project // of a fork

	archived               bool
	mustSucceed, skippedOK bool
	merged                 bool // merged results pipelines
	protected              bool
	hooks                  []object
	merges                 []*merge
	pipelines              []*pipeline
	statuses               []*status
	notes                  []*note
	deployments            []*deployment
}

// A merge is a merge request.
type merge struct {
	id               int64
	iid              int
	title, body      string
	author           *User
	from, to         *Project
	branch, base     string
	head             string
	state            string
	approved         bool
	created, updated time.Time
}

// A pipeline is one of GitLab CI, or of statuses from outside.
type pipeline struct {
	id               int64
	sha, ref, source string
	at               time.Time
}

type status struct {
	id                               int64
	pipeline                         *pipeline
	author                           *User
	name, state, description, target string
	job                              bool // of GitLab CI
	at                               time.Time
}

type note struct {
	id               int64
	iid              int
	author           *User
	body             string
	created, updated time.Time
	editor           *User // who has changed it last; nil for nobody
	awards           []*award
}

type award struct {
	id   int64
	user *User
	name string
	at   time.Time
}

// Start returns a server that ends with the test.
func Start(t *testing.T) *Server {
	t.Helper()
	s := &Server{t: t, users: map[string]*User{}, tokens: map[string]*token{},
		now: time.Now().UTC().Truncate(time.Second)}
	mux := http.NewServeMux()
	for _, r := range routes {
		method, path, _ := strings.Cut(r.pattern, " ")
		mux.HandleFunc(method+" /api/v4"+path, func(w http.ResponseWriter, req *http.Request) { s.serve(w, req, r) })
	}
	mux.HandleFunc("POST /api/graphql", s.graphql)
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s: the stand-in knows no such request", r.Method, r.URL)
		write(w, http.StatusNotFound, object{"error": "404 Not Found"})
	})
	mux.HandleFunc("/", s.git)
	s.http = httptest.NewServer(mux)
	t.Cleanup(s.http.Close)
	s.URL = s.http.URL
	return s
}

// tick returns the server's time, some milliseconds later than before.
func (s *Server) tick() time.Time {
	s.now = s.now.Add(37 * time.Millisecond)
	return s.now
}

func (s *Server) id() int64 {
	s.ids++
	return s.ids
}

func (s *Server) run(dir string, args ...string) string {
	s.t.Helper()
	out, err := exec.Command("git", append([]string{"-C", dir}, args...)...).CombinedOutput()
	if err != nil {
		s.t.Errorf("git %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// resolve returns the commit of a branch; empty where there is none.
func resolve(dir, branch string) string {
	out, err := exec.Command("git", "-C", dir, "rev-parse", "-q", "--verify", "refs/heads/"+branch).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

func has(dir, commit string) bool {
	return exec.Command("git", "-C", dir, "cat-file", "-e", commit+"^{commit}").Run() == nil
}

// refresh lets open merge requests follow their branches, as GitLab does after a push.
func (s *Server) refresh(p *Project) {
	for _, m := range p.merges {
		if m.state != "opened" || m.from == nil {
			continue
		}
		switch head := resolve(m.from.Dir, m.branch); head {
		case "":
			m.state, m.updated = "closed", s.tick()
		case m.head:
		default:
			m.head, m.updated = head, s.tick()
			s.run(p.Dir, "fetch", "-q", m.from.Dir, fmt.Sprintf("+refs/heads/%s:refs/merge-requests/%d/head", m.branch,
				m.iid))
		}
	}
}

func (s *Server) find(path string) *Project {
	id, _ := strconv.ParseInt(path, 10, 64)
	for _, p := range s.projects {
		if p.ID == id || strings.EqualFold(p.path, path) {
			return p
		}
	}
	return nil
}

func (p *Project) merge(iid int) *merge {
	for _, m := range p.merges {
		if m.iid == iid {
			return m
		}
	}
	return nil
}

// level is a user's role in a project, and 0 for none.
func (s *Server) level(p *Project, u *User) int {
	level := p.members[u.ID]
	if p.owner == u {
		level = 50
	}
	if p.group != nil {
		for g := p.group; g != nil; g = g.parent {
			level = max(level, g.members[u.ID])
		}
	}
	for g, most := range p.invited {
		level = max(level, min(most, g.members[u.ID]))
	}
	return level
}

// serve answers a request of the API.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, route route) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := io.ReadAll(io.LimitReader(r.Body, 4<<20))
	if err != nil {
		return
	}
	s.spent++
	h := w.Header()
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	h.Set("RateLimit-Limit", "2000")
	h.Set("RateLimit-Observed", strconv.Itoa(s.spent))
	h.Set("RateLimit-Remaining", strconv.Itoa(max(2000-s.spent, 0)))
	h.Set("RateLimit-Reset", strconv.FormatInt(time.Now().Add(time.Minute).Unix(), 10))
	if s.refusal != nil {
		if code, header, text := s.refusal(r); code != 0 {
			for name, values := range header {
				h[name] = values
			}
			w.WriteHeader(code)
			_, _ = io.WriteString(w, text)
			return
		}
	}
	c := &call{Server: s, r: r, route: route, header: h}
	if err := c.check(body); err != nil {
		s.t.Errorf("%s %s does not fit %s: %v\n%.500s", r.Method, r.URL, route.page, err, body)
		write(w, http.StatusBadRequest, object{"error": err.Error()})
		return
	}
	code, answer := c.answer()
	text, err := json.Marshal(answer)
	if err != nil {
		s.t.Error(err)
	}
	if code < 300 && route.shape != nil {
		known := json.NewDecoder(bytes.NewReader(text))
		known.DisallowUnknownFields()
		if err := known.Decode(reflect.New(reflect.TypeOf(route.shape)).Interface()); err != nil {
			s.t.Errorf("the answer to %s %s does not fit GitLab's client: %v", r.Method, r.URL, err)
		}
	}
	h.Set("Content-Type", "application/json")
	if r.Method == http.MethodGet && code == http.StatusOK {
		h.Set("ETag", fmt.Sprintf(`W/"%x"`, sha256.Sum256(text)))
		if r.Header.Get("If-None-Match") == h.Get("ETag") {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	if s.half != nil && s.half(r) {
		h.Set("Content-Length", strconv.Itoa(len(text)))
		w.WriteHeader(code)
		_, _ = w.Write(text[:len(text)/2])
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(code)
	_, _ = w.Write(text)
}

func write(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

// hook refuses what GitLab's protection of main refuses.
const hook = `#!/bin/sh
while read -r old new ref; do
	if [ "$ref" = refs/heads/main ] && [ -n "$GITLAB_LEVEL" ] && [ "$GITLAB_LEVEL" -lt 40 ]; then
		echo "GitLab: You are not allowed to push code to protected branches on this project." >&2
		exit 1
	fi
done
`

// git serves the repositories. The password is a token.
func (s *Server) git(w http.ResponseWriter, r *http.Request) {
	path, rest, found := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), ".git/")
	_, password, _ := r.BasicAuth()
	s.mu.Lock()
	p, t := s.find(path), s.tokens[password]
	valid, reads, main := t != nil && t.valid(), false, ""
	var level int
	if p != nil && valid {
		level = s.level(p, t.user)
		if reads = level >= Reporter || p.visibility == "public"; p.protected {
			main = strconv.Itoa(level)
		}
	}
	s.mu.Unlock()
	writes := strings.HasSuffix(rest, "git-receive-pack") || r.URL.Query().Get("service") == "git-receive-pack"
	switch {
	case !valid:
		w.Header().Set("WWW-Authenticate", `Basic realm="GitLab"`)
		http.Error(w, "HTTP Basic: Access denied.", http.StatusUnauthorized)
		return
	case !found || p == nil || !reads:
		http.Error(w, "The project you were looking for could not be found.", http.StatusNotFound)
		return
	case writes && (level < 30 || !t.may("write_repository") && !t.may("api")):
		http.Error(w, "You are not allowed to push code to this project.", http.StatusForbidden)
		return
	}
	program, err := exec.LookPath("git")
	if err != nil {
		s.t.Error(err)
		return
	}
	r.URL.Path = "/" + rest
	r.Header.Del("Authorization")
	(&cgi.Handler{Path: program, Args: []string{"http-backend"}, Env: []string{"GIT_PROJECT_ROOT=" + p.Dir,
		"GIT_HTTP_EXPORT_ALL=1", "GITLAB_LEVEL=" + main, "REMOTE_USER=" + t.user.Name},
		InheritEnv: []string{"PATH", "HOME"}}).ServeHTTP(w, r)
}

// init makes the repository of a project.
func (s *Server) init(p *Project) {
	p.Dir = filepath.Join(s.t.TempDir(), "repository.git")
	s.run(".", "init", "-q", "--bare", "-b", "main", p.Dir)
	s.run(p.Dir, "config", "http.receivepack", "true")
	if err := os.WriteFile(filepath.Join(p.Dir, "hooks", "pre-receive"), []byte(hook), 0o700); err != nil {
		s.t.Error(err)
	}
}
