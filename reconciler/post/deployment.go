package post

import (
	"context"
	"fmt"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// deployment shows on the forge how far the release of a fleet has come, if the forge has a page for that. commit is
// the commit of main that has changed the fleet's target.
func (b *Board) deployment(ctx context.Context, commit string, f plan.FleetReport, check delivery.Check) error {
	if b.Deployments == nil || commit == "" || f.Target.Bundle == "" {
		return nil
	}
	d := delivery.Deployment{Fleet: f.Fleet, Commit: commit, Model: f.Model, Version: f.Target.Version,
		Bundle: f.Target.Bundle, State: delivery.DeploymentRunning, Description: delivery.Terminal(check.Description),
		URL: b.URL}
	switch check.State {
	case delivery.CheckSuccess:
		d.State = delivery.DeploymentDone
	case delivery.CheckFailure, delivery.CheckError:
		d.State = delivery.DeploymentFailed
	}
	key := fmt.Sprintf(deployKeys+"%s/%s/%s%s", b.address(), commit, delivery.ContextRollout, f.Fleet)
	state := fmt.Sprintf("%s %d %s %s ", d.Commit, d.Version, d.Bundle, d.State)
	content := state + d.Description
	last, err := b.posted(ctx, key)
	if err != nil || b.isEarly(key, state, content, last) {
		return err
	}
	return b.post(ctx, key, "deployment/"+f.Fleet, content, func(ctx context.Context) error {
		b.turn.Log.Info("deployment", "fleet", d.Fleet, "release", d.Release(), "state", string(d.State))
		return b.Deployments.Deploy(ctx, d)
	})
}
