package detect

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// Served is a model that runs behind a Unix socket. It is safe for concurrent use.
type Served struct {
	Client
	child   *child
	closing atomic.Bool
}

// Serve starts a server for the bundle in a folder (model.onnx, signature.json, golden.bin, labels.json) on a Unix
// socket. It returns after the server has loaded the model and replayed the golden. A stale socket file is replaced.
// ctx and Timeout limit the start only; the server runs until Close, or until this process ends. While it builds an
// engine, Timeout begins again with each message of progress; the profile limits the build.
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
	args := []string{"--bundle", bundleDir, "--socket", socket}
	if d.Background {
		args = append(args, "--background")
	}
	if d.Batch > 1 {
		args = append(args, "--batch", strconv.Itoa(d.Batch), "--batch-wait", d.BatchWait.String())
	}
	c, err := d.start(context.Background(), "serve", args...)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, c.kill)
	err = d.awaitReady(c, cancel)
	if !stop() && err == nil { // ctx was done just when the server was ready
		err = errNoResult
	}
	if err != nil {
		return nil, c.rootCause(ctx, err)
	}
	return &Served{Client: NewClient(socket), child: c}, nil
}

// awaitReady reads the messages of a child until it is ready. While it builds an engine, Timeout begins again with each
// message of progress.
func (d Detector) awaitReady(c *child, cancel context.CancelCauseFunc) error {
	timer := time.AfterFunc(d.timeout(), func() { cancel(timeoutError{d.timeout()}) })
	defer timer.Stop()
	err := c.readHello()
	for err == nil {
		var m message
		if m, err = c.readMessage(); err != nil || m.Ready != nil {
			break
		}
		if m.Building == nil {
			return invalidOutput{errors.New("unexpected message")}
		}
		timer.Reset(d.timeout())
		if d.Progress != nil {
			d.Progress(*m.Building)
		}
	}
	return err
}

// Build builds the TensorRT engine of the bundle in a folder, as Serve would, so that Serve finds it. The profile must
// be one with TensorRT.
func (d Detector) Build(ctx context.Context, bundleDir string) error {
	bundleDir, err := filepath.Abs(bundleDir)
	if err != nil {
		return fmt.Errorf("build: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c, err := d.start(ctx, "build", "--bundle", bundleDir)
	if err != nil {
		return err
	}
	defer c.cleanup()
	if err := d.awaitReady(c, cancel); err != nil {
		return c.rootCause(ctx, err)
	}
	return nil
}

// Done is closed when the server has ended for any reason.
func (s *Served) Done() <-chan struct{} { return s.child.done }

// Wait blocks until the server has ended. It returns nil after Close, else a *CrashError that says how it ended.
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
	s.connections.close()                           // the server would wait for idle connections
	_ = s.child.cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended already
	select {
	case <-s.child.done:
	case <-time.After(closeAfter):
	}
	s.child.cleanup()
	return nil
}
