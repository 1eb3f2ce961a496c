package durable

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autonomos/aob/reconciler/delivery"
)

// FolderFile is the name of the file in a folder that stores its identity.
const FolderFile = "folder.json"

// A Folder is the identity of a folder whose files name things outside of it: processes, sockets and branches. A copy
// of the folder contains the same identity file. It must not use those things, because they belong to the original.
//
// A copy is distinguished from the original by:
//
//   - The inode and the birth time of the folder. Every way of copying files makes a new
//     folder. Both stay the same when the folder is moved within its file system, when
//     its volume is mounted elsewhere, and after a reboot. They are compared only on file
//     systems with permanent inode numbers. The inode of the folder is used, not of a
//     file in it, because a copy may share files with the original (cp -al).
//   - The path. A changed path means a copy if there is no permanent inode number. If
//     there is another folder with the same identity at the recorded path, that folder
//     is the original.
//   - The machine id (/etc/machine-id), if both are known. It is unknown in a container,
//     where it belongs to the image.
//
// The device number is not compared, because it changes when a volume is mounted again.
// One case is not detected: a clone of a whole volume, mounted at the same path in
// another container or on a cloned machine. It looks like a volume that was moved there.
type Folder struct {
	Format  int       `json:"format"`
	ID      string    `json:"id"`                // random
	Since   time.Time `json:"since"`             // when it got this id
	From    string    `json:"from,omitempty"`    // for an adopted copy: the id of the original
	Path    string    `json:"path"`              // absolute, without symbolic links
	Host    string    `json:"host,omitempty"`    // the host name, only shown to people
	Machine string    `json:"machine,omitempty"` // digest of the machine id; empty if unknown
	Inode   uint64    `json:"inode,omitempty"`   // 0 if the file system has no permanent inode numbers
	Born    time.Time `json:"born,omitzero"`     // birth time of the folder; zero if unknown
}

// folderFormat is the format of all files in the folder that have no format number of their own. It is increased when
// an older version would misread one of them.
const folderFormat = 1

// Copied is the error of opening a folder that is a copy of another one.
type Copied struct {
	Of   Folder // the original
	Path string // of the copy
	Why  string // how the copy was detected
}

func (c *Copied) Error() string {
	where := c.Of.Path
	if c.Of.Host != "" {
		where += " on " + c.Of.Host
	}
	return fmt.Sprintf("%s is a copy of the state folder %s, which has been in use since %s: %s",
		c.Path, where, c.Of.Since.UTC().Format("2006-01-02 15:04 UTC"), c.Why)
}

// OpenFolder returns the identity of a folder. A folder without an identity gets one. The error is a *Copied if the
// folder is a copy of another one, and a [delivery.Blocked] if a newer aob has used the folder.
func OpenFolder(dir string) (Folder, error) {
	now, err := identify(dir)
	if err != nil {
		return Folder{}, err
	}
	f, err := ReadFolder(dir)
	if errors.Is(err, fs.ErrNotExist) { // new, or last used by a version without identities
		return now.create(dir)
	}
	if err != nil {
		return Folder{}, err
	}
	originalExists := f.Path != now.Path && isAnother(f, dir)
	if why := copied(f, now, originalExists); why != "" {
		return Folder{}, &Copied{Of: f, Path: now.Path, Why: why}
	}
	updated := f
	updated.Format = folderFormat // older versions must not use the folder from now on
	updated.Path, updated.Host = now.Path, now.Host
	if updated.Machine == "" {
		updated.Machine = now.Machine
	}
	if updated.Inode == 0 {
		updated.Inode = now.Inode
	}
	if updated.Born.IsZero() {
		updated.Born = now.Born
	}
	if updated == f {
		return f, nil
	}
	return updated, updated.write(dir)
}

// AdoptFolder gives a copy a new identity. For a folder that is not a copy it does the same as OpenFolder.
func AdoptFolder(dir string) (Folder, error) {
	f, err := OpenFolder(dir)
	c, ok := errors.AsType[*Copied](err)
	if !ok {
		return f, err
	}
	now, err := identify(dir)
	if err != nil {
		return Folder{}, err
	}
	now.From = c.Of.ID
	return now.create(dir)
}

// copied returns why a folder with the recorded identity f and the present properties now is a copy, or "" if it is the
// original. originalExists means that the path in f leads to another folder with f's identity.
func copied(f, now Folder, originalExists bool) string {
	moved := f.Path != now.Path
	switch {
	case originalExists:
		return "that folder still exists"
	case f.Machine != "" && now.Machine != "" && f.Machine != now.Machine:
		return "this is another machine"
	case f.Inode != 0 && (f.Inode != now.Inode || !f.Born.IsZero() && !now.Born.IsZero() && !f.Born.Equal(now.Born)):
		return "its files were copied into a new folder"
	case moved && (f.Inode == 0 || now.Inode == 0):
		return "it has another path, and its file system does not show whether it was moved or copied"
	}
	return ""
}

// isAnother reports whether the folder at f's path has f's identity and is not dir.
func isAnother(f Folder, dir string) bool {
	other, err := ReadFolder(f.Path)
	if err != nil || other.ID != f.ID {
		return false
	}
	a, errA := os.Stat(f.Path)
	b, errB := os.Stat(dir)
	return errA == nil && errB == nil && !os.SameFile(a, b)
}

// create gives f a new id and writes it to dir.
func (f Folder) create(dir string) (Folder, error) {
	f.Format, f.ID, f.Since = folderFormat, strings.ToLower(rand.Text()), time.Now().UTC().Truncate(time.Second)
	return f, f.write(dir)
}

func (f Folder) write(dir string) error { return WriteJSON(filepath.Join(dir, FolderFile), f) }

// ReadFolder returns the identity that a folder holds, whether it is a copy or not.
func ReadFolder(dir string) (f Folder, err error) {
	path := filepath.Join(dir, FolderFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return f, err
	}
	if err := delivery.CheckFormatOf("the state folder "+dir, data, folderFormat); err != nil {
		return f, err
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return f, fmt.Errorf("%s: %w", path, err)
	}
	if f.ID == "" || !filepath.IsAbs(f.Path) {
		return f, fmt.Errorf("%s: want an id and an absolute path", path)
	}
	return f, nil
}

// identify returns the path, host, machine, inode and birth time of a folder, without an id.
func identify(dir string) (f Folder, err error) {
	if f.Path, err = filepath.Abs(dir); err != nil {
		return f, err
	}
	if f.Path, err = filepath.EvalSymlinks(f.Path); err != nil {
		return f, err
	}
	f.Host, _ = os.Hostname() // only shown to people, so an error does not matter
	f.Machine = machine()
	var fileSystem unix.Statfs_t
	if err := unix.Statfs(f.Path, &fileSystem); err != nil {
		return f, fmt.Errorf("file system of %s: %w", f.Path, err)
	}
	if !slices.Contains(permanentInodes, int64(fileSystem.Type)) {
		return f, nil
	}
	var stat unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, f.Path, 0, unix.STATX_INO|unix.STATX_BTIME, &stat); err != nil {
		return f, fmt.Errorf("stat %s: %w", f.Path, err)
	}
	f.Inode = stat.Ino
	if stat.Mask&unix.STATX_BTIME != 0 {
		f.Born = time.Unix(stat.Btime.Sec, int64(stat.Btime.Nsec)).UTC()
	}
	return f, nil
}

// permanentInodes lists the file systems on which the inode number of a folder never
// changes. Overlay, FUSE and SMB file systems may assign another one with each mount.
var permanentInodes = []int64{unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC,
	unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.NFS_SUPER_MAGIC, zfs}

const zfs = 0x2fc12fc1

// machine returns a digest of the machine id, or "" if there is none or this is a container.
func machine() string {
	if inContainer() {
		return ""
	}
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil || len(strings.TrimSpace(string(id))) != 32 {
		return ""
	}
	// machine-id(5) says that the id itself is confidential.
	sum := sha256.Sum256(append([]byte("state folder of aob "), id...))
	return hex.EncodeToString(sum[:8])
}

func inContainer() bool {
	for _, mark := range []string{"/.dockerenv", "/run/.containerenv", "/run/systemd/container"} {
		if _, err := os.Stat(mark); err == nil {
			return true
		}
	}
	var root unix.Statfs_t
	return os.Getenv("KUBERNETES_SERVICE_HOST") != "" || unix.Statfs("/", &root) == nil &&
		root.Type == unix.OVERLAYFS_SUPER_MAGIC
}

// FreeSpace returns how many bytes this user may write to the disk of a folder. The folder may be missing.
func FreeSpace(folder string) (int64, error) {
	free, _, err := Space(folder)
	return free, err
}

// Space returns how many bytes this user may write to the disk of a folder, and how many bytes the disk has. The folder
// may be missing.
func Space(folder string) (free, all int64, err error) {
	var disk unix.Statfs_t
	err = unix.Statfs(folder, &disk)
	for errors.Is(err, unix.ENOENT) && filepath.Dir(folder) != folder {
		folder = filepath.Dir(folder)
		err = unix.Statfs(folder, &disk)
	}
	return int64(disk.Bavail) * int64(disk.Bsize), int64(disk.Blocks) * int64(disk.Bsize), err
}
