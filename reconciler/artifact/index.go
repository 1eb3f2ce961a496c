package artifact

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

const (
	// annotationSeal is the annotation of index.json with the digest of its entries.
	annotationSeal = "dev.aob.seal"

	maxIndex = 256 << 20

	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// An index is what the manifests in index.json and in the log beside it are. It has of each what is looked up; the
// whole entries are on disk. Entries are only added.
type index struct {
	generation int         // of the Store's indexes; another one may have other entries, in another order
	file       fs.FileInfo // of index.json, from which it was read
	log        fs.FileInfo // of the log; nil if there was none
	logRead    int64       // bytes of the log that were read; they end with a whole line
	logged     int         // entries of the log

	mu        sync.RWMutex // guards the following; what readers got of the slices never changes
	total     int          // entries on disk, also those of other tools
	entries   []entry
	at        map[delivery.Digest]int32 // digest to index in entries
	types     map[string]string         // equal artifact types share one string
	bundles   []int32                   // indexes in entries
	byType    map[string][]int32        // referrers by artifact type
	bySubject map[delivery.Digest][]int32
	attached  []int32 // all referrers
}

// An entry is one manifest. subject is the bundle to which it is attached; empty if it is no referrer.
type entry struct {
	digest, subject delivery.Digest
	artifactType    string
	size            int64
	at              int // in entries
}

func (e entry) attached() delivery.Attached {
	return delivery.Attached{Bundle: e.subject, Referrer: e.digest, Type: e.artifactType, At: e.at}
}

// entry returns the entry of a manifest.
func (ix *index) entry(digest delivery.Digest) (e entry, ok bool) {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	i, ok := ix.at[digest]
	if ok {
		e = ix.entries[i]
	}
	return e, ok
}

// count returns the number of entries, those of other tools included.
func (ix *index) count() int {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	return ix.total
}

// ofType returns the referrers with an artifact type.
func (ix *index) ofType(artifactType string) func(yield func(entry) bool) {
	return ix.list(func() []int32 { return ix.byType[artifactType] })
}

// attachedTo returns the referrers of a bundle.
func (ix *index) attachedTo(subject delivery.Digest) func(yield func(entry) bool) {
	return ix.list(func() []int32 { return ix.bySubject[subject] })
}

// since returns the referrers after the first n, and how many there are.
func (ix *index) since(n int) (entries func(yield func(entry) bool), all int) {
	ix.mu.RLock()
	all = len(ix.attached)
	ix.mu.RUnlock()
	return ix.list(func() []int32 { return ix.attached[min(n, all):all] }), all
}

func (ix *index) list(of func() []int32) func(yield func(entry) bool) {
	ix.mu.RLock()
	list, entries := of(), ix.entries
	ix.mu.RUnlock()
	return func(yield func(entry) bool) {
		for _, i := range list {
			if !yield(entries[i]) {
				return
			}
		}
	}
}

// artifactTypes returns the artifact types of all referrers, sorted.
func (ix *index) artifactTypes() []string {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	return slices.Sorted(maps.Keys(ix.byType))
}

// bundlesAfter returns the bundles after the first n.
func (ix *index) bundlesAfter(n int) []delivery.Digest {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	return delivery.Each(ix.bundles[min(n, len(ix.bundles)):], func(i int32) delivery.Digest {
		return ix.entries[i].digest
	})
}

// add adds an entry. Those of other tools are only counted.
func (ix *index) add(d ocispec.Descriptor) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.total++
	e := entry{digest: delivery.Digest(d.Digest), subject: delivery.Digest(d.Annotations[annotationSubject]),
		artifactType: d.ArtifactType, size: d.Size}
	if _, double := ix.at[e.digest]; double {
		return // for example another tag of the same manifest
	}
	if _, err := delivery.ParseDigest(clip(string(e.digest))); err != nil ||
		d.MediaType != ocispec.MediaTypeImageManifest {
		return
	}
	if known, ok := ix.types[e.artifactType]; ok {
		e.artifactType = known
	} else {
		ix.types[e.artifactType] = e.artifactType
	}
	if of, ok := ix.at[e.subject]; ok {
		e.subject = ix.entries[of].digest
	}
	i := int32(len(ix.entries))
	e.at = int(i)
	ix.entries = append(ix.entries, e)
	ix.at[e.digest] = i
	switch {
	case e.subject != "":
		ix.byType[e.artifactType] = append(ix.byType[e.artifactType], i)
		ix.bySubject[e.subject] = append(ix.bySubject[e.subject], i)
		ix.attached = append(ix.attached, i)
	case e.artifactType == BundleType:
		ix.bundles = append(ix.bundles, i)
	}
}

// loadIndex returns the index on disk. If the file has not changed since the last call, this costs one stat.
func (s *Store) loadIndex() (*index, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	ix, err := s.currentIndex()
	if !errors.Is(err, fs.ErrNotExist) {
		return ix, err
	}
	// Somebody has removed the file, as the error of a damaged index suggests: rebuild it. If the blobs are gone too,
	// the whole folder was removed, and nothing is created.
	if _, gone := os.Stat(s.path("blobs", "sha256")); gone != nil {
		return nil, err
	}
	s.opening.Lock()
	s.opened = false
	s.opening.Unlock()
	if err := s.ready(); err != nil {
		return nil, err
	}
	return s.currentIndex()
}

func (s *Store) currentIndex() (*index, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		info, err := os.Stat(s.path(ocispec.ImageIndexFile))
		if err != nil {
			return nil, fmt.Errorf("bundles in %s: %w", s.dir, err)
		}
		ix := s.index
		if ix == nil || !same(ix.file, info) {
			if ix, err = s.readIndex(); err != nil {
				return nil, fmt.Errorf("bundles in %s: %s: %w; remove that file: it is rebuilt from the blobs",
					s.dir, ocispec.ImageIndexFile, err)
			}
			ix.file = info
			s.generations++
			ix.generation = s.generations
		}
		read, err := s.readLog(ix)
		if err != nil {
			return nil, fmt.Errorf("bundles in %s: %s: %w; remove %s: it is rebuilt from the blobs", s.dir, logFile,
				err, ocispec.ImageIndexFile)
		}
		s.index = ix
		if !read {
			return ix, nil
		}
		// Folding replaces index.json and then removes the log, so an index that is still the same misses nothing.
		if now, err := os.Stat(s.path(ocispec.ImageIndexFile)); err == nil && same(info, now) {
			return ix, nil
		}
	}
}

// same reports whether index.json is the same file as before. The file is always replaced, never overwritten, so the
// inode changes. If an inode number is reused within one tick of the file system's clock, the size differs, because the
// index only grows.
func same(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

func (s *Store) readIndex() (*index, error) {
	entries, err := s.readEntries()
	if err != nil {
		return nil, err
	}
	return arrange(entries), nil
}

// readEntries returns the entries of index.json.
func (s *Store) readEntries() ([]ocispec.Descriptor, error) {
	data, err := durable.ReadFile(s.path(ocispec.ImageIndexFile), maxIndex)
	if err != nil {
		return nil, err
	}
	var file ocispec.Index
	if err := delivery.ParseJSON(data, &file); err != nil { // also for a damaged key, which would hide its value
		return nil, fmt.Errorf("damaged: %w", err)
	}
	if file.SchemaVersion != 2 || (file.MediaType != "" && file.MediaType != ocispec.MediaTypeImageIndex) {
		return nil, fmt.Errorf("damaged: not an OCI index: schema version %d, media type %q", file.SchemaVersion,
			clip(file.MediaType))
	}
	if file.Annotations[annotationSeal] != seal(file.Manifests) {
		if err := s.describeAll(file.Manifests); err != nil {
			return nil, err
		}
	}
	return file.Manifests, nil
}

// allEntries returns the entries of index.json and of the log. Unless the caller holds the lock, some may be missing.
func (s *Store) allEntries() ([]ocispec.Descriptor, error) {
	entries, err := s.readEntries()
	if err != nil {
		return nil, err
	}
	data, err := durable.ReadFile(s.path(logFile), maxIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return entries, nil
	}
	if err != nil {
		return nil, err
	}
	there := make(map[string]bool, len(entries))
	for _, e := range entries {
		there[string(e.Digest)] = true
	}
	for {
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole { // of a writer that was killed, or still writes
			return entries, nil
		}
		e, err := parseLine(line)
		if err != nil {
			return nil, err
		}
		if !there[string(e.Digest)] {
			there[string(e.Digest)] = true
			entries = append(entries, e)
		}
		data = rest
	}
}

// describeAll sets artifact type and subject of all entries from the manifests. It is used
// if the seal does not match: another tool has written the index, or it is damaged.
func (s *Store) describeAll(entries []ocispec.Descriptor) error {
	for i, e := range entries {
		switch e.MediaType {
		case ocispec.MediaTypeImageManifest:
		case ocispec.MediaTypeImageIndex, dockerManifest, dockerList:
			continue // written by another tool; the entry is kept and ignored
		default:
			return fmt.Errorf("damaged: manifests[%d]: unknown media type %q", i, clip(e.MediaType))
		}
		digest, err := delivery.ParseDigest(clip(string(e.Digest)))
		if err != nil {
			return fmt.Errorf("damaged: manifests[%d]: %w", i, err)
		}
		data, err := s.readBlob(digest, maxManifest)
		if err != nil {
			return fmt.Errorf("damaged, or a blob is missing: manifests[%d]: %w", i, err)
		}
		if int64(len(data)) != e.Size {
			return fmt.Errorf("damaged: manifests[%d]: size is %d, but %s has %d bytes", i, e.Size, digest, len(data))
		}
		m, err := parseManifest(data)
		if err != nil {
			continue // an image of another kind
		}
		entries[i] = describe(e, m)
	}
	return nil
}

// describe returns entry with the artifact type and subject of its manifest.
func describe(entry ocispec.Descriptor, m ocispec.Manifest) ocispec.Descriptor {
	entry.ArtifactType = m.ArtifactType
	entry.Annotations = maps.Clone(entry.Annotations)
	delete(entry.Annotations, annotationSubject)
	if m.Subject != nil {
		if entry.Annotations == nil {
			entry.Annotations = map[string]string{}
		}
		entry.Annotations[annotationSubject] = string(m.Subject.Digest)
	}
	return entry
}

// arrange makes the lookup tables.
func arrange(entries []ocispec.Descriptor) *index {
	ix := &index{
		entries:   make([]entry, 0, len(entries)),
		at:        make(map[delivery.Digest]int32, len(entries)),
		types:     map[string]string{},
		byType:    map[string][]int32{},
		bySubject: map[delivery.Digest][]int32{},
	}
	for _, e := range entries {
		ix.add(e)
	}
	return ix
}

// seal returns the digest of all fields of the entries that this package uses.
func seal(entries []ocispec.Descriptor) string {
	var lines []byte
	for _, e := range entries {
		lines = appendFields(lines, e)
	}
	return string(delivery.Sum(lines))
}

// appendFields appends a line with the fields of an entry that this package uses.
func appendFields(lines []byte, e ocispec.Descriptor) []byte {
	for _, field := range []string{string(e.Digest), e.MediaType, e.ArtifactType, e.Annotations[annotationSubject]} {
		lines = append(appendQuoted(lines, field), ' ')
	}
	return append(strconv.AppendInt(lines, e.Size, 10), '\n')
}

// appendQuoted is strconv.AppendQuote, which is slow where nothing needs a backslash.
func appendQuoted(to []byte, field string) []byte {
	for i := range len(field) {
		if c := field[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return strconv.AppendQuote(to, field)
		}
	}
	return append(append(append(to, '"'), field...), '"')
}

// addToIndex adds a manifest to the index if it is not in it. All blobs of the manifest must be durable already.
func (s *Store) addToIndex(ctx context.Context, entry ocispec.Descriptor) error {
	lock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	ix, err := s.currentIndex()
	if err != nil {
		return err
	}
	if _, there := ix.entry(delivery.Digest(entry.Digest)); there {
		return nil
	}
	if err := s.appendLog(ix, entry); err != nil {
		return err
	}
	if ix.logged > foldMin+ix.count()/foldPart {
		return s.fold()
	}
	return nil
}

// writeIndex encodes and writes index.json, and removes the log. The caller must hold the lock.
func (s *Store) writeIndex(entries []ocispec.Descriptor) error {
	data, err := encodeIndex(entries)
	if err != nil {
		return err
	}
	return s.replaceIndex(entries, data)
}

func encodeIndex(entries []ocispec.Descriptor) ([]byte, error) {
	if entries == nil {
		entries = []ocispec.Descriptor{}
	}
	data, err := json.Marshal(ocispec.Index{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   ocispec.MediaTypeImageIndex,
		Manifests:   entries,
		Annotations: map[string]string{annotationSeal: seal(entries)},
	})
	if err != nil {
		return nil, err
	}
	if len(data) > maxIndex {
		return nil, fmt.Errorf("%s would have %d bytes, the maximum is %d; move the bundles to a registry",
			ocispec.ImageIndexFile, len(data), maxIndex)
	}
	return data, nil
}

// replaceIndex writes index.json, and removes the log. The caller must hold the lock.
func (s *Store) replaceIndex(entries []ocispec.Descriptor, data []byte) error {
	if err := durable.WriteFile(s.path(ocispec.ImageIndexFile), data, 0o600); err != nil {
		return err
	}
	// If this process ends here, the log has entries that index.json has too.
	if err := os.Remove(s.path(logFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	info, err := os.Stat(s.path(ocispec.ImageIndexFile))
	if err != nil {
		return err
	}
	ix := arrange(entries)
	ix.file = info
	s.mu.Lock()
	s.generations++
	s.index, ix.generation = ix, s.generations
	s.mu.Unlock()
	return nil
}

// rebuildIndex writes index.json with all manifests among the blobs, in the order of their
// modification times. The caller must hold the lock.
func (s *Store) rebuildIndex() error {
	type found struct {
		entry   ocispec.Descriptor
		written time.Time
	}
	var manifests []found
	dir, err := os.ReadDir(s.path("blobs", "sha256"))
	if err != nil {
		return err
	}
	for _, e := range dir {
		digest, err := delivery.ParseDigest("sha256:" + e.Name())
		if err != nil {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() || info.Size() > maxManifest {
			continue
		}
		data, err := s.readBlob(digest, maxManifest)
		if errors.Is(err, errDamaged) {
			continue
		}
		if err != nil {
			return err
		}
		m, err := parseManifest(data)
		if err != nil || (m.ArtifactType != BundleType && m.Subject == nil) {
			continue
		}
		entry := descriptor(ocispec.MediaTypeImageManifest, blob{digest, info.Size()})
		manifests = append(manifests, found{describe(entry, m), info.ModTime()})
	}
	slices.SortFunc(manifests, func(a, b found) int {
		return cmp.Or(a.written.Compare(b.written), cmp.Compare(a.entry.Digest, b.entry.Digest))
	})
	return s.writeIndex(delivery.Each(manifests, func(f found) ocispec.Descriptor { return f.entry }))
}
