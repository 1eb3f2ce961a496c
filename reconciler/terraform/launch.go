package terraform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/trainer"
)

// The files of an attempt's folder.
const (
	launchFile  = "launch.json"
	trainerLock = "trainer.lock"
	processFile = "process.json"
	exitFile    = "exit.json"
	trainerLog  = "trainer.log"
	fenceFile   = "ended.json"
)

// markVariable has the attempt's folder in the environment of the trainer and all its
// children, so that all of them can be found.
const markVariable = "AOB_TRAINING"

// secretPrefix is the prefix of a secret's name in the launcher's environment. Values of
// secrets are never written to a file.
const secretPrefix = "AOB_SECRET_"

// A launch is launch.json.
type launch struct {
	Argv []string `json:"argv"`
	Env  []string `json:"env"` // the whole environment except secrets

	Secrets []string          `json:"secrets,omitempty"` // names of more variables; see secretPrefix
	Dir     string            `json:"dir"`
	Mark    string            `json:"mark"`
	Grace   delivery.Duration `json:"grace"` // between SIGTERM and SIGKILL

	Container *contained `json:"container,omitempty"` // that Argv runs; nil for none
}

// contained names the container of an attempt.
type contained struct {
	Engine string `json:"engine"` // absolute path of podman or docker
	Name   string `json:"name"`
}

// terminate sends SIGTERM to the trainer.
func (l launch) terminate(process durable.Process) error {
	if l.Container != nil && trainer.TerminateContainer(l.Container.Engine, l.Env, l.Container.Name) == nil {
		return nil
	}
	return process.Signal(syscall.SIGTERM) // also to a client that has not made the container yet
}

// removeContainer kills and removes the attempt's container, if it has one. Its processes need not be children of the
// trainer's process, nor of this user.
func (l launch) removeContainer() error {
	if l.Container == nil {
		return nil
	}
	return trainer.RemoveContainer(l.Container.Engine, l.Env, l.Container.Name)
}

func readLaunch(dir string) (launch, error) {
	var l launch
	if err := durable.ReadJSON(filepath.Join(dir, launchFile), &l); err != nil {
		return l, err
	}
	if len(l.Argv) == 0 || l.Mark == "" {
		return l, fmt.Errorf("%s: want argv and mark", filepath.Join(dir, launchFile))
	}
	return l, nil
}

// Launch is "aob launch VERB", run by the module in the attempt's folder.
//
// start launches the command of launch.json, detached, and returns when it runs. It does nothing if the command was
// launched before, and fails if the folder is fenced. stop fences the folder and returns when no process of it is left.
//
// start uses two more verbs: wait, which records how the trainer ended, and exec, its
// child, which becomes the trainer. If wait is killed, the exit status is lost.
func Launch(verb string) error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	switch verb {
	case "start":
		return startTrainer(dir)
	case "wait":
		return waitTrainer(dir)
	case "exec":
		err := execTrainer(dir)
		if err != nil {
			fmt.Fprint(os.NewFile(reportFD, "report"), err.Error())
		}
		return err
	case "stop":
		return stopTrainer(dir)
	}
	return fmt.Errorf("launch: want start or stop, got %q", verb)
}

// reportFD is the pipe through which wait and exec send their error to start. It closes
// when the trainer's program is executed.
const reportFD = 3

func startTrainer(dir string) error {
	l, err := readLaunch(dir)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(dir, trainerLog), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	report, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer report.Close()
	env := append(l.Env, markVariable+"="+l.Mark)
	for _, name := range l.Secrets {
		value, ok := os.LookupEnv(secretPrefix + name)
		if !ok {
			return fmt.Errorf("launch the trainer: secret %s is not in the environment", name)
		}
		env = append(env, name+"="+value)
	}
	cmd := self(dir, "wait", env, log, w)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("launch the trainer: %w", err)
	}
	text, err := io.ReadAll(report)
	if err == nil && len(text) == 0 {
		return cmd.Process.Release()
	}
	_ = cmd.Wait()
	return errors.Join(fmt.Errorf("launch the trainer: %s", text), err)
}

// waitTrainer starts exec and records the trainer's exit status.
func waitTrainer(dir string) error {
	syscall.CloseOnExec(reportFD)
	report := os.NewFile(reportFD, "report")
	cmd := self(dir, "exec", os.Environ(), os.Stdout, report)
	if err := cmd.Start(); err != nil {
		fmt.Fprint(report, err.Error())
		return err
	}
	report.Close() // the child has its own copy
	state, err := cmd.Process.Wait()
	if err != nil {
		return err
	}
	// If an earlier start had launched the trainer, the child did nothing.
	if trainer, err := readProcess(dir); err != nil || trainer.PID != cmd.Process.Pid {
		return err
	}
	status := state.Sys().(syscall.WaitStatus)
	e := exitStatus{Code: status.ExitStatus()}
	l, err := readLaunch(dir)
	switch {
	case err != nil:
		return err
	case status.Signaled():
		e.Signal = status.Signal().String()
	case l.Container != nil && e.Code > 128: // as engines say that the program in a container got a signal
		e.Code, e.Signal = -1, syscall.Signal(e.Code-128).String()
	}
	return durable.WriteJSON(filepath.Join(dir, exitFile), e)
}

// self returns a command that runs this program again, even if its file was replaced.
func self(dir, verb string, env []string, log, report *os.File) *exec.Cmd {
	return &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{os.Args[0], "launch", verb}, Dir: dir,
		Env: env, Stdout: log, Stderr: log, ExtraFiles: []*os.File{report}, // becomes reportFD
	}
}

// An exitStatus is exit.json: how the trainer ended.
type exitStatus struct {
	Code   int    `json:"code"`             // -1 for a signal
	Signal string `json:"signal,omitempty"` // its name
}

// execTrainer takes the trainer's lock, checks the fence, records the process, and
// executes the trainer. Because of this order it may be killed at any point: no trainer
// starts in a fenced folder, and a running trainer is always recorded.
func execTrainer(dir string) error {
	syscall.CloseOnExec(reportFD)
	l, err := readLaunch(dir)
	if err != nil {
		return err
	}
	// trainerAlive holds the lock for an instant, so retry for a second.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	lock, err := durable.WaitLock(ctx, filepath.Join(dir, trainerLock))
	if errors.Is(err, durable.ErrLocked) {
		return nil // the trainer runs
	}
	if err != nil {
		return err
	}
	if exists(filepath.Join(dir, fenceFile)) {
		return errors.New("the attempt has ended")
	}
	if exists(filepath.Join(dir, processFile)) {
		return nil // the trainer ran
	}
	self, err := durable.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	if err := durable.WriteJSON(filepath.Join(dir, processFile), self); err != nil {
		return err
	}
	if err := os.Chdir(l.Dir); err != nil {
		return err
	}
	if err := lock.Inherit(); err != nil {
		return err
	}
	return fmt.Errorf("execute %s: %w", l.Argv[0], syscall.Exec(l.Argv[0], l.Argv, os.Environ()))
}

// readProcess returns the trainer's process, or the zero value before it is recorded.
func readProcess(dir string) (durable.Process, error) {
	var p durable.Process
	err := durable.ReadJSON(filepath.Join(dir, processFile), &p)
	if errors.Is(err, os.ErrNotExist) {
		return p, nil
	}
	return p, err
}

// trainerAlive reports whether the attempt's trainer, or a child that inherited its lock, is running.
func trainerAlive(dir string) (bool, error) {
	lock, err := durable.TryLock(filepath.Join(dir, trainerLock))
	if errors.Is(err, durable.ErrLocked) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, lock.Unlock()
}

// stopTrainer fences the attempt's folder and ends its processes. The trainer gets
// SIGTERM first, so that it writes its checkpoint. After the grace period it gets SIGKILL
// with all its children. stopTrainer returns nil when no process is left.
func stopTrainer(dir string) error {
	if err := fence(dir); err != nil {
		return err
	}
	l, err := readLaunch(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil // nothing can have been launched
	}
	if err != nil {
		return err
	}
	if copied(dir) {
		return nil // nothing was launched here
	}
	var process durable.Process
	signalled := false
	deadline := time.Now().Add(time.Duration(l.Grace))
	for {
		alive, err := trainerAlive(dir)
		if err != nil {
			return err
		}
		if !signalled {
			// The process is recorded after the lock is taken, so read it in each round.
			if process, err = readProcess(dir); err != nil {
				return err
			}
			if process.PID != 0 {
				signalled = true
				if err := l.terminate(process); err != nil && !errors.Is(err, os.ErrProcessDone) {
					return err
				}
			}
		}
		gone := signalled && l.Container == nil && !process.Alive() // a container may outlive the engine's client
		if !alive || gone || time.Now().After(deadline) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	// Twice: a client that is killed in the second step may just have made the container.
	return errors.Join(l.removeContainer(), killMarked(dir, l.Mark), l.removeContainer())
}

// killMarked kills every process with the mark until none is left and the lock is free.
func killMarked(dir, mark string) error {
	for end := time.Now().Add(30 * time.Second); ; {
		left, err := marked(mark)
		if err != nil {
			return err
		}
		for _, p := range left {
			if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return err
			}
		}
		alive, err := trainerAlive(dir)
		if err != nil || !alive && len(left) == 0 {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf(
				"the trainer in %s does not end: %d of its processes are left after SIGKILL, lock held: %t", dir,
				len(left), alive)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// fence writes ended.json: nothing is launched in the folder from here on.
func fence(dir string) error {
	path := filepath.Join(dir, fenceFile)
	if exists(path) {
		return nil
	}
	return writeMoment(path, time.Now().UTC())
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
