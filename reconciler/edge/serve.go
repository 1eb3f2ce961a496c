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
	// Health runs the bundle's golden through it.
	Health(ctx context.Context) error
	// Done is closed when it has ended, asked or not.
	Done() <-chan struct{}
	// Wait blocks until then, and says how it ended: nil after Close.
	Wait() error
	// Close lets it finish what it is at, and ends it.
	Close() error
}

// A StartFunc starts a detector on a bundle's folder, behind a Unix socket. It
// returns once the golden came out right. ctx bounds the start alone.
type StartFunc func(ctx context.Context, bundleDir, socket string) (Serving, error)

// Detector starts detectors with d.
func Detector(d detect.Detector) StartFunc {
	return func(ctx context.Context, bundleDir, socket string) (Serving, error) {
		s, err := d.Serve(ctx, bundleDir, socket)
		if err != nil {
			return nil, err // not s, which would be a nil that is not nil
		}
		return s, nil
	}
}

// An instance is a detector of ours.
type instance struct {
	Serving
	slot   string
	target delivery.Target
	socket string
	since  time.Time
	well   atomic.Int64       // how long after since the last good check began, ns
	stop   context.CancelFunc // of its watch
	gone   chan struct{}      // closed when it has been closed
}

// sickness is the end of an instance that nobody asked for.
type sickness struct {
	*instance
	why     string
	damaged error // its files are not the bundle's any more
}

// newSocket is a path that no detector of this agent had before: one that ends
// removes its socket, and must not remove another's.
func (a *Agent) newSocket() string {
	a.sockets++
	return filepath.Join(a.Dir, socketDir, fmt.Sprintf("%d.sock", a.sockets))
}

// A CheckFunc compares a bundle's folder with its digests. The error is an
// *artifact.Damaged where they differ, artifact.ErrUnchecked where nobody can say,
// and another where the files could not be read now.
type CheckFunc func(ctx context.Context, bundle delivery.Digest, bundleDir string) error

// checked returns the damage of a slot's files, and nil where there is none.
func (a *Agent) checked(ctx context.Context, slot string, b delivery.Digest) error {
	err := a.Check(ctx, b, bundleDir(a.Dir, slot, b))
	var bad *artifact.Damaged
	switch {
	case errors.As(err, &bad):
		return err
	case errors.Is(err, artifact.ErrUnchecked): // fetched again, it can be checked
		return &artifact.Damaged{Err: err}
	case err != nil && ctx.Err() == nil:
		a.Log.Warn("slot not checked", "slot", slot, "bundle", b, "err", err)
	}
	return nil
}

// start starts an instance on a slot. The files are compared with their digests
// before, and again where the start fails: only a bundle that is whole has failed.
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
		if bad := a.checked(ctx, slot, t.Bundle); bad != nil {
			return nil, bad
		}
	}
	if err != nil {
		return nil, err
	}
	return &instance{Serving: s, slot: slot, target: t, socket: socket, stop: func() {}, gone: make(chan struct{})}, nil
}

// A newerBundle is a bundle of a later version of AOB, which this device's programs cannot run. Neither is at fault.
type newerBundle struct{ version int }

func (n newerBundle) Error() string {
	return fmt.Sprintf("the bundle's %s has schemaVersion %d, and this aob-agent knows %d; update aob-agent and "+
		"aob-detect",
		artifact.SignatureFile, n.version, delivery.SignatureVersion)
}

// isNewer returns a newerBundle error where the bundle in a folder is one.
func isNewer(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, artifact.SignatureFile))
	var signature struct {
		SchemaVersion int `json:"schemaVersion"`
	}
	if err == nil && json.Unmarshal(data, &signature) == nil && signature.SchemaVersion > delivery.SignatureVersion {
		return newerBundle{signature.SchemaVersion}
	}
	return nil // what cannot be read, the detector refuses
}

// put lets an instance serve.
func (a *Agent) put(ctx context.Context, i *instance) {
	i.since = time.Now() // the soak is of serving, not of what came before
	a.serving, a.ending, a.trouble = i, nil, ""
	if err := a.link(i); err != nil {
		a.Log.Error("clients do not find the detector", "link", socketLink, "err", err)
	}
	a.Metrics.serving.Reset()
	a.Metrics.serving.WithLabelValues(string(i.target.Bundle), i.slot).Set(1)
	a.watch(ctx, i)
}

// checkEvery is the time between health checks: the soak has a few, however
// short it is, and a bundle that is known to be good needs fewer.
func (a *Agent) checkEvery() time.Duration {
	if a.observe().proven() || a.desired == nil {
		return 10 * a.Health
	}
	return min(a.Health, time.Duration(a.desired.Soak)/4+time.Millisecond)
}

// watch asks an instance for its health until it is sick or stopped.
func (a *Agent) watch(ctx context.Context, i *instance) {
	every := a.checkEvery()
	ctx, i.stop = context.WithCancel(ctx)
	a.tasks.Go(func() {
		if why := a.watched(ctx, i, every); why != "" {
			select {
			case a.sick <- sickness{i, why, a.checked(ctx, i.slot, i.target.Bundle)}:
			case <-ctx.Done():
			}
		}
	})
}

// watched returns why an instance is sick, or nothing when ctx has ended. One
// bad answer may be a busy machine's; two in a row are not.
func (a *Agent) watched(ctx context.Context, i *instance, every time.Duration) (why string) {
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
			i.well.Store(int64(began))
			select {
			case a.well <- struct{}{}:
			default: // the loop has yet to look at the one before
			}
			continue
		}
		if bad++; bad == 2 {
			return "health check: " + err.Error()
		}
	}
}

// close ends an instance in the background: what it is at may take a while.
func (a *Agent) close(i *instance) {
	i.stop()
	a.tasks.Go(func() {
		defer close(i.gone)
		if err := i.Close(); err != nil {
			a.Log.Warn("detector did not close", "slot", i.slot, "bundle", i.target.Bundle, "err", err)
		}
	})
}

// link points serving.sock at an instance, in one step.
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
