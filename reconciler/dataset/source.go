package dataset

import (
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

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// A Source is a kind of storage that datasets come from. A new one is a file in this
// package, its line in cmd/aob/sources.go, and its entry in TestSources.
type Source interface {
	// Secrets names the secrets that Open asks for. A run gets those, and no others.
	Secrets() []string

	// Open finds a dataset as it is now. What a person can mend, as a wrong name, is a
	// [delivery.Blocked] error that says what to do; the dataset's name is put before it.
	Open(ctx context.Context, at Reference) (Version, error)
}

// A Reference is what a source has to find.
type Reference struct {
	Location string // what the server's configuration has for the name: a path or an address
	Path     string // below it, with slashes and without . and ..; "" for the location itself

	Secret func(name string) (string, error) // the value of one of the source's secrets
}

// A Version is a dataset as it is at one time: a folder, or what has to be fetched.
type Version struct {
	Folder string // holds the files; "" where they have to be fetched

	// ID names the content that Fetch would write: other content has another ID. What
	// was fetched under an ID is not fetched again.
	ID string
	// Fetch writes all files of the dataset, or returns an error. What it wrote beside an
	// error is removed.
	Fetch func(ctx context.Context, to *Writer) error
}

// A Catalog finds the datasets that a server may use.
type Catalog struct {
	Sources   map[string]Source            // by the name that references begin with
	Locations map[string]map[string]string // by source and name: the server's configuration
	Cache     string                       // the folder of what was fetched
	MaxBytes  int64                        // of one dataset that is fetched; 0 is 1 TiB
	Secret    func(name string) (string, error)
}

// folder returns the folder that holds a dataset's files, fetched if they have to be.
func (c Catalog) folder(ctx context.Context, d delivery.Dataset) (string, error) {
	source, ok := c.Sources[d.Source]
	if !ok {
		return "", delivery.Blockedf("use one of the sources "+strings.Join(slices.Sorted(maps.Keys(c.Sources)), ", "),
			"dataset %s: this server has no source %q", d, d.Source)
	}
	name, rest, _ := strings.Cut(d.Path, "/")
	names := c.Locations[d.Source]
	location, ok := names[name]
	if !ok {
		return "", delivery.Blockedf(fmt.Sprintf("ask the server's operator to add it under "+
			"datasets.%s, or use one of: %s", d.Source, strings.Join(slices.Sorted(maps.Keys(names)), ", ")),
			"dataset %s: datasets.%s of the server's configuration has no %q", d, d.Source, name)
	}
	if rest != "" && !fs.ValidPath(rest) {
		return "", delivery.Blockedf("name a folder below the root, without . or .. in it",
			"dataset %s leaves its root", d)
	}
	version, err := source.Open(ctx, Reference{Location: location, Path: rest, Secret: c.secrets(source)})
	if err == nil && version.Folder == "" {
		version.Folder, err = c.fetched(ctx, d, location, version)
	}
	if blocked, ok := errors.AsType[delivery.Blocked](err); ok {
		blocked.What = fmt.Sprintf("dataset %s: %s", d, blocked.What)
		return "", blocked
	}
	if err != nil {
		return "", fmt.Errorf("dataset %s: %w", d, pathless(err))
	}
	return version.Folder, nil
}

// secrets returns what a source may read: the secrets that it names.
func (c Catalog) secrets(source Source) func(string) (string, error) {
	return func(name string) (string, error) {
		if c.Secret == nil || !slices.Contains(source.Secrets(), name) {
			return "", fmt.Errorf("secret %s is not one that this source names", name)
		}
		return c.Secret(name)
	}
}

// fetched returns the folder of a version in the cache, fetched if it is not there.
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
	w := &Writer{root: root, bytes: c.MaxBytes, files: maxFiles}
	if w.bytes == 0 {
		w.bytes = 1 << 40
	}
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

// A Writer takes the files of a dataset that is fetched, and bounds them.
type Writer struct {
	root  *os.Root
	bytes int64 // that may still come
	files int
}

// Add writes one file. Its name is a path below the dataset, with slashes. A name that
// leaves the dataset or comes twice is refused, and so is a file too many.
func (w *Writer) Add(name string, content io.Reader) error {
	if !fs.ValidPath(name) || name == "." || strings.ContainsAny(name, "\\\x00") {
		return delivery.Blockedf("rename it", "%q is no path below the dataset", name)
	}
	if w.files--; w.files < 0 {
		return delivery.Blockedf("split it", "it has more than %d files", maxFiles)
	}
	if err := w.root.MkdirAll(filepath.Dir(filepath.FromSlash(name)), 0o700); err != nil {
		return err
	}
	out, err := w.root.OpenFile(filepath.FromSlash(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return delivery.Blockedf("remove one of them", "it holds %s twice", name)
	}
	if err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(content, w.bytes+1))
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	if w.bytes -= n; w.bytes < 0 {
		return delivery.Blockedf("split it", "it is larger than this server takes")
	}
	return nil
}
