package pulls

import (
	"maps"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/commits"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/plan"
)

// A merge is what merging a head yields. The plan judges that tree, because the head's own tree may be older than main.
type merge struct {
	commits.Tree
	both   []string // files that main and the head both changed
	undone []string // files that commits of the head change, and whose change merging may undo
	moved  []string // files that one side moved and the other one changed
}

// merge fills in where a pull request left main, and what merging it into main would yield.
func (r *Reader) merge(p *plan.Proposal, head commits.Tree) error {
	main := r.now.Main
	p.Merged, p.Complaints = head.Intent, head.Complaints
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
		return r.landed(p, bases)
	}
	if len(bases) == 0 {
		return nil
	}
	base, err := r.headTree(bases[0])
	if err != nil {
		return err
	}
	p.Base = base.Intent
	if len(bases) > 1 {
		return nil // the plan refuses it unread
	}
	target, err := r.commits.Tree(main)
	if err != nil {
		return err
	}
	key := [3]string{main, bases[0], p.Head}
	merged, ok := r.merges[key]
	if !ok {
		if !r.inTime() {
			return errLate
		}
		if merged, err = r.mergeWith(key, target, base, head); err != nil {
			return err
		}
		if len(r.merges) > maxKept {
			clear(r.merges)
		}
		r.merges[key] = merged
	}
	p.BothChanged, p.Undone, p.Moved = merged.both, merged.undone, merged.moved
	if bases[0] != main { // else merging yields the head's tree
		p.Merged = merged.Intent
		p.Complaints = afterMerge(head.Complaints, target.Complaints, merged.Complaints)
	}
	return nil
}

// mergeWith finds out what merging yields. key is main, the merge base and the head.
func (r *Reader) mergeWith(key [3]string, main, base, head commits.Tree) (m merge, err error) {
	ahead, err := r.repo.Ahead(key[2], key[0])
	if err != nil {
		return m, err
	}
	if key[0] == key[1] {
		m.undone = undone(ahead, main.Files, head.Files)
		return m, nil
	}
	files := threeWay(main.Files, base.Files, head.Files)
	if err := r.warm(files); err != nil {
		return m, err
	}
	if m.Tree, err = r.commits.Parse(files); err != nil {
		return m, err
	}
	m.Files = nil // a merge is kept for each pull request, and nobody asks for its files
	m.both = bothChanged(main.Files, base.Files, head.Files)
	m.undone = undone(ahead, main.Files, files)
	if adds(base.Files, main.Files) {
		if m.moved, err = r.repo.Moved(key[1], key[0], key[2]); err != nil {
			return m, err
		}
	}
	if adds(base.Files, head.Files) {
		theirs, err := r.repo.Moved(key[1], key[2], key[0])
		if err != nil {
			return m, err
		}
		m.moved = append(m.moved, theirs...)
	}
	return m, nil
}

// isSpec reports whether a file is a model's own. Main takes no spec that AOB has not signed, so nothing slips into
// one.
func isSpec(path string) bool {
	return strings.HasPrefix(path, "models/") && !strings.HasSuffix(path, ".quarantine.yaml") &&
		!strings.HasSuffix(path, ".release.yaml")
}

// undone lists files that a merge by rebase may leave otherwise than what is judged. A forge that merges so makes each
// commit anew: it leaves out merges and what main has already, and what took the others back may be one of these.
// Where main and the head have different texts it joins them or gives up. Of release files nothing else can come of it
// than one of the texts as they are: main takes none that AOB has not signed.
func undone(ahead git.Ahead, main, yields []git.File) []string {
	ours, judged := byPath(main), byPath(yields)
	changes := map[string][]git.FileChange{}
	for _, c := range ahead.Changes {
		changes[c.Path] = append(changes[c.Path], c)
	}
	for _, path := range ahead.Resolved {
		changes[path] = append(changes[path], git.FileChange{})
	}
	var list []string
	for _, path := range slices.Sorted(maps.Keys(changes)) {
		if isSpec(path) {
			continue
		}
		is, seen := ours[path].Hash, judged[path].Hash
		signed := strings.HasSuffix(path, ".release.yaml")
		switch {
		case !ahead.Merges:
			end, known := rebased(is, changes[path])
			if known && end != seen || !known && !signed && seen == is {
				list = append(list, path)
			}
		case signed:
			if slices.ContainsFunc(ends(is, changes[path]), func(end string) bool { return end != is && end != seen }) {
				list = append(list, path)
			}
		case slices.Contains(ahead.Resolved, path):
			list = append(list, path)
		case seen == is:
			if slices.ContainsFunc(changes[path], func(c git.FileChange) bool { return c.To != is }) {
				list = append(list, path)
			}
		}
	}
	return list
}

// rebased is what a file is after changes were made anew, in their order; known is false where texts would be joined.
func rebased(is string, changes []git.FileChange) (end string, known bool) {
	for _, c := range changes {
		switch is {
		case c.From:
			is = c.To
		case c.To: // it is there already
		default:
			return "", false
		}
	}
	return is, true
}

// ends are all that a file can be after changes were made anew in some order, if texts are not joined.
func ends(is string, changes []git.FileChange) []string {
	list := []string{is}
	for i := 0; i < len(list); i++ {
		for _, c := range changes {
			if c.From == list[i] && c != (git.FileChange{}) && !slices.Contains(list, c.To) {
				list = append(list, c.To)
			}
		}
	}
	return list
}

// adds reports whether a tree has an intent file that base does not have, so that git may take it for one that was
// moved there.
func adds(base, now []git.File) bool {
	from := byPath(base)
	return slices.ContainsFunc(now, func(f git.File) bool {
		_, there := from[f.Path]
		return !there && !isSpec(f.Path)
	})
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
