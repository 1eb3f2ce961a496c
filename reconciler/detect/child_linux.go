package detect

import (
	"fmt"
	"os/exec"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/autonomos/aob/reconciler/delivery"
)

// isolate puts the child into its own process group. The kernel kills it when the thread that started it ends.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// Confine limits this process before it opens a model: its private memory, no core files, files that
// only the owner can access, and no new privileges. With memory 0 the memory is not limited.
//
// The limit is RLIMIT_DATA, which counts writable private memory. RLIMIT_AS would count address space,
// of which Go and ONNX Runtime reserve far more than they use. Above the limit allocations fail: ONNX
// Runtime then returns an error, and Go's runtime ends the process.
func Confine(memory delivery.Bytes) error {
	unix.Umask(0o077)
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if err := lowerLimit(unix.RLIMIT_CORE, 0); err != nil {
		return fmt.Errorf("disable core files: %w", err)
	}
	if memory == 0 {
		return nil
	}
	if err := lowerLimit(unix.RLIMIT_DATA, uint64(memory)); err != nil {
		return fmt.Errorf("limit memory to %v: %w", memory, err)
	}
	debug.SetMemoryLimit(int64(memory) / 2) // collect garbage earlier, and leave the other half to ONNX Runtime
	return nil
}

// lowerLimit sets a limit, unless the current one is stricter.
func lowerLimit(resource int, limit uint64) error {
	var r unix.Rlimit
	if err := unix.Getrlimit(resource, &r); err != nil {
		return err
	}
	r.Max = min(r.Max, limit)
	r.Cur = r.Max
	return unix.Setrlimit(resource, &r)
}
