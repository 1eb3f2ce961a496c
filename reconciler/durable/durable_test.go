package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/autonomos/aob/reconciler/durable"
)

// PrivateFolder changes the modes in a folder, but not of what links in it point to.
func TestPrivateFolder(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "other")
	state := filepath.Join(dir, "state")
	for _, path := range []string{other, state, filepath.Join(state, "sub")} {
		if err := errors.Join(os.Mkdir(path, 0o755), os.Chmod(path, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	for path, mode := range map[string]fs.FileMode{"other/file": 0o644, "state/file": 0o644, "state/sub/run.sh": 0o755,
		"state/sub/sealed": 0o444} {
		if err := errors.Join(os.WriteFile(filepath.Join(dir, path), nil, 0o600), os.Chmod(filepath.Join(dir, path),
			mode)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink(other, filepath.Join(state, "folder")), os.Symlink(filepath.Join(other, "file"),
		filepath.Join(state, "link")),
		os.Symlink(state, filepath.Join(dir, "name"))); err != nil {
		t.Fatal(err)
	}
	if err := durable.PrivateFolder(filepath.Join(dir, "name")); err != nil { // through a link
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{"other": 0o755, "other/file": 0o644, "state": 0o700,
		"state/file": 0o600, "state/sub": 0o700,
		"state/sub/run.sh": 0o700, "state/sub/sealed": 0o400} {
		if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, want %v", path, info.Mode(), want)
		}
	}
	made := filepath.Join(dir, "made", "state")
	if err := durable.PrivateFolder(made); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(made); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("a new folder: %v, %v", info.Mode(), err)
	}
}
