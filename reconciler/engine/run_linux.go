package engine

import (
	"os/exec"
	"syscall"
)

// endWithParent lets the kernel kill a program when this process ends.
func endWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
