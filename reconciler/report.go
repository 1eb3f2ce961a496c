package reconciler

// This file posts the plan's reports on the forge, with the errors of its steps.

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/words"
)

// report posts the plan's reports. If one post fails, the others are made all the same. It stops when ctx ends.
func (r *Reconciler) report(ctx context.Context, p plan.Plan, failed map[string]error) error {
	var errs []error
	speaks := speakers(p)
	stuck := failing(p.Steps, failed)
	proposals := make(map[int]*plan.Proposal, len(r.observed.world.Proposals))
	for i := range r.observed.world.Proposals {
		proposals[r.observed.world.Proposals[i].Number] = &r.observed.world.Proposals[i]
	}
	r.board.Rank(p, speaks)
	spoken := func(commit string) bool { _, ok := speaks[commit]; return ok }
	for _, pr := range p.Proposals {
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
		if !pr.Stale && pr.PR.Head != "" { // a damaged head has no commit
			errs = append(errs, r.reportPull(ctx, pr, withFailures(pr, stuck), speaks[pr.PR.Head] == pr.PR.Number,
				proposals[pr.PR.Number], spoken))
		}
	}
	if p.Main.Commit == r.observed.refs[git.Branch+r.Main] { // if main cannot be read, the plan is of an older commit
		errs = append(errs, r.board.Main(ctx, p, r.gatesOf(nil, words.Statuses(p.Main.Checks))))
	}
	for _, f := range p.Fleets {
		errs = append(errs, r.board.Rollout(ctx, p.Main.Commit, f, moves(p, f.Fleet)))
	}
	errs = append(errs, r.reportQueued(ctx, spoken))
	maps.DeleteFunc(r.written, func(number int, _ written) bool { return proposals[number] == nil })
	r.board.EndDisputes()
	return errors.Join(errs...)
}

// reportPull posts the statuses and the comment of one pull request. speaks: its checks are the ones shown on its head.
// spoken reports whether checks of main or of a pull request are shown on a commit.
func (r *Reconciler) reportPull(ctx context.Context, pr plan.ProposalReport, facts []plan.Check, speaks bool,
	proposal *plan.Proposal, spoken func(commit string) bool) error {
	var errs []error
	written := r.write(pr, facts)
	checks := written.checks
	if pr.Kept { // the earlier report has the evidence, so it stays
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
	if r.CheckDetails && !pr.PR.Merged {
		errs = append(errs, r.board.Supersede(ctx, pr.PR, spoken))
	}
	// aob/release is last in the list, and is posted first
	for i := len(checks) - 1; i >= 0 && speaks; i-- {
		errs = append(errs, r.board.Status(ctx, pr.PR.Head, checks[i]))
	}
	if speaks {
		errs = append(errs, r.board.Retire(ctx, pr.PR.Head, checks, r.gatesOf(proposal, checks)))
	}
	forged, err := r.board.ForgedNote(ctx, pr.PR.Head, checks)
	errs = append(errs, err)
	body := written.comment + forged + refusedNote(pr, r.answers.RefusesCommits())
	final := pr.PR.Merged && !slices.ContainsFunc(checks, func(c delivery.Check) bool {
		return c.State == delivery.CheckPending || speaks && !r.board.HasStatus(ctx, pr.PR.Head, c)
	})
	if final && r.board.HasComment(ctx, pr.PR, body) {
		r.pulls.Forget(ctx, pr.PR.Number)
		return errors.Join(errs...)
	}
	return errors.Join(append(errs, r.board.Comment(ctx, pr.PR, body))...)
}

// A written is the text of a report.
type written struct {
	report  plan.ProposalReport
	facts   []plan.Check
	checks  []delivery.Check
	comment string
}

// write writes the report of a pull request. It keeps the text until the report changes.
func (r *Reconciler) write(pr plan.ProposalReport, facts []plan.Check) written {
	w, ok := r.written[pr.PR.Number]
	if !ok || !w.report.Same(pr) || !reflect.DeepEqual(w.facts, facts) {
		w = written{checks: words.Statuses(facts), comment: words.Comment(pr, facts)}
		for i := range w.checks {
			w.checks[i].URL = evidenceOf(pr, w.checks[i].Context)
			if r.CheckDetails {
				w.checks[i].Details = words.Details(pr, facts[i], w.comment)
			}
		}
	}
	w.report, w.facts = pr, facts // those of the last plan, whose lists the next one shares
	r.written[pr.PR.Number] = w
	return w
}

// evidenceOf returns the page that a status links to: the images that got worse by its gate, or the pull request with
// AOB's comment.
func evidenceOf(pr plan.ProposalReport, context string) string {
	for _, m := range pr.Models {
		for _, l := range m.Links {
			if context == delivery.ContextGate+l.Gate && l.URL != "" {
				return l.URL
			}
		}
	}
	return pr.PR.URL
}

// gatesOf reports whether main or a pull request has a gate. It returns nil if their gates are not known.
func (r *Reconciler) gatesOf(pr *plan.Proposal, checks []delivery.Check) func(name string) bool {
	read := slices.ContainsFunc(checks, func(c delivery.Check) bool {
		return c.Context == delivery.ContextIntent && c.State == delivery.CheckSuccess
	})
	if !read || len(r.observed.world.Main.Complaints) > 0 {
		return nil
	}
	main := r.observed.world.Main.Intent.Gates
	return func(name string) bool { return main.Has(name) || pr != nil && pr.Merged.Gates.Has(name) }
}

// refusedNote says on a pull request that needs a commit of AOB why the forge will not merge it.
func refusedNote(pr plan.ProposalReport, why string) string {
	if why == "" || pr.PR.Fork || pr.PR.Merged || len(pr.Models) == 0 {
		return ""
	}
	return "\n**This cannot be merged:** " + delivery.Markdown(why) + "\n"
}

// moves reports whether a plan moves a fleet's rollout on.
func moves(p plan.Plan, fleet string) bool {
	return slices.ContainsFunc(p.Steps, func(s plan.Step) bool {
		k, ok := s.(plan.KeepClock)
		return ok && k.Fleet == fleet
	})
}

// speakers returns by commit the number of the pull request whose checks are shown on it; 0 for main's. Pull requests
// to main that are neither drafts nor from forks come first, then the others to main, then those to other branches. In
// each class the lowest number wins, so that they do not alternate.
func speakers(p plan.Plan) map[string]int {
	class := func(pr *delivery.PullRequest) int {
		switch {
		case pr.Base != p.Main.Branch:
			return 2
		case pr.Draft || pr.Fork:
			return 1
		}
		return 0
	}
	speaks := make(map[string]int, len(p.Proposals)+1)
	speaks[p.Main.Commit] = 0
	for first := range 3 {
		for i := range p.Proposals {
			pr := &p.Proposals[i].PR
			if _, taken := speaks[pr.Head]; !taken && class(pr) == first {
				speaks[pr.Head] = pr.Number
			}
		}
	}
	return speaks
}

// A failedStep is a step and its error.
type failedStep struct {
	step plan.Step
	err  error
}

// failing returns the steps that failed.
func failing(steps []plan.Step, failed map[string]error) []failedStep {
	if len(failed) == 0 {
		return nil // keys are slow to compute
	}
	var list []failedStep
	for _, s := range steps {
		if err := failed[s.Key()]; err != nil {
			list = append(list, failedStep{s, err})
		}
	}
	return list
}

// withAllFailures returns the proposals of a plan with the errors of steps in their checks, as they are posted.
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

// withFailures shows the error of a pull request's step in aob/release, in place of what the plan expects.
func withFailures(pr plan.ProposalReport, stuck []failedStep) []plan.Check {
	if len(stuck) == 0 {
		return pr.Checks
	}
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

// blockedStep says why a step cannot be taken. A long text gets a shorter fact, because forges cut long texts.
func blockedStep(s plan.Step, b delivery.Blocked) delivery.Fact {
	v := delivery.Values{Text: b.What, Command: b.Do}
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
		return slices.Contains(s.PRs, pr.PR.Number)
	case plan.Sign:
		return slices.ContainsFunc(pr.Models, func(m plan.ModelReport) bool { return m.Bundle == s.Bundle })
	}
	return false
}
