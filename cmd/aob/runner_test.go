package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A server that is not ready ends no run: its operator mends it, and the run goes on.
func TestServerThatIsNotReadyIsTriedAgain(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("PATH", dir)
	t.Setenv("AOB_ONNXRUNTIME", filepath.Join(dir, "none.so"))
	if err := os.WriteFile("aob-detect", []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	config := "repository: intent.git\nforge: {local: {}}\nstate: state\ndatasets: {dir: {shapes: " + dir + "}}\n"
	if err := os.WriteFile("aob.yaml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"aob.yaml": "ONNX Runtime was not found", "none.yaml": "none.yaml"} {
		_, err := stagesOf(file, "")
		if _, ends := errors.AsType[delivery.Blocked](err); err == nil || ends || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q after which the run is tried again", file, err, want)
		}
	}
}
