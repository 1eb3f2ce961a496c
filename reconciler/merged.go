package reconciler

// This file finds out what merging a pull request would yield. That tree is what
// the plan judges: the head's own tree may be older than main.

import (
	"maps"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/plan"
)

// merge fills in where a pull request left main, and what merging it into main
// would yield. keep gets the commits whose trees are needed.
func (r *Reconciler) merge(p *plan.Proposal, main string, head tree, keep map[string]bool) error {
	p.Merged, p.Complaints = head.intent, head.complaints
	if main == "" {
		return nil
	}
	bases, err := r.headBases(p.Head, main)
	if err != nil {
		return err
	}
	p.Bases = bases
	p.Landed = p.PullRequest.Merged || slices.Contains(bases, p.Head)
	if p.Landed {
		return r.landed(p, main, bases, keep)
	}
	if len(bases) == 0 {
		return nil
	}
	base, err := r.headTree(bases[0])
	if err != nil {
		return err
	}
	keep[bases[0]] = true
	p.Base = base.intent
	if bases[0] == main || len(bases) > 1 {
		return nil // merging yields the head's tree, or the plan refuses it unread
	}
	target, err := r.tree(main)
	if err != nil {
		return err
	}
	key := [3]string{main, bases[0], p.Head}
	merged, ok := r.seen.merges[key]
	if !ok {
		if !r.inTime() {
			return errLate
		}
		files := threeWay(target.files, base.files, head.files)
		if err := r.warm(files); err != nil {
			return err
		}
		if merged.tree, err = r.parse(files); err != nil {
			return err
		}
		merged.both = bothChanged(target.files, base.files, head.files)
		if len(r.seen.merges) > 10_000 {
			clear(r.seen.merges)
		}
		r.seen.merges[key] = merged
	}
	p.Merged, p.BothChanged = merged.intent, merged.both
	p.Complaints = afterMerge(head.complaints, target.complaints, merged.complaints)
	return nil
}

// mergeBases returns all best common ancestors of a head and main, newest first.
func (r *Reconciler) mergeBases(head, main string) ([]string, error) {
	key := [2]string{head, main}
	if bases, ok := r.seen.bases[key]; ok {
		return bases, nil
	}
	bases, err := r.Repo.MergeBases(head, main)
	if err != nil {
		return nil, err
	}
	if len(r.seen.bases) > 10_000 {
		clear(r.seen.bases)
	}
	r.seen.bases[key] = bases
	return bases, nil
}

// bothChanged lists the files of gates, fleets and quarantines that main and the head have changed since their base,
// each in its own way. Git reports a conflict there, or joins their lines to a file that neither has; where one of them
// renamed the file, it puts the other's lines into the new one. Models and releases are left out: main takes no spec
// and no release file that AOB has not signed, so lines that were joined there are refused.
func bothChanged(main, base, head []git.File) []string {
	ours, from, theirs := byPath(main), byPath(base), byPath(head)
	var list []string
	for path, was := range from {
		if ours[path] != was && theirs[path] != was && ours[path] != theirs[path] {
			list = append(list, path)
		}
	}
	for path, f := range theirs {
		if _, there := from[path]; !there && ours[path] != (git.File{}) && ours[path] != f {
			list = append(list, path) // both added it
		}
	}
	list = slices.DeleteFunc(list, func(path string) bool {
		return strings.HasPrefix(path, "models/") && !strings.HasSuffix(path, ".quarantine.yaml")
	})
	slices.Sort(list)
	return list
}

func byPath(list []git.File) map[string]git.File {
	files := make(map[string]git.File, len(list))
	for _, f := range list {
		files[f.Path] = f
	}
	return files
}

// threeWay merges three lists of files, path by path: what the head left as it was
// is main's, and what it changed is the head's. Where both changed a file the head's
// stands for both, and [bothChanged] names it.
func threeWay(main, base, head []git.File) []git.File {
	ours, from, theirs := byPath(main), byPath(base), byPath(head)
	merged := make(map[string]git.File, len(theirs))
	for path := range theirs {
		if f, changed := theirs[path], theirs[path] != from[path]; changed {
			merged[path] = f
		}
	}
	for path, f := range ours {
		if theirs[path] == from[path] {
			merged[path] = f
		}
	}
	return slices.SortedFunc(maps.Values(merged), func(a, b git.File) int { return strings.Compare(a.Path, b.Path) })
}

// afterMerge returns the complaints that a pull request has to answer for: those
// about its own tree, unless merging mends them, and those that only the merge
// brings about, such as a fleet that runs a model which main has removed.
func afterMerge(head, main, merged []delivery.Complaint) []delivery.Complaint {
	of := func(list []delivery.Complaint) map[delivery.Complaint]bool {
		set := make(map[delivery.Complaint]bool, len(list))
		for _, c := range list {
			set[c] = true
		}
		return set
	}
	ofHead, ofMain := of(head), of(main)
	var list []delivery.Complaint
	for _, c := range merged {
		switch {
		case ofHead[c]:
			list = append(list, c)
		case !ofMain[c]:
			c.Text += " (in what merging into main yields; rebase onto main)"
			list = append(list, c)
		}
	}
	return list
}
