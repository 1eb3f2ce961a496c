package plan

// This file lets a fleet carry its bar. A gate covers models by name, so a fleet that
// is told to run another model would leave its gates behind. What it is to run is
// judged by every gate that covers what it ran, with what it runs as the baseline:
// in a pull request, and again on main before its devices are told.

import (
	"fmt"
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/rollout"
)

// A Repoint is a commit of main that made a fleet run another model.
type Repoint struct {
	Commit string
	From   string          // the model that the fleet file named before
	Gates  []delivery.Gate // that covered it just before
}

// A bar is what a fleet asks of another model than it runs.
type bar struct {
	fleet delivery.Fleet    // as it will be
	from  string            // the model that it runs
	runs  *delivery.Release // what it runs of that; nil where nothing was accepted
	gates []judged
}

// values are the fleet, what it runs, and the gates that the bar is made of.
func (b bar) values() values {
	v := values{Fleet: b.fleet.Name, FromModel: b.from}
	if b.runs != nil {
		v.FromVersion = b.runs.Version
	}
	for _, j := range b.gates {
		if !slices.Contains(v.Gates, j.name) {
			v.Gates = append(v.Gates, j.name)
		}
	}
	return v
}

// sameLine reports whether two names are of one model.
func (m *maker) sameLine(a, b string) bool {
	return a == b || slices.Contains(m.w.names(a), b) || slices.Contains(m.w.names(b), a)
}

// barOf finds the bar of a fleet that is to be as f says, and that main has as was;
// nil where main does not have it. What the ring was last told counts for what it
// runs: main's file may have been changed, and refused, since.
func (m *maker) barOf(f delivery.Fleet, was *delivery.Fleet) (bar, bool) {
	b := bar{fleet: f}
	published, told := m.w.Published[f.Name]
	told = told && published.Release.Bundle != ""
	changes := was != nil && !m.sameLine(was.Runs, f.Runs)
	switch {
	case told && m.sameLine(published.Model, f.Runs):
		return b, false
	case told:
		b.from, b.runs = published.Model, m.published(published)
	case changes:
		b.from = was.Runs
		if r, ok := m.pinned(*was); ok {
			b.runs = &r
		} else {
			b.runs = first(m.accepted(was.Runs))
		}
	default:
		return b, false
	}
	add := func(g delivery.Gate) {
		label := g.Name + ".fleet-" + f.Name
		for _, j := range b.gates {
			if j.gate.Digest() == g.Digest() {
				return
			}
			if j.as == label {
				label += "." + g.Digest().Hex()[:6] // the gate as it was before
			}
		}
		b.gates = append(b.gates, judged{name: g.Name, gate: g, as: label})
	}
	covering := func(model string) {
		for _, name := range m.w.Main.Intent.Covering(model) {
			add(m.w.Main.Intent.Gates[name])
		}
	}
	covering(b.from)
	if changes {
		covering(was.Runs)
	}
	for _, step := range m.w.Main.Repointed[f.Name] {
		for _, g := range step.Gates {
			add(g)
		}
	}
	for _, l := range m.w.Main.Lost {
		if slices.Contains(l.Gate.Covers, b.from) {
			add(l.Gate)
		}
	}
	return b, len(b.gates) > 0
}

// published finds the accepted release that a ring was told to run.
func (m *maker) published(d delivery.Desired) *delivery.Release {
	target := d.Release
	if _, is := m.quarantined(m.w.names(d.Model), target.Bundle); is && d.Previous != nil {
		target = *d.Previous
	}
	r := delivery.Release{Name: d.Model, Version: target.Version, Bundle: target.Bundle}
	for _, name := range m.w.names(d.Model) {
		for _, a := range m.w.Evidence.Accepted[name] {
			if a.Bundle == target.Bundle {
				r.Spec = a.Spec
			}
		}
	}
	return &r
}

// free reports whether a fleet may go to a bundle whatever its bar says: it runs the
// bundle, or has run it before. A way back waits for nothing.
func (m *maker) free(b bar, bundle delivery.Digest) bool {
	return b.runs != nil && b.runs.Bundle == bundle || rollout.HasRun(b.fleet, m.w.Devices[b.fleet.Name], bundle)
}

// bars lists the bars that a proposal brings to a model: of every fleet that will run
// it and runs another one. A new fleet that takes the place of a removed one, with
// labels that the same devices may have, brings that one's bar.
func (m *maker) bars(p Proposal, model string) []bar {
	var list []bar
	for _, name := range slices.Sorted(maps.Keys(p.Merged.Fleets)) {
		f := p.Merged.Fleets[name]
		if f.Runs != model {
			continue
		}
		onMain, there := m.w.Main.Intent.Fleets[name]
		if there {
			if b, ok := m.barOf(f, &onMain); ok {
				list = append(list, b)
			}
			continue
		}
		if b, ok := m.barOf(f, nil); ok {
			list = append(list, b)
		}
		for _, old := range slices.Sorted(maps.Keys(m.w.Main.Intent.Fleets)) {
			was := m.w.Main.Intent.Fleets[old]
			if _, kept := p.Merged.Fleets[old]; !kept && overlap(was.Match, f.Match) {
				was.Name = f.Name
				if b, ok := m.barOf(f, &was); ok {
					list = append(list, b)
				}
			}
		}
	}
	return list
}

// overlap reports whether a device may have the labels of both.
func overlap(a, b map[string]string) bool {
	for k, v := range a {
		if other, ok := b[k]; ok && other != v {
			return false
		}
	}
	return true
}

// repointed names the models that a proposal leaves as they are and lets a fleet run
// that ran another one.
func (m *maker) repointed(p Proposal, changed []string) []string {
	var names []string
	for _, f := range p.Merged.Fleets {
		onMain, there := m.w.Main.Intent.Fleets[f.Name]
		same := there && onMain.Runs == f.Runs && onMain.Version == f.Version
		if !same && !slices.Contains(changed, f.Runs) && !slices.Contains(names, f.Runs) && len(m.bars(p, f.Runs)) > 0 {
			names = append(names, f.Runs)
		}
	}
	slices.Sort(names)
	return names
}

// carry says which gates fleets bring with them to a model, and which of them judge it no more once the proposal is
// merged.
func (r *ModelReport) carry(p Proposal, bars []bar) {
	for _, b := range bars {
		brings := b.values()
		brings.Model = r.Model
		r.Carried = append(r.Carried, fact(code.FleetBrings, brings))
		covering := p.Merged.Covering(r.Model)
		var left []string
		for _, j := range b.gates {
			if !slices.Contains(covering, j.name) && !slices.Contains(left, j.name) {
				left = append(left, j.name)
			}
		}
		if len(left) == 0 {
			continue
		}
		r.Carried = append(r.Carried, fact(code.FleetBringsUntil,
			values{Fleet: b.fleet.Name, Model: r.Model, Gates: left, Names: covering}))
	}
}

// judgeBars lets the gates of all bars judge a model in a pull request, and reports whether they pass it.
func (m *maker) judgeBars(r *progress, bars []bar) (list []judgement, pass bool) {
	pass = true
	for _, b := range bars {
		answers, passed := m.judgeBar(r, b, r.Bundle)
		list, pass = append(list, answers...), pass && passed
	}
	return list, pass
}

// judgeBar lets a fleet's gates judge a model in a pull request.
func (m *maker) judgeBar(r *progress, b bar, bundle delivery.Digest) ([]judgement, bool) {
	if m.free(b, bundle) {
		for _, j := range b.gates {
			r.stage(delivery.ContextGate+j.as, delivery.CheckSuccess, fact(code.FleetRanBefore,
				values{Fleet: b.fleet.Name, Bundle: bundle}))
		}
		return nil, true
	}
	if why := m.wrongClasses(r.model, b.gates); !why.IsZero() {
		r.stage(delivery.ContextGate+b.gates[0].as, delivery.CheckFailure, why.In(code.OfFleet,
			values{Fleet: b.fleet.Name}))
		return nil, false
	}
	c := &progress{ModelReport: ModelReport{Model: r.Model, Spec: r.Spec, Bundle: bundle, Baseline: b.runs},
		names: m.w.names(b.from), proposal: r.proposal, fleet: b.fleet.Name, model: r.model, data: r.data, run: r.run}
	list, ok := m.judge(c, b.gates)
	for _, s := range c.Stages {
		if s.Context == delivery.ContextEval {
			s.Fact = s.Fact.In(code.OfFleet, values{Fleet: b.fleet.Name})
		}
		r.Stages = append(r.Stages, s)
	}
	for _, j := range b.gates {
		if r.Against == nil {
			r.Against = map[string]*delivery.Release{}
		}
		r.Against[j.as] = b.runs
	}
	r.Links, r.Measured = append(r.Links, c.Links...), append(r.Measured, c.Measured...)
	r.Verdicts, r.Doubts = append(r.Verdicts, c.Verdicts...), append(r.Doubts, c.Doubts...)
	return list, ok
}

// repoint reports about a model that a proposal does not change, and that it lets
// fleets run which run another one.
func (m *maker) repoint(p Proposal, name string) ModelReport {
	mdl := p.Merged.Models[name]
	r := &progress{ModelReport: ModelReport{Model: name}, names: m.w.names(name), proposal: p, model: mdl,
		run: m.runner(p, ApprovalCode(mdl), fmt.Sprintf("%s, #%d", name, p.Number))}
	if why := m.unsureOf(p, name); !why.IsZero() {
		m.isStuck(p)
		return r.end(delivery.CheckPending, why.In(code.Waits, values{}))
	}
	bars := m.bars(p, name)
	r.Spec, r.Fleets = mdl.SpecDigest(), fleetsOf(p, name)
	r.carry(p, bars)
	var list []delivery.Fact
	all := true
	judged := map[delivery.Digest][]judgement{}
	for _, b := range bars {
		target, ok := m.target(b.fleet)
		switch {
		case !ok && b.fleet.Version > 0:
			return r.end(delivery.CheckFailure, fact(code.FleetPinUnknown,
				values{Version: b.fleet.Version, Model: name}).In(code.OfFleet, values{Fleet: b.fleet.Name}))
		case !ok:
			keeps := b.values()
			keeps.Model = name
			list = append(list, fact(code.FleetKeeps, keeps))
			continue
		}
		if r.Bundle = target.Bundle; r.Data == nil && !m.free(b, target.Bundle) && !m.readData(r, nil, bars...) {
			return r.end(blockedBy(r.Stages))
		}
		answers, ok := m.judgeBar(r, b, target.Bundle)
		judged[target.Bundle] = append(judged[target.Bundle], answers...)
		goes := b.values()
		goes.Model, goes.Version = name, target.Version
		if all = all && ok; m.free(b, target.Bundle) {
			list = append(list, fact(code.FleetGoesBack, goes))
		} else {
			list = append(list, fact(code.FleetGoes, goes))
		}
	}
	if !all {
		return r.end(blockedBy(r.Stages))
	}
	for _, bundle := range slices.Sorted(maps.Keys(judged)) {
		if signed := m.signBar(name, bundle, judged[bundle]); !signed {
			return r.end(delivery.CheckPending, fact(code.FleetGatesSigning, values{}))
		}
	}
	return r.end(delivery.CheckSuccess, several(list...))
}

// signBar adds what fleets' gates say of an accepted release to its evidence, and
// reports whether it is there.
func (m *maker) signBar(model string, bundle delivery.Digest, list []judgement) bool {
	if len(list) == 0 {
		return true
	}
	i := slices.IndexFunc(m.w.Evidence.Releases, func(s delivery.ReleaseStatement) bool {
		return s.Bundle == bundle && slices.Contains(m.w.names(model), s.Model) && m.w.Evidence.accepted(s.File)
	})
	if i < 0 {
		return true // main judges it from the scores
	}
	statement := m.w.Evidence.Releases[i]
	statement.TargetCommit, statement.Gates = m.w.Main.Commit, nil
	for _, j := range list {
		statement.Gates = append(statement.Gates, delivery.GateJudged{Name: j.label, Spec: j.gate.Digest(),
			Verdict: j.verdict, Accept: j.accept})
	}
	if slices.ContainsFunc(m.w.Evidence.Releases, func(s delivery.ReleaseStatement) bool {
		return sameStatement(s, statement)
	}) {
		return true
	}
	m.step(Sign{Bundle: bundle, Type: delivery.ReleaseType, Predicate: statement, Of: model})
	return false
}

// target is the release that a fleet follows, or is pinned to.
func (m *maker) target(f delivery.Fleet) (delivery.Release, bool) {
	if f.Version > 0 {
		return m.pinned(f)
	}
	list := m.accepted(f.Runs)
	if len(list) == 0 || list[0].Name != f.Runs {
		return delivery.Release{}, false
	}
	return list[0], true
}

// barred says why main does not let a fleet go to a release of another model than it
// runs: a gate of its bar has not passed it, in a pull request or by what is stored.
func (m *maker) barred(b bar, target delivery.Release) Stage {
	passed := Stage{State: delivery.CheckSuccess}
	if m.free(b, target.Bundle) {
		return passed
	}
	var baseline delivery.Digest
	if b.runs != nil {
		baseline = b.runs.Bundle
	}
	mdl := m.w.Main.Intent.Models[b.fleet.Runs]
	for _, j := range b.gates {
		owners := m.owners(j)
		if slices.ContainsFunc(m.w.Evidence.Releases, func(s delivery.ReleaseStatement) bool {
			return s.Bundle == target.Bundle && slices.ContainsFunc(s.Gates, func(g delivery.GateJudged) bool {
				return g.Spec == j.gate.Digest() && g.Verdict.Baseline == baseline && g.Settled(owners)
			})
		}) {
			continue
		}
		v, stage := m.judgeStored(mdl, j, target.Bundle, baseline)
		switch {
		case stage.State == delivery.CheckPending:
			return pending(stage.Fact.In(code.OfGate, values{Gate: j.name}))
		case stage.State != delivery.CheckSuccess:
			return stage
		case verdictState(v.Outcome) != delivery.CheckSuccess:
			return failed(says(j.name, v))
		}
	}
	return passed
}
