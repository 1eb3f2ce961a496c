package git

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Ahead is what the commits do that a head has and a branch does not have. A forge that merges by rebase makes them
// anew, one by one, and leaves out merges and what the branch has already, so each of them matters.
type Ahead struct {
	Merges   bool         // some of them are merges
	Changes  []FileChange // of intent files, by those that are no merges; the oldest is first where there are no merges
	Resolved []string     // intent files that a merge has as none of its parents, sorted
}

// A FileChange is what a commit did to a file. Its sides are hashes of contents; "" is no file.
type FileChange struct{ Path, From, To string }

// Ahead looks at the commits that a head has and branch does not have. A head with more than maxAhead of them is
// refused.
func (m *Mirror) Ahead(head, branch string) (Ahead, error) {
	ha, err := hash(head)
	if err != nil {
		return Ahead{}, err
	}
	hb, err := hash(branch)
	if err != nil {
		return Ahead{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.mergeBases(ha, hb); err != nil { // it fills m.reached
		return Ahead{}, err
	}
	var commits []*commit // newest first where there are no merges
	err = m.walkAtMost(maxAhead, func(c *commit) bool {
		if m.reached[c.hash] {
			return false
		}
		commits = append(commits, c)
		return true
	}, ha)
	if errors.Is(err, errTooLong) {
		return Ahead{}, tooFarAhead(ha)
	}
	if err != nil {
		return Ahead{}, err
	}
	var ahead Ahead
	resolved := map[string]bool{}
	cheap, files := m.budget(), 0
	for _, c := range slices.Backward(commits) {
		ahead.Merges = ahead.Merges || len(c.parents) > 1
		for i, folder := range folders {
			if files > maxFiles || !cheap() {
				return Ahead{}, TreeError{delivery.Blockedf(
					"make a new branch from main, and bring the changes there in fewer commits",
					"its commits change more than %d intent files one after another, or take more than %d MiB "+
						"to compare, at %.10s", maxFiles, maxWork>>20, ha), true}
			}
			if len(c.parents) < 2 {
				changes, err := m.fileChanges(c, i)
				if err != nil {
					return Ahead{}, err
				}
				files += len(changes)
				ahead.Changes = append(ahead.Changes, changes...)
				continue
			}
			names, err := m.changedOfAll(c, i)
			if err != nil {
				return Ahead{}, err
			}
			files += len(names)
			for _, name := range names {
				resolved[folder+"/"+name] = true
			}
		}
	}
	ahead.Resolved = slices.Sorted(maps.Keys(resolved))
	return ahead, nil
}

// fileChanges returns what a commit with at most one parent did to the files of an intent folder.
func (m *Mirror) fileChanges(c *commit, folder int) ([]FileChange, error) {
	list, err := m.changed(c, folder)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	var before map[string]entry
	if len(c.parents) > 0 {
		p, err := m.parent(c.parents[0])
		if err == nil {
			err = m.tops(p)
		}
		if err == nil && p.top[folder].mode == modeTree {
			before, err = m.named(p.top[folder].hash)
		}
		if err != nil {
			return nil, err
		}
	}
	var changes []FileChange
	for _, ch := range list {
		f := FileChange{Path: folders[folder] + "/" + ch.name}
		if e, there := before[ch.name]; there && e.mode != modeTree {
			f.From = e.hash.String()
		}
		if !ch.blob.IsZero() {
			f.To = ch.blob.String()
		}
		changes = append(changes, f)
	}
	return changes, nil
}

// changedOfAll names the entries of an intent folder in which a commit differs from each of its parents.
func (m *Mirror) changedOfAll(c *commit, folder int) ([]string, error) {
	first, err := m.changed(c, folder)
	if err != nil || len(first) == 0 {
		return nil, err
	}
	names := make([]string, len(first))
	for i, ch := range first {
		names[i] = ch.name
	}
	if len(c.parents) < 2 {
		return names, nil
	}
	is, err := m.topTree(c.top[folder])
	if err != nil {
		return nil, err
	}
	for _, h := range c.parents[1:] {
		p, err := m.parent(h)
		if err == nil {
			err = m.tops(p)
		}
		if err != nil {
			return nil, err
		}
		before, err := m.topTree(p.top[folder])
		if err != nil {
			return nil, err
		}
		changes, err := diff(before, is)
		if err != nil {
			return nil, malformed(c.top[folder].hash, err)
		}
		differs := make(map[string]bool, len(changes))
		for _, ch := range changes {
			differs[ch.name] = true
		}
		names = slices.DeleteFunc(names, func(name string) bool { return !differs[name] })
	}
	return names, nil
}

// tooFarAhead is what a head is refused with that has more than maxAhead commits.
func tooFarAhead(h plumbing.Hash) error {
	return TreeError{delivery.Blockedf("make a new branch from main, and bring the changes there in fewer commits",
		"it has more than %d commits that main does not have, at %.10s", maxAhead, h), true}
}

// maxMoved is how many files Moved names.
const maxMoved = 20

// Moved names files, anywhere in the repository, that one commit has removed since base and another one has changed.
// Git's merge takes some of them for renamed, by how much their text is like that of a new file, and puts the change
// into that file.
func (m *Mirror) Moved(base, removed, changed string) ([]string, error) {
	var trees [3]plumbing.Hash
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, name := range []string{base, removed, changed} {
		h, err := hash(name)
		if err != nil {
			return nil, err
		}
		c, err := m.commit(h)
		if err != nil {
			return nil, err
		}
		trees[i] = c.tree
	}
	var list []string
	cheap := m.budget()
	err := m.movedIn("", trees[0], trees[1], trees[2], &list, func() error {
		if cheap() {
			return nil
		}
		return TreeError{delivery.Blockedf("make a new branch from main, and bring the changes there",
			"its folders take more than %d MiB to compare, at %.10s", maxWork>>20, changed), true}
	})
	return list, err
}

// movedIn is Moved of three trees; a zero hash is a tree that is not there. bounded says when it has been too much.
func (m *Mirror) movedIn(folder string, base, removed, changed plumbing.Hash, list *[]string,
	bounded func() error) error {
	if base == removed || base == changed || changed.IsZero() || len(*list) >= maxMoved {
		return nil
	}
	if err := bounded(); err != nil {
		return err
	}
	before, err := m.named(base)
	if err != nil {
		return err
	}
	ours, err := m.named(removed)
	if err != nil {
		return err
	}
	theirs, err := m.named(changed)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		before, is, now := before[name], ours[name], theirs[name]
		switch {
		case before.mode == modeTree:
			var a, b plumbing.Hash
			if is.mode == modeTree {
				a = is.hash
			}
			if now.mode == modeTree {
				b = now.hash
			}
			if err := m.movedIn(folder+name+"/", before.hash, a, b, list, bounded); err != nil {
				return err
			}
		case is.mode == 0 && now.mode != 0 && now.mode != modeTree && now.hash != before.hash:
			if len(*list) < maxMoved {
				*list = append(*list, strings.ToValidUTF8(clip(folder+name), "\uFFFD"))
			}
		}
	}
	return nil
}

// clip cuts a path that nobody would read to its end.
func clip(path string) string {
	const most = 200
	if len(path) <= most {
		return path
	}
	return path[:most] + "…"
}

// named returns the entries of a tree by name; none of a zero hash. One whose name is there twice is like no other one.
func (m *Mirror) named(tree plumbing.Hash) (map[string]entry, error) {
	if tree.IsZero() {
		return nil, nil
	}
	data, err := m.read(plumbing.TreeObject, tree)
	if err != nil {
		return nil, err
	}
	list, err := entries(data)
	if err != nil {
		return nil, malformed(tree, err)
	}
	by := make(map[string]entry, len(list))
	for _, e := range list {
		if _, twice := by[string(e.name)]; twice {
			e.hash = plumbing.ZeroHash
		}
		by[string(e.name)] = e
	}
	return by, nil
}
