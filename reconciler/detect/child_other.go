//go:build unix && !linux

package detect

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/autonomos/aob/reconciler/delivery"
)

// isolate puts the child into its own process group. Only on Linux does the child end with its parent.
func isolate(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// Background does nothing. Only on Linux does it lower the priority.
func Background() error { return nil }

// Confine makes new files accessible to their owner only. Only on Linux does it limit the memory.
func Confine(delivery.Bytes) error {
	unix.Umask(0o077)
	return nil
}
