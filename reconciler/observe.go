package reconciler

// This file makes the world of a turn from what is read beside the loop and what is read in the turn.

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/history"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/poll"
	"github.com/autonomos/aob/reconciler/pulls"
	"github.com/autonomos/aob/reconciler/rollout"
	"github.com/autonomos/aob/reconciler/turn"
)

// activePoll is the time between turns while a run is going on.
const activePoll = 500 * time.Millisecond

// errNotRead is the error of a turn before git has been read.
var errNotRead = delivery.Wait{For: time.Second, What: "the repository has not been read yet"}

// observe returns the world. It reports false, and no world, if nothing can have changed since the last turn.
func (r *Reconciler) observe(ctx context.Context) (plan.World, bool, error) {
	now := r.Now()
	r.board.Hear(ctx)
	r.pushed()
	statuses, bodies := r.answers.News()
	r.board.ReadBack(ctx, statuses, bodies, r.answers.List().Open)
	refs, asOf := r.git.Known()
	if refs == nil || asOf == 0 && len(refs) == 0 {
		return plan.World{}, false, errNotRead
	}
	pulls := r.answers.List()
	why := r.turnDue(now, asOf, pulls.Version)
	if why == "" {
		return plan.World{}, false, nil
	}
	r.turn.Begin()
	r.observed.refs, r.observed.asOf, r.observed.answers = refs, asOf, pulls.Version
	if main := refs[git.Branch+r.Main]; main != r.observed.main {
		r.observed.main, r.observed.mainAsOf = main, asOf
	}
	r.observed.at, r.observed.why = now, why
	w, err := r.world(ctx, now, pulls)
	if err != nil {
		r.turn.Soon("the last turn could not observe everything")
		return plan.World{}, false, err
	}
	r.observed.world = w
	return w, true, nil
}

// turnDue says why a turn is due; "" if none is. asOf and answers are versions of what is known of git and the forge.
func (r *Reconciler) turnDue(now time.Time, asOf, answers int) string {
	switch {
	case asOf != r.observed.asOf || r.observed.refs == nil:
		return "the repository has changed"
	case answers != r.observed.answers:
		return "the forge has answered something new"
	case r.observed.running && !now.Before(r.observed.at.Add(activePoll)):
		return "runs are running"
	}
	return r.turn.Why()
}

// nextTurn returns the latest time of the next turn.
func (r *Reconciler) nextTurn() time.Time {
	next := r.Now().Add(r.GitPoll)
	if due := r.turn.Due(); !due.IsZero() && due.Before(next) {
		next = due
	}
	if active := r.observed.at.Add(activePoll); r.observed.running && active.Before(next) {
		next = active
	}
	return next
}

// Troubles with reading.
const (
	approvalTrouble = "an approval of a run cannot be read in the ledger, and is asked for again"
	trialsTrouble   = "an experiment cannot be read in the ledger, and is forgotten"
	signedTrouble   = "the evidence about bundles cannot be read; fleets go on with what is known, and pull " +
		"requests wait"
	someTrouble  = "statements about bundles cannot be read, and do not count"
	gatesTrouble = "the history of main's gates cannot be read"
	runsTrouble  = "a run cannot be read"
	clockTrouble = "the rollout of fleet %s cannot be read in the ledger; its waves begin again"
)

// world makes the world. A part that cannot be read is named in the world, and the others are read all the same.
func (r *Reconciler) world(ctx context.Context, now time.Time, listed poll.Pulls) (plan.World, error) {
	w := plan.World{At: now, Server: r.Server}
	var stale bool
	var err error
	if w.Main, stale, err = r.history.Main(ctx, r.observed.main); err != nil {
		return w, err
	}
	w.Main.Quarantine = r.history.Quarantined(ctx, w.Main)
	// A list that is older than main's last move may still have the pull request that moved main.
	stale = stale || listed.AsOf < r.observed.mainAsOf
	w.ProposalsKnown = listed.Known && !stale
	approvals, err := r.Ledger.Approvals(ctx, now.Add(-poll.ApprovalLasts))
	if r.turn.Note(approvalTrouble, err); delivery.Usable(err) {
		r.observed.approvals = approvals
	}
	list := listed.Open
	if err := r.pulls.ReadOpen(ctx); err != nil {
		r.turn.Note(turn.LedgerReads, err)
		r.turn.In(time.Second, "the ledger is read again")
	} else {
		var open []delivery.PullRequest // if the list is old, any of it may have been merged since
		if w.ProposalsKnown {
			open = listed.Open
			list = slices.Concat(open, r.pulls.Merged(ctx, open, w.Main.Commit))
		}
		w.Main.Lost, err = r.lostGates(ctx, w.Main.Commit, open)
		r.turn.Note(gatesTrouble, err)
	}
	w.Opened = r.pulls.Opened(ctx)
	w.Proposals = r.pulls.Read(ctx, pulls.Now{Main: w.Main.Commit, Refs: r.observed.refs,
		Approvals: r.observed.approvals, Last: r.observed.plan, Stale: stale}, list)

	w.Trials, err = r.Requests.Trials(ctx, now)
	r.turn.Note(trialsTrouble, err)
	w.Wanted, w.PowerOf = r.Requests.Comparisons(now), r.Requests.Gates(now)
	w.InvalidOwners = r.answers.InvalidOwners()
	if r.Orphans != nil {
		w.Orphans = r.Orphans()
	}
	if w.Runs, err = r.runs(); err != nil {
		return w, err
	}
	r.addMoney(ctx, &w, r.observed.approvals)
	w.Devices = map[string][]delivery.Device{}
	w.Asked = r.Fleet.Asked()
	for _, list := range byRing(r.Fleet.Devices()) {
		ring := list[0].Report.Ring
		if w.Devices[ring] != nil { // of a fleet that does not sort
			list = append(w.Devices[ring], list...)
		}
		w.Devices[ring] = list
	}
	// Read after the devices, so that a report after a gap is not seen without the end of the gap.
	w.Listening = map[string]time.Time{}
	for ring := range w.Devices {
		w.Listening[ring] = r.Fleet.Listening(ring)
	}
	if r.Blobs != nil {
		w.Stored = r.Blobs.Found()
	}
	if w.Clocks, err = r.clocks(ctx); err != nil {
		return w, err
	}
	w.Published = map[string]delivery.Desired{}
	addPublished := func(names []string) {
		for _, name := range names {
			if d, ok := r.Fleet.Published(name); ok {
				w.Published[name] = d
			}
		}
	}
	addPublished(w.Main.Intent.Fleets.Names())
	addPublished(w.Main.BrokenFleets())
	for _, p := range w.Proposals { // a proposal may bring back a removed fleet
		addPublished(newFleets(w.Main.Intent, p.Merged))
	}
	if w.Evidence, err = r.signed(ctx, r.observed.plan.Scores); err != nil {
		return w, err
	}
	r.restore(&w)
	w.Main.Repointed = r.history.Moves(w)
	r.history.Releases(&w)
	r.commits.Sweep()
	return w, ctx.Err()
}

// byRing cuts a list of devices where the ring changes.
func byRing(devices []delivery.Device) (lists [][]delivery.Device) {
	for len(devices) > 0 {
		ring := devices[0].Report.Ring
		n := slices.IndexFunc(devices, func(d delivery.Device) bool { return d.Report.Ring != ring })
		if n < 0 {
			n = len(devices)
		}
		lists, devices = append(lists, devices[:n:n]), devices[n:]
	}
	return lists
}

// lostGates finds the gates that main has lost although no pull request showed it. open are the open pull requests.
func (r *Reconciler) lostGates(ctx context.Context, main string, open []delivery.PullRequest) ([]plan.LostGate, error) {
	merged, err := r.pulls.MergedHeads(ctx)
	if err != nil {
		return r.history.KnownLostGates(), err
	}
	return r.history.LostGates(ctx, main, history.Shown{Merged: merged, Maybe: r.pulls.MaybeMerged(open),
		Refs: r.observed.refs})
}

// restore rebuilds lost published documents of fleets.
func (r *Reconciler) restore(w *plan.World) {
	tried := map[[2]string]bool{} // fleet and model
	fill := func(name string, f delivery.Fleet) {
		key := [2]string{name, f.Runs}
		if _, ok := w.Published[name]; ok || tried[key] {
			return
		}
		tried[key] = true
		if d, ok := plan.Restored(*w, f); ok {
			w.Published[name] = d
		}
	}
	for name, f := range w.Main.Intent.Fleets.All() {
		fill(name, f)
	}
	for _, p := range w.Proposals {
		for _, name := range changedFleets(w.Main.Intent, p.Merged) {
			if f, there := p.Merged.Fleets.Get(name); there {
				fill(name, f)
			}
		}
	}
}

// newFleets lists the fleets that a tree has and main does not have.
func newFleets(main, tree delivery.Intent) []string {
	same := func(string) bool { return true }
	return slices.DeleteFunc(main.Fleets.Changed(tree.Fleets, same), main.Fleets.Has)
}

// changedFleets lists the fleets that only one of two trees has, and those that run different models.
func changedFleets(main, tree delivery.Intent) []string {
	return main.Fleets.Changed(tree.Fleets, func(name string) bool {
		return main.Fleets.Of(name).Runs == tree.Fleets.Of(name).Runs
	})
}

// signed returns the evidence about bundles. If it cannot be read, the last evidence is used, because statements are
// added and never removed.
func (r *Reconciler) signed(ctx context.Context, scored []delivery.Digest) (plan.Evidence, error) {
	e, err := r.Evidence.Evidence(ctx, scored)
	if ctx.Err() != nil {
		return e, ctx.Err()
	}
	if err != nil {
		r.turn.Note(signedTrouble, delivery.Blockedf(
			"check the folder, its owner and the disk; AOB goes on by itself when it can be read", "%s", err))
		r.turn.In(time.Second, "the evidence is read again")
		if r.observed.evidence == nil {
			return plan.Evidence{Stale: err.Error(), Unknown: true}, nil
		}
		e = *r.observed.evidence
		e.Stale = err.Error()
		return e, nil
	}
	r.turn.Note(signedTrouble, nil)
	r.observed.evidence = &e
	var bad delivery.Unreadable
	for _, u := range e.Unread {
		bad = append(bad, delivery.Unread{What: fmt.Sprintf("%s of bundle %s", path.Base(path.Dir(u.Type)),
			u.Bundle.Short()), Why: u.Why})
	}
	if len(bad) == 0 {
		r.turn.Note(someTrouble, nil)
	} else {
		r.turn.In(10*time.Second, "statements are read again")
		r.turn.Note(someTrouble, delivery.Blockedf("copy the files from a backup; a file's name is its SHA-256",
			"%s", bad))
	}
	return e, nil
}

func (r *Reconciler) runs() (map[delivery.Digest]delivery.RunState, error) {
	list, err := r.Runs.Observe()
	r.turn.Note(runsTrouble, err)
	runs := make(map[delivery.Digest]delivery.RunState, len(list))
	r.observed.running = false
	for _, s := range list {
		s.Result = r.observed.results[s.Spec.Key]
		runs[s.Spec.Key] = s
		r.observed.running = r.observed.running || s.Phase == delivery.RunRunning
	}
	return runs, nil
}

// readResults reads the results of runs that a plan requested, and reports whether it got any.
func (r *Reconciler) readResults(w plan.World, keys []delivery.Digest) bool {
	got := false
	for _, key := range keys {
		s, err := r.Runs.State(key)
		if err != nil || s.Result == nil {
			r.Log.Warn("the result of a run cannot be read", "run", key.Short(), "error", fmt.Sprint(err))
			continue
		}
		r.observed.results[key] = s.Result
		w.Runs[key] = s
		got = true
	}
	return got
}

// readScores reads the scores that a plan requested, and reports whether any were missing before.
func (r *Reconciler) readScores(ctx context.Context, w *plan.World, scored []delivery.Digest) bool {
	known := w.Evidence.Stale != "" || !slices.ContainsFunc(scored, func(bundle delivery.Digest) bool {
		return !w.Evidence.Scored[bundle]
	})
	if known {
		return false
	}
	e, err := r.signed(ctx, scored)
	if err != nil {
		return false
	}
	w.Evidence = e
	return true
}

func (r *Reconciler) clocks(ctx context.Context) (map[string]rollout.State, error) {
	raw, err := r.Ledger.Clocks(ctx)
	if r.turn.Note(turn.LedgerReads, err); err != nil {
		if r.observed.clocks == nil {
			return nil, err
		}
		return r.observed.clocks, nil // only the loop writes them
	}
	clocks := make(map[string]rollout.State, len(raw))
	for fleet, state := range raw {
		var s rollout.State
		err := json.Unmarshal(state, &s)
		if err == nil {
			clocks[fleet] = s
		}
		r.turn.Note(fmt.Sprintf(clockTrouble, fleet), err)
	}
	r.observed.clocks = clocks
	return clocks, nil
}

// owners returns the owners of the gates on main and in pull requests.
func owners(w plan.World) []string {
	names := map[string]bool{}
	add := func(g delivery.Gate) {
		for _, o := range g.Owners {
			names[o] = true
		}
	}
	main := w.Main.Intent.Gates
	for _, g := range main.All() {
		add(g)
	}
	for _, p := range w.Proposals {
		for _, name := range main.Changed(p.Intent.Gates, func(name string) bool {
			return slices.Equal(main.Of(name).Owners, p.Intent.Gates.Of(name).Owners)
		}) {
			add(p.Intent.Gates.Of(name))
		}
	}
	return slices.Sorted(maps.Keys(names))
}
