package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/plan"
)

// What computes an evaluation is part of its key, and of the keys of scores and verdicts that are made of it. A profile
// that this machine cannot follow stops the server at its start.
func TestEvaluationsAreKeyedByTheProfile(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "aob-detect")
	child := func(says string) {
		t.Helper()
		text := "#!/bin/sh\necho '{\"hello\":{\"protocol\":4,\"numerics\":\"" + detect.Numerics + "\"}}'\necho '" +
			says + "'\n"
		if err := os.WriteFile(binary, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := intent.Server{State: t.TempDir()}
	s.Detector.Binary, s.Detector.Library, s.Detector.Memory = binary, binary, 1<<30
	key := func() delivery.Digest {
		t.Helper()
		known, err := planServer(t.Context(), s, nil)
		if err != nil {
			t.Fatal(err)
		}
		input := known.OwnInput(delivery.Model{Name: "m"}, delivery.EvalSetContent{}, "sha256:b", plan.Bundle{}, nil)
		return delivery.ScoreKey(input)
	}
	child(`{"provider":"cuda/000000000001"}`)
	keys := map[delivery.Digest]string{key(): "no profile"}
	s.Detector.Profile = "cuda-fp32"
	for _, provider := range []string{"cuda/000000000001", "cuda/000000000002", "tensorrt/000000000001"} {
		child(`{"provider":"` + provider + `"}`)
		if other, twice := keys[key()]; twice {
			t.Errorf("%s has the key of %s", provider, other)
		}
		keys[key()] = provider
	}
	child(`{"provider":"cpu"}`)
	if keys[key()] != "no profile" {
		t.Error("cpu-int8 on the CPU has another key than the CPU: the model's digest tells them apart")
	}
	child(`{"failure":{"about":"request","why":"there is no GPU; take a profile with provider cpu"}}`)
	_, err := planServer(t.Context(), s, nil)
	if want := "detector.profile cuda-fp32: there is no GPU; take a profile with provider cpu"; err == nil ||
		err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	list := diagnoseMachine(t.Context(), s)
	if d, ok := delivery.Find(list, func(d diagnosis) bool { return d.Check == "profile cuda-fp32" }); !ok ||
		d.State != diagnosisFailed || !strings.Contains(d.Text, "there is no GPU") {
		t.Errorf("aob doctor says %+v", d)
	}
}

func TestDetectorOfTheConfiguration(t *testing.T) {
	s := intent.Server{State: "/state"}
	s.Detector.Memory = 1 << 30
	if d := detectorOf(s); d.MemoryLimit != 1<<30 || d.Profile != "" || d.Engines != "" {
		t.Errorf("without a profile: %+v", d)
	}
	s.Detector.Profile, s.Detector.Profiles = "t4-fp16", "/profiles.yaml"
	if d := detectorOf(s); d.MemoryLimit != 0 || d.Profile != "t4-fp16" || d.Profiles != "/profiles.yaml" ||
		d.Engines != "/state/engines" {
		t.Errorf("with a profile: %+v", d)
	}
	s.Detector.Engines = "/engines"
	if d := detectorOf(s); d.Engines != "/engines" {
		t.Errorf("engines in %s", d.Engines)
	}
}
