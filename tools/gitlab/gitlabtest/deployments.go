package gitlabtest

// This file has deployments.

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

type deployment struct {
	id               int64
	environment, sha string
	ref              string
	user             *User
	states           []string // the newest last
	at               time.Time
}

func (c *call) ofDeployments() (int, any) {
	p := c.project
	switch c.r.Method {
	case http.MethodPost:
		if !has(p.Dir, c.text("sha")) {
			return http.StatusBadRequest, message(object{"sha": []string{"The commit does not exist"}})
		}
		d := &deployment{id: c.id(), environment: c.text("environment"), sha: c.text("sha"), ref: c.text("ref"),
			user: c.me, states: []string{c.text("status")}, at: c.tick()}
		p.deployments = append(p.deployments, d)
		return http.StatusCreated, c.shownDeployment(d)
	case http.MethodPut:
		i := slices.IndexFunc(p.deployments, func(d *deployment) bool { return d.id == c.number("deployment") })
		if i < 0 {
			return http.StatusNotFound, message("404 Not found")
		}
		d, state := p.deployments[i], c.text("status")
		if last := d.states[len(d.states)-1]; last == state || state == "running" {
			return http.StatusBadRequest, message(fmt.Sprintf("Cannot transition status from :%s to :%s", last, state))
		}
		d.states = append(d.states, state)
		return http.StatusOK, c.shownDeployment(d)
	}
	var list []*deployment
	for _, d := range p.deployments {
		if name := c.query.Get("environment"); name == "" || name == d.environment {
			list = append(list, d)
		}
	}
	if c.query.Get("sort") == "desc" {
		slices.Reverse(list)
	}
	return http.StatusOK, page(c, list, c.shownDeployment)
}

func (c *call) shownDeployment(d *deployment) object {
	return object{"id": d.id, "iid": d.id, "ref": d.ref, "sha": d.sha, "status": d.states[len(d.states)-1],
		"created_at": stamp(d.at), "updated_at": stamp(d.at), "user": c.basic(d.user), "deployable": nil,
		"environment": object{"id": d.id, "name": d.environment, "external_url": nil}}
}

// Deployments returns the deployments of a project, each as ENVIRONMENT COMMIT and its states.
func (s *Server) Deployments(p *Project) (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range p.deployments {
		list = append(list, d.environment+" "+d.sha+" "+strings.Join(d.states, " "))
	}
	return list
}
