package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A FetchFunc brings a bundle into dir, which appears at once and complete, and
// says how many bytes of it were downloaded, also beside an error. What a try
// that fails has brought stays in cache for the next.
type FetchFunc func(ctx context.Context, bundle delivery.Digest, cache, dir string) (downloaded int64, err error)

// Bundles fetches from a server's bundles, or from any OCI registry.
func Bundles(from artifact.Source) FetchFunc {
	client := http.Client{}
	if from.Client != nil {
		client = *from.Client
	}
	client.Transport = patient{base: client.Transport, window: time.Minute, least: 64 << 10}
	from.Client = &client
	return func(ctx context.Context, bundle delivery.Digest, cache, dir string) (int64, error) {
		store, err := artifact.Open(cache)
		if err != nil {
			// A power cut may have damaged the cache. It only saves downloads.
			if err := os.RemoveAll(cache); err != nil {
				return 0, err
			}
			store, err = artifact.Open(cache)
		}
		if err != nil {
			return 0, err
		}
		return store.Pull(ctx, from, bundle, dir)
	}
}

// busy is a server that answers, and asks for patience.
type busy struct {
	status string
	after  time.Duration // that it asked for
}

func (b *busy) Error() string { return "the server answers " + b.status }

// patient turns a server's 429 and 5xx into errors, and ends a body that brings
// less than least bytes in a window: a download that never ends is a failure
// that never shows.
type patient struct {
	base   http.RoundTripper
	window time.Duration
	least  int64
}

func (p patient) RoundTrip(r *http.Request) (*http.Response, error) {
	base := p.base
	if base == nil {
		base = http.DefaultTransport
	}
	ctx, cancel := context.WithCancel(r.Context())
	resp, err := base.RoundTrip(r.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	if err := overloaded(resp); err != nil {
		resp.Body.Close()
		cancel()
		return nil, err
	}
	body := &steady{ReadCloser: resp.Body, cancel: cancel}
	body.mu.Lock() // until the timer is in its place, which check uses
	body.timer = time.AfterFunc(p.window, func() { body.check(p.window, p.least) })
	body.mu.Unlock()
	resp.Body = body
	return resp, nil
}

// steady is a body that has to go on.
type steady struct {
	io.ReadCloser
	cancel context.CancelFunc
	timer  *time.Timer

	mu     sync.Mutex
	fresh  int64 // bytes in this window
	slow   bool
	closed bool
}

func (s *steady) check(window time.Duration, least int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if s.fresh < least {
		s.slow = true
		s.cancel() // it ends the Read that waits
		return
	}
	s.fresh = 0
	s.timer.Reset(window)
}

func (s *steady) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh += int64(n)
	if err != nil && err != io.EOF && s.slow {
		err = &busy{status: "too slowly to go on"}
	}
	return n, err
}

func (s *steady) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.timer.Stop()
	defer s.cancel()
	return s.ReadCloser.Close()
}

// overloaded is a *busy error for an answer that time may mend.
func overloaded(resp *http.Response) error {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode < 500 {
		return nil
	}
	b := &busy{status: resp.Status}
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
		b.after = min(time.Duration(n)*time.Second, time.Hour)
	} else if t, err := http.ParseTime(resp.Header.Get("Retry-After")); err == nil {
		b.after = min(max(0, time.Until(t)), time.Hour)
	}
	return b
}

// whyNot says in a few words why a download failed, for the people who look after
// the device.
func whyNot(err error) string {
	var source *artifact.SourceError
	status := 0
	if errors.As(err, &source) {
		status = source.Status
	}
	var slow *busy
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "there is no room on this device's disk: " + err.Error()
	case errors.As(err, &slow):
		return slow.Error()
	case status == http.StatusProxyAuthRequired:
		return "the proxy answers 407: it wants a name and a password"
	case status == http.StatusUnauthorized:
		return "the server answers 401: it does not take this device's token"
	case status == http.StatusNotFound:
		return "the server or a proxy answers 404: it does not have the bundle"
	case status != 0:
		return fmt.Sprintf("the server or a proxy answers %d %s", status, http.StatusText(status))
	case errors.Is(err, artifact.ErrOtherContent):
		return "the answer is another content than the one asked for: a proxy or a login page answers in the " +
			"server's place, or the server's store is damaged"
	case errors.As(err, &dns):
		return "the server's name is not found: " + dns.Error()
	case errors.As(err, &op):
		// the whole error holds a port, which changes each time
		return "the network fails: " + op.Op + ": " + op.Err.Error()
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "the answer was cut short"
	}
	return err.Error()
}

// fetch brings a bundle into a slot, which must not be the one that serves.
func (a *Agent) fetch(ctx context.Context, slot string, b delivery.Digest) (int64, error) {
	if err := clearSlot(a.Dir, slot, b); err != nil {
		return 0, fmt.Errorf("make room in slot %s: %w", slot, err)
	}
	cache := cacheDir(a.Dir, slot, b)
	n, err := a.Fetch(ctx, b, cache, bundleDir(a.Dir, slot, b))
	if err != nil {
		return n, err
	}
	// The bundle is in its place; its cache only takes room.
	if err := os.RemoveAll(cache); err != nil {
		a.Log.Warn("cache not removed", "slot", slot, "err", err)
	}
	return n, nil
}
