package fleet

import (
	"context"
	"time"
)

// listening records since when devices can reach the server without a break. It uses wall clock times:
// the monotonic clock stops while a machine is suspended.
type listening struct {
	gap   time.Duration // a longer time between two ticks is a break
	since time.Time     // zero: devices cannot reach the server
	last  time.Time     // time of the last tick

	maxSilence time.Duration        // a longer time without a report of a ring is a gap
	lastReport map[string]time.Time // by ring: last report of any of its devices
	resumed    map[string]time.Time // by ring: first report after the last gap
}

// begin records that devices can reach the server from now on.
func (a *listening) begin(now time.Time) { a.since, a.last = wall(now), wall(now) }

// tick records the time. It reports whether there was a break since the last tick: the process or its
// machine was suspended, or the clock was set.
func (a *listening) tick(now time.Time) bool {
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

// record notes a report from a ring. It reports whether there was a gap before it, in which the
// network of the site or of the server may have been cut.
func (a *listening) record(ring string, now time.Time) bool {
	now = wall(now)
	last, known := a.lastReport[ring]
	a.lastReport[ring] = now
	if !known || now.Sub(last) <= a.maxSilence {
		return false
	}
	a.resumed[ring] = now
	return true
}

func wall(t time.Time) time.Time { return t.Round(0) }

// Listen records that devices can reach the server until ctx is done. It checks the clock regularly to detect breaks.
func (s *Server) Listen(ctx context.Context) {
	s.mu.Lock()
	s.listening.begin(s.Now())
	s.mu.Unlock()
	s.Wake()
	tick := time.NewTicker(min(max(s.Deadline/16, 100*time.Millisecond), 10*time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.mu.Lock()
			s.listening.since = time.Time{}
			s.mu.Unlock()
			return
		case <-tick.C:
			s.Listening("")
		}
	}
}

// Listening returns since when the devices of a ring can reach the server without a break, as far as the server can
// know. A time of more than half a deadline without any report of the ring is a break too; it ends with the first
// report. Devices report four times in a deadline, and a device that could not reach the server may take a minute to
// retry. So a shorter break alone never makes a device silent for a whole deadline. While devices cannot reach the
// server, Listening returns the current time.
func (s *Server) Listening(ring string) time.Time {
	now := s.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.listening.last
	if s.listening.tick(now) {
		s.Log.Warn("the process or its machine was suspended, or its clock was set; silence of devices counts from now",
			"before", before, "now", s.listening.last)
		s.wake()
	}
	if s.listening.since.IsZero() {
		return wall(now)
	}
	if resumed := s.listening.resumed[ring]; resumed.After(s.listening.since) {
		return resumed
	}
	return s.listening.since
}
