package reconciler

// This file answers for the commits of a merge queue.

import (
	"context"
	"errors"

	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/words"
)

// queued judges the commits of the merge queue.
func (r *Reconciler) queued(ctx context.Context, w plan.World) []plan.ProposalReport {
	groups := r.pulls.Queued(r.Queue)
	if len(groups) == 0 {
		r.queueMemory = plan.Memory{}
		return nil
	}
	for {
		p := r.queueMemory.Queued(w, groups)
		results, scores := r.readResults(w, p.Unread), r.readScores(ctx, &w, p.Scores)
		if !results && !scores {
			return p.Proposals
		}
	}
}

// reportQueued posts the statuses of the commits of the merge queue. spoken reports whether checks of main or of a pull
// request are shown on a commit.
func (r *Reconciler) reportQueued(ctx context.Context, spoken func(commit string) bool) error {
	var errs []error
	for _, group := range r.observed.queued {
		if group.Stale || spoken(group.PR.Head) {
			continue
		}
		checks := words.Statuses(group.Checks)
		for i := len(checks) - 1; i >= 0; i-- { // aob/release is last in the list, and is posted first
			errs = append(errs, r.board.Status(ctx, group.PR.Head, checks[i]))
		}
	}
	return errors.Join(errs...)
}

// queuedCommits are the commits of the merge queue.
func (r *Reconciler) queuedCommits() (list []string) {
	for _, group := range r.observed.queued {
		list = append(list, group.PR.Head)
	}
	return list
}
