package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/trust"
)

// This file asks single devices to measure bundles. A request is signed, is for one device alone, and expires soon.
// Only that device can read it, and only an agent that was started with --bench asks for one.

const (
	benchExpiry    = 2 * time.Hour
	maxBenchAnswer = 256 << 10 // bytes
)

// benchState is the request to a device: DIR/bench/RING/DEVICE.json.
type benchState struct {
	delivery.BenchAsked
	Envelope []byte `json:"envelope"`
}

func (s *Server) benchFile(key deviceKey) string {
	return filepath.Join(s.Dir, "bench", key.ring, key.device+".json")
}

// loadBenches reads the requests. One that cannot be read is asked again.
func (s *Server) loadBenches() error {
	files, err := filepath.Glob(filepath.Join(s.Dir, "bench", "*", "*.json"))
	if err != nil {
		return err
	}
	for _, path := range files {
		var b benchState
		if err := durable.ReadJSON(path, &b); err != nil {
			s.Log.Warn("a request for a bench cannot be read; it is made again", "file", path, "err", err)
			continue
		}
		s.benches[deviceKey{b.Request.Ring, b.Request.Device}] = b
	}
	return nil
}

// Ask asks a device to measure a bundle, in place of an earlier request. The same request again changes nothing, unless
// it has expired without a result.
func (s *Server) Ask(ctx context.Context, r delivery.BenchRequest) error {
	key := deviceKey{r.Ring, r.Device}
	err := errors.Join(checkName("device", r.Device), checkName("ring", r.Ring), r.BenchRun.Check(), ctx.Err())
	if err == nil {
		err = s.ask(key, r)
	}
	if err != nil {
		return fmt.Errorf("ask device %.80q of fleet %.80q for a bench: %w", r.Device, r.Ring, err)
	}
	return nil
}

func (s *Server) ask(key deviceKey, r delivery.BenchRequest) error {
	defer s.lock(key)()
	s.mu.Lock()
	old, ok := s.benches[key]
	now := s.Now()
	s.mu.Unlock()
	measured := ok && old.Answer != nil && old.Answer.Bench != nil
	if ok && old.Request.Key() == r.Key() && (measured || now.Before(old.Request.Expires)) {
		return nil
	}
	r.Expires = now.Add(benchExpiry).UTC().Truncate(time.Second)
	payload, err := json.Marshal(r)
	if err != nil {
		return err
	}
	b := benchState{BenchAsked: delivery.BenchAsked{Request: r}}
	if b.Envelope, err = trust.Sign(s.Key, delivery.BenchPayload, payload); err != nil {
		return err
	}
	if err := s.keepBench(key, b); err != nil {
		return err
	}
	s.Log.Info("asked for a bench", "device", r.Device, "ring", r.Ring, "bundle", r.Bundle, "profile", r.Profile)
	return nil
}

// keepBench stores a request durably. The caller has locked the device.
func (s *Server) keepBench(key deviceKey, b benchState) error {
	if err := os.MkdirAll(filepath.Dir(s.benchFile(key)), 0o700); err != nil {
		return err
	}
	if err := durable.WriteJSON(s.benchFile(key), b); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.benches[key] = b
	return nil
}

// Asked returns the requests to devices, sorted by ring and device.
func (s *Server) Asked() []delivery.BenchAsked {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := slices.SortedFunc(maps.Keys(s.benches), func(a, b deviceKey) int {
		return slices.Compare([]string{a.ring, a.device}, []string{b.ring, b.device})
	})
	return delivery.Each(keys, func(k deviceKey) delivery.BenchAsked { return s.benches[k].BenchAsked })
}

// serveBench answers GET /fleet/v1/bench with the request to the device that asks: 204 if there is none to answer.
func (s *Server) serveBench(w http.ResponseWriter, r *http.Request) {
	ring, device, ok := s.authorize(w, r)
	if !ok {
		return
	}
	s.mu.Lock()
	b, asked := s.benches[deviceKey{ring, device}]
	now := s.Now()
	s.mu.Unlock()
	if !asked || b.Answer != nil || !now.Before(b.Request.Expires) {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(b.Envelope)
}

// serveBenched takes the answer to a request.
func (s *Server) serveBenched(w http.ResponseWriter, r *http.Request) {
	ring, device, ok := s.authorize(w, r) // before the body is read
	if !ok {
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBenchAnswer))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		http.Error(w, fmt.Sprintf("the answer is too long: want at most %d bytes", maxBenchAnswer),
			http.StatusRequestEntityTooLarge)
		return
	}
	if err != nil {
		http.Error(w, "the request's body ended early", http.StatusBadRequest)
		return
	}
	key := deviceKey{ring, device}
	defer s.lock(key)()
	s.mu.Lock()
	b, asked := s.benches[key]
	s.mu.Unlock()
	if !asked {
		http.Error(w, "this device was not asked for a bench", http.StatusConflict)
		return
	}
	answer, err := ParseBenchAnswer(body, b.Request)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if b.Answer == nil { // the first one counts
		b.Answer = &answer
		if err := s.keepBench(key, b); err != nil {
			s.Log.Error("the result of a bench is not stored", "device", device, "ring", ring, "err", err)
			w.Header().Set("Retry-After", "30")
			http.Error(w, "the answer could not be stored; repeat it later", http.StatusServiceUnavailable)
			return
		}
		s.mu.Lock()
		s.wake()
		s.mu.Unlock()
	}
	w.WriteHeader(http.StatusNoContent)
}

// ParseBenchAnswer decodes and validates an answer from untrusted bytes: known fields only, every value within its
// limits, and about what was asked.
func ParseBenchAnswer(body []byte, r delivery.BenchRequest) (a delivery.BenchAnswer, err error) {
	if err := delivery.ParseJSON(body, &a); err != nil {
		return delivery.BenchAnswer{}, fmt.Errorf("not the answer to a request for a bench: %w", err)
	}
	if err := a.Check(r); err != nil {
		return delivery.BenchAnswer{}, fmt.Errorf("bench: %w", err)
	}
	return a, nil
}
