package reconciler

// This file is what the commands ask of the loop. It is done between turns, where the loop's state may be used.

import (
	"context"
	"fmt"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// CheckOrder says why an order in a comment on a pull request would not count; nil where it would.
func (r *Reconciler) CheckOrder(ctx context.Context, number int, user, text string) error {
	var p plan.ProposalReport
	err := r.ask(ctx, func() (err error) {
		p, err = r.reported(number)
		return err
	})
	if err != nil {
		return err
	}
	return r.answers.CheckOrder(ctx, p, user, text)
}

// reported finds an open pull request in the last plan.
func (r *Reconciler) reported(number int) (plan.ProposalReport, error) {
	for _, p := range r.observed.plan.Proposals {
		if p.PR.Number == number {
			return p, nil
		}
	}
	return plan.ProposalReport{}, delivery.Blockedf("aob pr list shows the open ones",
		"there is no open pull request %d", number)
}

// Recheck tries again what has failed for a pull request: its failed runs, and
// a data run that found errors.
func (r *Reconciler) Recheck(ctx context.Context, number int) error {
	return r.ask(ctx, func() error {
		p, err := r.reported(number)
		if err != nil {
			return err
		}
		return r.recheck(p.Runs)
	})
}

func (r *Reconciler) recheck(keys []delivery.Digest) error {
	clear(r.retry)
	r.board.RetryNow()
	for _, key := range keys {
		state := r.observed.world.Runs[key]
		var err error
		switch {
		case state.Phase == delivery.RunFailed:
			err = r.Runs.Retry(key)
		case state.Phase == delivery.RunDone && state.Spec.Kind == delivery.RunData && !r.reads(key):
			err = r.Runs.Remove(key)
			delete(r.observed.results, key)
		}
		if err != nil {
			return fmt.Errorf("run %s: %w", key.Short(), err)
		}
	}
	return nil
}

// reads reports whether a training reads the images that a data run has laid out:
// they are not taken from under it.
func (r *Reconciler) reads(data delivery.Digest) bool {
	for _, s := range r.observed.world.Runs {
		if s.Phase == delivery.RunRunning && s.Spec.Train != nil && s.Spec.Train.Data == data {
			return true
		}
	}
	return false
}
