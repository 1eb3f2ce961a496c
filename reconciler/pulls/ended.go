package pulls

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/turn"
)

// finalTries is how long AOB tries to post the final status of a merged pull request.
const finalTries = 24 * time.Hour

// An openPull is a pull request that was open when it was last read.
type openPull struct {
	PR    delivery.PullRequest `json:"pr"`
	Base  string               `json:"base"` // the merge base of its head and main
	ended time.Time            // when it was first found to be merged
}

// The ledger's keys of open pull requests, and of the heads of merged pull requests that changed gates, are these
// prefixes and the number.
func (r *Reader) openPrefix() string   { return "pull/" + ledger.OfForge(r.forge.Address()) + "/" }
func (r *Reader) mergedPrefix() string { return "shown/" + ledger.OfForge(r.forge.Address()) + "/" }

// records reads the ledger's records with a prefix, by the rest of their keys, without empty ones.
func (r *Reader) records(ctx context.Context, prefix string) (map[string]string, error) {
	list, err := r.ledger.Records(ctx, prefix)
	if err != nil {
		return nil, err
	}
	contents := map[string]string{}
	for key, record := range list {
		if record.Content != "" {
			contents[strings.TrimPrefix(key, prefix)] = record.Content
		}
	}
	return contents, nil
}

// ReadOpen reads which pull requests were open when the previous process ended.
func (r *Reader) ReadOpen(ctx context.Context) error {
	if r.open != nil {
		return nil
	}
	records, err := r.records(ctx, r.openPrefix())
	if err != nil {
		return err
	}
	r.open = map[int]openPull{}
	for _, content := range records {
		var o openPull
		if json.Unmarshal([]byte(content), &o) == nil && o.PR.Number > 0 {
			r.open[o.PR.Number] = o
		}
	}
	return nil
}

// storeOpen stores that a pull request is open, and its merge base.
func (r *Reader) storeOpen(ctx context.Context, p plan.Proposal) {
	if p.Landed || !p.Pending.IsZero() || p.Unreadable != "" || len(p.Bases) != 1 || p.PullRequest.Base != r.branch {
		return
	}
	o := openPull{PR: p.PullRequest, Base: p.Bases[0]}
	o.PR.Updated = time.Time{}
	if r.open[p.Number] == o {
		return
	}
	r.open[p.Number] = o
	r.store(ctx, r.openPrefix()+strconv.Itoa(p.Number), string(delivery.Canonical(o)))
}

// Forget drops a pull request that is not open any more.
func (r *Reader) Forget(ctx context.Context, number int) {
	if _, ok := r.open[number]; ok {
		delete(r.open, number)
		r.store(ctx, r.openPrefix()+strconv.Itoa(number), "")
	}
}

// Merged returns the merged pull requests whose final status was not posted yet. open are the open ones.
func (r *Reader) Merged(ctx context.Context, open []delivery.PullRequest, main string) []delivery.PullRequest {
	missing := map[int]delivery.PullRequest{}
	for n, o := range r.open {
		missing[n] = o.PR
	}
	for _, pr := range open {
		delete(missing, pr.Number)
	}
	var merged []delivery.PullRequest
	ends := r.answers.Ends(missing)
	for _, n := range slices.Sorted(maps.Keys(ends)) {
		pr, o := ends[n], r.open[n]
		pr.Head = cmp.Or(pr.Head, o.PR.Head)
		if pr.Merged {
			r.storeMerged(ctx, pr, o.Base)
		} else {
			pr.Merged = pr.Head == o.PR.Head && r.contains(main, o)
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

// contains reports whether main has every change of a pull request: it was squashed or rebased by hand.
func (r *Reader) contains(main string, o openPull) bool {
	trees, err := r.files(o.Base, o.PR.Head, main)
	if err != nil {
		return false
	}
	changes := changed(trees[0], trees[1])
	return len(changes) > 0 && !slices.ContainsFunc(changes, func(path string) bool {
		return trees[2][path] != trees[1][path]
	})
}

// landed sets the base and the result of a pull request that main already contains. The result is main's tree.
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

// MergedHeads returns the heads of merged pull requests that changed gates, according to the forge.
func (r *Reader) MergedHeads(ctx context.Context) ([]string, error) {
	if r.heads == nil {
		records, err := r.records(ctx, r.mergedPrefix())
		if err != nil {
			return nil, err
		}
		r.heads = map[int]string{}
		for number, head := range records {
			if n, err := strconv.Atoi(number); err == nil {
				r.heads[n] = head
			}
		}
	}
	return delivery.Each(slices.Sorted(maps.Keys(r.heads)), func(n int) string { return r.heads[n] }), nil
}

// storeMerged stores the head of a merged pull request, if it changed gates.
func (r *Reader) storeMerged(ctx context.Context, pr delivery.PullRequest, base string) {
	if _, err := r.MergedHeads(ctx); err != nil || r.heads[pr.Number] == pr.Head {
		return
	}
	trees, err := r.files(base, pr.Head)
	isGate := func(path string) bool { return strings.HasPrefix(path, "gates/") }
	if err == nil && !slices.ContainsFunc(changed(trees[0], trees[1]), isGate) {
		return
	}
	r.heads[pr.Number] = pr.Head
	r.store(ctx, r.mergedPrefix()+strconv.Itoa(pr.Number), pr.Head)
}

// MaybeMerged returns the heads of pull requests that were open and are not in the list of open ones, if the forge has
// not answered yet how they ended.
func (r *Reader) MaybeMerged(list []delivery.PullRequest) []string {
	open := map[int]bool{}
	for _, pr := range list {
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

// store writes to the ledger. An error becomes a trouble.
func (r *Reader) store(ctx context.Context, key, content string) {
	r.turn.Note(turn.LedgerWrites, r.ledger.PutRecord(ctx, key, content, r.turn.Now()))
}
