package delivery

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"
)

// MaxRunStatus is the size in bytes from which a status.json is refused.
const MaxRunStatus = 64 << 10

// ParseRunStatus reads a status.json. Nothing in the file is trusted: numbers
// are brought into their range, text is cut and loses its control characters,
// an unknown phase reads as none, and unknown keys are passed over, so that an
// old server reads what a newer trainer writes.
func ParseRunStatus(data []byte) (RunStatus, error) {
	if len(data) > MaxRunStatus {
		return RunStatus{}, fmt.Errorf("status.json: %d bytes, want at most %d", len(data), MaxRunStatus)
	}
	var s RunStatus
	if err := json.Unmarshal(data, &s); err != nil {
		return RunStatus{}, fmt.Errorf("status.json: %w", err)
	}
	switch s.Phase {
	case "starting", "training", "exporting", "done", "failed":
	default:
		s.Phase = ""
	}
	const many = 1_000_000_000
	s.Epochs, s.Batches = min(max(s.Epochs, 0), many), min(max(s.Batches, 0), many)
	s.Epoch, s.Batch = min(max(s.Epoch, 0), s.Epochs), min(max(s.Batch, 0), s.Batches)
	s.Message = plainText(s.Message, 500)
	// A year that JSON cannot hold would make the whole state unwritable.
	if y := s.Heartbeat.Year(); y < 1970 || y > 9998 {
		s.Heartbeat = time.Time{}
	}
	s.Heartbeat = s.Heartbeat.UTC()
	if s.MAP != nil && !(*s.MAP >= 0 && *s.MAP <= 1) {
		s.MAP = nil
	}
	if s.SecondsLeft != nil && !(*s.SecondsLeft >= 0 && *s.SecondsLeft <= 366*24*3600) {
		s.SecondsLeft = nil
	}
	return s, nil
}

// Heartbeat reports as an error that a run must be taken for dead: that it gave
// no sign of life for its allowance, counted from its last heartbeat or from
// since, the moment from which one was due, whichever is later.
func Heartbeat(s RunStatus, since, now time.Time, allowance time.Duration) error {
	last := since
	// A heartbeat from the future would keep a dead run alive until then.
	if s.Heartbeat.After(last) && !s.Heartbeat.After(now.Add(allowance)) {
		last = s.Heartbeat
	}
	silent := now.Sub(last)
	if silent <= allowance {
		return nil
	}
	return fmt.Errorf("no heartbeat for %s, allowed are %s", silent.Round(time.Second), allowance)
}

// plainText returns at most n bytes of s on one line, fit for a terminal.
func plainText(s string, n int) string {
	s = Terminal(s)
	if len(s) <= n {
		return s
	}
	cut := n - len("…")
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
