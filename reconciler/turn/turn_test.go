package turn

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// The same error is logged with growing pauses, and another one at once; the status keeps the time of the first.
func TestErrorsThatRepeatAreLoggedWithGrowingPauses(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	list := New(func() time.Time { return now }, log)
	lines := func(what string) int { return strings.Count(out.String(), what) }
	began := now
	for range 2 * 60 * 60 { // an hour of two tries a second
		list.Note("the forge cannot be read", errors.New("connection refused"))
		now = now.Add(time.Second / 2)
	}
	if n := lines("connection refused"); n < 5 || n > 20 {
		t.Errorf("an hour of one error is %d lines", n)
	}
	list.Note("the forge cannot be read", errors.New("401: the token is revoked"))
	list.Note("git cannot be read", errors.New("301: it was renamed"))
	all := list.Troubles()
	if len(all) != 2 || !all[0].Since.Equal(began) ||
		!strings.Contains(all[0].String(),
			"the forge cannot be read since 2026-01-01 00:00:00 UTC: 401: the token is revoked") {
		t.Errorf("the troubles are %v", all)
	}
	list.Note("the forge cannot be read", nil)
	if n := lines("works again"); n != 1 || len(list.Troubles()) != 1 {
		t.Errorf("%d lines say that it works again; troubles are %v", n, list.Troubles())
	}
}

// The earliest request decides when the next turn is due, and its reason is shown.
func TestEarliestRequestDecides(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := New(func() time.Time { return now }, slog.New(slog.DiscardHandler))
	if s.Why() == "" {
		t.Error("no turn is due at the start")
	}
	s.Begin()
	s.At(time.Time{}, "never")
	if due := s.Due(); !due.IsZero() {
		t.Errorf("the zero time asks for a turn at %s", due)
	}
	s.In(time.Minute, "a minute")
	s.In(time.Second, "a second")
	s.In(time.Hour, "an hour")
	if why := s.Why(); why != "" {
		t.Errorf("a turn is due before its time: %s", why)
	}
	now = now.Add(time.Second)
	if why := s.Why(); why != "a second" {
		t.Errorf("a turn is due because of %q", why)
	}
	s.Soon("soon")
	if why := s.Why(); why != "a second" {
		t.Errorf("a later request replaces the reason: %q", why)
	}
}
