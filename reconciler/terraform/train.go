package terraform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// A Trainer trains on this machine, through the module train-local.
type Trainer struct {
	Terraform string // absolute path of the terraform program
	Module    fs.FS  // infra/terraform/train-local
	AOB       string // absolute path of the aob program, whose "launch VERB" calls Launch(VERB)
}

// A TrainRequest asks for one training, in the folder of its run.
type TrainRequest struct {
	Dir     string // the run's folder, absolute; the trainer's output is in Dir/output
	RunJSON any    // what the trainer is to do; becomes Dir/run.json, the trainer's one argument

	Python string   // absolute path of the interpreter itself, not of a shim
	Script string   // absolute path of the trainer's train.py
	Env    []string // added to the trainer's environment, which else is PATH, HOME and LANG

	Heartbeat time.Duration // a trainer that is silent for longer is dead
	Limit     time.Duration // how long all attempts may train together; 0 is no limit
	Grace     time.Duration // between asking the trainer to end and killing it; 0 is 30 s

	Stage    func(string) error             // told: clean, plan, apply, training, destroy; may be nil
	Progress func(delivery.RunStatus) error // told each change of status.json; may be nil
}

// Trained is a training that came to its end.
type Trained struct {
	Output   string // holds model.onnx, train.json and what else the trainer left
	Attempts int    // how many launches it took, those before a restart included
	Status   delivery.RunStatus
}

// The files of a run that the trainer and this package share.
const (
	runFile    = "run.json"
	outputDir  = "output"
	statusFile = "status.json"
)

// wanted is what a trainer that says "done" must have left.
var wanted = []string{"model.onnx", "train.json"}

const (
	// look is how often status.json and the trainer's lock are looked at.
	look = 200 * time.Millisecond
	// cleanup is how long ending an attempt may take, on top of the grace.
	cleanup = 3 * time.Minute
	// finish is how long a trainer may go on after it said done or failed.
	finish = 30 * time.Second
)

// Train trains, and returns when that is done or has failed, with nothing left
// running. It first settles what former attempts in the folder left: a trainer
// that they completed is not trained again, one that is alive in an attempt which
// was applied is watched on, anything else is destroyed. The new attempt resumes
// from the checkpoint in Dir/output.
//
// A delivery.Blocked error says that another attempt would end as this one did:
// a program is missing, the trainer refused its task, the limit is passed. The
// context's error, wrapped, says that the training was interrupted and can go on.
// After any other error the next attempt may do better.
func (t *Trainer) Train(ctx context.Context, req TrainRequest) (Trained, error) {
	if req.Grace == 0 {
		req.Grace = 30 * time.Second
	}
	list, err := attempts(req.Dir)
	if err != nil {
		return Trained{}, err
	}
	a, err := t.takeOver(ctx, req, list)
	if err != nil {
		return Trained{}, err
	}
	done := Trained{Output: filepath.Join(req.Dir, outputDir), Attempts: len(list)}
	spent := time.Duration(0)
	for _, old := range list {
		spent += old.spent
	}
	if a == nil {
		if done.Status, err = readStatus(req.Dir); err == nil && len(list) > 0 && done.Status.Phase == "done" &&
			complete(done.Output) == nil {
			return done, nil
		}
		if err := context.Cause(ctx); err != nil {
			return Trained{}, interrupted(ctx)
		}
		next := 1
		if len(list) > 0 {
			next = list[len(list)-1].number + 1
		}
		done.Attempts++
		if a, err = t.launch(ctx, req, next); err != nil {
			return Trained{}, t.end(ctx, req, a, err)
		}
	}
	status, err := t.watch(ctx, req, a, spent)
	if err := t.end(ctx, req, a, err); err != nil {
		return Trained{}, err
	}
	done.Status = status
	return done, complete(done.Output)
}

// takeOver settles all former attempts but one that can be watched on: the last,
// if it was applied and its trainer is alive.
func (t *Trainer) takeOver(ctx context.Context, req TrainRequest, list []*attempt) (*attempt, error) {
	for i, a := range list {
		if a.settled {
			continue
		}
		if i == len(list)-1 && !a.applied.IsZero() && !exists(filepath.Join(a.dir, fenceFile)) && ctx.Err() == nil {
			alive, err := trainerAlive(a.dir)
			if err != nil {
				return nil, err
			}
			if alive {
				return a, nil
			}
		}
		if err := req.stage("clean"); err != nil {
			return nil, err
		}
		if err := t.settleAnyway(ctx, req, a); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// launch begins an attempt and applies the module. The attempt it returns, if
// any, must be settled, also beside an error.
func (t *Trainer) launch(ctx context.Context, req TrainRequest, number int) (*attempt, error) {
	if err := t.check(req); err != nil {
		return nil, err
	}
	output := filepath.Join(req.Dir, outputDir)
	if err := os.MkdirAll(output, 0o700); err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(req.RunJSON, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("run.json: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(req.Dir, runFile), data, 0o600); err != nil {
		return nil, err
	}
	// What a former attempt said must not be taken for this one's word.
	if err := os.Remove(filepath.Join(output, statusFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	a, err := begin(req.Dir, number, launch{
		Argv:  []string{req.Python, req.Script, filepath.Join(req.Dir, runFile)},
		Env:   req.Env,
		Dir:   output,
		Grace: delivery.Duration(req.Grace),
	})
	if err != nil {
		return a, err
	}
	if err := req.stage("plan"); err != nil {
		return a, err
	}
	s, err := t.module().Create(a.stackDir(), map[string]string{"folder": a.dir}, trainLocal(a.dir), t.env())
	if err != nil {
		return a, err
	}
	if err := s.Plan(ctx); err != nil {
		return a, err
	}
	if err := req.stage("apply"); err != nil {
		return a, err
	}
	if err := s.Apply(ctx); err != nil {
		return a, err
	}
	var folder string
	if err := s.Output(ctx, "folder", &folder); err != nil {
		return a, err
	}
	if folder != a.dir {
		return a, fmt.Errorf("terraform launched the trainer in %s, want %s", folder, a.dir)
	}
	a.applied = time.Now().UTC()
	return a, writeMoment(filepath.Join(a.dir, appliedFile), a.applied)
}

// trainLocal is all that the module may do: launch and end one process.
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

func (t *Trainer) module() Module         { return Module{Exec: t.Terraform, Files: t.Module} }
func (t *Trainer) env() map[string]string { return map[string]string{"AOB": t.AOB} }

// check looks for all that a launch needs, before there is anything to clean up.
func (t *Trainer) check(req TrainRequest) error {
	if err := t.module().check(); err != nil {
		return err
	}
	for _, p := range []struct{ what, path string }{{"python", req.Python}, {"trainer", req.Script},
		{"aob program", t.AOB}} {
		info, err := os.Stat(p.path)
		if err != nil || !filepath.IsAbs(p.path) || !info.Mode().IsRegular() {
			return delivery.Blockedf("give its absolute path in the server's configuration", "no %s at %q", p.what,
				p.path)
		}
	}
	if req.Heartbeat <= 0 {
		return delivery.Blockedf("give one in the server's configuration", "a training needs a heartbeat allowance")
	}
	return nil
}

// watch follows the attempt's trainer until it has ended or must be ended.
func (t *Trainer) watch(ctx context.Context, req TrainRequest, a *attempt, spent time.Duration) (delivery.RunStatus,
	error) {
	if err := req.stage("training"); err != nil {
		return delivery.RunStatus{}, err
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	var told delivery.RunStatus
	var ending time.Time // when it said that it is at its end
	for {
		// First the lock, then the file: what a trainer wrote last is then read.
		alive, err := trainerAlive(a.dir)
		if err != nil {
			return told, err
		}
		status, unreadable := readStatus(req.Dir)
		if unreadable == nil && changed(told, status) {
			if req.Progress != nil {
				if err := req.Progress(status); err != nil {
					return told, err
				}
			}
			told = status
		}
		now := time.Now()
		final := status.Phase == "done" || status.Phase == "failed"
		if final && ending.IsZero() {
			ending = now
		}
		if final && (!alive || now.Sub(ending) > finish) {
			if status.Phase == "done" {
				return status, nil
			}
			return status, refused(req, a, status.Message)
		}
		if !alive {
			return status, vanished(ctx, req, a, status)
		}
		if err := context.Cause(ctx); err != nil {
			return status, interrupted(ctx)
		}
		if !final {
			if total := spent + now.Sub(a.begun); req.Limit > 0 && total > req.Limit {
				return status, delivery.Blockedf(
					"raise the limit, or ask for fewer epochs; what is trained so far is kept",
					"the training took longer than its limit of %s%s", delivery.Duration(req.Limit), at(status))
			}
			if err := delivery.Heartbeat(status, a.applied, now, req.Heartbeat); err != nil {
				if unreadable != nil && !errors.Is(unreadable, os.ErrNotExist) {
					err = fmt.Errorf("%w, and %w", err, unreadable)
				}
				return status, fmt.Errorf("the trainer hangs: %w%s", err, at(status))
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// end settles the attempt after err, the outcome so far, and returns what counts:
// an attempt that cannot be settled is neither done nor failed nor interrupted.
func (t *Trainer) end(ctx context.Context, req TrainRequest, a *attempt, err error) error {
	if a == nil {
		return err
	}
	stageErr := req.stage("destroy")
	if bad := errors.Join(t.settleAnyway(ctx, req, a), stageErr); bad != nil {
		if err != nil {
			return fmt.Errorf("%w (after: %v)", bad, err)
		}
		return bad
	}
	return err
}

// settleAnyway settles an attempt also when the context has ended.
func (t *Trainer) settleAnyway(ctx context.Context, req TrainRequest, a *attempt) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanup+req.Grace)
	defer cancel()
	return t.settle(ctx, req.Dir, a)
}

// refused is the error of a trainer that ended by its own decision.
func refused(req TrainRequest, a *attempt, message string) error {
	if message == "" {
		message = lastLine(filepath.Join(a.dir, trainerLog))
	}
	return delivery.Blockedf("mend what it complains about; its log is "+filepath.Join(req.Dir, outputDir, "log.txt"),
		"the trainer failed: %s", message)
}

// vanished is the error of a trainer that is gone and said neither done nor
// failed.
func vanished(ctx context.Context, req TrainRequest, a *attempt, status delivery.RunStatus) error {
	var exit exitStatus
	known := false
	// It is recorded by another process, an instant after the lock is free.
	for end := time.Now().Add(time.Second); !known && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		known = readJSON(filepath.Join(a.dir, exitFile), &exit) == nil
	}
	last := lastLine(filepath.Join(a.dir, trainerLog))
	switch {
	case ctx.Err() != nil:
		return interrupted(ctx)
	case known && exit.Code == 1:
		// It refused its task before it could write a status.
		return refused(req, a, "")
	case known && exit.Signal == syscall.SIGKILL.String():
		return fmt.Errorf("the trainer was killed%s; the machine may be short of memory", at(status))
	case known && exit.Signal != "":
		return fmt.Errorf("the trainer crashed (%s)%s: %s", exit.Signal, at(status), last)
	case known:
		return fmt.Errorf("the trainer ended unfinished with exit status %d%s: %s", exit.Code, at(status), last)
	}
	return fmt.Errorf("the trainer is gone%s: %s", at(status), last)
}

func interrupted(ctx context.Context) error {
	return fmt.Errorf("the training was interrupted: %w", context.Cause(ctx))
}

// complete looks for the files of a trainer that said it is done.
func complete(output string) error {
	for _, name := range wanted {
		info, err := os.Lstat(filepath.Join(output, name))
		if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
			return delivery.Blockedf("mend the trainer: it breaks the run contract",
				"the trainer says it is done and left no %s", name)
		}
	}
	return nil
}

// readStatus reads the trainer's status.json.
func readStatus(run string) (delivery.RunStatus, error) {
	// Neither a link nor a pipe in the file's place may lead or hold us up.
	f, err := os.OpenFile(filepath.Join(run, outputDir, statusFile), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK,
		0)
	if err != nil {
		return delivery.RunStatus{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, delivery.MaxRunStatus+1))
	if err != nil {
		return delivery.RunStatus{}, err
	}
	return delivery.ParseRunStatus(data)
}

// changed reports whether a status says more than that the trainer is alive.
func changed(old, now delivery.RunStatus) bool {
	return old.Phase != now.Phase || old.Epoch != now.Epoch || old.Epochs != now.Epochs ||
		old.Batch != now.Batch || old.Batches != now.Batches || old.Message != now.Message
}

// at says how far a training was.
func at(s delivery.RunStatus) string {
	if s.Epochs == 0 {
		return ""
	}
	return fmt.Sprintf(" at epoch %d of %d", s.Epoch, s.Epochs)
}

// lastLine returns the end of a log, for an error.
func lastLine(path string) string {
	const nothing = "it printed nothing"
	f, err := os.Open(path)
	if err != nil {
		return nothing
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nothing
	}
	tail := make([]byte, 2000)
	n, _ := f.ReadAt(tail, max(0, info.Size()-int64(len(tail))))
	lines := strings.Split(strings.TrimSpace(strings.ToValidUTF8(string(tail[:n]), "")), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	if last == "" {
		return nothing
	}
	if len(last) > 300 {
		last = strings.ToValidUTF8(last[:300], "") + "…"
	}
	return last
}

func (r TrainRequest) stage(name string) error {
	if r.Stage == nil {
		return nil
	}
	return r.Stage(name)
}
