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

// Served is a model that runs behind a Unix socket. Its methods may be called
// from several goroutines.
type Served struct {
	child   *child
	client  *http.Client
	closing atomic.Bool
}

// Serve starts a server for the bundle in a folder (model.onnx, signature.json,
// golden.bin, labels.json) on a Unix socket, and returns once it has loaded the
// model and replayed the golden. A stale socket file is replaced. ctx bounds the
// start only, as does Patience; the server runs until Close, or until this
// process ends.
//
// Only this user can connect to the socket. What is behind it is a Server, and
// GET /metrics for Prometheus.
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
	timer := time.AfterFunc(d.patience(), func() { cancel(errPatience{d.patience()}) })
	defer timer.Stop()
	c, err := d.start(context.Background(), "serve", "--bundle", bundleDir, "--socket", socket)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, c.kill)
	err = c.greet()
	if err == nil {
		var m message
		if m, err = c.hear(); err == nil && m.Ready == nil {
			err = nonsense{errors.New("a message out of turn")}
		}
	}
	if !stop() && err == nil { // ctx ended just as it became ready
		err = errSilent
	}
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &Served{child: c, client: &http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConns: 8,
		IdleConnTimeout: time.Minute}}}, nil
}

// Health runs the golden through the running server.
func (s *Served) Health(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://aob-detect/health", nil)
	if err != nil {
		return err
	}
	return s.call(req, nil)
}

// Infer returns the boxes on a JPEG or PNG image, best first, at most
// Signature.Select of them. An image that cannot be used is an *ImageError.
func (s *Served) Infer(ctx context.Context, image []byte) ([]delivery.Box, error) {
	if len(image) > MaxImageBytes {
		return nil, &ImageError{Why: fmt.Sprintf("%d bytes, more than the %d that are allowed", len(image),
			MaxImageBytes)}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://aob-detect/infer", bytes.NewReader(image))
	if err != nil {
		return nil, err
	}
	var found inferAnswer
	if err := s.call(req, &found); err != nil {
		return nil, err
	}
	return found.Boxes, nil
}

// call makes a request and reads the answer's body into v, if that is not nil.
func (s *Served) call(req *http.Request, v any) error {
	resp, err := s.client.Do(req)
	if err != nil {
		select {
		case <-s.child.done:
			return s.ended()
		default:
		}
		return fmt.Errorf("aob-detect serve: %w", err)
	}
	defer resp.Body.Close()
	const maxAnswer = 32 << 20
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("aob-detect serve: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var wrong struct{ Error string }
		_ = json.Unmarshal(body, &wrong) // the status says enough where it is not JSON
		why := tidy(wrong.Error, maxWhy)
		if resp.StatusCode == http.StatusBadRequest {
			return &ImageError{Why: why}
		}
		return fmt.Errorf("aob-detect serve: %s: %s", resp.Status, why)
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("aob-detect serve: its answer: %w", err)
	}
	return nil
}

// Done is closed when the server has ended, asked or not.
func (s *Served) Done() <-chan struct{} { return s.child.done }

// Wait blocks until the server has ended: nil after Close, else a *CrashError
// that says how it ended.
func (s *Served) Wait() error {
	<-s.child.done
	return s.ended()
}

func (s *Served) ended() error {
	if s.closing.Load() {
		return nil
	}
	return &CrashError{Command: "serve", Why: s.child.ending(), Stderr: s.child.stderr.String()}
}

// closeAfter is how long Close lets the server finish what it is at.
const closeAfter = 10 * time.Second

// Close ends the server: SIGTERM, and after 10 s SIGKILL to whatever is left.
// It returns when the server is gone.
func (s *Served) Close() error {
	s.closing.Store(true)
	s.client.CloseIdleConnections()                 // the server waits for connections that never asked anything
	_ = s.child.cmd.Process.Signal(syscall.SIGTERM) // gone already is as good
	select {
	case <-s.child.done:
	case <-time.After(closeAfter):
	}
	s.child.release()
	return nil
}
