package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

var (
	// ErrLocked means that another process is running this run.
	ErrLocked = errors.New("another process runs this run")
	// ErrEnded means that the run has its result, or has failed for good.
	ErrEnded = errors.New("the run has ended")
)

// A Run is the runner's side: the one process that works on a run.
type Run struct {
	Dir     string // the run's folder, absolute
	Spec    delivery.RunSpec
	Attempt int // from 1

	lock    *durable.Lock
	signals chan os.Signal

	mu      sync.Mutex
	journal *journal
}

// Open takes the run's lock, mends its journal and begins an attempt. It
// answers ErrLocked where another process has the run, and ErrEnded where
// nothing is left to do. From here on SIGTERM and SIGINT end the context of Do.
func Open(dir string) (*Run, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	spec, err := readSpec(dir)
	if err != nil {
		return nil, err
	}
	r := &Run{Dir: dir, Spec: spec, signals: make(chan os.Signal, 1)}
	if r.lock, err = takeLock(filepath.Join(dir, lockFile)); err != nil {
		return nil, err
	}
	// Before the journal names this process as one to signal.
	signal.Notify(r.signals, syscall.SIGTERM, os.Interrupt)
	if err := r.begin(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// stateVariable tells a runner the id of the state folder whose server started it.
const stateVariable = "AOB_STATE_ID"

func (r *Run) begin() (err error) {
	if r.journal, err = openJournal(filepath.Join(r.Dir, journalFile)); err != nil {
		return err
	}
	if r.journal.ended() {
		return fmt.Errorf("%s: %w", r.Dir, ErrEnded)
	}
	self, err := durable.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	if err := r.journal.append(entry{Event: eventStart, Process: &self, State: os.Getenv(stateVariable)}); err != nil {
		return err
	}
	r.Attempt = r.journal.attempt
	return durable.SyncDir(r.Dir) // the journal may be new
}

// takeLock takes a run's lock. Who observes a run takes its lock for an instant
// to see whether it is free, so one refusal means nothing yet.
func takeLock(path string) (*durable.Lock, error) {
	for end := time.Now().Add(2 * time.Second); ; {
		lock, err := durable.TryLock(path)
		if errors.Is(err, durable.ErrLocked) {
			if time.Now().Before(end) {
				time.Sleep(10 * time.Millisecond)
				continue
			}
			return nil, fmt.Errorf("%s: %w", filepath.Dir(path), ErrLocked)
		}
		return lock, err
	}
}

// Close gives the run back. An attempt that was not ended by Do counts as died.
func (r *Run) Close() error {
	signal.Stop(r.signals)
	var err error
	if r.journal != nil {
		err = r.journal.f.Close()
	}
	return errors.Join(err, r.lock.Unlock())
}

// Stage says what the attempt does from here on.
func (r *Run) Stage(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.journal.append(entry{Event: eventStage, Stage: name})
}

// Progress says how far the work is. Only an epoch that no attempt reached
// before is written, so calling it often costs nothing.
func (r *Run) Progress(s delivery.RunStatus) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.Epoch <= r.journal.epoch {
		return nil
	}
	return r.journal.append(entry{Event: eventProgress, Epoch: s.Epoch, Epochs: s.Epochs})
}

// The causes for which Do ends the context of work.
type (
	stopped   struct{ why string }
	exhausted struct{ deaths int }
	tooLong   struct{ limit time.Duration }
)

func (s stopped) Error() string { return s.why }
func (e exhausted) Error() string {
	return fmt.Sprintf("its process died %d times without getting further", e.deaths)
}
func (t tooLong) Error() string { return fmt.Sprintf("it took longer than its limit of %s", t.limit) }

// Do performs the attempt's work and journals how it ended: done with the
// result as JSON, failed where the error is a delivery.Blocked, or to be tried
// again for any other error.
//
// The context ends on SIGTERM, on SIGINT, when someone asked the run to end, and
// past the spec's limit. It has ended before work is called where a former
// attempt left something to clean up and nothing is to be done any more: work
// that launches what outlives it must clean up first and look at its context
// then. Work that returns the context's error, wrapped or not, says by it that
// nothing of the run is left behind; if something is, it returns another error.
func (r *Run) Do(ctx context.Context, work func(context.Context) (any, error)) error {
	// Who calls may end its context on the same signal as watch, and be first. That
	// is a request to end, too.
	parent := ctx
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(parent))
	defer cancel(nil)
	defer context.AfterFunc(parent, func() { cancel(r.stopped(context.Cause(parent).Error())) })()
	var watch sync.WaitGroup
	defer watch.Wait()
	over := make(chan struct{})
	defer close(over)
	watch.Go(func() { r.watch(cancel, over) })
	if e, ok := readEnd(r.Dir); ok {
		cancel(stopped{e.Why})
	}
	if n := r.journal.deaths; n >= maxDeaths {
		cancel(exhausted{n})
	}
	if limit := time.Duration(r.Spec.Limit); limit > 0 {
		timer := time.AfterFunc(limit, func() { cancel(tooLong{limit}) })
		defer timer.Stop()
	}

	result, err := work(ctx)
	if err == nil {
		err = r.done(result)
	}
	if err == nil {
		return nil
	}
	e := r.ending(ctx, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(err, r.journal.append(e))
}

// ending returns the entry with which an attempt that brought no result ends.
func (r *Run) ending(ctx context.Context, err error) entry {
	cause := context.Cause(ctx)
	if errors.Is(err, context.Canceled) || cause != nil && errors.Is(err, cause) {
		stop, isStop := errors.AsType[stopped](cause)
		dead, isDead := errors.AsType[exhausted](cause)
		late, isLate := errors.AsType[tooLong](cause)
		switch {
		case isStop:
			return entry{Event: eventStopped, Error: stop.why}
		case isDead:
			return entry{Event: eventFailed, Error: dead.Error(), Do: "look at " + logFile +
				" in the run's folder, mend the cause and try the run again"}
		case isLate:
			return entry{Event: eventFailed, Error: late.Error(), Do: "allow more, or ask for less"}
		}
	}
	if blocked, ok := errors.AsType[delivery.Blocked](err); ok {
		return entry{Event: eventFailed, Error: r.public(blocked.What), Do: r.public(blocked.Do)}
	}
	return entry{Event: eventError, Error: r.public(err.Error())}
}

// public is an error without the run's folder in it: it is shown on pull
// requests, where the server's paths say nothing to anybody.
func (r *Run) public(text string) string {
	return strings.ReplaceAll(text, r.Dir+string(filepath.Separator), "")
}

// done makes the result durable, and then the word that it is there.
func (r *Run) done(result any) error {
	data, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("the run's result: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(r.Dir, resultFile), data, 0o600); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.journal.append(entry{Event: eventDone, Result: delivery.Sum(data)})
}

// watch ends the attempt's context on a signal, and when end.json appears: the
// signal comes at once, the file holds where the signal was lost.
func (r *Run) watch(cancel context.CancelCauseFunc, over <-chan struct{}) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case s := <-r.signals:
			cancel(r.stopped("stopped by " + s.String()))
		case <-tick.C:
			if e, ok := readEnd(r.Dir); ok {
				cancel(stopped{e.Why})
			}
		}
	}
}

// stopped is why the attempt ends on a signal: what stands in end.json, or else why.
func (r *Run) stopped(why string) stopped {
	if e, ok := readEnd(r.Dir); ok {
		why = e.Why
	}
	return stopped{why}
}

// An ending is end.json.
type ending struct {
	At  time.Time `json:"at"`
	Why string    `json:"why"`
}

// readEnd returns when and why someone asked the run to end, if anyone did.
func readEnd(dir string) (e ending, ok bool) {
	data, err := os.ReadFile(filepath.Join(dir, endFile))
	if err != nil {
		return e, false
	}
	if json.Unmarshal(data, &e) != nil || e.Why == "" {
		e.Why = "asked to end"
	}
	return e, true
}

func readSpec(dir string) (delivery.RunSpec, error) {
	var spec delivery.RunSpec
	path := filepath.Join(dir, specFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return spec, fmt.Errorf("not a run's folder: %w", err)
	}
	var form struct {
		Format int `json:"format"`
	}
	if json.Unmarshal(data, &form) == nil {
		if err := delivery.CheckFormat("run "+filepath.Base(dir), form.Format, delivery.RunFormat); err != nil {
			return spec, err
		}
	}
	if err := json.Unmarshal(data, &spec); err != nil {
		return spec, fmt.Errorf("%s: %w", path, err)
	}
	return spec, checkSpec(spec)
}

// checkSpec refuses a spec that names no folder, or that no runner understands.
func checkSpec(spec delivery.RunSpec) error {
	if _, err := delivery.ParseDigest(string(spec.Key)); err != nil {
		return fmt.Errorf("run spec: key: %w", err)
	}
	parts := 0
	fits := false
	for kind, set := range map[delivery.RunKind]bool{delivery.RunData: spec.Data != nil,
		delivery.RunTrain: spec.Train != nil, delivery.RunEval: spec.Eval != nil,
		delivery.RunCompare: spec.Compare != nil, delivery.RunThresholds: spec.Thresholds != nil} {
		if set {
			parts++
			fits = fits || kind == spec.Kind
		}
	}
	if !fits || parts != 1 {
		return fmt.Errorf("run spec %s: kind %q wants that part and no other", spec.Key.Short(), spec.Kind)
	}
	return nil
}
