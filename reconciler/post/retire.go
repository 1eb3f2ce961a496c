package post

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/words"
)

// Retire sets the statuses of a commit that AOB does not need any more. AOB has set some of them before, such as that
// of a gate that main has removed; a branch that requires one could never merge. Somebody else has set others, with any
// name after aob/. isGate reports whether there is a gate now; nil if that is not known.
func (b *Board) Retire(ctx context.Context, commit string, checks []delivery.Check,
	isGate func(name string) bool) error {
	needed := map[string]bool{}
	released := false
	for _, c := range checks {
		needed[c.Context] = true
		released = released || c.Context == delivery.ContextRelease && c.State == delivery.CheckSuccess
	}
	prefix := b.statusKey(commit, "")
	if _, err := b.posted(ctx, prefix+contextPrefix); err != nil {
		return err
	}
	by, err := b.forged(ctx, commit)
	if err != nil {
		return err
	}
	keys := slices.Clone(b.byCommit[prefix])
	for name := range by {
		keys = append(keys, prefix+name)
	}
	slices.Sort(keys)
	var errs []error
	for _, key := range slices.Compact(keys) {
		name, last := strings.TrimPrefix(key, prefix), b.records[key]
		forged := by[name] != ""
		if needed[name] || !forged && last.Count == 0 && last.Content == "" {
			continue
		}
		fleet, ofRollout := strings.CutPrefix(name, delivery.ContextRollout)
		gate, ofGate := strings.CutPrefix(name, delivery.ContextGate)
		gate, _, _ = strings.Cut(gate, ".") // it is GATE.fleet-FLEET for a gate of a fleet
		unneeded := true                    // it is certain that AOB does not need it
		switch {
		case ofRollout: // only main sets it
			mover, err := b.posted(ctx, rolloutKey+fleet)
			errs = append(errs, err)
			if !forged || err != nil || strings.HasPrefix(mover.Content, commit+" ") {
				continue
			}
		case ofGate, slices.Contains(stages, name), strings.HasPrefix(name, delivery.ContextVariant):
			unneeded = isGate != nil && (released || ofGate && !isGate(gate))
		}
		if !unneeded && !forged || unneeded && strings.HasPrefix(last.Content, string(delivery.CheckSuccess)+" ") {
			continue
		}
		answer := delivery.Check{Context: name, State: delivery.CheckSuccess, Description: "no longer asked for"}
		switch {
		case !unneeded:
			answer.State, answer.Description = delivery.CheckPending, "not judged yet: aob/release says why"
		case forged:
			answer.Description = "AOB asks for no status of this name here"
		}
		errs = append(errs, b.Status(ctx, commit, answer))
	}
	return errors.Join(errs...)
}

// stages are the contexts that AOB sets on pull requests, besides those of gates.
var stages = []string{delivery.ContextIntent, delivery.ContextData, delivery.ContextTrain, delivery.ContextEval,
	delivery.ContextRelease}

// forged returns which other user has set a status of a commit, by context.
func (b *Board) forged(ctx context.Context, commit string) (map[string]string, error) {
	prefix := b.forgedKey(commit, "")
	if _, err := b.posted(ctx, prefix+contextPrefix); err != nil {
		return nil, err
	}
	forged := map[string]string{}
	for _, key := range b.byCommit[prefix] {
		if by := b.records[key].Content; by != "" {
			forged[strings.TrimPrefix(key, prefix)] = by
		}
	}
	return forged, nil
}

// Main posts the statuses of main's commit. isGate reports whether main has a gate; nil if that is not known.
func (b *Board) Main(ctx context.Context, p plan.Plan, isGate func(name string) bool) error {
	var errs []error
	needed := words.Checks(p.Main.Checks)
	for _, c := range needed {
		errs = append(errs, b.Status(ctx, p.Main.Commit, c))
	}
	for _, f := range p.Fleets {
		needed = append(needed, delivery.Check{Context: delivery.ContextRollout + f.Fleet})
	}
	// Statuses that AOB has posted when the commit was the head of a pull request remain.
	prefix := b.statusKey(p.Main.Commit, "")
	by, err := b.forged(ctx, p.Main.Commit)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, key := range b.byCommit[prefix] {
		if name := strings.TrimPrefix(key, prefix); by[name] == "" {
			needed = append(needed, delivery.Check{Context: name})
		}
	}
	return errors.Join(append(errs, b.Retire(ctx, p.Main.Commit, needed, isGate))...)
}

// rolloutKey is the ledger's key of the last commit that changed a fleet's target, and of the target, without the
// fleet.
const rolloutKey = RolloutKeys

// RolloutKeys begins the ledger's keys of rollouts. A record begins with a commit.
const RolloutKeys = "rollout/"

// Rollout posts the state of a fleet's rollout, on main's commit and on the commit that changed the fleet's target.
// moves means that the rollout proceeds in this turn.
func (b *Board) Rollout(ctx context.Context, main string, f plan.FleetReport, moves bool) error {
	check := words.Check(plan.Check{Context: delivery.ContextRollout + f.Fleet, State: f.State, Facts: f.Facts})
	mover, err := b.posted(ctx, rolloutKey+f.Fleet)
	if err != nil {
		return err
	}
	target := fmt.Sprintf("%d %s", f.Target.Version, f.Target.Bundle)
	commit, of, _ := strings.Cut(mover.Content, " ")
	var errs []error
	if moves && of != target {
		commit = main
		mover.Content = commit + " " + target
		b.remember(rolloutKey+f.Fleet, mover)
		errs = append(errs, b.Ledger.PutRecord(ctx, rolloutKey+f.Fleet, mover.Content, b.turn.Now()))
	}
	if commit != "" && commit != main {
		errs = append(errs, b.Status(ctx, commit, check))
	}
	errs = append(errs, b.deployment(ctx, commit, f, check))
	last, err := b.posted(ctx, b.statusKey(main, check.Context))
	errs = append(errs, err)
	forged, err := b.posted(ctx, b.forgedKey(main, check.Context))
	errs = append(errs, err)
	// Main's commit shows a fleet that it changes, one whose status it has already, and one that is not healthy unless
	// it only waits for its first release.
	moved := commit == main || moves
	shown := moved || last.Count > 0 || f.State != delivery.CheckSuccess
	waits := last.Count == 0 && f.Target.Version == 0 && f.State == delivery.CheckPending
	if forged.Content != "" || shown && !waits {
		errs = append(errs, b.Status(ctx, main, check))
	}
	return errors.Join(errs...)
}

// RolloutCommits returns main's commit and the last commits that changed the targets of fleets.
func (b *Board) RolloutCommits(p plan.Plan) []string {
	list := []string{p.Main.Commit}
	for _, f := range p.Fleets {
		commit, _, _ := strings.Cut(b.records[rolloutKey+f.Fleet].Content, " ")
		if commit != "" && !slices.Contains(list, commit) {
			list = append(list, commit)
		}
	}
	return list
}
