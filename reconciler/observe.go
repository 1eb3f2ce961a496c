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
	due   time.Time // when the last plan wants to be made again

	refs       map[string]string
	prs        []delivery.PullRequest
	prsAt      time.Time // of the last answer
	prsOK      bool
	trees      map[string]tree               // by commit
	bases      map[[2]string][]string        // best common ancestors of a head and main, newest first
	merges     map[[3]string]tree            // what merging yields, by main, merge base and head
	specs      map[[2]string]delivery.Digest // of models in main's past, by commit and name
	results    map[delivery.Digest]json.RawMessage
	permission map[string]permitted
	teams      map[string]teamsOf
	opened     map[string]bool      // branches of AOB's own pull requests, as the ledger knows them; nil until read
	active     bool                 // a run was running
	asking     bool                 // a proposal waits for a comment
	asked      map[int]asked        // by pull request: what its comments ask for
	trials     []plan.Trial         // experiments, as the ledger knows them; nil until read
	wanted     []wanted             // comparisons that somebody waits for
	gates      map[string]time.Time // gates that somebody asked about, and when
	held       *heldMain            // what main's quarantine files have said; nil until read
	heldKept   delivery.Digest      // of the entries that the ledger has
	lost       []plan.LostGate      // as found for lostAt
	lostAt     delivery.Digest
	plan       plan.Plan
	world      plan.World
}

type tree struct {
	files      []git.File
	intent     delivery.Intent
	complaints []delivery.Complaint
}

type permitted struct {
	permission delivery.Permission
	at         time.Time
}

type teamsOf struct {
	in map[string]bool
	at time.Time
}

// asked is what the comments of a pull request ask for, and by which look at the
// forge: between two looks a turn asks it nothing.
type asked struct {
	at      time.Time
	gos     []string
	accepts []plan.Asked
}

// permissionLasts is how long an author's permission is believed. What costs
// money asks again.
const permissionLasts = time.Minute

func newSeen() seen {
	return seen{woken: true, trees: map[string]tree{}, bases: map[[2]string][]string{}, merges: map[[3]string]tree{}, specs: map[[2]string]delivery.Digest{},
		results: map[delivery.Digest]json.RawMessage{}, permission: map[string]permitted{}, teams: map[string]teamsOf{}, asked: map[int]asked{}, gates: map[string]time.Time{}}
}

// observe returns the world. It reports false, and no world, where nothing can
// have changed since the last turn.
func (r *Reconciler) observe(ctx context.Context) (plan.World, bool, error) {
	now := r.Now()
	refs, moved, err := r.Repo.Observe(ctx)
	r.Metrics.GitObserve(r.Now().Sub(now))
	if err != nil {
		return plan.World{}, false, err
	}
	r.seen.refs = refs
	forgeDue := moved || r.seen.woken || !r.seen.prsOK || now.Sub(r.seen.prsAt) >= r.Poll
	if !moved && !forgeDue && !r.seen.active && (r.seen.due.IsZero() || now.Before(r.seen.due)) {
		return plan.World{}, false, nil
	}
	prsChanged := false
	if forgeDue {
		prsChanged = r.observeForge(ctx, now)
	}
	if !moved && !prsChanged && !r.seen.woken && !r.seen.active && (r.seen.due.IsZero() || now.Before(r.seen.due)) {
		return plan.World{}, false, nil
	}
	r.seen.woken = false
	w, err := r.world(ctx, now)
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
	poll := r.seen.prsAt.Add(r.Poll)
	if f, ok := r.retry["forge"]; ok && f.next.After(poll) {
		poll = f.next // it is not asked before
	}
	if next.IsZero() || poll.Before(next) {
		next = poll
	}
	if active := r.Now().Add(activePoll); r.seen.active && active.Before(next) {
		next = active
	}
	if r.seen.woken {
		next = r.Now()
	}
	return next
}

// observeForge asks for the open pull requests and reports whether the list
// changed. While the forge does not answer, the last list stands.
func (r *Reconciler) observeForge(ctx context.Context, now time.Time) bool {
	if err := r.retry.due("forge", now); err != nil {
		return false
	}
	start := r.Now()
	prs, err := r.Forge.PullRequests(ctx)
	r.Metrics.ForgeCall("pull requests", r.Now().Sub(start), err)
	r.retry.note("forge", now, err)
	r.seen.prsAt = now
	if err != nil {
		r.seen.prsOK = false
		r.Log.Warn("the forge does not answer; going on with what it said last", "error", err.Error())
		return false
	}
	prs = slices.DeleteFunc(prs, func(p delivery.PullRequest) bool { return p.Base != r.Main })
	// Comments do not show in the list, so where one is waited for it is looked for.
	changed := !r.seen.prsOK || !slices.Equal(prs, r.seen.prs) || r.seen.asking
	r.seen.prs, r.seen.prsOK = prs, true
	return changed
}

// world puts together what is seen.
func (r *Reconciler) world(ctx context.Context, now time.Time) (plan.World, error) {
	w := plan.World{At: now, ProposalsKnown: r.seen.prsOK, Server: r.Server,
		Main: plan.Main{Branch: r.Main, Commit: r.seen.refs[git.Branch+r.Main], History: map[string][]plan.Past{}}}
	keep := map[string]bool{}
	if w.Main.Commit != "" {
		t, err := r.tree(w.Main.Commit)
		if err != nil {
			return w, fmt.Errorf("read %s: %w", r.Main, err)
		}
		keep[w.Main.Commit] = true
		w.Main.Intent, w.Main.Complaints = t.intent, t.complaints
	}
	var err error
	if w.Main.Held, err = r.held(ctx, w.Main.Commit); err != nil {
		return w, fmt.Errorf("read what %s holds in quarantine: %w", r.Main, err)
	}
	if w.Main.Lost, err = r.lost(w.Main.Commit); err != nil {
		r.Log.Warn("the history of main's gates cannot be read", "error", err.Error())
	}
	gos, err := r.Ledger.Gos(ctx, now.Add(-goLasts))
	if err != nil {
		return w, err
	}
	r.seen.asking = false
	for _, pr := range r.seen.prs {
		p, err := r.proposal(ctx, pr, w.Main.Commit, gos, keep)
		if err != nil {
			// Its commit is not here yet, or cannot be read: the others go on, and
			// nothing that it may need is ended.
			r.Log.Warn("pull request not read", "pr", pr.Number, "error", err.Error())
			w.ProposalsKnown = false
			r.wakeAt(now.Add(time.Second))
			continue
		}
		w.Proposals = append(w.Proposals, p)
	}
	maps.DeleteFunc(r.seen.trees, func(commit string, _ tree) bool { return !keep[commit] })

	if w.Trials, err = r.trials(ctx, now); err != nil {
		return w, err
	}
	w.Wanted = r.seen.stillWanted(now)
	maps.DeleteFunc(r.seen.gates, func(_ string, at time.Time) bool { return now.Sub(at) > wantLasts })
	w.Asked = slices.Sorted(maps.Keys(r.seen.gates))
	if w.Runs, err = r.runs(); err != nil {
		return w, err
	}
	if w.Evidence, err = r.Evidence.Evidence(ctx, w); err != nil {
		return w, fmt.Errorf("evidence: %w", err)
	}
	w.Devices, w.Published = map[string][]delivery.Device{}, map[string]delivery.Desired{}
	for _, d := range r.Fleet.Devices() {
		w.Devices[d.Report.Ring] = append(w.Devices[d.Report.Ring], d)
	}
	for name := range w.Main.Intent.Fleets {
		if d, ok := r.Fleet.Published(name); ok {
			w.Published[name] = d
		}
	}
	if w.Clocks, err = r.clocks(ctx); err != nil {
		return w, err
	}
	if w.Opened, err = r.opened(ctx); err != nil {
		return w, err
	}
	for _, model := range plan.NeedsHistory(w) {
		if w.Main.History[model], err = r.history(w.Main.Commit, model); err != nil {
			return w, fmt.Errorf("history of %s: %w", model, err)
		}
	}
	return w, nil
}

func (r *Reconciler) runs() (map[delivery.Digest]delivery.RunState, error) {
	list, err := r.Runs.Observe()
	if err != nil {
		r.Log.Warn("a run cannot be read", "error", err.Error())
	}
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
	if err != nil {
		return nil, err
	}
	clocks := make(map[string]rollout.State, len(raw))
	for fleet, state := range raw {
		var s rollout.State
		if err := json.Unmarshal(state, &s); err == nil {
			clocks[fleet] = s // an unreadable clock begins its waves again
		}
	}
	return clocks, nil
}

// opened names the branches of AOB's own pull requests.
func (r *Reconciler) opened(ctx context.Context) (map[string]bool, error) {
	if r.seen.opened == nil {
		list, err := r.Ledger.Said(ctx, openedKey)
		if err != nil {
			return nil, err
		}
		r.seen.opened = map[string]bool{}
		for key := range list {
			r.seen.opened[strings.TrimPrefix(key, openedKey)] = true
		}
	}
	return maps.Clone(r.seen.opened), nil
}

// proposal reads one pull request's trees and what its author may do.
func (r *Reconciler) proposal(ctx context.Context, pr delivery.PullRequest, main string, gos []ledger.Go, keep map[string]bool) (plan.Proposal, error) {
	// The ref is newer than the list, where both know the pull request.
	if head, ok := r.seen.refs[fmt.Sprintf("%s%d/head", git.Pull, pr.Number)]; ok {
		pr.Head = head
	}
	p := plan.Proposal{PullRequest: pr}
	if err := r.Repo.Has(pr.Head); err != nil {
		return p, err
	}
	head, err := r.tree(pr.Head)
	if err != nil {
		return p, err
	}
	keep[pr.Head] = true
	p.Intent = head.intent
	if err := r.merge(&p, main, head, keep); err != nil {
		return p, err
	}
	if p.Permission, err = r.permission(ctx, pr.Author); err != nil {
		return p, err
	}
	p.Permission = pr.May(p.Permission)
	for _, g := range gos {
		if g.PR == pr.Number {
			p.Gos = append(p.Gos, g.Code)
		}
	}
	waits := r.seen.waits(pr.Number)
	if p.Permission != delivery.PermissionWrite || !waits.nothing() {
		r.seen.asking = true
		if look := r.seen.prsAt; !waits.nothing() && !r.seen.asked[pr.Number].at.Equal(look) {
			a, err := r.comments(ctx, pr.Number, waits)
			if err != nil {
				r.Log.Warn("comments not read", "pr", pr.Number, "error", err.Error())
			}
			a.at = look
			r.seen.asked[pr.Number] = a
		}
		p.Gos = append(p.Gos, r.seen.asked[pr.Number].gos...)
		p.Accepts = r.seen.asked[pr.Number].accepts
	}
	return p, nil
}

func (r *Reconciler) permission(ctx context.Context, user string) (delivery.Permission, error) {
	now := r.Now()
	if p, ok := r.seen.permission[user]; ok && now.Sub(p.at) < permissionLasts {
		return p.permission, nil
	}
	p, err := r.Forge.Permission(ctx, user)
	if err != nil {
		return delivery.PermissionNone, fmt.Errorf("permission of %s: %w", user, err)
	}
	r.seen.permission[user] = permitted{p, now}
	return p, nil
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
		spec = intent.ParseFile(intent.File{Path: path, Size: int64(len(data)), Data: data}, intent.Options{}).Spec()
	}
	if len(r.seen.specs) > 10_000 {
		clear(r.seen.specs)
	}
	r.seen.specs[key] = spec
	return spec, nil
}
