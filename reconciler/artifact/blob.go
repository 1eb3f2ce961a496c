package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// errDamaged means that the content of a stored blob does not match its digest.
var errDamaged = errors.New("damaged: the content does not match the digest; restore it from a copy, or push it again")

var errTooLong = errors.New("longer")

// A blob identifies content by digest and size in bytes.
type blob struct {
	digest delivery.Digest
	size   int64
}

// putBytes stores data. It is durable when the error is nil.
func (s *Store) putBytes(ctx context.Context, data []byte) (blob, error) {
	b := blob{delivery.Sum(data), int64(len(data))}
	if s.verifyBlob(ctx, b) == nil {
		return b, nil
	}
	return s.put(ctx, bytes.NewReader(data), b)
}

// put stores the content of r in one pass, durably. The content must match want; if want has no digest, want.size is
// only a maximum. A blob that exists is not written again, unless it is damaged.
func (s *Store) put(ctx context.Context, r io.Reader, want blob) (blob, error) {
	f, lock, err := s.ingest(ctx)
	if err != nil {
		return blob{}, fmt.Errorf("write blob: %w", err)
	}
	defer lock.Unlock() // after everything else, so that sweep never removes a file in use
	b, err := copyAndSum(ctx, f, r, want.size)
	if want.digest != "" && (errors.Is(err, errTooLong) || err == nil && b != want) {
		err = &SourceError{Err: fmt.Errorf("%w: want %s of %d bytes", ErrOtherContent, want.digest, want.size)}
	}
	err = errors.Join(err, f.Chmod(0o444), f.Sync(), f.Close())
	switch {
	case err != nil:
	case s.verifyBlob(ctx, b) == nil:
		// The blob exists, but another writer's rename may not be durable yet.
		return b, errors.Join(os.Remove(f.Name()), durable.SyncDir(s.path("blobs", "sha256")))
	default:
		err = durable.Rename(f.Name(), s.blobPath(b.digest))
	}
	if err != nil {
		os.Remove(f.Name())
		return blob{}, fmt.Errorf("write blob: %w", err)
	}
	return b, nil
}

// ingest creates a file for a blob to be written, and takes a lock on it.
func (s *Store) ingest(ctx context.Context) (*os.File, *durable.Lock, error) {
	if err := s.ready(); err != nil {
		return nil, nil, err
	}
	store, err := s.lock(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer store.Unlock()
	f, err := os.CreateTemp(s.path("ingest"), "*")
	if err != nil {
		return nil, nil, err
	}
	lock, err := durable.TryLock(f.Name())
	if err != nil {
		f.Close()
		os.Remove(f.Name())
		return nil, nil, err
	}
	return f, lock, nil
}

// copyAndSum copies r to w and returns digest and size. The error wraps errTooLong if r has more than limit bytes.
func copyAndSum(ctx context.Context, w io.Writer, r io.Reader, limit int64) (blob, error) {
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, sum), io.LimitReader(durable.ContextReader{Ctx: ctx, R: r}, limit+1))
	if err != nil {
		return blob{}, err
	}
	if n > limit {
		return blob{}, fmt.Errorf("%w than %d bytes", errTooLong, limit)
	}
	return blob{delivery.Digest("sha256:" + hex.EncodeToString(sum.Sum(nil))), n}, nil
}

// readBlob reads a blob of at most limit bytes into memory and verifies it.
func (s *Store) readBlob(d delivery.Digest, limit int64) ([]byte, error) {
	data, err := durable.ReadFile(s.blobPath(d), limit)
	if err == nil && delivery.Sum(data) != d {
		err = errDamaged
	}
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d, err)
	}
	return data, nil
}

// verifyBlob reads a blob of any size and checks its size and digest.
func (s *Store) verifyBlob(ctx context.Context, want blob) error {
	err := checkFile(ctx, s.blobPath(want.digest), want)
	if err != nil {
		return fmt.Errorf("blob %s: %w", want.digest, err)
	}
	return nil
}

// checkFile compares a file's size and content with want. The error is errDamaged if they differ.
func checkFile(ctx context.Context, path string, want blob) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != want.size {
		return errDamaged
	}
	got, err := copyAndSum(ctx, io.Discard, f, want.size)
	if errors.Is(err, errTooLong) || err == nil && got != want {
		return errDamaged
	}
	return err
}
