package plan

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
)

// A MainReport is what is reported about the main branch.
type MainReport struct {
	Branch string
	Commit string
	Checks []Check
	Models []MainModel
}

// A MainModel is one model on main.
type MainModel struct {
	Model    string
	Named    *delivery.Release // what the release file says; nil for none
	Accepted *delivery.Release // what fleets get; nil for none
	State    delivery.CheckState
	Fact     delivery.Fact
}

// main decides which releases main accepts. A release that main accepted before stays accepted. A new one needs a
// matching release statement. Anything else is refused, and the fleets keep the last accepted release.
func (m *maker) main() MainReport {
	main := m.w.Main
	r := MainReport{Branch: main.Branch, Commit: m.tip}
	if m.tip == "" {
		return r
	}
	if len(main.Complaints) > 0 {
		// fleets adds which fleets stay
		r.Checks = []Check{check(delivery.ContextIntent, delivery.CheckFailure, complaints(main.Complaints))}
		return r
	}
	release := check(delivery.ContextRelease, delivery.CheckSuccess)
	if why := m.w.Evidence.newer(); !why.IsZero() {
		release = check(delivery.ContextRelease, delivery.CheckPending, why.In(code.FleetsStay, values{}))
	}
	for _, name := range main.Intent.Models.Names() {
		mm := m.modelOnMain(name)
		r.Models = append(r.Models, mm)
		if severity(mm.State) > severity(release.State) {
			release = check(delivery.ContextRelease, mm.State)
		}
		if mm.State == release.State && (mm.Named != nil || mm.State != delivery.CheckSuccess) {
			release.Facts = append(release.Facts, mm.Fact)
		}
	}
	if len(release.Facts) == 0 {
		release.Facts = []delivery.Fact{fact(code.MainNoneReleased, values{})}
	}
	intent := check(delivery.ContextIntent, delivery.CheckSuccess, summary(main.Intent))
	if lost := slices.Concat(m.lostEntries(), m.lostGates()); len(lost) > 0 {
		intent = check(delivery.ContextIntent, delivery.CheckFailure, lost...)
	}
	intent.Facts = slices.Concat(intent.Facts, AwaitedModels(main.Intent), UndeclaredVariants(main.Intent),
		m.invalidOwners(main.Intent),
		m.unknownTrackers(main.Intent))
	r.Checks = []Check{intent, release}
	return r
}

// unread says which gate or quarantine file of main cannot be read. Nothing is judged meanwhile, because a requirement
// may be missing.
func (m *maker) unread() (why delivery.Fact, quarantine bool) {
	for _, c := range m.w.Main.Complaints {
		name := strings.TrimSuffix(path.Base(c.File), ".yaml")
		of, quarantine := strings.CutSuffix(name, ".quarantine")
		_, gateRead := m.w.Main.Intent.Gates.Get(name)
		_, quarantineRead := m.w.Main.Intent.Quarantines.Get(of)
		if strings.HasPrefix(c.File, "gates/") && !gateRead || quarantine && !quarantineRead {
			return complaints([]delivery.Complaint{c}), quarantine
		}
	}
	return delivery.Fact{}, false
}

func (m *maker) mainModel(name string) MainModel {
	mm := MainModel{Model: name, State: delivery.CheckSuccess}
	names := m.w.names(name)
	before := m.accepted(name)
	if len(before) > 0 {
		mm.Accepted = &before[0]
	}
	named, ok := m.w.Main.Intent.Releases.Get(name)
	if !ok {
		mm.Fact = fact(code.MainNoRelease, values{Model: name})
		if mm.Accepted != nil {
			mm.Fact = fact(code.MainFileRemoved, values{Model: name, Version: mm.Accepted.Version})
		}
		return mm
	}
	mm.Named = &named
	is := func(state delivery.CheckState, c delivery.Code, facts ...delivery.Fact) MainModel {
		mm.State, mm.Fact = state, fact(c, values{Model: name, Version: named.Version, Facts: facts})
		return mm
	}
	if !m.w.Evidence.newer().IsZero() {
		return is(delivery.CheckPending, code.MainNewer)
	}
	if why := m.historyUnknown(names); !why.IsZero() && (!m.w.Evidence.accepted(named) || !m.ships(name, named)) {
		return is(delivery.CheckPending, code.MainWaits, why)
	}
	refuse := func(why delivery.Fact) MainModel {
		mm := is(delivery.CheckFailure, code.MainRefused, why)
		m.proposeRestore(name, named, before, mm.Fact)
		return mm
	}
	if h, is := m.quarantined(m.w.names(name), named.Bundle); is {
		return refuse(h.why)
	}
	if !m.ships(name, named) {
		return refuse(fact(code.SpecOther, values{Model: name, Version: named.Version}))
	}
	if m.w.Evidence.accepted(named) && m.fileEdited(named) {
		return is(delivery.CheckFailure, code.MainEdited)
	}
	if m.w.Evidence.accepted(named) {
		if fails := m.todaysGates(name, named); len(fails) > 0 {
			return is(delivery.CheckSuccess, code.MainAcceptedBack, fails...)
		}
		return is(delivery.CheckSuccess, code.MainAccepted)
	}
	var last delivery.Digest
	if len(before) > 0 {
		last = before[0].Bundle
	}
	statement, ok := m.w.Evidence.statement(named, last)
	if !ok {
		return refuse(fact(code.StatementMissing, values{Bundle: named.Bundle}))
	}
	if statement.Baseline != last {
		return refuse(fact(code.BaselineMoved, values{FromBundle: statement.Baseline, Bundle: last}))
	}
	for _, r := range m.everAccepted(m.w.names(name)) {
		if r.Version >= named.Version {
			return refuse(fact(code.VersionTaken, values{Version: r.Version, Bundle: r.Bundle}))
		}
	}
	switch judged := m.judged(name, statement, ""); judged.State {
	case delivery.CheckSuccess:
	case delivery.CheckPending:
		return is(delivery.CheckPending, code.MainJudging, judged.Fact)
	default:
		return refuse(judged.Fact)
	}
	variants, waits := m.judgedVariants(name, statement)
	if waits.State == delivery.CheckPending {
		return is(delivery.CheckPending, code.MainJudging, waits.Fact)
	}
	m.step(Sign{Bundle: named.Bundle, Type: delivery.AcceptanceType, Of: name,
		Predicate: delivery.Acceptance{Model: name, Version: named.Version, Spec: named.Spec, Bundle: named.Bundle,
			Commit: m.mainCommit(), RenamedFrom: statement.RenamedFrom, Variants: variants}})
	return is(delivery.CheckPending, code.MainAccepting)
}

// todaysGates says which of main's gates a release would fail now that main has gone back to. It uses the signed scores
// only, so that a rollback never waits.
func (m *maker) todaysGates(name string, named delivery.Release) []delivery.Fact {
	newest := !slices.ContainsFunc(m.w.Evidence.Accepted[name], func(a delivery.Acceptance) bool {
		return a.Version > named.Version
	})
	if newest {
		return nil
	}
	var verdicts []delivery.Verdict
	for _, g := range m.w.Main.Intent.Covering(name) {
		if score, ok := m.storedScore(m.w.Main.Intent.Models.Of(name), named.Bundle, m.w.Main.Intent.Gates.Of(g)); ok {
			verdicts = append(verdicts, gate.Judge(g, m.w.Main.Intent.Gates.Of(g),
				m.gateInput(m.w.Main.Intent.Models.Of(name), m.w.Main.Intent.Gates.Of(g), score, false)))
		}
	}
	return failing(verdicts)
}

// judgedVariants returns the variants of a release statement that have passed every gate of main which covers the
// model.
func (m *maker) judgedVariants(model string, s delivery.ReleaseStatement) (list []delivery.AcceptedVariant,
	waits Stage) {
	for _, v := range s.Variants {
		of := s
		of.Bundle, of.Gates = v.Bundle, v.Gates
		switch stage := m.judged(model, of, s.Bundle); stage.State {
		case delivery.CheckSuccess:
			list = append(list, delivery.AcceptedVariant{Variant: v.Variant, Bundle: v.Bundle})
		case delivery.CheckPending:
			waits = stage
		}
	}
	return list, waits
}

// judged checks that every gate of main which covers the model has passed it, in a release statement or by the stored
// scores. fp32 is for the statement about a variant: the bundle of the model that it is made of.
func (m *maker) judged(model string, s delivery.ReleaseStatement, fp32 delivery.Digest) Stage {
	gates := m.w.Main.Intent.Covering(model)
	if len(gates) == 0 {
		return failed(fact(code.NoGateOnMain, values{Branch: m.w.Main.Branch}))
	}
	waits := Stage{State: delivery.CheckSuccess}
	for _, name := range gates {
		g := m.w.Main.Intent.Gates.Of(name)
		if slices.ContainsFunc(s.Gates, func(j delivery.GateJudged) bool {
			return j.Spec == g.Digest() && j.Settled(g.Owners)
		}) {
			continue
		}
		v, stage := m.judgeStored(m.w.Main.Intent.Models.Of(model), judged{name: name, gate: g}, s.Bundle, s.Baseline,
			fp32)
		switch {
		case stage.State == delivery.CheckPending:
			stage.Fact = stage.Fact.In(code.OfGate, values{Gate: name})
			waits = stage
		case stage.State != delivery.CheckSuccess:
			return stage
		case verdictState(v.Outcome) != delivery.CheckSuccess:
			return failed(gateSays(name, v))
		}
	}
	return waits
}

// gateSays returns a gate's outcome with its reason.
func gateSays(gate string, v delivery.Verdict) delivery.Fact {
	return ReasonOf(v).In(code.GateSays, values{Gate: gate, Outcome: v.Outcome})
}

// judgeStored judges a bundle by a gate from signed scores. A missing comparison is run. fp32 is for a variant: the
// bundle of the model that it is made of.
func (m *maker) judgeStored(mdl delivery.Model, j judged, bundle, baseline, fp32 delivery.Digest) (delivery.Verdict,
	Stage) {
	name, g := j.name, j.gate
	if why := m.wrongClasses(mdl, []judged{j}); !why.IsZero() {
		return delivery.Verdict{}, failed(why)
	}
	unknown := failed(fact(code.GateNotJudged, values{Gate: name}))
	score, ok := m.storedScore(mdl, bundle, g)
	if !ok {
		return delivery.Verdict{}, unknown
	}
	in := m.gateInput(mdl, g, score, true)
	in.SameBundle = bundle == baseline
	in.BaselineBundle = baseline
	run := m.runner(Proposal{Permission: delivery.PermissionWrite}, "", mdl.Name+" on main")
	if baseline != "" && baseline != bundle {
		base, ok := m.storedScore(mdl, baseline, g)
		if !ok || base.Content.Digest() != score.Content.Digest() {
			return delivery.Verdict{}, unknown
		}
		compare, key, stage := m.compare(score, base, g, run)
		if stage.State != delivery.CheckSuccess {
			return delivery.Verdict{}, stage
		}
		in.Baseline, in.Compare, in.CompareKey = &gate.Measured{Key: base.Key, Scores: base.Scores}, compare, key
	}
	if !in.SameBundle {
		in.Look = m.lookNumber(cmp.Or(fp32, bundle), baseline, in.EvalSet) // a variant is no further look
	}
	var stage Stage
	if in.Anchors, stage = m.anchors(judgement{judged: judged{gate: g}, score: score, fp32: fp32},
		func(b delivery.Digest) (delivery.Scores, Stage) {
			if base, ok := m.storedScore(mdl, b, g); ok && base.Content.Digest() == score.Content.Digest() {
				return base, Stage{State: delivery.CheckSuccess}
			}
			return delivery.Scores{}, unknown
		}, run); stage.State != delivery.CheckSuccess {
		return delivery.Verdict{}, stage
	}
	if list := gate.Awaited(g, in); len(list) > 0 {
		return delivery.Verdict{}, pending(several(list...))
	}
	return gate.Judge(name, g, in), Stage{State: delivery.CheckSuccess}
}

// judgeCurrent judges main's releases by the gates that a proposal adds or changes, so that reviewers see which would
// fail. A verdict without an outcome is still pending.
func (m *maker) judgeCurrent(p Proposal, gates []string) ([]delivery.Verdict, []gate.ModelPower) {
	var verdicts []delivery.Verdict
	var powers []gate.ModelPower
	for _, name := range gates {
		g, ok := p.Intent.Gates.Get(name)
		if !ok {
			continue // removed
		}
		for _, model := range g.Covers {
			names := m.w.names(model)
			if !m.historyUnknown(names).IsZero() {
				verdicts = append(verdicts, delivery.Verdict{Gate: name, Model: model})
				continue
			}
			release := m.baseline(names)
			mdl, ok := m.w.Main.Intent.Models.Get(model)
			if release == nil || !ok {
				continue
			}
			r := &progress{ModelReport: ModelReport{Model: model, Spec: mdl.SpecDigest(), Bundle: release.Bundle,
				Baseline: release}, names: names, model: mdl,
				run: m.runner(p, ApprovalCode(mdl, g), fmt.Sprintf("gate %s, #%d", name, p.Number))}
			list := []judged{{name: name, gate: g}}
			v := delivery.Verdict{Gate: name, Model: model}
			if why := m.wrongClasses(mdl, []judged{{name: name, gate: g, proposed: true}}); !why.IsZero() {
				v.Outcome, v.Because = delivery.Fail, []delivery.Fact{why}
			} else if m.readData(r, list) {
				if judged, _ := m.judge(r, list); len(r.Verdicts) > 0 {
					v = r.Verdicts[0]
					powers = append(powers, m.power(name, model, g, judged[0].score))
				}
			}
			if v.Outcome == "" {
				for _, s := range r.Stages { // a failed stage counts as a failed verdict
					if s.State == delivery.CheckFailure {
						v.Outcome, v.Because = delivery.Fail, []delivery.Fact{s.Fact}
					}
				}
			}
			verdicts = append(verdicts, v)
		}
	}
	return verdicts, powers
}

func (m *maker) power(name, model string, g delivery.Gate, score delivery.Scores) gate.ModelPower {
	verdicts := m.w.Evidence.verdictsOn(judgedOn{model, score.Content.Digest()})
	return gate.ModelPower{Gate: name, Model: model, Images: score.Scores.Images, Groups: score.Scores.Groups,
		Checks: gate.Powers(g, score.Scores, verdicts)}
}

// Powers returns how small a drop a gate of main can detect, for each covered model whose release has scores on its
// eval set.
func Powers(w World, name string) []gate.ModelPower {
	return (&maker{w: w, scored: map[delivery.Digest]bool{}}).powers(name)
}

func (m *maker) powers(name string) (list []gate.ModelPower) {
	g := m.w.Main.Intent.Gates.Of(name)
	for _, model := range g.Covers {
		mdl, there := m.w.Main.Intent.Models.Get(model)
		if release := m.baseline(m.w.names(model)); release != nil && there {
			if score, ok := m.storedScore(mdl, release.Bundle, g); ok {
				list = append(list, m.power(name, model, g, score))
			}
		}
	}
	return list
}

// proposeRestore opens a pull request that restores a refused model's files to main's last accepted release.
func (m *maker) proposeRestore(model string, named delivery.Release, before []delivery.Release, why delivery.Fact) {
	restore := map[string]string{"models/" + model + ".release.yaml": ""}
	title := fact(code.TakeBackTitle, values{Model: model, Version: named.Version})
	// files under a former name do not count
	before = slices.DeleteFunc(slices.Clone(before), func(r delivery.Release) bool { return r.Name != model })
	if len(before) > 0 {
		commit, ok := m.commitOf(model, before[0])
		if !ok {
			return // the commit is not known; the failure is shown on main's commit
		}
		restore["models/"+model+".release.yaml"] = commit
		restore["models/"+model+".yaml"] = commit
		title = fact(code.RestoreTitle, values{Model: model, Version: before[0].Version})
	}
	m.propose(Propose{Branch: fmt.Sprintf("aob/restore-%s-%s", model,
		named.Bundle.Hex()[:min(12, len(named.Bundle.Hex()))]), Base: m.mainCommit(),
		Title: title, Body: why.In(code.RestoreBody, values{}), Restore: restore})
}

// commitOf finds the newest commit of main that has release r with its spec.
func (m *maker) commitOf(model string, r delivery.Release) (string, bool) {
	past, ok := delivery.Find(m.history(model), func(past Past) bool {
		return past.Release != nil && past.Spec == r.Spec && delivery.SameRelease(*past.Release, r)
	})
	return past.Commit, ok
}
