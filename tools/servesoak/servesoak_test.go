package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
)

// binaries is the folder of aob-detect.
var binaries string

// build makes aob-detect once for all tests.
var build = sync.OnceValues(func() (_ string, err error) {
	if binaries, err = os.MkdirTemp("", "servesoak"); err != nil {
		return "", err
	}
	binary := filepath.Join(binaries, "aob-detect")
	out, err := exec.Command("go", "build", "-o", binary, "../../cmd/aob-detect").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build aob-detect: %w\n%s", err, out)
	}
	return binary, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if binaries != "" {
		os.RemoveAll(binaries)
	}
	os.Exit(code)
}

// small are the options of a small model.
func small(t *testing.T) options {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	library, err := detect.FindLibrary()
	if err != nil {
		t.Skipf("this test runs real models: %v", err)
	}
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	const testdata = "../../reconciler/detect/testdata/"
	o := options{binary: binary, bundle: t.TempDir(), seed: 1}
	sig, golden, err := detect.Detector{Binary: binary, Library: library}.Inspect(t.Context(), testdata+"detector.onnx")
	if err != nil {
		t.Fatal(err)
	}
	if err := rewrite(o.bundle, sig, golden); err != nil {
		t.Fatal(err)
	}
	model, err := os.ReadFile(testdata + "detector.onnx")
	if err == nil {
		err = os.WriteFile(filepath.Join(o.bundle, delivery.ModelFile), model, 0o600)
	}
	if err == nil {
		err = o.read(testdata + "*.jpg")
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// A change of the model loses no request, and leaves nothing behind.
func TestSwaps(t *testing.T) {
	f, err := swaps(t.Context(), small(t), swapsPlan{timed: 2, all: 10, clients: 4})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.check(); err != nil {
		t.Error(err)
	}
	t.Log(f.swaps, f.start, f.end)
	if len(f.during) == 0 || len(f.swaps) != 2 {
		t.Errorf("%d requests during %d swaps", len(f.during), len(f.swaps))
	}
}

// Hostile models, pictures and requests get an error or an answer, and a good model beside them goes on answering.
func TestMutations(t *testing.T) {
	var out strings.Builder
	if err := mutations(t.Context(), small(t), mutationsPlan{models: 50, requests: 500}, &out); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
}

// The metrics are what the clients counted.
func TestSoak(t *testing.T) {
	f, err := soak(t.Context(), small(t), soakPlan{requests: 1500, clients: 4}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.check(); err != nil {
		t.Error(err)
	}
	if len(f.times) < 1000 || f.left == 0 || len(f.counts) < 7 {
		t.Errorf("%d pictures, %d callers that left, %v", len(f.times), f.left, f.counts)
	}
}
