package terraform

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/trainer"
)

// A Machine is where the attempts of a training run: this machine, or an instance in a cloud. Attempts, limits,
// heartbeats and cleanup are the same for all and are in [Trainer]. An attempt is named by its folder.
type Machine interface {
	// Pace says how often the machine is looked at, and how long it may take to end an attempt.
	Pace() Pace
	// Module completes the module of an attempt: where its providers are, and its state.
	Module(m Module, attempt string) Module
	// Env returns what Terraform's environment has for the machine. It is never stored.
	Env(ctx context.Context) (map[string]string, error)
	// Prepare makes what a launch needs, and returns how the module is applied. It may be repeated.
	Prepare(ctx context.Context, req trainer.Request, next Next) (Launching, error)
	// Alive reports whether the trainer of an attempt runs.
	Alive(ctx context.Context, attempt string) (bool, error)
	// Look brings what the trainer tells of itself into Dir/output and into the attempt's folder.
	Look(ctx context.Context, req trainer.Request, attempt string) (Seen, error)
	// Stop ends all that an attempt has started, and returns nil when nothing of it is left. It is called after the
	// stack was destroyed, and may be repeated.
	Stop(ctx context.Context, attempt string) error
	// Collect brings what is left of an attempt that has ended into Dir/output: all of it, if the training is done.
	Collect(ctx context.Context, req trainer.Request, attempt string) error
}

// A Pace is how fast a machine answers.
type Pace struct {
	Every   time.Duration // between two looks
	Cleanup time.Duration // to end an attempt, in addition to the grace period
}

// A Next is the attempt that comes next.
type Next struct {
	Dir     string
	Number  int
	Spent   time.Duration // by the attempts before it
	Earlier []Lost        // why earlier ones ended, if the training is not to blame; the last one last
}

// A Launching is how a module is applied for one attempt.
type Launching struct {
	Launch  launch // written into the attempt's folder
	Vars    any    // the module's values
	Policy  Policy // what the module may do
	Env     map[string]string
	Applied func(output func(name string, into any) error) error // checks what was applied
	Explain func(error) error                                    // an apply that failed; nil for the error itself
	Tell    func(text string)                                    // called with each line of an apply; may be nil
}

// A Seen is what a look at an attempt has seen.
type Seen struct {
	Alive bool
	Ended error // why the trainer is not alive; nil if its exit status says it

	Heard     time.Time     // when something new was heard of it, besides heartbeats; zero for never
	Allowance time.Duration // how long nothing may be heard of it
	Silent    Lost          // what it means if nothing is heard for longer; "" for a trainer that hangs
	Unseen    error         // why it could not be looked at, which says nothing about the trainer
}

// Lost says why an attempt ended by no fault of the training, which may go on in another attempt.
type Lost string

// The reasons.
const (
	LostSpot     Lost = "interrupted" // the spot instance was taken away
	LostCapacity Lost = "capacity"    // there was no instance
	LostBoot     Lost = "boot"        // the instance did not get as far as the trainer
	LostSilent   Lost = "silent"      // nothing was heard of it any more
	LostEnded    Lost = "ended"       // somebody ended the instance, or AWS did
)

// A lostError is the error of an attempt that was lost.
type lostError struct {
	why Lost
	err error
}

func (e lostError) Error() string { return e.err.Error() }
func (e lostError) Unwrap() error { return e.err }

func lostf(why Lost, format string, args ...any) error {
	return lostError{why, fmt.Errorf(format, args...)}
}

// Local is this machine, through the module train-local.
type Local struct {
	AOB string // absolute path of the aob program, whose "launch VERB" calls Launch(VERB)
}

// Pace implements [Machine].
func (Local) Pace() Pace { return Pace{Every: 200 * time.Millisecond, Cleanup: 3 * time.Minute} }

// Module implements [Machine]. The module needs no provider, and its state is beside it.
func (Local) Module(m Module, _ string) Module { return m }

// Env implements [Machine].
func (l Local) Env(context.Context) (map[string]string, error) {
	return map[string]string{"AOB": l.AOB}, nil
}

// Prepare implements [Machine].
func (l Local) Prepare(_ context.Context, req trainer.Request, next Next) (Launching, error) {
	attempt := next.Dir
	runs := struct{ what, path string }{"python", req.Python}
	if req.Container != nil {
		runs = struct{ what, path string }{"container engine", req.Container.Engine}
	}
	for _, p := range []struct{ what, path string }{runs, {"trainer", req.Script}, {"aob program", l.AOB}} {
		info, err := os.Stat(p.path)
		if err != nil || !filepath.IsAbs(p.path) || !info.Mode().IsRegular() {
			return Launching{}, delivery.Blockedf("give its absolute path in the server's configuration",
				"no %s at %q", p.what, p.path)
		}
	}
	if err := durable.WriteJSON(filepath.Join(req.Dir, runFile), req.RunJSON(here)); err != nil {
		return Launching{}, err
	}
	env := map[string]string{}
	for name, value := range req.Secrets {
		env[secretPrefix+name] = value
	}
	how := Launching{Policy: trainLocal(attempt), Env: env, Vars: map[string]string{"folder": attempt}, Launch: launch{
		Argv:    []string{req.Python, req.Script, filepath.Join(req.Dir, runFile)},
		Env:     append([]string{"HOME=" + attempt}, req.Env...),
		Secrets: slices.Sorted(maps.Keys(req.Secrets)),
		Dir:     filepath.Join(req.Dir, outputDir),
		Grace:   delivery.Duration(req.Grace),
	}}
	how.Applied = func(output func(string, any) error) error {
		var folder string
		if err := output("folder", &folder); err != nil {
			return err
		}
		if folder != attempt {
			return fmt.Errorf("terraform launched the trainer in %s, want %s", folder, attempt)
		}
		return nil
	}
	if req.Container == nil {
		return how, nil
	}
	return how, contain(&how.Launch, req, attempt)
}

// contain has a trainer launched in a container. The engine's client takes the place of the trainer's process: it has
// the lock, gets the signals and ends with the trainer.
func contain(l *launch, req trainer.Request, attempt string) error {
	c := req.Container
	var files, threads unix.Rlimit
	if err := errors.Join(unix.Getrlimit(unix.RLIMIT_NOFILE, &files),
		unix.Getrlimit(unix.RLIMIT_NPROC, &threads)); err != nil {
		return err
	}
	runs := filepath.Dir(req.Dir)
	argv, err := c.Argv(trainer.Place{Attempt: attempt, Runs: runs,
		Program: []string{"python3", req.Script, filepath.Join(req.Dir, runFile)},
		Read:    append([]string{filepath.Dir(req.Script), filepath.Join(req.Dir, runFile)}, req.Inputs...),
		Write:   l.Dir, Env: req.Env, Secrets: l.Secrets, UID: os.Getuid(), GID: os.Getgid(),
		Files: min(files.Max, maxOpenFiles), Threads: min(threads.Max, maxThreads)})
	if err != nil {
		return err
	}
	l.Argv, l.Env = argv, trainer.EngineEnv()
	l.Container = &contained{Engine: c.Engine, Name: trainer.Name(attempt)}
	return trainer.RemoveLeft(c.Engine, append([]string{"PATH=" + path}, l.Env...), runs, func(attempt string) bool {
		return !exists(attempt) || exists(filepath.Join(attempt, settledFile))
	})
}

// What a container asks for of these limits. Engines fail to raise them above those of this process, and podman itself
// runs with lower ones.
const (
	maxOpenFiles = 65536
	maxThreads   = 32768 // of the user, outside of the container too
)

// here is where a path of this machine is on it.
func here(path string) string { return path }

// Alive implements [Machine].
func (Local) Alive(_ context.Context, attempt string) (bool, error) { return trainerAlive(attempt) }

// Look implements [Machine]. The trainer writes into the folders itself.
func (Local) Look(_ context.Context, req trainer.Request, attempt string) (Seen, error) {
	alive, err := trainerAlive(attempt)
	return Seen{Alive: alive, Allowance: req.Heartbeat}, err
}

// Stop implements [Machine].
func (Local) Stop(_ context.Context, attempt string) error { return stopTrainer(attempt) }

// Collect implements [Machine].
func (Local) Collect(context.Context, trainer.Request, string) error { return nil }

// trainLocal is the policy of train-local: the module may launch and end one process.
func trainLocal(folder string) Policy {
	shell := []string{"/bin/sh", "-c"}
	return Policy{Resources: []Resource{{
		Address:  "terraform_data.trainer",
		Provider: "terraform.io/builtin/terraform",
		Values:   map[string]any{"input": folder},
		Commands: []Command{
			{Interpreter: shell, Command: `exec "$AOB" launch start`, Folder: "self.input"},
			{Interpreter: shell, Command: `exec "$AOB" launch stop`, Folder: "self.output"},
		},
	}}}
}
