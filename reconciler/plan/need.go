package plan

// This file says which runs are needed, and ends the others. A run that is ended
// too early costs what it has done so far; one that is ended too late costs its
// machine. So what is not known is never taken for "not needed".

import (
	"maps"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

const (
	// grace is how long a run goes on whose pull request is gone from the list.
	grace = 2 * time.Minute
	// askAgain is how long a run that was asked to end has for it before it is asked
	// again, as a signal may be lost.
	askAgain = 30 * time.Second
)

// needs records that a pull request needs a run; 0 and below stand for main,
// experiments and comparisons.
func (m *maker) needs(key delivery.Digest, pr int) {
	pr = max(0, pr)
	m.needed[key] = true
	if !slices.Contains(m.needers[key], pr) {
		m.needers[key] = append(m.needers[key], pr)
	}
}

// endUnneeded ends the runs that nothing needs any more. A push of other content
// ends the runs of the content before it at once. A pull request that is closed,
// gone from the list or has another target ends them after a grace: lists have
// gaps, and people take such a thing back.
func (m *maker) endUnneeded() {
	known := m.w.ProposalsKnown && m.w.Main.Commit != "" && m.w.Evidence.Stale == ""
	unread := m.unreadable()
	open := map[int]bool{0: true}
	for _, p := range m.w.Proposals {
		if m.targetsMain(p) && !p.Landed {
			open[p.Number] = true
		}
	}
	for _, key := range slices.Sorted(maps.Keys(m.w.Runs)) {
		r := m.w.Runs[key]
		// One that died may have left a trainer behind: ending it cleans up.
		if r.Phase != delivery.RunRunning && r.Phase != delivery.RunDied {
			continue
		}
		need := delivery.RunNeed{PRs: slices.Clone(m.needers[key])}
		for _, pr := range r.Need.PRs {
			if (unread[pr] || !known) && !slices.Contains(need.PRs, pr) {
				need.PRs = append(need.PRs, pr)
			}
		}
		slices.Sort(need.PRs)
		switch {
		case len(need.PRs) > 0:
			m.keepNeed(r, need)
			continue
		case !known, len(r.Need.PRs) == 0 && len(unread) > 0:
			continue // nobody can say whether it is needed
		}
		why := fact(code.RunReplaced, values{PRs: r.Need.PRs})
		if slices.Equal(r.Need.PRs, []int{0}) {
			why = fact(code.RunUnneeded, values{})
		}
		if gone := slices.DeleteFunc(slices.Clone(r.Need.PRs), func(pr int) bool { return open[pr] }); len(gone) > 0 ||
			len(r.Need.PRs) == 0 {
			if r.Need.Since.IsZero() {
				m.keepNeed(r, delivery.RunNeed{PRs: r.Need.PRs, Since: m.w.At})
				m.wake(m.w.At.Add(grace))
				continue
			}
			if end := r.Need.Since.Add(grace); m.w.At.Before(end) {
				m.wake(end)
				continue
			}
			why = fact(code.RunOfNoPull, values{})
			if len(gone) > 0 {
				why = fact(code.PullsClosed, values{PRs: gone, Branch: m.w.Main.Branch})
			}
		}
		if again := r.EndRequested.Add(askAgain); r.EndReason != "" && m.w.At.Before(again) {
			m.wake(again) // it is ending; an EC2 machine takes minutes for that
			continue
		}
		m.step(EndRun{Run: key, Kind: r.Spec.Kind, Why: why})
	}
}

// NeedOf says who needs a run that is started.
func NeedOf(s StartRun) delivery.RunNeed {
	var need delivery.RunNeed
	for _, pr := range s.PRs {
		if pr = max(0, pr); !slices.Contains(need.PRs, pr) {
			need.PRs = append(need.PRs, pr)
		}
	}
	slices.Sort(need.PRs)
	return need
}

// keepNeed records who needs a run, where that changed.
func (m *maker) keepNeed(r delivery.RunState, need delivery.RunNeed) {
	if !r.Need.Equal(need) {
		m.step(KeepNeed{Run: r.Spec.Key, Kind: r.Spec.Kind, Need: need})
	}
}

// unreadable names the open pull requests of which nobody can say what they need:
// their head is not here, has a mistake in it, or cannot be judged by a main that
// has one. A mistake must not throw a training away. It keeps only the runs that the
// pull request itself has asked for, and only where its author may ask for runs:
// nobody else's mistake keeps a machine.
func (m *maker) unreadable() map[int]bool {
	unread := maps.Clone(m.stuck)
	if !m.w.Blind().IsZero() {
		unread[0] = true
	}
	return unread
}

// isStuck records that nobody can say which runs a pull request needs.
func (m *maker) isStuck(p Proposal) {
	if p.Permission == delivery.PermissionWrite || !p.Pending.IsZero() { // or it is not known yet
		m.stuck[p.Number] = true
	}
}

// keepTrainings keeps what trains a model while it is not known yet which training
// that is: its data run is made, or an upgrade has changed how work is named.
func (m *maker) keepTrainings(p Proposal, mdl delivery.Model) {
	for key, r := range m.w.Runs {
		if trains(r, mdl) {
			m.needs(key, p.Number)
		}
	}
}

// trains reports whether a run trains a seed of a model's spec.
func trains(r delivery.RunState, mdl delivery.Model) bool {
	if r.Spec.Train == nil {
		return false
	}
	i := slices.Index(mdl.Train.Seeds, r.Spec.Train.Seed)
	return i >= 0 && r.Spec.Train.Spec.Digest() == mdl.SeedDigests()[i]
}
