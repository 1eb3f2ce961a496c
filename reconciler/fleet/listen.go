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

	quiet time.Duration        // a longer time between two reports of a ring is a gap in which none of it was heard
	heard map[string]time.Time // by ring: when any of its devices was heard last
	again map[string]time.Time // by ring: of the first report after the last such gap
}

// begin says that devices can reach the server from now on.
func (a *attention) begin(now time.Time) { a.since, a.last = wall(now), wall(now) }

// tick takes note of the time. It reports a break since the last tick: the process or its machine stood still, or the
// clock was set.
func (a *attention) tick(now time.Time) bool {
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

// hear takes note of a report from a ring. It reports whether nobody of it was heard before for so long that the
// network of its site, or of the server, may have been cut.
func (a *attention) hear(ring string, now time.Time) bool {
	now = wall(now)
	last, known := a.heard[ring]
	a.heard[ring] = now
	if !known || now.Sub(last) <= a.quiet {
		return false
	}
	a.again[ring] = now
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
			s.Listening("")
		}
	}
}

// Listening is since when the devices of a ring can reach the server without a break, as far as it knows: a time in
// which none of them was heard for half a deadline is a break, which ends with the first report. Devices report four
// times in a deadline, and one that could not be reached may take a minute to report again. So nobody is silent for a
// whole deadline only because of a shorter gap. While devices cannot reach the server, it is now.
func (s *Server) Listening(ring string) time.Time {
	now := s.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.hears.last
	if s.hears.tick(now) {
		s.Log.Warn(
			"the process or its machine stood still, or its clock was set; silence of devices counts from now on",
			"before", before, "now", s.hears.last)
		s.wake()
	}
	if s.hears.since.IsZero() {
		return wall(now)
	}
	if again := s.hears.again[ring]; again.After(s.hears.since) {
		return again
	}
	return s.hears.since
}
