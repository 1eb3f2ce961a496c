package edge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/edge"
	"github.com/autonomos/aob/reconciler/trust"
)

// A lab is a fake server, its bundles, and the detectors that run on them.
type lab struct {
	t   *testing.T
	key *trust.Key
	web *httptest.Server

	mu       sync.Mutex
	envelope []byte
	changed  chan struct{}
	down     bool // the server answers 503 to everything
	highest  int64
	reports  chan delivery.Report
	read     chan delivery.Digest // of envelopes that were served
	bundles  map[delivery.Digest]*bundle
	fetched  []delivery.Digest
	running  map[*detector]bool
}

// A bundle can be downloaded from the lab. Its fields say how the download and its detector behave.
type bundle struct {
	target    delivery.Target
	download  func(try int) error // nil: it succeeds
	signature string              // content of signature.json; empty: no such file
	tries     int
	start     error
	health    error // from the first check on
	started   int
}

func newLab(t *testing.T) *lab {
	key, err := trust.Create(filepath.Join(t.TempDir(), "desired.pem"))
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, key: key, changed: make(chan struct{}), reports: make(chan delivery.Report, 1000),
		read:    make(chan delivery.Digest, 1000),
		bundles: map[delivery.Digest]*bundle{}, running: map[*detector]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /fleet/v1/desired/north", l.serveDesired)
	mux.HandleFunc("POST /fleet/v1/reports", l.serveReport)
	l.web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		down := l.down
		l.mu.Unlock()
		if down {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(l.web.Close)
	return l
}

func (l *lab) serveDesired(w http.ResponseWriter, r *http.Request) {
	wait, _ := strconv.Atoi(r.URL.Query().Get("wait"))
	deadline := time.After(time.Duration(wait) * time.Second)
	for {
		l.mu.Lock()
		envelope, changed := l.envelope, l.changed
		l.mu.Unlock()
		etag := fmt.Sprintf("%q", delivery.Sum(envelope).Hex())
		if envelope != nil && r.Header.Get("If-None-Match") != etag {
			w.Header().Set("ETag", etag)
			w.Write(envelope)
			l.read <- delivery.Sum(envelope)
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		case <-deadline:
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
}

func (l *lab) serveReport(w http.ResponseWriter, r *http.Request) {
	var report delivery.Report
	if err := json.NewDecoder(r.Body).Decode(&report); err != nil || r.Header.Get("Authorization") != "Bearer secret" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	l.mu.Lock()
	news := report.Sequence > l.highest
	l.highest = max(l.highest, report.Sequence)
	highest := l.highest
	l.mu.Unlock()
	if news {
		l.reports <- report
	}
	fmt.Fprintf(w, `{"highest":%d}`, highest)
}

func (l *lab) setDown(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = down
	if down {
		l.web.CloseClientConnections()
	}
}

func (l *lab) isDown() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.down
}

// serve serves any bytes as the ring's document.
func (l *lab) serve(envelope []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.envelope = envelope
	close(l.changed)
	l.changed = make(chan struct{})
}

// deliver serves any bytes until the device has read them.
func (l *lab) deliver(envelope []byte) {
	l.t.Helper()
	l.serve(envelope)
	timeout := time.After(20 * time.Second)
	for {
		select {
		case got := <-l.read:
			if got == delivery.Sum(envelope) {
				return
			}
		case <-timeout:
			l.t.Fatal("the device never requested the document")
		}
	}
}

// sign makes an envelope of a document.
func (l *lab) sign(key *trust.Key, d delivery.Desired) []byte {
	l.t.Helper()
	payload, err := json.Marshal(d)
	if err != nil {
		l.t.Fatal(err)
	}
	envelope, err := trust.Sign(key, delivery.DesiredPayload, payload)
	if err != nil {
		l.t.Fatal(err)
	}
	return envelope
}

func document(version int64, release delivery.Target) delivery.Desired {
	return delivery.Desired{Ring: "north", Version: version, Model: "m", Release: release, Share: 1, Salt: "s",
		Soak: delivery.Duration(30 * time.Millisecond), NextPoll: delivery.Duration(10 * time.Millisecond),
		Expires: time.Now().Add(time.Hour)}
}

func (l *lab) publish(version int64, release delivery.Target) {
	l.t.Helper()
	l.serve(l.sign(l.key, document(version, release)))
}

// newBundle adds a bundle that can be downloaded.
func (l *lab) newBundle(version int) *bundle {
	b := &bundle{target: delivery.Target{Version: version, Bundle: delivery.Sum([]byte(strconv.Itoa(version)))}}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bundles[b.target.Bundle] = b
	return b
}

func (l *lab) set(b *bundle, change func(*bundle)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(b)
}

const bundleSize = 1000

func (l *lab) fetch(ctx context.Context, d delivery.Digest, cache, dir string) (int64, error) {
	l.mu.Lock()
	l.fetched = append(l.fetched, d)
	b := l.bundles[d]
	b.tries++
	try, download, signature := b.tries, b.download, b.signature
	l.mu.Unlock()
	if download != nil {
		if err := download(try); err != nil {
			return 10, err
		}
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return 0, err
	}
	partial := filepath.Join(cache, "bundle")
	if err := os.Mkdir(partial, 0o755); err != nil {
		return 0, err
	}
	if err := os.WriteFile(filepath.Join(partial, "model.onnx"), []byte(d), 0o644); err != nil {
		return 0, err
	}
	if signature != "" {
		if err := os.WriteFile(filepath.Join(partial, delivery.SignatureFile), []byte(signature), 0o644); err != nil {
			return 0, err
		}
	}
	return bundleSize, os.Rename(partial, dir)
}

// check stands in for artifact.CheckUnpacked for the lab's bundles.
func check(_ context.Context, d delivery.Digest, dir string) error {
	model, err := os.ReadFile(filepath.Join(dir, "model.onnx"))
	if err == nil && delivery.Digest(model) != d {
		err = errors.New("model.onnx: its content is not what the bundle names")
	}
	if err != nil {
		return &artifact.Damaged{Files: []string{"model.onnx"}, Err: err}
	}
	return nil
}

// A detector of the lab answers on its socket, as a child process would.
type detector struct {
	lab    *lab
	bundle *bundle
	socket net.Listener
	done   chan struct{}
	once   sync.Once
	err    error
}

func (l *lab) start(_ context.Context, dir, socket string) (edge.Serving, error) {
	model, err := os.ReadFile(filepath.Join(dir, "model.onnx"))
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bundles[delivery.Digest(model)]
	if b == nil {
		return nil, errors.New("it is not an ONNX file")
	}
	b.started++
	if b.start != nil {
		return nil, b.start
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	d := &detector{lab: l, bundle: b, socket: listener, done: make(chan struct{})}
	l.running[d] = true
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(detect.Detections{Width: b.target.Version, Boxes: []delivery.Box{{Class: "x"}}})
	})}
	go server.Serve(listener)
	return d, nil
}

func (d *detector) end(err error) {
	d.once.Do(func() {
		d.err = err
		d.socket.Close()
		d.lab.mu.Lock()
		delete(d.lab.running, d)
		d.lab.mu.Unlock()
		close(d.done)
	})
}

func (d *detector) Health(context.Context) error {
	d.lab.mu.Lock()
	defer d.lab.mu.Unlock()
	return d.bundle.health
}
func (d *detector) Done() <-chan struct{} { return d.done }
func (d *detector) Wait() error           { <-d.done; return d.err }
func (d *detector) Close() error          { d.end(nil); return nil }

// crash ends all detectors of a bundle.
func (l *lab) crash(b *bundle) {
	l.mu.Lock()
	var list []*detector
	for d := range l.running {
		if d.bundle == b {
			list = append(list, d)
		}
	}
	l.mu.Unlock()
	if len(list) == 0 {
		l.t.Fatalf("no detector runs version %d", b.target.Version)
	}
	for _, d := range list {
		d.end(errors.New("signal: segmentation fault"))
	}
}

// A device is an agent that runs in the test.
type device struct {
	*lab
	dir  string
	stop func()
}

// dir creates a folder with a path that is short enough for sockets.
func (l *lab) dir() string {
	l.t.Helper()
	dir, err := os.MkdirTemp("", "edge")
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (l *lab) config(dir string) edge.Config {
	return edge.Config{
		Device: "d1", Ring: "north", Labels: map[string]string{"site": "north"}, Dir: dir,
		Server: l.web.URL, Token: "secret", Client: l.web.Client(), Keys: []trust.PublicKey{l.key.Public()},
		Fetch: l.fetch, Start: l.start, Check: check, Health: 2 * time.Millisecond, Retry: 2 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(l.t.Output(), nil)),
	}
}

// boot starts an agent on a folder.
func (l *lab) boot(dir string, change ...func(*edge.Config)) *device {
	l.t.Helper()
	c := l.config(dir)
	for _, f := range change {
		f(&c)
	}
	agent, err := edge.Open(c)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- agent.Run(ctx) }()
	d := &device{lab: l, dir: dir}
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			l.t.Errorf("agent: %v", err)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if n := len(l.running); n > 0 {
			l.t.Errorf("%d detectors are still running", n)
		}
	})
	l.t.Cleanup(d.stop)
	return d
}

// until returns all reports up to the first for which ok is true.
func (l *lab) until(what string, ok func(delivery.Report) bool) []delivery.Report {
	l.t.Helper()
	var reports []delivery.Report
	timeout := time.After(20 * time.Second)
	for {
		select {
		case r := <-l.reports:
			reports = append(reports, r)
			if ok(r) {
				return reports
			}
		case <-timeout:
			l.t.Fatalf("no such report: %s; got %+v", what, reports)
		}
	}
}

// phase waits until the device reports a phase under a document's version.
func (l *lab) phase(version int64, phase delivery.DevicePhase, runs delivery.Target) delivery.Report {
	l.t.Helper()
	reports := l.until(fmt.Sprintf("%s on release %d under document %d", phase, runs.Version, version),
		func(r delivery.Report) bool {
			return r.Desired == version && r.Phase == phase && r.Bundle == runs.Bundle
		})
	return reports[len(reports)-1]
}

// until waits until the device's folder says that it serves, in the given phase if it is not empty.
func (d *device) until(phase delivery.DevicePhase) {
	d.t.Helper()
	for began := time.Now(); time.Since(began) < 20*time.Second; runtime.Gosched() {
		status, err := edge.ReadStatus(d.dir)
		if err == nil && status.Serving && (phase == "" || status.Phase == phase) {
			return
		}
	}
	d.t.Fatalf("no detector serves in phase %q", phase)
}

// serves checks which version answers on the device's socket.
func (d *device) serves(want delivery.Target) {
	d.t.Helper()
	got, err := edge.Infer(d.t.Context(), d.dir, []byte("image"))
	if err != nil || got.Width != want.Version {
		d.t.Errorf("serves version %d (%v), want %d", got.Width, err, want.Version)
	}
}
