package reconciler

// This file answers those who ask: the commands, through package web. What it
// shows is the loop's last snapshot; what it does is done between turns.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/explain"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/run"
	"github.com/autonomos/aob/reconciler/web"
)

// A Source answers the API for a reconciler.
type Source struct {
	Reconciler *Reconciler
	RunFolder  string // of all runs
	// Commits tells explain of main's past, as git.Mirror does; nil: only what the last turn saw.
	Commits Commits
	// Merge merges a proposal of a local forge; nil where people merge on the forge.
	Merger interface {
		Merge(ctx context.Context, number int, head, user string) (commit string, err error)
	}
	// Asker keeps what is asked on a local forge; nil where people comment on the forge.
	Asker interface {
		Ask(ctx context.Context, pr int, author, body string) error
	}
}

func (s *Source) snapshot() (*Snapshot, error) {
	if snap := s.Reconciler.view.Load(); snap != nil {
		return snap, nil
	}
	for _, t := range s.Reconciler.troubles.all() {
		if t.what == gitTrouble || t.what == mainTrouble || t.what == turnTrouble {
			return nil, delivery.Wait{For: time.Second, What: "nothing is known yet: " + t.line()}
		}
	}
	if slow := s.Reconciler.git.slow(); slow != "" {
		return nil, delivery.Wait{For: time.Second, What: "nothing is known yet: " + slow}
	}
	return nil, delivery.Wait{For: time.Second, What: "aob serve has only just started"}
}

// ForgetDevice removes a device from a fleet.
func (s *Source) ForgetDevice(ctx context.Context, fleet, device string) error {
	return s.Reconciler.Fleet.Forget(ctx, fleet, device)
}

// Plan shows what the last turn decided.
func (s *Source) Plan(context.Context) (web.Plan, error) {
	snap, err := s.snapshot()
	if err != nil {
		return web.Plan{}, err
	}
	return shown(snap.Plan, snap.At), nil
}

// DryRun shows what a turn would decide now, and does nothing of it. It is for a
// loop that does not run.
func (s *Source) DryRun(ctx context.Context) (web.Plan, error) {
	at := s.Reconciler.Now()
	p, err := s.Reconciler.Plan(ctx)
	show := shown(p, at)
	for _, t := range s.Reconciler.troubles.all() {
		show.Notices = append(show.Notices, t.line())
	}
	return show, err
}

func shown(p plan.Plan, at time.Time) web.Plan {
	show := web.Plan{At: at, Text: p.String(), Steps: []web.Step{}}
	for _, step := range p.Steps {
		show.Steps = append(show.Steps, web.Step{Key: step.Key(), Text: step.String()})
	}
	return show
}

// Log opens a run's log: the trainer's where it has one, the runner's elsewhere.
func (s *Source) Log(_ context.Context, name string, offset int64) (web.Log, error) {
	snap, err := s.snapshot()
	if err != nil {
		return web.Log{}, err
	}
	var found []delivery.RunState
	for key, r := range snap.World.Runs {
		if string(key) == name || (len(name) >= 4 && strings.HasPrefix(key.Hex(), name)) {
			found = append(found, r)
		}
	}
	switch {
	case len(found) == 0:
		return web.Log{}, explain.Unknown{Kind: "run", ID: name, Do: "aob status lists the runs"}
	case len(found) > 1:
		return web.Log{}, delivery.Blockedf("give more of its key", "%d runs begin with %s", len(found), name)
	}
	dir := run.Folder(s.RunFolder, found[0].Spec.Kind, found[0].Spec.Key)
	for _, file := range []string{filepath.Join("output", "log.txt"), "runner.log"} {
		f, err := os.Open(filepath.Join(dir, file))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return web.Log{}, err
		}
		at, err := f.Seek(0, io.SeekEnd)
		if err == nil && offset < at {
			at, err = f.Seek(offset, io.SeekStart)
		}
		if err != nil {
			f.Close()
			return web.Log{}, err
		}
		return web.Log{ReadCloser: f, Name: file, Offset: at, Ended: found[0].Phase != delivery.RunRunning}, nil
	}
	return web.Log{}, fmt.Errorf("run %s has no log yet: %w", found[0].Spec.Key.Short(), fs.ErrNotExist)
}

// Merge merges a proposal of a local forge.
func (s *Source) Merge(ctx context.Context, number int, head, user string) (string, error) {
	if s.Merger == nil {
		return "", delivery.Blockedf("merge it there, where aob/release is a required check",
			"pull requests of this server live on a forge")
	}
	defer s.Reconciler.Look("")
	return s.Merger.Merge(ctx, number, head, user)
}

// Adopt brings a fork's pull request into the repository.
func (s *Source) Adopt(ctx context.Context, number int, head string) (adopted int, err error) {
	return s.Reconciler.Adopt(ctx, number, head)
}

// Ask keeps what a user asks on a proposal of a local forge. An order that cannot count is refused.
func (s *Source) Ask(ctx context.Context, number int, user, text string) error {
	if s.Asker == nil {
		return delivery.Blockedf("comment there", "pull requests of this server live on a forge")
	}
	defer s.Reconciler.Look("")
	var w waiting
	if err := s.Reconciler.ask(ctx, func() error {
		p, err := s.Reconciler.reported(number)
		w = waits(p)
		return err
	}); err != nil {
		return err
	}
	if err := s.Reconciler.checkOrder(ctx, number, w, user, text); err != nil {
		return err
	}
	return s.Asker.Ask(ctx, number, user, text)
}

// reported finds an open pull request in the last plan.
func (r *Reconciler) reported(number int) (plan.ProposalReport, error) {
	for _, p := range r.seen.plan.Proposals {
		if p.PR.Number == number {
			return p, nil
		}
	}
	return plan.ProposalReport{}, delivery.Blockedf("aob pr list shows the open ones",
		"there is no open pull request %d", number)
}

// Recheck tries again what has failed for a pull request: its failed runs, and
// a data run that found errors.
func (s *Source) Recheck(ctx context.Context, number int) error {
	r := s.Reconciler
	return r.ask(ctx, func() error {
		p, err := r.reported(number)
		if err != nil {
			return err
		}
		return r.recheck(p.Runs)
	})
}

func (r *Reconciler) recheck(keys []delivery.Digest) error {
	clear(r.retry)
	for _, key := range keys {
		state := r.seen.world.Runs[key]
		var err error
		switch {
		case state.Phase == delivery.RunFailed:
			err = r.Runs.Retry(key)
		case state.Phase == delivery.RunDone && state.Spec.Kind == delivery.RunData && !r.reads(key):
			err = r.Runs.Remove(key)
			delete(r.seen.results, key)
		}
		if err != nil {
			return fmt.Errorf("run %s: %w", key.Short(), err)
		}
	}
	return nil
}

// reads reports whether a training reads the images that a data run has laid out:
// they are not taken from under it.
func (r *Reconciler) reads(data delivery.Digest) bool {
	for _, s := range r.seen.world.Runs {
		if s.Phase == delivery.RunRunning && s.Spec.Train != nil && s.Spec.Train.Data == data {
			return true
		}
	}
	return false
}

// The rest is views of the snapshot; see view.go.

// Status shows how things stand. It always answers: with what is known, and with what does not work. What devices said
// is shown as it is now, whatever keeps the loop from looking at the rest.
func (s *Source) Status(context.Context) (web.Status, error) {
	r := s.Reconciler
	snap := r.view.Load()
	if snap == nil {
		unread := []delivery.Check{{Context: delivery.ContextRelease, State: delivery.CheckPending,
			Description: "it has not been read yet"}}
		return web.Status{At: r.Now(), Main: web.Main{Branch: r.Main, Checks: unread}, Notices: r.notices()}, nil
	}
	status := snap.now(r.Fleet.Devices(), r.Now()).Status()
	status.At = snap.At // of the rest
	status.Notices = append(r.notices(), status.Notices...)
	return status, nil
}

func (s *Source) PRs(context.Context) ([]web.PR, error) {
	snap, err := s.snapshot()
	if err != nil {
		return nil, err
	}
	return snap.PRs(), nil
}

func (s *Source) PR(_ context.Context, number int) (web.PR, error) {
	snap, err := s.snapshot()
	if err != nil {
		return web.PR{}, err
	}
	return snap.PR(number)
}

func (s *Source) Explain(_ context.Context, kind explain.Kind, id string) (explain.Chain, error) {
	snap, err := s.snapshot()
	if err != nil {
		return explain.Chain{}, err
	}
	return snap.now(s.Reconciler.Fleet.Devices(), s.Reconciler.Now()).Explain(kind, id, s.Commits)
}
