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
	maxDocument = 64 << 10
	longPoll    = 55 * time.Second
	slowest     = time.Hour // between two polls, whatever a document says
)

// A document is a ring's desired state that a trusted key signed.
type document struct {
	desired  delivery.Desired
	envelope []byte
}

// verify reads an envelope. Version and expiry are for the loop to judge.
func (a *Agent) verify(envelope []byte) (document, error) {
	payload, _, err := trust.Verify(envelope, delivery.DesiredPayload, a.Keys)
	if err != nil {
		return document{}, err
	}
	// A newer server may say more than this agent knows. What it must not miss
	// comes under another payload type, so unknown fields are passed over.
	var d delivery.Desired
	if err := json.Unmarshal(payload, &d); err != nil {
		return document{}, fmt.Errorf("document: %w", err)
	}
	if d.Ring != a.Ring {
		return document{}, fmt.Errorf("document: it is for ring %.64q, this device is in %q", d.Ring, a.Ring)
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
		return document{}, errors.New("document: a value is out of its bounds")
	}
	return document{d, bytes.Clone(envelope)}, nil
}

// poll asks for the ring's document for ever and hands on each that is signed.
func (a *Agent) poll(ctx context.Context) {
	wait := pauses{first: a.Retry, most: 5 * time.Minute}
	etag, interval := "", time.Minute
	pause := time.Duration(rand.Int64N(int64(a.Retry) + 1)) // a fleet that is switched on together
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
		var slow *busy
		switch {
		case err == nil && envelope == nil: // nothing new
			a.unread.reset()
			wait.reset()
			pause = around(interval)
			if waited {
				pause = time.Duration(rand.Int64N(int64(a.Retry) + 1))
			}
			continue
		case errors.As(err, &slow):
			pause = wait.next(slow.after)
		case err != nil:
			// A server that had the question for longer than the last pause was well
			// until then: one that is restarted now and then is not one that is gone.
			if lost := (unanswered{}); errors.As(err, &lost) && took > pause {
				wait.reset()
			}
			pause = wait.next(0)
		}
		if err != nil {
			a.unread.failed(err)
			a.Metrics.polls.WithLabelValues("failed").Inc()
			a.Log.Warn("no desired state", "err", err, "again", pause.Round(time.Millisecond))
			continue
		}
		wait.reset()
		// The same answer is not looked at twice, believed or not.
		again := tag == etag
		etag = tag
		pause = time.Duration(rand.Int64N(int64(a.Retry)/2 + 1))
		d, err := a.verify(envelope)
		if err != nil {
			a.Metrics.refused.WithLabelValues("signature").Inc()
			a.Log.Error("desired state refused", "err", err)
			if _, newer := errors.AsType[delivery.Blocked](err); !newer {
				err = fmt.Errorf("what the server or a proxy answers is no document that a trusted key signed: %w", err)
			}
			a.unread.failed(err)
			pause = around(interval)
			continue
		}
		a.unread.reset()
		interval = min(max(time.Duration(d.desired.NextPoll), a.Retry), slowest)
		if again || tag == "" {
			pause = around(interval) // a server without ETags answers at once, every time
		}
		select {
		case a.docs <- d:
		case <-ctx.Done():
			return
		}
	}
}

// unread is why documents do not come through.
type unread struct {
	mu  sync.Mutex
	n   int // failures in a row
	why string
}

func (u *unread) failed(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n++
	u.why = err.Error()
}

func (u *unread) reset() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n, u.why = 0, ""
}

// trouble is what to report: one failure may be a server that is restarted.
func (u *unread) trouble() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.n < 3 {
		return ""
	}
	return "cannot read what to run: " + u.why
}

// unanswered is the error of a question that was sent.
type unanswered struct{ error }

func (u unanswered) Unwrap() error { return u.error }

// get asks once. It returns nothing and no error where there is nothing new.
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
		return nil, "", unanswered{err}
	}
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	a.Metrics.polls.WithLabelValues("answered").Inc()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotModified, http.StatusNotFound:
		return nil, "", nil // not found: the ring has no document yet
	default:
		if err := overloaded(resp); err != nil {
			return nil, "", err
		}
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // the status has to do without it
		return nil, "", fmt.Errorf("the server answers %s: %.200q", resp.Status, why)
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
