package serve

import (
	"context"
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/autonomos/aob/reconciler/detect"
)

// Metrics are for Prometheus. Histograms are both classic and native.
//
// The labels release and role (main or shadow) are those of the models that serve: the series of a model end when it is
// retired. The label class has the classes of these models. So the number of series is bounded.
type Metrics struct {
	registry prometheus.Registerer
	requests *prometheus.HistogramVec // api, code
	shadow   shadowMetrics
	nv       *nvMetrics // nil: not asked for

	mu     sync.Mutex
	models map[modelKey]*modelMetrics
}

// A modelKey names the series of a model.
type modelKey struct{ release, role string }

// modelMetrics are the metrics of one model.
type modelMetrics struct {
	all                                            []prometheus.Collector
	pre, queue, infer, post                        prometheus.Observer
	batch, confidence, entropy, area, boxesOfImage prometheus.Histogram
	calls                                          *prometheus.CounterVec // outcome
	boxes                                          *prometheus.CounterVec // class
	ready                                          prometheus.Gauge
}

type shadowMetrics struct {
	images  *prometheus.CounterVec // outcome
	boxes   *prometheus.CounterVec // of
	matched prometheus.Counter
	flipped prometheus.Counter
	shift   prometheus.Histogram
}

// nvMetrics have the names of Triton's metrics, for dashboards that exist.
type nvMetrics struct {
	success, failure, count, execs        *prometheus.CounterVec // model, version
	request, queue, input, infer, outputs *prometheus.CounterVec
}

// secondsEdges are 0.5 ms to 8 s.
var secondsEdges = prometheus.ExponentialBuckets(0.0005, 2, 15)

// NewMetrics registers the metrics. triton adds counters with the names of Triton's.
func NewMetrics(registry prometheus.Registerer, triton bool) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		registry.MustRegister(c)
		return c
	}
	m := &Metrics{
		registry: registry,
		requests: prometheus.NewHistogramVec(histogram("request_seconds", "Time of a request, by API and status code.",
			secondsEdges, nil), []string{"api", "code"}),
		models: map[modelKey]*modelMetrics{},
	}
	registry.MustRegister(m.requests)
	m.shadow = shadowMetrics{
		images: counter("aob_detect_shadow_images_total", "Images of the shadow's share by outcome: compared, dropped "+
			"(it was busy, or was ended), failed.", "outcome"),
		boxes: counter("aob_detect_shadow_boxes_total", "Boxes that were compared, by model: main or shadow.", "of"),
		matched: prometheus.NewCounter(prometheus.CounterOpts{Name: "aob_detect_shadow_matched_total",
			Help: "Pairs of boxes of one class with an IoU of at least 0.5. F1 is twice that by all boxes."}),
		flipped: prometheus.NewCounter(prometheus.CounterOpts{Name: "aob_detect_shadow_flipped_total",
			Help: "Pairs of boxes with an IoU of at least 0.5 that differ in the class alone."}),
		shift: prometheus.NewHistogram(histogram("shadow_score_shift", "Mean of the shadow's score minus the main "+
			"model's over the pairs of an image.", prometheus.LinearBuckets(-0.5, 0.1, 11), nil)),
	}
	registry.MustRegister(m.shadow.matched, m.shadow.flipped, m.shadow.shift)
	for _, outcome := range []string{"compared", "dropped", "failed"} {
		m.shadow.images.WithLabelValues(outcome) // so that the series exist from the start
	}
	if triton {
		nv := func(name, help string) *prometheus.CounterVec { return counter(name, help, "model", "version") }
		us := "Cumulative time in microseconds: "
		m.nv = &nvMetrics{
			success: nv("nv_inference_request_success", "Calls that were answered."),
			failure: nv("nv_inference_request_failure", "Calls that failed."),
			count:   nv("nv_inference_count", "Images."),
			execs:   nv("nv_inference_exec_count", "Runs of the model; a call counts its share of a run."),
			request: nv("nv_inference_request_duration_us", us+"calls."),
			queue:   nv("nv_inference_queue_duration_us", us+"waiting for the model."),
			input:   nv("nv_inference_compute_input_duration_us", us+"file to tensor."),
			infer:   nv("nv_inference_compute_infer_duration_us", us+"the model."),
			outputs: nv("nv_inference_compute_output_duration_us", us+"outputs to boxes."),
		}
	}
	return m
}

// histogram is classic and native.
func histogram(name, help string, edges []float64, labels prometheus.Labels) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{Name: "aob_detect_" + name, Help: help, Buckets: edges, ConstLabels: labels,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160}
}

// of returns the metrics of a model; nil if it has none, because it is retired. The answer of a call that was with a
// process that has ended may come after that.
func (m *Metrics) of(f *Facts, role string) *modelMetrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.models[modelKey{f.Version, role}]
}

// begin returns the metrics of a model, and registers them if it has none.
func (m *Metrics) begin(f *Facts, role string) *modelMetrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := modelKey{f.Version, role}
	if found := m.models[key]; found != nil {
		return found
	}
	labels := prometheus.Labels{"release": key.release, "role": key.role}
	one := &modelMetrics{}
	add := func(name, help string, edges []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(histogram(name, help, edges, labels))
		one.all = append(one.all, h)
		return h
	}
	counter := func(name, help, label string) *prometheus.CounterVec {
		o := prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}
		c := prometheus.NewCounterVec(o, []string{label})
		one.all = append(one.all, c)
		return c
	}
	stages := prometheus.NewHistogramVec(
		histogram("stage_seconds", "Time of each stage of a call: pre (file to tensor), "+
			"queue (waiting for the model), infer (the model), post (its outputs to boxes).", secondsEdges, labels),
		[]string{"stage"},
	)
	one.all = append(one.all, stages)
	one.pre, one.queue = stages.WithLabelValues("pre"), stages.WithLabelValues("queue")
	one.infer, one.post = stages.WithLabelValues("infer"), stages.WithLabelValues("post")
	edges := f.Edges.WithDefaults()
	one.batch = add("batch_images", "Images of the model's run that a call was part of.",
		prometheus.ExponentialBuckets(1, 2, 7))
	one.confidence = add("box_confidence", "Scores of the boxes returned.", edges.Confidence)
	one.entropy = add("box_entropy_bits", "Entropy of the scores in bits: 1 at a score of 0.5, 0 at 0 and 1.",
		edges.Entropy)
	one.area = add("box_area_ratio", "Area of the boxes returned, as a share of the image.", edges.Area)
	one.boxesOfImage = add("image_boxes", "Boxes returned for an image.", edges.Boxes)
	one.calls = counter("aob_detect_calls_total", "Calls by outcome: ok, image (it is invalid), tensor (it does not "+
		"fit), model (it failed), gone (the caller has left or the time is over).", "outcome")
	one.boxes = counter("aob_detect_boxes_total", "Boxes returned, by class.", "class")
	one.ready = prometheus.NewGauge(prometheus.GaugeOpts{Name: "aob_detect_ready", ConstLabels: labels,
		Help: "1 for each model that serves, 0 for one whose process has ended and is started again."})
	one.all = append(one.all, one.ready)
	m.registry.MustRegister(one.all...)
	m.models[key] = one
	return one
}

// Requests measures the requests of a handler.
func (m *Metrics) Requests(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		status := &statusWriter{ResponseWriter: w, code: http.StatusOK}
		defer func() {
			of := m.requests.WithLabelValues(apiOf(r), strconv.Itoa(status.code))
			of.Observe(time.Since(began).Seconds())
		}()
		next.ServeHTTP(status, r)
	})
}

// apiOf returns the label of a request; there are few. Only what asks the model has that of an API, so that the many
// short requests about health do not hide how long the model's take. Roboflow's are /infer/... and /MODEL/VERSION.
func apiOf(r *http.Request) string {
	switch {
	case r.Method != http.MethodPost:
		return "other"
	case strings.HasPrefix(r.URL.Path, "/v1/"):
		return "v1"
	case strings.HasPrefix(r.URL.Path, "/v2/"):
		return "v2"
	case strings.Count(r.URL.Path, "/") == 2:
		return "infer"
	}
	return "other"
}

// statusWriter keeps the status code.
type statusWriter struct {
	http.ResponseWriter
	code int
}

func (w *statusWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Calls measures the calls of models in a role.
func (m *Metrics) Calls(role string, models Models) Models { return &measured{models, m, role} }

type measured struct {
	models  Models
	metrics *Metrics
	role    string
}

// Serving implements Models.
func (c *measured) Serving() (Facts, error) { return c.models.Serving() }

// Lease implements Models.
func (c *measured) Lease(ctx context.Context) (*Facts, Model, func(), error) {
	facts, model, done, err := c.models.Lease(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	return facts, measuredModel{model, c, facts}, done, nil
}

type measuredModel struct {
	Model
	of    *measured
	facts *Facts
}

// Detect implements Model.
func (c measuredModel) Detect(ctx context.Context, image []byte, score float64) (detect.Detections, detect.Timing,
	error) {
	began := time.Now()
	found, timing, err := c.Model.Detect(ctx, image, score)
	c.call(ctx, timing, 1, time.Since(began), err)
	if err == nil {
		c.of.metrics.detections(c.facts, c.of.role, found)
	}
	return found, timing, err
}

// Run implements Model.
func (c measuredModel) Run(ctx context.Context, input detect.Tensor) ([]detect.Tensor, detect.Timing, error) {
	began := time.Now()
	out, timing, err := c.Model.Run(ctx, input)
	images := 1
	if len(input.Shape) > 0 {
		images = int(input.Shape[0])
	}
	c.call(ctx, timing, images, time.Since(began), err)
	return out, timing, err
}

func (c measuredModel) call(ctx context.Context, t detect.Timing, images int, took time.Duration, err error) {
	m, role := c.of.metrics, c.of.role
	one := m.of(c.facts, role)
	if one == nil {
		return
	}
	one.calls.WithLabelValues(outcomeOf(ctx, err)).Inc()
	if m.nv != nil && role == "main" {
		m.callNV(c.facts, t, images, took, err)
	}
	if err != nil {
		return
	}
	one.pre.Observe(t.Pre.Seconds())
	one.queue.Observe(t.Queue.Seconds())
	one.infer.Observe(t.Infer.Seconds())
	one.post.Observe(t.Post.Seconds())
	one.batch.Observe(float64(t.Batch))
}

func outcomeOf(ctx context.Context, err error) string {
	_, image := errors.AsType[*detect.ImageError](err)
	_, tensor := errors.AsType[*detect.TensorError](err)
	switch {
	case err == nil:
		return "ok"
	case image:
		return "image"
	case tensor:
		return "tensor"
	case ctx.Err() != nil:
		return "gone"
	}
	return "model"
}

// callNV counts a call of the main model. The lock keeps Retired from ending the series in between.
func (m *Metrics) callNV(f *Facts, t detect.Timing, images int, took time.Duration, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.models[modelKey{f.Version, "main"}] == nil {
		return
	}
	n := m.nv
	add := func(c *prometheus.CounterVec, v float64) { c.WithLabelValues(f.Name, f.Version).Add(v) }
	if err != nil {
		add(n.failure, 1)
		return
	}
	add(n.success, 1)
	add(n.count, float64(images))
	add(n.execs, float64(images)/float64(max(t.Batch, 1)))
	for c, d := range map[*prometheus.CounterVec]time.Duration{n.request: took, n.queue: t.Queue, n.input: t.Pre,
		n.infer: t.Infer, n.outputs: t.Post} {
		add(c, float64(d.Microseconds()))
	}
}

// detections counts what a model sees.
func (m *Metrics) detections(f *Facts, role string, found detect.Detections) {
	one := m.of(f, role)
	if one == nil {
		return
	}
	pixels := float64(max(1, found.Width)) * float64(max(1, found.Height))
	for _, b := range found.Boxes {
		one.confidence.Observe(b.Score)
		one.entropy.Observe(entropyOf(b.Score))
		one.area.Observe(b.W * b.H / pixels)
		if slices.Contains(f.Classes, b.Class) {
			one.boxes.WithLabelValues(b.Class).Inc()
		}
	}
	one.boxesOfImage.Observe(float64(len(found.Boxes)))
}

// entropyOf is the entropy of a score in bits.
func entropyOf(p float64) float64 {
	if p <= 0 || p >= 1 {
		return 0
	}
	return -p*math.Log2(p) - (1-p)*math.Log2(1-p)
}

// Serves begins the series of a model, and says whether its process serves now.
func (m *Metrics) Serves(role string, f Facts, now bool) {
	one := m.begin(&f, role)
	if now {
		one.ready.Set(1)
	} else {
		one.ready.Set(0)
	}
}

// watch returns the options of a host that tells the metrics what serves in a role.
func (m *Metrics) watch(role string, o HostOptions) HostOptions {
	o.Serves = func(f Facts, now bool) { m.Serves(role, f, now) }
	o.Retired = func(f Facts) { m.Retired(role, f) }
	return o
}

// Retired ends the series of a model that serves no longer, so that releases do not add up.
func (m *Metrics) Retired(role string, f Facts) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := modelKey{f.Version, role}
	if one := m.models[key]; one != nil {
		for _, c := range one.all {
			m.registry.Unregister(c)
		}
		delete(m.models, key)
	}
	if m.nv != nil && role == "main" {
		n := m.nv
		for _, c := range []*prometheus.CounterVec{n.success, n.failure, n.count, n.execs, n.request, n.queue, n.input,
			n.infer, n.outputs} {
			c.DeleteLabelValues(f.Name, f.Version)
		}
	}
}

// Compared counts what a shadow saw.
func (m *Metrics) Compared(r ShadowResult) {
	m.shadow.images.WithLabelValues(r.Outcome).Inc()
	if r.Outcome != "compared" {
		return
	}
	a := r.Agreement
	m.shadow.boxes.WithLabelValues("main").Add(float64(a.First))
	m.shadow.boxes.WithLabelValues("shadow").Add(float64(a.Second))
	m.shadow.matched.Add(float64(a.Matched))
	m.shadow.flipped.Add(float64(a.Flipped))
	if a.Matched > 0 {
		m.shadow.shift.Observe(a.Shift / float64(a.Matched))
	}
}
