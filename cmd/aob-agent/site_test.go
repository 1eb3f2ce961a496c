package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/fleet"
	"github.com/autonomos/aob/reconciler/rollout"
	"github.com/autonomos/aob/reconciler/trust"
)

// This binary is three programs: the tests, the agent that some of them kill, and the detector that agents start
// instead of aob-detect.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "serve":
			if err := scriptedDetector(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		case "run":
			main()
			return
		}
	}
	os.Exit(m.Run())
}

// A script is the content of a test's model.onnx. It says how the detector behaves.
type script struct {
	Version    int
	Start      string        // "": it serves; "fail": it reports an error; "crash"
	CrashAfter time.Duration // 0: never
	Padding    []byte        // makes the file large
}

// scriptedDetector implements aob-detect's protocol.
func scriptedDetector(args []string) error {
	flags := map[string]string{}
	for i := 0; i+1 < len(args); i += 2 {
		flags[args[i]] = args[i+1]
	}
	if err := detect.Hello(os.Stdout); err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(flags["--bundle"], delivery.ModelFile))
	if err != nil {
		return errors.Join(err, detect.Fail(os.Stdout, err))
	}
	var s script
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	switch s.Start {
	case "fail":
		return detect.Fail(os.Stdout, errors.New("golden replay: output dets differs by 0.3"))
	case "crash":
		return syscall.Kill(os.Getpid(), syscall.SIGSEGV)
	}
	listener, err := net.Listen("unix", flags["--socket"])
	if err != nil {
		return err
	}
	if s.CrashAfter > 0 {
		time.AfterFunc(s.CrashAfter, func() { os.Exit(139) })
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /infer", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"width": s.Version, "height": 1,
			"boxes": []delivery.Box{{Class: "pallet", Score: 0.9}, {Class: "person", Score: 0.1}}})
	})
	server := http.Server{Handler: mux}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() { server.Shutdown(context.Background()) })
	if err := detect.Ready(os.Stdout); err != nil {
		return err
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// A site is the server's side as in aob serve: signed documents, reports, bundles over HTTP, and the loop that decides
// rollouts.
type site struct {
	*fleet.Server
	store  *artifact.Store
	served atomic.Int64 // bytes of bundles
	// fault is a proxy before the server that can respond in its place.
	fault atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
	url   string
	files string // holds desired.pub and token
	wake  chan struct{}

	mu       sync.Mutex
	fleet    delivery.Fleet
	target   delivery.Target
	previous *delivery.Target
	state    rollout.State
	aborted  []delivery.Abort
	decided  []rollout.Decision // since the last release
	changed  chan struct{}      // closed and made anew after every turn
}

const secret = "the secret of this test's fleet"

func newSite(t *testing.T, waves ...delivery.Wave) *site {
	t.Helper()
	s := &site{files: t.TempDir(), wake: make(chan struct{}, 1), changed: make(chan struct{}),
		fleet: delivery.Fleet{Name: "north", Runs: "pallets", Waves: waves,
			Soak: delivery.Duration(50 * time.Millisecond), Match: map[string]string{"site": "north"}}}
	key, err := trust.Create(filepath.Join(s.files, "desired.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.files, "desired.pub"), key.Public().PEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	if s.store, err = artifact.Open(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	s.Server, err = fleet.Open(t.Context(), fleet.Config{Dir: t.TempDir(), Key: key, Secret: secret,
		Registry: discardStore{}, Wake: s.poke, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/fleet/v1/", s.Handler())
	mux.Handle("/v2/", s.Guard(s.store.Handler(func(n int64) { s.served.Add(n) })))
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fault := s.fault.Load(); fault != nil && (*fault)(w, r) {
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	s.url = web.URL

	ctx, cancel := context.WithCancel(context.Background())
	var loop sync.WaitGroup
	loop.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-s.wake:
				s.turn(ctx, t)
			}
		}
	})
	t.Cleanup(func() { cancel(); loop.Wait() })
	return s
}

// discardStore is a registry that stores nothing: the server's memory is enough here.
type discardStore struct{}

func (discardStore) SaveDevice(context.Context, string, delivery.Device) error { return nil }
func (discardStore) DropDevice(context.Context, string, string) error          { return nil }
func (discardStore) Devices(context.Context) ([]delivery.Device, error)        { return nil, nil }

func (s *site) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// turn decides the rollout once, and publishes.
func (s *site) turn(ctx context.Context, t *testing.T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		close(s.changed)
		s.changed = make(chan struct{})
	}()
	if s.target.Bundle == "" {
		return
	}
	devices := s.Devices()
	in := rollout.Input{Fleet: s.fleet, Target: s.target, Previous: s.previous, State: s.state, Devices: devices,
		At:       time.Now(),
		Rollback: rollout.HasRun(s.fleet, devices, s.target.Bundle)}
	for _, a := range s.aborted {
		in.Aborted = append(in.Aborted, a.Bundle)
	}
	if d, ok := s.Published(s.fleet.Name); ok {
		in.Published = &d
	}
	d := rollout.Next(in)
	if n := len(s.decided); n == 0 || fmt.Sprint(s.decided[n-1].Facts) != fmt.Sprint(d.Facts) {
		t.Log(d.Facts)
	}
	if d.Abort != nil {
		s.aborted = append(s.aborted, *d.Abort)
	}
	if d.Desired != nil {
		if err := s.Publish(ctx, *d.Desired); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	}
	s.state, s.decided = d.State, append(s.decided, d)
}

// release makes a version the target.
func (s *site) release(target delivery.Target) {
	s.mu.Lock()
	if s.target.Bundle != "" {
		previous := s.target
		s.previous = &previous
	}
	s.target, s.decided = target, nil
	s.mu.Unlock()
	s.poke()
}

// until waits for something to be true after a turn, and returns all decisions
// since the last release.
func (s *site) until(t *testing.T, what string, ok func([]rollout.Decision) bool) []rollout.Decision {
	t.Helper()
	timeout := time.After(60 * time.Second)
	for {
		s.mu.Lock()
		decided, changed := slices.Clone(s.decided), s.changed
		s.mu.Unlock()
		if ok(decided) {
			return decided
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("never came: %s; decided %v", what, decided)
		}
	}
}

// last reports whether the last decision is as wanted.
func last(decided []rollout.Decision, ok func(rollout.Decision) bool) bool {
	return len(decided) > 0 && ok(decided[len(decided)-1])
}

func (s *site) done(t *testing.T, target delivery.Target) {
	t.Helper()
	s.until(t, fmt.Sprintf("version %d everywhere", target.Version), func(all []rollout.Decision) bool {
		return last(all, func(d rollout.Decision) bool { return d.Done && d.State.Target.Bundle == target.Bundle })
	})
}

// push makes a bundle whose detector behaves as scripted.
func (s *site) push(t *testing.T, sc script) delivery.Target {
	t.Helper()
	model, err := json.Marshal(sc)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(path, model, 0o644); err != nil {
		t.Fatal(err)
	}
	digest, err := s.store.Push(t.Context(), artifact.Bundle{
		ModelPath: path, Golden: []byte("golden"), Labels: []string{"pallet", "person"},
		Signature: delivery.Signature{SchemaVersion: 1, Input: "input", Boxes: "dets", Logits: "labels", Width: 8,
			Height: 8,
			Resize: delivery.Resize{Algorithm: "bilinear", Padding: "none", DType: "float32"},
			Means:  []float64{0, 0, 0}, Stds: []float64{1, 1, 1}, Slots: []string{"pallet", "person"}, Background: -1,
			Select: 10},
	})
	if err != nil {
		t.Fatal(err)
	}
	return delivery.Target{Version: sc.Version, Bundle: digest}
}

func padding(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// arguments are a device's command line.
func (s *site) arguments(t *testing.T, device, dir string) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(s.files, device+".token")
	if err := os.WriteFile(token, []byte(fleet.DeviceToken(secret, "north", device)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"run", "--server", s.url, "--ring", "north", "--device", device, "--label", "site=north", "--state",
		dir,
		"--trust", filepath.Join(s.files, "desired.pub"), "--token-file", token, "--detector", self, "--library", self}
}

// shortDir creates a folder with a path that is short enough for sockets.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "aob")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// boot runs an agent's command in this process.
func (s *site) boot(t *testing.T, device, dir string, more ...string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := newCommand()
	cmd.SetArgs(append(s.arguments(t, device, dir), more...))
	cmd.SetErr(t.Output())
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", device, err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// command runs one of the agent's other commands.
func command(t *testing.T, args ...string) string {
	t.Helper()
	var out strings.Builder
	cmd := newCommand()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Errorf("aob-agent %s: %v", strings.Join(args, " "), err)
	}
	return out.String()
}

// serving returns the version that each device's detector serves.
func serving(t *testing.T, dirs map[string]string) map[string]int {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image.jpg")
	if err := os.WriteFile(image, []byte("jpeg"), 0o644); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, device := range slices.Sorted(maps.Keys(dirs)) {
		var found struct{ Width int }
		if err := json.Unmarshal([]byte(command(t, "infer", "--state", dirs[device], "--score", "0.5", image)),
			&found); err != nil {
			t.Errorf("%s: %v", device, err)
		}
		got[device] = found.Width
	}
	return got
}
