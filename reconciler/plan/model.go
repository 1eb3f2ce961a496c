package plan

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
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

// run finds a run, or plans its start if that is allowed, and returns its state.
func (m *maker) run(spec delivery.RunSpec, p Proposal, approval string) (delivery.RunState, Stage) {
	m.needs(spec.Key, p.Number)
	m.uses(spec.Key, p.Number)
	state, ok := m.stateOf(spec.Key)
	if !ok {
		state.Phase = delivery.RunUnknown
	}
	switch state.Phase {
	case delivery.RunDone:
		if state.Result == nil {
			m.readResult(spec.Key)
			return state, pending(fact(code.RunReading, values{}))
		}
		return state, Stage{State: delivery.CheckSuccess}
	case delivery.RunFailed:
		return state, failed(fact(code.RunFailed, values{Text: state.Error}))
	case delivery.RunRunning:
		if state.EndReason != "" {
			return state, pending(fact(code.RunEnding, values{Text: state.EndReason}))
		}
		if state.Spec.Quote != nil { // its cost grows
			m.isLive()
		}
		return state, pending(runs(state, m.w.At))
	}
	if spec.Train != nil && delivery.PaidModule(spec.Train.Machine) { // paying has not agreed to it
		return state, failed(fact(code.CostNoQuote, values{By: spec.Train.Machine}))
	}
	if p.Permission != delivery.PermissionWrite && !slices.Contains(p.Approvals, approval) {
		return state, pending(m.ask(p, approval))
	}
	return m.enter(spec, p)
}

// enter plans the start of a run that nobody needs to agree to any more, or says which place it has in the queue.
func (m *maker) enter(spec delivery.RunSpec, p Proposal) (delivery.RunState, Stage) {
	state, _ := m.stateOf(spec.Key)
	queue := m.queue
	if spec.Kind == delivery.RunTrain {
		queue = m.trains
	}
	if queue.limit > 0 {
		m.isLive()
	}
	if stage, waits := queue.enter(spec.Key, p.Number); waits {
		return state, stage
	}
	m.start(spec, p.Number)
	switch state.Phase {
	case delivery.RunDied:
		return state, pending(fact(code.RunRestarting, values{}))
	case delivery.RunStopped:
		return state, pending(fact(code.RunResuming, values{}))
	}
	return state, pending(fact(code.RunStarting, values{}))
}

// start plans the start of a run, once for all pull requests that need it.
func (m *maker) start(spec delivery.RunSpec, pr int) {
	m.effect(func(m *maker) {
		step := StartRun{Spec: spec, PRs: []int{pr}}
		if !m.planned[step.Key()] {
			m.addStep(step)
			return
		}
		for i, s := range m.plan.Steps {
			if s, ok := s.(StartRun); ok && s.Spec.Key == spec.Key && !slices.Contains(s.PRs, pr) {
				s.PRs = append(s.PRs, pr)
				m.plan.Steps[i] = s
			}
		}
	})
}

// uses notes that a pull request has a run.
func (m *maker) uses(run delivery.Digest, pr int) {
	m.effect(func(m *maker) {
		if !slices.Contains(m.runs[pr], run) {
			m.runs[pr] = append(m.runs[pr], run)
		}
	})
}

// runs returns how far a run is.
func runs(r delivery.RunState, now time.Time) delivery.Fact {
	s := r.Status
	f := fact(code.RunRunning, values{})
	switch {
	case r.Spec.Kind == delivery.RunTrain && s.Epochs > 0 && s.Phase == "training":
		f = fact(code.RunTraining, values{Count: s.Epoch, Total: s.Epochs})
		if s.MAP != nil {
			f.Metric, f.Value = delivery.MetricMAP, *s.MAP
		}
	case r.Spec.Training() != nil && r.Stage == delivery.StageEnvironment:
		f = fact(code.RunPreparing, values{Stage: cmp.Or(s.Message, "starting")})
		if s.Batches > 0 {
			f = fact(code.RunInstalling, values{Count: s.Batch, Total: s.Batches})
		}
		f.Names = []string{strings.ReplaceAll(r.Spec.Training().Spec.Train.With, "@", " ")}
	case r.Spec.Kind == delivery.RunEval && s.Batches > 0:
		f = fact(code.RunEvaluating, values{Count: s.Batch, Total: s.Batches})
	case r.Spec.Quote != nil && r.Stage == "training" && s.Phase == "starting" && s.Message != "":
		f = fact(code.RunAtStage, values{Stage: s.Message}) // as long as an instance boots
	case r.Stage != "":
		f = fact(code.RunAtStage, values{Stage: r.Spec.Kind.Doing(r.Stage)})
	}
	if s.SecondsLeft != nil && *s.SecondsLeft >= 1 {
		f.Lasts = delivery.Duration(time.Duration(*s.SecondsLeft) * time.Second)
	}
	if r.Tries() > 1 {
		f.Attempt, f.Text = r.Tries(), r.Error
	}
	if q := r.Spec.Quote; q != nil {
		f.Cost, f.Ceiling = r.Spend(now).Cost, q.Ceiling
	}
	return f
}

// A runner finds a run, or plans its start if that is allowed, and returns its state.
type runner func(delivery.RunSpec) (delivery.RunState, Stage)

// resultOf returns the result of a run. The stage has the code unreadable if the result cannot be decoded.
func resultOf[T any](run runner, spec delivery.RunSpec, unreadable delivery.Code) (result T, stage Stage) {
	state, stage := run(spec)
	if stage.State == delivery.CheckSuccess {
		if err := json.Unmarshal(state.Result, &result); err != nil {
			stage = Stage{State: delivery.CheckError, Fact: fact(unreadable, values{Text: err.Error()})}
		}
	}
	return result, stage
}

// runner returns a runner for a proposal. Its runs need the approval if the author may not start them. note is the text
// that each run shows about its purpose.
func (m *maker) runner(p Proposal, approval, note string) runner {
	return func(spec delivery.RunSpec) (delivery.RunState, Stage) {
		spec.Note = note
		return m.run(spec, p, approval)
	}
}

// readData fills the aob/data stage: the dataset's digest and checks, and the eval sets of the gates, also those of
// fleets. It reports whether the data can be used.
func (m *maker) readData(r *progress, gates []judged, fleets ...fleetGates) bool {
	for _, b := range fleets {
		gates = slices.Concat(gates, b.gates)
	}
	input := DataInput(r.model, delivery.Each(gates, func(j judged) delivery.Gate { return j.gate }))
	for _, name := range r.names { // of main's model, by its former name too
		if main, ok := m.w.Main.Intent.Models.Get(name); ok && main.Dataset != r.model.Dataset {
			input.Before = &main.Dataset
			break
		}
	}
	r.dataKey = delivery.DataKey(input)
	var stage Stage
	r.data, stage = resultOf[delivery.DataResult](r.run, delivery.RunSpec{Key: r.dataKey, Kind: delivery.RunData,
		Limit: m.w.Server.DataTime, Data: &input}, code.DataUnreadable)
	if stage.State == delivery.CheckSuccess {
		r.Data = &r.data
		r.DataChanged = m.changedData(r)
		if r.data.Failed() {
			stage = failed(findings(r.data.Findings, delivery.LevelError))
		} else {
			blind, missing := withoutTruths(r.model, gates, r.data)
			if !blind.IsZero() {
				stage = failed(blind)
			} else {
				facts := append([]delivery.Fact{dataFact(r.model, r.data), missing}, m.weak(r, gates)...)
				stage.Fact = several(append(facts, r.DataChanged)...)
			}
		}
	}
	r.stage(delivery.ContextData, stage.State, stage.Fact)
	return stage.State == delivery.CheckSuccess
}

// What is said of a dataset in an aob/data status of its own: what has drifted since main's version, and scenes that
// leak from train into what judges.
var (
	ofDrift  = []string{"label-drift", "box-drift", "image-drift", "no-drift"}
	ofScenes = []string{"site-leak", "time-leak"}
)

// dataFact returns what a data run found.
func dataFact(mdl delivery.Model, result delivery.DataResult) delivery.Fact {
	return several(fact(code.DataReady, values{Dataset: mdl.Dataset.String(), Bundle: result.Content,
		Counts: map[string]int{"train": result.Images["train"], "valid": result.Images["valid"],
			"leftOut": result.LeftOut}}), warnings(result.Findings, ofDrift), warnings(result.Findings, ofScenes),
		findings(slices.DeleteFunc(slices.Clone(result.Findings), func(f delivery.Finding) bool {
			return slices.Contains(ofDrift, f.Code) || slices.Contains(ofScenes, f.Code)
		}), delivery.LevelWarning))
}

// warnings returns the first warning with one of some codes, and how many more there are.
func warnings(list []delivery.Finding, codes []string) delivery.Fact {
	return findings(slices.DeleteFunc(slices.Clone(list), func(f delivery.Finding) bool {
		return !slices.Contains(codes, f.Code)
	}), delivery.LevelWarning)
}

// withoutTruths returns why the gates' eval sets cannot decide: the first check that needs objects, on an eval set
// without any; or else the classes of the first eval set that has no object of them.
func withoutTruths(mdl delivery.Model, gates []judged, data delivery.DataResult) (blind, missing delivery.Fact) {
	for _, j := range gates {
		content, ok := contentOf(data, j.gate.Evaluate)
		if !ok {
			continue
		}
		var without []string
		has := 0
		classes := j.gate.LabelMap(mdl.Classes)
		for _, c := range classes[:len(j.gate.Classes)] {
			if len(classes.Called(c.Name, mdl.Classes.Names())) == 0 {
				continue // the model lacks it, which is said elsewhere
			}
			has++
			if !slices.ContainsFunc(c.Labels, func(l string) bool { return slices.Contains(content.Labels, l) }) {
				without = append(without, c.Name)
			}
		}
		needs := slices.IndexFunc(j.gate.Checks, gate.NeedsTruths)
		if len(without) == 0 || needs < 0 {
			continue
		}
		v := values{Gate: j.name, EvalSet: content.EvalSet.String(), Names: without,
			Metric: j.gate.Checks[needs].Metric}
		if len(without) == has {
			return fact(code.DataNoTruths, v), missing
		}
		if v.Metric = ""; missing.IsZero() {
			missing = fact(code.DataNoTruthOfClass, v)
		}
	}
	return blind, missing
}

// weak returns the checks that a model as good as the release is likely not to pass, because the eval set is too small:
// the worst one of each gate on main whose eval set has scores of the release.
func (m *maker) weak(r *progress, gates []judged) (list []delivery.Fact) {
	if r.Baseline == nil {
		return nil
	}
	for _, j := range gates {
		score, ok := m.storedScore(r.model, r.Baseline.Bundle, j.gate)
		if !ok {
			continue
		}
		var worst gate.Power
		for _, p := range m.power(j.name, r.Model, j.gate, score).Checks {
			if p.EqualPasses < 0.5 && p.Need > worst.Need {
				worst = p
			}
		}
		if worst.Need > 0 {
			list = append(list, fact(code.DataWeak, values{Gate: j.name, Images: worst.Images, Text: worst.Check,
				Count: max(1, int(100*worst.EqualPasses)), Limit: worst.Need}))
		}
	}
	return list
}

// findings returns the first finding of a level, and how many more there are.
func findings(list []delivery.Finding, level string) delivery.Fact {
	var first delivery.Fact
	n := 0
	for _, f := range list {
		if f.Level == level {
			if n == 0 {
				first = fact(code.Finding, values{File: f.Place(), Text: f.Text})
			}
			if n++; len(f.Places) == 0 {
				n += max(1, f.Count) - 1
			}
		}
	}
	first.Count = max(0, n-1)
	return first
}
