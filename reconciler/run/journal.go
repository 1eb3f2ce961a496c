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
	eventDone     = "done"     // the end: result.json holds what Result names
	eventFailed   = "failed"   // the end: a person must act
	eventError    = "error"    // the attempt ended; the next may do better
	eventStopped  = "stopped"  // the attempt was asked to end, and cleaned up
	eventRetry    = "retry"    // a person wants a failed run tried again
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
}

// How often a run is tried that gets no further, and how the pauses grow.
const (
	maxDeaths  = 10
	firstPause = 250 * time.Millisecond
	maxPause   = 5 * time.Minute
)

// A history is what a journal says, read so far.
type history struct {
	offset int64 // of the first byte not read yet: always the start of a line

	attempt int
	stops   int       // attempts that ended because they were asked to
	started time.Time // the first attempt
	process durable.Process
	state   string          // id of the state folder whose server started process
	last    entry           // the last entry that is no progress
	at      time.Time       // of the last entry
	stage   string          // of the present attempt
	stages  map[string]bool // reached by any attempt
	epoch   int             // the furthest
	fail    string          // the last attempt's error
	idle    int             // attempts in a row that got no further, errors included
	deaths  int             // those of them that ended without a word
	further bool            // the present attempt got further
}

// read takes in what was appended since the last call. A line that is not
// complete is left for later; one that is no entry is passed over, which at
// worst makes an attempt be made again.
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
	h.take(data)
	return nil
}

// take takes in what stands at the offset.
func (h *history) take(data []byte) {
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
	switch e.Event {
	case eventStart:
		if h.open() { // the attempt before it died without a word
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

// close counts the end of an attempt that reached none of its ends.
func (h *history) close() {
	if h.further {
		h.idle, h.deaths = 0, 0
	}
	h.further = false
	h.idle++
}

// open reports whether an attempt began and nothing tells of its end.
func (h *history) open() bool {
	return h.last.Event == eventStart || h.last.Event == eventStage
}

// ended reports whether the run has its result or its failure.
func (h *history) ended() bool {
	return h.last.Event == eventDone || h.last.Event == eventFailed
}

// now returns the history as it stands when nobody holds the lock: an attempt
// that is still open has died.
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
	if h.idle < 2 {
		return 0
	}
	return min(firstPause<<min(h.idle-2, 20), maxPause)
}

// A journal is appended to by the one process that holds the run's lock.
type journal struct {
	f *os.File
	history
}

// openJournal reads the journal and cuts off a last line that a crash tore.
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
		return nil, fmt.Errorf("mend %s: %w", path, err)
	}
	return &j, nil
}

// append makes an entry durable.
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
		// What stands behind the last good line must not become part of the next.
		_ = j.f.Truncate(j.offset)
		_, _ = j.f.Seek(j.offset, io.SeekStart)
		return fmt.Errorf("write the run's journal: %w", err)
	}
	j.offset += int64(len(line))
	j.add(e)
	return nil
}
