package evidence

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/trust"
)

// A cache is a folder with the statements that were verified, so that a restart verifies none of them again:
//
//	DIR/index      a signed envelope with the digests of the chunks
//	DIR/chunk-HEX  up to some thousand statements, compressed
//
// Who can write to the folder cannot make a statement count. The index counts only if one of the keys signed it that
// may sign statements, a chunk only if its digest is in the index, and a statement only if the key that signed it is
// still trusted. Whatever is missing or damaged is read from the bundles and verified again. What an old index names is
// as true as ever, since a referrer's digest determines its statement.
//
// A statement of the cache counts only while the store lists its referrer and has its files. [Store.Recheck] compares
// their content with their digests, beside the loop.
type cache struct {
	dir     string
	signer  *trust.Key
	trusted []trust.PublicKey
	chunks  []cacheEntry
	pending []record
}

// A cacheEntry names a chunk in the index.
type cacheEntry struct {
	Digest     delivery.Digest `json:"digest"`
	Statements int             `json:"statements"`
}

// cacheIndex is the payload of the index's envelope.
type cacheIndex struct {
	Chunks []cacheEntry `json:"chunks"`
}

// A record is a statement in a chunk.
type record struct {
	referrer, bundle, envelope, payload delivery.Digest
	kind                                string // artifact type
	key                                 string // that signed it
	content                             []byte // the predicate
}

const (
	cachePayload = "application/vnd.aob.verified-statements.v1+json"
	cacheChunk   = 1024      // statements
	cacheLeast   = 256       // new statements that are worth a file
	cacheLast    = 32        // the same when the server ends
	maxChunk     = 256 << 20 // bytes
	maxContent   = trust.MaxEnvelope
)

// openCache reads the index. A cache that cannot be read is empty.
func openCache(dir string, signer *trust.Key, trusted []trust.PublicKey) *cache {
	c := &cache{dir: dir, signer: signer, trusted: trusted}
	data, err := durable.ReadFile(filepath.Join(dir, "index"), trust.MaxEnvelope)
	if err != nil {
		return c
	}
	var index cacheIndex
	if payload, _, err := trust.Verify(data, cachePayload, trusted); err == nil &&
		delivery.ParseJSON(payload, &index) == nil {
		c.chunks = index.Chunks
	}
	return c
}

// add adds a verified statement, which flush writes. A nil cache has no folder, and does nothing.
func (c *cache) add(r record) {
	if c != nil && c.signer != nil {
		c.pending = append(c.pending, r)
	}
}

// flush writes what was added, if it is at least a number of statements. An error costs only time at the next start.
func (c *cache) flush(least int) {
	if c == nil || len(c.pending) < least || len(c.pending) == 0 {
		return
	}
	data := encodeChunk(c.pending)
	digest := delivery.Sum(data)
	chunks := append(slices.Clip(c.chunks), cacheEntry{digest, len(c.pending)})
	c.pending = nil
	envelope, err := trust.Sign(c.signer, cachePayload, delivery.Canonical(cacheIndex{chunks}))
	if err != nil {
		return
	}
	if os.MkdirAll(c.dir, 0o700) != nil ||
		durable.WriteFile(c.chunk(digest), data, 0o600) != nil ||
		durable.WriteFile(filepath.Join(c.dir, "index"), envelope, 0o600) != nil {
		return
	}
	c.chunks = chunks
}

// Flush writes to the cache what was verified since the last time. Call it when the server ends.
func (s *Store) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cache.flush(cacheLast)
}

func (c *cache) chunk(d delivery.Digest) string { return filepath.Join(c.dir, "chunk-"+d.Hex()) }

// sweep removes files that the index does not name: those of an index that does not count.
func (c *cache) sweep() {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		path := filepath.Join(c.dir, e.Name())
		named := slices.ContainsFunc(c.chunks, func(n cacheEntry) bool { return c.chunk(n.Digest) == path })
		if !named && e.Name() != "index" {
			os.Remove(path)
		}
	}
}

// encodeChunk writes the fields of all records, each after its length.
func encodeChunk(list []record) []byte {
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, flate.BestSpeed) // an error is impossible for this level, as for writes to a buffer
	var length []byte
	for _, r := range list {
		for _, field := range [][]byte{digestBytes(r.referrer), digestBytes(r.bundle), digestBytes(r.envelope),
			digestBytes(r.payload), []byte(r.kind), []byte(r.key), r.content} {
			length = binary.AppendUvarint(length[:0], uint64(len(field)))
			w.Write(length)
			w.Write(field)
		}
	}
	w.Close()
	return out.Bytes()
}

func decodeChunk(data []byte) (list []record, err error) {
	in := bufio.NewReader(flate.NewReader(bytes.NewReader(data)))
	for {
		var fields [7][]byte
		for i := range fields {
			n, err := binary.ReadUvarint(in)
			if i == 0 && errors.Is(err, io.EOF) {
				return list, nil
			}
			if err != nil || n > maxContent {
				return nil, fmt.Errorf("damaged: %d bytes, %w", n, err)
			}
			fields[i] = make([]byte, n)
			if _, err := io.ReadFull(in, fields[i]); err != nil {
				return nil, err
			}
		}
		of := func(i int) delivery.Digest { return delivery.Digest("sha256:" + hex.EncodeToString(fields[i])) }
		list = append(list, record{of(0), of(1), of(2), of(3), string(fields[4]), string(fields[5]), fields[6]})
	}
}

func digestBytes(d delivery.Digest) []byte { sum := raw(d); return sum[:] }

// raw returns the bytes of a digest.
func raw(d delivery.Digest) (sum [32]byte) {
	hex.Decode(sum[:], []byte(d.Hex())) // all digests here are valid
	return sum
}

// cached returns the valid statements of the cache, by referrer.
func (s *Store) cached(ctx context.Context) (map[[32]byte]statement, error) {
	known := map[[32]byte]statement{}
	s.notes = map[delivery.Digest][]byte{}
	if s.Cache == "" {
		return known, nil
	}
	s.cache = openCache(s.Cache, s.signer, s.trusted)
	if s.signer != nil {
		s.cache.sweep()
	}
	if len(s.cache.chunks) == 0 {
		return known, nil
	}
	present, err := s.bundles.Present()
	if err != nil {
		return known, nil //nolint:nilerr // then everything is read from the bundles
	}
	total := 0
	for _, c := range s.cache.chunks {
		total += c.Statements
	}
	progress := s.progress("reading the statements that were verified before", total)
	// Each core has a sharer of its own: what is not shared across chunks is little.
	lists, good := make([][]statement, len(s.cache.chunks)), make([]bool, len(s.cache.chunks))
	var next atomic.Int64
	var mu sync.Mutex // of progress
	var workers sync.WaitGroup
	for range runtime.NumCPU() {
		workers.Go(func() {
			shared := newSharer()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(lists) {
					return
				}
				list, err := s.readChunk(ctx, s.cache.chunks[i], present)
				for _, st := range list {
					if st.value != nil {
						shared.share(st.value)
					}
				}
				lists[i], good[i] = list, err == nil
				mu.Lock()
				progress(s.cache.chunks[i].Statements)
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	var kept []cacheEntry
	for i, list := range lists {
		if good[i] {
			kept = append(kept, s.cache.chunks[i])
		}
		for _, st := range list {
			if st.value == nil {
				s.notes[st.record.bundle] = st.record.content
			} else {
				known[raw(st.record.referrer)] = st
			}
		}
	}
	s.cache.chunks = kept
	return known, ctx.Err()
}

// readChunk returns the statements of a chunk that count.
func (s *Store) readChunk(ctx context.Context, c cacheEntry, present func(delivery.Digest) bool) ([]statement, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	data, err := durable.ReadFile(s.cache.chunk(c.Digest), maxChunk)
	if err != nil {
		return nil, err
	}
	if delivery.Sum(data) != c.Digest {
		return nil, fs.ErrInvalid
	}
	records, err := decodeChunk(data)
	if err != nil {
		return nil, err
	}
	list := make([]statement, 0, len(records))
	for _, r := range records {
		if r.kind == noteKind {
			if present(r.bundle) {
				list = append(list, statement{record: r})
			}
			continue
		}
		trusted := slices.ContainsFunc(s.trusted, func(k trust.PublicKey) bool { return k.ID() == r.key })
		i := slices.IndexFunc(snapshotKinds, func(k kind) bool { return k.artifactType == r.kind })
		if i < 0 || !trusted || s.doubted[r.referrer] || !present(r.referrer) || !present(r.envelope) {
			continue
		}
		value, err := decodePredicate(snapshotKinds[i], r.bundle, r.content)
		if err != nil {
			continue
		}
		r.content = nil
		list = append(list, statement{payload: r.payload, value: value, record: r})
	}
	return list, nil
}

// noteKind is the kind of the records about bundles that a caller keeps in the cache.
const noteKind = "note"

// Notes returns what Note was told about bundles before the server started, if their manifests are still there. It is
// there once after the first Load.
func (s *Store) Notes() map[delivery.Digest][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	notes := s.notes
	s.notes = nil
	return notes
}

// Note keeps in the cache what a caller has read of a bundle's files, whose digests it has checked.
func (s *Store) Note(bundle delivery.Digest, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	none := delivery.Sum(nil)
	s.cache.add(record{referrer: none, bundle: bundle, envelope: none, payload: none, kind: noteKind,
		content: content})
	s.cache.flush(cacheChunk)
}

// recheckPause is the time between two lots of statements that Recheck reads, so that it takes a tenth of a core.
const (
	recheckPause = 100 * time.Millisecond
	recheckLot   = 64
)

// Recheck reads the files of the statements that came out of the cache, until ctx ends, so that damage is found as if
// there were no cache. wake is called when some was found, which the next Load then says; it may be nil.
func (s *Store) Recheck(ctx context.Context, wake func()) {
	for pause := time.Second; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		n, damage := s.recheckSome(ctx)
		if damage && wake != nil {
			wake()
		}
		if pause = time.Second; n > 0 {
			pause = recheckPause
		}
	}
}

// recheckSome reads the files of n statements, and reports whether it found damage.
func (s *Store) recheckSome(ctx context.Context) (n int, damage bool) {
	s.mu.Lock()
	n = min(len(s.recheck), recheckLot)
	lot := s.recheck[:n]
	s.recheck = s.recheck[n:]
	if n > 0 && len(s.recheck) == 0 {
		s.recheck = nil
	}
	s.mu.Unlock()
	for _, a := range lot {
		bundle, _, err := s.bundles.Attachment(ctx, a.Referrer)
		if ctx.Err() != nil {
			return n, damage
		}
		if err == nil && bundle == a.Bundle {
			continue
		}
		damage = true
		s.mu.Lock()
		s.doubted[a.Referrer] = true
		s.snapshot = nil // all is read again
		s.mu.Unlock()
	}
	return n, damage
}

// progress returns a function that is told how many more statements are done, and logs how far it is if it takes long.
func (s *Store) progress(what string, total int) func(more int) {
	began, done := time.Now(), 0
	next := began.Add(5 * time.Second)
	return func(more int) {
		if done += more; s.Log != nil && time.Now().After(next) {
			next = time.Now().Add(5 * time.Second)
			s.Log.Info(what, "done", done, "of", total, "seconds", int(time.Since(began).Seconds()))
		}
	}
}
