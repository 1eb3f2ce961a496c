package gitlabtest

// This file answers the requests.

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

type object = map[string]any

// A call is one request.
type call struct {
	*Server
	r      *http.Request
	route  route
	header http.Header
	query  url.Values
	body   object

	me      *User
	token   *token
	project *Project
	level   int
	merge   *merge
}

func message(text any) object { return object{"message": text} }

func stamp(at time.Time) string { return at.Format("2006-01-02T15:04:05.000Z") }

// answer returns the status and the body.
func (c *call) answer() (int, any) {
	given := c.r.Header.Get("PRIVATE-TOKEN")
	if bearer, is := strings.CutPrefix(c.r.Header.Get("Authorization"), "Bearer "); is {
		given = bearer
	}
	t := c.tokens[given]
	switch {
	case t == nil:
		return http.StatusUnauthorized, message("401 Unauthorized")
	case t.revoked:
		return http.StatusUnauthorized, object{"error": "invalid_token",
			"error_description": "Token was revoked. You have to re-authorize from the user."}
	case !t.valid():
		return http.StatusUnauthorized, object{"error": "invalid_token",
			"error_description": "Token is expired. You can either do re-authorization or token refresh."}
	}
	c.token, c.me = t, t.user
	if reads := c.r.Method == http.MethodGet; !t.may("api") && !(reads && t.may("read_api")) {
		return http.StatusForbidden, object{"error": "insufficient_scope", "scope": "api",
			"error_description": "The request requires higher privileges than provided by the access token."}
	}
	if strings.Contains(c.route.pattern, project) {
		if c.project = c.find(c.r.PathValue("id")); c.project != nil {
			c.level = c.Server.level(c.project, c.me)
		}
		if c.project == nil || c.level == 0 && c.project.visibility == "private" {
			return http.StatusNotFound, message("404 Project Not Found")
		}
		if c.level < c.route.level {
			return http.StatusForbidden, message("403 Forbidden")
		}
		if c.project.archived && c.r.Method != http.MethodGet {
			return http.StatusForbidden, message("403 Forbidden")
		}
		c.refresh(c.project)
	}
	if strings.Contains(c.route.pattern, "{iid}") {
		if c.merge = c.project.merge(int(c.number("iid"))); c.merge == nil {
			return http.StatusNotFound, message("404 Not found")
		}
	}
	switch _, path, _ := strings.Cut(c.route.pattern, " "); {
	case strings.Contains(path, "/notes"):
		return c.ofNotes()
	case strings.Contains(path, "/merge_requests"):
		return c.ofMerges()
	case strings.Contains(path, "/statuses"), strings.HasSuffix(path, "/pipelines"):
		return c.ofStatuses()
	case strings.Contains(path, "/members"):
		return c.ofMembers()
	case strings.Contains(path, "/deployments"):
		return c.ofDeployments()
	case path == "/user":
		return http.StatusOK, c.user(c.me)
	case path == "/users":
		list := []*User{}
		if u := c.users[strings.ToLower(c.query.Get("username"))]; u != nil {
			list = append(list, u)
		}
		return http.StatusOK, page(c, list, c.user)
	case path == "/users/{user}":
		for _, u := range c.users {
			if u.ID == c.number("user") {
				return http.StatusOK, c.user(u)
			}
		}
		return http.StatusNotFound, message("404 User Not Found")
	case path == "/personal_access_tokens/self":
		o := object{"id": t.id, "name": "aob", "revoked": false, "created_at": stamp(t.made), "description": "",
			"scopes": t.scopes, "user_id": t.user.ID, "active": true, "expires_at": nil}
		if !t.expires.IsZero() {
			o["expires_at"] = t.expires.Format("2006-01-02")
		}
		return http.StatusOK, o
	case path == project:
		return http.StatusOK, c.shown()
	case strings.HasSuffix(path, "/branches/{branch}"):
		return c.branch()
	case strings.HasSuffix(path, "/hooks"):
		return http.StatusOK, page(c, c.project.hooks, func(o object) object { return o })
	}
	c.t.Errorf("no answer to %s", c.route.pattern)
	return http.StatusNotFound, message("404 Not Found")
}

// basic is a user in other objects.
func (s *Server) basic(u *User) object {
	state := "active"
	if u.blocked {
		state = "blocked"
	}
	return object{"id": u.ID, "username": u.Name, "name": u.Name, "state": state, "avatar_url": nil,
		"web_url": s.URL + "/" + u.Name}
}

func (c *call) user(u *User) object {
	o := c.basic(u)
	o["locked"], o["bot"] = false, strings.Contains(u.Name, "_bot_")
	return o
}

// shown is the project.
func (c *call) shown() object {
	p := c.project
	access := func(level int) any {
		if level == 0 {
			return nil
		}
		return object{"access_level": level, "notification_level": 3}
	}
	namespace := object{"kind": "user", "parent_id": nil, "avatar_url": nil}
	if p.group != nil {
		namespace = object{"kind": "group", "id": p.group.ID, "full_path": p.group.Path, "path": p.group.Path}
	} else {
		namespace["id"], namespace["full_path"], namespace["path"] = p.owner.ID, p.owner.Name, p.owner.Name
	}
	shared := []object{}
	for g, level := range p.invited {
		shared = append(shared, object{"group_id": g.ID, "group_name": g.Path, "group_full_path": g.Path,
			"group_access_level": level, "expires_at": nil})
	}
	return object{"id": p.ID, "path_with_namespace": p.path, "path": p.path[strings.LastIndex(p.path, "/")+1:],
		"visibility": p.visibility, "default_branch": "main", "web_url": c.URL + "/" + p.path,
		"http_url_to_repo": c.URL + "/" + p.path + ".git", "archived": p.archived, "namespace": namespace,
		"empty_repo": resolve(p.Dir, "main") == "", "merge_requests_access_level": "enabled",
		"builds_access_level": "enabled", "merge_method": "merge", "squash_option": "default_off",
		"only_allow_merge_if_pipeline_succeeds": p.mustSucceed, "allow_merge_on_skipped_pipeline": p.skippedOK,
		"merge_pipelines_enabled": p.merged, "merge_trains_enabled": false, "shared_with_groups": shared,
		"last_activity_at": stamp(c.now), "marked_for_deletion_on": nil,
		"permissions": object{"project_access": access(c.level), "group_access": nil}}
}

func (c *call) branch() (int, any) {
	name := c.r.PathValue("branch")
	head := resolve(c.project.Dir, name)
	if head == "" {
		return http.StatusNotFound, message("404 Branch Not Found")
	}
	protected := c.project.protected && name == "main"
	return http.StatusOK, object{"name": name, "protected": protected, "merged": false, "default": name == "main",
		"developers_can_push": false, "developers_can_merge": protected, "can_push": c.level >= 40 || !protected,
		"web_url": c.URL + "/" + c.project.path + "/-/tree/" + name, "commit": object{"id": head}}
}

func (c *call) ofMembers() (int, any) {
	level, members := map[int64]int{}, map[int64]int{}
	if c.project != nil {
		for _, u := range c.users {
			level[u.ID] = c.Server.level(c.project, u)
		}
		members = level
	} else {
		i := slices.IndexFunc(c.groups, func(g *Group) bool { return g.ID == c.number("id") })
		if i < 0 {
			return http.StatusNotFound, message("404 Group Not Found")
		}
		members = c.groups[i].members
	}
	show := func(u *User) object {
		o := c.basic(u)
		o["access_level"], o["expires_at"], o["created_at"] = members[u.ID], nil, stamp(c.now)
		return o
	}
	var list []*User
	for _, u := range c.users {
		if members[u.ID] > 0 {
			list = append(list, u)
		}
	}
	slices.SortFunc(list, func(a, b *User) int { return int(a.ID - b.ID) })
	if c.r.PathValue("user") == "" {
		return http.StatusOK, page(c, list, show)
	}
	for _, u := range list {
		if u.ID == c.number("user") {
			return http.StatusOK, show(u)
		}
	}
	return http.StatusNotFound, message("404 Not found")
}

func (c *call) ofMerges() (int, any) {
	switch c.r.Method + " " + c.r.PathValue("iid") {
	case "GET ":
		var list []*merge
		for _, m := range c.project.merges {
			state, source, target := c.query.Get("state"), c.query.Get("source_branch"), c.query.Get("target_branch")
			if (state == "" || state == "all" || state == m.state) && (source == "" || source == m.branch) &&
				(target == "" || target == m.base) {
				list = append(list, m)
			}
		}
		if c.query.Get("sort") != "asc" {
			slices.Reverse(list)
		}
		return http.StatusOK, page(c, list, c.shownMerge)
	case "POST ":
		if c.level < 30 {
			return http.StatusForbidden, message("403 Forbidden")
		}
		m, why := c.propose(c.project, c.me, c.project, c.text("source_branch"), c.text("target_branch"),
			c.text("title"), c.text("description"))
		if why != "" {
			return http.StatusConflict, message([]string{why})
		}
		return http.StatusCreated, c.shownMerge(m)
	}
	if c.r.Method == http.MethodPut {
		if sha := c.text("sha"); sha != "" && sha != c.merge.head {
			return http.StatusConflict, message("SHA does not match HEAD of source branch: " + c.merge.head)
		}
		if c.project.blocked(c.merge) != "" {
			return http.StatusMethodNotAllowed, message("405 Method Not Allowed")
		}
		c.Server.merge(c.project, c.merge)
	}
	o := c.shownMerge(c.merge)
	o["head_pipeline"] = nil
	if p := c.project.headPipeline(c.merge); p != nil {
		o["head_pipeline"] = c.shownPipeline(p)
	}
	return http.StatusOK, o
}

func (c *call) shownMerge(m *merge) object {
	o := object{"id": m.id, "iid": m.iid, "project_id": m.to.ID, "title": m.title, "description": m.body,
		"state": m.state, "source_branch": m.branch, "target_branch": m.base, "sha": m.head,
		"author":            c.basic(m.author),
		"source_project_id": nil, "target_project_id": m.to.ID, "created_at": stamp(m.created),
		"updated_at": stamp(m.updated), "draft": isDraft(m.title), "merged_at": nil, "labels": []string{},
		"web_url": fmt.Sprintf("%s/%s/-/merge_requests/%d", c.URL, m.to.path, m.iid), "merge_commit_sha": nil}
	if m.from != nil {
		o["source_project_id"] = m.from.ID
	}
	if m.state == "merged" {
		o["merged_at"] = stamp(m.updated)
	}
	return o
}

func isDraft(title string) bool {
	title = strings.ToLower(title)
	return strings.HasPrefix(title, "draft:") || strings.HasPrefix(title, "[draft]") ||
		strings.HasPrefix(title, "(draft)")
}

func (s *Server) propose(p *Project, by *User, from *Project, branch, base, title, body string) (m *merge, why string) {
	s.refresh(p)
	head := resolve(from.Dir, branch)
	if head == "" {
		return nil, "Source branch \"" + branch + "\" does not exist"
	}
	for _, m := range p.merges {
		if m.state == "opened" && m.from == from && m.branch == branch && m.base == base {
			return nil, fmt.Sprintf("Another open merge request already exists for this source branch: !%d", m.iid)
		}
	}
	at := s.tick()
	m = &merge{id: s.id(), iid: len(p.merges) + 1, title: title, author: by, from: from, to: p, branch: branch,
		base: base, state: "opened", created: at, updated: at}
	p.merges = append(p.merges, m)
	m.body = s.actions(m, body)
	s.refresh(p)
	return m, ""
}

func (s *Server) merge(p *Project, m *merge) {
	main := s.run(p.Dir, "rev-parse", "refs/heads/main")
	tree := s.run(p.Dir, "merge-tree", "--write-tree", main, m.head)
	commit := s.run(p.Dir, "-c", "user.name=GitLab", "-c", "user.email=gitlab@example.com", "commit-tree", tree, "-p",
		main, "-p", m.head, "-m", fmt.Sprintf("Merge branch '%s' into 'main'\n\nSee merge request %s!%d", m.branch,
			p.path, m.iid))
	s.run(p.Dir, "update-ref", "refs/heads/main", commit, main)
	m.state, m.updated = "merged", s.tick()
}

// quick is a line that GitLab takes for a command to itself.
var quick = regexp.MustCompile(`(?m)^[ \t]*/(close|approve)[ \t]*$\n?`)

// actions carries the commands in a text out, and returns the text that stays.
func (s *Server) actions(m *merge, text string) string {
	for _, found := range quick.FindAllStringSubmatch(text, -1) {
		switch found[1] {
		case "close":
			m.state = "closed"
		case "approve":
			m.approved = true
		}
	}
	text = quick.ReplaceAllString(strings.ReplaceAll(text, "\r", ""), "")
	return strings.TrimRight(text, " \t\n")
}

func (s *Server) say(p *Project, by *User, iid int, body string) *note {
	at := s.tick()
	m := p.merge(iid)
	n := &note{id: s.id(), iid: iid, author: by, body: s.actions(m, body), created: at, updated: at}
	p.notes = append(p.notes, n)
	m.updated = at
	return n
}

func (p *Project) note(id int64) *note {
	for _, n := range p.notes {
		if n.id == id {
			return n
		}
	}
	return nil
}

func (c *call) ofNotes() (int, any) {
	p := c.project
	if c.r.PathValue("note") == "" {
		if c.r.Method == http.MethodPost {
			if utf8.RuneCountInString(c.text("body")) > 1_000_000 {
				return http.StatusBadRequest, message(object{"note": []string{"is too long"}})
			}
			return http.StatusCreated, c.shownNote(c.say(p, c.me, c.merge.iid, c.text("body")))
		}
		var list []*note
		for _, n := range p.notes {
			if n.iid == c.merge.iid {
				list = append(list, n)
			}
		}
		if c.query.Get("sort") != "asc" {
			slices.Reverse(list)
		}
		return http.StatusOK, page(c, list, c.shownNote)
	}
	n := p.note(c.number("note"))
	if n == nil || n.iid != c.merge.iid {
		return http.StatusNotFound, message("404 Not found")
	}
	if strings.HasSuffix(c.route.pattern, "/award_emoji") {
		if c.r.Method == http.MethodPost {
			return http.StatusCreated, c.shownAward(n, c.award(n, c.me, c.text("name")))
		}
		return http.StatusOK, page(c, n.awards, func(a *award) object { return c.shownAward(n, a) })
	}
	if c.r.Method == http.MethodPut {
		if n.author != c.me && c.level < 40 {
			return http.StatusForbidden, message("403 Forbidden")
		}
		n.body, n.updated, n.editor = c.actions(c.merge, c.text("body")), c.tick(), c.me
	}
	return http.StatusOK, c.shownNote(n)
}

func (c *call) shownAward(n *note, a *award) object {
	return object{"id": a.id, "name": a.name, "user": c.basic(a.user), "created_at": stamp(a.at),
		"updated_at": stamp(a.at), "awardable_id": n.id, "awardable_type": "Note"}
}

func (c *call) shownNote(n *note) object {
	return object{"id": n.id, "type": nil, "body": n.body, "author": c.basic(n.author), "created_at": stamp(n.created),
		"updated_at": stamp(n.updated), "system": false, "noteable_id": c.merge.id, "noteable_type": "MergeRequest",
		"noteable_iid": c.merge.iid, "project_id": c.project.ID, "resolvable": false, "confidential": false,
		"internal": false}
}
