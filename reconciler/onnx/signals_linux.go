package onnx

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// keepSignals saves the handlers of all signals and returns a function that restores them. A library that ONNX Runtime
// loads (CUDA does) may replace the handlers of Go's runtime, and SIGTERM would then no longer reach os/signal. Calling
// signal.Notify again does not help, because the runtime does not know that its handlers were replaced.
func keepSignals() (restore func()) {
	// The kernel's struct sigaction differs between processors. It is only passed back,
	// so only its size matters, and 64 bytes are enough for all.
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
