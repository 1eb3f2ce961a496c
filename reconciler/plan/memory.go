package plan

// This file keeps the parts of a plan, one for each pull request and each model of main, so that the next plan makes
// only those again whose inputs have changed. A part notes what it reads besides the basis, which all parts read, and
// what it does to the plan. If all that it has read is the same, what it did is done again without judging anything.
// The trees of main and of merged pull requests note by themselves what is read of them, so no part can forget it.
// The plan is the one that Make makes: tests compare them in every turn of the simulated world.

import (
	"maps"
	"reflect"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Memory makes plans, and keeps their parts. The zero value has none. Its plans share values with each other and with
// the worlds that they are made of, so nobody may change them.
type Memory struct {
	basis  basis
	pulls  map[int]*part
	models map[string]*part
	made   Made
	index  *index
	main   delivery.Intent // of the last plan
}

// Made counts the parts that a plan had to make anew, for pull requests and for models on main.
type Made struct{ Pulls, Models int }

// Made counts the parts of the last plan.
func (k *Memory) Made() Made { return k.made }

// Make makes the plan of a world, as [Make] does.
func (k *Memory) Make(w World) Plan {
	now := basisOf(w)
	if !now.same(k.basis) {
		k.pulls, k.models = nil, nil
	}
	k.basis = now
	if k.index == nil || w.Evidence.Version == 0 {
		k.index = &index{}
	}
	next := &Memory{index: k.index, main: w.Main.Intent,
		pulls: make(map[int]*part, len(w.Proposals)), models: make(map[string]*part, len(k.models))}
	p := makePlan(w, k, next)
	k.pulls, k.models, k.made, k.main = next.pulls, next.models, next.made, next.main
	return p
}

// A basis is what every part may read without noting it.
type basis struct {
	main     Main
	known    bool
	evidence Evidence
	orphans  []delivery.Orphan
	owners   map[string]string
	server   Server
}

func basisOf(w World) basis {
	b := basis{main: w.Main, known: true, orphans: slices.Clone(w.Orphans), owners: maps.Clone(w.InvalidOwners),
		server: w.Server}
	if w.Main.Quarantine == nil {
		w.Main.Quarantine = QuarantineOf(w.Main.Intent)
	}
	// Parts note what they read of these.
	b.main.History, b.main.Intent, b.main.Commit = nil, delivery.Intent{}, ""
	// The next world may have the same maps with other content.
	b.main.Quarantine, b.main.Repointed = maps.Clone(w.Main.Quarantine), maps.Clone(w.Main.Repointed)
	b.main.Unread, b.main.UnreadFleets = maps.Clone(w.Main.Unread), maps.Clone(w.Main.UnreadFleets)
	b.main.Lost, b.main.Rewound = slices.Clone(w.Main.Lost), slices.Clone(w.Main.Rewound)
	b.evidence = Evidence{Version: w.Evidence.Version, Stale: w.Evidence.Stale, Unknown: w.Evidence.Unknown}
	return b
}

// same reports whether nothing of a basis has changed. Evidence whose changes nobody counts may always have.
func (b basis) same(before basis) bool {
	return before.known && b.evidence.Version != 0 && reflect.DeepEqual(b, before)
}

// A part is what a plan says about one pull request, or one model of main.
type part struct {
	proposal Proposal // that it is about; zero for a model
	report   ProposalReport
	model    MainModel

	ofMain   *delivery.IntentReads // of main's tree
	ofMerged *delivery.IntentReads // of the tree that merging the pull request gives; nil for a model

	reads   []func(m *maker) bool // each reports whether it still gives what it gave
	effects []func(m *maker)
	live    bool // it depends on the time or on other parts, and is made in every plan
}

// holds reports whether a part says about the world of m what it said when it was made.
func (p *part) holds(m *maker) bool {
	return p != nil && !p.live && p.ofMain.Same(m.moved) &&
		!slices.ContainsFunc(p.reads, func(same func(m *maker) bool) bool { return !same(m) })
}

// holdsFor reports whether a part says about a pull request what it said when it was made.
func (p *part) holdsFor(m *maker, now Proposal) bool {
	if !p.holds(m) || !p.proposal.same(now) {
		return false
	}
	merged := now.Merged.Since(p.proposal.Merged)
	return p.ofMerged.Same(merged) && p.ofMain.SamePair(delivery.TreePair{A: m.before.main, B: p.proposal.Merged},
		delivery.TreePair{A: m.w.Main.Intent, B: now.Merged}, m.moved, merged)
}

// keep does again what a part did when it was made.
func (m *maker) keep(p *part) {
	for _, do := range p.effects {
		do(m)
	}
}

// newPart has m note what it reads and does, until the returned function is called.
func (m *maker) newPart() (p *part, end func()) {
	p = &part{}
	main := m.w.Main.Intent
	m.part = p
	m.w.Main.Intent, p.ofMain = main.Watched()
	return p, func() { m.part, m.w.Main.Intent = nil, main }
}

// effect changes the plan. The change is noted, so it must be all that a part does, and do must call no effect itself.
func (m *maker) effect(do func(m *maker)) {
	if m.part != nil {
		m.part.effects = append(m.part.effects, do)
	}
	do(m)
}

// isLive notes that a part depends on the time, on devices or on other parts.
func (m *maker) isLive() {
	if m.part != nil {
		m.part.live = true
	}
}

// noted returns the answer of a question about the world, and notes it.
func noted[T any](m *maker, ask func(m *maker) T) T {
	answer := ask(m)
	if m.part != nil {
		m.part.reads = append(m.part.reads, func(now *maker) bool { return reflect.DeepEqual(ask(now), answer) })
	}
	return answer
}

// reportOf makes the report of a pull request, or keeps that of the last plan.
func (m *maker) reportOf(p Proposal) ProposalReport {
	if m.next == nil {
		return m.proposal(p)
	}
	if kept := m.before.pulls[p.Number]; kept.holdsFor(m, p) {
		m.keep(kept)
		kept.proposal = p // what is new in it was not read
		m.next.pulls[p.Number] = kept
		return kept.report
	}
	made, end := m.newPart()
	defer end()
	made.proposal = p
	p.Merged, made.ofMerged = p.Merged.Watched()
	made.report = m.proposal(p)
	m.next.pulls[p.Number] = made
	m.next.made.Pulls++
	return made.report
}

// same reports whether two proposals say the same, but for the result of merging them, of which parts note what they
// read. It is asked of each in each plan, so it does not walk trees that are copies of each other.
func (p Proposal) same(other Proposal) bool {
	if p.PullRequest != other.PullRequest {
		return false
	}
	p.Merged, other.Merged = delivery.Intent{}, delivery.Intent{}
	for _, trees := range [][2]*delivery.Intent{{&p.Intent, &other.Intent}, {&p.Base, &other.Base}} {
		if a, b := trees[0], trees[1]; a.Models.Same(b.Models) && a.Gates.Same(b.Gates) && a.Fleets.Same(b.Fleets) &&
			a.Releases.Same(b.Releases) && a.Quarantines.Same(b.Quarantines) && a.Files.Same(b.Files) {
			*a, *b = delivery.Intent{}, delivery.Intent{}
		}
	}
	return reflect.DeepEqual(p, other)
}

// modelOnMain makes the report of a model on main, or keeps that of the last plan.
func (m *maker) modelOnMain(name string) MainModel {
	if m.next == nil {
		return m.mainModel(name)
	}
	if kept := m.before.models[name]; kept.holds(m) {
		m.keep(kept)
		m.next.models[name] = kept
		return kept.model
	}
	made, end := m.newPart()
	defer end()
	made.model = m.mainModel(name)
	m.next.models[name] = made
	m.next.made.Models++
	return made.model
}

// What parts read besides the basis.

// runState is the state of a run, and whether there is one.
type runState struct {
	delivery.RunState
	there bool
}

// stateOf returns the state of a run.
func (m *maker) stateOf(key delivery.Digest) (delivery.RunState, bool) {
	s := noted(m, func(m *maker) runState {
		s, there := m.w.Runs[key]
		return runState{s, there}
	})
	return s.RunState, s.there
}

// document is a fleet's published document, and whether there is one.
type document struct {
	delivery.Desired
	there bool
}

// documentOf returns a fleet's published document.
func (m *maker) documentOf(fleet string) (delivery.Desired, bool) {
	d := noted(m, func(m *maker) document {
		d, there := m.w.Published[fleet]
		return document{d, there}
	})
	return d.Desired, d.there
}

// mainCommit returns the commit that main is at.
func (m *maker) mainCommit() string { return noted(m, func(m *maker) string { return m.tip }) }

// history returns the contents of a model's release file on main.
func (m *maker) history(model string) []Past {
	return noted(m, func(m *maker) []Past { return m.w.Main.History[model] })
}

// signedScores returns scores that were read, by their key. What a key names never changes.
func (m *maker) signedScores(key delivery.Digest) (delivery.Scores, bool) {
	there := noted(m, func(m *maker) bool { _, there := m.w.Evidence.Scores[key]; return there })
	return m.w.Evidence.Scores[key], there
}

// scoresOf returns the scores of a bundle that were read, by key.
func (m *maker) scoresOf(bundle delivery.Digest) []delivery.Scores {
	keys := noted(m, func(m *maker) []delivery.Digest {
		if m.scoreKeys == nil {
			m.scoreKeys = map[delivery.Digest][]delivery.Digest{}
			for _, key := range slices.Sorted(maps.Keys(m.w.Evidence.Scores)) {
				of := m.w.Evidence.Scores[key].Input
				m.scoreKeys[of.Bundle] = append(m.scoreKeys[of.Bundle], key)
				if of.Model != of.Bundle {
					m.scoreKeys[of.Model] = append(m.scoreKeys[of.Model], key)
				}
			}
		}
		of := m.scoreKeys[bundle]
		if info, ok := m.w.Evidence.Bundles[bundle]; ok {
			of = slices.Concat(of, m.scoreKeys[info.Model])
		}
		return of
	})
	return delivery.Each(keys, func(key delivery.Digest) delivery.Scores { return m.w.Evidence.Scores[key] })
}

// onMain returns what this plan says about a model on main.
func (m *maker) onMain(model string) (MainModel, bool) {
	type found struct {
		model MainModel
		there bool
	}
	f := noted(m, func(m *maker) found {
		mm, there := m.models[model]
		return found{mm, there}
	})
	return f.model, f.there
}
