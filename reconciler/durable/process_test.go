package durable

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

func TestProcess(t *testing.T) {
	self, err := FindProcess(os.Getpid())
	if err != nil || !self.Alive() || self.Signal(0) != nil {
		t.Fatalf("this process: %+v, %v, alive %t", self, err, self.Alive())
	}
	cmd := exec.Command("/bin/sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := FindProcess(cmd.Process.Pid)
	if err != nil || !p.Alive() {
		t.Fatalf("%+v, %v", p, err)
	}
	for name, other := range map[string]Process{
		"an earlier process with this id": {p.PID, p.Start - 1, p.Boot},
		"a process of another boot":       {p.PID, p.Start, "another"},
		"the zero value":                  {},
	} {
		if err := other.Signal(syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) || other.Alive() {
			t.Errorf("%s: signal %v, alive %t", name, err, other.Alive())
		}
	}
	if !p.Alive() {
		t.Fatal("a signal to another process reached this one")
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if err := p.Signal(syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) || p.Alive() {
		t.Errorf("after it ended: signal %v, alive %t", err, p.Alive())
	}
	if _, err := FindProcess(p.PID); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("FindProcess after it ended: %v", err)
	}
}

// A child process holds the lock only after Inherit.
func TestInherit(t *testing.T) {
	for _, inherit := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "lock")
		lock, err := TryLock(path)
		if err != nil {
			t.Fatal(err)
		}
		if inherit {
			if err := lock.Inherit(); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command("/bin/cat")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := lock.Unlock(); err != nil {
			t.Fatal(err)
		}
		again, err := TryLock(path)
		if locked := errors.Is(err, ErrLocked); locked != inherit {
			t.Errorf("inherit %t: the child holds the lock %t, %v", inherit, locked, err)
		}
		if err == nil {
			again.Unlock()
		}
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		if again, err = TryLock(path); err != nil {
			t.Fatalf("after the child ended: %v", err)
		}
		again.Unlock()
	}
}
