package detect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Served is a model that runs behind a Unix socket. It is safe for concurrent use.
type Served struct {
	child   *child
	client  *http.Client
	closing atomic.Bool
}

// Serve starts a server for the bundle in a folder (model.onnx, signature.json, golden.bin,
// labels.json) on a Unix socket. It returns after the server has loaded the model and replayed the
// golden. A stale socket file is replaced. ctx and Timeout limit the start only; the server runs
// until Close, or until this process ends.
//
// Only this user can connect to the socket. It serves the routes of a Server, and GET /metrics for Prometheus.
func (d Detector) Serve(ctx context.Context, bundleDir, socket string) (*Served, error) {
	bundleDir, err := filepath.Abs(bundleDir)
	if err != nil {
		return nil, fmt.Errorf("serve: %w", err)
	}
	if socket, err = filepath.Abs(socket); err != nil {
		return nil, fmt.Errorf("serve: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(d.timeout(), func() { cancel(timeoutError{d.timeout()}) })
	defer timer.Stop()
	c, err := d.start(context.Background(), "serve", "--bundle", bundleDir, "--socket", socket)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, c.kill)
	err = c.readHello()
	if err == nil {
		var m message
		if m, err = c.readMessage(); err == nil && m.Ready == nil {
			err = invalidOutput{errors.New("unexpected message")}
		}
	}
	if !stop() && err == nil { // ctx was done just when the server was ready
		err = errNoResult
	}
	if err != nil {
		return nil, c.rootCause(ctx, err)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &Served{child: c, client: &http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConns: 8,
		IdleConnTimeout: time.Minute}}}, nil
}

// Health replays the golden in the running server.
func (s *Served) Health(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://aob-detect/health", nil)
	if err != nil {
		return err
	}
	return s.call(req, nil)
}

// Infer returns the detections on a JPEG or PNG image, highest score first, at most Signature.Select.
// If the image is invalid the error is an *ImageError.
func (s *Served) Infer(ctx context.Context, image []byte) ([]delivery.Box, error) {
	if len(image) > MaxImageBytes {
		return nil, &ImageError{Why: fmt.Sprintf("%d bytes, want at most %d", len(image), MaxImageBytes)}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://aob-detect/infer", bytes.NewReader(image))
	if err != nil {
		return nil, err
	}
	var found inferResponse
	if err := s.call(req, &found); err != nil {
		return nil, err
	}
	return found.Boxes, nil
}

// call sends a request and decodes the response's body into v if v is not nil.
func (s *Served) call(req *http.Request, v any) error {
	resp, err := s.client.Do(req)
	if err != nil {
		select {
		case <-s.child.done:
			return s.exitError()
		default:
		}
		return fmt.Errorf("aob-detect serve: %w", err)
	}
	defer resp.Body.Close()
	const maxResponse = 32 << 20
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse))
	if err != nil {
		return fmt.Errorf("aob-detect serve: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var wrong struct{ Error string }
		_ = json.Unmarshal(body, &wrong) // if it is not JSON the status is enough
		why := printable(wrong.Error, maxWhy)
		if resp.StatusCode == http.StatusBadRequest {
			return &ImageError{Why: why}
		}
		return fmt.Errorf("aob-detect serve: %s: %s", resp.Status, why)
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("aob-detect serve: decode its response: %w", err)
	}
	return nil
}

// Done is closed when the server has ended for any reason.
func (s *Served) Done() <-chan struct{} { return s.child.done }

// Wait blocks until the server has ended. It returns nil after Close, else a *CrashError that says how
// it ended.
func (s *Served) Wait() error {
	<-s.child.done
	return s.exitError()
}

func (s *Served) exitError() error {
	if s.closing.Load() {
		return nil
	}
	return &CrashError{Command: "serve", Why: s.child.exitReason(), Stderr: s.child.stderr.String()}
}

// closeAfter is how long Close waits for the server to finish its requests.
const closeAfter = 10 * time.Second

// Close ends the server with SIGTERM, and after 10 s with SIGKILL. It returns when the server has ended.
func (s *Served) Close() error {
	s.closing.Store(true)
	s.client.CloseIdleConnections()                 // the server would wait for idle connections
	_ = s.child.cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended already
	select {
	case <-s.child.done:
	case <-time.After(closeAfter):
	}
	s.child.cleanup()
	return nil
}
