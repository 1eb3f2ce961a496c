package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/engine"
	"github.com/autonomos/aob/reconciler/onnx"
	"github.com/autonomos/aob/reconciler/profile"
)

const testdata = "../detect/testdata/"

// A bench is a builder with a stand-in, on a machine that is a Jetson.
type bench struct {
	engine.Builder
	stages []string
	told   []profile.Progress
}

func newBench(t *testing.T, name string, b behaviour) *bench {
	p, err := profile.Find(profile.Builtin(), name)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for path, text := range map[string]string{
		"proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0003\x00nvidia,tegra234\x00",
		"etc/nv_tegra_release":        "# R36 (release), REVISION: 4.3, GCID: 1\n",
		"usr/local/cuda/version.json": `{"cuda": {"name": "CUDA SDK", "version": "12.6.11"}}`,
		"proc/meminfo":                "MemTotal: 8000000 kB\nMemAvailable:    6000000 kB\n",
	} {
		write(t, filepath.Join(root, path), []byte(text))
	}
	made := &bench{}
	made.Builder = engine.Builder{
		Cache: filepath.Join(t.TempDir(), "engines"), Profile: p, Trtexec: install(t, b), Check: onnx.Check,
		Shape: onnx.InputShape, Machine: engine.Machine{Root: root,
			SMI: func(context.Context, ...string) ([]byte, error) { return nil, errors.New("no nvidia-smi") }},
		Verify: func(context.Context, engine.Entry) (json.RawMessage, error) {
			return json.RawMessage(`{"largest":0}`), nil
		},
		Progress: func(p profile.Progress) {
			made.stages, made.told = append(made.stages, p.Stage), append(made.told, p)
		},
	}
	return made
}

func write(t *testing.T, path string, data []byte) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// bundle makes a bundle's folder of a model, without what only a detector reads.
func bundle(t *testing.T, model string) string {
	dir := t.TempDir()
	data, err := os.ReadFile(testdata + model)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, delivery.ModelFile), data)
	write(t, filepath.Join(dir, delivery.SignatureFile), delivery.Canonical(delivery.Signature{Input: "input"}))
	write(t, filepath.Join(dir, delivery.GoldenFile), []byte("golden"))
	return dir
}

var enough = behaviour{Version: "100300", Memory: 4096}

func TestEnsure(t *testing.T) {
	b, dir := newBench(t, "orin-nano-fp16", enough), bundle(t, "static.onnx")
	first, err := b.Ensure(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(b.stages, " "); got != "building verifying built" {
		t.Errorf("stages %s", got)
	}
	if want := (profile.Target{Module: "p3767-0003", Compute: "8.7", TensorRT: "10.3.0", CUDA: "12.6",
		L4T: "36.4.3"}); first.Engine.Target != want {
		t.Errorf("target %+v", first.Engine.Target)
	}
	last := b.told[len(b.told)-1]
	if last.Size != int64(len(first.Plan)) || last.Workspace != 1<<30 || string(last.Parity) != `{"largest":0}` {
		t.Errorf("%+v", last)
	}
	line := builds(t, b.Trtexec)[0]
	for _, want := range []string{"--onnx=" + b.Cache, "--saveEngine=" + b.Cache, " --stronglyTyped ",
		" --memPoolSize=workspace:1024 ", " --skipInference"} {
		if !strings.Contains(line, want) {
			t.Errorf("%s has no %s", line, want)
		}
	}

	// Another process finds it.
	b.stages = nil
	again, err := b.Ensure(t.Context(), dir)
	if err != nil || again.Digest != first.Digest || string(again.Plan) != string(first.Plan) {
		t.Errorf("%v, %v", again.Digest, err)
	}
	if got := strings.Join(b.stages, " "); got != "cached" || len(builds(t, b.Trtexec)) != 1 {
		t.Errorf("stages %s, builds %q", got, builds(t, b.Trtexec))
	}

	// A model with an open batch gets shapes, and begins with the timing cache of the first build.
	if _, err := b.Ensure(t.Context(), bundle(t, "detector.onnx")); err != nil {
		t.Fatal(err)
	}
	timing, err := os.ReadFile(filepath.Join(b.Cache, first.Engine.TimingCache()))
	if err != nil || string(timing) != "build\nbuild\n" {
		t.Errorf("timing cache %q, %v", timing, err)
	}
}

// A damaged entry is built again.
func TestDamagedEntry(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, folder string){
		"the engine": func(t *testing.T, folder string) { write(t, filepath.Join(folder, "engine.plan"), []byte("x")) },
		"no engine": func(t *testing.T, folder string) {
			if err := os.Remove(filepath.Join(folder, "engine.plan")); err != nil {
				t.Fatal(err)
			}
		},
		"the entry": func(t *testing.T, folder string) { write(t, filepath.Join(folder, "entry.json"), []byte("{}")) },
		"half an entry": func(t *testing.T, folder string) {
			write(t, filepath.Join(folder, "entry.json"), []byte(`{"engine"`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, dir := newBench(t, "orin-nano-fp16", enough), bundle(t, "static.onnx")
			e, err := b.Ensure(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			damage(t, e.Folder)
			again, err := b.Ensure(t.Context(), dir)
			if err != nil || again.Digest != e.Digest || len(builds(t, b.Trtexec)) != 2 {
				t.Errorf("%v, %d builds", err, len(builds(t, b.Trtexec)))
			}
		})
	}
}

func TestLadder(t *testing.T) {
	for _, c := range []struct {
		name   string
		b      behaviour
		stages string
		want   string // part of the error; "" for none
	}{
		{"the first fits", behaviour{Version: "100300", Memory: 1024}, "building verifying built", ""},
		{"the last fits", behaviour{Version: "100300", Memory: 256},
			"building retry building retry building verifying built", ""},
		{"the kernel kills it", behaviour{Version: "100300", Memory: 512, Killed: true},
			"building retry building verifying built", ""},
		{"none fits", behaviour{Version: "100300", Memory: 100}, "building retry building retry building",
			"memory is too small for a workspace of 256MiB: Requested amount of GPU memory (268435456 bytes) could " +
				"not be allocated.; that was the smallest workspace of profile orin-nano-fp16"},
		{"no implementation", behaviour{Version: "100300", Memory: 4096, Needs: 2048},
			"building retry building retry building", "Could not find any implementation"},
		{"another error", behaviour{Version: "100300", Memory: 4096, Fails: "Network must have at least one output"},
			"building", "trtexec: Network must have at least one output; to see all of its output, run: "},
		{"no engine", behaviour{Version: "100300", Memory: 4096, Nothing: true}, "building",
			"trtexec has written no engine"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, "orin-nano-fp16", c.b)
			_, err := b.Ensure(t.Context(), bundle(t, "static.onnx"))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if got := strings.Join(b.stages, " "); got != c.stages {
				t.Errorf("stages %s, want %s", got, c.stages)
			}
			if err != nil {
				if left, _ := filepath.Glob(filepath.Join(b.Cache, "*", "*")); len(left) > 0 {
					t.Errorf("it leaves %q", left)
				}
			}
		})
	}
}

func TestEnsureRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, b *bench)
		model  string
		want   string
	}{
		"a model with other files": {func(*testing.T, *bench) {}, "external.onnx", "it keeps weights in other files"},
		"no trtexec": {func(_ *testing.T, b *bench) { b.Trtexec = "/nowhere/trtexec" }, "static.onnx",
			"trtexec at /nowhere/trtexec cannot be run"},
		"another program": {func(t *testing.T, b *bench) { b.Trtexec = "/bin/true" }, "static.onnx",
			"/bin/true does not tell its version"},
		"too old": {func(t *testing.T, b *bench) { behave(t, b.Trtexec, behaviour{Version: "8502"}) }, "static.onnx",
			"TensorRT 8.5.2 is too old"},
		"too little memory": {func(t *testing.T, b *bench) {
			write(t, filepath.Join(b.Machine.Root, "proc/meminfo"), []byte("MemAvailable: 500000 kB\n"))
		}, "static.onnx", "a build needs 1280MiB of memory, and 488MiB are available; stop other programs"},
		"another GPU": {func(_ *testing.T, b *bench) { b.Profile.Compute = "7.5" }, "static.onnx",
			"is for GPUs of compute capability 7.5, and this one (p3767-0003) has 8.7"},
		"no GPU": {func(_ *testing.T, b *bench) { b.Machine.Root, b.Profile.Compute = t.TempDir(), "" }, "static.onnx",
			"this machine does not tell the compute capability of its GPU"},
		"answers that differ": {func(_ *testing.T, b *bench) {
			b.Verify = func(context.Context, engine.Entry) (json.RawMessage, error) {
				return nil, errors.New("golden replay: the outputs differ")
			}
		}, "static.onnx", "golden replay: the outputs differ"},
		"a build without an end": {func(t *testing.T, b *bench) {
			behave(t, b.Trtexec, behaviour{Version: "100300", Hangs: true})
			builder := *b.Profile.Engine
			builder.Timeout = profile.Timeout(time.Millisecond)
			b.Profile.Engine = &builder
		}, "static.onnx", "trtexec had no engine after 1ms; raise tensorrt.timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, "orin-nano-fp16", enough)
			c.change(t, b)
			_, err := b.Ensure(t.Context(), bundle(t, c.model))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if left, _ := filepath.Glob(filepath.Join(b.Cache, "*", "*", "*", "*")); len(left) > 0 {
				t.Errorf("it leaves %q", left)
			}
		})
	}
}

// A build ends with its context, and so does trtexec.
func TestCancel(t *testing.T) {
	b := newBench(t, "orin-nano-fp16", behaviour{Version: "100300", Hangs: true})
	ctx, cancel := context.WithCancelCause(t.Context())
	b.Progress = func(p profile.Progress) {
		if p.Stage == profile.Building {
			cancel(errors.New("the user has left"))
		}
	}
	_, err := b.Ensure(ctx, bundle(t, "static.onnx"))
	if err == nil || !strings.Contains(err.Error(), "user has left") {
		t.Error(err)
	}
}

// An update of the machine makes all engines useless. Those of other releases stay without one.
func TestOldEnginesAreRemoved(t *testing.T) {
	b := newBench(t, "orin-nano-fp16", enough)
	one, other := bundle(t, "static.onnx"), bundle(t, "detector.onnx")
	var before []engine.Entry
	for _, dir := range []string{one, other} {
		e, err := b.Ensure(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		before = append(before, e)
	}
	write(t, filepath.Join(before[0].Folder+".partial", "model.onnx"), []byte("left by a crash"))
	there := func(path string) bool { _, err := os.Stat(path); return err == nil }
	if !there(before[0].Folder) || !there(before[1].Folder) {
		t.Fatal("a build has removed the engine of another release")
	}
	behave(t, b.Trtexec, behaviour{Version: "100700", Memory: 4096})
	b.stages = nil
	after, err := b.Ensure(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(b.stages, " "); got != "removed building verifying built" || b.told[0].Stage == "removed" {
		t.Errorf("stages %s", got)
	}
	old := filepath.Join(b.Cache, before[0].Engine.TimingCache())
	for _, path := range []string{before[0].Folder, before[1].Folder, before[0].Folder + ".partial", old,
		filepath.Join(b.Cache, before[1].Engine.Release.Hex())} {
		if there(path) {
			t.Errorf("%s is still there", path)
		}
	}
	if !there(after.Folder) || !there(filepath.Join(b.Cache, after.Engine.TimingCache())) {
		t.Error("the new engine is not there")
	}
}
