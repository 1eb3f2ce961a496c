package cloud

// This file sweeps an account again and again.

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Sweeper ends what AOB made in an account and no run needs any more. It needs no state of Terraform and has none of
// its own: it goes by the tags in the account.
type Sweeper struct {
	Account    *Account
	Controller string // what the tag [TagController] has
	// Runs returns what is known of runs. It is called after the account was listed. nil: only what is expired is
	// ended.
	Runs   func(ctx context.Context) (func(run string) Life, error)
	Report func(Swept) // called after each sweep; may be nil
	Log    *slog.Logger

	mu    sync.Mutex
	found map[string]delivery.Orphan // of this process, by region and id
}

// A Swept is the result of a sweep.
type Swept struct {
	At      time.Time // by the account's clock
	Listed  int       // items with this controller's tag that cost money
	Orphans []delivery.Orphan
	New     []delivery.Orphan // those that no earlier sweep of this process found
	Failed  map[string]error  // by region: why its list is not whole
	Runs    error             // why nothing is known of runs
}

// Sweep lists the account once and ends its orphans. One that cannot be ended does not stop the others.
func (s *Sweeper) Sweep(ctx context.Context) Swept {
	listing := s.Account.List(ctx, s.Controller)
	world := World{At: listing.At, Controller: s.Controller, Items: listing.Items, Rests: listing.Rests,
		Whole: listing.Whole}
	swept := Swept{At: listing.At, Failed: listing.Failed}
	if s.Runs != nil && ctx.Err() == nil {
		if world.Life, swept.Runs = s.Runs(ctx); swept.Runs != nil {
			world.Life = nil
		}
	}
	for _, i := range world.Items {
		if i.costs() && i.Tags[TagController] == s.Controller {
			swept.Listed++
		}
	}
	for _, action := range Sweep(world) {
		if ctx.Err() != nil {
			break // the next sweep finds the rest
		}
		orphan := action.Orphan(listing.At)
		err := s.Account.End(ctx, action.Item)
		if err != nil {
			orphan.Error = err.Error()
		}
		s.Log.Warn("a sweep of the account found an orphan", "kind", orphan.Kind, "id", orphan.ID, "region",
			orphan.Region, "run", orphan.Run, "why", orphan.Why, "error", orphan.Error)
		swept.Orphans = append(swept.Orphans, orphan)
	}
	for _, r := range Left(world) {
		if ctx.Err() != nil {
			break
		}
		// What AWS still needs, as the group of an instance that shuts down, is ended by a later sweep.
		err := s.Account.EndRest(ctx, r.Region, s.Controller, r.Run, r.Name)
		s.Log.Info("a sweep of the account ended the roles, security group and launch template of a run", "region",
			r.Region, "run", r.Run, "error", err)
	}
	for region, err := range swept.Failed {
		s.Log.Warn("a sweep of the account could not list a region", "region", region, "error", err.Error())
	}
	s.note(&swept)
	if s.Report != nil {
		s.Report(swept)
	}
	return swept
}

// maxFound bounds the orphans that are kept for people.
const maxFound = 1000

func (s *Sweeper) note(swept *Swept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.found == nil {
		s.found = map[string]delivery.Orphan{}
	}
	for _, o := range swept.Orphans {
		key := o.Region + " " + o.ID
		if before, known := s.found[key]; known {
			o.At = before.At // when it was found first
		} else {
			if swept.New = append(swept.New, o); len(s.found) >= maxFound {
				continue
			}
		}
		s.found[key] = o
	}
}

// Found returns the orphans that were found since the start, the earliest first.
func (s *Sweeper) Found() []delivery.Orphan {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.found), func(a, b delivery.Orphan) int {
		if c := a.At.Compare(b.At); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
}

// Run sweeps until ctx ends.
func (s *Sweeper) Run(ctx context.Context, every time.Duration) {
	for {
		s.Sweep(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
	}
}
