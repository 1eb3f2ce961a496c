package terraform

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/trainer"
)

// A Trainer trains through a Terraform module, which launches and ends trainers on a machine.
type Trainer struct {
	Terraform string  // absolute path of the program of Terraform or OpenTofu
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

// wanted lists the files that a trainer must have written when its phase is "done".
var wanted = []string{"model.onnx", "train.json"}

// finish is the time for a trainer to exit after phase done or failed.
const finish = 30 * time.Second

// Train trains, and returns when the training is done or has failed. No process is left running. It first handles
// earlier attempts in the folder: a completed training is not repeated, a trainer that is alive in an applied attempt
// is watched, and everything else is destroyed. A new attempt resumes from the checkpoint in Dir/output.
//
// Its errors are those of [trainer.Request].
func (t *Trainer) Train(ctx context.Context, req trainer.Request) (trainer.Trained, error) {
	req.Grace = cmp.Or(req.Grace, 30*time.Second)
	list, err := attempts(req.Dir)
	if err != nil {
		return trainer.Trained{}, err
	}
	a, err := t.takeOver(ctx, req, list)
	if err != nil {
		return trainer.Trained{}, err
	}
	done := trainer.Trained{Output: filepath.Join(req.Dir, outputDir), Attempts: len(list)}
	spent := spentOn(list)
	if a == nil {
		done.Status, err = readStatus(req.Dir, req.Mask())
		if err == nil && len(list) > 0 && done.Status.Phase == "done" && complete(done.Output) == nil {
			return done, nil
		}
		if err := context.Cause(ctx); err != nil {
			return trainer.Trained{}, interrupted(ctx)
		}
		next, err := upcoming(req.Dir, list)
		if err != nil {
			return trainer.Trained{}, err
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

// takeOver returns the last attempt if it was applied and its trainer is alive. It settles all others.
func (t *Trainer) takeOver(ctx context.Context, req trainer.Request, list []*attempt) (*attempt, error) {
	for i, a := range list {
		if a.settled {
			continue
		}
		if i == len(list)-1 && !a.applied.IsZero() && !exists(filepath.Join(a.dir, fenceFile)) && ctx.Err() == nil {
			alive, err := t.Machine.Alive(ctx, a.dir)
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
		if err := t.settleAnyway(ctx, req, a, ""); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// launch begins an attempt and applies the module. The caller must settle the returned
// attempt, if any, also after an error.
func (t *Trainer) launch(ctx context.Context, req trainer.Request, next Next) (*attempt, error) {
	if err := t.check(req); err != nil {
		return nil, err
	}
	output := filepath.Join(req.Dir, outputDir)
	if err := os.MkdirAll(output, 0o700); err != nil {
		return nil, err
	}
	// The status of an earlier attempt must not count for this one.
	if err := os.Remove(filepath.Join(output, statusFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	how, err := t.Machine.Prepare(ctx, req, next)
	if err != nil {
		return nil, err
	}
	a, err := begin(req.Dir, next.Number, how.Launch)
	if err != nil {
		return a, err
	}
	if err := stage(req, "plan"); err != nil {
		return a, err
	}
	env, err := t.Machine.Env(ctx)
	if err != nil {
		return a, err
	}
	maps.Copy(env, how.Env)
	s, err := t.Machine.Module(t.module(), a.dir).Create(a.stackDir(), how.Vars, how.Policy, env)
	if err != nil {
		return a, err
	}
	if s.Tell = how.Tell; how.Explain == nil {
		how.Explain = func(err error) error { return err }
	}
	if err := s.Plan(ctx); err != nil {
		return a, how.Explain(err)
	}
	if err := stage(req, "apply"); err != nil {
		return a, err
	}
	if err := s.Apply(ctx); err != nil {
		return a, how.Explain(err)
	}
	if err := how.Applied(func(name string, into any) error { return s.Output(ctx, name, into) }); err != nil {
		return a, err
	}
	a.applied = time.Now().UTC()
	return a, writeMoment(filepath.Join(a.dir, appliedFile), a.applied)
}

func (t *Trainer) module() Module { return Module{Exec: t.Terraform, Files: t.Module} }

// check checks what a launch needs, before there is anything to clean up.
func (t *Trainer) check(req trainer.Request) error {
	if err := t.module().check(); err != nil {
		return err
	}
	if req.Heartbeat <= 0 {
		return delivery.Blockedf("set heartbeat: in the server's configuration", "a training needs a heartbeat limit")
	}
	return nil
}

// watch follows the attempt's trainer until it has ended or must be ended.
func (t *Trainer) watch(ctx context.Context, req trainer.Request, a *attempt, spent time.Duration) (delivery.RunStatus,
	error) {
	a.watched = true
	if err := stage(req, "training"); err != nil {
		return delivery.RunStatus{}, err
	}
	tick := time.NewTicker(t.Machine.Pace().Every)
	defer tick.Stop()
	mask := req.Mask()
	var reported delivery.RunStatus
	var ending time.Time // when the phase became done or failed
	expected := a.applied
	for {
		// Look before the file is read, so that the last status of an ended trainer is read.
		seen, err := t.Machine.Look(ctx, req, a.dir)
		if err != nil {
			return reported, err
		}
		status, unreadable := readStatus(req.Dir, mask)
		if unreadable == nil && changed(reported, status) {
			if req.Progress != nil {
				if err := req.Progress(status); err != nil {
					return reported, err
				}
			}
			reported = status
		}
		now := time.Now()
		final := status.Phase == "done" || status.Phase == "failed"
		if final && ending.IsZero() {
			ending = now
		}
		if final && (!seen.Alive || now.Sub(ending) > finish) {
			if status.Phase == "done" {
				return status, nil
			}
			return status, refused(req, a, status.Message)
		}
		if !seen.Alive {
			return status, vanished(ctx, req, a, status, seen.Ended)
		}
		if err := context.Cause(ctx); err != nil {
			return status, interrupted(ctx)
		}
		if seen.Unseen != nil {
			expected = now
		} else if seen.Heard.After(expected) {
			expected = seen.Heard
		}
		if !final {
			if total := spent + now.Sub(a.begun); req.Limit > 0 && total > req.Limit {
				return status, delivery.Blockedf("raise the limit, or train fewer epochs; the checkpoint is kept",
					"the training took longer than its limit of %s%s", delivery.Duration(req.Limit), at(status))
			}
			if err := delivery.Heartbeat(status, expected, now, seen.Allowance); err != nil {
				if unreadable != nil && !errors.Is(unreadable, os.ErrNotExist) {
					err = fmt.Errorf("%w, and %w", err, unreadable)
				}
				return status, silent(seen.Silent, err, status)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// silent returns the error of a trainer of which nothing was heard for too long.
func silent(why Lost, err error, status delivery.RunStatus) error {
	switch why {
	case "":
		return fmt.Errorf("the trainer hangs: %w%s", err, at(status))
	case LostBoot:
		return lostf(why, "the instance does not boot: %w", err)
	}
	return lostf(why, "the trainer hangs: %w%s", err, at(status))
}

// end settles the attempt and returns err, the outcome so far. If the attempt cannot be
// settled, it returns that error instead, with err in its text.
func (t *Trainer) end(ctx context.Context, req trainer.Request, a *attempt, err error) error {
	if a == nil {
		return err
	}
	stageErr := stage(req, "destroy")
	why := Lost("")
	if lost, ok := errors.AsType[lostError](err); ok {
		why = lost.why
	}
	if bad := errors.Join(t.settleAnyway(ctx, req, a, why), stageErr); bad != nil {
		if err != nil {
			return fmt.Errorf("%w (after: %v)", bad, err)
		}
		return bad
	}
	return err
}

// settleAnyway settles an attempt even if the context has ended.
func (t *Trainer) settleAnyway(ctx context.Context, req trainer.Request, a *attempt, why Lost) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.Machine.Pace().Cleanup+req.Grace)
	defer cancel()
	return t.settle(ctx, req, a, why)
}

// refused returns the error of a trainer that reported a failure.
func refused(req trainer.Request, a *attempt, message string) error {
	if message == "" {
		message = lastLine(req, a)
	}
	return delivery.Blockedf("fix the cause; its log says more",
		"the trainer failed: %s", message)
}

// vanished returns the error of a trainer that ended without phase done or failed. why says more, if it is not nil.
func vanished(ctx context.Context, req trainer.Request, a *attempt, status delivery.RunStatus, why error) error {
	if why != nil && ctx.Err() == nil {
		return fmt.Errorf("%w%s", why, at(status))
	}
	var exit exitStatus
	known := false
	// Another process records the exit status, shortly after the lock is free.
	for end := time.Now().Add(time.Second); !known && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		known = durable.ReadJSON(filepath.Join(a.dir, exitFile), &exit) == nil
	}
	last := lastLine(req, a)
	switch {
	case ctx.Err() != nil:
		return interrupted(ctx)
	case known && exit.Code == 1:
		// The trainer refused its task before it wrote a status.
		return refused(req, a, "")
	case known && exit.Signal == syscall.SIGKILL.String():
		return fmt.Errorf("the trainer was killed%s; the machine may be short of memory", at(status))
	case known && exit.Signal != "":
		return fmt.Errorf("the trainer crashed (%s)%s: %s", exit.Signal, at(status), last)
	case known:
		return fmt.Errorf("the trainer ended unfinished with exit status %d%s: %s", exit.Code, at(status), last)
	}
	return fmt.Errorf("the trainer ended%s, with unknown exit status: %s", at(status), last)
}

func interrupted(ctx context.Context) error {
	return fmt.Errorf("the training was interrupted: %w", context.Cause(ctx))
}

// complete returns an error if a file of a completed training is missing or empty.
func complete(output string) error {
	for _, name := range wanted {
		info, err := os.Lstat(filepath.Join(output, name))
		if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
			return delivery.Blockedf("fix the trainer: it must write this file before phase done",
				"the trainer is done but wrote no %s", name)
		}
	}
	return nil
}

// readStatus reads the trainer's status.json.
func readStatus(run string, mask delivery.Mask) (delivery.RunStatus, error) {
	data, err := durable.ReadNoFollow(filepath.Join(run, outputDir, statusFile), delivery.MaxRunStatus)
	if err != nil {
		return delivery.RunStatus{}, err
	}
	return delivery.ParseRunStatus(data, mask)
}

// changed reports whether anything but the heartbeat differs.
func changed(old, now delivery.RunStatus) bool {
	return old.Phase != now.Phase || old.Epoch != now.Epoch || old.Epochs != now.Epochs ||
		old.Batch != now.Batch || old.Batches != now.Batches || old.Message != now.Message
}

// at returns the epoch of a status as text, or "".
func at(s delivery.RunStatus) string {
	if s.Epochs == 0 {
		return ""
	}
	return fmt.Sprintf(" at epoch %d of %d", s.Epoch, s.Epochs)
}

// lastLine returns the last line of the trainer's log, for an error.
func lastLine(req trainer.Request, a *attempt) string {
	return cmp.Or(durable.LastLine(filepath.Join(a.dir, trainerLog), req.Mask()), "it printed nothing")
}

// stage reports the current stage to the request's Stage function.
func stage(req trainer.Request, name string) error {
	if req.Stage == nil {
		return nil
	}
	return req.Stage(name)
}
