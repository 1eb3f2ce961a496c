package detect

import (
	"bufio"
	"bytes"
	"cmp"
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

	"github.com/autonomos/aob/reconciler/delivery"
)

// A child is a running aob-detect.
type child struct {
	name   string // the subcommand
	cmd    *exec.Cmd
	stdin  *os.File
	lines  *bufio.Scanner // of its standard output
	stdout *os.File
	stderr tail
	done   chan struct{} // closed after the process has ended and was waited for
	err    error         // of Wait; valid after done is closed
}

// command returns the command of a subcommand. It is not started.
func (d Detector) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(d.Binary, append(append([]string{name}, d.flags()...), args...)...)
	// A hostile model must find no secrets, so the child does not inherit the environment. It only gets what builds of
	// ONNX Runtime for other processors need.
	cmd.Env = []string{}
	for _, name := range []string{"LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "AOB_TRTEXEC"} {
		if v := os.Getenv(name); v != "" {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	cmd.Dir = "/"
	isolate(cmd)
	return cmd
}

// flags returns the flags of all subcommands.
func (d Detector) flags() []string {
	flags := []string{"--library", d.Library}
	if d.Threads > 0 || d.Profile == "" {
		flags = append(flags, "--threads", strconv.Itoa(cores(d.Threads)))
	}
	if d.MemoryLimit > 0 || d.Profile == "" {
		flags = append(flags, "--memory", cmp.Or(d.MemoryLimit, defaultMemory).String())
	}
	if d.Profile != "" {
		flags = append(flags, "--profile", d.Profile, "--cache", d.Engines)
	}
	if d.Profiles != "" {
		flags = append(flags, "--profiles", d.Profiles)
	}
	return flags
}

// start starts a subcommand. The child is killed when ctx is done, and when this process ends.
func (d Detector) start(ctx context.Context, name string, args ...string) (*child, error) {
	d, err := d.Find()
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
	c.cmd.WaitDelay = time.Second // for its standard error after its end
	c.lines = bufio.NewScanner(stdout)
	c.lines.Buffer(nil, maxLine)

	started := make(chan error)
	go func() {
		// The kernel sends the parent-death signal when the thread that started the child ends, so this thread
		// is kept until the child has ended.
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

// kill ends the child's process group.
func (c *child) kill() {
	select {
	case <-c.done: // the process id may be reused by now
	default:
		_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) // an error means that it has ended already
	}
}

// cleanup kills the child if it is still running, waits for it and closes the pipes.
func (c *child) cleanup() {
	c.kill()
	<-c.done
	c.stdin.Close()
	c.stdout.Close()
}

// readMessage reads the child's next message. A failure that the child reports is returned as the error that
// it describes. Missing or invalid output is an error for rootCause.
func (c *child) readMessage() (message, error) {
	if !c.lines.Scan() {
		if err := c.lines.Err(); err != nil {
			return message{}, invalidOutput{err}
		}
		return message{}, errNoResult
	}
	m, err := parseMessage(c.lines.Bytes())
	if err != nil {
		return message{}, invalidOutput{err}
	}
	if m.Failure != nil {
		return message{}, m.Failure.err()
	}
	return m, nil
}

// readHello reads the child's hello and checks its versions.
func (c *child) readHello() error {
	m, err := c.readMessage()
	if err != nil {
		return err
	}
	if m.Hello == nil {
		return invalidOutput{errors.New("the first message is not a hello")}
	}
	if *m.Hello != ourHello {
		return &VersionError{fmt.Sprintf("%s uses protocol %d with numerics %s, and this program protocol %d with %s: "+
			"they are of different versions of AOB; install both of one version",
			c.cmd.Path, m.Hello.Protocol, delivery.PlainText(m.Hello.Numerics, 64), ourHello.Protocol,
			ourHello.Numerics)}
	}
	return nil
}

// A VersionError says that aob-detect has another version than this program. It is not the model's fault.
type VersionError struct{ Why string }

func (e *VersionError) Error() string { return e.Why }

var errNoResult = errors.New("it ended without a result")

// invalidOutput is the error of invalid output.
type invalidOutput struct{ error }

// timeoutError is the cause of a context that was cancelled by the timeout.
type timeoutError struct{ time.Duration }

func (e timeoutError) Error() string {
	return fmt.Sprintf("it gave no result for %s and was killed", e.Duration)
}

// rootCause waits for the child's end and returns the cause of the error: the end of ctx, a crash, or err itself.
func (c *child) rootCause(ctx context.Context, err error) error {
	crash := func(why string) error {
		return &CrashError{Command: c.name, Why: delivery.PlainText(why, maxWhy), Stderr: c.stderr.String()}
	}
	c.cleanup()
	var odd invalidOutput
	var late timeoutError
	cause := context.Cause(ctx)
	switch {
	case errors.As(cause, &late):
		return crash(late.Error())
	case cause != nil:
		return fmt.Errorf("aob-detect %s: %w", c.name, cause)
	case errors.As(err, &odd):
		return crash(fmt.Sprintf("its output is invalid: %v", odd.error))
	case errors.Is(err, errNoResult):
		return crash(c.exitReason())
	}
	return err
}

// exitReason describes how the child ended.
func (c *child) exitReason() string {
	state := c.cmd.ProcessState
	status, ok := state.Sys().(syscall.WaitStatus)
	switch {
	case ok && status.Signaled() && status.Signal() == syscall.SIGKILL:
		return "it was killed; if no person or program did that, the machine ran out of memory"
	case ok && status.Signaled():
		return fmt.Sprintf("it crashed (%v)", status.Signal())
	case strings.Contains(c.stderr.String(), "out of memory") ||
		strings.Contains(c.stderr.String(), "cannot allocate memory"):
		return "it exceeded its memory limit"
	}
	return fmt.Sprintf("it ended without a result (%v)", state)
}

// A tail keeps the last bytes written to it. It is safe for concurrent use.
type tail struct {
	mu      sync.Mutex
	content []byte
}

const tailBytes = 4 << 10

// Write never fails, so that the child is never blocked or stopped by its error output.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	t.content = append(t.content, p[max(0, n-tailBytes):]...)
	t.content = bytes.Clone(t.content[max(0, len(t.content)-tailBytes):])
	return n, nil
}

// String returns the last lines, with control characters removed.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var lines []string
	for line := range strings.Lines(string(bytes.TrimSpace(t.content))) {
		lines = append(lines, delivery.PlainText(strings.TrimSpace(line), maxWhy))
	}
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}
