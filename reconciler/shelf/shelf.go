// Package shelf lists what the server has stored, and removes what nothing needs any more. Package retention decides.
//
//	s := &shelf.Shelf{Loop: loop, State: "/var/lib/aob", Runs: runs, Bundles: bundles, …}
//	decisions, err := s.Look(ctx)     // what is kept, and why; nothing is removed
//	err = s.Run(ctx, time.Hour)       // removes now and then, a little at a time
//
// Things are removed between two turns of the loop, after it was decided again with what the last turn observed. So a
// pull request that was opened meanwhile keeps what it needs. Each removal begins with one step that either happened
// or not, such as a rename, and what a killed process leaves is removed the next time.
package shelf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/dataset"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/engine"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/retention"
	"github.com/autonomos/aob/reconciler/trainer"
)

// A Loop is what a Shelf needs of the reconciler.
type Loop interface {
	// BetweenTurns calls do between two turns, with what the last one observed and planned. It returns an error if
	// that is not known, or may be old.
	BetweenTurns(ctx context.Context, do func(w plan.World, p plan.Plan) error) error
	// DetachRun makes a run one that was never started, and returns the folder that is left to be removed. It is called
	// between two turns.
	DetachRun(key delivery.Digest) (folder string, err error)
	// ForgetPosts drops what the loop remembers about posts that keep does not want. It is called between two turns.
	ForgetPosts(keep func(commit string, pull int) bool)
	// ForgetTracked drops what the loop remembers about trainings that ended before a time, that no open pull request
	// asks for, and that trackers have. It returns their keys in the ledger. It is called between two turns.
	ForgetTracked(ctx context.Context, before time.Time) (keys []string, err error)
}

// Runs are the run folders.
type Runs interface {
	// State returns the state of a run, with its result if it is done.
	State(key delivery.Digest) (delivery.RunState, error)
}

// Bundles are the bundles with their files.
type Bundles interface {
	Kept(ctx context.Context) ([]artifact.Kept, error)
	Remove(ctx context.Context, bundle delivery.Digest, before time.Time) error
	Finish(ctx context.Context) error
}

// Datasets are the datasets that were fetched.
type Datasets interface {
	Kept() ([]dataset.Kept, error)
	Remove(k dataset.Kept, before time.Time) error
}

// Environments are the Python packages of trainers.
type Environments interface {
	Kept() ([]trainer.Kept, error)
	Remove(k trainer.Kept, before time.Time) error
}

// Engines are the engines that TensorRT made of bundles.
type Engines interface {
	Kept() ([]engine.Kept, error)
	Remove(k engine.Kept, before time.Time) error
	Finish() error
}

// A Ledger has what was posted, and the states of rollouts.
type Ledger interface {
	Records(ctx context.Context, prefix string) (map[string]ledger.Record, error)
	Sizes(ctx context.Context, prefix string) ([]ledger.Size, error)
	DropRecords(ctx context.Context, keys []string, before time.Time) error
	DropPosts(ctx context.Context, keys []string, before time.Time, commit string, pr int) error
	DropClock(ctx context.Context, fleet string) error
	DropApprovals(ctx context.Context, before time.Time) error
}

// A Shelf is all that the server has stored. Its fields are set once, before use. Its methods may be called from any
// goroutine.
type Shelf struct {
	Loop         Loop
	State        string // the state folder
	Runs         Runs
	Bundles      Bundles
	Datasets     Datasets
	Environments Environments
	Engines      Engines
	Ledger       Ledger
	// Trainers are the environments of the server's trainers, by trainer.
	Trainers map[string]delivery.Environment
	Limits   retention.Limits
	Files    map[string]string // that are shown with their sizes, by name
	Folders  map[string]string // that are shown with their sizes at the last listing, by name
	Removed  func(kind string) // counts what was removed; nil: nothing does
	Log      *slog.Logger
	Now      func() time.Time

	total   atomic.Pointer[map[retention.Kind]retention.Total]
	blocked atomic.Pointer[block] // nil while it is known what is needed

	once sync.Once
	free chan struct{} // has a value while nobody lists or removes

	// They are guarded by free.
	sizes map[string]int64                    // of the folders of runs that have ended
	made  map[delivery.Digest][]retention.Ref // what the results of runs name
	found found                               // by the last listing
}

// A block is why nothing is removed.
type block struct {
	since time.Time
	why   delivery.Fact
}

// found is what removing needs beside the decisions, by item.
type found struct {
	datasets     map[retention.Ref]dataset.Kept
	environments map[retention.Ref]trainer.Kept
	engines      map[retention.Ref]engine.Kept
	keys         map[retention.Ref][]string // of posts
	rollouts     []string                   // commits that show rollouts
}

// Totals returns what there was of each kind and in each of Folders when it was last listed, and the sizes of Files
// now.
func (s *Shelf) Totals() map[retention.Kind]retention.Total {
	total := map[retention.Kind]retention.Total{}
	if listed := s.total.Load(); listed != nil {
		maps.Copy(total, *listed)
	}
	for name, path := range s.Files {
		if info, err := os.Stat(path); err == nil {
			total[retention.Kind(name)] = retention.Total{Count: 1, Bytes: info.Size()}
		}
	}
	return total
}

// Blocked returns since when nothing is removed, because it is not known what is needed; zero if it is known.
func (s *Shelf) Blocked() time.Time {
	if b := s.blocked.Load(); b != nil {
		return b.since
	}
	return time.Time{}
}

// patience is how long a person waits for the end of a sweep.
const patience = 5 * time.Second

// lock waits until nobody lists or removes, for at most a time; 0 is no limit.
func (s *Shelf) lock(ctx context.Context, limit time.Duration) (unlock func(), err error) {
	s.once.Do(func() { s.free = make(chan struct{}, 1); s.free <- struct{}{} })
	late := make(<-chan time.Time)
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-s.free:
		return func() { s.free <- struct{}{} }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-late:
		return nil, delivery.Wait{For: patience, What: "things are being removed now, and what there is is listed " +
			"afterwards; ask again in a minute"}
	}
}

// Look decides about everything, and removes nothing. While a sweep goes on, it returns a [delivery.Wait].
func (s *Shelf) Look(ctx context.Context) ([]retention.Decision, error) {
	unlock, err := s.lock(ctx, patience)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return s.look(ctx)
}

func (s *Shelf) look(ctx context.Context) ([]retention.Decision, error) {
	var runs map[delivery.Digest]delivery.RunState
	var clocks map[string]time.Time
	err := s.Loop.BetweenTurns(ctx, func(w plan.World, p plan.Plan) error {
		runs, clocks = maps.Clone(w.Runs), clockTimes(w)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := s.readResults(runs); err != nil {
		return nil, err
	}
	items, err := s.list(ctx, runs, clocks)
	if err != nil {
		return nil, err
	}
	var n retention.Needed
	if err := s.Loop.BetweenTurns(ctx, func(w plan.World, p plan.Plan) error {
		n = s.needs(w, p)
		return nil
	}); err != nil {
		return nil, err
	}
	switch b := s.blocked.Load(); {
	case n.Unknown.IsZero():
		s.blocked.Store(nil)
	case b == nil:
		s.blocked.Store(&block{s.Now(), n.Unknown})
	default:
		s.blocked.Store(&block{b.since, n.Unknown})
	}
	list := retention.Decide(n, items, s.Limits, s.Now())
	retention.Sort(list)
	return list, nil
}

// needs finds what is needed, with what only the shelf knows.
func (s *Shelf) needs(w plan.World, p plan.Plan) retention.Needed {
	n := retention.Needs(w, p)
	s.addTrainers(&n)
	s.addRollouts(&n)
	s.addResults(&n)
	return n
}

// readResults reads what the results of runs name, each once. Only those of the kinds that make something are read:
// the results of measurements are large. While one cannot be read, it is not known what its run made.
func (s *Shelf) readResults(runs map[delivery.Digest]delivery.RunState) error {
	if s.made == nil {
		s.made = map[delivery.Digest][]retention.Ref{}
	}
	for key, r := range runs {
		makes := r.Spec.Kind != delivery.RunEval && r.Spec.Kind != delivery.RunCompare
		if _, known := s.made[key]; known || !makes || r.Phase != delivery.RunDone {
			continue
		}
		result := r.Result
		if result == nil {
			state, err := s.Runs.State(key)
			if err != nil {
				return fmt.Errorf("read the result of run %s: %w", key.Short(), err)
			}
			result = state.Result
		}
		s.made[key] = retention.Made(result)
	}
	maps.DeleteFunc(s.made, func(key delivery.Digest, _ []retention.Ref) bool { _, there := runs[key]; return !there })
	return nil
}

func (s *Shelf) addResults(n *retention.Needed) {
	for key, refs := range s.made {
		of := retention.Ref{Kind: retention.Run, ID: string(key)}
		n.Of[of] = append(n.Of[of], refs...)
	}
}

// Limits of a sweep. What it does between two turns holds the loop up.
const (
	batch = 20
	rest  = 200 * time.Millisecond // between two batches
)

// Run lists everything soon, and removes what is not needed every now and then, until ctx ends. With every at 0 it only
// lists, once an hour.
func (s *Shelf) Run(ctx context.Context, every time.Duration) {
	next := time.Minute
	var warned time.Time
	if every > 0 {
		next = min(next, every)
	}
	for {
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if next = every; every == 0 {
			next = time.Hour
			_, _ = s.Look(ctx) // for the totals; aob gc --dry-run shows its error
			continue
		}
		gone, _, err := s.sweep(ctx, 0, rest, 0)
		switch _, waits := errors.AsType[delivery.Wait](err); {
		case err != nil && ctx.Err() == nil && !waits:
			s.Log.Warn("not everything that is old could be removed", "error", err.Error())
		case len(gone) > 0:
			s.Log.Info("removed what nothing needs any more", "things", len(gone), "bytes", bytesOf(gone))
		}
		b, now := s.blocked.Load(), s.Now()
		if b != nil && now.Sub(b.since) >= blockedLong && now.Sub(warned) >= blockedAgain {
			warned = now
			s.Log.Warn("nothing is removed, because it is not known what is needed", "since", b.since,
				"code", string(b.why.Code), "because", delivery.PlainText(b.why.Values.Text, 200))
		}
	}
}

// When it is said in the log that nothing is removed. For a moment that is usual, as while a pull request is fetched.
const (
	blockedLong  = 6 * time.Hour
	blockedAgain = 24 * time.Hour
)

func bytesOf(list []retention.Decision) (n int64) {
	for _, d := range list {
		n += d.Bytes
	}
	return n
}

// Sweep removes what is not needed. It pauses between batches, and ends after limit; 0 is no limit. It returns what was
// removed, and how much is left to be removed. While another sweep goes on, it returns a [delivery.Wait].
func (s *Shelf) Sweep(ctx context.Context, pause, limit time.Duration) (gone []retention.Decision, left int,
	err error) {
	return s.sweep(ctx, patience, pause, limit)
}

func (s *Shelf) sweep(ctx context.Context, patience, pause, limit time.Duration) (gone []retention.Decision, left int,
	err error) {
	unlock, err := s.lock(ctx, patience)
	if err != nil {
		return nil, 0, err
	}
	defer unlock()
	start := s.Now()
	if err := errors.Join(s.Bundles.Finish(ctx), s.Engines.Finish()); err != nil {
		return nil, 0, err
	}
	list, err := s.look(ctx)
	if err != nil {
		return nil, 0, err
	}
	var victims []retention.Decision
	items := make([]retention.Item, 0, len(list))
	for _, d := range list {
		items = append(items, d.Item)
		if !d.Keep {
			victims = append(victims, d)
		}
	}
	var errs []error
	for len(victims) > 0 {
		if limit > 0 && s.Now().Sub(start) > limit {
			break
		}
		next := victims[:min(batch, len(victims))]
		victims = victims[len(next):]
		removed, err := s.removeBatch(ctx, next, items)
		gone, errs = append(gone, removed...), append(errs, err)
		if ctx.Err() != nil {
			return gone, len(victims), ctx.Err()
		}
		if len(victims) > 0 && pause > 0 {
			timer := time.NewTimer(pause)
			select {
			case <-ctx.Done():
				timer.Stop()
				return gone, len(victims), ctx.Err()
			case <-timer.C:
			}
		}
	}
	errs = append(errs, s.forget(ctx))
	return gone, len(victims), errors.Join(errs...)
}

// removeBatch removes things between two turns, if they are still not needed.
func (s *Shelf) removeBatch(ctx context.Context, victims []retention.Decision, items []retention.Item) (
	gone []retention.Decision, err error) {
	var errs []error
	var later []func() error // what takes long
	err = s.Loop.BetweenTurns(ctx, func(w plan.World, p plan.Plan) error {
		now := s.Now()
		keep := map[retention.Ref]bool{}
		for _, d := range retention.Decide(s.needs(w, p), items, s.Limits, now) {
			keep[d.Ref] = d.Keep
		}
		for _, v := range victims {
			if keep[v.Ref] || ctx.Err() != nil {
				continue
			}
			rest, err := s.remove(ctx, v.Item, now.Add(-s.Limits[v.Kind]))
			if rest != nil {
				later = append(later, rest)
			}
			if err != nil {
				errs = append(errs, err)
				continue
			}
			if gone = append(gone, v); s.Removed != nil {
				s.Removed(string(v.Kind))
			}
		}
		return nil
	})
	for _, rest := range later {
		errs = append(errs, rest())
	}
	return gone, errors.Join(append(errs, err)...)
}

// forget has the loop forget posts that are not needed now, and the ledger approvals that are long over.
func (s *Shelf) forget(ctx context.Context) error {
	limit, ok := s.Limits[retention.Said]
	if !ok {
		return nil
	}
	if err := s.Ledger.DropApprovals(ctx, s.Now().Add(-max(limit, leastApproval))); err != nil {
		return err
	}
	return s.Loop.BetweenTurns(ctx, func(w plan.World, p plan.Plan) error {
		n := s.needs(w, p)
		if !n.Unknown.IsZero() {
			return nil
		}
		tracked, err := s.Loop.ForgetTracked(ctx, s.Now().Add(-limit))
		if err != nil {
			return err
		}
		if err := s.Ledger.DropRecords(ctx, tracked, s.Now()); err != nil {
			return err
		}
		needed := map[string]bool{}
		for _, need := range n.Needs {
			needed[need.ID] = needed[need.ID] || need.Kind == retention.Said
		}
		s.Loop.ForgetPosts(func(commit string, pull int) bool {
			if commit != "" {
				return needed[retention.CommitOf(commit)]
			}
			return needed[retention.PullOf(pull)]
		})
		return nil
	})
}

// leastApproval is how long approvals stay. They count for seven days.
const leastApproval = 30 * 24 * time.Hour
