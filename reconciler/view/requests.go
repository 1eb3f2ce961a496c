package view

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

const (
	// trialLasts is how long an experiment is kept after its last request. Its bundles are kept like any others.
	trialLasts = 14 * 24 * time.Hour
	// wantLasts is how long a comparison or a gate's power is worked on after its last request.
	wantLasts = 10 * time.Minute
)

// Experiments keeps experiments across restarts.
type Experiments interface {
	Trials(ctx context.Context, since time.Time) ([]json.RawMessage, error)
	PutTrial(ctx context.Context, id string, at time.Time, body json.RawMessage) error
	DropTrial(ctx context.Context, id string) error
}

// Requests holds what people have requested: experiments, comparisons and the power of gates. The loop works on them
// until they expire. Experiments are kept in the ledger, the others only in memory. Its methods may be called from any
// goroutine.
type Requests struct {
	ledger Experiments
	log    *slog.Logger

	mu          sync.Mutex
	trials      []plan.Trial // nil until read
	unreadable  error        // names the experiments that could not be read
	comparisons map[delivery.Digest]comparison
	gates       map[string]time.Time // when each gate's power was last requested
}

// A comparison is two models to compare, and the time of the last request.
type comparison struct {
	input delivery.CompareRun
	at    time.Time
}

// NewRequests returns requests whose experiments are kept in a ledger.
func NewRequests(ledger Experiments, log *slog.Logger) *Requests {
	return &Requests{ledger: ledger, log: log, comparisons: map[delivery.Digest]comparison{},
		gates: map[string]time.Time{}}
}

// Trials returns the experiments that are kept. Those that the ledger cannot read are left out, and err names them.
func (q *Requests) Trials(ctx context.Context, now time.Time) ([]plan.Trial, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	err := q.read(ctx, now)
	return slices.Clone(q.trials), err
}

// read reads the experiments, once.
func (q *Requests) read(ctx context.Context, now time.Time) error {
	if q.trials != nil {
		return q.unreadable
	}
	list, err := q.ledger.Trials(ctx, now.Add(-trialLasts))
	if !delivery.Usable(err) {
		return err
	}
	q.trials = []plan.Trial{}
	for _, body := range list {
		var t plan.Trial
		if err := json.Unmarshal(body, &t); err != nil {
			q.log.Warn("an experiment of another version is forgotten", "error", err.Error())
			continue
		}
		q.trials = append(q.trials, t)
	}
	q.unreadable = err
	return err
}

// try keeps an experiment. If there is one with the same content, its author, note and time stay.
func (q *Requests) try(ctx context.Context, t plan.Trial, now time.Time) (plan.Trial, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.read(ctx, now); !delivery.Usable(err) {
		return t, delivery.Wait{For: time.Second, What: "the ledger cannot be read; aob status says why"}
	}
	if i := slices.IndexFunc(q.trials, func(o plan.Trial) bool { return o.ID == t.ID }); i >= 0 {
		t.At, t.By, t.Note = q.trials[i].At, q.trials[i].By, q.trials[i].Note
	}
	body, err := json.Marshal(t)
	if err == nil {
		err = q.ledger.PutTrial(ctx, t.ID, now, body)
	}
	if err != nil {
		return t, err
	}
	q.trials = append(without(q.trials, t.ID), t)
	return t, nil
}

func without(trials []plan.Trial, id string) []plan.Trial {
	return slices.DeleteFunc(slices.Clone(trials), func(t plan.Trial) bool { return t.ID == id })
}

// end forgets an experiment.
func (q *Requests) end(ctx context.Context, id string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.trials = without(q.trials, id)
	return q.ledger.DropTrial(ctx, id)
}

// knows reports whether an experiment's ID begins with id.
func (q *Requests) knows(id string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(id) >= 4 && slices.ContainsFunc(q.trials, func(t plan.Trial) bool { return strings.HasPrefix(t.ID, id) })
}

// compare requests a comparison.
func (q *Requests) compare(input delivery.CompareRun, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.comparisons[delivery.CompareKey(input)] = comparison{input, now}
}

// Comparisons returns the requested comparisons.
func (q *Requests) Comparisons(now time.Time) []delivery.CompareRun {
	q.mu.Lock()
	defer q.mu.Unlock()
	maps.DeleteFunc(q.comparisons, func(_ delivery.Digest, c comparison) bool { return now.Sub(c.at) > wantLasts })
	return delivery.Each(slices.Sorted(maps.Keys(q.comparisons)), func(key delivery.Digest) delivery.CompareRun {
		return q.comparisons[key].input
	})
}

// power requests how small a drop a gate can detect.
func (q *Requests) power(gate string, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.gates[gate] = now
}

// Gates returns the gates whose power was requested, sorted.
func (q *Requests) Gates(now time.Time) []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	maps.DeleteFunc(q.gates, func(_ string, at time.Time) bool { return now.Sub(at) > wantLasts })
	return slices.Sorted(maps.Keys(q.gates))
}
