// Package store keeps files that outlive the run that made them: detections, pictures,
// lists of training images, and the logs of runs.
//
// Users of a store declare an interface with the methods that they need, Open or Put. conformance_test.go tests every
// store. A new store is a file here and a line in cmd. [Folder] is a folder of this machine.
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
	if !fs.ValidPath(name) {
		return nil, fmt.Errorf("store: %q is no name of a file", name)
	}
	root, err := os.OpenRoot(string(f))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	info, err := root.Lstat(filepath.FromSlash(name))
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("store: %s is a link or no file", name)
	}
	if err != nil {
		return nil, err
	}
	return root.Open(filepath.FromSlash(name))
}

// Put writes a file atomically. It replaces an existing file of that name.
func (f Folder) Put(name string, data []byte) error {
	if !fs.ValidPath(name) || name == "." {
		return fmt.Errorf("store: %q is no name of a file", name)
	}
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(string(f))
	if err != nil {
		return err
	}
	defer root.Close()
	name = filepath.FromSlash(name)
	// os.Root refuses names that lead out of it.
	if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	if info, err := root.Lstat(name); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("store: %s is a link or no file", name)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return durable.WriteFile(filepath.Join(string(f), name), data, 0o600)
}
