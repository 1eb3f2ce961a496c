package dataset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Source is a kind of storage that datasets come from. A new one is a file in this
// package, its line in cmd/aob/sources.go, and its entry in TestSources.
type Source interface {
	// Secrets names the secrets that a location needs. A run gets only those.
	Secrets(location string) []string

	// Check says what a location has, in a few words, or what keeps the server from using it.
	Check(ctx context.Context, at Reference) (string, error)

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
	// Share is set if fetching it again is slow, or costs something, so that machines share what they have fetched.
	Share bool
	// Fetch writes all files of the dataset. After an error its files are removed.
	Fetch func(ctx context.Context, to *Writer) error
}

// A Catalog finds the datasets that a server may use.
type Catalog struct {
	Sources   map[string]Source            // by the name that references begin with
	Locations map[string]map[string]string // by source and name: the server's configuration
	Cache     string                       // the folder of fetched datasets
	Shared    *Shared                      // where machines share fetched datasets; nil if they do not
	MaxBytes  int64                        // of one fetched dataset; 0 is 1 TiB
	Secret    func(name string) (string, error)
	Fetching  Progress // is told how far a fetch is; may be nil

	// Memory is a folder that keeps what Check found about files, so that a file that did not change is not read again.
	// It must be writable by nobody else. Empty: nothing is kept.
	Memory string
	// HeadersOnly makes Check read the digests and headers of images, and not their pixels: damage inside an image and
	// images that look the same are not found.
	HeadersOnly bool
	// Scenes matches the paths of images; its groups site and time say where and when they were taken. Without it the
	// annotation files say so. See [delivery.ScenePattern].
	Scenes *regexp.Regexp
}

// version finds the current version of a dataset at its source.
func (c Catalog) version(ctx context.Context, d delivery.Dataset) (v Version, location string, err error) {
	source, ok := c.Sources[d.Source]
	if !ok {
		return v, "", delivery.Blockedf("use one of the sources "+
			strings.Join(slices.Sorted(maps.Keys(c.Sources)), ", "), "dataset %s: this server has no source %q", d,
			d.Source)
	}
	name, rest, _ := strings.Cut(d.Path, "/")
	names := c.Locations[d.Source]
	location, ok = names[name]
	if !ok {
		do := "ask the server's operator to add it under datasets." + d.Source
		if len(names) > 0 {
			do += ", or use one of: " + strings.Join(slices.Sorted(maps.Keys(names)), ", ")
		}
		return v, "", delivery.Blockedf(do, "dataset %s: datasets.%s of the server's configuration has no %q", d,
			d.Source, name)
	}
	switch {
	case rest == "" || fs.ValidPath(rest):
	case slices.Contains(strings.Split(rest, "/"), ".."):
		return v, "", delivery.Blockedf("name a folder below the root, without . or .. in it",
			"the path of dataset %s leads out of its root", d)
	default:
		return v, "", delivery.Blockedf("write it with single slashes between its parts, none at its ends, and "+
			"without . in it", "the path of dataset %s is not written as it must be", d)
	}
	v, err = source.Open(ctx, Reference{Location: location, Path: rest, Secret: c.secrets(source, location)})
	if err == nil && v.Folder == "" && (v.ID == "" || v.Fetch == nil) {
		err = errors.New("the source gives neither a folder nor a version to fetch")
	}
	return v, location, named(d, err)
}

// folder returns the folder with a dataset's files, and their list if they were fetched. It fetches them if necessary.
func (c Catalog) folder(ctx context.Context, d delivery.Dataset) (dir string, list *manifest, err error) {
	v, location, err := c.version(ctx, d)
	if err != nil || v.Folder != "" {
		return v.Folder, nil, err
	}
	dir, list, err = c.fetched(ctx, d, location, v)
	return dir, list, named(d, err)
}

// named adds the name of a dataset to an error.
func named(d delivery.Dataset, err error) error {
	if blocked, ok := errors.AsType[delivery.Blocked](err); ok {
		blocked.What = fmt.Sprintf("dataset %s: %s", d, blocked.What)
		return blocked
	}
	if err != nil {
		return fmt.Errorf("dataset %s: %w", d, pathless(err))
	}
	return nil
}

// CheckLocation says what a location of the server's configuration has, or what keeps the server from using it.
func (c Catalog) CheckLocation(ctx context.Context, source, name string) (string, error) {
	s, ok := c.Sources[source]
	if !ok {
		return "", fmt.Errorf("there is no source %q", source)
	}
	location := c.Locations[source][name]
	return s.Check(ctx, Reference{Location: location, Secret: c.secrets(s, location)})
}

// secrets returns a function that reads the secrets that a source names, and no others.
func (c Catalog) secrets(source Source, location string) func(string) (string, error) {
	return func(name string) (string, error) {
		if c.Secret == nil || !slices.Contains(source.Secrets(location), name) {
			return "", fmt.Errorf("secret %s is not one that this source names", name)
		}
		return c.Secret(name)
	}
}
