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

// receive brings a blob from a source into the store. What arrived before a connection broke is kept, and the next call
// asks for the rest. The digest is checked over the whole: where it is another, nothing is kept.
func (s *Store) receive(ctx context.Context, from source, mediaType string, want blob, wire *atomic.Int64) error {
	path := s.path(partialDir, want.digest.Hex())
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	// A crash may have left it read-only.
	if err := os.Chmod(path, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	lock, err := durable.TryLock(path)
	if errors.Is(err, durable.ErrLocked) { // another process brings it, too
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
	// What the network or a caller cut off is good for the next try. What the disk did not take is not.
	_, source := errors.AsType[*SourceError](err)
	if cut := source && !errors.Is(err, ErrOtherContent) || ctx.Err() != nil; err != nil && (!cut || p.size == 0) {
		os.Remove(path)
	}
	return err
}

// A partial is a file that holds the beginning of a blob.
type partial struct {
	*os.File
	sum  hash.Hash // of what it holds
	size int64
}

func (p *partial) fill(ctx context.Context, from source, mediaType string, want blob, wire *atomic.Int64) error {
	var err error
	if p.size, err = io.Copy(p.sum, io.LimitReader(contextReader{ctx, p.File}, want.size+1)); err != nil {
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

// append asks for what is missing.
func (p *partial) append(ctx context.Context, from source, mediaType string, want blob, wire *atomic.Int64) error {
	var body io.ReadCloser
	var err error
	if r, ok := from.(registrySource); ok && p.size > 0 {
		if body, err = r.rest(ctx, want.digest, p.size); err != nil {
			return sourceError(err)
		}
	}
	if body == nil { // there is nothing yet, or the source does not know ranges
		if err := p.empty(); err != nil {
			return err
		}
		if body, err = from.Fetch(ctx, descriptor(mediaType, want)); err != nil {
			return sourceError(err)
		}
	}
	defer body.Close()
	missing := io.LimitReader(contextReader{ctx, wireReader{body, wire}}, want.size-p.size+1)
	n, err := io.Copy(io.MultiWriter(p.File, p.sum), missing)
	p.size += n
	return err
}

// rest asks for a blob from a byte on. It returns nil where the answer is not that: then the whole has to be asked for.
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

// dropPartials removes the parts of blobs that a bundle does not need. So no more is kept than the bundle has bytes.
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

// spare is what a download leaves free on a disk for whatever else works there.
const spare = 4 << 20

// checkRoom reports whether the disk has room for what is missing of a bundle, before any of it is fetched.
func (s *Store) checkRoom(m bundleManifest) error {
	missing := int64(0)
	for _, b := range m.blobs() {
		if there, err := s.hasBlob(b); there || err != nil {
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

// lacking is the error of a download that does not fit.
func lacking(missing, free int64) error {
	lacks := missing + spare - free
	if lacks <= 0 {
		return nil
	}
	mib := func(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
	return fmt.Errorf("%w: %s are lacking: the download has %s more, %s are free, and %s of them stay free",
		syscall.ENOSPC, mib(lacks), mib(missing), mib(free), mib(spare))
}
