// Package plan decides. [Make] takes one [World], which is what one turn of the loop has observed, and returns a
// [Plan]: the steps to take, and the reports about pull requests, models on main and fleets.
//
// Make is a pure function: it reads no clock but World.At, no file and no network, and keeps nothing between calls. The
// same world gives the same plan, so a dry run uses the same code and a crash loses nothing. Data that is too large to
// read every turn is requested by [NeedsHistory], Plan.Unread and Plan.Scores.
//
// A plan goes only one stage further than the world it is given. The result of a step is observed in the next turn, and
// only then the next stage is planned.
//
//   - world.go: the input.
//   - proposal.go, model.go: a pull request, and one changed model in it.
//   - merged.go: pull requests whose content main already has.
//   - train.go: trainings, one for each seed, and thresholds.
//   - measure.go: scores of a bundle, and comparisons of two bundles.
//   - classes.go: the classes that gates require.
//   - judge.go, accept.go: verdicts of gates, and accepts by owners.
//   - trial.go: experiments, which no gate judges.
//   - release.go: the release file and its signed statement.
//   - rename.go, quarantine.go: renamed models, and forbidden bundles.
//   - fleetgates.go: the gates that judge another model for a fleet.
//   - lost.go: gates that main lost although no pull request showed it.
//   - main.go: what main accepts, refuses and rolls back.
//   - fleet.go: rollouts.
//   - restore.go, rewound.go: lost published documents, and a main that went back.
//   - unread.go: what waits while something cannot be read.
//   - need.go: which runs are needed, and when the others end.
//   - queue.go: the order in which runs start.
//   - queued.go: what a merge queue puts together.
//   - step.go: the kinds of steps.
package plan

import (
	"maps"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Plan is the steps to take and the reports to post.
type Plan struct {
	Steps      []Step
	Proposals  []ProposalReport
	Main       MainReport
	Fleets     []FleetReport
	Trials     []TrialReport
	Wake       time.Time         // when the plan may change without any event; zero for never
	Unread     []delivery.Digest // finished runs whose results the next plan needs
	Scores     []delivery.Digest // bundles whose scores the plan uses or the next plan needs
	Needed     []delivery.Digest // runs that a pull request, main, an experiment or a comparison needs
	Reopen     []string          // branches of AOB's own pull requests that were opened before
	CheckStore []delivery.Digest // bundles whose files in the server's store must be checked
}

// Make makes the plan for a world.
func Make(w World) Plan { return makePlan(w, nil, nil) }

// makePlan makes a plan. It keeps parts of the plan before, and stores its own in next; both are nil for none.
func makePlan(w World, before, next *Memory) Plan {
	q, trains := newQueue(w, false), newQueue(w, true)
	p := decide(w, q, trains, before, next)
	wait := q.schedule()
	if trains.schedule() || wait {
		if next != nil { // most parts of the first pass are those of the second
			before = &Memory{index: next.index, main: next.main, pulls: maps.Clone(next.pulls),
				models: maps.Clone(next.models)}
		}
		p = decide(w, q, trains, before, next) // again, with the places of waiting runs
	}
	return p
}

func decide(w World, q, trains *queue, before, next *Memory) Plan {
	m := &maker{w: w, queue: q, trains: trains, before: before, next: next,
		needed: map[delivery.Digest]bool{}, needers: map[delivery.Digest][]int{}, unknownNeeds: map[int]bool{},
		planned: map[string]bool{}, runs: map[int][]delivery.Digest{}, approvalCommands: map[int][]string{},
		costs: map[int]map[string]delivery.Fact{}, models: map[string]MainModel{}, scored: map[delivery.Digest]bool{}}
	if w.Main.Quarantine == nil {
		m.w.Main.Quarantine = QuarantineOf(w.Main.Intent)
	}
	if m.w.Evidence.index = (&index{}); next != nil {
		m.w.Evidence.index = next.index
	}
	if before != nil {
		m.moved = w.Main.Intent.Since(before.main)
	}
	m.tip, m.w.Main.Commit = w.Main.Commit, "" // parts note that they read it
	main := m.main()
	for _, mm := range main.Models {
		m.models[mm.Model] = mm
	}
	m.addRewound(&main)
	for _, p := range w.Proposals {
		p.Stale = p.Stale || w.Evidence.Stale != "" // the earlier report stays
		m.plan.Proposals = append(m.plan.Proposals, m.reportOf(p))
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

// maker is the state of one call of Make.
type maker struct {
	w                World
	plan             Plan
	needed           map[delivery.Digest]bool         // run keys that are needed
	runs             map[int][]delivery.Digest        // by pull request
	approvalCommands map[int][]string                 // by pull request
	costs            map[int]map[string]delivery.Fact // by pull request and approval code: the cost of what it allows
	planned          map[string]bool                  // keys of steps; pull requests with the same content share steps
	needers          map[delivery.Digest][]int        // by run key: the pull requests that need it
	unknownNeeds     map[int]bool                     // pull requests whose needed runs are not known
	queue            *queue                           // of runs that are no trainings
	trains           *queue                           // of trainings
	models           map[string]MainModel
	agreed           delivery.Money           // the ceilings of trainings that this plan starts
	scored           map[delivery.Digest]bool // bundles whose scores were requested

	before, next *Memory                // the parts of the last plan, and of this one; nil for none
	part         *part                  // that is made now; nil if nothing is noted
	moved        delivery.IntentChanges // what has changed on main since the last plan
	tip          string                 // the commit that main is at

	asking    map[string]delivery.Digest            // by RING/DEVICE: the bench that it is asked for now
	weightsOf map[delivery.Digest]delivery.Digest   // weights by bundle
	scoreKeys map[delivery.Digest][]delivery.Digest // keys of scores, by bundle and by ONNX file
	looks     map[lookKey]map[delivery.Digest]int   // look numbers, where this plan gives new ones
}

func (m *maker) step(s Step) { m.effect(func(m *maker) { m.addStep(s) }) }

func (m *maker) addStep(s Step) {
	if !m.planned[s.Key()] {
		m.planned[s.Key()] = true
		m.plan.Steps = append(m.plan.Steps, s)
	}
}

// propose plans a pull request of AOB's own. One that was opened before is not opened again, also when people have
// closed it. The loop checks whether the forge still has it.
func (m *maker) propose(p Propose) {
	m.effect(func(m *maker) {
		if m.w.Opened[p.Branch] {
			m.plan.Reopen = append(m.plan.Reopen, p.Branch)
			return
		}
		m.addStep(p)
	})
}

// wake makes sure that a turn is taken at t at the latest.
func (m *maker) wake(t time.Time) {
	m.effect(func(m *maker) {
		if !t.IsZero() && (m.plan.Wake.IsZero() || t.Before(m.plan.Wake)) {
			m.plan.Wake = t
		}
	})
}

// readResult asks for the result of a run.
func (m *maker) readResult(run delivery.Digest) {
	m.effect(func(m *maker) {
		if !slices.Contains(m.plan.Unread, run) {
			m.plan.Unread = append(m.plan.Unread, run)
		}
	})
}
