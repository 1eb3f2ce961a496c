package terraform

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/trainer"
)

// A Machine is where the attempts of a training run: this machine, or an instance in a cloud. Attempts, limits,
// heartbeats and cleanup are the same for all and are in [Trainer].
type Machine interface {
	// Prepare checks what a launch in an attempt's folder needs, and returns how the module is applied.
	Prepare(req trainer.Request, attempt string) (Launching, error)
	// Alive reports whether the trainer of an attempt's folder runs.
	Alive(attempt string) (bool, error)
	// Stop ends the processes of an attempt's folder, and returns nil when none is left.
	// It is called after the stack was destroyed, and may be repeated.
	Stop(attempt string) error
}

// A Launching is how a module is applied for one attempt.
type Launching struct {
	Launch launch                  // written into the attempt's folder
	Policy func(dir string) Policy // what the module may do
	Env    map[string]string       // Terraform's environment for apply; never stored
}

// Local is this machine, through the module train-local.
type Local struct {
	AOB string // absolute path of the aob program, whose "launch VERB" calls Launch(VERB)
}

// Prepare implements [Machine].
func (l Local) Prepare(req trainer.Request, attempt string) (Launching, error) {
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
	env := map[string]string{}
	for name, value := range req.Secrets {
		env[secretPrefix+name] = value
	}
	how := Launching{Policy: trainLocal, Env: env, Launch: launch{
		Argv:    []string{req.Python, req.Script, filepath.Join(req.Dir, runFile)},
		Env:     append([]string{"HOME=" + attempt}, req.Env...),
		Secrets: slices.Sorted(maps.Keys(req.Secrets)),
		Dir:     filepath.Join(req.Dir, outputDir),
		Grace:   delivery.Duration(req.Grace),
	}}
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

// Alive implements [Machine].
func (Local) Alive(attempt string) (bool, error) { return trainerAlive(attempt) }

// Stop implements [Machine].
func (Local) Stop(attempt string) error { return stopTrainer(attempt) }

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
