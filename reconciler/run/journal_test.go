package run

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// journalOf writes words as a journal: each is an event, with what follows a
// colon as its stage, epoch or error. Every start is the next attempt.
func journalOf(t *testing.T, dir, words string, at time.Time) {
	t.Helper()
	var b strings.Builder
	attempt := 0
	for word := range strings.FieldsSeq(words) {
		event, arg, _ := strings.Cut(word, ":")
		e := entry{At: at, Event: event}
		switch event {
		case eventStart:
			attempt++
		case eventStage:
			e.Stage = arg
		case eventProgress:
			fmt.Sscan(arg, &e.Epoch)
		default:
			e.Error = arg
		}
		e.Attempt = attempt
		b.Write(delivery.Canonical(e))
		b.WriteString("\n")
	}
	if err := os.WriteFile(filepath.Join(dir, journalFile), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestJournals(t *testing.T) {
	repeat := func(s string, n int) string { return strings.Repeat(s+" ", n) }
	tests := []struct {
		name, journal string
		phase         delivery.RunPhase
		attempt       int
		err           string
		pause         time.Duration
		deaths        int
	}{
		{"nothing", "", delivery.RunUnknown, 0, "", 0, 0},
		{"died at once", "start", delivery.RunDied, 1, "attempt 1 died", 0, 1},
		{"died in a stage", "start stage:plan stage:apply", delivery.RunDied, 1, "attempt 1 died in stage apply", 0, 1},
		{"progress is no end", "start stage:training progress:3", delivery.RunDied, 1,
			"attempt 1 died in stage training", 0, 1},
		{"died twice", "start start", delivery.RunDied, 2, "attempt 2 died", firstPause, 2},
		{"died without getting further", repeat("start stage:plan", 5), delivery.RunDied, 5,
			"attempt 5 died in stage plan", 8 * firstPause, 5},
		{"got further by a stage", repeat("start stage:plan", 5) + "start stage:plan stage:apply", delivery.RunDied, 6,
			"attempt 6 died in stage apply", 0, 1},
		{"got further by an epoch", repeat("start stage:plan progress:4", 5) + "start stage:plan progress:5",
			delivery.RunDied, 6, "attempt 6 died in stage plan", 0, 1},
		{"an epoch seen before", repeat("start stage:plan progress:4", 3) + "start stage:plan progress:3",
			delivery.RunDied, 4, "attempt 4 died in stage plan", 4 * firstPause, 4},
		{"errors are no deaths", repeat("start error:away", 6), delivery.RunDied, 6, "away", 16 * firstPause, 0},
		{"the pause ends growing", repeat("start error:away", 80), delivery.RunDied, 80, "away", maxPause, 0},
		{"done", "start stage:a start stage:b done", delivery.RunDone, 2, "", 0, 0},
		{"failed", "start failed:no", delivery.RunFailed, 1, "no", 0, 0},
		{"stopped", "start stage:a stopped:why", delivery.RunStopped, 1, "why", 0, 0},
		{"stopped forgives", repeat("start", 8) + "start stopped:why start", delivery.RunDied, 10, "attempt 10 died", 0,
			1},
		{"retry forgives", repeat("start stage:a", 9) + "start failed:no retry start stage:a", delivery.RunDied, 11,
			"attempt 11 died in stage a", 0, 1},
		{"retried", "start failed:no retry", delivery.RunUnknown, 1, "", 0, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			s := spec(test.name)
			journalOf(t, b.folder(t, s), test.journal, time.Now().Add(-time.Hour))
			state, err := b.State(s.Key)
			if err != nil && test.phase != delivery.RunDone { // whose result is missing here
				t.Fatal(err)
			}
			want(t, state, test.phase, test.attempt, test.err)
			h := b.runs[s.Key].history.now()
			if !h.ended() && h.pause() != test.pause {
				t.Errorf("pause %s, want %s", h.pause(), test.pause)
			}
			if !h.ended() && h.deaths != test.deaths {
				t.Errorf("deaths %d, want %d", h.deaths, test.deaths)
			}
		})
	}
}

// A run whose process always dies is called once more to clean up, and fails.
func TestDeathsAreCounted(t *testing.T) {
	b := newBench(t)
	s := spec("steps 5 0")
	dir := b.folder(t, s)
	journalOf(t, dir, strings.Repeat("start stage:work ", maxDeaths+1), time.Now().Add(-time.Hour))
	state := b.run(t, s)
	want(t, state, delivery.RunFailed, maxDeaths+2, "its process died 11 times without getting further; "+
		"read runner.log in the run's folder, fix the cause, then run aob pr recheck NUMBER")
	b.await(t, "clean")
	if err := b.Retry(s.Key); err != nil {
		t.Fatal(err)
	}
	want(t, b.run(t, s), delivery.RunDone, maxDeaths+3, "")
}

func TestTornJournal(t *testing.T) {
	for _, torn := range []string{`{"at":"2026-11-`, "\x00\x00\x00\x00", `{"event":"done"}`} {
		b := newBench(t)
		s := spec("steps 3 0")
		dir := b.folder(t, s)
		journalOf(t, dir, "start stage:work", time.Now().Add(-time.Hour))
		path := filepath.Join(dir, journalFile)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// A line that is no entry and yet complete is passed over.
		whole = append(whole, "garbage\n{}\n[1]\n"...)
		if err := os.WriteFile(path, append(whole, torn...), 0o600); err != nil {
			t.Fatal(err)
		}
		want(t, b.state(t, s), delivery.RunDied, 1, "attempt 1 died in stage work")
		want(t, b.run(t, s), delivery.RunDone, 2, "")
		after, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(after), string(whole)+`{"at"`) {
			t.Errorf("the torn line was not cut off:\n%s", after)
		}
	}
}

func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no /dev/full on this system")
	}
	r := &Run{Dir: t.TempDir(), journal: &journal{f: full}}
	err = r.Stage("plan")
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "write the run's journal") {
		t.Errorf("error %v, want one that says what could not be written", err)
	}
	if r.journal.offset != 0 || r.journal.stage != "" {
		t.Errorf("the entry counts although it was not written: %+v", r.journal.history)
	}
}

// A runner killed at any moment, and a store that may be lost with it, end in
// the result, with every step done once.
func TestKilledAtAnyMoment(t *testing.T) {
	kills := 40
	if testing.Short() {
		kills = 8
	}
	random := rand.New(rand.NewPCG(3, 4))
	b := newBench(t)
	for series, killed := 0, 0; killed < kills; series++ {
		s := spec(fmt.Sprintf("steps 100 %d", series))
		next := 1
		for {
			err := b.Start(t.Context(), s)
			if wait, ok := errors.AsType[delivery.Wait](err); ok {
				<-time.After(wait.For) // as the loop does
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			killed += b.killSometime(t, s, next, random)
			if random.IntN(2) == 0 {
				b.Store = &Store{Dir: b.Dir, Command: b.Command, Env: b.Env, Wake: b.Wake}
			}
			state := b.state(t, s)
			if state.Phase == delivery.RunDone {
				if string(state.Result) != `{"steps":100}` {
					t.Errorf("result %s", state.Result)
				}
				t.Logf("done in attempt %d, %d kills in all", state.Attempt, killed)
				break
			}
			if p := state.Phase; p != delivery.RunDied && p != delivery.RunUnknown {
				t.Fatalf("%s: %s", p, state.Error)
			}
			next = state.Attempt + 1
		}
	}
}

// killSometime kills the runner after some steps of the attempt, or earlier,
// perhaps before it even begins. It returns 1, or 0 if the runner was faster.
func (b *bench) killSometime(t *testing.T, s delivery.RunSpec, attempt int, random *rand.Rand) int {
	t.Helper()
	steps := 1 + random.IntN(4)
	early := time.NewTimer(time.Hour)
	defer early.Stop()
	if random.IntN(3) == 0 {
		early.Reset(time.Duration(random.Float64() * float64(20*time.Millisecond)))
	}
	for killed := 0; ; {
		select {
		case <-b.wake:
			return killed
		case line := <-b.news:
			if line != fmt.Sprint("step of attempt ", attempt) {
				continue
			}
			if steps--; steps != 0 {
				continue
			}
		case <-early.C:
		}
		killed += b.killRunner(t, s)
	}
}

// killRunner kills the runner that was launched for the run, begun or not. It
// returns how many it found.
func (b *bench) killRunner(t *testing.T, s delivery.RunSpec) int {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	killed := 0
	for _, p := range procs {
		data, err := os.ReadFile(p)
		if err == nil && strings.HasSuffix(string(data), "\x00runner\x00"+b.Folder(s.Kind, s.Key)+"\x00") {
			var pid int
			if _, err := fmt.Sscanf(p, "/proc/%d/", &pid); err != nil {
				t.Fatal(err)
			}
			if syscall.Kill(pid, syscall.SIGKILL) == nil {
				killed++
			}
		}
	}
	return killed
}

// However a journal came to be, reading it in pieces shows the same as reading
// it at once.
func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"at":"2026-11-24T02:00:00Z","attempt":1,"event":"start","process":{"pid":1}}`+"\n"+
		`{"event":"stage","stage":"a"}`+"\n"+`{"event":"done"}`+"\n"), uint(40))
	f.Add([]byte("{\"event\":\"start\"}\n{\"event\":\"progress\",\"epoch\":3}\nxx\n{\"event\":\"err"), uint(3))
	f.Add([]byte("{\"event\":\"start\"}\n{\"event\":\"error\"}\n{\"event\":\"retry\"}\n{\"event\":\"stopped\"}\n"),
		uint(20))
	f.Fuzz(func(t *testing.T, data []byte, cut uint) {
		var pieces, whole history
		pieces.parse(data[:min(uint(len(data)), cut)])
		pieces.parse(data[pieces.offset:])
		whole.parse(data)
		if !reflect.DeepEqual(pieces, whole) {
			t.Errorf("in pieces %+v\nat once %+v", pieces, whole)
		}
		if p := whole.now().pause(); p < 0 || p > maxPause {
			t.Errorf("pause %s", p)
		}
	})
}

// The time of all attempts counts, and that of one that died until the next one has begun.
func TestHistoryAddsUpWork(t *testing.T) {
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	minute := func(n int) time.Time { return at.Add(time.Duration(n) * time.Minute) }
	var h history
	for _, e := range []entry{{At: minute(0), Event: eventStart}, {At: minute(1), Event: eventStage, Stage: "train"},
		{At: minute(10), Event: eventStart}, {At: minute(12), Event: eventError}, {At: minute(30), Event: eventStart},
		{At: minute(35), Event: eventStopped}, {At: minute(40), Event: eventRetry}, {At: minute(50), Event: eventStart},
		{At: minute(51), Event: eventProgress, Epoch: 1}} {
		h.add(e)
	}
	if h.worked != 17*time.Minute || !h.since.Equal(minute(50)) {
		t.Errorf("worked %s, and since %s", h.worked, h.since)
	}
	h.add(entry{At: minute(60), Event: eventDone})
	if h.worked != 27*time.Minute || !h.since.IsZero() {
		t.Errorf("at the end: worked %s, and since %s", h.worked, h.since)
	}
}
