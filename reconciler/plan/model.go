package plan

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Stage is where one model stands at one check.
type Stage struct {
	Context string
	State   delivery.CheckState
	Text    string
}

// A ModelReport is what to tell about one changed model of a pull request.
type ModelReport struct {
	Model    string
	Was      string // what the proposal renames to it; mostly empty
	Has      bool   // main has what is asked for already
	Spec     delivery.Digest
	Stages   []Stage
	State    delivery.CheckState // what it lets aob/release be
	Text     string
	Data     *delivery.DataResult
	Bundle   delivery.Digest                    // once trained
	Baseline *delivery.Release                  // main's accepted release; nil for a first model
	Measured []delivery.Measured                // by the gates that have answered
	Verdicts []delivery.Verdict                 // theirs
	Doubts   []Doubt                            // of the verdicts that are unsure
	Fleets   []string                           // that run it once it is released, and how
	Against  map[string]*delivery.Release       // by gate of a fleet: what the fleet runs, in place of Baseline
	Carried  []string                           // which gates fleets bring with them, a line each
	Release  *delivery.Release                  // what the release file must say
	Commit   *delivery.Release                  // set where the head's tree does not hold it yet
	Own      *delivery.Scores                   // on the PR's own test split, for information
	Links    []Link                             // what people may look at
	Seeds    []SeedReport                       // where each of its trainings stands
	Points   map[string]delivery.OperatingPoint // its thresholds, by class
	Valid    *delivery.Scores                   // on its validation split
	Tried    *delivery.CompareResult            // of a draft: with the release, on its validation split
}

// A Link leads to what people may look at beside a gate's answer.
type Link struct {
	Gate string
	Path string // of the server's site
	URL  string // in full, where it is known how people reach the server
}

// judged is one gate that a proposal's model must pass.
type judged struct {
	name     string
	gate     delivery.Gate
	proposed bool   // the PR's own version, on top of main's
	as       string // its label, where a fleet brings it
}

// gatesFor returns the gates of a PR for a model: all covering gates of the
// target branch, and the PR's new or changed ones on top. A PR cannot lower its
// own bar: removing or loosening a gate counts once it is on main, and a model
// that it renames is judged by the gates of its name on main.
func (m *maker) gatesFor(p Proposal, model, onMain string) []judged {
	var list []judged
	main := m.w.Main.Intent
	for _, name := range main.Covering(onMain) {
		list = append(list, judged{name: name, gate: main.Gates[name]})
	}
	for _, name := range p.Merged.Covering(model) {
		proposed := p.Merged.Gates[name]
		if onMain, ok := main.Gates[name]; ok && onMain.Digest() == proposed.Digest() {
			continue
		}
		list = append(list, judged{name: name, gate: proposed, proposed: true})
	}
	return list
}

// staysCovered reports whether a gate will cover a model once a proposal is
// merged: main would refuse it otherwise.
func (m *maker) staysCovered(p Proposal, model string) bool { return len(p.Merged.Covering(model)) > 0 }

// label is the gate's name in checks and files.
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
	names   []string // the model's, and those that it had before
	asked   Proposal // whose comments may settle what is unsure
	fleet   string   // whose gates judge it, as it is to run another model; mostly empty
	dataKey delivery.Digest
}

func (p *progress) stage(context string, state delivery.CheckState, format string, args ...any) {
	p.Stages = append(p.Stages, Stage{context, state, fmt.Sprintf(format, args...)})
}

func (p *progress) end(state delivery.CheckState, format string, args ...any) ModelReport {
	p.State, p.Text = state, p.Model+": "+fmt.Sprintf(format, args...)
	return p.ModelReport
}

// GoCode is what a comment must name to let a proposal of a stranger run. It is
// bound to all that a proposal may cost: the spec with its dataset, the machine, and
// the gates that the proposal itself brings, whose eval sets are read and judged on.
// It is long because a stranger makes the specs: of a short code one finds two, a
// cheap one to get the go for, and a dear one to push afterwards.
func GoCode(m delivery.Model, own ...delivery.Gate) string {
	bound := []any{m.SpecDigest(), m.Train.Machine}
	var gates []delivery.Digest
	for _, g := range own {
		gates = append(gates, g.Digest())
	}
	if slices.Sort(gates); len(gates) > 0 {
		bound = append(bound, gates)
	}
	return delivery.DigestOf("go", bound).Hex()[:32]
}

// proposedOf are the gates that a proposal brings, out of those that judge it.
func proposedOf(gates []judged) []delivery.Gate {
	var own []delivery.Gate
	for _, j := range gates {
		if j.proposed {
			own = append(own, j.gate)
		}
	}
	return own
}

// cost notes what a go for a model lets run.
func (m *maker) cost(p Proposal, code string, mdl delivery.Model) {
	if p.Permission == delivery.PermissionWrite {
		return
	}
	if m.costs[p.Number] == nil {
		m.costs[p.Number] = map[string]string{}
	}
	if m.costs[p.Number][code] != "" {
		return
	}
	t := mdl.Train
	where := strings.TrimSpace("by " + t.Machine.Terraform + " " + t.Machine.Instance)
	m.costs[p.Number][code] = fmt.Sprintf("the checks of dataset %s, the training of %s with %s (%s at %d pixels, "+
		"%s, %s, at most %s), and its evaluation by the gates",
		mdl.Dataset, mdl.Name, t.With, count(t.Epochs, "epoch"), t.Resolution, count(len(t.Seeds), "seed"), where,
		t.Machine.Limit)
}

// model takes one changed model as far as what was seen allows.
func (m *maker) model(p Proposal, name string) ModelReport {
	r := &progress{ModelReport: ModelReport{Model: name}, asked: p}
	mdl, ok := p.Merged.Models[name]
	if !ok {
		if p.Landed {
			return m.merged(r)
		}
		return r.end(delivery.CheckSuccess, "removed; nothing to train")
	}
	if why := m.w.Evidence.newer(); why != "" {
		m.isStuck(p)
		return r.end(delivery.CheckPending, "%s", why)
	}
	if why := m.goneFromMain(p, name); why != "" {
		return r.end(delivery.CheckFailure, "%s", why)
	}
	r.Spec, r.Fleets = mdl.SpecDigest(), fleetsOf(p, name)
	if why := m.unsureOf(p, name); why != "" {
		m.isStuck(p)
		return r.end(delivery.CheckPending, "waits: %s", why)
	}
	if release, has := m.mains(p, name); has {
		if report, ok := m.asMain(r, p, release); ok {
			return report
		}
	}
	if p.Landed {
		return m.merged(r)
	}
	was, inBase := p.Base.Models[name]
	if head := p.Intent.Models[name].SpecDigest(); inBase && head == was.SpecDigest() && head != r.Spec {
		return r.end(delivery.CheckFailure, "%[2]s changed models/%[1]s.yaml since this branch left it, and the "+
			"branch has a release file for the older one; rebase onto %[2]s", name, m.w.Main.Branch)
	}
	if _, named := p.Merged.Releases[name]; !named && inBase && was.SpecDigest() == r.Spec {
		if left := m.baseline(m.w.names(name)); left != nil &&
			!slices.Contains(forbidden(m.heldAfter(p)), left.Bundle) {
			return r.end(delivery.CheckFailure, "its release file is removed, and version %d would go on; name the "+
				"version that is to run (aob rollback %s VERSION), or remove the model", left.Version, name)
		}
		return r.end(delivery.CheckSuccess, "its release file is removed and its spec stays; nothing to train")
	}
	former, onMain := formerly(m.w, p, name), name
	switch r.names = m.w.names(name); len(former) {
	case 0:
	case 1:
		r.Was, onMain = former[0], former[0]
		r.names = append([]string{name}, m.w.names(r.Was)...)
	default:
		return r.end(delivery.CheckFailure,
			"it may be %s under another name; rename or replace one model in a pull request",
			strings.Join(former, " or "))
	}
	gates := m.gatesFor(p, name, onMain)
	if len(gates) > 0 && !m.staysCovered(p, name) {
		return r.end(delivery.CheckFailure,
			"no gate would cover %s any more, and main refuses what none covers; leave one that does under gates/",
			name)
	}
	if len(gates) == 0 {
		return r.end(delivery.CheckFailure, "no gate covers %s; add one under gates/ with covers: [%s]", name, name)
	}
	r.Baseline = m.baseline(r.names)
	rollback, isRollback := m.rollsBackTo(p, name)
	if why, quarantine := m.unread(); why != "" && (quarantine || !isRollback) {
		m.isStuck(p)
		return r.end(delivery.CheckFailure,
			"main cannot be read: %s; mend it there, as a pull request is judged by all of main's gates", why)
	}
	bars := slices.DeleteFunc(m.bars(p, name), func(b bar) bool { return slices.Contains(r.names, b.from) })
	r.carry(p, bars)
	judges := slices.Clone(gates)
	for _, b := range bars {
		judges = append(judges, b.gates...)
	}
	before := m.latest(r.names)
	if why := m.removedClasses(mdl, before, gates); why != "" && !isRollback {
		return r.end(delivery.CheckFailure, "%s", why)
	}
	if isRollback {
		if h, held := m.held(r.names, rollback.Bundle); held {
			return r.end(delivery.CheckFailure, "version %d: %s", rollback.Version, h)
		}
		if _, there := m.w.Evidence.Bundles[rollback.Bundle]; !there {
			return r.end(delivery.CheckFailure, "bundle %s of version %d is gone from the registry; restore it",
				rollback.Bundle.Short(), rollback.Version)
		}
	}
	code := GoCode(mdl, proposedOf(gates)...)
	m.cost(p, code, mdl)

	run := func(spec delivery.RunSpec) (delivery.RunState, Stage) {
		spec.Note = fmt.Sprintf("%s, #%d", name, p.Number)
		return m.run(spec, p, code)
	}
	data, ok := m.data(r, mdl, judges, run)
	if !ok && !isRollback {
		m.keepTrainings(p, mdl)
		return r.end(blockedBy(r.Stages))
	}
	if why := m.changedTruths(mdl, before, gates, func(e delivery.EvalSet) (delivery.EvalSetContent, bool) {
		return contentOf(data, e)
	}); why != "" && !isRollback {
		return r.end(delivery.CheckFailure, "%s", why)
	}
	if isRollback {
		r.stage(delivery.ContextTrain, delivery.CheckSuccess, "version %d was trained before: bundle %s",
			rollback.Version, rollback.Bundle.Short())
		r.Bundle = rollback.Bundle
	} else if r.Bundle, ok = m.trained(r, mdl, data, run); !ok {
		return r.end(blockedBy(r.Stages))
	}
	if h, held := m.held(r.names, r.Bundle); held {
		return r.end(delivery.CheckFailure, "%s", h)
	}
	if p.Draft {
		return m.draft(r, mdl, gates, data, run)
	}
	if file, before := m.acceptedBefore(name, r.Spec, r.Bundle); before && !isRollback {
		if have, in := p.Intent.Releases[name]; in && !sameFile(p.Base.Releases, p.Intent.Releases, name) &&
			!m.wrote(have) {
			return m.byHand(r, have)
		}
		r.Release = &file
		return m.commit(r, p, file, fmt.Sprintf(
			"version %d was released with this content before; committing its release file", file.Version))
	}
	judgements, ok := m.judge(r, mdl, gates, data, run)
	own := len(r.Stages)
	var ofFleets []judgement
	fleetsPass := true
	for _, b := range bars {
		list, passed := m.judgeBar(r, b, mdl, r.Bundle, data, run)
		ofFleets, fleetsPass = append(ofFleets, list...), fleetsPass && passed
	}
	if isRollback && !fleetsPass {
		return r.end(blockedBy(r.Stages[own:]))
	}
	if isRollback && !m.signBar(name, r.Bundle, ofFleets) {
		return r.end(delivery.CheckPending, "every gate of its fleets passed; signing")
	}
	if isRollback {
		text := fmt.Sprintf("rolls back to version %d, accepted before; gates do not block a rollback",
			rollback.Version)
		if named, ok := m.w.Main.Intent.Releases[name]; ok && delivery.SameRelease(named, rollback) &&
			m.ships(name, named) {
			text = fmt.Sprintf("version %d, which is main's release already", rollback.Version)
		}
		if failing := failing(r.Verdicts); failing != "" {
			text += "; today's gates would say: " + failing
		}
		r.Release = &rollback
		for i := range r.Stages[:own] { // shown, and never in the way
			if r.Stages[i].State != delivery.CheckSuccess {
				r.Stages[i].State, r.Stages[i].Text = delivery.CheckSuccess, "rollback, for information: "+
					r.Stages[i].Text
			}
		}
		return r.end(delivery.CheckSuccess, "%s", text)
	}
	if !ok || !fleetsPass {
		return r.end(blockedBy(r.Stages))
	}
	// A gate of the pull request's own says nothing where main has one.
	asked := slices.ContainsFunc(judgements, func(j judgement) bool { return !j.proposed })
	if !slices.ContainsFunc(judgements, func(j judgement) bool { return j.proposed != asked && anyPassed(j.verdict) }) {
		return r.end(delivery.CheckFailure,
			"no check of any gate applies and passes, so nothing was judged; give a gate a floor (min)")
	}
	return m.release(r, p, judgements, ofFleets)
}

// draft shows what a draft's model does on its validation split. The gates' eval
// sets are opened when the pull request is ready for review.
func (m *maker) draft(r *progress, mdl delivery.Model, gates []judged, data delivery.DataResult,
	run runner) ModelReport {
	score, compare, stage := m.validated(r, mdl, r.Bundle, data, run)
	text := stage.Text
	if stage.State == delivery.CheckSuccess {
		r.Valid, r.Tried = score, compare
		text = fmt.Sprintf("mAP %.4f on %d validation images", score.Scores.Values["mAP"], score.Scores.Images)
		if compare != nil {
			d := compare.Metrics["mAP"]
			low, high := d.Resamples.Bounds(0.975)
			text += fmt.Sprintf(", %+.4f to the release's %.4f (95%% sure: %+.4f to %+.4f)", d.Value, d.Baseline, low,
				high)
		}
		text += "; gates judge it when the pull request is ready for review"
	}
	if stage.State == delivery.CheckSuccess {
		stage.State = delivery.CheckPending
	}
	r.stage(delivery.ContextEval, stage.State, "draft: %s", text)
	for _, j := range gates { // it may have been judged before it became a draft
		r.stage(delivery.ContextGate+j.label(gates), delivery.CheckPending,
			"draft: it judges when the pull request is ready for review")
	}
	return r.end(stage.State, "draft: %s", text)
}

// blockedBy says what aob/release waits for: the first stage that is not done.
func blockedBy(stages []Stage) (delivery.CheckState, string, string) {
	worst := Stage{Context: delivery.ContextRelease, State: delivery.CheckPending, Text: "waiting"}
	found := false
	for _, s := range stages {
		if s.State == delivery.CheckSuccess || (found && severity(s.State) <= severity(worst.State)) {
			continue
		}
		worst, found = s, true
	}
	return worst.State, "%s", strings.TrimPrefix(worst.Context, "aob/") + ": " + worst.Text
}

// run looks a run up, plans its start where it is allowed, and says where it
// stands.
func (m *maker) run(spec delivery.RunSpec, p Proposal, code string) (delivery.RunState, Stage) {
	m.needs(spec.Key, p.Number)
	if !slices.Contains(m.runs[p.Number], spec.Key) {
		m.runs[p.Number] = append(m.runs[p.Number], spec.Key)
	}
	state, ok := m.w.Runs[spec.Key]
	if !ok {
		state.Phase = delivery.RunUnknown
	}
	switch state.Phase {
	case delivery.RunDone:
		if state.Result == nil {
			if !slices.Contains(m.plan.Unread, spec.Key) {
				m.plan.Unread = append(m.plan.Unread, spec.Key)
			}
			return state, Stage{State: delivery.CheckPending, Text: "reading the result"}
		}
		return state, Stage{State: delivery.CheckSuccess}
	case delivery.RunFailed:
		return state, Stage{State: delivery.CheckFailure, Text: state.Error}
	case delivery.RunRunning:
		if state.Ending != "" {
			return state, Stage{State: delivery.CheckPending,
				Text: fmt.Sprintf("ending (%s); it starts again afterwards, where it was", state.Ending)}
		}
		return state, Stage{State: delivery.CheckPending, Text: runText(state)}
	}
	if p.Permission != delivery.PermissionWrite && !slices.Contains(p.Gos, code) {
		ask := "/aob run " + code
		if !slices.Contains(m.asks[p.Number], ask) {
			m.asks[p.Number] = append(m.asks[p.Number], ask)
		}
		text := "waits for a go: somebody with write permission comments " + ask
		switch {
		case m.w.Server.Socket:
			text = fmt.Sprintf("waits for a go: somebody with write permission runs aob pr ask %d '%s'", p.Number, ask)
		case len(p.Waits[code]) > 0:
			text = "waits for a 👍 of somebody with write permission to the comment in which AOB asks whether this " +
				"may run"
		}
		return state, Stage{State: delivery.CheckPending, Text: text}
	}
	queue := m.queue
	if spec.Kind == delivery.RunTrain {
		queue = m.trains
	}
	if stage, waits := queue.enter(spec.Key, p.Number); waits {
		return state, stage
	}
	m.start(spec, p.Number)
	switch state.Phase {
	case delivery.RunDied:
		return state, Stage{State: delivery.CheckPending, Text: "its process died; starting again"}
	case delivery.RunStopped:
		return state, Stage{State: delivery.CheckPending, Text: "goes on where it was stopped"}
	}
	return state, Stage{State: delivery.CheckPending, Text: "starting"}
}

// start plans the start of a run, once for all pull requests that wait for it.
func (m *maker) start(spec delivery.RunSpec, pr int) {
	step := StartRun{Spec: spec, PRs: []int{pr}}
	if !m.planned[step.Key()] {
		m.step(step)
		return
	}
	for i, s := range m.plan.Steps {
		if s, ok := s.(StartRun); ok && s.Spec.Key == spec.Key && !slices.Contains(s.PRs, pr) {
			s.PRs = append(s.PRs, pr)
			m.plan.Steps[i] = s
		}
	}
}

// runText says how far a run is.
func runText(r delivery.RunState) string {
	s := r.Status
	var text string
	switch {
	case r.Spec.Kind == delivery.RunTrain && s.Epochs > 0 && s.Phase == "training":
		text = fmt.Sprintf("epoch %d/%d", s.Epoch, s.Epochs)
		if s.MAP != nil {
			text += fmt.Sprintf(", mAP %.3f on validation", *s.MAP)
		}
	case r.Spec.Kind == delivery.RunEval && s.Batches > 0:
		text = fmt.Sprintf("image %d/%d", s.Batch, s.Batches)
	case r.Stage != "":
		text = r.Stage
	default:
		text = "running"
	}
	if s.SecondsLeft != nil && *s.SecondsLeft >= 1 {
		text += ", about " + (time.Duration(*s.SecondsLeft) * time.Second).String() + " left"
	}
	switch {
	case r.Tries() > 1 && r.Error != "":
		text += fmt.Sprintf(" (attempt %d, after: %s)", r.Tries(), r.Error)
	case r.Tries() > 1:
		text += fmt.Sprintf(" (attempt %d)", r.Tries())
	}
	return text
}

type runner func(delivery.RunSpec) (delivery.RunState, Stage)

// data takes the aob/data stage: the dataset's digest, checks and eval sets.
func (m *maker) data(r *progress, mdl delivery.Model, gates []judged, run runner) (delivery.DataResult, bool) {
	ask := delivery.DataRun{Dataset: mdl.Dataset, Classes: mdl.Classes.Renamed(mdl.Was)}
	for _, j := range gates {
		ask.EvalSets = append(ask.EvalSets, j.gate.Evaluate)
	}
	slices.SortFunc(ask.EvalSets, func(a, b delivery.EvalSet) int { return strings.Compare(a.String(), b.String()) })
	ask.EvalSets = slices.Compact(ask.EvalSets)
	r.dataKey = delivery.DataKey(ask)
	state, stage := run(delivery.RunSpec{Key: r.dataKey, Kind: delivery.RunData, Limit: m.w.Server.DataTime,
		Data: &ask})
	var result delivery.DataResult
	if stage.State == delivery.CheckSuccess {
		if err := json.Unmarshal(state.Result, &result); err != nil {
			stage = Stage{State: delivery.CheckError, Text: "the data run's result cannot be read: " + err.Error()}
		}
	}
	if stage.State != delivery.CheckSuccess {
		r.stage(delivery.ContextData, stage.State, "%s", stage.Text)
		return result, false
	}
	r.Data = &result
	if result.Failed() {
		r.stage(delivery.ContextData, delivery.CheckFailure, "%s", findings(result.Findings, delivery.LevelError))
		return result, false
	}
	r.stage(delivery.ContextData, delivery.CheckSuccess, "%s", dataText(mdl, result))
	return result, true
}

// dataText says what a data run found.
func dataText(mdl delivery.Model, result delivery.DataResult) string {
	text := fmt.Sprintf("%s %s: %d images to train on, %d to validate", mdl.Dataset, result.Content.Short(),
		result.Images["train"], result.Images["valid"])
	if result.LeftOut > 0 {
		text += fmt.Sprintf("; %d left out, they stand in an eval set", result.LeftOut)
	}
	if w := findings(result.Findings, delivery.LevelWarning); w != "" {
		text += "; " + w
	}
	return text
}

// findings says what was found at one level: the first in full, and how many.
func findings(list []delivery.Finding, level string) string {
	var first string
	n := 0
	for _, f := range list {
		if f.Level == level {
			if n == 0 {
				first = f.Where + ": " + f.Text
			}
			n += max(1, f.Count)
		}
	}
	if n > 1 {
		return fmt.Sprintf("%s (and %s)", first, count(n-1, "more finding"))
	}
	return first
}
