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

// maxSocketPath is the longest path that every Unix takes for a socket.
const maxSocketPath = 103

// ListenSocket listens on a Unix socket that only this user may open. The socket
// of a server that is gone is replaced; one that a server still answers on is
// not, and the error is a Blocked one. Closing the listener removes the socket.
func ListenSocket(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, delivery.Blockedf("name a shorter one in the configuration: socket: /run/aob.sock",
			"the socket's path has %d bytes, %d are allowed: %s", len(path), maxSocketPath, path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	// The lock, not the socket, says whether a server is alive: a socket stays
	// behind when its server is killed.
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
	return delivery.Blockedf("end the other one first, or give this one a state and a socket of its own",
		"another aob serve answers on %s", path)
}

// bind makes the socket under another name, closes it to others, and only then
// puts it in its place: there is no moment at which somebody else may open it,
// and none without a socket where there was one.
func bind(path string) (net.Listener, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	case info.Mode()&fs.ModeSocket == 0:
		return nil, delivery.Blockedf("move it away, or name another socket in the configuration",
			"%s is there and is no socket", path)
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
		return nil, delivery.Blockedf("name a socket in a folder with a shorter path",
			"the path %s is too long for a socket", path)
	}
	l, err := net.Listen("unix", temporary)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // it will not be there
	if err := errors.Join(os.Chmod(temporary, 0o600), os.Rename(temporary, path)); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// A socket is a listener that removes what it leaves behind.
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
