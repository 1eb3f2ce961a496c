package git

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// folders are where intent lies.
var folders = [...]string{"models", "gates", "fleets"}

// What an intent folder may hold. A few small trees can name billions of files.
const (
	maxFiles = 20_000
	maxDepth = 8
)

// A File is an entry of one of the intent folders.
type File struct {
	Path string      // from the repository's root, as models/pallets.yaml
	Mode fs.FileMode // 0o644 or 0o755; fs.ModeSymlink; fs.ModeDir for a submodule; fs.ModeIrregular for what git does not allow
	Hash string      // of the content: the same hash is the same content
	Size int64       // bytes; -1 is more than MaxBlob, and left on the remote
}

// Files returns what lies in models/, gates/ and fleets/ at a commit, folders
// in folders included, sorted by path. Where models itself is no folder it is
// an entry. Only what differs from what was read before is read. The caller
// must not change the slice.
func (m *Mirror) Files(commit string) ([]File, error) {
	h, err := hash(commit)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := m.commit(h)
	if err != nil {
		return nil, err
	}
	if list, ok := m.files[c.tree]; ok {
		return list, nil
	}
	if err := m.tops(c); err != nil {
		return nil, err
	}
	var all []File
	for i, top := range c.top {
		list, err := m.folderFiles(i, top)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	if len(all) > maxFiles {
		return nil, tooMany(h)
	}
	slices.SortFunc(all, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	if len(m.files) >= 64 {
		clear(m.files)
	}
	m.files[c.tree] = all
	return all, nil
}

func tooMany(h plumbing.Hash) error {
	return delivery.Blockedf("move what is not intent elsewhere", "models/, gates/ and fleets/ hold more than %d files, or folders deeper than %d, at %.10s", maxFiles, maxDepth, h)
}

// tops finds the intent folders in a commit's tree.
func (m *Mirror) tops(c *commit) error {
	if c.topped {
		return nil
	}
	data, err := m.read(plumbing.TreeObject, c.tree)
	if err != nil {
		return err
	}
	for len(data) > 0 {
		e, rest, err := next(data)
		if err != nil {
			return m.damaged(c.tree, err)
		}
		for i, name := range folders {
			if string(e.name) == name {
				c.top[i] = top{mode: e.mode, hash: e.hash}
			}
		}
		data = rest
	}
	c.topped = true
	return nil
}

type listKey struct {
	folder int
	top    top
}

// A list is one intent folder's files by path.
type list struct {
	files  []File
	byPath map[string]listed
}

// listed is a file and what it was made of.
type listed struct {
	file File
	mode uint32
	hash plumbing.Hash
}

// folderFiles lists one intent folder, taking what it can from the list that
// was made last.
func (m *Mirror) folderFiles(i int, t top) ([]File, error) {
	if t.mode == 0 {
		return nil, nil
	}
	key := listKey{i, t}
	l := m.lists[key]
	if l == nil {
		l = &list{byPath: map[string]listed{}}
		var known map[string]listed
		if m.latest[i] != nil {
			known = m.latest[i].byPath
		}
		e := entry{mode: t.mode, name: []byte(folders[i]), hash: t.hash}
		if err := m.list(l, known, "", e, 0); err != nil {
			return nil, err
		}
		if len(m.lists) >= 64 {
			clear(m.lists)
		}
		m.lists[key] = l
	}
	m.latest[i] = l
	return l.files, nil
}

// list adds an entry, or all that lies in it. A file that is known under its
// path with the same content is taken from there: nothing is read for it.
func (m *Mirror) list(l *list, known map[string]listed, prefix string, e entry, depth int) error {
	if len(l.files) >= maxFiles || depth > maxDepth {
		return tooMany(e.hash)
	}
	if e.folder() {
		data, err := m.read(plumbing.TreeObject, e.hash)
		if err != nil {
			return err
		}
		prefix += string(e.name) + "/"
		for len(data) > 0 {
			in, rest, err := next(data)
			if err != nil {
				return m.damaged(e.hash, err)
			}
			if err := m.list(l, known, prefix, in, depth+1); err != nil {
				return err
			}
			data = rest
		}
		return nil
	}
	path := prefix + string(e.name)
	f, ok := known[path]
	if !ok || f.hash != e.hash || f.mode != e.mode {
		f = listed{File{Path: path, Mode: e.fileMode(), Hash: e.hash.String()}, e.mode, e.hash}
		if f.file.Mode.IsRegular() {
			size, err := m.size(e.hash)
			if err != nil {
				return err
			}
			f.file.Size = size
		}
	}
	l.files = append(l.files, f.file)
	l.byPath[path] = f
	return nil
}

// size returns a file's size, or -1 where it was left on the remote.
func (m *Mirror) size(h plumbing.Hash) (int64, error) {
	size, err := m.own.size(h)
	if errors.Is(err, errMissing) && m.folder != nil {
		size, err = m.folder.size(h)
	}
	switch {
	case err == nil && size > MaxBlob, errors.Is(err, errMissing) && m.folder == nil:
		return -1, nil
	case err != nil:
		return 0, m.damaged(h, err)
	}
	return size, nil
}

// Blob returns a file's content. The error is ErrTooBig, and nothing is read,
// if it has more than limit bytes, or more than MaxBlob.
func (m *Mirror) Blob(blob string, limit int64) ([]byte, error) {
	h, err := hash(blob)
	if err != nil {
		return nil, err
	}
	limit = min(limit, MaxBlob)
	m.mu.Lock()
	defer m.mu.Unlock()
	data, err := m.own.read(plumbing.BlobObject, h, limit)
	if errors.Is(err, errMissing) {
		if m.folder == nil {
			return nil, fmt.Errorf("file %.10s was left on the remote: %w", h, ErrTooBig)
		}
		data, err = m.folder.read(plumbing.BlobObject, h, limit)
	}
	switch {
	case err == nil:
		return data, nil
	case errors.Is(err, ErrTooBig):
		return nil, fmt.Errorf("file %.10s has more than %d bytes: %w", h, limit, ErrTooBig)
	}
	return nil, m.damaged(h, err)
}
