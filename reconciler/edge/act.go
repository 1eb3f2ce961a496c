package edge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"syscall"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
)

// act does a step. It returns true when that changed the world at once.
func (a *Agent) act(ctx context.Context, p Plan) bool {
	if a.job != nil {
		if a.job.plan.Step == p.Step {
			return false // it is being done
		}
		a.endJob() // something else is wanted now
		return true
	}
	a.explain(p)
	switch p.Do {
	case Rest:
		return false
	case Start:
		if !a.observe().proven() {
			// Before it starts: it may take the whole device down.
			a.state.Tries++
			a.keep()
		}
		a.begin(ctx, p, a.starting)
	case Switch, FallBack:
		a.begin(ctx, p, a.starting)
	case Fetch:
		a.begin(ctx, p, a.downloading)
	case GiveUp:
		a.failed(a.state.Bundle, p.Why)
		a.state.Slot, a.state.Bundle, a.state.Release, a.state.Tries = "", "", 0, 0
		a.keep()
		return true
	case Forget:
		a.state.Slot, a.state.Bundle, a.state.Release, a.state.Tries = "", "", 0, 0
		a.keep()
		return true
	case Prove:
		a.state.prove()
		a.faults.reset()
		a.keep()
		a.serving.stop()
		a.watch(ctx, a.serving)
		return true
	case Relabel:
		a.state.Release = p.Target.Version
		a.state.Releases[p.Target.Bundle] = p.Target.Version
		a.keep()
		return true
	}
	return false
}

// explain logs a plan, and a reason to rest once.
func (a *Agent) explain(p Plan) {
	if p.Do == Rest {
		if p.Why != "" && p.Why != a.rested {
			a.Log.Info("rest", "why", p.Why)
		}
		a.rested = p.Why
		return
	}
	a.rested = ""
	slot, t := p.Slot, p.Target
	if t.Bundle == "" { // it is about what serves
		slot, t = a.state.Slot, delivery.Target{Version: a.state.Release, Bundle: a.state.Bundle}
	}
	a.Log.Info(string(p.Do), "slot", slot, "bundle", t.Bundle, "release", t.Version, "why", p.Why)
}

// begin does slow work beside the loop.
func (a *Agent) begin(ctx context.Context, p Plan, work func(context.Context, *job)) {
	ctx, cancel := context.WithCancel(ctx)
	j := &job{plan: p, cancel: cancel, done: make(chan struct{}), pointer: a.state.Slot, ending: a.ending,
		socket: a.newSocket()}
	a.job = j
	a.tasks.Go(func() {
		defer close(j.done)
		work(ctx, j)
	})
}

func (a *Agent) downloading(ctx context.Context, j *job) {
	if j.plan.Slot == j.pointer { // Make never plans it, and it must never happen
		j.err = fmt.Errorf("slot %s serves, and is not written", j.pointer)
		return
	}
	j.downloaded, j.err = a.fetch(ctx, j.plan.Slot, j.plan.Target.Bundle)
}

func (a *Agent) starting(ctx context.Context, j *job) {
	if j.ending != nil {
		select { // two of them may be more than the memory holds
		case <-j.ending.gone:
		case <-ctx.Done():
			j.err = ctx.Err()
			return
		}
	}
	j.instance, j.err = a.start(ctx, j.plan.Slot, j.plan.Target, j.socket)
}

// postpone delays the next start of a slot after a fault of this device.
func (a *Agent) postpone(slot string, err error) {
	s := a.slots[slot]
	pause := a.faults.next(0)
	s.Held, s.NotBefore = cut("cannot start the detector on this device: "+err.Error()), a.Now().Add(pause)
	a.slots[slot] = s
	a.Log.Error("the device cannot start a detector", "slot", slot, "bundle", s.Bundle, "err", err, "again", pause)
}

// damage empties a slot whose files are not the bundle's any more. What it held
// is fetched again.
func (a *Agent) damage(slot string, b delivery.Digest, err error) {
	pause := a.faults.next(0)
	why := cut(fmt.Sprintf("slot %s was damaged on this device (%s), and is fetched again", slot, err))
	a.Metrics.damaged.Inc()
	a.Log.Error("slot damaged", "slot", slot, "bundle", b, "err", err, "again", pause)
	a.slots[slot] = Slot{Held: why}
	a.fetching = Fetching{Bundle: b, NotBefore: a.Now().Add(pause), Why: why}
	if err := clearSlot(a.Dir, slot, ""); err != nil {
		a.Log.Error("damaged slot not emptied", "slot", slot, "err", err)
	}
}

// notStarted handles a start that failed for a reason that is none of the
// bundle's, and reports whether it was one.
func (a *Agent) notStarted(p Plan, err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return err != nil
	}
	var bad *artifact.Damaged
	switch {
	case errors.As(err, &bad):
		a.damage(p.Slot, p.Target.Bundle, err)
	case deviceFault(err):
		a.postpone(p.Slot, err)
	default:
		return false
	}
	return true
}

// deviceFault reports whether an error is the machine's: it is out of room,
// memory or files, its programs are older than the bundle or of different
// versions, or the detector's program cannot be run.
func deviceFault(err error) bool {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EMFILE, syscall.ENFILE,
		syscall.ENOMEM, syscall.EAGAIN, syscall.EIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	if _, newer := errors.AsType[newerBundle](err); newer {
		return true
	}
	if _, newer := errors.AsType[*artifact.NewerError](err); newer {
		return true
	}
	if _, mixed := errors.AsType[*detect.VersionError](err); mixed {
		return true
	}
	var notKept *unkept
	var path *fs.PathError
	return errors.As(err, &notKept) || errors.Is(err, exec.ErrNotFound) || errors.As(err, &path) &&
		path.Op == "fork/exec"
}

// unkept is the error of a pointer that could not be written.
type unkept struct{ error }

func (u *unkept) Unwrap() error { return u.error }

// endJob stops the job and takes back what it did.
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
		a.fetched(j)
	}
}

// finish makes what a job did count.
func (a *Agent) finish(ctx context.Context) {
	j := a.job
	a.job = nil
	j.cancel()
	p := j.plan
	switch p.Do {
	case Fetch:
		a.fetched(j)
		if j.err != nil {
			a.notFetched(p.Target.Bundle, j.err)
			return
		}
		a.fetching = Fetching{}
		a.tries.reset()
	case Start:
		if a.notStarted(p, j.err) {
			return
		}
		if j.err != nil {
			a.Log.Error("detector did not start", "slot", p.Slot, "bundle", p.Target.Bundle, "err", j.err)
			a.trouble = "it did not start: " + j.err.Error()
			a.crashed(p.Slot, a.slots[p.Slot])
			return
		}
		a.put(ctx, j.instance)
	case Switch:
		if j.err == nil {
			j.err = a.switchTo(ctx, j, a.state.clone())
		}
		if a.notStarted(p, j.err) {
			return
		}
		if j.err != nil {
			a.failed(p.Target.Bundle, "it did not start: "+j.err.Error())
			a.keep()
		}
	case FallBack:
		next := a.state.clone()
		next.fail(a.state.Bundle, a.version(), p.Why)
		if j.err == nil {
			j.err = a.switchTo(ctx, j, next)
		}
		if a.notStarted(p, j.err) {
			return
		}
		if j.err != nil {
			a.Log.Error("not fallen back", "slot", p.Slot, "bundle", p.Target.Bundle, "err", j.err)
			a.crashed(p.Slot, a.slots[p.Slot])
			return
		}
		a.Metrics.failures.Inc()
	}
}

// switchTo makes a started instance the one that serves: the pointer first,
// then the socket. The one before ends what it is at, and ends.
func (a *Agent) switchTo(ctx context.Context, j *job, next State) error {
	next.serve(j.plan.Slot, j.plan.Target)
	if err := next.save(a.Dir); err != nil {
		a.close(j.instance)
		why := err
		if no := syscall.Errno(0); errors.As(err, &no) {
			why = no // not the name of a temporary file, which changes each time
		}
		return &unkept{fmt.Errorf("%s cannot be written: %w", stateFile, why)}
	}
	old := a.serving
	a.state = next
	a.slots[j.plan.Slot] = Slot{Bundle: j.plan.Target.Bundle}
	a.put(ctx, j.instance)
	if old != nil {
		a.close(old)
	}
	a.Metrics.switches.Inc()
	a.Log.Info("switched", "slot", j.plan.Slot, "bundle", j.plan.Target.Bundle, "release", j.plan.Target.Version)
	return nil
}

func (a *Agent) version() int64 { return a.observe().version() }

// failed remembers that a bundle failed.
func (a *Agent) failed(b delivery.Digest, why string) {
	a.state.fail(b, a.version(), why)
	a.Metrics.failures.Inc()
	a.Log.Error("bundle failed", "bundle", b, "why", why)
}

// fetched counts what a download brought, whole or not.
func (a *Agent) fetched(j *job) {
	a.Metrics.downloaded.Add(float64(j.downloaded))
	a.state.Downloaded += j.downloaded
	if j.downloaded > 0 {
		a.keep()
	}
	b, err := scanSlot(a.Dir, j.plan.Slot, j.plan.Target.Bundle)
	if err != nil {
		a.Log.Error("slot not read", "slot", j.plan.Slot, "err", err)
	}
	a.slots[j.plan.Slot] = Slot{Bundle: b}
}

// notFetched puts a download off. Only a bundle whose bytes matched their digests
// can be at fault; whatever else went wrong is tried again without end.
func (a *Agent) notFetched(b delivery.Digest, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	if a.fetching.Bundle != b {
		a.fetching = Fetching{Bundle: b}
		a.tries.reset()
	}
	var wrong *artifact.ContentError
	if errors.As(err, &wrong) {
		a.fetching = Fetching{}
		a.failed(b, "the bundle is malformed: "+wrong.Error())
		a.keep()
		return
	}
	pause := a.tries.next(0)
	var slow *busy
	if errors.As(err, &slow) {
		pause = max(pause, slow.after)
	}
	a.fetching.NotBefore, a.fetching.Why = a.Now().Add(pause), cut("cannot download: "+whyNot(err))
	a.Metrics.undelivered.Inc()
	a.Log.Warn("not downloaded", "bundle", b, "why", a.fetching.Why, "err", err, "again", pause)
}
