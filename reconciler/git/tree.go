package git

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// The modes that git writes in a tree.
const (
	modeFile      = 0o100644
	modeExec      = 0o100755
	modeGroup     = 0o100664 // written by git before 2005
	modeLink      = 0o120000
	modeTree      = 0o040000
	modeSubmodule = 0o160000
)

// An entry is one entry of a tree. Its name is a slice of the tree's bytes.
type entry struct {
	mode uint32
	name []byte
	hash plumbing.Hash
}

// folder reports whether the entry is a subtree with a name that git accepts.
func (e entry) folder() bool { return e.mode == modeTree && e.validName() }

// validName reports whether git accepts the name.
func (e entry) validName() bool {
	name := string(e.name)
	return name != "." && name != ".." && !strings.EqualFold(name, ".git") &&
		!strings.ContainsFunc(name, func(r rune) bool { return r == '/' || r < ' ' || r == 0x7f })
}

// fileMode returns the mode as an fs.FileMode; see File.Mode.
func (e entry) fileMode() fs.FileMode {
	if !e.validName() {
		return fs.ModeIrregular
	}
	switch e.mode {
	case modeFile, modeGroup:
		return 0o644
	case modeExec:
		return 0o755
	case modeLink:
		return fs.ModeSymlink
	case modeSubmodule:
		return fs.ModeDir
	}
	return fs.ModeIrregular
}

// next reads the first entry of a tree and returns the rest.
func next(tree []byte) (entry, []byte, error) {
	var e entry
	i := 0
	for ; i < len(tree) && i < 7 && tree[i] != ' '; i++ {
		if tree[i] < '0' || tree[i] > '7' {
			return e, nil, fmt.Errorf("a tree's mode is not a number")
		}
		e.mode = e.mode<<3 | uint32(tree[i]-'0')
	}
	if i == 0 || i >= len(tree) || tree[i] != ' ' {
		return e, nil, fmt.Errorf("a tree's mode is cut short")
	}
	tree = tree[i+1:]
	end := bytes.IndexByte(tree, 0)
	if end <= 0 || len(tree) < end+1+len(e.hash) {
		return e, nil, fmt.Errorf("a tree's entry is cut short")
	}
	e.name = tree[:end]
	copy(e.hash[:], tree[end+1:])
	return e, tree[end+1+len(e.hash):], nil
}

// entries parses a whole tree.
func entries(tree []byte) ([]entry, error) {
	list := make([]entry, 0, len(tree)/40)
	for len(tree) > 0 {
		e, rest, err := next(tree)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
		tree = rest
	}
	return list, nil
}

// entries reads and parses a whole tree.
func (m *Mirror) entries(tree plumbing.Hash) ([]entry, error) {
	data, err := m.read(plumbing.TreeObject, tree)
	if err != nil {
		return nil, err
	}
	list, err := entries(data)
	if err != nil {
		return nil, malformed(tree, err)
	}
	return list, nil
}

// order compares entries as git sorts them: as if a folder's name ended with a slash.
func order(a, b entry) int {
	n := min(len(a.name), len(b.name))
	if c := bytes.Compare(a.name[:n], b.name[:n]); c != 0 {
		return c
	}
	end := func(e entry) byte {
		switch {
		case len(e.name) > n:
			return e.name[n]
		case e.mode == modeTree:
			return '/'
		}
		return 0
	}
	return cmp.Compare(end(a), end(b))
}

// A sequence checks that the entries of a tree are sorted as git requires, without duplicate names. git merge walks
// trees in parallel and overlooks entries in the wrong position, so merging such a tree gives another result than its
// diff shows. Git itself refuses such trees in git fsck and with receive.fsckObjects.
type sequence struct {
	last entry
	// files is a stack of file names, each a prefix of the next one. A folder with one of these names may still follow,
	// because it is sorted as if it ended with a slash.
	files [][]byte
}

var errSequence = errors.New(
	"the entries of a folder are not sorted as git requires, or a name is listed twice, so a merge would give " +
		"another result than the diff shows; create the commit with git")

func (s *sequence) add(e entry) error {
	if bytes.IndexByte(e.name, '/') >= 0 || s.last.name != nil && order(s.last, e) >= 0 {
		return errSequence
	}
	s.last = e
	for len(s.files) > 0 && !bytes.HasPrefix(e.name, s.files[len(s.files)-1]) {
		s.files = s.files[:len(s.files)-1]
	}
	switch {
	case len(s.files) > 0 && bytes.Equal(s.files[len(s.files)-1], e.name):
		return errSequence
	case e.mode != modeTree:
		s.files = append(s.files, e.name)
	}
	return nil
}

// sorted returns the entries of a tree. It ends with an error if the tree is malformed, or not sorted as git requires.
func sorted(tree []byte) iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		var seq sequence
		for len(tree) > 0 {
			e, rest, err := next(tree)
			if err == nil {
				err = seq.add(e)
			}
			if !yield(e, err) || err != nil {
				return
			}
			tree = rest
		}
	}
}

// encodeTree sorts the entries and encodes a tree.
func encodeTree(list []entry) []byte {
	slices.SortFunc(list, order)
	var b bytes.Buffer
	for _, e := range list {
		fmt.Fprintf(&b, "%o %s\x00", e.mode, e.name)
		b.Write(e.hash[:])
	}
	return b.Bytes()
}
