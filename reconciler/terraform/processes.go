package terraform

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/autonomos/aob/reconciler/durable"
)

// marked returns the processes of the attempt that has this mark.
func marked(mark string) ([]durable.Process, error) { return carrying(markVariable + "=" + mark) }

// carrying returns this user's processes that were started with the variable in their environment.
func carrying(variable string) ([]durable.Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var list []durable.Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// Read the start time before the environment: a process that reuses the pid in between has another start time.
		p, err := durable.FindProcess(pid)
		if errors.Is(err, os.ErrProcessDone) {
			continue
		}
		if err != nil {
			return nil, err
		}
		env, err := os.ReadFile("/proc/" + e.Name() + "/environ")
		if err != nil {
			continue
		}
		for v := range bytes.SplitSeq(env, []byte{0}) {
			if string(v) == variable {
				list = append(list, p)
				break
			}
		}
	}
	return list, nil
}

// endOrphans kills those of the processes that are providers of Terraform and whose parent is none of them.
func endOrphans(left []durable.Process) {
	alive := map[int]bool{}
	for _, p := range left {
		alive[p.PID] = true
	}
	for _, p := range left {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID))
		if err != nil || !bytes.Contains(append([]byte{0}, env...), []byte("\x00TF_PLUGIN_MAGIC_COOKIE=")) {
			continue
		}
		if parent, err := parentOf(p.PID); err == nil && !alive[parent] {
			_ = p.Signal(syscall.SIGKILL) // one that has ended since is no error
		}
	}
}

func parentOf(pid int) (parent int, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, text, _ := strings.Cut(string(status), "\nPPid:")
	_, err = fmt.Sscan(text, &parent)
	return parent, err
}
