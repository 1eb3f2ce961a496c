package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A run that is asked to end says so in its state until it has ended, also to a
// server that was started meanwhile. So nobody has to ask again at once.
func TestStateSaysThatRunIsEnding(t *testing.T) {
	b := newBench(t)
	s := spec("wait")
	if err := b.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	b.await(t, "work")
	if state := b.state(t, s); state.EndReason != "" || !state.EndRequested.IsZero() {
		t.Errorf("before: ending %q, asked at %v", state.EndReason, state.EndRequested)
	}
	before := time.Now()
	if err := b.End(t.Context(), s.Key, "#3 is closed"); err != nil {
		t.Fatal(err)
	}
	another := &Store{Dir: b.Dir}
	for name, store := range map[string]*Store{"this server": b.Store, "another": another} {
		state, err := store.State(s.Key)
		if err != nil {
			t.Fatal(err)
		}
		if state.Phase != delivery.RunRunning { // it has ended already
			continue
		}
		if state.EndReason != "#3 is closed" || state.EndRequested.Before(before.Truncate(time.Microsecond)) {
			t.Errorf("%s: ending %q, asked at %v", name, state.EndReason, state.EndRequested)
		}
	}
	<-b.wake
	if state := b.state(t, s); state.EndReason != "" || state.Phase != delivery.RunStopped {
		t.Errorf("afterwards: %s, ending %q", state.Phase, state.EndReason)
	}
}

// The caller's context may end on the same signal as the run's, and be first. That
// ends the attempt as stopped, too: nothing failed.
func TestAttemptThatIsSignalledIsStopped(t *testing.T) {
	for _, c := range []struct {
		name string
		asks bool // end.json is there
		want string
	}{{"asked to end", true, "#3 is closed"}, {"a signal alone", false, "terminated signal received"}} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			s := spec("wait")
			dir := b.folder(t, s)
			r, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			_ = r.Do(ctx, func(ctx context.Context) (any, error) {
				if c.asks {
					if err := os.WriteFile(filepath.Join(dir, endFile), []byte(`{"why": "#3 is closed"}`),
						0o600); err != nil {
						t.Fatal(err)
					}
				}
				cancel(errors.New("terminated signal received"))
				<-ctx.Done()
				return nil, fmt.Errorf("the training was interrupted: %w", context.Cause(ctx))
			})
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			want(t, b.state(t, s), delivery.RunStopped, 1, c.want)
		})
	}
}

// Attempts that were asked to end do not count as tries: they say nothing against
// the trainer.
func TestEndedAttemptsAreNoTries(t *testing.T) {
	b := newBench(t)
	s := spec("wait")
	for attempt := 1; attempt <= 3; attempt++ {
		if err := b.Start(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		b.await(t, "work")
		if state := b.state(t, s); state.Attempt != attempt || state.Tries() != 1 {
			t.Errorf("attempt %d is try %d, want 1", state.Attempt, state.Tries())
		}
		if err := b.End(t.Context(), s.Key, "not needed"); err != nil {
			t.Fatal(err)
		}
		<-b.wake
		if state := b.state(t, s); state.Tries() != 1 {
			t.Errorf("ended attempt %d is try %d, want 1", state.Attempt, state.Tries())
		}
	}
	failing := spec("error")
	b.run(t, failing)
	b.run(t, failing)
	if state := b.state(t, failing); state.Tries() != 2 {
		t.Errorf("the second attempt of a run that failed is try %d", state.Tries())
	}
}

// Who needs a run is kept with the run: another server knows it.
func TestNeedSurvivesRestart(t *testing.T) {
	b := newBench(t)
	s := spec("quick")
	if err := b.Keep(s.Key, delivery.RunNeed{PRs: []int{3}}); err != nil {
		t.Fatal("of a run that is not known:", err)
	}
	b.run(t, s)
	if need := b.state(t, s).Need; len(need.PRs) > 0 {
		t.Errorf("need %v before anybody recorded one", need)
	}
	need := delivery.RunNeed{PRs: []int{3, 7}, Since: time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)}
	if err := b.Keep(s.Key, need); err != nil {
		t.Fatal(err)
	}
	for name, store := range map[string]*Store{"this server": b.Store, "another": {Dir: b.Dir}} {
		list, err := store.Observe()
		if err != nil || len(list) != 1 || !list[0].Need.Equal(need) {
			t.Errorf("%s: %+v, %v, want need %v", name, list, err, need)
		}
	}
	// What a crash or a person left there is as if nobody had recorded it.
	if err := os.WriteFile(filepath.Join(b.Folder(s.Kind, s.Key), needFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if list, err := (&Store{Dir: b.Dir}).Observe(); err != nil || len(list) != 1 || len(list[0].Need.PRs) != 0 {
		t.Errorf("with a damaged file: %+v, %v", list, err)
	}
}

// A run of a newer aob is called that, and not damaged, as long as it is there. Nothing is done to it: it is not
// started again, not ended and not removed. The other runs are read and started.
func TestRunOfNewerAOBIsReportedAndLeftAlone(t *testing.T) {
	b := newBench(t)
	s := spec("quick")
	dir := b.folder(t, s)
	data := strings.Replace(string(delivery.Canonical(s)), "{", `{"format": 7, "kinds": {"a": [1]}, `, 1)
	if err := os.WriteFile(filepath.Join(dir, specFile), []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	b.folder(t, spec("error"))
	const want = "was written by a newer aob: it has format 7, and this aob reads formats up to 1; start that version"
	for range 3 {
		list, err := b.Observe()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v", err)
		}
		if !slices.ContainsFunc(list, func(s delivery.RunState) bool { return s.Spec.Note == "error" }) {
			t.Errorf("runs %+v, want the other one", list)
		}
		for what, err := range map[string]error{
			"start":  b.Start(t.Context(), s),
			"end":    b.End(t.Context(), s.Key, "#3 is closed"),
			"keep":   b.Keep(s.Key, delivery.RunNeed{PRs: []int{3}}),
			"retry":  b.Retry(s.Key),
			"remove": b.Remove(s.Key),
			"state":  func() error { _, err := b.State(s.Key); return err }(),
		} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("its folder holds %v, %v", entries, err)
	}
	if err := b.Start(t.Context(), spec("fast")); err != nil {
		t.Fatal(err)
	}
	<-b.wake
	if state, err := b.State(spec("fast").Key); err != nil || state.Phase != delivery.RunDone {
		t.Errorf("another run is %s, %v", state.Phase, err)
	}
	// The newer aob has ended it, and it was removed.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Observe(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// A run that an earlier version began goes on where it was: its folder has no format, its journal names no state
// folder, and nobody has recorded who needs it. It can be asked to end.
func TestRunOfAnEarlierVersionGoesOn(t *testing.T) {
	b := newBench(t)
	b.StateID = "mine"
	s := spec("steps 4 1")
	dir := b.folder(t, s)
	// As commit dca45b9 wrote it: two epochs, and then the runner died with the server's machine.
	journal := `{"at":"2026-11-01T10:00:00Z","attempt":1,"event":"start",` +
		`"process":{"pid":4194000,"start":1,"boot":"gone"}}
{"at":"2026-11-01T10:00:01Z","attempt":1,"event":"stage","stage":"work"}
{"at":"2026-11-01T10:00:02Z","attempt":1,"event":"progress","epoch":1,"epochs":4}
{"at":"2026-11-01T10:00:03Z","attempt":1,"event":"progress","epoch":2,"epochs":4}
`
	for name, text := range map[string]string{journalFile: journal, "steps": ".."} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if state, err := b.State(s.Key); err != nil || state.Phase != delivery.RunDied || state.Attempt != 1 {
		t.Fatalf("before: %+v, %v", state, err)
	}
	state := b.run(t, s)
	if state.Phase != delivery.RunDone || state.Attempt != 2 || state.Started.Year() != 2026 {
		t.Errorf("it is %+v", state)
	}
	if steps, err := os.ReadFile(filepath.Join(dir, "steps")); err != nil || string(steps) != "...." {
		t.Errorf("steps %q, %v", steps, err)
	}
	b.await(t, "work")

	// One whose runner is at work, started by the earlier version: it goes on, and ends when it is asked to.
	s = spec("wait")
	gone := make(chan struct{}, 1)
	earlier := &Store{Dir: b.Dir, Command: b.Command, Env: b.Env, Wake: func() { gone <- struct{}{} }}
	if err := earlier.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	b.await(t, "work")
	later := &Store{Dir: b.Dir, Command: b.Command, Env: b.Env, StateID: "mine"}
	if state, err := later.State(s.Key); err != nil || state.Phase != delivery.RunRunning {
		t.Fatalf("under way: %+v, %v", state, err)
	}
	if err := later.Start(t.Context(), s); err != nil { // as a turn does: nothing happens
		t.Fatal(err)
	}
	if err := later.End(t.Context(), s.Key, "#3 is closed"); err != nil {
		t.Fatal(err)
	}
	<-gone
	if state, err := later.State(s.Key); err != nil || state.Phase != delivery.RunStopped || state.Attempt != 1 {
		t.Errorf("ended: %+v, %v", state, err)
	}
}
