package track_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/track"
	"github.com/autonomos/aob/tools/mlflow/mlflowtest"
)

var start = time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)

func client(address string) *track.MLflow {
	return track.New(track.Settings{URL: address, Now: func() time.Time { return start.Add(time.Hour) }})
}

func digest(s string) delivery.Digest { return delivery.Sum([]byte(s)) }

// training is a run of a model as it looks while it trains.
func training(model string) track.Run {
	return track.Run{Key: digest("run of " + model), Experiment: model, Name: "PR #12 seed 1",
		Note: "Pull request [#12](https://git.example.com/12)", Status: track.Running, Start: start,
		Params: map[string]string{"train.epochs": "3", "train.args.note": strings.Repeat("ä", 7000)},
		Tags:   map[string]string{"aob.pull_request": "12", "mlflow.source.git.commit": "4d5e6f7a"},
		Data: []track.Dataset{{Name: "dir:shapes", Digest: digest("data"), Context: "training",
			Profile: map[string]int{"train images": 90}}}}
}

func epochs(n int) []track.Epoch {
	var list []track.Epoch
	for i := range n {
		list = append(list, track.Epoch{Step: int64(i + 1), Values: map[string]float64{"loss": 1 / float64(i+1)}})
	}
	return list
}

// trained is the same run when it has ended and was judged.
func trained(model string) track.Run {
	r := training(model)
	r.Status, r.End, r.Bundle = track.Finished, start.Add(time.Hour), digest("bundle of "+model)
	r.Tags["aob.verdict"] = "pass"
	r.Measured = []track.Measured{{Under: "gate/production", Data: track.Dataset{Name: "dir:shapes test",
		Digest: digest("gold"), Context: "evaluation"}, Values: map[string]float64{"mAP": 0.61, "AP/Zelle 1": 0.5}}}
	return r
}

// seen is what MLflow's own client sees of a model.
type seen struct {
	Runs []struct {
		Name, Status, User string
		Start, End         int64
		Params, Tags       map[string]string
		Steps              map[string][]int
		Metrics            map[string]any
		Data               []map[string]string
		Models             int
	}
	Logged []struct {
		Status  string
		Tags    map[string]string
		Metrics [][]string
	}
	Versions []struct {
		Number, Source, Run string
		Tags                map[string]string
	}
	Production string
}

const look = `
import json, sys, mlflow
from mlflow import MlflowClient
c, name = MlflowClient(), %q
out = {"Runs": [], "Logged": [], "Versions": [], "Production": ""}
e = c.get_experiment_by_name(name)
for r in c.search_runs([e.experiment_id], run_view_type=1, order_by=["attributes.start_time"]) if e else []:
    r = c.get_run(r.info.run_id)
    steps = {k: [m.step for m in c.get_metric_history(r.info.run_id, k)] for k in r.data.metrics}
    out["Runs"].append({"Name": r.info.run_name, "Status": r.info.status, "Start": r.info.start_time,
        "End": r.info.end_time or 0, "Params": r.data.params, "Tags": r.data.tags, "Steps": steps,
        "Metrics": {k: str(v) for k, v in r.data.metrics.items()},
        "Data": [dict(Name=d.dataset.name, Digest=d.dataset.digest, **{t.key: t.value for t in d.tags})
                 for d in r.inputs.dataset_inputs], "Models": len(r.outputs.model_outputs)})
for m in mlflow.search_logged_models([e.experiment_id], output_format="list") if e else []:
    out["Logged"].append({"Status": str(m.status), "Tags": m.tags,
        "Metrics": sorted([x.key, str(x.step), x.dataset_name or "", x.dataset_digest or ""] for x in m.metrics or [])})
for v in sorted(c.search_model_versions(f"name='{name}'"), key=lambda v: int(v.version)):
    out["Versions"].append({"Number": v.version, "Source": v.source, "Run": v.run_id, "Tags": v.tags})
try:
    out["Production"] = c.get_model_version_by_alias(name, "production").version
except Exception:
    pass
print(json.dumps(out))
`

func looked(t *testing.T, s *mlflowtest.Server, model string) (v seen) {
	t.Helper()
	if err := json.Unmarshal([]byte(s.Python(t, fmt.Sprintf(look, model))), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func put(t *testing.T, m *track.MLflow, r track.Run, epochs []track.Epoch) {
	t.Helper()
	if err := m.PutRun(t.Context(), r, epochs); err != nil {
		t.Fatal(err)
	}
}

// All of it is against one server, because MLflow takes ten seconds to start.
func TestRealMLflow(t *testing.T) {
	if testing.Short() {
		t.Skip("starts an MLflow server")
	}
	server := mlflowtest.Start(t)
	m := client(server.URL)
	t.Run("run", func(t *testing.T) { testRun(t, server, m) })
	t.Run("failed", func(t *testing.T) { testFailed(t, server, m) })
	t.Run("limits", func(t *testing.T) { testLimits(t, server, m) })
	t.Run("versions", func(t *testing.T) { testVersions(t, server, m) })
	t.Run("lost answers", func(t *testing.T) { testLostAnswers(t, server, m) })
	t.Run("deleted", func(t *testing.T) { testDeleted(t, server, m) })
	t.Run("host header", func(t *testing.T) { testHostHeader(t, server) })
}

// A run grows while it trains, and what is sent again changes nothing.
func testRun(t *testing.T, server *mlflowtest.Server, m *track.MLflow) {
	put(t, m, training("shapes"), nil)
	put(t, m, training("shapes"), epochs(2))
	put(t, m, training("shapes"), epochs(2))
	v := looked(t, server, "shapes")
	if len(v.Runs) != 1 || v.Runs[0].Status != "RUNNING" || v.Logged[0].Status != "PENDING" {
		t.Fatalf("while it trains: %+v", v)
	}
	for range 2 {
		put(t, m, trained("shapes"), epochs(3))
	}
	v = looked(t, server, "shapes")
	if len(v.Runs) != 1 || len(v.Logged) != 1 {
		t.Fatalf("%d runs, %d logged models", len(v.Runs), len(v.Logged))
	}
	r := v.Runs[0]
	if r.Name != "PR #12 seed 1" || r.Status != "FINISHED" || r.Start != start.UnixMilli() ||
		r.End != start.Add(time.Hour).UnixMilli() || r.Models != 1 {
		t.Errorf("run: %+v", r)
	}
	if diff := cmp.Diff(map[string][]int{"trainer/loss": {1, 2, 3}, "gate/production/mAP": {0},
		"gate/production/AP/Zelle 1": {0}}, r.Steps); diff != "" {
		t.Errorf("steps of metrics (-want +got):\n%s", diff)
	}
	if r.Metrics["gate/production/mAP"] != "0.61" || r.Params["train.epochs"] != "3" {
		t.Errorf("metrics %v, params %v", r.Metrics, r.Params)
	}
	if got := []rune(r.Params["train.args.note"]); len(got) != 6000 || got[5999] != '…' {
		t.Errorf("a long parameter has %d characters", len(got))
	}
	if r.Tags["aob.run"] != string(digest("run of shapes")) || r.Tags["aob.verdict"] != "pass" ||
		r.Tags["mlflow.source.git.commit"] != "4d5e6f7a" {
		t.Errorf("tags: %v", r.Tags)
	}
	want := []map[string]string{
		{"Name": "dir:shapes", "Digest": digest("data").Hex()[:36], "mlflow.data.context": "training",
			"aob.digest": string(digest("data"))},
		{"Name": "dir:shapes test", "Digest": digest("gold").Hex()[:36], "mlflow.data.context": "evaluation",
			"aob.digest": string(digest("gold"))}}
	if diff := cmp.Diff(want, r.Data); diff != "" {
		t.Errorf("datasets (-want +got):\n%s", diff)
	}
	l := v.Logged[0]
	if l.Status != "READY" || l.Tags["aob.bundle"] != string(digest("bundle of shapes")) {
		t.Errorf("logged model: %+v", l)
	}
	// Each figure has its dataset.
	data, gold := digest("data").Hex()[:36], digest("gold").Hex()[:36]
	if diff := cmp.Diff([][]string{{"gate/production/AP/Zelle 1", "0", "dir:shapes test", gold},
		{"gate/production/mAP", "0", "dir:shapes test", gold}, {"trainer/loss", "1", "dir:shapes", data},
		{"trainer/loss", "2", "dir:shapes", data}, {"trainer/loss", "3", "dir:shapes", data}}, l.Metrics); diff != "" {
		t.Errorf("figures of the logged model (-want +got):\n%s", diff)
	}
}

func testFailed(t *testing.T, server *mlflowtest.Server, m *track.MLflow) {
	r := training("fails")
	r.Status, r.End, r.Tags["aob.error"] = track.Failed, start.Add(time.Minute), "the loss is not a number"
	put(t, m, r, []track.Epoch{{Step: 1, Values: map[string]float64{"loss": math.NaN(), "grad": math.Inf(1)}}})
	put(t, m, r, []track.Epoch{{Step: 1, Values: map[string]float64{"loss": math.NaN(), "grad": math.Inf(1)}}})
	v := looked(t, server, "fails")
	if len(v.Runs) != 1 || v.Runs[0].Status != "FAILED" || v.Runs[0].Metrics["trainer/loss"] != "nan" ||
		len(v.Runs[0].Steps["trainer/grad"]) != 1 || v.Runs[0].Tags["aob.error"] != "the loss is not a number" ||
		v.Logged[0].Status != "FAILED" {
		t.Errorf("%+v", v)
	}
}

// What is more than MLflow takes in one call is sent in several.
func testLimits(t *testing.T, server *mlflowtest.Server, m *track.MLflow) {
	r := trained("large")
	for i := range 250 {
		r.Params[fmt.Sprintf("train.args.p%03d", i)] = strings.Repeat("x", 5990)
		r.Tags[fmt.Sprintf("aob.t%03d", i)] = "v"
	}
	var list []track.Epoch
	for i := range 700 {
		list = append(list, track.Epoch{Step: int64(i),
			Values: map[string]float64{"a": 1, "b/../c": 2, `d"$`: math.NaN()}})
	}
	put(t, m, r, list)
	v := looked(t, server, "large")
	got := v.Runs[0]
	steps := len(got.Steps["trainer/a"])
	if len(got.Params) != 252 || got.Tags["aob.t249"] != "v" || steps != 700 || len(got.Steps) != 5 {
		t.Errorf("%d params, %d tags, %d steps, metrics %v", len(got.Params), len(got.Tags), steps, got.Metrics)
	}
}

func release(model string, n int) track.Version {
	bundle := digest(fmt.Sprint(model, n))
	return track.Version{Number: n, Bundle: bundle, Run: digest("run of " + model), Experiment: model, Note: "released",
		Source: "oci://127.0.0.1:8370/bundles@" + string(bundle), Tags: map[string]string{"aob.verdict": "pass"}}
}

// Releases move the alias, and a rollback moves it back.
func testVersions(t *testing.T, server *mlflowtest.Server, m *track.MLflow) {
	put(t, m, trained("released"), nil)
	one, two := release("released", 1), release("released", 2)
	of := track.Model{Name: "released", Note: "Delivered by AOB."}
	for i, c := range []struct {
		versions   []track.Version
		production *track.Version
		want       string
	}{
		{[]track.Version{one}, nil, ""},
		{[]track.Version{one}, &one, "1"},
		{[]track.Version{one, two}, &two, "2"},
		{[]track.Version{one, two}, &one, "1"}, // git revert
		{[]track.Version{one, two}, &one, "1"},
		{[]track.Version{one, two}, nil, ""},
		{[]track.Version{one, two}, nil, ""},
	} {
		of.Versions, of.Production = c.versions, c.production
		if err := m.PutModel(t.Context(), of); err != nil {
			t.Fatal(err)
		}
		v := looked(t, server, "released")
		if v.Production != c.want || len(v.Versions) != len(c.versions) {
			t.Errorf("step %d: production is %q, want %q; %+v", i, v.Production, c.want, v.Versions)
		}
		if first := v.Versions[0]; first.Source != one.Source || first.Tags["aob.version"] != "1" || first.Run == "" {
			t.Errorf("step %d: %+v", i, first)
		}
	}
}

// A call whose answer is lost is sent again, and leaves nothing twice. Each call of a promotion loses its answer once,
// each time of another model.
func testLostAnswers(t *testing.T, server *mlflowtest.Server, _ *track.MLflow) {
	to, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	var lose, calls atomic.Int64
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) != lose.Load() {
			proxy.ServeHTTP(w, r)
			return
		}
		proxy.ServeHTTP(httptest.NewRecorder(), r) // MLflow did it, and nobody hears of it
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			c.Close()
		}
	}))
	defer front.Close()
	m := client(front.URL)
	n := int64(1)
	name := func() string { return fmt.Sprint("lost-", n) }
	all := func() error {
		one := release(name(), 1)
		of := track.Model{Name: name(), Note: "n", Versions: []track.Version{one}, Production: &one}
		return errors.Join(m.PutRun(t.Context(), training(name()), epochs(1)),
			m.PutRun(t.Context(), trained(name()), epochs(2)), m.PutModel(t.Context(), of))
	}
	check := func() {
		v := looked(t, server, name())
		if len(v.Runs) != 1 || len(v.Logged) != 1 || len(v.Versions) != 1 || v.Production != "1" ||
			v.Runs[0].Status != "FINISHED" || len(v.Runs[0].Steps["trainer/loss"]) != 2 || len(v.Runs[0].Data) != 2 {
			t.Errorf("%s: %+v", name(), v)
		}
	}
	for ; ; n++ {
		lose.Store(n)
		calls.Store(0)
		if err := all(); err == nil && calls.Load() < n {
			break
		}
		if err := all(); err != nil {
			t.Fatal(err)
		}
		check()
	}
	if n < 25 {
		t.Errorf("only %d calls lost their answer", n-1)
	}
	check()
	// A server that goes on working after the connection was lost makes what was made meanwhile a second time.
	server.Python(t, fmt.Sprintf(`
from mlflow import MlflowClient
c, key = MlflowClient(), %q
name = %q
e = c.get_experiment_by_name(name).experiment_id
c.create_run(e, tags={"aob.run": key})
c.create_logged_model(e, name=name, tags={"aob.run": key})
c.create_model_version(name, "s3://a/b", tags={"aob.version": "1", "aob.bundle": %q})
c.create_model_version(name, "s3://somebody/else")
`, digest("run of "+name()), name(), release(name(), 1).Bundle))
	lose.Store(0)
	if err := all(); err != nil {
		t.Fatal(err)
	}
	v := looked(t, server, name())
	if len(v.Runs) != 1 || len(v.Logged) != 1 || len(v.Versions) != 2 || v.Versions[1].Source != "s3://somebody/else" {
		t.Errorf("doubles are left, or something of somebody else is not: %+v", v)
	}
}

// What people delete in MLflow stays deleted, and a deleted experiment is said.
func testDeleted(t *testing.T, server *mlflowtest.Server, m *track.MLflow) {
	put(t, m, trained("gone"), nil)
	server.Python(t, `
from mlflow import MlflowClient
c = MlflowClient()
e = c.get_experiment_by_name("gone").experiment_id
c.delete_run(c.search_runs([e])[0].info.run_id)
`)
	put(t, m, trained("gone"), nil)
	one := release("gone", 1)
	of := track.Model{Name: "gone", Versions: []track.Version{one}, Production: &one}
	if err := m.PutModel(t.Context(), of); err != nil {
		t.Fatal(err)
	}
	if v := looked(t, server, "gone"); len(v.Runs) != 0 || len(v.Versions) != 1 || v.Versions[0].Run != "" {
		t.Errorf("%+v", v)
	}
	server.Python(t, `
from mlflow import MlflowClient
c = MlflowClient()
c.delete_experiment(c.get_experiment_by_name("gone").experiment_id)
`)
	err := m.PutRun(t.Context(), trained("gone"), nil)
	if err == nil || !strings.Contains(err.Error(), "the experiment gone is deleted in MLflow; restore it") {
		t.Errorf("got %v", err)
	}
}

// MLflow refuses names in the Host header that it was not told. The error says how to tell it.
func testHostHeader(t *testing.T, server *mlflowtest.Server) {
	to, _ := url.Parse(server.URL)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := httputil.NewSingleHostReverseProxy(to)
		r.Host = "mlflow.example.com"
		p.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	err := client(proxy.URL).Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), "mlflow server --allowed-hosts ") {
		t.Errorf("got %v", err)
	}
	if err := client(server.URL).Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// A broken or hostile server costs a bounded time and memory, and the error says what is wrong without the secret.
func TestHostileServers(t *testing.T) {
	const secret = "s3cr3t-token"
	for _, c := range []struct {
		name, want string
		answer     http.HandlerFunc
	}{
		{"500", "answers with the error 500: boom ***", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			fmt.Fprint(w, "boom ", r.Header.Get("Authorization")[len("Bearer "):], "\nsecond line")
		}},
		{"HTML", "answers with text/html; charset=utf-8, and not as MLflow does; check url:",
			func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<!doctype html><title>Welcome</title>") }},
		{"login page", "redirects to https://login.example.com", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://login.example.com/?token="+secret, http.StatusFound)
		}},
		{"endless", "it has more than 8 MiB", func(w http.ResponseWriter, r *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		}},
		{"401", "refuses AOB's login (401); check the secret", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(401)
		}},
		{"403", "forbids it (403): Permission denied; give AOB's user", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(403)
			fmt.Fprint(w, "Permission denied")
		}},
		{"503", "is busy (503); again in 7s", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(503)
		}},
		{"404", "has no /api/2.0/mlflow/experiments/get-by-name (404)", func(w http.ResponseWriter, r *http.Request) {
			http.NotFound(w, r)
		}},
		{"refused", "MLflow refuses it (400 INVALID_PARAMETER_VALUE): no *** please",
			func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(400)
				fmt.Fprintf(w, `{"error_code": "INVALID_PARAMETER_VALUE", "message": "no %s please\nSQL"}`, secret)
			}},
		{"hangs up", "no answer from", func(w http.ResponseWriter, r *http.Request) {
			if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
				c.Close()
			}
		}},
		{"many objects", "it has more than 100000 objects", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"runs": [%s{}]}`, strings.Repeat("{},", 1_000_000))
		}},
		{"its own error", "MLflow refuses it (500 INTERNAL_ERROR): boom", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			fmt.Fprint(w, `{"error_code": "INTERNAL_ERROR", "message": "boom"}`)
		}},
		{"long secret at the cut", "answers with the error 500", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			fmt.Fprint(w, strings.Repeat("x", 294), secret)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := httptest.NewServer(c.answer)
			defer s.Close()
			m := track.New(track.Settings{URL: s.URL, Now: time.Now,
				Bearer: func() (string, error) { return secret, nil }})
			err := m.PutRun(t.Context(), trained("x"), nil)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v", err)
			}
			if text := err.Error(); strings.Contains(text, "s3cr3") || len(text) > 700 || strings.Contains(text, "\n") {
				t.Errorf("the error is %q", text)
			}
		})
	}
}

// A list of versions without an end is given up.
func TestEndlessVersions(t *testing.T) {
	pages := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pages++
		fmt.Fprintf(w, `{"next_page_token": "%d", "model_versions": [{"version": "1"}]}`, pages)
	}))
	defer s.Close()
	err := client(s.URL).PutModel(t.Context(), track.Model{Name: "shapes"})
	if _, alone := errors.AsType[track.Refused](err); !alone || pages > 30 {
		t.Errorf("%d pages, %v", pages, err)
	}
}

// A server that accepts connections and says nothing ends with the context.
func TestSilentServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.ReadFull(c, make([]byte, 1))
			cancel()
		}
	}()
	if err := client("http://"+l.Addr().String()).PutRun(ctx, trained("x"), nil); err == nil {
		t.Error("no error")
	}
}

// Both logins are sent as MLflow expects them.
func TestLogins(t *testing.T) {
	var got string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		fmt.Fprint(w, "{}")
	}))
	defer s.Close()
	value := func(v string) func() (string, error) { return func() (string, error) { return v, nil } }
	for _, c := range []struct {
		settings  track.Settings
		want, err string
	}{
		{track.Settings{}, "", ""},
		{track.Settings{Bearer: value("abc")}, "Bearer abc", ""},
		{track.Settings{Basic: value("aob:secret")}, "Basic YW9iOnNlY3JldA==", ""},
		{track.Settings{Basic: value("secret")}, "", "the secret of basic: has no colon"},
		{track.Settings{Bearer: func() (string, error) { return "", errors.New("MLFLOW is empty") }}, "",
			"no login: MLFLOW is empty"},
	} {
		got = ""
		c.settings.URL, c.settings.Now = s.URL, time.Now
		err := track.New(c.settings).Check(t.Context())
		if got != c.want || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q, %v; want %q, %s", got, err, c.want, c.err)
		}
	}
}
