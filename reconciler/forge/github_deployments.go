package forge

// This file shows on GitHub's page of deployments which release each fleet runs.

import (
	"bytes"
	"context"
	"encoding/json"

	"github.com/google/go-github/v88/github"

	"github.com/autonomos/aob/reconciler/delivery"
)

// deploymentStates are the states of deployments as GitHub names them.
var deploymentStates = map[delivery.DeploymentState]string{delivery.DeploymentRunning: "in_progress",
	delivery.DeploymentDone: "success", delivery.DeploymentFailed: "failure"}

// A deploymentPayload tells AOB's deployments apart.
type deploymentPayload struct {
	Model   string          `json:"model"`
	Version int             `json:"version"`
	Bundle  delivery.Digest `json:"bundle"`
}

// Deploy shows a deployment as it is now: the fleet is its environment. It makes the deployment once, and its newest
// status once.
func (f *GitHub) Deploy(ctx context.Context, d delivery.Deployment) (err error) {
	defer f.explain(&err, "show the deployment of %s to %s", d.Release(), d.Fleet)
	id, err := f.deployment(ctx, d)
	if err != nil {
		return err
	}
	state, description := deploymentStates[d.State], Describe(d.Description)
	statuses, _, err := f.client.Repositories.ListDeploymentStatuses(ctx, f.owner, f.repo, id,
		&github.ListOptions{PerPage: 1}) // the newest first
	if err != nil || len(statuses) > 0 && statuses[0].GetState() == state &&
		statuses[0].GetDescription() == description && statuses[0].GetLogURL() == d.URL {
		return err
	}
	status := &github.DeploymentStatusRequest{State: &state, Description: &description, AutoInactive: new(true)}
	if d.URL != "" {
		status.LogURL = &d.URL
	}
	_, _, err = f.client.Repositories.CreateDeploymentStatus(ctx, f.owner, f.repo, id, status)
	return err
}

// deployment returns the id of a deployment, which it makes if there is none.
func (f *GitHub) deployment(ctx context.Context, d delivery.Deployment) (id int64, err error) {
	me, err := f.user(ctx)
	if err != nil {
		return 0, err
	}
	payload := deploymentPayload{d.Model, d.Version, d.Bundle}
	err = pages(func(page github.ListOptions) ([]*github.Deployment, *github.Response, error) {
		return f.client.Repositories.ListDeployments(ctx, f.owner, f.repo, &github.DeploymentsListOptions{SHA: d.Commit,
			Environment: d.Fleet, ListOptions: page})
	}, func(old *github.Deployment) bool {
		if old.GetCreator().GetID() == me.id && samePayload(old.Payload, payload) {
			id = old.GetID()
		}
		return id == 0
	})
	if err != nil || id != 0 {
		return id, err
	}
	// Without the two that are false and empty, GitHub would merge main into the commit, and refuse it while any check
	// is not green.
	made, _, err := f.client.Repositories.CreateDeployment(ctx, f.owner, f.repo, &github.DeploymentRequest{
		Ref: &d.Commit, Environment: &d.Fleet, Description: new(Describe(d.Release())), Payload: payload,
		AutoMerge: new(false), RequiredContexts: &[]string{}})
	return made.GetID(), err
}

// samePayload compares a payload as GitHub returns it: an object, or its text.
func samePayload(there json.RawMessage, want deploymentPayload) bool {
	var got deploymentPayload
	var text string
	if json.Unmarshal(there, &text) == nil {
		there = []byte(text)
	}
	return json.Unmarshal(bytes.TrimSpace(there), &got) == nil && got == want
}
