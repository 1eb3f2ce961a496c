package post

import (
	"context"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/turn"
)

// A book is a ledger in memory.
type book map[string]ledger.Record

func (b book) Records(_ context.Context, prefix string) (map[string]ledger.Record, error) {
	found := maps.Clone(b)
	maps.DeleteFunc(found, func(key string, _ ledger.Record) bool { return !strings.HasPrefix(key, prefix) })
	return found, nil
}

func (b book) PutRecord(_ context.Context, key, content string, at time.Time) error {
	b[key] = ledger.Record{Content: content, At: at, Count: b[key].Count + 1}
	return nil
}

// A countingForge counts posts.
type countingForge struct{ posts *int }

func (countingForge) Address() string { return "here" }
func (f countingForge) SetStatus(context.Context, string, delivery.Check) error {
	*f.posts++
	return nil
}
func (f countingForge) Comment(context.Context, int, string, string) error {
	*f.posts++
	return nil
}

func TestAbout(t *testing.T) {
	for key, want := range map[string]struct {
		commit string
		pull   int
	}{
		"status/f00/c0ffee/aob/gate/production": {"c0ffee", 0},
		"forged/f00/c0ffee/aob/release":         {"c0ffee", 0},
		"deploy/f00/c0ffee/aob/rollout/line":    {"c0ffee", 0},
		"button/f00/c0ffee/ab12":                {"c0ffee", 0},
		"press/f00/c0ffee/ab12":                 {"c0ffee", 0},
		"head/f00/12-1700000000":                {"", 12},
		"repository/f00":                        {"", 0},
		"comment/f00/12":                        {"", 12},
		"comment/f00/12-1700000000":             {"", 12},
		"pushed/aob/restore-pallets":            {"", 0},
		"rollout/north":                         {"", 0},
	} {
		if commit, pull := About(key); commit != want.commit || pull != want.pull {
			t.Errorf("%s: %q, %d", key, commit, pull)
		}
	}
}

// What a board has forgotten it reads from the ledger again, and does not post twice.
func TestForget(t *testing.T) {
	posts, at := 0, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	b := New(countingForge{&posts}, book{}, emptyLedger{}, time.Second, turn.New(func() time.Time { return at },
		slog.New(slog.DiscardHandler)), turn.NewSignal())
	ctx := t.Context()
	post := func() {
		t.Helper()
		for _, commit := range []string{"c0ffee", "badcab1e"} {
			for _, name := range []string{delivery.ContextRelease, delivery.ContextGate + "production"} {
				if err := b.Status(ctx, commit, delivery.Check{Context: name, State: delivery.CheckSuccess,
					Description: "done"}); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, number := range []int{1, 12} {
			if err := b.Comment(ctx, delivery.PullRequest{Number: number}, "hello"); err != nil {
				t.Fatal(err)
			}
		}
	}
	post()
	remembered := len(b.records)
	b.Forget(func(string, int) bool { return false })
	if len(b.records) < remembered {
		t.Error("posts that wait were forgotten")
	}
	b.Drain(ctx)
	b.Hear(ctx)
	if posts != 6 {
		t.Fatalf("%d posts, want 6", posts)
	}
	b.Forget(func(commit string, pull int) bool { return commit == "c0ffee" || pull == 1 })
	for key := range b.records {
		if commit, pull := About(key); commit == "badcab1e" || pull == 12 {
			t.Errorf("%s is remembered", key)
		}
	}
	if len(b.byCommit) != 1 || len(b.records) != 3 {
		t.Errorf("%d commits and %d records are remembered, want 1 and 3", len(b.byCommit), len(b.records))
	}
	b.Forget(func(string, int) bool { return false })
	if len(b.byCommit)+len(b.records) != 0 {
		t.Errorf("remembered: %v, %v", b.byCommit, b.records)
	}
	post()
	b.Drain(ctx)
	if posts != 6 {
		t.Errorf("%d posts, want 6: nothing is posted twice", posts)
	}
}
