package reconciler

// This file looks. What did not change since the last look is not read again.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/rollout"
)

// goLasts is how long a go is good for.
const goLasts = 7 * 24 * time.Hour

// seen is what the last turns saw.
type seen struct {
	woken bool      // somebody said that something happened
	at    time.Time // when the world was seen last
	due   time.Time // when the last plan wants to be made again

	refs     map[string]string
	asOf     int // gitView's number of refs
	answers  int // forgeView's number of the answers that were used
	mainAsOf int // gitView's number when main moved last
	mainAt   string
	good     string // the last commit of main that could be read

	rewound     []plan.Rewound // when main went back, where that has to be said
	rewoundRead bool           // rewound is what the ledger says

	mergedHeads map[int]string // of pull requests that changed gates and were merged, by number; nil until read

	trees    map[string]tree               // by commit
	bad      map[string]unread             // commits that cannot be read
	bases    map[[2]string][]string        // best common ancestors of a head and main, newest first
	extents  map[[2]string]extent          // how much a head changes, by head and main
	merges   map[[3]string]merge           // what merging yields, by main, merge base and head
	specs    map[[2]string]delivery.Digest // of models in main's past, by commit and name
	results  map[delivery.Digest]json.RawMessage
	open     map[int]openPull   // pull requests whose last word was not said; nil until read
	opened   map[string]ownPull // AOB's own pull requests, by the branch that plans name; nil until read
	active   bool               // a run was running
	until    time.Time          // heads that were not read before are read until then
	late     map[int]int        // by pull request: turns whose time it took and that did not read it whole
	gos      []ledger.Approval  // as the ledger said last
	clocks   map[string]rollout.State
	history  map[string][]plan.Past // of main's models, as read last
	lostPast map[string]unread      // of models whose history cannot be read
	evidence *plan.Evidence         // as read last; nil until read
	held     *heldMain              // what main's quarantine files have said; nil until read
	heldKept delivery.Digest        // of the entries that the ledger has
	lost     []plan.LostGate        // as found for lostAt
	losses   *lostMain              // what main has lost, as far as it was read; nil until the ledger was read
	lostKept string                 // main's commit that the ledger has with the losses
	lostAt   delivery.Digest
	repoints map[string]map[string][]plan.Repoint // by main's commit, and by fleet and model
	plan     plan.Plan
	world    plan.World
}

type tree struct {
	files      []git.File
	intent     delivery.Intent
	complaints []delivery.Complaint
}

// A merge is what merging a head yields.
type merge struct {
	tree
	both   []string // files that main and the head both changed
	undone []string // files that commits of the head change and merging is not seen to change
	moved  []string // files that one side moved and the other one changed
}

// An unread is a commit that cannot be read, and why.
type unread struct {
	err error
	at  time.Time
}

// badLasts is how long a commit that cannot be read is not tried again.
const badLasts = 5 * time.Minute

// asked is what the comments of a pull request say.
type asked struct {
	for_    []string // the codes that they were read for
	gos     []string
	refused []string // who named a code of a run and may not write, at most maxRefused
	accepts []plan.Asked
	// by code: whose agreement to AOB's question is missing; "" is anybody's with write permission
	waits map[string][]string
}

// waitFor notes that AOB has asked back, and that somebody has not agreed yet.
func (a *asked) waitFor(code, who string) {
	if a.waits == nil {
		a.waits = map[string][]string{}
	}
	if !slices.Contains(a.waits[code], who) {
		a.waits[code] = append(a.waits[code], who)
	}
}

func newSeen() seen {
	return seen{woken: true, trees: map[string]tree{}, bad: map[string]unread{}, bases: map[[2]string][]string{},
		merges: map[[3]string]merge{}, extents: map[[2]string]extent{},
		specs: map[[2]string]delivery.Digest{}, results: map[delivery.Digest]json.RawMessage{},
		late: map[int]int{}, history: map[string][]plan.Past{},
		lostPast: map[string]unread{}}
}

// errNotRead is what a turn ends with before anything is known.
var errNotRead = delivery.Wait{For: time.Second, What: "the repository has not been read yet"}

// observe returns the world, from what is known of git and the forge. It reports false, and no world, where nothing can
// have changed since the last turn.
func (r *Reconciler) observe(ctx context.Context) (plan.World, bool, error) {
	now := r.Now()
	r.hear(ctx)
	r.readBack(ctx)
	refs, asOf := r.git.known()
	if refs == nil || asOf == 0 && len(refs) == 0 {
		return plan.World{}, false, errNotRead
	}
	pulls := r.forgeNow.list()
	moved := asOf != r.seen.asOf || r.seen.refs == nil
	due := !r.seen.due.IsZero() && !now.Before(r.seen.due)
	active := r.seen.active && !now.Before(r.seen.at.Add(activePoll))
	if !moved && !due && !r.seen.woken && !active && pulls.version == r.seen.answers {
		return plan.World{}, false, nil
	}
	r.seen.refs, r.seen.asOf, r.seen.answers = refs, asOf, pulls.version
	if main := refs[git.Branch+r.Main]; main != r.seen.mainAt {
		r.seen.mainAt, r.seen.mainAsOf = main, asOf
	}
	r.seen.woken, r.seen.at = false, now
	w, err := r.world(ctx, now, pulls)
	if err != nil {
		r.seen.woken = true
		return plan.World{}, false, err
	}
	r.seen.world = w
	return w, true, nil
}

// nextLook returns when the next turn is due.
func (r *Reconciler) nextLook() time.Time {
	next := r.seen.due
	if poll := r.Now().Add(r.GitPoll); next.IsZero() || poll.Before(next) {
		next = poll
	}
	if active := r.seen.at.Add(activePoll); r.seen.active && active.Before(next) {
		next = active
	}
	if r.seen.woken {
		next = r.Now()
	}
	return next
}

// Troubles of what a turn reads.
const (
	ledgerTrouble = "the ledger cannot be read"
	gosTrouble    = "a go cannot be read in the ledger, and is asked for again"
	trialsTrouble = "an experiment cannot be read in the ledger, and is forgotten"
	openedTrouble = "the ledger cannot say which pull requests AOB has opened, so it opens none"
	mainTrouble   = "main cannot be read"
	heldTrouble   = "what main holds in quarantine cannot be read; nothing new is accepted meanwhile"
	pastTrouble   = "the history of a model on main cannot be read; the model waits, and its fleets keep what they run"
	fleetsTrouble = "the history of a fleet on main cannot be read; the fleet keeps what it runs"
	signedTrouble = "the evidence about bundles cannot be read; fleets go on with what is known, and pull requests wait"
	someTrouble   = "statements about bundles cannot be read, and do not count"
	gatesTrouble  = "the history of main's gates cannot be read"
	runsTrouble   = "a run cannot be read"
	pullTrouble   = "pull request %d cannot be read"
	clockTrouble  = "the rollout of fleet %s cannot be read in the ledger; its waves begin again"
)

// mainGood is where the ledger keeps the last commit of main that could be read.
const mainGood = "main/"

// readMain reads main's tree. While main cannot be read, or is gone, the last commit that could be read stands for it.
func (r *Reconciler) readMain(ctx context.Context, w *plan.World, keep map[string]bool) (stale bool, err error) {
	commit := r.seen.refs[git.Branch+r.Main]
	if r.seen.good == "" && r.Ledger != nil {
		if said, err := r.Ledger.Records(ctx, mainGood+r.Main); err == nil {
			if good := said[mainGood+r.Main].Content; !strings.HasPrefix(good, "{") { // see oldHeldKey
				r.seen.good = good
			}
		}
	}
	t, err := tree{}, error(nil)
	if commit == "" {
		if err = r.Repo.Missing(git.Branch + r.Main); err == nil && r.seen.good == "" {
			return false, nil // there is nothing yet
		}
		if err == nil {
			err = delivery.Blockedf("push it again, or set main: in the configuration", "there is no branch %s", r.Main)
		}
	} else {
		t, err = r.tree(commit)
	}
	if err == nil {
		r.troubles.note(mainTrouble, nil)
		w.Main.Commit, w.Main.Intent, w.Main.Complaints = commit, t.intent, t.complaints
		keep[commit] = true
		w.Main.Rewound = r.rewound(ctx, r.seen.good, commit)
		if commit != r.seen.good {
			r.seen.good = commit
			r.troubles.note(ledgerWrites, r.Ledger.PutRecord(ctx, mainGood+r.Main, commit, r.Now()))
		}
		return false, nil
	}
	last := r.seen.good
	if last == "" || last == commit {
		r.troubles.note(mainTrouble, err)
		return false, fmt.Errorf("read %s: %w", r.Main, err)
	}
	what := fmt.Sprintf("fleets go on with what %.12s says", last)
	if commit != "" {
		what = fmt.Sprintf("%s is at %.12s; %s", r.Main, commit, what)
	}
	r.troubles.note(mainTrouble, instead(err, what))
	if t, err = r.tree(last); err != nil {
		return false, fmt.Errorf("read %s at its last good commit %.12s: %w", r.Main, last, err)
	}
	w.Main.Commit, w.Main.Intent, w.Main.Complaints = last, t.intent, t.complaints
	keep[last] = true
	r.wakeAt(r.Now().Add(time.Second))
	return true, nil
}

// instead adds to an error what is done meanwhile.
func instead(err error, what string) error {
	if b, ok := errors.AsType[delivery.Blocked](err); ok {
		b.What = what + ": " + b.What
		return b
	}
	return fmt.Errorf("%s: %w", what, err)
}

// world puts together what is seen.
func (r *Reconciler) world(ctx context.Context, now time.Time, pulls pullList) (plan.World, error) {
	w := plan.World{At: now, Server: r.Server, Main: plan.Main{Branch: r.Main, History: map[string][]plan.Past{}}}
	keep := map[string]bool{}
	stale, err := r.readMain(ctx, &w, keep)
	if err != nil {
		return w, err
	}
	w.Main.Unread, w.Main.UnreadFleets = map[string]string{}, map[string]string{}
	w.Main.Held = r.heldNow(ctx, &w)
	// A list that is older than main's last move says nothing about what that move did.
	stale = stale || pulls.asOf < r.seen.mainAsOf
	w.ProposalsKnown = pulls.known && !stale
	gos, err := r.Ledger.Approvals(ctx, now.Add(-goLasts))
	if r.troubles.note(gosTrouble, err); delivery.Usable(err) {
		r.seen.gos = gos
	}
	if err := r.readOpen(ctx); err != nil {
		r.troubles.note(ledgerTrouble, err)
		r.wakeAt(now.Add(time.Second))
	} else if pulls.known && !stale {
		open := pulls.prs
		pulls.prs = slices.Concat(pulls.prs, r.merges(ctx, pulls.prs, w.Main.Commit))
		w.Main.Lost, err = r.lost(ctx, w.Main.Commit, open)
	} else { // each that was open may have been merged by now
		w.Main.Lost, err = r.lost(ctx, w.Main.Commit, nil)
	}
	r.troubles.note(gatesTrouble, err)
	w.Opened, err = r.opened(ctx)
	r.troubles.note(openedTrouble, err)
	r.proposals(ctx, &w, pulls.prs, stale, keep)
	maps.DeleteFunc(r.seen.trees, func(commit string, _ tree) bool { return !keep[commit] })
	maps.DeleteFunc(r.seen.bad, func(commit string, _ unread) bool { return !keep[commit] })

	w.Trials, err = r.Requests.Trials(ctx, now)
	r.troubles.note(trialsTrouble, err)
	w.Wanted, w.Asked = r.Requests.Comparisons(now), r.Requests.Gates(now)
	w.Nobodies = r.forgeNow.nobodies()
	if w.Runs, err = r.runs(); err != nil {
		return w, err
	}
	w.Devices = map[string][]delivery.Device{}
	for _, d := range r.Fleet.Devices() {
		w.Devices[d.Report.Ring] = append(w.Devices[d.Report.Ring], d)
	}
	// After the devices: a report that ends a gap must not be seen without the end of the gap.
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
	publish := func(fleets map[string]delivery.Fleet) {
		for name := range fleets {
			if d, ok := r.Fleet.Published(name); ok {
				w.Published[name] = d
			}
		}
	}
	publish(w.Main.Intent.Fleets)
	for _, name := range w.Main.BrokenFleets() {
		publish(map[string]delivery.Fleet{name: {}})
	}
	for _, p := range w.Proposals { // of a fleet that was removed and comes back
		publish(p.Merged.Fleets)
	}
	if w.Evidence, err = r.signed(ctx, w); err != nil {
		return w, err
	}
	r.restore(&w)
	w.Main.Repointed = r.repointed(w)
	r.pasts(&w)
	return w, ctx.Err()
}

// restore says what fleets were told to run whose published document is lost.
func (r *Reconciler) restore(w *plan.World) {
	looked := map[[2]string]bool{} // fleets and the models that they are to run
	fill := func(fleets map[string]delivery.Fleet) {
		for name, f := range fleets {
			key := [2]string{name, f.Runs}
			if _, ok := w.Published[name]; ok || looked[key] {
				continue
			}
			looked[key] = true
			if d, ok := plan.Restored(*w, f); ok {
				w.Published[name] = d
			}
		}
	}
	fill(w.Main.Intent.Fleets)
	for _, p := range w.Proposals {
		fill(p.Merged.Fleets)
	}
}

// signed returns what is signed about bundles. While it cannot be read, what was read last stands for it: statements
// are added, and never taken back.
func (r *Reconciler) signed(ctx context.Context, w plan.World) (plan.Evidence, error) {
	e, err := r.Evidence.Evidence(ctx, w)
	if ctx.Err() != nil {
		return e, ctx.Err()
	}
	if err != nil {
		r.troubles.note(signedTrouble, delivery.Blockedf(
			"check the folder, its owner and the disk; AOB goes on by itself when it can be read", "%s", err))
		r.wakeAt(r.Now().Add(time.Second))
		if r.seen.evidence == nil {
			return plan.Evidence{Stale: err.Error(), Unknown: true}, nil
		}
		e = *r.seen.evidence
		e.Stale = err.Error()
		return e, nil
	}
	r.troubles.note(signedTrouble, nil)
	r.seen.evidence = &e
	var bad delivery.Unreadable
	for _, u := range e.Unread {
		bad = append(bad, delivery.Unread{What: fmt.Sprintf("%s of bundle %s", path.Base(path.Dir(u.Type)),
			u.Bundle.Short()), Why: u.Why})
	}
	if len(bad) == 0 {
		r.troubles.note(someTrouble, nil)
	} else {
		r.wakeAt(r.Now().Add(pastLasts))
		r.troubles.note(someTrouble, delivery.Blockedf("copy the files from a backup; a file's name is its SHA-256",
			"%s", bad))
	}
	return e, nil
}

// pastLasts is how long a history that cannot be read is not tried again.
const pastLasts = 10 * time.Second

// pasts reads what main has said of the models that a plan asks for. One that cannot be read keeps no other from being
// read: what was read of it before stands for it.
func (r *Reconciler) pasts(w *plan.World) {
	models := plan.NeedsHistory(*w)
	var bad delivery.Unreadable
	for _, model := range models {
		lost, known := r.seen.lostPast[model]
		if !known || r.Now().Sub(lost.at) >= pastLasts {
			past, err := r.history(w.Main.Commit, model)
			if err == nil {
				r.seen.history[model] = past
				delete(r.seen.lostPast, model)
				w.Main.History[model] = past
				continue
			}
			lost = unread{err, r.Now()}
			r.seen.lostPast[model] = lost
		}
		w.Main.History[model], w.Main.Unread[model] = r.seen.history[model], lost.err.Error()
		bad = append(bad, delivery.Unread{What: model, Why: lost.err.Error()})
		r.wakeAt(lost.at.Add(pastLasts))
	}
	needed := func(model string) bool { _, ok := slices.BinarySearch(models, model); return ok }
	maps.DeleteFunc(r.seen.history, func(model string, _ []plan.Past) bool { return !needed(model) })
	maps.DeleteFunc(r.seen.lostPast, func(model string, _ unread) bool { return !needed(model) })
	if len(bad) == 0 {
		r.troubles.note(pastTrouble, nil)
		return
	}
	r.troubles.note(pastTrouble, bad)
}

func (r *Reconciler) runs() (map[delivery.Digest]delivery.RunState, error) {
	list, err := r.Runs.Observe()
	r.troubles.note(runsTrouble, err)
	runs := make(map[delivery.Digest]delivery.RunState, len(list))
	r.seen.active = false
	for _, s := range list {
		s.Result = r.seen.results[s.Spec.Key]
		runs[s.Spec.Key] = s
		r.seen.active = r.seen.active || s.Phase == delivery.RunRunning
	}
	return runs, nil
}

// readResults reads the results that a plan asked for, and reports whether it
// got any.
func (r *Reconciler) readResults(w plan.World, keys []delivery.Digest) bool {
	got := false
	for _, key := range keys {
		s, err := r.Runs.State(key)
		if err != nil || s.Result == nil {
			r.Log.Warn("the result of a run cannot be read", "run", key.Short(), "error", fmt.Sprint(err))
			continue
		}
		r.seen.results[key] = s.Result
		w.Runs[key] = s
		got = true
	}
	return got
}

func (r *Reconciler) clocks(ctx context.Context) (map[string]rollout.State, error) {
	raw, err := r.Ledger.Clocks(ctx)
	if r.troubles.note(ledgerTrouble, err); err != nil {
		if r.seen.clocks == nil {
			return nil, err
		}
		return r.seen.clocks, nil // nobody else writes them
	}
	clocks := make(map[string]rollout.State, len(raw))
	for fleet, state := range raw {
		var s rollout.State
		err := json.Unmarshal(state, &s)
		if err == nil {
			clocks[fleet] = s
		}
		r.troubles.note(fmt.Sprintf(clockTrouble, fleet), err)
	}
	r.seen.clocks = clocks
	return clocks, nil
}

// tree parses what a commit asks for.
func (r *Reconciler) tree(commit string) (tree, error) {
	if t, ok := r.seen.trees[commit]; ok {
		return t, nil
	}
	files, err := r.Repo.Files(commit)
	if err != nil {
		return tree{}, err
	}
	t, err := r.parse(files)
	if err != nil {
		return tree{}, err
	}
	r.seen.trees[commit] = t
	return t, nil
}

// parse reads and parses the intent files of a tree.
func (r *Reconciler) parse(files []git.File) (tree, error) {
	var err error
	sources := make([]intent.File, len(files))
	for i, f := range files {
		sources[i] = intent.File{Path: f.Path, Hash: f.Hash, Size: f.Size, Mode: mode(f.Mode)}
		if f.Size < 0 {
			sources[i].Size = math.MaxInt64
		}
		if f.Size < 0 || f.Size > intent.MaxFileSize || !f.Mode.IsRegular() || r.Parser.Has(f.Path, f.Hash) {
			continue
		}
		if sources[i].Data, err = r.Repo.Blob(f.Hash, intent.MaxFileSize); err != nil {
			return tree{}, fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	in, complaints := r.Parser.Parse(sources)
	return tree{files, in, complaints}, nil
}

func mode(m fs.FileMode) intent.Mode {
	switch {
	case m.IsRegular():
		return intent.Regular
	case m&fs.ModeSymlink != 0:
		return intent.Symlink
	}
	return intent.Other
}

// history reads what main's release file of a model has said.
func (r *Reconciler) history(main, model string) ([]plan.Past, error) {
	path := "models/" + model + ".release.yaml"
	versions, err := r.Repo.History(main, path)
	if err != nil {
		return nil, err
	}
	past := make([]plan.Past, 0, len(versions))
	for _, v := range versions {
		p := plan.Past{Commit: v.Commit, Side: v.Side, Order: v.Order}
		if v.Blob != "" {
			data, err := r.Repo.Blob(v.Blob, intent.MaxFileSize)
			if err != nil && !errors.Is(err, git.ErrTooBig) {
				return nil, err
			}
			doc := intent.ParseFile(intent.File{Path: path, Size: int64(len(data)), Data: data}, intent.Options{})
			if p.Release = doc.Release(); p.Release != nil {
				if p.Spec, err = r.specAt(v.Commit, model); err != nil {
					return nil, err
				}
			}
		}
		past = append(past, p)
	}
	return past, nil
}

// specAt returns the spec digest of a model at a commit; empty for none.
func (r *Reconciler) specAt(commit, model string) (delivery.Digest, error) {
	key := [2]string{commit, model}
	if spec, ok := r.seen.specs[key]; ok {
		return spec, nil
	}
	path := "models/" + model + ".yaml"
	data, err := r.fileAt(commit, path)
	if err != nil && !errors.Is(err, git.ErrTooBig) {
		return "", err
	}
	var spec delivery.Digest
	if data != nil {
		spec = r.Parser.ParseAccepted(intent.File{Path: path, Size: int64(len(data)), Data: data}).Spec()
	}
	if len(r.seen.specs) > 10_000 {
		clear(r.seen.specs)
	}
	r.seen.specs[key] = spec
	return spec, nil
}
