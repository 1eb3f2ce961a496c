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

// FolderFile is the file in a folder that holds its identity.
const FolderFile = "folder.json"

// A Folder is the identity of a folder whose files name things outside of it, as
// processes, sockets and branches. A copy of the folder holds the same file, and
// must not use those things: they belong to the original.
//
// These signs tell a copy from the folder itself:
//
//   - The inode of the folder and the time at which it was made. Every way of
//     copying files makes a new folder. They stay the same when the folder is moved
//     within its file system, when its volume is mounted elsewhere, and after a
//     reboot. They count only on file systems that keep inode numbers for good. The
//     folder's own inode is taken, because a copy may share its files (cp -al).
//   - Its path. It counts where inode numbers do not, and where it leads to a folder
//     with the same identity that is another one: that is the original.
//   - The machine's id (/etc/machine-id). It counts where both are known. In a
//     container it is not known, as it is the image's there.
//
// The number of the device does not count: it changes when a volume is mounted again.
// What no sign shows: a volume that was cloned as a whole and is mounted at the same
// path of another container, or of a machine that was cloned with it. It looks like a
// volume that was moved there.
type Folder struct {
	Format  int       `json:"format"`
	ID      string    `json:"id"`                // random
	Since   time.Time `json:"since"`             // when it got this id
	From    string    `json:"from,omitempty"`    // the id of the folder that it is a copy of, if it was adopted
	Path    string    `json:"path"`              // absolute, without symbolic links
	Host    string    `json:"host,omitempty"`    // the machine's name, for people
	Machine string    `json:"machine,omitempty"` // digest of the machine's id; empty where that is not known
	Inode   uint64    `json:"inode,omitempty"`   // 0 where the file system does not keep it
	Born    time.Time `json:"born,omitzero"`     // when the folder was made; zero where that is not known
}

// folderFormat is the format of all that lies in the folder and has no format of its own. It rises when an older
// version would read something there wrongly.
const folderFormat = 1

// Copied means that a folder is a copy of another one.
type Copied struct {
	Of   Folder // the original
	Path string // of the copy
	Why  string // by which sign that is known
}

func (c *Copied) Error() string {
	where := c.Of.Path
	if c.Of.Host != "" {
		where += " on " + c.Of.Host
	}
	return fmt.Sprintf("%s is a copy of the state folder %s, which has been in use since %s: %s",
		c.Path, where, c.Of.Since.UTC().Format("2006-01-02 15:04 UTC"), c.Why)
}

// OpenFolder returns the identity of a folder, which gets one where it has none. The
// error is a *Copied where the folder is a copy of another one.
func OpenFolder(dir string) (Folder, error) {
	now, err := identify(dir)
	if err != nil {
		return Folder{}, err
	}
	f, err := ReadFolder(dir)
	if errors.Is(err, fs.ErrNotExist) { // new, or of a version that kept no identity
		return now.keep(dir)
	}
	if err != nil {
		return Folder{}, err
	}
	there := f.Path != now.Path && isAnother(f, dir)
	if why := copied(f, now, there); why != "" {
		return Folder{}, &Copied{Of: f, Path: now.Path, Why: why}
	}
	kept := f
	kept.Format = folderFormat // an older version must not use it any more
	kept.Path, kept.Host = now.Path, now.Host
	if kept.Machine == "" {
		kept.Machine = now.Machine
	}
	if kept.Inode == 0 {
		kept.Inode = now.Inode
	}
	if kept.Born.IsZero() {
		kept.Born = now.Born
	}
	if kept == f {
		return f, nil
	}
	return kept, kept.write(dir)
}

// AdoptFolder gives a copy an identity of its own. It does nothing for a folder that is
// no copy.
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
	return now.keep(dir)
}

// copied says by which sign a folder that looks like now is a copy of f; "" for none.
// there is true where the path in f leads to another folder with f's identity.
func copied(f, now Folder, there bool) string {
	moved := f.Path != now.Path
	switch {
	case there:
		return "that folder is still there"
	case f.Machine != "" && now.Machine != "" && f.Machine != now.Machine:
		return "this is another machine"
	case f.Inode != 0 && (f.Inode != now.Inode || !f.Born.IsZero() && !now.Born.IsZero() && !f.Born.Equal(now.Born)):
		return "its files were copied into a new folder"
	case moved && (f.Inode == 0 || now.Inode == 0):
		return "it has another path, and its file system does not say whether it was moved or copied"
	}
	return ""
}

// isAnother reports whether the path in f leads to a folder with f's identity that is
// another one than dir.
func isAnother(f Folder, dir string) bool {
	other, err := ReadFolder(f.Path)
	if err != nil || other.ID != f.ID {
		return false
	}
	a, errA := os.Stat(f.Path)
	b, errB := os.Stat(dir)
	return errA == nil && errB == nil && !os.SameFile(a, b)
}

// keep gives the folder a new identity.
func (f Folder) keep(dir string) (Folder, error) {
	f.Format, f.ID, f.Since = folderFormat, strings.ToLower(rand.Text()), time.Now().UTC().Truncate(time.Second)
	return f, f.write(dir)
}

func (f Folder) write(dir string) error {
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return WriteFile(filepath.Join(dir, FolderFile), append(data, '\n'), 0o600)
}

// ReadFolder returns the identity that a folder holds, whether it is a copy or not.
func ReadFolder(dir string) (f Folder, err error) {
	path := filepath.Join(dir, FolderFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return f, err
	}
	var form struct {
		Format int `json:"format"`
	}
	if json.Unmarshal(data, &form) == nil { // the rest of a newer form may not decode
		if err := delivery.CheckFormat("the state folder "+dir, form.Format, folderFormat); err != nil {
			return f, err
		}
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return f, fmt.Errorf("%s: %w", path, err)
	}
	if f.ID == "" || !filepath.IsAbs(f.Path) {
		return f, fmt.Errorf("%s: want an id and an absolute path", path)
	}
	return f, nil
}

// identify returns by what a folder is known again: its path, machine, file system and inode.
func identify(dir string) (f Folder, err error) {
	if f.Path, err = filepath.Abs(dir); err != nil {
		return f, err
	}
	if f.Path, err = filepath.EvalSymlinks(f.Path); err != nil {
		return f, err
	}
	f.Host, _ = os.Hostname() // shown to people, if it is known
	f.Machine = machine()
	var fileSystem unix.Statfs_t
	if err := unix.Statfs(f.Path, &fileSystem); err != nil {
		return f, fmt.Errorf("file system of %s: %w", f.Path, err)
	}
	if !slices.Contains(keepsInodes, int64(fileSystem.Type)) {
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

// keepsInodes are the file systems on which a folder has one inode number for good.
// Overlays, FUSE and SMB may give it another with each mount.
var keepsInodes = []int64{unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC,
	unix.TMPFS_MAGIC, unix.NFS_SUPER_MAGIC, zfs}

const zfs = 0x2fc12fc1

// machine returns a digest of the machine's id; "" where there is none, or where it
// is a container's.
func machine() string {
	if inContainer() {
		return ""
	}
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil || len(strings.TrimSpace(string(id))) != 32 {
		return ""
	}
	sum := sha256.Sum256(append([]byte("state folder of aob "), id...)) // the id itself is not to be given away
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
