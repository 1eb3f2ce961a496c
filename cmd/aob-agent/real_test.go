package main

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/rollout"
)

// The agent with the real detector: ONNX Runtime, real models, a real picture.
func TestRealDetector(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	library, err := detect.FindLibrary()
	if err != nil {
		t.Skipf("this test runs real models: %v", err)
	}
	binary := filepath.Join(t.TempDir(), "aob-detect")
	if out, err := exec.Command("go", "build", "-o", binary, "../aob-detect").CombinedOutput(); err != nil {
		t.Fatalf("build aob-detect: %v\n%s", err, out)
	}
	const models = "../../reconciler/detect/testdata"
	d := detect.Detector{Binary: binary, Library: library}
	s := newSite(t, delivery.Wave{Share: 1})
	push := func(version int, model string, change func(*detect.Golden)) delivery.Target {
		t.Helper()
		path := filepath.Join(models, model)
		sig, golden, err := d.Inspect(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(&golden)
		}
		data, err := golden.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		digest, err := s.store.Push(t.Context(), artifact.Bundle{ModelPath: path, Signature: sig, Golden: data,
			Labels: slices.DeleteFunc(slices.Clone(sig.Slots), func(name string) bool { return name == "" })})
		if err != nil {
			t.Fatal(err)
		}
		return delivery.Target{Version: version, Bundle: digest}
	}
	v1, v2 := push(1, "detector.onnx", nil), push(2, "static.onnx", nil)
	wrong := push(3, "detector.onnx", func(g *detect.Golden) { g.Boxes[0] += 0.5 })

	dir := shortDir(t)
	s.boot(t, "d1", dir, "--detector", binary, "--library", library)
	infer := func() string {
		return command(t, "infer", "--state", dir, filepath.Join(models, "picture.jpg"))
	}
	s.release(v1)
	s.done(t, v1)
	first := infer()
	var found detect.Detections
	if err := json.Unmarshal([]byte(first), &found); err != nil || len(found.Boxes) == 0 || found.Width == 0 {
		t.Errorf("on a picture: %s, %v", first, err)
	}
	s.release(v2)
	s.done(t, v2)

	// A bundle whose golden is not reproduced never serves.
	s.release(wrong)
	s.until(t, "an abort", func(all []rollout.Decision) bool {
		return last(all, func(d rollout.Decision) bool {
			return strings.Contains(d.Because.String(), "golden") && d.Abort != nil
		})
	})
	if again := infer(); again != first { // v2 has the weights of v1
		t.Errorf("after the failure: %s, before: %s", again, first)
	}

	s.release(v1)
	s.done(t, v1)
	before, began := s.served.Load(), time.Now()
	s.release(v2)
	s.done(t, v2)
	t.Logf("back on version 2 after %v, with %d bytes downloaded", time.Since(began).Round(time.Millisecond),
		s.served.Load()-before)
	if again := infer(); again != first {
		t.Errorf("at the end: %s, before: %s", again, first)
	}
}
