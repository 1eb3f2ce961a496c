// Package plan decides. [Make] takes one [World], everything that AOB can see
// at one moment, and returns a [Plan]: the steps to take, and what to tell
// people about each pull request, each model on main and each fleet.
//
// It is one pure function: no clock but World.At, no file, no network, no
// memory. The same world gives the same plan, so a dry run is the same code,
// a crash loses nothing, and a decision can be replayed from its inputs. What
// is too much to read every turn is asked for: [NeedsHistory], Plan.Unread, Plan.Scores.
//
// A plan goes one stage further than the world it sees, never two: what a step
// makes is seen in the next world. A turn of the loop is cheap, and a stage
// that was not seen to succeed cannot be built on.
//
//   - world.go: what is seen.
//   - proposal.go, model.go: a pull request, and one changed model in it.
//   - merged.go: what main has already.
//   - train.go: how a model is trained: its seeds, and its thresholds.
//   - measure.go: what a bundle scored, and how two of them compare.
//   - classes.go: the classes that gates hold a model to.
//   - judge.go, accept.go: what gates say of it, and what their owners settle.
//   - trial.go: experiments, which no gate judges.
//   - release.go: the release file and the statement behind it.
//   - rename.go, quarantine.go: a model under its former names, and what may not run.
//   - bar.go: the gates that a fleet brings to another model.
//   - lost.go: gates that main lost without a pull request that showed it.
//   - main.go: what main accepts, refuses and rolls back.
//   - fleet.go: rollouts.
//   - unread.go: what waits while something cannot be read.
//   - need.go: which runs are needed, and when the others end.
//   - queue.go: which of the runs that are needed may start.
//   - step.go: what can be done about it.
package plan

import (
	"maps"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Plan is what to do and what to say.
type Plan struct {
	Steps     []Step
	Proposals []ProposalReport
	Main      MainReport
	Fleets    []FleetReport
	Trials    []TrialReport
	Wake      time.Time         // when time alone may change the plan; zero for never
	Unread    []delivery.Digest // runs that are done and whose result has to be read to go on
	Scores    []delivery.Digest // bundles whose scores it has read, or has to read to go on
	Needed    []delivery.Digest // runs that something open waits for
	Reopen    []string          // branches of AOB's own pull requests, which would be opened if they had not been
	Doubted   []delivery.Digest // bundles whose bytes in the server's store have to be checked to go on
}

// Make decides.
func Make(w World) Plan {
	q, trains := newQueue(w, false), newQueue(w, true)
	p := decide(w, q, trains)
	wait := q.schedule()
	if trains.schedule() || wait {
		p = decide(w, q, trains) // now that it is known which of the runs start
	}
	return p
}

func decide(w World, q, trains *queue) Plan {
	m := &maker{w: w, needed: map[delivery.Digest]bool{}, planned: map[string]bool{}, runs: map[int][]delivery.Digest{},
		asks:  map[int][]string{},
		costs: map[int]map[string]delivery.Fact{}, needers: map[delivery.Digest][]int{}, stuck: map[int]bool{},
		queue:  q,
		trains: trains, models: map[string]MainModel{}, scored: map[delivery.Digest]bool{}}
	if w.Main.Quarantine == nil {
		m.w.Main.Quarantine = QuarantineOf(w.Main.Intent)
	}
	main := m.main()
	for _, mm := range main.Models {
		m.models[mm.Model] = mm
	}
	m.sayRewound(&main)
	for _, p := range w.Proposals {
		p.Stale = p.Stale || w.Evidence.Stale != "" // what was said before stands
		m.plan.Proposals = append(m.plan.Proposals, m.proposal(p))
	}
	if w.Evidence.Stale == "" {
		for _, t := range w.Trials {
			m.plan.Trials = append(m.plan.Trials, m.trial(t))
		}
		m.wanted()
	}
	m.fleets(&main)
	m.plan.Main = main
	for _, name := range w.PowerOf {
		m.powers(name)
	}
	m.endUnneeded()
	m.plan.Needed, m.plan.Scores = slices.Sorted(maps.Keys(m.needed)), slices.Sorted(maps.Keys(m.scored))
	return m.plan
}

// maker is the state of one Make.
type maker struct {
	w       World
	plan    Plan
	needed  map[delivery.Digest]bool         // run keys that something open waits for
	runs    map[int][]delivery.Digest        // by pull request
	asks    map[int][]string                 // by pull request
	costs   map[int]map[string]delivery.Fact // by pull request and code: what an approval lets run
	planned map[string]bool                  // keys of steps, so that two PRs with one content plan it once
	needers map[delivery.Digest][]int        // the pull requests behind needed; 0 for main and the others
	stuck   map[int]bool                     // pull requests of which nobody can say which runs they need
	queue   *queue                           // of runs that are no trainings
	trains  *queue                           // of trainings
	models  map[string]MainModel
	scored  map[delivery.Digest]bool // bundles whose scores were asked for

	weighed map[delivery.Digest]delivery.Digest          // weights by bundle
	looks   map[lookKey]map[delivery.Digest]int          // which look each bundle was, or will be
	probes  map[delivery.Digest]map[delivery.Digest]bool // by eval set: bundles of models that main does not have
}

func (m *maker) step(s Step) {
	if !m.planned[s.Key()] {
		m.planned[s.Key()] = true
		m.plan.Steps = append(m.plan.Steps, s)
	}
}

// propose opens a pull request of AOB's own, once: closing it is an answer too. Whether the forge still knows one that
// was opened is for the loop to ask.
func (m *maker) propose(p Propose) {
	if m.w.Opened[p.Branch] {
		m.plan.Reopen = append(m.plan.Reopen, p.Branch)
		return
	}
	m.step(p)
}

// wake asks for a turn at t at the latest.
func (m *maker) wake(t time.Time) {
	if !t.IsZero() && (m.plan.Wake.IsZero() || t.Before(m.plan.Wake)) {
		m.plan.Wake = t
	}
}
