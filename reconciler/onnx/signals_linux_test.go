package onnx

import (
	"os"
	"os/signal"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The test replaces a handler with the system call that a library would use, which
// os/signal does not notice.
func TestKeepSignals(t *testing.T) {
	arrived := make(chan os.Signal, 1)
	signal.Notify(arrived, unix.SIGUSR2)
	defer signal.Stop(arrived)

	restore := keepSignals()
	var ignore [64]byte
	ignore[0] = 1 // SIG_IGN
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGUSR2), uintptr(unsafe.Pointer(&ignore)),
		0, 8, 0, 0); errno != 0 {
		t.Fatal(errno)
	}
	restore()

	if err := unix.Kill(os.Getpid(), unix.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	select {
	case <-arrived:
	case <-time.After(10 * time.Second):
		t.Fatal("SIGUSR2 did not reach Go after the handlers were restored")
	}
}
