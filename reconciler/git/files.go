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

// folders are where intent lies, sorted.
var folders = [...]string{"fleets", "gates", "models"}

// What the intent folders may hold. A few small trees can name billions of files and folders, and one long folder name
// is repeated in the path of every file below it.
const (
	maxFiles = 20_000 // files and folders
	maxDepth = 8
	maxBytes = 64 << 20 // of files that are small enough to be read
	maxName  = 255      // bytes of one name, as on a disk
	maxPaths = 4 << 20  // bytes of all paths
	maxTrees = 16 << 20 // bytes of all folders' own entries
)

const (
	// maxListed is how many files are kept in lists that were asked for before.
	maxListed = 400_000
	// maxUnread is how many commits are remembered whose files cannot be read.
	maxUnread = 10_000
)

// A File is an entry of one of the intent folders.
type File struct {
	Path string // from the repository's root, as models/pallets.yaml
	// 0o644 or 0o755; fs.ModeSymlink; fs.ModeDir for a submodule; fs.ModeIrregular for what git does not allow
	Mode fs.FileMode
	Hash string // of the content: the same hash is the same content
	Size int64  // bytes; -1 is more than MaxBlob, and left on the remote
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
	if err := m.unread[h]; err != nil {
		return nil, err
	}
	list, err := m.filesOf(h)
	if t, ok := errors.AsType[TreeError](err); ok {
		err = t.at(h)
		if len(m.unread) >= maxUnread {
			clear(m.unread)
		}
		m.unread[h] = err // a commit does not change, so it is not tried again
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
	if err := m.tops(c); err != nil {
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

// latestFiles returns how many files the commit had that was asked for last.
func (m *Mirror) latestFiles() (n int) {
	for _, l := range m.latest {
		if l != nil {
			n += len(l.files)
		}
	}
	return n
}

// An extent is how much intent folders hold.
type extent struct {
	entries int   // files and folders
	bytes   int64 // of files
	paths   int   // bytes
	trees   int   // bytes
}

func (e *extent) add(more extent) {
	e.entries += more.entries
	e.bytes += more.bytes
	e.paths += more.paths
	e.trees += more.trees
}

// check returns an error if that is more than aob reads.
func (e *extent) check() error {
	switch {
	case e.entries > maxFiles:
		return muchIntent("more than %d files and folders", maxFiles)
	case e.bytes > maxBytes:
		return muchIntent("more than %d MiB in files", maxBytes>>20)
	case e.paths > maxPaths:
		return muchIntent("paths of more than %d MiB together", maxPaths>>20)
	case e.trees > maxTrees:
		return muchIntent("folders whose lists of names take more than %d MiB", maxTrees>>20)
	}
	return nil
}

// muchIntent is a TreeError about intent folders that hold more than aob reads.
func muchIntent(format string, args ...any) error {
	return TreeError{delivery.Blockedf("move what is not intent elsewhere",
		"the folders of intent hold "+format, args...), true}
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
	c.topped = true
	return nil
}

type listKey struct {
	folder int
	top    top
}

// A list is one intent folder's files, sorted by path.
type list struct {
	files []File
	made  []origin // of the file with the same index
	extent
}

// An origin is what a File was made of.
type origin struct {
	mode uint32
	hash plumbing.Hash
}

// folderFiles lists one intent folder, taking what it can from the list that
// was asked for last. The other folders of the commit have used some of what may be read already.
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
		w := walker{m: m, known: m.latest[i], used: used, trees: map[plumbing.Hash][]byte{}, cheap: m.budget()}
		if w.known == nil {
			w.known = &list{}
		}
		w.files = make([]File, 0, len(w.known.files)+8)
		w.made = make([]origin, 0, len(w.known.files)+8)
		if err := w.add(entry{mode: t.mode, name: []byte(folders[i]), hash: t.hash}, 0); err != nil {
			return nil, err
		}
		l = &w.list
		if !sort.IsSorted(l) {
			sort.Stable(l) // git puts folder-1.yaml before folder/a.yaml, and paths do not
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
	l.made[i], l.made[j] = l.made[j], l.made[i]
}

// A walker makes a list with the help of a known one.
type walker struct {
	list
	m     *Mirror
	known *list
	used  extent // by the folders before this one, and by what was walked of this one
	trees map[plumbing.Hash][]byte
	cheap func() bool
	at    int    // where in known the next file is likely to be
	path  []byte // of the folder, with a slash
}

// count notes what was read, and returns an error where that is too much.
func (w *walker) count(more extent) error {
	w.extent.add(more)
	w.used.add(more)
	return w.used.check()
}

// add adds an entry, or all that lies in it. A file that is known under its
// path with the same content is taken from there: nothing is read for it.
func (w *walker) add(e entry, depth int) error {
	if depth > maxDepth {
		return muchIntent("folders deeper than %d", maxDepth)
	}
	if len(e.name) > maxName {
		return muchIntent("a name of %d bytes, and a name may have %d", len(e.name), maxName)
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
		if !w.cheap() {
			return muchIntent("folders that take more than %d MiB to unpack", maxWork>>20)
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
	made := origin{e.mode, e.hash}
	var f File
	if i := w.find(); i >= 0 && w.known.made[i] == made {
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
	w.files, w.made = append(w.files, f), append(w.made, made)
	return w.count(extent{bytes: max(f.Size, 0)})
}

// find returns the index of the known file with the path, or -1.
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
	case errors.Is(err, errKind):
		return nil, malformed(h, errors.New("it is no file"))
	case errors.Is(err, ErrTooBig):
		return nil, fmt.Errorf("file %.10s has more than %d bytes: %w", h, limit, ErrTooBig)
	}
	return nil, m.damaged(h, err)
}
