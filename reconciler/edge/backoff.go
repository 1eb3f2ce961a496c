package edge

import (
	"math/rand/v2"
	"time"
)

// pauses are the growing waits between tries. Jitter comes after the cap, so
// that a fleet that has been cut off for long does not come back in step.
type pauses struct {
	first, most time.Duration
	n           int
}

// next is the wait after one more failure; atLeast is what the other side asked for.
func (p *pauses) next(atLeast time.Duration) time.Duration {
	d := p.most
	if p.n < 30 {
		d = min(p.most, p.first<<p.n)
	}
	p.n++
	d = max(d, min(atLeast, time.Hour))
	return d + time.Duration(rand.Int64N(int64(d)+1))
}

func (p *pauses) reset() { p.n = 0 }

// around is d, give or take half of it.
func around(d time.Duration) time.Duration {
	return d/2 + time.Duration(rand.Int64N(int64(d)+1))
}
