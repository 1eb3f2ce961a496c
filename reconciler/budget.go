package reconciler

// This file bounds what people without write permission make a turn read and judge.

import (
	"fmt"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/plan"
)

// How many bytes of intent files people without write permission may change, in one pull request and in all that are
// open. A small file costs as much as one of fileCosts bytes.
const (
	strangerTree  int64 = 256 << 10
	strangersTree int64 = 1 << 20
	fileCosts     int64 = 2 << 10
)

// A tooLarge is a pull request that changes more than its author may make a turn read.
type tooLarge struct {
	pr    int
	files int   // that it changes
	most  int64 // bytes
	all   bool  // most is of all pull requests together
}

func (t tooLarge) Error() string {
	adopt := fmt.Sprintf("a maintainer runs aob pr adopt %d", t.pr)
	if t.all {
		return fmt.Sprintf("the open pull requests of people without write permission change more than %d kB of "+
			"intent files: "+
			"close some of them, or %s", t.most>>10, adopt)
	}
	return fmt.Sprintf("it changes %d intent files; without write permission at most %d, or %d kB: split it, or %s",
		t.files, t.most/fileCosts, t.most>>10, adopt)
}

// within takes what a pull request changes from the budget of people without write permission.
func (r *Reconciler) within(p *plan.Proposal, main string, budget *int64) error {
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
		return tooLarge{pr: p.Number, files: changed.files, most: strangerTree}
	case changed.bytes > *budget:
		return tooLarge{pr: p.Number, files: changed.files, most: strangersTree, all: true}
	}
	*budget -= changed.bytes
	return nil
}

// An extent is how much a head changes.
type extent struct {
	files int
	bytes int64
}

// changes counts the intent files that a head has otherwise than main and its merge bases, or has no more. It reads no
// file.
func (r *Reconciler) changes(head, main string, bases []string) (extent, error) {
	key := [2]string{head, main}
	if e, ok := r.seen.extents[key]; ok {
		return e, nil
	}
	if !r.inTime() {
		return extent{}, errLate
	}
	theirs, err := r.Repo.Files(head)
	if err != nil {
		return extent{}, err
	}
	known := map[[2]string]bool{} // paths with contents that main has, or had
	gone := map[string]bool{}     // paths that main and the merge bases have
	for i, commit := range slices.Concat([]string{main}, bases) {
		files, err := r.Repo.Files(commit)
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
	if len(r.seen.extents) > 10_000 {
		clear(r.seen.extents)
	}
	r.seen.extents[key] = e
	return e, nil
}
