package reconciler

// This file tells people. It decides nothing: everything comes from the plan, and from errors of its steps.

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/words"
)

// report posts what the plan says. Failing to post one thing does not keep the others from being posted.
func (r *Reconciler) report(ctx context.Context, p plan.Plan, failed map[string]error) error {
	var errs []error
	speaks := speakers(p)
	stuck := failing(p.Steps, failed)
	proposals := make(map[int]*plan.Proposal, len(r.observed.world.Proposals))
	for i := range r.observed.world.Proposals {
		proposals[r.observed.world.Proposals[i].Number] = &r.observed.world.Proposals[i]
	}
	r.board.Rank(p, speaks)
	for _, pr := range p.Proposals {
		if !pr.Stale && pr.PR.Head != "" { // no commit has the name of a damaged head
			errs = append(errs, r.reportPull(ctx, pr, withFailures(pr, stuck), speaks[pr.PR.Head] == pr.PR.Number,
				proposals[pr.PR.Number]))
		}
	}
	if p.Main.Commit == r.observed.refs[git.Branch+r.Main] { // else main cannot be read: an older commit stands for it
		errs = append(errs, r.board.Main(ctx, p, r.gatesOf(nil, words.Checks(p.Main.Checks))))
	}
	for _, f := range p.Fleets {
		errs = append(errs, r.board.Rollout(ctx, p.Main.Commit, f, moves(p, f.Fleet)))
	}
	r.board.EndDisputes()
	return errors.Join(errs...)
}

// reportPull posts the statuses and the comment of one pull request. speaks says that its checks stand on its head.
func (r *Reconciler) reportPull(ctx context.Context, pr plan.ProposalReport, facts []plan.Check, speaks bool,
	proposal *plan.Proposal) error {
	var errs []error
	checks := words.Checks(facts)
	if pr.Kept { // the list of pull requests may be older than main; its evidence must not be lost
		answered, err := r.board.Answered(ctx, pr.PR)
		if err != nil {
			return err
		}
		if answered {
			if pr.PR.Merged {
				r.pulls.Forget(ctx, pr.PR.Number)
			}
			return nil
		}
	}
	// aob/release comes last in the list, and first on the forge
	for i := len(checks) - 1; i >= 0 && speaks; i-- {
		errs = append(errs, r.board.Status(ctx, pr.PR.Head, checks[i]))
	}
	if speaks {
		errs = append(errs, r.board.Retire(ctx, pr.PR.Head, checks, r.gatesOf(proposal, checks)))
	}
	forged, err := r.board.ForgedNote(ctx, pr.PR.Head, checks)
	errs = append(errs, err)
	body := words.Comment(pr, facts) + forged + refusedNote(pr, r.answers.RefusesCommits())
	final := pr.PR.Merged && !slices.ContainsFunc(checks, func(c delivery.Check) bool {
		return c.State == delivery.CheckPending || speaks && !r.board.HasStatus(ctx, pr.PR.Head, c)
	})
	if final && r.board.HasComment(ctx, pr.PR, body) {
		r.pulls.Forget(ctx, pr.PR.Number)
		return errors.Join(errs...)
	}
	return errors.Join(append(errs, r.board.Comment(ctx, pr.PR, body))...)
}

// gatesOf returns the gates of main and of a pull request; nil where they are not known.
func (r *Reconciler) gatesOf(pr *plan.Proposal, checks []delivery.Check) map[string]delivery.Gate {
	read := slices.ContainsFunc(checks, func(c delivery.Check) bool {
		return c.Context == delivery.ContextIntent && c.State == delivery.CheckSuccess
	})
	if !read || len(r.observed.world.Main.Complaints) > 0 {
		return nil
	}
	gates := map[string]delivery.Gate{}
	maps.Copy(gates, r.observed.world.Main.Intent.Gates)
	if pr != nil {
		maps.Copy(gates, pr.Merged.Gates)
	}
	return gates
}

// refusedNote says on a pull request that gets a commit of AOB's why the forge will not merge it.
func refusedNote(pr plan.ProposalReport, why string) string {
	if why == "" || pr.PR.Fork || pr.PR.Merged || len(pr.Models) == 0 {
		return ""
	}
	return "\n**This cannot be merged:** " + delivery.Markdown(why) + "\n"
}

// moves reports whether a fleet's rollout comes further in a plan: to its end
// too, or to where it stood before the ledger was lost.
func moves(p plan.Plan, fleet string) bool {
	return slices.ContainsFunc(p.Steps, func(s plan.Step) bool {
		k, ok := s.(plan.KeepClock)
		return ok && k.Fleet == fleet
	})
}

// speakers says, by commit, whose checks stand on it: main's, which has no number, or those of one of the pull requests
// whose head it is. The first class that has any decides: pull requests to main that are ready and no forks, other pull
// requests to main, pull requests to other branches. Within a class it is the lowest number, so that no two take turns.
func speakers(p plan.Plan) map[string]int {
	class := func(pr delivery.PullRequest) int {
		switch {
		case pr.Base != p.Main.Branch:
			return 2
		case pr.Draft || pr.Fork:
			return 1
		}
		return 0
	}
	proposals := slices.Clone(p.Proposals)
	slices.SortStableFunc(proposals, func(a, b plan.ProposalReport) int { return class(a.PR) - class(b.PR) })
	speaks := map[string]int{p.Main.Commit: 0}
	for _, pr := range proposals {
		if _, taken := speaks[pr.PR.Head]; !taken {
			speaks[pr.PR.Head] = pr.PR.Number
		}
	}
	return speaks
}

// A failedStep is a step and why it was not taken.
type failedStep struct {
	step plan.Step
	err  error
}

// failing returns the steps that failed, by their keys.
func failing(steps []plan.Step, failed map[string]error) []failedStep {
	if len(failed) == 0 {
		return nil // a key may be the digest of much
	}
	var list []failedStep
	for _, s := range steps {
		if err := failed[s.Key()]; err != nil {
			list = append(list, failedStep{s, err})
		}
	}
	return list
}

// withAllFailures returns the proposals of a plan with what the forge is told of them: the status shows no other
// checks.
func withAllFailures(p plan.Plan, failed map[string]error) []plan.ProposalReport {
	stuck := failing(p.Steps, failed)
	if len(stuck) == 0 {
		return p.Proposals
	}
	list := slices.Clone(p.Proposals)
	for i := range list {
		list[i].Checks = withFailures(list[i], stuck)
	}
	return list
}

// withFailures shows what a person must settle: an error of a step for this
// pull request stands in aob/release instead of the plan's hope.
func withFailures(pr plan.ProposalReport, stuck []failedStep) []plan.Check {
	checks := slices.Clone(pr.Checks)
	for _, s := range stuck {
		if !concerns(s.step, pr) {
			continue
		}
		for i := range checks {
			if checks[i].Context != delivery.ContextRelease || checks[i].State != delivery.CheckPending {
				continue
			}
			why := delivery.Fact{Code: code.StepFailed, Values: delivery.Values{Text: s.err.Error()}}
			if b, ok := errors.AsType[delivery.Blocked](s.err); ok {
				checks[i].State, why = delivery.CheckFailure, blockedStep(s.step, b)
			}
			checks[i].Facts = []delivery.Fact{why}
		}
	}
	return checks
}

// blockedStep says what keeps a step from being done. A forge cuts what is long.
func blockedStep(s plan.Step, b delivery.Blocked) delivery.Fact {
	v := delivery.Values{Text: b.What, Ask: b.Do}
	if _, ok := s.(plan.CommitRelease); !ok || b.Do == "" || len(b.What)+len(b.Do) < 120 {
		return delivery.Fact{Code: code.StepBlocked, Values: v}
	}
	return delivery.Fact{Code: code.PushBlocked, Values: v}
}

// concerns reports whether a step is taken for a pull request.
func concerns(s plan.Step, pr plan.ProposalReport) bool {
	switch s := s.(type) {
	case plan.CommitRelease:
		return s.PR.Number == pr.PR.Number
	case plan.StartRun:
		for _, n := range s.PRs {
			if n == pr.PR.Number {
				return true
			}
		}
	case plan.Sign:
		for _, m := range pr.Models {
			if m.Bundle == s.Bundle {
				return true
			}
		}
	}
	return false
}
