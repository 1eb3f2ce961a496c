package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/detect"
)

// A fakeChild is a child without a process.
type fakeChild struct {
	dir   string
	done  chan struct{}
	once  sync.Once
	mu    sync.Mutex
	err   error // of Wait
	dead  error // of Live
	calls int
	ended func(dir string)
	files string        // a digest of its bundle's files
	hold  chan struct{} // Detect waits for it; nil: it does not
}

func (c *fakeChild) Detect(ctx context.Context, _ []byte, _ float64) (detect.Detections, detect.Timing, error) {
	if c.hold != nil {
		<-c.hold
	}
	select {
	case <-c.done:
		return detect.Detections{}, detect.Timing{}, &net.OpError{Op: "dial", Err: errors.New("refused")}
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	return detect.Detections{}, detect.Timing{}, nil
}

func (c *fakeChild) Run(context.Context, detect.Tensor) ([]detect.Tensor, detect.Timing, error) {
	return nil, detect.Timing{}, nil
}

func (c *fakeChild) Live(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead
}

func (c *fakeChild) Describe(context.Context) (detect.Description, error) {
	return detect.Description{Inputs: []detect.Port{{Shape: []int64{-1, 3, 9, 9}}}, Outputs: make([]detect.Port, 2),
		Batch: 3, Content: c.files}, nil
}

func (c *fakeChild) Done() <-chan struct{} { return c.done }

func (c *fakeChild) Wait() error {
	<-c.done
	return c.err
}

func (c *fakeChild) Close() error {
	c.once.Do(func() {
		close(c.done)
		c.ended(c.dir)
	})
	return nil
}

// crash ends the child.
func (c *fakeChild) crash(why string) {
	c.once.Do(func() {
		c.err = errors.New(why)
		close(c.done)
		c.ended(c.dir)
	})
}

// A nursery starts fake children and writes down what happens.
type nursery struct {
	mu       sync.Mutex
	log      []string
	children chan *fakeChild // the started ones
	fail     func(version string) error
	root     string // of the bundles
	files    string // a digest of their files
	hold     chan struct{}
	sockets  map[string]bool // of children that run
}

func (n *nursery) add(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.log = append(n.log, fmt.Sprintf(format, args...))
}

func (n *nursery) said() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.log, ", ")
}

// bundle makes a bundle's folder, which has labels.json unless it is a broken one.
func (n *nursery) bundle(t *testing.T, version string) Bundle {
	dir := filepath.Join(n.root, version)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"labels.json": `["a"]`, "signature.json": `{"schemaVersion": 1}`} {
		if version == "broken" {
			break
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Bundle{dir, version}
}

func (n *nursery) start(_ context.Context, dir, socket string) (Child, error) {
	dir = filepath.Base(dir)
	if n.fail != nil {
		if err := n.fail(dir); err != nil {
			n.add("%s fails", dir)
			return nil, err
		}
	}
	n.mu.Lock()
	if n.sockets[socket] {
		n.mu.Unlock()
		return nil, errors.New("another server is running on its socket")
	}
	if n.sockets == nil {
		n.sockets = map[string]bool{}
	}
	n.sockets[socket] = true
	n.mu.Unlock()
	n.add("%s starts", dir)
	c := &fakeChild{dir: dir, done: make(chan struct{}), hold: n.hold, files: n.files}
	c.ended = func(dir string) {
		n.add("%s ends", dir)
		n.mu.Lock()
		delete(n.sockets, socket)
		n.mu.Unlock()
	}
	n.children <- c
	return c, nil
}

// newHost returns a host of fake children, which is closed after the test.
func newHost(t *testing.T, n *nursery, o HostOptions) *Host {
	n.children = make(chan *fakeChild, 100)
	o.Start = n.start
	o.Name = "m"
	n.root = t.TempDir()
	h := NewHost("main", o)
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// version returns the version of the model that a call gets.
func version(t *testing.T, h *Host) string {
	facts, _, done, err := h.Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	return facts.Version
}

// Files that were changed after they were loaded serve when they are loaded again, and not because a process ends.
func TestHostKeepsWhatWasLoaded(t *testing.T) {
	n := &nursery{files: "first"}
	tried := make(chan int, 100)
	h := newHost(t, n, HostOptions{Patience: time.Minute, Backoff: func(failures int) time.Duration {
		tried <- failures
		return time.Microsecond
	}})
	b := n.bundle(t, "1")
	if err := h.Load(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	set := func(files string) {
		n.mu.Lock()
		n.files = files
		n.mu.Unlock()
	}
	set("second")
	(<-n.children).crash("killed")
	for failures := range tried {
		if failures > 2 {
			break
		}
	}
	if facts, err := h.Serving(); err == nil {
		t.Errorf("%+v serves", facts)
	}
	if err := h.Load(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if facts, err := h.Serving(); err != nil || facts.Content != "second" {
		t.Errorf("%+v serves, %v", facts, err)
	}
}

func TestHostSwaps(t *testing.T) {
	for _, stopFirst := range []bool{false, true} {
		n := &nursery{fail: func(version string) error {
			if version == "bad" {
				return errors.New("golden replay: output labels differs")
			}
			return nil
		}}
		h := newHost(t, n, HostOptions{StopFirst: stopFirst, Patience: time.Minute,
			Retired: func(f Facts) { n.add("%s is retired", f.Version) }})
		if err := h.Load(t.Context(), n.bundle(t, "v1")); err != nil {
			t.Fatal(err)
		}
		if facts, err := h.Serving(); err != nil || facts.Batch != 3 || facts.Name != "m" {
			t.Errorf("%+v, %v", facts, err)
		}
		if err := h.Load(t.Context(), n.bundle(t, "v2")); err != nil || version(t, h) != "v2" {
			t.Errorf("after the second: %v", err)
		}
		if err := h.Load(
			t.Context(),
			n.bundle(t, "bad"),
		); err == nil ||
			!strings.Contains(err.Error(), "golden replay") {
			t.Errorf("a bad one: %v", err)
		}
		if v := version(t, h); v != "v2" { // with StopFirst the call waits until it is back
			t.Errorf("after a bad one, %s serves", v)
		}
		if err := h.Load(
			t.Context(),
			n.bundle(t, "broken"),
		); err == nil ||
			!strings.Contains(err.Error(), "labels.json") {
			t.Errorf("a broken one: %v", err)
		}
		if v := version(t, h); v != "v2" {
			t.Errorf("after a broken one, %s serves", v)
		}
		want := "v1 starts, v2 starts, v1 ends, v1 is retired, bad fails, broken starts, broken ends"
		if stopFirst {
			want = "v1 starts, v1 ends, v2 starts, v1 is retired, v2 ends, bad fails, v2 starts, v2 ends, " +
				"broken starts, broken ends, v2 starts"
		}
		if got := n.said(); got != want {
			t.Errorf("stop first is %v:\n%s; want\n%s", stopFirst, got, want)
		}
	}
}

// A child ends after the calls that it has, and new calls go to the next one in the meantime.
func TestHostDrains(t *testing.T) {
	n := &nursery{hold: make(chan struct{})}
	h := newHost(t, n, HostOptions{})
	if err := h.Load(t.Context(), n.bundle(t, "v1")); err != nil {
		t.Fatal(err)
	}
	_, model, done, err := h.Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	called := make(chan error)
	go func() {
		_, _, err := model.Detect(t.Context(), nil, 0)
		done()
		called <- err
	}()
	h.mu.Lock()
	changed := h.changed
	h.mu.Unlock()
	loaded := make(chan error)
	go func() { loaded <- h.Load(t.Context(), n.bundle(t, "v2")) }()
	<-changed
	if v := version(t, h); v != "v2" {
		t.Errorf("%s serves", v)
	}
	select {
	case err := <-loaded:
		t.Errorf("Load has returned before the call: %v", err)
	default:
	}
	close(n.hold)
	if err := <-called; err != nil {
		t.Errorf("the call: %v", err)
	}
	if err := <-loaded; err != nil {
		t.Error(err)
	}
}

// A child that crashes, or does not answer twice, is started again, after longer and longer waits.
func TestHostRevives(t *testing.T) {
	n := &nursery{}
	var mu sync.Mutex
	var waits []int
	broken := 0
	n.fail = func(string) error {
		mu.Lock()
		defer mu.Unlock()
		if broken > 0 {
			broken--
			return errors.New("no memory")
		}
		return nil
	}
	h := newHost(t, n, HostOptions{Heartbeat: time.Millisecond, Patience: time.Minute,
		Backoff: func(failures int) time.Duration {
			mu.Lock()
			defer mu.Unlock()
			waits = append(waits, failures)
			return 0
		}})
	if err := h.Load(t.Context(), n.bundle(t, "v1")); err != nil {
		t.Fatal(err)
	}
	(<-n.children).crash("segmentation fault")
	second := <-n.children
	if v := version(t, h); v != "v1" {
		t.Errorf("%s serves", v)
	}
	mu.Lock()
	broken = 2
	mu.Unlock()
	second.mu.Lock()
	second.dead = errors.New("no answer")
	second.mu.Unlock()
	<-n.children
	if v := version(t, h); v != "v1" {
		t.Errorf("%s serves", v)
	}
	if got, want := n.said(), "v1 starts, v1 ends, v1 starts, v1 ends, v1 fails, v1 fails, v1 starts"; got != want {
		t.Errorf("%s; want %s", got, want)
	}
	mu.Lock()
	defer mu.Unlock()
	most := 0
	for _, failures := range waits {
		most = max(most, failures)
	}
	if most != 4 { // two crashes and two starts that failed
		t.Errorf("waits after %v failures", waits)
	}
}

// A call for a child that has just ended goes to the next one.
func TestHostRepeatsWhatWasNotSent(t *testing.T) {
	n := &nursery{}
	h := newHost(t, n, HostOptions{Patience: time.Minute, Backoff: func(int) time.Duration { return 0 }})
	if err := h.Load(t.Context(), n.bundle(t, "v1")); err != nil {
		t.Fatal(err)
	}
	_, model, done, err := h.Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	(<-n.children).crash("segmentation fault")
	if _, _, err := model.Detect(t.Context(), nil, 0); err != nil {
		t.Error(err)
	}
	if c := <-n.children; c.calls != 1 {
		t.Errorf("the next child has %d calls", c.calls)
	}
}

// A call is not answered by another version than the one that it was for.
func TestHostDoesNotMixVersions(t *testing.T) {
	n := &nursery{}
	h := newHost(t, n, HostOptions{Patience: time.Minute,
		Backoff: func(int) time.Duration { return time.Hour }})
	if err := h.Load(t.Context(), n.bundle(t, "v1")); err != nil {
		t.Fatal(err)
	}
	_, model, done, err := h.Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	(<-n.children).crash("segmentation fault")
	for err == nil { // until the host has seen it
		_, err = h.Serving()
	}
	if err := h.Load(t.Context(), n.bundle(t, "v2")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := model.Detect(t.Context(), nil, 0); !notSent(err) {
		t.Errorf("got %v", err)
	}
	if c := <-n.children; c.calls != 0 {
		t.Errorf("the other version has %d calls", c.calls)
	}
}

// A call that no model can take is told when to come again, and one that leaves does not wait.
func TestHostWithoutModel(t *testing.T) {
	n := &nursery{}
	h := newHost(t, n, HostOptions{Patience: time.Millisecond})
	_, _, _, err := h.Lease(t.Context())
	if why, ok := errors.AsType[Unavailable](err); !ok || why.Retry <= 0 {
		t.Errorf("got %v", err)
	}
	patient := newHost(t, n, HostOptions{Patience: time.Hour})
	a := New(Options{Models: patient})
	for _, path := range []string{"/readyz", "/readiness", "/v2/health/ready", "/v2/models/m/ready"} { // at once
		if resp, body := call(t, a, httptest.NewRequest("GET", path, nil)); resp.StatusCode != 503 {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
	ctx, leave := context.WithCancel(t.Context())
	leave()
	if _, _, _, err := patient.Lease(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestBackoff(t *testing.T) {
	for failures, want := range map[int]time.Duration{1: 100 * time.Millisecond, 2: 200 * time.Millisecond,
		5: 1600 * time.Millisecond, 9: 25600 * time.Millisecond, 10: 30 * time.Second, 1000: 30 * time.Second} {
		if got := Backoff(failures); got != want {
			t.Errorf("%d failures: %s, want %s", failures, got, want)
		}
	}
}
