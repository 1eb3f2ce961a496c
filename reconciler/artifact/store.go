package artifact

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// A Store is an OCI image-layout folder. Its methods may be called at once, by
// any number of goroutines and processes.
type Store struct {
	dir string

	mu    sync.Mutex
	index *index // as last read; replaced, never changed
}

// Open opens the layout in dir, and makes it where dir is missing or empty. It
// removes what writers that died left in ingest, and makes index.json anew from
// the blobs where it is gone.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open bundles: %w", err)
	}
	s := &Store{dir: dir}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open bundles in %s: %w", dir, err)
	}
	return s, nil
}

func (s *Store) open() error {
	for _, dir := range []string{s.path("blobs", "sha256"), s.path("ingest")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	lock, err := s.lock()
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
	_, err = s.loadIndex()
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
		return fmt.Errorf("%s is damaged: %w; it must say {\"imageLayoutVersion\":\"1.0.0\"}", ocispec.ImageLayoutFile, err)
	}
	if layout.Version != ocispec.ImageLayoutVersion {
		return fmt.Errorf("%s says version %q, this program reads %q", ocispec.ImageLayoutFile, layout.Version, ocispec.ImageLayoutVersion)
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
		if strings.HasPrefix(e.Name(), "."+ocispec.ImageIndexFile+".") || strings.HasPrefix(e.Name(), "."+ocispec.ImageLayoutFile+".") {
			if err := os.Remove(s.path(e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) lock() (*durable.Lock, error) { return durable.WaitLock(s.path(".lock")) }

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// blobPath is where a blob lies. The digest must be valid: it becomes a path.
func (s *Store) blobPath(d delivery.Digest) string {
	return s.path("blobs", "sha256", d.Hex())
}
