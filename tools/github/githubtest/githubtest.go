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
	teams   []*team
	spent   int // requests that count against the limit
	limit   int // requests an hour
	refusal func(*http.Request) (status int, header http.Header, message string)
}

// A User has a token.
type User struct {
	ID           int64
	Login, Token string
}

// A Repo is a private repository.
type Repo struct {
	Owner, Name string
	Dir         string // of the bare repository
	id          int64
	parent      *Repo // of a fork
	may         map[string]string
	required    []string // contexts that the branch main requires
	archived    bool
	pulls       []*pull
	comments    []*comment
	statuses    map[string][]*status // by commit, the oldest first
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
	s := &Server{t: t, doc: doc, router: router, users: map[string]*User{}, repos: map[string]*Repo{}, limit: 5000,
		now: time.Now().UTC().Truncate(time.Second)}
	mux := http.NewServeMux()
	mux.Handle("/api/v3/", http.StripPrefix("/api/v3", http.HandlerFunc(s.serve)))
	mux.HandleFunc("POST /api/graphql", s.graphql)
	s.http = httptest.NewServer(mux)
	t.Cleanup(s.http.Close)
	s.URL = s.http.URL
	return s
}

// User makes a user.
func (s *Server) User(login string) *User {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := &User{ID: s.id(), Login: login, Token: "github_pat_" + login}
	s.users[login] = u
	return u
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
	return r
}

// Fork makes a user's fork of a repository.
func (s *Server) Fork(r *Repo, owner *User) *Repo {
	s.t.Helper()
	fork := s.Repo(owner.Login, r.Name)
	s.mu.Lock()
	defer s.mu.Unlock()
	fork.parent = r
	s.git(fork.Dir, "fetch", "-q", r.Dir, "refs/heads/*:refs/heads/*")
	return fork
}

// DeleteFork removes a fork.
func (s *Server) DeleteFork(fork *Repo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.repos, fork.Owner+"/"+fork.Name)
	for _, r := range s.repos {
		for _, p := range r.pulls {
			if p.from == fork {
				p.from = nil
			}
		}
	}
}

// Allow gives a user a permission: admin, write or read.
func (s *Server) Allow(r *Repo, u *User, permission string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.may[u.Login] = permission
}

// Team makes a team of the repository's organization.
func (s *Server) Team(r *Repo, slug, permission string, members ...*User) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.teams = append(s.teams, &team{id: s.id(), org: r.Owner, slug: slug, permission: permission, repo: r,
		members: members})
}

// Require makes the branch main require contexts.
func (s *Server) Require(r *Repo, contexts ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.required = contexts
}

// Archive archives a repository.
func (s *Server) Archive(r *Repo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.archived = true
}

// Rename gives a repository another name. Its old addresses redirect.
func (s *Server) Rename(r *Repo, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Name = name
	s.repos[r.Owner+"/"+name] = r
}

// Refuse lets the server answer as refuse says, where its status is not 0.
func (s *Server) Refuse(refuse func(*http.Request) (status int, header http.Header, message string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusal = refuse
}

// Spent returns how many requests have counted against the limit: all but those that were answered with 304.
func (s *Server) Spent() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spent
}

// Propose opens a pull request of a user. from is the repository itself or a fork.
func (s *Server) Propose(r *Repo, by *User, from *Repo, branch, title string) (number int) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	p, why := s.propose(r, by, from, branch, "main", title, "")
	if why != "" {
		s.t.Fatalf("open a pull request of %s: %s", branch, why)
	}
	return p.number
}

// Close closes a pull request without merging it.
func (s *Server) Close(r *Repo, number int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := r.pull(number)
	p.open, p.updated = false, s.tick()
}

// Merge merges a pull request as a person, and says why GitHub refuses.
func (s *Server) Merge(r *Repo, number int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh(r)
	p := r.pull(number)
	for _, context := range r.required {
		if st := r.newest(p.head, context); st == nil || st.state != "success" {
			return fmt.Errorf("required status check %q is not successful", context)
		}
	}
	main := s.git(r.Dir, "rev-parse", "refs/heads/main")
	tree := s.git(r.Dir, "merge-tree", "--write-tree", main, p.head)
	commit := s.git(r.Dir, "-c", "user.name=GitHub", "-c", "user.email=noreply@github.com", "commit-tree", tree, "-p",
		main, "-p", p.head, "-m", fmt.Sprintf("Merge pull request #%d from %s", number, p.branch))
	s.git(r.Dir, "update-ref", "refs/heads/main", commit, main)
	p.open, p.merged, p.updated = false, true, s.tick()
	return nil
}

// Statuses returns the newest status of each context of a commit: state and description.
func (s *Server) Statuses(r *Repo, commit string) map[string][2]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest := map[string][2]string{}
	for _, st := range r.statuses[commit] {
		newest[st.context] = [2]string{st.state, st.description}
	}
	return newest
}

// SetStatus sets a status as a user.
func (s *Server) SetStatus(r *Repo, by *User, commit, context, state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.statuses[commit] = append(r.statuses[commit], &status{id: s.id(), creator: by, context: context, state: state,
		at: s.tick()})
}

// A Comment is a comment of a pull request.
type Comment struct {
	ID               int64
	Author, Body     string
	Created, Updated time.Time
}

// Comments returns the comments of a pull request, oldest first.
func (s *Server) Comments(r *Repo, number int) (list []Comment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range r.comments {
		if c.pull == number {
			list = append(list, Comment{c.id, c.author.Login, c.body, c.created, c.updated})
		}
	}
	return list
}

// Say comments as a user.
func (s *Server) Say(r *Repo, by *User, number int, body string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.say(r, by, number, body).id
}

// Edit changes a comment as somebody who may write.
func (s *Server) Edit(r *Repo, id int64, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := r.comment(id)
	c.body, c.updated, c.edited = body, s.tick(), true
}

// EditAtOnce changes a comment in the second in which it was made, so that its times do not show it.
func (s *Server) EditAtOnce(r *Repo, id int64, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := r.comment(id)
	c.body, c.edited = body, true
}

// React adds a reaction to a comment.
func (s *Server) React(r *Repo, by *User, id int64, content string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := r.comment(id)
	c.reactions = append(c.reactions, reaction{s.id(), by, content, s.tick()})
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
