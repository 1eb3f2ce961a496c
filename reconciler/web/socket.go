package web

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// maxSocketPath is the longest path of a socket that all Unix systems accept.
const maxSocketPath = 103

// ListenSocket listens on a Unix socket that only this user can open. The stale socket of a server
// that has ended is replaced. If another server is running on it, the error is a [delivery.Blocked].
// Closing the listener removes the socket.
func ListenSocket(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, delivery.Blockedf("set a shorter path in the configuration, such as socket: /run/aob.sock",
			"the socket's path has %d bytes, and the limit is %d: %s", len(path), maxSocketPath, path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	// The lock tells whether a server is running: the socket of a killed server remains.
	lock, err := durable.TryLock(path + ".lock")
	if errors.Is(err, durable.ErrLocked) {
		return nil, inUse(path)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l, err := bind(path)
	if err != nil {
		lock.Unlock()
		return nil, err
	}
	return &socket{Listener: l, path: path, lock: lock}, nil
}

func inUse(path string) error {
	return delivery.Blockedf("stop the other server first, or set another state folder and socket for this one",
		"another aob serve is running on %s", path)
}

// bind creates the socket under another name, restricts its mode, and renames it. So no other user can
// open it at any moment, and an old socket is replaced atomically.
func bind(path string) (net.Listener, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	case info.Mode()&fs.ModeSocket == 0:
		return nil, delivery.Blockedf("move it away, or set another socket in the configuration",
			"%s exists and is not a socket", path)
	default:
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			c.Close()
			return nil, inUse(path)
		}
	}
	folder, err := os.MkdirTemp(filepath.Dir(path), ".s") // 0700
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer os.RemoveAll(folder)
	temporary := filepath.Join(folder, "s")
	if len(temporary) > maxSocketPath {
		return nil, delivery.Blockedf("set a socket in a folder with a shorter path",
			"the path %s is too long for a socket", path)
	}
	l, err := net.Listen("unix", temporary)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // it will have been renamed
	if err := errors.Join(os.Chmod(temporary, 0o600), os.Rename(temporary, path)); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// A socket is a listener that removes its socket file and unlocks on Close.
type socket struct {
	net.Listener
	path string
	lock *durable.Lock
	once sync.Once
}

func (s *socket) Close() error {
	err := s.Listener.Close()
	s.once.Do(func() {
		os.Remove(s.path)
		s.lock.Unlock()
	})
	return err
}
