package fleet_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/fleet"
	"github.com/autonomos/aob/reconciler/trust"
)

func benchRequest(device string) delivery.BenchRequest {
	return delivery.BenchRequest{Ring: "north", Device: device, BenchRun: delivery.BenchRun{
		Bundle: delivery.Sum([]byte("bundle")), Profile: "orin-nano-fp16", Settings: delivery.GateBench()}}
}

// measured is the answer of a device that takes 10 ms for an image.
func measured(r delivery.BenchRequest) delivery.BenchAnswer {
	b := delivery.Bench{BenchRun: r.BenchRun, Model: delivery.Sum([]byte("model")),
		Hardware: delivery.Sum([]byte("profile")), At: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC),
		Machine: delivery.BenchMachine{Cores: 6, Threads: 2, Platform: "linux/arm64"}}
	stages := map[string]delivery.BenchTimes{}
	for _, stage := range delivery.BenchStages {
		stages[stage] = delivery.BenchTimes{P50: .01, P90: .01, P95: .01, P99: .01}
	}
	for range r.Settings.Repeats {
		b.Result.Repeats = append(b.Result.Repeats, delivery.BenchRepeat{Stages: stages, Throughput: 100})
	}
	b.Result.Clients = 4
	return delivery.BenchAnswer{Key: r.Key(), Bench: &b}
}

// bench calls the route as a device.
func (s *site) bench(t *testing.T, device, method string, body []byte) (int, []byte) {
	t.Helper()
	req, err := http.NewRequest(method, s.url+"/fleet/v1/bench", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if device != "" {
		req.Header.Set("Authorization", "Bearer "+fleet.DeviceToken(secret, "north", device))
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, text
}

// A request reaches the device that it is for and no other one, and its first answer counts.
func TestBench(t *testing.T) {
	s := newSite(t, nil)
	r := benchRequest("bench-1")
	if err := s.Ask(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for device, want := range map[string]int{"": http.StatusUnauthorized, "robot-7": http.StatusNoContent} {
		if code, text := s.bench(t, device, http.MethodGet, nil); code != want {
			t.Errorf("%q gets %d: %s", device, code, text)
		}
	}
	code, envelope := s.bench(t, "bench-1", http.MethodGet, nil)
	payload, _, err := trust.Verify(envelope, delivery.BenchPayload, []trust.PublicKey{s.config.Key.Public()})
	if code != http.StatusOK || err != nil {
		t.Fatalf("%d, %v", code, err)
	}
	var got delivery.BenchRequest
	if err := json.Unmarshal(payload, &got); err != nil || got.Key() != r.Key() ||
		!got.Expires.Equal(s.now.Add(2*time.Hour)) {
		t.Errorf("%+v, %v", got, err)
	}
	good, err := json.Marshal(measured(r))
	if err != nil {
		t.Fatal(err)
	}
	other := measured(r)
	other.Bench.Bundle = delivery.Sum([]byte("another bundle"))
	otherBundle, _ := json.Marshal(other)
	hostile, _ := json.Marshal(delivery.BenchAnswer{Key: r.Key(), Why: "\x1b[2Jgone"})
	for name, c := range map[string]struct {
		device string
		body   []byte
		want   int
	}{
		"nobody":            {"", good, http.StatusUnauthorized},
		"who was not asked": {"robot-7", good, http.StatusConflict},
		"another bundle":    {"bench-1", otherBundle, http.StatusBadRequest},
		"hostile text":      {"bench-1", hostile, http.StatusBadRequest},
		"no JSON":           {"bench-1", []byte("{"), http.StatusBadRequest},
		"unknown field":     {"bench-1", []byte(`{"evil":1}`), http.StatusBadRequest},
		"too long":          {"bench-1", bytes.Repeat([]byte(" "), 300<<10), http.StatusRequestEntityTooLarge},
	} {
		if code, text := s.bench(t, c.device, http.MethodPost, c.body); code != c.want {
			t.Errorf("%s: %d: %s", name, code, text)
		}
	}
	if a := s.Asked(); len(a) != 1 || a[0].Answer != nil {
		t.Errorf("something was taken: %+v", a)
	}
	failed, _ := json.Marshal(delivery.BenchAnswer{Key: r.Key(), Why: "no room on the disk"})
	for _, body := range [][]byte{good, failed, good} { // sent again, because the response was lost
		if code, text := s.bench(t, "bench-1", http.MethodPost, body); code != http.StatusNoContent {
			t.Errorf("%d: %s", code, text)
		}
	}
	if s.wakes == 0 {
		t.Error("the loop is not woken")
	}
	if code, _ := s.bench(t, "bench-1", http.MethodGet, nil); code != http.StatusNoContent {
		t.Errorf("an answered request is asked again: %d", code)
	}
	// Asking again changes nothing, also after a restart.
	again, err := fleet.Open(t.Context(), s.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Ask(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if a := again.Asked(); len(a) != 1 || a[0].Answer == nil || a[0].Answer.Bench == nil ||
		a[0].Answer.Bench.Result.Clients != 4 {
		t.Errorf("after a restart: %+v", a)
	}
}

// A request without an answer ends, and is made again.
func TestBenchExpires(t *testing.T) {
	s := newSite(t, nil)
	r := benchRequest("bench-1")
	for range 2 {
		if err := s.Ask(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if code, _ := s.bench(t, "bench-1", http.MethodGet, nil); code != http.StatusOK {
			t.Errorf("not asked: %d", code)
		}
		s.now = s.now.Add(2 * time.Hour)
		if code, _ := s.bench(t, "bench-1", http.MethodGet, nil); code != http.StatusNoContent {
			t.Errorf("asked for what has expired: %d", code)
		}
	}
	r.Device = "../../robot"
	if err := s.Ask(t.Context(), r); err == nil || !strings.Contains(err.Error(), "want lower-case letters") {
		t.Error(err)
	}
}

func FuzzParseBenchAnswer(f *testing.F) {
	r := benchRequest("bench-1")
	good, err := json.Marshal(measured(r))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"key":"` + string(r.Key()) + `","why":"no room"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := fleet.ParseBenchAnswer(body, r)
		if err != nil {
			return
		}
		switch {
		case a.Key != r.Key() || (a.Bench == nil) == (a.Why == ""):
			t.Errorf("taken: %+v", a)
		case a.Bench != nil && (a.Bench.BenchRun != r.BenchRun || a.Bench.Check() != nil || a.Bench.Device != ""):
			t.Errorf("taken: %+v", a.Bench)
		case a.Why != delivery.PlainText(a.Why, 1000):
			t.Errorf("taken: %q", a.Why)
		}
	})
}
