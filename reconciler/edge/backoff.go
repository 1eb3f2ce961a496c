package edge

import (
	"math/rand/v2"
	"time"
)

// backoff is an exponential backoff from first to most. Jitter is added after the cap, so that a fleet
// that was offline for long does not return all at once. Not safe for concurrent use.
type backoff struct {
	first, most time.Duration
	n           int
}

// next returns the pause after one more failure. atLeast is the Retry-After of the server; at most an
// hour of it counts.
func (p *backoff) next(atLeast time.Duration) time.Duration {
	d := p.most
	if p.n < 30 {
		d = min(p.most, p.first<<p.n)
	}
	p.n++
	d = max(d, min(atLeast, time.Hour))
	return d + time.Duration(rand.Int64N(int64(d)+1))
}

func (p *backoff) reset() { p.n = 0 }

// jittered returns a random duration between d/2 and 3d/2.
func jittered(d time.Duration) time.Duration { return d/2 + time.Duration(rand.Int64N(int64(d)+1)) }
