package artifact

import (
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

// An index is the content of index.json and of the log beside it, with lookup tables. Entries are only added.
type index struct {
	file    fs.FileInfo // of index.json, from which it was read
	log     fs.FileInfo // of the log; nil if there was none
	logRead int64       // bytes of the log that were read; they end with a whole line
	logged  int         // entries of the log

	mu        sync.RWMutex // guards the following; what readers got of the slices never changes
	manifests []ocispec.Descriptor
	at        map[delivery.Digest]int // digest to index in manifests
	bundles   []delivery.Digest
	byType    map[string][]pair          // referrers by artifact type
	bySubject map[delivery.Digest][]pair // referrers by the bundle to which they are attached
}

// A pair is one referrer.
type pair struct {
	subject, referrer delivery.Digest
}

// entry returns the entry of a manifest.
func (ix *index) entry(digest delivery.Digest) (e ocispec.Descriptor, ok bool) {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	i, ok := ix.at[digest]
	if ok {
		e = ix.manifests[i]
	}
	return e, ok
}

// entries returns all entries, those of other tools included.
func (ix *index) entries() []ocispec.Descriptor {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	return slices.Clip(ix.manifests)
}

// ofType returns the referrers with an artifact type.
func (ix *index) ofType(artifactType string) []pair {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	return ix.byType[artifactType]
}

// attachedTo returns the referrers of a bundle.
func (ix *index) attachedTo(subject delivery.Digest) []pair {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	return ix.bySubject[subject]
}

// types returns the artifact types of all referrers, sorted.
func (ix *index) types() []string {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	return slices.Sorted(maps.Keys(ix.byType))
}

// allBundles returns the bundles.
func (ix *index) allBundles() []delivery.Digest {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	return slices.Clone(ix.bundles)
}

// add adds an entry. Entries of other tools are only kept in manifests.
func (ix *index) add(e ocispec.Descriptor) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.manifests = append(ix.manifests, e)
	digest := delivery.Digest(e.Digest)
	if _, double := ix.at[digest]; double {
		return // for example another tag of the same manifest
	}
	if _, err := delivery.ParseDigest(clip(string(digest))); err != nil ||
		e.MediaType != ocispec.MediaTypeImageManifest {
		return
	}
	ix.at[digest] = len(ix.manifests) - 1
	subject := delivery.Digest(e.Annotations[annotationSubject])
	switch {
	case subject != "":
		p := pair{subject, digest}
		ix.byType[e.ArtifactType] = append(ix.byType[e.ArtifactType], p)
		ix.bySubject[subject] = append(ix.bySubject[subject], p)
	case e.ArtifactType == BundleType:
		ix.bundles = append(ix.bundles, digest)
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
	return arrange(file.Manifests), nil
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
		manifests: make([]ocispec.Descriptor, 0, len(entries)),
		at:        make(map[delivery.Digest]int, len(entries)),
		byType:    map[string][]pair{},
		bySubject: map[delivery.Digest][]pair{},
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
		lines = append(strconv.AppendQuote(lines, field), ' ')
	}
	return append(strconv.AppendInt(lines, e.Size, 10), '\n')
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
	if entries := ix.entries(); ix.logged > foldMin+len(entries)/foldPart {
		return s.writeIndex(entries)
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
	s.index = ix
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
