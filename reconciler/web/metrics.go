package web

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Metrics counts. Its methods may be called from any goroutine.
//
//	aob_turns_total{result}              turns of the loop; result is ok or error
//	aob_turn_seconds                     how long a turn takes
//	aob_steps_total{kind,result}         steps taken; result is ok, wait, blocked or error
//	aob_forge_call_seconds{what,result}  how long the forge takes to answer
//	aob_git_observe_seconds              how long a look at git takes
//	aob_git_bytes_read_total             bytes read from the git remote
//	aob_runs{kind,phase}                 runs there are
//	aob_runs_started_total{kind}         runs started, again after a death included
//	aob_trainings_total                  trainings started, again after a death included
//	aob_devices{fleet,phase}             devices there are; phase is silent for those not heard within the deadline,
//	                                     held for strange ones
//	aob_store_lost_bundles               bundles of which the server's store has lost something
//	aob_model_bytes_served_total         bytes of bundles sent to devices
//	aob_webhooks_total{result}           webhooks; result is taken, unsigned or refused
type Metrics struct {
	registry *prometheus.Registry

	turns      *prometheus.CounterVec
	turn       prometheus.Histogram
	steps      *prometheus.CounterVec
	forge      *prometheus.HistogramVec
	git        prometheus.Histogram
	gitBytes   prometheus.Counter
	started    *prometheus.CounterVec
	trainings  prometheus.Counter
	modelBytes prometheus.Counter
	webhooks   *prometheus.CounterVec
}

// NewMetrics returns metrics in a registry of their own.
func NewMetrics() *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		turns:    vec("aob_turns_total", "Turns of the loop.", "result"),
		turn: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "aob_turn_seconds",
			Help:    "How long a turn of the loop takes.",
			Buckets: []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10, 30}}),
		steps: vec("aob_steps_total", "Steps taken, by kind and how they ended.", "kind", "result"),
		forge: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "aob_forge_call_seconds",
			Help:    "How long the forge takes to answer.",
			Buckets: []float64{.003, .01, .03, .1, .3, 1, 3, 10, 30}}, []string{"what", "result"}),
		git: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "aob_git_observe_seconds",
			Help:    "How long a look at the git remote takes.",
			Buckets: []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10, 30}}),
		gitBytes: counter("aob_git_bytes_read_total", "Bytes read from the git remote."),
		started:  vec("aob_runs_started_total", "Runs started, again after a death included.", "kind"),
		trainings: counter("aob_trainings_total",
			"Trainings started; one that goes on where it was stopped or died is not counted again."),
		modelBytes: counter("aob_model_bytes_served_total", "Bytes of bundles sent to devices."),
		webhooks:   vec("aob_webhooks_total", "Webhooks received.", "result"),
	}
	m.registry.MustRegister(m.turns, m.turn, m.steps, m.forge, m.git, m.gitBytes, m.started, m.trainings, m.modelBytes,
		m.webhooks,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector())
	// Series that a dashboard divides by are there from the start.
	for _, result := range []string{"ok", "error"} {
		m.turns.WithLabelValues(result)
	}
	for _, kind := range []delivery.RunKind{delivery.RunData, delivery.RunTrain, delivery.RunEval, delivery.RunCompare,
		delivery.RunThresholds} {
		m.started.WithLabelValues(string(kind))
	}
	return m
}

// A Counter knows what there is at the moment of asking.
type Counter interface{ Counts() Counts }

// Watch adds aob_runs and aob_devices, which c is asked for whenever the metrics
// are read. It is called once.
func (m *Metrics) Watch(c Counter) { m.registry.MustRegister(gauges{c}) }

// Handler answers GET /metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 30 * time.Second})
}

// Turn counts one turn of the loop.
func (m *Metrics) Turn(took time.Duration, _ int, err error) {
	m.turn.Observe(took.Seconds())
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.turns.WithLabelValues(result).Inc()
}

// ForgeCall counts one call of the forge.
func (m *Metrics) ForgeCall(what string, took time.Duration, err error) {
	m.forge.WithLabelValues(what, result(err)).Observe(took.Seconds())
}

// Step counts one step.
func (m *Metrics) Step(kind string, err error) { m.steps.WithLabelValues(kind, result(err)).Inc() }

// GitObserve counts one look at git.
func (m *Metrics) GitObserve(took time.Duration) { m.git.Observe(took.Seconds()) }

// CountGit returns a transport that counts the bytes of next's answers as read
// from the git remote.
func (m *Metrics) CountGit(next http.RoundTripper) http.RoundTripper {
	return countedTransport{next, m.gitBytes}
}

type countedTransport struct {
	next  http.RoundTripper
	bytes prometheus.Counter
}

// RoundTrip implements http.RoundTripper.
func (t countedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if resp != nil && resp.Body != nil {
		resp.Body = &countedBody{resp.Body, t.bytes}
	}
	return resp, err
}

type countedBody struct {
	io.ReadCloser
	bytes prometheus.Counter
}

// Read implements io.Reader.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.bytes.Add(float64(n))
	return n, err
}

// RunStarted counts a run that was started for the first time.
func (m *Metrics) RunStarted(kind delivery.RunKind) {
	m.started.WithLabelValues(string(kind)).Inc()
	if kind == delivery.RunTrain {
		m.trainings.Inc()
	}
}

// BytesServed counts bytes of bundles that were sent.
func (m *Metrics) BytesServed(n int64) { m.modelBytes.Add(float64(max(0, n))) }

// Webhook counts one webhook; see the list for the results.
func (m *Metrics) Webhook(result string) { m.webhooks.WithLabelValues(result).Inc() }

// result names how something ended.
func result(err error) string {
	if err == nil {
		return "ok"
	}
	if _, ok := errors.AsType[delivery.Blocked](err); ok {
		return "blocked"
	}
	if _, ok := errors.AsType[delivery.Wait](err); ok {
		return "wait"
	}
	return "error"
}

// gauges reads what there is at the moment of asking, so that nothing that is
// gone goes on being shown.
type gauges struct{ Counter }

var (
	runsDesc = prometheus.NewDesc("aob_runs", "Runs there are, by kind and phase.", []string{"kind", "phase"}, nil)
	lostDesc = prometheus.NewDesc("aob_store_lost_bundles",
		"Bundles of which the server's store has lost something.", nil, nil)
	devicesDesc = prometheus.NewDesc("aob_devices", "Devices there are, by fleet and phase.",
		[]string{"fleet", "phase"}, nil)
)

// Describe implements prometheus.Collector.
func (gauges) Describe(ch chan<- *prometheus.Desc) {
	ch <- runsDesc
	ch <- devicesDesc
	ch <- lostDesc
}

// Collect implements prometheus.Collector.
func (g gauges) Collect(ch chan<- prometheus.Metric) {
	c := g.Counts()
	gauge := func(desc *prometheus.Desc, n int, labels ...string) {
		// Not the Must form: names of fleets and phases come from outside. They are checked where they are read, too.
		for i := range labels {
			labels[i] = delivery.Terminal(labels[i])
		}
		metric, err := prometheus.NewConstMetric(desc, prometheus.GaugeValue, float64(n), labels...)
		if err != nil {
			metric = prometheus.NewInvalidMetric(desc, err)
		}
		ch <- metric
	}
	for k, n := range c.Runs {
		gauge(runsDesc, n, string(k.Kind), k.Phase.String())
	}
	gauge(lostDesc, c.Lost)
	for k, n := range c.Devices {
		gauge(devicesDesc, n, k.Fleet, string(k.Phase))
	}
}
