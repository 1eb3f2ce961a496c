package web_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/web"
	"github.com/autonomos/aob/tools/hostile"
)

type counts web.Counts

func (c counts) Counts() web.Counts { return web.Counts(c) }

// used returns metrics that all have a value.
func used(t *testing.T) *web.Metrics {
	t.Helper()
	m := web.NewMetrics()
	m.Watch(counts{
		Runs:    map[web.RunCount]int{{Kind: delivery.RunTrain, Phase: delivery.RunRunning}: 2},
		Devices: map[web.DeviceCount]int{{Fleet: "demo", Phase: delivery.DeviceHealthy}: 3},
		Queues:  map[string]int{"posts": 7},
		Blocked: 2 * time.Hour,
		Stored:  map[string]web.Amount{"bundle": {Count: 5, Bytes: 17_000_000}},
	})
	m.Phase("plan", 2*time.Millisecond)
	m.Computed("pull request", 40)
	m.Computed("model", 0)
	m.Removed("run")
	m.Turn(9*time.Millisecond, 2, nil)
	m.Turn(time.Second, 0, errors.New("no"))
	m.ForgeCall("say", 20*time.Millisecond, delivery.Wait{For: time.Second})
	m.Step("run", nil)
	m.Step("commit", delivery.Blocked{What: "a fork"})
	m.GitObserve(5 * time.Millisecond)
	m.RunStarted(delivery.RunTrain)
	m.RunStarted(delivery.RunEval)
	m.BytesServed(4096)
	m.BytesServed(-1)
	m.Webhook("taken")

	remote := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, strings.Repeat("x", 700))
	}))
	defer remote.Close()
	resp, err := (&http.Client{Transport: m.CountGit(http.DefaultTransport)}).Get(remote.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return m
}

func scrape(t *testing.T, m *web.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// Whatever the name of a fleet is, its metric has one line, and no other metric is lost.
func TestUntrustedLabels(t *testing.T) {
	for _, text := range hostile.Texts {
		m := web.NewMetrics()
		m.Watch(counts{Devices: map[web.DeviceCount]int{{Fleet: text, Phase: delivery.DevicePhase(text)}: 3},
			Runs: map[web.RunCount]int{{Kind: delivery.RunKind(text)}: 1}})
		got := scrape(t, m)
		if err := hostile.Screen(got); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if n := strings.Count(got, "\naob_devices{") + strings.Count(got, "\naob_runs{"); n != 2 ||
			!strings.Contains(got, "\ngo_goroutines ") {
			t.Errorf("%q: %d lines, want 2: %s", text, n, got)
		}
	}
}

func TestMetrics(t *testing.T) {
	text := scrape(t, used(t))
	for _, want := range []string{
		`aob_turns_total{result="ok"} 1`, `aob_turns_total{result="error"} 1`,
		`aob_turn_seconds_bucket{le="0.01"} 1`, `aob_turn_seconds_count 2`,
		`aob_forge_call_seconds_count{result="wait",what="say"} 1`,
		`aob_steps_total{kind="run",result="ok"} 1`, `aob_steps_total{kind="commit",result="blocked"} 1`,
		`aob_git_observe_seconds_count 1`, `aob_git_bytes_read_total 700`,
		`aob_runs{kind="train",phase="running"} 2`, `aob_devices{fleet="demo",phase="healthy"} 3`,
		`aob_runs_started_total{kind="train"} 1`, `aob_runs_started_total{kind="data"} 0`, `aob_trainings_total 1`,
		`aob_model_bytes_served_total 4096`, `aob_webhooks_total{result="taken"} 1`,
		`aob_turn_phase_seconds_bucket{phase="plan",le="0.003"} 1`, `aob_turn_computed_total{what="pull request"} 40`,
		`aob_queue_length{queue="posts"} 7`, `aob_stored_items{kind="bundle"} 5`,
		`aob_stored_bytes{kind="bundle"} 1.7e+07`, `aob_removed_total{kind="run"} 1`,
		"aob_retention_blocked_seconds 7200",
		"go_goroutines ", "process_open_fds ",
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

func TestMetricNames(t *testing.T) {
	problems, err := promlint.New(strings.NewReader(scrape(t, used(t)))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "aob_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestWebhook(t *testing.T) {
	unsigned := errors.New("the webhook's signature is wrong")
	woken := 0
	m := web.NewMetrics()
	hook := web.Webhook{Unsigned: unsigned, Wake: func() { woken++ }, Metrics: m, Log: logger(t.Output()),
		Read: func(r *http.Request) (string, error) {
			body, err := io.ReadAll(r.Body)
			switch {
			case err != nil:
				return "", err
			case r.Header.Get("X-Signature") != "good":
				return "", unsigned
			case string(body) != "push":
				return "", errors.New("no event")
			}
			return "push", nil
		}}
	for _, c := range []struct {
		method, signature, body string
		code, woken             int
	}{
		{"POST", "good", "push", 204, 1},
		{"POST", "good", "push", 204, 2}, // sent twice
		{"POST", "bad", "push", 401, 2},
		{"POST", "good", "nonsense", 400, 2},
		{"POST", "good", strings.Repeat("x", web.MaxWebhook+1), 413, 2},
		{"GET", "good", "", 405, 2},
	} {
		r := httptest.NewRequest(c.method, "/webhook", strings.NewReader(c.body))
		r.Header.Set("X-Signature", c.signature)
		w := httptest.NewRecorder()
		hook.ServeHTTP(w, r)
		if w.Code != c.code || woken != c.woken {
			t.Errorf("%s %.10s: %d and woken %d times, want %d and %d", c.method, c.body, w.Code, woken, c.code,
				c.woken)
		}
	}
	text := scrape(t, m)
	for _, want := range []string{`{result="taken"} 2`, `{result="unsigned"} 1`, `{result="refused"} 2`} {
		if !strings.Contains(text, "aob_webhooks_total"+want) {
			t.Errorf("/metrics lacks aob_webhooks_total%s", want)
		}
	}
}
