package edge

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/trust"
)

// FuzzDocument checks that an accepted document is within its limits, even if a trusted key signed it.
func FuzzDocument(f *testing.F) {
	key, err := trust.Create(filepath.Join(f.TempDir(), "desired.pem"))
	if err != nil {
		f.Fatal(err)
	}
	a := &Agent{Config: Config{Ring: "north", Device: "d1", Keys: []trust.PublicKey{key.Public()}}}
	good, err := json.Marshal(doc(1, one, &two, 0.5))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"ring":"north","version":1,"release":{"bundle":"` + string(one.Bundle) +
		`"},"match":null,"soak":"1d","expires":"0001-01-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		envelope, err := trust.Sign(key, delivery.DesiredPayload, payload)
		if err != nil {
			return
		}
		taken, err := a.verify(envelope)
		if err != nil {
			return
		}
		d := taken.desired
		if d.Ring != "north" || d.Version < 1 || !(d.Share >= 0 && d.Share <= 1) || d.Soak < 0 {
			t.Errorf("taken: %+v", d)
		}
		p := Make(World{At: noon, Device: "d1", Desired: &d, Slots: map[string]Slot{}})
		if p.Do == Fetch {
			if _, err := delivery.ParseDigest(string(p.Target.Bundle)); err != nil {
				t.Errorf("would fetch: %v", err)
			}
		}
	})
}

// A server that restarts now and then while it holds a long poll is polled again soon after each restart. For a server
// that closes the connection at once, or cannot be reached, the pauses grow.
func TestPollBackoff(t *testing.T) {
	for _, tt := range []struct {
		name string
		server
		want time.Duration // the pause after the tenth failure; jitter at most doubles it
	}{
		{"restarted", server{there: true, holds: 30 * time.Second}, time.Second},
		{"closes at once", server{there: true}, 300 * time.Second},
		{"unreachable", server{holds: 30 * time.Second}, 300 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				pauses := make(pauseLog)
				a := &Agent{Config: Config{Server: "http://aob", Ring: "north",
					Client: &http.Client{Transport: tt.server},
					Retry:  time.Second, Metrics: NewMetrics(), Log: slog.New(pauses)}}
				go a.poll(ctx)
				var last time.Duration
				for range 10 {
					last = <-pauses
				}
				if last < tt.want || last > 2*tt.want {
					t.Errorf("after ten failures the pause is %s, want %s to %s", last, tt.want, 2*tt.want)
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

// A server accepts requests and never answers, or cannot be reached.
type server struct {
	there bool
	holds time.Duration
}

func (s server) RoundTrip(r *http.Request) (*http.Response, error) {
	if s.there {
		httptrace.ContextClientTrace(r.Context()).WroteRequest(httptrace.WroteRequestInfo{})
	}
	time.Sleep(s.holds)
	return nil, io.ErrUnexpectedEOF
}

// A pauseLog is a log handler that extracts the logged pauses.
type pauseLog chan time.Duration

func (pauseLog) Enabled(context.Context, slog.Level) bool { return true }
func (l pauseLog) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l pauseLog) WithGroup(string) slog.Handler          { return l }
func (l pauseLog) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "again" {
			l <- a.Value.Duration()
		}
		return true
	})
	return nil
}

// The error for a signed document of a newer server says so. The error for one without a trusted signature does not.
func TestDocumentOfNewerServer(t *testing.T) {
	key, stranger := newKey(t), newKey(t)
	a := &Agent{Config: Config{Ring: "north", Device: "d1", Keys: []trust.PublicKey{key.Public()}}}
	for name, c := range map[string]struct {
		by   *trust.Key
		want string
	}{
		"signed":        {key, "it has format 2, and this aob reads formats up to 1"},
		"untrusted key": {stranger, "no trusted key signed it"},
	} {
		envelope, err := trust.Sign(c.by, "application/vnd.aob.desired.v2+json", []byte(`{"ring":"north"}`))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.verify(envelope); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
}

// An agent refuses the folder of a newer agent and changes nothing in it. A damaged folder is not refused.
func TestFolderOfNewerAgentIsRefused(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"newer": {`{"format": 2, "slot": "c"}`,
			"was written by a newer aob: it has format 2, and this aob reads formats up to 1"},
		"newer, other types": {`{"format": 5, "slot": {"x": 1}}`, "it has format 5"},
		"no format":          {`{"device": "d1", "ring": "north", "downloaded": 0}`, ""},
		"format 1":           {`{"format": 1, "device": "d1", "ring": "north"}`, ""},
		"damaged":            {`{"format": `, ""},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, stateFile)
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		a := &Agent{Config: Config{Ring: "north", Device: "d1", Dir: dir, Log: slog.New(slog.DiscardHandler)}}
		err := a.load()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
		if c.want == "" {
			continue
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != c.text {
			t.Errorf("%s: the file is %s, %v", name, got, err)
		}
		if _, err := ReadStatus(dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: the status says %v", name, err)
		}
	}
}

func newKey(t *testing.T) *trust.Key {
	t.Helper()
	key, err := trust.Create(filepath.Join(t.TempDir(), "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return key
}
