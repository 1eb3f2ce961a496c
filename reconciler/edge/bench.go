package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/trust"
)

// This file measures bundles that are not released yet. Only an agent with Config.Bench asks for them. What it measures
// runs beside what it serves, in a process of its own, and is never served.

// A BenchFunc measures the bundle in a folder.
type BenchFunc func(ctx context.Context, folder string, run delivery.BenchRun) (delivery.Bench, error)

// Measure returns a BenchFunc that runs aob-detect.
func Measure(d detect.Detector) BenchFunc {
	return func(ctx context.Context, folder string, run delivery.BenchRun) (delivery.Bench, error) {
		d := d
		d.Profile = run.Profile
		return d.Bench(ctx, folder, run.Settings, nil, nil)
	}
}

const (
	benchEvery  = time.Minute // between two questions, with jitter
	maxBenching = time.Hour   // of one bench, download included
	benchFolder = "bench"     // in the state folder
)

// bench asks the server what to measure until ctx is done.
func (a *Agent) bench(ctx context.Context) {
	wait := backoff{first: a.Retry, most: 5 * time.Minute}
	every := min(benchEvery, 60*a.Retry)
	for ctx.Err() == nil {
		pause := jittered(every)
		err := a.benchOnce(ctx)
		var slow *retryLater
		switch {
		case ctx.Err() != nil:
			return
		case errors.As(err, &slow):
			pause = wait.next(slow.after)
		case err != nil:
			pause = wait.next(0)
		default:
			wait.reset()
		}
		if err != nil {
			a.Log.Warn("bench not done", "err", err, "again", pause.Round(time.Millisecond))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// benchOnce does what the server asks for, if anything.
func (a *Agent) benchOnce(ctx context.Context) error {
	envelope, err := a.call(ctx, http.MethodGet, nil)
	if err != nil || envelope == nil {
		return err
	}
	r, err := a.verifyBench(envelope)
	if err != nil {
		return fmt.Errorf("a request for a bench is refused: %w", err)
	}
	a.Log.Info("bench", "bundle", r.Bundle, "profile", r.Profile)
	answer := delivery.BenchAnswer{Key: r.Key()}
	limited, cancel := context.WithTimeout(ctx, maxBenching)
	defer cancel()
	b, err := a.measure(limited, r)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		const most = 1000
		answer.Why = delivery.PlainText(strings.Join(strings.Fields(err.Error()), " "), most)
	default:
		answer.Bench = &b
	}
	body, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	_, err = a.call(ctx, http.MethodPost, body)
	return err
}

// verifyBench checks a request: signed by a trusted key, for this device alone, and not expired.
func (a *Agent) verifyBench(envelope []byte) (r delivery.BenchRequest, err error) {
	payload, _, err := trust.Verify(envelope, delivery.BenchPayload, a.Keys)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(payload, &r); err != nil {
		return r, err
	}
	switch {
	case r.Ring != a.Ring || r.Device != a.Device:
		return r, fmt.Errorf("it is for device %.64q of fleet %.64q", r.Device, r.Ring)
	case !a.Now().Before(r.Expires):
		return r, fmt.Errorf("it expired at %s", r.Expires)
	case !slices.Contains(a.Profiles, r.Profile):
		return r, fmt.Errorf("this device measures on %s, and not on %.64q", strings.Join(a.Profiles, ", "), r.Profile)
	}
	return r, r.BenchRun.Check()
}

// measure downloads a bundle and measures it. Nothing of it is left.
func (a *Agent) measure(ctx context.Context, r delivery.BenchRequest) (b delivery.Bench, err error) {
	dir := filepath.Join(a.Dir, benchFolder)
	if err := os.RemoveAll(dir); err != nil { // of an agent that was killed
		return b, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	folder := filepath.Join(dir, "bundle")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return b, err
	}
	if _, err := a.Fetch(ctx, r.Bundle, filepath.Join(dir, "cache"), folder); err != nil {
		return b, fmt.Errorf("download: %s", downloadReason(err))
	}
	if err := a.Check(ctx, r.Bundle, folder); err != nil {
		return b, err
	}
	b, err = a.Bench(ctx, folder, r.BenchRun)
	b.Bundle = r.Bundle
	return b, err
}

// call asks for a request, or answers one. It returns nil if there is nothing to do.
func (a *Agent) call(ctx context.Context, method string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, a.Server+"/fleet/v1/bench", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+a.Token)
	resp, err := a.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusNoContent:
		return nil, nil
	case resp.StatusCode != http.StatusOK:
		if err := overloaded(resp); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("the server answered %s: %.200q", resp.Status, text)
	case len(text) > maxDocument:
		return nil, fmt.Errorf("the request is longer than %d bytes", maxDocument)
	}
	return text, nil
}
