package reconciler

// This file keeps pull requests until their last word was said. A merge takes a pull request out of the forge's list
// before AOB could say what became of it, so the ledger keeps those that were open.

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/plan"
)

// lastWordTries is how long the last word on a merged pull request is tried.
const lastWordTries = 24 * time.Hour

// An openPull is a pull request that was open when it was last seen.
type openPull struct {
	PR    delivery.PullRequest `json:"pr"`
	Base  string               `json:"base"` // the commit where its head left main
	ended time.Time            // when it was first seen to be merged
}

// pullKey is where the ledger keeps a pull request that was open.
func (r *Reconciler) pullKey(number int) string {
	return fmt.Sprintf("pull/%s/%d", r.address(), number)
}

// readOpen reads the pull requests that were open when the last process ended.
func (r *Reconciler) readOpen(ctx context.Context) error {
	if r.seen.open != nil {
		return nil
	}
	prefix := strings.TrimSuffix(r.pullKey(0), "0")
	list, err := r.Ledger.Records(ctx, prefix)
	if err != nil {
		return err
	}
	r.seen.open = map[int]openPull{}
	for _, said := range list {
		var o openPull
		if json.Unmarshal([]byte(said.Content), &o) == nil && o.PR.Number > 0 {
			r.seen.open[o.PR.Number] = o
		}
	}
	return nil
}

// wasOpen keeps an open pull request and where it left main.
func (r *Reconciler) wasOpen(ctx context.Context, p plan.Proposal) {
	if p.Landed || p.Pending != "" || p.Unreadable != "" || len(p.Bases) != 1 || p.PullRequest.Base != r.Main {
		return
	}
	o := openPull{PR: p.PullRequest, Base: p.Bases[0]}
	o.PR.Updated = time.Time{}
	if r.seen.open[p.Number] == o {
		return
	}
	r.seen.open[p.Number] = o
	r.troubles.note(ledgerWrites, r.Ledger.PutRecord(ctx, r.pullKey(p.Number), string(delivery.Canonical(o)), r.Now()))
}

// forgetOpen drops a pull request that is not open any more.
func (r *Reconciler) forgetOpen(ctx context.Context, number int) {
	if _, ok := r.seen.open[number]; ok {
		delete(r.seen.open, number)
		r.troubles.note(ledgerWrites, r.Ledger.PutRecord(ctx, r.pullKey(number), "", r.Now()))
	}
}

// merges returns the pull requests that were merged and whose last word was not said. prs are the open ones.
func (r *Reconciler) merges(ctx context.Context, prs []delivery.PullRequest, main string) []delivery.PullRequest {
	gone := map[int]delivery.PullRequest{}
	for n, o := range r.seen.open {
		gone[n] = o.PR
	}
	for _, pr := range prs {
		delete(gone, pr.Number)
	}
	var merged []delivery.PullRequest
	ends := r.forgeNow.endsOf(gone)
	for _, n := range slices.Sorted(maps.Keys(ends)) {
		pr, o := ends[n], r.seen.open[n]
		pr.Head = cmp.Or(pr.Head, o.PR.Head)
		if pr.Merged {
			r.wasMerged(ctx, pr, o.Base)
		}
		if !pr.Merged {
			pr.Merged = pr.Head == o.PR.Head && r.has(main, o)
		}
		if o.ended.IsZero() {
			o.ended = r.Now()
			r.seen.open[n] = o
		}
		if !pr.Merged || r.Now().Sub(o.ended) >= lastWordTries {
			r.forgetOpen(ctx, n)
			continue
		}
		merged = append(merged, pr)
	}
	return merged
}

// has reports whether main has every file as a pull request wanted it: it was squashed or rebased by hand.
func (r *Reconciler) has(main string, o openPull) bool {
	trees := make([]map[string]git.File, 3)
	for i, commit := range []string{o.Base, o.PR.Head, main} {
		files, err := r.Repo.Files(commit)
		if err != nil {
			return false
		}
		trees[i] = map[string]git.File{}
		for _, f := range files {
			trees[i][f.Path] = f
		}
	}
	base, head, now := trees[0], trees[1], trees[2]
	changes := 0
	for _, tree := range trees[:2] {
		for path := range tree {
			if base[path] == head[path] {
				continue
			}
			if changes++; now[path] != head[path] {
				return false
			}
		}
	}
	return changes > 0
}

// landed fills in what a pull request that main has changed, and that main's tree is what merging it has yielded.
func (r *Reconciler) landed(p *plan.Proposal, main string, bases []string, keep map[string]bool) error {
	if o := r.seen.open[p.Number]; o.Base != "" {
		bases = []string{o.Base}
		if o.PR.Head != p.Head {
			var err error
			if bases, err = r.mergeBases(p.Head, o.Base); err != nil {
				return err
			}
		}
	}
	now, err := r.tree(main)
	if err != nil {
		return err
	}
	p.Merged, p.Complaints, p.Bases = now.intent, nil, bases
	if len(bases) == 0 {
		return nil
	}
	base, err := r.headTree(bases[0])
	if err != nil {
		return err
	}
	keep[bases[0]] = true
	p.Base = base.intent
	return nil
}

// isSaid reports whether content was the last word under a key, and nothing else is on its way.
func (r *Reconciler) isSaid(ctx context.Context, key, content string) bool {
	said, err := r.said(ctx, key)
	_, _, waits := r.outbox.waiting(key)
	return err == nil && !waits && sameWords(key, said.Content, content)
}
