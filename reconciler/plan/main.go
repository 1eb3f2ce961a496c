package plan

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
)

// A MainReport is what to tell about the main branch.
type MainReport struct {
	Branch string
	Commit string
	Checks []delivery.Check
	Models []MainModel
}

// A MainModel is one model on main.
type MainModel struct {
	Model    string
	Named    *delivery.Release // what the release file says; nil for none
	Accepted *delivery.Release // what fleets get; nil for none
	State    delivery.CheckState
	Text     string
}

// main decides what main accepts. A release that main accepted before needs no
// new answer; a new one needs a release statement that fits; anything else is
// refused, and the fleets stay with the last accepted release.
func (m *maker) main() MainReport {
	main := m.w.Main
	r := MainReport{Branch: main.Branch, Commit: main.Commit}
	if main.Commit == "" {
		return r
	}
	if len(main.Complaints) > 0 {
		text := main.Complaints[0].String()
		if n := len(main.Complaints) - 1; n > 0 {
			text += fmt.Sprintf(" (and %d more)", n)
		}
		// and fleets says which of them stay
		r.Checks = []delivery.Check{{Context: delivery.ContextIntent, State: delivery.CheckFailure, Description: text}}
		return r
	}
	var texts []string
	worst := delivery.CheckSuccess
	if why := m.w.Evidence.newer(); why != "" {
		worst, texts = delivery.CheckPending, []string{"fleets stay as they are: " + why}
	}
	for _, name := range slices.Sorted(maps.Keys(main.Intent.Models)) {
		mm := m.mainModel(name)
		r.Models = append(r.Models, mm)
		if severity(mm.State) > severity(worst) {
			worst, texts = mm.State, nil
		}
		if mm.State == worst && (mm.Named != nil || worst != delivery.CheckSuccess) {
			texts = append(texts, mm.Text)
		}
	}
	text := strings.Join(texts, "; ")
	if text == "" {
		text = "no model is released yet"
	}
	intent := delivery.Check{Context: delivery.ContextIntent, State: delivery.CheckSuccess,
		Description: summary(main.Intent)}
	if lost := slices.Concat(m.lostEntries(), m.lostGates()); len(lost) > 0 {
		intent.State, intent.Description = delivery.CheckFailure, strings.Join(lost, "; ")
	}
	intent.Description += m.nobodies(main.Intent)
	r.Checks = []delivery.Check{
		intent,
		{Context: delivery.ContextRelease, State: worst, Description: text},
	}
	return r
}

// unread says which gate or quarantine of main cannot be read. Nobody may be judged
// by the rest of them.
func (m *maker) unread() (why string, quarantine bool) {
	for _, c := range m.w.Main.Complaints {
		name := strings.TrimSuffix(path.Base(c.File), ".yaml")
		of, quarantine := strings.CutSuffix(name, ".quarantine")
		_, gateRead := m.w.Main.Intent.Gates[name]
		_, quarantineRead := m.w.Main.Intent.Quarantines[of]
		if strings.HasPrefix(c.File, "gates/") && !gateRead || quarantine && !quarantineRead {
			return c.String(), quarantine
		}
	}
	return "", false
}

func (m *maker) mainModel(name string) MainModel {
	mm := MainModel{Model: name, State: delivery.CheckSuccess}
	names := m.w.names(name)
	before := m.accepted(name)
	if len(before) > 0 {
		mm.Accepted = &before[0]
	}
	named, ok := m.w.Main.Intent.Releases[name]
	if !ok {
		mm.Text = name + ": no release yet; its fleets wait"
		if mm.Accepted != nil {
			mm.Text = fmt.Sprintf("%s: no release file; its fleets stay with version %d", name, mm.Accepted.Version)
		}
		return mm
	}
	mm.Named = &named
	if m.w.Evidence.newer() != "" {
		mm.State, mm.Text = delivery.CheckPending,
			fmt.Sprintf("%s version %d: a newer aob has signed what it was judged by", name, named.Version)
		return mm
	}
	if why := m.unsure(names); why != "" && (!m.w.Evidence.accepted(named) || !m.ships(name, named)) {
		mm.State, mm.Text = delivery.CheckPending, fmt.Sprintf("%s version %d waits: %s", name, named.Version, why)
		return mm
	}
	refuse := func(format string, args ...any) MainModel {
		mm.State = delivery.CheckFailure
		mm.Text = fmt.Sprintf("%s version %d refused: ", name, named.Version) + fmt.Sprintf(format, args...)
		m.proposeRestore(name, named, before, mm.Text)
		return mm
	}
	if h, held := m.held(m.w.names(name), named.Bundle); held {
		return refuse("%s", h.why)
	}
	if !m.ships(name, named) {
		return refuse("models/%s.yaml is not the spec that version %d was made from; change the model in a PR", name,
			named.Version)
	}
	if m.w.Evidence.accepted(named) && m.edited(named) {
		mm.State = delivery.CheckFailure
		mm.Text = fmt.Sprintf("%s version %d: models/%s.release.yaml has other figures than its release statement; "+
			"put back what AOB wrote", name, named.Version, name)
		return mm
	}
	if m.w.Evidence.accepted(named) {
		mm.Text = fmt.Sprintf("%s version %d", name, named.Version) + m.todaysGates(name, named)
		return mm
	}
	var last delivery.Digest
	if len(before) > 0 {
		last = before[0].Bundle
	}
	statement, ok := m.w.Evidence.statement(named, last)
	if !ok {
		return refuse("no release statement names bundle %s with this spec; only what passed its gates in a PR ships",
			named.Bundle.Short())
	}
	if statement.Baseline != last {
		return refuse("it was judged against %s, and main's release is %s; update the PR so that the gates run "+
			"against that", orNone(statement.Baseline), orNone(last))
	}
	for _, r := range m.everAccepted(m.w.names(name)) {
		if r.Version >= named.Version {
			return refuse("main has accepted version %d already, bundle %s; update the PR", r.Version, r.Bundle.Short())
		}
	}
	switch judged := m.judged(name, statement); judged.State {
	case delivery.CheckSuccess:
	case delivery.CheckPending:
		mm.State, mm.Text = delivery.CheckPending, fmt.Sprintf("%s version %d: %s", name, named.Version, judged.Text)
		return mm
	default:
		return refuse("%s", judged.Text)
	}
	m.step(Sign{Bundle: named.Bundle, Type: delivery.AcceptanceType, What: fmt.Sprintf("acceptance of %s version %d",
		name, named.Version),
		Predicate: delivery.Acceptance{Model: name, Version: named.Version, Spec: named.Spec, Bundle: named.Bundle,
			Commit: m.w.Main.Commit, Was: statement.Was}})
	mm.State, mm.Text = delivery.CheckPending, fmt.Sprintf("accepting %s version %d", name, named.Version)
	return mm
}

// todaysGates says, of a release that main has gone back to, which of main's
// gates it would fail now. They are computed from its signed scores alone: a way
// back waits for nothing.
func (m *maker) todaysGates(name string, named delivery.Release) string {
	newest := !slices.ContainsFunc(m.w.Evidence.Accepted[name], func(a delivery.Acceptance) bool {
		return a.Version > named.Version
	})
	if newest {
		return ""
	}
	var verdicts []delivery.Verdict
	for _, g := range m.w.Main.Intent.Covering(name) {
		if score, ok := m.storedScore(m.w.Main.Intent.Models[name], named.Bundle, m.w.Main.Intent.Gates[g]); ok {
			verdicts = append(verdicts, gate.Judge(g, m.w.Main.Intent.Gates[g],
				m.gateInput(m.w.Main.Intent.Models[name], named.Bundle, score)))
		}
	}
	if fails := failing(verdicts); fails != "" {
		return ", a rollback; today's gates would say: " + fails
	}
	return ""
}

func orNone(d delivery.Digest) string {
	if d == "" {
		return "no release"
	}
	return "bundle " + d.Short()
}

// judged says whether every covering gate of main stands in a release statement,
// or passes now on the stored measurements.
func (m *maker) judged(model string, s delivery.ReleaseStatement) Stage {
	gates := m.w.Main.Intent.Covering(model)
	if len(gates) == 0 {
		return Stage{State: delivery.CheckFailure, Text: "no gate covers it on main"}
	}
	waits := Stage{State: delivery.CheckSuccess}
	for _, name := range gates {
		g := m.w.Main.Intent.Gates[name]
		if slices.ContainsFunc(s.Gates, func(j delivery.GateJudged) bool {
			return j.Spec == g.Digest() && j.Settled(g.Owners)
		}) {
			continue
		}
		mdl := m.w.Main.Intent.Models[model]
		v, stage := m.judgeStored(mdl, m.w.names(model), judged{name: name, gate: g}, s.Bundle, s.Baseline,
			func(content delivery.EvalSetContent) string {
				return m.lostClasses(mdl, m.latest(m.w.names(model)), judged{name: name, gate: g}, content)
			})
		switch {
		case stage.State == delivery.CheckPending:
			stage.Text = "gate " + name + ": " + stage.Text
			waits = stage
		case stage.State != delivery.CheckSuccess:
			return stage
		case verdictState(v.Outcome) != delivery.CheckSuccess:
			return Stage{State: delivery.CheckFailure, Text: fmt.Sprintf("gate %s says %s: %s", name, v.Outcome,
				v.Reason)}
		}
	}
	return waits
}

// judgeStored lets a gate answer from signed scores alone. Comparing them may
// take a run.
func (m *maker) judgeStored(mdl delivery.Model, names []string, j judged, bundle, baseline delivery.Digest,
	lost func(delivery.EvalSetContent) string) (delivery.Verdict, Stage) {
	name, g := j.name, j.gate
	unknown := Stage{State: delivery.CheckFailure,
		Text: fmt.Sprintf("gate %s has not judged it and nothing stored lets it; open a PR", name)}
	score, ok := m.storedScoreOf(names, mdl, bundle, g)
	if !ok {
		return delivery.Verdict{}, unknown
	}
	if why := lost(score.Content); why != "" {
		return delivery.Verdict{}, Stage{State: delivery.CheckFailure, Text: why}
	}
	in := m.gateInput(mdl, bundle, score)
	in.SameBundle = bundle == baseline
	in.BaselineBundle, in.BaselineClasses = baseline, m.w.Evidence.Bundles[baseline].Classes
	run := func(s delivery.RunSpec) (delivery.RunState, Stage) {
		s.Note = mdl.Name + " on main"
		return m.run(s, Proposal{Permission: delivery.PermissionWrite}, "")
	}
	if baseline != "" && baseline != bundle {
		base, ok := m.storedScoreOf(names, mdl, baseline, g)
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
		in.Look = m.lookOf(bundle, baseline, in.EvalSet)
	}
	in.Asked = m.asked(names, mdl, g)
	var stage Stage
	if in.Anchors, stage = m.anchors(judgement{judged: judged{gate: g}, score: score},
		func(b delivery.Digest) (delivery.Scores, Stage) {
			if base, ok := m.storedScoreOf(names, mdl, b, g); ok && base.Content.Digest() == score.Content.Digest() {
				return base, Stage{State: delivery.CheckSuccess}
			}
			return delivery.Scores{}, unknown
		}, run); stage.State != delivery.CheckSuccess {
		return delivery.Verdict{}, stage
	}
	return gate.Judge(name, g, in), Stage{State: delivery.CheckSuccess}
}

// judgeCurrent lets the gates that a proposal adds or changes judge the
// releases that main runs, so that the reviewer sees what they would fail.
// Verdicts without an outcome are still waited for.
func (m *maker) judgeCurrent(p Proposal, gates []string) ([]delivery.Verdict, []gate.ModelPower) {
	var verdicts []delivery.Verdict
	var powers []gate.ModelPower
	for _, name := range gates {
		g, ok := p.Intent.Gates[name]
		if !ok {
			continue // removed
		}
		for _, model := range g.Covers {
			names := m.w.names(model)
			if m.unsure(names) != "" {
				verdicts = append(verdicts, delivery.Verdict{Gate: name, Model: model})
				continue
			}
			release := m.baseline(names)
			mdl, ok := m.w.Main.Intent.Models[model]
			if release == nil || !ok {
				continue
			}
			r := &progress{ModelReport: ModelReport{Model: model, Spec: mdl.SpecDigest(), Bundle: release.Bundle,
				Baseline: release}, names: names}
			run := func(spec delivery.RunSpec) (delivery.RunState, Stage) {
				spec.Note = fmt.Sprintf("gate %s, #%d", name, p.Number)
				return m.run(spec, p, GoCode(mdl, g))
			}
			list := []judged{{name: name, gate: g}}
			v := delivery.Verdict{Gate: name, Model: model}
			if data, ok := m.data(r, mdl, list, run); ok {
				if why := m.changedTruths(mdl, nil, []judged{{name: name, gate: g, proposed: true}},
					func(e delivery.EvalSet) (delivery.EvalSetContent, bool) { return contentOf(data, e) }); why != "" {
					v.Outcome, v.Reason = delivery.Fail, why
				} else if judged, _ := m.judge(r, mdl, list, data, run); len(r.Verdicts) > 0 {
					v = r.Verdicts[0]
					powers = append(powers, m.power(name, model, g, judged[0].score))
				}
			}
			if v.Outcome == "" {
				for _, s := range r.Stages { // a failed stage is an answer too
					if s.State == delivery.CheckFailure {
						v.Outcome, v.Reason = delivery.Fail, s.Text
					}
				}
			}
			verdicts = append(verdicts, v)
		}
	}
	return verdicts, powers
}

func (m *maker) power(name, model string, g delivery.Gate, score delivery.Scores) gate.ModelPower {
	var there []delivery.Verdict
	for _, key := range slices.Sorted(maps.Keys(m.w.Evidence.Verdicts)) {
		if v := m.w.Evidence.Verdicts[key]; v.Model == model && v.EvalSet == score.Content.Digest() {
			there = append(there, v)
		}
	}
	return gate.ModelPower{Gate: name, Model: model, Images: score.Scores.Images, Groups: score.Scores.Groups,
		Checks: gate.Powers(g, score.Scores, there)}
}

// Powers says how small a drop a gate of main can show, for each model that it covers
// and whose release was scored on its eval set.
func Powers(w World, name string) []gate.ModelPower {
	m := &maker{w: w}
	g := w.Main.Intent.Gates[name]
	var list []gate.ModelPower
	for _, model := range g.Covers {
		if release := m.baseline(w.names(model)); release != nil {
			if score, ok := m.storedScore(w.Main.Intent.Models[model], release.Bundle, g); ok {
				list = append(list, m.power(name, model, g, score))
			}
		}
	}
	return list
}

// proposeRestore opens the PR that sets a refused model's files back to what
// main accepted last.
func (m *maker) proposeRestore(model string, named delivery.Release, before []delivery.Release, why string) {
	restore := map[string]string{"models/" + model + ".release.yaml": ""}
	title := fmt.Sprintf("%s: take version %d back", model, named.Version)
	// a former name's files are another's
	before = slices.DeleteFunc(slices.Clone(before), func(r delivery.Release) bool { return r.Name != model })
	if len(before) > 0 {
		commit, ok := m.commitOf(model, before[0])
		if !ok {
			return // main's history does not say; the failure on the commit does
		}
		restore["models/"+model+".release.yaml"] = commit
		restore["models/"+model+".yaml"] = commit
		title = fmt.Sprintf("%s: back to version %d", model, before[0].Version)
	}
	body, message := proposalText(
		"%s.\n\nThe fleets stay with the last accepted release. Merging this makes the files say what runs.", why)
	m.propose(Propose{Branch: fmt.Sprintf("aob/restore-%s-%s", model,
		named.Bundle.Hex()[:min(12, len(named.Bundle.Hex()))]), Base: m.w.Main.Commit,
		Title: title, Body: body, Message: message, Restore: restore})
}

// commitOf finds the newest commit of main that held r together with its spec.
func (m *maker) commitOf(model string, r delivery.Release) (string, bool) {
	for _, past := range m.w.Main.History[model] {
		if past.Release != nil && past.Spec == r.Spec && delivery.SameRelease(*past.Release, r) {
			return past.Commit, true
		}
	}
	return "", false
}
