package detect

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Background gives this process only the processor time that others leave. Call it before a model is loaded: threads
// that start later inherit it.
func Background() error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("lower the priority: %w", err)
	}
	idle := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}
	for _, task := range tasks {
		id, err := strconv.Atoi(task.Name())
		if err != nil {
			continue
		}
		if err := unix.SchedSetAttr(id, idle, 0); err != nil && err != unix.ESRCH { // ESRCH: it has ended
			return fmt.Errorf("lower the priority: %w", err)
		}
	}
	return nil
}
