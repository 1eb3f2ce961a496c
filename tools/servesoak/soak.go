package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A soakPlan says for how long clients use a server.
type soakPlan struct {
	duration time.Duration
	requests int // in place of the duration
	clients  int
	every    time.Duration // between two samples of memory
	settle   bool
}

// soakFigures are what came of it.
type soakFigures struct {
	took       time.Duration
	times      []time.Duration // sorted; of pictures that were answered
	counts     map[string]int  // by API and status code, as the metric's labels are
	left       int             // requests whose caller left
	boxes      map[string]int  // by class
	samples    []footprint
	start, end footprint
	settled    bool
	clients    int
	wrong      []error
}

// A kindOfRequest is one of the requests of a soak.
type kindOfRequest struct {
	api  string // the metric's label
	want int    // the status code
	call bool   // it is a call of the model
	bad  bool   // the call's picture is none
	make func(base string, picture []byte) (*http.Request, error)
}

// kindsOf are the requests of a soak. The first is sent most often.
func kindsOf(t modelShape) []kindOfRequest {
	post := func(path, contentType string, body []byte, header ...string) func(string, []byte) (*http.Request, error) {
		return func(base string, picture []byte) (*http.Request, error) {
			if body != nil {
				picture = body
			}
			req, err := http.NewRequest(http.MethodPost, base+path, bytes.NewReader(picture))
			if err == nil {
				req.Header.Set("Content-Type", contentType)
				for i := 0; i < len(header); i += 2 {
					req.Header.Set(header[i], header[i+1])
				}
			}
			return req, err
		}
	}
	get := func(path string) func(string, []byte) (*http.Request, error) {
		return func(base string, _ []byte) (*http.Request, error) {
			return http.NewRequest(http.MethodGet, base+path, nil)
		}
	}
	data := make([]byte, 4*3*t.height*t.width)
	text := fmt.Sprintf(`{"inputs":[{"name":%q,"datatype":"FP32","shape":[1,3,%d,%d],`+
		`"parameters":{"binary_data_size":%d}}],`+
		`"parameters":{"binary_data_output":true}}`, t.input, t.height, t.width, len(data))
	numbers := "[" + strings.Repeat("0.5,", 3*t.height*t.width-1) + "0.5]"
	asJSON := fmt.Sprintf(`{"inputs":[{"name":%q,"datatype":"FP32","shape":[1,3,%d,%d],"data":%s}]}`, t.input, t.height,
		t.width, numbers)
	infer := "/v2/models/" + modelName + "/infer"
	return []kindOfRequest{
		{"v1", 200, true, false, post("/v1/detect?confidence=0.1", "image/jpeg", nil)},
		{"v2", 200, true, false, post(infer, "application/octet-stream", append([]byte(text), data...),
			"Inference-Header-Content-Length", strconv.Itoa(len(text)))},
		{"v2", 200, true, false, post(infer, "application/json", []byte(asJSON))},
		{"v2", 400, false, false, post(infer, "application/json", []byte(`{"inputs":[{"name":"other"}]}`))},
		{"v1", 400, true, true, post("/v1/detect", "image/jpeg", []byte("\xff\xd8 no picture"))},
		{"v1", 400, false, false, post("/v1/detect?unknown=1", "image/jpeg", nil)},
		{"other", 405, false, false, get("/v1/detect")},
		{"other", 405, false, false, get("/v1/nothing")}, // a model's name for Roboflow's clients
		{"other", 404, false, false, get("/v2/models/nothing")},
		{"other", 200, false, false, get("/readyz")},
		{"other", 200, false, false, get("/openapi.json")},
	}
}

// A soaking counts what its clients see.
type soaking struct {
	mu sync.Mutex
	soakFigures
	calls map[string]int // of the model, by outcome
}

// soak uses a server for a long time, and compares its metrics with the clients' own counts.
func soak(ctx context.Context, o options, plan soakPlan, progress io.Writer) (f soakFigures, err error) {
	server, err := startFront(o.binary, o.bundle)
	if err != nil {
		return f, err
	}
	defer func() {
		_, stopErr := server.stop()
		err = errors.Join(err, stopErr)
	}()
	s := &soaking{calls: map[string]int{}}
	s.counts, s.boxes, s.clients = map[string]int{}, map[string]int{}, plan.clients
	began := time.Now()
	warm := plan
	warm.duration, warm.requests = plan.duration/20, min(plan.requests, 50)
	if err := s.run(ctx, o, server, warm); err != nil {
		return f, err
	}
	if plan.settle {
		if s.start, err = server.settle(ctx); err != nil {
			return f, err
		}
	} else {
		s.start = server.footprint()
	}
	sampled, stop := context.WithCancel(ctx)
	var sampling sync.WaitGroup
	sampling.Go(func() {
		for plan.every > 0 {
			select {
			case <-sampled.Done():
				return
			case <-time.After(plan.every):
			}
			p := server.footprint()
			s.mu.Lock()
			s.samples = append(s.samples, p)
			n := len(s.times)
			s.mu.Unlock()
			fmt.Fprintf(progress, "%6.1f min, %d pictures: %v\n", time.Since(began).Minutes(), n, p)
		}
	})
	err = s.run(ctx, o, server, plan)
	stop()
	sampling.Wait()
	if err != nil {
		return f, err
	}
	s.took = time.Since(began)
	if s.settled = plan.settle; s.settled {
		if s.end, err = server.settle(ctx); err != nil {
			return f, err
		}
	} else {
		s.end = server.footprint()
	}
	slices.Sort(s.times)
	err = s.compare(server)
	return s.soakFigures, err
}

// run sends until the time or the requests of the plan are over.
func (s *soaking) run(ctx context.Context, o options, server *front, plan soakPlan) error {
	client := &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: plan.clients}}
	defer client.CloseIdleConnections()
	kinds := kindsOf(o.shape)
	end := time.Now().Add(plan.duration)
	var sent atomic.Int64
	var all sync.WaitGroup
	for range plan.clients {
		all.Go(func() {
			for ctx.Err() == nil {
				i := int(sent.Add(1)) - 1
				if plan.requests > 0 && i >= plan.requests || plan.requests == 0 && time.Now().After(end) {
					return
				}
				picture := o.pictures[i%len(o.pictures)]
				switch {
				case i%50 == 49:
					s.leave(server, picture)
				case i%5 == 4:
					s.ask(client, server.url, kinds[(i/5)%len(kinds)], picture)
				default:
					s.ask(client, server.url, kinds[0], picture)
				}
			}
		})
	}
	all.Wait()
	return ctx.Err()
}

// ask sends a request and counts the answer.
func (s *soaking) ask(client *http.Client, base string, k kindOfRequest, picture []byte) {
	wrong := func(err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.wrong = append(s.wrong, err)
	}
	req, err := k.make(base, picture)
	if err != nil {
		wrong(err)
		return
	}
	began := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		wrong(err)
		return
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	took := time.Since(began)
	if err == nil && resp.StatusCode != k.want {
		err = fmt.Errorf("%s %s: %s, want %d: %.300s", req.Method, req.URL.Path, resp.Status, k.want, body)
	}
	if err != nil {
		wrong(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[label(k.api, resp.StatusCode)]++
	switch {
	case k.bad:
		s.calls["image"]++
	case k.call && resp.StatusCode == http.StatusOK:
		s.calls["ok"]++
	}
	if k.api == "v1" && resp.StatusCode == http.StatusOK {
		s.times = append(s.times, took)
		var found struct{ Detections []box }
		if err := json.Unmarshal(body, &found); err != nil {
			s.wrong = append(s.wrong, err)
		}
		for _, b := range found.Detections {
			s.boxes[b.Class]++
		}
	}
}

func label(api string, code int) string { return fmt.Sprintf(`api="%s",code="%d"`, api, code) }

// leave sends a picture in a request of an API that the others do not use, and does not wait for the answer.
func (s *soaking) leave(server *front, picture []byte) {
	u, err := url.Parse(server.url)
	if err == nil {
		var conn net.Conn
		if conn, err = net.Dial("tcp", u.Host); err == nil {
			_, err = fmt.Fprintf(conn,
				"POST /infer/object_detection HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(picture),
				picture)
			err = errors.Join(err, conn.Close())
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left++; err != nil {
		s.wrong = append(s.wrong, err)
	}
}

// compare says where the metrics are not the clients' counts. An answer can reach a client before it is counted, so
// metrics may lag behind.
func (s *soaking) compare(server *front) error {
	var err error
	for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(20 * time.Millisecond) {
		metrics, readErr := server.metrics()
		if readErr != nil {
			return readErr
		}
		if err = s.differ(metrics); err == nil {
			return nil
		}
	}
	return err
}

func (s *soaking) differ(metrics map[string]float64) error {
	var err error
	want := func(series string, n int) {
		if got := metrics[series]; got != float64(n) {
			err = errors.Join(err, fmt.Errorf("%s is %v, and the clients counted %d", series, got, n))
		}
	}
	seen := map[string]bool{}
	for labels, n := range s.counts {
		seen[labels] = true
		want("aob_detect_request_seconds_count{"+labels+"}", n)
	}
	left, unknown := 0, 0
	for series, v := range metrics {
		labels, ok := strings.CutPrefix(series, "aob_detect_request_seconds_count{")
		labels = strings.TrimSuffix(labels, "}")
		switch {
		case !ok || seen[labels]:
		case strings.HasPrefix(labels, `api="infer"`):
			left += int(v)
		default:
			unknown += int(v)
		}
	}
	if left != s.left || unknown != 0 {
		err = errors.Join(err, fmt.Errorf("%d requests whose caller left, want %d; %d of no client", left, s.left,
			unknown))
	}
	const release = `,release="1",role="main"}`
	for _, outcome := range []string{"ok", "image", "model", "tensor", "gone"} {
		want(`aob_detect_calls_total{outcome="`+outcome+`"`+release, s.calls[outcome])
	}
	for class, n := range s.boxes {
		want(`aob_detect_boxes_total{class="`+class+`"`+release, n)
	}
	want(`aob_detect_image_boxes_count{`+release[1:], len(s.times))
	want(`aob_detect_stage_seconds_count{`+release[1:len(release)-1]+`,stage="infer"}`, s.calls["ok"])
	return err
}

func (f soakFigures) print(out io.Writer) {
	ms := func(q float64) float64 { return quantile(f.times, q).Seconds() * 1e3 }
	fmt.Fprintf(out, "%v; pictures answered: %d, p50 %.1f ms, p99 %.1f ms, longest %.1f ms\n",
		f.took.Round(time.Second),
		len(f.times), ms(0.5), ms(0.99), ms(1))
	for _, labels := range slices.Sorted(maps.Keys(f.counts)) {
		fmt.Fprintf(out, "%s: %d\n", labels, f.counts[labels])
	}
	fmt.Fprintf(out, "callers that left: %d\nstart:  %v\nend:    %v\n", f.left, f.start, f.end)
}

// check says what is not as promised.
func (f soakFigures) check() error {
	err := leaks(f.start, f.end, f.clients)
	if len(f.wrong) > 0 {
		err = errors.Join(err, fmt.Errorf("%d requests went wrong: %v", len(f.wrong), f.wrong[:min(5, len(f.wrong))]))
	}
	if !f.settled {
		return err
	}
	err = errors.Join(err, grown("front", f.start.front, f.end.front), grown("model", f.start.child, f.end.child))
	// Under load, the last quarter beside the second one.
	if n := len(f.samples) / 4; n > 0 {
		for _, c := range []struct {
			of string
			at func(footprint) process
		}{{"front under load", func(p footprint) process { return p.front }},
			{"model under load", func(p footprint) process { return p.child }}} {
			err = errors.Join(err, grown(c.of, middle(f.samples[n:2*n], c.at), middle(f.samples[3*n:], c.at)))
		}
	}
	return err
}

// middle is the process whose memory is the median.
func middle(list []footprint, at func(footprint) process) process {
	all := make([]process, len(list))
	for i, p := range list {
		all[i] = at(p)
	}
	slices.SortFunc(all, func(a, b process) int { return int(a.anonymous - b.anonymous) })
	return all[len(all)/2]
}
