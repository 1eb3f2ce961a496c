package detect

import (
	"fmt"
	"os/exec"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/autonomos/aob/reconciler/delivery"
)

// isolate puts the child into a process group of its own, and has the kernel
// kill it when the thread that started it ends.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// Confine limits this process, before it opens a model: its private memory, no
// core files, files that only the owner can use, and no more rights than it
// has. memory 0 sets no limit on memory.
//
// The limit is RLIMIT_DATA, which counts writable private memory. RLIMIT_AS
// would count address space, of which Go and ONNX Runtime reserve far more than
// they use. Past the limit an allocation fails: ONNX Runtime then reports an
// error, and Go's runtime ends the process.
func Confine(memory delivery.Bytes) error {
	unix.Umask(0o077)
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up the way to more rights: %w", err)
	}
	if err := lower(unix.RLIMIT_CORE, 0); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	if memory == 0 {
		return nil
	}
	if err := lower(unix.RLIMIT_DATA, uint64(memory)); err != nil {
		return fmt.Errorf("limit memory to %v: %w", memory, err)
	}
	debug.SetMemoryLimit(int64(memory) / 2) // collect earlier, and leave the other half to ONNX Runtime
	return nil
}

// lower sets a limit, or keeps the one in force where that is stricter.
func lower(resource int, limit uint64) error {
	var r unix.Rlimit
	if err := unix.Getrlimit(resource, &r); err != nil {
		return err
	}
	r.Max = min(r.Max, limit)
	r.Cur = r.Max
	return unix.Setrlimit(resource, &r)
}
