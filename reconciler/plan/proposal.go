package plan

import (
	"reflect"
	"slices"
	"strings"
	"unsafe"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
)

// A ProposalReport is what is reported about one pull request.
type ProposalReport struct {
	PR          delivery.PullRequest
	Checks      []Check
	Models      []ModelReport
	Gates       []delivery.Verdict // of current releases, by gates that the PR adds or changes
	Powers      []gate.ModelPower  // how small a drop those gates can show
	Fleets      []delivery.Fact    // what the PR changes about fleets
	Quarantined []delivery.Fact    // the bundles that it quarantines and lifts
	Problem     []delivery.Complaint
	Runs        []delivery.Digest // for its content, in the order of the stages
	OnMain      bool              // main already has all its models
	Kept        bool              // main contains it: the earlier report stays
	// Elsewhere: its target is another branch than main, so nothing is judged.
	Elsewhere        bool
	Stale            bool                     // nothing is decided about it now; the earlier report stays
	ApprovalCommands []string                 // comments that its runs need from someone with write permission
	Costs            map[string]delivery.Fact // by approval code: the cost of the runs that it allows
	Refused          []string                 // who approved runs without write permission
	Orphans          []delivery.Fact          // what its runs have left in a cloud account
}

// Same reports whether two reports say the same. Reports that a [Memory] has kept share their lists, so it rarely looks
// into them.
func (r ProposalReport) Same(other ProposalReport) bool {
	if r.PR != other.PR || r.OnMain != other.OnMain || r.Kept != other.Kept || r.Elsewhere != other.Elsewhere ||
		r.Stale != other.Stale {
		return false
	}
	if one(r.Checks, other.Checks) && one(r.Models, other.Models) && one(r.Gates, other.Gates) &&
		one(r.Powers, other.Powers) && one(r.Fleets, other.Fleets) && one(r.Quarantined, other.Quarantined) &&
		one(r.Problem, other.Problem) && one(r.Runs, other.Runs) && one(r.Refused, other.Refused) &&
		one(r.ApprovalCommands, other.ApprovalCommands) && one(r.Orphans, other.Orphans) &&
		reflect.ValueOf(r.Costs).Pointer() == reflect.ValueOf(other.Costs).Pointer() {
		return true
	}
	return reflect.DeepEqual(r, other)
}

// one reports whether two lists are one and the same.
func one[T any](a, b []T) bool { return len(a) == len(b) && unsafe.SliceData(a) == unsafe.SliceData(b) }

// Cost describes the runs that one of the approval commands allows.
func (r ProposalReport) Cost(command string) delivery.Fact {
	return r.Costs[strings.TrimPrefix(command, "/aob run ")]
}

// RecheckOrder is the comment that asks to try again what has failed.
const RecheckOrder = "/aob recheck"

// CanRecheck reports whether a run has failed, or a check of data has found errors: it can be tried again.
func (r ProposalReport) CanRecheck() bool {
	return len(r.Runs) > 0 && slices.ContainsFunc(r.Checks, func(c Check) bool {
		return c.State == delivery.CheckFailure && (c.Context == delivery.ContextData ||
			slices.ContainsFunc(c.Facts, func(f delivery.Fact) bool { return f.Has(code.RunFailed) }))
	})
}

// Green reports whether aob/release succeeded.
func (r ProposalReport) Green() bool {
	return slices.ContainsFunc(r.Checks, func(c Check) bool {
		return c.Context == delivery.ContextRelease && c.State == delivery.CheckSuccess
	})
}

// changedModels lists the models that a proposal changes: by another spec or release file, or by adding or removing
// them. Comments, order and machine limits do not count.
func changedModels(p Proposal) []string {
	names := p.Base.Models.Changed(p.Intent.Models, func(name string) bool {
		return sameBlob(p, "models/"+name+".yaml") ||
			p.Base.Models.Of(name).SpecDigest() == p.Intent.Models.Of(name).SpecDigest()
	})
	for _, name := range p.Base.Releases.Changed(p.Intent.Releases, func(name string) bool {
		return sameBlob(p, "models/"+name+".release.yaml") || sameFile(p.Base.Releases, p.Intent.Releases, name)
	}) {
		if p.Base.Models.Has(name) || p.Intent.Models.Has(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// sameBlob reports whether both trees are known to have the same bytes at path.
func sameBlob(p Proposal, path string) bool {
	return p.Base.Files.Known() && p.Intent.Files.Known() && p.Base.Files.Of(path) == p.Intent.Files.Of(path)
}

func sameFile(base, head delivery.Named[delivery.Release], name string) bool {
	b, inBase := base.Get(name)
	h, inHead := head.Get(name)
	return inBase == inHead && delivery.SameRelease(b, h)
}

// proposal makes the report of one pull request, and plans its steps.
func (m *maker) proposal(p Proposal) ProposalReport {
	r := ProposalReport{PR: p.PullRequest, Problem: p.Complaints}
	if p.Stale {
		r.Stale = true
		m.noNeeds(p.Number)
		return r
	}
	if !m.targetsMain(p) {
		r.Problem, r.Elsewhere = nil, true
		r.Checks = []Check{check(delivery.ContextRelease, delivery.CheckPending,
			fact(code.TargetsOther, values{From: p.PullRequest.Base, Branch: m.w.Main.Branch}))}
		return r
	}
	if !p.Pending.IsZero() && len(p.Complaints) == 0 {
		r.Checks = []Check{check(delivery.ContextRelease, delivery.CheckPending, p.Pending)}
		m.noNeeds(p.Number) // it is not known yet which runs it needs
		return r
	}
	if why := m.notJudged(p); !why.IsZero() {
		r.Checks = []Check{
			check(delivery.ContextIntent, delivery.CheckFailure, why),
			check(delivery.ContextRelease, delivery.CheckFailure, why.In(code.OfStage, values{Stage: "intent"})),
		}
		m.needsUnknown(p)
		return r
	}
	valid := check(delivery.ContextIntent, delivery.CheckSuccess, summary(p.Intent))
	if r.Quarantined = changedQuarantines(p); len(r.Quarantined) > 0 {
		valid.Facts = append(valid.Facts, fact(code.QuarantineChanged, values{Facts: r.Quarantined}))
	}
	valid.Facts = slices.Concat(valid.Facts, m.awaitedModels(p.Intent), UndeclaredVariants(p.Merged),
		m.invalidOwners(p.Intent),
		m.unknownTrackers(p.Intent))

	names := changedModels(p)
	for _, name := range names {
		r.Models = append(r.Models, m.model(p, name))
	}
	for _, name := range m.repointed(p, names) {
		r.Models = append(r.Models, m.repoint(p, name))
	}
	r.OnMain = len(r.Models) > 0 && !slices.ContainsFunc(r.Models, func(mr ModelReport) bool { return !mr.OnMain })
	r.Kept = p.Landed && len(r.Models) == 0
	r.Fleets = changedFleets(p)
	gates := changedGates(p)
	if len(gates) > 0 {
		r.Gates, r.Powers = m.judgeCurrent(p, gates)
	}

	r.Runs, r.ApprovalCommands, r.Costs = m.runs[p.Number], m.approvalCommands[p.Number], m.costs[p.Number]

	if len(r.ApprovalCommands) > 0 {
		r.Refused = p.Refused
	}

	r.Orphans = m.orphansOf(p)
	r.Checks = append(r.Checks, valid)
	r.Checks = append(r.Checks, stageChecks(r.Models)...)
	r.Checks = append(r.Checks, m.releaseCheck(p, &r, gates))
	return r
}

// notJudged says why nothing in a proposal can be judged.
func (m *maker) notJudged(p Proposal) (why delivery.Fact) {
	if why = foreignFiles(p); why.IsZero() && p.Unreadable == "" {
		why = m.mergeUnknown(p)
	}
	for _, name := range changedModels(p) {
		if why.IsZero() {
			why = m.missingOnMain(p, name)
		}
	}
	switch {
	case !why.IsZero():
		return why
	case len(p.Complaints) > 0:
		return complaints(p.Complaints)
	}
	if why = m.shortenedQuarantine(p); why.IsZero() {
		why = m.wrongNames(p)
	}
	return why
}

// complaints returns the first complaint, and how many more there are.
func complaints(list []delivery.Complaint) delivery.Fact {
	return fact(code.IntentInvalid, values{Text: list[0].String(), Count: len(list) - 1})
}

// mergeUnknown says why the result of merging a proposal cannot be known. With several best common ancestors, git may
// take a file from main or from the head, and no diff shows which.
func (m *maker) mergeUnknown(p Proposal) delivery.Fact {
	branch := m.w.Main.Branch
	switch {
	case len(p.BothChanged) > 0:
		return fact(code.BothChanged, values{Branch: branch, Files: p.BothChanged})
	case len(p.Moved) > 0:
		return fact(code.MovedFiles, values{Branch: branch, Files: p.Moved})
	case len(p.Undone) > 0:
		return fact(code.UndoneChange, values{Branch: branch, Files: p.Undone})
	case len(p.Bases) == 1 || m.mainCommit() == "":
		return delivery.Fact{}
	case len(p.Bases) == 0:
		return fact(code.HistoryUnrelated, values{Branch: branch})
	}
	return fact(code.HistoryCrossed, values{Branch: branch, Count: len(p.Bases)})
}

// foreignFiles says which files of AOB's own pull request others have changed. AOB would vouch for their changes.
func foreignFiles(p Proposal) delivery.Fact {
	if len(p.Foreign) == 0 {
		return delivery.Fact{}
	}
	return fact(code.ForeignChange, values{Files: p.Foreign, Branch: p.HeadRef, Commit: p.Made})
}

func summary(i delivery.Intent) delivery.Fact {
	return fact(code.IntentSummary, values{Counts: map[string]int{"models": i.Models.Len(), "gates": i.Gates.Len(),
		"fleets": i.Fleets.Len()}})
}

// stageChecks makes one check per context from the stages of all models: the worst state, and all facts.
func stageChecks(models []ModelReport) []Check {
	var order []string
	byContext := map[string][]Stage{}
	for _, mr := range models {
		for _, s := range mr.Stages {
			if len(models) > 1 {
				s.Fact = s.Fact.In(code.OfModel, values{Model: mr.Model})
			}
			if byContext[s.Context] == nil {
				order = append(order, s.Context)
			}
			byContext[s.Context] = append(byContext[s.Context], s)
		}
	}
	checks := make([]Check, 0, len(order))
	for _, context := range order {
		stages := byContext[context]
		slices.SortStableFunc(stages, func(a, b Stage) int { return severity(b.State) - severity(a.State) })
		facts := delivery.Each(stages, func(s Stage) delivery.Fact { return s.Fact })
		checks = append(checks, check(context, stages[0].State, facts...))
	}
	return checks
}

func severity(s delivery.CheckState) int {
	switch s {
	case delivery.CheckSuccess:
		return 0
	case delivery.CheckPending:
		return 1
	}
	return 2
}

// releaseCheck makes the check that branch protection requires. It succeeds only if nothing is to be released, or if
// the tree has the release files that the signed statements give.
func (m *maker) releaseCheck(p Proposal, r *ProposalReport, gates []string) Check {
	lacking, unknown := m.changedFleetsLack(p, r.Models)
	if len(r.Models) == 0 {
		c := check(delivery.ContextRelease, delivery.CheckSuccess, fact(code.NoModelChange, values{}))
		switch {
		case len(gates) > 0:
			c.Facts = append(c.Facts, fact(code.GatesChanged, values{Gates: gates}))
			if failing := failing(r.Gates); len(failing) > 0 {
				c.Facts = append(c.Facts, fact(code.WouldFail, values{Facts: failing}))
			}
			if slices.ContainsFunc(r.Gates, func(v delivery.Verdict) bool { return v.Outcome == "" }) {
				c = check(delivery.ContextRelease, delivery.CheckPending, fact(code.JudgingCurrent, values{}))
			}
		case len(r.Fleets) > 0:
			c.Facts = append(c.Facts, fact(code.FleetsChanged, values{Facts: r.Fleets}))
		}
		if len(r.Quarantined) > 0 {
			c.Facts = append(c.Facts, fact(code.QuarantineChanged, values{Facts: r.Quarantined}))
		}
		switch {
		case len(lacking) > 0:
			c = check(delivery.ContextRelease, delivery.CheckFailure, lacking...)
		case len(unknown) > 0 && c.State == delivery.CheckSuccess:
			c = check(delivery.ContextRelease, delivery.CheckPending, unknown...)
		}
		return m.behind(c, p)
	}

	done, waiting, failed := []delivery.Fact(nil), unknown, lacking
	var missing []delivery.Release
	verdicts := map[string][]delivery.Verdict{}
	for _, mr := range r.Models {
		f := mr.Summary()
		switch mr.State {
		case delivery.CheckSuccess:
			done = append(done, f)
		case delivery.CheckPending:
			waiting = append(waiting, f)
		default:
			failed = append(failed, f)
		}
		if mr.Commit != nil {
			missing = append(missing, *mr.Commit)
			verdicts[mr.Model] = mr.Verdicts
		}
	}
	c := check(delivery.ContextRelease, delivery.CheckSuccess, done...)
	switch {
	case len(failed) > 0:
		c = check(delivery.ContextRelease, delivery.CheckFailure, failed...)
	case len(waiting) > len(missing):
		c = check(delivery.ContextRelease, delivery.CheckPending, waiting...)
	case len(missing) > 0:
		// All models are ready: one commit adds all files, so that no head has only some of them.
		m.step(CommitRelease{PR: p.PullRequest, Releases: missing, Verdicts: verdicts})
		c = check(delivery.ContextRelease, delivery.CheckPending, waiting...)
	}
	return m.behind(c, p)
}

// behind adds to a passed check on a local forge that main has moved on, so that aob pr merge would refuse.
func (m *maker) behind(c Check, p Proposal) Check {
	if m.w.Server.Socket && c.State == delivery.CheckSuccess && !p.Landed && len(p.Bases) == 1 &&
		noted(m, func(m *maker) bool { return p.Bases[0] != m.tip }) {
		c.Facts = append(c.Facts, fact(code.MainMoved, values{Branch: m.w.Main.Branch}))
	}
	return c
}

// failing returns the models that gates fail, and why.
func failing(verdicts []delivery.Verdict) []delivery.Fact {
	var list []delivery.Fact
	for _, v := range verdicts {
		if v.Outcome == delivery.Fail {
			list = append(list, ReasonOf(v).In(code.OfModel, values{Model: v.Model}))
		}
	}
	return list
}

// ReasonOf returns the reason of a verdict.
func ReasonOf(v delivery.Verdict) delivery.Fact {
	if len(v.Because) == 0 && v.Reason != "" { // signed by an older version
		return fact(code.Plain, values{Text: v.Reason})
	}
	return several(v.Because...)
}

// AwaitedModels names the first model that a gate covers and that does not exist yet, and counts the others: a gate may
// be merged before its first model.
func AwaitedModels(in delivery.Intent) []delivery.Fact {
	var list []delivery.Fact
	for name, g := range in.Gates.All() {
		for _, model := range g.Covers {
			if in.Models.Has(model) {
				continue
			}
			if len(list) == 0 {
				list = []delivery.Fact{fact(code.GateAwaits, values{Gate: name, Model: model})}
			} else {
				list[0].Count++
			}
		}
	}
	return list
}

// UncoveredModels names the models that no gate covers: a pull request with such a model fails.
func UncoveredModels(in delivery.Intent) (list []delivery.Fact) {
	for _, name := range in.Models.Names() {
		if len(in.Covering(name)) == 0 {
			list = append(list, fact(code.NoGate, values{Model: name}))
		}
	}
	return list
}

// unknownTrackers warns about the first model whose tracker the server does not have, and counts the others.
func (m *maker) unknownTrackers(in delivery.Intent) (list []delivery.Fact) {
	for _, name := range in.Models.Keyed(delivery.KeyTracked) {
		tracker := in.Models.Of(name).Track.Tracker()
		switch {
		case tracker == "" || slices.Contains(m.w.Server.Trackers, tracker):
		case len(list) == 0:
			list = []delivery.Fact{fact(code.TrackUnknown, values{Model: name, Text: tracker})}
		default:
			list[0].Count++
		}
	}
	return list
}

// invalidOwners warns about owners of gates who cannot accept anything.
func (m *maker) invalidOwners(in delivery.Intent) []delivery.Fact {
	if len(m.w.InvalidOwners) == 0 {
		return nil
	}
	var list []delivery.Fact
	for _, name := range in.Gates.Names() {
		for _, o := range in.Gates.Of(name).Owners {
			if why := m.w.InvalidOwners[o]; why != "" {
				list = append(list, fact(code.OwnerWarning, values{By: o, Gate: name, Text: why}))
			}
		}
	}
	return list
}
