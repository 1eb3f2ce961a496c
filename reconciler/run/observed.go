package run

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// An observed run is the Store's state of one folder.
type observed struct {
	dir     string
	state   delivery.RunState // without the result
	history history
	closed  bool // ended or stopped: not read again until Start or Retry
	index   int  // in the Store's states
	child   *child
	mask    func() delivery.Mask // the Store's

	statusSize int64
	statusTime time.Time
}

// A child is a runner that this process launched.
type child struct {
	gone     bool
	attempt  int // the run's attempts at the launch
	ended    time.Time
	failures int // runners in a row that ended before they began an attempt
}

// refresh reads the folder and updates the state.
func (o *observed) refresh() error {
	if o.closed {
		return nil
	}
	h := &o.history
	if err := h.read(filepath.Join(o.dir, journalFile)); err != nil {
		return err
	}
	locked := o.child != nil && !o.child.gone
	if !locked && !h.ended() {
		lock, err := durable.TryLock(filepath.Join(o.dir, lockFile))
		switch {
		case err == nil:
			lock.Unlock()
		case errors.Is(err, durable.ErrLocked):
			locked = true
		default:
			return err
		}
	}
	// Read again after the lock: the run may have ended since the first read.
	if err := h.read(filepath.Join(o.dir, journalFile)); err != nil {
		return err
	}
	if o.child != nil && h.attempt > o.child.attempt {
		o.child.failures = 0
	}
	st := &o.state
	st.Attempt, st.Stage, st.Started, st.Stops = h.attempt, h.stage, h.started, h.stops
	st.Worked, st.WorkingSince = delivery.Duration(h.worked), h.since
	if h.last.Event == eventStopped { // still the current attempt
		st.Stops--
	}
	st.Ended, st.Error = time.Time{}, ""
	switch {
	case h.ended():
		st.Ended, o.closed = h.at, true
		st.Phase = delivery.RunDone
		if h.last.Event == eventFailed {
			st.Phase = delivery.RunFailed
			st.Error = delivery.Blocked{What: h.last.Error, Do: h.last.Do}.Error()
		}
	case locked:
		st.Phase, st.Error = delivery.RunRunning, h.fail
	case h.last.Event == eventStopped:
		st.Phase, st.Ended, st.Error, o.closed = delivery.RunStopped, h.at, h.last.Error, true
	case h.last.Event == "" || h.last.Event == eventRetry:
		st.Phase = delivery.RunUnknown
		if o.child != nil && o.child.failures > 0 {
			st.Error = o.neverBegan()
		}
	default:
		st.Phase, st.Error = delivery.RunDied, h.now().fail
	}
	st.EndReason, st.EndRequested = "", time.Time{}
	if st.Phase == delivery.RunRunning || st.Phase == delivery.RunDied {
		if e, ok := readEnd(o.dir); ok {
			st.EndReason, st.EndRequested = e.Why, e.At
		}
	}
	o.readStatus()
	return nil
}

// readNeed reads need.json. An unreadable file counts as missing; the next turn writes it again.
func readNeed(dir string) delivery.RunNeed {
	var need delivery.RunNeed
	if durable.ReadJSON(filepath.Join(dir, needFile), &need) != nil {
		return delivery.RunNeed{}
	}
	return need
}

// readStatus reads output/status.json if it changed. On an error the last valid status
// stays, and its heartbeat gets old.
func (o *observed) readStatus() {
	path := filepath.Join(o.dir, statusFile)
	info, err := os.Lstat(path)
	if err != nil || info.Size() == o.statusSize && info.ModTime().Equal(o.statusTime) {
		return
	}
	data, err := durable.ReadNoFollow(path, delivery.MaxRunStatus)
	if err != nil {
		return
	}
	o.statusSize, o.statusTime = info.Size(), info.ModTime()
	if status, err := delivery.ParseRunStatus(data, o.secrets()); err == nil {
		o.state.Status = status
	}
}

// secrets returns the mask of what the run's processes wrote.
func (o *observed) secrets() delivery.Mask {
	if o.mask == nil {
		return delivery.Mask{}
	}
	return o.mask()
}

// tooSoon returns a delivery.Wait while the pause after a failed attempt lasts.
func (o *observed) tooSoon(now time.Time) error {
	h := o.history.now()
	until, why := h.at.Add(h.pause()), h.fail
	if c := o.child; c != nil && c.gone && c.failures > 1 {
		pause := min(firstPause<<min(c.failures-2, 20), maxPause)
		if again := c.ended.Add(pause); again.After(until) {
			until, why = again, o.neverBegan()
		}
	}
	if wait := until.Sub(now); wait > 0 {
		return delivery.Wait{For: wait.Round(time.Millisecond), What: why}
	}
	return nil
}

// neverBegan returns the error of a runner that ended before it began an attempt, with
// the last line of its log. Causes are a wrong configuration or a full disk.
func (o *observed) neverBegan() string {
	text := "the runner ended before it began an attempt"
	if last := durable.LastLine(filepath.Join(o.dir, logFile), o.secrets()); last != "" {
		text += ": " + last
	}
	return text
}
