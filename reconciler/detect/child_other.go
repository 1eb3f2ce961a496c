//go:build unix && !linux

package detect

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/autonomos/aob/reconciler/delivery"
)

// isolate puts the child into a process group of its own. Only Linux can tie it
// to its parent's life.
func isolate(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// Confine makes new files the owner's alone. The limit on memory is Linux's.
func Confine(delivery.Bytes) error {
	unix.Umask(0o077)
	return nil
}
