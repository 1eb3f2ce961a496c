package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A Stage is the state of one model at one check.
type Stage struct {
	Context string
	State   delivery.CheckState
	Fact    delivery.Fact
}

// A ModelReport is what is reported about one changed model of a pull request.
type ModelReport struct {
	Model       string
	RenamedFrom string // the model that the proposal renames to it; empty for none
	OnMain      bool   // main already has this content
	Spec        delivery.Digest
	Stages      []Stage
	State       delivery.CheckState // of aob/release, for this model
	Fact        delivery.Fact
	Data        *delivery.DataResult
	DataChanged delivery.Fact                      // since the dataset of Baseline; zero if nothing has changed
	Bundle      delivery.Digest                    // once trained
	Baseline    *delivery.Release                  // main's accepted release; nil for a first model
	Measured    []delivery.Measured                // by the gates that have a verdict
	Verdicts    []delivery.Verdict                 // of those gates
	Unsure      []UnsureVerdict                    // the unsure verdicts
	Fleets      []delivery.Fact                    // that will run it, and how
	Against     map[string]*delivery.Release       // by gate of a fleet: the fleet's release, in place of Baseline
	Carried     []delivery.Fact                    // gates of fleets that judge it
	Moved       delivery.Fact                      // the defaults of its trainer that are others than on main
	Release     *delivery.Release                  // the content that the release file must have
	Commit      *delivery.Release                  // the release file to commit; nil if the head has it
	Own         *delivery.Scores                   // on the PR's own test split, for information
	Links       []Link                             // pages for people
	Seeds       []SeedReport                       // its trainings
	Points      map[string]delivery.OperatingPoint // its thresholds, by class
	Valid       *delivery.Scores                   // on its validation split
	Tried       *delivery.CompareResult            // of a draft: compared with the release, on its validation split
	Variants    []ModelVariant                     // that its file lists besides FP32
}

// Summary is the model's fact with its name.
func (r ModelReport) Summary() delivery.Fact { return r.Fact.In(code.OfModel, values{Model: r.Model}) }

// A Link is a page that is shown beside a gate's verdict.
type Link struct {
	Gate string
	Path string // of the server's site
	URL  string // empty if the server's address is not known
}

// A judged is one gate that a model must pass.
type judged struct {
	name     string
	gate     delivery.Gate
	proposed bool   // the proposal adds or changes the gate
	as       string // its label, if it is a gate of a fleet
}

// gatesFor returns the gates that judge a model in a pull request: those of main, and the new or changed ones of the
// pull request in addition. A removed or weaker gate counts only once it is on main, so a pull request cannot lower its
// own requirements. A renamed model is judged by the gates of its name on main.
func (m *maker) gatesFor(p Proposal, model, onMain string) []judged {
	var list []judged
	main := m.w.Main.Intent
	for _, name := range main.Covering(onMain) {
		list = append(list, judged{name: name, gate: main.Gates.Of(name)})
	}
	for _, name := range p.Merged.Covering(model) {
		proposed := p.Merged.Gates.Of(name)
		if onMain, ok := main.Gates.Get(name); ok && onMain.Digest() == proposed.Digest() {
			continue
		}
		list = append(list, judged{name: name, gate: proposed, proposed: true})
	}
	return list
}

// label returns the gate's name in checks and files.
func (j judged) label(list []judged) string {
	if j.as != "" {
		return j.as
	}
	if j.proposed && slices.ContainsFunc(list, func(o judged) bool { return o.name == j.name && !o.proposed }) {
		return j.name + ".proposed"
	}
	return j.name
}

// progress collects the stages of one model.
type progress struct {
	ModelReport
	names    []string // the model's present and former names
	proposal Proposal // whose comments may accept unsure verdicts
	fleet    string   // the fleet whose gates judge it; empty for the model's own gates
	model    delivery.Model
	run      runner              // finds its runs, and starts them
	fp32     delivery.Digest     // of a variant: the bundle of the model that it is made of
	data     delivery.DataResult // set when its dataset has been read
	dataKey  delivery.Digest     // of the data run
}

func (p *progress) stage(context string, state delivery.CheckState, f delivery.Fact) {
	p.Stages = append(p.Stages, Stage{context, state, f})
}

func (p *progress) end(state delivery.CheckState, f delivery.Fact) ModelReport {
	p.State, p.Fact = state, f
	return p.ModelReport
}

// ApprovalCode is what a comment must name to approve the runs of an author without write permission. It covers
// everything that costs something: the spec with its dataset, the scenes that its check looks for, the machine, and the
// gates that the proposal itself adds, whose eval sets are read. It is long, so that nobody can find a cheap and an
// expensive spec with the same code.
func ApprovalCode(m delivery.Model, own ...delivery.Gate) string {
	bound := []any{m.Name, m.RenamedFrom, m.SpecDigest(), m.Train.Machine}
	var gates []delivery.Digest
	for _, g := range own {
		gates = append(gates, g.Digest())
	}
	if slices.Sort(gates); len(gates) > 0 {
		bound = append(bound, gates)
	}
	if m.Scenes != "" { // each pattern is another check of the dataset
		bound = append(bound, m.Scenes)
	}
	return delivery.DigestOf("go", bound).Hex()[:32]
}

// proposedOf returns the gates that the proposal itself adds or changes.
func proposedOf(gates []judged) []delivery.Gate {
	var own []delivery.Gate
	for _, j := range gates {
		if j.proposed {
			own = append(own, j.gate)
		}
	}
	return own
}

// cost records what an approval of a model allows.
func (m *maker) cost(p Proposal, approval string, mdl delivery.Model) {
	if p.Permission == delivery.PermissionWrite {
		return
	}
	t := mdl.Train
	m.addCost(p.Number, approval, fact(code.RunCost, values{Dataset: mdl.Dataset.String(), Model: mdl.Name,
		Text: t.With, Counts: map[string]int{"epochs": t.Epochs, "pixels": t.Resolution, "seeds": len(t.Seeds)},
		By: strings.TrimSpace(t.Machine.Terraform + " " + t.Machine.Instance), Lasts: t.Machine.Limit}))
}

func (m *maker) addCost(pr int, approval string, cost delivery.Fact) {
	m.effect(func(m *maker) {
		if m.costs[pr] == nil {
			m.costs[pr] = map[string]delivery.Fact{}
		}
		m.costs[pr][approval] = cost
	})
}

// model takes one changed model as far as the observed state allows.
func (m *maker) model(p Proposal, name string) ModelReport {
	mdl, ok := p.Merged.Models.Get(name)
	r := &progress{ModelReport: ModelReport{Model: name}, proposal: p, model: mdl}
	if !ok {
		return m.reportRemoved(r)
	}
	if why := m.w.Evidence.newer(); !why.IsZero() {
		m.needsUnknown(p)
		return r.end(delivery.CheckPending, why)
	}
	r.Spec, r.Fleets = mdl.SpecDigest(), fleetsOf(p, name)
	if why := m.baselineUnknown(p, name); !why.IsZero() {
		m.needsUnknown(p)
		return r.end(delivery.CheckPending, why.In(code.Waits, values{}))
	}
	if release, has := m.releaseOnMain(p, name); has {
		if report, ok := m.reportReleased(r, p, release); ok {
			return report
		}
	}
	if p.Landed {
		return m.reportMerged(r)
	}
	if base, inBase := p.Base.Models.Get(name); inBase {
		if head := p.Intent.Models.Of(name).SpecDigest(); head == base.SpecDigest() && head != r.Spec {
			return r.end(delivery.CheckFailure, fact(code.ModelChangedOnMain,
				values{Model: name, Branch: m.w.Main.Branch}))
		}
		if _, named := p.Merged.Releases.Get(name); !named && base.SpecDigest() == r.Spec {
			return m.reportFileRemoved(r)
		}
	}
	r.RenamedFrom, r.names = m.w.renames(p, name)
	r.Moved = m.movedDefaults(m.w.Main.Intent.Models.Of(cmp.Or(r.RenamedFrom, name)).Train, mdl.Train)
	gates := m.gatesFor(p, name, cmp.Or(r.RenamedFrom, name))
	switch {
	case len(gates) == 0:
		return r.end(delivery.CheckFailure, fact(code.NoGate, values{Model: name}))
	case len(p.Merged.Covering(name)) == 0: // main would refuse it after the merge
		return r.end(delivery.CheckFailure, fact(code.NoGateLeft, values{Model: name}))
	}
	r.Baseline = m.baseline(r.names)
	rollback, isRollback := m.rollsBackTo(p, name)
	if why, quarantine := m.unread(); !why.IsZero() && (quarantine || !isRollback) {
		m.needsUnknown(p)
		return r.end(delivery.CheckFailure, why.In(code.MainUnread, values{Branch: m.w.Main.Branch}))
	}
	own := func(b fleetGates) bool { return slices.Contains(r.names, b.from) }
	fleets := slices.DeleteFunc(m.fleetGatesFor(p, name), own)
	r.reportFleetGates(p, fleets)
	approval := ApprovalCode(mdl, proposedOf(gates)...)
	m.cost(p, approval, mdl)
	r.run = m.paying(r, m.runner(p, approval, fmt.Sprintf("%s, #%d", name, p.Number)), approval)
	if isRollback {
		return m.rollback(r, rollback, gates, fleets)
	}
	return m.promote(r, gates, fleets)
}

// reportRemoved reports a model that the proposal removes.
func (m *maker) reportRemoved(r *progress) ModelReport {
	if r.proposal.Landed {
		return m.reportMerged(r)
	}
	reportRemoved := fact(code.ModelRemoved, values{Model: r.Model})
	if added := newModels(r.proposal); len(added) > 0 && !m.renamedAway(r.proposal, r.Model) {
		reportRemoved.Names = added
	}
	return r.end(delivery.CheckSuccess, reportRemoved)
}

// reportFileRemoved reports a model whose release file the proposal removes, while its spec stays.
func (m *maker) reportFileRemoved(r *progress) ModelReport {
	left := m.baseline(m.w.names(r.Model))
	if left != nil && !slices.Contains(forbidden(m.quarantineAfter(r.proposal)), left.Bundle) {
		return r.end(delivery.CheckFailure, fact(code.ReleaseFileGone, values{Version: left.Version, Model: r.Model}))
	}
	return r.end(delivery.CheckSuccess, fact(code.ReleaseFileRemoved, values{}))
}

// promote takes a model through data, training, gates and release. Each stage begins after the one before has
// succeeded.
func (m *maker) promote(r *progress, gates []judged, fleets []fleetGates) ModelReport {
	p := r.proposal
	if why := m.wrongClasses(r.model, gates); !why.IsZero() {
		return r.end(delivery.CheckFailure, why)
	}
	if why := m.wrongLicence(r, gates); !why.IsZero() {
		return r.end(delivery.CheckFailure, why)
	}
	if !m.readData(r, gates, fleets...) {
		m.keepTrainingsOf(p, r.model)
		return r.end(blockedBy(r.Stages))
	}
	var ok bool
	if r.Bundle, ok = m.trained(r); !ok {
		return r.end(blockedBy(r.Stages))
	}
	if h, is := m.quarantined(r.names, r.Bundle); is {
		return r.end(delivery.CheckFailure, h.blocks())
	}
	if p.Draft {
		return m.draft(r, gates)
	}
	if file, before := m.acceptedBefore(r.Model, r.Spec, r.Bundle); before {
		if have, in := p.Intent.Releases.Get(r.Model); in && !sameFile(p.Base.Releases, p.Intent.Releases, r.Model) &&
			!m.madeByAOB(have) {
			return m.refuseFile(r, have)
		}
		r.Release = &file
		return m.commit(r, p, file, fact(code.ReleasedBefore, values{Version: file.Version})).lacking(p,
			m.lacks(file))
	}
	m.makeVariants(r)
	judgements, ok := m.judge(r, gates)
	takesVariant := func(b fleetGates) bool { return b.fleet.Ships() != delivery.FP32 }
	ofFleets, fleetsPass := m.judgeFleetGates(r, slices.DeleteFunc(slices.Clone(fleets), takesVariant))
	state, why := blockedBy(r.Stages)
	switch passed := ok && fleetsPass; {
	case !m.judgeVariants(r, gates, passed) && passed:
		state, why = r.waitsForVariants()
		ok = false
	case passed:
		fleetsPass, state, why = m.judgeVariantFleets(r, fleets)
	}
	if !ok || !fleetsPass {
		return r.end(state, why)
	}
	// A gate of the pull request itself is no evidence if main has one.
	onMain := slices.ContainsFunc(judgements, func(j judgement) bool { return !j.proposed })
	if !slices.ContainsFunc(judgements, func(j judgement) bool {
		return j.proposed != onMain && anyPassed(j.verdict)
	}) {
		why := code.NothingJudged
		if slices.ContainsFunc(judgements, func(j judgement) bool { return j.accept != nil }) {
			why = code.NothingPassed
		}
		return r.end(delivery.CheckFailure, fact(why, values{}))
	}
	return m.release(r, p, judgements, ofFleets).lacking(p, func(f delivery.Fleet) delivery.Fact {
		return r.missingOf(r.model, f)
	})
}

// rollback takes a model back to a release that main accepted before. The model's gates are shown and block nothing.
// Gates that fleets bring from another model do block.
func (m *maker) rollback(r *progress, to delivery.Release, gates []judged, fleets []fleetGates) ModelReport {
	if h, is := m.quarantined(r.names, to.Bundle); is {
		return r.end(delivery.CheckFailure, h.blocks().In(code.OfVersion, values{Version: to.Version}))
	}
	if _, there := m.w.Evidence.Bundles[to.Bundle]; !there {
		return r.end(delivery.CheckFailure, fact(code.ReleaseBundleGone,
			values{Bundle: to.Bundle, Version: to.Version}))
	}
	m.readData(r, gates, fleets...)
	r.stage(delivery.ContextTrain, delivery.CheckSuccess, fact(code.TrainedBefore,
		values{Version: to.Version, Bundle: to.Bundle}))
	r.Bundle = to.Bundle
	if r.proposal.Draft {
		return m.draft(r, gates)
	}
	m.judge(r, gates)
	own := len(r.Stages)
	pass := true
	ofFleets := map[delivery.Digest][]judgement{}
	for _, b := range fleets {
		ships, lacks := m.shipped(b.fleet, to)
		if !lacks.IsZero() {
			continue // the fleet keeps what it runs
		}
		answers, passed := m.judgeFleet(r, b, ships.Bundle, to.Bundle)
		ofFleets[ships.Bundle], pass = append(ofFleets[ships.Bundle], answers...), pass && passed
	}
	switch {
	case !pass:
		return r.end(blockedBy(r.Stages[own:]))
	case !m.signFleetGates(r.Model, ofFleets):
		return r.end(delivery.CheckPending, fact(code.FleetGatesSigning, values{}))
	}
	back := fact(code.RollsBack, values{Version: to.Version})
	named, ok := m.w.Main.Intent.Releases.Get(r.Model)
	switch {
	case ok && delivery.SameRelease(named, to) && m.ships(r.Model, named):
		back.Code = code.AlreadyReleased
	case ok && to.Version > named.Version:
		back.Code = code.GoesOn
	}
	if failing := failing(r.Verdicts); len(failing) > 0 {
		back = several(back, fact(code.TodayFails, values{Facts: failing}))
	}
	r.Release = &to
	for i, s := range r.Stages[:own] { // shown without blocking
		if s.State != delivery.CheckSuccess {
			r.Stages[i].State, r.Stages[i].Fact = delivery.CheckSuccess, s.Fact.In(code.OfRollback, values{})
		}
	}
	return r.end(delivery.CheckSuccess, back).lacking(r.proposal, m.lacks(to))
}

// draft shows a draft's model on its validation split. The gates' eval sets are used only when the pull request is
// ready for review.
func (m *maker) draft(r *progress, gates []judged) ModelReport {
	score, compare, stage := m.validated(r, r.Bundle)
	f := stage.Fact
	if stage.State == delivery.CheckSuccess {
		r.Valid, r.Tried = score, compare
		f = fact(code.DraftValidated, values{Value: score.Scores.Values[delivery.MetricMAP],
			Images: score.Scores.Images})
		if compare != nil {
			d, _ := compare.Compared(delivery.MetricMAP, compare.Classes)
			f.Code, f.Diff, f.Baseline = code.DraftCompared, d.Value, d.Baseline
			f.Low, f.High = d.Samples.Bounds(delivery.FigureConfidence)
		}
	}
	f = f.In(code.OfDraft, values{})
	if stage.State == delivery.CheckSuccess {
		stage.State = delivery.CheckPending
	}
	r.stage(delivery.ContextEval, stage.State, f)
	for _, j := range gates { // replaces the verdicts of a PR that became a draft
		r.stage(delivery.ContextGate+j.label(gates), delivery.CheckPending, fact(code.DraftGateWaits, values{}))
	}
	return r.end(stage.State, f)
}

// blockedBy returns what aob/release waits for: the first of the worst stages.
func blockedBy(stages []Stage) (delivery.CheckState, delivery.Fact) {
	worst := Stage{Context: delivery.ContextRelease, State: delivery.CheckPending, Fact: fact(code.StageAwaited,
		values{})}
	found := false
	for _, s := range stages {
		if s.State == delivery.CheckSuccess || (found && severity(s.State) <= severity(worst.State)) {
			continue
		}
		worst, found = s, true
	}
	return worst.State, worst.Fact.In(code.OfStage, values{Stage: strings.TrimPrefix(worst.Context, "aob/")})
}

// What is said of a dataset in an aob/data status of its own: what has drifted since main's version, and scenes that
// leak from train into what judges.
var (
	ofDrift  = []string{"label-drift", "box-drift", "image-drift", "no-drift"}
	ofScenes = []string{"site-leak", "time-leak"}
)
