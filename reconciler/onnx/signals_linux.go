package onnx

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// keepSignals notes how every signal is handled and returns a function that
// brings it back. A library that ONNX Runtime loads (CUDA does) may put its own
// handlers over those of Go's runtime, and SIGTERM would then no longer reach
// os/signal. Registering again in Go does not help: the runtime believes that
// its handlers are still there.
func keepSignals() (restore func()) {
	// The kernel's struct sigaction differs between processors; it is only ever
	// handed back, so its size is all that matters, and 64 bytes hold any.
	type action [64]byte
	const maskBytes = 8
	const last = 64
	var saved [last + 1]action
	var known [last + 1]bool
	for sig := 1; sig <= last; sig++ {
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&saved[sig])),
			maskBytes, 0, 0)
		known[sig] = errno == 0
	}
	return func() {
		for sig := 1; sig <= last; sig++ {
			if known[sig] && sig != int(unix.SIGKILL) && sig != int(unix.SIGSTOP) {
				unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&saved[sig])), 0,
					maskBytes, 0, 0)
			}
		}
	}
}
