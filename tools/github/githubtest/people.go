package githubtest

// This file has what tests do as people.

import (
	"fmt"
	"net/http"
	"time"
)

// A User has a token.
type User struct {
	ID           int64
	Login, Token string
}

// User makes a user.
func (s *Server) User(login string) *User {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := &User{ID: s.id(), Login: login, Token: "github_pat_" + login}
	s.users[login] = u
	return u
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

// RequireFrom makes the branch main require contexts from an App.
func (s *Server) RequireFrom(r *Repo, app int64, contexts ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.required, r.source = contexts, app
}

// Archive archives a repository, or ends that.
func (s *Server) Archive(r *Repo, archived bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.archived = archived
}

// Hook sets the webhook of a repository; "" removes it.
func (s *Server) Hook(r *Repo, url string, active bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.hooks = nil; url != "" {
		r.hooks = []hook{{url, active}}
	}
}

// A hook is a webhook.
type hook struct {
	url    string
	active bool
}

// Rename gives a repository another owner and name. Its old addresses redirect, until another repository takes them.
func (s *Server) Rename(r *Repo, owner, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := r.Owner + "/" + r.Name
	delete(s.repos, old)
	s.moved[old] = r
	r.Owner, r.Name = owner, name
	delete(s.moved, owner+"/"+name)
	s.repos[owner+"/"+name] = r
}

// Refuse lets the server answer as refuse says, where its status is not 0.
func (s *Server) Refuse(refuse func(*http.Request) (status int, header http.Header, message string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusal = refuse
}

// Answer lets the GraphQL API answer as answer says, where that is not "".
func (s *Server) Answer(answer func(*http.Request) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
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
		if !r.green(p.head, context) {
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
