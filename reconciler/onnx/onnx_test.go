package onnx_test

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/autonomos/aob/reconciler/onnx"
)

var initOnce = sync.OnceValue(func() error { return onnx.Init(library()) })

func library() string {
	if path := os.Getenv("AOB_ONNXRUNTIME"); path != "" {
		return path
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "aob", "onnxruntime-1.24.3", "libonnxruntime.so.1")
}

// model reads a test model, with the library loaded.
func model(t *testing.T, name string) []byte {
	if _, err := os.Stat(library()); err != nil {
		t.Skip("ONNX Runtime is not installed; run tools/onnxruntime/install.sh")
	}
	if err := initOnce(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join("..", "detect", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestDescribe(t *testing.T) {
	in, out, entry, err := onnx.Describe(model(t, "detector.onnx"), "rfdetr_inference")
	if err != nil {
		t.Fatal(err)
	}
	same := func(a, b onnx.Port) bool {
		return a.Name == b.Name && a.Type == b.Type && slices.Equal(a.Shape, b.Shape)
	}
	if want := []onnx.Port{{"input", "float32", []int64{-1, 3, 24, 32}}}; !slices.EqualFunc(in, want, same) {
		t.Errorf("inputs %v, want %v", in, want)
	}
	if want := []onnx.Port{{"dets", "float32", []int64{-1, 6, 4}}, {"labels", "float32", []int64{-1, 6, 4}}}; !slices.EqualFunc(out, want, same) {
		t.Errorf("outputs %v, want %v", out, want)
	}
	if entry == "" || entry[0] != '{' {
		t.Errorf("metadata %q", entry)
	}
	if _, _, entry, err = onnx.Describe(model(t, "no_metadata.onnx"), "rfdetr_inference"); entry != "" || err != nil {
		t.Errorf("without metadata: %q, %v", entry, err)
	}
}

// The same input gives the same bits, whichever goroutine asks and however many
// threads the operators have.
func TestRunRepeats(t *testing.T) {
	data := model(t, "detector.onnx")
	input := onnx.Tensor{Shape: []int64{1, 3, 24, 32}, Data: make([]float32, 3*24*32)}
	for i := range input.Data {
		input.Data[i] = float32(i%17) / 8
	}
	run := func(s *onnx.Session) []onnx.Tensor {
		out, err := s.Run(input)
		if err != nil {
			t.Error(err)
		}
		return out
	}
	var want []onnx.Tensor
	for _, threads := range []int{1, 2} {
		s, err := onnx.Load(data, "input", []string{"labels", "dets"}, threads)
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = run(s)
			if !slices.Equal(want[0].Shape, []int64{1, 6, 4}) || len(want[0].Data) != 24 {
				t.Fatalf("labels came as %v", want[0].Shape)
			}
		}
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for i, got := range run(s) {
					if !slices.Equal(got.Data, want[i].Data) {
						t.Errorf("%d threads: output %d differs", threads, i)
					}
				}
			})
		}
		all.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, name := range []string{"malformed.onnx", "external.onnx"} {
		if _, err := onnx.Load(model(t, name), "input", []string{"dets", "labels"}, 1); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := onnx.Load(nil, "input", []string{"dets"}, 1); err == nil {
		t.Error("no bytes: no error")
	}
	s, err := onnx.Load(model(t, "detector.onnx"), "input", []string{"nothing"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Run(onnx.Tensor{Shape: []int64{1, 3, 24, 32}, Data: make([]float32, 3*24*32)}); err == nil {
		t.Error("an output that is not there: no error")
	}
}
