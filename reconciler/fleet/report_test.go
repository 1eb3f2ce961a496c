package fleet_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/fleet"
)

func TestReportsCountOnce(t *testing.T) {
	s := newSite(t, nil)
	r := report("d1", 5)
	s.report(t, r)
	seen := s.now
	s.now = s.now.Add(time.Minute)
	r.Labels["site"] = "elsewhere"
	for _, sequence := range []int64{5, 3} {
		r.Sequence = sequence
		status, answer := s.post(t, token, encode(t, r))
		if status != 200 || answer != `{"highest":5}` {
			t.Errorf("sequence %d: got %d %s", sequence, status, answer)
		}
	}
	devices := s.Devices()
	if len(devices) != 1 || devices[0].Report.Labels["site"] != "north" || !devices[0].Seen.Equal(seen) {
		t.Errorf("a repeat changed something: %+v", devices)
	}
	if st := s.Stats(); st.Reports != 1 || st.Repeats != 2 {
		t.Errorf("stats %+v", st)
	}
}

func TestHealthyHistory(t *testing.T) {
	s := newSite(t, nil)
	var want []delivery.Digest
	for i := range 20 {
		r := report("d1", int64(i+1))
		r.Phase, r.Bundle = delivery.DeviceHealthy, bundle(fmt.Sprint(i))
		if i%3 == 2 {
			r.Phase = delivery.DeviceSoaking // never healthy
		} else {
			want = append(want, r.Bundle)
		}
		s.report(t, r)
	}
	again := report("d1", 21)
	again.Phase, again.Bundle = delivery.DeviceHealthy, bundle("15")
	s.report(t, again)
	want = append(slices.DeleteFunc(want, func(d delivery.Digest) bool { return d == again.Bundle }), again.Bundle)
	s.restart(t) // what is kept is what is known
	if diff := cmp.Diff(want, s.Devices()[0].Healthy); diff != "" {
		t.Errorf("healthy bundles (-want +got):\n%s", diff)
	}
	for i := range 20 {
		r := report("d1", int64(100+i))
		r.Phase, r.Bundle = delivery.DeviceHealthy, bundle(fmt.Sprint("new", i))
		s.report(t, r)
	}
	if got := s.Devices()[0].Healthy; len(got) != 16 || got[15] != bundle("new19") {
		t.Errorf("history of %d bundles ends with %s", len(got), got[len(got)-1])
	}
}

func TestWakesForNewsOnly(t *testing.T) {
	s := newSite(t, nil)
	r := report("d1", 1)
	s.report(t, r)
	if s.wakes != 1 {
		t.Errorf("a new device: woken %d times", s.wakes)
	}
	r.Sequence = 2
	s.report(t, r)
	if s.wakes != 1 {
		t.Errorf("a heartbeat: woken %d times", s.wakes)
	}
	r.Sequence, r.Phase = 3, delivery.DeviceDownloading
	s.report(t, r)
	if s.wakes != 2 {
		t.Errorf("a transition: woken %d times", s.wakes)
	}
}

func TestReportsRefused(t *testing.T) {
	s := newSite(t, func(c *fleet.Config) { c.MaxDevices = 1 })
	s.report(t, report("d1", 1))
	good := string(encode(t, report("d1", 2)))
	with := func(change func(*delivery.Report)) string {
		r := report("d1", 2)
		change(&r)
		return string(encode(t, r))
	}
	for _, c := range []struct {
		name, token, body string
		status            int
		want              string
	}{
		{"no token", "", good, 401, "token"},
		{"wrong token", token + "x", good, 401, "token"},
		{"endless", token, strings.Repeat(" ", fleet.MaxReport+1), 413, "at most 65536 bytes"},
		{"empty", token, "", 400, "not a report"},
		{"an array", token, "[]", 400, "not a report"},
		{"unknown field", token, strings.Replace(good, "{", `{"x":1,`, 1), 400, `unknown field "x"`},
		{"two", token, good + good, 400, "something follows"},
		{"device's name", token, with(func(r *delivery.Report) { r.Device = "D 1" }), 400, "device: want lower-case"},
		{"ring's name", token, with(func(r *delivery.Report) { r.Ring = strings.Repeat("r", 65) }), 400, "ring: want lower-case"},
		{"sequence", token, with(func(r *delivery.Report) { r.Sequence = 0 }), 400, "sequence: want 1"},
		{"phase", token, with(func(r *delivery.Report) { r.Phase = "great" }), 400, "phase: want one of"},
		{"healthy with nothing", token, with(func(r *delivery.Report) { r.Phase = delivery.DeviceHealthy }), 400, "no bundle"},
		{"failed with nothing", token, with(func(r *delivery.Report) { r.Phase = delivery.DeviceFailed }), 400, "names no bundle"},
		{"digest", token, with(func(r *delivery.Report) { r.Bundle = "sha256:00" }), 400, "want a digest"},
		{"slot", token, with(func(r *delivery.Report) { r.Slot = "c" }), 400, "slot: want a or b"},
		{"negative", token, with(func(r *delivery.Report) { r.Downloaded = -1 }), 400, "negative"},
		{"why", token, with(func(r *delivery.Report) { r.Why = strings.Repeat("y", 1025) }), 400, "why: want at most"},
		{"labels", token, with(func(r *delivery.Report) {
			for i := range 33 {
				r.Labels[fmt.Sprint(i)] = "x"
			}
		}), 400, "at most 32"},
		{"a label", token, with(func(r *delivery.Report) { r.Labels["x"] = strings.Repeat("y", 65) }), 400, "labels: want names"},
		{"a device too many", token, with(func(r *delivery.Report) { r.Device = "d2" }), 503, "repeat it later"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, answer := s.post(t, c.token, []byte(c.body))
			if status != c.status || !strings.Contains(answer, c.want) {
				t.Errorf("got %d %s, want %d %s", status, answer, c.status, c.want)
			}
			if strings.Contains(answer, token) {
				t.Error("the answer tells the token")
			}
		})
	}
	if devices := s.Devices(); len(devices) != 1 || devices[0].Report.Sequence != 1 {
		t.Errorf("something was kept: %+v", devices)
	}
}

// A report that could not be kept is not known, and its repeat is.
func TestRegistryFails(t *testing.T) {
	s := newSite(t, nil)
	s.reg.err = errors.New("disk full")
	if status, answer := s.post(t, token, encode(t, report("d1", 1))); status != 503 || strings.Contains(answer, "disk") {
		t.Errorf("got %d %s", status, answer)
	}
	if len(s.Devices()) != 0 {
		t.Error("known, and not kept")
	}
	s.reg.err = nil
	s.report(t, report("d1", 1))
	s.reg.err = errors.New("disk gone")
	if _, err := fleet.Open(t.Context(), s.config); err == nil || !strings.Contains(err.Error(), "disk gone") {
		t.Errorf("opened on a registry that fails: %v", err)
	}
}

// A body that never ends is cut off, not swallowed.
func TestEndlessReport(t *testing.T) {
	s := newSite(t, nil)
	req, err := http.NewRequestWithContext(t.Context(), "POST", s.url+"/fleet/v1/reports", io.MultiReader(strings.NewReader(`{"why":"`), endless{}))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return // the connection was cut while the body was still being sent
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("got %s", resp.Status)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	return len(p), nil
}

func TestShortTokenIsRefused(t *testing.T) {
	s := newSite(t, nil)
	s.config.Token = "short"
	if _, err := fleet.Open(t.Context(), s.config); err == nil || strings.Contains(err.Error(), "short") {
		t.Errorf("got %v", err)
	}
}

func FuzzParseReport(f *testing.F) {
	good, err := json.Marshal(report("d1", 1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"device":"d","ring":"r","sequence":1,"phase":"failed","failed":"sha256:` + strings.Repeat("0", 64) + `","at":"2026-11-24T12:00:00Z"}`))
	f.Add([]byte(`{"device":"d","labels":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := fleet.ParseReport(body)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatalf("accepted what cannot be kept: %v", err)
		}
		if second, err := fleet.ParseReport(again); err != nil || cmp.Diff(r, second) != "" {
			t.Errorf("does not survive being kept: %v\n%s", err, cmp.Diff(r, second))
		}
	})
}
