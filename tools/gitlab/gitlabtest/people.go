package gitlabtest

// This file has what tests do as people.

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// A User has a token of its own.
type User struct {
	ID          int64
	Name, Token string
	blocked     bool
}

type token struct {
	id      int64
	user    *User
	scopes  []string
	revoked bool
	expires time.Time // zero: never
	made    time.Time
}

func (t *token) valid() bool {
	return !t.revoked && !t.user.blocked && (t.expires.IsZero() || time.Now().Before(t.expires))
}

func (t *token) may(scope string) bool { return slices.Contains(t.scopes, scope) }

// A Group has members and projects.
type Group struct {
	ID      int64
	Path    string
	parent  *Group
	members map[int64]int
}

// The roles.
const (
	Guest      = 10
	Reporter   = 20
	Developer  = 30
	Maintainer = 40
	Owner      = 50
)

// User makes a user, with a token of the scopes api and write_repository.
func (s *Server) User(name string) *User {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := &User{ID: s.id(), Name: name}
	u.Token = s.token(u, "api", "write_repository")
	s.users[strings.ToLower(name)] = u
	return u
}

func (s *Server) token(u *User, scopes ...string) string {
	text := fmt.Sprintf("glpat-%s-%d", u.Name, s.id())
	s.tokens[text] = &token{id: s.id(), user: u, scopes: scopes, made: s.tick()}
	return text
}

// NewToken makes a token of a user.
func (s *Server) NewToken(u *User, scopes ...string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token(u, scopes...)
}

// Expire lets a token end then.
func (s *Server) Expire(text string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[text].expires = at
}

// Revoke ends a token.
func (s *Server) Revoke(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[text].revoked = true
}

// ProjectToken makes an access token of a project, which has a user of its own.
func (s *Server) ProjectToken(p *Project, level int, scopes ...string) *User {
	u := s.User(fmt.Sprintf("project_%d_bot_%d", p.ID, len(p.members)))
	s.mu.Lock()
	defer s.mu.Unlock()
	p.members[u.ID] = level
	u.Token = s.token(u, scopes...)
	return u
}

// Block blocks a user.
func (s *Server) Block(u *User) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u.blocked = true
}

// Group makes a group; parent may be nil.
func (s *Server) Group(parent *Group, name string, members map[*User]int) *Group {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := &Group{ID: s.id(), Path: name, parent: parent, members: map[int64]int{}}
	if parent != nil {
		g.Path = parent.Path + "/" + name
	}
	for u, level := range members {
		g.members[u.ID] = level
	}
	s.groups = append(s.groups, g)
	return g
}

// Project makes a private project of a user, whose main is protected and whose pipelines must succeed.
func (s *Server) Project(owner *User, name string) *Project {
	return s.add(&Project{path: owner.Name + "/" + name, owner: owner})
}

// GroupProject makes a private project of a group.
func (s *Server) GroupProject(g *Group, name string) *Project {
	return s.add(&Project{path: g.Path + "/" + name, group: g})
}

func (s *Server) add(p *Project) *Project {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	p.ID, p.visibility, p.protected, p.mustSucceed = s.id(), "private", true, true
	p.members, p.invited = map[int64]int{}, map[*Group]int{}
	s.init(p)
	s.projects = append(s.projects, p)
	return p
}

// Remote is the address of a project's repository for a user.
func (s *Server) Remote(p *Project, u *User) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Replace(s.URL, "://", "://oauth2:"+u.Token+"@", 1) + "/" + p.path + ".git"
}

// Fork makes a user's fork of a project.
func (s *Server) Fork(p *Project, owner *User) *Project {
	s.t.Helper()
	_, name, _ := strings.Cut(p.path, "/")
	fork := s.Project(owner, name)
	s.mu.Lock()
	defer s.mu.Unlock()
	fork.parent, fork.visibility, fork.protected = p, "public", false
	s.run(fork.Dir, "fetch", "-q", p.Dir, "refs/heads/*:refs/heads/*")
	return fork
}

// Delete removes a project. Merge requests from it stay.
func (s *Server) Delete(p *Project) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.projects = slices.DeleteFunc(s.projects, func(q *Project) bool { return q == p })
	for _, q := range s.projects {
		for _, m := range q.merges {
			if m.from == p {
				m.from = nil
			}
		}
	}
}

// Rename gives a project another path.
func (s *Server) Rename(p *Project, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.path = path
}

// Change changes settings of a project: archived, public, mustSucceed, skippedOK, mergedResults or protected.
func (s *Server) Change(p *Project, setting string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch setting {
	case "archived":
		p.archived = on
	case "public":
		p.visibility = map[bool]string{true: "public", false: "private"}[on]
	case "mustSucceed":
		p.mustSucceed = on
	case "skippedOK":
		p.skippedOK = on
	case "mergedResults":
		p.merged = on
	case "protected":
		p.protected = on
	default:
		s.t.Fatalf("there is no setting %s", setting)
	}
}

// Allow gives a user a role in a project.
func (s *Server) Allow(p *Project, u *User, level int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.members[u.ID] = level
}

// Invite gives a group a role in a project.
func (s *Server) Invite(p *Project, g *Group, level int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.invited[g] = level
}

// Hook adds a webhook to a project.
func (s *Server) Hook(p *Project, url string, notes bool, alert string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.hooks = append(p.hooks, object{"id": s.id(), "url": url, "project_id": p.ID, "push_events": true,
		"merge_requests_events": true, "note_events": notes, "pipeline_events": true, "enable_ssl_verification": true,
		"alert_status": alert, "created_at": stamp(s.tick())})
}

// Refuse lets the server answer as refuse says, where its status is not 0.
func (s *Server) Refuse(refuse func(*http.Request) (status int, header http.Header, body string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusal = refuse
}

// Half lets the server end its answers to requests in the middle.
func (s *Server) Half(half func(*http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.half = half
}

// Spent returns how many requests were made.
func (s *Server) Spent() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spent
}

// Propose opens a merge request of a user. from is the project itself or a fork.
func (s *Server) Propose(p *Project, by *User, from *Project, branch, title string) (iid int) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	m, why := s.propose(p, by, from, branch, "main", title, "")
	if why != "" {
		s.t.Fatalf("open a merge request of %s: %s", branch, why)
	}
	return m.iid
}

// Merge merges a merge request as a person, and says why GitLab refuses.
func (s *Server) Merge(p *Project, iid int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh(p)
	m := p.merge(iid)
	if why := p.blocked(m); why != "" {
		return fmt.Errorf("405 Method Not Allowed: %s", why)
	}
	s.merge(p, m)
	return nil
}

// Pipeline starts a pipeline of GitLab CI for a commit, with one job that has a state.
func (s *Server) Pipeline(p *Project, by *User, commit, ref, source, job, state string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	pipe := &pipeline{id: s.id(), sha: commit, ref: ref, source: source, at: s.tick()}
	p.pipelines = append(p.pipelines, pipe)
	p.statuses = append(p.statuses, &status{id: s.id(), pipeline: pipe, author: by, name: job, state: state,
		job: true, at: s.tick()})
	return pipe.id
}

// A Status is the newest one of a name on a commit.
type Status struct {
	State, Description, Ref string
	Pipeline                int64
}

// Statuses returns the newest status of each name on a commit.
func (s *Server) Statuses(p *Project, commit string) map[string]Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest := map[string]Status{}
	for _, st := range p.statuses {
		if st.pipeline.sha == commit {
			newest[st.name] = Status{st.state, st.description, st.pipeline.ref, st.pipeline.id}
		}
	}
	return newest
}

// Sets returns how often statuses were set, changed or refused.
func (s *Server) Sets(p *Project) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(p.statuses)
}

// SetStatus sets a status as a user.
func (s *Server) SetStatus(p *Project, by *User, commit, name, state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var pipe *pipeline
	for _, q := range p.pipelines {
		if q.sha == commit {
			pipe = q
		}
	}
	p.statuses = append(p.statuses, &status{id: s.id(), pipeline: pipe, author: by, name: name, state: state,
		at: s.tick()})
}

// A Note is a comment on a merge request.
type Note struct {
	ID           int64
	Author, Body string
}

// Notes returns the notes on a merge request, oldest first.
func (s *Server) Notes(p *Project, iid int) (list []Note) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range p.notes {
		if n.iid == iid {
			list = append(list, Note{n.id, n.author.Name, n.body})
		}
	}
	return list
}

// Say comments as a user.
func (s *Server) Say(p *Project, by *User, iid int, body string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.say(p, by, iid, body).id
}

// Edit changes a note as somebody who may.
func (s *Server) Edit(p *Project, id int64, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := p.note(id)
	n.body, n.updated, n.editor = body, s.tick(), n.author
}

// Award reacts to a note.
func (s *Server) Award(p *Project, by *User, id int64, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.award(p.note(id), by, name)
}

// State returns a merge request's state, and whether somebody has approved it.
func (s *Server) State(p *Project, iid int) (state string, approved bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := p.merge(iid)
	return m.state, m.approved
}
