package plan

// This file keeps a fleet's gates when the fleet changes to another model. Gates cover models by name, so the fleet
// would lose its gates otherwise. The new model is judged by every gate of the model that the fleet runs, with that
// model's release as the baseline: in the pull request, and again on main before the rollout begins. These are
// the fleet's gates.

import (
	"fmt"
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/rollout"
)

// A Repoint is a commit of main that changed which model a fleet runs.
type Repoint struct {
	Commit string
	From   string          // the model that the fleet file named before
	Gates  []delivery.Gate // that covered From just before
}

// fleetGates are the gates that another model must pass before a fleet runs it.
type fleetGates struct {
	fleet delivery.Fleet    // as the file says
	from  string            // the model that the fleet runs now
	runs  *delivery.Release // the release of that model; nil where none was accepted
	gates []judged
}

// values returns the fleet, the release that it runs, and the names of the gates.
func (b fleetGates) values() values {
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

// sameLine reports whether two names are names of the same model, now or before a rename.
func (m *maker) sameLine(a, b string) bool {
	return a == b || slices.Contains(m.w.names(a), b) || slices.Contains(m.w.names(b), a)
}

// fleetGatesOf returns the gates of a fleet whose file changes from before to f; before is nil where main has no such
// file. The published document says what the fleet runs, because main's file may have been changed and refused since.
// It reports false where there are none.
func (m *maker) fleetGatesOf(f delivery.Fleet, before *delivery.Fleet) (fleetGates, bool) {
	b := fleetGates{fleet: f}
	published, known := m.documentOf(f.Name)
	known = known && published.Release.Bundle != ""
	changes := before != nil && !m.sameLine(before.Runs, f.Runs)
	switch {
	case known && m.sameLine(published.Model, f.Runs):
		return b, false
	case known:
		b.from, b.runs = published.Model, m.published(published)
	case changes:
		b.from = before.Runs
		if r, ok := m.pinned(*before); ok {
			b.runs = &r
		} else {
			b.runs = first(m.accepted(before.Runs))
		}
		if b.runs != nil {
			ships, _ := m.shipped(*before, *b.runs)
			b.runs = &ships
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
				label += "." + g.Digest().Hex()[:6] // an earlier version of the same gate
			}
		}
		b.gates = append(b.gates, judged{name: g.Name, gate: g, as: label})
	}
	covering := func(model string) {
		for _, name := range m.w.Main.Intent.Covering(model) {
			add(m.w.Main.Intent.Gates.Of(name))
		}
	}
	covering(b.from)
	if changes {
		covering(before.Runs)
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

// published returns the accepted release that a ring runs by its published document.
func (m *maker) published(d delivery.Desired) *delivery.Release {
	target := d.Release
	if _, is := m.quarantined(m.w.names(d.Model), target.Bundle); is && d.Previous != nil {
		target = *d.Previous
	}
	r := delivery.Release{Name: d.Model, Version: target.Version, Bundle: target.Bundle}
	for _, name := range m.w.names(d.Model) {
		for _, a := range m.w.Evidence.Accepted[name] {
			if _, is := a.Variant(target.Bundle); is {
				r.Spec = a.Spec
			}
		}
	}
	return &r
}

// mayRunAnyway reports whether a fleet may run a bundle without passing its gates: it runs the bundle now, or has run
// it before. So a rollback never waits.
func (m *maker) mayRunAnyway(b fleetGates, bundle delivery.Digest) bool {
	m.isLive() // devices report
	return b.runs != nil && b.runs.Bundle == bundle || rollout.HasRun(b.fleet, m.w.Devices[b.fleet.Name], bundle)
}

// fleetGatesFor lists the gates that a model must pass in a proposal: those of every fleet that runs another model now.
// A new fleet that can match the same devices as a removed one must pass the removed fleet's gates.
func (m *maker) fleetGatesFor(p Proposal, model string) []fleetGates {
	var list []fleetGates
	for _, name := range p.Merged.Fleets.Keyed(model) {
		f := p.Merged.Fleets.Of(name)
		onMain, exists := m.w.Main.Intent.Fleets.Get(name)
		if exists {
			if b, ok := m.fleetGatesOf(f, &onMain); ok {
				list = append(list, b)
			}
			continue
		}
		if b, ok := m.fleetGatesOf(f, nil); ok {
			list = append(list, b)
		}
		for _, old := range m.w.Main.Intent.Fleets.Names() {
			removed := m.w.Main.Intent.Fleets.Of(old)
			if _, kept := p.Merged.Fleets.Get(old); !kept && overlap(removed.Match, f.Match) {
				removed.Name = f.Name
				if b, ok := m.fleetGatesOf(f, &removed); ok {
					list = append(list, b)
				}
			}
		}
	}
	return list
}

// overlap reports whether a device can match both sets of labels.
func overlap(a, b map[string]string) bool {
	for k, v := range a {
		if other, ok := b[k]; ok && other != v {
			return false
		}
	}
	return true
}

// repointed lists the models that a proposal does not change and that a fleet changes to.
func (m *maker) repointed(p Proposal, changed []string) []string {
	var names []string
	main := m.w.Main.Intent.Fleets
	for _, name := range main.Changed(p.Merged.Fleets, func(name string) bool {
		onMain, f := main.Of(name), p.Merged.Fleets.Of(name)
		return onMain.Runs == f.Runs && onMain.Version == f.Version && onMain.Ships() == f.Ships()
	}) {
		f, there := p.Merged.Fleets.Get(name)
		if there && !slices.Contains(changed, f.Runs) && !slices.Contains(names, f.Runs) &&
			len(m.fleetGatesFor(p, f.Runs)) > 0 {
			names = append(names, f.Runs)
		}
	}
	slices.Sort(names)
	return names
}

// reportFleetGates reports which gates of fleets judge the model, and which of those will not cover it after the merge.
func (r *ModelReport) reportFleetGates(p Proposal, fleets []fleetGates) {
	for _, b := range fleets {
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

// judgeFleetGates judges a model by the gates of some fleets, and reports whether it passes.
func (m *maker) judgeFleetGates(r *progress, fleets []fleetGates) (list []judgement, pass bool) {
	pass = true
	for _, b := range fleets {
		answers, passed := m.judgeFleet(r, b, r.Bundle, r.Bundle)
		list, pass = append(list, answers...), pass && passed
	}
	return list, pass
}

// judgeFleet judges the bundle of a model that a fleet would get by the gates of that fleet, in a pull request. fp32 is
// the same bundle, or that of the model which the fleet's variant is made of.
func (m *maker) judgeFleet(r *progress, b fleetGates, bundle, fp32 delivery.Digest) ([]judgement, bool) {
	if m.mayRunAnyway(b, bundle) {
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
	if fp32 != bundle {
		c.fp32 = fp32
	}
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
	r.Verdicts, r.Unsure = append(r.Verdicts, c.Verdicts...), append(r.Unsure, c.Unsure...)
	return list, ok
}

// repoint reports about a model that a proposal does not change and that fleets change to.
func (m *maker) repoint(p Proposal, name string) ModelReport {
	mdl := p.Merged.Models.Of(name)
	r := &progress{ModelReport: ModelReport{Model: name}, names: m.w.names(name), proposal: p, model: mdl,
		run: m.runner(p, ApprovalCode(mdl), fmt.Sprintf("%s, #%d", name, p.Number))}
	if why := m.baselineUnknown(p, name); !why.IsZero() {
		m.needsUnknown(p)
		return r.end(delivery.CheckPending, why.In(code.Waits, values{}))
	}
	fleets := m.fleetGatesFor(p, name)
	r.Spec, r.Fleets = mdl.SpecDigest(), fleetsOf(p, name)
	r.reportFleetGates(p, fleets)
	var list []delivery.Fact
	all := true
	judged := map[delivery.Digest][]judgement{}
	for _, b := range fleets {
		target, ok := m.target(b.fleet)
		switch {
		case !ok && b.fleet.Version > 0:
			return r.end(delivery.CheckFailure, fact(code.FleetPinUnknown,
				values{Version: b.fleet.Version, Model: name}).In(code.OfFleet, values{Fleet: b.fleet.Name}))
		case !ok:
			if why := undeclared(p.Merged, b.fleet); !why.IsZero() {
				return r.end(delivery.CheckFailure, why)
			}
			keeps := b.values()
			keeps.Model = name
			list = append(list, fact(code.FleetKeeps, keeps))
			continue
		}
		r.Bundle = target.Bundle
		target, lacks := m.shipped(b.fleet, target)
		if !lacks.IsZero() {
			return r.end(delivery.CheckFailure, lacks.In(code.OfFleet, values{Fleet: b.fleet.Name}))
		}
		if r.Data == nil && !m.mayRunAnyway(b, target.Bundle) && !m.readData(r, nil, fleets...) {
			return r.end(blockedBy(r.Stages))
		}
		answers, ok := m.judgeFleet(r, b, target.Bundle, r.Bundle)
		judged[target.Bundle] = append(judged[target.Bundle], answers...)
		goes := b.values()
		goes.Model, goes.Version = name, target.Version
		if all = all && ok; m.mayRunAnyway(b, target.Bundle) {
			list = append(list, fact(code.FleetGoesBack, goes))
		} else {
			list = append(list, fact(code.FleetGoes, goes))
		}
	}
	if !all {
		return r.end(blockedBy(r.Stages))
	}
	if !m.signFleetGates(name, judged) {
		return r.end(delivery.CheckPending, fact(code.FleetGatesSigning, values{}))
	}
	return r.end(delivery.CheckSuccess, several(list...))
}

// signFleetGates adds the verdicts of fleets' gates, by the bundle that the fleets would get, to the signed evidence of
// accepted releases. It reports whether they are signed.
func (m *maker) signFleetGates(model string, judged map[delivery.Digest][]judgement) bool {
	for _, bundle := range slices.Sorted(maps.Keys(judged)) {
		if !m.signOneFleets(model, bundle, judged[bundle]) {
			return false
		}
	}
	return true
}

func (m *maker) signOneFleets(model string, bundle delivery.Digest, list []judgement) bool {
	if len(list) == 0 {
		return true
	}
	released := m.fp32Of(bundle)
	statement, ok := m.w.Evidence.release(released, func(s delivery.ReleaseStatement) bool {
		return s.Bundle == released && slices.Contains(m.w.names(model), s.Model) && m.w.Evidence.accepted(s.File)
	})
	if !ok {
		return true // nothing is accepted yet: main judges it from the scores
	}
	gates := delivery.Each(list, judgement.signed)
	if bundle == released {
		statement.Gates = gates
	} else {
		statement.Variants = slices.Clone(statement.Variants)
		for v := range statement.Variants {
			if statement.Variants[v].Bundle == bundle {
				statement.Variants[v].Gates = gates
			}
		}
	}
	if _, signed := m.w.Evidence.release(released, func(s delivery.ReleaseStatement) bool {
		return sameStatement(s, statement)
	}); signed {
		return true
	}
	statement.TargetCommit = m.mainCommit()
	m.step(Sign{Bundle: released, Type: delivery.ReleaseType, Predicate: statement, Of: model})
	return false
}

// target returns the release that a fleet follows or is pinned to, with its FP32 bundle.
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

// mayChange says whether a fleet on main may change to a release of another model: every gate of the fleet must have
// passed it, in a signed statement or by the stored scores.
func (m *maker) mayChange(b fleetGates, target delivery.Release) Stage {
	passed := Stage{State: delivery.CheckSuccess}
	if m.mayRunAnyway(b, target.Bundle) {
		return passed
	}
	var baseline delivery.Digest
	if b.runs != nil {
		baseline = b.runs.Bundle
	}
	var fp32 delivery.Digest // of a variant
	if of := m.fp32Of(target.Bundle); of != target.Bundle {
		fp32 = of
	}
	mdl := m.w.Main.Intent.Models.Of(b.fleet.Runs)
	for _, j := range b.gates {
		owners := m.owners(j)
		if _, settled := m.w.Evidence.release(target.Bundle, func(s delivery.ReleaseStatement) bool {
			return slices.ContainsFunc(gatesOf(s, target.Bundle), func(g delivery.GateJudged) bool {
				return g.Spec == j.gate.Digest() && g.Verdict.Baseline == baseline && g.Settled(owners)
			})
		}); settled {
			continue
		}
		v, stage := m.judgeStored(mdl, j, target.Bundle, baseline, fp32)
		switch {
		case stage.State == delivery.CheckPending:
			return pending(stage.Fact.In(code.OfGate, values{Gate: j.name}))
		case stage.State != delivery.CheckSuccess:
			return stage
		case verdictState(v.Outcome) != delivery.CheckSuccess:
			return failed(gateSays(j.name, v))
		}
	}
	return passed
}

// gatesOf returns the verdicts on a bundle in a release statement: on the model, or on one of its variants.
func gatesOf(s delivery.ReleaseStatement, bundle delivery.Digest) []delivery.GateJudged {
	if s.Bundle == bundle {
		return s.Gates
	}
	v, _ := delivery.Find(s.Variants, func(v delivery.JudgedVariant) bool { return v.Bundle == bundle })
	return v.Gates
}
