package terraform

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// over is a machine on which nothing runs any more.
type over struct{ Machine }

func (over) Alive(context.Context, string) (bool, error) { return false, nil }

// What a trainer says of the time cannot make an attempt look shorter than AOB has seen: the limit and the ceiling of
// the next attempt are what is left.
func TestTimeOfAnAttempt(t *testing.T) {
	begun := time.Now().Add(-10 * time.Hour)
	after := func(hours int) time.Time { return begun.Add(time.Duration(hours) * time.Hour) }
	for _, test := range []struct {
		name         string
		says         time.Time // its heartbeat
		status, logs time.Time // when AOB copied the files
		watched      bool
		hours        int
	}{
		{"nothing was seen", time.Time{}, time.Time{}, time.Time{}, false, 0},
		{"it ended while AOB was away", after(4), after(3), after(2), false, 4},
		{"a heartbeat of the past", after(-100), after(3), after(2), false, 3},
		{"a heartbeat of the past, and a log", after(-100), after(1), after(2), false, 2},
		{"a heartbeat of the future", after(100), after(3), after(2), false, 3},
		{"it was seen to end", after(-100), after(3), after(2), true, 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			run := t.TempDir()
			a := &attempt{dir: attemptDir(run, 1), begun: begun, watched: test.watched}
			for path, at := range map[string]time.Time{filepath.Join(run, outputDir, statusFile): test.status,
				filepath.Join(a.dir, trainerLog): begun, filepath.Join(a.dir, bootLog): test.logs} {
				if at.IsZero() {
					continue
				}
				text := `{"phase":"training","heartbeat":"` + test.says.UTC().Format(time.RFC3339Nano) + `"}`
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Chtimes(path, at, at); err != nil {
					t.Fatal(err)
				}
			}
			trainer := &Trainer{Machine: over{}}
			if got := trainer.ran(t.Context(), run, a).Round(time.Hour); got != time.Duration(test.hours)*time.Hour {
				t.Errorf("it ran for %s, want %dh", got, test.hours)
			}
		})
	}
}
