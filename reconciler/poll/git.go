package poll

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/turn"
)

// Limits of reading git.
const (
	gitDeadline   = time.Minute
	firstDeadline = 30 * time.Minute // of the first read, which may fetch the whole history
	gitSlow       = 10 * time.Second // a read that takes longer is shown
	maxGitPause   = 10 * time.Second // between two reads after failures
)

// GitTrouble is the trouble that git cannot be read.
const GitTrouble = "git cannot be read"

// A Repo is the mirror of the intent repository.
type Repo interface {
	// Observe reads the refs of the repository.
	Observe(ctx context.Context) (refs map[string]string, changed bool, err error)
	// Refs returns what the last Observe returned, also of the process before this one.
	Refs() map[string]string
	// KeepPulls says which pull requests are open. What was fetched for others may be dropped.
	KeepPulls(open []int)
}

// Git is what was read of git. The loop reads it, and one goroutine fills it; tests fill it themselves.
type Git struct {
	Config
	Look    turn.Signal   // send it to have git read at once
	changed []turn.Signal // sent when a ref has moved

	mu    sync.Mutex
	refs  map[string]string // nil until read
	asOf  int               // grows with each change of refs
	since time.Time         // when the present read began; zero for none
	first bool              // a read has succeeded
	pause time.Duration     // after failures in a row
}

// Step reads git once.
func (g *Git) Step(ctx context.Context) {
	g.mu.Lock()
	limit := firstDeadline
	if g.first {
		limit = gitDeadline
	}
	g.since = g.Turn.Now()
	start := g.since
	g.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	refs, _, err := g.Repo.Observe(ctx)
	g.Metrics.GitObserve(g.Turn.Now().Sub(start))
	g.Turn.Note(GitTrouble, err)

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
		for _, c := range g.changed {
			c.Send()
		}
	}
}

// Known returns the refs as they were read last, and a number that grows with each change. Where nothing was read yet,
// the refs are those that the last process left, and the number is 0.
func (g *Git) Known() (refs map[string]string, asOf int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refs == nil {
		return g.Repo.Refs(), 0
	}
	return g.refs, g.asOf
}

// Slow says that the present read takes long; "" where it does not.
func (g *Git) Slow() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.since.IsZero() || g.Turn.Now().Sub(g.since) < gitSlow {
		return ""
	}
	return fmt.Sprintf("git has not answered since %s; what is shown is what it said last",
		g.since.UTC().Format("2006-01-02 15:04:05 UTC"))
}

// Run reads git until ctx ends.
func (g *Git) Run(ctx context.Context) {
	for ctx.Err() == nil {
		g.Step(ctx)
		g.mu.Lock()
		wait := g.GitPoll
		if g.pause > 0 {
			wait = g.pause
		}
		g.mu.Unlock()
		g.Look.Wait(ctx, wait)
	}
}
