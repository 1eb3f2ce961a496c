package dataset

// This file is the cache of fetched datasets. It has
//
//	blobs/AB/SHA256      each file once, whatever versions have it
//	SOURCE/KEY/files/    a version: links to blobs, and so a folder that is read as any other
//	SOURCE/KEY/list.json its files with their digests
//	SOURCE/KEY/use.json  the name of the dataset; the file's time is when it was last used
//	SOURCE/.part-KEY/    a version that is being fetched, locked by who fetches it
//
// A version appears when its folder is renamed, so a killed process leaves a folder .part-KEY and nothing else; the
// next fetch from that source removes it. Files are read-only, and one that was changed nevertheless is found: by its
// size and time when the version is opened, and by its digest when it is read. Then the version is fetched again.

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// A manifest lists the files of a fetched version.
type manifest struct {
	ID    string                `json:"id"`    // [Version.ID]
	Files map[string]cachedFile `json:"files"` // by slash path
}

// A cachedFile file is one as it was fetched.
type cachedFile struct {
	SHA256   string `json:"sha256"`
	Size     int64  `json:"size"`
	Modified int64  `json:"modified"` // nanoseconds
}

const (
	blobsFolder   = "blobs"
	filesFolder   = "files"
	manifestFile  = "list.json"
	partialPrefix = ".part-"
)

// fetched returns the folder of a version in the cache, and the list of its files. It fetches the version if it is
// missing or damaged. Of two processes that fetch the same version, the second waits for the first.
func (c Catalog) fetched(ctx context.Context, d delivery.Dataset, location string, v Version) (string, *manifest,
	error) {
	if c.Cache == "" {
		return "", nil, errors.New("there is no cache for datasets that are fetched")
	}
	key := delivery.DigestOf("dataset", []string{d.Source, location, d.Path, v.ID}).Hex()
	in := filepath.Join(c.Cache, d.Source)
	final, partial := filepath.Join(in, key), filepath.Join(in, partialPrefix+key)
	if list, err := intact(final); err == nil {
		noteUse(final, d, list)
		return filepath.Join(final, filesFolder), list, nil
	}
	if err := os.MkdirAll(in, 0o700); err != nil {
		return "", nil, err
	}
	removeAbandoned(in, partial)
	lock, err := durable.WaitLockFolder(ctx, partial)
	if err != nil {
		return "", nil, err
	}
	defer lock.Unlock()
	fetched := false
	defer func() {
		if !fetched { // else the folder of this name is another process's
			os.RemoveAll(partial)
		}
	}()
	if list, err := intact(final); err == nil { // another process has fetched it
		return filepath.Join(final, filesFolder), list, nil
	}
	if err := os.RemoveAll(final); err != nil { // it is damaged
		return "", nil, err
	}
	w, err := newWriter(partial, filepath.Join(c.Cache, blobsFolder), cmp.Or(c.MaxBytes, 1<<40), c.Fetching)
	if err != nil {
		return "", nil, err
	}
	w.list.ID = v.ID
	defer w.root.Close()
	shared := c.shared(ctx, d.Source, key, v)
	lacks, err := c.fill(ctx, shared, v, w)
	if err := errors.Join(ctx.Err(), err); err != nil {
		return "", nil, err
	}
	if err := errors.Join(ctx.Err(), w.finish()); err != nil {
		return "", nil, err
	}
	err = durable.Rename(partial, final)
	if fetched = err == nil; fetched {
		noteUse(final, d, &w.list)
	}
	if fetched && lacks {
		if err := shared.write(ctx, filepath.Join(final, filesFolder), w.list); err != nil {
			c.Shared.Warn(fmt.Errorf("the dataset is not put into the bucket of fetched datasets: %w", err))
		}
	}
	return filepath.Join(final, filesFolder), &w.list, err
}

// removeAbandoned removes what killed processes have left of fetches from a source.
func removeAbandoned(in, except string) {
	left, _ := filepath.Glob(filepath.Join(in, partialPrefix+"*"))
	for _, dir := range left {
		if dir == except {
			continue
		}
		if lock, err := durable.TryLockFolder(dir); err == nil {
			os.RemoveAll(dir)
			lock.Unlock()
		}
	}
}

// intact returns the list of a version in the cache, or an error if the version is not there, or not as it was fetched.
func intact(dir string) (*manifest, error) {
	var list manifest
	if err := durable.ReadJSON(filepath.Join(dir, manifestFile), &list); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(filepath.Join(dir, filesFolder))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	found := 0
	err = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		want, ok := list.Files[name]
		if found++; !ok || !info.Mode().IsRegular() || info.Size() != want.Size {
			return fmt.Errorf("%s was changed in the cache", name)
		}
		if info.ModTime().UnixNano() == want.Modified {
			return nil
		}
		f, err := regular(root.OpenFile(filepath.FromSlash(name), readOnly, 0))
		if err != nil {
			return err
		}
		defer f.Close()
		if sum, err := digestOf(f); err != nil || sum != want.SHA256 {
			return errors.Join(err, fmt.Errorf("%s was changed in the cache", name))
		}
		return nil
	})
	if err == nil && found != len(list.Files) {
		err = errors.New("files were removed from the cache")
	}
	return &list, err
}

func digestOf(r io.Reader) (string, error) {
	h := sha256.New()
	_, err := io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), err
}

// damaged forgets the list of a fetched version, so that the version is fetched again.
func (v *version) damaged(name string) error {
	return errors.Join(fmt.Errorf("%s was changed in the server's cache; the dataset is fetched again the next time",
		shown(name)), os.Remove(filepath.Join(filepath.Dir(v.dir), manifestFile)))
}

// A Writer writes the files of a fetched dataset, with limits on their number and size.
type Writer struct {
	dir    string   // of the version
	root   *os.Root // its files
	blobs  string
	bytes  int64             // that may still be written
	files  int               // that may still be written
	folded map[string]string // names of files and folders by what they are where case does not count
	list   manifest
	tell   Progress
	most   int64 // bytes of the dataset

	names   int64 // bytes of all keys of folded
	keep    int64 // bytes of the disk that are left for other programs, and for AOB's own records
	written int64 // since the disk was looked at; below 0 before
}

// Bounds of a fetch beside the size of the dataset.
const (
	maxKeep   = 2 << 30  // bytes of the disk that stay free; a twentieth of a small disk
	lookAfter = 16 << 20 // bytes between two looks at the disk
	maxNames  = 512 << 20
)

func newWriter(dir, blobs string, most int64, tell Progress) (*Writer, error) {
	left, err := os.ReadDir(dir) // by a killed process
	if err != nil {
		return nil, err
	}
	for _, e := range left {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
	}
	if err := os.Mkdir(filepath.Join(dir, filesFolder), 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(filepath.Join(dir, filesFolder))
	if tell == nil {
		tell = func(Phase, int, int) {}
	}
	keep := int64(maxKeep)
	if _, all, err := durable.Space(dir); err == nil {
		keep = min(keep, all/20)
	}
	return &Writer{dir: dir, root: root, blobs: blobs, bytes: most, files: maxFiles, folded: map[string]string{},
		list: manifest{Files: map[string]cachedFile{}}, tell: tell, most: most, keep: keep, written: -1}, err
}

// room says whether the disk has room for more. n is how many bytes were read to be written.
func (w *Writer) room(n int) error {
	if w.written >= 0 {
		if w.written += int64(n); w.written < lookAfter {
			return nil
		}
	}
	w.written = 0
	if free, err := durable.FreeSpace(w.dir); err == nil && free < w.keep {
		return delivery.Blockedf("free some, or use a smaller dataset; what was fetched of it is removed again",
			"the server's disk has %d MB left, and %d MB must stay free", free/1e6, w.keep/1e6)
	}
	return nil
}

// A roomReader reads what is written to the disk, while that has room.
type roomReader struct {
	from io.Reader
	to   *Writer
}

func (r roomReader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	if full := r.to.room(n); full != nil {
		return n, full
	}
	return n, err
}

// reset removes all files that were added.
func (w *Writer) reset() error {
	added, err := fs.ReadDir(w.root.FS(), ".")
	for _, e := range added {
		err = errors.Join(err, w.root.RemoveAll(e.Name()))
	}
	w.bytes, w.files = w.most, maxFiles
	w.names = 0
	clear(w.folded)
	clear(w.list.Files)
	return err
}

// maxDepth is how many folders deep a file of a fetched dataset may lie.
const maxDepth = 32

// maxName is the longest path of a file of a fetched dataset, in bytes.
const maxName = 1024

// name checks the path of a file or folder of a dataset. It refuses one outside the dataset, and one that is the same
// as another where case or the form of accents does not count, as on macOS and Windows.
func (w *Writer) name(name string) error {
	switch {
	case !utf8.ValidString(name):
		return delivery.Blockedf("write its name in UTF-8; an archive with such names is made by 7z a -mcu=on, and by "+
			"zip on Linux and macOS", "the name %q is not in UTF-8", cutName(name))
	case strings.Contains(name, `\`):
		return delivery.Blockedf("write / between folders; other programs that make archives do",
			"the name %q has a backslash", cutName(name))
	case !fs.ValidPath(name) || name == "." || strings.ContainsRune(name, 0):
		return delivery.Blockedf("rename it", "%q is not a path below the dataset", cutName(name))
	case strings.Count(name, "/") > maxDepth:
		return delivery.Blockedf("move it up", "%s is more than %d folders deep", shownCut(name), maxDepth)
	case len(name) > maxName:
		return delivery.Blockedf("give it a shorter name", "%s has a name of %d bytes, want at most %d",
			shownCut(name), len(name), maxName)
	case isOfGit(name):
		return delivery.Blockedf("leave that folder out", "%s is of a Git repository, and no file of a dataset",
			shownCut(name))
	}
	for part := name; part != "."; part = path.Dir(part) {
		key := strings.ToLower(norm.NFC.String(part))
		other, known := w.folded[key]
		if known && other != part {
			return delivery.Blockedf("rename one of them", "%s and %s are one file where upper and lower case, or the "+
				"form of accents, do not count", shownCut(other), shownCut(part))
		}
		if known {
			break // so are the folders above it
		}
		w.folded[key] = part
		if w.names += int64(len(key)); w.names > maxNames {
			return delivery.Blockedf("give its files shorter names, in fewer folders",
				"its names and those of its folders have more than %d MB", maxNames/1_000_000)
		}
	}
	return nil
}

// isOfGit says whether a path leads into a repository. Its settings name programs, which git starts for whoever uses it
// in a copy of the dataset.
func isOfGit(name string) bool {
	return slices.ContainsFunc(strings.Split(name, "/"), func(part string) bool {
		return strings.EqualFold(part, ".git")
	})
}

// shownCut is shown for names of any length.
func shownCut(name string) string { return shown(cutName(name)) }

func cutName(name string) string {
	if len(name) > 200 {
		return name[:200] + "…"
	}
	return name
}

// Add writes one file. Its name is a path below the dataset, with slashes. It refuses a
// name outside the dataset, a name that was added before, and files above the limits.
func (w *Writer) Add(name string, content io.Reader) error {
	if err := w.name(name); err != nil {
		return err
	}
	if w.files--; w.files < 0 {
		return delivery.Blockedf("split the dataset", "it has more than %d files", maxFiles)
	}
	file := filepath.FromSlash(name)
	err := w.root.MkdirAll(filepath.Dir(file), 0o700)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTDIR) {
		return delivery.Blockedf("rename one of them", "a file has the name of a folder of %s", shownCut(name))
	}
	if err != nil {
		return err
	}
	out, err := w.root.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if errors.Is(err, fs.ErrExist) {
		return delivery.Blockedf("remove one of them", "it has file %s twice", shownCut(name))
	}
	if errors.Is(err, syscall.ENAMETOOLONG) {
		return delivery.Blockedf("give it a shorter name", "a part of the name of %s is too long", shownCut(name))
	}
	if err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, h), io.LimitReader(roomReader{content, w}, w.bytes+1))
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	if w.bytes -= n; w.bytes < 0 {
		return tooLarge()
	}
	sum := hex.EncodeToString(h.Sum(nil))
	if err := w.share(name, sum); err != nil {
		return err
	}
	info, err := w.root.Lstat(file)
	if err == nil {
		w.list.Files[name] = cachedFile{SHA256: sum, Size: n, Modified: info.ModTime().UnixNano()}
	}
	return err
}

func tooLarge() error {
	return delivery.Blockedf("split the dataset", "it is larger than this server's limit")
}

func (w *Writer) blob(sum string) string { return filepath.Join(w.blobs, sum[:2], sum) }

// share replaces a file that was just written by a link to the same file of another version. A blob that was changed
// since it was written is replaced.
func (w *Writer) share(name, sum string) error {
	blob, file := w.blob(sum), filepath.Join(w.dir, filesFolder, filepath.FromSlash(name))
	f, err := openFile(blob)
	if err != nil {
		return nil // there is none yet
	}
	defer f.Close()
	if now, err := digestOf(f); err != nil || now != sum {
		return os.Remove(blob)
	}
	// A file has a limited number of links: then this one stays a copy.
	link := filepath.Join(w.dir, "link")
	if os.Link(blob, link) != nil {
		return nil
	}
	return os.Rename(link, file)
}

// Spool creates a file for what a source needs while it fetches, as an archive. It is removed with the fetch.
func (w *Writer) Spool() (*os.File, error) { return os.CreateTemp(w.dir, "spool-*") }

// finish makes the version durable, and its files those of later versions.
func (w *Writer) finish() error {
	spools, err := filepath.Glob(filepath.Join(w.dir, "spool-*"))
	for _, spool := range spools {
		err = errors.Join(err, os.Remove(spool))
	}
	if err == nil {
		err = durable.WriteJSON(filepath.Join(w.dir, manifestFile), w.list)
	}
	if err == nil {
		err = durable.SyncTree(w.dir)
	}
	for name, f := range w.list.Files {
		if err != nil {
			break
		}
		blob := w.blob(f.SHA256)
		if err = os.MkdirAll(filepath.Dir(blob), 0o700); err == nil {
			// Where links are not possible, versions do not share files.
			_ = os.Link(filepath.Join(w.dir, filesFolder, filepath.FromSlash(name)), blob)
		}
	}
	return err
}
