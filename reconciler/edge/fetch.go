package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A FetchFunc downloads a bundle into dir, which appears atomically when it is complete. It returns how many bytes were
// downloaded, also with an error. The bytes of a failed download stay in cache for the next call.
type FetchFunc func(ctx context.Context, bundle delivery.Digest, cache, dir string) (downloaded int64, err error)

// Bundles returns a FetchFunc that downloads from a server's bundles, or from any OCI registry.
func Bundles(from artifact.Source) FetchFunc {
	client := http.Client{}
	if from.Client != nil {
		client = *from.Client
	}
	client.Transport = minRateTransport{base: client.Transport, window: time.Minute, least: 64 << 10}
	from.Client = &client
	return func(ctx context.Context, bundle delivery.Digest, cache, dir string) (int64, error) {
		store, err := artifact.Open(cache)
		if err != nil {
			// A power cut may have damaged the cache. Without it everything is downloaded again.
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

// retryLater is the error of a server that asks the client to retry later.
type retryLater struct {
	status string
	after  time.Duration // the server's Retry-After; zero if none
}

func (b *retryLater) Error() string { return "the server answered " + b.status }

// minRateTransport is a transport that returns a *retryLater error for the statuses 429 and 5xx, and cancels a response
// body that delivers fewer than least bytes within a window: a stalled download must end in an error.
type minRateTransport struct {
	base   http.RoundTripper
	window time.Duration
	least  int64
}

func (p minRateTransport) RoundTrip(r *http.Request) (*http.Response, error) {
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
	body := &minRateBody{ReadCloser: resp.Body, cancel: cancel}
	body.mu.Lock() // check uses timer
	body.timer = time.AfterFunc(p.window, func() { body.check(p.window, p.least) })
	body.mu.Unlock()
	resp.Body = body
	return resp, nil
}

// minRateBody is a response body with a minimum rate.
type minRateBody struct {
	io.ReadCloser
	cancel context.CancelFunc
	timer  *time.Timer

	mu       sync.Mutex
	received int64 // bytes read in this window
	slow     bool
	closed   bool
}

func (s *minRateBody) check(window time.Duration, least int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if s.received < least {
		s.slow = true
		s.cancel() // ends a blocked Read
		return
	}
	s.received = 0
	s.timer.Reset(window)
}

func (s *minRateBody) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received += int64(n)
	if err != nil && err != io.EOF && s.slow {
		err = &retryLater{status: "too slowly; the download was stopped"}
	}
	return n, err
}

func (s *minRateBody) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.timer.Stop()
	defer s.cancel()
	return s.ReadCloser.Close()
}

// overloaded returns a *retryLater error for a status that may succeed later: 429 and 5xx.
func overloaded(resp *http.Response) error {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode < 500 {
		return nil
	}
	b := &retryLater{status: resp.Status}
	if header := resp.Header.Get("Retry-After"); header != "" {
		b.after = delivery.RetryAfter(header, time.Now())
	}
	return b
}

// downloadReason explains a failed download to the operators of the device.
func downloadReason(err error) string {
	status := 0
	if source, ok := errors.AsType[*artifact.SourceError](err); ok {
		status = source.Status
	}
	slow, tooSlow := errors.AsType[*retryLater](err)
	dns, unknownHost := errors.AsType[*net.DNSError](err)
	op, unreachable := errors.AsType[*net.OpError](err)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "there is no room on this device's disk: " + err.Error()
	case tooSlow:
		return slow.Error()
	case status == http.StatusProxyAuthRequired:
		return "the proxy answered 407: it requires a user name and a password"
	case status == http.StatusUnauthorized:
		return "the server answered 401: it does not accept this device's token"
	case status == http.StatusNotFound:
		return "the server or a proxy answered 404: it does not have the bundle"
	case status != 0:
		return fmt.Sprintf("the server or a proxy answered %d %s", status, http.StatusText(status))
	case errors.Is(err, artifact.ErrOtherContent):
		return "the response is not the requested content: a proxy or a login page answered in place of the server, " +
			"or the server's store is damaged"
	case unknownHost:
		return "the server's host name was not found: " + dns.Error()
	case unreachable:
		// The complete error contains a port, which changes each time.
		return "network error: " + op.Op + ": " + op.Err.Error()
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "the response ended early"
	}
	return err.Error()
}

// fetch downloads a bundle into a slot, which must not be the serving one.
func (a *Agent) fetch(ctx context.Context, slot string, b delivery.Digest) (int64, error) {
	if err := clearSlot(a.Dir, slot, b); err != nil {
		return 0, fmt.Errorf("clear slot %s: %w", slot, err)
	}
	cache := cacheDir(a.Dir, slot, b)
	n, err := a.Fetch(ctx, b, cache, bundleDir(a.Dir, slot, b))
	if err != nil {
		return n, err
	}
	// The bundle is complete, so its cache is not needed any more.
	if err := os.RemoveAll(cache); err != nil {
		a.Log.Warn("cache not removed", "slot", slot, "err", err)
	}
	return n, nil
}
