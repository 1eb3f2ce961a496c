package terraform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/terraform-exec/tfexec"
	tfjson "github.com/hashicorp/terraform-json"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// A Module is a Terraform module that comes with AOB.
type Module struct {
	Exec  string // the program of Terraform or OpenTofu
	Files fs.FS  // the module's files, at the root

	// Mirror is a folder with the providers of the module, as "terraform providers mirror" makes it, or "tofu providers
	// mirror" for OpenTofu; "" for a module that needs none.
	Mirror string
	// Backend has the settings of the module's backend; nil for a module that keeps its state in the stack's folder.
	Backend map[string]string
	// Makes has the addresses of all that the module makes, without indexes: a state with anything else is not
	// destroyed. nil for a state that only AOB can write.
	Makes []string
}

// A Stack is a module in a folder, which is applied once and then destroyed. It must not be shared between goroutines.
type Stack struct {
	dir    string
	exec   string
	env    map[string]string
	policy Policy
	log    *boundedLog

	backend map[string]string
	makes   []string

	// Tell is called with each line in which Apply tells what it does; nil for a stack that does it at once.
	Tell func(text string)
}

// The files that a stack adds to the module's.
const (
	varsFile      = "terraform.tfvars.json"
	configFile    = "cli.tfrc"
	planFile      = "plan.bin"
	stateFile     = "terraform.tfstate"
	stateLockFile = ".terraform.tfstate.lock.info"
	terraformLog  = "terraform.log"
)

// cliConfig replaces the user's configuration. Terraform downloads no providers and does not check for updates.
func (m Module) cliConfig() string {
	mirror := ""
	if m.Mirror != "" {
		mirror = fmt.Sprintf("  filesystem_mirror {\n    path = %q\n  }\n", m.Mirror)
	}
	return "disable_checkpoint = true\nprovider_installation {\n" + mirror +
		"  direct {\n    exclude = [\"*/*/*\"]\n  }\n}\n"
}

// interruptWait is the time between interrupting Terraform and killing it. A killed
// Terraform loses its record of resources that it was creating.
const interruptWait = 10 * time.Minute

// orphanWait is how long a provider whose terraform was killed may end its call.
const orphanWait = 10 * time.Second

// maxTerraformLog is the largest size of terraform.log, in bytes.
const maxTerraformLog = 1 << 20

// path is the PATH of all processes that this package starts.
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Create copies the module and its variables into dir, which it creates. Plan checks the
// plan against policy. env is added to Terraform's environment.
func (m Module) Create(dir string, vars any, policy Policy, env map[string]string) (*Stack, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	err := fs.WalkDir(m.Files, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(dir, name), 0o700)
		}
		data, err := fs.ReadFile(m.Files, name)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, name), data, 0o600)
	})
	if err != nil {
		return nil, fmt.Errorf("copy the terraform module: %w", err)
	}
	if err := durable.WriteJSON(filepath.Join(dir, varsFile), vars); err != nil {
		return nil, err
	}
	return m.Reopen(dir, policy, env)
}

// Reopen returns the stack that an earlier process created in dir.
func (m Module) Reopen(dir string, policy Policy, env map[string]string) (*Stack, error) {
	s := &Stack{dir: dir, exec: m.Exec, policy: policy, backend: m.Backend, makes: m.Makes,
		log: &boundedLog{path: filepath.Join(dir, terraformLog), limit: maxTerraformLog}}
	s.env = map[string]string{
		"PATH":               path,
		"HOME":               dir,
		"TF_DATA_DIR":        filepath.Join(dir, ".terraform"),
		"TF_CLI_CONFIG_FILE": filepath.Join(dir, configFile),
		"CHECKPOINT_DISABLE": "1",
	}
	maps.Copy(s.env, env)
	if err := os.WriteFile(filepath.Join(dir, configFile), []byte(m.cliConfig()), 0o600); err != nil {
		return nil, err
	}
	return s, nil
}

func (m Module) check() error {
	if _, err := exec.LookPath(m.Exec); err != nil || !filepath.IsAbs(m.Exec) {
		return delivery.Blockedf(
			"install Terraform 1.5, OpenTofu 1.10, or a newer one, and give its absolute path in the server's "+
				"configuration",
			"no terraform program at %q", m.Exec)
	}
	return nil
}

// Plan initialises the folder, plans to a file, and checks the plan. If the policy
// refuses the plan, the error is a delivery.Blocked.
func (s *Stack) Plan(ctx context.Context) error {
	if err := s.step(ctx, "init", s.initialise); err != nil {
		return err
	}
	return s.plan(ctx)
}

func (s *Stack) plan(ctx context.Context) error {
	err := s.step(ctx, "plan", func(ctx context.Context, tf *tfexec.Terraform) error {
		_, err := tf.Plan(ctx, tfexec.Out(planFile), tfexec.LockTimeout(s.lockWait()))
		return err
	})
	if err != nil {
		return err
	}
	var plan *tfjson.Plan
	err = s.step(ctx, "show", func(ctx context.Context, tf *tfexec.Terraform) (err error) {
		tf.SetStdout(nil) // keep the large plan JSON out of the log
		plan, err = tf.ShowPlanFile(ctx, planFile)
		return err
	})
	if err != nil {
		return err
	}
	if err := s.policy.check(plan); err != nil {
		return delivery.Blockedf("report this bug: AOB's module does not match AOB's policy for it",
			"terraform's plan is refused: %v", err)
	}
	return nil
}

// Apply applies the plan that Plan made.
func (s *Stack) Apply(ctx context.Context) error {
	return s.step(ctx, "apply", func(ctx context.Context, tf *tfexec.Terraform) error {
		if s.Tell != nil {
			told := &events{log: s.log, tell: s.Tell}
			err := tf.ApplyJSON(ctx, told, tfexec.DirOrPlan(planFile), tfexec.LockTimeout(s.lockWait()))
			return told.explain(err)
		}
		return tf.Apply(ctx, tfexec.DirOrPlan(planFile), tfexec.LockTimeout(s.lockWait()))
	})
}

// Output reads one of the applied module's outputs.
func (s *Stack) Output(ctx context.Context, name string, into any) error {
	var outputs map[string]tfexec.OutputMeta
	err := s.step(ctx, "output", func(ctx context.Context, tf *tfexec.Terraform) (err error) {
		outputs, err = tf.Output(ctx)
		return err
	})
	if err != nil {
		return err
	}
	out, ok := outputs[name]
	if !ok {
		return fmt.Errorf("terraform output: the module has no output %q", name)
	}
	if err := json.Unmarshal(out.Value, into); err != nil {
		return fmt.Errorf("terraform output %s: %w", name, err)
	}
	return nil
}

// Destroy destroys what was applied. It may be repeated. It first waits for earlier Terraform processes of the folder.
// The lock that a killed one has left is removed; that of a process elsewhere is respected until it is old.
func (s *Stack) Destroy(ctx context.Context) error {
	if err := s.idle(ctx); err != nil {
		return err
	}
	_, err := os.Stat(filepath.Join(s.dir, stateFile))
	if s.backend == nil && errors.Is(err, os.ErrNotExist) {
		return nil // nothing was applied
	}
	if s.backend != nil && !exists(filepath.Join(s.dir, planFile)) {
		return nil // nothing can have been applied, and a killed process may have copied half of the module
	}
	// A killed terraform leaves its lock info file. The kernel's lock on the state, which
	// decides, is gone with the process.
	if err := os.Remove(filepath.Join(s.dir, stateLockFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// A killed init leaves half a record of the backend, or half a provider, which a later one refuses.
	if err := os.RemoveAll(s.env["TF_DATA_DIR"]); err != nil {
		return err
	}
	if err := s.step(ctx, "init", s.initialise); err != nil {
		return err
	}
	if err := s.own(ctx); err != nil {
		return err
	}
	err = s.destroy(ctx)
	lock, held := heldLock(err)
	if s.backend == nil || !held || !lock.stale(time.Now()) {
		return err
	}
	if err := s.step(ctx, "force-unlock", func(ctx context.Context, tf *tfexec.Terraform) error {
		return tf.ForceUnlock(ctx, lock.id)
	}); err != nil {
		return err
	}
	return s.destroy(ctx)
}

func (s *Stack) destroy(ctx context.Context) error {
	return s.step(ctx, "destroy", func(ctx context.Context, tf *tfexec.Terraform) error {
		return tf.Destroy(ctx, tfexec.LockTimeout(s.lockWait()))
	})
}

func (s *Stack) initialise(ctx context.Context, tf *tfexec.Terraform) error {
	options := []tfexec.InitOption{tfexec.Upgrade(false)}
	for _, name := range slices.Sorted(maps.Keys(s.backend)) {
		options = append(options, tfexec.BackendConfig(name+"="+s.backend[name]))
	}
	return tf.Init(ctx, options...)
}

// idle waits until no terraform of the folder and no command of one is left. terraform-exec may return while an
// interrupted terraform is still ending, and the commands of a killed one may run a little longer.
// A provider whose terraform was killed may live for ever, so it is killed after a while.
func (s *Stack) idle(ctx context.Context) error {
	began := time.Now()
	for {
		left, err := carrying("TF_DATA_DIR=" + s.env["TF_DATA_DIR"])
		if err != nil || len(left) == 0 {
			return err
		}
		if time.Since(began) > orphanWait {
			endOrphans(left)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d of an earlier terraform in %s does not end: %w", left[0].PID, s.dir,
				context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// step runs one Terraform command. It makes a new handle for each, since settings of a handle are kept.
func (s *Stack) step(ctx context.Context, name string, run func(context.Context, *tfexec.Terraform) error) error {
	tf, err := tfexec.NewTerraform(s.dir, s.exec)
	if err != nil {
		return err
	}
	if err := errors.Join(tf.SetEnv(s.env), tf.SetWaitDelay(interruptWait)); err != nil {
		return err
	}
	tf.SetStdout(s.log)
	tf.SetStderr(s.log)
	tf.SetLogger(log.New(s.log, "", log.LstdFlags|log.LUTC))
	if err := run(ctx, tf); err != nil {
		return s.failed(ctx, name, err)
	}
	return nil
}

// failed shortens Terraform's error for a status; terraform.log has all of it.
func (s *Stack) failed(ctx context.Context, step string, err error) error {
	if ctx.Err() != nil {
		// err is not printed: terraform-exec 0.26 returns an error whose Error method
		// panics if the program succeeded just as the context ended.
		return fmt.Errorf("terraform %s was interrupted: %w", step, context.Cause(ctx))
	}
	if lock, held := lockIn(err); held {
		return stepError{fmt.Sprintf("terraform %s: %s (full log: %s)", step, lock, s.log.path), err}
	}
	text := strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if strings.ContainsRune("│╷╵", r) {
			return ' '
		}
		return r
	}, err.Error())), " ")
	return stepError{fmt.Sprintf("terraform %s: %s (full log: %s)", step, delivery.PlainText(text, 600), s.log.path),
		err}
}

// A stepError shows short text and keeps the whole error for errors.Is.
type stepError struct {
	text string
	err  error
}

func (e stepError) Error() string { return e.text }
func (e stepError) Unwrap() error { return e.err }

// A boundedLog appends to a file up to a size, and discards the rest.
type boundedLog struct {
	path  string
	limit int64
}

func (l *boundedLog) Write(p []byte) (int, error) {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if info.Size() >= l.limit {
		return len(p), nil
	}
	out := p
	if room := l.limit - info.Size(); int64(len(p)) > room {
		out = append(append([]byte{}, p[:room]...), "\n(the log ends here: it is full)\n"...)
	}
	if _, err := f.Write(out); err != nil {
		return 0, fmt.Errorf("write terraform's log: %w", err)
	}
	return len(p), nil
}
