package web_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/explain"
	"github.com/autonomos/aob/reconciler/web"
)

// logger returns a logger that writes to w.
func logger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// serve serves a source on a socket, and returns a client of it.
func serve(t *testing.T, source web.Source) *web.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "aob.sock")
	l, err := web.ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- web.SiteLimits().Serve(ctx, l, web.API{Source: source, Log: logger(t.Output())}.Handler(),
			logger(t.Output()))
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return web.NewClient(path)
}

// me is the user that the tests run as.
var me = func() string {
	u, err := user.Current()
	if err != nil {
		panic(err)
	}
	return u.Username
}()

// The user of a request is the one that the operating system reports, not the one in the request.
func TestUserIsFromTheSocket(t *testing.T) {
	handler := web.API{Source: newMemorySource(), Log: logger(t.Output())}.Handler()
	for path, body := range map[string]string{
		"/v1/prs/3/ask":   `{"text": "/aob run 1"}`,
		"/v1/prs/3/merge": `{"head": "5d79a5e"}`,
		"/v1/trials":      `{"file": "models/shapes.yaml", "variants": [{"text": "a: b"}]}`,
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("POST", path, strings.NewReader(body)))
		if w.Code != http.StatusForbidden {
			t.Errorf("%s without a user: %d, %s", path, w.Code, w.Body)
		}
	}
	source := newMemorySource()
	client := serve(t, source)
	if err := client.Command(t.Context(), 3, "ann", "/aob accept 1 because I am ann"); err != nil {
		t.Fatal(err)
	}
	if got, want := source.comments[0], "#3 "+me+": /aob accept 1 because I am ann"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A client returns what the server's source returns.
func TestClient(t *testing.T) {
	source := newMemorySource()
	client := serve(t, source)
	ctx := t.Context()
	same := func(what string, want, got any, wantErr, err error) {
		t.Helper()
		if (err == nil) != (wantErr == nil) {
			t.Errorf("%s: %v, want %v", what, err, wantErr)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	for what, ask := range map[string]func(s web.Source) (any, error){
		"status":  func(s web.Source) (any, error) { return s.Status(ctx) },
		"prs":     func(s web.Source) (any, error) { return s.PRs(ctx) },
		"pr":      func(s web.Source) (any, error) { return s.PR(ctx, 3) },
		"no pr":   func(s web.Source) (any, error) { return s.PR(ctx, 4) },
		"explain": func(s web.Source) (any, error) { return s.Explain(ctx, explain.Model, "shapes") },
		"slash":   func(s web.Source) (any, error) { return s.Explain(ctx, explain.Model, "a/b c") },
		"unknown": func(s web.Source) (any, error) { return s.Explain(ctx, explain.Device, "../../x?y=%2f#z") },
		"plan":    func(s web.Source) (any, error) { return s.Plan(ctx) },
		"adopt":   func(s web.Source) (any, error) { return s.Adopt(ctx, 3, "5d79a5e") },
		"blocked": func(s web.Source) (any, error) { return s.Merge(ctx, 3, "5d79a5e", me) },
		"recheck": func(s web.Source) (any, error) { return nil, s.Recheck(ctx, 3) },
		"ask":     func(s web.Source) (any, error) { return nil, s.Command(ctx, 3, me, "/aob run 3f9c2a10") },
		"try": func(s web.Source) (any, error) {
			return s.Try(ctx, web.TrialRequest{User: me, File: "models/shapes.yaml",
				Variants: []web.VariantRequest{{Set: []string{"train.epochs=4"}, Text: "a: b"}, {Text: "c"}}})
		},
		"trainings":      func(s web.Source) (any, error) { return s.Trainings(ctx) },
		"trials":         func(s web.Source) (any, error) { return s.Trials(ctx) },
		"trial":          func(s web.Source) (any, error) { return s.Trial(ctx, "0123") },
		"no trial":       func(s web.Source) (any, error) { return s.Trial(ctx, "../prs/3") },
		"end":            func(s web.Source) (any, error) { return nil, s.EndTrial(ctx, "0123") },
		"forget":         func(s web.Source) (any, error) { return nil, s.ForgetDevice(ctx, "demo", "dock-1") },
		"forget of none": func(s web.Source) (any, error) { return nil, s.ForgetDevice(ctx, "demo", "../x") },
		"end of none":    func(s web.Source) (any, error) { return nil, s.EndTrial(ctx, "9") },
		"compare":        func(s web.Source) (any, error) { return s.Compare(ctx, "#3", "a&b=c") },
		"power":          func(s web.Source) (any, error) { return s.Power(ctx, "production") },
		"release":        func(s web.Source) (any, error) { return s.Release(ctx, "shapes", 3) },
		"no release":     func(s web.Source) (any, error) { return s.Release(ctx, "../x?y", 0) },
		"no gate":        func(s web.Source) (any, error) { return s.Power(ctx, "../x") },
		"compare itself": func(s web.Source) (any, error) { return s.Compare(ctx, "a", "a") },
		"log": func(s web.Source) (any, error) {
			log, err := s.Log(ctx, string(delivery.Sum([]byte("train"))), 8)
			if err != nil {
				return nil, err
			}
			defer log.Close()
			data, err := io.ReadAll(log)
			return []any{string(data), log.Name, log.Offset, log.Ended}, err
		},
		"log beyond its end": func(s web.Source) (any, error) {
			log, err := s.Log(ctx, string(delivery.Sum([]byte("train"))), 1000)
			return log.Offset, err
		},
		"no log": func(s web.Source) (any, error) { _, err := s.Log(ctx, "..", 0); return nil, err },
	} {
		want, wantErr := ask(source)
		got, err := ask(client)
		same(what, want, got, wantErr, err)
	}
	if len(source.comments) != 2 || source.comments[0] != "#3 "+me+": /aob run 3f9c2a10" ||
		source.comments[0] != source.comments[1] {
		t.Errorf("comments %q", source.comments)
	}
	source.prs[0].State = delivery.CheckSuccess
	if commit, err := client.Merge(ctx, 3, "5d79a5e", "mallory"); err != nil || commit != "merged by "+me {
		t.Errorf("merge: %q, %v", commit, err)
	}
	if prs, err := client.PRs(ctx); err != nil || prs == nil || len(prs) != 0 {
		t.Errorf("after the merge: %v, %v; want an empty list", prs, err)
	}
}

// Every kind of error reaches the client with its status, text and hint.
func TestErrors(t *testing.T) {
	source := newMemorySource()
	client := serve(t, source)
	for _, c := range []struct {
		err  error
		want web.Error
	}{
		{delivery.Blockedf("free some room", "the disk is full"), web.Error{Code: 409, What: "the disk is full",
			Do: "free some room"}},
		{fmt.Errorf("merge: %w", delivery.Blockedf("rebase first", "main has moved")),
			web.Error{Code: 409, What: "main has moved", Do: "rebase first"}},
		{delivery.Wait{For: 1500 * time.Millisecond, What: "aob serve has only just started"},
			web.Error{Code: 503, What: "aob serve has only just started", Do: "ask again in 2s",
				RetryAfter: 2 * time.Second}},
		{explain.Unknown{Kind: explain.PR, ID: "9", Do: "aob pr list"},
			web.Error{Code: 404, What: "nothing is known of pr 9", Do: "aob pr list"}},
		{errors.New("something broke"), web.Error{Code: 500, What: "something broke"}},
		{&web.Error{Code: 418, What: "a teapot"}, web.Error{Code: 418, What: "a teapot"}},
	} {
		source.broken = c.err
		_, err := client.PRs(t.Context())
		e, ok := errors.AsType[*web.Error](err)
		if !ok {
			t.Errorf("%v: got %v", c.err, err)
			continue
		}
		if diff := cmp.Diff(c.want, *e); diff != "" {
			t.Errorf("%v (-want +got):\n%s", c.err, diff)
		}
	}
}

// A value that cannot be encoded gives an error response, never half a response.
func TestUnencodableResponse(t *testing.T) {
	source := newMemorySource()
	client := serve(t, source)
	nan := math.NaN()
	source.prs[0].Runs[0].MAP = &nan
	_, err := client.PR(t.Context(), 3)
	if e, ok := errors.AsType[*web.Error](err); !ok || e.Code != 500 || !strings.Contains(e.What, "NaN") {
		t.Errorf("got %v", err)
	}
}

func TestRequestsRefused(t *testing.T) {
	handler := web.API{Source: newMemorySource(), Log: logger(t.Output())}.Handler()
	for _, c := range []struct {
		method, path, body string
		code               int
		says               string
	}{
		{"GET", "/v1/nothing", "", 404, "the API has no GET /v1/nothing"},
		{"GET", "/v2/status", "", 404, "the API has no"},
		{"DELETE", "/v1/prs/3", "", 404, "the API has no DELETE"},
		{"POST", "/v1/status", "", 404, "the API has no POST"},
		{"GET", "/v1/prs/x", "", 400, "number"},
		{"GET", "/v1/prs/0", "", 400, "number"},
		{"GET", "/v1/prs/99999999999999999999", "", 400, "number"},
		{"POST", "/v1/trials", `{"note": "` + strings.Repeat("x", web.MaxNote+1) + `", "variants": [{}]}`, 400, "note"},
		{"POST", "/v1/prs/3/merge", "{}", 400, "head"},
		{"POST", "/v1/prs/3/merge", `{"head": "5d79a5"}`, 400, "head"},
		{"POST", "/v1/prs/3/merge", `{"head": "5d79a5e", "user": "ann"}`, 400, "user"},
		{"POST", "/v1/prs/3/merge", "not json", 400, "not valid for this request"},
		{"POST", "/v1/prs/3/merge", `{"head": "5d79a5e", "force": true}`, 400, "force"},
		{"POST", "/v1/prs/3/ask", `{"text": " "}`, 400, "text"},
		{"POST", "/v1/prs/3/ask", `{"text": "` + strings.Repeat("x", web.MaxText+1) + `"}`, 400, "text"},
		{"POST", "/v1/prs/3/ask", strings.Repeat(" ", web.MaxBody+1), 413, "too large"},
		{"GET", "/v1/runs/x/log?offset=-1", "", 400, "offset"},
		{"GET", "/v1/runs/x/log?offset=x", "", 400, "offset"},
		{"GET", "/v1/runs/x/log", "", 404, "run x"},
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)).WithContext(
			web.WithPeer(t.Context(), me)))
		var answer struct{ Error, Hint string }
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Errorf("%s %s: %v in %q", c.method, c.path, err, w.Body)
		}
		if w.Code != c.code || !strings.Contains(answer.Error, c.says) {
			t.Errorf("%s %s: %d %q, want %d with %q", c.method, c.path, w.Code, answer.Error, c.code, c.says)
		}
	}
}

// Missing lists are [] in JSON, not null.
func TestEmptyIsNotNull(t *testing.T) {
	handler := web.API{Source: empty{newMemorySource()}, Log: logger(t.Output())}.Handler()
	for path, want := range map[string]string{
		"/v1/status":               `"checks":[]},"models":[],"prs":[],"runs":[],"fleets":[{"name":"demo"`,
		"/v1/prs":                  `[]`,
		"/v1/prs/3":                `"checks":[],"runs":[]`,
		"/v1/plan":                 `"steps":[]`,
		"/v1/explain/model/shapes": `"links":[]`,
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s, want %s in it", path, w.Code, w.Body, want)
		}
	}
}

// empty is a source whose lists are nil.
type empty struct{ *memorySource }

func (empty) Status(context.Context) (web.Status, error) {
	return web.Status{Fleets: []web.Fleet{{Name: "demo"}}}, nil
}
func (empty) PRs(context.Context) ([]web.PR, error)   { return nil, nil }
func (empty) PR(context.Context, int) (web.PR, error) { return web.PR{}, nil }
func (empty) Plan(context.Context) (web.Plan, error)  { return web.Plan{}, nil }
func (empty) Explain(context.Context, explain.Kind, string) (explain.Chain, error) {
	return explain.Chain{}, nil
}

func TestNoServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "aob.sock")
	_, err := web.NewClient(path).Status(t.Context())
	e, ok := errors.AsType[*web.Error](err)
	if !ok || e.What != "no aob serve is running on "+path || !strings.Contains(e.Do, "aob serve --config") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := web.NewClient(path).Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Changes are logged with their user, and errors too.
func TestLog(t *testing.T) {
	var log bytes.Buffer
	source := newMemorySource()
	handler := web.API{Source: source, Log: logger(&log)}.Handler()
	handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/v1/prs/3/recheck", nil).WithContext(
		web.WithPeer(t.Context(), "maria")))
	source.broken = errors.New("something broke")
	handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/v1/plan", nil))
	for _, want := range []string{"/v1/prs/3/recheck", "user=maria", "something broke"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, &log)
		}
	}
}

func FuzzAPI(f *testing.F) {
	f.Add("POST", "/v1/prs/3/ask", `{"text": "/aob run 1"}`)
	f.Add("GET", "/v1/explain/commit/..%2f", "")
	f.Add("GET", "/v1/runs/a/log?offset=9223372036854775807", "")
	handler := web.API{Source: newMemorySource(), Log: slog.New(slog.DiscardHandler)}.Handler()
	f.Fuzz(func(t *testing.T, method, path, body string) {
		r, err := http.NewRequest(method, "http://aob/", strings.NewReader(body))
		if err != nil {
			t.Skip()
		}
		if r.URL, err = r.URL.Parse(path); err != nil {
			t.Skip()
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("%d: %s", w.Code, w.Body)
		}
	})
}
