// Package store keeps what one run leaves for other runs and for readers: training inputs, lists of training images,
// detections, pictures and logs.
//
// Users of a store declare an interface with the methods that they need of Open, Put and Local. conformance_test.go
// tests every store. A new store is a file here and a line in cmd. [Folder] is a folder of this machine.
package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/autonomos/aob/reconciler/durable"
)

// A Folder keeps files below a folder of this machine.
type Folder string

// Open opens a file by its name, a path with slashes. A missing file is fs.ErrNotExist. Links, devices and names
// outside the store are errors. An open file keeps its content when Put replaces it.
func (f Folder) Open(name string) (io.ReadSeekCloser, error) {
	info, err := f.find(name)
	if err == nil && info.IsDir() {
		err = fmt.Errorf("store: %s is a folder", name)
	}
	if err != nil {
		return nil, err
	}
	return os.OpenInRoot(string(f), filepath.FromSlash(name))
}

// Local returns the path of a folder of the store, on this machine. A missing folder is fs.ErrNotExist. Nothing in it
// may be changed. Stores on other machines copy it to dir, which this one does not use.
func (f Folder) Local(name, dir string) (path string, err error) {
	info, err := f.find(name)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("store: %s is no folder", name)
	}
	return f.path(name), err
}

// Put stores the file or folder at path under a name. It replaces a file atomically, and a folder as a whole. Links in
// it are errors. Its files may become hard links, so the caller may remove or replace, but not change them. Nothing
// happens if path is the place where the store keeps that name.
func (f Folder) Put(name, path string) error {
	put, err := os.Lstat(path)
	if err != nil {
		return err
	}
	old, err := f.find(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case os.SameFile(old, put):
		return nil
	case old.IsDir() != put.IsDir():
		return fmt.Errorf("store: %s: a file cannot replace a folder, or a folder a file", name)
	}
	parent := filepath.Dir(f.path(name))
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(parent, ".put-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	fresh := filepath.Join(tmp, "new")
	err = filepath.WalkDir(path, func(at string, e fs.DirEntry, err error) error {
		target := filepath.Join(fresh, at[len(path):])
		switch {
		case err != nil:
			return err
		case e.IsDir():
			return os.Mkdir(target, 0o700)
		case !e.Type().IsRegular():
			return fmt.Errorf("store: %s is a link or no file", at)
		}
		return durable.Link(at, target)
	})
	if err == nil {
		err = durable.SyncTree(fresh)
	}
	if err == nil && put.IsDir() {
		err = os.RemoveAll(f.path(name))
	}
	if err != nil {
		return err
	}
	return durable.Rename(fresh, f.path(name))
}

func (f Folder) path(name string) string { return filepath.Join(string(f), filepath.FromSlash(name)) }

// find describes a file or folder. os.Root refuses names that lead out of the store.
func (f Folder) find(name string) (fs.FileInfo, error) {
	if !fs.ValidPath(name) || name == "." {
		return nil, fmt.Errorf("store: %q is no name", name)
	}
	root, err := os.OpenRoot(string(f))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	info, err := root.Lstat(filepath.FromSlash(name))
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		err = fmt.Errorf("store: %s is a link or no file", name)
	}
	return info, err
}
