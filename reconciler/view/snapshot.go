package view

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/explain"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/rollout"
	"github.com/autonomos/aob/reconciler/web"
	"github.com/autonomos/aob/reconciler/words"
)

// A Snapshot is what one turn observed and planned. It never changes, so its methods may be called at any time.
type Snapshot struct {
	World plan.World
	Plan  plan.Plan
	At    time.Time
}

// Status returns the state of everything.
func (s *Snapshot) Status() web.Status {
	status := web.Status{At: s.At, Main: web.Main{Branch: s.World.Main.Branch, Commit: s.World.Main.Commit,
		Checks: shownChecks(s.Plan.Main.Checks)}, Models: s.models(), PRs: s.PRs(), Fleets: s.fleets()}
	for key, r := range s.World.Runs {
		needed := slices.Contains(s.Plan.Needed, key) && r.Phase != delivery.RunDone
		if needed || r.Phase == delivery.RunRunning {
			status.Runs = append(status.Runs, s.run(r))
		}
	}
	sortRuns(status.Runs)
	notice := func(facts ...delivery.Fact) { status.Notices = append(status.Notices, words.Join(facts)) }
	for _, back := range s.World.Main.Rewound {
		notice(back.Fact())
	}
	if !s.World.ProposalsKnown {
		notice(delivery.Fact{Code: code.ListMayBeOld})
	}
	for _, lost := range s.lost() {
		notice(lost)
	}
	for _, o := range s.World.Orphans {
		if o.Error != "" {
			notice(plan.OrphanFact(o))
		}
	}
	blind := s.World.MainUnknown()
	if len(s.World.Main.Complaints) > 0 {
		notice(blind, delivery.Fact{Code: code.NothingAccepted})
	}
	if newer := delivery.NewerSigned(s.World.Evidence.Newer); newer != "" {
		facts := []delivery.Fact{{Code: code.NewerSigned, Values: delivery.Values{Text: newer}}}
		if !blind.IsZero() {
			facts = append(facts, delivery.Fact{Code: code.NothingJudgedNow})
		}
		notice(facts...)
	}
	return status
}

func (s *Snapshot) models() []web.Model {
	return delivery.Each(s.Plan.Main.Models, func(m plan.MainModel) web.Model {
		return web.Model{Name: m.Model, Accepted: m.Accepted, Named: m.Named, State: m.State,
			Sentence: sentence(m.Fact)}
	})
}

// sentence returns facts with their text.
func sentence(facts ...delivery.Fact) web.Sentence {
	return web.Sentence{Text: words.Join(facts), Facts: facts}
}

func shownChecks(list []plan.Check) []web.Check {
	return delivery.Each(list, func(c plan.Check) web.Check { return web.Check{Check: words.Check(c), Facts: c.Facts} })
}

// PRs returns the open pull requests, the newest first.
func (s *Snapshot) PRs() []web.PR {
	list := make([]web.PR, 0, len(s.Plan.Proposals))
	for _, p := range s.Plan.Proposals {
		if !p.PR.Merged { // a merged one is in the plan until its last report is posted
			list = append(list, s.pr(p))
		}
	}
	slices.SortFunc(list, func(a, b web.PR) int { return cmp.Compare(b.Number, a.Number) })
	return list
}

// PR returns one pull request with all details.
func (s *Snapshot) PR(number int) (web.PR, error) {
	for _, p := range s.Plan.Proposals {
		if p.PR.Number != number {
			continue
		}
		pr := s.pr(p)
		pr.Gates, pr.Powers, pr.Complaints = delivery.Each(p.Gates, words.WithTexts), p.Powers, p.Problem
		for _, f := range p.Fleets {
			pr.Fleets = append(pr.Fleets, sentence(f))
		}
		for _, m := range p.Models {
			c := web.Change{Model: m.Model, Spec: m.Spec, State: m.State, Sentence: sentence(m.Summary()),
				Bundle: m.Bundle, Baseline: m.Baseline, Verdicts: delivery.Each(m.Verdicts, words.WithTexts),
				Release: m.Release, Measured: m.Measured, Points: m.Points}
			if m.Data != nil {
				c.Findings = m.Data.Findings
			}
			if !m.Moved.IsZero() {
				moved := sentence(m.Moved)
				c.Trainer = &moved
			}
			for _, d := range m.Unsure {
				for _, f := range slices.Concat([]delivery.Fact{d.OfGate()}, d.Refused) {
					c.Settle = append(c.Settle, sentence(f))
				}
			}
			for _, l := range m.Links {
				if c.Pictures == nil {
					c.Pictures = map[string]string{}
				}
				c.Pictures[l.Gate] = cmp.Or(l.URL, l.Path)
			}
			for _, seed := range m.Seeds {
				c.Seeds = append(c.Seeds, shownSeed(seed))
			}
			for _, v := range m.Variants {
				c.Variants = append(c.Variants, shownVariant(v))
			}
			pr.Models = append(pr.Models, c)
		}
		return pr, nil
	}
	return web.PR{}, explain.Unknown{Kind: explain.PR, ID: fmt.Sprint(number),
		Do: "aob pr list shows the open ones, and the history of main has no merge of this number"}
}

func shownVariant(v plan.ModelVariant) web.ModelVariant {
	shown := web.ModelVariant{Variant: v.Variant, State: v.State, Sentence: sentence(v.Fact), Bundle: v.Bundle,
		Passed: v.Passed, Verdicts: delivery.Each(v.Verdicts, words.WithTexts)}
	if v.Made != nil {
		r := v.Made.Result
		shown.Bundle, shown.Size = cmp.Or(v.Bundle, r.Bundle), r.Size
		shown.Parity, shown.Times = &r.Parity, &r.Times
	}
	return shown
}

func (s *Snapshot) pr(p plan.ProposalReport) web.PR {
	pr := web.PR{PullRequest: p.PR, State: delivery.CheckPending, Checks: shownChecks(p.Checks)}
	for _, c := range p.Checks {
		if c.Context == delivery.ContextRelease {
			pr.State, pr.Sentence = c.State, sentence(c.Facts...)
		}
	}
	pr.WaitsFor = waitsFor(p, pr.State)
	for _, key := range s.runsOf(p) {
		if r, ok := s.World.Runs[key]; ok {
			pr.Runs = append(pr.Runs, s.run(r))
		}
	}
	sortRuns(pr.Runs)
	return pr
}

// Release returns a release that main has accepted; version 0 is the one that it has now.
func (s *Snapshot) Release(model string, version int) (web.Released, error) {
	for _, m := range s.Plan.Main.Models {
		if m.Model == model && m.Accepted != nil && version == 0 {
			version = m.Accepted.Version
		}
	}
	for _, a := range s.World.Evidence.Accepted[model] {
		if a.Version == version {
			r := web.Released{Model: model, Version: version, Bundle: a.Bundle}
			quarantine := s.World.Main.Intent.Quarantines.Of(model)
			r.Quarantined, _ = quarantine.Forbids(a.Bundle)
			for _, v := range a.Variants {
				why, is := quarantine.Forbids(v.Bundle)
				if !is {
					why = r.Quarantined
				}
				r.Variants = append(r.Variants, web.Accepted{AcceptedVariant: v, Quarantined: why})
			}
			return r, nil
		}
	}
	what, do := model, "main has released no such model; aob status lists the models, and aob explain model NAME the "+
		"versions of one"
	if version > 0 {
		what = fmt.Sprintf("%s@%d", model, version)
	}
	if len(s.World.Evidence.Accepted[model]) > 0 {
		do = fmt.Sprintf("main has released no such version; aob explain model %s lists the versions", model)
	}
	return web.Released{}, s.unknown(explain.Unknown{Kind: explain.Model, ID: what, Do: do})
}

// waitsFor says in a few words whom or what an open pull request waits for.
func waitsFor(p plan.ProposalReport, state delivery.CheckState) string {
	var owners []string
	for _, m := range p.Models {
		for _, d := range m.Unsure {
			if d.Accept == nil {
				owners = append(owners, d.Owners...)
			}
		}
	}
	switch {
	case p.PR.Merged || p.Elsewhere:
		return ""
	case state == delivery.CheckSuccess && p.PR.Draft:
		return "ready for review"
	case state == delivery.CheckSuccess:
		return "a merge"
	case state != delivery.CheckPending:
		return "its author"
	case len(p.ApprovalCommands) > 0:
		return "approval"
	case len(owners) > 0:
		slices.Sort(owners)
		return strings.Join(slices.Compact(owners), " or ")
	}
	return "AOB"
}

// mergedPR returns a merged pull request by main's history, with what its releases say. It reports false if main has no
// merge of that number.
func (s *Snapshot) mergedPR(number int, commits Commits) (web.PR, bool, error) {
	r := explain.Report{World: s.World, Plan: s.Plan}
	if err := s.past(&r, explain.PR, fmt.Sprint(number), commits); err != nil {
		return web.PR{}, false, fmt.Errorf("read the history of %s: %w", s.World.Main.Branch, err)
	}
	found := r.Merged(number)
	if len(found) == 0 {
		return web.PR{}, false, nil
	}
	first := found[0]
	pr := web.PR{PullRequest: delivery.PullRequest{Number: number, Title: first.Subject, Author: first.Author,
		Head: cmp.Or(r.Heads[number], first.Commit), Base: s.World.Main.Branch, Updated: first.At, Merged: true},
		State: delivery.CheckSuccess}
	facts := []delivery.Fact{{Code: code.Merged}}
	for _, v := range found {
		if v.Release == nil {
			continue
		}
		fact := delivery.Fact{Code: code.MergedVersion, Values: delivery.Values{Version: v.Release.Version}}
		change := web.Change{Model: v.Model, Spec: v.Release.Spec, State: delivery.CheckSuccess,
			Sentence: sentence(fact), Bundle: v.Release.Bundle, Release: v.Release, Measured: v.Release.Measured}
		for _, signed := range s.World.Evidence.Releases {
			if signed.Model == v.Model && delivery.SameRelease(signed.File, *v.Release) {
				for _, g := range signed.Gates {
					change.Verdicts = append(change.Verdicts, words.WithTexts(g.Verdict))
					if a := g.Accept; a != nil {
						change.Settle = append(change.Settle, sentence(delivery.Fact{Code: code.ChainGateAccepted,
							Values: delivery.Values{Gate: g.Name, By: a.By, At: a.At, Text: a.Because}}))
					}
				}
				break
			}
		}
		if len(pr.Models) == 0 {
			facts = nil
		}
		pr.Models = append(pr.Models, change)
		facts = append(facts, fact.In(code.OfModel, delivery.Values{Model: v.Model}))
	}
	pr.Sentence = sentence(facts...)
	return pr, true, nil
}

// runsOf lists the runs of a pull request: those that the plan looked up, and the trainings behind existing evidence.
func (s *Snapshot) runsOf(p plan.ProposalReport) []delivery.Digest {
	keys := slices.Clone(p.Runs)
	for _, m := range p.Models {
		if t, ok := s.World.Evidence.BySpec[m.Spec]; ok && !slices.Contains(keys, t.Training.Run) {
			keys = append(keys, t.Training.Run)
		}
	}
	return keys
}

// sortRuns sorts running ones first, and then the newest.
func sortRuns(runs []web.Run) {
	slices.SortFunc(runs, func(a, b web.Run) int {
		if ar, br := a.Phase == delivery.RunRunning, b.Phase == delivery.RunRunning; ar != br {
			if ar {
				return -1
			}
			return 1
		}
		return cmp.Or(b.Started.Compare(a.Started), cmp.Compare(a.Key, b.Key))
	})
}

func (s *Snapshot) run(r delivery.RunState) web.Run {
	st := r.Status
	run := web.Run{Key: r.Spec.Key, Kind: r.Spec.Kind, Note: r.Spec.Note, Phase: r.Phase, Stage: r.Stage,
		Attempt: r.Tries(), Ending: r.EndReason,
		Epoch: st.Epoch, Epochs: st.Epochs, Batch: st.Batch, Batches: st.Batches, MAP: st.MAP,
		SecondsLeft: st.SecondsLeft,
		Heartbeat:   st.Heartbeat, Started: r.Started, Ended: r.Ended, Message: st.Message, Error: r.Error}
	for _, p := range s.Plan.Proposals {
		if slices.Contains(s.runsOf(p), r.Spec.Key) {
			run.PRs = append(run.PRs, p.PR.Number)
		}
	}
	return run
}

// fleets lists main's fleets, and rings of devices without a fleet.
func (s *Snapshot) fleets() []web.Fleet {
	var list []web.Fleet
	known := map[string]bool{}
	for _, f := range s.Plan.Fleets {
		known[f.Fleet] = true
		list = append(list, s.fleet(f))
	}
	for ring := range s.World.Devices {
		if !known[ring] {
			why := s.World.MainUnknown()
			if why.IsZero() {
				why = delivery.Fact{Code: code.RingOfNoFleet, Values: delivery.Values{Branch: s.World.Main.Branch}}
			}
			list = append(list, s.fleet(plan.FleetReport{Fleet: ring, State: delivery.CheckPending,
				Facts: []delivery.Fact{why, {Code: code.DevicesKeep}}}))
		}
	}
	slices.SortFunc(list, func(a, b web.Fleet) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func (s *Snapshot) fleet(f plan.FleetReport) web.Fleet {
	fleet := web.Fleet{Name: f.Fleet, Model: f.Model, Target: f.Target, Variant: f.Variant, State: f.State,
		Sentence: sentence(f.Facts...), Waves: f.Decision.Waves, Done: f.Decision.Done,
		Paused: s.World.Main.Intent.Fleets.Of(f.Fleet).Paused}
	if d := f.Decision.Desired; d != nil && d.Release == f.Target {
		fleet.Share = d.Share
		fleet.Wave = min(f.Decision.State.Wave+1, fleet.Waves)
	}
	fleet.Back = f.Decision.State.Rollback
	deadline := s.deadline()
	for _, d := range s.World.Devices[f.Fleet] {
		r := d.Report
		fleet.Count.Devices++
		if doc := f.Decision.Desired; doc != nil && doc.Release == f.Target && doc.InWave(r.Device) {
			fleet.InWave++
		}
		strange := rollout.Anomalies(&d, s.At, deadline)
		silent := s.At.Sub(d.LastHeard) > deadline
		switch {
		case silent: // its last report is old
		case len(strange) > 0:
			fleet.Count.Held++
		case r.Phase == delivery.DeviceFailed:
			fleet.Count.Failed++
		case r.Phase == delivery.DeviceHealthy && r.Bundle == f.Target.Bundle && r.Bundle != "":
			fleet.Count.Healthy++
		}
		if !silent {
			fleet.Count.Heard++
		}
		fleet.Devices = append(fleet.Devices, web.Device{ID: r.Device, Silent: silent, Notes: words.Lines(strange),
			Installed: r.Installation, Phase: r.Phase, Version: r.Release, Bundle: r.Bundle, Slot: r.Slot,
			Seen: d.LastHeard, Desired: r.Desired, Failed: r.Failed, Why: r.Why, Labels: r.Labels,
			Downloaded: r.Downloaded})
	}
	if f.State == delivery.CheckSuccess && fleet.Count.Heard == 0 { // no turn has seen that yet
		fleet.State = delivery.CheckPending
		fleet.Sentence = sentence(delivery.Fact{Code: code.DevicesSeen, Values: delivery.Values{
			Total: fleet.Count.Devices, Lasts: delivery.Duration(deadline)}})
	}
	byID := func(a, b web.Device) int { return cmp.Compare(a.ID, b.ID) }
	if n := len(fleet.Devices); n > maxDevices {
		slices.SortFunc(fleet.Devices, func(a, b web.Device) int { return cmp.Or(interest(a)-interest(b), byID(a, b)) })
		fleet.Devices, fleet.More = slices.Clip(fleet.Devices[:maxDevices]), n-maxDevices
	}
	slices.SortFunc(fleet.Devices, byID)
	return fleet
}

// deadline is how long a device may be silent.
func (s *Snapshot) deadline() time.Duration {
	if d := time.Duration(s.World.Server.Deadline); d > 0 {
		return d
	}
	return rollout.DefaultDeadline
}

// now returns the snapshot with the present devices, because a device's report alone does not start a turn.
func (s *Snapshot) now(devices []delivery.Device, at time.Time) *Snapshot {
	c := *s
	c.At, c.World.Devices = at, map[string][]delivery.Device{}
	for _, d := range devices {
		c.World.Devices[d.Report.Ring] = append(c.World.Devices[d.Report.Ring], d)
	}
	return &c
}

// lost says which files the server's store has lost, and how to restore them.
func (s *Snapshot) lost() (list []delivery.Fact) {
	for _, b := range slices.Sorted(maps.Keys(s.World.Stored)) {
		if files := s.World.Stored[b].Lost; len(files) > 0 {
			v := delivery.Values{Files: files, Bundle: b}
			v.Model, v.Version = s.known(b)
			list = append(list, delivery.Fact{Code: code.StoreFilesLost, Values: v})
		}
	}
	return list
}

// known returns the release of a bundle.
func (s *Snapshot) known(b delivery.Digest) (model string, version int) {
	for _, name := range slices.Sorted(maps.Keys(s.World.Evidence.Accepted)) {
		for _, a := range s.World.Evidence.Accepted[name] {
			if _, has := a.Variant(b); has {
				return name, a.Version
			}
		}
	}
	return "", 0
}

// maxDevices is how many devices of one fleet a status lists; all are counted.
const maxDevices = 1000

// interest ranks devices that need attention before healthy ones.
func interest(d web.Device) int {
	if d.Silent || len(d.Notes) > 0 {
		return 0
	}
	switch d.Phase {
	case delivery.DeviceFailed:
		return 0
	case delivery.DeviceHealthy, delivery.DeviceIdle:
		return 2
	}
	return 1
}

// Ready returns nil once the loop has taken a turn.
func (s *Source) Ready() error {
	_, err := s.snapshot()
	return err
}
