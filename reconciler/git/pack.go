package git

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/storage/memory"
)

// What may come in one pack. A pack is small and what it unpacks to is not: a
// gigabyte of zeros takes a megabyte, and a delta can repeat its base at will.
const (
	maxObject  = 32 << 20 // bytes of one object
	maxObjects = 4 << 20  // objects of one pack
	maxPack    = 2 << 30  // bytes of one pack, as sent
)

// bounds are what may come at once.
type bounds struct {
	objects  uint32
	pack     int64 // bytes, as sent
	unpacked int64 // bytes of all objects, and of what their deltas build on
	commit   int64 // bytes of one commit
}

var (
	branchBounds = bounds{objects: maxObjects, pack: maxPack, unpacked: math.MaxInt64, commit: maxObject}
	// Anybody may open a pull request.
	pullBounds = bounds{objects: 100_000, pack: 64 << 20, unpacked: 512 << 20, commit: maxCommit}
)

// tooMuch is why a pack was refused.
type tooMuch struct{ what string }

func (t tooMuch) Error() string { return t.what }

// check reads a pack to its end without keeping anything, and refuses what
// would cost too much to unpack.
func check(r io.Reader, most bounds) (objects int, err error) {
	s := packfile.NewScanner(r)
	_, count, err := s.Header()
	if errors.Is(err, packfile.ErrEmptyPackfile) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if count > most.objects {
		return 0, tooMuch{fmt.Sprintf("%d objects; aob takes at most %d", count, most.objects)}
	}
	var unpacked int64
	for range count {
		head, err := s.NextObjectHeader()
		if err != nil {
			return 0, err
		}
		size := head.Length
		if size <= maxObject {
			var delta prefix
			if _, _, err := s.NextObject(&delta); err != nil {
				return 0, err
			}
			if head.Type.IsDelta() {
				var base int64
				base, size = delta.sizes()
				unpacked += max(base, 0)
			}
		}
		if size < 0 || size > maxObject {
			return 0, tooMuch{fmt.Sprintf("a file of %d MiB; aob reads at most %d MiB", size>>20, maxObject>>20)}
		}
		if head.Type == plumbing.CommitObject && size > most.commit {
			return 0, tooMuch{fmt.Sprintf("a commit of %d kB; aob reads at most %d kB", size>>10, most.commit>>10)}
		}
		if unpacked += size; unpacked > most.unpacked {
			return 0, tooMuch{fmt.Sprintf("more than %d MiB when it is unpacked", most.unpacked>>20)}
		}
	}
	_, err = s.Checksum()
	return int(count), err
}

// A prefix keeps the beginning of what is written to it.
type prefix struct {
	data [20]byte
	n    int
}

func (p *prefix) Write(b []byte) (int, error) {
	p.n += copy(p.data[p.n:], b)
	return len(b), nil
}

// sizes returns the sizes of what a delta builds on and of what it makes, or -1
// where they cannot be read: a delta begins with both, seven bits a byte, the
// lowest first.
func (p *prefix) sizes() (base, target int64) {
	var both [2]int64
	at := 0
	for i := range both {
		var size uint64
		for shift := 0; ; shift += 7 {
			if at >= p.n || shift > 56 {
				return -1, -1
			}
			b := p.data[at]
			at++
			size |= uint64(b&0x7f) << shift
			if b < 0x80 {
				break
			}
		}
		both[i] = int64(size)
	}
	return both[0], both[1]
}

// A received pack is on disk, checked and indexed, and not in the store yet.
type received struct {
	tmp  string
	size int64 // bytes
	sum  plumbing.Hash
	idx  *idxfile.MemoryIndex // nil: nothing was sent
}

// receive writes a pack beside the others and indexes it. It touches nothing of
// the store, so others may read on. It ends with ctx, also while it unpacks.
func (s *store) receive(ctx context.Context, r io.Reader, most bounds) (rec received, err error) {
	f, err := os.CreateTemp(filepath.Join(s.dir, "pack"), "tmp_pack_")
	if err != nil {
		return received{}, err
	}
	rec.tmp = f.Name()
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil || rec.idx == nil {
			os.Remove(rec.tmp)
		}
	}()
	limited := &io.LimitedReader{R: ended{ctx, r}, N: most.pack}
	tee := io.TeeReader(limited, f)
	objects, err := check(tee, most)
	if limited.N == 0 {
		return rec, tooMuch{fmt.Sprintf("more than %d MiB at once", most.pack>>20)}
	}
	if err != nil {
		return rec, err
	}
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return rec, err
	}
	rec.size = most.pack - limited.N
	if objects == 0 {
		return rec, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return rec, err
	}
	w := new(idxfile.Writer)
	parser, err := packfile.NewParser(packfile.NewScanner(endedFile{ended{ctx, f}, f}), w)
	if err != nil {
		return rec, err
	}
	if rec.sum, err = parser.Parse(); err != nil {
		return rec, err
	}
	rec.idx, err = w.Index()
	return rec, err
}

// An ended reader reads until its context ends.
type ended struct {
	ctx context.Context
	r   io.Reader
}

func (e ended) Read(p []byte) (int, error) {
	if err := e.ctx.Err(); err != nil {
		return 0, err
	}
	return e.r.Read(p)
}

type endedFile struct {
	ended
	io.Seeker
}

// add makes a received pack part of the store. The index comes last: a pack
// without one is what an interrupted write leaves.
func (s *store) add(rec received) error {
	if rec.idx == nil {
		return nil
	}
	defer os.Remove(rec.tmp)
	name := "pack-" + rec.sum.String()
	if slices.ContainsFunc(s.packs, func(p *pack) bool { return p.name == name }) {
		return nil
	}
	base := filepath.Join(s.dir, "pack", name)
	if err := os.Rename(rec.tmp, base+".pack"); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(base), "tmp_idx_")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	buf := bufio.NewWriterSize(f, 1<<16)
	_, err = idxfile.NewEncoder(buf).Encode(rec.idx)
	if err := errors.Join(err, buf.Flush(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), base+".idx"); err != nil {
		return err
	}
	return s.open(s.dir, name, rec.idx)
}

// encode makes a pack of objects. A window above zero looks for deltas.
func encode(objects []plumbing.EncodedObject, window uint) ([]byte, error) {
	mem := memory.NewStorage()
	hashes := make([]plumbing.Hash, 0, len(objects))
	for _, o := range objects {
		if mem.HasEncodedObject(o.Hash()) == nil {
			continue
		}
		h, err := mem.SetEncodedObject(o)
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, h)
	}
	var b bytes.Buffer
	_, err := packfile.NewEncoder(&b, mem, false).Encode(hashes, window)
	return b.Bytes(), err
}

// put adds objects to the store in one pack: all of them, or none.
func (s *store) put(objects []plumbing.EncodedObject) error {
	data, err := encode(objects, 0)
	if err != nil {
		return err
	}
	rec, err := s.receive(context.Background(), bytes.NewReader(data), branchBounds)
	if err != nil {
		return err
	}
	return s.add(rec)
}

// When there are more packs than this they are merged: each fetch brings one.
const maxPacks = 40

// mergeBytes is how much one merge unpacks at most.
const mergeBytes = 64 << 20

// merge makes one pack of the small ones. A pack that is left alone has at
// least twice the objects of all smaller ones together, so the number of packs,
// and how often an object is written again, grow with the logarithm of the
// number of objects. The lock is held but while packing.
func (s *store) merge(lock sync.Locker) error {
	lock.Lock()
	small, objects, err := s.smallest()
	lock.Unlock()
	if err != nil || len(small) < 2 {
		return err
	}
	data, err := encode(objects, 10)
	if err != nil {
		return err
	}
	rec, err := s.receive(context.Background(), bytes.NewReader(data), branchBounds)
	if err != nil {
		return err
	}
	lock.Lock()
	defer lock.Unlock()
	if err := s.add(rec); err != nil {
		return err
	}
	merged := "pack-" + rec.sum.String()
	for _, p := range small {
		if p.name == merged {
			continue
		}
		s.packs = slices.DeleteFunc(s.packs, func(q *pack) bool { return q == p })
		p.file.Close()
		base := filepath.Join(s.dir, "pack", p.name)
		if err := errors.Join(os.Remove(base+".idx"), os.Remove(base+".pack")); err != nil {
			return err
		}
	}
	return nil
}

// smallest returns the packs to merge, and what they hold.
func (s *store) smallest() ([]*pack, []plumbing.EncodedObject, error) {
	count := map[*pack]int64{}
	for _, p := range s.packs {
		n, err := p.idx.Count()
		if err != nil {
			return nil, nil, err
		}
		count[p] = n
	}
	packs := slices.SortedStableFunc(slices.Values(s.packs), func(a, b *pack) int {
		return cmp.Compare(count[a], count[b])
	})
	var sum int64
	take := 0
	for i, p := range packs {
		if i > 0 && count[p] < 2*sum {
			take = i + 1
		}
		sum += count[p]
	}
	var objects []plumbing.EncodedObject
	var size int64
	for i, p := range packs[:take] {
		before := len(objects)
		entries, err := p.idx.Entries()
		if err != nil {
			return nil, nil, err
		}
		for range count[p] {
			e, err := entries.Next()
			if err != nil {
				return nil, nil, err
			}
			o, err := p.objs.Get(e.Hash)
			if err != nil {
				return nil, nil, err
			}
			objects = append(objects, o)
			if size += o.Size(); size > mergeBytes {
				return packs[:i], objects[:before], nil
			}
		}
	}
	return packs[:take], objects, nil
}
