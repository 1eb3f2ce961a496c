package serve

import (
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
)

// scrape returns the lines of all metrics.
func scrape(t *testing.T, r *prometheus.Registry) string {
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	body, err := io.ReadAll(w.Body)
	if err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d, %v: %s", w.Code, err, body)
	}
	return string(body)
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	m := NewMetrics(registry, true)
	model := &still{facts: Facts{Name: "m", Version: "r1", Classes: []string{"a"},
		Edges: delivery.Edges{Confidence: []float64{0.5, 1}}},
		boxes: []delivery.Box{box("a", 0.9, 0, 0, 3, 3), box("a", 0.5, 0, 0, 9, 9), box("unknown", 0.1, 0, 0, 1, 1)}}
	m.Serves("shadow", model.facts, true)
	m.Serves("main", model.facts, true)
	main := m.Calls("main", model)
	ask(t, main, 0)
	ask(t, main, 0.4)
	for _, c := range []struct{ err error }{{&detect.ImageError{Why: "cut"}}, {errors.New("boom")}} {
		model.err = c.err
		_, one, done, err := main.Lease(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := one.Detect(t.Context(), nil, 0); !errors.Is(err, c.err) {
			t.Errorf("got %v, want %v", err, c.err)
		}
		done()
	}
	model.err = nil
	ask(t, m.Calls("shadow", model), 0)
	m.Serves("main", model.facts, false)
	m.Compared(ShadowResult{Outcome: "dropped"})
	m.Compared(ShadowResult{Outcome: "compared", Agreement: Agreement{Images: 1, First: 3, Second: 2, Matched: 2,
		Shift: -0.4}})
	handler := m.Requests(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/detect" {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	for _, path := range []string{"/v1/detect", "/v2/models/m/infer", "/infer/x", "/m/1", "/a/b/c"} {
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", path, nil))
	}
	for _, path := range []string{"/readyz", "/v2/health/ready"} { // these are not what a model takes
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
	}
	got := scrape(t, registry)
	for _, want := range []string{
		`aob_detect_calls_total{outcome="ok",release="r1",role="main"} 2`,
		`aob_detect_calls_total{outcome="image",release="r1",role="main"} 1`,
		`aob_detect_calls_total{outcome="model",release="r1",role="main"} 1`,
		`aob_detect_calls_total{outcome="ok",release="r1",role="shadow"} 1`,
		`aob_detect_boxes_total{class="a",release="r1",role="main"} 4`,
		`aob_detect_box_confidence_bucket{release="r1",role="main",le="0.5"} 3`,
		`aob_detect_box_confidence_bucket{release="r1",role="main",le="+Inf"} 5`,
		`aob_detect_image_boxes_bucket{release="r1",role="main",le="2"} 1`,
		`aob_detect_stage_seconds_count{release="r1",role="main",stage="infer"} 2`,
		`aob_detect_ready{release="r1",role="shadow"} 1`,
		`aob_detect_ready{release="r1",role="main"} 0`,
		`aob_detect_shadow_images_total{outcome="failed"} 0`,
		`aob_detect_shadow_boxes_total{of="main"} 3`,
		`aob_detect_shadow_matched_total 2`,
		`aob_detect_shadow_score_shift_sum -0.2`,
		`aob_detect_request_seconds_count{api="v1",code="200"} 1`,
		`aob_detect_request_seconds_count{api="v2",code="404"} 1`,
		`aob_detect_request_seconds_count{api="infer",code="404"} 2`,
		`aob_detect_request_seconds_count{api="other",code="404"} 3`,
		`nv_inference_request_success{model="m",version="r1"} 2`,
		`nv_inference_request_failure{model="m",version="r1"} 2`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("%s is missing", want)
		}
	}
	if strings.Contains(got, "unknown") {
		t.Error("a class that the model does not have is a label")
	}

	// A hundred releases leave the series of those that serve.
	before := strings.Count(got, "\n")
	for range 100 {
		old := model.facts
		model.facts.Version += "x"
		m.Serves("main", model.facts, true)
		ask(t, main, 0)
		m.Retired("main", old)
	}
	after := scrape(t, registry)
	if n := strings.Count(after, `aob_detect_ready{`); n != 2 {
		t.Errorf("%d models are ready, want one main and one shadow", n)
	}
	if lines := strings.Count(after, "\n"); lines > before {
		t.Errorf("%d lines, before %d", lines, before)
	}
}

// The answer of a model that is retired meanwhile begins no series: nothing would end them.
func TestLateAnswer(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	m := NewMetrics(registry, true)
	model := &still{facts: Facts{Name: "m", Version: "r1", Classes: []string{"a"}},
		boxes: []delivery.Box{box("a", 0.9, 0, 0, 3, 3)}, hold: make(chan struct{})}
	m.Serves("main", model.facts, true)
	main := m.Calls("main", model)
	var late sync.WaitGroup
	late.Go(func() { ask(t, main, 0) })
	m.Serves("main", model.facts, false)
	m.Retired("main", model.facts)
	close(model.hold)
	late.Wait()
	if got := scrape(t, registry); strings.Contains(got, `"r1"`) {
		t.Errorf("a retired model has series:\n%s", got)
	}
}

func TestEntropy(t *testing.T) {
	for p, want := range map[float64]float64{0: 0, 1: 0, 0.5: 1, 0.25: 0.8112781244591328, 0.75: 0.8112781244591328} {
		if got := entropyOf(p); math.Abs(got-want) > 1e-12 {
			t.Errorf("%g: %g, want %g", p, got, want)
		}
	}
}
