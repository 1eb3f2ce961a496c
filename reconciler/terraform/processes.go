package terraform

import (
	"bytes"
	"errors"
	"os"
	"strconv"

	"github.com/autonomos/aob/reconciler/durable"
)

// marked returns the processes whose environment carries the mark. Those of
// other users cannot be read, and are not ours.
func marked(mark string) ([]durable.Process, error) {
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
		// Named before its environment is read: a process that takes over the id
		// in between has another name.
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
			if string(v) == markVariable+"="+mark {
				list = append(list, p)
				break
			}
		}
	}
	return list, nil
}
