package pulls

import (
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/commits"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/plan"
)

// A merge is the result of merging a head into main. The plan judges that tree, because the head's own tree may be
// older than main.
type merge struct {
	commits.Tree
	both   []string // files that main and the head have both changed
	undone []string // files that commits of the head change, and whose change a rebase may undo
	moved  []string // files that one side has moved and the other one has changed
}

// merge sets the merge bases of a pull request and the result of merging it into main.
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
		return nil // the plan refuses it
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
	if bases[0] != main { // otherwise the result is the head's tree
		p.Merged = merged.Intent
		p.Complaints = afterMerge(head.Complaints, target.Complaints, merged.Complaints)
	}
	return nil
}

// mergeWith computes a merge. key is main, the merge base and the head.
func (r *Reader) mergeWith(key [3]string, main, base, head commits.Tree) (m merge, err error) {
	ahead, err := r.repo.Ahead(key[2], key[0])
	if err != nil {
		return m, err
	}
	if key[0] == key[1] {
		m.undone = undone(ahead, main.Files, head.Files)
		return m, nil
	}
	changes := threeWay(base.Files, head.Files)
	var quick bool
	if m.Tree, quick, err = r.commits.Change(main, changes); err == nil && !quick {
		files := slices.Collect(valuesOf(main.Files.With(changes...)))
		if err = r.warm(files); err == nil {
			m.Tree, err = r.commits.Parse(files)
		}
	}
	if err != nil {
		return m, err
	}
	m.both = bothChanged(main.Files, base.Files, head.Files)
	m.undone = undone(ahead, main.Files, m.Files)
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

// isSpec reports whether a file is a model's spec. AOB accepts only specs that it has signed.
func isSpec(path string) bool {
	return strings.HasPrefix(path, "models/") && !strings.HasSuffix(path, ".quarantine.yaml") &&
		!strings.HasSuffix(path, ".release.yaml")
}

// undone lists files for which a merge by rebase may have another result than the judged one. Such a forge applies each
// commit again, without merges and without changes that main already has; a commit that reverts others may be left out.
// If main and the head have different contents, the forge combines them or reports a conflict. Release files cannot be
// combined, because AOB accepts only those that it has signed.
func undone(ahead git.Ahead, ours, judged tree) []string {
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
		now, want := ours.Of(path).Hash, judged.Of(path).Hash
		signed := strings.HasSuffix(path, ".release.yaml")
		var undoes bool
		switch {
		case !ahead.Merges:
			end, known := rebased(now, changes[path])
			undoes = known && end != want || !known && !signed && want == now
		case signed:
			undoes = slices.ContainsFunc(ends(now, changes[path]), func(end string) bool {
				return end != now && end != want
			})
		case slices.Contains(ahead.Resolved, path):
			undoes = true
		case want == now:
			undoes = slices.ContainsFunc(changes[path], func(c git.FileChange) bool { return c.To != now })
		}
		if undoes {
			list = append(list, path)
		}
	}
	return list
}

// rebased returns the content of a file after changes were applied in their order. known is false if contents would be
// combined.
func rebased(now string, changes []git.FileChange) (end string, known bool) {
	for _, c := range changes {
		switch now {
		case c.From:
			now = c.To
		case c.To: // it was applied already
		default:
			return "", false
		}
	}
	return now, true
}

// ends returns all possible contents of a file after changes were applied in any order, if contents are not combined.
func ends(now string, changes []git.FileChange) []string {
	list := []string{now}
	for i := 0; i < len(list); i++ {
		for _, c := range changes {
			if c.From == list[i] && c != (git.FileChange{}) && !slices.Contains(list, c.To) {
				list = append(list, c.To)
			}
		}
	}
	return list
}

// adds reports whether a tree has an intent file that base does not have. Git may treat it as a file that was moved.
func adds(base, now tree) bool {
	return slices.ContainsFunc(differ(base, now), func(path string) bool { return !base.Has(path) && !isSpec(path) })
}

// bothChanged lists the files of gates, fleets and quarantines that main and the head have changed since their merge
// base in different ways. Git reports a conflict, or combines their lines into a file that neither has. Specs and
// release files are left out: AOB accepts only those that it has signed, so combined ones are refused.
func bothChanged(ours, old, theirs tree) []string {
	return slices.DeleteFunc(differ(old, theirs), func(path string) bool {
		return ours.Of(path) == old.Of(path) || ours.Of(path) == theirs.Of(path) ||
			strings.HasPrefix(path, "models/") && !strings.HasSuffix(path, ".quarantine.yaml")
	})
}

// A tree is the intent files of a tree by path.
type tree = delivery.Named[git.File]

// differ returns the paths at which two trees differ, sorted.
func differ(a, b tree) []string {
	return a.Changed(b, func(path string) bool { return a.Of(path) == b.Of(path) })
}

// valuesOf iterates over the files of a tree by their paths.
func valuesOf(t tree) iter.Seq[git.File] {
	return func(yield func(git.File) bool) {
		for _, f := range t.All() {
			if !yield(f) {
				return
			}
		}
	}
}

// files is the intent files of a tree by path.
type files map[string]git.File

func byPath(list []git.File) files {
	tree := make(files, len(list))
	for _, f := range list {
		tree[f.Path] = f
	}
	return tree
}

// files lists the intent files of commits.
func (r *Reader) files(commits ...string) ([]files, error) {
	trees := make([]files, len(commits))
	for i, commit := range commits {
		list, err := r.repo.Files(commit)
		if err != nil {
			return nil, err
		}
		trees[i] = byPath(list)
	}
	return trees, nil
}

// changed returns the paths at which two trees differ, sorted.
func changed(a, b files) []string {
	return delivery.Changed(a, b, func(path string) bool { return a[path] == b[path] })
}

// threeWay returns what a merge changes in main: files that the head has changed are the head's, all others main's. If
// both have changed a file, the head's is taken; see [bothChanged].
func threeWay(base, head tree) (changes []delivery.NamedChange[git.File]) {
	for _, path := range differ(base, head) {
		f, there := head.Get(path)
		changes = append(changes, delivery.NamedChange[git.File]{Name: path, Value: f, Gone: !there})
	}
	return changes
}

// afterMerge returns the complaints that a pull request is responsible for: those about its own tree, unless the merge
// corrects them, and those that the merge causes, such as a fleet that runs a model which main has removed.
func afterMerge(head, main, merged []delivery.Complaint) []delivery.Complaint {
	set := func(list []delivery.Complaint) map[delivery.Complaint]bool {
		set := make(map[delivery.Complaint]bool, len(list))
		for _, c := range list {
			set[c] = true
		}
		return set
	}
	ofHead, ofMain := set(head), set(main)
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
