package engine

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"time"
)

// run runs a program and returns the first and the last part of what it prints. The program ends with ctx, and with
// this process.
func run(ctx context.Context, path string, args []string) ([]byte, error) {
	// The kernel ends the program when the thread that has started it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = "/"
	cmd.Env = []string{} // no secrets: it reads a model that nobody has trusted yet
	for _, name := range []string{"PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"} {
		if v := os.Getenv(name); v != "" {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	var out ends
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second
	endWithParent(cmd)
	err := cmd.Run()
	if cause := context.Cause(ctx); cause != nil {
		err = errors.Join(cause, err)
	}
	return out.bytes(), err
}

// ends keeps the first and the last part of what is written to it.
type ends struct{ first, last []byte }

const part = 256 << 10

// Write never fails.
func (e *ends) Write(p []byte) (int, error) {
	n := len(p)
	taken := min(n, part-len(e.first))
	e.first = append(e.first, p[:taken]...)
	e.last = append(e.last, p[taken:]...)
	if len(e.last) > 2*part {
		e.last = append([]byte(nil), e.last[len(e.last)-part:]...)
	}
	return n, nil
}

func (e *ends) bytes() []byte { return append(append([]byte(nil), e.first...), e.last...) }
