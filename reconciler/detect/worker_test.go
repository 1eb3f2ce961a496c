package detect

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// pureRuntime is a Runtime without ONNX Runtime. Its models detect one box in the middle, whose score is the redness of
// the picture.
type pureRuntime struct {
	run func(ctx context.Context, input Tensor) ([]Tensor, error) // in place of that, if set
}

func (pureRuntime) Describe([]byte) ([]Port, []Port, error) {
	in, out := testPorts() // which take batches
	return in, out, nil
}

func (pureRuntime) Metadata(_ []byte, name string) (string, error) {
	return map[string]string{MetadataKey: testMetadata}[name], nil
}

func (r pureRuntime) Load(model []byte, _ string, _ []string, _ int) (Model, error) {
	if string(model) != "model" {
		return nil, errors.New("no model")
	}
	return r, nil
}

func (r pureRuntime) Run(ctx context.Context, input Tensor) ([]Tensor, error) {
	if r.run != nil {
		return r.run(ctx, input)
	}
	boxes, logits := Tensor{Shape: []int64{input.Shape[0], 1, 4}}, Tensor{Shape: []int64{input.Shape[0], 1, 4}}
	inf := float32(math.Inf(-1))
	for image := range slices.Chunk(input.Data, 3*24*32) {
		red := float32(0)
		for _, v := range image[:24*32] {
			red += v / (24 * 32)
		}
		boxes.Data = append(boxes.Data, 0.5, 0.5, 1, 1)
		logits.Data = append(logits.Data, red, inf, inf, inf)
	}
	return []Tensor{boxes, logits}, nil
}

func (pureRuntime) Close() error { return nil }

// pureBundle writes a bundle for a pureRuntime.
func pureBundle(t *testing.T) string {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, delivery.ModelFile), []byte("model"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := Worker{Runtime: pureRuntime{}, JPEG: decoder}
	found, err := w.Inspect(t.Context(), filepath.Join(dir, delivery.ModelFile))
	if err != nil {
		t.Fatal(err)
	}
	writeBundle(t, dir, found.Signature, found.Golden)
	return dir
}

func writeBundle(t *testing.T, dir string, sig delivery.Signature, golden []byte) {
	classes := slices.DeleteFunc(slices.Clone(sig.Slots), func(name string) bool { return name == "" })
	for name, v := range map[string]any{delivery.SignatureFile: sig, delivery.LabelsFile: classes} {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, delivery.GoldenFile), golden, 0o600); err != nil {
		t.Fatal(err)
	}
}

// request returns evaluate's request for pictures of testdata.
func request(t *testing.T, model string, pictures ...string) *bytes.Buffer {
	r := Request{Model: model, Signature: testSignature()}
	for i, name := range pictures {
		if !filepath.IsAbs(name) {
			name = filepath.Join("testdata", name)
		}
		r.Images = append(r.Images, ImageFile{int64(i), name})
	}
	var b bytes.Buffer
	if err := r.write(&b); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestWorkerEvaluate(t *testing.T) {
	model := filepath.Join(t.TempDir(), "m")
	if err := os.WriteFile(model, []byte("model"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Pictures of different sizes are not completed in the order in which they were started. The results must be in
	// that order, whatever the number of threads.
	pictures := []string{"picture.jpg", "small.png", "grey.png", "small.png", "alpha.png", "palette.png", "small.png",
		"whole.jpg"}
	var first string
	for _, threads := range []int{1, 2, 7} {
		var out bytes.Buffer
		w := Worker{Runtime: pureRuntime{}, JPEG: decoder, Threads: threads}
		if err := w.Evaluate(t.Context(), "", request(t, model, pictures...), &out); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(bytes.NewReader(out.Bytes()))
		for i, name := range pictures {
			lines.Scan()
			m, err := parseMessage(lines.Bytes())
			if err != nil || m.Image == nil || m.Image.ID != int64(i) {
				t.Fatalf("line %d (%s): %s: %v", i, name, lines.Text(), err)
			}
		}
		if lines.Scan(); lines.Text() != `{"done":8}` {
			t.Errorf("ends with %s", lines.Text())
		}
		if first == "" {
			first = out.String()
		}
		if out.String() != first {
			t.Errorf("%d threads give another result than one", threads)
		}
	}
}

func TestWorkerEvaluateRefuses(t *testing.T) {
	dir := t.TempDir()
	model := filepath.Join(dir, "m")
	if err := os.WriteFile(model, []byte("model"), 0o600); err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(dir, "cut.jpg")
	if err := os.WriteFile(cut, read(t, "picture.jpg")[:900], 0o600); err != nil {
		t.Fatal(err)
	}
	tensors := func(list ...Tensor) pureRuntime {
		return pureRuntime{func(_ context.Context, _ Tensor) ([]Tensor, error) { return list, nil }}
	}
	boxes, logits := Tensor{[]int64{1, 1, 4}, make([]float32, 4)}, Tensor{[]int64{1, 1, 4}, make([]float32, 4)}
	whole := request(t, model, "small.png").String()
	for _, c := range []struct {
		name    string
		runtime pureRuntime
		request string
		want    string
		about   string
	}{
		{"no request", pureRuntime{}, "", "request: unexpected EOF", failRequest},
		{"garbage", pureRuntime{}, "hello\n", "request: invalid character", failRequest},
		{"a negative number of images", pureRuntime{}, strings.Replace(whole, `"images":1`, `"images":-1`, 1),
			"request: -1 images", failRequest},
		{"fewer images than the header says", pureRuntime{}, whole[:strings.Index(whole, "\n")+1],
			"request: unexpected EOF",
			failRequest},
		{"no such model", pureRuntime{}, request(t, filepath.Join(dir, "none"), "small.png").String(),
			"none: no such file", failRequest},
		{"another model", pureRuntime{}, request(t, "worker_test.go", "small.png").String(), "does not load: no model",
			failModel},
		{"no such image", pureRuntime{}, request(t, model, "small.png", "none.png").String(), "none.png: no such file",
			failImage},
		{"a folder", pureRuntime{}, request(t, model, ".").String(), "testdata: not a file", failImage},
		{"a cut image", pureRuntime{}, request(t, model, "small.png", cut).String(), "cut.jpg: truncated", failImage},
		{"the model fails", pureRuntime{func(context.Context, Tensor) ([]Tensor, error) {
			return nil, errors.New("boom")
		}}, whole,
			"does not run: boom", failModel},
		{"NaN", tensors(boxes, Tensor{[]int64{1, 1, 4}, []float32{float32(math.NaN()), 0, 0, 0}}), whole,
			"on image small.png: output labels contains NaN", failModel},
		{"boxes of one dimension", tensors(Tensor{[]int64{4}, boxes.Data}, logits), whole, "dets has shape [4]",
			failModel},
		{"no boxes", tensors(Tensor{[]int64{1, 0, 4}, nil}, logits), whole, "dets has shape [1 0 4]",
			failModel},
		{"a batch of logits", tensors(boxes, Tensor{[]int64{2, 1, 4}, make([]float32, 8)}), whole,
			"labels has shape [2 1 4]", failModel},
		{"slots", tensors(boxes, Tensor{[]int64{1, 1, 3}, make([]float32, 3)}), whole, "labels has shape [1 1 3]",
			failModel},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := Worker{Runtime: c.runtime, JPEG: decoder}
			err := w.Evaluate(t.Context(), "", strings.NewReader(c.request), new(bytes.Buffer))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if f := failureOf(err); f.About != c.about {
				t.Errorf("it is about the %s, want %s", f.About, c.about)
			}
		})
	}
}

func FuzzWorkerEvaluate(f *testing.F) {
	model := filepath.Join(f.TempDir(), "m")
	if err := os.WriteFile(model, []byte("model"), 0o600); err != nil {
		f.Fatal(err)
	}
	sig, err := json.Marshal(testSignature())
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(fmt.Sprintf("{\"model\":%q,\"signature\":%s,\"images\":1}\n{\"id\":1,\"path\":\"x\"}\n", model, sig)))
	f.Fuzz(func(t *testing.T, request []byte) {
		w := Worker{Runtime: pureRuntime{}, JPEG: decoder, Threads: 2}
		_ = w.Evaluate(t.Context(), "", bytes.NewReader(request), new(bytes.Buffer))
	})
}

func TestServer(t *testing.T) {
	s, err := Worker{Runtime: pureRuntime{}, JPEG: decoder, Threads: 2}.Open(t.Context(), pureBundle(t))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	outcomes := map[string]int{}
	s.Observe = func(i Inference) {
		mu.Lock()
		defer mu.Unlock()
		outcomes[i.Outcome]++
	}
	call := func(method, path string, body []byte) (int, string) {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(method, path, bytes.NewReader(body)))
		return w.Code, w.Body.String()
	}
	if code, body := call("GET", "/health", nil); code != 200 || body != "{\"ok\":true}\n" {
		t.Errorf("health: %d %s", code, body)
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			code, body := call("POST", "/infer", read(t, "picture.jpg"))
			var got Detections
			if err := json.Unmarshal([]byte(body), &got); code != 200 || err != nil || got.Width != 67 ||
				got.Height != 51 || len(got.Boxes) != 2 ||
				got.Boxes[0].Class != "red" || got.Boxes[0].W != 67 {
				t.Errorf("infer: %d %s", code, body)
			}
		})
	}
	all.Wait()
	for _, c := range []struct {
		method, path string
		body         []byte
		code         int
		want         string
	}{
		{"POST", "/infer", nil, 400, "empty file"},
		{"POST", "/infer", []byte("text"), 400, "neither JPEG nor PNG"},
		{"POST", "/infer", make([]byte, MaxImageBytes+1), 413, "too large"},
		{"GET", "/infer", nil, 405, ""},
		{"GET", "/live", nil, 200, `{"ok":true}`},
		{"GET", "/describe", nil, 200, `"outputs":[{"name":"dets","type":"float32","shape":[1,1,4]}`},
		{"POST", "/infer?score=1", read(t, "picture.jpg"), 200, `"boxes":[]`},
		{"POST", "/infer?score=2", nil, 400, "want a number from 0 to 1"},
		{"POST", "/infer?score=NaN", nil, 400, "want a number from 0 to 1"},
		{"POST", "/run", nil, 400, "want numbers above 0"},
		{"GET", "/", nil, 404, ""},
	} {
		if code, body := call(c.method, c.path, c.body); code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, code, body, c.code, c.want)
		}
	}
	if outcomes["ok"] != 21 || outcomes["image"] != 2 || len(outcomes) != 2 {
		t.Errorf("observed %v", outcomes)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// If a bundle has thresholds, detections below them are not returned. A class without a threshold is not filtered.
func TestServerThresholds(t *testing.T) {
	boxes := func(thresholds string) []delivery.Box {
		dir := pureBundle(t)
		if thresholds != "" {
			if err := os.WriteFile(filepath.Join(dir, delivery.ThresholdsFile), []byte(thresholds), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := Worker{Runtime: pureRuntime{}, JPEG: decoder}.Open(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		found, _, err := s.Infer(t.Context(), read(t, "picture.jpg"), 0)
		if err != nil {
			t.Fatal(err)
		}
		return found.Boxes
	}
	all := boxes("")
	if len(all) != 2 {
		t.Fatalf("%+v", all)
	}
	best := all[0]
	if got := boxes(fmt.Sprintf(`{%q: %v}`, best.Class, best.Score)); !slices.Contains(got, best) {
		t.Errorf("a detection at its threshold must be returned: %+v", got)
	}
	for _, b := range boxes(fmt.Sprintf(`{%q: %v}`, best.Class, math.Nextafter(best.Score, 2))) {
		if b.Class == best.Class {
			t.Errorf("%+v is below its threshold", b)
		}
	}
	dir := pureBundle(t)
	if err := os.WriteFile(filepath.Join(dir, delivery.ThresholdsFile), []byte(`[1]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (Worker{Runtime: pureRuntime{}, JPEG: decoder}).Open(t.Context(), dir); err == nil ||
		!strings.Contains(err.Error(), delivery.ThresholdsFile) {
		t.Errorf("damaged thresholds: %v", err)
	}
}

// A model whose output changes is not healthy any more.
func TestServerHealthFails(t *testing.T) {
	s, err := Worker{Runtime: pureRuntime{}, JPEG: decoder}.Open(t.Context(), pureBundle(t))
	if err != nil {
		t.Fatal(err)
	}
	s.engine.alone.model = pureRuntime{func(ctx context.Context, in Tensor) ([]Tensor, error) {
		out, err := pureRuntime{}.Run(ctx, in)
		out[1].Data[0] += 0.1
		return out, err
	}}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("GET", "/health", nil))
	if w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "output labels differs by 0.1") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, c := range []struct {
		name, file string
		content    func(old []byte) []byte // nil removes
		want       string
	}{
		{"no signature", delivery.SignatureFile, nil, "signature.json: no such file"},
		{"broken signature", delivery.SignatureFile, func([]byte) []byte { return []byte("{") },
			"signature.json: unexpected"},
		{"unknown field", delivery.SignatureFile, func([]byte) []byte { return []byte(`{"antialias":true}`) },
			"unknown field"},
		{"no labels", delivery.LabelsFile, nil, "labels.json: no such file"},
		{"other labels", delivery.LabelsFile, func([]byte) []byte { return []byte(`["red","green"]`) },
			`the class "green"`},
		{"an empty label", delivery.LabelsFile, func([]byte) []byte { return []byte(`["red",""]`) }, `the class ""`},
		{"no golden", delivery.GoldenFile, nil, "golden.bin: no such file"},
		{"broken golden", delivery.GoldenFile, func(old []byte) []byte { return old[:20] }, "golden.bin: golden"},
		{"another model's golden", delivery.GoldenFile,
			func(old []byte) []byte { old[len(goldenMagic)] ^= 1; return old },
			"golden replay: output labels differs"},
		{"no model", delivery.ModelFile, nil, "model.onnx: no such file"},
		{"another model", delivery.ModelFile, func([]byte) []byte { return []byte("x") }, "does not load"},
		{"classes swapped", delivery.SignatureFile, func(old []byte) []byte {
			return bytes.Replace(old, []byte(`["red","","blue",""]`), []byte(`["blue","","red",""]`), 1)
		}, `slots is ["red","","blue",""] in the metadata, and ["blue","","red",""] in the bundle`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := pureBundle(t)
			path := filepath.Join(dir, c.file)
			if c.content == nil {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			} else {
				old, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, c.content(old), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := (Worker{Runtime: pureRuntime{}, JPEG: decoder}).Open(t.Context(), dir); err == nil ||
				!strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// A timed request tells how long the model ran, with the same boxes. Others do not.
func TestWorkerTimes(t *testing.T) {
	model := filepath.Join(t.TempDir(), "m")
	if err := os.WriteFile(model, []byte("model"), 0o600); err != nil {
		t.Fatal(err)
	}
	var found [2][]imageLine
	for i, timed := range []bool{false, true} {
		r := Request{Model: model, Signature: testSignature(), Timed: timed}
		for id, name := range []string{"picture.jpg", "small.png"} {
			r.Images = append(r.Images, ImageFile{int64(id), filepath.Join("testdata", name)})
		}
		var in, out bytes.Buffer
		if err := r.write(&in); err != nil {
			t.Fatal(err)
		}
		w := Worker{Runtime: pureRuntime{}, JPEG: decoder, Threads: 2}
		if err := w.Evaluate(t.Context(), "", &in, &out); err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(out.Bytes()) {
			m, err := parseMessage(line)
			if err != nil {
				t.Fatal(err)
			}
			if m.Image == nil {
				continue
			}
			if (m.Image.Seconds > 0) != timed {
				t.Errorf("timed %v: image %d took %v seconds", timed, m.Image.ID, m.Image.Seconds)
			}
			m.Image.Seconds = 0
			found[i] = append(found[i], *m.Image)
		}
	}
	if len(found[0]) != 2 || !reflect.DeepEqual(found[0], found[1]) {
		t.Errorf("without times %+v, with times %+v", found[0], found[1])
	}
	for _, seconds := range []float64{-1, math.NaN(), math.Inf(1), 1e9} {
		line := found[0][0]
		line.Seconds = seconds
		if _, err := line.detections(ImageFile{ID: line.ID}, testSignature()); err == nil {
			t.Errorf("%v seconds are taken", seconds)
		}
	}
}
