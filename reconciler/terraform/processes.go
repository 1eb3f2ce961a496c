package terraform

import (
	"bytes"
	"errors"
	"os"
	"strconv"

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
