package onnx_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/onnx"
	"github.com/autonomos/aob/reconciler/profile"
)

// The library of the tests computes on the CPU. A profile with a GPU is refused with a hint, and nothing runs on the
// CPU instead.
func TestProvidersThatTheLibraryHasNot(t *testing.T) {
	runtime, _ := setup(t, "detector.onnx")
	for name, want := range map[string]string{"cuda-fp32": profile.CUDAName, "t4-fp16": profile.TensorRTName} {
		p, err := profile.Find(profile.Builtin(), name)
		if err != nil {
			t.Fatal(err)
		}
		_, err = runtime.With(p.Session(profile.Engine{}, ""), nil)
		blocked, ok := errors.AsType[delivery.Blocked](err)
		if !ok {
			t.Skipf("this library has %s: %v", want, err)
		}
		if strings.Contains(blocked.What, "cannot be empty") { // the options are wrong, and not the library
			t.Error(err)
		}
		if strings.Contains(blocked.What, "onnxruntime_src") || len(blocked.What) > 400 {
			t.Errorf("%s: not plain: %s", name, blocked.What)
		}
		if !strings.Contains(blocked.What, want) || !strings.Contains(blocked.Do, "AOB_ONNXRUNTIME") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := runtime.With(profile.Session{Providers: []profile.ProviderOptions{{Name: "OtherProvider"}}}, nil)
	if err == nil || !strings.Contains(err.Error(), "OtherProvider: it is not supported") {
		t.Error(err)
	}
}

func TestPlacement(t *testing.T) {
	runtime, data := setup(t, "detector.onnx")
	nodes, err := onnx.Placement(runtime, data, "input", []string{"dets", "labels"})
	if err != nil || len(nodes) != 1 || nodes[profile.CPUName] != 7 {
		t.Errorf("%v, %v", nodes, err)
	}
}

// The model around an engine is a valid one: the library reads it, and the CPU cannot compute it.
func TestWrappedEngineIsAModel(t *testing.T) {
	runtime, data := setup(t, "detector.onnx")
	runtime, err := runtime.With(profile.Session{}, &onnx.Engine{Model: delivery.Sum(data), Plan: []byte("engine")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = runtime.Load(data, "input", []string{"dets", "labels"}, 1)
	if err == nil || !strings.Contains(err.Error(), "EPContext") || strings.Contains(err.Error(), "protobuf") {
		t.Errorf("got %v, want that no provider has EPContext", err)
	}
	t.Log(err)
}
