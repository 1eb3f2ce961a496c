package edge

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are the agent's Prometheus metrics.
type Metrics struct {
	registry    *prometheus.Registry
	downloaded  prometheus.Counter
	switches    prometheus.Counter
	failures    prometheus.Counter
	crashes     prometheus.Counter
	damaged     prometheus.Counter
	undelivered prometheus.Counter
	refused     *prometheus.CounterVec
	polls       *prometheus.CounterVec
	reports     *prometheus.CounterVec
	stale       prometheus.Gauge
	serving     *prometheus.GaugeVec
}

// NewMetrics returns metrics in a registry of their own.
func NewMetrics() *Metrics {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	in := promauto.With(registry)
	counter := func(name, help string) prometheus.Counter {
		return in.NewCounter(prometheus.CounterOpts{Name: "aob_agent_" + name, Help: help})
	}
	counters := func(name, help, label string) *prometheus.CounterVec {
		return in.NewCounterVec(prometheus.CounterOpts{Name: "aob_agent_" + name, Help: help}, []string{label})
	}
	return &Metrics{
		registry:   registry,
		downloaded: counter("downloaded_bytes_total", "Bytes of bundles downloaded."),
		switches:   counter("switches_total", "Switches to another bundle, including fallbacks."),
		failures:   counter("failures_total", "Bundles that failed on this device."),
		crashes: counter("detector_crashes_total",
			"Serving detectors that ended unexpectedly or failed their health check."),
		damaged:     counter("slots_damaged_total", "Slots whose files did not match their digests."),
		undelivered: counter("downloads_failed_total", "Downloads that failed."),
		refused:     counters("documents_refused_total", "Desired documents refused, by reason.", "reason"),
		polls:       counters("polls_total", "Requests for the desired document.", "outcome"),
		reports:     counters("reports_total", "Reports to the server.", "outcome"),
		stale: in.NewGauge(prometheus.GaugeOpts{Name: "aob_agent_desired_stale",
			Help: "1 if the desired document has expired, so that nothing is installed."}),
		serving: in.NewGaugeVec(prometheus.GaugeOpts{Name: "aob_agent_serving", Help: "1 for the serving bundle."},
			[]string{"bundle", "slot"}),
	}
}

func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
