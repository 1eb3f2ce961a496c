package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/intent"
)

// Everything that a server needs around it is checked, each with what to do.
func TestDoctorSaysWhatIsMissing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "world")
	w, err := initWorld(t.Context(), initRequest{dir: dir, python: "python3"}, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	git := func(args ...string) {
		t.Helper()
		args = append([]string{"-C", w.Clone, "-c", "user.name=a", "-c", "user.email=a@example.com"}, args...)
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v: %s", args, err, out)
		}
	}
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	gate := filepath.Join(w.Clone, "gates", "production.yaml")
	data, err := os.ReadFile(gate)
	if err != nil {
		t.Fatal(err)
	}
	write(gate, strings.Replace(string(data), "owners: [", "owners: [nobody-of-this-name, ", 1), 0o644)
	git("commit", "-qam", "Another owner")
	git("push", "-q", "origin", "main")

	python := filepath.Join(t.TempDir(), "python")
	write(python, "#!/bin/sh\necho numpy\n", 0o755)
	config, err := os.ReadFile(w.Config)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("python: python3", "python: "+python, "127.0.0.1:8370", "127.0.0.1:0",
		", metrics: \"127.0.0.1:8371\"", "").Replace(string(config))
	write(w.Config, text+"terraform: "+python+"-none\ndetector: {binary: "+python+"-none}\n", 0o644)

	list := diagnose(t.Context(), w.Config, false)
	for _, want := range []diagnosis{
		{Check: "configuration", State: diagnosisOK},
		{Check: "terraform", State: diagnosisFailed, Text: "no such file"},
		{Check: "python", State: diagnosisFailed, Text: "has no module numpy", Do: "apt-get install python3-numpy"},
		{Check: "trainers", State: diagnosisOK},
		{Check: "dataset dir:shapes", State: diagnosisFailed, Text: "no such folder", Do: "put the folder there"},
		{Check: "server", State: diagnosisOK, Text: "no aob serve works in"},
		{Check: "repository", State: diagnosisOK, Text: "branch main can be read: 1 model, 1 gate, 1 fleet"},
		{Check: "ways around", State: diagnosisOK},
		{Check: "owners of gate production", State: diagnosisFailed, Text: "nobody-of-this-name is no user and no " +
			"group",
			Do: "correct owners: in gates/production.yaml"},
		{Check: "clock", State: diagnosisOK},
	} {
		if !slices.ContainsFunc(list, func(d diagnosis) bool {
			return d.Check == want.Check && d.State == want.State && strings.Contains(d.Text, want.Text) &&
				strings.Contains(d.Do, want.Do)
		}) {
			t.Errorf("%s is not %s with %q and %q:\n%+v", want.Check, want.State, want.Text, want.Do, list)
		}
	}
	// What is wrong with the machine, aob serve logs at its start.
	var log bytes.Buffer
	s, err := loadServer(w.Config)
	if err != nil {
		t.Fatal(err)
	}
	logDiagnoses(t.Context(), s, slog.New(slog.NewJSONHandler(&log, nil)))
	if got := log.String(); !strings.Contains(got, "has no module numpy") || strings.Contains(got, "trainers") {
		t.Errorf("aob serve logs %s", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "state", "mirror")); err == nil {
		t.Error("the doctor has changed the state folder")
	}
	// A repository that is not there is not set up.
	s.Repository = filepath.Join(dir, "gone.git")
	for _, d := range diagnoseForge(t.Context(), s) {
		if d.Check == "ways around" {
			t.Errorf("of a missing repository: %+v", d)
		}
	}
}

// Each secret that is missing is told where it is needed, and a file without one is named.
func TestDoctorOfSecrets(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := intent.Server{Datasets: map[string]map[string]string{"roboflow": {"acme": "https://api.roboflow.com/acme"}},
		Secrets: map[string]intent.ServerSecret{"ROBOFLOW_API_KEY": {File: empty}}}
	if err := checkTrainerSecrets(s, nil); err != nil {
		t.Errorf("of trainers without secrets: %v", err)
	}
	if err := checkSecrets(s, nil); err == nil || !strings.Contains(err.Error(), empty+" is empty") {
		t.Errorf("of an empty file: %v", err)
	}
}

func TestDoctorReadsTheClock(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		commit, forge time.Duration
		state, text   string
	}{
		{-time.Hour, 0, diagnosisOK, "2026-03-01 12:00 UTC"},
		{-time.Hour, 30 * time.Second, diagnosisOK, ""},
		{-time.Hour, 5 * time.Minute, diagnosisFailed, "differ by 5m0s"},
		{time.Hour, 0, diagnosisFailed, "the clock is behind: main's last commit is from 2026-03-01 13:00 UTC"},
	} {
		var there time.Time
		if c.forge != 0 {
			there = now.Add(c.forge)
		}
		if d := diagnoseClock(now, now.Add(c.commit), there); d.State != c.state || !strings.Contains(d.Text, c.text) {
			t.Errorf("%+v: %+v", c, d)
		}
	}
}

// A configuration with mistakes, and a forge without a token, are said alone.
func TestDoctorOfAWrongConfiguration(t *testing.T) {
	config := filepath.Join(t.TempDir(), "aob.yaml")
	for text, want := range map[string]string{
		"repository: intent.git\ntokn: 1\n": "aob.yaml:2:1: tokn: unknown key",
		"repository: https://git.example.com/a/b.git\nforge: {gitea: {url: https://git.example.com, repo: a/b, " +
			"tokenFile: none}}\n": "forge.gitea.tokenFile: open ",
	} {
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := json.Marshal(diagnose(t.Context(), config, false))
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %s, %v", text, out, err)
		}
	}
}

// awsConfig is a configuration that trains in an account.
const awsConfig = `repository: intent.git
aws:
  controller: acme
  regions: [eu-central-1]
  train: {account: "123456789012", vpc: vpc-01234567, subnet: subnet-01234567, runs: acme-runs, states: acme-states,
    providers: providers}
`

// aob doctor --aws says what is missing of an account, and of Terraform's provider, and checks nothing else.
func TestDoctorOfAnAccount(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Amzn-Errortype", "AccessDeniedException")
		w.WriteHeader(http.StatusForbidden)
	}))
	defer server.Close()
	t.Setenv("AWS_ENDPOINT_URL", server.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "key")
	for _, c := range []struct {
		name, config string
		want         []diagnosis
	}{
		{"without an account", "repository: intent.git\n", []diagnosis{{Check: "aws", Text: "names no place where " +
			"instances start", Do: "as docs/aws.md shows"}}},
		{"with nothing", awsConfig, []diagnosis{
			{Check: "aws provider", Text: "cannot search", Do: "terraform providers mirror"},
			{Check: "aws credentials", Text: "GetCallerIdentity"},
		}},
	} {
		config := filepath.Join(t.TempDir(), "aob.yaml")
		if err := os.WriteFile(config, []byte(c.config), 0o644); err != nil {
			t.Fatal(err)
		}
		list := diagnose(t.Context(), config, true)
		for _, d := range list {
			if !strings.HasPrefix(d.Check, "aws") && d.Check != "configuration" {
				t.Errorf("%s: it checks %s", c.name, d.Check)
			}
		}
		for _, want := range c.want {
			if !slices.ContainsFunc(list, func(d diagnosis) bool {
				return d.Check == want.Check && d.State == diagnosisFailed && strings.Contains(d.Text, want.Text) &&
					strings.Contains(d.Do, want.Do)
			}) {
				t.Errorf("%s: no line says %+v:\n%+v", c.name, want, list)
			}
		}
	}
}
