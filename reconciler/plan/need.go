package plan

// This file finds the runs that are needed, and ends the others. Ending a run too early wastes its work, and ending it
// too late wastes the machine. While it is not known whether a run is needed, the run goes on.

import (
	"maps"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

const (
	// grace is how long a run goes on after its pull request has disappeared from the list.
	grace = 2 * time.Minute
	// askAgain is how long a run has to end before it is asked again, because a signal may be lost.
	askAgain = 30 * time.Second
)

// needs records that a pull request needs a run; 0 or less stands for main, experiments and comparisons.
func (m *maker) needs(key delivery.Digest, pr int) {
	pr = max(0, pr)
	m.effect(func(m *maker) {
		m.needed[key] = true
		if !slices.Contains(m.needers[key], pr) {
			m.needers[key] = append(m.needers[key], pr)
		}
	})
}

// endUnneeded ends the runs that nothing needs. A push of other content ends the runs of the earlier content at once.
// If a pull request is closed, missing from the list or has another target, its runs end after a grace time, because
// lists have gaps and people reopen pull requests.
func (m *maker) endUnneeded() {
	known := m.w.ProposalsKnown && m.tip != "" && m.w.Evidence.Stale == ""
	unread := m.unreadable()
	open := map[int]bool{0: true}
	for _, p := range m.w.Proposals {
		if m.targetsMain(p) && !p.Landed {
			open[p.Number] = true
		}
	}
	for _, key := range slices.Sorted(maps.Keys(m.w.Runs)) {
		r := m.w.Runs[key]
		// A run that died may have left a trainer process; ending the run cleans up.
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
			continue // it is not known whether it is needed
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
			m.wake(again) // it is ending already, which may take minutes
			continue
		}
		m.step(EndRun{Run: key, Kind: r.Spec.Kind, Why: why})
	}
}

// NeedOf returns which pull requests need a run that is started.
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

// keepNeed records which pull requests need a run, if that has changed.
func (m *maker) keepNeed(r delivery.RunState, need delivery.RunNeed) {
	if !r.Need.Equal(need) {
		m.step(KeepNeed{Run: r.Spec.Key, Kind: r.Spec.Kind, Need: need})
	}
}

// unreadable returns the open pull requests whose needed runs are not known, because their head is missing, has a
// mistake, or main has one. Runs that such a pull request needed before go on. This holds only for authors with write
// permission, so that others cannot keep a machine busy with a mistake.
func (m *maker) unreadable() map[int]bool {
	unread := maps.Clone(m.unknownNeeds)
	if !m.w.MainUnknown().IsZero() {
		unread[0] = true
	}
	return unread
}

// needsUnknown records that it is not known which runs a pull request needs.
func (m *maker) needsUnknown(p Proposal) {
	if p.Permission == delivery.PermissionWrite || !p.Pending.IsZero() { // or the permission is not known yet
		m.noNeeds(p.Number)
	}
}

// noNeeds records that the runs of a pull request are not known.
func (m *maker) noNeeds(pr int) { m.effect(func(m *maker) { m.unknownNeeds[pr] = true }) }

// keepTrainingsOf keeps a model's trainings while their keys are not known: the data run has not finished, or an
// upgrade has changed how keys are computed.
func (m *maker) keepTrainingsOf(p Proposal, mdl delivery.Model) {
	m.isLive() // any run may be one
	for key, r := range m.w.Runs {
		if trains(r, mdl) {
			m.needs(key, p.Number)
		}
	}
}

// trains reports whether a run trains one of a model's seeds, or makes a variant of one.
func trains(r delivery.RunState, mdl delivery.Model) bool {
	training := r.Spec.Training()
	if training == nil {
		return false
	}
	i := slices.Index(mdl.Train.Seeds, training.Seed)
	return i >= 0 && training.Spec.Digest() == mdl.SeedDigests()[i]
}
