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

// folders lists the intent folders, sorted.
var folders = [...]string{"fleets", "gates", "models"}

// Limits of the intent folders. A few small trees can contain billions of files and folders, and a long folder name is
// repeated in the path of every file below it.
const (
	maxFiles = 20_000 // files and folders
	maxDepth = 8
	maxBytes = 64 << 20 // of all files of at most MaxBlob bytes
	maxName  = 255      // bytes of one name, as in file systems
	maxPaths = 4 << 20  // bytes of all paths
	maxTrees = 16 << 20 // bytes of all tree objects
)

const (
	maxListed = 400_000 // cached files
	maxUnread = 10_000  // cached errors of commits
)

// A File is an entry of one of the intent folders.
type File struct {
	Path string // from the repository's root, for example models/pallets.yaml
	// 0o644 or 0o755; fs.ModeSymlink; fs.ModeDir for a submodule; fs.ModeIrregular for modes and names that git refuses
	Mode fs.FileMode
	Hash string // of the blob
	Size int64  // bytes; -1: larger than MaxBlob and not fetched
}

// Files returns the files in models/, gates/ and fleets/ at a commit, with those in subfolders, sorted by path. If
// models is not a folder, it is listed as an entry. Only trees that have changed since earlier calls are read.
func (m *Mirror) Files(commit string) ([]File, error) {
	h, err := hash(commit)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.treeErrors[h]; err != nil {
		return nil, err
	}
	list, err := m.filesOf(h)
	if t, ok := errors.AsType[TreeError](err); ok {
		err = t.at(h)
		if len(m.treeErrors) >= maxUnread {
			clear(m.treeErrors)
		}
		m.treeErrors[h] = err // a commit is immutable, so it is not read again
	}
	return list, err
}

func (m *Mirror) filesOf(h plumbing.Hash) ([]File, error) {
	c, err := m.commit(h)
	if err != nil {
		return nil, err
	}
	if err := m.readTops(c); err != nil {
		return nil, err
	}
	var lists [len(folders)][]File
	var used extent
	for i, top := range c.top {
		l, err := m.folderFiles(i, top, used)
		if err != nil {
			return nil, err
		}
		used.add(l.extent)
		lists[i] = l.files
	}
	return slices.Concat(lists[:]...), nil
}

// An extent is the size of intent folders, for comparison with the limits.
type extent struct {
	entries int   // files and folders
	bytes   int64 // of all files
	paths   int   // bytes of all paths
	trees   int   // bytes of all tree objects
}

func (e *extent) add(more extent) {
	e.entries += more.entries
	e.bytes += more.bytes
	e.paths += more.paths
	e.trees += more.trees
}

// check returns an error if a limit is exceeded.
func (e *extent) check() error {
	switch {
	case e.entries > maxFiles:
		return tooMuchIntent("more than %d files and folders", maxFiles)
	case e.bytes > maxBytes:
		return tooMuchIntent("more than %d MiB in files", maxBytes>>20)
	case e.paths > maxPaths:
		return tooMuchIntent("paths of more than %d MiB together", maxPaths>>20)
	case e.trees > maxTrees:
		return tooMuchIntent("trees of more than %d MiB together", maxTrees>>20)
	}
	return nil
}

// tooMuchIntent returns a TreeError about intent folders that exceed a limit.
func tooMuchIntent(format string, args ...any) error {
	return TreeError{delivery.Blockedf("move files that are not intent to another folder",
		"the folders models/, gates/ and fleets/ contain "+format, args...), true}
}

// readTops finds the intent folders in a commit's root tree.
func (m *Mirror) readTops(c *commit) error {
	if c.topsRead {
		return nil
	}
	data, err := m.read(plumbing.TreeObject, c.tree)
	if err != nil {
		return err
	}
	for e, err := range sorted(data) {
		if err != nil {
			return malformed(c.tree, err)
		}
		if i := slices.Index(folders[:], string(e.name)); i >= 0 {
			c.top[i] = top{mode: e.mode, hash: e.hash}
		}
	}
	c.topsRead = true
	return nil
}

type listKey struct {
	folder int
	top    top
}

// A list is one intent folder's files, sorted by path.
type list struct {
	files []File
	extent
}

// folderFiles lists one intent folder. used is the extent of the other folders of the commit.
func (m *Mirror) folderFiles(i int, t top, used extent) (list, error) {
	if t.mode == 0 {
		return list{}, nil
	}
	key := listKey{i, t}
	if l, ok := m.lists[key]; ok {
		used.add(l.extent)
		return l, used.check()
	}
	w := walker{m: m, used: used, trees: map[plumbing.Hash][]byte{}, withinBudget: m.budget()}
	if err := w.add(entry{mode: t.mode, name: []byte(folders[i]), hash: t.hash}, 0); err != nil {
		return list{}, err
	}
	// Git sorts folder-1.yaml before folder/a.yaml, unlike the order of paths.
	slices.SortStableFunc(w.files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	if m.listed += len(w.files); len(m.lists) >= 64 || m.listed > maxListed {
		clear(m.lists)
		m.listed = len(w.files)
	}
	m.lists[key] = w.list
	return w.list, nil
}

// A walker makes a list.
type walker struct {
	list
	m            *Mirror
	used         extent // of the other folders, and of what was walked in this one
	trees        map[plumbing.Hash][]byte
	withinBudget func() bool
	path         []byte // of the present folder, with a slash
}

// count adds to the extent, and returns an error if a limit is exceeded.
func (w *walker) count(more extent) error {
	w.extent.add(more)
	w.used.add(more)
	return w.used.check()
}

// add adds an entry, and if it is a folder, everything in it.
func (w *walker) add(e entry, depth int) error {
	if depth > maxDepth {
		return tooMuchIntent("folders deeper than %d", maxDepth)
	}
	if len(e.name) > maxName {
		return tooMuchIntent("a name of %d bytes; a name may have at most %d", len(e.name), maxName)
	}
	length := len(w.path)
	defer func() { w.path = w.path[:length] }()
	w.path = append(w.path, e.name...)
	if err := w.count(extent{entries: 1, paths: len(w.path)}); err != nil {
		return err
	}
	if !e.folder() {
		return w.file(e)
	}
	w.path = append(w.path, '/')
	data, ok := w.trees[e.hash]
	if !ok {
		var err error
		if data, err = w.m.read(plumbing.TreeObject, e.hash); err != nil {
			return err
		}
		w.trees[e.hash] = data
		if !w.withinBudget() {
			return tooMuchIntent("folders that take more than %d MiB to unpack", maxWork>>20)
		}
	}
	if err := w.count(extent{trees: len(data)}); err != nil {
		return err
	}
	for in, err := range sorted(data) {
		if err != nil {
			return malformed(e.hash, err)
		}
		if err := w.add(in, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// A knownFile is a listed file with the mode in its tree.
type knownFile struct {
	File
	mode uint32
}

// file adds a file. One that was listed before is not read again.
func (w *walker) file(e entry) error {
	known, ok := w.m.known[e.hash]
	if !ok || known.mode != e.mode || known.Path != string(w.path) {
		f := File{Path: string(w.path), Mode: e.fileMode(), Hash: e.hash.String()}
		switch {
		case !f.Mode.IsRegular():
		case ok && known.Mode.IsRegular():
			f.Size = known.Size
		default:
			var err error
			if f.Size, err = w.m.size(e.hash); err != nil {
				return err
			}
		}
		if len(w.m.known) >= maxListed {
			clear(w.m.known)
		}
		known = knownFile{f, e.mode}
		w.m.known[e.hash] = known
	}
	w.files = append(w.files, known.File)
	return w.count(extent{bytes: max(known.Size, 0)})
}

// size returns a blob's size, or -1 if it was not fetched.
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

// Blob returns the content of a blob. The error is ErrTooBig, and nothing is read, if it has
// more than limit bytes or more than MaxBlob.
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
			return nil, fmt.Errorf("file %.10s was not fetched: %w", h, ErrTooBig)
		}
		data, err = m.folder.read(plumbing.BlobObject, h, limit)
	}
	switch {
	case err == nil:
		return data, nil
	case errors.Is(err, errKind):
		return nil, malformed(h, errors.New("it is not a blob"))
	case errors.Is(err, ErrTooBig):
		return nil, fmt.Errorf("file %.10s has more than %d bytes: %w", h, limit, ErrTooBig)
	}
	return nil, m.damaged(h, err)
}
