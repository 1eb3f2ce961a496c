package git

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Committer is who AOB's commits say has made them.
type Committer struct {
	Name, Email string
	// Sign signs a commit as git's gpg.format=ssh does. The same commit must give the same bytes, so that a commit that
	// is made again is the same one. nil: commits are not signed.
	Sign func(commit []byte) (signature []byte, err error)
}

// CommitAs sets who makes the commits. Without it, that is delivery.CommitName, and no commit is signed.
func (m *Mirror) CommitAs(c Committer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.committer = c
}

// Mine reports whether AOB is the author of a commit, by the e-mail address: its own, or the one that it has where none
// is set.
func (m *Mirror) Mine(commit string) (bool, error) {
	_, email, _, err := m.Author(commit)
	m.mu.Lock()
	defer m.mu.Unlock()
	return err == nil && (email == m.committer.Email || email == delivery.CommitEmail), err
}

// Commit makes a commit of AOB's in the mirror and returns its hash; the remote does not
// know of it before Push. Its tree is the first parent's with files changed: a
// nil content removes the file, and a path that is a symbolic link becomes a
// file. Equal input makes the same commit. when counts to the second.
func (m *Mirror) Commit(parents []string, files map[string][]byte, when time.Time, message string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list, err := m.parents(parents)
	if err != nil {
		return "", err
	}
	var w writer
	var tree plumbing.Hash
	if len(list) > 0 {
		tree = list[0].tree
	}
	root := &node{files: map[string][]byte{}, folders: map[string]*node{}}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := root.put(name, files[name]); err != nil {
			return "", err
		}
	}
	if tree, err = w.tree(m, tree, root); err != nil {
		return "", err
	}
	if tree.IsZero() {
		tree = w.object(plumbing.TreeObject, nil)
	}
	return m.write(&w, tree, list, m.committer.Name, m.committer.Email, when, message)
}

// Merge makes a merge commit of head into base, of which head must be a
// descendant, and returns its hash. Its tree is head's. Its author is the person who merges, and its committer is AOB.
func (m *Mirror) Merge(base, head, name, email string, when time.Time, message string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list, err := m.parents([]string{base, head})
	if err != nil {
		return "", err
	}
	on, err := m.isAncestor(list[0].hash, list[1].hash)
	if err != nil {
		return "", err
	}
	if !on {
		return "", delivery.Blockedf("rebase it first", "%.10s does not follow %.10s", head, base)
	}
	return m.write(&writer{}, list[1].tree, list, name, email, when, message)
}

func (m *Mirror) parents(hashes []string) ([]*commit, error) {
	var list []*commit
	for _, s := range hashes {
		h, err := hash(s)
		if err != nil {
			return nil, err
		}
		c, err := m.commit(h)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// write makes the commit object, signs it, and keeps it with what it needs.
func (m *Mirror) write(w *writer, tree plumbing.Hash, parents []*commit,
	author, email string, when time.Time, message string) (string, error) {
	var head, body bytes.Buffer
	fmt.Fprintf(&head, "tree %s\n", tree)
	for _, p := range parents {
		fmt.Fprintf(&head, "parent %s\n", p.hash)
	}
	fmt.Fprintf(&head, "author %s\ncommitter %s\n",
		signature(author, email, when), signature(m.committer.Name, m.committer.Email, when))
	fmt.Fprintf(&body, "\n%s\n", strings.Trim(strings.ReplaceAll(message, "\x00", ""), "\n"))
	if m.committer.Sign != nil {
		sig, err := m.committer.Sign(slices.Concat(head.Bytes(), body.Bytes()))
		if err != nil {
			return "", fmt.Errorf("sign a commit: %w", err)
		}
		// A header's further lines begin with a space.
		fmt.Fprintf(&head, "gpgsig %s\n", bytes.ReplaceAll(bytes.TrimSpace(sig), []byte("\n"), []byte("\n ")))
	}
	h := w.object(plumbing.CommitObject, slices.Concat(head.Bytes(), body.Bytes()))
	if p, _ := m.own.find(h); p != nil {
		return h.String(), nil
	}
	if err := m.own.put(w.objects); err != nil {
		return "", fmt.Errorf("write to the mirror %s: %w", m.dir, err)
	}
	return h.String(), nil
}

// signature names a person at a time as a commit does.
func signature(name, email string, when time.Time) string {
	clean := strings.NewReplacer("<", "", ">", "", "\n", " ", "\x00", "")
	name, email = strings.TrimSpace(clean.Replace(name)), strings.TrimSpace(clean.Replace(email))
	return fmt.Sprintf("%s <%s> %d +0000", name, email, when.Unix())
}

// A node is a folder in which files change.
type node struct {
	files   map[string][]byte
	folders map[string]*node
}

func (n *node) put(name string, content []byte) error {
	if !fs.ValidPath(name) || name == "." || path.Clean(name) != name {
		return fmt.Errorf("commit: %q is not a path in a repository", name)
	}
	parts := strings.Split(name, "/")
	for i, part := range parts {
		if !(entry{name: []byte(part)}).proper() {
			return fmt.Errorf("commit: %q is not a path in a repository", name)
		}
		if i == len(parts)-1 {
			n.files[part] = content
			break
		}
		if _, file := n.files[part]; file {
			return fmt.Errorf("commit: %q lies in a file", name)
		}
		if n.folders[part] == nil {
			n.folders[part] = &node{files: map[string][]byte{}, folders: map[string]*node{}}
		}
		n = n.folders[part]
	}
	return nil
}

// A writer collects objects, each after what it needs.
type writer struct {
	objects []plumbing.EncodedObject
	size    int64                  // bytes
	done    map[plumbing.Hash]bool // trees that collect has gathered
}

// What one push may bring.
const (
	maxOutgoing      = 100_000   // objects
	maxOutgoingBytes = 256 << 20 // of them
	maxOutgoingDepth = 100       // folders in folders
)

func (w *writer) object(t plumbing.ObjectType, data []byte) plumbing.Hash {
	o := new(plumbing.MemoryObject)
	o.SetType(t)
	o.Write(data)
	w.objects = append(w.objects, o)
	w.size += int64(len(data))
	return o.Hash()
}

// tree writes a tree with changes, and returns zero for one that has nothing.
func (w *writer) tree(m *Mirror, before plumbing.Hash, n *node) (plumbing.Hash, error) {
	var list []entry
	if !before.IsZero() {
		data, err := m.read(plumbing.TreeObject, before)
		if err != nil {
			return before, err
		}
		if list, err = entries(data); err != nil {
			return before, malformed(before, err)
		}
	}
	// take removes a name's entry and returns it.
	take := func(name string) (e entry, found bool) {
		for i, e := range list {
			if string(e.name) == name {
				list = slices.Delete(list, i, i+1)
				return e, true
			}
		}
		return e, false
	}
	for _, name := range slices.Sorted(maps.Keys(n.folders)) {
		e, found := take(name)
		if found && e.mode != modeTree {
			return before, delivery.Blockedf("remove it", "%s is not a folder", name)
		}
		h, err := w.tree(m, e.hash, n.folders[name])
		if err != nil {
			return before, err
		}
		if !h.IsZero() {
			list = append(list, entry{modeTree, []byte(name), h})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.files)) {
		take(name)
		if content := n.files[name]; content != nil {
			list = append(list, entry{modeFile, []byte(name), w.object(plumbing.BlobObject, content)})
		}
	}
	if len(list) == 0 {
		return plumbing.ZeroHash, nil
	}
	return w.object(plumbing.TreeObject, encodeTree(list)), nil
}

// brings gathers the objects of a commit that none of its parents has.
func (w *writer) brings(m *Mirror, c *commit) error {
	var olds []plumbing.Hash
	for _, h := range c.parents {
		p, err := m.parent(h)
		if err != nil {
			return err
		}
		olds = append(olds, p.tree)
	}
	if err := w.collect(m, c.tree, olds, 0); err != nil {
		if t, ok := errors.AsType[TreeError](err); ok {
			return t.at(c.hash)
		}
		return err
	}
	data, err := m.read(plumbing.CommitObject, c.hash)
	if err != nil {
		return err
	}
	w.object(plumbing.CommitObject, data)
	return nil
}

// collect gathers a tree and what lies in it, but for what lies at the same
// place in one of the old trees. A tree is gathered once, however many folders name it.
func (w *writer) collect(m *Mirror, tree plumbing.Hash, olds []plumbing.Hash, depth int) error {
	if w.done[tree] || slices.Contains(olds, tree) {
		return nil
	}
	w.done[tree] = true
	if depth > maxOutgoingDepth || len(w.objects) > maxOutgoing || w.size > maxOutgoingBytes {
		return tooBig("it brings more than %d objects or %d MiB, or folders deeper than %d", maxOutgoing,
			maxOutgoingBytes>>20, maxOutgoingDepth)
	}
	data, err := m.read(plumbing.TreeObject, tree)
	if err != nil {
		return err
	}
	list, err := entries(data)
	if err != nil {
		return malformed(tree, err)
	}
	type line struct {
		name string
		mode uint32
		hash plumbing.Hash
	}
	known := map[line]bool{}
	folders := map[string][]plumbing.Hash{}
	for _, old := range olds {
		data, err := m.read(plumbing.TreeObject, old)
		if err != nil {
			return err
		}
		list, err := entries(data)
		if err != nil {
			return malformed(old, err)
		}
		for _, e := range list {
			known[line{string(e.name), e.mode, e.hash}] = true
			if e.mode == modeTree {
				folders[string(e.name)] = append(folders[string(e.name)], e.hash)
			}
		}
	}
	for _, e := range list {
		switch {
		case e.mode == modeSubmodule || known[line{string(e.name), e.mode, e.hash}]:
		case e.mode == modeTree:
			if err := w.collect(m, e.hash, folders[string(e.name)], depth+1); err != nil {
				return err
			}
		default:
			content, err := m.own.read(plumbing.BlobObject, e.hash, maxObject)
			if errors.Is(err, errMissing) {
				continue // moved here from elsewhere in the repository: the remote has it
			}
			if err != nil {
				return m.damaged(e.hash, err)
			}
			w.object(plumbing.BlobObject, content)
		}
	}
	w.object(plumbing.TreeObject, data)
	return nil
}
