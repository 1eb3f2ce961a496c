package terraform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/terraform-exec/tfexec"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Module is a Terraform module that comes with AOB.
type Module struct {
	Exec  string // the terraform program
	Files fs.FS  // the module's files, at the root
}

// A Stack is a module in a folder, to be applied once and destroyed. It must
// not be shared between goroutines.
type Stack struct {
	dir    string
	exec   string
	env    map[string]string
	policy Policy
	log    *boundedLog
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

// cliConfig takes the place of the user's: nothing is downloaded, not even
// Terraform's own news.
const cliConfig = `disable_checkpoint = true
provider_installation {
  direct {
    exclude = ["*/*/*"]
  }
}
`

// interruptWait is how long Terraform may take to end after it was interrupted,
// before it is killed: killed, it forgets what it was making.
const interruptWait = 10 * time.Minute

// maxTerraformLog is the size in bytes at which terraform.log ends.
const maxTerraformLog = 1 << 20

// path is the PATH of everything that is started here.
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Create copies the module into dir, which it makes, with its variables. The
// plan is held against policy. env is added to Terraform's environment, which
// else has PATH and what Terraform needs to stay in the folder.
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
	data, err := json.Marshal(vars)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, varsFile), data, 0o600); err != nil {
		return nil, err
	}
	return m.Reopen(dir, policy, env)
}

// Reopen returns the stack that an earlier process made in dir, to destroy it.
func (m Module) Reopen(dir string, policy Policy, env map[string]string) (*Stack, error) {
	s := &Stack{dir: dir, exec: m.Exec, policy: policy, log: &boundedLog{path: filepath.Join(dir, terraformLog),
		limit: maxTerraformLog}}
	s.env = map[string]string{
		"PATH":               path,
		"HOME":               dir,
		"TF_DATA_DIR":        filepath.Join(dir, ".terraform"),
		"TF_CLI_CONFIG_FILE": filepath.Join(dir, configFile),
		"CHECKPOINT_DISABLE": "1",
	}
	for k, v := range env {
		s.env[k] = v
	}
	if err := os.WriteFile(filepath.Join(dir, configFile), []byte(cliConfig), 0o600); err != nil {
		return nil, err
	}
	return s, nil
}

func (m Module) check() error {
	if _, err := exec.LookPath(m.Exec); err != nil || !filepath.IsAbs(m.Exec) {
		return delivery.Blockedf(
			"install Terraform 1.5 or newer and give its absolute path in the server's configuration",
			"no terraform program at %q", m.Exec)
	}
	return nil
}

// Plan initialises the folder, plans to a file, and checks that plan. A plan
// that the policy refuses is a delivery.Blocked error.
func (s *Stack) Plan(ctx context.Context) error {
	tf, err := s.terraform()
	if err != nil {
		return err
	}
	if err := tf.Init(ctx, tfexec.Upgrade(false)); err != nil {
		return s.failed(ctx, "init", err)
	}
	if _, err := tf.Plan(ctx, tfexec.Out(planFile), tfexec.LockTimeout("30s")); err != nil {
		return s.failed(ctx, "plan", err)
	}
	if tf, err = s.terraform(); err != nil {
		return err
	}
	tf.SetStdout(nil) // the plan as JSON is large and repeats what is there
	plan, err := tf.ShowPlanFile(ctx, planFile)
	if err != nil {
		return s.failed(ctx, "show", err)
	}
	if err := s.policy.check(plan); err != nil {
		return delivery.Blockedf("report it: the module and its allow-list come with AOB and must fit",
			"terraform's plan is refused: %v", err)
	}
	return nil
}

// Apply applies the plan that Plan made.
func (s *Stack) Apply(ctx context.Context) error {
	tf, err := s.terraform()
	if err != nil {
		return err
	}
	if err := tf.Apply(ctx, tfexec.DirOrPlan(planFile), tfexec.LockTimeout("30s")); err != nil {
		return s.failed(ctx, "apply", err)
	}
	return nil
}

// Output reads one of the applied module's outputs.
func (s *Stack) Output(ctx context.Context, name string, into any) error {
	tf, err := s.terraform()
	if err != nil {
		return err
	}
	outputs, err := tf.Output(ctx)
	if err != nil {
		return s.failed(ctx, "output", err)
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

// Destroy destroys what was applied; again, where that was done before, is
// harmless. It first waits for what is still at work in the folder.
func (s *Stack) Destroy(ctx context.Context) error {
	if err := s.idle(ctx); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(s.dir, stateFile)); errors.Is(err, os.ErrNotExist) {
		return nil // nothing was ever made
	}
	// A terraform that was killed leaves its note that the state is in use. The
	// kernel's lock on the state, which is the one that counts, went with it.
	if err := os.Remove(filepath.Join(s.dir, stateLockFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	tf, err := s.terraform()
	if err != nil {
		return err
	}
	if err := tf.Init(ctx, tfexec.Upgrade(false)); err != nil {
		return s.failed(ctx, "init", err)
	}
	if err := tf.Destroy(ctx, tfexec.LockTimeout("30s")); err != nil {
		return s.failed(ctx, "destroy", err)
	}
	return nil
}

// idle waits until no terraform of the folder is left, nor a command that one
// started: terraform-exec may return while an interrupted one is still ending,
// and the commands of one that was killed go on for a little.
func (s *Stack) idle(ctx context.Context) error {
	for {
		left, err := carrying("TF_DATA_DIR=" + s.env["TF_DATA_DIR"])
		if err != nil || len(left) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d of an earlier terraform in %s does not end: %w", left[0].PID, s.dir,
				context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// terraform returns a handle for one step: what is set on one stays set, so each
// step gets its own.
func (s *Stack) terraform() (*tfexec.Terraform, error) {
	tf, err := tfexec.NewTerraform(s.dir, s.exec)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(tf.SetEnv(s.env), tf.SetWaitDelay(interruptWait)); err != nil {
		return nil, err
	}
	tf.SetStdout(s.log)
	tf.SetStderr(s.log)
	tf.SetLogger(log.New(s.log, "", log.LstdFlags|log.LUTC))
	return tf, nil
}

// failed cuts Terraform's error to what fits a status; terraform.log has it all.
func (s *Stack) failed(ctx context.Context, step string, err error) error {
	if ctx.Err() != nil {
		// Not the error itself: terraform-exec 0.26 makes one that panics when it is
		// printed, where the program ended well and the context at the same moment.
		return fmt.Errorf("terraform %s was interrupted: %w", step, context.Cause(ctx))
	}
	text := strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if strings.ContainsRune("│╷╵", r) {
			return ' '
		}
		return r
	}, err.Error())), " ")
	if len(text) > 600 {
		text = strings.ToValidUTF8(text[:600], "") + "…"
	}
	return stepError{fmt.Sprintf("terraform %s: %s (all of it is in %s)", step, text, s.log.path), err}
}

// A stepError shows short text and keeps the whole error for errors.Is.
type stepError struct {
	text string
	err  error
}

func (e stepError) Error() string { return e.text }
func (e stepError) Unwrap() error { return e.err }

// A boundedLog appends to a file until that has its size, and then swallows.
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
