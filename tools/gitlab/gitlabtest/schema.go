package gitlabtest

// This file has the requests that the server knows, with the parameters that GitLab documents for them. A request with
// another one fails the test: GitLab would ignore it.

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	gitlab "gitlab.com/gitlab-org/api/client-go/v2"
)

// fields are parameters by name: string, integer, boolean, time, or values with | between them. One with ! is required.
type fields map[string]string

// A route is a kind of request.
type route struct {
	pattern string
	page    string // of https://docs.gitlab.com/api/
	query   fields
	body    fields
	level   int // the least role; 0 for whoever may read the project
	shape   any // of the answer
}

// listed are the parameters of each list.
func listed(more fields) fields {
	all := fields{"page": "integer", "per_page": "integer"}
	for name, kind := range more {
		all[name] = kind
	}
	return all
}

const (
	project = "/projects/{id}"
	mr      = project + "/merge_requests/{iid}"
)

var routes = []route{
	{"GET /user", "users", fields{}, nil, 0, gitlab.User{}},
	{"GET /users", "users", listed(fields{"username": "string"}), nil, 0, []*gitlab.User{}},
	{"GET /users/{user}", "users", fields{}, nil, 0, gitlab.User{}},
	{"GET /personal_access_tokens/self", "personal_access_tokens", fields{}, nil, 0, gitlab.PersonalAccessToken{}},
	{"GET " + project, "projects", fields{"license": "boolean", "statistics": "boolean"}, nil, 0, gitlab.Project{}},
	{"PUT " + project, "projects", fields{}, fields{"only_allow_merge_if_pipeline_succeeds": "boolean",
		"allow_merge_on_skipped_pipeline": "boolean"}, 40, gitlab.Project{}},
	{"GET " + project + "/repository/branches/{branch}", "branches", fields{}, nil, 0, gitlab.Branch{}},
	{"GET " + project + "/hooks", "project_webhooks", listed(nil), nil, 40, []*gitlab.ProjectHook{}},
	{"GET " + project + "/members/all/{user}", "project_members", fields{}, nil, 0, gitlab.ProjectMember{}},
	{"GET " + project + "/members/all", "project_members", listed(fields{"query": "string"}), nil, 0,
		[]*gitlab.ProjectMember{}},
	{"GET /groups/{id}/members", "group_members", listed(fields{"query": "string"}), nil, 0, []*gitlab.GroupMember{}},
	{"GET /groups/{id}/members/{user}", "group_members", fields{}, nil, 0, gitlab.GroupMember{}},
	{"GET " + project + "/merge_requests", "merge_requests", listed(fields{"state": "opened|closed|locked|merged|all",
		"order_by": "created_at|updated_at|title|merged_at", "sort": "asc|desc", "source_branch": "string",
		"target_branch": "string"}), nil, 0, []*gitlab.BasicMergeRequest{}},
	{"POST " + project + "/merge_requests", "merge_requests", fields{}, fields{"title": "string!",
		"source_branch": "string!", "target_branch": "string!", "description": "string", "target_project_id": "integer",
		"remove_source_branch": "boolean", "squash": "boolean"}, 20, gitlab.MergeRequest{}},
	{"GET " + mr, "merge_requests", fields{"include_diverged_commits_count": "boolean",
		"include_rebase_in_progress": "boolean", "render_html": "boolean"}, nil, 0, gitlab.MergeRequest{}},
	{"PUT " + mr + "/merge", "merge_requests", fields{}, fields{"sha": "string", "squash": "boolean"}, 30,
		gitlab.MergeRequest{}},
	{"GET " + project + "/pipelines", "pipelines", listed(fields{"sha": "string", "ref": "string",
		"order_by": "id|status|ref|updated_at|user_id", "sort": "asc|desc",
		"source": "push|external|merge_request_event"}), nil, 20, []*gitlab.PipelineInfo{}},
	{"GET " + project + "/repository/commits/{sha}/statuses", "commits", listed(fields{"all": "boolean",
		"name": "string", "ref": "string", "stage": "string", "pipeline_id": "integer", "sort": "asc|desc",
		"order_by": "id|pipeline_id"}), nil, 20, []*gitlab.CommitStatus{}},
	{"POST " + project + "/statuses/{sha}", "commits", fields{}, fields{
		"state": "pending|running|success|failed|canceled|skipped!", "name": "string", "context": "string",
		"ref": "string", "pipeline_id": "integer", "target_url": "string", "description": "string",
		"coverage": "integer"}, 30, gitlab.CommitStatus{}},
	{"GET " + project + "/deployments", "deployments", listed(fields{"environment": "string", "sort": "asc|desc",
		"order_by": "id|iid|created_at|updated_at|finished_at|ref",
		"status":   "created|running|success|failed|canceled|blocked"}), nil, 20, []*gitlab.Deployment{}},
	{"POST " + project + "/deployments", "deployments", fields{}, fields{"environment": "string!", "sha": "string!",
		"ref": "string!", "tag": "boolean!", "status": "running|success|failed|canceled!"}, 30, gitlab.Deployment{}},
	{"PUT " + project + "/deployments/{deployment}", "deployments", fields{}, fields{
		"status": "running|success|failed|canceled!"}, 30, gitlab.Deployment{}},
	{"GET " + mr + "/notes", "notes", listed(fields{"order_by": "created_at|updated_at", "sort": "asc|desc"}), nil, 0,
		[]*gitlab.Note{}},
	{"POST " + mr + "/notes", "notes", fields{}, fields{"body": "string!", "internal": "boolean"}, 0, gitlab.Note{}},
	{"GET " + mr + "/notes/{note}", "notes", fields{}, nil, 0, gitlab.Note{}},
	{"PUT " + mr + "/notes/{note}", "notes", fields{}, fields{"body": "string!"}, 0, gitlab.Note{}},
	{"GET " + mr + "/notes/{note}/award_emoji", "emoji_reactions", listed(nil), nil, 0, []*gitlab.AwardEmoji{}},
	{"POST " + mr + "/notes/{note}/award_emoji", "emoji_reactions", fields{}, fields{"name": "string!"}, 0,
		gitlab.AwardEmoji{}},
}

// check holds a request against its route, and takes the parameters.
func (c *call) check(body []byte) error {
	given := map[string]any{}
	for name, values := range c.r.URL.Query() {
		given[name] = values[0]
	}
	c.query = c.r.URL.Query()
	if err := checkFields(given, c.route.query); err != nil {
		return fmt.Errorf("query: %w", err)
	}
	if len(body) == 0 && len(c.route.body) == 0 {
		return nil
	}
	if c.route.body == nil {
		return fmt.Errorf("a body")
	}
	given = map[string]any{}
	if err := json.Unmarshal(body, &given); err != nil {
		return err
	}
	c.body = given
	return checkFields(given, c.route.body)
}

var whole = regexp.MustCompile(`^[0-9]+$`)

func checkFields(given map[string]any, known fields) error {
	for name, value := range given {
		kind, there := known[name]
		if !there {
			return fmt.Errorf("there is no parameter %s", name)
		}
		kind = strings.TrimSuffix(kind, "!")
		text, isText := value.(string)
		fits := isText
		switch kind {
		case "string":
		case "integer":
			number, is := value.(float64)
			fits = is && number == float64(int64(number)) || isText && whole.MatchString(text)
		case "boolean":
			_, is := value.(bool)
			fits = is || text == "true" || text == "false"
		case "time":
			_, err := time.Parse(time.RFC3339, text)
			fits = err == nil
		default:
			fits = slices.Contains(strings.Split(kind, "|"), text)
		}
		if !fits {
			return fmt.Errorf("%s: want %s, got %v", name, kind, value)
		}
	}
	for name, kind := range known {
		if text, there := given[name]; strings.HasSuffix(kind, "!") && (!there || text == "") {
			return fmt.Errorf("%s is missing", name)
		}
	}
	return nil
}

// text is a parameter of the body.
func (c *call) text(name string) string {
	text, _ := c.body[name].(string)
	return text
}

// number is a parameter of the path.
func (c *call) number(name string) int64 {
	n, _ := strconv.ParseInt(c.r.PathValue(name), 10, 64)
	return n
}

// page cuts a list to the page that is asked for, and sets its headers.
func page[T any](c *call, list []T, each func(T) object) []object {
	number, size := 1, 20
	if n, err := strconv.Atoi(c.query.Get("page")); err == nil && n > 0 {
		number = n
	}
	if n, err := strconv.Atoi(c.query.Get("per_page")); err == nil && n > 0 {
		size = min(n, 100)
	}
	first := min((number-1)*size, len(list))
	last := min(first+size, len(list))
	all := max((len(list)+size-1)/size, 1)
	next := ""
	if last < len(list) {
		next = strconv.Itoa(number + 1)
		to := *c.r.URL
		query := url.Values(c.query)
		query.Set("page", next)
		to.RawQuery = query.Encode()
		c.header.Set("Link", fmt.Sprintf(`<%s%s>; rel="next"`, c.URL, to.RequestURI()))
	}
	for name, value := range map[string]string{"X-Page": strconv.Itoa(number), "X-Per-Page": strconv.Itoa(size),
		"X-Total": strconv.Itoa(len(list)), "X-Total-Pages": strconv.Itoa(all), "X-Next-Page": next} {
		c.header.Set(name, value)
	}
	out := []object{}
	for _, v := range list[first:last] {
		out = append(out, each(v))
	}
	return out
}
