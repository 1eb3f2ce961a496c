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
	maxSpool     = 64 // reports; older ones are dropped
	maxSpoolFile = 4 << 20
)

// A spool stores the reports that were not sent yet, and the sequence number of the last one. It survives restarts. If
// it cannot be written it continues in memory, because a full disk must not stop a device.
type spool struct {
	path string

	mu      sync.Mutex
	content spoolContent
	pending chan struct{} // holds a token if there is something to send
}

type spoolContent struct {
	Sequence int64             `json:"sequence"` // of the last report added
	Reports  []delivery.Report `json:"reports"`  // oldest first
	Last     delivery.Report   `json:"last"`
	Receipt  string            `json:"receipt,omitempty"` // from the server's last response
}

// openSpool reads the spool. If it cannot be read it starts empty: the server's response says at which number to
// continue. Reports of another ring or device are dropped, because this device's token is not valid for them.
func openSpool(dir, ring, device string) *spool {
	s := &spool{path: filepath.Join(dir, spoolFile), pending: make(chan struct{}, 1)}
	if data, err := durable.ReadFile(s.path, maxSpoolFile); err == nil {
		if json.Unmarshal(data, &s.content) != nil {
			s.content = spoolContent{}
		}
	}
	if l := s.content.Last; l.Ring != ring || l.Device != device {
		s.content.Last, s.content.Receipt = delivery.Report{}, ""
	}
	s.content.Reports = slices.DeleteFunc(s.content.Reports, func(r delivery.Report) bool {
		return r.Ring != ring || r.Device != device
	})
	s.wake()
	return s
}

func (s *spool) wake() {
	select {
	case s.pending <- struct{}{}:
	default:
	}
}

// add gives a report the next sequence number and stores it until it is sent.
func (s *spool) add(r delivery.Report) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.content.Sequence++
	r.Sequence = s.content.Sequence
	s.content.Reports = append(s.content.Reports, r)
	s.content.Reports = s.content.Reports[max(0, len(s.content.Reports)-maxSpool):]
	s.content.Last = r
	s.wake()
	return s.write()
}

func (s *spool) write() error {
	data, err := json.Marshal(s.content)
	if err != nil {
		return err
	}
	return durable.WriteFile(s.path, data, 0o600)
}

// first returns the next report to send.
func (s *spool) first() (delivery.Report, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.content.Reports) == 0 {
		return delivery.Report{}, false
	}
	return s.content.Reports[0], true
}

// last reports whether no report was added after this sequence number.
func (s *spool) last(sequence int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.content.Sequence <= sequence
}

// response is the server's response to a report.
type response struct {
	Highest   int64  `json:"highest"` // the highest sequence number received from this device
	Receipt   string `json:"receipt"` // to be sent with the next report
	Duplicate bool   `json:"again"`   // another report had this sequence number
}

func (s *spool) receipt() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.content.Receipt
}

// markSent removes a report and all before it. If the server has received a higher sequence number than
// the spool's, this device has lost its count: it continues above that number, and sends the last
// report again, which the server took for a repetition.
func (s *spool) markSent(sequence int64, a response) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.Receipt != "" {
		s.content.Receipt = a.Receipt
	}
	for len(s.content.Reports) > 0 && s.content.Reports[0].Sequence <= sequence {
		s.content.Reports = s.content.Reports[1:]
	}
	if (a.Highest > s.content.Sequence || a.Duplicate && a.Highest == s.content.Sequence) && a.Highest < 1<<53-1 {
		s.content.Sequence = a.Highest + 1
		s.content.Last.Sequence = s.content.Sequence
		s.content.Reports = []delivery.Report{s.content.Last}
		s.wake()
	}
	// If this write is lost in a crash, a report is sent twice, which does no harm.
	return s.write()
}

// send posts reports in order until ctx is done.
func (a *Agent) send(ctx context.Context) {
	wait := backoff{first: a.Retry, most: time.Minute} // the server may count longer silence as a failure
	for {
		r, ok := a.spool.first()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-a.spool.pending:
			}
			continue
		}
		r.Receipt, r.Sent = a.spool.receipt(), a.Now().UTC()
		got, err := a.post(ctx, r)
		var bad refusal
		var slow *retryLater
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			a.Metrics.reports.WithLabelValues("sent").Inc()
		case errors.As(err, &bad) && (bad.malformed || !a.spool.last(r.Sequence)):
			// It would be refused again and must not block the reports behind it. The last report has the current state
			// of the device, so it is kept and retried: the server, or a proxy before it, may be repaired.
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
		if err := a.spool.markSent(r.Sequence, got); err != nil {
			a.Log.Warn("reports not stored", "err", err)
		}
	}
}

// refusal is a response that a retry does not change.
type refusal struct {
	why       string
	malformed bool // no server would accept it
}

func (r refusal) Error() string { return r.why }

// isRefusal reports whether a status rejects the report itself, and not the token or the time.
func isRefusal(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusProxyAuthRequired, http.StatusRequestTimeout,
		http.StatusMisdirectedRequest, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return status >= 400 && status < 500
}

func (a *Agent) post(ctx context.Context, r delivery.Report) (got response, err error) {
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
	case isRefusal(resp.StatusCode):
		malformed := resp.StatusCode == http.StatusBadRequest || resp.StatusCode == http.StatusRequestEntityTooLarge
		return got, refusal{fmt.Sprintf("the server answered %s: %.200q", resp.Status, text), malformed}
	default:
		if err := overloaded(resp); err != nil {
			return got, err
		}
		return got, fmt.Errorf("the server answered %s: %.200q", resp.Status, text)
	}
	if err := json.Unmarshal(text, &got); err != nil {
		return response{}, fmt.Errorf("decode the server's response: %w", err)
	}
	return got, nil
}
