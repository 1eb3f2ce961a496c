package edge

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestMinRateTransport(t *testing.T) {
	release := make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/busy" {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		w.Write([]byte("a few bytes"))
		if r.URL.Path == "/stall" {
			w.(http.Flusher).Flush()
			<-release
		}
	}))
	defer web.Close()
	defer close(release)
	client := http.Client{Transport: minRateTransport{window: 20 * time.Millisecond, least: 1000}}

	resp, err := client.Get(web.URL + "/stall")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); !errors.As(err, new(*retryLater)) {
		t.Errorf("a body that stalls: %v", err)
	}

	resp, err = client.Get(web.URL + "/whole")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "a few bytes" {
		t.Errorf("a complete body: %q, %v", body, err)
	}

	_, err = client.Get(web.URL + "/busy")
	var b *retryLater
	if !errors.As(err, &b) || b.after != 7*time.Second {
		t.Errorf("a busy server: %v", err)
	}
}

func TestBackoff(t *testing.T) {
	p := backoff{first: time.Second, most: 15 * time.Minute}
	for i := range 100 {
		low := min(15*time.Minute, time.Second<<min(i, 30))
		if d := p.next(0); d < low || d > 2*low {
			t.Errorf("pause %d is %v, want %v to twice that", i, d, low)
		}
	}
	if d := p.next(40 * time.Minute); d < 40*time.Minute {
		t.Errorf("pause %v is shorter than the Retry-After of 40m", d)
	}
	if d := p.next(100 * time.Hour); d > 2*time.Hour {
		t.Errorf("Retry-After of 100h gives a pause of %v, want at most 2h", d)
	}
	p.reset()
	if d := p.next(0); d > 2*time.Second {
		t.Errorf("pause %v after a success", d)
	}
	for range 1000 {
		if d := jittered(time.Minute); d < 30*time.Second || d > 90*time.Second {
			t.Fatalf("jittered minute is %v, want 30s to 90s", d)
		}
	}
}
