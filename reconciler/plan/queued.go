package plan

// This file judges what a merge queue puts together before it merges.

import (
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// Queued judges the commits that a merge queue wants to make main's, each as the result of merging it. Nothing runs for
// them: each pull request in the queue was judged before, so evidence is missing where nobody has judged what they
// yield together, and then the answer is a failure. The plan has reports, and asks for results and scores, but it has
// no steps.
func (k *Memory) Queued(w World, groups []Proposal) Plan {
	w.Proposals, w.Trials, w.Wanted, w.PowerOf = groups, nil, nil, nil
	p := k.Make(w)
	for i := range p.Proposals {
		p.Proposals[i].Checks = settled(groups[i], p.Proposals[i])
	}
	return Plan{Proposals: p.Proposals, Unread: p.Unread, Scores: p.Scores}
}

// settled fails the checks that wait for something that nobody starts.
func settled(p Proposal, report ProposalReport) []Check {
	checks := slices.Clone(report.Checks)
	var models []string
	for _, m := range report.Models {
		if m.State == delivery.CheckPending {
			models = append(models, m.Model)
		}
	}
	for i, c := range checks {
		reads := func(f delivery.Fact) bool { return f.Has(code.RunReading) }
		if c.State != delivery.CheckPending || !p.Pending.IsZero() || slices.ContainsFunc(c.Facts, reads) {
			continue
		}
		checks[i].State = delivery.CheckFailure
		checks[i].Facts = []delivery.Fact{fact(code.QueueUnjudged, values{Names: models})}
	}
	return checks
}
