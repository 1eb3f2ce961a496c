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

// Retire answers the statuses on a commit that AOB does not ask for. Some AOB has set before, such as that of a gate
// that main has removed: without an answer a branch that requires it never merges. Others somebody else has set, under
// any name: without an answer they stay. gates are those that may be asked for; nil where they are not known.
func (b *Board) Retire(ctx context.Context, commit string, checks []delivery.Check,
	gates map[string]delivery.Gate) error {
	asked := map[string]bool{}
	released := false
	for _, c := range checks {
		asked[c.Context] = true
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
		if asked[name] || !forged && last.Count == 0 && last.Content == "" {
			continue
		}
		fleet, ofRollout := strings.CutPrefix(name, delivery.ContextRollout)
		gate, ofGate := strings.CutPrefix(name, delivery.ContextGate)
		gate, _, _ = strings.Cut(gate, ".") // of a fleet's bar it is GATE.fleet-FLEET
		_, there := gates[gate]
		answer := delivery.Check{Context: name, State: delivery.CheckSuccess, Description: "no longer asked for"}
		if forged {
			answer.Description = "AOB asks for no status of this name here"
		}
		var known bool // AOB does not ask for it
		switch {
		case ofRollout: // only main sets it
			mover, err := b.posted(ctx, rolloutKey+fleet)
			errs = append(errs, err)
			if !forged || err != nil || strings.HasPrefix(mover.Content, commit+" ") {
				continue
			}
			known = true
		case ofGate:
			known = gates != nil && (released || !there)
		case isStage(name):
			known = gates != nil && released
		default:
			known = true
		}
		switch {
		case strings.HasPrefix(last.Content, string(delivery.CheckSuccess)+" ") && known:
		case known:
			errs = append(errs, b.Status(ctx, commit, answer))
		case forged:
			answer.State, answer.Description = delivery.CheckPending, "not judged yet: aob/release says why"
			errs = append(errs, b.Status(ctx, commit, answer))
		}
	}
	return errors.Join(errs...)
}

// isStage reports whether a context is one that AOB sets on pull requests, besides those of gates.
func isStage(context string) bool {
	switch context {
	case delivery.ContextIntent, delivery.ContextData, delivery.ContextTrain, delivery.ContextEval,
		delivery.ContextRelease:
		return true
	}
	return false
}

// forged returns who set statuses of a commit that AOB did not set, by context.
func (b *Board) forged(ctx context.Context, commit string) (map[string]string, error) {
	prefix := b.forgedKey(commit, "")
	if _, err := b.posted(ctx, prefix+contextPrefix); err != nil {
		return nil, err
	}
	var forged map[string]string
	for _, key := range b.byCommit[prefix] {
		if by := b.records[key].Content; by != "" {
			if forged == nil {
				forged = map[string]string{}
			}
			forged[strings.TrimPrefix(key, prefix)] = by
		}
	}
	return forged, nil
}

// Main posts how main's commit stands. gates are those of main; nil where they are not known.
func (b *Board) Main(ctx context.Context, p plan.Plan, gates map[string]delivery.Gate) error {
	var errs []error
	asked := words.Checks(p.Main.Checks)
	for _, c := range asked {
		errs = append(errs, b.Status(ctx, p.Main.Commit, c))
	}
	for _, f := range p.Fleets {
		asked = append(asked, delivery.Check{Context: delivery.ContextRollout + f.Fleet})
	}
	// What AOB has posted there as on the head of a pull request stays.
	prefix := b.statusKey(p.Main.Commit, "")
	by, err := b.forged(ctx, p.Main.Commit)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, key := range b.byCommit[prefix] {
		if name := strings.TrimPrefix(key, prefix); by[name] == "" {
			asked = append(asked, delivery.Check{Context: name})
		}
	}
	return errors.Join(append(errs, b.Retire(ctx, p.Main.Commit, asked, gates))...)
}

// rolloutKey is where the ledger keeps which commit moved a fleet last, and to what: that commit shows the rollout.
const rolloutKey = "rollout/"

// Rollout posts how a fleet's rollout stands, on main's commit and on the commit that moved the fleet. moves says that
// the rollout goes further in this turn. What could not be posted when the rollout ended is posted later.
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
	last, err := b.posted(ctx, b.statusKey(main, check.Context))
	errs = append(errs, err)
	forged, err := b.posted(ctx, b.forgedKey(main, check.Context))
	errs = append(errs, err)
	// Main's commit shows a fleet that it moves. It also shows one whose status stands there already, or one that is
	// not well, unless that only waits for its first release.
	moved := commit == main || moves
	shown := moved || last.Count > 0 || f.State != delivery.CheckSuccess
	waits := last.Count == 0 && f.Target.Version == 0 && f.State == delivery.CheckPending
	if forged.Content != "" || shown && !waits {
		errs = append(errs, b.Status(ctx, main, check))
	}
	return errors.Join(errs...)
}

// RolloutCommits returns main's commit and the commits that moved fleets last.
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
