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

// Metrics are the server's Prometheus metrics. It is safe for concurrent use.
//
//	aob_turns_total{result}              turns of the loop; result is ok or error
//	aob_turn_seconds                     duration of a turn
//	aob_turn_phase_seconds{phase}        duration of a part of a turn: observe, plan, act or report
//	aob_turn_computed_total{what}        what turns have computed: plan, pull request, model, result, score
//	aob_steps_total{kind,result}         executed steps; result is ok, wait, blocked or error
//	aob_forge_call_seconds{what,result}  duration of calls of the forge
//	aob_git_observe_seconds              duration of reading the git remote
//	aob_git_bytes_read_total             bytes read from the git remote
//	aob_runs{kind,phase}                 current runs
//	aob_runs_started_total{kind}         started runs, including restarts after a crash
//	aob_trainings_total                  started trainings; a resumed training is not counted again
//	aob_devices{fleet,phase}             current devices; phase is silent if not heard within the deadline, held if
//	                                     the device reports and does not install, or has another anomaly
//	aob_queue_length{queue}              what waits now: steps, posts, pushes or runs
//	aob_stored_items{kind}               what the server has stored, when it was last listed; kind as in aob gc
//	aob_stored_bytes{kind}               its size; kind is also ledger, devices or index, which are files, and mirror,
//	                                     blobs or verified, which are folders
//	aob_retention_blocked_seconds        how long nothing was removed, as it is not known what is needed
//	aob_removed_total{kind}              what was removed, because nothing needed it any more
//	aob_store_lost_bundles               bundles with missing or damaged files in the server's store
//	aob_orphans_found_total{kind,why}    what sweeps of a cloud account found and no run needed
//	aob_orphans_left                     of these, what could not be ended
//	aob_sweeps_total{result}             sweeps of a cloud account; result is ok or error
//	aob_run_cost_dollars{model,outcome}  what trainings have cost; outcome is running, done, failed, or superseded if
//	                                     it was ended before it had a result
//	aob_model_bytes_served_total         bytes of bundles sent to devices
//	aob_tracker_call_seconds{tracker,result}  duration of telling a tracker one record
//	aob_tracker_waiting{tracker}         records that a tracker does not have yet
//	aob_webhooks_total{result}           received webhooks; result is taken, unsigned or refused
type Metrics struct {
	registry *prometheus.Registry

	phases     *prometheus.HistogramVec
	computed   *prometheus.CounterVec
	removed    *prometheus.CounterVec
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
	tracker    *prometheus.HistogramVec
	untold     *prometheus.GaugeVec
	orphans    *prometheus.CounterVec
	sweeps     *prometheus.CounterVec
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
			Help:    "Duration of a turn of the loop.",
			Buckets: []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10, 30}}),
		phases: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "aob_turn_phase_seconds",
			Help:    "Duration of a part of a turn of the loop.",
			Buckets: []float64{.0003, .001, .003, .01, .03, .1, .3, 1, 3, 10, 30}}, []string{"phase"}),
		computed: vec("aob_turn_computed_total", "What turns of the loop have computed.", "what"),
		removed:  vec("aob_removed_total", "What was removed, because nothing needed it any more.", "kind"),
		steps:    vec("aob_steps_total", "Executed steps, by kind and result.", "kind", "result"),
		forge: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "aob_forge_call_seconds",
			Help:    "Duration of calls of the forge.",
			Buckets: []float64{.003, .01, .03, .1, .3, 1, 3, 10, 30}}, []string{"what", "result"}),
		git: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "aob_git_observe_seconds",
			Help:    "Duration of reading the git remote.",
			Buckets: []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10, 30}}),
		gitBytes:  counter("aob_git_bytes_read_total", "Bytes read from the git remote."),
		started:   vec("aob_runs_started_total", "Started runs, including restarts after a crash.", "kind"),
		trainings: counter("aob_trainings_total", "Started trainings; a resumed training is not counted again."),
		orphans: vec("aob_orphans_found_total", "What sweeps of a cloud account found and no run needed.", "kind",
			"why"),
		sweeps:     vec("aob_sweeps_total", "Sweeps of a cloud account.", "result"),
		modelBytes: counter("aob_model_bytes_served_total", "Bytes of bundles sent to devices."),
		webhooks:   vec("aob_webhooks_total", "Webhooks received.", "result"),
		tracker: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "aob_tracker_call_seconds",
			Help:    "Duration of telling a tracker one record.",
			Buckets: []float64{.01, .03, .1, .3, 1, 3, 10, 30, 100}}, []string{"tracker", "result"}),
		untold: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "aob_tracker_waiting",
			Help: "Records that a tracker does not have yet."}, []string{"tracker"}),
	}
	m.registry.MustRegister(m.phases, m.computed, m.removed)
	m.registry.MustRegister(m.turns, m.turn, m.steps, m.forge, m.git, m.gitBytes, m.started, m.trainings, m.modelBytes,
		m.webhooks, m.tracker, m.untold, m.orphans, m.sweeps, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector())
	// Series that dashboards use as divisors exist from the start.
	for _, result := range []string{"ok", "error"} {
		m.turns.WithLabelValues(result)
	}
	for _, kind := range []delivery.RunKind{delivery.RunData, delivery.RunTrain, delivery.RunEval, delivery.RunCompare,
		delivery.RunThresholds, delivery.RunVariant} {
		m.started.WithLabelValues(string(kind))
	}
	return m
}

// A Counter returns current counts. It is called whenever the metrics are read.
type Counter interface{ Counts() Counts }

// Watch adds the gauges of Counts, which are read from c. It must be called at most once.
func (m *Metrics) Watch(c Counter) { m.registry.MustRegister(gauges{c}) }

// Handler serves GET /metrics.
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

// Phase counts a part of a turn: observe, plan, act or report.
func (m *Metrics) Phase(phase string, took time.Duration) {
	m.phases.WithLabelValues(phase).Observe(took.Seconds())
}

// Computed counts what a turn has computed, such as plans or pull requests.
func (m *Metrics) Computed(what string, n int) {
	if n > 0 {
		m.computed.WithLabelValues(what).Add(float64(n))
	}
}

// Removed counts what was removed because nothing needed it.
func (m *Metrics) Removed(kind string) { m.removed.WithLabelValues(kind).Inc() }

// ForgeCall counts one call of the forge.
func (m *Metrics) ForgeCall(what string, took time.Duration, err error) {
	m.forge.WithLabelValues(what, result(err)).Observe(took.Seconds())
}

// TrackerCall counts one record that a tracker was told.
func (m *Metrics) TrackerCall(tracker string, took time.Duration, err error) {
	m.tracker.WithLabelValues(tracker, result(err)).Observe(took.Seconds())
}

// TrackerWaiting sets how many records a tracker does not have yet.
func (m *Metrics) TrackerWaiting(tracker string, records int) {
	m.untold.WithLabelValues(tracker).Set(float64(records))
}

// Swept counts one sweep of a cloud account, and what it found that no earlier one did.
func (m *Metrics) Swept(found []delivery.Orphan, err error) {
	m.sweeps.WithLabelValues(result(err)).Inc()
	for _, o := range found {
		m.orphans.WithLabelValues(string(o.Kind), string(o.Why)).Inc()
	}
}

// Step counts one step.
func (m *Metrics) Step(kind string, err error) { m.steps.WithLabelValues(kind, result(err)).Inc() }

// GitObserve counts one reading of the git remote.
func (m *Metrics) GitObserve(took time.Duration) { m.git.Observe(took.Seconds()) }

// CountGit returns a transport that counts the bytes of next's responses as read from the git remote.
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

// RunStarted counts the first start of a run.
func (m *Metrics) RunStarted(kind delivery.RunKind) {
	m.started.WithLabelValues(string(kind)).Inc()
	if kind == delivery.RunTrain {
		m.trainings.Inc()
	}
}

// BytesServed counts bytes of bundles sent to devices.
func (m *Metrics) BytesServed(n int64) { m.modelBytes.Add(float64(max(0, n))) }

// Webhook counts one webhook; see Metrics for the results.
func (m *Metrics) Webhook(result string) { m.webhooks.WithLabelValues(result).Inc() }

// result returns the label of an error.
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

// gauges reads the current counts at each scrape, so that removed things disappear from the metrics.
type gauges struct{ Counter }

var (
	runsDesc  = prometheus.NewDesc("aob_runs", "Current runs, by kind and phase.", []string{"kind", "phase"}, nil)
	queueDesc = prometheus.NewDesc("aob_queue_length", "What waits now.", []string{"queue"}, nil)
	itemsDesc = prometheus.NewDesc("aob_stored_items",
		"What the server has stored, when it was last listed, by kind.", []string{"kind"}, nil)
	bytesDesc = prometheus.NewDesc("aob_stored_bytes",
		"Size of what the server has stored, when it was last listed, by kind.", []string{"kind"}, nil)
	blockedDesc = prometheus.NewDesc("aob_retention_blocked_seconds",
		"How long nothing has been removed, because it is not known what is needed.", nil, nil)
	lostDesc = prometheus.NewDesc("aob_store_lost_bundles",
		"Bundles with missing or damaged files in the server's store.", nil, nil)
	costDesc = prometheus.NewDesc("aob_run_cost_dollars",
		"What trainings have cost, by model and outcome.", []string{"model", "outcome"}, nil)
	leftDesc = prometheus.NewDesc("aob_orphans_left",
		"What sweeps of a cloud account found and could not end.", nil, nil)
	devicesDesc = prometheus.NewDesc("aob_devices", "Current devices, by fleet and phase.",
		[]string{"fleet", "phase"}, nil)
)

// Describe implements prometheus.Collector.
func (gauges) Describe(ch chan<- *prometheus.Desc) {
	ch <- runsDesc
	ch <- queueDesc
	ch <- itemsDesc
	ch <- bytesDesc
	ch <- blockedDesc
	ch <- devicesDesc
	ch <- lostDesc
	ch <- leftDesc
	ch <- costDesc
}

// Collect implements prometheus.Collector.
func (g gauges) Collect(ch chan<- prometheus.Metric) {
	c := g.Counts()
	number := func(desc *prometheus.Desc, n float64, labels ...string) {
		// Not MustNewConstMetric: names of fleets and phases are untrusted input. They are also checked where
		// they are parsed.
		for i := range labels {
			labels[i] = delivery.Terminal(labels[i])
		}
		metric, err := prometheus.NewConstMetric(desc, prometheus.GaugeValue, n, labels...)
		if err != nil {
			metric = prometheus.NewInvalidMetric(desc, err)
		}
		ch <- metric
	}
	gauge := func(desc *prometheus.Desc, n int, labels ...string) { number(desc, float64(n), labels...) }
	for k, m := range c.Cost {
		number(costDesc, m.Dollars(), k.Model, k.Outcome)
	}
	for k, n := range c.Runs {
		gauge(runsDesc, n, string(k.Kind), k.Phase.String())
	}
	for queue, n := range c.Queues {
		gauge(queueDesc, n, queue)
	}
	for kind, n := range c.Stored {
		gauge(itemsDesc, n.Count, kind)
		number(bytesDesc, float64(n.Bytes), kind)
	}
	number(blockedDesc, c.Blocked.Seconds())
	gauge(lostDesc, c.Lost)
	gauge(leftDesc, c.Orphans)
	for k, n := range c.Devices {
		gauge(devicesDesc, n, k.Fleet, string(k.Phase))
	}
}
