package fleet

import "time"

// How many log lines one device can cause: linesAtOnce, and one more per lineEvery. The devices of a
// ring together have the same limit for the lines that are about the ring.
const (
	linesAtOnce = 20
	lineEvery   = time.Minute
	maxLogText  = 200 // characters of a device's text
)

// A logLimit is a rate limiter for log lines.
type logLimit struct {
	paidUntil time.Time // when all written lines are paid for
	dropped   int       // lines dropped since the last written one
}

// allow reports whether a line may be written now, and how many were dropped before it.
func (p *logLimit) allow(now time.Time) (dropped int, ok bool) {
	const most = linesAtOnce * lineEvery
	if p.paidUntil.Before(now) {
		p.paidUntil = now
	}
	// A later time comes from a clock that was set back since.
	p.paidUntil = minTime(p.paidUntil, now.Add(most))
	if p.paidUntil.Add(lineEvery).After(now.Add(most)) {
		p.dropped++
		return 0, false
	}
	dropped, p.dropped = p.dropped, 0
	p.paidUntil = p.paidUntil.Add(lineEvery)
	return dropped, true
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// allowLog reports whether a device may cause one more log line, and how many were dropped before it. The
// key of a ring has no device.
func (s *Server) allowLog(key deviceKey) (dropped int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.logLimits[key]
	dropped, ok = p.allow(s.Now())
	s.logLimits[key] = p
	return dropped, ok
}
