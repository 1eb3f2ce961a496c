package detect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// build makes aob-detect once for all tests.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "aob-detect-test")
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "aob-detect")
	out, err := exec.Command("go", "build", "-o", binary, "../../cmd/aob-detect").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build aob-detect: %w\n%s", err, out)
	}
	return binary, nil
})

func TestMain(m *testing.M) {
	if socket := os.Getenv("AOB_TEST_PARENT"); socket != "" {
		parent(socket)
		return
	}
	code := m.Run()
	if binary, err := build(); err == nil {
		os.RemoveAll(filepath.Dir(binary))
	}
	os.Exit(code)
}

// withLibrary is a Detector with the real library.
func withLibrary(t testing.TB) Detector {
	library, err := FindLibrary()
	if err != nil {
		t.Skipf("this test runs real models: %v", err)
	}
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return Detector{Binary: binary, Library: library, Timeout: 2 * time.Minute}
}

func TestInspect(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	d := withLibrary(t)
	var first Golden
	for _, name := range []string{"detector.onnx", "static.onnx"} {
		sig, golden, err := d.Inspect(t.Context(), filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(sig, testSignature()) {
			t.Errorf("%s: %+v", name, sig)
		}
		if len(golden.Boxes) != 24 || len(golden.Logits) != 24 || len(golden.Best) != 8 {
			t.Errorf("%s: golden of %d, %d and %d", name, len(golden.Boxes), len(golden.Logits), len(golden.Best))
		}
		if first.Boxes == nil {
			first = golden
		}
		if !reflect.DeepEqual(golden, first) { // the same weights
			t.Errorf("%s: another golden", name)
		}
	}
}

// Exports of RF-DETR without metadata, and models whose number of queries is not fixed.
func TestDescribeRealModels(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	d := withLibrary(t)
	d.MemoryLimit = 1 << 30
	at := func(name string) string { return filepath.Join("testdata", name) }
	for _, c := range []struct {
		file  string
		slots []string
		want  string // the part of an error, "" for none
	}{
		{"open.onnx", []string{"", "a", "b", "c"}, ""},     // before 1.5
		{"five.onnx", []string{"", "a", "b", "c", ""}, ""}, // 1.5 to 1.9.1
		{"no_metadata.onnx", []string{"a", "b", "c", ""}, ""},
		{"five.onnx", []string{"a", "b", "c", ""}, "output labels has 5 slots, but 4 names of slots"},
		{"huge.onnx", nil, "does not run"},
		{"malformed.onnx", nil, "does not load"},
		{"external.onnx", nil, "keeps weights in other files"},
		{"random.onnx", nil, "golden replay: output dets differs"},
	} {
		found, err := d.Describe(t.Context(), at(c.file), nil)
		if err == nil && found.Signature == nil && found.Slots != len(c.slots) && c.want == "" {
			t.Errorf("%s: %d slots, want %d", c.file, found.Slots, len(c.slots))
		}
		if err == nil && len(c.slots) > 0 {
			found, err = d.Describe(t.Context(), at(c.file), c.slots)
		}
		if c.want == "" {
			if err != nil || found.Signature == nil || !slices.Equal(found.Signature.Slots, c.slots) || found.Metadata {
				t.Errorf("%s: %+v, %v", c.file, found, err)
			}
			continue
		}
		if bad, ok := errors.AsType[*ModelError](err); !ok || !strings.Contains(bad.Why, c.want) {
			t.Errorf("%s: %v, want %q", c.file, err, c.want)
		}
	}

	// Half of a file is none, wherever it is cut.
	whole, err := os.ReadFile(at("no_metadata.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut.onnx")
	for _, n := range []int{0, 1, 100, len(whole) / 2, len(whole) - 1} {
		if err := os.WriteFile(cut, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := d.Describe(t.Context(), cut, nil)
		if _, ok := errors.AsType[*ModelError](err); !ok {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
}

// A model may have another number of queries for each image, and is refused for an image for which it has none.
func TestVaryingQueries(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	d := withLibrary(t)
	path := filepath.Join("testdata", "varying.onnx")
	sig, _, err := d.Inspect(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	evaluate := func(level uint8) ([]ImageDetections, error) {
		img := image.NewGray(image.Rect(0, 0, 16, 16))
		for i := range img.Pix {
			img.Pix[i] = level
		}
		file := filepath.Join(t.TempDir(), "plain.png")
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(png.Encode(f, img), f.Close()); err != nil {
			t.Fatal(err)
		}
		return d.Evaluate(t.Context(), Request{Model: path, Signature: sig, Images: []ImageFile{{1, file}}}, nil)
	}
	counts := map[int]bool{}
	for _, level := range []uint8{120, 255} {
		found, err := evaluate(level)
		if err != nil {
			t.Fatal(err)
		}
		counts[len(found[0].Boxes)] = true
	}
	if len(counts) < 2 || !counts[sig.Select] { // the light picture has more than are selected
		t.Errorf("numbers of boxes: %v, select %d", counts, sig.Select)
	}
	_, err = evaluate(0)
	if bad, ok := errors.AsType[*ModelError](err); !ok || !strings.Contains(bad.Why, "dets") {
		t.Errorf("a dark picture: %v", err)
	}
}

func TestInspectRefuses(t *testing.T) {
	d := withLibrary(t)
	d.MemoryLimit = 1 << 30
	for name, want := range map[string]string{
		"no_metadata.onnx":   "no rfdetr_inference metadata",
		"wrong_outputs.onnx": "no output dets",
		"wrong_slots.onnx":   "num_classes is 7",
		"malformed.onnx":     "does not load",
		"nan.onnx":           "output dets contains NaN",
		"random.onnx":        "golden replay: output dets differs",
		"large.onnx":         "does not run",
		"external.onnx":      "keeps weights in other files",
	} {
		_, _, err := d.Inspect(t.Context(), filepath.Join("testdata", name))
		if bad, ok := errors.AsType[*ModelError](err); !ok || !strings.Contains(bad.Why, want) ||
			filepath.Base(bad.Path) != name {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
	if _, _, err := d.Inspect(t.Context(), "testdata"); err == nil || !strings.Contains(err.Error(), "not a file") {
		t.Errorf("a folder: %v", err)
	}
	if _, _, err := d.Inspect(t.Context(), "--help"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a name like an option: %v", err)
	}
}

// Models with bytes changed at random load, fail, or crash the child. This process survives and gets an error.
func TestInspectMutated(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	d := withLibrary(t)
	d.MemoryLimit, d.Timeout = 1<<30, 30*time.Second
	original := read(t, "detector.onnx")
	path := filepath.Join(t.TempDir(), "mutated.onnx")
	draw := rand.New(rand.NewPCG(1, 1))
	for i := range 50 {
		model := append([]byte(nil), original...)
		for range 1 + draw.IntN(20) {
			at := draw.IntN(len(model))
			if i%2 == 0 { // in the graph rather than the weights
				at = draw.IntN(900)
			}
			model[at] = byte(draw.Uint32())
		}
		if err := os.WriteFile(path, model, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := d.Inspect(t.Context(), path)
		_, bad := errors.AsType[*ModelError](err)
		_, crash := errors.AsType[*CrashError](err)
		if err != nil && !bad && !crash {
			t.Errorf("mutation %d: %v", i, err)
		}
	}
}

func TestInspectEndless(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	d := withLibrary(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, _, err := d.Inspect(ctx, "testdata/endless.onnx"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	d.Timeout = time.Second
	_, _, err := d.Inspect(t.Context(), "testdata/endless.onnx")
	if crash, ok := errors.AsType[*CrashError](err); !ok || !strings.Contains(crash.Why, "gave no result for 1s") {
		t.Errorf("after the timeout: %v", err)
	}
}

// The expected boxes are torch's.
func TestEvaluate(t *testing.T) {
	d := withLibrary(t)
	var want []delivery.Box
	if err := json.Unmarshal(read(t, "detections.json"), &want); err != nil {
		t.Fatal(err)
	}
	request := Request{Model: "testdata/detector.onnx", Signature: testSignature(),
		Images: []ImageFile{{7, "testdata/picture.png"}, {3, "testdata/small.png"}, {9, "testdata/alpha.png"}}}
	found, err := d.Evaluate(t.Context(), request, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 3 || found[0].ID != 7 || found[1].ID != 3 || found[0].Width != 67 || found[0].Height != 51 ||
		found[1].Width != 7 {
		t.Fatalf("got %+v", found)
	}
	if !reflect.DeepEqual(found[0].Boxes, found[2].Boxes) {
		t.Error("alpha makes a difference")
	}
	for i, b := range found[0].Boxes {
		w := want[i]
		for _, pair := range [][2]float64{{b.Score, w.Score}, {b.X, w.X}, {b.Y, w.Y}, {b.W, w.W}, {b.H, w.H}} {
			if math.Abs(pair[0]-pair[1]) > 1e-3 || b.Class != w.Class {
				t.Errorf("box %d is %+v, torch has %+v", i, b, w)
			}
		}
	}
	if len(found[0].Boxes) != len(want) {
		t.Errorf("%d boxes, torch has %d", len(found[0].Boxes), len(want))
	}
	d.Threads = 1
	if again, err := d.Evaluate(t.Context(), request, nil); err != nil || !reflect.DeepEqual(again, found) {
		t.Errorf("one thread gives another answer (%v)", err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(here, d.Binary)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := (Detector{Binary: relative}).Evaluate(t.Context(), request, nil); err != nil ||
		!reflect.DeepEqual(again, found) {
		t.Errorf("relative path, library found by FindLibrary: %v", err)
	}
	request.Images = nil
	if none, err := d.Evaluate(t.Context(), request, nil); err != nil || len(none) != 0 {
		t.Errorf("no images: %v, %v", none, err)
	}
}

func TestEvaluateRefuses(t *testing.T) {
	d := withLibrary(t)
	dir := t.TempDir()
	cut := filepath.Join(dir, "cut.jpg")
	if err := os.WriteFile(cut, read(t, "picture.jpg")[:1500], 0o600); err != nil {
		t.Fatal(err)
	}
	evaluate := func(model string, change func(*delivery.Signature), images ...string) error {
		r := Request{Model: model, Signature: testSignature()}
		if change != nil {
			change(&r.Signature)
		}
		for i, path := range images {
			r.Images = append(r.Images, ImageFile{int64(i), path})
		}
		_, err := d.Evaluate(t.Context(), r, nil)
		return err
	}
	err := evaluate("testdata/detector.onnx", nil, "testdata/small.png", cut)
	if bad, ok := errors.AsType[*ImageError](err); !ok || bad.Path != cut || !strings.Contains(bad.Why, "truncated") {
		t.Errorf("a truncated image: %v", err)
	}
	const model = "testdata/detector.onnx"
	for name, err := range map[string]error{
		"does not load": evaluate("testdata/malformed.onnx", nil, "testdata/small.png"),
		"signature: ":   evaluate(model, func(s *delivery.Signature) { s.Select = 0 }, "testdata/small.png"),
		"labels has shape": evaluate(model, func(s *delivery.Signature) {
			s.Slots, s.Background = s.Slots[:3], -1
		}, "testdata/small.png"),
		"does not run":        evaluate(model, func(s *delivery.Signature) { s.Width = 64 }, "testdata/small.png"),
		"Invalid output name": evaluate(model, func(s *delivery.Signature) { s.Boxes = "boxes" }, "testdata/small.png"),
		"dets contains NaN":   evaluate("testdata/nan.onnx", nil, "testdata/small.png"),
	} {
		if _, ok := errors.AsType[*ModelError](err); !ok || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
}

// The child is killed in the middle of its work.
func TestEvaluateKilled(t *testing.T) {
	d := withLibrary(t)
	r := Request{Model: "testdata/detector.onnx", Signature: testSignature()}
	for i := range 20_000 {
		r.Images = append(r.Images, ImageFile{int64(i), "testdata/picture.png"})
	}
	_, err := d.Evaluate(t.Context(), r, func(done, _ int) {
		if done == 10 {
			for _, pid := range children(t) {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Error(err)
				}
			}
		}
	})
	if crash, ok := errors.AsType[*CrashError](err); !ok || !strings.Contains(crash.Why, "it was killed") {
		t.Errorf("got %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := d.Evaluate(ctx, r, func(int, int) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if left := children(t); len(left) > 0 {
		t.Errorf("processes %v are still running", left)
	}
}

// children returns the numbers of this process's children.
func children(t *testing.T) []int {
	var list []int
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // the thread ended
		}
		for _, field := range strings.Fields(string(data)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, pid)
		}
	}
	return list
}

// Images can need more memory than the child's limit, too.
func TestEvaluateMemory(t *testing.T) {
	d := withLibrary(t)
	d.MemoryLimit, d.Threads = 150<<20, 1
	_, err := d.Evaluate(t.Context(), Request{Model: "testdata/large.onnx", Signature: testSignature(),
		Images: []ImageFile{{1, "testdata/small.png"}}}, nil)
	if _, ok := errors.AsType[*ModelError](err); !ok || !strings.Contains(err.Error(), "8589934592") {
		t.Errorf("got %v, want what could not be had", err)
	}
	d.MemoryLimit = 10 << 20 // less than Go and the library need
	_, err = d.Evaluate(t.Context(), Request{Model: "testdata/detector.onnx", Signature: testSignature()}, nil)
	if err == nil {
		t.Error("no error with a limit of 10 MiB")
	}
}
