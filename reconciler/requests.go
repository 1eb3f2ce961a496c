package reconciler

// This file has what commands request from the loop. It is done between turns, when the loop's state may be used.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/poll"
	"github.com/autonomos/aob/reconciler/view"
	"github.com/autonomos/aob/reconciler/words"
)

// betweenTurns does something between turns, when the loop's state may be used.
func (r *Reconciler) betweenTurns(ctx context.Context, do func() error) error {
	done := make(chan error, 1)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case r.requests <- func() { done <- do() }:
	}
	return <-done
}

// BetweenTurns calls do between two turns, with what the last turn observed and planned. It returns an error if that
// may be old.
func (r *Reconciler) BetweenTurns(ctx context.Context, do func(w plan.World, p plan.Plan) error) error {
	return r.betweenTurns(ctx, func() error {
		if r.last.Load() == nil {
			return r.Unknown()
		}
		for _, what := range []string{turnTrouble, poll.GitTrouble, poll.ListTrouble} {
			if err := r.turn.Trouble(what); err != nil {
				return delivery.Wait{For: time.Minute, What: fmt.Sprintf("%s: %s", what, err)}
			}
		}
		return do(r.observed.world, r.observed.plan)
	})
}

// Waiting returns how much waits, by queue. It may be called from any goroutine.
func (r *Reconciler) Waiting() map[string]int {
	posts, _ := r.board.Oldest()
	pushes, _ := r.pushes.Oldest()
	waiting := map[string]int{"posts": posts, "pushes": pushes, "steps": 0, "runs": 0}
	if last := r.last.Load(); last != nil {
		waiting["steps"] = len(last.Plan.Steps)
		for _, key := range last.Plan.Needed {
			switch last.World.Runs[key].Phase {
			case delivery.RunDone, delivery.RunFailed, delivery.RunRunning:
			default:
				waiting["runs"]++
			}
		}
	}
	return waiting
}

// DetachRun makes a run one that was never started, and returns the folder that is left to be removed. It must be
// called between two turns.
func (r *Reconciler) DetachRun(key delivery.Digest) (folder string, err error) {
	if folder, err = r.Runs.Detach(key); err == nil {
		delete(r.observed.results, key)
	}
	return folder, err
}

// ForgetPosts drops what is remembered about posts on commits and pull requests that keep does not want. It must be
// called between two turns.
func (r *Reconciler) ForgetPosts(keep func(commit string, pull int) bool) { r.board.Forget(keep) }

// ForgetTracked drops what is remembered about trainings that ended before a time, that no open pull request asks for,
// and that trackers have. It returns the keys of their records in the ledger. It must be called between two turns.
func (r *Reconciler) ForgetTracked(ctx context.Context, before time.Time) (keys []string, err error) {
	return r.outbox.Forget(ctx, before)
}

// Last returns what the last turn observed and decided; nil before the first turn is over.
func (r *Reconciler) Last() *view.Snapshot { return r.last.Load() }

// CheckOrder says why a command in a comment on a pull request would have no effect; nil if it would have one.
func (r *Reconciler) CheckOrder(ctx context.Context, number int, user, text string) error {
	var p plan.ProposalReport
	err := r.betweenTurns(ctx, func() (err error) {
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
	p, ok := delivery.Find(r.observed.plan.Proposals, func(p plan.ProposalReport) bool { return p.PR.Number == number })
	if !ok {
		return p, delivery.Blockedf("aob pr list shows the open ones", "there is no open pull request %d", number)
	}
	return p, nil
}

// Recheck tries again what has failed for a pull request: failed runs, and data runs that found errors.
func (r *Reconciler) Recheck(ctx context.Context, number int) error {
	return r.betweenTurns(ctx, func() error {
		p, err := r.reported(number)
		if err != nil {
			return err
		}
		clear(r.retry)
		r.board.RetryNow()
		return r.recheck(p.Runs, r.Now().Add(time.Second))
	})
}

// recheckOrdered tries again what has failed before somebody asked for it in a comment or with a button.
func (r *Reconciler) recheckOrdered(p plan.Plan) error {
	var errs []error
	for _, pr := range p.Proposals {
		if at := r.answers.Orders(pr.PR.Number).Recheck; !at.IsZero() && pr.CanRecheck() {
			ended := func(key delivery.Digest) bool { return !r.observed.world.Runs[key].Ended.IsZero() }
			errs = append(errs, r.recheck(slices.DeleteFunc(slices.Clone(pr.Runs), func(key delivery.Digest) bool {
				return !ended(key)
			}), at))
		}
	}
	return errors.Join(errs...)
}

// recheck tries again those of some runs that ended before a time.
func (r *Reconciler) recheck(keys []delivery.Digest, before time.Time) error {
	for _, key := range keys {
		state := r.observed.world.Runs[key]
		if !state.Ended.Before(before) {
			continue
		}
		r.turn.Soon("a run is tried again")
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

// reads reports whether a running training reads the images of a data run, which must not be removed then.
func (r *Reconciler) reads(data delivery.Digest) bool {
	for _, s := range r.observed.world.Runs {
		if s.Phase == delivery.RunRunning && s.Spec.Train != nil && s.Spec.Train.Data == data {
			return true
		}
	}
	return false
}

// Adopt pushes a fork's pull request to a branch of AOB's in the repository, so that the release can be committed. Runs
// need no approval there, so the head must be the commit that somebody reviewed. It may be called from any goroutine.
func (r *Reconciler) Adopt(ctx context.Context, number int, reviewed string) (adopted int, err error) {
	var pr delivery.PullRequest
	var branch, old string
	err = r.betweenTurns(ctx, func() error {
		open := r.answers.List().Open
		i := slices.IndexFunc(open, func(pr delivery.PullRequest) bool { return pr.Number == number })
		if i < 0 {
			return delivery.Blockedf("aob pr list shows the open ones", "there is no open pull request %d", number)
		}
		pr = open[i]
		pr.Head = poll.Head(pr, r.observed.refs)
		if !pr.Fork {
			return delivery.Blockedf("nothing is to be done: aob pushes to its branch", "pull request %d is no fork's",
				number)
		}
		if len(reviewed) < 7 || !strings.HasPrefix(pr.Head, reviewed) {
			return delivery.Blockedf(fmt.Sprintf("review it again: aob pr show %d", number),
				"pull request %d is at commit %.10s now, and %.10s was reviewed", number, pr.Head, reviewed)
		}
		name := fmt.Sprintf("aob/adopt-%d", number)
		if branch, old, err = r.freeBranch(ctx, name, func(at string) bool { return at == pr.Head }); err != nil {
			return err
		}
		return r.Ledger.PutRecord(ctx, pushedKey+branch, pr.Head, r.Now())
	})
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, pushDeadline)
	defer cancel()
	if old != pr.Head {
		if err := r.Repo.Push(ctx, pr.Head, git.Branch+branch, old); err != nil {
			return 0, err
		}
	}
	at, err := r.Repo.At(ctx, git.Branch+branch)
	if err != nil {
		return 0, err
	}
	if at != pr.Head {
		return 0, delivery.Blockedf("run it again", "somebody pushed to %s meanwhile", branch)
	}
	defer r.Refresh("")
	title, body := words.AdoptedText(pr)
	return r.Forge.OpenPR(ctx, branch, r.Main, title, body)
}
