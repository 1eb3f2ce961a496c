package git

import (
	"maps"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Ahead describes the changes of the commits that a head has and a branch does not have. A forge that merges by rebase
// applies these commits one by one, without merges and without changes that the branch already has. So the changes of
// each commit matter, not only their sum.
type Ahead struct {
	Merges   bool         // there are merge commits
	Changes  []FileChange // of intent files in commits that are not merges; oldest first if there are no merges
	Resolved []string     // intent files that differ in a merge from all its parents, sorted
}

// A FileChange is the change of a file in a commit. From and To are blob hashes; "" means that there is no file.
type FileChange struct{ Path, From, To string }

// Ahead returns the changes of the commits that head has and branch does not have. The error is a TreeError if there
// are more than maxAhead commits.
func (m *Mirror) Ahead(head, branch string) (Ahead, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list, err := m.commitsOf(head, branch)
	if err != nil {
		return Ahead{}, err
	}
	commits, _, err := m.aheadOf(list[0].hash, list[1].hash) // newest first if there are no merges
	if err != nil {
		return Ahead{}, err
	}
	var ahead Ahead
	resolved := map[string]bool{}
	withinBudget, files := m.budget(), 0
	for _, c := range slices.Backward(commits) {
		ahead.Merges = ahead.Merges || len(c.parents) > 1
		for i, folder := range folders {
			if files > maxFiles || !withinBudget() {
				return Ahead{}, tooManyChanges("the commits of %.10s change more than %d intent files one after "+
					"another, or take more than %d MiB to compare", head, maxFiles, maxWork>>20)
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
			names, err := m.changedFromAll(c, i)
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

// fileChanges returns the changes of an intent folder's files in a commit with at most one parent. They are cached, and
// the caller must not change them.
func (m *Mirror) fileChanges(c *commit, folder int) ([]FileChange, error) {
	if changes, ok := m.fileChanged[folder][c.hash]; ok {
		return changes, nil
	}
	list, err := m.changed(c, folder)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	var before map[string]entry
	if len(c.parents) > 0 {
		t, err := m.topOf(c.parents[0], folder)
		if err == nil && t.mode == modeTree {
			before, err = m.entriesBefore(t.hash)
		}
		if err != nil {
			return nil, err
		}
	}
	var changes []FileChange
	for _, ch := range list {
		f := FileChange{Path: folders[folder] + "/" + ch.name, To: hexOrEmpty(ch.blob)}
		if e, there := before[ch.name]; there && e.mode != modeTree {
			f.From = e.hash.String()
		}
		changes = append(changes, f)
	}
	m.fileChanged[folder][c.hash] = changes // as long as the list is kept
	return changes, nil
}

// entriesBefore is entriesByName for the tree that most pull requests begin with.
func (m *Mirror) entriesBefore(tree plumbing.Hash) (map[string]entry, error) {
	if m.before == nil || m.beforeOf != tree {
		by, err := m.entriesByName(tree)
		if err != nil {
			return nil, err
		}
		m.before, m.beforeOf = by, tree
	}
	return m.before, nil
}

// changedFromAll returns the names of the entries of an intent folder in which a commit differs from all its parents.
func (m *Mirror) changedFromAll(c *commit, folder int) ([]string, error) {
	first, err := m.changed(c, folder)
	if err != nil || len(first) == 0 {
		return nil, err
	}
	names := delivery.Each(first, func(c change) string { return c.name })
	after, err := m.topTree(c.top[folder])
	if err != nil {
		return nil, err
	}
	for _, h := range c.parents[1:] {
		t, err := m.topOf(h, folder)
		if err != nil {
			return nil, err
		}
		before, err := m.topTree(t)
		if err != nil {
			return nil, err
		}
		changes, err := diff(before, after)
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

// maxMoved is the maximum number of files that Moved returns.
const maxMoved = 20

// Moved returns files, anywhere in the repository, that one commit has removed since base and another one has changed.
// git merge may treat such a file as renamed, if a new file is similar, and apply the change to the new file.
func (m *Mirror) Moved(base, removed, changed string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	commits, err := m.commitsOf(base, removed, changed)
	if err != nil {
		return nil, err
	}
	s := movedSearch{m: m, withinBudget: m.budget()}
	if err := s.search("", commits[0].tree, commits[1].tree, commits[2].tree); err != nil {
		return nil, err
	}
	if !s.withinBudget() {
		return nil, TreeError{delivery.Blockedf("make a new branch from main with the same changes",
			"the folders of %.10s take more than %d MiB to compare", changed, maxWork>>20), true}
	}
	return s.moved, nil
}

// A movedSearch compares three trees. It stops early when the budget is used up.
type movedSearch struct {
	m            *Mirror
	withinBudget func() bool
	moved        []string
}

// search adds the moved files of a folder. A zero hash means that there is no tree.
func (s *movedSearch) search(folder string, base, removed, changed plumbing.Hash) error {
	if base == removed || base == changed || changed.IsZero() || len(s.moved) >= maxMoved || !s.withinBudget() {
		return nil
	}
	var trees [3]map[string]entry
	for i, tree := range []plumbing.Hash{base, removed, changed} {
		var err error
		if trees[i], err = s.m.entriesByName(tree); err != nil {
			return err
		}
	}
	subtree := func(e entry) plumbing.Hash {
		if e.mode == modeTree {
			return e.hash
		}
		return plumbing.ZeroHash
	}
	for _, name := range slices.Sorted(maps.Keys(trees[0])) {
		before, our, their := trees[0][name], trees[1][name], trees[2][name]
		switch {
		case before.mode == modeTree:
			if err := s.search(folder+name+"/", before.hash, subtree(our), subtree(their)); err != nil {
				return err
			}
		case our.mode == 0 && their.mode != 0 && their.mode != modeTree && their.hash != before.hash &&
			len(s.moved) < maxMoved:
			s.moved = append(s.moved, delivery.Cut(folder+name, 200))
		}
	}
	return nil
}

// entriesByName returns the entries of a tree by name, or nil for a zero hash. An entry with a duplicate name gets a
// zero hash, so that it is unequal to all others.
func (m *Mirror) entriesByName(tree plumbing.Hash) (map[string]entry, error) {
	if tree.IsZero() {
		return nil, nil
	}
	list, err := m.entries(tree)
	if err != nil {
		return nil, err
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
