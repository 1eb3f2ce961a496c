package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/trust"
)

const (
	maxDocument     = 64 << 10
	longPoll        = 55 * time.Second
	maxPollInterval = time.Hour // longest time between two polls, whatever the document says
)

// A document is a ring's desired state with a trusted signature.
type document struct {
	desired  delivery.Desired
	envelope []byte
}

// verify checks an envelope and decodes its document. It does not check the version and the expiry.
func (a *Agent) verify(envelope []byte) (document, error) {
	payload, _, err := trust.Verify(envelope, delivery.DesiredPayload, a.Keys)
	if err != nil {
		return document{}, err
	}
	// Unknown fields are ignored: a newer server may set more fields. A field that an agent must not
	// ignore would come with another payload type.
	var d delivery.Desired
	if err := json.Unmarshal(payload, &d); err != nil {
		return document{}, fmt.Errorf("document: %w", err)
	}
	if d.Ring != a.Ring {
		return document{}, fmt.Errorf("document: it is for ring %.64q, but this device is in ring %q", d.Ring, a.Ring)
	}
	targets := []delivery.Target{d.Release}
	if d.Previous != nil {
		targets = append(targets, *d.Previous)
	}
	for _, t := range targets {
		if _, err := delivery.ParseDigest(string(t.Bundle)); err != nil {
			return document{}, fmt.Errorf("document: %w", err)
		}
	}
	if d.Version < 1 || !(d.Share >= 0 && d.Share <= 1) || d.Soak < 0 || d.NextPoll < 0 || d.Report < 0 ||
		len(d.Match) > 32 {
		return document{}, errors.New("document: a number is out of range, or match has more than 32 labels")
	}
	return document{d, bytes.Clone(envelope)}, nil
}

// poll requests the ring's document until ctx is done, and passes each verified one to the loop.
func (a *Agent) poll(ctx context.Context) {
	wait := backoff{first: a.Retry, most: 5 * time.Minute}
	etag, interval := "", time.Minute
	pause := time.Duration(rand.Int64N(int64(a.Retry) + 1)) // jitter for fleets that are switched on together
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		began := time.Now()
		envelope, tag, err := a.get(ctx, etag)
		took := time.Since(began)
		waited := took > longPoll/2
		if ctx.Err() != nil {
			return
		}
		var slow *retryLater
		switch {
		case err == nil && envelope == nil: // no change
			a.pollErrors.reset()
			wait.reset()
			pause = jittered(interval)
			if waited {
				pause = time.Duration(rand.Int64N(int64(a.Retry) + 1))
			}
			continue
		case errors.As(err, &slow):
			pause = wait.next(slow.after)
		case err != nil:
			// If the server held the request longer than the last pause, it was up until then. The backoff
			// starts anew, so that a server that is restarted now and then does not count as one that is down.
			if lost := (noResponseError{}); errors.As(err, &lost) && took > pause {
				wait.reset()
			}
			pause = wait.next(0)
		}
		if err != nil {
			a.pollErrors.failed(err)
			a.Metrics.polls.WithLabelValues("failed").Inc()
			a.Log.Warn("desired state not received", "err", err, "again", pause.Round(time.Millisecond))
			continue
		}
		wait.reset()
		// The ETag is remembered for refused documents too, so that the same one is not checked again.
		again := tag == etag
		etag = tag
		pause = time.Duration(rand.Int64N(int64(a.Retry)/2 + 1))
		d, err := a.verify(envelope)
		if err != nil {
			a.Metrics.refused.WithLabelValues("signature").Inc()
			a.Log.Error("desired state refused", "err", err)
			if _, newer := errors.AsType[delivery.Blocked](err); !newer {
				err = fmt.Errorf("the response of the server or a proxy is not a document signed by a trusted key: %w",
					err)
			}
			a.pollErrors.failed(err)
			pause = jittered(interval)
			continue
		}
		a.pollErrors.reset()
		interval = min(max(time.Duration(d.desired.NextPoll), a.Retry), maxPollInterval)
		if again || tag == "" {
			pause = jittered(interval) // a server without ETags never holds a request
		}
		select {
		case a.documents <- d:
		case <-ctx.Done():
			return
		}
	}
}

// failureCount counts polls that failed in a row. It is safe for concurrent use.
type failureCount struct {
	mu  sync.Mutex
	n   int // failures in a row
	why string
}

func (u *failureCount) failed(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n++
	u.why = err.Error()
}

func (u *failureCount) reset() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n, u.why = 0, ""
}

// reportable returns the error to report. The first two failures are not reported: the server may be restarting.
func (u *failureCount) reportable() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.n < 3 {
		return ""
	}
	return "cannot read the desired state: " + u.why
}

// noResponseError is the error of a request that was sent and got no response.
type noResponseError struct{ error }

func (u noResponseError) Unwrap() error { return u.error }

// get polls once. It returns neither an envelope nor an error if nothing has changed.
func (a *Agent) get(ctx context.Context, etag string) (envelope []byte, tag string, err error) {
	ctx, cancel := context.WithTimeout(ctx, longPoll+30*time.Second)
	defer cancel()
	url := fmt.Sprintf("%s/fleet/v1/desired/%s?wait=%d", a.Server, a.Ring, int(longPoll.Seconds()))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Authorization", "Bearer "+a.Token)
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	var written atomic.Bool
	req = req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(w httptrace.WroteRequestInfo) { written.Store(w.Err == nil) },
	}))
	resp, err := a.Client.Do(req)
	if err != nil && written.Load() {
		return nil, "", noResponseError{err}
	}
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	a.Metrics.polls.WithLabelValues("answered").Inc()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotModified, http.StatusNotFound:
		return nil, "", nil // 404: the ring has no document yet
	default:
		if err := overloaded(resp); err != nil {
			return nil, "", err
		}
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // an error is ignored: the status is enough
		return nil, "", fmt.Errorf("the server answered %s: %.200q", resp.Status, why)
	}
	envelope, err = io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err != nil {
		return nil, "", err
	}
	if len(envelope) > maxDocument {
		return nil, "", fmt.Errorf("the document is longer than %d bytes", maxDocument)
	}
	return envelope, resp.Header.Get("ETag"), nil
}
