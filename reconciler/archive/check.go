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

// A Check compares the bundles in the server's store with their digests: all of them at the start and every few hours,
// those that have lost files every minute, and at once those that the loop asks for. It also keeps the store's
// index.json up to date.
type Check struct {
	Bundles *artifact.Store
	Wake    func() // called when something was found
	Log     *slog.Logger
	Now     func() time.Time

	mu    sync.Mutex
	found map[delivery.Digest]plan.Stored
	asked []delivery.Digest
	more  chan struct{} // sent when a bundle was asked for
}

// NewCheck returns a check of a store. Run does the work.
func NewCheck(bundles *artifact.Store, wake func(), log *slog.Logger, now func() time.Time) *Check {
	return &Check{Bundles: bundles, Wake: wake, Log: log, Now: now, found: map[delivery.Digest]plan.Stored{},
		more: make(chan struct{}, 1)}
}

const (
	scanEvery = 6 * time.Hour   // between checks of all bundles
	scanPause = time.Second     // between two bundles of such a check
	lostEvery = 1 * time.Minute // between checks of a bundle that has lost files
)

// Ask checks bundles soon.
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

// Found returns the result of the last check of each bundle.
func (c *Check) Found() map[delivery.Digest]plan.Stored {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.found)
}

// Run checks until ctx ends, one bundle at a time.
func (c *Check) Run(ctx context.Context) {
	var rest []delivery.Digest // of the present check of all bundles
	next := c.Now()            // check of all bundles
	for ctx.Err() == nil {
		if err := c.Bundles.Fold(ctx); err != nil && ctx.Err() == nil {
			c.Log.Warn("index.json of the store is not up to date", "error", err.Error())
		}
		if len(rest) == 0 && !c.Now().Before(next) {
			list, err := c.Bundles.Bundles(ctx)
			rest, next = list, c.Now().Add(scanEvery)
			if err != nil {
				c.Log.Error("the store's list of bundles cannot be read", "error", err.Error())
				next = c.Now().Add(lostEvery)
			}
		}
		pause := min(next.Sub(c.Now()), lostEvery)
		if b, asked := c.due(); b != "" {
			c.check(ctx, b, asked)
			pause = 0
		} else if len(rest) > 0 {
			c.check(ctx, rest[0], false)
			rest, pause = rest[1:], scanPause
		}
		timer := time.NewTimer(max(pause, 0))
		select {
		case <-ctx.Done():
		case <-c.more:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// due returns a bundle that was asked for, or one that has lost files and was not checked for a minute. It returns ""
// if there is none.
func (c *Check) due() (b delivery.Digest, asked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.asked) > 0 {
		b, c.asked = c.asked[0], c.asked[1:]
		return b, true
	}
	for b, s := range c.found {
		if len(s.Lost) > 0 && c.Now().Sub(s.At) >= lostEvery {
			return b, false
		}
	}
	return "", false
}

// check reads one bundle and stores the result.
func (c *Check) check(ctx context.Context, b delivery.Digest, asked bool) {
	s := plan.Stored{At: c.Now()}
	err := c.Bundles.Check(ctx, b)
	if ctx.Err() != nil {
		return
	}
	if damaged, ok := errors.AsType[*artifact.Damaged](err); ok {
		s.Lost = damaged.Files
		c.Log.Error("the store has lost files of a bundle", "bundle", b, "files", s.Lost, "error", err.Error())
	} else if err != nil {
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
