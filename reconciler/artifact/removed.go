package artifact

// This file removes the large files of bundles that nothing needs any more. What says what a bundle was, its manifest,
// its small files and all that is signed about it, stays for ever.
//
// A bundle counts as removed as soon as removed/HEX is there, and its files are removed after that. Somebody who pushes
// it again stores its files first, and removes removed/HEX after that. Both happen under the lock, so a process that is
// killed at any point leaves either a bundle with all its files, or one that counts as removed.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// removedFolder has a file for each bundle that was removed.
const removedFolder = "removed"

// largeFiles are the files of a bundle that Remove removes.
var largeFiles = []string{delivery.ModelFile, delivery.GoldenFile}

// A Kept is a bundle that has its files.
type Kept struct {
	Bundle delivery.Digest
	Bytes  int64     // of its large files; those that an earlier bundle of the list shares count there
	Pushed time.Time // when it was pushed last
	Run    delivery.Digest
}

// Kept lists the bundles that have their files, in the order in which they were pushed.
func (s *Store) Kept(ctx context.Context) ([]Kept, error) {
	bundles, err := s.Bundles(ctx)
	if err != nil {
		return nil, err
	}
	counted := map[delivery.Digest]bool{}
	var list []Kept
	for _, d := range bundles {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		info, err := os.Stat(s.blobPath(d))
		if err != nil {
			continue // it is damaged, and not ours to remove
		}
		m, err := s.outline(d)
		if err != nil {
			continue
		}
		k := Kept{Bundle: d, Pushed: info.ModTime(), Run: m.run}
		for _, b := range m.large {
			if !counted[b.digest] {
				counted[b.digest] = true
				k.Bytes += b.size
			}
		}
		list = append(list, k)
	}
	return list, nil
}

// An outline is what removing needs to know of a bundle.
type outline struct {
	large []blob
	run   delivery.Digest // that made it
}

// outline reads a bundle's manifest, once.
func (s *Store) outline(bundle delivery.Digest) (outline, error) {
	s.mu.Lock()
	o, ok := s.outlines[bundle]
	s.mu.Unlock()
	if ok {
		return o, nil
	}
	data, err := s.readBlob(bundle, maxManifest)
	if err != nil {
		return o, err
	}
	m, err := parseBundle(data)
	if err != nil {
		return o, err
	}
	for _, name := range largeFiles {
		if b := m.file(name); b.digest != "" {
			o.large = append(o.large, b)
		}
	}
	o.run = delivery.Digest(m.provenance["run"])
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outlines == nil {
		s.outlines = map[delivery.Digest]outline{}
	}
	s.outlines[bundle] = o
	return o, nil
}

// Remove removes the large files of a bundle that was last pushed before a time, except those that another bundle has
// too. It does nothing for one that was pushed since. What is signed about the bundle stays, and so does its place in
// the index.
func (s *Store) Remove(ctx context.Context, bundle delivery.Digest, before time.Time) error {
	if err := s.remove(ctx, bundle, before); err != nil {
		return fmt.Errorf("remove bundle %s: %w", bundle.Short(), err)
	}
	return nil
}

func (s *Store) remove(ctx context.Context, bundle delivery.Digest, before time.Time) error {
	if _, err := s.readBundle(bundle); err != nil {
		return err
	}
	if _, err := s.Kept(ctx); err != nil { // reads outlines, which takes long, before the lock is held
		return err
	}
	lock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	info, err := os.Stat(s.blobPath(bundle))
	if err != nil {
		return err
	}
	if !info.ModTime().Before(before) {
		return nil
	}
	if err := os.MkdirAll(s.path(removedFolder), 0o700); err != nil {
		return err
	}
	if err := durable.SyncDir(s.dir); err != nil {
		return err
	}
	record := struct {
		At time.Time `json:"at"`
	}{time.Now().UTC()}
	if err := durable.WriteJSON(s.path(removedFolder, bundle.Hex()), record); err != nil {
		return err
	}
	return s.removeFiles(bundle)
}

// removeFiles removes the large files of bundles that count as removed. The caller must hold the lock.
func (s *Store) removeFiles(bundles ...delivery.Digest) error {
	ix, err := s.currentIndex()
	if err != nil {
		return err
	}
	removed, err := s.listRemoved()
	if err != nil {
		return err
	}
	used := map[delivery.Digest]bool{}
	for _, d := range ix.bundlesAfter(0) {
		if removed[d] {
			continue
		}
		o, err := s.outline(d)
		if err != nil {
			return fmt.Errorf("it is not known which files bundle %s has: %w", d.Short(), err)
		}
		for _, b := range o.large {
			used[b.digest] = true
		}
	}
	var errs []error
	for _, d := range bundles {
		o, err := s.outline(d)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, b := range o.large {
			if used[b.digest] {
				continue
			}
			if err := os.Remove(s.blobPath(b.digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// Finish removes what a killed process has left of bundles that count as removed.
func (s *Store) Finish(ctx context.Context) error {
	removed, err := s.listRemoved()
	if err != nil || len(removed) == 0 {
		return err
	}
	var left []delivery.Digest
	for d := range removed {
		o, err := s.outline(d)
		if err != nil {
			continue
		}
		if slices.ContainsFunc(o.large, func(b blob) bool {
			_, err := os.Stat(s.blobPath(b.digest))
			return err == nil
		}) {
			left = append(left, d)
		}
	}
	if len(left) == 0 {
		return nil
	}
	if _, err := s.Kept(ctx); err != nil {
		return err
	}
	lock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return s.removeFiles(left...)
}

// errRemoved means that files of a bundle were removed while it was pushed.
var errRemoved = errors.New("its files were removed meanwhile; push it again")

// revive makes a pushed bundle count as there. Its files are checked under the lock, as they may have been removed
// after they were stored.
func (s *Store) revive(ctx context.Context, bundle delivery.Digest, m bundleManifest) error {
	lock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	for f, b := range m.each() {
		if info, err := os.Stat(s.blobPath(b.digest)); err != nil || info.Size() != b.size {
			return fmt.Errorf("%s: %w", f.name, errRemoved)
		}
	}
	now := time.Now()
	if err := os.Chtimes(s.blobPath(bundle), now, now); err != nil {
		return err
	}
	err = os.Remove(s.path(removedFolder, bundle.Hex()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = durable.SyncDir(s.path(removedFolder))
	}
	return err
}

// isRemoved reports whether a bundle was removed.
func (s *Store) isRemoved(bundle delivery.Digest) bool {
	_, err := os.Stat(s.path(removedFolder, bundle.Hex()))
	return err == nil
}

// Removed lists the bundles that were removed, and not pushed again since.
func (s *Store) Removed(context.Context) (map[delivery.Digest]bool, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	return s.listRemoved()
}

// listRemoved reads the folder of removed bundles, if it has changed. The caller must not change the result.
func (s *Store) listRemoved() (map[delivery.Digest]bool, error) {
	info, err := os.Stat(s.path(removedFolder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	list, at := s.removed, s.removedAt
	s.mu.Unlock()
	if list != nil && info.ModTime().Equal(at) {
		return list, nil
	}
	entries, err := os.ReadDir(s.path(removedFolder))
	if err != nil {
		return nil, err
	}
	list = make(map[delivery.Digest]bool, len(entries))
	for _, e := range entries {
		if d, err := delivery.ParseDigest("sha256:" + e.Name()); err == nil {
			list[d] = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// The file system's clock is coarse: a file that is made right after this listing may not change the time.
	if s.removed, s.removedAt = list, info.ModTime(); time.Since(s.removedAt) < time.Second {
		s.removed = nil
	}
	return list, nil
}
