package pulls

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/words"
)

// How many bytes of intent files people without write permission may change. Small pull requests have a budget of their
// own, so that large ones cannot use it up.
const (
	strangerTree  int64 = 256 << 10 // in one pull request
	strangersTree int64 = 1 << 20   // in all open pull requests together, without small ones
	smallTree     int64 = 32 << 10  // a small pull request changes at most this much
	smallsTree    int64 = 512 << 10 // in all small pull requests together
	fileCosts     int64 = 2 << 10   // smaller files count as much as this
)

// A budget is what people without write permission may still change, in bytes.
type budget struct {
	small, large int64 // in small pull requests and in the others
}

// A tooLarge error means that a pull request changes more than the budget of its author allows.
type tooLarge struct {
	pr    delivery.PullRequest
	files int   // changed files
	most  int64 // bytes
	all   bool  // most is the limit of all pull requests together
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

// within subtracts the changes of a pull request from the budget of people without write permission.
func (r *Reader) within(p *plan.Proposal, left *budget) (err error) {
	if r.now.Main == "" {
		return delivery.Wait{What: "what it changes is not known before main can be read"}
	}
	if p.Bases, err = r.headBases(p.Head, r.now.Main); err != nil {
		return err
	}
	changed, err := r.changes(p.Head, p.Bases)
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

// smallestFirst sorts pull requests of people without write permission, who share a budget. Those with an approved run
// come first, then the first of each author, then the second of each author, and so on, small ones before large ones.
// Pull requests whose size is not known come last.
func (r *Reader) smallestFirst(order []int, prs []delivery.PullRequest) {
	type place struct {
		rank int // 0: a run was approved; otherwise the number among its author's pull requests
		size int64
	}
	places, byAuthor := map[int]place{}, map[string]int{}
	for _, i := range order {
		pr := prs[i]
		at := place{size: math.MaxInt64}
		if pr.Base == r.branch && r.now.Main != "" {
			if e, err := r.measure(r.headOf(pr)); err == nil {
				at.size = e.bytes
			}
		}
		if len(r.approved(pr.Number)) == 0 {
			byAuthor[pr.Author]++
			at.rank = byAuthor[pr.Author]
		}
		places[i] = at
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(places[a].rank, places[b].rank), cmp.Compare(places[a].size, places[b].size))
	})
}

// measure returns how much a head changes, if there is time.
func (r *Reader) measure(head string) (extent, error) {
	if e, ok := r.extents[[2]string{head, r.now.Main}]; ok {
		return e, nil
	}
	if bad, ok := r.bad[head]; ok {
		return extent{}, bad.err
	}
	if err := r.repo.Has(head); err != nil {
		return extent{}, err
	}
	bases, err := r.headBases(head, r.now.Main)
	if err != nil {
		return extent{}, err
	}
	return r.changes(head, bases)
}

// approved returns the codes of the runs of a pull request that people with write permission have approved.
func (r *Reader) approved(number int) (codes []string) {
	for _, a := range r.now.Approvals {
		if a.PR == number {
			codes = append(codes, a.Code)
		}
	}
	for _, code := range r.answers.Orders(number).Approved {
		if !slices.Contains(codes, code) {
			codes = append(codes, code)
		}
	}
	return codes
}

// An extent is how much a head changes.
type extent struct {
	files int
	bytes int64
}

// changes counts the files of a head that differ from main and from all merge bases, and the files that it has removed.
// It reads no file.
func (r *Reader) changes(head string, bases []string) (extent, error) {
	key := [2]string{head, r.now.Main}
	if e, ok := r.extents[key]; ok {
		return e, nil
	}
	if !r.inTime() {
		return extent{}, errLate
	}
	trees, err := r.files(slices.Concat([]string{head, r.now.Main}, bases)...)
	if err != nil {
		return extent{}, err
	}
	theirs, main, others := trees[0], trees[1], trees[1:]
	var e extent
	count := func(f git.File) {
		e.files++
		e.bytes += max(f.Size, fileCosts)
	}
	for path, f := range theirs {
		if !slices.ContainsFunc(others, func(tree files) bool { return tree[path].Hash == f.Hash }) {
			count(f)
		}
	}
	for path := range main {
		isNew := func(tree files) bool { return tree[path].Hash == "" }
		if theirs[path].Hash == "" && !slices.ContainsFunc(others, isNew) {
			count(git.File{})
		}
	}
	if len(r.extents) > maxKept {
		clear(r.extents)
	}
	r.extents[key] = e
	return e, nil
}
