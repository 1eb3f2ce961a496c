package reconciler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/poll"
	"github.com/autonomos/aob/reconciler/view"
)

// Run takes turns until ctx ends, while git and the forge are read and posts and pushes are sent beside it. An error of
// a turn is noted, and the next turn observes everything again, so a failed turn loses nothing.
func (r *Reconciler) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	beside.Go(func() { r.git.Run(ctx) })
	beside.Go(func() { r.answers.Run(ctx) })
	beside.Go(func() { r.board.Run(ctx) })
	beside.Go(func() { r.pushes.Run(ctx) })
	beside.Go(func() { r.watchDatasets(ctx) })
	if r.watchOnly == nil {
		beside.Go(func() { r.outbox.Run(ctx) })
	}
	for {
		again, err := r.Reconcile(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wait := r.GitPoll
		if !again.IsZero() {
			wait = max(0, min(wait, again.Sub(r.Now())))
		}
		if err != nil {
			wait = max(wait, activePoll)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-r.wake:
		case do := <-r.requests:
			do()
			r.turn.Soon("a command asked for something")
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Reconcile takes one turn: observe, plan, act, report. It can always be called again. It returns the latest time of
// the next turn; zero if only an event makes one necessary.
func (r *Reconciler) Reconcile(ctx context.Context) (again time.Time, err error) {
	start := r.Now()
	world, changed, err := r.observe(ctx)
	lap := r.lap("observe", start)
	r.retry.Note("observe", r.Now(), 0, err)
	if err != nil {
		if !errors.Is(err, errNotRead) { // each start waits a moment for the repository: that is no turn that failed
			r.turn.Note(turnTrouble, err)
			r.Metrics.Turn(r.Now().Sub(start), 0, err)
		}
		return r.retry["observe"].Next, fmt.Errorf("observe: %w", err)
	}
	r.turn.Note(turnTrouble, nil)
	if !changed {
		r.Metrics.Turn(r.Now().Sub(start), 0, nil)
		return r.nextTurn(), nil
	}
	p := r.plan(ctx, &world)
	lap = r.lap("plan", lap)
	r.observed.queued = r.queued(ctx, world)
	if r.Blobs != nil && len(p.CheckStore) > 0 {
		r.Blobs.Ask(p.CheckStore...)
	}
	done, left, shown := 0, false, p
	if r.watchOnly == nil {
		var failed map[string]error
		done, failed, left = r.act(ctx, p.Steps)
		lap = r.lap("act", lap)
		err = errors.Join(r.report(ctx, p, failed), stepErrors(failed), r.history.KeepQuarantine(ctx),
			r.keepSpends(ctx, &world), r.recheckOrdered(p))
		shown.Proposals = withAllFailures(p, failed)
		r.outbox.Note(ctx, &world, &p)
		r.lap("report", lap)
	}
	r.turn.Note(stepTrouble, err)
	r.settle(p, done, left, err, start)
	r.last.Store(&view.Snapshot{World: world, Plan: shown, At: start})
	r.Metrics.Turn(r.Now().Sub(start), len(p.Steps), err)
	return r.nextTurn(), err
}

// lap counts a part of a turn that began at since, and returns when the next one begins.
func (r *Reconciler) lap(phase string, since time.Time) time.Time {
	now := r.Now()
	r.Metrics.Phase(phase, now.Sub(since))
	return now
}

// look reads git and the forge once, for a dry run. Otherwise package poll reads them beside the loop.
func (r *Reconciler) look(ctx context.Context) {
	r.git.Step(ctx)
	r.answers.Step(ctx)
	r.answers.Drain(ctx)
}

// Plan is the dry run: it observes and plans, and takes no step. notices says what could not be read.
func (r *Reconciler) Plan(ctx context.Context) (p plan.Plan, notices []string, err error) {
	defer func() {
		for _, t := range r.turn.Troubles() {
			notices = append(notices, t.String())
		}
	}()
	for range 2 { // the first plan tells which comments must be read
		r.turn.Soon("a dry run")
		r.look(ctx)
		world, _, err := r.observe(ctx)
		if err != nil {
			if gitErr := r.turn.Trouble(poll.GitTrouble); gitErr != nil {
				err = gitErr // the cause
			}
			return plan.Plan{}, nil, fmt.Errorf("observe: %w", err)
		}
		p = r.plan(ctx, &world)
		r.observed.plan = p
		r.requestReads(p)
	}
	return p, nil, nil
}

// plan makes the plan, and reads the results of runs and the scores of bundles that the plan requests.
func (r *Reconciler) plan(ctx context.Context, w *plan.World) plan.Plan {
	for {
		p := r.memory.Make(*w)
		made := r.memory.Made()
		r.Metrics.Computed("plan", 1)
		r.Metrics.Computed("pull request", made.Pulls)
		r.Metrics.Computed("model", made.Models)
		r.Metrics.Computed("result", len(p.Unread))
		r.Metrics.Computed("score", len(p.Scores))
		results, scores := r.readResults(*w, p.Unread), r.readScores(ctx, w, p.Scores)
		if results || scores {
			continue
		}
		r.asBefore(&p)
		return p
	}
}

// asBefore keeps the earlier report of a pull request about which nothing is known now.
func (r *Reconciler) asBefore(p *plan.Plan) {
	for i, now := range p.Proposals {
		if !now.Stale {
			continue
		}
		for _, before := range r.observed.plan.Proposals {
			if before.PR.Number == now.PR.Number {
				p.Proposals[i] = before
				p.Proposals[i].PR, p.Proposals[i].Stale = now.PR, true
			}
		}
	}
}

// requestReads requests the comments and statuses that the plan needs.
func (r *Reconciler) requestReads(p plan.Plan) {
	commits := slices.Concat(r.board.RolloutCommits(p), r.queuedCommits())
	r.answers.Want(p, commits, owners(r.observed.world), r.pulls.MayBeLost(p))
}

// settle stores the plan of a turn, and when the next turn is due.
func (r *Reconciler) settle(p plan.Plan, done int, left bool, err error, start time.Time) {
	r.observed.plan = p
	r.requestReads(p)
	r.turn.At(p.Wake, "the plan waits for this time")
	r.board.Settle(start)
	if !left { // of a step that is left nobody knows yet whether it would fail again
		r.retry.Forget(start, r.pushes.Has)
	}
	r.turn.At(r.retry.Earliest(r.pushes.Has), "a step that failed is tried again")
	if done > 0 {
		r.turn.Soon("the steps that were taken change the world")
	}
	if err != nil && r.turn.Due().IsZero() {
		r.turn.In(time.Second, "the last turn failed")
	}
}

// stepErrors joins the errors of steps. Wait and Blocked errors are not returned: they are already shown on the pull
// request.
func stepErrors(failed map[string]error) error {
	var errs []error
	for key, err := range failed {
		_, waits := errors.AsType[delivery.Wait](err)
		_, blocked := errors.AsType[delivery.Blocked](err)
		if !waits && !blocked {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
	}
	return errors.Join(errs...)
}
