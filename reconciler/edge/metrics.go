package edge

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
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
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		downloaded: prometheus.NewCounter(prometheus.CounterOpts{Name: "aob_agent_downloaded_bytes_total",
			Help: "Bytes of bundles downloaded."}),
		switches: prometheus.NewCounter(prometheus.CounterOpts{Name: "aob_agent_switches_total",
			Help: "Switches to another bundle, including fallbacks."}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "aob_agent_failures_total",
			Help: "Bundles that failed on this device."}),
		crashes: prometheus.NewCounter(prometheus.CounterOpts{Name: "aob_agent_detector_crashes_total",
			Help: "Serving detectors that ended unexpectedly or failed their health check."}),
		damaged: prometheus.NewCounter(prometheus.CounterOpts{Name: "aob_agent_slots_damaged_total",
			Help: "Slots whose files did not match their digests."}),
		undelivered: prometheus.NewCounter(prometheus.CounterOpts{Name: "aob_agent_downloads_failed_total",
			Help: "Downloads that failed."}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "aob_agent_documents_refused_total",
			Help: "Desired documents refused, by reason."}, []string{"reason"}),
		polls: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "aob_agent_polls_total",
			Help: "Requests for the desired document."}, []string{"outcome"}),
		reports: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "aob_agent_reports_total",
			Help: "Reports to the server."}, []string{"outcome"}),
		stale: prometheus.NewGauge(prometheus.GaugeOpts{Name: "aob_agent_desired_stale",
			Help: "1 if the desired document has expired, so that nothing is installed."}),
		serving: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "aob_agent_serving",
			Help: "1 for the serving bundle."}, []string{"bundle", "slot"}),
	}
	m.registry.MustRegister(m.downloaded, m.switches, m.failures, m.crashes, m.damaged, m.undelivered, m.refused,
		m.polls, m.reports, m.stale, m.serving,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
