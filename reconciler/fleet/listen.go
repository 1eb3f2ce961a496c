package fleet

import (
	"context"
	"time"
)

// attention knows since when devices are heard without a break. Its times are of the wall clock: the monotonic one
// stands still while a machine is suspended.
type attention struct {
	gap   time.Duration // a longer time between two looks is a break
	since time.Time     // zero: devices cannot reach the server
	last  time.Time     // when it was looked last
}

// begin says that devices can reach the server from now on.
func (a *attention) begin(now time.Time) { a.since, a.last = wall(now), wall(now) }

// look takes note of the time. It reports a break since the last look: the process or its machine stood still, or the
// clock was set.
func (a *attention) look(now time.Time) bool {
	if a.since.IsZero() {
		return false
	}
	now = wall(now)
	passed := now.Sub(a.last)
	a.last = now
	if passed <= a.gap && passed >= -a.gap {
		return false
	}
	a.since = now
	return true
}

func wall(t time.Time) time.Time { return t.Round(0) }

// Listen says that devices can reach the server, and returns when ctx ends. Meanwhile it looks at the clock, so that a
// break is noticed.
func (s *Server) Listen(ctx context.Context) {
	s.mu.Lock()
	s.hears.begin(s.Now())
	s.mu.Unlock()
	s.Wake()
	tick := time.NewTicker(min(max(s.Deadline/16, 100*time.Millisecond), 10*time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.mu.Lock()
			s.hears.since = time.Time{}
			s.mu.Unlock()
			return
		case <-tick.C:
			s.Listening()
		}
	}
}

// Listening is since when devices can reach the server without a break. While they cannot, it is now.
func (s *Server) Listening() time.Time {
	now := s.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.hears.last
	if s.hears.look(now) {
		s.Log.Warn(
			"the process or its machine stood still, or its clock was set; silence of devices counts from now on",
			"before", before, "now", s.hears.last)
		s.wake()
	}
	if s.hears.since.IsZero() {
		return wall(now)
	}
	return s.hears.since
}
