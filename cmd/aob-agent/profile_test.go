package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/detect"
)

// The agent checks at its start that the device can compute as its profile says, and tells the detector's progress.
func TestProfileOfADevice(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "aob-detect")
	child := func(says string) {
		t.Helper()
		text := "#!/bin/sh\necho \"$@\" >" + dir + "/args\necho '{\"hello\":{\"protocol\":4,\"numerics\":\"" +
			detect.Numerics + "\"}}'\necho '" + says + "'\n"
		if err := os.WriteFile(binary, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	child(`{"building":{"stage":"building","profile":"orin-nano-fp16","seconds":5}}
{"ready":true}`)
	var log bytes.Buffer
	o := runOptions{detector: binary, library: binary, state: dir, profile: "orin-nano-fp16"}
	d, err := o.detect(slog.New(slog.NewJSONHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Build(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	args, err := os.ReadFile(filepath.Join(dir, "args"))
	want := "build --library " + binary + " --profile orin-nano-fp16 --cache " + dir + "/engines --bundle " + dir
	if err != nil || strings.TrimSpace(string(args)) != want {
		t.Errorf("arguments %s, want %s", args, want)
	}
	if !strings.Contains(log.String(), `"stage":"building","profile":"orin-nano-fp16"`) {
		t.Errorf("log %s", log.String())
	}

	if prepare, err := prepares(t.Context(), d); prepare != nil || err == nil {
		t.Errorf("a child that is no provider: %v", err)
	}
	for says, want := range map[string]bool{`{"provider":"tensorrt/0123456789ab"}`: true,
		`{"provider":"cuda/0123456789ab"}`: false, `{"provider":"cpu"}`: false} {
		child(says)
		if prepare, err := prepares(t.Context(), d); err != nil || (prepare != nil) != want {
			t.Errorf("%s: an engine is built: %v, %v", says, prepare != nil, err)
		}
	}
	child(`{"failure":{"about":"request","why":"there is no GPU; take a profile with provider cpu"}}`)
	if _, err := prepares(t.Context(), d); err == nil ||
		err.Error() != "--profile orin-nano-fp16: there is no GPU; take a profile with provider cpu" {
		t.Error(err)
	}

	for _, wrong := range []runOptions{{profiles: "x"}, {engines: "x"}, {memory: "much"}} {
		wrong.detector, wrong.library = binary, binary
		if _, err := wrong.detect(slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%+v: no error", wrong)
		}
	}
}
