package run

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// The events of a journal.
const (
	eventStart    = "start"    // an attempt begins; Process is the runner
	eventStage    = "stage"    // the attempt enters Stage
	eventProgress = "progress" // an epoch that no attempt reached before
	eventDone     = "done"     // the run ended; Result is the digest of result.json
	eventFailed   = "failed"   // the run ended; a person must act
	eventError    = "error"    // the attempt failed; another may succeed
	eventStopped  = "stopped"  // the attempt ended on request, and cleaned up
	eventRetry    = "retry"    // a person asked for another attempt of a failed run
)

// An entry is one line of the journal.
type entry struct {
	At      time.Time        `json:"at"`
	Attempt int              `json:"attempt"`
	Event   string           `json:"event"`
	Stage   string           `json:"stage,omitempty"`
	Epoch   int              `json:"epoch,omitempty"`
	Epochs  int              `json:"epochs,omitempty"`
	Error   string           `json:"error,omitempty"`
	Do      string           `json:"do,omitempty"`
	Result  delivery.Digest  `json:"result,omitempty"`
	Process *durable.Process `json:"process,omitempty"`
	State   string           `json:"state,omitempty"` // id of the state folder whose server started Process

	Pause delivery.Duration `json:"pause,omitempty"` // after an error, before the next attempt
}

// The limits of attempts without progress.
const (
	maxDeaths  = 10
	firstPause = 250 * time.Millisecond
	maxPause   = 5 * time.Minute
)

// A history is the state of a run that follows from the journal's entries read so far.
type history struct {
	offset int64 // of the first byte not read yet: always the start of a line

	attempt int
	stops   int       // attempts that ended on request
	started time.Time // the first attempt
	process durable.Process
	state   string          // id of the state folder whose server started process
	last    entry           // the last entry other than progress
	at      time.Time       // of the last entry
	stage   string          // of the current attempt
	stages  map[string]bool // reached by any attempt
	epoch   int             // the highest of any attempt
	fail    string          // the last attempt's error
	idle    int             // attempts in a row without progress, errors included
	deaths  int             // how many of them ended without an event
	worked  time.Duration   // of the attempts that ended
	since   time.Time       // when the current attempt began; zero if it has ended
	further bool            // the current attempt made progress
}

// read reads the entries appended since the last call. An incomplete last line is left for the next call. A line that
// is not an entry is skipped; at worst this causes another attempt.
func (h *history) read(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		*h = history{}
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() < h.offset {
		*h = history{}
	}
	if info.Size() == h.offset {
		return nil
	}
	data, err := io.ReadAll(io.NewSectionReader(f, h.offset, info.Size()-h.offset))
	if err != nil {
		return err
	}
	h.parse(data)
	return nil
}

// parse reads the entries in data, which begins at h.offset.
func (h *history) parse(data []byte) {
	for {
		line, rest, ok := bytes.Cut(data, []byte("\n"))
		if !ok {
			return
		}
		h.offset += int64(len(line)) + 1
		data = rest
		var e entry
		if json.Unmarshal(line, &e) == nil && e.Event != "" {
			h.add(e)
		}
	}
}

func (h *history) add(e entry) {
	if h.stages == nil {
		h.stages = map[string]bool{}
	}
	h.at = e.At
	h.work(e)
	switch e.Event {
	case eventStart:
		if h.open() { // the previous attempt died
			h.close()
			h.deaths++
		}
		h.attempt, h.stage, h.further = e.Attempt, "", false
		if h.started.IsZero() {
			h.started = e.At
		}
		if e.Process != nil {
			h.process, h.state = *e.Process, e.State
		}
	case eventStage:
		h.stage = e.Stage
		if !h.stages[e.Stage] {
			h.stages[e.Stage], h.further = true, true
		}
	case eventProgress:
		if e.Epoch > h.epoch {
			h.epoch, h.further = e.Epoch, true
		}
		return
	case eventError:
		h.close()
		h.fail = e.Error
	case eventStopped:
		h.stops++
		h.idle, h.deaths, h.fail = 0, 0, ""
	case eventRetry:
		h.idle, h.deaths, h.fail, h.stages, h.epoch = 0, 0, "", nil, 0
	}
	h.last = e
}

// work adds up how long attempts worked. One that died counts until the next one begins.
func (h *history) work(e entry) {
	switch e.Event {
	case eventStart, eventDone, eventFailed, eventError, eventStopped:
	default:
		return
	}
	if !h.since.IsZero() && e.At.After(h.since) {
		h.worked += e.At.Sub(h.since)
	}
	if h.since = (time.Time{}); e.Event == eventStart {
		h.since = e.At
	}
}

// close counts an attempt that ended without a result.
func (h *history) close() {
	if h.further {
		h.idle, h.deaths = 0, 0
	}
	h.further = false
	h.idle++
}

// open reports whether the last attempt has no end event.
func (h *history) open() bool { return h.last.Event == eventStart || h.last.Event == eventStage }

// ended reports whether the run has its result or its failure.
func (h *history) ended() bool { return h.last.Event == eventDone || h.last.Event == eventFailed }

// now returns the history for a free lock: an attempt without an end event has died.
func (h history) now() history {
	if h.open() {
		h.close()
		h.deaths++
		h.fail = fmt.Sprintf("attempt %d died", h.attempt)
		if h.stage != "" {
			h.fail += " in stage " + h.stage
		}
	}
	return h
}

// pause returns how long after the last entry the next attempt may begin.
func (h history) pause() time.Duration {
	asked := time.Duration(h.last.Pause)
	if h.idle < 2 {
		return asked
	}
	return max(asked, min(firstPause<<min(h.idle-2, 20), maxPause))
}

// A journal is written only by the process that holds the run's lock.
type journal struct {
	f *os.File
	history
}

// openJournal reads the journal and removes an incomplete last line, which a crash leaves.
func openJournal(path string) (*journal, error) {
	var j journal
	if err := j.read(path); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	j.f = f
	err = f.Truncate(j.offset)
	if err == nil {
		_, err = f.Seek(j.offset, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("repair %s: %w", path, err)
	}
	return &j, nil
}

// append writes an entry and syncs it to disk. After an error the file ends with the last complete entry.
func (j *journal) append(e entry) error {
	e.At, e.Attempt = time.Now().UTC(), j.attempt
	if e.Event == eventStart {
		e.Attempt++
	}
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	_, err = j.f.Write(line)
	if err == nil {
		err = j.f.Sync()
	}
	if err != nil {
		_ = j.f.Truncate(j.offset)
		_, _ = j.f.Seek(j.offset, io.SeekStart)
		return fmt.Errorf("write the run's journal: %w", err)
	}
	j.offset += int64(len(line))
	j.add(e)
	return nil
}
