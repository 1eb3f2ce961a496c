package pulls

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/turn"
)

// finalTries is how long the final status of a merged pull request is tried.
const finalTries = 24 * time.Hour

// An openPull is a pull request that was open when it was last read.
type openPull struct {
	PR    delivery.PullRequest `json:"pr"`
	Base  string               `json:"base"` // the commit where its head left main
	ended time.Time            // when it was first found to be merged
}

// pullKey is where the ledger keeps a pull request that was open.
func (r *Reader) pullKey(number int) string {
	return fmt.Sprintf("pull/%s/%d", ledger.OfForge(r.forge.Address()), number)
}

// ReadOpen reads the pull requests that were open when the last process ended.
func (r *Reader) ReadOpen(ctx context.Context) error {
	if r.open != nil {
		return nil
	}
	prefix := strings.TrimSuffix(r.pullKey(0), "0")
	list, err := r.ledger.Records(ctx, prefix)
	if err != nil {
		return err
	}
	r.open = map[int]openPull{}
	for _, kept := range list {
		var o openPull
		if json.Unmarshal([]byte(kept.Content), &o) == nil && o.PR.Number > 0 {
			r.open[o.PR.Number] = o
		}
	}
	return nil
}

// wasOpen keeps an open pull request and where it left main.
func (r *Reader) wasOpen(ctx context.Context, p plan.Proposal) {
	if p.Landed || !p.Pending.IsZero() || p.Unreadable != "" || len(p.Bases) != 1 || p.PullRequest.Base != r.branch {
		return
	}
	o := openPull{PR: p.PullRequest, Base: p.Bases[0]}
	o.PR.Updated = time.Time{}
	if r.open[p.Number] == o {
		return
	}
	r.open[p.Number] = o
	r.keep(ctx, r.pullKey(p.Number), string(delivery.Canonical(o)))
}

// Forget drops a pull request that is not open any more.
func (r *Reader) Forget(ctx context.Context, number int) {
	if _, ok := r.open[number]; ok {
		delete(r.open, number)
		r.keep(ctx, r.pullKey(number), "")
	}
}

// Merged returns the pull requests that were merged and whose final status was not posted. prs are the open ones.
func (r *Reader) Merged(ctx context.Context, prs []delivery.PullRequest, main string) []delivery.PullRequest {
	gone := map[int]delivery.PullRequest{}
	for n, o := range r.open {
		gone[n] = o.PR
	}
	for _, pr := range prs {
		delete(gone, pr.Number)
	}
	var merged []delivery.PullRequest
	ends := r.answers.Ends(gone)
	for _, n := range slices.Sorted(maps.Keys(ends)) {
		pr, o := ends[n], r.open[n]
		pr.Head = cmp.Or(pr.Head, o.PR.Head)
		if pr.Merged {
			r.wasMerged(ctx, pr, o.Base)
		}
		if !pr.Merged {
			pr.Merged = pr.Head == o.PR.Head && r.has(main, o)
		}
		if o.ended.IsZero() {
			o.ended = r.turn.Now()
			r.open[n] = o
		}
		if !pr.Merged || r.turn.Now().Sub(o.ended) >= finalTries {
			r.Forget(ctx, n)
			continue
		}
		merged = append(merged, pr)
	}
	return merged
}

// has reports whether main has every file as a pull request wanted it: it was squashed or rebased by hand.
func (r *Reader) has(main string, o openPull) bool {
	trees := make([]map[string]git.File, 3)
	for i, commit := range []string{o.Base, o.PR.Head, main} {
		files, err := r.repo.Files(commit)
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
func (r *Reader) landed(p *plan.Proposal, bases []string) error {
	if o := r.open[p.Number]; o.Base != "" {
		bases = []string{o.Base}
		if o.PR.Head != p.Head {
			var err error
			if bases, err = r.commits.MergeBases(p.Head, o.Base); err != nil {
				return err
			}
		}
	}
	now, err := r.commits.Tree(r.now.Main)
	if err != nil {
		return err
	}
	p.Merged, p.Complaints, p.Bases = now.Intent, nil, bases
	if len(bases) == 0 {
		return nil
	}
	base, err := r.headTree(bases[0])
	if err != nil {
		return err
	}
	p.Base = base.Intent
	return nil
}

// mergedPrefix is where the ledger keeps the heads of pull requests that changed gates and were merged, by number.
func (r *Reader) mergedPrefix() string {
	return fmt.Sprintf("shown/%s/", ledger.OfForge(r.forge.Address()))
}

// MergedHeads returns the heads of pull requests that changed gates and that the forge says were merged.
func (r *Reader) MergedHeads(ctx context.Context) ([]string, error) {
	if r.heads == nil {
		list, err := r.ledger.Records(ctx, r.mergedPrefix())
		if err != nil {
			return nil, err
		}
		r.heads = map[int]string{}
		for key, kept := range list {
			if n, err := strconv.Atoi(strings.TrimPrefix(key, r.mergedPrefix())); err == nil && kept.Content != "" {
				r.heads[n] = kept.Content
			}
		}
	}
	var heads []string
	for _, n := range slices.Sorted(maps.Keys(r.heads)) {
		heads = append(heads, r.heads[n])
	}
	return heads, nil
}

// wasMerged keeps the head of a pull request that the forge says was merged, if it changed gates.
func (r *Reader) wasMerged(ctx context.Context, pr delivery.PullRequest, base string) {
	if _, err := r.MergedHeads(ctx); err != nil || r.heads[pr.Number] == pr.Head {
		return
	}
	gates := func(commit string) delivery.Digest {
		files, err := r.repo.Files(commit)
		if err != nil {
			return ""
		}
		return delivery.DigestOf("gates", slices.DeleteFunc(slices.Clone(files), func(f git.File) bool {
			return !strings.HasPrefix(f.Path, "gates/")
		}))
	}
	if gates(base) == gates(pr.Head) {
		return
	}
	r.heads[pr.Number] = pr.Head
	r.keep(ctx, r.mergedPrefix()+strconv.Itoa(pr.Number), pr.Head)
}

// MaybeMerged returns the heads of pull requests that were open and are not in the list of open ones, and of which the
// forge has not said yet how they ended.
func (r *Reader) MaybeMerged(prs []delivery.PullRequest) []string {
	open := map[int]bool{}
	for _, pr := range prs {
		open[pr.Number] = true
	}
	var heads []string
	for _, n := range slices.Sorted(maps.Keys(r.open)) {
		if o := r.open[n]; !open[n] && o.ended.IsZero() {
			heads = append(heads, o.PR.Head)
		}
	}
	return heads
}

// keep writes to the ledger. Failing to is shown and stops nothing.
func (r *Reader) keep(ctx context.Context, key, content string) {
	r.turn.Note(turn.LedgerWrites, r.ledger.PutRecord(ctx, key, content, r.turn.Now()))
}
