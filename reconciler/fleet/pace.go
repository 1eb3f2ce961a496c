package fleet

// This file bounds what devices can make the server write into its log, and publish.

import (
	"time"
	"unicode/utf8"
)

// How many lines of the log one device can cause: some at once, and one more in each further time of lineEvery. A ring
// has the same for what its devices cause together.
const (
	linesAtOnce = 20
	lineEvery   = time.Minute
	maxLogText  = 200 // bytes of a text that a device wrote
)

// A pace bounds how often something is done.
type pace struct {
	paid time.Time // until when the lines that were written take up the time
	left int       // lines that were not written since the last one
}

// may reports whether a line may be written now, and how many were left out before it.
func (p *pace) may(now time.Time) (left int, ok bool) {
	const most = linesAtOnce * lineEvery
	if p.paid.Before(now) {
		p.paid = now
	}
	// A time that is further away is of a clock that was set back since.
	p.paid = minTime(p.paid, now.Add(most))
	if p.paid.Add(lineEvery).After(now.Add(most)) {
		p.left++
		return 0, false
	}
	left, p.left = p.left, 0
	p.paid = p.paid.Add(lineEvery)
	return left, true
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// logs reports whether a device may cause one more line of the log, and how many were left out before it. Those of a
// ring have no name of a device.
func (s *Server) logs(key deviceKey) (left int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.paces[key]
	left, ok = p.may(s.Now())
	s.paces[key] = p
	return left, ok
}

// short is the beginning of a text that a device wrote.
func short(s string) string {
	if len(s) <= maxLogText {
		return s
	}
	n := maxLogText
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
