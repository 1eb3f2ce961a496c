package git

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"
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
	// maxListed is how many files are kept in cached lists.
	maxListed = 400_000
	// maxUnread is how many errors of commits are cached.
	maxUnread = 10_000
)

// A File is an entry of one of the intent folders.
type File struct {
	Path string // from the repository's root, for example models/pallets.yaml
	// 0o644 or 0o755; fs.ModeSymlink; fs.ModeDir for a submodule; fs.ModeIrregular for modes and names that git refuses
	Mode fs.FileMode
	Hash string // of the blob
	Size int64  // bytes; -1: larger than MaxBlob and not fetched
}

// Files returns the files in models/, gates/ and fleets/ at a commit, with those in
// subfolders, sorted by path. If models is not a folder, it is listed as an entry. Only
// trees that have changed since earlier calls are read. The caller must not change the
// slice.
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
	if list, ok := m.files[c.tree]; ok {
		return list, nil
	}
	if err := m.readTops(c); err != nil {
		return nil, err
	}
	all := make([]File, 0, m.latestFiles())
	var used extent
	for i, top := range c.top {
		l, err := m.folderFiles(i, top, used)
		if err != nil {
			return nil, err
		}
		used.add(l.extent)
		all = append(all, l.files...)
	}
	if m.filesKept += len(all); len(m.files) >= 64 || m.filesKept > maxListed {
		clear(m.files)
		m.filesKept = len(all)
	}
	m.files[c.tree] = all
	return all, nil
}

// latestFiles returns how many files the last listed commit has.
func (m *Mirror) latestFiles() (n int) {
	for _, l := range m.latest {
		if l != nil {
			n += len(l.files)
		}
	}
	return n
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
	var seq sequence
	for len(data) > 0 {
		e, rest, err := next(data)
		if err == nil {
			err = seq.add(e)
		}
		if err != nil {
			return malformed(c.tree, err)
		}
		for i, name := range folders {
			if string(e.name) == name {
				c.top[i] = top{mode: e.mode, hash: e.hash}
			}
		}
		data = rest
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
	files   []File
	origins []origin // of the file with the same index
	extent
}

// An origin is the tree entry of a File.
type origin struct {
	mode uint32
	hash plumbing.Hash
}

// folderFiles lists one intent folder. It takes unchanged files from the last returned list.
// used is the extent of the other folders of the commit.
func (m *Mirror) folderFiles(i int, t top, used extent) (*list, error) {
	if t.mode == 0 {
		return &list{}, nil
	}
	key := listKey{i, t}
	l := m.lists[key]
	if l != nil {
		used.add(l.extent)
		if err := used.check(); err != nil {
			return nil, err
		}
	} else {
		w := walker{m: m, known: m.latest[i], used: used, trees: map[plumbing.Hash][]byte{}, withinBudget: m.budget()}
		if w.known == nil {
			w.known = &list{}
		}
		w.files = make([]File, 0, len(w.known.files)+8)
		w.origins = make([]origin, 0, len(w.known.files)+8)
		if err := w.add(entry{mode: t.mode, name: []byte(folders[i]), hash: t.hash}, 0); err != nil {
			return nil, err
		}
		l = &w.list
		if !sort.IsSorted(l) {
			sort.Stable(l) // git sorts folder-1.yaml before folder/a.yaml, unlike the order of paths
		}
		if m.listed += len(l.files); len(m.lists) >= 64 || m.listed > maxListed {
			clear(m.lists)
			m.listed = len(l.files)
		}
		m.lists[key] = l
	}
	m.latest[i] = l
	return l, nil
}

func (l *list) Len() int           { return len(l.files) }
func (l *list) Less(i, j int) bool { return l.files[i].Path < l.files[j].Path }
func (l *list) Swap(i, j int) {
	l.files[i], l.files[j] = l.files[j], l.files[i]
	l.origins[i], l.origins[j] = l.origins[j], l.origins[i]
}

// A walker makes a list, and takes unchanged files from a known list.
type walker struct {
	list
	m            *Mirror
	known        *list
	used         extent // of the other folders, and of what was walked in this one
	trees        map[plumbing.Hash][]byte
	withinBudget func() bool
	at           int    // probable index in known of the next file
	path         []byte // of the present folder, with a slash
}

// count adds to the extent, and returns an error if a limit is exceeded.
func (w *walker) count(more extent) error {
	w.extent.add(more)
	w.used.add(more)
	return w.used.check()
}

// add adds an entry, and if it is a folder, everything in it. A file that is in known with
// the same path, mode and hash is taken from there without reading.
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
	var seq sequence
	for len(data) > 0 {
		in, rest, err := next(data)
		if err == nil {
			err = seq.add(in)
		}
		if err != nil {
			return malformed(e.hash, err)
		}
		if err := w.add(in, depth+1); err != nil {
			return err
		}
		data = rest
	}
	return nil
}

func (w *walker) file(e entry) error {
	o := origin{e.mode, e.hash}
	var f File
	if i := w.find(); i >= 0 && w.known.origins[i] == o {
		f = w.known.files[i]
	} else {
		f = File{Path: string(w.path), Mode: e.fileMode(), Hash: e.hash.String()}
		if f.Mode.IsRegular() {
			size, err := w.m.size(e.hash)
			if err != nil {
				return err
			}
			f.Size = size
		}
	}
	w.files, w.origins = append(w.files, f), append(w.origins, o)
	return w.count(extent{bytes: max(f.Size, 0)})
}

// find returns the index in known of the file with the present path, or -1.
func (w *walker) find() int {
	known := w.known.files
	i := w.at
	if i >= len(known) || known[i].Path != string(w.path) {
		var found bool
		i, found = slices.BinarySearchFunc(known, w.path, func(f File, path []byte) int {
			return strings.Compare(f.Path, string(path))
		})
		if !found {
			return -1
		}
	}
	w.at = i + 1
	return i
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
