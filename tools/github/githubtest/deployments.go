package githubtest

// This file has deployments.

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

type deployment struct {
	id                                  int64
	creator                             *User
	sha, environment, description, task string
	payload                             json.RawMessage
	statuses                            []*deploymentStatus // the oldest first
}

type deploymentStatus struct {
	id                      int64
	state, description, log string
}

// deployments answers requests about deployments.
func (c *call) deployments(writes bool) (int, any) {
	query := c.r.URL.Query()
	if c.pattern == "GET /repos/{owner}/{repo}/deployments" {
		list := slices.Clone(c.repo.deployments)
		slices.Reverse(list)
		list = slices.DeleteFunc(list, func(d *deployment) bool {
			return query.Get("environment") != "" && d.environment != query.Get("environment") ||
				query.Get("sha") != "" && d.sha != query.Get("sha")
		})
		return http.StatusOK, page(c, list, c.deployment)
	}
	if !writes && c.r.Method != http.MethodGet {
		return http.StatusForbidden, message("Resource not accessible by personal access token")
	}
	if c.pattern == "POST /repos/{owner}/{repo}/deployments" {
		return c.deploy()
	}
	i := slices.IndexFunc(c.repo.deployments, func(d *deployment) bool {
		return d.id == int64(c.number("deployment_id"))
	})
	if i < 0 {
		return http.StatusNotFound, message("Not Found")
	}
	d := c.repo.deployments[i]
	if c.r.Method == http.MethodGet {
		list := slices.Clone(d.statuses)
		slices.Reverse(list)
		return http.StatusOK, page(c, list, func(st *deploymentStatus) any { return c.deploymentStatus(d, st) })
	}
	var in struct {
		State, Description string
		Log                string `json:"log_url"`
		AutoInactive       bool   `json:"auto_inactive"`
	}
	_ = json.Unmarshal(c.body, &in)
	if utf8.RuneCountInString(in.Description) > 140 {
		return invalid("DeploymentStatus", "description", "description is too long (maximum is 140 characters)")
	}
	st := &deploymentStatus{c.id(), in.State, in.Description, in.Log}
	d.statuses = append(d.statuses, st)
	if in.State == "success" && in.AutoInactive {
		for _, other := range c.repo.deployments {
			if n := len(other.statuses); other != d && other.environment == d.environment && n > 0 &&
				other.statuses[n-1].state != "inactive" {
				other.statuses = append(other.statuses, &deploymentStatus{c.id(), "inactive", "", ""})
			}
		}
	}
	return http.StatusCreated, c.deploymentStatus(d, st)
}

func (c *call) deploy() (int, any) {
	in := struct {
		Ref, Environment, Description, Task string
		AutoMerge                           bool      `json:"auto_merge"`
		Contexts                            *[]string `json:"required_contexts"`
		Payload                             json.RawMessage
	}{Environment: "production", Task: "deploy", AutoMerge: true}
	_ = json.Unmarshal(c.body, &in)
	switch {
	case !c.has(in.Ref):
		return http.StatusUnprocessableEntity, message("No ref found for: " + in.Ref)
	case in.AutoMerge && !c.contains(in.Ref):
		return http.StatusAccepted, object{"message": "Auto-merged main into " + in.Ref + " on deployment."}
	case in.Contexts == nil:
		for _, st := range c.repo.statuses[in.Ref] {
			if c.repo.newest(in.Ref, st.context).state != "success" {
				return http.StatusConflict, message("Conflict: Commit status checks failed for " + in.Ref + ".")
			}
		}
	}
	d := &deployment{id: c.id(), creator: c.me, sha: in.Ref, environment: in.Environment, description: in.Description,
		task: in.Task, payload: in.Payload}
	c.repo.deployments = append(c.repo.deployments, d)
	return http.StatusCreated, c.deployment(d)
}

// contains reports whether a commit has all of main.
func (c *call) contains(commit string) bool {
	main := resolve(c.repo.Dir, "main")
	return main != "" && strings.HasPrefix(c.git(c.repo.Dir, "merge-base", main, commit), main)
}

func (c *call) deployment(d *deployment) any {
	o := c.example("deployment-items")
	var payload any = object{}
	_ = json.Unmarshal(d.payload, &payload)
	maps.Copy(o, object{"id": d.id, "sha": d.sha, "ref": d.sha, "environment": d.environment,
		"description": d.description, "task": d.task, "payload": payload,
		"creator": over(o["creator"], c.account(d.creator))})
	return o
}

func (c *call) deploymentStatus(d *deployment, st *deploymentStatus) any {
	o := c.example("deployment-status-items")
	maps.Copy(o, object{"id": st.id, "state": st.state, "description": st.description, "log_url": st.log,
		"environment": d.environment, "target_url": st.log})
	return o
}

// A Deployment is a deployment with the states and descriptions of its statuses, the oldest first.
type Deployment struct {
	Environment, Commit, Description string
	Statuses                         []string
	Link                             string // of the newest status
}

// Deployments returns the deployments, the oldest first.
func (s *Server) Deployments(r *Repo) (list []Deployment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range r.deployments {
		shown := Deployment{Environment: d.environment, Commit: d.sha, Description: d.description}
		for _, st := range d.statuses {
			shown.Statuses, shown.Link = append(shown.Statuses, st.state+" "+st.description), st.log
		}
		list = append(list, shown)
	}
	return list
}
