package gitlabtest

// This file has pipelines and commit statuses.

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

// headPipeline is the pipeline that a merge request waits for: its own newest one, else that of its branch.
func (p *Project) headPipeline(m *merge) (found *pipeline) {
	if m.from != p { // that of a fork's branch is in the fork
		return nil
	}
	own := fmt.Sprintf("refs/merge-requests/%d/head", m.iid)
	for _, ref := range []string{m.branch, own} {
		for _, q := range p.pipelines {
			if q.sha == m.head && q.ref == ref {
				found = q
			}
		}
	}
	return found
}

// blocked says why a merge request cannot be merged; "" if it can.
func (p *Project) blocked(m *merge) string {
	if m.state != "opened" {
		return "not open"
	}
	if isDraft(m.title) {
		return "draft_status"
	}
	q := p.headPipeline(m)
	if p.mustSucceed && (q == nil || p.state(q) != "success") {
		return "ci_must_pass"
	}
	return ""
}

// state is a pipeline's state: that of the newest job of each name.
func (p *Project) state(q *pipeline) string {
	newest := map[string]string{}
	for _, st := range p.statuses {
		if st.pipeline == q {
			newest[st.name] = st.state
		}
	}
	state := "success"
	for _, one := range newest {
		switch {
		case one == "running" || one == "pending":
			return "running"
		case one != "success":
			state = one
		}
	}
	return state
}

func (c *call) shownPipeline(p *pipeline) object {
	return object{"id": p.id, "iid": p.id, "project_id": c.project.ID, "sha": p.sha, "ref": p.ref, "source": p.source,
		"status": c.project.state(p), "created_at": stamp(p.at), "updated_at": stamp(p.at),
		"web_url": fmt.Sprintf("%s/%s/-/pipelines/%d", c.URL, c.project.path, p.id)}
}

func (c *call) ofStatuses() (int, any) {
	p := c.project
	if strings.HasSuffix(c.route.pattern, "/pipelines") {
		var list []*pipeline
		for _, q := range slices.Backward(p.pipelines) {
			if sha, ref := c.query.Get("sha"), c.query.Get("ref"); (sha == "" || sha == q.sha) &&
				(ref == "" || ref == q.ref) {
				list = append(list, q)
			}
		}
		return http.StatusOK, page(c, list, c.shownPipeline)
	}
	sha := c.r.PathValue("sha")
	if !has(p.Dir, sha) {
		return http.StatusNotFound, message("404 Commit Not Found")
	}
	if c.r.Method == http.MethodPost {
		return c.setStatus(sha)
	}
	var list []*status
	for i, st := range p.statuses {
		newer := slices.ContainsFunc(p.statuses[i+1:], func(s *status) bool {
			return s.pipeline == st.pipeline && s.name == st.name
		})
		if st.pipeline.sha == sha && (!newer || c.query.Get("all") == "true") {
			list = append(list, st)
		}
	}
	return http.StatusOK, page(c, list, c.shownStatus)
}

func (c *call) shownStatus(st *status) object {
	return object{"id": st.id, "sha": st.pipeline.sha, "ref": st.pipeline.ref, "status": st.state, "name": st.name,
		"description": st.description, "target_url": st.target, "created_at": stamp(st.at), "started_at": nil,
		"finished_at": nil, "allow_failure": false, "coverage": nil, "pipeline_id": st.pipeline.id,
		"author": object{"id": st.author.ID, "username": st.author.Name, "name": st.author.Name, "state": "active"}}
}

// setStatus changes a pending or running status of the same user and name, or makes a new one, as GitLab does.
func (c *call) setStatus(sha string) (int, any) {
	p, name, ref := c.project, c.text("name"), c.text("ref")
	if name == "" {
		name = c.text("context")
	}
	if name == "" {
		name = "default"
	}
	if ref == "" {
		for line := range strings.Lines(c.run(p.Dir, "for-each-ref", "--contains", sha, "--format=%(refname:lstrip=2)",
			"refs/heads/")) {
			ref = strings.TrimSpace(line)
			break
		}
	}
	if ref == "" {
		return http.StatusNotFound, message("404 References for commit Not Found")
	}
	var pipe *pipeline
	id, named := c.body["pipeline_id"].(float64)
	for _, q := range p.pipelines {
		if q.sha == sha && q.ref == ref && (!named || q.id == int64(id)) {
			pipe = q
		}
	}
	if pipe == nil && named {
		return http.StatusNotFound, message("404 Pipeline for pipeline_id, sha and ref Not Found")
	}
	description := c.text("description")
	if utf8.RuneCountInString(description) > 255 {
		return http.StatusBadRequest, message(object{"description": []string{
			"is too long (maximum is 255 characters)"}})
	}
	if pipe == nil {
		pipe = &pipeline{id: c.id(), sha: sha, ref: ref, source: "external", at: c.tick()}
		p.pipelines = append(p.pipelines, pipe)
	}
	var old *status
	for _, st := range p.statuses {
		if st.pipeline == pipe && st.name == name && st.author == c.me && (st.state == "pending" ||
			st.state == "running") {
			old = st
		}
	}
	for _, st := range p.statuses {
		if st.pipeline == pipe && st.name == name && st.job {
			return http.StatusBadRequest, message(object{"name": []string{"has already been taken"}})
		}
	}
	was := "created"
	if old == nil {
		old = &status{id: c.id(), pipeline: pipe, author: c.me, name: name, at: c.tick()}
		p.statuses = append(p.statuses, old)
	} else {
		was = old.state
	}
	switch state := c.text("state"); {
	case state == "pending" && was != "created":
		return http.StatusBadRequest, message(`Cannot transition status via :enqueue from :` + was +
			` (Reason(s): Status cannot transition via "enqueue")`)
	case state == "running" && was == "running":
		return http.StatusBadRequest, message(`Cannot transition status via :run from :running (Reason(s): Status ` +
			`cannot transition via "run")`)
	default:
		old.state, old.description, old.target = state, description, c.text("target_url")
	}
	return http.StatusCreated, c.shownStatus(old)
}
