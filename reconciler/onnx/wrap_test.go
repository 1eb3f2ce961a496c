package onnx

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

func read(t *testing.T, name string) []byte {
	data, err := os.ReadFile("../detect/testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Two models of equal graph differ only in their weights. An engine of one is refused for the other.
func TestWrapRefusesAnotherModelsEngine(t *testing.T) {
	ours, other := read(t, "detector.onnx"), read(t, "same_graph.onnx")
	e := &Engine{Model: delivery.Sum(ours), Plan: []byte("engine")}
	wrapped, err := e.wrap(ours, "input", []string{"dets", "labels"})
	if err != nil || !bytes.Contains(wrapped, e.Plan) {
		t.Fatalf("%q, %v", wrapped, err)
	}
	if _, err := e.wrap(other, "input", []string{"dets", "labels"}); err == nil ||
		!strings.Contains(err.Error(), "the engine was built of model "+delivery.Sum(ours).Short()) {
		t.Errorf("another model: %v", err)
	}
	if err := Check(wrapped); err == nil || !strings.Contains(err.Error(), "compiled engine") {
		t.Errorf("a bundle may contain an engine: %v", err)
	}
}

func TestInputShape(t *testing.T) {
	for name, want := range map[string][]int64{"detector.onnx": {-1, 3, 24, 32}, "static.onnx": {1, 3, 24, 32}} {
		if got, err := InputShape(read(t, name), "input"); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for name, input := range map[string]string{"detector.onnx": "image", "picture.png": "input"} {
		if got, err := InputShape(read(t, name), input); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestJudgePlacement(t *testing.T) {
	for _, c := range []struct {
		nodes map[string]int
		ok    bool
	}{
		{map[string]int{"GPU": 10}, true},
		{map[string]int{"GPU": 10, "CPU": 9}, true},
		{map[string]int{"GPU": 9, "CPU": 10}, false},
		{map[string]int{"CPU": 10}, false},
		{nil, false},
	} {
		if err := judgePlacement(c.nodes, "GPU"); (err == nil) != c.ok {
			t.Errorf("%v: %v", c.nodes, err)
		}
	}
}

func FuzzPlacement(f *testing.F) {
	f.Add([]byte(`[{"cat": "Node", "name": "a_kernel_time", "args": {"provider": "CPUExecutionProvider"}}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		nodes, err := parsePlacement(data)
		if err != nil && nodes != nil || len(nodes) > len(data) {
			t.Errorf("%v, %v", nodes, err)
		}
	})
}
