package turn

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Names of troubles.
const (
	LedgerWrites = "the ledger cannot be written"
	LedgerReads  = "the ledger cannot be read"
)

// A Turn contains what the parts of the loop share. Its methods may be called from any goroutine.
type Turn struct {
	Now func() time.Time
	Log *slog.Logger

	mu       sync.Mutex
	troubles map[string]*Trouble // by Trouble.What
	due      time.Time           // when the next turn is due; zero: never
	why      string
}

// New returns a Turn with a turn due at once.
func New(now func() time.Time, log *slog.Logger) *Turn {
	t := &Turn{Now: now, Log: log, troubles: map[string]*Trouble{}}
	t.Soon("the loop has just started")
	return t
}

// At asks for a turn at a time or earlier. The zero time asks for none.
func (t *Turn) At(at time.Time, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !at.IsZero() && (t.due.IsZero() || at.Before(t.due)) {
		t.due, t.why = at, why
	}
}

// In asks for a turn after a pause or earlier.
func (t *Turn) In(pause time.Duration, why string) { t.At(t.Now().Add(pause), why) }

// Soon asks for a turn at once.
func (t *Turn) Soon(why string) { t.At(t.Now(), why) }

// Due returns when the next turn is due; zero means never.
func (t *Turn) Due() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.due
}

// Why returns why a turn is due now, or "" if none is.
func (t *Turn) Why() string {
	now := t.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.due.IsZero() || now.Before(t.due) {
		return ""
	}
	return t.why
}

// Begin drops all requests, because a turn begins.
func (t *Turn) Begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.due, t.why = time.Time{}, ""
}

// A Signal wakes one goroutine. Sending never blocks; several signals that nobody has received yet are one.
type Signal chan struct{}

// NewSignal returns a signal that nobody has sent yet.
func NewSignal() Signal { return make(Signal, 1) }

// Send sends the signal.
func (s Signal) Send() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// Wait waits until the signal is sent, a time is over, or ctx ends.
func (s Signal) Wait(ctx context.Context, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-s:
	case <-timer.C:
	}
}
