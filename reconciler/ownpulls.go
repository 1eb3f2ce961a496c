package reconciler

// This file knows which of AOB's own pull requests were opened. One that people have closed is not opened again. One
// that the forge has lost is: the forge was restored from a backup, or the repository was moved to another one. What
// others push to one is not AOB's word.

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/plan"
)

// ownLasts is how long the forge's word that it has a pull request of AOB's own is good for.
const ownLasts = 5 * time.Minute

// ownPrefix is what the branches of AOB's own pull requests begin with.
const ownPrefix = "aob/"

// An ownPull is a pull request of AOB's own.
type ownPull struct {
	branch string // its head
	commit string // that AOB made for it
	number int    // 0 where an earlier version of AOB opened it and kept no number
}

// An ownRead is whether the forge has a pull request of AOB's own.
type ownRead struct {
	pull  ownPull
	known bool
	at    time.Time // when that was asked
}

// opened names the branches of AOB's own pull requests, as plans name them. Those that the forge has lost are dropped.
func (r *Reconciler) opened(ctx context.Context) (map[string]bool, error) {
	if r.seen.opened == nil {
		list, err := r.Ledger.Records(ctx, openedKey)
		if err != nil {
			return nil, err
		}
		r.seen.opened = map[string]ownPull{}
		for key, said := range list {
			var own ownPull
			if said.Content == "" {
				continue // the forge has lost it
			}
			_, _ = fmt.Sscan(said.Content, &own.branch, &own.commit, &own.number) // the number may be missing
			r.seen.opened[strings.TrimPrefix(key, openedKey)] = own
		}
	}
	opened := map[string]bool{}
	for name, own := range r.seen.opened {
		if r.forgeNow.lost(own) {
			err := r.Ledger.PutRecord(ctx, openedKey+name, "", r.Now())
			if r.troubles.note(ledgerWrites, err); err != nil {
				opened[name] = true // until that can be kept
				continue
			}
			r.Log.Warn("the forge has lost a pull request of AOB's own; opening it again if it is still needed",
				"pr", own.number, "branch", own.branch)
			delete(r.seen.opened, name)
			continue
		}
		opened[name] = true
	}
	return opened, nil
}

// doubted returns the pull requests of AOB's own that a plan would open if they had not been opened, and that are not
// in the list of open ones.
func (r *Reconciler) doubted(p plan.Plan) []ownPull {
	var list []ownPull
	for _, name := range p.Reopen {
		own, ok := r.seen.opened[name]
		open := func() bool {
			for _, pr := range r.forgeNow.list().prs {
				if pr.Number == own.number && pr.HeadRef == own.branch && !pr.Fork {
					return true
				}
			}
			return false
		}
		if ok && own.number > 0 && !open() {
			list = append(list, own)
		}
	}
	return list
}

// readOwn asks whether the forge has the pull requests of AOB's own that may be lost.
func (f *forgeView) readOwn(now time.Time) {
	f.mu.Lock()
	var due []ownPull
	for _, own := range f.own {
		if read := f.owns[own.branch]; read.pull != own || now.Sub(read.at) >= ownLasts {
			due = append(due, own)
		}
	}
	maps.DeleteFunc(f.owns, func(_ string, read ownRead) bool { return !slices.Contains(f.own, read.pull) })
	f.mu.Unlock()
	for _, own := range due {
		if key := "own/" + own.branch; !f.isAsked(key) {
			f.put(key, func(ctx context.Context) error { return f.readOwnPull(ctx, own) })
		}
	}
}

func (f *forgeView) readOwnPull(ctx context.Context, own ownPull) error {
	at := f.r.Now()
	known, err := call(ctx, f, "pull request", askDeadline, func(ctx context.Context) (bool, error) {
		return f.r.Forge.Knows(ctx, own.number, own.branch)
	})
	if err != nil {
		return fmt.Errorf("whether the forge still has pull request %d: %w", own.number, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.owns[own.branch] = ownRead{own, known, at}
	if !known {
		f.news()
	}
	return nil
}

// lost reports whether the forge says that it does not have a pull request of AOB's own.
func (f *forgeView) lost(own ownPull) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	read, ok := f.owns[own.branch]
	return ok && read.pull == own && !read.known
}

// checkOwn finds out whether a pull request of AOB's own asks for what AOB committed to it, and for nothing else.
// People may bring main into its branch. The release files of the models that it is about are not compared: AOB commits
// them later, and the plan takes none that AOB has not signed.
func (r *Reconciler) checkOwn(p *plan.Proposal, keep map[string]bool) error {
	if r.seen.opened == nil && !p.Fork && !p.Landed && strings.HasPrefix(p.HeadRef, ownPrefix) {
		return delivery.Wait{For: time.Second, What: "the ledger cannot say what AOB committed to it"}
	}
	var own ownPull
	for _, o := range r.seen.opened {
		if !p.Fork && p.HeadRef == o.branch && o.commit != "" {
			own = o
		}
	}
	if own.branch == "" || p.Landed || len(p.Bases) != 1 {
		return nil
	}
	if p.Made = own.commit; p.Head == own.commit {
		return nil
	}
	line, err := r.Repo.FirstParents(own.commit, 2)
	if err != nil {
		return err
	}
	if len(line) < 2 {
		return errors.New("the commit that AOB made for it has no parent")
	}
	var trees [4]map[string]git.File
	for i, commit := range []string{line[1], own.commit, p.Bases[0], p.Head} {
		t, err := r.headTree(commit)
		if err != nil {
			return err
		}
		keep[commit] = true
		trees[i] = byPath(t.files)
	}
	before, made, base, head := trees[0], trees[1], trees[2], trees[3]
	modelOf := func(path string) string { // of one of a model's files, which begin with it
		name, _, _ := strings.Cut(path, ".")
		return name
	}
	touched := map[string]bool{}
	for _, tree := range trees[:2] {
		for path := range tree {
			touched[modelOf(path)] = touched[modelOf(path)] || made[path] != before[path]
		}
	}
	foreign := map[string]bool{}
	for _, tree := range trees {
		for path := range tree {
			if strings.HasSuffix(path, ".release.yaml") && touched[modelOf(path)] {
				continue
			}
			ours := made[path] != before[path]
			if (ours || head[path] != base[path]) && head[path] != made[path] {
				foreign[path] = true
			}
		}
	}
	p.Foreign = slices.Sorted(maps.Keys(foreign))
	return nil
}
