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

// A Committer is the committer of AOB's commits.
type Committer struct {
	Name, Email string
	// Sign returns a signature as git makes it with gpg.format=ssh. It must be deterministic, so that a commit with the
	// same content has the same hash. nil: commits are not signed.
	Sign func(commit []byte) (signature []byte, err error)
}

// CommitAs sets the committer. The default is delivery.CommitName without signatures.
func (m *Mirror) CommitAs(c Committer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.committer = c
}

// Mine reports whether AOB is the author of a commit: the e-mail address is the committer's or the default one.
func (m *Mirror) Mine(commit string) (bool, error) {
	_, email, _, err := m.Author(commit)
	m.mu.Lock()
	defer m.mu.Unlock()
	return err == nil && (email == m.committer.Email || email == delivery.CommitEmail), err
}

// Commit creates a commit by AOB in the mirror and returns its hash. It is not on the remote before Push. Its tree is
// that of the first parent with files changed: nil content removes a file, and a symbolic link is replaced by a file.
// Without parents, it is a root commit. The same input gives the same commit. when is cut to seconds.
func (m *Mirror) Commit(parents []string, files map[string][]byte, when time.Time, message string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list, err := m.commitsOf(parents...)
	if err != nil {
		return "", err
	}
	var w writer
	var tree plumbing.Hash
	if len(list) > 0 {
		tree = list[0].tree
	}
	if err := checkPaths(files); err != nil {
		return "", err
	}
	if tree, err = w.tree(m, tree, files); err != nil {
		return "", err
	}
	if tree.IsZero() {
		tree = w.object(plumbing.TreeObject, nil)
	}
	return m.write(&w, tree, list, m.committer.Name, m.committer.Email, when, message)
}

// Merge creates a merge commit with the parents base and head and the tree of head, and returns its hash. base must be
// an ancestor of head. The author is the person who merges, the committer is AOB.
func (m *Mirror) Merge(base, head, name, email string, when time.Time, message string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list, err := m.commitsOf(base, head)
	if err != nil {
		return "", err
	}
	on, err := m.isAncestor(list[0].hash, list[1].hash)
	if err != nil {
		return "", err
	}
	if !on {
		return "", delivery.Blockedf("rebase it first", "%.10s is not a descendant of %.10s", head, base)
	}
	return m.write(&writer{}, list[1].tree, list, name, email, when, message)
}

// write creates the commit object, signs it, and stores it with the other objects of w.
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
		// Continuation lines of a header begin with a space.
		fmt.Fprintf(&head, "gpgsig %s\n", bytes.ReplaceAll(bytes.TrimSpace(sig), []byte("\n"), []byte("\n ")))
	}
	h := w.object(plumbing.CommitObject, slices.Concat(head.Bytes(), body.Bytes()))
	if m.own.has(h) {
		return h.String(), nil
	}
	if err := m.own.put(w.objects); err != nil {
		return "", fmt.Errorf("write to the mirror %s: %w", m.dir, err)
	}
	return h.String(), nil
}

// signature formats the value of an author or committer line.
func signature(name, email string, when time.Time) string {
	clean := strings.NewReplacer("<", "", ">", "", "\n", " ", "\x00", "")
	name, email = strings.TrimSpace(clean.Replace(name)), strings.TrimSpace(clean.Replace(email))
	return fmt.Sprintf("%s <%s> %d +0000", name, email, when.Unix())
}

// checkPaths returns an error if a file's name is not valid in a repository, or if its folder is a file too.
func checkPaths(files map[string][]byte) error {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		invalid := !fs.ValidPath(name) || name == "."
		for part := range strings.SplitSeq(name, "/") {
			invalid = invalid || !(entry{name: []byte(part)}).validName()
		}
		if invalid {
			return fmt.Errorf("commit: %q is not a valid path in a repository", name)
		}
		for folder := path.Dir(name); folder != "."; folder = path.Dir(folder) {
			if _, file := files[folder]; file {
				return fmt.Errorf("commit: the parent folder of %q is a file", name)
			}
		}
	}
	return nil
}

// A writer collects objects. Each object comes after the objects that it refers to.
type writer struct {
	objects []plumbing.EncodedObject
	size    int64                  // bytes
	added   map[plumbing.Hash]bool // trees in objects
}

// Limits of one push.
const (
	maxOutgoing      = 100_000   // objects
	maxOutgoingBytes = 256 << 20 // bytes of all objects
	maxOutgoingDepth = 100       // depth of folders
)

func (w *writer) object(t plumbing.ObjectType, data []byte) plumbing.Hash {
	o := new(plumbing.MemoryObject)
	o.SetType(t)
	o.Write(data)
	w.objects = append(w.objects, o)
	w.size += int64(len(data))
	return o.Hash()
}

// tree writes the tree before with changed files. It returns the zero hash for an empty tree.
func (w *writer) tree(m *Mirror, before plumbing.Hash, files map[string][]byte) (plumbing.Hash, error) {
	var list []entry
	if !before.IsZero() {
		var err error
		if list, err = m.entries(before); err != nil {
			return before, err
		}
	}
	// take removes a name's entry and returns it.
	take := func(name string) (e entry) {
		if i := slices.IndexFunc(list, func(e entry) bool { return string(e.name) == name }); i >= 0 {
			e = list[i]
			list = slices.Delete(list, i, i+1)
		}
		return e
	}
	folders := map[string]map[string][]byte{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if folder, rest, nested := strings.Cut(name, "/"); nested {
			if folders[folder] == nil {
				folders[folder] = map[string][]byte{}
			}
			folders[folder][rest] = files[name]
			continue
		}
		take(name)
		if content := files[name]; content != nil {
			list = append(list, entry{modeFile, []byte(name), w.object(plumbing.BlobObject, content)})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(folders)) {
		e := take(name)
		if e.mode != 0 && e.mode != modeTree {
			return before, delivery.Blockedf("remove it", "%s is a file, and must be a folder", name)
		}
		h, err := w.tree(m, e.hash, folders[name])
		if err != nil {
			return before, err
		}
		if !h.IsZero() {
			list = append(list, entry{modeTree, []byte(name), h})
		}
	}
	if len(list) == 0 {
		return plumbing.ZeroHash, nil
	}
	return w.object(plumbing.TreeObject, encodeTree(list)), nil
}

// addCommit adds the objects of a commit that none of its parents has.
func (w *writer) addCommit(m *Mirror, c *commit) error {
	var parentTrees []plumbing.Hash
	for _, h := range c.parents {
		p, err := m.parent(h)
		if err != nil {
			return err
		}
		parentTrees = append(parentTrees, p.tree)
	}
	if err := w.addTree(m, c.tree, parentTrees, 0); err != nil {
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

// addTree adds a tree and everything in it, except entries that one of the parents' trees has
// at the same path. Each tree is added once.
func (w *writer) addTree(m *Mirror, tree plumbing.Hash, parentTrees []plumbing.Hash, depth int) error {
	if w.added[tree] || slices.Contains(parentTrees, tree) {
		return nil
	}
	w.added[tree] = true
	if depth > maxOutgoingDepth || len(w.objects) > maxOutgoing || w.size > maxOutgoingBytes {
		return tooBig("the push has more than %d objects or %d MiB, or folders deeper than %d", maxOutgoing,
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
	for _, old := range parentTrees {
		list, err := m.entries(old)
		if err != nil {
			return err
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
			if err := w.addTree(m, e.hash, folders[string(e.name)], depth+1); err != nil {
				return err
			}
		default:
			content, err := m.own.read(plumbing.BlobObject, e.hash, maxObject)
			if errors.Is(err, errMissing) {
				continue // the file was moved within the repository, so the remote has it
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
