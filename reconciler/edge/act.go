package edge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"slices"
	"syscall"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
)

// act executes a plan's step. It returns true if the state has changed already, so that the loop plans again.
func (a *Agent) act(ctx context.Context, p Plan) bool {
	if a.job != nil {
		if a.job.plan.Step == p.Step {
			return false // in progress
		}
		a.endJob() // the plan has changed
		return true
	}
	a.logPlan(p)
	switch p.Do {
	case Idle:
		return false
	case Start:
		if !a.observe().servingIsGood() {
			// Saved before the start, because the detector may take the whole device down.
			a.state.Tries++
			a.saveState()
		}
		a.startJob(ctx, p, a.runStart)
	case Switch, FallBack:
		a.startJob(ctx, p, a.runStart)
	case Fetch:
		a.startJob(ctx, p, a.runDownload)
	case GiveUp, Forget:
		if p.Do == GiveUp {
			a.bundleFailed(a.state.Bundle, p.Why)
		}
		a.state.Slot, a.state.Bundle, a.state.Release, a.state.Tries = "", "", 0, 0
		a.saveState()
		return true
	case MarkGood:
		a.state.markGood()
		a.startBackoff.reset()
		a.saveState()
		a.serving.stop()
		a.watch(ctx, a.serving)
		return true
	case Relabel:
		a.state.Release = p.Target.Version
		a.state.Releases[p.Target.Bundle] = p.Target.Version
		a.saveState()
		return true
	}
	return false
}

// logPlan logs a plan; a reason for being idle is logged once.
func (a *Agent) logPlan(p Plan) {
	if p.Do == Idle {
		if p.Why != "" && p.Why != a.loggedReason {
			a.Log.Info("idle", "why", p.Why)
		}
		a.loggedReason = p.Why
		return
	}
	a.loggedReason = ""
	slot, t := p.Slot, p.Target
	if t.Bundle == "" { // the step is about the serving bundle
		slot, t = a.state.Slot, delivery.Target{Version: a.state.Release, Bundle: a.state.Bundle}
	}
	a.Log.Info(string(p.Do), "slot", slot, "bundle", t.Bundle, "release", t.Version, "why", p.Why)
}

// startJob runs work beside the loop as the current job.
func (a *Agent) startJob(ctx context.Context, p Plan, work func(context.Context, *job)) {
	ctx, cancel := context.WithCancel(ctx)
	j := &job{plan: p, cancel: cancel, done: make(chan struct{}), pointer: a.state.Slot, ending: a.ending,
		socket: a.newSocket()}
	a.job = j
	a.tasks.Go(func() {
		defer close(j.done)
		work(ctx, j)
	})
}

func (a *Agent) runDownload(ctx context.Context, j *job) {
	if j.plan.Slot == j.pointer { // Make never plans this
		j.err = fmt.Errorf("slot %s serves and must not be written", j.pointer)
		return
	}
	b := j.plan.Target.Bundle
	if j.downloaded, j.err = a.fetch(ctx, j.plan.Slot, b); j.err != nil || a.Prepare == nil {
		return
	}
	if err := a.Prepare(ctx, bundleDir(a.Dir, j.plan.Slot, b)); err != nil && ctx.Err() == nil {
		a.Log.Warn("bundle not prepared; it is tried again when it starts, and the device does not serve meanwhile",
			"slot", j.plan.Slot, "bundle", b, "err", err)
	}
}

func (a *Agent) runStart(ctx context.Context, j *job) {
	if j.ending != nil {
		select { // the memory may not hold two detectors
		case <-j.ending.closed:
		case <-ctx.Done():
			j.err = ctx.Err()
			return
		}
	}
	j.instance, j.err = a.start(ctx, j.plan.Slot, j.plan.Target, j.socket)
}

// delayStart delays the next start of a slot after a start that failed because of the device.
func (a *Agent) delayStart(slot string, err error) {
	s := a.slots[slot]
	pause := a.startBackoff.next(0)
	s.Held, s.NotBefore = shorten("cannot start the detector on this device: "+err.Error()), a.Now().Add(pause)
	a.slots[slot] = s
	a.Log.Error("detector cannot be started on this device", "slot", slot, "bundle", s.Bundle, "err", err, "again",
		pause)
}

// handleDamage empties a slot whose files do not match the bundle's digests. Its bundle is then downloaded again.
func (a *Agent) handleDamage(slot string, b delivery.Digest, err error) {
	pause := a.startBackoff.next(0)
	why := shorten(fmt.Sprintf("slot %s was damaged on this device (%s); its bundle is downloaded again", slot, err))
	a.Metrics.damaged.Inc()
	a.Log.Error("slot damaged", "slot", slot, "bundle", b, "err", err, "again", pause)
	a.slots[slot] = Slot{Held: why}
	a.fetching = Fetching{Bundle: b, NotBefore: a.Now().Add(pause), Why: why}
	if err := clearSlot(a.Dir, slot, ""); err != nil {
		a.Log.Error("damaged slot not emptied", "slot", slot, "err", err)
	}
}

// handleStartError handles a start that failed for a reason other than the bundle, and reports whether it was one.
func (a *Agent) handleStartError(p Plan, err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return err != nil
	}
	_, damaged := errors.AsType[*artifact.Damaged](err)
	switch {
	case damaged:
		a.handleDamage(p.Slot, p.Target.Bundle, err)
	case deviceFault(err):
		a.delayStart(p.Slot, err)
	default:
		return false
	}
	return true
}

// deviceFault reports whether an error is the device's fault: no space, memory or file descriptors left, programs that
// are older than the bundle or of different versions, or a detector program that cannot be run.
func deviceFault(err error) bool {
	scarce := []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM,
		syscall.EAGAIN, syscall.EIO}
	_, newerSignature := errors.AsType[newerBundle](err)
	_, newerManifest := errors.AsType[*artifact.NewerError](err)
	_, mixed := errors.AsType[*detect.VersionError](err)
	_, unsaved := errors.AsType[*stateWriteError](err)
	path, isPath := errors.AsType[*fs.PathError](err)
	return newerSignature || newerManifest || mixed || unsaved || errors.Is(err, exec.ErrNotFound) ||
		isPath && path.Op == "fork/exec" || slices.ContainsFunc(scarce, func(e error) bool { return errors.Is(err, e) })
}

// stateWriteError is the error of a pointer file that could not be written.
type stateWriteError struct{ error }

func (u *stateWriteError) Unwrap() error { return u.error }

// endJob cancels the current job, waits for it, and closes the instance that it started.
func (a *Agent) endJob() {
	j := a.job
	if j == nil {
		return
	}
	j.cancel()
	<-j.done
	a.job = nil
	if j.instance != nil {
		a.close(j.instance)
	}
	if j.plan.Do == Fetch {
		a.countDownload(j)
	}
}

// finish applies the result of a completed job.
func (a *Agent) finish(ctx context.Context) {
	j := a.job
	a.job = nil
	j.cancel()
	p := j.plan
	switch p.Do {
	case Fetch:
		a.countDownload(j)
		if j.err != nil {
			a.handleFetchError(p.Target.Bundle, j.err)
			return
		}
		a.fetching = Fetching{}
		a.downloadBackoff.reset()
	case Start:
		if a.handleStartError(p, j.err) {
			return
		}
		if j.err != nil {
			a.Log.Error("detector did not start", "slot", p.Slot, "bundle", p.Target.Bundle, "err", j.err)
			a.trouble = "the detector did not start: " + j.err.Error()
			a.crashed(p.Slot, a.slots[p.Slot])
			return
		}
		a.setServing(ctx, j.instance)
	case Switch:
		if j.err == nil {
			j.err = a.switchTo(ctx, j, a.state.clone())
		}
		if a.handleStartError(p, j.err) {
			return
		}
		if j.err != nil {
			a.bundleFailed(p.Target.Bundle, "the detector did not start: "+j.err.Error())
			a.saveState()
		}
	case FallBack:
		next := a.state.clone()
		next.recordFailure(a.state.Bundle, a.version(), p.Why)
		if j.err == nil {
			j.err = a.switchTo(ctx, j, next)
		}
		if a.handleStartError(p, j.err) {
			return
		}
		if j.err != nil {
			a.Log.Error("fallback failed", "slot", p.Slot, "bundle", p.Target.Bundle, "err", j.err)
			a.crashed(p.Slot, a.slots[p.Slot])
			return
		}
		a.Metrics.failures.Inc()
	}
}

// switchTo makes a started instance the serving one: first the pointer file, then the socket link. The
// previous instance finishes its requests and is closed.
func (a *Agent) switchTo(ctx context.Context, j *job, next State) error {
	next.serve(j.plan.Slot, j.plan.Target)
	if err := next.save(a.Dir); err != nil {
		a.close(j.instance)
		why := err
		if no := syscall.Errno(0); errors.As(err, &no) {
			why = no // without the name of the temporary file, which changes each time
		}
		return &stateWriteError{fmt.Errorf("%s cannot be written: %w", stateFile, why)}
	}
	old := a.serving
	a.state = next
	a.slots[j.plan.Slot] = Slot{Bundle: j.plan.Target.Bundle}
	a.setServing(ctx, j.instance)
	if old != nil {
		a.close(old)
	}
	a.Metrics.switches.Inc()
	a.Log.Info("switched", "slot", j.plan.Slot, "bundle", j.plan.Target.Bundle, "release", j.plan.Target.Version)
	return nil
}

func (a *Agent) version() int64 { return a.observe().version() }

// bundleFailed records that a bundle failed.
func (a *Agent) bundleFailed(b delivery.Digest, why string) {
	a.state.recordFailure(b, a.version(), why)
	a.Metrics.failures.Inc()
	a.Log.Error("bundle failed", "bundle", b, "why", why)
}

// countDownload counts the downloaded bytes, also of a failed download, and scans the slot again.
func (a *Agent) countDownload(j *job) {
	a.Metrics.downloaded.Add(float64(j.downloaded))
	a.state.Downloaded += j.downloaded
	if j.downloaded > 0 {
		a.saveState()
	}
	b, err := scanSlot(a.Dir, j.plan.Slot, j.plan.Target.Bundle)
	if err != nil {
		a.Log.Error("slot not read", "slot", j.plan.Slot, "err", err)
	}
	a.slots[j.plan.Slot] = Slot{Bundle: b}
}

// handleFetchError delays the next download. A malformed bundle whose bytes match their digests has failed;
// all other errors are retried without limit.
func (a *Agent) handleFetchError(b delivery.Digest, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	if a.fetching.Bundle != b {
		a.fetching = Fetching{Bundle: b}
		a.downloadBackoff.reset()
	}
	if wrong, ok := errors.AsType[*artifact.ContentError](err); ok {
		a.fetching = Fetching{}
		a.bundleFailed(b, "the bundle is malformed: "+wrong.Error())
		a.saveState()
		return
	}
	pause := a.downloadBackoff.next(0)
	if slow, ok := errors.AsType[*retryLater](err); ok {
		pause = max(pause, slow.after)
	}
	a.fetching.NotBefore, a.fetching.Why = a.Now().Add(pause), shorten("cannot download: "+downloadReason(err))
	a.Metrics.undelivered.Inc()
	a.Log.Warn("download failed", "bundle", b, "why", a.fetching.Why, "err", err, "again", pause)
}
