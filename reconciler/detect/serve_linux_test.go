package detect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autonomos/aob/reconciler/delivery"
)

// bundle makes a bundle's folder of a model.
func bundle(t *testing.T, d Detector, model string) string {
	dir := t.TempDir()
	sig, golden, err := d.Inspect(t.Context(), filepath.Join("testdata", model))
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := golden.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	writeBundle(t, dir, sig, encoded)
	if err := os.WriteFile(filepath.Join(dir, delivery.ModelFile), read(t, model), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestServe(t *testing.T) {
	d := withLibrary(t)
	dir := bundle(t, d, "detector.onnx")
	socket := filepath.Join(t.TempDir(), "detect.sock")
	s, err := d.Serve(t.Context(), dir, socket)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("socket %v, %v: others can use it", info.Mode(), err)
	}
	if err := s.Health(t.Context()); err != nil {
		t.Errorf("health: %v", err)
	}
	// Serving gives the same boxes as Evaluate.
	want, err := d.Evaluate(t.Context(), Request{Model: filepath.Join(dir, delivery.ModelFile),
		Signature: testSignature(), Images: []ImageFile{{1, "testdata/picture.jpg"}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			found, err := s.Infer(t.Context(), read(t, "picture.jpg"))
			if err != nil || !reflect.DeepEqual(found, want[0].Detections) {
				t.Errorf("got %+v, %v", found, err)
			}
		})
	}
	all.Wait()
	if _, err := s.Infer(t.Context(), read(t, "picture.jpg")[:1000]); err == nil ||
		err.Error() != "image: truncated JPEG" && !strings.HasPrefix(err.Error(), "image: truncated or") {
		t.Errorf("a truncated image: %v", err)
	}
	if _, err := s.Infer(t.Context(), make([]byte, MaxImageBytes+1)); err == nil {
		t.Error("a huge file: no error")
	}
	resp, err := s.connections.do(t.Context(), http.MethodGet, "metrics", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	for _, want := range []string{`aob_detect_inferences_total{outcome="ok"} 8`,
		`aob_detect_inferences_total{outcome="image"} 1`, `aob_detect_stage_seconds_count{stage="infer"} 8`,
		"aob_detect_boxes_total 64"} {
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(metrics), want) {
			t.Errorf("metrics lack %s (%v)", want, err)
		}
	}

	if _, err := d.Serve(t.Context(), dir, socket); err == nil ||
		!strings.Contains(err.Error(), "another server is running") {
		t.Errorf("a second server on the socket: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Wait(); err != nil {
		t.Errorf("after Close: %v", err)
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket still exists: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

// The death of a server is noticed, and its stale socket is replaced.
func TestServeDies(t *testing.T) {
	d := withLibrary(t)
	dir := bundle(t, d, "detector.onnx")
	socket := filepath.Join(t.TempDir(), "detect.sock")
	s, err := d.Serve(t.Context(), dir, socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.child.cmd.Process.Signal(syscall.SIGSEGV); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	if crash, ok := errors.AsType[*CrashError](s.Wait()); !ok || crash.Command != "serve" {
		t.Errorf("got %v", s.Wait())
	}
	if err := s.Health(t.Context()); err == nil {
		t.Error("health of a dead server: no error")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	s, err = d.Serve(t.Context(), dir, socket)
	if err != nil {
		t.Fatalf("on the stale socket: %v", err)
	}
	defer s.Close()
	if err := s.Health(t.Context()); err != nil {
		t.Error(err)
	}
	// A server that hangs is ended too.
	if err := s.child.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// The signal is only on its way, and an answer may be faster.
	if err := unix.Waitid(unix.P_PID, s.child.cmd.Process.Pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.Health(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("health of a stopped server: %v", err)
	}
	s.child.kill() // or Close would wait for closeAfter
}

func TestServeRefuses(t *testing.T) {
	d := withLibrary(t)
	dir := bundle(t, d, "detector.onnx")
	in := func(name string) string { return filepath.Join(t.TempDir(), name) }
	if _, err := d.Serve(t.Context(), t.TempDir(), in("s")); err == nil ||
		!strings.Contains(err.Error(), "signature.json: no such file") {
		t.Errorf("no bundle: %v", err)
	}
	if _, err := d.Serve(t.Context(), dir, in(strings.Repeat("x", 120))); err == nil ||
		!strings.Contains(err.Error(), "use a shorter folder") {
		t.Errorf("a long socket: %v", err)
	}
	occupied := in("file")
	if err := os.WriteFile(occupied, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Serve(t.Context(), dir, occupied); err == nil ||
		!strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("a file for a socket: %v", err)
	}

	// Other weights with the same signature are detected by the golden.
	model := read(t, "detector.onnx")
	at := strings.LastIndex(string(model), "to_labels") + 20 // its numbers follow its name
	for i := at; i < at+100; i++ {
		model[i] ^= 0x10
	}
	if err := os.WriteFile(filepath.Join(dir, delivery.ModelFile), model, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := d.Serve(t.Context(), dir, in("s"))
	if _, ok := errors.AsType[*ModelError](err); !ok || !strings.Contains(err.Error(), "golden replay") {
		t.Errorf("other weights: %v", err)
	}
}

// If the parent is killed, its server ends too.
func TestParentDies(t *testing.T) {
	d := withLibrary(t)
	dir := bundle(t, d, "detector.onnx")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "AOB_TEST_PARENT="+filepath.Join(t.TempDir(), "s"), "AOB_TEST_BINARY="+d.Binary,
		"AOB_TEST_BUNDLE="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed, as it should be
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 30_000)
	for errors.Is(err, unix.EINTR) { // Go interrupts its threads now and then
		n, err = unix.Poll(poll, 30_000)
	}
	if n != 1 {
		t.Errorf("process %d outlives its parent (%v)", pid, err)
	}
}

// parent serves a bundle, prints the server's process number, and waits.
func parent(socket string) {
	library, err := FindLibrary()
	if err != nil {
		fmt.Println(err)
		return
	}
	d := Detector{Binary: os.Getenv("AOB_TEST_BINARY"), Library: library}
	s, err := d.Serve(context.Background(), os.Getenv("AOB_TEST_BUNDLE"), socket)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.child.cmd.Process.Pid)
	fmt.Println(s.Wait())
}
