// Package githubtest is a small GitHub for tests: repositories with pull requests, statuses, comments, reactions, teams
// and branch rules, over bare git repositories on this machine.
//
// Every request is checked against openapi.json, a cut of GitHub's published OpenAPI description, and fails the test
// where it does not fit. Every answer is one of that description's examples with the server's own state in it, and is
// checked too. What GitHub refuses is refused: a description of more than 140 characters, the 1,001st status of a
// context, a stale or missing head, a token without permission.
package githubtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
)

//go:embed openapi.json
var description []byte

// described is the parsed description, which is the same for all servers.
var described = sync.OnceValues(func() (*openapi3.T, error) { return openapi3.NewLoader().LoadFromData(description) })

// A Server is a GitHub. Its methods may be called from any goroutine.
type Server struct {
	URL string // as that of a GitHub Enterprise Server: the API is below /api/v3

	t      *testing.T
	doc    *openapi3.T
	router routers.Router
	http   *httptest.Server

	mu      sync.Mutex
	now     time.Time
	ids     int64
	users   map[string]*User // by login
	repos   map[string]*Repo // by owner/name
	moved   map[string]*Repo // by the names that they had before
	teams   []*team
	apps    []*App
	spent   int                        // requests that count against the limit
	writes  []time.Time                // requests that create content
	limit   int                        // requests an hour
	answer  func(*http.Request) string // of the GraphQL API; "" for its own
	refusal func(*http.Request) (status int, header http.Header, message string)
}

// A Repo is a private repository.
type Repo struct {
	Owner, Name string
	Dir         string // of the bare repository
	id          int64
	parent      *Repo // of a fork
	may         map[string]string
	required    []string // contexts that the branch main requires
	source      int64    // the App that they must be of; 0 for any source
	archived    bool
	hooks       []hook
	signed      []string // commits that GitHub has made
	refuses     string   // why its rules refuse commits; "" if they do not
	pulls       []*pull
	comments    []*comment
	statuses    map[string][]*status // by commit, the oldest first
	runs        []*checkRun          // the oldest first
	deployments []*deployment        // the oldest first
}

type team struct {
	id         int64
	org, slug  string
	permission string
	repo       *Repo
	members    []*User
}

type pull struct {
	number           int
	title, body      string
	author           *User
	from             *Repo
	branch, base     string
	head             string
	open, merged     bool
	draft            bool
	created, updated time.Time
}

type comment struct {
	id               int64
	pull             int
	author           *User
	body             string
	created, updated time.Time
	edited           bool // its text has been changed
	reactions        []reaction
}

type reaction struct {
	id      int64
	user    *User
	content string
	at      time.Time
}

type status struct {
	id                                  int64
	creator                             *User
	context, state, description, target string
	at                                  time.Time
}

// Start returns a server that ends with the test.
func Start(t *testing.T) *Server {
	t.Helper()
	doc, err := described()
	if err != nil {
		t.Fatal(err)
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, doc: doc, router: router, users: map[string]*User{}, repos: map[string]*Repo{},
		moved: map[string]*Repo{}, limit: 5000, now: time.Now().UTC().Truncate(time.Second)}
	mux := http.NewServeMux()
	mux.Handle("/api/v3/", http.StripPrefix("/api/v3", http.HandlerFunc(s.serve)))
	mux.HandleFunc("POST /api/graphql", s.graphql)
	s.http = httptest.NewServer(mux)
	t.Cleanup(s.http.Close)
	s.URL = s.http.URL
	return s
}

// Repo makes a private repository of a user or an organization.
func (s *Server) Repo(owner, name string) *Repo {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &Repo{Owner: owner, Name: name, Dir: filepath.Join(s.t.TempDir(), name+".git"), id: s.id(),
		may: map[string]string{owner: "admin"}, statuses: map[string][]*status{}}
	s.git(".", "init", "-q", "--bare", "-b", "main", r.Dir)
	s.repos[owner+"/"+name] = r
	delete(s.moved, owner+"/"+name)
	return r
}

// tick returns the server's time, a second later than before: GitHub's times are whole seconds.
func (s *Server) tick() time.Time {
	s.now = s.now.Add(time.Second)
	return s.now
}

func (s *Server) id() int64 {
	s.ids++
	return s.ids
}

func (s *Server) git(dir string, args ...string) string {
	s.t.Helper()
	cmd := exec.Command("git", append([]string{"-C", dir}, args...)...)
	out, err := cmd.CombinedOutput()
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

// branches returns the commits of all branches.
func (s *Server) branches(dir string) map[string]string {
	heads := map[string]string{}
	for line := range strings.Lines(s.git(dir, "for-each-ref", "--format=%(objectname) %(refname:lstrip=2)",
		"refs/heads/")) {
		commit, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		heads[name] = commit
	}
	return heads
}

// refresh lets open pull requests follow their branches, as GitHub does after a push.
func (s *Server) refresh(r *Repo) {
	of := map[*Repo]map[string]string{}
	for _, p := range r.pulls {
		if !p.open || p.from == nil {
			continue
		}
		if of[p.from] == nil {
			of[p.from] = s.branches(p.from.Dir)
		}
		head := of[p.from][p.branch]
		switch {
		case head == "":
			p.open, p.updated = false, s.tick()
		case head != p.head:
			p.head, p.updated = head, s.tick()
			s.git(r.Dir, "fetch", "-q", p.from.Dir, "+refs/heads/"+p.branch+":"+fmt.Sprintf("refs/pull/%d/head",
				p.number))
		}
	}
}

func (s *Server) propose(r *Repo, by *User, from *Repo, branch, base, title, body string) (p *pull, why string) {
	s.refresh(r)
	head := resolve(from.Dir, branch)
	if head == "" {
		return nil, "head invalid"
	}
	if resolve(r.Dir, base) == "" {
		return nil, "base invalid"
	}
	for _, p := range r.pulls {
		if p.open && p.from == from && p.branch == branch && p.base == base {
			return nil, "A pull request already exists for " + from.Owner + ":" + branch + "."
		}
	}
	at := s.tick()
	p = &pull{number: len(r.pulls) + 1, title: title, body: body, author: by, from: from, branch: branch, base: base,
		open: true, created: at, updated: at}
	r.pulls = append(r.pulls, p)
	s.refresh(r)
	return p, ""
}

func (s *Server) say(r *Repo, by *User, number int, body string) *comment {
	at := s.tick()
	c := &comment{id: s.id(), pull: number, author: by, body: body, created: at, updated: at}
	r.comments = append(r.comments, c)
	if p := r.pull(number); p != nil {
		p.updated = at
	}
	return c
}

func (r *Repo) pull(number int) *pull {
	if number < 1 || number > len(r.pulls) {
		return nil
	}
	return r.pulls[number-1]
}

func (r *Repo) comment(id int64) *comment {
	for _, c := range r.comments {
		if c.id == id {
			return c
		}
	}
	return nil
}

func (r *Repo) newest(commit, context string) (found *status) {
	for _, st := range r.statuses[commit] {
		if strings.EqualFold(st.context, context) {
			found = st
		}
	}
	return found
}

// serve answers a request, whose path is below /api/v3.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	w.Header().Set("Date", s.now.Format(http.TimeFormat))
	w.Header().Set("X-RateLimit-Limit", strconv.Itoa(s.limit))
	w.Header().Set("X-RateLimit-Remaining", strconv.Itoa(max(s.limit-s.spent, 0)))
	w.Header().Set("X-RateLimit-Reset", strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10))
	if s.refusal != nil {
		if code, header, message := s.refusal(r); code != 0 {
			for name, values := range header {
				w.Header()[name] = values
			}
			write(w, code, map[string]any{"message": message, "documentation_url": "https://docs.github.com/rest"})
			return
		}
	}
	if s.tooMuch(r) {
		w.Header().Set("Retry-After", "60")
		write(w, http.StatusForbidden, message("You have exceeded a secondary rate limit. Please wait a few minutes "+
			"before you try again."))
		return
	}
	if to, code := s.redirect(r); code != 0 {
		w.Header().Set("Location", to)
		write(w, code, map[string]any{"message": "Moved Permanently", "url": to})
		return
	}
	c := &call{Server: s, r: r, body: body}
	input, err := c.check()
	if err != nil {
		s.t.Errorf("%s %s does not fit GitHub's description: %v\n%s", r.Method, r.URL, err, body)
		write(w, http.StatusUnprocessableEntity, map[string]any{"message": err.Error()})
		return
	}
	code, answer := c.answer()
	text, err := json.Marshal(answer)
	if err != nil {
		s.t.Error(err)
	}
	header := http.Header{"Content-Type": {"application/json; charset=utf-8"}}
	if c.next > 0 {
		next := *r.URL
		query := next.Query()
		query.Set("page", strconv.Itoa(c.next))
		next.RawQuery = query.Encode()
		header.Set("Link", fmt.Sprintf(`<%s/api/v3%s>; rel="next"`, s.URL, next.String()))
	}
	checked := text
	if list, is := answer.([]any); is && len(list) > 4 { // the entries are of one make, and each takes milliseconds
		if checked, err = json.Marshal(append(list[:2:2], list[len(list)-2:]...)); err != nil {
			s.t.Error(err)
		}
	}
	if code < 300 && !c.beyond {
		if err := openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
			RequestValidationInput: input, Status: code, Header: header, Body: io.NopCloser(bytes.NewReader(checked)),
			Options: &openapi3filter.Options{IncludeResponseStatus: true}}); err != nil {
			s.t.Errorf("the answer to %s %s does not fit GitHub's description: %.300s", r.Method, r.URL, err)
		}
	}
	if r.Method == http.MethodGet && code == http.StatusOK {
		header.Set("ETag", fmt.Sprintf(`W/"%x"`, sha256.Sum256(append(text, header.Get("Link")...))))
	}
	for name, values := range header {
		w.Header()[name] = values
	}
	if etag := header.Get("ETag"); etag != "" && r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	s.spent++
	w.WriteHeader(code)
	_, _ = w.Write(text)
}

// tooMuch counts requests that create content, and reports whether there are more than 80 in a minute.
func (s *Server) tooMuch(r *http.Request) bool {
	if r.Method == http.MethodGet || strings.HasSuffix(r.URL.Path, "/access_tokens") {
		return false
	}
	s.writes = append(s.writes, time.Now())
	n := len(s.writes)
	return n > 80 && s.writes[n-1].Sub(s.writes[n-81]) < time.Minute
}

// redirect says where a request about a repository that was renamed is sent, and with which status; 0 for nowhere. A
// request that has followed a redirect, to /repositories/ID, is answered as one about the present name.
func (s *Server) redirect(r *http.Request) (to string, code int) {
	if rest, ok := strings.CutPrefix(r.URL.Path, "/repositories/"); ok {
		id, rest, _ := strings.Cut(rest, "/")
		for _, repo := range s.repos {
			if strconv.FormatInt(repo.id, 10) == id {
				u := *r.URL
				u.Path, u.RawPath = strings.TrimSuffix("/repos/"+repo.Owner+"/"+repo.Name+"/"+rest, "/"), ""
				r.URL = &u
			}
		}
		return "", 0
	}
	parts := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/repos/"), "/", 3)
	if len(parts) < 2 || s.moved[parts[0]+"/"+parts[1]] == nil {
		return "", 0
	}
	u := *r.URL
	u.Path, u.RawPath = fmt.Sprintf("/api/v3/repositories/%d", s.moved[parts[0]+"/"+parts[1]].id), ""
	if len(parts) == 3 {
		u.Path += "/" + parts[2]
	}
	if code = http.StatusMovedPermanently; r.Method != http.MethodGet {
		code = http.StatusTemporaryRedirect
	}
	return s.URL + u.String(), code
}

func write(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

// check holds a request against the description.
func (c *call) check() (*openapi3filter.RequestValidationInput, error) {
	r := c.r.Clone(context.Background())
	r.Body = io.NopCloser(bytes.NewReader(c.body))
	u, err := url.ParseRequestURI(c.r.URL.RequestURI())
	if err != nil {
		return nil, err
	}
	r.URL = u
	route, params, err := c.router.FindRoute(r)
	if err != nil {
		return nil, err
	}
	c.pattern, c.params = route.Method+" "+route.Path, params
	input := &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}}
	return input, openapi3filter.ValidateRequest(context.Background(), input)
}

func gitHas(dir, commit string) bool {
	return exec.Command("git", "-C", dir, "cat-file", "-e", commit+"^{commit}").Run() == nil
}
