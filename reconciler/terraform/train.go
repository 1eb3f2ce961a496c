package terraform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/trainer"
)

// A Trainer trains through a Terraform module, which launches and ends trainers on a
// machine.
type Trainer struct {
	Terraform string  // absolute path of the terraform program
	Module    fs.FS   // the module's files
	AOB       string  // absolute path of the aob program, which modules call as $AOB
	Machine   Machine // that the module launches on
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
// Its errors are those of [trainer.Request].
func (t *Trainer) Train(ctx context.Context, req trainer.Request) (trainer.Trained, error) {
	if req.Grace == 0 {
		req.Grace = 30 * time.Second
	}
	list, err := attempts(req.Dir)
	if err != nil {
		return trainer.Trained{}, err
	}
	a, err := t.takeOver(ctx, req, list)
	if err != nil {
		return trainer.Trained{}, err
	}
	done := trainer.Trained{Output: filepath.Join(req.Dir, outputDir), Attempts: len(list)}
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
			return trainer.Trained{}, interrupted(ctx)
		}
		next := 1
		if len(list) > 0 {
			next = list[len(list)-1].number + 1
		}
		done.Attempts++
		if a, err = t.launch(ctx, req, next); err != nil {
			return trainer.Trained{}, t.end(ctx, req, a, err)
		}
	}
	status, err := t.watch(ctx, req, a, spent)
	if err := t.end(ctx, req, a, err); err != nil {
		return trainer.Trained{}, err
	}
	done.Status = status
	return done, complete(done.Output)
}

// takeOver settles all former attempts but one that can be watched on: the last,
// if it was applied and its trainer is alive.
func (t *Trainer) takeOver(ctx context.Context, req trainer.Request, list []*attempt) (*attempt, error) {
	for i, a := range list {
		if a.settled {
			continue
		}
		if i == len(list)-1 && !a.applied.IsZero() && !exists(filepath.Join(a.dir, fenceFile)) && ctx.Err() == nil {
			alive, err := t.Machine.Alive(a.dir)
			if err != nil {
				return nil, err
			}
			if alive {
				return a, nil
			}
		}
		if err := stage(req, "clean"); err != nil {
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
func (t *Trainer) launch(ctx context.Context, req trainer.Request, number int) (*attempt, error) {
	if err := t.check(req); err != nil {
		return nil, err
	}
	how, err := t.Machine.Prepare(req)
	if err != nil {
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
	a, err := begin(req.Dir, number, how.Launch)
	if err != nil {
		return a, err
	}
	if err := stage(req, "plan"); err != nil {
		return a, err
	}
	s, err := t.module().Create(a.stackDir(), map[string]string{"folder": a.dir}, how.Policy(a.dir), t.env(how.Env))
	if err != nil {
		return a, err
	}
	if err := s.Plan(ctx); err != nil {
		return a, err
	}
	if err := stage(req, "apply"); err != nil {
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

func (t *Trainer) module() Module { return Module{Exec: t.Terraform, Files: t.Module} }

// env is the environment of Terraform, with what a machine adds.
func (t *Trainer) env(more map[string]string) map[string]string {
	env := map[string]string{"AOB": t.AOB}
	maps.Copy(env, more)
	return env
}

// check looks for all that a launch needs, before there is anything to clean up.
func (t *Trainer) check(req trainer.Request) error {
	if err := t.module().check(); err != nil {
		return err
	}
	if req.Heartbeat <= 0 {
		return delivery.Blockedf("give one in the server's configuration", "a training needs a heartbeat allowance")
	}
	return nil
}

// watch follows the attempt's trainer until it has ended or must be ended.
func (t *Trainer) watch(ctx context.Context, req trainer.Request, a *attempt, spent time.Duration) (delivery.RunStatus,
	error) {
	if err := stage(req, "training"); err != nil {
		return delivery.RunStatus{}, err
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	var told delivery.RunStatus
	var ending time.Time // when it said that it is at its end
	for {
		// First the lock, then the file: what a trainer wrote last is then read.
		alive, err := t.Machine.Alive(a.dir)
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
func (t *Trainer) end(ctx context.Context, req trainer.Request, a *attempt, err error) error {
	if a == nil {
		return err
	}
	stageErr := stage(req, "destroy")
	if bad := errors.Join(t.settleAnyway(ctx, req, a), stageErr); bad != nil {
		if err != nil {
			return fmt.Errorf("%w (after: %v)", bad, err)
		}
		return bad
	}
	return err
}

// settleAnyway settles an attempt also when the context has ended.
func (t *Trainer) settleAnyway(ctx context.Context, req trainer.Request, a *attempt) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanup+req.Grace)
	defer cancel()
	return t.settle(ctx, req.Dir, a)
}

// refused is the error of a trainer that ended by its own decision.
func refused(req trainer.Request, a *attempt, message string) error {
	if message == "" {
		message = lastLine(filepath.Join(a.dir, trainerLog))
	}
	return delivery.Blockedf("mend what it complains about; its log is "+filepath.Join(req.Dir, outputDir, "log.txt"),
		"the trainer failed: %s", message)
}

// vanished is the error of a trainer that is gone and said neither done nor
// failed.
func vanished(ctx context.Context, req trainer.Request, a *attempt, status delivery.RunStatus) error {
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

// stage tells what is done now.
func stage(req trainer.Request, name string) error {
	if req.Stage == nil {
		return nil
	}
	return req.Stage(name)
}
