package forge

// This file shows on GitLab's page of environments which release each fleet runs.

import (
	"cmp"
	"context"

	gitlab "gitlab.com/gitlab-org/api/client-go/v2"

	"github.com/autonomos/aob/reconciler/delivery"
)

// gitLabDeployments are the states of deployments as GitLab names them.
var gitLabDeployments = map[delivery.DeploymentState]gitlab.DeploymentStatusValue{
	delivery.DeploymentRunning: gitlab.DeploymentStatusRunning, delivery.DeploymentDone: gitlab.DeploymentStatusSuccess,
	delivery.DeploymentFailed: gitlab.DeploymentStatusFailed}

// Deploy shows a deployment as it is now: the fleet is its environment. It makes the deployment of a commit once.
// GitLab keeps no description, and lets no deployment that has ended run again.
func (f *GitLab) Deploy(ctx context.Context, d delivery.Deployment) (err error) {
	defer f.explain(&err, "show the deployment of %s to %s", d.Release(), d.Fleet)
	id, err := f.project(ctx)
	if err != nil {
		return err
	}
	old, err := f.deployment(ctx, id, d)
	if err != nil {
		return err
	}
	state := gitLabDeployments[d.State]
	if old == nil {
		_, _, err = f.client.Deployments.CreateProjectDeployment(id, &gitlab.CreateProjectDeploymentOptions{
			Environment: &d.Fleet, SHA: &d.Commit, Ref: new(cmp.Or(f.branch, "main")), Tag: new(false),
			Status: &state}, gitlab.WithContext(ctx))
		return err
	}
	ended := old.Status != string(gitlab.DeploymentStatusRunning) &&
		old.Status != string(gitlab.DeploymentStatusCreated)
	if old.Status == string(state) || ended && state == gitlab.DeploymentStatusRunning {
		return nil
	}
	_, _, err = f.client.Deployments.UpdateProjectDeployment(id, old.ID,
		&gitlab.UpdateProjectDeploymentOptions{Status: &state}, gitlab.WithContext(ctx))
	return err
}

// deployment returns AOB's newest deployment of a commit to a fleet, nil for none.
func (f *GitLab) deployment(ctx context.Context, id int64, d delivery.Deployment) (old *gitlab.Deployment, err error) {
	me, err := f.user(ctx)
	if err != nil {
		return nil, err
	}
	err = gitLabPages(func(page gitlab.ListOptions) ([]*gitlab.Deployment, *gitlab.Response, error) {
		return f.client.Deployments.ListProjectDeployments(id, &gitlab.ListProjectDeploymentsOptions{ListOptions: page,
			Environment: &d.Fleet, OrderBy: new("id"), Sort: new("desc")}, gitlab.WithContext(ctx))
	}, func(one *gitlab.Deployment) bool {
		if one.SHA == d.Commit && one.User != nil && one.User.ID == me.id {
			old = one
		}
		return old == nil
	})
	return old, err
}
