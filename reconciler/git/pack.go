package git

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
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

	"github.com/autonomos/aob/reconciler/durable"
)

// Limits of one pack. A small pack can contain large objects: a gigabyte of zeros takes a
// megabyte, and a delta can copy its base many times.
const (
	maxObject  = 32 << 20 // bytes of one object
	maxObjects = 4 << 20  // objects of one pack
	maxPack    = 2 << 30  // bytes of one pack, as sent
)

// bounds are the limits of one fetch.
type bounds struct {
	objects  uint32
	pack     int64 // bytes, as sent
	unpacked int64 // bytes of all objects and of the bases of deltas
	commit   int64 // bytes of one commit
}

var (
	branchBounds = bounds{objects: maxObjects, pack: maxPack, unpacked: math.MaxInt64, commit: maxObject}
	// pullBounds are lower, because anybody can open a pull request.
	pullBounds = bounds{objects: 100_000, pack: 64 << 20, unpacked: 512 << 20, commit: maxCommit}
)

// A limitError describes the limit that a pack exceeds.
type limitError struct{ what string }

func (t limitError) Error() string { return t.what }

// checkPack reads a pack to its end without storing it. It returns a limitError if unpacking
// it would exceed the limits.
func checkPack(r io.Reader, limits bounds) (objects int, err error) {
	s := packfile.NewScanner(r)
	_, count, err := s.Header()
	if errors.Is(err, packfile.ErrEmptyPackfile) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if count > limits.objects {
		return 0, limitError{fmt.Sprintf("%d objects; aob accepts at most %d", count, limits.objects)}
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
			return 0, limitError{fmt.Sprintf("a file of %d MiB; aob reads at most %d MiB", size>>20, maxObject>>20)}
		}
		if head.Type == plumbing.CommitObject && size > limits.commit {
			return 0, limitError{fmt.Sprintf("a commit of %d kB; aob reads at most %d kB", size>>10, limits.commit>>10)}
		}
		if unpacked += size; unpacked > limits.unpacked {
			return 0, limitError{fmt.Sprintf("objects of more than %d MiB when they are unpacked", limits.unpacked>>20)}
		}
	}
	_, err = s.Checksum()
	return int(count), err
}

// A prefix is a writer that keeps the first 20 bytes.
type prefix struct {
	data [20]byte
	n    int
}

func (p *prefix) Write(b []byte) (int, error) {
	p.n += copy(p.data[p.n:], b)
	return len(b), nil
}

// sizes returns the sizes of a delta's base and of its result, or -1 if they cannot be read. A delta begins with both.
func (p *prefix) sizes() (base, target int64) {
	b, n := binary.Uvarint(p.data[:p.n])
	t, m := binary.Uvarint(p.data[max(n, 0):p.n])
	if n <= 0 || m <= 0 || b > math.MaxInt64 || t > math.MaxInt64 {
		return -1, -1
	}
	return int64(b), int64(t)
}

// A received pack is on the disk, checked and indexed, but not yet part of the store.
type received struct {
	tmp  string
	size int64 // bytes
	sum  plumbing.Hash
	idx  *idxfile.MemoryIndex // nil: the pack was empty
}

// receive writes a pack to a temporary file beside the others and indexes it. It does not
// change the store, so it needs no lock. It stops when ctx ends, also during unpacking.
func (s *store) receive(ctx context.Context, r io.Reader, limits bounds) (rec received, err error) {
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
	limited := &io.LimitedReader{R: durable.ContextReader{Ctx: ctx, R: r}, N: limits.pack}
	tee := io.TeeReader(limited, f)
	objects, err := checkPack(tee, limits)
	if limited.N == 0 {
		return rec, limitError{fmt.Sprintf("a pack of more than %d MiB", limits.pack>>20)}
	}
	if err != nil {
		return rec, err
	}
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return rec, err
	}
	rec.size = limits.pack - limited.N
	if objects == 0 {
		return rec, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return rec, err
	}
	w := new(idxfile.Writer)
	parser, err := packfile.NewParser(packfile.NewScanner(contextFile{durable.ContextReader{Ctx: ctx, R: f}, f}), w)
	if err != nil {
		return rec, err
	}
	if rec.sum, err = parser.Parse(); err != nil {
		return rec, err
	}
	rec.idx, err = w.Index()
	return rec, err
}

type contextFile struct {
	durable.ContextReader
	io.Seeker
}

// add makes a received pack part of the store. It writes the index last, so that a pack
// without an index is the rest of an interrupted write.
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

// encode encodes a pack with objects. If window is not zero, it uses deltas.
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

// put adds objects to the store in one pack, atomically.
func (s *store) put(objects []plumbing.EncodedObject) error {
	rec, err := s.pack(objects, 0)
	if err != nil {
		return err
	}
	return s.add(rec)
}

// pack encodes objects and writes the pack to a temporary file.
func (s *store) pack(objects []plumbing.EncodedObject, window uint) (received, error) {
	data, err := encode(objects, window)
	if err != nil {
		return received{}, err
	}
	return s.receive(context.Background(), bytes.NewReader(data), branchBounds)
}

// maxPacks is the number of packs above which they are merged. Each fetch adds one.
const maxPacks = 40

// mergeBytes is how many bytes one merge unpacks at most.
const mergeBytes = 64 << 20

// merge merges the small packs into one. A pack that is not merged has at least twice as many objects as all smaller
// ones together, so the number of packs, and how often an object is rewritten, grow with the logarithm of the number of
// objects. merge takes the lock itself, and releases it while it encodes the pack.
func (s *store) merge(lock sync.Locker) error {
	lock.Lock()
	small, objects, err := s.smallest()
	lock.Unlock()
	if err != nil || len(small) < 2 {
		return err
	}
	rec, err := s.pack(objects, 10)
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

// smallest returns the packs to merge and their objects.
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
