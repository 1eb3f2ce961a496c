package engine

// This file lists engines, and removes those that nobody has used for long. An engine can always be built again from
// its bundle.

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// goneFolder has engines that are being removed.
const goneFolder = ".gone"

// A Kept is an engine in a cache.
type Kept struct {
	Path  string // in the cache: release, GPU, version of TensorRT and key
	Bytes int64
	Used  time.Time // when it was built or used last
}

// A Cache is a folder of engines.
type Cache string

// Kept lists the engines, and what a killed build has left. A folder that is missing has none.
func (c Cache) Kept() ([]Kept, error) {
	folders, err := filepath.Glob(filepath.Join(string(c), "*", "*", "*", "*"))
	if err != nil {
		return nil, err
	}
	var list []Kept
	for _, folder := range folders {
		info, err := os.Lstat(folder)
		if err != nil || !info.IsDir() {
			continue
		}
		path, err := filepath.Rel(string(c), folder)
		if err != nil {
			return nil, err
		}
		k := Kept{Path: path, Used: info.ModTime()}
		files, _ := os.ReadDir(folder)
		for _, f := range files {
			if info, err := f.Info(); err == nil {
				k.Bytes += info.Size()
			}
		}
		list = append(list, k)
	}
	return list, nil
}

// Remove removes an engine that was last used before a time. It returns a [delivery.Wait] while an engine is built.
func (c Cache) Remove(k Kept, before time.Time) error {
	lock, err := durable.TryLock(filepath.Join(string(c), lockFile))
	if errors.Is(err, durable.ErrLocked) {
		return delivery.Wait{For: time.Minute, What: "an engine is built, or read, and none is removed meanwhile"}
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	gone := filepath.Join(string(c), goneFolder)
	if err := os.RemoveAll(gone); err != nil { // of a killed process
		return err
	}
	folder := filepath.Join(string(c), k.Path)
	info, err := os.Lstat(folder)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.ModTime().Before(before) {
		return nil
	}
	if err == nil {
		err = durable.Rename(folder, gone) // half an engine never counts as one
	}
	if err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(gone), removeEmpty(string(c)))
}

// Finish removes what a killed process has left of an engine that it removed.
func (c Cache) Finish() error {
	gone := filepath.Join(string(c), goneFolder)
	if _, err := os.Lstat(gone); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lock, err := durable.TryLock(filepath.Join(string(c), lockFile))
	if errors.Is(err, durable.ErrLocked) {
		return nil // the next time
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return errors.Join(os.RemoveAll(gone), removeEmpty(string(c)))
}

// used notes that an engine is used. The caller holds the lock. Where the time cannot be set, the engine is built again
// one day.
func used(folder string) {
	now := time.Now()
	_ = os.Chtimes(folder, now, now)
}
