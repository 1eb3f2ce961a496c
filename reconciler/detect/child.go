package detect

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A child is a running aob-detect.
type child struct {
	name   string // the subcommand
	cmd    *exec.Cmd
	stdin  *os.File
	lines  *bufio.Scanner // of its standard output
	stdout *os.File
	stderr tail
	done   chan struct{} // closed when it has ended and been waited for
	err    error         // how; to be read after done
}

// command returns the command line of a subcommand, not started.
func (d Detector) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(d.Binary, append([]string{name,
		"--library", d.Library,
		"--threads", strconv.Itoa(d.threads()),
		"--memory", d.memory().String(),
	}, args...)...)
	// A hostile model must find no secret: the child gets none of this
	// program's environment but where more libraries may lie, which a build of
	// ONNX Runtime for another processor needs.
	cmd.Env = []string{}
	if path := os.Getenv("LD_LIBRARY_PATH"); path != "" {
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+path)
	}
	cmd.Dir = "/"
	isolate(cmd)
	return cmd
}

// start starts a subcommand. The child is killed when ctx ends, and when this
// process does.
func (d Detector) start(ctx context.Context, name string, args ...string) (*child, error) {
	d, err := d.found()
	if err != nil {
		return nil, err
	}
	c := &child{name: name, cmd: d.command(name, args...), done: make(chan struct{})}
	childIn, stdin, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	stdout, childOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, childIn.Close(), stdin.Close())
	}
	c.stdin, c.stdout = stdin, stdout
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = childIn, childOut, &c.stderr
	c.cmd.WaitDelay = time.Second // for its standard error, once it is dead
	c.lines = bufio.NewScanner(stdout)
	c.lines.Buffer(nil, maxLine)

	started := make(chan error)
	go func() {
		// The kernel sends the parent-death signal when the starting thread
		// ends, so that thread is kept until the child is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		childIn.Close()
		childOut.Close()
		started <- err
		if err != nil {
			return
		}
		c.err = c.cmd.Wait()
		close(c.done)
	}()
	if err := <-started; err != nil {
		stdin.Close()
		stdout.Close()
		return nil, fmt.Errorf("start aob-detect: %w", err)
	}
	stop := context.AfterFunc(ctx, c.kill)
	go func() {
		<-c.done
		stop()
	}()
	return c, nil
}

// kill ends the child and whatever it may have started.
func (c *child) kill() {
	select {
	case <-c.done: // its number may be another's by now
	default:
		_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) // gone already is as good
	}
}

// release kills the child if it still lives, waits for it and closes the pipes.
func (c *child) release() {
	c.kill()
	<-c.done
	c.stdin.Close()
	c.stdout.Close()
}

// hear returns the child's next message. A failure that the child reports comes
// back as the error that it is; silence and nonsense as errors to explain.
func (c *child) hear() (message, error) {
	if !c.lines.Scan() {
		if err := c.lines.Err(); err != nil {
			return message{}, nonsense{err}
		}
		return message{}, errSilent
	}
	m, err := parseMessage(c.lines.Bytes())
	if err != nil {
		return message{}, nonsense{err}
	}
	if m.Failure != nil {
		return message{}, m.Failure.err()
	}
	return m, nil
}

// greet hears the child's hello.
func (c *child) greet() error {
	m, err := c.hear()
	if err != nil {
		return err
	}
	if m.Hello == nil {
		return nonsense{errors.New("no hello")}
	}
	if *m.Hello != ourHello {
		return &VersionError{fmt.Sprintf("%s speaks protocol %d with numerics %s, this program %d with %s: they are "+
			"of different versions of AOB; install both of one version",
			c.cmd.Path, m.Hello.Protocol, tidy(m.Hello.Numerics, 64), ourHello.Protocol, ourHello.Numerics)}
	}
	return nil
}

// A VersionError is of an aob-detect of another version than this program. No model is at fault.
type VersionError struct{ Why string }

func (e *VersionError) Error() string { return e.Why }

var errSilent = errors.New("it ended without an answer")

// nonsense is an answer that makes no sense.
type nonsense struct{ error }

// errPatience is why a context was ended when the child took too long.
type errPatience struct{ time.Duration }

func (e errPatience) Error() string {
	return fmt.Sprintf("gave no answer for %s and was killed", e.Duration)
}

// explain waits for the child's end and says what truly went wrong: an ended
// context, a crash, or err itself.
func (c *child) explain(ctx context.Context, err error) error {
	crash := func(why string) error {
		return &CrashError{Command: c.name, Why: tidy(why, maxWhy), Stderr: c.stderr.String()}
	}
	c.release()
	var odd nonsense
	var late errPatience
	cause := context.Cause(ctx)
	switch {
	case errors.As(cause, &late):
		return crash(late.Error())
	case cause != nil:
		return fmt.Errorf("aob-detect %s: %w", c.name, cause)
	case errors.As(err, &odd):
		return crash(fmt.Sprintf("it answered nonsense: %v", odd.error))
	case errors.Is(err, errSilent):
		return crash(c.ending())
	}
	return err
}

// ending says in words how the child ended.
func (c *child) ending() string {
	state := c.cmd.ProcessState
	status, ok := state.Sys().(syscall.WaitStatus)
	switch {
	case ok && status.Signaled() && status.Signal() == syscall.SIGKILL:
		return "it was killed; if nobody did so on purpose, the machine ran out of memory"
	case ok && status.Signaled():
		return fmt.Sprintf("it crashed (%v)", status.Signal())
	case strings.Contains(c.stderr.String(), "out of memory") ||
		strings.Contains(c.stderr.String(), "cannot allocate memory"):
		return "it ran out of the memory that it is allowed"
	}
	return fmt.Sprintf("it ended without an answer (%v)", state)
}

// A tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

const tailBytes = 4 << 10

// Write never fails: a child must not be stopped by its own complaints.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	t.kept = append(t.kept, p[max(0, n-tailBytes):]...)
	t.kept = bytes.Clone(t.kept[max(0, len(t.kept)-tailBytes):])
	return n, nil
}

// String returns the last lines, fit to print.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var lines []string
	for line := range strings.Lines(string(bytes.TrimSpace(t.kept))) {
		lines = append(lines, tidy(strings.TrimSpace(line), maxWhy))
	}
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}
