package git

import (
	"bufio"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/objfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
)

// cacheSize is how many bytes of objects a store keeps in memory: the bases of
// deltas, and what was read last.
const cacheSize = 32 << 20

var (
	errMissing = errors.New("no such object")
	errKind    = errors.New("an object of another kind")
	errDamaged = errors.New("the content is not what the hash says")
)

// A store reads the objects of a bare repository. go-git's own storage may not
// be read while it is written to; this one opens packs that are complete, one
// by one, and is used under the mirror's lock.
type store struct {
	dir   string   // the folder of objects
	more  []string // folders of objects that this one borrows from
	lost  []string // what of it cannot be read: folders that are not there, packs that are damaged
	packs []*pack
	cache *workCache
	// foreign says that other programs write here too: loose objects are looked
	// for, sizes are checked before anything is read, and what is missing is
	// looked for once more after the remote's refs have changed.
	foreign bool
	stale   bool
}

// A workCache counts the bytes of the objects that were unpacked, and of those that deltas were applied to. A small
// object may be a delta of a large one, so what a walk reads does not say what it costs.
type workCache struct {
	cache.Object
	work int64
}

func (c *workCache) Put(o plumbing.EncodedObject) {
	c.work += o.Size()
	c.Object.Put(o)
}

func (c *workCache) Get(h plumbing.Hash) (plumbing.EncodedObject, bool) {
	o, ok := c.Object.Get(h)
	if ok {
		c.work += o.Size()
	}
	return o, ok
}

// A pack is an open pack file.
type pack struct {
	name string // as pack-HASH
	dir  string // the folder of objects that it is in
	file billy.File
	idx  *idxfile.MemoryIndex
	objs *packfile.Packfile
}

func newStore(repository string, foreign bool) *store {
	return &store{
		dir:     filepath.Join(repository, "objects"),
		cache:   &workCache{Object: cache.NewObjectLRU(cacheSize)},
		foreign: foreign,
		stale:   foreign,
	}
}

// load opens the packs that are not open yet, and closes those that are gone.
func (s *store) load() error {
	if s.foreign {
		var err error
		if s.more, s.lost, err = alternates(s.dir); err != nil {
			return err
		}
	}
	open := map[[2]string]*pack{}
	for _, p := range s.packs {
		open[[2]string{p.dir, p.name}] = p
	}
	s.packs = nil
	for _, dir := range append([]string{s.dir}, s.more...) {
		if err := s.loadFrom(dir, open); err != nil {
			return err
		}
	}
	for _, p := range open {
		p.file.Close()
	}
	return nil
}

// loadFrom opens the packs of one folder of objects, or takes them out of open.
func (s *store) loadFrom(dir string, open map[[2]string]*pack) error {
	entries, err := os.ReadDir(filepath.Join(dir, "pack"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".idx")
		if !ok || !strings.HasPrefix(name, "pack-") {
			continue
		}
		if p := open[[2]string{dir, name}]; p != nil {
			delete(open, [2]string{dir, name})
			s.packs = append(s.packs, p)
			continue
		}
		idx, err := readIndex(filepath.Join(dir, "pack", e.Name()))
		if s.foreign && errors.Is(err, fs.ErrNotExist) {
			continue // repacked meanwhile; what it held is in another
		}
		if err == nil {
			err = s.open(dir, name, idx)
		}
		if err != nil && s.foreign {
			// As in git, what other packs hold can still be read.
			s.lost = append(s.lost, fmt.Sprintf("%s cannot be read: %v", filepath.Join(dir, "pack", name+".pack"), err))
		} else if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func readIndex(path string) (*idxfile.MemoryIndex, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	idx := idxfile.NewMemoryIndex()
	return idx, idxfile.NewDecoder(bufio.NewReaderSize(f, 1<<16)).Decode(idx)
}

// open adds a pack whose files are in place.
func (s *store) open(dir, name string, idx *idxfile.MemoryIndex) error {
	f, err := osfs.New(filepath.Join(dir, "pack")).Open(name + ".pack")
	if err != nil {
		return err
	}
	// Without a file system the objects come into memory at once; with one,
	// go-git opens the pack file again for every object above 16 KiB.
	objs := packfile.NewPackfileWithCache(idx, nil, f, s.cache, 0)
	s.packs = append(s.packs, &pack{name: name, dir: dir, file: f, idx: idx, objs: objs})
	return nil
}

func (s *store) close() {
	for _, p := range s.packs {
		p.file.Close()
	}
	s.packs = nil
	s.cache.Clear()
}

// find returns the pack that holds an object, or nil.
func (s *store) find(h plumbing.Hash) (*pack, int64) {
	for i := len(s.packs) - 1; i >= 0; i-- {
		if off, err := s.packs[i].idx.FindOffset(h); err == nil {
			return s.packs[i], off
		}
	}
	return nil, 0
}

// size returns how many bytes an object has, without reading it.
func (s *store) size(h plumbing.Hash) (size int64, err error) {
	err = s.again(func() error {
		if p, off := s.find(h); p != nil {
			size, err = p.size(off)
			return err
		}
		f, r, err := s.loose(h)
		if err != nil {
			return err
		}
		defer f.Close()
		_, size, err = r.Header()
		return err
	})
	return size, err
}

// size returns the size of the object at an offset. A delta says what it makes.
func (p *pack) size(off int64) (int64, error) {
	scan := p.objs.Scanner()
	head, err := scan.SeekObjectHeader(off)
	if err != nil {
		return 0, err
	}
	if head.Length > maxObject || !head.Type.IsDelta() {
		return head.Length, nil
	}
	var delta prefix
	_, _, err = scan.NextObject(&delta)
	_, target := delta.sizes()
	return target, err
}

// read returns an object's content. It is ErrTooBig, and nothing is read, if it
// has more than limit bytes, errMissing if it is not here, errKind if it is
// something else, and errDamaged if the content is not what the hash says.
func (s *store) read(t plumbing.ObjectType, h plumbing.Hash, limit int64) ([]byte, error) {
	data, err := s.content(t, h, limit)
	if err == nil && sum(t, data) != h {
		return nil, errDamaged
	}
	return data, err
}

// sum returns the hash of an object. It is against damage: what came over the
// network was checked against forged objects when it came.
func sum(t plumbing.ObjectType, data []byte) plumbing.Hash {
	s := sha1.New()
	fmt.Fprintf(s, "%s %d\x00", t, len(data))
	s.Write(data)
	return plumbing.Hash(s.Sum(nil))
}

func (s *store) content(t plumbing.ObjectType, h plumbing.Hash, limit int64) (data []byte, err error) {
	err = s.again(func() error {
		p, off := s.find(h)
		if p == nil {
			data, err = s.readLoose(t, h, limit)
			return err
		}
		if size, err := p.size(off); err != nil {
			return err
		} else if size > limit {
			return ErrTooBig
		}
		o, err := p.objs.Get(h)
		if err != nil {
			return err
		}
		if o.Type() != t {
			return errKind
		}
		r, err := o.Reader()
		if err != nil {
			return err
		}
		data = make([]byte, o.Size())
		_, err = io.ReadFull(r, data)
		return err
	})
	return data, err
}

// again calls read, and once more if other programs may have moved objects.
func (s *store) again(read func() error) error {
	err := read()
	if err == nil || !s.stale || errors.Is(err, ErrTooBig) || errors.Is(err, errKind) {
		return err
	}
	s.stale = false
	if err := s.load(); err != nil {
		return err
	}
	return read()
}

// loose opens a loose object.
func (s *store) loose(h plumbing.Hash) (*os.File, *objfile.Reader, error) {
	if !s.foreign {
		return nil, nil, errMissing
	}
	name := h.String()
	var f *os.File
	err := fs.ErrNotExist
	for i := 0; errors.Is(err, fs.ErrNotExist) && i <= len(s.more); i++ {
		dir := s.dir
		if i > 0 {
			dir = s.more[i-1]
		}
		f, err = os.Open(filepath.Join(dir, name[:2], name[2:]))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, errMissing
	}
	if err != nil {
		return nil, nil, err
	}
	r, err := objfile.NewReader(f)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, r, nil
}

func (s *store) readLoose(t plumbing.ObjectType, h plumbing.Hash, limit int64) ([]byte, error) {
	f, r, err := s.loose(h)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	typ, size, err := r.Header()
	if err != nil {
		return nil, err
	}
	if typ != t {
		return nil, errKind
	}
	if size > limit {
		return nil, ErrTooBig
	}
	data := make([]byte, size)
	_, err = io.ReadFull(r, data)
	s.cache.work += size
	return data, err
}

// verify reads every pack file whole and checks its sum, and removes what an
// interrupted write has left. An error means that the store is damaged.
func (s *store) verify() error {
	dir := filepath.Join(s.dir, "pack")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	whole := map[string]bool{}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".idx"); ok && strings.HasPrefix(name, "pack-") {
			whole[name] = true
			if err := sumPack(filepath.Join(dir, name+".pack")); err != nil {
				return err
			}
		}
	}
	for _, e := range entries {
		if name := e.Name(); !whole[strings.TrimSuffix(strings.TrimSuffix(name, ".pack"), ".idx")] {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func sumPack(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	sum := sha1.New() // against damage; what came from the remote was checked when it came
	var end [sha1.Size]byte
	if _, err := io.CopyN(sum, f, info.Size()-sha1.Size); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if _, err := io.ReadFull(f, end[:]); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if [sha1.Size]byte(sum.Sum(nil)) != end {
		return fmt.Errorf("%s: the sum is wrong", path)
	}
	return nil
}
