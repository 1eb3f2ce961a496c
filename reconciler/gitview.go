package reconciler

// This file looks at git, beside the loop. A turn works with the refs that were read last, so that it never waits for
// the repository's server.

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"
)

// Limits of one look at git.
const (
	gitDeadline   = time.Minute
	firstDeadline = 30 * time.Minute // of the first look, which may have to bring the whole history
	gitSlow       = 10 * time.Second // a look that takes longer is shown
	maxGitPause   = 10 * time.Second // between two looks after failures
)

const gitTrouble = "git cannot be read"

// A gitView is what was read of git. The loop reads it, and one goroutine fills it; tests fill it themselves.
type gitView struct {
	r    *Reconciler
	look chan struct{} // somebody says that there is something new

	mu    sync.Mutex
	refs  map[string]string // nil until read
	asOf  int               // grows with each change of refs
	since time.Time         // when the look that is under way began; zero for none
	first bool              // there was a look that succeeded
	pause time.Duration     // after failures in a row
}

func newGitView(r *Reconciler) *gitView { return &gitView{r: r, look: make(chan struct{}, 1)} }

// step looks once.
func (g *gitView) step(ctx context.Context) {
	g.mu.Lock()
	limit := firstDeadline
	if g.first {
		limit = gitDeadline
	}
	g.since = g.r.Now()
	start := g.since
	g.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	refs, _, err := g.r.Repo.Observe(ctx)
	g.r.Metrics.GitObserve(g.r.Now().Sub(start))
	g.r.troubles.note(gitTrouble, err)

	g.mu.Lock()
	defer g.mu.Unlock()
	g.since = time.Time{}
	if err != nil {
		g.pause = min(max(2*g.pause, time.Second), maxGitPause)
		return
	}
	g.first, g.pause = true, 0
	if g.refs == nil || !maps.Equal(refs, g.refs) {
		g.refs = refs
		g.asOf++
		g.r.glance()
		nudge(g.r.forgeNow.look) // the list of pull requests is older now
	}
}

// known returns the refs as they were read last, and a number that grows with each change. Where nothing was read yet,
// the refs are those that the last process left, and the number is 0.
func (g *gitView) known() (refs map[string]string, asOf int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refs == nil {
		return g.r.Repo.Refs(), 0
	}
	return g.refs, g.asOf
}

// slow says that the look that is under way takes long; "" where it does not.
func (g *gitView) slow() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.since.IsZero() || g.r.Now().Sub(g.since) < gitSlow {
		return ""
	}
	return fmt.Sprintf("git has not answered since %s; what is shown is what it said last",
		g.since.UTC().Format("2006-01-02 15:04:05 UTC"))
}

// run looks until ctx ends.
func (g *gitView) run(ctx context.Context) {
	for ctx.Err() == nil {
		g.step(ctx)
		g.mu.Lock()
		wait := g.r.GitPoll
		if g.pause > 0 {
			wait = g.pause
		}
		g.mu.Unlock()
		pause(ctx, wait, g.look)
	}
}

// pause waits until a time is over, something is said on a channel, or ctx ends.
func pause(ctx context.Context, wait time.Duration, said <-chan struct{}) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-said:
	case <-timer.C:
	}
}

// nudge says something on a channel that holds one word.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
