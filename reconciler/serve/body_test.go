package serve

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// Senders that have begun and do not go on hold no place, and of the memory what they have sent.
func TestSlowSenders(t *testing.T) {
	const many = 100
	for name, limits := range map[string]Limits{
		"places": {Requests: 2},
		"memory": {Requests: 2, Memory: many*firstStep*3 + 1<<20},
	} {
		a := newTestAPI(&fake{}, func(o *Options) { o.Limits = limits.withDefaults() })
		var slow sync.WaitGroup
		var senders []*io.PipeWriter
		for i := range many {
			target := []string{"/v1/detect", "/v2/models/bccd/infer", "/infer/object_detection", "/bccd/3"}[i%4]
			in, out := io.Pipe()
			senders = append(senders, out)
			r := httptest.NewRequest("POST", target, in)
			r.ContentLength = int64(a.o.Body)
			slow.Go(func() {
				if resp, body := call(t, a, r); resp.StatusCode != 400 || !strings.Contains(body, "ends too early") {
					t.Errorf("%s: a slow sender gets %d %s", name, resp.StatusCode, body)
				}
			})
			if _, err := out.Write([]byte("{")); err != nil { // it returns when the handler has read it
				t.Fatal(err)
			}
		}
		for range 3 {
			resp, body := call(t, a, httptest.NewRequest("POST", "/v1/detect", strings.NewReader(jpeg)))
			if resp.StatusCode != 200 {
				t.Errorf("%s: beside slow senders: %d %s", name, resp.StatusCode, body)
			}
		}
		for _, s := range senders {
			s.Close()
		}
		slow.Wait()
		if len(a.requests) != 0 || !a.memory.TryAcquire(a.memory.size) {
			t.Errorf("%s: ended requests hold places or memory", name)
		}
	}
}

// clocked is a ResponseWriter of a connection whose deadlines are noted.
type clocked struct {
	*httptest.ResponseRecorder
	deadlines []time.Time
}

func (c *clocked) SetReadDeadline(at time.Time) error {
	c.deadlines = append(c.deadlines, at)
	return nil
}

// parts gives one part at each Read, and then an error.
type parts struct {
	list []string
	err  error
}

func (p *parts) Read(b []byte) (int, error) {
	if len(p.list) == 0 {
		return 0, p.err
	}
	n := copy(b, p.list[0])
	if p.list[0] = p.list[0][n:]; p.list[0] == "" {
		p.list = p.list[1:]
	}
	return n, nil
}

func TestLeastRate(t *testing.T) {
	began := time.Unix(1000, 0)
	for received, want := range map[int64]time.Duration{0: patience, leastRate: patience + time.Second,
		10 * leastRate: patience + 10*time.Second, 1 << 40: readTimeout} {
		if got := slowest(began, received).Sub(began); got != want {
			t.Errorf("after %d bytes: %s, want %s", received, got, want)
		}
	}
	a := newTestAPI(&fake{}, nil)
	send := func(p *parts) *clocked {
		w := &clocked{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequest("POST", "/v1/detect", p)
		r.ContentLength = 2 * firstStep
		a.ServeHTTP(w, r)
		return w
	}
	half := strings.Repeat("x", firstStep)
	w := send(&parts{[]string{half}, os.ErrDeadlineExceeded})
	if w.Code != 408 || !strings.Contains(w.Body.String(), "the body arrives too slowly: want 32KiB a second") {
		t.Errorf("too slow: %d %s", w.Code, w.Body)
	}
	if n := len(w.deadlines); n < 2 || !w.deadlines[1].After(w.deadlines[0]) {
		t.Errorf("what arrives gives no time: %v", w.deadlines)
	}
	w = send(&parts{[]string{jpeg + half[len(jpeg):], half}, io.EOF})
	if last := w.deadlines[len(w.deadlines)-1]; w.Code != 200 || !last.IsZero() {
		t.Errorf("%d, and the last deadline is %v: it would end the request", w.Code, last)
	}
}

func TestExactly(t *testing.T) {
	for _, n := range []int64{0, 1, firstStep - 1, firstStep, firstStep + 1, 9*firstStep + 5} {
		next := byte(0)
		got, err := exactly(n, func(part []byte) error {
			for i := range part {
				part[i], next = next, next+1
			}
			return nil
		})
		if err != nil || int64(len(got)) != n {
			t.Fatalf("%d: %d, %v", n, len(got), err)
		}
		for i, b := range got {
			if b != byte(i) {
				t.Fatalf("%d: byte %d is %d", n, i, b)
			}
		}
	}
	if _, err := exactly(1<<40, func([]byte) error { return errors.New("it ends") }); err == nil {
		t.Error("no error")
	}
}

// A server with a token takes it as Roboflow's clients send their key. It is in no log.
func TestAPIKey(t *testing.T) {
	const token = "s3cret-token"
	var log bytes.Buffer
	m := &fake{}
	a := newTestAPI(m, func(o *Options) {
		o.Token, o.Log = token, slog.New(slog.NewTextHandler(&log, nil))
	})
	image := base64.StdEncoding.EncodeToString([]byte(jpeg))
	infer := func(key string) string {
		return `{"model_id":"bccd/3",` + key + `"image":{"type":"base64","value":"` + image + `"}}`
	}
	mine := `"api_key":"` + token + `",`
	for _, c := range []struct {
		method, target, body string
		status               int
	}{
		{"POST", "/infer/object_detection", infer(mine), 200},
		{"POST", "/infer/object_detection?api_key=" + token, infer(""), 200},
		{"POST", "/infer/object_detection", infer(""), 401},
		{"POST", "/infer/object_detection", infer(`"api_key":null,`), 401},
		{"POST", "/infer/object_detection", infer(`"api_key":"` + token + `x",`), 401},
		{"POST", "/infer/object_detection", infer(`"API_KEY":"` + token + `",`), 401},
		{"POST", "/infer/object_detection", `{"api_key":7}`, 401},
		{"POST", "/infer/object_detection", `{`, 401},
		{"POST", "/infer/object_detection?api_key=x", infer(mine), 200},
		{"POST", "/bccd/3?api_key=" + token, image, 200},
		{"POST", "/bccd/3?api_key=x", image, 401},
		{"POST", "/bccd/3", image, 401},
		{"POST", "/v1/detect?api_key=" + token, jpeg, 401}, // the header alone
		{"GET", "/v2/models/bccd?api_key=" + token, "", 401},
		{"GET", "/info", "", 200},
		{"GET", "/model/registry", "", 200},
		{"POST", "/model/add", `{"model_id":"bccd/3",` + mine + `"x":1}`, 200},
		{"POST", "/model/add", `{"model_id":"bccd/3"}`, 401},
		{"POST", "/model/add", `{"model_id":"other/1",` + mine + `"x":1}`, 404},
		{"POST", "/model/remove", `{"model_id":"bccd/3"}`, 401},
		{"POST", "/model/remove?api_key=" + token, `{"model_id":"bccd/3"}`, 403},
		{"POST", "/model/clear?api_key=" + token, "", 403},
	} {
		resp, body := call(t, a, httptest.NewRequest(c.method, c.target, strings.NewReader(c.body)))
		if resp.StatusCode != c.status || strings.Contains(body, token) {
			t.Errorf("%s %s with %.60s: %d %s, want %d", c.method, c.target, c.body, resp.StatusCode, body, c.status)
		}
	}
	if m.err = errors.New("it failed"); m.err != nil {
		resp, _ := call(t, a, httptest.NewRequest("POST", "/bccd/3?api_key="+token, strings.NewReader(image)))
		said := log.String()
		if resp.StatusCode != 500 || !strings.Contains(said, "it failed") || strings.Contains(said, token) {
			t.Errorf("%d, log %s", resp.StatusCode, said)
		}
	}
}

// Who has not shown the token yet takes a quarter of the memory at most.
func TestStrangersTakeLittle(t *testing.T) {
	a := newTestAPI(&fake{}, func(o *Options) { o.Token, o.Body, o.Memory = "t", 400, 400 })
	in, out := io.Pipe()
	r := httptest.NewRequest("POST", "/infer/object_detection", in)
	r.ContentLength = 400
	ended := make(chan string)
	go func() { _, body := call(t, a, r); ended <- body }()
	if _, err := out.Write([]byte("{")); err != nil {
		t.Fatal(err)
	}
	resp, body := call(t, a, httptest.NewRequest("POST", "/infer/object_detection", strings.NewReader("{}")))
	if resp.StatusCode != 429 {
		t.Errorf("a second stranger: %d %s", resp.StatusCode, body)
	}
	r = httptest.NewRequest("POST", "/v1/detect", strings.NewReader(jpeg))
	r.Header.Set("Authorization", "Bearer t")
	if resp, body := call(t, a, r); resp.StatusCode != 200 {
		t.Errorf("a caller with the token: %d %s", resp.StatusCode, body)
	}
	out.Close()
	<-ended
}
