package edge

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/trust"
)

// An asking server has one request, and keeps the answers.
type asking struct {
	envelope []byte
	answers  []delivery.BenchAnswer
}

func (s *asking) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	switch {
	case r.URL.Path != "/fleet/v1/bench" || r.Header.Get("Authorization") != "Bearer its token":
		http.Error(w, "no", http.StatusUnauthorized)
	case r.Method == http.MethodGet && s.envelope != nil:
		w.Write(s.envelope)
	case r.Method == http.MethodGet:
		w.WriteHeader(http.StatusNoContent)
	default:
		var a delivery.BenchAnswer
		if err := delivery.ParseJSON(body, &a); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.answers = append(s.answers, a)
		w.WriteHeader(http.StatusNoContent)
	}
}

func TestBench(t *testing.T) {
	key, err := trust.Create(filepath.Join(t.TempDir(), "desired.pem"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := trust.Create(filepath.Join(t.TempDir(), "other.pem"))
	if err != nil {
		t.Fatal(err)
	}
	good := delivery.BenchRequest{Ring: "north", Device: "bench-1", Expires: noon.Add(time.Hour),
		BenchRun: delivery.BenchRun{Bundle: one.Bundle, Profile: "cpu-fp32", Settings: delivery.GateBench()}}
	for _, c := range []struct {
		name    string
		change  func(*delivery.BenchRequest)
		key     *trust.Key
		payload string // the payload type
		fetch   error
		want    string // the error
		why     string // in the answer
	}{
		{name: "good"},
		{name: "no download", fetch: errors.New("connection refused"), why: "download: connection refused"},
		{name: "signed by another key", key: other, want: "refused"},
		{name: "a document of another kind", payload: delivery.DesiredPayload, want: "refused"},
		{name: "of another device", change: func(r *delivery.BenchRequest) { r.Device = "bench-2" },
			want: `it is for device "bench-2"`},
		{name: "of another fleet", change: func(r *delivery.BenchRequest) { r.Ring = "south" },
			want: `of fleet "south"`},
		{name: "expired", change: func(r *delivery.BenchRequest) { r.Expires = noon }, want: "it expired"},
		{name: "on other hardware", change: func(r *delivery.BenchRequest) { r.Profile = "t4-fp16" },
			want: `this device measures on cpu-fp32, and not on "t4-fp16"`},
		{name: "too many images", change: func(r *delivery.BenchRequest) { r.Settings.Images = 1e9 },
			want: "images: want 1 to"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := good
			if c.change != nil {
				c.change(&r)
			}
			payload, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			signer, kind := key, delivery.BenchPayload
			if c.key != nil {
				signer = c.key
			}
			if c.payload != "" {
				kind = c.payload
			}
			server := &asking{}
			if server.envelope, err = trust.Sign(signer, kind, payload); err != nil {
				t.Fatal(err)
			}
			at := httptest.NewServer(server)
			defer at.Close()
			ran := 0
			a := &Agent{Config: Config{Ring: "north", Device: "bench-1", Keys: []trust.PublicKey{key.Public()},
				Dir: t.TempDir(), Server: at.URL, Token: "its token", Client: at.Client(),
				Profiles: []string{"cpu-fp32"},
				Now:      func() time.Time { return noon }, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
				Fetch: func(_ context.Context, _ delivery.Digest, _, dir string) (int64, error) {
					if c.fetch != nil {
						return 0, c.fetch
					}
					return 1, os.MkdirAll(dir, 0o700)
				},
				Check: func(context.Context, delivery.Digest, string) error { return nil },
				Bench: func(_ context.Context, folder string, run delivery.BenchRun) (delivery.Bench, error) {
					ran++
					if _, err := os.Stat(folder); err != nil {
						return delivery.Bench{}, err
					}
					run.Bundle = "" // a folder has none
					return delivery.Bench{BenchRun: run}, nil
				}}}
			err = a.benchOnce(t.Context())
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) || ran > 0 || len(server.answers) > 0 {
					t.Errorf("%v; ran %d times, answered %v", err, ran, server.answers)
				}
				return
			}
			if err != nil || len(server.answers) != 1 || server.answers[0].Key != r.Key() {
				t.Fatalf("%v, %+v", err, server.answers)
			}
			answer := server.answers[0]
			if c.why != "" && (answer.Why != c.why || answer.Bench != nil) ||
				c.why == "" && (answer.Bench == nil || answer.Bench.BenchRun != r.BenchRun) {
				t.Errorf("%+v", answer)
			}
			if _, err := os.Stat(filepath.Join(a.Dir, benchFolder)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the bundle is left: %v", err)
			}
			server.envelope = nil
			if err := a.benchOnce(t.Context()); err != nil || len(server.answers) != 1 {
				t.Errorf("nothing to do: %v", err)
			}
		})
	}
}
