package engine_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/engine"
	"github.com/autonomos/aob/reconciler/onnx"
	"github.com/autonomos/aob/reconciler/profile"
	"github.com/autonomos/aob/reconciler/turbojpeg"
)

// A standInTensorRT runs the engines of the stand-in trtexec: an engine computes as the model that it was built of,
// whatever model it is loaded for. plan returns the engine of a model.
type standInTensorRT struct {
	onnx.Runtime
	plan func(model []byte) []byte
}

func (s standInTensorRT) Load(model []byte, input string, outputs []string, threads int) (detect.Model, error) {
	_, built, _ := bytes.Cut(s.plan(model), []byte("\n"))
	return s.Runtime.Load(built, input, outputs, threads)
}

// graphKey is what ONNX Runtime's TensorRT provider keys its cache by: the graph without the weights.
func graphKey(model []byte) delivery.Digest {
	const graph, initializer = 7, 5 // fields of ONNX's messages
	var kept []byte
	each(model, func(field uint64, whole, body []byte) {
		if field == graph {
			each(body, func(field uint64, whole, _ []byte) {
				if field != initializer {
					kept = append(kept, whole...)
				}
			})
		}
	})
	return delivery.Sum(kept)
}

// each calls do with the fields of a message of protobuf that contains only numbers, messages and text.
func each(message []byte, do func(field uint64, whole, body []byte)) {
	for len(message) > 0 {
		tag, n := binary.Uvarint(message)
		value, k := binary.Uvarint(message[n:])
		end := n + k
		if tag&7 == 2 {
			end += int(value)
		}
		do(tag>>3, message[:end], message[n+k:end])
		message = message[end:]
	}
}

// Two models of equal graph and different weights, as after another training. A cache with ONNX Runtime's key gives the
// second model the engine of the first. Ours gives each its own, and comparing the answers with those of the CPU finds
// the wrong one.
func TestTensorRTCacheCollision(t *testing.T) {
	library, err := detect.FindLibrary()
	if err != nil {
		t.Skipf("this test runs real models: %v", err)
	}
	runtime, err := onnx.Open(library)
	if err != nil {
		t.Fatal(err)
	}
	picture, err := os.ReadFile(testdata + "picture.png")
	if err != nil {
		t.Fatal(err)
	}
	worker := func(r detect.Runtime, bounds profile.Bounds) detect.Worker {
		return detect.Worker{Runtime: r, JPEG: turbojpeg.Decoder{}, Threads: 1, Bounds: bounds}
	}
	answers := func(w detect.Worker, dir string) ([]delivery.Box, error) {
		server, err := w.Open(t.Context(), dir)
		if err != nil {
			return nil, err
		}
		defer server.Close()
		found, _, err := server.Infer(t.Context(), picture, 0)
		return found.Boxes, err
	}
	var dirs []string
	var models [][]byte
	var onCPU [][]delivery.Box
	for _, name := range []string{"detector.onnx", "same_graph.onnx"} {
		dir := realBundle(t, worker(runtime, profile.Bounds{}), name)
		boxes, err := answers(worker(runtime, profile.Bounds{}), dir)
		if err != nil {
			t.Fatal(err)
		}
		model, err := os.ReadFile(filepath.Join(dir, delivery.ModelFile))
		if err != nil {
			t.Fatal(err)
		}
		dirs, models, onCPU = append(dirs, dir), append(models, model), append(onCPU, boxes)
	}
	if graphKey(models[0]) != graphKey(models[1]) || cmp.Equal(onCPU[0], onCPU[1]) {
		t.Fatal("the two models have to be of one graph, and to answer differently")
	}

	// With ONNX Runtime's key the second model gets the first one's engine.
	theirs := map[delivery.Digest][]byte{}
	shared := standInTensorRT{runtime, func(model []byte) []byte {
		key := graphKey(model)
		if theirs[key] == nil {
			theirs[key] = append([]byte(enginePrefix+"\n"), model...)
		}
		return theirs[key]
	}}
	anything := profile.Bounds{Tensor: 1e9, IoU: 1e-9}
	for i, dir := range dirs {
		boxes, err := answers(worker(shared, anything), dir)
		if err != nil || !cmp.Equal(boxes, onCPU[0]) {
			t.Fatalf("model %d should answer as the first one: %v", i, err)
		}
	}
	// The golden replay finds that, for each profile.
	for _, p := range profile.Builtin() {
		if _, err := answers(worker(shared, p.Bounds()), dirs[0]); err != nil {
			t.Errorf("%s: the right engine: %v", p.Name, err)
		}
		_, err := answers(worker(shared, p.Bounds()), dirs[1])
		if err == nil || !strings.Contains(err.Error(), "weights are another model's") {
			t.Errorf("%s: the engine of other weights: %v", p.Name, err)
		}
	}

	// Ours, in one cache, one after the other and again.
	b := newBench(t, "orin-nano-fp16", enough)
	folders := map[string]bool{}
	for _, i := range []int{0, 1, 0, 1} {
		own := func(e engine.Entry) standInTensorRT {
			return standInTensorRT{runtime, func(model []byte) []byte {
				// The runtime refuses the engine of another model before it loads it; see package onnx.
				if e.Engine.Model != delivery.Sum(model) {
					t.Errorf("the engine is of model %s", e.Engine.Model)
				}
				return e.Plan
			}}
		}
		b.Verify = func(ctx context.Context, e engine.Entry) (json.RawMessage, error) {
			server, err := worker(own(e), b.Profile.Bounds()).Open(ctx, dirs[i])
			if err != nil {
				return nil, err
			}
			defer server.Close()
			parity, err := server.Parity(ctx)
			if err != nil || parity.Largest != 0 || parity.Found != 1 {
				t.Errorf("%+v, %v", parity, err)
			}
			return json.Marshal(parity)
		}
		e, err := b.Ensure(t.Context(), dirs[i])
		if err != nil {
			t.Fatal(err)
		}
		boxes, err := answers(worker(own(e), b.Profile.Bounds()), dirs[i])
		if err != nil || !cmp.Equal(boxes, onCPU[i]) {
			t.Errorf("model %d: %v", i, err)
		}
		folders[e.Folder] = true
		values := b.Profile.Session(e.Engine, e.Folder).Providers[0].Values
		if values["trt_engine_cache_enable"] != "0" || values["trt_engine_cache_path"] != e.Folder ||
			values["trt_engine_cache_prefix"] != e.Engine.Release.Hex()[:12] {
			t.Errorf("%v", values)
		}
	}
	if len(folders) != 2 || len(builds(t, b.Trtexec)) != 2 {
		t.Errorf("%d folders, %d builds", len(folders), len(builds(t, b.Trtexec)))
	}
}

// realBundle makes a bundle of a model of the tests.
func realBundle(t *testing.T, w detect.Worker, name string) string {
	found, err := w.Inspect(t.Context(), testdata+name)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	model, err := os.ReadFile(testdata + name)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, delivery.ModelFile), model)
	write(t, filepath.Join(dir, delivery.SignatureFile), delivery.Canonical(found.Signature))
	write(t, filepath.Join(dir, delivery.LabelsFile), []byte(`["red", "blue"]`))
	write(t, filepath.Join(dir, delivery.GoldenFile), found.Golden)
	return dir
}
