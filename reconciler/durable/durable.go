// Package durable replaces files atomically and durably: after a crash or a power cut,
// a file has its old content or its new content.
//
// Replacing a file durably takes five steps: write a temporary file in the same
// folder, fsync it, rename it to the final name, fsync the folder, and check the error of
// each step. Without the fsync of the folder, a power cut can undo the rename.
//
// The package also has advisory file locks, by which processes of one machine know
// whether another one is alive: the kernel releases the locks of a process that ends.
package durable

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// WriteFile replaces the file at path with data. When it returns nil, data survives a power cut. When it returns an
// error, the file has its old content, or the new content without the guarantee.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	tmp := f.Name()
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(perm), f.Sync(), f.Close())
	if err == nil {
		err = Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// Rename moves a file or folder, and makes the move durable. Its content must be durable
// already. Both paths must be on one file system.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	if err := SyncDir(filepath.Dir(to)); err != nil {
		return err
	}
	if filepath.Dir(from) != filepath.Dir(to) {
		return SyncDir(filepath.Dir(from))
	}
	return nil
}

// SyncDir makes the list of names in a folder durable, with fsync.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ErrNotPrivate means that other users may read a folder, and that its mode cannot be changed.
var ErrNotPrivate = errors.New("the access of other users cannot be removed")

// PrivateFolder creates a folder with mode 0700. If the folder exists and group or others
// have any access to it, which earlier versions allowed, PrivateFolder removes that access
// from the folder and everything in it. Symbolic links in it are not followed.
func PrivateFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm()&0o077 == 0 {
		return err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil { // the folder itself may be a link
		return err
	}
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a running job has removed it
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrNotPrivate, err)
		}
		if !e.IsDir() && !e.Type().IsRegular() {
			return nil
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || info.Mode().Perm()&0o077 == 0 {
			return err
		}
		if err := os.Chmod(path, info.Mode()&^0o077); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %w", ErrNotPrivate, err)
		}
		return nil
	})
}

// SyncTree calls fsync on every regular file and folder under dir, children first.
func SyncTree(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			dirs = append(dirs, path)
			return nil
		}
		if !e.Type().IsRegular() {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
	for i := len(dirs) - 1; i >= 0 && err == nil; i-- {
		err = SyncDir(dirs[i])
	}
	return err
}

// A Lock is held until Unlock is called or the process ends. Child processes do not
// inherit it, because Go opens files close-on-exec, unless [Lock.Inherit] is called.
type Lock struct{ f *os.File }

// ErrLocked means that another process holds the lock.
var ErrLocked = errors.New("locked by another process")

// TryLock takes the exclusive lock on the file at path. It creates the file if needed. It
// does not wait: the error is ErrLocked if another process holds the lock.
func TryLock(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return lock(f)
}

func lock(f *os.File) (*Lock, error) {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", f.Name(), ErrLocked)
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return &Lock{f}, nil
}

// TryLockFolder creates a folder, if needed, and takes the exclusive lock on it, as TryLock does. Who has the lock may
// rename or remove the folder; the lock then is of no use to others, who get one on a new folder.
func TryLockFolder(path string) (*Lock, error) {
	for {
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was renamed or removed in between
		}
		if err != nil {
			return nil, err
		}
		l, err := lock(f)
		if err != nil {
			return nil, err
		}
		locked, err := f.Stat()
		if now, gone := os.Lstat(path); err == nil && gone == nil && os.SameFile(locked, now) {
			return l, nil
		}
		if err := errors.Join(err, l.Unlock()); err != nil {
			return nil, err
		}
	}
}

// WaitLock takes the exclusive lock on the file at path. It waits until the lock is free or ctx ends.
func WaitLock(ctx context.Context, path string) (*Lock, error) {
	return wait(ctx, func() (*Lock, error) { return TryLock(path) })
}

// WaitLockFolder is TryLockFolder that waits until the lock is free or ctx ends.
func WaitLockFolder(ctx context.Context, path string) (*Lock, error) {
	return wait(ctx, func() (*Lock, error) { return TryLockFolder(path) })
}

func wait(ctx context.Context, try func() (*Lock, error)) (*Lock, error) {
	// A blocking flock cannot be cancelled. Polling is cheap, as most locks are held for milliseconds.
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		lock, err := try()
		if !errors.Is(err, ErrLocked) {
			return lock, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("%w: %w", err, ctx.Err())
		case <-timer.C:
		}
	}
}

// Unlock releases the lock. The file is not removed.
func (l *Lock) Unlock() error { return l.f.Close() }
