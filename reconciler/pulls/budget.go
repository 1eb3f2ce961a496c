package pulls

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/poll"
	"github.com/autonomos/aob/reconciler/words"
)

// How many bytes of intent files people without write permission may change, in one pull request and in all that are
// open. A small file costs as much as one of fileCosts bytes. Pull requests of at most smallTree bytes have a budget of
// their own besides, so that large ones, of however many people, leave room for them.
const (
	strangerTree  int64 = 256 << 10
	strangersTree int64 = 1 << 20
	smallTree     int64 = 32 << 10
	smallsTree    int64 = 512 << 10
	fileCosts     int64 = 2 << 10
)

// A budget is what is left of what people without write permission may change.
type budget struct {
	small, large int64 // bytes, of small pull requests and of the others
}

// A tooLarge is a pull request that changes more than its author may make a turn read.
type tooLarge struct {
	pr    delivery.PullRequest
	files int   // that it changes
	most  int64 // bytes
	all   bool  // most is of all pull requests together
}

func (t tooLarge) Error() string {
	adopt := "a maintainer runs " + words.AdoptCommand(t.pr)
	if t.all {
		return fmt.Sprintf("open pull requests of people without write permission change over %d kB of intent files; "+
			"close some of them, or %s", t.most>>10, adopt)
	}
	return fmt.Sprintf("it changes %d intent files; without write permission at most %d, or %d kB: split it, or %s",
		t.files, t.most/fileCosts, t.most>>10, adopt)
}

// within takes what a pull request changes from the budget of people without write permission.
func (r *Reader) within(p *plan.Proposal, left *budget) error {
	main := r.now.Main
	if main == "" {
		return delivery.Wait{What: "what it changes is not known before main can be read"}
	}
	bases, err := r.headBases(p.Head, main)
	if err != nil {
		return err
	}
	p.Bases = bases
	changed, err := r.changes(p.Head, main, bases)
	if err != nil {
		return err
	}
	switch {
	case changed.bytes > strangerTree:
		return tooLarge{pr: p.PullRequest, files: changed.files, most: strangerTree}
	case changed.bytes <= smallTree && changed.bytes <= left.small:
		left.small -= changed.bytes
	case changed.bytes <= left.large:
		left.large -= changed.bytes
	default:
		return tooLarge{pr: p.PullRequest, files: changed.files, most: strangersTree, all: true}
	}
	return nil
}

// smallestFirst sorts pull requests of people without write permission for the budget that they share. Those with an
// approved run come first. Then comes one of each author before two of anybody, the smallest first, so that nobody uses
// the budget up for the rest. What cannot be measured comes last: it says why when it is read.
func (r *Reader) smallestFirst(order []int, prs []delivery.PullRequest) {
	main := r.now.Main
	type place struct {
		rank int // 0: a run of it was approved; else which of its author's pull requests it is
		size int64
	}
	places, of := map[int]place{}, map[string]int{}
	for _, i := range order {
		pr := prs[i]
		at := place{size: math.MaxInt64}
		if pr.Base == r.branch && main != "" {
			commit := pr.Head
			if !pr.Merged {
				commit = poll.Head(pr, r.now.Refs)
			}
			if e, err := r.measure(commit, main); err == nil {
				at.size = e.bytes
			}
		}
		if !r.isApproved(pr.Number) {
			of[pr.Author]++
			at.rank = of[pr.Author]
		}
		places[i] = at
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(places[a].rank, places[b].rank), cmp.Compare(places[a].size, places[b].size))
	})
}

// measure returns how much a head changes, if there is time.
func (r *Reader) measure(commit, main string) (extent, error) {
	if e, ok := r.extents[[2]string{commit, main}]; ok {
		return e, nil
	}
	if bad, ok := r.bad[commit]; ok {
		return extent{}, bad.err
	}
	if err := r.repo.Has(commit); err != nil {
		return extent{}, err
	}
	bases, err := r.headBases(commit, main)
	if err != nil {
		return extent{}, err
	}
	return r.changes(commit, main, bases)
}

// isApproved reports whether somebody with write permission approved a run of a pull request, now or before.
func (r *Reader) isApproved(number int) bool {
	return len(r.answers.Orders(number).Approved) > 0 ||
		slices.ContainsFunc(r.now.Approvals, func(g ledger.Approval) bool { return g.PR == number })
}

// An extent is how much a head changes.
type extent struct {
	files int
	bytes int64
}

// changes counts the intent files that a head has otherwise than main and its merge bases, or has no more. It reads no
// file.
func (r *Reader) changes(head, main string, bases []string) (extent, error) {
	key := [2]string{head, main}
	if e, ok := r.extents[key]; ok {
		return e, nil
	}
	if !r.inTime() {
		return extent{}, errLate
	}
	theirs, err := r.repo.Files(head)
	if err != nil {
		return extent{}, err
	}
	known := map[[2]string]bool{} // paths with contents that main has, or had
	gone := map[string]bool{}     // paths that main and the merge bases have
	for i, commit := range slices.Concat([]string{main}, bases) {
		files, err := r.repo.Files(commit)
		if err != nil {
			return extent{}, err
		}
		there := map[string]bool{}
		for _, f := range files {
			known[[2]string{f.Path, f.Hash}] = true
			there[f.Path] = i == 0 || gone[f.Path]
		}
		gone = there
	}
	var e extent
	count := func(f git.File) {
		e.files++
		e.bytes += max(f.Size, fileCosts)
	}
	for _, f := range theirs {
		delete(gone, f.Path)
		if !known[[2]string{f.Path, f.Hash}] {
			count(f)
		}
	}
	for _, there := range gone {
		if there {
			count(git.File{})
		}
	}
	if len(r.extents) > maxKept {
		clear(r.extents)
	}
	r.extents[key] = e
	return e, nil
}
