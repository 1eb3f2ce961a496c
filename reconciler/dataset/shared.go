package dataset

// This file keeps fetched datasets in a bucket too, so that another machine need not fetch them from their source.
// Below the prefix of the bucket it has
//
//	datasets/files/SHA256   a file, whatever versions have it
//	datasets/SOURCE/KEY     the list of a version's files, which is written last
//
// Anybody may have written what is there. A list is that of the version that is wanted, every file has its size and its
// digest, and names and sizes are those that any source may have. Else the source is asked, and what it has replaces
// what the bucket had.

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Shared is where servers share the datasets that they have fetched.
type Shared struct {
	// Connect returns the bucket, and what the keys in it begin with: "", or with a slash at its end.
	Connect func(ctx context.Context) (Objects, string, error)
	// Warn is told what was wrong with the bucket, or with what it has. The source is asked then.
	Warn func(err error)
}

// Objects is a bucket that is also written.
type Objects interface {
	Bucket
	// Write writes an object, whose bytes have a SHA-256. If fresh is set, an object that is there stays as it is, and
	// the error is fs.ErrExist.
	Write(ctx context.Context, key string, body io.ReadSeeker, size int64, sum [sha256.Size]byte, fresh bool) error
}

// Limits of what is shared.
const (
	maxSharedList = 512 << 20 // bytes of the list of a version
	maxSharedFile = 5 << 30   // bytes that S3 takes in one call
)

// A sharedCopy is where one version is in the bucket.
type sharedCopy struct {
	objects     Objects
	files, list string // what the keys of files begin with, and the key of the list
	id          string // [Version.ID]
	damaged     bool   // what is there is not what it should be
}

// shared returns where a version is in the bucket; nil if it is not shared.
func (c Catalog) shared(ctx context.Context, source, key string, v Version) *sharedCopy {
	if c.Shared == nil || !v.Share {
		return nil
	}
	objects, prefix, err := c.Shared.Connect(ctx)
	if err != nil {
		c.Shared.Warn(fmt.Errorf("the bucket of fetched datasets: %w", err))
		return nil
	}
	return &sharedCopy{objects: objects, id: v.ID, files: prefix + "datasets/files/",
		list: prefix + "datasets/" + source + "/" + key}
}

// fill writes the files of a version: those in the bucket if it has them, else those of the source. It reports whether
// the bucket lacks them.
func (c Catalog) fill(ctx context.Context, s *sharedCopy, v Version, to *Writer) (lacks bool, err error) {
	if s == nil {
		return false, v.Fetch(ctx, to)
	}
	err = s.read(ctx, to)
	if err == nil || ctx.Err() != nil {
		return false, err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		s.damaged = true
		c.Shared.Warn(fmt.Errorf("the copy of a dataset in the bucket is not used: %w", err))
	}
	if err := to.reset(); err != nil {
		return false, err
	}
	return true, v.Fetch(ctx, to)
}

// read writes the files that the bucket has. If it has no such version, the error is fs.ErrNotExist.
func (s *sharedCopy) read(ctx context.Context, to *Writer) error {
	body, err := s.objects.Read(ctx, s.list, "", 0)
	if err != nil {
		return err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, maxSharedList+1))
	if err != nil {
		return err
	}
	if len(data) > maxSharedList {
		return fmt.Errorf("%s is larger than a list may be", s.list)
	}
	var list manifest
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("%s is no list of files: %w", s.list, err)
	}
	if list.ID != s.id {
		return fmt.Errorf("%s is the list of another dataset", s.list)
	}
	if len(list.Files) == 0 || len(list.Files) > maxFiles {
		return fmt.Errorf("%s lists %d files, want 1 to %d", s.list, len(list.Files), maxFiles)
	}
	objects := make([]bucketObject, 0, len(list.Files))
	total := int64(0)
	for _, name := range slices.Sorted(maps.Keys(list.Files)) {
		f := list.Files[name]
		if _, err := sumOf(f.SHA256); err != nil || f.Size < 0 || f.Size > maxSharedFile {
			return fmt.Errorf("%s: %s has no digest or no size", s.list, shownCut(name))
		}
		objects = append(objects, bucketObject{key: s.files + f.SHA256, name: name, sum: f.SHA256, size: f.Size})
		if total += f.Size; total > to.most {
			return tooLarge()
		}
	}
	if err := fetchObjects(ctx, s.objects, objects, total, to); err != nil {
		if errors.Is(err, fs.ErrNotExist) { // the list is there, and a file is not
			return delivery.Blocked{What: err.Error()}
		}
		return err
	}
	return nil
}

// sumOf parses a SHA-256 in lower-case hex, as it is in keys.
func sumOf(text string) (sum [sha256.Size]byte, err error) {
	data, err := hex.DecodeString(text)
	if err != nil || len(data) != len(sum) || hex.EncodeToString(data) != text {
		return sum, errors.New("no SHA-256")
	}
	return [sha256.Size]byte(data), nil
}

// write puts a version that was fetched into the bucket. dir is the folder of its files.
func (s *sharedCopy) write(ctx context.Context, dir string, list manifest) error {
	there := map[string]bool{}
	if !s.damaged {
		if err := s.objects.List(ctx, s.files, func(key string, _ int64, _ string) error {
			there[key] = true
			return nil
		}); err != nil {
			return err
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	shared := manifest{ID: list.ID, Files: map[string]cachedFile{}}
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(atATime)
	for name, f := range list.Files {
		shared.Files[name] = cachedFile{SHA256: f.SHA256, Size: f.Size}
		key := s.files + f.SHA256
		if there[key] {
			continue
		}
		there[key] = true
		group.Go(func() error { return s.writeFile(inner, root, name, f) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	data, err := json.Marshal(shared)
	if err != nil {
		return err
	}
	return s.objects.Write(ctx, s.list, bytes.NewReader(data), int64(len(data)), sha256.Sum256(data), false)
}

func (s *sharedCopy) writeFile(ctx context.Context, root *os.Root, name string, f cachedFile) error {
	if f.Size > maxSharedFile {
		return fmt.Errorf("%s has %d bytes, more than S3 takes in one call", shownCut(name), f.Size)
	}
	sum, err := sumOf(f.SHA256)
	if err != nil {
		return err
	}
	in, err := regular(root.OpenFile(filepath.FromSlash(name), readOnly, 0))
	if err != nil {
		return err
	}
	defer in.Close()
	err = s.objects.Write(ctx, s.files+f.SHA256, in, f.Size, sum, !s.damaged)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}
