package git

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A FileVersion is one version of a file.
type FileVersion struct {
	Commit string // the commit with the change
	Parent string // its first parent; empty for a root
	Blob   string // empty: the commit removed the file
	Side   bool   // the commit is not on the line of first parents: it was merged
	Order  int    // position of the commit in the history, 0 is head: to order versions of several files
}

// A LineChange is the change of an intent folder in one commit, compared with its first parent.
type LineChange struct {
	Commit string
	Parent string            // the first parent; empty for a root
	Others []string          // the other parents
	Files  map[string]string // name in the folder to new blob; "" if the file was removed
}

// Line returns the commits on head's line of first parents that changed an intent folder, newest first. It ends before
// stop, or after limit commits; reached reports whether it came to stop. The line contains the states of the branch
// itself, and not the intermediate states of merged branches.
func (m *Mirror) Line(head, stop, folder string, limit int) (changes []LineChange, reached bool, err error) {
	i := slices.Index(folders[:], folder)
	if i < 0 {
		return nil, false, fmt.Errorf("line of %s: not an intent folder", folder)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	heads, err := m.commitsOf(head)
	if err != nil {
		return nil, false, err
	}
	for c, err := range m.firstParents(heads[0]) {
		if limit--; limit < 0 {
			break
		}
		if err != nil {
			return nil, false, err
		}
		if c.hash.String() == stop {
			return changes, true, nil
		}
		list, err := m.changed(c, i)
		if err != nil {
			return nil, false, err
		}
		if len(list) == 0 {
			continue
		}
		l := LineChange{Commit: c.hash.String(), Files: map[string]string{}}
		if parents := delivery.Each(c.parents, plumbing.Hash.String); len(parents) > 0 {
			l.Parent, l.Others = parents[0], parents[1:]
		}
		for _, ch := range list {
			l.Files[ch.name] = hexOrEmpty(ch.blob)
		}
		changes = append(changes, l)
	}
	return changes, false, nil
}

// hexOrEmpty returns a hash as text, or "" for the zero hash.
func hexOrEmpty(h plumbing.Hash) string {
	if h.IsZero() {
		return ""
	}
	return h.String()
}

// A change is the change of one entry of an intent folder in a commit.
type change struct {
	name string
	blob plumbing.Hash // zero: the entry was removed
}

type historyKey struct {
	head   plumbing.Hash
	folder int
}

// History returns the versions of an intent file, such as models/pallets.yaml, in the history of head, children before
// parents, including removals. All parents are followed. A version is listed for each commit in which the file differs
// from the first parent; for a merge, that is the change which the merge brought to its branch. The caller must not
// change the slice.
func (m *Mirror) History(head, path string) ([]FileVersion, error) {
	folder, name, _ := strings.Cut(path, "/")
	i := slices.Index(folders[:], folder)
	if i < 0 || name == "" || strings.Contains(name, "/") {
		return nil, fmt.Errorf("history of %s: not a file in models/, gates/ or fleets/", path)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	heads, err := m.commitsOf(head)
	if err != nil {
		return nil, err
	}
	key := historyKey{heads[0].hash, i}
	byName, ok := m.histories[key]
	if !ok {
		if byName, err = m.history(key.head, i); err != nil {
			return nil, err
		}
		if len(m.histories) >= 2*len(folders) {
			clear(m.histories)
		}
		m.histories[key] = byName
	}
	return byName[name], nil
}

// history collects the versions of all files of a folder.
func (m *Mirror) history(head plumbing.Hash, folder int) (map[string][]FileVersion, error) {
	order, err := m.order(head)
	if err != nil {
		return nil, err
	}
	versions := map[string][]FileVersion{}
	line := head // the next commit on the line of first parents
	for i, c := range order {
		side := c.hash != line
		if !side && len(c.parents) > 0 {
			line = c.parents[0]
		}
		changes, err := m.changed(c, folder)
		if err != nil {
			return nil, err
		}
		for _, ch := range changes {
			v := FileVersion{Commit: c.hash.String(), Blob: hexOrEmpty(ch.blob), Side: side, Order: i}
			if len(c.parents) > 0 {
				v.Parent = c.parents[0].String()
			}
			versions[ch.name] = append(versions[ch.name], v)
		}
	}
	return versions, nil
}

// order returns head and all ancestors, children before parents, and a merged branch before the line that it was merged
// into. It does not use the commits' dates, because dates can be forged.
func (m *Mirror) order(head plumbing.Hash) ([]*commit, error) {
	children, byHash := map[plumbing.Hash]int{}, map[plumbing.Hash]*commit{}
	err := m.walk(func(c *commit) bool {
		byHash[c.hash] = c
		for _, p := range c.parents {
			children[p]++
		}
		return true
	}, head)
	if err != nil {
		return nil, err
	}
	order := make([]*commit, 0, len(byHash))
	for ready := []*commit{byHash[head]}; len(ready) > 0; {
		c := ready[len(ready)-1]
		ready = ready[:len(ready)-1]
		order = append(order, c)
		for _, p := range c.parents {
			if children[p]--; children[p] == 0 {
				ready = append(ready, byHash[p])
			}
		}
	}
	return order, nil
}

// changed returns the changes of a folder in a commit. They are cached.
func (m *Mirror) changed(c *commit, folder int) ([]change, error) {
	if changes, ok := m.changes[folder][c.hash]; ok {
		return changes, nil
	}
	var before top
	if len(c.parents) > 0 {
		var err error
		if before, err = m.topOf(c.parents[0], folder); err != nil {
			return nil, err
		}
	}
	if err := m.readTops(c); err != nil {
		return nil, err
	}
	var changes []change
	if now := c.top[folder]; now != before {
		before, err := m.topTree(before)
		if err != nil {
			return nil, err
		}
		after, err := m.topTree(now)
		if err != nil {
			return nil, err
		}
		if changes, err = diff(before, after); err != nil {
			return nil, malformed(now.hash, err)
		}
	}
	if m.changesKept += 1 + len(changes); m.changesKept > 2*maxCommits {
		for i := range m.changes {
			clear(m.changes[i])
			clear(m.fileChanged[i])
		}
		m.changesKept = 1 + len(changes)
	}
	m.changes[folder][c.hash] = changes
	return changes, nil
}

// topOf returns the entry of an intent folder at a parent of another commit.
func (m *Mirror) topOf(parent plumbing.Hash, folder int) (top, error) {
	p, err := m.parent(parent)
	if err != nil {
		return top{}, err
	}
	if err := m.readTops(p); err != nil {
		return top{}, err
	}
	return p.top[folder], nil
}

// topTree returns the tree of an intent folder. It is empty if the entry is not a tree.
func (m *Mirror) topTree(t top) ([]byte, error) {
	if t.mode != modeTree {
		return nil, nil
	}
	return m.read(plumbing.TreeObject, t.hash)
}

// diff returns the entries in which two trees differ, without subtrees.
func diff(before, after []byte) ([]change, error) {
	var changes []change
	for len(before) > 0 || len(after) > 0 {
		var a, b entry
		var restA, restB []byte
		var err error
		if len(before) > 0 {
			if a, restA, err = next(before); err != nil {
				return nil, err
			}
			if line := before[:len(before)-len(restA)]; bytes.HasPrefix(after, line) {
				before, after = restA, after[len(line):]
				continue
			}
		}
		if len(after) > 0 {
			if b, restB, err = next(after); err != nil {
				return nil, err
			}
		}
		var c int
		switch {
		case len(before) == 0:
			c = 1
		case len(after) == 0:
			c = -1
		default:
			c = order(a, b)
		}
		if c <= 0 {
			before = restA
		}
		if c >= 0 {
			after = restB
		}
		switch {
		case c < 0 && a.mode != modeTree:
			changes = append(changes, change{name: string(a.name)})
		case c > 0 && b.mode != modeTree, c == 0 && b.mode != modeTree && a.hash != b.hash:
			changes = append(changes, change{string(b.name), b.hash})
		}
	}
	return changes, nil
}
