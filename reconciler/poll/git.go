package poll

import (
	"cmp"
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
	// Refs returns what the last Observe has returned, also one of the previous process.
	Refs() map[string]string
	// KeepPulls sets which pull requests are open. What was fetched for others may be dropped.
	KeepPulls(open []int)
}

// Git reads git. One goroutine calls Run (tests call Step), and the loop uses the refs.
type Git struct {
	Config
	Poll    turn.Signal   // send it to read git at once
	changed []turn.Signal // sent when a ref has moved

	mu    sync.Mutex
	refs  map[string]string // nil until read
	asOf  int               // grows with each change of refs
	since time.Time         // when the present read began; zero if there is none
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

// Known returns the refs as they were last read, and a number that grows with each change. Before the first read, the
// refs are those that the previous process has read, and the number is 0.
func (g *Git) Known() (refs map[string]string, asOf int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refs == nil {
		return g.Repo.Refs(), 0
	}
	return g.refs, g.asOf
}

// Slow returns a sentence if the present read takes long, otherwise "".
func (g *Git) Slow() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.since.IsZero() || g.Turn.Now().Sub(g.since) < gitSlow {
		return ""
	}
	return fmt.Sprintf("git has not answered since %s; its last answer is shown",
		g.since.UTC().Format("2006-01-02 15:04:05 UTC"))
}

// Run reads git until ctx ends.
func (g *Git) Run(ctx context.Context) {
	for ctx.Err() == nil {
		g.Step(ctx)
		g.mu.Lock()
		pause := cmp.Or(g.pause, g.GitPoll)
		g.mu.Unlock()
		g.Poll.Wait(ctx, pause)
	}
}
