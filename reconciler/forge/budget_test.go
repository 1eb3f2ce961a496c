package forge_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/forge"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/post"
	"github.com/autonomos/aob/reconciler/turn"
)

// Progress leaves room for verdicts, and all together keep to the limits of a minute and of an hour.
func TestBudget(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var b forge.Budget
	at := func(d time.Duration) time.Time { return start.Add(d) }
	for range 40 {
		if wait := b.Take(start); wait != 0 {
			t.Fatalf("it waits %s", wait)
		}
	}
	if got := b.Spare(at(20*time.Second), 0); got != at(time.Minute) {
		t.Errorf("progress after 40 in a minute: %s", got)
	}
	for range 40 {
		if wait := b.Take(at(10 * time.Second)); wait != 0 {
			t.Fatalf("a verdict waits %s", wait)
		}
	}
	if wait := b.Take(at(30 * time.Second)); wait != 30*time.Second {
		t.Errorf("the 81st in a minute waits %s", wait)
	}
	made := 80
	for d := time.Minute; made < 500; d += time.Second {
		if b.Take(at(d)) == 0 {
			made++
		}
	}
	now := at(20 * time.Minute)
	if got := b.Spare(now, 0); got.Before(at(time.Hour)) {
		t.Errorf("progress after 500 in an hour: %s", got)
	}
	if wait := b.Take(now); wait != 40*time.Minute {
		t.Errorf("the 501st in an hour waits %s", wait)
	}
	if wait := b.Take(at(time.Hour)); wait != 0 {
		t.Errorf("an hour later it waits %s", wait)
	}
}

// limited is a forge with a budget.
type limited struct {
	forge.Budget
	now      time.Time
	refused  int
	progress int
	states   map[string]delivery.CheckState
	wrong    func(format string, args ...any)
	made     []time.Time
}

func (l *limited) Address() string { return "here" }

func (l *limited) write() error {
	if wait := l.Take(l.now); wait > 0 {
		l.refused++
		return delivery.Wait{For: wait, What: "refused"}
	}
	l.made = append(l.made, l.now)
	for len(l.made) > 0 && l.now.Sub(l.made[0]) >= time.Hour {
		l.made = l.made[1:]
	}
	if len(l.made) > 500 {
		l.wrong("%d in an hour", len(l.made))
	}
	return nil
}

func (l *limited) SetStatus(_ context.Context, commit string, c delivery.Check) error {
	if err := l.write(); err != nil {
		return err
	}
	key := commit + c.Context
	if l.states[key] == c.State {
		l.progress++
	}
	l.states[key] = c.State
	return nil
}

func (l *limited) Comment(context.Context, int, string, string) error { return l.write() }

// nothing is a ledger that has kept nothing, and metrics.
type nothing struct{}

func (nothing) Records(context.Context, string) (map[string]ledger.Record, error) { return nil, nil }
func (nothing) PutRecord(context.Context, string, string, time.Time) error        { return nil }
func (nothing) ForgeCall(string, time.Duration, error)                            {}

// A day of 100 pull requests, each with a new head every ten hours that trains nearly as long: progress is posted, no
// verdict waits a minute, and nothing is refused.
func TestBudgetOfADay(t *testing.T) {
	f := &limited{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), states: map[string]delivery.CheckState{},
		wrong: t.Errorf}
	clock := turn.New(func() time.Time { return f.now }, slog.New(slog.DiscardHandler))
	board := post.New(f, nothing{}, nothing{}, 5*time.Second, clock, turn.NewSignal())
	board.Spare = f.Spare
	contexts := []string{"aob/intent", "aob/data", "aob/train", "aob/eval", "aob/gate/production", "aob/release"}
	const step, life, pulls = 30 * time.Second, 10 * time.Hour, 100
	start := f.now
	for ; f.now.Sub(start) < 24*time.Hour; f.now = f.now.Add(step) {
		var ended []string
		for pr := range pulls {
			age := f.now.Sub(start) - life*time.Duration(pr)/pulls
			if age < 0 {
				continue // they come one after the other
			}
			commit := fmt.Sprintf("%d-%d", pr, age/life)
			age %= life
			done := age > life-30*time.Minute
			for _, c := range contexts {
				check := delivery.Check{Context: c, State: delivery.CheckPending, Description: "waits"}
				switch {
				case done:
					check.State, check.Description = delivery.CheckSuccess, "done"
					ended = append(ended, commit+c)
				case c == "aob/train":
					check.Description = fmt.Sprint("epoch ", int(age/step))
				}
				if err := board.Status(t.Context(), commit, check); err != nil {
					t.Fatal(err)
				}
			}
			number := delivery.PullRequest{Number: pr + 1, Head: commit}
			if err := board.Comment(t.Context(), number, fmt.Sprint(commit, done)); err != nil {
				t.Fatal(err)
			}
		}
		board.Drain(t.Context())
		board.Hear(t.Context())
		for _, key := range ended {
			if f.states[key] != delivery.CheckSuccess {
				t.Fatalf("%s waits for its verdict at %s", key, f.now.Sub(start))
			}
		}
	}
	if f.refused > 0 || f.progress < 1000 {
		t.Errorf("%d refused; %d posts of progress", f.refused, f.progress)
	}
	t.Logf("%d posts of progress", f.progress)
}
