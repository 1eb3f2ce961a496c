package outbox_test

import (
	"context"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/outbox"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/track"
	"github.com/autonomos/aob/reconciler/turn"
)

// A book is a ledger in memory.
type book struct {
	mu      sync.Mutex
	records map[string]ledger.Record
}

func (b *book) Records(_ context.Context, prefix string) (map[string]ledger.Record, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := maps.Clone(b.records)
	maps.DeleteFunc(list, func(key string, _ ledger.Record) bool { return !strings.HasPrefix(key, prefix) })
	return list, nil
}

func (b *book) PutRecord(_ context.Context, key, content string, at time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.records[key] = ledger.Record{Content: content, At: at}
	return nil
}

type noMetrics struct{}

func (noMetrics) TrackerCall(string, time.Duration, error) {}
func (noMetrics) TrackerWaiting(string, int)               {}

// A silent tracker never answers.
type silent struct{ asked chan struct{} }

func (silent) Address() string { return "https://silent.example.com" }

func (s silent) PutRun(ctx context.Context, _ track.Run, _ []track.Epoch) error {
	select {
	case s.asked <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return ctx.Err()
}

func (s silent) PutModel(ctx context.Context, _ track.Model) error {
	return s.PutRun(ctx, track.Run{}, nil)
}

// A picky tracker refuses the training of one seed.
type picky struct {
	mu   sync.Mutex
	told []string
}

func (*picky) Address() string { return "https://picky.example.com" }

func (p *picky) PutRun(_ context.Context, r track.Run, _ []track.Epoch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Tags["aob.seed"] == "1" {
		return track.Refused{Status: 500, Code: "INTERNAL_ERROR", Text: "boom"}
	}
	p.told = append(p.told, r.Tags["aob.seed"])
	return nil
}

func (*picky) PutModel(context.Context, track.Model) error { return nil }

// A training that a tracker does not take holds up no other one.
func TestOneRefusedTraining(t *testing.T) {
	tracker := &picky{}
	o := outbox.New(outbox.Config{Trackers: map[string]outbox.Tracker{"mlflow/default": tracker},
		Ledger: &book{records: map[string]ledger.Record{}}, Metrics: noMetrics{},
		Turn:   turn.New(time.Now, slog.New(slog.DiscardHandler)),
		Epochs: func(delivery.Digest) ([]byte, error) { return nil, nil }})
	w, p := training(0)
	other := delivery.Sum([]byte("later"))
	w.Runs[other] = delivery.RunState{Phase: delivery.RunRunning, Started: time.Unix(2e9, 0),
		Spec: delivery.RunSpec{Key: other, Train: &delivery.TrainRun{Seed: 2}}}
	seeds := &p.Proposals[0].Models[0].Seeds
	*seeds = append(*seeds, plan.SeedReport{Seed: 2, Key: other})
	o.Note(t.Context(), &w, &p)
	o.Drain(t.Context())
	if len(tracker.told) != 1 || tracker.told[0] != "2" {
		t.Errorf("the tracker has seeds %q, want 2", tracker.told)
	}
}

// A record is dropped when the training is over, no open pull request asks for it, and the tracker has it.
func TestForget(t *testing.T) {
	tracker := &picky{}
	at := time.Unix(2e9, 0)
	o := outbox.New(outbox.Config{Trackers: map[string]outbox.Tracker{"mlflow/default": tracker},
		Ledger: &book{records: map[string]ledger.Record{}}, Metrics: noMetrics{},
		Turn:   turn.New(func() time.Time { return at }, slog.New(slog.DiscardHandler)),
		Epochs: func(delivery.Digest) ([]byte, error) { return nil, nil }})
	w, p := training(0)
	for key, r := range w.Runs {
		r.Spec.Train.Seed = 2 // which the tracker takes
		w.Runs[key] = r
	}
	forget := func(when string, want int) {
		t.Helper()
		keys, err := o.Forget(t.Context(), at)
		if err != nil || len(keys) != want {
			t.Errorf("%s: %q, %v are forgotten, want %d", when, keys, err, want)
		}
	}
	o.Note(t.Context(), &w, &p)
	o.Drain(t.Context())
	forget("it goes on", 0)
	for key, r := range w.Runs {
		r.Phase, r.Ended = delivery.RunDone, time.Unix(1e9+60, 0)
		w.Runs[key] = r
	}
	o.Note(t.Context(), &w, &p)
	o.Drain(t.Context())
	forget("the pull request is open", 0)
	w.Proposals, p.Proposals = nil, nil
	o.Note(t.Context(), &w, &p)
	forget("the tracker does not know that it is closed", 0)
	o.Drain(t.Context())
	forget("it is over", 2)
	forget("it was forgotten", 0)
	o.Note(t.Context(), &w, &p)
	forget("nobody asks for it", 0)
}

// training is a turn in which a pull request's training is at an epoch.
func training(epoch int) (plan.World, plan.Plan) {
	key := delivery.Sum([]byte("run"))
	pr := delivery.PullRequest{Number: 1, Author: "ada", Head: "c0ffee"}
	w := plan.World{ProposalsKnown: true, Proposals: []plan.Proposal{{PullRequest: pr, Merged: delivery.Intent{
		Models: delivery.NamedOf(map[string]delivery.Model{"shapes": {Track: delivery.Track{MLflow: "default"}}})}}},
		Runs: map[delivery.Digest]delivery.RunState{key: {Phase: delivery.RunRunning, Started: time.Unix(1e9, 0),
			Spec:   delivery.RunSpec{Key: key, Train: &delivery.TrainRun{Seed: 1}},
			Status: delivery.RunStatus{Epoch: epoch}}}}
	return w, plan.Plan{Proposals: []plan.ProposalReport{{PR: pr, Models: []plan.ModelReport{{Model: "shapes",
		Seeds: []plan.SeedReport{{Seed: 1, Key: key}}}}}}}
}

// A tracker that never answers holds up neither the loop nor the end of the server.
func TestNothingWaitsForASilentTracker(t *testing.T) {
	tracker := silent{make(chan struct{}, 1)}
	o := outbox.New(outbox.Config{Trackers: map[string]outbox.Tracker{"mlflow/default": tracker},
		Ledger: &book{records: map[string]ledger.Record{}}, Metrics: noMetrics{},
		Turn:   turn.New(time.Now, slog.New(slog.DiscardHandler)),
		Epochs: func(delivery.Digest) ([]byte, error) { return []byte("{\"epoch\": 1, \"loss\": 1}\n"), nil }})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { o.Run(ctx); close(ended) }()
	w, p := training(0)
	o.Note(ctx, &w, &p)
	<-tracker.asked
	for epoch := range 100 { // the loop goes on while the tracker is asked
		w, p := training(epoch)
		o.Note(ctx, &w, &p)
	}
	cancel()
	<-ended
}
