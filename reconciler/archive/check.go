package archive

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// A Check compares the bundles in the server's store with their digests: all
// of them at the start and every few hours, lost ones every minute, and at once
// those that the loop doubts.
type Check struct {
	Bundles *artifact.Store
	Wake    func() // called when something was found
	Log     *slog.Logger
	Now     func() time.Time

	mu    sync.Mutex
	found map[delivery.Digest]plan.Stored
	asked []delivery.Digest
	more  chan struct{}
}

// NewCheck returns a check of a store. Run does the work.
func NewCheck(bundles *artifact.Store, wake func(), log *slog.Logger, now func() time.Time) *Check {
	return &Check{Bundles: bundles, Wake: wake, Log: log, Now: now, found: map[delivery.Digest]plan.Stored{},
		more: make(chan struct{}, 1)}
}

const (
	scanEvery = 6 * time.Hour   // between checks of all bundles
	scanPause = time.Second     // between two bundles of such a check
	lostEvery = 1 * time.Minute // between checks of a bundle that has lost something
)

// Ask has bundles checked soon.
func (c *Check) Ask(bundles ...delivery.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range bundles {
		if !slices.Contains(c.asked, b) {
			c.asked = append(c.asked, b)
		}
	}
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// Found is what the last check of each bundle found.
func (c *Check) Found() map[delivery.Digest]plan.Stored {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.found)
}

// Run checks until ctx ends, one bundle at a time.
func (c *Check) Run(ctx context.Context) {
	var queue []delivery.Digest
	next := time.Now() // check of all bundles
	for ctx.Err() == nil {
		if len(queue) == 0 && !time.Now().Before(next) {
			list, err := c.Bundles.Bundles(ctx)
			if err != nil {
				c.Log.Error("the store's list of bundles cannot be read", "error", err.Error())
			}
			queue, next = list, time.Now().Add(scanEvery)
			if err != nil {
				next = time.Now().Add(lostEvery)
			}
		}
		for {
			b, ok := c.pop()
			if !ok {
				break
			}
			c.one(ctx, b, true)
		}
		pause := time.Until(next)
		if len(queue) > 0 {
			c.one(ctx, queue[0], false)
			queue, pause = queue[1:], scanPause
		}
		lost := c.lost()
		if len(lost) > 0 {
			pause = min(pause, lostEvery)
		}
		timer := time.NewTimer(max(pause, 0))
		select {
		case <-ctx.Done():
		case <-c.more:
		case <-timer.C:
			for _, b := range lost {
				if c.Now().Sub(c.Found()[b].At) >= lostEvery {
					c.one(ctx, b, false)
				}
			}
		}
		timer.Stop()
	}
}

func (c *Check) pop() (delivery.Digest, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.asked) == 0 {
		return "", false
	}
	b := c.asked[0]
	c.asked = c.asked[1:]
	return b, true
}

func (c *Check) lost() []delivery.Digest {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []delivery.Digest
	for b, s := range c.found {
		if len(s.Lost) > 0 {
			list = append(list, b)
		}
	}
	slices.Sort(list)
	return list
}

// one reads one bundle, and remembers what it found.
func (c *Check) one(ctx context.Context, b delivery.Digest, asked bool) {
	s := plan.Stored{At: c.Now()}
	err := c.Bundles.Check(ctx, b)
	var bad *artifact.Damaged
	switch {
	case ctx.Err() != nil:
		return
	case errors.As(err, &bad):
		s.Lost = bad.Files
		c.Log.Error("the store has lost files of a bundle", "bundle", b, "files", s.Lost, "error", err.Error())
	case err != nil:
		c.Log.Warn("a bundle in the store cannot be checked", "bundle", b, "error", err.Error())
	}
	c.mu.Lock()
	old := c.found[b]
	c.found[b] = s
	c.mu.Unlock()
	if asked || !slices.Equal(old.Lost, s.Lost) {
		c.Wake()
	}
}
