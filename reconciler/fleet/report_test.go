package fleet_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/fleet"
)

func TestRepeatedReports(t *testing.T) {
	s := newSite(t, nil)
	r := report("d1", 5)
	s.report(t, r)
	before := s.now
	s.now = s.now.Add(time.Minute)
	r.Labels["site"] = "elsewhere"
	for _, sequence := range []int64{5, 3} {
		r.Sequence = sequence
		status, answer := s.post(t, token, encode(t, r))
		if status != 200 || !strings.HasPrefix(answer, `{"highest":5`) {
			t.Errorf("sequence %d: got %d %s", sequence, status, answer)
		}
	}
	devices := s.Devices()
	if len(devices) != 1 || devices[0].Report.Labels["site"] != "north" || !devices[0].LastHeard.Equal(before) {
		t.Errorf("a repeat changed something: %+v", devices)
	}
	if n := s.reg.saves; n != 1 {
		t.Errorf("saved %d times, want once", n)
	}
}

func TestHealthyHistory(t *testing.T) {
	s := newSite(t, nil)
	offer := func(names ...any) {
		for _, name := range names {
			d := desired(1)
			d.Release.Bundle = bundle(fmt.Sprint(name))
			s.publish(t, d)
		}
	}
	for i := range 20 {
		offer(fmt.Sprint(i), fmt.Sprint("new", i))
	}
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
	s.restart(t) // the history is stored
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

func TestWakesForChangesOnly(t *testing.T) {
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
		{"no token", "", good, 401, "aob device token FLEET DEVICE prints it"},
		{"a shared token", "a shared token of the fleet", good, 401, "each device has its own"},
		{"the fleet's secret", secret, good, 401, "each device has its own"},
		{"wrong token", fleet.DeviceToken("another secret of it", "north", "d1"), good, 401, "the token is wrong"},
		{"another device's", fleet.DeviceToken(secret, "north", "d2"), good, 403,
			"for device d2 in ring north, but the report is of device d1"},
		{"another ring's", fleet.DeviceToken(secret, "south", "d1"), good, 403, "for device d1 in ring south"},
		{"the name of another device with this token's code", "north/d1:" + strings.TrimPrefix(fleet.DeviceToken(secret,
			"north",
			"d2"), "north/d2:"), good, 401, "the token is wrong"},
		{"held", token, with(func(r *delivery.Report) { r.Blocked = strings.Repeat("y", 1025) }), 400,
			"held: want at most"},
		{"installation", token, with(func(r *delivery.Report) { r.Installation = "a b" }), 400,
			"installation, boot and receipt"},
		{"endless", token, strings.Repeat(" ", fleet.MaxReport+1), 413, "at most 65536 bytes"},
		{"empty", token, "", 400, "not a report"},
		{"an array", token, "[]", 400, "not a report"},
		{"unknown field", token, strings.Replace(good, "{", `{"x":1,`, 1), 400,
			`unknown field "x"; this aob serve does not know it: update aob serve before aob-agent`},
		{"two reports", token, good + good, 400, "there is data after it"},
		{"device's name", fleet.DeviceToken(secret, "north", "d1"), with(func(r *delivery.Report) { r.Device = "D 1" }),
			400, "device: want lower-case"},
		{"ring's name", fleet.DeviceToken(secret, "north", "d1"), with(func(r *delivery.Report) {
			r.Ring = strings.Repeat("r", 65)
		}), 400, "ring: want lower-case"},
		{"sequence", token, with(func(r *delivery.Report) { r.Sequence = 0 }), 400, "sequence: want 1"},
		{"phase", token, with(func(r *delivery.Report) { r.Phase = "great" }), 400, "phase: want one of"},
		{"healthy without a bundle", token, with(func(r *delivery.Report) { r.Phase = delivery.DeviceHealthy }), 400,
			"want a digest in phase healthy"},
		{"failed without a bundle", token, with(func(r *delivery.Report) { r.Phase = delivery.DeviceFailed }), 400,
			"want a digest in phase failed"},
		{"digest", token, with(func(r *delivery.Report) { r.Bundle = "sha256:00" }), 400, "want a digest"},
		{"slot", token, with(func(r *delivery.Report) { r.Slot = "c" }), 400, "slot: want a or b"},
		{"negative", token, with(func(r *delivery.Report) { r.Downloaded = -1 }), 400, "negative"},
		{"why", token, with(func(r *delivery.Report) { r.Why = strings.Repeat("y", 1025) }), 400, "why: want at most"},
		{"labels", token, with(func(r *delivery.Report) {
			for i := range 33 {
				r.Labels[fmt.Sprint(i)] = "x"
			}
		}), 400, "at most 32"},
		{"a label", token, with(func(r *delivery.Report) { r.Labels["x"] = strings.Repeat("y", 65) }), 400,
			"labels: want names"},
		{"one device more than the limit", token, with(func(r *delivery.Report) { r.Device = "d2" }), 503,
			"repeat it later"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, answer := s.post(t, c.token, []byte(c.body))
			if status != c.status || !strings.Contains(answer, c.want) {
				t.Errorf("got %d %s, want %d %s", status, answer, c.status, c.want)
			}
			if strings.Contains(answer, secret) {
				t.Error("the response contains the secret")
			}
		})
	}
	if devices := s.Devices(); len(devices) != 1 || devices[0].Report.Sequence != 1 {
		t.Errorf("a refused report was stored: %+v", devices)
	}
}

// A report that could not be stored is not counted; a repeat of it is.
func TestRegistryFails(t *testing.T) {
	s := newSite(t, nil)
	s.reg.err = errors.New("disk full")
	if status, answer := s.post(t, token, encode(t, report("d1", 1))); status != 503 ||
		strings.Contains(answer, "disk") {
		t.Errorf("got %d %s", status, answer)
	}
	if len(s.Devices()) != 0 {
		t.Error("the device is known although its report was not stored")
	}
	s.reg.err = nil
	s.report(t, report("d1", 1))
	s.reg.err = errors.New("disk gone")
	if _, err := fleet.Open(t.Context(), s.config); err == nil || !strings.Contains(err.Error(), "disk gone") {
		t.Errorf("opened although the registry fails: %v", err)
	}
}

// A body that never ends is cut off at the limit.
func TestEndlessReport(t *testing.T) {
	s := newSite(t, nil)
	req, err := http.NewRequestWithContext(t.Context(), "POST", s.url+"/fleet/v1/reports",
		io.MultiReader(strings.NewReader(`{"why":"`), endless{}))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+fleet.DeviceToken(secret, "north", "d1"))
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

func TestShortSecretIsRefused(t *testing.T) {
	s := newSite(t, nil)
	s.config.Secret = "short"
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
	f.Add([]byte(`{"device":"d","ring":"r","sequence":1,"phase":"failed","failed":"sha256:` + strings.Repeat("0", 64) +
		`","at":"2026-11-24T12:00:00Z"}`))
	f.Add([]byte(`{"device":"d","labels":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := fleet.ParseReport(body)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatalf("accepted a report that cannot be encoded: %v", err)
		}
		if second, err := fleet.ParseReport(again); err != nil || cmp.Diff(r, second) != "" {
			t.Errorf("does not survive being kept: %v\n%s", err, cmp.Diff(r, second))
		}
	})
}

// Reports about bundles that their ring was never offered do not count, and the reason is stored.
func TestOnlyOfferedBundlesCount(t *testing.T) {
	s := newSite(t, nil)
	s.publish(t, desired(1))
	healthy := func(device string, sequence int64, b delivery.Digest) delivery.Report {
		r := report(device, sequence)
		r.Phase, r.Bundle = delivery.DeviceHealthy, b
		return r
	}
	s.report(t, healthy("d1", 1, bundle("1")))
	s.report(t, healthy("d2", 1, bundle("2"))) // its digest may be known from a pull request
	bad := report("d3", 1)
	bad.Phase, bad.Failed = delivery.DeviceFailed, bundle("2")
	s.report(t, bad)
	check := func(when string, healthy2 []delivery.Digest, ignored2, ignored3 string) {
		t.Helper()
		d := s.Devices()
		if !slices.Equal(d[0].Healthy, []delivery.Digest{bundle("1")}) || d[0].Ignored != "" {
			t.Errorf("%s: d1 is %+v", when, d[0])
		}
		if !slices.Equal(d[1].Healthy, healthy2) || !strings.Contains(d[1].Ignored, ignored2) ||
			(ignored2 == "") != (d[1].Ignored == "") {
			t.Errorf("%s: d2 is %+v", when, d[1])
		}
		if !strings.Contains(d[2].Ignored, ignored3) {
			t.Errorf("%s: d3 is %+v", when, d[2])
		}
	}
	check("before", nil, "healthy, but this ring was never offered", "failed, but this ring was never offered")
	s.publish(t, desired(2))
	s.restart(t) // the offers are stored
	check("offered, not reported again yet", nil, "never offered", "never offered")
	s.report(t, healthy("d2", 2, bundle("2")))
	check("reported again", []delivery.Digest{bundle("2")}, "", "never offered")
}

// Two installations with one name are told apart, even if one is a copy of the other's state folder. A device that was
// reinstalled or restored does not count as two.
func TestTwoInstallationsUnderOneName(t *testing.T) {
	type agent struct {
		installation, receipt string
		sequence              int64
	}
	speak := func(s *site, t *testing.T, a *agent, says string) {
		t.Helper()
		a.sequence++
		r := report("d1", a.sequence)
		r.Installation, r.Boot, r.Receipt, r.Blocked = a.installation, "boot", a.receipt, says
		status, text := s.post(t, token, encode(t, r))
		var got fleet.Receipt
		if err := json.Unmarshal([]byte(text), &got); status != 200 || err != nil || got.Receipt == "" {
			t.Fatalf("got %d %s", status, text)
		}
		a.receipt = got.Receipt
		a.sequence = max(a.sequence, got.Highest)
	}
	two := func(s *site) bool { return s.Devices()[0].TwoPlaces(s.now, time.Minute) }

	t.Run("a copied state folder", func(t *testing.T) {
		s := newSite(t, nil)
		one := &agent{installation: "A"}
		for range 5 {
			speak(s, t, one, "one")
		}
		copied := *one
		for i := range 4 {
			speak(s, t, one, fmt.Sprint("one", i))
			speak(s, t, &copied, fmt.Sprint("copy", i))
		}
		if !two(s) {
			t.Errorf("two places not detected: %+v", s.Devices()[0])
		}
		s.restart(t)
		if !two(s) {
			t.Error("two places are forgotten by a restart")
		}
		s.now = s.now.Add(2 * time.Minute) // the copy was stopped
		speak(s, t, one, "one")
		s.now = s.now.Add(2 * time.Minute)
		speak(s, t, one, "one")
		if two(s) {
			t.Error("still two places after the copy was stopped")
		}
	})
	t.Run("two folders", func(t *testing.T) {
		s := newSite(t, nil)
		one, other := &agent{installation: "A"}, &agent{installation: "B"}
		for i := range 3 {
			speak(s, t, one, fmt.Sprint("one", i))
			speak(s, t, other, fmt.Sprint("other", i))
		}
		if !two(s) {
			t.Errorf("two places not detected: %+v", s.Devices()[0])
		}
	})
	for name, change := range map[string]func(a *agent, early agent){
		"restored":              func(a *agent, early agent) { *a = early },
		"reinstalled":           func(a *agent, early agent) { *a = agent{installation: "B"} },
		"reports.json was lost": func(a *agent, early agent) { a.sequence, a.receipt = 0, "" },
		"the answer was lost":   func(a *agent, early agent) { a.receipt = early.receipt },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, nil)
			a := &agent{installation: "A"}
			speak(s, t, a, "")
			for range 3 { // and again
				early := *a
				for range 3 {
					speak(s, t, a, "")
				}
				change(a, early)
				for range 4 {
					speak(s, t, a, "after")
				}
			}
			if two(s) {
				t.Errorf("counts as two places: %+v", s.Devices()[0])
			}
		})
	}
}

// A report that is sent again because its response was lost does not count as a second installation.
func TestReportSentTwice(t *testing.T) {
	s := newSite(t, nil)
	r := report("d1", 1)
	r.Installation = "A"
	var first, second fleet.Receipt
	for _, into := range []*fleet.Receipt{&first, &second} {
		r.Sent = s.now
		s.now = s.now.Add(time.Second)
		_, text := s.post(t, token, encode(t, r))
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	if first != second || first.Receipt == "" || first.Duplicate || len(s.Devices()[0].Places) != 1 {
		t.Errorf("got %+v, then %+v", first, second)
	}
}

func TestSkew(t *testing.T) {
	s := newSite(t, nil)
	r := report("d1", 1)
	r.At = s.now.Add(-5 * time.Hour) // it was offline since
	r.Sent = s.now.Add(72 * time.Hour)
	s.report(t, r)
	if skew := s.Devices()[0].Skew; skew != 72*time.Hour {
		t.Errorf("skew is %v", skew)
	}
}

func TestForget(t *testing.T) {
	s := newSite(t, nil)
	s.report(t, report("d1", 7))
	if err := s.Forget(t.Context(), "north", "d1"); err != nil {
		t.Fatal(err)
	}
	if n := len(s.Devices()); n != 0 {
		t.Errorf("%d devices after Forget, want 0", n)
	}
	if err := s.Forget(t.Context(), "north", "d1"); !errors.As(err, new(delivery.Blocked)) {
		t.Errorf("got %v", err)
	}
	s.restart(t)
	s.report(t, report("d1", 1)) // a lower sequence number is not a repeat of a new device
	if d := s.Devices(); len(d) != 1 || d[0].Report.Sequence != 1 || !d[0].FirstHeard.Equal(s.now) {
		t.Errorf("got %+v", d)
	}
}

// Reading a document or a bundle needs a device's token.
func TestReadsNeedToken(t *testing.T) {
	s := newSite(t, nil)
	s.publish(t, desired(1))
	bundles := s.Guard(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "model") }))
	for name, c := range map[string]struct {
		authorization    string
		desired, bundles int
	}{
		"none":             {"", 401, 401},
		"the secret":       {"Bearer " + secret, 401, 401},
		"no bearer scheme": {fleet.DeviceToken(secret, "north", "d1"), 401, 401},
		"its own":          {"Bearer " + fleet.DeviceToken(secret, "north", "d1"), 200, 200},
		"another ring's":   {"Bearer " + fleet.DeviceToken(secret, "south", "d1"), 403, 200},
	} {
		for path, want := range map[string]int{"/fleet/v1/desired/north": c.desired,
			"/v2/bundles/manifests/x": c.bundles} {
			req := httptest.NewRequest("GET", path, nil)
			req.Header.Set("Authorization", c.authorization)
			w := httptest.NewRecorder()
			if strings.HasPrefix(path, "/v2") {
				bundles.ServeHTTP(w, req)
			} else {
				s.Handler().ServeHTTP(w, req)
			}
			if w.Code != want {
				t.Errorf("%s, %s: got %d, want %d", name, path, w.Code, want)
			}
		}
	}
	// Parts of one name cannot be moved to the other.
	if fleet.DeviceToken(secret, "a", "b-c") == fleet.DeviceToken(secret, "a-b", "c") {
		t.Error("two devices have the same token")
	}
}

// Many reports at once wake the loop only once per WakeEvery.
func TestManyDevicesWakeOnce(t *testing.T) {
	var wakes atomic.Int64
	s := newSite(t, func(c *fleet.Config) {
		c.Wake = func() { wakes.Add(1) }
		c.WakeEvery, c.MaxRing = time.Hour, 20
	})
	for i := range 20 {
		s.report(t, report(fmt.Sprint("p", i), 1))
	}
	if n := wakes.Load(); n != 1 {
		t.Errorf("20 new devices wake the loop %d times", n)
	}
	if status, _ := s.post(t, token, encode(t, report("p20", 1))); status != 503 {
		t.Errorf("one device more than the limit of a ring: got %d", status)
	}
}

// The log lines that one device can cause are limited.
func TestLogOfOneDeviceIsBounded(t *testing.T) {
	for name, change := range map[string]func(r *delivery.Report, i int){
		"held": func(r *delivery.Report, i int) { r.Blocked = fmt.Sprint(i, strings.Repeat("\x1b", 1000)) },
		"why": func(r *delivery.Report, i int) {
			r.Phase = []delivery.DevicePhase{delivery.DeviceIdle, delivery.DeviceSoaking}[i%2]
			r.Why = strings.Repeat("w", 1000)
		},
		"labels":  func(r *delivery.Report, i int) { r.Labels = map[string]string{"board": fmt.Sprint(i)} },
		"version": func(r *delivery.Report, i int) { r.Desired = int64(1 + i) },
		"high":    func(r *delivery.Report, i int) { r.Desired = int64(1 + 2*i) },
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			s := newSite(t, func(c *fleet.Config) {
				c.Log = slog.New(slog.NewJSONHandler(delivery.LogWriter{W: &log}, nil))
			})
			s.publish(t, desired(1))
			for i := range 500 {
				r := report("d1", int64(i+1))
				change(&r, i)
				s.report(t, r)
				s.now = s.now.Add(10 * time.Millisecond)
			}
			if n := log.Len(); n > 100<<10 {
				t.Errorf("500 reports in 5 s made %d bytes of log", n)
			}
			// Later its lines are written again, with the number of dropped ones.
			log.Reset()
			s.now = s.now.Add(time.Hour)
			r := report("d1", 1000)
			r.Blocked = "cannot download: 403"
			s.report(t, r)
			if got := log.String(); !strings.Contains(got, "cannot download: 403") {
				t.Errorf("an hour later the log says %q", got)
			}
		})
	}
	t.Run("no room", func(t *testing.T) {
		var log bytes.Buffer
		s := newSite(t, func(c *fleet.Config) {
			c.Log, c.MaxRing = slog.New(slog.NewJSONHandler(&log, nil)), 1
		})
		s.report(t, report("d1", 1))
		for i := range 500 {
			with := fleet.DeviceToken(secret, "north", "d2")
			if got, _ := s.post(t, with, encode(t, report("d2", int64(i+1)))); got != http.StatusServiceUnavailable {
				t.Fatalf("status %d", got)
			}
		}
		if n := log.Len(); n > 20<<10 {
			t.Errorf("500 refused reports made %d bytes of log", n)
		}
	})
}
