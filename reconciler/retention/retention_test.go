package retention_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/retention"
	"github.com/autonomos/aob/reconciler/rollout"
	"github.com/autonomos/aob/reconciler/words"
)

var now = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

var limits = retention.Limits{retention.Run: 30 * day, retention.Bundle: 90 * day, retention.Checkpoint: 90 * day,
	retention.Images: 90 * day, retention.Detections: 30 * day, retention.Dataset: 90 * day, retention.Said: 90 * day,
	retention.Clock: 90 * day, retention.Left: day, retention.Environment: 90 * day, retention.Pictures: 30 * day}

func digest(name string) delivery.Digest { return delivery.Sum([]byte(name)) }

func item(kind retention.Kind, id string, age time.Duration) retention.Item {
	return retention.Item{Ref: retention.Ref{Kind: kind, ID: id}, Name: string(kind), At: now.Add(-age)}
}

func bundle(name string, age time.Duration) retention.Item {
	return item(retention.Bundle, string(digest(name)), age)
}

// empty is a world in which all is known.
func empty() plan.World {
	return plan.World{At: now, ProposalsKnown: true, Main: plan.Main{Branch: "main", Commit: "c0ffee"},
		Evidence: plan.Evidence{Accepted: map[string][]delivery.Acceptance{}}}
}

func run(name string, kind delivery.RunKind, phase delivery.RunPhase) delivery.RunState {
	return delivery.RunState{Spec: delivery.RunSpec{Key: digest(name), Kind: kind}, Phase: phase}
}

func TestDecide(t *testing.T) {
	accepted := empty()
	accepted.Evidence.Accepted["cells"] = []delivery.Acceptance{{Model: "cells", Version: 4, Bundle: digest("b"),
		Variants: []delivery.AcceptedVariant{{Variant: "fp16", Bundle: digest("half")}}}}
	// The release has thresholds: it was made from a trained bundle, which was the best of two seeds.
	accepted.Evidence.Resolved = map[delivery.Digest]delivery.Resolved{digest("t"): {
		Input:  delivery.ThresholdRun{Valid: delivery.EvalRun{Bundle: digest("trained")}},
		Result: delivery.ThresholdResult{Bundle: digest("b")}}}
	accepted.Evidence.BySpec = map[delivery.Digest]plan.Trained{digest("spec"): {Bundle: digest("trained"),
		Training: delivery.Training{Result: delivery.TrainResult{Bundle: digest("trained"),
			Checkpoint: digest("checkpoint")},
			Data:  delivery.DataResult{TrainingImages: digest("images")},
			Seeds: []delivery.SeedScore{{Bundle: digest("trained")}, {Bundle: digest("seed2")}}}}}
	withRuns := func(runs ...delivery.RunState) plan.World {
		w := empty()
		w.Runs = map[delivery.Digest]delivery.RunState{}
		for _, r := range runs {
			w.Runs[r.Spec.Key] = r
		}
		return w
	}
	evalRun := run("eval", delivery.RunEval, delivery.RunDone)
	evalRun.Spec.Eval = &delivery.EvalRun{Bundle: digest("b"), Detect: digest("d"),
		EvalSet: delivery.EvalSet{Dataset: delivery.Dataset{Source: "dir", Path: "gold"}}}
	ofPull := run("run", delivery.RunData, delivery.RunDone)
	ofPull.Need.PRs = []int{12}
	pulled := withRuns(ofPull)
	pulled.Proposals = []plan.Proposal{{PullRequest: delivery.PullRequest{Number: 12, Head: "abc"}}}
	released := pulled
	released.Proposals = []plan.Proposal{{PullRequest: delivery.PullRequest{Number: 12, Head: "abc"},
		Intent: delivery.Intent{Releases: delivery.NamedOf(
			map[string]delivery.Release{"cells": {Bundle: digest("b")}})}}}
	named := empty()
	named.Main.Intent.Releases = delivery.NamedOf(map[string]delivery.Release{"cells": {Bundle: digest("b")}})
	device := empty()
	device.Devices = map[string][]delivery.Device{"docks": {{Report: delivery.Report{Device: "jetson-3",
		Bundle: digest("b")}}}}
	told := empty()
	told.Published = map[string]delivery.Desired{"docks": {Release: delivery.Target{Bundle: digest("new")},
		Previous: &delivery.Target{Bundle: digest("b")}}}
	clocks := empty()
	clocks.Clocks = map[string]rollout.State{"docks": {}, "gone": {}}
	clocks.Main.Intent.Fleets = delivery.NamedOf(map[string]delivery.Fleet{"docks": {Name: "docks"}})
	unread := accepted
	unread.Evidence.Unread = []plan.UnreadStatement{{Bundle: digest("b")}}
	list := empty()
	list.ProposalsKnown = false

	for name, c := range map[string]struct {
		w    plan.World
		p    plan.Plan
		item retention.Item
		why  string // "" is removed
	}{
		"old bundle":         {w: empty(), item: bundle("b", 91*day)},
		"young bundle":       {w: empty(), item: bundle("b", 89*day), why: "younger than 90 days"},
		"release":            {w: accepted, item: bundle("b", 900*day), why: "release cells 4, accepted on main"},
		"its variant":        {w: accepted, item: bundle("half", 900*day), why: "release cells 4, accepted on main"},
		"what it is made of": {w: accepted, item: bundle("trained", 900*day), why: "release cells 4, accepted on main"},
		"another seed":       {w: accepted, item: bundle("seed2", 900*day), why: "release cells 4, accepted on main"},
		"its checkpoint": {w: accepted, item: item(retention.Checkpoint, string(digest("checkpoint")), 900*day),
			why: "release cells 4, accepted on main"},
		"its images": {w: accepted, item: item(retention.Images, string(digest("images")), 900*day),
			why: "release cells 4, accepted on main"},
		"another bundle": {w: accepted, item: bundle("other", 900*day)},
		"named by main": {w: named, item: bundle("b", 900*day),
			why: "models/cells.release.yaml on main names it"},
		"named by a pull request": {w: released, item: bundle("b", 900*day), why: "pull request 12 is open"},
		"on a device": {w: device, item: bundle("b", 900*day),
			why: "device jetson-3 of fleet docks runs it"},
		"told to devices": {w: told, item: bundle("b", 900*day), why: "fleet docks is told to run it"},
		"run of a pull request": {w: pulled, item: item(retention.Run, string(digest("run")), 900*day),
			why: "pull request 12 is open"},
		"posts on a pull request": {w: pulled, item: item(retention.Said, retention.PullOf(12), 900*day),
			why: "pull request 12 is open"},
		"posts on its head": {w: pulled, item: item(retention.Said, retention.CommitOf("abc"), 900*day),
			why: "pull request 12 is open"},
		"posts on main": {w: pulled, item: item(retention.Said, retention.CommitOf("c0ffee"), 900*day),
			why: "it is on the head of main"},
		"posts on another commit": {w: pulled, item: item(retention.Said, retention.CommitOf("abd"), 91*day)},
		"run that goes on": {w: withRuns(run("run", delivery.RunTrain, delivery.RunRunning)),
			item: item(retention.Run, string(digest("run")), 900*day), why: "it has not ended"},
		"run that died": {w: withRuns(run("run", delivery.RunTrain, delivery.RunDied)),
			item: item(retention.Run, string(digest("run")), 900*day), why: "it has not ended"},
		"run that ended": {w: withRuns(run("run", delivery.RunTrain, delivery.RunFailed)),
			item: item(retention.Run, string(digest("run")), 31*day)},
		"run that the plan needs": {w: withRuns(run("run", delivery.RunTrain, delivery.RunDone)),
			p:    plan.Plan{Needed: []delivery.Digest{digest("run")}},
			item: item(retention.Run, string(digest("run")), 900*day), why: "the last turn needs it"},
		"detections of a needed run": {w: withRuns(evalRun), p: plan.Plan{Needed: []delivery.Digest{digest("eval")}},
			item: item(retention.Detections, string(digest("d")), 900*day),
			why:  "run eval " + digest("eval").Short() + " needs it, and is kept"},
		"superseded detections": {w: withRuns(evalRun), item: item(retention.Detections, string(digest("d")), 31*day)},
		"dataset of a needed run": {w: withRuns(evalRun), p: plan.Plan{Needed: []delivery.Digest{digest("eval")}},
			item: item(retention.Dataset, "dir:gold", 900*day),
			why:  "run eval " + digest("eval").Short() + " needs it, and is kept"},
		"clock of a fleet": {w: clocks, item: item(retention.Clock, "docks", 900*day),
			why: "there is a fleet docks"},
		"clock of a gone fleet": {w: clocks, item: item(retention.Clock, "gone", 900*day)},
		"a killed process":      {w: list, item: item(retention.Left, "runs/.gone-x", 2*day)},
		"a statement that cannot be read": {w: unread, item: bundle("other", 900*day),
			why: "nothing is removed now: a signed statement about bundle " + digest("b").Short() + " cannot be read"},
		"the list of pull requests": {w: list, item: bundle("other", 900*day),
			why: "nothing is removed now: the list of pull requests cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			d := retention.Decide(retention.Needs(c.w, c.p), []retention.Item{c.item}, limits, now)[0]
			if text := words.Text(d.Why); d.Keep != (c.why != "") || d.Keep && text != c.why {
				t.Errorf("kept %v: %s; want %q", d.Keep, text, c.why)
			}
			if !d.Keep && d.Why.Code != code.GoneOld && d.Why.Code != code.GoneLeft {
				t.Errorf("removed because %s", d.Why)
			}
		})
	}
}

// What is young keeps what it needs: a run that ended yesterday may be looked up tomorrow.
func TestYoungThingsKeepWhatTheyNeed(t *testing.T) {
	w := empty()
	r := run("eval", delivery.RunEval, delivery.RunDone)
	r.Spec.Eval = &delivery.EvalRun{Bundle: digest("b"), Detect: digest("d")}
	w.Runs = map[delivery.Digest]delivery.RunState{r.Spec.Key: r}
	items := []retention.Item{item(retention.Run, string(r.Spec.Key), day), bundle("b", 900*day),
		item(retention.Detections, string(digest("d")), 900*day)}
	for _, d := range retention.Decide(retention.Needs(w, plan.Plan{}), items, limits, now) {
		if !d.Keep {
			t.Errorf("%s is removed: %s", d.Kind, d.Why)
		}
	}
}

// Whatever a world has: what a release, a device, a fleet or a run that goes on needs is kept, and so is what that
// needs; a thing without a limit is kept; and deciding again, without what was removed, removes nothing more.
func TestWhatIsNeededIsNeverRemoved(t *testing.T) {
	rounds := 2000
	if testing.Short() {
		rounds = 300
	}
	removed := 0
	for seed := range rounds {
		rng := rand.New(rand.NewPCG(uint64(seed), 17))
		w, items := randomWorld(rng)
		n := retention.Needs(w, plan.Plan{})
		some := maps.Clone(limits)
		if seed%5 == 0 {
			delete(some, retention.Bundle)
		}
		decided := retention.Decide(n, items, some, now)
		kept := map[retention.Ref]bool{}
		var left []retention.Item
		for _, d := range decided {
			if d.Why.IsZero() {
				t.Fatalf("seed %d: %s %s without a reason", seed, d.Kind, d.ID)
			}
			if kept[d.Ref] = d.Keep; d.Keep {
				left = append(left, d.Item)
			} else {
				removed++
			}
			if _, limited := some[d.Kind]; !limited && !d.Keep {
				t.Fatalf("seed %d: %s has no limit, and is removed", seed, d.Kind)
			}
		}
		for _, r := range mustKeep(w) {
			if k, there := kept[r]; there && !k {
				t.Fatalf("seed %d: %s %s is needed, and removed", seed, r.Kind, r.ID)
			}
		}
		for of, needs := range n.Of {
			for _, r := range needs {
				if k, there := kept[r]; there && kept[of] && !k {
					t.Fatalf("seed %d: %s is kept, and %s that it needs is removed", seed, of.Kind, r.Kind)
				}
			}
		}
		for _, d := range retention.Decide(n, left, some, now) {
			if !d.Keep {
				t.Fatalf("seed %d: the second time, %s %s is removed, too", seed, d.Kind, d.ID)
			}
		}
	}
	if removed < rounds {
		t.Errorf("only %d things were removed in %d worlds", removed, rounds)
	}
}

// mustKeep lists what must be kept, found another way than by package retention.
func mustKeep(w plan.World) (list []retention.Ref) {
	add := func(kind retention.Kind, d delivery.Digest) {
		list = append(list, retention.Ref{Kind: kind, ID: string(d)})
	}
	var bundles []delivery.Digest
	for _, versions := range w.Evidence.Accepted {
		for _, a := range versions {
			bundles = append(bundles, a.Bundle)
		}
	}
	for _, devices := range w.Devices {
		for _, d := range devices {
			bundles = append(bundles, d.Report.Bundle)
		}
	}
	for _, d := range w.Published {
		bundles = append(bundles, d.Release.Bundle)
	}
	for _, pr := range w.Proposals {
		for _, r := range pr.Intent.Releases.All() {
			bundles = append(bundles, r.Bundle)
		}
	}
	for _, r := range w.Runs {
		open := slices.ContainsFunc(w.Proposals, func(p plan.Proposal) bool {
			return slices.Contains(r.Need.PRs, p.Number)
		})
		if r.Phase == delivery.RunRunning || open {
			add(retention.Run, r.Spec.Key)
			bundles = append(bundles, r.Spec.Eval.Bundle)
			add(retention.Detections, r.Spec.Eval.Detect)
		}
	}
	for len(bundles) > 0 {
		b := bundles[0]
		bundles = bundles[1:]
		add(retention.Bundle, b)
		for _, t := range w.Evidence.ByRun {
			if t.Bundle == b {
				add(retention.Checkpoint, t.Training.Result.Checkpoint)
				if t.Training.Input.Parent != "" {
					bundles = append(bundles, t.Training.Input.Parent)
				}
			}
		}
		for _, r := range w.Evidence.Resolved {
			if r.Result.Bundle == b {
				bundles = append(bundles, r.Input.Valid.Bundle)
			}
		}
	}
	return list
}

// randomWorld makes a world of a few bundles with thresholds, parents and checkpoints, of runs, releases and devices.
func randomWorld(rng *rand.Rand) (plan.World, []retention.Item) {
	const bundles = 24
	w := empty()
	w.Evidence.ByRun = map[delivery.Digest]plan.Trained{}
	w.Evidence.Resolved = map[delivery.Digest]delivery.Resolved{}
	w.Runs = map[delivery.Digest]delivery.RunState{}
	w.Devices = map[string][]delivery.Device{}
	w.Published = map[string]delivery.Desired{}
	name := func(i int) delivery.Digest { return digest(fmt.Sprint("b", i)) }
	var items []retention.Item
	age := func() time.Duration { return time.Duration(rng.IntN(200)) * day }
	for i := range bundles {
		items = append(items, item(retention.Bundle, string(name(i)), age()))
		if i%2 == 1 { // the one before, with thresholds
			key := digest(fmt.Sprint("t", i))
			w.Evidence.Resolved[key] = delivery.Resolved{Key: key,
				Input:  delivery.ThresholdRun{Valid: delivery.EvalRun{Bundle: name(i - 1)}},
				Result: delivery.ThresholdResult{Bundle: name(i)}}
			continue
		}
		t := delivery.Training{Run: digest(fmt.Sprint("r", i)), Result: delivery.TrainResult{Bundle: name(i),
			Checkpoint: digest(fmt.Sprint("c", i))}}
		if i > 2 && rng.IntN(3) == 0 {
			t.Input.Parent = name(rng.IntN(i))
		}
		w.Evidence.ByRun[t.Run] = plan.Trained{Bundle: name(i), Training: t}
		items = append(items, item(retention.Checkpoint, string(t.Result.Checkpoint), age()))
	}
	for i := range 12 {
		r := run(fmt.Sprint("e", i), delivery.RunEval, delivery.RunPhase(rng.IntN(6)))
		r.Spec.Eval = &delivery.EvalRun{Bundle: name(rng.IntN(bundles)), Detect: digest(fmt.Sprint("d", i/2))}
		r.Need.PRs = []int{rng.IntN(6)}
		w.Runs[r.Spec.Key] = r
		items = append(items, item(retention.Run, string(r.Spec.Key), age()))
		if i%2 == 0 {
			items = append(items, item(retention.Detections, string(r.Spec.Eval.Detect), age()))
		}
	}
	for i := range rng.IntN(4) {
		w.Evidence.Accepted["cells"] = append(w.Evidence.Accepted["cells"], delivery.Acceptance{Model: "cells",
			Version: i + 1, Bundle: name(rng.IntN(bundles))})
	}
	for i := range rng.IntN(3) {
		w.Devices["docks"] = append(w.Devices["docks"], delivery.Device{Report: delivery.Report{
			Device: fmt.Sprint("dock-", i), Bundle: name(rng.IntN(bundles))}})
	}
	if rng.IntN(2) == 0 {
		w.Published["docks"] = delivery.Desired{Release: delivery.Target{Bundle: name(rng.IntN(bundles))}}
	}
	for i := range rng.IntN(3) {
		w.Proposals = append(w.Proposals, plan.Proposal{PullRequest: delivery.PullRequest{Number: i + 1},
			Intent: delivery.Intent{Releases: delivery.NamedOf(map[string]delivery.Release{
				"cells": {Bundle: name(rng.IntN(bundles))}})}})
	}
	return w, items
}
