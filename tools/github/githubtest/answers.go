package githubtest

// This file answers the requests.

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A call is one request.
type call struct {
	*Server
	r       *http.Request
	body    []byte
	pattern string // as GET /repos/{owner}/{repo}
	params  map[string]string
	next    int // the next page; 0 for none
	// beyond: the description does not allow the answer, although GitHub gives it
	beyond bool

	me   *User
	app  *App // whose installation's token the request has; nil for a user's
	repo *Repo
	may  string
}

type object = map[string]any

func message(text string) object {
	return object{"message": text, "documentation_url": "https://docs.github.com/rest"}
}

// invalid is the answer of a request that is well-formed and refused.
func invalid(resource, field, text string) (int, any) {
	o := message("Validation Failed")
	o["errors"] = []any{object{"resource": resource, "field": field, "code": "custom", "message": text}}
	return http.StatusUnprocessableEntity, o
}

// answer returns the status and the body.
func (c *call) answer() (int, any) {
	if status, body, known := c.ofApp(); known {
		return status, body
	}
	var only appToken
	if c.me, c.app, only = c.bearer(c.r); c.me == nil {
		return http.StatusUnauthorized, message("Bad credentials")
	}
	if c.app != nil && !c.app.permitted(c.pattern) {
		return http.StatusForbidden, message("Resource not accessible by integration")
	}
	if c.params["repo"] != "" {
		c.repo = c.repos[c.params["owner"]+"/"+c.params["repo"]]
		if c.repo != nil {
			c.may = c.permission(c.repo, c.me.Login)
		}
		if c.repo == nil || c.may == "none" || len(only.repos) > 0 && !slices.Contains(only.repos, c.repo.id) {
			return http.StatusNotFound, message("Not Found")
		}
		c.refresh(c.repo)
	}
	writes := c.may == "write" || c.may == "admin"
	switch c.pattern {
	case "GET /user":
		return http.StatusOK, c.fill("private-user-response-with-public-profile-information",
			over(c.account(c.me), object{"user_view_type": "public"}))
	case "GET /users/{username}":
		if u := c.users[c.params["username"]]; u != nil {
			return http.StatusOK, over(c.fill("public-user-default-response", c.account(u)),
				object{"user_view_type": "public"})
		}
		return http.StatusNotFound, message("Not Found")
	case "GET /repos/{owner}/{repo}":
		return http.StatusOK, c.repository()
	case "GET /repos/{owner}/{repo}/pulls":
		return c.listPulls()
	case "POST /repos/{owner}/{repo}/pulls":
		return c.openPull(writes)
	case "GET /repos/{owner}/{repo}/pulls/{pull_number}":
		if p := c.repo.pull(c.number("pull_number")); p != nil {
			return http.StatusOK, c.pull("pull-request", p)
		}
		return http.StatusNotFound, message("Not Found")
	case "GET /repos/{owner}/{repo}/commits/{ref}/statuses":
		list := slices.Clone(c.repo.statuses[c.params["ref"]])
		slices.Reverse(list)
		return http.StatusOK, page(c, list, c.status)
	case "POST /repos/{owner}/{repo}/check-runs", "PATCH /repos/{owner}/{repo}/check-runs/{check_run_id}",
		"GET /repos/{owner}/{repo}/commits/{ref}/check-runs":
		return c.checkRuns()
	case "GET /repos/{owner}/{repo}/deployments", "POST /repos/{owner}/{repo}/deployments",
		"GET /repos/{owner}/{repo}/deployments/{deployment_id}/statuses",
		"POST /repos/{owner}/{repo}/deployments/{deployment_id}/statuses":
		return c.deployments(writes)
	case "POST /repos/{owner}/{repo}/statuses/{sha}":
		return c.setStatus(writes)
	case "GET /repos/{owner}/{repo}/issues/{issue_number}/comments",
		"POST /repos/{owner}/{repo}/issues/{issue_number}/comments":
		return c.issueComments()
	case "GET /repos/{owner}/{repo}/issues/comments/{comment_id}",
		"PATCH /repos/{owner}/{repo}/issues/comments/{comment_id}",
		"GET /repos/{owner}/{repo}/issues/comments/{comment_id}/reactions":
		return c.oneComment(writes)
	case "GET /repos/{owner}/{repo}/collaborators/{username}/permission":
		return c.collaborator(writes)
	case "GET /repos/{owner}/{repo}/teams":
		if c.users[c.repo.Owner] != nil {
			return http.StatusNotFound, message("Not Found")
		}
		return http.StatusOK, page(c, c.of(c.repo), c.team)
	case "GET /orgs/{org}/teams/{team_slug}/members", "GET /orgs/{org}/teams/{team_slug}/memberships/{username}":
		return c.members()
	case "GET /repos/{owner}/{repo}/branches/{branch}":
		return c.branch()
	case "GET /repos/{owner}/{repo}/rules/branches/{branch}":
		return c.rules()
	case "GET /repos/{owner}/{repo}/hooks":
		if c.may != "admin" {
			return http.StatusNotFound, message("Not Found")
		}
		return http.StatusOK, page(c, c.repo.hooks, func(h hook) any {
			o := c.example("hook-items")
			o["active"], o["config"] = h.active, over(o["config"], object{"url": h.url})
			return o
		})
	}
	c.t.Errorf("%s is in the description, and the test server does not answer it", c.pattern)
	return http.StatusInternalServerError, message("not written")
}

// permission returns admin, write, read or none.
func (s *Server) permission(r *Repo, login string) string {
	best := "none"
	rank := []string{"none", "read", "write", "admin"}
	add := func(p string) {
		p = map[string]string{"pull": "read", "triage": "read", "push": "write", "maintain": "write"}[p] + ""
		if slices.Index(rank, p) > slices.Index(rank, best) {
			best = p
		}
	}
	if p := r.may[login]; p != "" {
		best = p
	}
	for _, t := range s.of(r) {
		if slices.ContainsFunc(t.members, func(u *User) bool { return u.Login == login }) {
			add(t.permission)
		}
	}
	return best
}

func (s *Server) of(r *Repo) (list []*team) {
	for _, t := range s.teams {
		if t.repo == r {
			list = append(list, t)
		}
	}
	return list
}

// example returns a copy of an example of the description; of a list its first entry.
func (s *Server) example(name string) object {
	text, err := json.Marshal(s.doc.Components.Examples[name].Value.Value)
	if err != nil {
		s.t.Error(err)
	}
	var one object
	if json.Unmarshal(text, &one) != nil {
		var list []object
		if err := json.Unmarshal(text, &list); err != nil || len(list) == 0 {
			s.t.Errorf("example %s: %v", name, err)
		}
		one = list[0]
	}
	return one
}

// fill returns an example with other values.
func (s *Server) fill(name string, values object) object {
	o := s.example(name)
	maps.Copy(o, values)
	return o
}

// over returns a nested object with other values.
func over(o any, values object) object {
	nested, _ := o.(object)
	nested = maps.Clone(nested)
	if nested == nil {
		nested = object{}
	}
	maps.Copy(nested, values)
	return nested
}

func (s *Server) account(u *User) object { return object{"login": u.Login, "id": u.ID} }

func (c *call) number(name string) int {
	n, _ := strconv.Atoi(c.params[name])
	return n
}

func stamp(t time.Time) string { return t.Format(time.RFC3339) }

// page returns one page of a list.
func page[T any](c *call, list []T, show func(T) any) []any {
	query := c.r.URL.Query()
	size, _ := strconv.Atoi(query.Get("per_page"))
	number, _ := strconv.Atoi(query.Get("page"))
	if size == 0 {
		size = 30
	}
	size, number = min(size, 100), max(number, 1)
	from, to := min((number-1)*size, len(list)), min(number*size, len(list))
	if to < len(list) {
		c.next = number + 1
	}
	out := []any{}
	for _, v := range list[from:to] {
		out = append(out, show(v))
	}
	return out
}

func (c *call) repository() object {
	write := c.may == "write" || c.may == "admin"
	o := c.fill("full-repository-default-response", object{"id": c.repo.id, "name": c.repo.Name,
		"full_name": c.repo.Owner + "/" + c.repo.Name, "private": true, "archived": c.repo.archived, "language": nil,
		"permissions": object{"admin": c.may == "admin", "push": write, "pull": true}, "default_branch": "main"})
	o["owner"] = over(o["owner"], object{"login": c.repo.Owner})
	for _, name := range []string{"source", "parent", "template_repository", "organization"} {
		delete(o, name) // the example's lack what the schema requires
	}
	return o
}

func (c *call) listPulls() (int, any) {
	query := c.r.URL.Query()
	var list []*pull
	for _, p := range c.repo.pulls {
		head := ""
		if p.from != nil {
			head = p.from.Owner + ":" + p.branch
		}
		if p.open && (query.Get("head") == "" || query.Get("head") == head) {
			list = append(list, p)
		}
	}
	if query.Get("direction") != "asc" {
		slices.Reverse(list)
	}
	return http.StatusOK, page(c, list, func(p *pull) any { return c.pull("pull-request-simple-items", p) })
}

// pull shows a pull request. Its head has no repository once the fork was deleted.
func (c *call) pull(example string, p *pull) object {
	o := c.example(example)
	state := "open"
	if !p.open {
		state = "closed"
	}
	head, base := o["head"].(object), o["base"].(object)
	of := func(side object, r *Repo, ref, sha string) object {
		side = over(side, object{"ref": ref, "sha": sha, "label": r.Owner + ":" + ref})
		side["repo"] = over(side["repo"], object{"id": r.id, "name": r.Name, "full_name": r.Owner + "/" + r.Name})
		side["user"] = over(side["user"], object{"login": r.Owner})
		return side
	}
	base = of(base, c.repo, p.base, resolve(c.repo.Dir, p.base))
	if p.from != nil {
		head = of(head, p.from, p.branch, p.head)
	} else {
		head = over(head, object{"ref": p.branch, "sha": p.head, "label": "unknown repository", "repo": nil})
		c.beyond = true // the description says that a head has a repository; of a deleted fork it has none
	}
	values := object{"number": p.number, "state": state, "title": p.title, "body": p.body, "draft": p.draft,
		"created_at": stamp(p.created), "updated_at": stamp(p.updated), "head": head, "base": base,
		"user": over(o["user"], c.account(p.author)), "merged_at": nil, "closed_at": nil,
		"requested_teams": []any{}} // the example's team lacks what the schema requires
	if !p.open {
		values["closed_at"] = stamp(p.updated)
	}
	if p.merged {
		values["merged_at"] = stamp(p.updated)
	}
	if _, whole := o["merged"]; whole {
		values["merged"] = p.merged
	}
	maps.Copy(o, values)
	return o
}

func (c *call) openPull(writes bool) (int, any) {
	var in struct{ Title, Head, Base, Body string }
	_ = json.Unmarshal(c.body, &in)
	if !writes {
		return http.StatusForbidden, message("Resource not accessible by personal access token")
	}
	p, why := c.propose(c.repo, c.me, c.repo, in.Head, in.Base, in.Title, in.Body)
	if why != "" {
		return invalid("PullRequest", "head", why)
	}
	return http.StatusCreated, c.pull("pull-request", p)
}

func (c *call) status(st *status) any {
	o := c.example("status-items")
	var target any
	if st.target != "" {
		target = st.target
	}
	maps.Copy(o, object{"id": st.id, "state": st.state, "context": st.context, "description": st.description,
		"target_url": target, "created_at": stamp(st.at), "updated_at": stamp(st.at),
		"creator": over(o["creator"], c.account(st.creator))})
	return o
}

func (c *call) setStatus(writes bool) (int, any) {
	var in struct {
		State, Context, Description string
		Target                      string `json:"target_url"`
	}
	_ = json.Unmarshal(c.body, &in)
	sha := c.params["sha"]
	count := 0
	for _, st := range c.repo.statuses[sha] {
		if strings.EqualFold(st.context, in.Context) {
			count++
		}
	}
	switch {
	case !writes:
		return http.StatusForbidden, message("Resource not accessible by personal access token")
	case c.repo.archived:
		return http.StatusForbidden, message("Repository was archived so is read-only.")
	case !c.has(sha):
		return http.StatusUnprocessableEntity, message("No commit found for SHA: " + sha)
	case utf8.RuneCountInString(in.Description) > 140:
		return invalid("Status", "description", "description is too long (maximum is 140 characters)")
	case count >= 1000:
		return invalid("Status", "base", "This SHA and context has reached the maximum number of statuses.")
	}
	st := &status{id: c.id(), creator: c.me, context: in.Context, state: in.State, description: in.Description,
		target: in.Target, at: c.tick()}
	c.repo.statuses[sha] = append(c.repo.statuses[sha], st)
	return http.StatusCreated, c.status(st)
}

// has reports whether the repository has a commit. Commits of forks are there as refs of pull requests.
func (c *call) has(sha string) bool {
	return len(sha) == 40 && gitHas(c.repo.Dir, sha)
}

func (c *call) comment(m *comment) any {
	o := c.example("issue-comment")
	maps.Copy(o, object{"id": m.id, "node_id": m.node(), "body": m.body, "created_at": stamp(m.created),
		"updated_at": stamp(m.updated),
		"user":       over(o["user"], c.account(m.author))})
	return o
}

const maxComment = 65_536 // characters

func (c *call) text() (string, bool) {
	var in struct{ Body string }
	_ = json.Unmarshal(c.body, &in)
	return in.Body, in.Body != "" && utf8.RuneCountInString(in.Body) <= maxComment
}

func (c *call) issueComments() (int, any) {
	number := c.number("issue_number")
	if c.repo.pull(number) == nil {
		return http.StatusNotFound, message("Not Found")
	}
	if c.r.Method == http.MethodPost {
		body, ok := c.text()
		if !ok {
			return invalid("IssueComment", "body", "body is too long (maximum is 65536 characters)")
		}
		return http.StatusCreated, c.comment(c.say(c.repo, c.me, number, body))
	}
	var list []*comment
	for _, m := range c.repo.comments {
		if m.pull == number {
			list = append(list, m)
		}
	}
	return http.StatusOK, page(c, list, c.comment)
}

func (c *call) oneComment(writes bool) (int, any) {
	m := c.repo.comment(int64(c.number("comment_id")))
	switch {
	case m == nil:
		return http.StatusNotFound, message("Not Found")
	case strings.HasSuffix(c.pattern, "/reactions"):
		return http.StatusOK, page(c, m.reactions, func(r reaction) any {
			o := c.example("reaction-items")
			maps.Copy(o, object{"id": r.id, "content": r.content, "created_at": stamp(r.at),
				"user": over(o["user"], c.account(r.user))})
			return o
		})
	case c.r.Method == http.MethodPatch:
		body, ok := c.text()
		if !ok {
			return invalid("IssueComment", "body", "body is too long (maximum is 65536 characters)")
		}
		if !writes && m.author != c.me {
			return http.StatusForbidden, message("Resource not accessible by personal access token")
		}
		m.body, m.updated, m.edited = body, c.tick(), true
	}
	return http.StatusOK, c.comment(m)
}

func (c *call) collaborator(writes bool) (int, any) {
	user := c.users[c.params["username"]]
	if user == nil || strings.HasSuffix(user.Login, "[bot]") {
		return http.StatusNotFound, message("Not Found")
	}
	if !writes {
		return http.StatusForbidden, message("Must have push access to view collaborator permission.")
	}
	may := c.permission(c.repo, user.Login)
	o := c.fill("repository-collaborator-permission-response-if-user-has-admin-permissions", object{"permission": may,
		"role_name": may})
	o["user"] = over(over(o["user"], c.account(user)), object{"role_name": may})
	return http.StatusOK, o
}

func (c *call) team(t *team) any {
	return c.fill("team-items", object{"id": t.id, "name": t.slug, "slug": t.slug, "permission": t.permission,
		"type": "organization"})
}

func (c *call) members() (int, any) {
	i := slices.IndexFunc(c.teams, func(t *team) bool {
		return t.org == c.params["org"] && t.slug == c.params["team_slug"]
	})
	if i < 0 {
		return http.StatusNotFound, message("Not Found")
	}
	t := c.teams[i]
	if strings.HasSuffix(c.pattern, "/members") {
		return http.StatusOK, page(c, t.members, func(u *User) any { return c.fill("team-member-items", c.account(u)) })
	}
	if !slices.ContainsFunc(t.members, func(u *User) bool { return u.Login == c.params["username"] }) {
		return http.StatusNotFound, message("Not Found")
	}
	return http.StatusOK, c.fill("team-membership-response-if-user-is-a-team-maintainer", object{"state": "active",
		"role": "member"})
}

func (c *call) branch() (int, any) {
	head := resolve(c.repo.Dir, c.params["branch"])
	if head == "" {
		return http.StatusNotFound, message("Branch not found")
	}
	o := c.fill("branch-get", object{"name": c.params["branch"], "protected": false})
	o["commit"] = over(o["commit"], object{"sha": head})
	o["protection"] = object{"enabled": false, "required_status_checks": object{"enforcement_level": "off",
		"contexts": []any{}, "checks": []any{}}}
	return http.StatusOK, o
}

func (c *call) rules() (int, any) {
	checks := []any{}
	for _, context := range c.repo.required {
		check := object{"context": context}
		if c.repo.source != 0 {
			check["integration_id"] = c.repo.source
		}
		checks = append(checks, check)
	}
	if len(checks) == 0 || c.params["branch"] != "main" {
		return http.StatusOK, []any{}
	}
	return http.StatusOK, []any{object{"type": "required_status_checks", "ruleset_source_type": "Repository",
		"ruleset_source": c.repo.Owner + "/" + c.repo.Name, "ruleset_id": 42, "parameters": object{
			"required_status_checks": checks, "strict_required_status_checks_policy": false}}}
}
