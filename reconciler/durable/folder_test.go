package durable

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A folder keeps its identity when it is opened again, opened through a link, or moved. A
// copy of it is detected, and stays a copy until it is adopted.
func TestCopyOfFolderIsRecognised(t *testing.T) {
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", args, err, out)
		}
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.Mkdir(at("state"), 0o700); err != nil {
		t.Fatal(err)
	}
	first, err := OpenFolder(at("state"))
	if err != nil || len(first.ID) < 20 {
		t.Fatalf("%+v, %v", first, err)
	}
	same := func(name string) {
		t.Helper()
		if again, err := OpenFolder(at(name)); err != nil || again.ID != first.ID {
			t.Errorf("%s: %+v, %v; want %s", name, again, err, first.ID)
		}
	}
	same("state")
	run("ln", "-s", "state", at("link"))
	same("link")
	run("mv", at("state"), at("moved"))
	same("moved")
	run("mv", at("moved"), at("state"))
	same("state")

	for name, how := range map[string][]string{"cp": {"cp", "-a"}, "links": {"cp", "-al"}, "files": {"cp", "-r"}} {
		run(append(how, at("state"), at(name))...)
		for range 2 { // opening it does not adopt it
			_, err := OpenFolder(at(name))
			c, ok := errors.AsType[*Copied](err)
			if !ok || c.Of.ID != first.ID || c.Why != "that folder still exists" ||
				!strings.Contains(err.Error(), at("state")) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	same("state") // opening the cp -al copy wrote nothing through its hard links

	// The original is lost, and a backup takes its place.
	run("rm", "-r", at("state"))
	if _, err := OpenFolder(at("cp")); err == nil || !strings.Contains(err.Error(), "copied into a new folder") {
		t.Errorf("a backup whose original is gone: %v", err)
	}
	run("cp", "-a", at("cp"), at("state"))
	if _, err := OpenFolder(at("state")); err == nil {
		t.Error("a backup that was restored at the original's path is not recognised")
	}
	adopted, err := AdoptFolder(at("state"))
	if err != nil || adopted.ID == first.ID || adopted.From != first.ID {
		t.Fatalf("adopted: %+v, %v", adopted, err)
	}
	if again, err := AdoptFolder(at("state")); err != nil || again != adopted {
		t.Errorf("adopted twice: %+v, %v", again, err)
	}
	if again, err := OpenFolder(at("state")); err != nil || again != adopted {
		t.Errorf("afterwards: %+v, %v", again, err)
	}
}

// No change to the original makes it a copy, and every way of copying it is detected.
func TestCopied(t *testing.T) {
	born := time.Date(2026, 11, 1, 8, 0, 0, 123, time.UTC)
	on := func(change func(*Folder)) Folder {
		f := Folder{ID: "x", Path: "/srv/state", Machine: "m1", Inode: 2, Born: born}
		if change != nil {
			change(&f)
		}
		return f
	}
	noMachine := func(f *Folder) { f.Machine = "" }
	noInode := func(f *Folder) { f.Inode, f.Born = 0, time.Time{} }
	for name, c := range map[string]struct {
		recorded, now  Folder
		originalExists bool
		copied         bool
	}{
		"the same": {on(nil), on(nil), false, false},
		"moved within its file system": {on(nil), on(func(f *Folder) { f.Path = "/srv/other" }),
			false, false},
		"a volume in a container": {on(noMachine), on(noMachine), false, false},
		"a volume that was used on the host before": {on(nil), on(func(f *Folder) {
			f.Path, f.Machine = "/state", ""
		}), false, false},
		"a volume that another node of a cluster mounts": {on(noMachine), on(noMachine), false, false},
		"a file system without inodes, restarted":        {on(noInode), on(noInode), false, false},
		"a birth time that was unknown before": {
			on(func(f *Folder) { f.Born = time.Time{} }), on(nil), false, false},
		"an inode number that was unknown before": {on(noInode), on(nil), false, false},

		"copied beside the original": {on(nil), on(func(f *Folder) {
			f.Path, f.Inode = "/srv/copy", 7
		}), true, true},
		"a snapshot mounted beside the original": {on(nil), on(func(f *Folder) { f.Path = "/mnt/snapshot" }),
			true, true},
		"copied, on a file system without inodes": {on(noInode),
			on(func(f *Folder) { noInode(f); f.Path = "/srv/copy" }), false, true},
		"restored at the same path": {on(nil), on(func(f *Folder) { f.Inode = 7 }), false, true},
		"restored as the root of a new volume": {on(nil), on(func(f *Folder) {
			f.Born = born.Add(time.Hour)
		}), false, true},
		"restored on another machine, with the same inode": {on(nil), on(func(f *Folder) {
			f.Machine, f.Born = "m2", time.Time{}
		}), false, true},
		"restored on a file system without inodes": {on(nil), on(noInode), false, true},
		"a disk that another machine mounts":       {on(nil), on(func(f *Folder) { f.Machine = "m2" }), false, true},
		"restored in another container": {on(noMachine), on(func(f *Folder) { noMachine(f); f.Inode = 7 }),
			false, true},
	} {
		if why := copied(c.recorded, c.now, c.originalExists); (why != "") != c.copied {
			t.Errorf("%s: %q", name, why)
		}
	}
}

func TestDamagedFolderIdentityIsRefused(t *testing.T) {
	for _, text := range []string{"", "{", "{}", `{"format": 1, "id": "x"}`,
		`{"format": 1, "id": "x", "path": "state"}`, `{"format": 99, "id": "x", "path": "/state"}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, FolderFile), []byte(text), fs.FileMode(0o600)); err != nil {
			t.Fatal(err)
		}
		if f, err := OpenFolder(dir); err == nil {
			t.Errorf("%q: %+v", text, f)
		}
	}
}

// A folder of a newer version is refused and not changed. A folder of this version gets its format number.
func TestFolderOfANewerVersionIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"the same fields":       `{"format": 2, "id": "abcdefghijklmnopqrstuvwxyz", "path": "/srv/state"}`,
		"fields of other types": `{"format": 3, "id": ["a", "b"], "path": {}}`,
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, FolderFile)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for what, open := range map[string]func(string) (Folder, error){"open": OpenFolder, "adopt": AdoptFolder} {
			_, err := open(dir)
			b, ok := errors.AsType[delivery.Blocked](err)
			if !ok || !strings.Contains(b.What, dir+" was written by a newer aob: it has format") ||
				!strings.Contains(b.Do, "start that version of aob") {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%s: the file is %s, %v", name, got, err)
		}
	}
	dir := t.TempDir()
	f, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	f.Format = 0
	if err := f.write(dir); err != nil {
		t.Fatal(err)
	}
	if again, err := OpenFolder(dir); err != nil || again.Format != folderFormat || again.ID != f.ID {
		t.Errorf("opened again: %+v, %v", again, err)
	}
}
