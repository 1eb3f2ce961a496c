package pulls

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
	"github.com/autonomos/aob/reconciler/poll"
	"github.com/autonomos/aob/reconciler/turn"
)

// openedTrouble is the trouble that AOB's own pull requests are not known.
const openedTrouble = "the ledger cannot say which pull requests AOB has opened, so it opens none"

// openedKey is where the ledger keeps AOB's own pull requests: under it and the branch that a plan names stand the
// branch, the commit and the number.
const openedKey = "proposed/"

// ownPrefix is what the branches of AOB's own pull requests begin with.
const ownPrefix = "aob/"

// Opened names the branches of AOB's own pull requests, as plans name them. Those that the forge has lost are dropped.
func (r *Reader) Opened(ctx context.Context) map[string]bool {
	if r.opened == nil {
		list, err := r.ledger.Records(ctx, openedKey)
		if r.turn.Note(openedTrouble, err); err != nil {
			return nil
		}
		r.opened = map[string]poll.Own{}
		for key, kept := range list {
			var own poll.Own
			if kept.Content == "" {
				continue // the forge has lost it
			}
			_, _ = fmt.Sscan(kept.Content, &own.Branch, &own.Commit, &own.Number) // the number may be missing
			r.opened[strings.TrimPrefix(key, openedKey)] = own
		}
	}
	opened := map[string]bool{}
	for name, own := range r.opened {
		if r.answers.Lost(own) {
			err := r.ledger.PutRecord(ctx, openedKey+name, "", r.turn.Now())
			if r.turn.Note(turn.LedgerWrites, err); err != nil {
				opened[name] = true // until that can be kept
				continue
			}
			r.turn.Log.Warn("the forge has lost a pull request of AOB's own; opening it again if it is still needed",
				"pr", own.Number, "branch", own.Branch)
			delete(r.opened, name)
			continue
		}
		opened[name] = true
	}
	return opened
}

// Doubted returns the pull requests of AOB's own that a plan would open if they had not been opened, and that are not
// in the list of open ones.
func (r *Reader) Doubted(p plan.Plan) []poll.Own {
	var list []poll.Own
	for _, name := range p.Reopen {
		own, ok := r.opened[name]
		open := func() bool {
			for _, pr := range r.answers.List().Open {
				if pr.Number == own.Number && pr.HeadRef == own.Branch && !pr.Fork {
					return true
				}
			}
			return false
		}
		if ok && own.Number > 0 && !open() {
			list = append(list, own)
		}
	}
	return list
}

// checkOwn finds out whether a pull request of AOB's own asks for what AOB committed to it, and for nothing else.
// People may bring main into its branch. The release files of the models that it is about are not compared: AOB commits
// them later, and the plan takes none that AOB has not signed.
func (r *Reader) checkOwn(p *plan.Proposal) error {
	if r.opened == nil && !p.Fork && !p.Landed && strings.HasPrefix(p.HeadRef, ownPrefix) {
		return delivery.Wait{For: time.Second, What: "the ledger cannot say what AOB committed to it"}
	}
	var own poll.Own
	for _, o := range r.opened {
		if !p.Fork && p.HeadRef == o.Branch && o.Commit != "" {
			own = o
		}
	}
	if own.Branch == "" || p.Landed || len(p.Bases) != 1 {
		return nil
	}
	if p.Made = own.Commit; p.Head == own.Commit {
		return nil
	}
	line, err := r.repo.FirstParents(own.Commit, 2)
	if err != nil {
		return err
	}
	if len(line) < 2 {
		return errors.New("the commit that AOB made for it has no parent")
	}
	var trees [4]map[string]git.File
	for i, commit := range []string{line[1], own.Commit, p.Bases[0], p.Head} {
		t, err := r.headTree(commit)
		if err != nil {
			return err
		}
		trees[i] = byPath(t.Files)
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

// KnowsOpened reports whether it is known which pull requests AOB has opened.
func (r *Reader) KnowsOpened() bool { return r.opened != nil }

// HasOpened keeps that AOB has opened a pull request. name is the branch as a plan names it.
func (r *Reader) HasOpened(ctx context.Context, name string, own poll.Own) error {
	r.opened[name] = own
	return r.ledger.PutRecord(ctx, openedKey+name, fmt.Sprintf("%s %s %d", own.Branch, own.Commit, own.Number),
		r.turn.Now())
}
