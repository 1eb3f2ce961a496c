package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
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
	// ErrEnded means that the run is done or failed.
	ErrEnded = errors.New("the run has ended")
)

// A Run is the state of the one process that works on a run.
type Run struct {
	Dir     string // the run's folder, absolute
	Spec    delivery.RunSpec
	Attempt int // from 1

	lock    *durable.Lock
	signals chan os.Signal

	mu      sync.Mutex
	journal *journal
}

// Open locks the run, repairs its journal and begins an attempt. It returns ErrLocked if another process has the run,
// and ErrEnded if the run is done or failed. From here on SIGTERM and SIGINT cancel the context of Do.
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
	// Before the journal records this process, which others may then signal.
	signal.Notify(r.signals, syscall.SIGTERM, os.Interrupt)
	if err := r.begin(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// stateVariable has the id of the state folder whose server started the runner.
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

// takeLock locks a run. A Store that observes the run holds the lock for an instant, so takeLock retries for 2 s.
func takeLock(path string) (*durable.Lock, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	lock, err := durable.WaitLock(ctx, path)
	if errors.Is(err, durable.ErrLocked) {
		return nil, fmt.Errorf("%s: %w", filepath.Dir(path), ErrLocked)
	}
	return lock, err
}

// Close unlocks the run. An attempt that Do did not end counts as died.
func (r *Run) Close() error {
	signal.Stop(r.signals)
	var err error
	if r.journal != nil {
		err = r.journal.f.Close()
	}
	return errors.Join(err, r.lock.Unlock())
}

// Stage records the stage that the attempt enters.
func (r *Run) Stage(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.journal.append(entry{Event: eventStage, Stage: name})
}

// Progress records the epoch if no attempt reached it before. It may be called often.
func (r *Run) Progress(s delivery.RunStatus) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.Epoch <= r.journal.epoch {
		return nil
	}
	return r.journal.append(entry{Event: eventProgress, Epoch: s.Epoch, Epochs: s.Epochs})
}

// An endCause is the cause with which Do cancels the context of work.
type endCause struct{ event, why, do string }

func (c endCause) Error() string { return c.why }

// Do calls work and records how the attempt ended: done, with the result as JSON;
// failed, for a delivery.Blocked error; or to be retried, for any other error, and for a delivery.Wait not before its
// time.
//
// The context is canceled on SIGTERM, on SIGINT, by end.json, and after the spec's limit. It may be canceled before
// work is called: then work must only clean up what an earlier attempt left. So work that launches processes must clean
// up first and check its context afterwards. If work returns the context's error, wrapped or not, nothing of the run
// may be left running; otherwise it must return another error.
func (r *Run) Do(ctx context.Context, work func(context.Context) (any, error)) error {
	// The caller may cancel its context on the same signal before watch does. That counts as a request to end as well.
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
		cancel(stopped(e.Why))
	}
	if n := r.journal.deaths; n >= maxDeaths {
		cancel(endCause{eventFailed, fmt.Sprintf("its process died %d times without getting further", n),
			"read " + logFile + " in the run's folder, fix the cause, then run aob pr recheck NUMBER"})
	}
	if limit := time.Duration(r.Spec.Limit); limit > 0 {
		late := endCause{eventFailed, fmt.Sprintf("it took longer than its limit of %s", limit),
			"raise the limit, or reduce the work"}
		timer := time.AfterFunc(limit, func() { cancel(late) })
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

// ending returns the journal entry of an attempt that ended without a result.
func (r *Run) ending(ctx context.Context, err error) entry {
	cause, ended := errors.AsType[endCause](context.Cause(ctx))
	if ended && (errors.Is(err, context.Canceled) || errors.Is(err, cause)) {
		return entry{Event: cause.event, Error: cause.why, Do: cause.do}
	}
	if blocked, ok := errors.AsType[delivery.Blocked](err); ok {
		return entry{Event: eventFailed, Error: r.public(blocked.What), Do: r.public(blocked.Do)}
	}
	e := entry{Event: eventError, Error: r.public(err.Error())}
	if wait, ok := errors.AsType[delivery.Wait](err); ok {
		e.Error, e.Pause = r.public(wait.What), delivery.Duration(wait.For)
	}
	return e
}

// serverPath matches an absolute path: what is before it, and its last part.
var serverPath = regexp.MustCompile(`(^|[\s"'(=])(?:/[^\s"'()=:;,/]+)+/([^\s"'()=:;,/]+)`)

// public removes the server's paths from an error, which is shown on pull requests. The runner's log has them.
func (r *Run) public(text string) string {
	text = strings.ReplaceAll(text, r.Dir+string(filepath.Separator), "")
	return serverPath.ReplaceAllString(text, "$1$2")
}

// done writes the result, then the journal entry.
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

// watch cancels the attempt's context on a signal, or when end.json appears, in case the signal was lost.
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
				cancel(stopped(e.Why))
			}
		}
	}
}

func stopped(why string) endCause { return endCause{event: eventStopped, why: why} }

// stopped returns the cause to end: that of end.json, or else why.
func (r *Run) stopped(why string) endCause {
	if e, ok := readEnd(r.Dir); ok {
		why = e.Why
	}
	return stopped(why)
}

// An ending is end.json.
type ending struct {
	At  time.Time `json:"at"`
	Why string    `json:"why"`
}

// readEnd returns the request to end the run, if there is one.
func readEnd(dir string) (e ending, ok bool) {
	data, err := os.ReadFile(filepath.Join(dir, endFile))
	if err != nil {
		return e, false
	}
	if json.Unmarshal(data, &e) != nil || e.Why == "" {
		e.Why = "a request to end"
	}
	return e, true
}

func readSpec(dir string) (delivery.RunSpec, error) {
	var spec delivery.RunSpec
	path := filepath.Join(dir, specFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return spec, fmt.Errorf("not the folder of a run: %w", err)
	}
	if err := delivery.CheckFormatOf("run "+filepath.Base(dir), data, delivery.RunFormat); err != nil {
		return spec, err
	}
	if err := json.Unmarshal(data, &spec); err != nil {
		return spec, fmt.Errorf("%s: %w", path, err)
	}
	return spec, checkSpec(spec)
}

// checkSpec returns an error for an invalid key, or if not exactly the part of the spec's kind is set.
func checkSpec(spec delivery.RunSpec) error {
	if _, err := delivery.ParseDigest(string(spec.Key)); err != nil {
		return fmt.Errorf("run spec: key: %w", err)
	}
	parts := 0
	fits := false
	for kind, set := range map[delivery.RunKind]bool{delivery.RunData: spec.Data != nil,
		delivery.RunTrain: spec.Train != nil, delivery.RunEval: spec.Eval != nil,
		delivery.RunCompare: spec.Compare != nil, delivery.RunThresholds: spec.Thresholds != nil,
		delivery.RunVariant: spec.Variant != nil} {
		if set {
			parts++
			fits = fits || kind == spec.Kind
		}
	}
	if !fits || parts != 1 {
		return fmt.Errorf("run spec %s: kind %q needs that part and no other", spec.Key.Short(), spec.Kind)
	}
	return nil
}
