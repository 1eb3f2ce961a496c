package store

// This file keeps files in a bucket of S3, or of a store with the same API.
//
//	data/HEX    a part of a file, named by its SHA-256; never replaced
//	names/NAME= which parts a file has, or which files a folder has and which parts each of these
//
// A name is one object, so a folder of any size is replaced at once, and whoever has opened a file keeps its parts.
// The = is because some stores have no object below another one: NAME/x is names/NAME/x= then.
// Nothing is removed but names: parts that no name has any more cost what their bytes cost.

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// An Objects is a bucket. [cloud.Bucket] is one.
type Objects interface {
	// List calls each for every object whose key begins with a prefix, in the order of their keys.
	List(ctx context.Context, prefix string, each func(key string, size int64, version string) error) error
	// Read opens an object from an offset, in any version if version is "". A missing object is fs.ErrNotExist.
	Read(ctx context.Context, key, version string, offset int64) (io.ReadCloser, error)
	// Write writes an object, whose bytes have a SHA-256. If fresh is set, an object that is there stays as it is, and
	// the error is fs.ErrExist.
	Write(ctx context.Context, key string, body io.ReadSeeker, size int64, sum [sha256.Size]byte, fresh bool) error
	// Remove removes an object. A missing one is no error.
	Remove(ctx context.Context, key string) error
}

// A Bucket keeps files in a bucket, below a prefix. Its methods are those of [Folder].
type Bucket struct {
	Objects Objects
	Prefix  string // "", or with a slash at its end
}

// Limits.
const (
	partSize    = 256 << 20        // of an object of data
	maxNames    = 256 << 20        // bytes of an object of names
	atOnce      = 16               // objects that are sent or read at once
	callTime    = 10 * time.Minute // of one object
	dataFolder  = "data/"
	namesFolder = "names/"
)

// An entry is an object of names. Exactly one field is set.
type entry struct {
	File  *stored           `json:"file,omitempty"`
	Files map[string]stored `json:"files,omitempty"` // by path in the folder
}

// A stored is a file: its parts have partSize bytes each, but the last.
type stored struct {
	Size  int64    `json:"size"`
	Parts []string `json:"parts"` // SHA-256
}

func checkName(name string) error {
	if !fs.ValidPath(name) || name == "." {
		return fmt.Errorf("store: %q is no name", name)
	}
	return nil
}

// Open opens a file, as [Folder.Open] does.
func (b Bucket) Open(name string) (io.ReadSeekCloser, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	for at, inside := name, ""; ; at, inside = path.Dir(at), path.Join(path.Base(at), inside) {
		if at == "." {
			return nil, fmt.Errorf("store: %s: %w", name, fs.ErrNotExist)
		}
		e, err := b.read(at)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		switch f, in := e.Files[inside]; {
		case inside == "" && e.File != nil:
			return &file{bucket: b, name: name, stored: *e.File}, nil
		case inside == "":
			return nil, fmt.Errorf("store: %s is a folder", name)
		case in:
			return &file{bucket: b, name: name, stored: f}, nil
		}
	}
}

// read reads an object of names.
func (b Bucket) read(name string) (e entry, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	body, err := b.Objects.Read(ctx, b.nameKey(name), "", 0)
	if err != nil {
		return e, fmt.Errorf("store: %s: %w", name, err)
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, maxNames))
	if err == nil {
		err = json.Unmarshal(data, &e)
	}
	if err == nil && (e.File == nil) == (e.Files == nil) {
		err = errors.New("neither a file nor a folder")
	}
	if err != nil {
		return e, fmt.Errorf("store: %s: its list in the bucket cannot be read: %w", name, err)
	}
	return e, nil
}

// Put stores a file or a folder, as [Folder.Put] does.
func (b Bucket) Put(name, from string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if err := checkName(name); err != nil {
		return err
	}
	switch old, err := b.read(name); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case (old.File == nil) != info.IsDir():
		return fmt.Errorf("store: %s: a file cannot replace a folder, or a folder a file", name)
	}
	dir, only := from, ""
	if !info.IsDir() {
		dir, only = filepath.Dir(from), filepath.Base(from)
	}
	root, err := os.OpenRoot(dir) // nothing in it leads out of it
	if err != nil {
		return err
	}
	defer root.Close()
	var e entry
	if only != "" {
		f, err := b.upload(root, only)
		if err != nil {
			return err
		}
		e.File = &f
	} else if e.Files, err = b.uploadAll(root); err != nil {
		return err
	}
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	// What was stored below a folder's name goes before it: a reader may miss it for a moment, and never sees the old.
	if info.IsDir() {
		if err := b.removeBelow(ctx, name); err != nil {
			return err
		}
	}
	return b.Objects.Write(ctx, b.nameKey(name), bytes.NewReader(data), int64(len(data)), sha256.Sum256(data), false)
}

func (b Bucket) removeBelow(ctx context.Context, name string) error {
	var keys []string
	err := b.Objects.List(ctx, b.below(name), func(key string, _ int64, _ string) error {
		keys = append(keys, key)
		return nil
	})
	for _, key := range keys {
		err = errors.Join(err, b.Objects.Remove(ctx, key))
	}
	return err
}

func (b Bucket) uploadAll(root *os.Root) (map[string]stored, error) {
	files := map[string]stored{}
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(atOnce)
	err := fs.WalkDir(root.FS(), ".", func(at string, e fs.DirEntry, err error) error {
		switch {
		case err != nil || e.IsDir():
			return err
		case !e.Type().IsRegular():
			return fmt.Errorf("store: %s is a link or no file", at)
		}
		group.Go(func() error {
			f, err := b.upload(root, at)
			mu.Lock()
			defer mu.Unlock()
			files[at] = f
			return err
		})
		return nil
	})
	return files, cmp.Or(group.Wait(), err)
}

// upload sends the parts of a file that are not there yet.
func (b Bucket) upload(root *os.Root, name string) (f stored, err error) {
	if info, err := root.Lstat(filepath.FromSlash(name)); err != nil || !info.Mode().IsRegular() {
		return f, cmp.Or(err, fmt.Errorf("store: %s is a link or no file", name))
	}
	in, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return f, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return f, err
	}
	f.Size = info.Size()
	for at := int64(0); at < f.Size; at += partSize {
		part := io.NewSectionReader(in, at, min(partSize, f.Size-at))
		digest := sha256.New()
		if n, err := io.Copy(digest, part); err != nil || n != part.Size() {
			return f, cmp.Or(err, fmt.Errorf("store: %s was changed while it was stored", name))
		}
		sum := [sha256.Size]byte(digest.Sum(nil))
		if _, err := part.Seek(0, io.SeekStart); err != nil {
			return f, err
		}
		ctx, cancel := context.WithTimeout(context.Background(), callTime)
		err := b.Objects.Write(ctx, b.dataKey(hex.EncodeToString(sum[:])), part, part.Size(), sum, true)
		if cancel(); err != nil && !errors.Is(err, fs.ErrExist) {
			return f, fmt.Errorf("store: %s: %w", name, err)
		}
		f.Parts = append(f.Parts, hex.EncodeToString(sum[:]))
	}
	return f, nil
}

// nameKey returns the key of an object of names: no folder in another key is it.
func (b Bucket) nameKey(name string) string {
	return b.Prefix + namesFolder + strings.ReplaceAll(name, "=", "==") + "="
}

// below returns what the keys of the names below a folder's name begin with.
func (b Bucket) below(name string) string {
	return b.Prefix + namesFolder + strings.ReplaceAll(name, "=", "==") + "/"
}

// isSum reports whether text is a SHA-256 in hex. What a bucket says is not trusted.
func isSum(text string) bool {
	sum, err := hex.DecodeString(text)
	return err == nil && len(sum) == sha256.Size
}

func (b Bucket) dataKey(sum string) string { return b.Prefix + dataFolder + sum }

// Local copies a folder to dir, as [Folder.Local] describes.
func (b Bucket) Local(name, dir string) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	files, err := b.filesOf(name)
	if err != nil {
		return "", err
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	var group errgroup.Group
	group.SetLimit(atOnce)
	for at, f := range files {
		group.Go(func() error { return b.download(f, path.Join(name, at), dir, at) })
	}
	if err := group.Wait(); err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o700) // a folder may have no files
}

// filesOf returns the files of a folder, which was stored at once, or as a part of another, or file by file.
func (b Bucket) filesOf(name string) (map[string]stored, error) {
	files, found := map[string]stored{}, false
	for at, inside := name, ""; at != "." && !found; at, inside = path.Dir(at), path.Join(path.Base(at), inside) {
		e, err := b.read(at)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if at == name && e.File != nil {
			return nil, fmt.Errorf("store: %s is no folder", name)
		}
		for file, s := range e.Files {
			if rest, in := strings.CutPrefix(file, inside+"/"); in || inside == "" {
				if inside == "" {
					rest = file
				}
				files[rest], found = s, true
			}
		}
		found = found || at == name
	}
	below := b.below(name)
	var names []string
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	if err := b.Objects.List(ctx, below, func(key string, _ int64, _ string) error {
		rest := strings.TrimSuffix(strings.TrimPrefix(key, below), "=")
		names = append(names, strings.ReplaceAll(rest, "==", "="))
		return nil
	}); err != nil {
		return nil, err
	}
	// What was stored below a folder's name was stored after the folder.
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(len(a), len(b)) })
	for _, rest := range names {
		e, err := b.read(name + "/" + rest)
		if err != nil {
			return nil, err
		}
		if found = true; e.File != nil {
			files[rest] = *e.File
		}
		for file, s := range e.Files {
			files[rest+"/"+file] = s
		}
	}
	if !found {
		return nil, fmt.Errorf("store: %s: %w", name, fs.ErrNotExist)
	}
	for file := range files { // the bucket may be anybody's
		if !fs.ValidPath(file) || file == "." {
			return nil, fmt.Errorf("store: %s has a file %q, which is no name", name, file)
		}
	}
	return files, nil
}

func (b Bucket) download(f stored, name, dir, at string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(path.Dir(at), 0o700); err != nil {
		return err
	}
	out, err := root.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	in := &file{bucket: b, name: name, stored: f}
	_, err = io.Copy(out, in)
	return cmp.Or(err, in.Close(), out.Close())
}

// A file is an open file of a bucket. Its parts do not change.
type file struct {
	bucket Bucket
	name   string
	stored
	at   int64
	body io.ReadCloser // of the part at at; nil if it is not open
	stop context.CancelFunc
	left int64     // of the part
	sum  hash.Hash // of what was read of the part, if it was read from its beginning
}

// Read implements io.Reader. A part that is read from its beginning to its end is compared with its digest.
func (f *file) Read(p []byte) (int, error) {
	if f.at >= f.Size {
		return 0, io.EOF
	}
	if f.body == nil {
		if err := f.open(); err != nil {
			return 0, err
		}
	}
	n, err := f.body.Read(p[:min(int64(len(p)), f.left)])
	if f.sum != nil {
		f.sum.Write(p[:n])
	}
	part := f.Parts[f.at/partSize]
	f.at += int64(n)
	if f.left -= int64(n); f.left == 0 {
		if f.sum != nil && hex.EncodeToString(f.sum.Sum(nil)) != part {
			return 0, fmt.Errorf("store: %s is damaged in the bucket: object %s has other bytes than its name says",
				f.name, f.bucket.dataKey(part))
		}
		return n, f.Close()
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		err = fmt.Errorf("store: %s: %w", f.name, err)
	}
	return n, err
}

// open opens the part at f.at.
func (f *file) open() error {
	i, offset := f.at/partSize, f.at%partSize
	if i >= int64(len(f.Parts)) || !isSum(f.Parts[i]) {
		return fmt.Errorf("store: %s: its list in the bucket is not complete", f.name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	body, err := f.bucket.Objects.Read(ctx, f.bucket.dataKey(f.Parts[i]), "", offset)
	if err != nil {
		cancel()
		return fmt.Errorf("store: %s: %w", f.name, err)
	}
	f.body, f.stop, f.left, f.sum = body, cancel, min(partSize, f.Size-i*partSize)-offset, nil
	if offset == 0 {
		f.sum = sha256.New()
	}
	return nil
}

// Seek implements io.Seeker.
func (f *file) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		offset += f.Size
	}
	if offset < 0 {
		return 0, fs.ErrInvalid
	}
	if offset == f.at {
		return offset, nil
	}
	f.at = offset
	return offset, f.Close()
}

// Close implements io.Closer.
func (f *file) Close() (err error) {
	if f.body != nil {
		err = f.body.Close()
		f.stop()
		f.body = nil
	}
	return err
}
