package terraform

import (
	"context"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/cloud"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/trainer"
	"github.com/autonomos/aob/tools/versitygw/versitytest"
)

func mkdir(dir string) error { return os.MkdirAll(dir, 0o700) }

// A counted bucket writes down what is written.
type counted struct {
	*cloud.Bucket
	keys []string
}

func (c *counted) Write(ctx context.Context, key string, body io.ReadSeeker, size int64, sum [sha256.Size]byte,
	fresh bool) error {
	c.keys = append(c.keys, strings.TrimPrefix(key, "acme/train-1/"))
	return c.Bucket.Write(ctx, key, body, size, sum, fresh)
}

func newCounted(t *testing.T) *counted {
	t.Helper()
	s := versitytest.Start(t)
	s.Bucket(t, "runs")
	b, err := cloud.OpenBucket(t.Context(), cloud.Address{Bucket: "runs", Endpoint: s.URL, KeyID: versitytest.KeyID,
		Key: versitytest.Key})
	if err != nil {
		t.Fatal(err)
	}
	return &counted{Bucket: b}
}

func (c *counted) put(t *testing.T, key, text string) {
	t.Helper()
	err := c.Bucket.Write(t.Context(), key, strings.NewReader(text), int64(len(text)), sha256.Sum256([]byte(text)),
		false)
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := mkdir(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Inputs are uploaded once. What has changed is uploaded again, and what is no input any more is removed.
func TestUpload(t *testing.T) {
	objects, dir := newCounted(t), t.TempDir()
	for name, text := range map[string]string{"trainer/train.py": "import torch", "trainer/lib/a.py": "",
		"env/pyvenv.cfg": "", "env/bin/python": "#!", "data/train/a b.png": "picture", "nano.pth": "weights"} {
		write(t, filepath.Join(dir, name), text)
	}
	req := trainer.Request{Dir: filepath.Join(dir, "train-1"), Script: filepath.Join(dir, "trainer", "train.py"),
		Python: filepath.Join(dir, "env", "bin", "python"),
		Inputs: []string{filepath.Join(dir, "data"), filepath.Join(dir, "nano.pth")}}
	req.RunJSON = func(place func(string) string) any {
		return map[string]string{"dataset": place(req.Inputs[0]), "weights": place(req.Inputs[1])}
	}
	send := func(environment bool) string {
		t.Helper()
		objects.keys = nil
		up := &upload{objects: objects, at: "acme/train-1/input/", dir: filepath.Join(req.Dir, "upload"),
			note: func(string) error { return nil }}
		manifest, err := up.inputs(t.Context(), req, "/opt/aob", environment)
		if err != nil {
			t.Fatal(err)
		}
		return manifest
	}
	first := send(true)
	want := []string{"input/run.json", "input/trainer/lib/a.py", "input/trainer/train.py", "input/data.tar.000",
		"input/environment.tar.000", "input/SHA256SUMS"}
	if !slices.Equal(objects.keys, want) {
		t.Errorf("sent %q, want %q", objects.keys, want)
	}
	if again := send(true); again != first || len(objects.keys) > 0 {
		t.Errorf("the second time %q was sent, and the manifest is %s, not %s", objects.keys, again, first)
	}
	write(t, filepath.Join(dir, "trainer", "train.py"), "import torcj") // the same size
	if changed := send(true); changed == first || !slices.Equal(objects.keys, []string{"input/trainer/train.py",
		"input/SHA256SUMS"}) {
		t.Errorf("after a change %q was sent", objects.keys)
	}
	send(false)
	var there []string
	if err := objects.List(t.Context(), "acme/", func(key string, _ int64, _ string) error {
		there = append(there, strings.TrimPrefix(key, "acme/train-1/input/"))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(there, "environment.tar.000") || len(there) != 5 {
		t.Errorf("there are %q", there)
	}
	write(t, filepath.Join(dir, "trainer", "a\nb.py"), "")
	up := &upload{objects: objects, at: "acme/train-1/input/", dir: filepath.Join(req.Dir, "upload"),
		note: func(string) error { return nil }}
	if _, err := up.inputs(t.Context(), req, "/opt/aob", false); err == nil ||
		!strings.Contains(err.Error(), "plain name") {
		t.Errorf("a name with a line break: %v", err)
	}
}

// A file larger than a part is cut, and its parts put together are the file.
func TestParts(t *testing.T) {
	var all strings.Builder
	p := &parts{name: "x.tar", dir: t.TempDir(), most: 10, send: func(part string, f *os.File, size int64,
		sum [sha256.Size]byte) error {
		data, err := io.ReadAll(f)
		if err != nil || int64(len(data)) != size || sha256.Sum256(data) != sum || size > 10 {
			t.Errorf("%s: %d bytes of %d, %v", part, len(data), size, err)
		}
		all.Write(data)
		return nil
	}}
	const text = "0123456789abcdefghijklmnop"
	for _, piece := range []string{text[:3], text[3:25], text[25:]} {
		if _, err := p.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.close(); err != nil || all.String() != text || p.number != 3 {
		t.Errorf("%q in %d parts, %v", all.String(), p.number, err)
	}
}

// What is in the bucket was written by a trainer, who may write what it wants.
func TestFollowHostile(t *testing.T) {
	objects, dir := newCounted(t), filepath.Join(t.TempDir(), "train-1")
	m := &AWS{Objects: objects}
	req := trainer.Request{Dir: dir}
	attempt := attemptDir(dir, 1)
	if err := mkdir(filepath.Join(dir, outputDir)); err != nil {
		t.Fatal(err)
	}
	if err := mkdir(filepath.Join(attempt, stackFolder)); err != nil {
		t.Fatal(err)
	}
	v := EC2{Run: "train-1", Attempt: 1, Outputs: "acme/train-1/output/"}
	if err := durable.WriteJSON(filepath.Join(attempt, stackFolder, varsFile), v); err != nil {
		t.Fatal(err)
	}
	objects.put(t, v.Outputs+"../../../evil", "x")
	objects.put(t, v.Outputs+"status.json", `{"phase":"done"}`) // not this attempt's
	objects.put(t, v.Outputs+"run.json", "x")
	objects.put(t, v.Outputs+"model.onnx.evil", "x")
	objects.put(t, v.Outputs+"train.json", strings.Repeat("x", 2<<20))
	objects.put(t, v.Outputs+"metrics.jsonl", "{}\n")
	objects.put(t, v.boot()+"trainer.log", strings.Repeat("y", 1<<20)+"the end")
	objects.put(t, v.boot()+"status.json", strings.Repeat(" ", 1<<20))
	if err := m.Collect(t.Context(), req, attempt); err != nil {
		t.Fatal(err)
	}
	objects.put(t, v.boot()+"status.json", `{"phase":"done"}`)
	if err := m.Collect(t.Context(), req, attempt); err != nil {
		t.Fatal(err)
	}
	var got []string
	entries, err := os.ReadDir(filepath.Join(dir, outputDir))
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if err != nil || !slices.Equal(got, []string{"metrics.jsonl", "status.json"}) {
		t.Errorf("copied %q, %v", got, err)
	}
	log, err := os.ReadFile(filepath.Join(attempt, trainerLog))
	if err != nil || len(log) != 1<<20 || !strings.HasSuffix(string(log), "the end") {
		t.Errorf("the log has %d bytes, %v", len(log), err)
	}
	for text, want := range map[string]string{"{": "exit.json cannot be read", `{"code":1,"reason":"a\u001bb"}`: "ab"} {
		objects.put(t, v.boot()+exitFile, text)
		if e, err := m.exit(t.Context(), v); err != nil || e.Reason != want {
			t.Errorf("%s: %+v, %v", text, e, err)
		}
	}
}
