package shelf

// This file lists what there is of each kind, and removes one thing.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/dataset"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/engine"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/post"
	"github.com/autonomos/aob/reconciler/retention"
	"github.com/autonomos/aob/reconciler/run"
	"github.com/autonomos/aob/reconciler/trainer"
)

// A place is a folder of the state folder whose entries are named by a digest.
type place struct {
	kind   retention.Kind
	folder string
	suffix string
}

var places = []place{
	{retention.Pictures, "pictures", ""},
	{retention.Checkpoint, "checkpoints", ""},
	{retention.Detections, "detections", ".json"},
	{retention.Images, "seen", ".json"},
}

const runsFolder = "runs"

// gonePrefix begins the name of what is being removed, here and in package run.
const gonePrefix = ".gone-"

// list lists everything.
func (s *Shelf) list(ctx context.Context, runs map[delivery.Digest]delivery.RunState,
	clocks map[string]time.Time) ([]retention.Item, error) {
	s.found = found{datasets: map[retention.Ref]dataset.Kept{}, environments: map[retention.Ref]trainer.Kept{},
		engines: map[retention.Ref]engine.Kept{}, keys: map[retention.Ref][]string{}}
	var items []retention.Item
	for _, read := range []func(context.Context) ([]retention.Item, error){
		func(context.Context) ([]retention.Item, error) { return s.runs(runs), nil },
		s.placed, s.bundles, s.datasets, s.environments, s.engines, s.said,
		func(context.Context) ([]retention.Item, error) { return clockItems(clocks), nil },
		s.left,
	} {
		list, err := read(ctx)
		if err := errors.Join(ctx.Err(), err); err != nil {
			return nil, err
		}
		items = append(items, list...)
	}
	total := map[retention.Kind]retention.Total{}
	for _, it := range items {
		t := total[it.Kind]
		total[it.Kind] = retention.Total{Count: t.Count + 1, Bytes: t.Bytes + it.Bytes}
	}
	for name, folder := range s.Folders {
		if bytes := folderSize(folder); bytes > 0 {
			total[retention.Kind(name)] = retention.Total{Count: 1, Bytes: bytes}
		}
	}
	s.total.Store(&total)
	return items, nil
}

func (s *Shelf) runs(runs map[delivery.Digest]delivery.RunState) []retention.Item {
	before := s.sizes
	s.sizes = map[string]int64{}
	var items []retention.Item
	for _, key := range slices.Sorted(maps.Keys(runs)) {
		r := runs[key]
		folder := run.Folder(s.path(runsFolder), r.Spec.Kind, key)
		it := retention.Item{Ref: retention.Ref{Kind: retention.Run, ID: string(key)},
			Name: "run " + string(r.Spec.Kind) + " " + key.Short(), At: latest(r.Started, r.Ended, r.WorkingSince)}
		if it.At.IsZero() {
			info, err := os.Stat(folder)
			if err != nil {
				continue
			}
			it.At = info.ModTime()
		}
		known, ok := before[folder]
		ended := r.Phase == delivery.RunDone || r.Phase == delivery.RunFailed
		if !ok || !ended {
			known = folderSize(folder)
		}
		if it.Bytes = known; ended {
			s.sizes[folder] = known
		}
		items = append(items, it)
	}
	return items
}

func latest(times ...time.Time) (last time.Time) {
	for _, t := range times {
		if t.After(last) {
			last = t
		}
	}
	return last
}

// folderSize returns the bytes of the files in a folder. What cannot be read does not count.
func folderSize(folder string) (bytes int64) {
	_ = filepath.WalkDir(folder, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil
		}
		if info, err := e.Info(); err == nil {
			bytes += info.Size()
		}
		return nil
	})
	return bytes
}

// placed lists the folders whose entries are named by a digest.
func (s *Shelf) placed(context.Context) ([]retention.Item, error) {
	var items []retention.Item
	for _, p := range places {
		entries, err := os.ReadDir(s.path(p.folder))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			hex, ok := strings.CutSuffix(e.Name(), p.suffix)
			d, err := delivery.ParseDigest("sha256:" + hex)
			if !ok || err != nil {
				continue
			}
			info, err := e.Info()
			if err != nil {
				continue // it has just been removed
			}
			it := retention.Item{Ref: retention.Ref{Kind: p.kind, ID: string(d)},
				Name: string(p.kind) + " " + d.Short(), Bytes: info.Size(), At: info.ModTime()}
			if info.IsDir() {
				it.Bytes = folderSize(s.path(p.folder, e.Name()))
			}
			items = append(items, it)
		}
	}
	return items, nil
}

func (s *Shelf) bundles(ctx context.Context) ([]retention.Item, error) {
	list, err := s.Bundles.Kept(ctx)
	return delivery.Each(list, func(k artifact.Kept) retention.Item {
		return retention.Item{Ref: retention.Ref{Kind: retention.Bundle, ID: string(k.Bundle)},
			Name: "bundle " + k.Bundle.Short(), Bytes: k.Bytes, At: k.Pushed}
	}), err
}

func (s *Shelf) datasets(context.Context) ([]retention.Item, error) {
	list, err := s.Datasets.Kept()
	seen := map[retention.Ref]bool{}
	var items []retention.Item
	for _, k := range list {
		r := retention.Ref{Kind: retention.Dataset, ID: k.Dataset}
		if k.Dataset == "" || seen[r] { // a source may have changed a version since: each counts
			r.ID = k.Folder
		}
		seen[r] = true
		s.found.datasets[r] = k
		name := k.Dataset
		if name == "" {
			name = filepath.Base(k.Folder)[:12]
		}
		items = append(items, retention.Item{Ref: r, Name: "dataset " + name, Bytes: k.Bytes, At: k.Used})
	}
	return items, err
}

func (s *Shelf) environments(context.Context) ([]retention.Item, error) {
	list, err := s.Environments.Kept()
	return delivery.Each(list, func(k trainer.Kept) retention.Item {
		r := retention.Ref{Kind: retention.Environment, ID: retention.EnvironmentOf(k.Environment)}
		s.found.environments[r] = k
		return retention.Item{Ref: r, Name: "environment " + delivery.Cut(k.Name, 40), Bytes: k.Bytes, At: k.Used}
	}), err
}

// engines lists the engines of all bundles. None is needed: it is built again where it is missing, and one that is used
// is never old.
func (s *Shelf) engines(context.Context) ([]retention.Item, error) {
	list, err := s.Engines.Kept()
	return delivery.Each(list, func(k engine.Kept) retention.Item {
		r := retention.Ref{Kind: retention.Engine, ID: k.Path}
		s.found.engines[r] = k
		return retention.Item{Ref: r, Name: "engine " + delivery.Cut(k.Path, 80), Bytes: k.Bytes, At: k.Used}
	}), err
}

// said lists what was posted, by commit and by pull request.
func (s *Shelf) said(ctx context.Context) ([]retention.Item, error) {
	items := map[string]*retention.Item{}
	for _, prefix := range post.Prefixes {
		list, err := s.Ledger.Sizes(ctx, prefix)
		if err != nil {
			return nil, err
		}
		for _, size := range list {
			commit, pull := post.About(size.Key)
			id, name := retention.CommitOf(commit), fmt.Sprintf("posts on commit %.12s", commit)
			if pull != 0 {
				id = retention.PullOf(pull)
				name = "posts on " + id
			}
			if id == "" {
				continue
			}
			it := items[id]
			if it == nil {
				it = &retention.Item{Ref: retention.Ref{Kind: retention.Said, ID: id}, Name: name}
				items[id] = it
			}
			it.Bytes += size.Bytes
			it.At = latest(it.At, size.At)
			s.found.keys[it.Ref] = append(s.found.keys[it.Ref], size.Key)
		}
	}
	rollouts, err := s.Ledger.Records(ctx, post.RolloutKeys)
	if err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(rollouts)) {
		if commit, _, _ := strings.Cut(rollouts[key].Content, " "); commit != "" {
			s.found.rollouts = append(s.found.rollouts, commit)
		}
	}
	var list []retention.Item
	for _, id := range slices.Sorted(maps.Keys(items)) {
		list = append(list, *items[id])
	}
	return list, nil
}

// clockTimes returns when the rollouts of fleets last changed.
func clockTimes(w plan.World) map[string]time.Time {
	times := map[string]time.Time{}
	for fleet, state := range w.Clocks {
		times[fleet] = latest(state.Began, state.Started, state.Healthy)
	}
	return times
}

func clockItems(times map[string]time.Time) []retention.Item {
	var items []retention.Item
	for _, fleet := range slices.Sorted(maps.Keys(times)) {
		items = append(items, retention.Item{Ref: retention.Ref{Kind: retention.Clock, ID: fleet},
			Name: "rollout of fleet " + fleet, At: times[fleet]})
	}
	return items
}

// left lists what killed processes have left.
func (s *Shelf) left(context.Context) ([]retention.Item, error) {
	folders := []string{runsFolder}
	for _, p := range places {
		folders = append(folders, p.folder)
	}
	var items []retention.Item
	for _, folder := range folders {
		entries, err := os.ReadDir(s.path(folder))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			name := e.Name()
			if !strings.HasPrefix(name, gonePrefix) && !strings.HasPrefix(name, ".new-") &&
				!strings.HasPrefix(name, ".put-") {
				continue
			}
			info, err := e.Info()
			if err != nil {
				continue
			}
			id := filepath.Join(folder, name)
			it := retention.Item{Ref: retention.Ref{Kind: retention.Left, ID: id}, Name: id, Bytes: info.Size(),
				At: info.ModTime()}
			if info.IsDir() {
				it.Bytes = folderSize(s.path(id))
			}
			items = append(items, it)
		}
	}
	return items, nil
}

// addRollouts needs what was posted on the commits that show rollouts.
func (s *Shelf) addRollouts(n *retention.Needed) {
	for _, commit := range s.found.rollouts {
		n.Needs = append(n.Needs, retention.Need{
			Ref: retention.Ref{Kind: retention.Said, ID: retention.CommitOf(commit)},
			Why: delivery.Fact{Code: code.KeptRollout}})
	}
}

// addTrainers needs the environments of the server's trainers.
func (s *Shelf) addTrainers(n *retention.Needed) {
	for _, with := range slices.Sorted(maps.Keys(s.Trainers)) {
		n.Needs = append(n.Needs, retention.Need{
			Ref: retention.Ref{Kind: retention.Environment, ID: retention.EnvironmentOf(s.Trainers[with])},
			Why: delivery.Fact{Code: code.KeptTrainer, Values: delivery.Values{Text: with}}})
	}
}

// remove removes one thing that was last used before a time. It is called between two turns. What takes long is in
// later, which is called after that. A dataset and an environment are checked once more then, as a run that uses one
// notes that first.
func (s *Shelf) remove(ctx context.Context, it retention.Item, before time.Time) (later func() error, err error) {
	r := it.Ref
	all := func(folder string, err error) (func() error, error) {
		if folder == "" || err != nil {
			return nil, err
		}
		return func() error { return os.RemoveAll(folder) }, nil
	}
	switch r.Kind {
	case retention.Run:
		return all(s.Loop.DetachRun(delivery.Digest(r.ID)))
	case retention.Bundle:
		return nil, s.Bundles.Remove(ctx, delivery.Digest(r.ID), before)
	case retention.Dataset:
		return func() error { return s.Datasets.Remove(s.found.datasets[r], before) }, nil
	case retention.Environment:
		return func() error { return s.Environments.Remove(s.found.environments[r], before) }, nil
	case retention.Engine:
		return func() error { return s.Engines.Remove(s.found.engines[r], before) }, nil
	case retention.Said:
		return nil, s.removePosts(ctx, r, before)
	case retention.Clock:
		return nil, s.Ledger.DropClock(ctx, r.ID)
	case retention.Left:
		return all(s.path(r.ID), nil)
	}
	for _, p := range places {
		if p.kind == r.Kind {
			return all(s.moveAway(p, delivery.Digest(r.ID), before))
		}
	}
	return nil, fmt.Errorf("there is no way to remove a %s", r.Kind)
}

// moveAway renames an entry of a place.
func (s *Shelf) moveAway(p place, d delivery.Digest, before time.Time) (string, error) {
	name := d.Hex() + p.suffix
	info, err := os.Lstat(s.path(p.folder, name))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.ModTime().Before(before) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	gone := s.path(p.folder, gonePrefix+name)
	if err := os.RemoveAll(gone); err != nil { // of a killed process
		return "", err
	}
	return gone, durable.Rename(s.path(p.folder, name), gone)
}

// removePosts forgets what was posted about a commit or a pull request.
func (s *Shelf) removePosts(ctx context.Context, r retention.Ref, before time.Time) error {
	keys := s.found.keys[r]
	if len(keys) == 0 {
		return nil
	}
	about, number := post.About(keys[0])
	s.Loop.ForgetPosts(func(commit string, pull int) bool { return commit != about || pull != number })
	return s.Ledger.DropPosts(ctx, keys, before, about, number)
}

func (s *Shelf) path(parts ...string) string {
	return filepath.Join(append([]string{s.State}, parts...)...)
}
