package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

const (
	maxSpool     = 64 // reports; the oldest make room
	maxSpoolFile = 4 << 20
)

// A spool holds the reports that were not sent yet, and counts all of them. It
// survives restarts; where it cannot be written it goes on in memory, because a
// full disk must not stop a device.
type spool struct {
	path string

	mu   sync.Mutex
	kept spoolContent
	more chan struct{} // holds a token when there is something to send
}

type spoolContent struct {
	Sequence int64             `json:"sequence"` // of the last report made
	Reports  []delivery.Report `json:"reports"`  // oldest first
	Last     delivery.Report   `json:"last"`
	Receipt  string            `json:"receipt,omitempty"` // from the server's last answer
}

// openSpool reads the spool. One that cannot be read begins anew: the server
// tells where its numbers have to go on. Reports of another ring or device are
// dropped: this installation has moved, and its token is not theirs.
func openSpool(dir, ring, device string) *spool {
	s := &spool{path: filepath.Join(dir, spoolFile), more: make(chan struct{}, 1)}
	if data, err := readFile(s.path, maxSpoolFile); err == nil {
		if json.Unmarshal(data, &s.kept) != nil {
			s.kept = spoolContent{}
		}
	}
	if l := s.kept.Last; l.Ring != ring || l.Device != device {
		s.kept.Last, s.kept.Receipt = delivery.Report{}, ""
	}
	s.kept.Reports = slices.DeleteFunc(s.kept.Reports, func(r delivery.Report) bool {
		return r.Ring != ring || r.Device != device
	})
	s.wake()
	return s
}

func (s *spool) wake() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// add numbers a report and keeps it until it is sent.
func (s *spool) add(r delivery.Report) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept.Sequence++
	r.Sequence = s.kept.Sequence
	s.kept.Reports = append(s.kept.Reports, r)
	s.kept.Reports = s.kept.Reports[max(0, len(s.kept.Reports)-maxSpool):]
	s.kept.Last = r
	s.wake()
	return s.write()
}

func (s *spool) write() error {
	data, err := json.Marshal(s.kept)
	if err != nil {
		return err
	}
	return durable.WriteFile(s.path, data, 0o600)
}

// first is the next report to send.
func (s *spool) first() (delivery.Report, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept.Reports) == 0 {
		return delivery.Report{}, false
	}
	return s.kept.Reports[0], true
}

// last reports whether no report was made after this one.
func (s *spool) last(sequence int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept.Sequence <= sequence
}

// answer is what the server says to a report.
type answer struct {
	Highest int64  `json:"highest"` // the highest number that it has heard from this device
	Receipt string `json:"receipt"` // to be sent with the next report
	Again   bool   `json:"again"`   // the number was used before, by another report
}

func (s *spool) receipt() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept.Receipt
}

// sent forgets a report and all before it. Where the server has heard a higher
// number than ours, this device has lost its count, so it goes on above it, and
// says again what the server took for a repeat.
func (s *spool) sent(sequence int64, a answer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.Receipt != "" {
		s.kept.Receipt = a.Receipt
	}
	for len(s.kept.Reports) > 0 && s.kept.Reports[0].Sequence <= sequence {
		s.kept.Reports = s.kept.Reports[1:]
	}
	if (a.Highest > s.kept.Sequence || a.Again && a.Highest == s.kept.Sequence) && a.Highest < 1<<53-1 {
		s.kept.Sequence = a.Highest + 1
		s.kept.Last.Sequence = s.kept.Sequence
		s.kept.Reports = []delivery.Report{s.kept.Last}
		s.wake()
	}
	// A repeat after a crash is harmless; losing the count is not much worse.
	return s.write()
}

// send posts reports for ever, in order.
func (a *Agent) send(ctx context.Context) {
	wait := pauses{first: a.Retry, most: time.Minute} // silence for longer may count as a failure
	for {
		r, ok := a.spool.first()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-a.spool.more:
			}
			continue
		}
		r.Receipt, r.Sent = a.spool.receipt(), a.Now().UTC()
		got, err := a.post(ctx, r)
		var bad refusal
		var slow *busy
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			a.Metrics.reports.WithLabelValues("sent").Inc()
		case errors.As(err, &bad) && (bad.malformed || !a.spool.last(r.Sequence)):
			// It will be refused again, and those behind it must not wait for it. The last one says how the device is
			// now, so it is kept: somebody may mend the server, or what stands before it.
			a.Metrics.reports.WithLabelValues("refused").Inc()
			a.Log.Error("report refused", "sequence", r.Sequence, "err", err)
		default:
			a.Metrics.reports.WithLabelValues("failed").Inc()
			pause := wait.next(0)
			if errors.As(err, &slow) {
				pause = max(pause, slow.after)
			}
			a.Log.Warn("report not sent", "sequence", r.Sequence, "err", err, "again", pause.Round(time.Millisecond))
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			continue
		}
		wait.reset()
		if err := a.spool.sent(r.Sequence, got); err != nil {
			a.Log.Warn("reports not kept", "err", err)
		}
	}
}

// refusal is an answer that a repeat does not change.
type refusal struct {
	why       string
	malformed bool // no server will ever take it
}

func (r refusal) Error() string { return r.why }

// refuses reports whether a status is about the report that was sent, and not about the moment or the token.
func refuses(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusProxyAuthRequired, http.StatusRequestTimeout,
		http.StatusMisdirectedRequest, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return status >= 400 && status < 500
}

func (a *Agent) post(ctx context.Context, r delivery.Report) (got answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	body, err := json.Marshal(r)
	if err != nil {
		return got, refusal{err.Error(), true}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.Server+"/fleet/v1/reports", bytes.NewReader(body))
	if err != nil {
		return got, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+a.Token)
	resp, err := a.Client.Do(req)
	if err != nil {
		return got, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return got, err
	}
	switch {
	case resp.StatusCode == http.StatusOK:
	case refuses(resp.StatusCode):
		malformed := resp.StatusCode == http.StatusBadRequest || resp.StatusCode == http.StatusRequestEntityTooLarge
		return got, refusal{fmt.Sprintf("the server answers %s: %.200q", resp.Status, text), malformed}
	default:
		if err := overloaded(resp); err != nil {
			return got, err
		}
		return got, fmt.Errorf("the server answers %s: %.200q", resp.Status, text)
	}
	if err := json.Unmarshal(text, &got); err != nil {
		return answer{}, fmt.Errorf("the server's receipt: %w", err)
	}
	return got, nil
}
