package run

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// The test binary is also the runner. A spec's note says what the work is.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "runner" {
		if err := runnerMain(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func runnerMain(dir string) error {
	if os.Getenv("SECRET") != "" {
		return errors.New("the runner got the whole environment")
	}
	r, err := Open(dir)
	if err != nil {
		return err
	}
	defer r.Close()
	news, err := os.OpenFile(os.Getenv("NEWS"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	tell := func(text string) { fmt.Fprintln(news, text) }
	kind, arg, _ := strings.Cut(r.Spec.Note, " ")
	return r.Do(context.Background(), func(ctx context.Context) (any, error) {
		if err := context.Cause(ctx); err != nil {
			tell("clean")
			return nil, fmt.Errorf("cleaned up: %w", err)
		}
		if err := r.Stage("work"); err != nil {
			return nil, err
		}
		tell("work")
		switch kind {
		case "blocked":
			if _, err := os.Stat(filepath.Join(r.Dir, "mended")); err == nil {
				return "mended", nil
			}
			return nil, fmt.Errorf("look: %w", delivery.Blocked{What: "no dataset", Do: "name one"})
		case "error":
			return nil, errors.New("the registry is away")
		case "later":
			return nil, fmt.Errorf("apply: %w", delivery.Wait{For: time.Hour, What: "no machine is free"})
		case "wait":
			<-ctx.Done()
			return nil, fmt.Errorf("in between: %w", context.Cause(ctx))
		case "left":
			<-ctx.Done()
			return nil, errors.New("a machine is left running")
		case "steps": // each step is done once, however often the runner dies
			var n, series int
			if _, err := fmt.Sscan(arg, &n, &series); err != nil {
				return nil, err
			}
			f, err := os.OpenFile(filepath.Join(r.Dir, "steps"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
			if err != nil {
				return nil, err
			}
			defer f.Close()
			for {
				info, err := f.Stat()
				if err != nil {
					return nil, err
				}
				done := int(info.Size())
				if done == n {
					return map[string]int{"steps": n}, nil
				}
				if _, err := f.WriteString("."); err != nil {
					return nil, err
				}
				if err := r.Progress(delivery.RunStatus{Epoch: done + 1, Epochs: n}); err != nil {
					return nil, err
				}
				tell(fmt.Sprint("step of attempt ", r.Attempt))
			}
		}
		return map[string]string{"did": r.Spec.Note}, nil
	})
}

func spec(note string) delivery.RunSpec {
	return delivery.RunSpec{Key: delivery.Sum([]byte(note)), Kind: delivery.RunCompare, Note: note,
		Compare: &delivery.CompareRun{Resamples: 1}}
}

// A bench is a store whose runners tell what they do.
type bench struct {
	*Store
	news chan string
	wake chan struct{}
}

func newBench(t *testing.T) *bench {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SECRET", "hunter2")
	pipe := filepath.Join(t.TempDir(), "news")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	b := &bench{news: make(chan string, 10_000), wake: make(chan struct{}, 100)}
	go func() {
		for lines := bufio.NewScanner(f); lines.Scan(); {
			b.news <- lines.Text()
		}
		close(b.news)
	}()
	b.Store = &Store{
		Dir: filepath.Join(t.TempDir(), "runs"), Command: []string{exe, "runner"},
		Env:  func(delivery.RunSpec) ([]string, error) { return []string{"NEWS=" + pipe}, nil },
		Wake: func() { b.wake <- struct{}{} },
	}
	return b
}

func (b *bench) await(t *testing.T, text string) {
	t.Helper()
	for line := range b.news {
		if line == text {
			return
		}
	}
	t.Fatalf("no news of %q", text)
}

// run starts the run, waits for its runner's end, and returns how it stands.
func (b *bench) run(t *testing.T, s delivery.RunSpec) delivery.RunState {
	t.Helper()
	if err := b.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	<-b.wake
	return b.state(t, s)
}

// state returns a run's state, and checks that Observe and a store that knows
// nothing yet say the same, unless a runner is at work in between.
func (b *bench) state(t *testing.T, s delivery.RunSpec) delivery.RunState {
	t.Helper()
	got, err := b.State(s.Key)
	if err != nil {
		t.Fatal(err)
	}
	bare := got
	bare.Result = nil
	for name, store := range map[string]*Store{"this store": b.Store, "a new store": {Dir: b.Dir}} {
		list, err := store.Observe()
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range list {
			if other.Spec.Key == s.Key && got.Phase > delivery.RunRunning &&
				string(delivery.Canonical(other)) != string(delivery.Canonical(bare)) {
				t.Errorf("%s observes %s\nwant %s", name, delivery.Canonical(other), delivery.Canonical(bare))
			}
		}
	}
	return got
}

// signal sends a signal to the run's runner.
func (b *bench) signal(t *testing.T, s delivery.RunSpec, sig syscall.Signal) {
	t.Helper()
	var h history
	if err := h.read(filepath.Join(b.Folder(s.Kind, s.Key), journalFile)); err != nil {
		t.Fatal(err)
	}
	if err := h.process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// folder makes a run's folder and starts nothing.
func (b *bench) folder(t *testing.T, s delivery.RunSpec) string {
	t.Helper()
	dir := b.Folder(s.Kind, s.Key)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, specFile), delivery.Canonical(s), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func want(t *testing.T, s delivery.RunState, phase delivery.RunPhase, attempt int, err string) {
	t.Helper()
	if s.Phase != phase || s.Attempt != attempt || s.Error != err {
		t.Errorf("%s, attempt %d, error %q; want %s, attempt %d, error %q", s.Phase, s.Attempt, s.Error, phase, attempt,
			err)
	}
}

func TestDone(t *testing.T) {
	b := newBench(t)
	s := spec("quick")
	want(t, b.state(t, s), delivery.RunUnknown, 0, "")
	state := b.run(t, s)
	want(t, state, delivery.RunDone, 1, "")
	if got := string(state.Result); got != `{"did":"quick"}` {
		t.Errorf("result %s", got)
	}
	if state.Stage != "work" || state.Started.IsZero() || state.Ended.Before(state.Started) ||
		state.Spec.Note != "quick" {
		t.Errorf("state %+v", state)
	}
	if err := b.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	want(t, b.state(t, s), delivery.RunDone, 1, "")
	if err := b.End(t.Context(), s.Key, "late"); err != nil {
		t.Fatal(err)
	}
	want(t, b.state(t, s), delivery.RunDone, 1, "")
	if _, err := Open(b.Folder(s.Kind, s.Key)); !errors.Is(err, ErrEnded) {
		t.Errorf("opened again: %v, want ErrEnded", err)
	}
}

func TestStartTwiceIsOnce(t *testing.T) {
	b := newBench(t)
	s := spec("wait")
	for range 3 {
		if err := b.Start(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		want(t, b.state(t, s), delivery.RunRunning, b.state(t, s).Attempt, "")
	}
	b.await(t, "work")
	// Another server's start, as after a restart, finds the lock held.
	other := &Store{Dir: b.Dir, Command: b.Command, Env: b.Env}
	if err := other.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	want(t, b.state(t, s), delivery.RunRunning, 1, "")
	if err := b.Remove(s.Key); err == nil {
		t.Error("a running run was removed")
	}
	if err := b.End(t.Context(), s.Key, "enough"); err != nil {
		t.Fatal(err)
	}
	<-b.wake
	want(t, b.state(t, s), delivery.RunStopped, 1, "enough")
}

func TestEndAndStartAgain(t *testing.T) {
	b := newBench(t)
	s := spec("wait")
	for attempt := 1; attempt <= 3; attempt++ {
		if err := b.Start(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		b.await(t, "work")
		want(t, b.state(t, s), delivery.RunRunning, attempt, "")
		if err := b.End(t.Context(), s.Key, "the pull request was closed"); err != nil {
			t.Fatal(err)
		}
		<-b.wake
		want(t, b.state(t, s), delivery.RunStopped, attempt, "the pull request was closed")
	}
	if err := b.Remove(s.Key); err != nil {
		t.Fatal(err)
	}
	want(t, b.state(t, s), delivery.RunUnknown, 0, "")
	if left, err := os.ReadDir(b.Dir); err != nil || len(left) > 0 {
		t.Errorf("left after removal: %v %v", left, err)
	}
}

// A run that is asked to end before its runner begins must not begin its work.
func TestEndBeforeItBegins(t *testing.T) {
	b := newBench(t)
	s := spec("wait")
	if err := b.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if err := b.End(t.Context(), s.Key, "changed my mind"); err != nil {
		t.Fatal(err)
	}
	<-b.wake
	want(t, b.state(t, s), delivery.RunStopped, 1, "changed my mind")
}

// The signal may be lost with the server that would have sent it.
func TestEndByFileAlone(t *testing.T) {
	b := newBench(t)
	s := spec("wait")
	if err := b.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	b.await(t, "work")
	if err := os.WriteFile(filepath.Join(b.Folder(s.Kind, s.Key), endFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	<-b.wake
	want(t, b.state(t, s), delivery.RunStopped, 1, "a request to end")
}

func TestSignalStops(t *testing.T) {
	b := newBench(t)
	s := spec("wait")
	if err := b.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	b.await(t, "work")
	b.signal(t, s, syscall.SIGTERM)
	<-b.wake
	want(t, b.state(t, s), delivery.RunStopped, 1, "stopped by terminated")
}

// What a dead runner left is cleaned up when the run is ended: the work is
// called once more, with a context that is over.
func TestEndOfADeadRunCleansUp(t *testing.T) {
	b := newBench(t)
	s := spec("wait")
	if err := b.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	b.await(t, "work")
	b.signal(t, s, syscall.SIGKILL)
	<-b.wake
	want(t, b.state(t, s), delivery.RunDied, 1, "attempt 1 died in stage work")
	if err := b.Remove(s.Key); err == nil {
		t.Error("a dead run, which may have left something, was removed")
	}
	if err := b.End(t.Context(), s.Key, "not wanted"); err != nil {
		t.Fatal(err)
	}
	b.await(t, "clean")
	<-b.wake
	want(t, b.state(t, s), delivery.RunStopped, 2, "not wanted")
}

// An ended context is no proof that nothing is left: only its error is.
func TestStoppedButNotClean(t *testing.T) {
	b := newBench(t)
	s := spec("left")
	if err := b.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	b.await(t, "work")
	if err := b.End(t.Context(), s.Key, "not wanted"); err != nil {
		t.Fatal(err)
	}
	<-b.wake
	want(t, b.state(t, s), delivery.RunDied, 1, "a machine is left running")
	if err := b.End(t.Context(), s.Key, "not wanted"); err != nil {
		t.Fatal(err)
	}
	<-b.wake
	want(t, b.state(t, s), delivery.RunStopped, 2, "not wanted")
}

func TestBlockedFailsAndRetry(t *testing.T) {
	b := newBench(t)
	s := spec("blocked")
	want(t, b.run(t, s), delivery.RunFailed, 1, "no dataset; name one")
	if err := b.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	want(t, b.state(t, s), delivery.RunFailed, 1, "no dataset; name one")
	if err := os.WriteFile(filepath.Join(b.Folder(s.Kind, s.Key), "mended"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.Retry(s.Key); err != nil {
		t.Fatal(err)
	}
	want(t, b.state(t, s), delivery.RunUnknown, 1, "")
	want(t, b.run(t, s), delivery.RunDone, 2, "")
}

// Errors of runs are shown on pull requests, which the server's folders are no business of.
func TestErrorsHaveNoPathOfTheServer(t *testing.T) {
	r := Run{Dir: "/srv/aob/state/runs/data-1"}
	for text, want := range map[string]string{
		"ONNX Runtime was not found at /home/ann/.cache/aob/libonnxruntime.so.1 (from the cache folder)": "ONNX " +
			"Runtime was not found at libonnxruntime.so.1 (from the cache folder)",
		"load ONNX Runtime from /opt/x.so: /opt/lib/x.so: file too short": "load ONNX Runtime from x.so: x.so: file " +
			"too short",
		`stat "/srv/aob/state/runs/data-1/output/log.txt"`:     `stat "output/log.txt"`,
		"comment /aob run 0a1b; see https://forge.test/a/b/c":  "comment /aob run 0a1b; see https://forge.test/a/b/c",
		"train/a.jpg and datasets/shapes/1 are not AOB's /tmp": "train/a.jpg and datasets/shapes/1 are not AOB's /tmp",
	} {
		for _, err := range []error{errors.New(text), delivery.Blocked{What: text, Do: text}} {
			e := r.ending(t.Context(), err)
			if e.Error != want || e.Event == eventFailed && e.Do != want {
				t.Errorf("%q, %q, want %q", e.Error, e.Do, want)
			}
		}
	}
}

func TestErrorIsTriedAgain(t *testing.T) {
	b := newBench(t)
	s := spec("error")
	want(t, b.run(t, s), delivery.RunDied, 1, "the registry is away")
	want(t, b.run(t, s), delivery.RunDied, 2, "the registry is away") // at once: the first got further than none
	err := b.Start(t.Context(), s)
	wait, ok := errors.AsType[delivery.Wait](err)
	if !ok || wait.For <= 0 || wait.For > firstPause || wait.What != "the registry is away" {
		t.Fatalf("third start: %v, want a short wait", err)
	}
	want(t, b.state(t, s), delivery.RunDied, 2, "the registry is away")
}

// Work may ask for a pause before it is tried again.
func TestPauseThatWorkAsksFor(t *testing.T) {
	b := newBench(t)
	s := spec("later")
	want(t, b.run(t, s), delivery.RunDied, 1, "no machine is free")
	wait, ok := errors.AsType[delivery.Wait](b.Start(t.Context(), s))
	if !ok || wait.For < 50*time.Minute || wait.For > time.Hour || wait.What != "no machine is free" {
		t.Errorf("%+v, want to wait for an hour", wait)
	}
}

func TestLimit(t *testing.T) {
	b := newBench(t)
	s := spec("wait")
	s.Limit = delivery.Duration(50 * time.Millisecond)
	want(t, b.run(t, s), delivery.RunFailed, 1,
		"it took longer than its limit of 50ms; raise the limit, or reduce the work")
}

// A runner inherits no variable of the server, also where it gets none.
func TestRunnerInheritsNoVariables(t *testing.T) {
	t.Setenv("ONLY_THE_SERVERS", "secret")
	for name, env := range map[string]Environment{"none": nil,
		"empty": func(delivery.RunSpec) ([]string, error) { return nil, nil }} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.Env = env
			b.Command = []string{"/bin/sh", "-c", "echo variable: $ONLY_THE_SERVERS. >&2; exit 1"}
			want(t, b.run(t, spec("quick")), delivery.RunUnknown, 0,
				"the runner ended before it began an attempt: variable: .")
		})
	}
}

func TestRunnerThatNeverBegins(t *testing.T) {
	b := newBench(t)
	b.Env = nil // the runner cannot open its news
	s := spec("quick")
	b.Command = []string{"/bin/sh", "-c", "echo aob: config.yaml:3: unknown key >&2; exit 1"}
	for range 2 {
		want(t, b.run(t, s), delivery.RunUnknown, 0,
			"the runner ended before it began an attempt: aob: config.yaml:3: unknown key")
	}
	err := b.Start(t.Context(), s)
	if wait, ok := errors.AsType[delivery.Wait](err); !ok || !strings.Contains(wait.What, "unknown key") {
		t.Fatalf("third start: %v, want a wait that shows the log's last line", err)
	}
	b.Command = []string{"/nonexistent/aob"}
	if err := b.Start(t.Context(), spec("other")); err == nil || !strings.Contains(err.Error(), "/nonexistent/aob") {
		t.Errorf("error %v, want one that names the program", err)
	}
}

// What a run's processes write is masked where the loop reads it.
func TestOutputOfRunsIsMasked(t *testing.T) {
	b := newBench(t)
	b.Env, b.Mask = nil, func() delivery.Mask { return delivery.NewMask(slices.Values([]string{"hf_S3cr3t"})) }
	s := spec("quick")
	b.Command = []string{"/bin/sh", "-c", "echo 401: ?token=hf_S3cr3t >&2; exit 1"}
	path := filepath.Join(b.folder(t, s), statusFile)
	if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700), os.WriteFile(path,
		[]byte(`{"phase":"training","message":"download ?token=hf_S3cr3t"}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	<-b.wake
	got, err := b.State(s.Key)
	if err != nil || got.Status.Message != "download ?token=***" || !strings.HasSuffix(got.Error, ": 401: ?token=***") {
		t.Errorf("message %q, error %q, %v", got.Status.Message, got.Error, err)
	}
}

func TestOpenIsExclusive(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	b := newBench(t)
	s := spec("wait")
	if err := b.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	b.await(t, "work")
	if _, err := Open(b.Folder(s.Kind, s.Key)); !errors.Is(err, ErrLocked) {
		t.Errorf("opened a running run: %v", err)
	}
	if err := b.End(t.Context(), s.Key, "done"); err != nil {
		t.Fatal(err)
	}
	<-b.wake
}

// Looking at a run must never keep its runner from beginning.
func TestObservedWhileOpening(t *testing.T) {
	b := newBench(t)
	s := spec("wait")
	b.folder(t, s)
	stop := make(chan struct{})
	looked := make(chan error, 1)
	go func() {
		other := &Store{Dir: b.Dir}
		for {
			select {
			case <-stop:
				looked <- nil
				return
			default:
			}
			if _, err := other.Observe(); err != nil {
				looked <- err
				return
			}
		}
	}()
	for attempt := 1; attempt <= 200; attempt++ {
		r, err := Open(b.Folder(s.Kind, s.Key))
		if err != nil {
			t.Fatal(err)
		}
		if r.Attempt != attempt {
			t.Fatalf("attempt %d, want %d", r.Attempt, attempt)
		}
		r.Close()
	}
	close(stop)
	if err := <-looked; err != nil {
		t.Fatal(err)
	}
}

func TestBadSpecs(t *testing.T) {
	b := newBench(t)
	for name, edit := range map[string]func(*delivery.RunSpec){
		"key":       func(s *delivery.RunSpec) { s.Key = "../../etc" },
		"kind":      func(s *delivery.RunSpec) { s.Kind = "../x" },
		"part":      func(s *delivery.RunSpec) { s.Compare = nil },
		"two parts": func(s *delivery.RunSpec) { s.Eval = &delivery.EvalRun{} },
	} {
		s := spec("quick")
		edit(&s)
		if err := b.Start(t.Context(), s); err == nil {
			t.Errorf("%s: started", name)
		}
	}
	if list, err := b.Observe(); len(list) > 0 || err != nil {
		t.Errorf("observed %v, %v", list, err)
	}
}

// One folder that cannot be read hides no other.
func TestBadFolder(t *testing.T) {
	b := newBench(t)
	b.run(t, spec("quick"))
	for name, text := range map[string]string{"eval-1": "{", "data-2": string(delivery.Canonical(spec("other")))} {
		if err := os.MkdirAll(filepath.Join(b.Dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(b.Dir, name, specFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, err := (&Store{Dir: b.Dir}).Observe()
	if len(list) != 1 || err == nil || !strings.Contains(err.Error(), "eval-1/spec.json") ||
		!strings.Contains(err.Error(), "data-2 holds the run that belongs in compare-") {
		t.Errorf("observed %d, error %v", len(list), err)
	}
}

func TestResultIsVerified(t *testing.T) {
	b := newBench(t)
	s := spec("quick")
	b.run(t, s)
	path := filepath.Join(b.Folder(s.Kind, s.Key), resultFile)
	if err := os.WriteFile(path, []byte(`{"did":"nothing"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (&Store{Dir: b.Dir}).State(s.Key); err == nil || !strings.Contains(err.Error(), "the journal has") {
		t.Errorf("error %v, want the digests", err)
	}
}

func TestStatus(t *testing.T) {
	b := newBench(t)
	s := spec("wait")
	if err := b.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	b.await(t, "work")
	path := filepath.Join(b.Folder(s.Kind, s.Key), statusFile)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		data string
		want int
	}{
		{`{"phase":"training","epoch":1,"epochs":12}`, 1},
		{`{"phase":"training","epo`, 1},
		{`{"phase":"training","epoch":12,"epochs":12}`, 12},
		{strings.Repeat(" ", delivery.MaxRunStatus) + `{"epoch":3}`, 12},
		{`{"phase":"training","epoch":-5,"epochs":12, "batch":7}`, 0},
	} {
		if err := os.WriteFile(path, []byte(test.data), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := b.State(s.Key)
		if err != nil || got.Status.Epoch != test.want {
			t.Errorf("after %.50s: epoch %d, %v, want %d", test.data, got.Status.Epoch, err, test.want)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/zero", path); err != nil {
		t.Fatal(err)
	}
	if got, err := b.State(s.Key); err != nil || got.Phase != delivery.RunRunning {
		t.Errorf("with a link in the file's place: %+v, %v", got, err)
	}
	if err := b.End(t.Context(), s.Key, "done"); err != nil {
		t.Fatal(err)
	}
	<-b.wake
}
