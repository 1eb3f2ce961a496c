package git

import (
	"bufio"
	"bytes"
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

// cacheSize is the size in bytes of a store's cache of unpacked objects.
const cacheSize = 32 << 20

var (
	errMissing = errors.New("no such object")
	errKind    = errors.New("an object of another type")
	errDamaged = errors.New("the content does not match the hash")
)

// A store reads the objects of a bare repository. go-git's own storage must not be read
// during writes. This one opens only complete packs. The mirror's lock protects it.
type store struct {
	dir        string   // the objects folder
	alternates []string // objects folders of alternates
	problems   []string // descriptions of missing alternates and damaged packs
	packs      []*pack
	cache      *workCache
	// shared means that other programs write to the repository: there may be loose objects
	// and alternates, and after a change of refs (stale), a missing object is searched again.
	shared bool
	stale  bool
}

// A workCache counts the bytes of all objects that were unpacked, including the bases of deltas. A small object may be
// a delta of a large one, so the sizes of the objects that a walk reads do not limit its cost.
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
	name string // pack-HASH
	dir  string // its objects folder
	file billy.File
	idx  *idxfile.MemoryIndex
	objs *packfile.Packfile
}

func newStore(repository string, shared bool) *store {
	return &store{
		dir:    filepath.Join(repository, "objects"),
		cache:  &workCache{Object: cache.NewObjectLRU(cacheSize)},
		shared: shared,
		stale:  shared,
	}
}

// load opens new packs and closes those that were removed.
func (s *store) load() error {
	if s.shared {
		var err error
		if s.alternates, s.problems, err = alternates(s.dir); err != nil {
			return err
		}
	}
	open := map[[2]string]*pack{}
	for _, p := range s.packs {
		open[[2]string{p.dir, p.name}] = p
	}
	s.packs = nil
	for _, dir := range append([]string{s.dir}, s.alternates...) {
		if err := s.loadFrom(dir, open); err != nil {
			return err
		}
	}
	for _, p := range open {
		p.file.Close()
	}
	return nil
}

// loadFrom adds the packs of one objects folder. It takes those in open from there, and opens the others.
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
		if s.shared && errors.Is(err, fs.ErrNotExist) {
			continue // git has just repacked it; its objects are in another pack
		}
		if err == nil {
			err = s.open(dir, name, idx)
		}
		if err != nil && s.shared {
			// Other packs can still be read, as in git.
			file := filepath.Join(dir, "pack", name+".pack")
			s.problems = append(s.problems, fmt.Sprintf("%s cannot be read: %v", file, err))
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

// open opens a pack and adds it to the store.
func (s *store) open(dir, name string, idx *idxfile.MemoryIndex) error {
	f, err := osfs.New(filepath.Join(dir, "pack")).Open(name + ".pack")
	if err != nil {
		return err
	}
	// Without a file system, go-git reads objects into memory. With one, it opens the pack
	// file again for every object above 16 KiB.
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

// find returns the pack with an object, and its offset; nil if there is none.
func (s *store) find(h plumbing.Hash) (*pack, int64) {
	for i := len(s.packs) - 1; i >= 0; i-- {
		if off, err := s.packs[i].idx.FindOffset(h); err == nil {
			return s.packs[i], off
		}
	}
	return nil, 0
}

// has reports whether an object is in a pack.
func (s *store) has(h plumbing.Hash) bool {
	p, _ := s.find(h)
	return p != nil
}

// size returns the size of an object in bytes without reading it.
func (s *store) size(h plumbing.Hash) (size int64, err error) {
	err = s.retry(func() error {
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

// size returns the size of the object at an offset. For a delta, it is in the header.
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

// read returns the content of an object. The error is ErrTooBig, and nothing is read, if it
// has more than limit bytes; errMissing if there is no such object; errKind if it has another
// type; errDamaged if the content does not match the hash.
func (s *store) read(t plumbing.ObjectType, h plumbing.Hash, limit int64) ([]byte, error) {
	data, err := s.content(t, h, limit)
	if err == nil && sum(t, data) != h {
		return nil, errDamaged
	}
	return data, err
}

// sum returns the hash of an object. It detects damage only, so plain SHA-1 is enough: go-git
// checks for collision attacks when it receives a pack.
func sum(t plumbing.ObjectType, data []byte) plumbing.Hash {
	s := sha1.New()
	fmt.Fprintf(s, "%s %d\x00", t, len(data))
	s.Write(data)
	return plumbing.Hash(s.Sum(nil))
}

func (s *store) content(t plumbing.ObjectType, h plumbing.Hash, limit int64) (data []byte, err error) {
	err = s.retry(func() error {
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

// retry calls read, and if it fails and other programs may have moved objects, loads the packs and calls it again.
func (s *store) retry(read func() error) error {
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
	if !s.shared {
		return nil, nil, errMissing
	}
	name := h.String()
	for _, dir := range append([]string{s.dir}, s.alternates...) {
		f, err := os.Open(filepath.Join(dir, name[:2], name[2:]))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		r, err := objfile.NewReader(f)
		if err != nil {
			f.Close()
		}
		return f, r, err
	}
	return nil, nil, errMissing
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

// verify checks the checksums of all pack files, and removes files of interrupted writes. An
// error means that the store is damaged.
func (s *store) verify() error {
	dir := filepath.Join(s.dir, "pack")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	complete := map[string]bool{}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".idx"); ok && strings.HasPrefix(name, "pack-") {
			complete[name] = true
			if err := sumPack(filepath.Join(dir, name+".pack")); err != nil {
				return err
			}
		}
	}
	for _, e := range entries {
		if name := e.Name(); !complete[strings.TrimSuffix(strings.TrimSuffix(name, ".pack"), ".idx")] {
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
	sum := sha1.New() // to detect damage; the pack was checked when it was received
	if _, err := io.CopyN(sum, f, info.Size()-sha1.Size); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	end, err := io.ReadAll(f)
	if err == nil && !bytes.Equal(end, sum.Sum(nil)) {
		err = errors.New("the checksum is wrong")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
