package dataset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// A Source is a kind of storage that datasets come from. A new one is a file in this
// package, its line in cmd/aob/sources.go, and its entry in TestSources.
type Source interface {
	// Secrets names the secrets that Open needs. A run gets only those.
	Secrets() []string

	// Open finds the current version of a dataset. An error that a person can correct, as
	// a wrong name, is a [delivery.Blocked]; the caller adds the dataset's name.
	Open(ctx context.Context, at Reference) (Version, error)
}

// A Reference names a dataset within a source.
type Reference struct {
	Location string // from the server's configuration: a path or an address
	Path     string // below it, with slashes and without . and ..; "" for the location itself

	Secret func(name string) (string, error) // the value of one of the source's secrets
}

// A Version is a dataset at one time: a folder, or files to fetch.
type Version struct {
	Folder string // has the files; "" if they must be fetched

	// ID identifies the content that Fetch writes. Content with the same ID is fetched once.
	ID string
	// Fetch writes all files of the dataset. After an error its files are removed.
	Fetch func(ctx context.Context, to *Writer) error
}

// A Catalog finds the datasets that a server may use.
type Catalog struct {
	Sources   map[string]Source            // by the name that references begin with
	Locations map[string]map[string]string // by source and name: the server's configuration
	Cache     string                       // the folder of fetched datasets
	MaxBytes  int64                        // of one fetched dataset; 0 is 1 TiB
	Secret    func(name string) (string, error)

	// Memory is a folder that keeps what Check found about files, so that a file that did not change is not read again.
	// It must be writable by nobody else. Empty: nothing is kept.
	Memory string
	// HeadersOnly makes Check read the digests and headers of images, and not their pixels: damage inside an image and
	// images that look the same are not found.
	HeadersOnly bool
}

// folder returns the folder with a dataset's files, and whether that is the dataset itself. It fetches them if
// necessary.
func (c Catalog) folder(ctx context.Context, d delivery.Dataset) (dir string, inPlace bool, err error) {
	source, ok := c.Sources[d.Source]
	if !ok {
		return "", false, delivery.Blockedf("use one of the sources "+
			strings.Join(slices.Sorted(maps.Keys(c.Sources)), ", "), "dataset %s: this server has no source %q", d,
			d.Source)
	}
	name, rest, _ := strings.Cut(d.Path, "/")
	names := c.Locations[d.Source]
	location, ok := names[name]
	if !ok {
		return "", false, delivery.Blockedf(fmt.Sprintf("ask the server's operator to add it under "+
			"datasets.%s, or use one of: %s", d.Source, strings.Join(slices.Sorted(maps.Keys(names)), ", ")),
			"dataset %s: datasets.%s of the server's configuration has no %q", d, d.Source, name)
	}
	if rest != "" && !fs.ValidPath(rest) {
		return "", false, delivery.Blockedf("name a folder below the root, without . or .. in it",
			"the path of dataset %s leads out of its root", d)
	}
	version, err := source.Open(ctx, Reference{Location: location, Path: rest, Secret: c.secrets(source)})
	if inPlace = version.Folder != ""; err == nil && !inPlace {
		version.Folder, err = c.fetched(ctx, d, location, version)
	}
	if blocked, ok := errors.AsType[delivery.Blocked](err); ok {
		blocked.What = fmt.Sprintf("dataset %s: %s", d, blocked.What)
		return "", false, blocked
	}
	if err != nil {
		return "", false, fmt.Errorf("dataset %s: %w", d, pathless(err))
	}
	return version.Folder, inPlace, nil
}

// secrets returns a function that reads the secrets that a source names, and no others.
func (c Catalog) secrets(source Source) func(string) (string, error) {
	return func(name string) (string, error) {
		if c.Secret == nil || !slices.Contains(source.Secrets(), name) {
			return "", fmt.Errorf("secret %s is not one that this source names", name)
		}
		return c.Secret(name)
	}
}

// fetched returns the folder of a version in the cache. It fetches the version if it is
// missing. A crash leaves at most a folder .part-*.
func (c Catalog) fetched(ctx context.Context, d delivery.Dataset, location string, v Version) (string, error) {
	if v.ID == "" || v.Fetch == nil || c.Cache == "" {
		return "", errors.New("the source gives neither a folder nor a version to fetch")
	}
	in := filepath.Join(c.Cache, d.Source)
	final := filepath.Join(in, delivery.DigestOf("dataset", []string{d.Source, location, d.Path, v.ID}).Hex())
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	if err := os.MkdirAll(in, 0o700); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(in, ".part-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	root, err := os.OpenRoot(tmp)
	if err != nil {
		return "", err
	}
	defer root.Close()
	w := &Writer{root: root, bytes: cmp.Or(c.MaxBytes, 1<<40), files: maxFiles}
	if err := v.Fetch(ctx, w); err != nil {
		return "", err
	}
	if err := errors.Join(ctx.Err(), durable.SyncTree(tmp)); err != nil {
		return "", err
	}
	if err := durable.Rename(tmp, final); err != nil {
		if _, there := os.Stat(final); there == nil {
			return final, nil // another run fetched the same
		}
		return "", err
	}
	return final, nil
}

// A Writer writes the files of a fetched dataset, with limits on their number and size.
type Writer struct {
	root  *os.Root
	bytes int64 // that may still be written
	files int
}

// maxDepth is how many folders deep a file of a fetched dataset may lie.
const maxDepth = 32

// Add writes one file. Its name is a path below the dataset, with slashes. It refuses a
// name outside the dataset, a name that was added before, and files above the limits.
func (w *Writer) Add(name string, content io.Reader) error {
	if !fs.ValidPath(name) || name == "." || strings.ContainsAny(name, "\\\x00") {
		return delivery.Blockedf("rename it", "%q is not a path below the dataset", name)
	}
	if strings.Count(name, "/") > maxDepth {
		return delivery.Blockedf("move it up", "%q is more than %d folders deep", name, maxDepth)
	}
	if w.files--; w.files < 0 {
		return delivery.Blockedf("split the dataset", "it has more than %d files", maxFiles)
	}
	err := w.root.MkdirAll(filepath.Dir(filepath.FromSlash(name)), 0o700)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTDIR) {
		return delivery.Blockedf("rename one of them", "a file has the name of a folder of %q", name)
	}
	if err != nil {
		return err
	}
	out, err := w.root.OpenFile(filepath.FromSlash(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return delivery.Blockedf("remove one of them", "it has file %s twice", name)
	}
	if err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(content, w.bytes+1))
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	if w.bytes -= n; w.bytes < 0 {
		return delivery.Blockedf("split the dataset", "it is larger than this server's limit")
	}
	return nil
}
