package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

const partialDir = "partial"

// receive downloads a blob from a source into the store. After an interrupted download, the received part is kept, and
// the next call requests the rest. The digest is checked over the whole blob; if it is wrong, everything is removed.
func (s *Store) receive(ctx context.Context, from source, mediaType string, want blob, wire *atomic.Int64) error {
	path := s.path(partialDir, want.digest.Hex())
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	// A crash after Chmod below leaves the file read-only.
	if err := os.Chmod(path, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	lock, err := durable.TryLock(path)
	if errors.Is(err, durable.ErrLocked) { // another process downloads it too
		body, err := from.Fetch(ctx, descriptor(mediaType, want))
		if err != nil {
			return sourceError(err)
		}
		defer body.Close()
		_, err = s.put(ctx, wireReader{body, wire}, want)
		return err
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	p := &partial{File: f, sum: sha256.New()}
	err = p.fill(ctx, from, mediaType, want, wire)
	if err == nil {
		err = errors.Join(f.Chmod(0o444), f.Sync(), durable.Rename(path, s.blobPath(want.digest)))
	}
	// After a network error or a cancellation the partial file is correct. After a disk error it may not be.
	_, source := errors.AsType[*SourceError](err)
	if cut := source && !errors.Is(err, ErrOtherContent) || ctx.Err() != nil; err != nil && (!cut || p.size == 0) {
		os.Remove(path)
	}
	return err
}

// A partial is a file with the beginning of a blob.
type partial struct {
	*os.File
	sum  hash.Hash // of the file's content
	size int64
}

func (p *partial) fill(ctx context.Context, from source, mediaType string, want blob, wire *atomic.Int64) error {
	var err error
	file := durable.ContextReader{Ctx: ctx, R: p.File}
	if p.size, err = io.Copy(p.sum, io.LimitReader(file, want.size+1)); err != nil {
		return err
	}
	if p.size > want.size {
		if err := p.empty(); err != nil {
			return err
		}
	}
	if p.size < want.size {
		if err := p.append(ctx, from, mediaType, want, wire); err != nil {
			return err
		}
	}
	if p.size != want.size || hex.EncodeToString(p.sum.Sum(nil)) != want.digest.Hex() {
		return &SourceError{Err: fmt.Errorf("%w: want %s of %d bytes", ErrOtherContent, want.digest, want.size)}
	}
	return nil
}

func (p *partial) empty() error {
	p.size = 0
	p.sum.Reset()
	_, err := p.Seek(0, io.SeekStart)
	return errors.Join(err, p.Truncate(0))
}

// append downloads the missing rest.
func (p *partial) append(ctx context.Context, from source, mediaType string, want blob, wire *atomic.Int64) error {
	var body io.ReadCloser
	var err error
	if r, ok := from.(registrySource); ok && p.size > 0 {
		if body, err = r.rest(ctx, want.digest, p.size); err != nil {
			return sourceError(err)
		}
	}
	if body == nil { // the file is empty, or the source does not support ranges
		if err := p.empty(); err != nil {
			return err
		}
		if body, err = from.Fetch(ctx, descriptor(mediaType, want)); err != nil {
			return sourceError(err)
		}
	}
	defer body.Close()
	missing := io.LimitReader(durable.ContextReader{Ctx: ctx, R: wireReader{body, wire}}, want.size-p.size+1)
	n, err := io.Copy(io.MultiWriter(p.File, p.sum), missing)
	p.size += n
	return err
}

// rest requests the content of a blob from an offset. It returns nil if the source does not support that, so that the
// caller must request the whole blob.
func (r registrySource) rest(ctx context.Context, d delivery.Digest, from int64) (io.ReadCloser, error) {
	scheme := "https"
	if r.PlainHTTP {
		scheme = "http"
	}
	address := fmt.Sprintf("%s://%s/v2/%s/blobs/%s", scheme, r.Reference.Host(), r.Reference.Repository, d)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	resp, err := r.Client.Do(req)
	if err != nil {
		return nil, err
	}
	begins := strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", from))
	if resp.StatusCode != http.StatusPartialContent || !begins {
		return nil, resp.Body.Close()
	}
	return resp.Body, nil
}

// dropPartials removes the partial files that do not belong to a bundle, so that partial files never take more space
// than one bundle.
func (s *Store) dropPartials(m bundleManifest) error {
	entries, err := os.ReadDir(s.path(partialDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	needed := map[string]bool{}
	for _, b := range m.blobs() {
		needed[b.digest.Hex()] = true
	}
	for _, e := range entries {
		if !needed[e.Name()] {
			if err := os.RemoveAll(s.path(partialDir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// spare is how many bytes of disk space a download leaves free for other programs.
const spare = 4 << 20

// checkRoom returns an error if the disk has too little space for the missing blobs of a bundle.
func (s *Store) checkRoom(m bundleManifest) error {
	missing := int64(0)
	for _, b := range m.blobs() {
		info, err := os.Stat(s.blobPath(b.digest))
		if err == nil && info.Size() == b.size || err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		missing += b.size
		if part, err := os.Stat(s.path(partialDir, b.digest.Hex())); err == nil {
			missing -= min(part.Size(), b.size)
		}
	}
	var disk unix.Statfs_t
	if missing == 0 || unix.Statfs(s.dir, &disk) != nil {
		return nil
	}
	return lacking(missing, int64(disk.Bavail)*int64(disk.Bsize))
}

// lacking returns the error of a download that does not fit on the disk, or nil.
func lacking(missing, free int64) error {
	lacks := missing + spare - free
	if lacks <= 0 {
		return nil
	}
	mib := func(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
	return fmt.Errorf("%w: free at least %s: the rest of the download has %s, %s are free, and %s must stay free",
		syscall.ENOSPC, mib(lacks), mib(missing), mib(free), mib(spare))
}
