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
	"strings"
	"sync"
	"sync/atomic"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// A Store is an OCI image-layout folder. Its methods may be called at once, by
// any number of goroutines and processes.
type Store struct {
	dir string
	// LockWait is how long to wait for another process that writes; a minute where zero. A process that was stopped
	// while it wrote holds the lock for as long as it is stopped.
	LockWait time.Duration

	opening sync.Mutex
	opened  bool        // the folder was looked through, and is ours to use
	stuck   atomic.Bool // the last wait for the lock was in vain: the next one does not wait

	mu    sync.Mutex
	index *index // as last read; replaced, never changed
}

// ErrBusy means that another process holds the store's lock for too long.
var ErrBusy = errors.New(
	"another process holds the lock of the bundles; find it with fuser, and end it or let it go on")

// Open opens the layout in dir, and makes it where dir is missing or empty. It
// removes what writers that died left in ingest, and makes index.json anew from
// the blobs where it is gone.
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

// At returns the store in dir, which is opened when it is first used. Where it cannot be opened, each use tries again,
// and says why.
func At(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open bundles: %w", err)
	}
	return &Store{dir: dir}, nil
}

// ready opens the store where that was not done.
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
	_, err = s.currentIndex()
	return err
}

// openLayoutFile checks oci-layout, or writes it. The caller holds the lock.
func (s *Store) openLayoutFile() error {
	path := s.path(ocispec.ImageLayoutFile)
	data, err := readFile(path, maxSmall)
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
		return fmt.Errorf("%s is damaged: %w; it must say {\"imageLayoutVersion\":\"1.0.0\"}", ocispec.ImageLayoutFile,
			err)
	}
	if layout.Version != ocispec.ImageLayoutVersion {
		return fmt.Errorf("%s says version %q, this program reads %q", ocispec.ImageLayoutFile, layout.Version,
			ocispec.ImageLayoutVersion)
	}
	return nil
}

// sweep removes what dead writers left. The caller holds the lock, under which
// alone files in ingest come to be, each at once with its own lock.
func (s *Store) sweep() error {
	entries, err := os.ReadDir(s.path("ingest"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := s.path("ingest", e.Name())
		lock, err := durable.TryLock(path)
		if errors.Is(err, durable.ErrLocked) {
			continue // its writer lives
		}
		if err != nil {
			return err
		}
		if err := errors.Join(os.Remove(path), lock.Unlock()); err != nil {
			return err
		}
	}
	// index.json is written under the lock, which we hold: whoever wrote these is dead.
	entries, err = os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "."+ocispec.ImageIndexFile+".") ||
			strings.HasPrefix(e.Name(), "."+ocispec.ImageLayoutFile+".") {
			if err := os.Remove(s.path(e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// lock takes the lock under which files in ingest come to be and index.json is replaced.
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

// blobPath is where a blob lies. The digest must be valid: it becomes a path.
func (s *Store) blobPath(d delivery.Digest) string {
	return s.path("blobs", "sha256", d.Hex())
}
