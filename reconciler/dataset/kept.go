package dataset

// This file removes fetched datasets that nobody has used for long. They can be fetched again.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

const (
	useFile    = "use.json" // of a version: a use; its time is that of the last use
	gonePrefix = ".gone-"
)

// A use says which dataset a version in the cache is of.
type use struct {
	Dataset string `json:"dataset"` // as delivery.Dataset is written
	Bytes   int64  `json:"bytes"`   // of its files
}

// A Kept is a version of a dataset in the cache.
type Kept struct {
	Folder  string    // below the cache
	Dataset string    // "" if it was fetched by an older aob and not used since
	Bytes   int64     // of its files, of which other versions may have some
	Used    time.Time // last
}

// noteUse records that a version was used. An error only makes the version look older.
func noteUse(dir string, d delivery.Dataset, list *manifest) {
	path := filepath.Join(dir, useFile)
	now := time.Now()
	var before use
	if durable.ReadJSON(path, &before) == nil && before.Dataset == d.String() && os.Chtimes(path, now, now) == nil {
		return
	}
	fresh := use{Dataset: d.String()}
	for _, f := range list.Files {
		fresh.Bytes += f.Size
	}
	_ = durable.WriteJSON(path, fresh)
}

// Kept lists the versions in the cache, also those of sources that are known no more. It removes what killed processes
// have left of removed ones.
func (c Catalog) Kept() ([]Kept, error) {
	var list []Kept
	sources, err := os.ReadDir(c.Cache)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, source := range sources {
		if !source.IsDir() || source.Name() == blobsFolder || strings.HasPrefix(source.Name(), ".") {
			continue
		}
		entries, err := os.ReadDir(filepath.Join(c.Cache, source.Name()))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			folder := filepath.Join(source.Name(), e.Name())
			if strings.HasPrefix(e.Name(), gonePrefix) {
				if err := os.RemoveAll(filepath.Join(c.Cache, folder)); err != nil {
					return nil, err
				}
				continue
			}
			if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
				continue
			}
			if k, ok := c.kept(folder); ok {
				list = append(list, k)
			}
		}
	}
	return list, nil
}

// kept describes a version. It reports false for one that was not fetched completely.
func (c Catalog) kept(folder string) (Kept, bool) {
	k := Kept{Folder: folder}
	dir := filepath.Join(c.Cache, folder)
	var of use
	if err := durable.ReadJSON(filepath.Join(dir, useFile), &of); err == nil {
		info, err := os.Stat(filepath.Join(dir, useFile))
		if err != nil {
			return k, false
		}
		k.Dataset, k.Bytes, k.Used = of.Dataset, of.Bytes, info.ModTime()
		return k, true
	}
	info, err := os.Stat(filepath.Join(dir, manifestFile))
	if err != nil {
		return k, false
	}
	var list manifest
	if err := durable.ReadJSON(filepath.Join(dir, manifestFile), &list); err != nil {
		return k, false
	}
	for _, f := range list.Files {
		k.Bytes += f.Size
	}
	k.Used = info.ModTime()
	return k, true
}

// Remove removes a version from the cache that was last used before a time, with its files that no other version has.
func (c Catalog) Remove(k Kept, before time.Time) error {
	if now, ok := c.kept(k.Folder); !ok || !now.Used.Before(before) {
		return nil
	}
	source, key := filepath.Split(k.Folder)
	gone := filepath.Join(c.Cache, source, gonePrefix+key)
	err := durable.Rename(filepath.Join(c.Cache, k.Folder), gone)
	if err == nil {
		err = os.RemoveAll(gone)
	}
	if err == nil {
		err = c.removeBlobs()
	}
	if err != nil {
		return fmt.Errorf("remove a dataset from the cache: %w", err)
	}
	return nil
}

// removeBlobs removes the files that no version has. One that a version links meanwhile stays a file of that version.
func (c Catalog) removeBlobs() error {
	return filepath.WalkDir(filepath.Join(c.Cache, blobsFolder), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Nlink > 1 {
			return nil
		}
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}
