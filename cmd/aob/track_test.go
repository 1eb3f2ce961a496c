package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/intent"
)

// blocks returns the indented blocks of a page, each up to an empty line.
func blocks(t *testing.T, page string) (list []string) {
	t.Helper()
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	block := ""
	for line := range strings.Lines(string(data)) {
		code, ok := strings.CutPrefix(line, "    ")
		if ok {
			block += code
		} else if block != "" {
			list, block = append(list, block), ""
		}
	}
	return list
}

// The examples of docs/tracking.md are what the server and a model take.
func TestTrackingPage(t *testing.T) {
	found := blocks(t, filepath.Join("..", "..", "docs", "tracking.md"))
	if len(found) != 2 {
		t.Fatalf("the page has %d examples: %q", len(found), found)
	}
	s, complaints := intent.ParseServer("aob.yaml", []byte("repository: intent.git\n"+found[0]), nil, nil)
	if len(complaints) > 0 {
		t.Fatal(complaints)
	}
	if got := s.Track.Trackers(); len(got) != 1 || got[0] != "mlflow/default" {
		t.Errorf("trackers %q", got)
	}
	model := "apiVersion: aob/v1\nkind: Model\nname: pallets\ndataset: {dir: pallets}\nclasses: [pallet]\n" +
		"train: {with: tiny@1}\n" + found[1]
	_, complaints = intent.Parse([]intent.File{{Path: "models/pallets.yaml", Size: int64(len(model)),
		Data: []byte(model)}}, intent.Options{Trackers: s.Track.Trackers()})
	if len(complaints) > 0 {
		t.Error(complaints)
	}
}

// Each tracker has a line. One that does not answer is a warning, because nothing waits for it.
func TestDoctorOfTrackers(t *testing.T) {
	const password = "pa55word"
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, got, _ := r.BasicAuth(); got != password {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, "{}")
	}))
	defer up.Close()
	t.Setenv("MLFLOW_UP", "aob:"+password)
	t.Setenv("MLFLOW_WRONG", "aob:other")
	s := intent.Server{
		Secrets: map[string]intent.ServerSecret{"UP": {Env: "MLFLOW_UP"}, "WRONG": {Env: "MLFLOW_WRONG"}},
		Track: intent.ServerTrack{"mlflow": {"a": {URL: up.URL, Basic: "UP"}, "b": {URL: up.URL, Basic: "WRONG"},
			"c": {URL: "http://127.0.0.1:1"}}}}
	list := diagnoseTrackers(t.Context(), s)
	for i, want := range []diagnosis{
		{Check: "tracker mlflow/a", State: diagnosisOK, Text: up.URL + " answers"},
		{Check: "tracker mlflow/b", State: diagnosisWarning, Text: "refuses AOB's login (401)",
			Do: "check the secret that the tracker's bearer: or basic: names"},
		{Check: "tracker mlflow/c", State: diagnosisWarning, Text: "no answer from http://127.0.0.1:1"},
	} {
		if got := list[i]; got.Check != want.Check || got.State != want.State || got.Do != want.Do ||
			!strings.Contains(got.Text, want.Text) || strings.Contains(fmt.Sprint(got), password) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestBundlesAddress(t *testing.T) {
	for want, listen := range map[string]intent.ServerListen{
		"oci://aob.example.com/bundles":   {URL: "https://aob.example.com/", Address: "0.0.0.0:8370"},
		"oci://127.0.0.1:8370/bundles":    {Address: "127.0.0.1:8370"},
		"oci://localhost:8370/bundles":    {Address: ":8370"},
		"oci://localhost:8371/bundles":    {Address: "[::]:8371"},
		"oci://aob.example.com/x/bundles": {URL: "https://aob.example.com/x"},
	} {
		if got := bundlesAddress(intent.Server{Listen: listen}); got != want {
			t.Errorf("%+v: %s, want %s", listen, got, want)
		}
	}
}
