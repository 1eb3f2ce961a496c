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
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/poll"
	"github.com/autonomos/aob/reconciler/turn"
)

// openedTrouble means that the pull requests of AOB are not known.
const openedTrouble = "the ledger cannot say which pull requests AOB has opened, so it opens none"

const (
	openedKey = "proposed/" // the ledger's key of a pull request of AOB, without the branch that a plan names
	ownPrefix = "aob/"      // of the branches of AOB's pull requests
)

// Opened returns the branches of AOB's pull requests, as plans name them. It drops those that the forge has lost.
func (r *Reader) Opened(ctx context.Context) map[string]bool {
	if r.opened == nil {
		records, err := r.records(ctx, openedKey)
		if r.turn.Note(openedTrouble, err); err != nil {
			return nil
		}
		r.opened = map[string]poll.Own{}
		for name, content := range records {
			var own poll.Own
			_, _ = fmt.Sscan(content, &own.Branch, &own.Commit, &own.Number) // the number may be missing
			r.opened[name] = own
		}
	}
	opened := map[string]bool{}
	for name, own := range r.opened {
		opened[name] = true
		if !r.answers.Lost(own) {
			continue
		}
		err := r.ledger.PutRecord(ctx, openedKey+name, "", r.turn.Now())
		if r.turn.Note(turn.LedgerWrites, err); err != nil {
			continue // it is dropped when that can be stored
		}
		r.turn.Log.Warn("the forge has lost a pull request of AOB; opening it again if it is still needed",
			"pr", own.Number, "branch", own.Branch)
		delete(r.opened, name)
		delete(opened, name)
	}
	return opened
}

// MayBeLost returns the pull requests of AOB that a plan would open if they had not been opened, and that are not in
// the list of open ones.
func (r *Reader) MayBeLost(p plan.Plan) []poll.Own {
	var list []poll.Own
	for _, name := range p.Reopen {
		own, ok := r.opened[name]
		open := slices.ContainsFunc(r.answers.List().Open, func(pr delivery.PullRequest) bool {
			return pr.Number == own.Number && pr.HeadRef == own.Branch && !pr.Fork
		})
		if ok && own.Number > 0 && !open {
			list = append(list, own)
		}
	}
	return list
}

// checkOwn finds files of a pull request of AOB that differ from what AOB has committed. People may merge main into its
// branch. Release files of the models that it changes are not compared: AOB commits them later, and the plan accepts
// only those that AOB has signed.
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
	var trees [4]files
	for i, commit := range []string{line[1], own.Commit, p.Bases[0], p.Head} {
		t, err := r.headTree(commit)
		if err != nil {
			return err
		}
		trees[i] = maps.Collect(t.Files.All())
	}
	before, made, base, head := trees[0], trees[1], trees[2], trees[3]
	modelOf := func(path string) string { // the files of a model begin with its name
		name, _, _ := strings.Cut(path, ".")
		return name
	}
	ours := changed(before, made)
	isOurs := map[string]bool{}
	for _, path := range ours {
		isOurs[modelOf(path)] = true
	}
	both := slices.Concat(ours, changed(base, head))
	slices.Sort(both)
	p.Foreign = slices.DeleteFunc(slices.Compact(both), func(path string) bool {
		return head[path] == made[path] || strings.HasSuffix(path, ".release.yaml") && isOurs[modelOf(path)]
	})
	return nil
}

// KnowsOpened reports whether it is known which pull requests AOB has opened.
func (r *Reader) KnowsOpened() bool { return r.opened != nil }

// HasOpened stores that AOB has opened a pull request. name is the branch as a plan names it.
func (r *Reader) HasOpened(ctx context.Context, name string, own poll.Own) error {
	r.opened[name] = own
	return r.ledger.PutRecord(ctx, openedKey+name, fmt.Sprintf("%s %s %d", own.Branch, own.Commit, own.Number),
		r.turn.Now())
}
