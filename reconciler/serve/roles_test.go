package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestRoles(t *testing.T) {
	n := &nursery{children: make(chan *fakeChild, 100), root: t.TempDir()}
	n.fail = func(version string) error {
		if version == "bad" {
			return errors.New("golden replay: output labels differs")
		}
		return nil
	}
	registry := prometheus.NewRegistry()
	host := HostOptions{Start: n.start, Name: "m", Patience: time.Millisecond}
	r := NewRoles(RolesOptions{Host: host, Shadow: host, Metrics: NewMetrics(registry, false)})
	call := func(method, path, body string) (int, Status, string) {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
		var s Status
		if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil {
			t.Fatalf("%s %s: %v: %s", method, path, err, w.Body)
		}
		return w.Code, s, w.Body.String()
	}
	body := func(version, more string) string {
		var b bytes.Buffer
		fmt.Fprintf(&b, `{"bundle": %q, "version": %q%s}`, n.bundle(t, version).Dir, version, more)
		return b.String()
	}
	if _, s, _ := call("GET", "/status", ""); !strings.Contains(s.Main.Trouble, "no model is loaded") {
		t.Errorf("at first: %+v", s)
	}
	if code, s, text := call(
		"PUT",
		"/bundle",
		body("v1", ""),
	); code != 200 || s.Main.Version != "v1" ||
		s.Main.Model != "m" {
		t.Errorf("%d %s", code, text)
	}
	for name, c := range map[string]struct{ path, body, want string }{
		"a bad model":     {"/bundle", body("bad", ""), "golden replay"},
		"no version":      {"/bundle", `{"bundle": "x"}`, "want a JSON object with bundle"},
		"another field":   {"/bundle", `{"bundle": "x", "version": "1", "more": 1}`, "unknown field"},
		"no share":        {"/shadow", body("v2", ""), "share is 0"},
		"too large share": {"/shadow", body("v2", `, "share": 1.5`), "share is 1.5"},
		"a bad shadow":    {"/shadow", body("bad", `, "share": 1`), "golden replay"},
	} {
		code, _, text := call("PUT", c.path, c.body)
		if code != 409 || !strings.Contains(text, c.want) {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	if _, s, _ := call("GET", "/status", ""); s.Main.Version != "v1" || s.Main.Trouble != "" || s.Shadow != nil {
		t.Errorf("after refusals: %+v", s)
	}

	if code, s, text := call("PUT", "/shadow", body("v2", `, "share": 1`)); code != 200 || s.Shadow == nil ||
		s.Shadow.Version != "v2" || s.Shadow.Share != 1 {
		t.Fatalf("%d %s", code, text)
	}
	if code, s, text := call("PUT", "/shadow", body("v4", `, "share": 1`)); code != 200 || s.Shadow.Version != "v4" {
		t.Errorf("a shadow in place of a shadow: %d %s", code, text)
	}
	if code, _, text := call("PUT", "/shadow", body("v2", `, "share": 1`)); code != 200 {
		t.Fatalf("%d %s", code, text)
	}
	r.mu.Lock()
	compare := r.compare
	r.mu.Unlock()
	ask(t, r, 0)
	for compare.ctx.Err() == nil {
		if _, s, _ := call("GET", "/status", ""); s.Shadow.Agreement.Images == 1 {
			break
		}
	}
	got := scrape(t, registry)
	for _, want := range []string{`aob_detect_ready{release="v1",role="main"} 1`,
		`aob_detect_ready{release="v2",role="shadow"} 1`, `aob_detect_shadow_images_total{outcome="compared"} 1`} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("%s is missing", want)
		}
	}
	if code, s, text := call("DELETE", "/shadow", ""); code != 200 || s.Shadow != nil {
		t.Errorf("%d %s", code, text)
	}
	if code, s, text := call("PUT", "/bundle", body("v3", "")); code != 200 || s.Main.Version != "v3" {
		t.Errorf("%d %s", code, text)
	}
	ask(t, r, 0)
	got = scrape(t, registry)
	if strings.Count(got, "aob_detect_ready{") != 1 ||
		!strings.Contains(got, `aob_detect_ready{release="v3",role="main"} 1`) {
		t.Errorf("series of models that are gone:\n%s", got)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// The metrics say whether a model serves, and a shadow that has died leaves no series.
func TestRolesTellMetrics(t *testing.T) {
	n := &nursery{children: make(chan *fakeChild, 100), root: t.TempDir()}
	registry := prometheus.NewPedanticRegistry()
	host := HostOptions{Start: n.start, Name: "m", Patience: time.Millisecond, Heartbeat: time.Hour,
		Backoff: func(int) time.Duration { return time.Hour }}
	r := NewRoles(RolesOptions{Host: host, Shadow: host, Metrics: NewMetrics(registry, false)})
	if err := r.Load(t.Context(), n.bundle(t, "v1")); err != nil {
		t.Fatal(err)
	}
	main := <-n.children
	for range 2 { // the second one has the name of the first one
		if err := r.StartShadow(t.Context(), n.bundle(t, "v2"), 1); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(when string, want ...string) {
		t.Helper()
		got := scrape(t, registry)
		for _, line := range want {
			if !strings.Contains(got, line+"\n") {
				t.Errorf("%s: %s is missing", when, line)
			}
		}
		if n := strings.Count(got, "aob_detect_ready{"); n != len(want) {
			t.Errorf("%s: %d models, want %d", when, n, len(want))
		}
	}
	expect("at first", `aob_detect_ready{release="v1",role="main"} 1`, `aob_detect_ready{release="v2",role="shadow"} 1`)
	<-n.children
	shadow := <-n.children
	main.crash("boom")
	shadow.crash("boom")
	for r.Status().Main.Trouble == "" || r.Status().Shadow.Trouble == "" {
		runtime.Gosched()
	}
	expect("after a crash", `aob_detect_ready{release="v1",role="main"} 0`,
		`aob_detect_ready{release="v2",role="shadow"} 0`)
	r.EndShadow()
	expect("without a shadow", `aob_detect_ready{release="v1",role="main"} 0`)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
