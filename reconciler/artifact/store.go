package artifact

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// A Store is an OCI image-layout folder. Any number of goroutines and processes may use it at the same time.
type Store struct {
	dir string
	// LockWait is how long to wait for the lock that another process holds; 0 means one minute. A process that was
	// stopped (SIGSTOP) while it wrote holds the lock until it continues.
	LockWait time.Duration

	opening sync.Mutex
	opened  bool        // open has succeeded
	stuck   atomic.Bool // the last wait for the lock timed out, so the next call does not wait

	mu          sync.Mutex
	index       *index // as last read
	generations int    // of index

	outlines  map[delivery.Digest]outline
	removed   map[delivery.Digest]bool // as last read; nil: it must be read
	removedAt time.Time                // the folder's modification time then
}

// ErrBusy means that another process has held the store's lock for longer than LockWait.
var ErrBusy = errors.New("another process holds the lock of the bundles; find it with fuser, and end or continue it")

// Open opens the layout in dir. If dir is missing or empty, it creates a layout. It removes the files that dead writers
// left in ingest, and rebuilds index.json from the blobs if it is missing.
func Open(dir string) (*Store, error) {
	s, err := At(dir)
	if err == nil {
		err = s.ready()
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// At returns the store in dir. The first use opens it. If that fails, it returns the error, and each later use tries
// again.
func At(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open bundles: %w", err)
	}
	return &Store{dir: dir}, nil
}

// ready opens the store if it is not open.
func (s *Store) ready() error {
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.opened {
		return nil
	}
	if err := s.open(); err != nil {
		return fmt.Errorf("open bundles in %s: %w", s.dir, err)
	}
	s.opened = true
	return nil
}

func (s *Store) open() error {
	for _, dir := range []string{s.path("blobs", "sha256"), s.path("ingest")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	lock, err := s.lock(context.Background())
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if err := s.openLayoutFile(); err != nil {
		return err
	}
	if err := s.sweep(); err != nil {
		return err
	}
	_, err = os.Stat(s.path(ocispec.ImageIndexFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.rebuildIndex()
	case err != nil:
		return err
	}
	return s.fold()
}

// openLayoutFile checks oci-layout, and creates it if it is missing. The caller must hold the lock.
func (s *Store) openLayoutFile() error {
	path := s.path(ocispec.ImageLayoutFile)
	data, err := durable.ReadFile(path, maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		data, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
		if err != nil {
			return err
		}
		return durable.WriteFile(path, data, 0o600)
	}
	if err != nil {
		return err
	}
	var layout ocispec.ImageLayout
	if err := json.Unmarshal(data, &layout); err != nil {
		return fmt.Errorf("%s is damaged: %w; write {\"imageLayoutVersion\":\"1.0.0\"} into it",
			ocispec.ImageLayoutFile, err)
	}
	if layout.Version != ocispec.ImageLayoutVersion {
		return fmt.Errorf("%s has version %q, but this program reads only %q", ocispec.ImageLayoutFile,
			layout.Version, ocispec.ImageLayoutVersion)
	}
	return nil
}

// sweep removes the files of dead writers. The caller must hold the lock. Files in ingest
// are only created under it, and a writer locks its file before it releases the lock.
func (s *Store) sweep() error {
	entries, err := os.ReadDir(s.path("ingest"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := s.path("ingest", e.Name())
		lock, err := durable.TryLock(path)
		if errors.Is(err, durable.ErrLocked) {
			continue // its writer is alive
		}
		if err != nil {
			return err
		}
		if err := errors.Join(os.Remove(path), lock.Unlock()); err != nil {
			return err
		}
	}
	// index.json is written under the lock, which we hold, so the writers of these are dead.
	return durable.RemoveTemporary(s.dir, ocispec.ImageIndexFile, ocispec.ImageLayoutFile)
}

// lock takes the lock for creating files in ingest and replacing index.json.
func (s *Store) lock(ctx context.Context) (*durable.Lock, error) {
	wait := cmp.Or(s.LockWait, time.Minute)
	if s.stuck.Load() {
		wait = 0
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	lock, err := durable.WaitLock(ctx, s.path(".lock"))
	if errors.Is(err, durable.ErrLocked) {
		s.stuck.Store(errors.Is(ctx.Err(), context.DeadlineExceeded))
		return nil, fmt.Errorf("%w: %w", ErrBusy, err)
	}
	s.stuck.Store(false)
	return lock, err
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// blobPath returns the path of a blob. The digest must be valid, because it becomes part of the path.
func (s *Store) blobPath(d delivery.Digest) string { return s.path("blobs", "sha256", d.Hex()) }
