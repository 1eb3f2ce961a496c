package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
)

// Serving is a detector that runs on a bundle.
type Serving interface {
	// Health runs the bundle's golden images through the detector and compares the detections.
	Health(ctx context.Context) error
	// Done is closed when the detector has ended for any reason.
	Done() <-chan struct{}
	// Wait blocks until the detector has ended, and returns why; nil after Close.
	Wait() error
	// Close lets the detector finish its requests, and ends it.
	Close() error
}

// A StartFunc starts a detector on a bundle's folder, which serves on a Unix socket. It returns after
// the detector has reproduced the golden detections. ctx limits the start only.
type StartFunc func(ctx context.Context, bundleDir, socket string) (Serving, error)

// Detector returns a StartFunc that starts detectors with d.
func Detector(d detect.Detector) StartFunc {
	return func(ctx context.Context, bundleDir, socket string) (Serving, error) {
		s, err := d.Serve(ctx, bundleDir, socket)
		if err != nil {
			return nil, err // not s: a nil *detect.Server in an interface is not nil
		}
		return s, nil
	}
}

// An instance is a detector that this agent started.
type instance struct {
	Serving
	slot       string
	target     delivery.Target
	socket     string
	since      time.Time
	healthyFor atomic.Int64       // time from since to the begin of the last successful check, ns
	stop       context.CancelFunc // ends its health checks
	closed     chan struct{}      // closed after Close has returned
}

// unexpectedEnd is the unexpected end of an instance, or its second failed health check in a row.
type unexpectedEnd struct {
	*instance
	why     string
	damaged error // its files do not match the bundle's digests
}

// newSocket returns a socket path that was not used before: a detector removes its socket when it
// ends, and must not remove another one's.
func (a *Agent) newSocket() string {
	a.socketCount++
	return filepath.Join(a.Dir, socketDir, fmt.Sprintf("%d.sock", a.socketCount))
}

// A CheckFunc compares a bundle's folder with its digests. It returns an *artifact.Damaged if they differ, an
// artifact.ErrUnchecked if the folder has no digests, and another error if the files could not be read.
type CheckFunc func(ctx context.Context, bundle delivery.Digest, bundleDir string) error

// verifySlot returns an *artifact.Damaged if a slot's files are damaged or cannot be verified.
func (a *Agent) verifySlot(ctx context.Context, slot string, b delivery.Digest) error {
	err := a.Check(ctx, b, bundleDir(a.Dir, slot, b))
	var bad *artifact.Damaged
	switch {
	case errors.As(err, &bad):
		return err
	case errors.Is(err, artifact.ErrUnchecked): // it can be checked after a new download
		return &artifact.Damaged{Err: err}
	case err != nil && ctx.Err() == nil:
		a.Log.Warn("slot not checked", "slot", slot, "bundle", b, "err", err)
	}
	return nil
}

// start starts an instance on a slot. The files are compared with their digests before the start, and
// again if it fails: only a bundle whose files are intact can fail.
func (a *Agent) start(ctx context.Context, slot string, t delivery.Target, socket string) (*instance, error) {
	dir := bundleDir(a.Dir, slot, t.Bundle)
	if err := a.Check(ctx, t.Bundle, dir); err != nil && !errors.Is(err, artifact.ErrUnchecked) {
		return nil, err
	}
	if err := isNewer(dir); err != nil {
		return nil, err
	}
	s, err := a.Start(ctx, dir, socket)
	if err != nil && ctx.Err() == nil {
		if bad := a.verifySlot(ctx, slot, t.Bundle); bad != nil {
			return nil, bad
		}
	}
	if err != nil {
		return nil, err
	}
	return &instance{Serving: s, slot: slot, target: t, socket: socket, stop: func() {}, closed: make(chan struct{})},
		nil
}

// A newerBundle is the error of a bundle that needs a later version of AOB than this device's
// programs. It is not a failure of the bundle.
type newerBundle struct{ version int }

func (n newerBundle) Error() string {
	return fmt.Sprintf("the bundle's %s has schemaVersion %d, and this aob-agent reads up to %d; update aob-agent "+
		"and aob-detect", delivery.SignatureFile, n.version, delivery.SignatureVersion)
}

// isNewer returns a newerBundle error if the bundle in a folder needs a later version of AOB.
func isNewer(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, delivery.SignatureFile))
	var signature struct {
		SchemaVersion int `json:"schemaVersion"`
	}
	if err == nil && json.Unmarshal(data, &signature) == nil && signature.SchemaVersion > delivery.SignatureVersion {
		return newerBundle{signature.SchemaVersion}
	}
	return nil // the detector refuses what cannot be read here
}

// setServing makes an instance the serving one.
func (a *Agent) setServing(ctx context.Context, i *instance) {
	i.since = time.Now() // the soak begins when it serves
	a.serving, a.ending, a.trouble = i, nil, ""
	if err := a.link(i); err != nil {
		a.Log.Error("socket link not replaced; clients cannot reach the detector", "link", socketLink, "err", err)
	}
	a.Metrics.serving.Reset()
	a.Metrics.serving.WithLabelValues(string(i.target.Bundle), i.slot).Set(1)
	a.watch(ctx, i)
}

// checkEvery returns the time between health checks: at least four during a soak, and fewer for a good bundle.
func (a *Agent) checkEvery() time.Duration {
	if a.observe().servingIsGood() || a.desired == nil {
		return 10 * a.Health
	}
	return min(a.Health, time.Duration(a.desired.Soak)/4+time.Millisecond)
}

// watch checks an instance's health in the background until it ends, is unhealthy or is stopped.
func (a *Agent) watch(ctx context.Context, i *instance) {
	every := a.checkEvery()
	ctx, i.stop = context.WithCancel(ctx)
	a.tasks.Go(func() {
		if why := a.awaitUnhealthy(ctx, i, every); why != "" {
			select {
			case a.unhealthy <- unexpectedEnd{i, why, a.verifySlot(ctx, i.slot, i.target.Bundle)}:
			case <-ctx.Done():
			}
		}
	})
}

// awaitUnhealthy returns why an instance ended or is unhealthy, or an empty string after ctx is done. One
// failed check may be caused by a busy machine; two in a row count.
func (a *Agent) awaitUnhealthy(ctx context.Context, i *instance, every time.Duration) (why string) {
	bad := 0
	for {
		select {
		case <-ctx.Done():
			return ""
		case <-i.Done():
			err := i.Wait()
			if err == nil {
				err = errors.New("the detector ended")
			}
			return err.Error()
		case <-time.After(every):
		}
		began := time.Since(i.since)
		check, cancel := context.WithTimeout(ctx, a.HealthTimeout)
		err := i.Health(check)
		cancel()
		if ctx.Err() != nil {
			return ""
		}
		if err == nil {
			bad = 0
			i.healthyFor.Store(int64(began))
			select {
			case a.healthOK <- struct{}{}:
			default: // the loop has not handled the last token yet
			}
			continue
		}
		if bad++; bad == 2 {
			return "health check: " + err.Error()
		}
	}
}

// close ends an instance in the background, because its requests may take a while.
func (a *Agent) close(i *instance) {
	i.stop()
	a.tasks.Go(func() {
		defer close(i.closed)
		if err := i.Close(); err != nil {
			a.Log.Warn("detector did not end cleanly", "slot", i.slot, "bundle", i.target.Bundle, "err", err)
		}
	})
}

// link points serving.sock to an instance's socket, atomically.
func (a *Agent) link(i *instance) error {
	tmp := filepath.Join(a.Dir, "."+socketLink+".new")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(filepath.Join(socketDir, filepath.Base(i.socket)), tmp); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(a.Dir, socketLink))
}
