// Package store keeps the files that outlive the run that made them: detections,
// pictures, lists of images that trainings saw, and the logs of runs.
//
// Who needs a store declares what it needs of it, Open or Put. A store passes the suite
// in conformance_test.go; a new one is a file here and a line in cmd. [Folder] is a
// folder of this machine.
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

// Open opens a file by its name, a path with slashes. One that is not there is
// fs.ErrNotExist. Links and devices are refused, and so are names that leave the store.
// A file that is replaced stays for its readers as it was.
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

// Put writes a file, whole or not at all, and replaces the one that has its name.
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
	// The root refuses parts that lead out of it.
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
