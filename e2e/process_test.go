package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A process is one of the story's programs.
type process struct {
	name string
	log  string // the file of what it prints
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	killed bool // by the test itself
}

// launch starts a program with nothing in its environment but env, and ends it
// with the test.
func launch(t *testing.T, log string, env []string, program string, args ...string) *process {
	t.Helper()
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p := &process{name: strings.TrimSuffix(filepath.Base(log), ".log"), log: log, cmd: exec.Command(program, args...),
		done: make(chan struct{})}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = env, out, out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		if err := p.end(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the last words of %s:\n%s", p.name, tail(p.log, 4<<10))
		}
	})
	return p
}

// end asks a process to end, and returns an error where it does not, or says
// that it failed.
func (p *process) end() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end when it was asked to", p.name)
	}
	if !p.killed && !p.cmd.ProcessState.Success() {
		return fmt.Errorf("%s ended: %s", p.name, p.cmd.ProcessState)
	}
	return nil
}

// alive returns an error where a process has ended.
func (p *process) alive() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended: %s", p.name, p.cmd.ProcessState)
	default:
		return nil
	}
}

// belonging lists the processes that name a folder in their command line: what
// was started there by others than the test, as runners and trainers.
func belonging(folder string) map[int]string {
	found := map[int]string{}
	entries, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range entries {
		line, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(line, []byte(folder)) {
			continue // it has ended, or is another's
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			found[pid] = strings.Join(strings.FieldsFunc(string(line), func(r rune) bool { return r == 0 }), " ")
		}
	}
	return found
}

// killBelonging ends what a failed test leaves.
func killBelonging(t *testing.T, folder string) {
	for pid, line := range belonging(folder) {
		t.Logf("killed: %s", line)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// patience is how long a story waits for any one thing. It is long, so that a
// machine which does other things besides fails no test.
const patience = 10 * time.Minute

// until asks again and again until check has nothing to object. Its last
// objection says what was waited for.
func until(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		var ended fatal
		if errors.As(err, &ended) {
			t.Fatal(err)
		}
		select {
		case <-deadline.C:
			t.Fatalf("after %s still: %v", patience, err)
		case <-t.Context().Done():
			t.Fatal(err)
		case <-tick.C:
		}
	}
}

// A fatal error is one that waiting does not settle.
type fatal struct{ error }

// output runs a command and returns what it prints on standard output.
func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args[1:], " "), err,
			strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// tail returns the last lines of a file, of n bytes at most.
func tail(path string, n int) string {
	data, _ := os.ReadFile(path)
	if len(data) > n {
		data = data[len(data)-n:]
		data = data[bytes.IndexByte(data, '\n')+1:]
	}
	return string(data)
}

// median returns the middle of an odd number of durations.
func median(list []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(list))[len(list)/2]
}
