package retention

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// Needs finds what a world needs, and what its last plan does.
func Needs(w plan.World, p plan.Plan) Needed {
	f := &finder{w: w, p: p, n: Needed{Of: map[Ref][]Ref{}, Names: map[Ref]string{}, Unknown: unknown(w, p)},
		named: map[delivery.Digest]bool{}}
	f.releases()
	f.fleets()
	f.pulls()
	f.experiments()
	f.runs()
	f.measured()
	f.made()
	return f.n
}

// unknown says why it is not known what is needed; zero if it is known.
func unknown(w plan.World, p plan.Plan) delivery.Fact {
	unread := func(what string) delivery.Fact {
		return delivery.Fact{Code: code.KeptUnread, Values: delivery.Values{Text: what}}
	}
	if why := w.MainUnknown(); !why.IsZero() {
		return why
	}
	switch e := w.Evidence; {
	case w.Main.Commit == "":
		return unread("the main branch")
	case !w.ProposalsKnown:
		return unread("the list of pull requests")
	case e.Stale != "" || e.Unknown:
		return unread("the signed statements")
	case len(e.Unread) > 0:
		return unread("a signed statement about bundle " + e.Unread[0].Bundle.Short())
	}
	for _, pr := range w.Proposals {
		if pr.Stale || !pr.Pending.IsZero() {
			return unread(fmt.Sprintf("pull request %d", pr.Number))
		}
	}
	for _, pr := range p.Proposals {
		if pr.Stale {
			return unread(fmt.Sprintf("pull request %d", pr.PR.Number))
		}
	}
	return delivery.Fact{}
}

type finder struct {
	w plan.World
	p plan.Plan
	n Needed

	named map[delivery.Digest]bool // bundles whose detections are used
}

func (f *finder) need(kind Kind, id string, why delivery.Fact) {
	if id != "" {
		f.n.Needs = append(f.n.Needs, Need{Ref{kind, id}, why})
	}
}

func (f *finder) bundle(d delivery.Digest, why delivery.Fact) { f.need(Bundle, string(d), why) }

// name names a thing for people; the first name stays.
func (f *finder) name(kind Kind, id, name string) {
	if r := (Ref{kind, id}); f.n.Names[r] == "" {
		f.n.Names[r] = name
	}
}

// chain records what a thing needs itself.
func (f *finder) chain(of Ref, kind Kind, ids ...delivery.Digest) {
	for _, id := range ids {
		if id != "" {
			f.n.Of[of] = append(f.n.Of[of], Ref{kind, string(id)})
		}
	}
}

func why(c delivery.Code, v delivery.Values) delivery.Fact { return delivery.Fact{Code: c, Values: v} }

// releases needs all that main has accepted: people roll back to it, explain and reproduce it.
func (f *finder) releases() {
	main := f.w.Main
	for _, model := range slices.Sorted(maps.Keys(f.w.Evidence.Accepted)) {
		for _, a := range f.w.Evidence.Accepted[model] {
			because := why(code.KeptRelease, delivery.Values{Model: model, Version: a.Version, Branch: main.Branch})
			name := fmt.Sprintf("%s@%d", model, a.Version)
			f.bundle(a.Bundle, because)
			f.name(Bundle, string(a.Bundle), name)
			for _, v := range a.Variants {
				f.bundle(v.Bundle, because)
				f.name(Bundle, string(v.Bundle), name+" "+v.Variant)
			}
		}
	}
	f.intent(main.Intent, func(file string) delivery.Fact {
		return why(code.KeptNamed, delivery.Values{File: file, Branch: main.Branch})
	})
}

// intent needs the bundles and datasets that files name.
func (f *finder) intent(in delivery.Intent, because func(file string) delivery.Fact) {
	for name, r := range in.Releases.All() {
		f.release(r, because("models/"+name+".release.yaml"))
	}
	for name, m := range in.Models.All() {
		f.need(Dataset, m.Dataset.String(), because("models/"+name+".yaml"))
	}
	for name, g := range in.Gates.All() {
		f.need(Dataset, g.Evaluate.Dataset.String(), because("gates/"+name+".yaml"))
	}
}

// release needs the bundles of a release file.
func (f *finder) release(r delivery.Release, because delivery.Fact) {
	f.bundle(r.Bundle, because)
	for _, v := range r.Variants {
		f.bundle(v.Bundle, because)
	}
}

// fleets needs what devices run, what they are told to run, and the states of rollouts.
func (f *finder) fleets() {
	for _, ring := range slices.Sorted(maps.Keys(f.w.Published)) {
		d, because := f.w.Published[ring], why(code.KeptPublished, delivery.Values{Fleet: ring})
		f.bundle(d.Release.Bundle, because)
		if d.Previous != nil {
			f.bundle(d.Previous.Bundle, because)
		}
	}
	for _, fleet := range slices.Sorted(maps.Keys(f.w.Clocks)) {
		state, because := f.w.Clocks[fleet], why(code.KeptPublished, delivery.Values{Fleet: fleet})
		f.bundle(state.Target.Bundle, because)
		if state.Base != nil {
			f.bundle(state.Base.Bundle, because)
		}
	}
	fleets := map[string]bool{}
	for _, in := range f.intents() {
		for name, fleet := range in.Fleets.All() {
			fleets[name] = true
			for _, a := range f.w.Evidence.Accepted[fleet.Runs] {
				if fleet.Version > 0 && a.Version == fleet.Version {
					f.bundle(a.Bundle, why(code.KeptPinned, delivery.Values{Fleet: name, Model: fleet.Runs,
						Version: a.Version}))
				}
			}
		}
	}
	for _, ring := range slices.Sorted(maps.Keys(f.w.Devices)) {
		fleets[ring] = fleets[ring] || len(f.w.Devices[ring]) > 0
		for _, d := range f.w.Devices[ring] {
			f.bundle(d.Report.Bundle, why(code.KeptDevice, delivery.Values{Device: d.Report.Device, Fleet: ring}))
		}
	}
	for _, asked := range f.w.Asked {
		r := asked.Request
		because := why(code.KeptBench, delivery.Values{Device: r.Device, Fleet: r.Ring})
		f.bundle(r.Bundle, because)
	}
	for _, name := range slices.Sorted(maps.Keys(fleets)) {
		f.need(Clock, name, why(code.KeptFleet, delivery.Values{Fleet: name}))
	}
}

// intents returns main's files, and those of open pull requests.
func (f *finder) intents() []delivery.Intent {
	list := []delivery.Intent{f.w.Main.Intent}
	for _, pr := range f.w.Proposals {
		list = append(list, pr.Intent, pr.Merged)
	}
	return list
}

// pulls needs what open pull requests name, and what was made for them.
func (f *finder) pulls() {
	f.need(Said, CommitOf(f.w.Main.Commit), why(code.KeptCommit, delivery.Values{Branch: f.w.Main.Branch}))
	for _, pr := range f.w.Proposals {
		because := why(code.KeptPull, delivery.Values{PRs: []int{pr.Number}})
		for _, in := range []delivery.Intent{pr.Intent, pr.Merged} {
			f.differs(in, because)
		}
		f.need(Said, CommitOf(pr.Head), because)
		f.need(Said, PullOf(pr.Number), because)
	}
	for _, pr := range f.p.Proposals {
		because := why(code.KeptPull, delivery.Values{PRs: []int{pr.PR.Number}})
		f.need(Said, CommitOf(pr.PR.Head), because)
		f.need(Said, PullOf(pr.PR.Number), because)
		for _, key := range pr.Runs {
			f.need(Run, string(key), because)
		}
		for _, m := range pr.Models {
			f.model(m, because)
		}
	}
}

// differs needs what the files of a pull request name that are other ones than main's.
func (f *finder) differs(in delivery.Intent, because delivery.Fact) {
	main := f.w.Main.Intent
	for _, name := range in.Releases.Changed(main.Releases, func(name string) bool {
		return delivery.SameRelease(in.Releases.Of(name), main.Releases.Of(name))
	}) {
		f.release(in.Releases.Of(name), because)
	}
	for _, name := range in.Models.Changed(main.Models, func(name string) bool {
		return in.Models.Of(name).SpecDigest() == main.Models.Of(name).SpecDigest()
	}) {
		if m, there := in.Models.Get(name); there {
			f.need(Dataset, m.Dataset.String(), because)
			f.trained(m, because)
		}
	}
	for _, name := range in.Gates.Changed(main.Gates, func(name string) bool {
		return in.Gates.Of(name).Evaluate == main.Gates.Of(name).Evaluate
	}) {
		if g, there := in.Gates.Get(name); there {
			f.need(Dataset, g.Evaluate.Dataset.String(), because)
		}
	}
}

// model needs what was made for a model of a pull request.
func (f *finder) model(m plan.ModelReport, because delivery.Fact) {
	f.bundle(m.Bundle, because)
	f.named[m.Bundle] = true
	for _, r := range []*delivery.Release{m.Baseline, m.Release, m.Commit} {
		if r != nil {
			f.bundle(r.Bundle, because)
			f.named[r.Bundle] = true
		}
	}
	f.seeds(m.Seeds, because)
	for _, v := range m.Variants {
		f.bundle(v.Bundle, because)
		f.named[v.Bundle] = true
		if v.Made != nil {
			f.bundle(v.Made.Result.Bundle, because)
			f.need(Run, string(v.Made.Key), because)
		}
	}
	if t, ok := f.w.Evidence.BySpec[m.Spec]; ok {
		f.bundle(t.Bundle, because)
		f.need(Run, string(t.Training.Run), because)
	}
}

// trained needs what a model of a pull request was trained to, also while the pull request is not judged.
func (f *finder) trained(m delivery.Model, because delivery.Fact) {
	for _, spec := range append(slices.Clone(m.SeedDigests()), m.SpecDigest()) {
		if t, ok := f.w.Evidence.BySpec[spec]; ok {
			f.bundle(t.Bundle, because)
			f.need(Run, string(t.Training.Run), because)
		}
	}
}

func (f *finder) seeds(list []plan.SeedReport, because delivery.Fact) {
	for _, s := range list {
		f.bundle(s.Bundle, because)
		f.need(Run, string(s.Run), because)
		f.need(Run, string(s.Key), because)
	}
}

// experiments needs what people try and compare.
func (f *finder) experiments() {
	for _, t := range f.p.Trials {
		because := why(code.KeptTrial, delivery.Values{Text: t.Trial.ID})
		for _, key := range t.Runs {
			f.need(Run, string(key), because)
		}
		for _, v := range t.Variants {
			f.bundle(v.Bundle, because)
			f.seeds(v.Seeds, because)
		}
	}
	for _, c := range f.w.Wanted {
		because := why(code.KeptWanted, delivery.Values{})
		f.bundle(c.Candidate.Bundle, because)
		f.bundle(c.Baseline.Bundle, because)
	}
}

// runs needs the runs that have not ended, and those that the last plan looked up. A pull request that cannot be
// read now, because its files have a mistake, needs the runs that it needed before.
func (f *finder) runs() {
	open := map[int]bool{}
	for _, pr := range f.w.Proposals {
		open[pr.Number] = true
	}
	for _, key := range f.p.Needed {
		f.need(Run, string(key), why(code.KeptNeeded, delivery.Values{}))
	}
	for _, s := range f.p.Steps {
		if start, ok := s.(plan.StartRun); ok {
			f.need(Run, string(start.Spec.Key), why(code.KeptNeeded, delivery.Values{}))
			f.runChain(start.Spec)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(f.w.Runs)) {
		r := f.w.Runs[key]
		if r.Phase == delivery.RunRunning || r.Phase == delivery.RunDied { // the latter may have left processes
			f.need(Run, string(key), why(code.KeptGoing, delivery.Values{}))
		}
		for _, pr := range r.Need.PRs {
			if open[pr] {
				f.need(Run, string(key), why(code.KeptPull, delivery.Values{PRs: []int{pr}}))
			}
		}
		f.name(Run, string(key), "run "+string(r.Spec.Kind)+" "+key.Short())
		f.runChain(r.Spec)
		f.n.Of[Ref{Run, string(key)}] = append(f.n.Of[Ref{Run, string(key)}], Made(r.Result)...)
	}
}

// runChain records what a run reads, and what its result names.
func (f *finder) runChain(spec delivery.RunSpec) {
	r := Ref{Run, string(spec.Key)}
	if t, ok := f.w.Evidence.ByRun[spec.Key]; ok {
		f.chain(r, Bundle, t.Bundle)
	}
	if t, ok := f.w.Evidence.Resolved[spec.Key]; ok {
		f.chain(r, Bundle, t.Result.Bundle)
	}
	evals := func(list ...delivery.EvalRun) {
		for _, e := range list {
			f.chain(r, Bundle, e.Bundle)
			f.chain(r, Detections, e.Detect)
			f.chain(r, Images, e.TrainingImages...)
			f.chain(r, Dataset, delivery.Digest(e.EvalSet.Dataset.String()))
		}
	}
	switch {
	case spec.Data != nil:
		f.chain(r, Dataset, delivery.Digest(spec.Data.Dataset.String()))
		for _, e := range spec.Data.EvalSets {
			f.chain(r, Dataset, delivery.Digest(e.Dataset.String()))
		}
	case spec.Train != nil:
		f.training(r, *spec.Train)
	case spec.Eval != nil:
		evals(*spec.Eval)
	case spec.Compare != nil:
		evals(spec.Compare.Candidate, spec.Compare.Baseline)
		f.chain(r, Pictures, spec.Key)
	case spec.Thresholds != nil:
		evals(spec.Thresholds.Valid)
	case spec.Variant != nil:
		f.training(r, spec.Variant.Train)
		f.chain(r, Bundle, spec.Variant.Bundle)
		f.chain(r, Checkpoint, spec.Variant.Checkpoint)
	}
}

// Made returns what the result of a run names. It is stored with the run, and a later turn may use it.
func Made(result []byte) []Ref {
	var r struct {
		Bundle     delivery.Digest           `json:"bundle"`
		Checkpoint delivery.Digest           `json:"checkpoint"`
		Images     delivery.Digest           `json:"seen"`
		Valid      delivery.EvalSetContent   `json:"valid"`
		EvalSets   []delivery.EvalSetContent `json:"evalSets"`
	}
	if json.Unmarshal(result, &r) != nil {
		return nil
	}
	var list []Ref
	add := func(kind Kind, d delivery.Digest) {
		if d != "" {
			list = append(list, Ref{kind, string(d)})
		}
	}
	add(Bundle, r.Bundle)
	add(Checkpoint, r.Checkpoint)
	add(Images, r.Images)
	for _, e := range append(r.EvalSets, r.Valid) {
		add(Images, e.LeaveOut)
	}
	return list
}

// training records what a training reads.
func (f *finder) training(r Ref, t delivery.TrainRun) {
	f.chain(r, Run, t.Data)
	f.chain(r, Bundle, t.Parent)
	f.chain(r, Checkpoint, t.Checkpoint)
	if t.Environment != nil {
		f.chain(r, Environment, delivery.Digest(EnvironmentOf(*t.Environment)))
	}
}

// measured needs the detections of the models that are compared with now. Others are superseded: they can be made
// again, from the bundle.
func (f *finder) measured() {
	because := map[delivery.Digest]delivery.Fact{}
	for _, m := range f.p.Main.Models {
		if m.Accepted == nil {
			continue
		}
		fact := why(code.KeptRelease, delivery.Values{Model: m.Model, Version: m.Accepted.Version,
			Branch: f.w.Main.Branch})
		because[m.Accepted.Bundle] = fact
		for _, v := range m.Accepted.Variants {
			because[v.Bundle] = fact
		}
	}
	keys := slices.Sorted(maps.Keys(f.w.Evidence.Scores))
	for _, key := range keys {
		s := f.w.Evidence.Scores[key].Input
		fact, ok := because[s.Bundle]
		if !ok && f.named[s.Bundle] {
			fact, ok = why(code.KeptNeeded, delivery.Values{}), true
		}
		if ok {
			f.need(Detections, string(s.Detect), fact)
		}
	}
}

// made records what bundles were made from.
func (f *finder) made() {
	trained := func(t plan.Trained) {
		r := Ref{Bundle, string(t.Bundle)}
		f.chain(r, Checkpoint, t.Training.Result.Checkpoint, t.Training.Input.Checkpoint)
		f.chain(r, Images, t.Training.Data.TrainingImages, t.Training.Data.Valid.LeaveOut)
		f.chain(r, Bundle, t.Training.Input.Parent)
		for _, e := range t.Training.Data.EvalSets {
			f.chain(r, Images, e.LeaveOut)
		}
		for _, s := range t.Training.Seeds {
			f.chain(r, Bundle, s.Bundle)
		}
	}
	e := f.w.Evidence
	for _, key := range slices.Sorted(maps.Keys(e.BySpec)) {
		trained(e.BySpec[key])
	}
	for _, key := range slices.Sorted(maps.Keys(e.ByRun)) {
		trained(e.ByRun[key])
	}
	for _, key := range slices.Sorted(maps.Keys(e.Resolved)) {
		r := e.Resolved[key]
		f.chain(Ref{Bundle, string(r.Result.Bundle)}, Bundle, r.Input.Valid.Bundle)
	}
	for _, of := range slices.Sorted(maps.Keys(e.Variants)) {
		for _, v := range e.Variants[of] {
			f.chain(Ref{Bundle, string(v.Result.Bundle)}, Bundle, v.Input.Bundle)
		}
	}
}

// CommitOf and PullOf are the ids of what was posted about a commit, and about a pull request.
func CommitOf(commit string) string {
	if commit == "" {
		return ""
	}
	return "commit " + commit
}

// PullOf is the id of what was posted about a pull request.
func PullOf(number int) string { return fmt.Sprintf("pull request %d", number) }

// EnvironmentOf is the id of a trainer's environment.
func EnvironmentOf(e delivery.Environment) string {
	return cmp.Or(e.Lock.Hex(), "image") + "-" + e.Python + "-" + e.Platform
}
