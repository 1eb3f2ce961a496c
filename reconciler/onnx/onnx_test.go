package onnx_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/onnx"
)

// A process can load the library once.
var opened struct {
	sync.Once
	onnx.Runtime
	err error
}

func open(library string) (onnx.Runtime, error) {
	opened.Do(func() { opened.Runtime, opened.err = onnx.Open(library) })
	return opened.Runtime, opened.err
}

// setup loads the library and reads a test model.
func setup(t *testing.T, name string) (onnx.Runtime, []byte) {
	library, err := detect.FindLibrary()
	if err != nil {
		t.Skipf("this test runs real models: %v", err)
	}
	runtime, err := open(library)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join("..", "detect", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return runtime, data
}

func TestDescribe(t *testing.T) {
	runtime, data := setup(t, "detector.onnx")
	in, out, err := runtime.Describe(data)
	if err != nil {
		t.Fatal(err)
	}
	if want := []detect.Port{{Name: "input", Type: "float32", Shape: []int64{-1, 3, 24, 32}}}; !slices.EqualFunc(in,
		want, same) {
		t.Errorf("inputs %v, want %v", in, want)
	}
	want := []detect.Port{{Name: "dets", Type: "float32", Shape: []int64{-1, 6, 4}}, {Name: "labels", Type: "float32",
		Shape: []int64{-1, 6, 4}}}
	if !slices.EqualFunc(out, want, same) {
		t.Errorf("outputs %v, want %v", out, want)
	}
}

// The metadata that this program reads from a file is what ONNX Runtime reads.
func TestMetadata(t *testing.T) {
	for _, name := range []string{"detector.onnx", "static.onnx", "five.onnx", "no_metadata.onnx"} {
		runtime, data := setup(t, name)
		meta, err := ort.GetModelMetadataWithONNXData(data)
		if err != nil {
			t.Fatal(err)
		}
		defer meta.Destroy()
		want, _, err := meta.LookupCustomMetadataMap(detect.MetadataKey)
		if err != nil {
			t.Fatal(err)
		}
		got, err := runtime.Metadata(data, detect.MetadataKey)
		if err != nil || got != want || (want != "") != (name == "detector.onnx" || name == "static.onnx") {
			t.Errorf("%s: got %q (%v), want %q", name, got, err, want)
		}
		for n := range 200 { // a file that was cut
			if entry, err := runtime.Metadata(data[:len(data)-1-n], detect.MetadataKey); err == nil && entry == want &&
				want != "" {
				t.Fatalf("%s: without its last %d bytes it has the same metadata", name, n+1)
			}
		}
	}
}

func same(a, b detect.Port) bool {
	return a.Name == b.Name && a.Type == b.Type && slices.Equal(a.Shape, b.Shape)
}

// The same input gives the same bits, in every goroutine and for every number of operator
// threads.
func TestRunIsReproducible(t *testing.T) {
	runtime, data := setup(t, "detector.onnx")
	input := detect.Tensor{Shape: []int64{1, 3, 24, 32}, Data: make([]float32, 3*24*32)}
	for i := range input.Data {
		input.Data[i] = float32(i%17) / 8
	}
	run := func(m detect.Model) []detect.Tensor {
		out, err := m.Run(t.Context(), input)
		if err != nil {
			t.Error(err)
		}
		return out
	}
	var want []detect.Tensor
	for _, threads := range []int{1, 2} {
		m, err := runtime.Load(data, "input", []string{"labels", "dets"}, threads)
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = run(m)
			if !slices.Equal(want[0].Shape, []int64{1, 6, 4}) || len(want[0].Data) != 24 {
				t.Fatalf("the shape of labels is %v", want[0].Shape)
			}
		}
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for i, got := range run(m) {
					if !slices.Equal(got.Data, want[i].Data) {
						t.Errorf("%d threads: output %d differs", threads, i)
					}
				}
			})
		}
		all.Wait()
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, name := range []string{"malformed.onnx", "external.onnx"} {
		runtime, data := setup(t, name)
		if _, err := runtime.Load(data, "input", []string{"dets", "labels"}, 1); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	runtime, data := setup(t, "detector.onnx")
	if _, err := runtime.Load(nil, "input", []string{"dets"}, 1); err == nil {
		t.Error("no bytes: no error")
	}
	m, err := runtime.Load(data, "input", []string{"nothing"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	input := detect.Tensor{Shape: []int64{1, 3, 24, 32}, Data: make([]float32, 3*24*32)}
	if _, err := m.Run(t.Context(), input); err == nil {
		t.Error("an unknown output: no error")
	}
}

// A run of a model that never ends is stopped.
func TestRunStops(t *testing.T) {
	runtime, data := setup(t, "endless.onnx")
	m, err := runtime.Load(data, "input", []string{"dets", "labels"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = m.Run(ctx, detect.Tensor{Shape: []int64{1, 3, 24, 32}, Data: make([]float32, 3*24*32)})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}
