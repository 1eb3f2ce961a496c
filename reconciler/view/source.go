package view

// This file answers the API of the commands from the last snapshot, and passes requests on to the loop.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/explain"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/run"
	"github.com/autonomos/aob/reconciler/web"
	"github.com/autonomos/aob/reconciler/words"
)

// A Loop is what a Source needs of the reconciler. Its methods may be called from any goroutine.
type Loop interface {
	// Last returns what the last turn observed and planned; nil before the first turn is over.
	Last() *Snapshot
	// Unknown says why there is no snapshot yet.
	Unknown() error
	// Waiting returns how much waits, by queue.
	Waiting() map[string]int
	// Notices says what does not work, since when, and what to do about it.
	Notices() []string
	// Plan observes and plans without acting. notices says what could not be read.
	Plan(ctx context.Context) (p plan.Plan, notices []string, err error)
	// Wake requests a turn soon.
	Wake()
	// Refresh has git and the forge read again.
	Refresh(commit string)
	Adopt(ctx context.Context, number int, head string) (adopted int, err error)
	Recheck(ctx context.Context, number int) error
	// CheckOrder says why a command in a comment would have no effect.
	CheckOrder(ctx context.Context, number int, user, text string) error
}

// Files opens files by name.
type Files interface {
	Open(name string) (io.ReadSeekCloser, error)
}

// Fleet is what devices have reported.
type Fleet interface {
	Devices() []delivery.Device
	Forget(ctx context.Context, ring, device string) error
}

// A Source answers the API for a reconciler.
type Source struct {
	Loop     Loop
	Requests *Requests
	Fleet    Fleet
	Parser   *intent.Cache
	Main     string // the target branch
	Now      func() time.Time
	// Logs have the logs of runs: first the state folder, because the log of a run at work is a file of this machine,
	// then the store of run outputs.
	Logs []Files
	// Mask masks secrets in logs; nil if there are none.
	Mask func() delivery.Mask
	// Shelf is what the server has stored.
	Shelf Shelf
	// Commits is the history for Explain, as from git.Mirror; nil for only the last turn.
	Commits Commits
	// Merger merges a proposal of a local forge; nil where people merge on the forge.
	Merger interface {
		Merge(ctx context.Context, number int, head, user string) (commit string, err error)
	}
	// UserComments stores comments on pull requests of a local forge; nil where people comment on the forge.
	UserComments interface {
		AddUserComment(ctx context.Context, pr int, author, body string) error
	}
}

func (s *Source) snapshot() (*Snapshot, error) {
	if last := s.Loop.Last(); last != nil {
		return last, nil
	}
	return nil, s.Loop.Unknown()
}

// answer returns what the last snapshot answers.
func answer[T any](s *Source, get func(*Snapshot) (T, error)) (v T, err error) {
	snap, err := s.snapshot()
	if err != nil {
		return v, err
	}
	return get(snap)
}

// ForgetDevice removes a device from a fleet.
func (s *Source) ForgetDevice(ctx context.Context, fleet, device string) error {
	return s.Fleet.Forget(ctx, fleet, device)
}

// Plan returns the plan of the last turn.
func (s *Source) Plan(context.Context) (web.Plan, error) {
	return answer(s, func(snap *Snapshot) (web.Plan, error) { return shown(snap.Plan, snap.At), nil })
}

// DryRun returns the plan that a turn would make now, without acting. It is for a loop that does not run.
func (s *Source) DryRun(ctx context.Context) (web.Plan, error) {
	at := s.Now()
	p, notices, err := s.Loop.Plan(ctx)
	show := shown(p, at)
	show.Notices = notices
	return show, err
}

func shown(p plan.Plan, at time.Time) web.Plan {
	show := web.Plan{At: at, Text: words.Plan(p), Steps: []web.Step{}}
	for _, step := range p.Steps {
		show.Steps = append(show.Steps, web.Step{Key: step.Key(), Text: words.Step(step)})
	}
	return show
}

type maskedLog struct {
	io.Reader
	io.Closer
}

// Log opens a run's log: the trainer's if there is one, else the runner's.
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
		do := "aob status lists the runs"
		if number, err := strconv.Atoi(name); err == nil && number > 0 && len(name) < 8 { // no key of a run
			do = fmt.Sprintf("aob logs pr %d prints the run of pull request #%[1]d; %s", number, do)
		}
		return web.Log{}, explain.Unknown{Kind: "run", ID: name, Do: do}
	case len(found) > 1:
		return web.Log{}, delivery.Blockedf("give more of its key", "%d runs begin with %s", len(found), name)
	}
	for _, file := range run.Logs {
		var f io.ReadSeekCloser
		err := fs.ErrNotExist
		for _, from := range s.Logs {
			if errors.Is(err, fs.ErrNotExist) {
				f, err = from.Open(run.OutputName(found[0].Spec.Kind, found[0].Spec.Key, file))
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return web.Log{}, err
		}
		var mask delivery.Mask
		if s.Mask != nil {
			mask = s.Mask()
		}
		var text io.Reader
		at, err := f.Seek(0, io.SeekEnd)
		if err == nil {
			at = min(at, offset)
			text, err = mask.ReadFrom(f, at)
		}
		if err != nil {
			f.Close()
			return web.Log{}, err
		}
		return web.Log{ReadCloser: maskedLog{text, f}, Name: file, Offset: at,
			Ended: found[0].Phase != delivery.RunRunning}, nil
	}
	return web.Log{}, fmt.Errorf("run %s has no log yet: %w", found[0].Spec.Key.Short(), fs.ErrNotExist)
}

// Merge merges a proposal of a local forge.
func (s *Source) Merge(ctx context.Context, number int, head, user string) (string, error) {
	if s.Merger == nil {
		return "", delivery.Blockedf("merge it there, where aob/release is a required check",
			"pull requests of this server live on a forge")
	}
	defer s.Loop.Refresh("")
	return s.Merger.Merge(ctx, number, head, user)
}

// Adopt brings a fork's pull request into the repository.
func (s *Source) Adopt(ctx context.Context, number int, head string) (adopted int, err error) {
	return s.Loop.Adopt(ctx, number, head)
}

// Command posts a command of a user on a pull request of a local forge. A command without effect is refused.
func (s *Source) Command(ctx context.Context, number int, user, text string) error {
	if s.UserComments == nil {
		return delivery.Blockedf("comment there", "pull requests of this server live on a forge")
	}
	defer s.Loop.Refresh("")
	if err := s.Loop.CheckOrder(ctx, number, user, text); err != nil {
		return err
	}
	return s.UserComments.AddUserComment(ctx, number, user, text)
}

// Recheck tries again what has failed for a pull request: failed runs, and data runs that found errors.
func (s *Source) Recheck(ctx context.Context, number int) error { return s.Loop.Recheck(ctx, number) }

// Status returns the state of everything. It always answers, with what is known and what does not work. Devices are up
// to date even if the loop cannot read the rest.
func (s *Source) Status(context.Context) (web.Status, error) {
	snap := s.Loop.Last()
	if snap == nil {
		unread := []plan.Check{{Context: delivery.ContextRelease, State: delivery.CheckPending,
			Facts: []delivery.Fact{{Code: code.MainNotRead}}}}
		return web.Status{At: s.Now(), Main: web.Main{Branch: s.Main, Checks: shownChecks(unread)},
			Notices: s.Loop.Notices()}, nil
	}
	status := snap.now(s.Fleet.Devices(), s.Now()).Status()
	status.At, status.LastTurn = snap.At, snap.At // of the rest
	status.Notices = append(s.Loop.Notices(), status.Notices...)
	return status, nil
}

// PRs returns the open pull requests, the newest first.
func (s *Source) PRs(context.Context) ([]web.PR, error) {
	return answer(s, func(snap *Snapshot) ([]web.PR, error) { return snap.PRs(), nil })
}

// PR returns one pull request with all details.
func (s *Source) PR(_ context.Context, number int) (web.PR, error) {
	return answer(s, func(snap *Snapshot) (web.PR, error) {
		pr, err := snap.PR(number)
		if unknown, ok := errors.AsType[explain.Unknown](err); ok && s.Commits != nil {
			merged, found, err := snap.mergedPR(number, s.Commits)
			if found || err != nil {
				return merged, err
			}
			return web.PR{}, unknown
		}
		return pr, err
	})
}

// PicturesOf says which model and gate of which pull request the pictures of a comparison are about; "" if no open pull
// request has them.
func (s *Source) PicturesOf(key string) string {
	snap := s.Loop.Last()
	if snap == nil {
		return ""
	}
	for _, p := range snap.Plan.Proposals {
		for _, m := range p.Models {
			for _, l := range m.Links {
				if l.Path == "/pictures/"+key+"/" && m.Baseline != nil {
					return fmt.Sprintf("pull request #%d: %s, bundle %s, against version %d, by gate %s", p.PR.Number,
						m.Model,
						m.Bundle.Short(), m.Baseline.Version, l.Gate)
				}
			}
		}
	}
	return ""
}

// Release returns a release that main has accepted; version 0 is the one that it has now.
func (s *Source) Release(_ context.Context, model string, version int) (web.Released, error) {
	return answer(s, func(snap *Snapshot) (web.Released, error) { return snap.Release(model, version) })
}

// Explain returns the chain of one thing.
func (s *Source) Explain(_ context.Context, kind explain.Kind, id string) (explain.Chain, error) {
	return answer(s, func(snap *Snapshot) (explain.Chain, error) {
		return snap.now(s.Fleet.Devices(), s.Now()).Explain(kind, id, s.Commits)
	})
}
