package delivery

import (
	"encoding/json"
	"fmt"
	"time"
)

// MaxRunStatus is the largest accepted size of a status.json, in bytes.
const MaxRunStatus = 64 << 10

// ParseRunStatus parses a status.json, which is not trusted. Numbers are clamped to their
// range, text is shortened and loses its control characters, and an unknown phase is read
// as empty. Unknown keys are ignored, so that newer trainers may add some. The message is masked.
func ParseRunStatus(data []byte, mask Mask) (RunStatus, error) {
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
	s.Message = PlainText(mask.Text(s.Message), 500)
	// time.Time has no JSON form for years above 9999.
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

// Heartbeat returns an error if a run counts as dead: if its last heartbeat and since,
// the time from which heartbeats are expected, are both longer ago than allowance.
func Heartbeat(s RunStatus, since, now time.Time, allowance time.Duration) error {
	last := since
	// Heartbeats in the future are ignored: they would keep a dead run alive until then.
	if s.Heartbeat.After(last) && !s.Heartbeat.After(now.Add(allowance)) {
		last = s.Heartbeat
	}
	silent := now.Sub(last)
	if silent <= allowance {
		return nil
	}
	return fmt.Errorf("no heartbeat for %s, allowed are %s", silent.Round(time.Second), allowance)
}
