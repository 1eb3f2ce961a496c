package edge

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics count what an agent does, for Prometheus.
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

// NewMetrics makes metrics with a registry of their own.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		downloaded: prometheus.NewCounter(prometheus.CounterOpts{Name: "aob_agent_downloaded_bytes_total",
			Help: "Bytes of bundles fetched."}),
		switches: prometheus.NewCounter(prometheus.CounterOpts{Name: "aob_agent_switches_total",
			Help: "Switches to another bundle, back ones included."}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "aob_agent_failures_total",
			Help: "Bundles that failed here."}),
		crashes: prometheus.NewCounter(prometheus.CounterOpts{Name: "aob_agent_detector_crashes_total",
			Help: "Detectors that ended, or answered wrongly, unasked."}),
		damaged: prometheus.NewCounter(prometheus.CounterOpts{Name: "aob_agent_slots_damaged_total",
			Help: "Slots whose files were not the bundle's any more."}),
		undelivered: prometheus.NewCounter(prometheus.CounterOpts{Name: "aob_agent_downloads_failed_total",
			Help: "Downloads that did not come through."}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "aob_agent_documents_refused_total",
			Help: "Desired documents refused, by reason."}, []string{"reason"}),
		polls: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "aob_agent_polls_total",
			Help: "Requests for the desired document."}, []string{"outcome"}),
		reports: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "aob_agent_reports_total",
			Help: "Reports to the server."}, []string{"outcome"}),
		stale: prometheus.NewGauge(prometheus.GaugeOpts{Name: "aob_agent_desired_stale",
			Help: "1 when the desired document has expired: nothing is installed."}),
		serving: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "aob_agent_serving",
			Help: "1 for the bundle that serves."}, []string{"bundle", "slot"}),
	}
	m.registry.MustRegister(m.downloaded, m.switches, m.failures, m.crashes, m.damaged, m.undelivered, m.refused,
		m.polls, m.reports, m.stale, m.serving,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
