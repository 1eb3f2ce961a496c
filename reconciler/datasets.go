package reconciler

// This file repeats the check of a dataset whose files have changed since. A data run is known by the dataset's name,
// so without it a folder of this machine would count as it was when it was first read.

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// datasetPoll is the shortest time between two looks at the files of datasets.
const datasetPoll = time.Minute

// watchDatasets looks at the files of datasets now and then, until ctx ends. Looking at many files takes time, so it
// looks less often then.
func (r *Reconciler) watchDatasets(ctx context.Context) {
	if r.Datasets == nil || r.watchOnly != nil {
		return
	}
	wait := datasetPoll
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		start := r.Now()
		between := func(do func() error) error { return r.betweenTurns(ctx, do) }
		if err := r.repeatChanged(ctx, between); err != nil && ctx.Err() == nil {
			r.Log.Warn("the files of datasets were not looked at", "error", err.Error())
		}
		wait = max(datasetPoll, 20*r.Now().Sub(start))
	}
}

// repeatChanged removes the data runs of open pull requests whose datasets have changed since, so that
// the loop starts them again. between calls a function between two turns.
func (r *Reconciler) repeatChanged(ctx context.Context, between func(do func() error) error) error {
	read := map[delivery.Digest]delivery.DataRun{}
	seen := map[delivery.Digest]map[string]delivery.Digest{}
	err := between(func() error {
		for key := range r.wantedData() {
			state, err := r.Runs.State(key)
			if err != nil {
				return err
			}
			var result delivery.DataResult
			if json.Unmarshal(state.Result, &result) == nil && len(result.Folders) > 0 && state.Spec.Data != nil {
				read[key], seen[key] = *state.Spec.Data, result.Folders
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for key, input := range read {
		if r.Now().Before(r.repeats[key].next) {
			continue
		}
		what := r.Datasets.Changed(ctx, input, seen[key])
		if ctx.Err() != nil || what == "" {
			continue
		}
		err := between(func() error {
			if !r.wantedData()[key] || r.reads(key) {
				return nil // later
			}
			r.Log.Info("a dataset has changed, and is checked again", "dataset", what, "run", key.Short())
			delete(r.observed.results, key)
			if r.repeats == nil {
				r.repeats = map[delivery.Digest]repeats{}
			}
			r.repeats[key] = r.repeats[key].again(r.Now())
			return r.Runs.Remove(key)
		})
		if err != nil {
			return fmt.Errorf("run %s: %w", key.Short(), err)
		}
	}
	return nil
}

// repeats counts how often a data run was repeated lately. A source whose dataset is another one at each look would
// else be downloaded, and trained on, without an end.
type repeats struct {
	times int
	next  time.Time // when the dataset is looked at again
}

// again counts a repeat. After the first few, each waits twice as long as the one before, up to half a day.
func (n repeats) again(now time.Time) repeats {
	const free, most = 4, 10
	if now.Sub(n.next) > 24*time.Hour {
		n.times = 0
	}
	n.times++
	wait := time.Duration(0)
	if n.times > free {
		wait = datasetPoll << min(n.times-free, most)
	}
	return repeats{n.times, now.Add(wait)}
}

// wantedData lists the finished data runs that the last plan used for pull requests.
func (r *Reconciler) wantedData() map[delivery.Digest]bool {
	keys := map[delivery.Digest]bool{}
	for _, p := range r.observed.plan.Proposals {
		for _, key := range p.Runs {
			state := r.observed.world.Runs[key]
			keys[key] = state.Phase == delivery.RunDone && state.Spec.Kind == delivery.RunData
		}
	}
	for key, wanted := range keys {
		if !wanted {
			delete(keys, key)
		}
	}
	return keys
}
