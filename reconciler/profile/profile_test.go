package profile

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/delivery"
)

func find(t testing.TB, name string) Profile {
	p, err := Find(Builtin(), name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestBuiltin(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range Builtin() {
		if key, why := p.fault(); why != "" {
			t.Errorf("%s: %s: %s", p.Name, key, why)
		}
		if seen[p.Name] || !slices.Contains(precisions, p.Precision) || !strings.HasSuffix(p.Name, p.Precision) {
			t.Errorf("%+v", p)
		}
		seen[p.Name] = true
	}
	if got := find(t, ""); got.Name != "cpu-fp32" {
		t.Errorf("the default is %s", got.Name)
	}
	_, err := Find(Builtin(), "t5-fp16")
	if err == nil || !strings.Contains(err.Error(), `no hardware profile "t5-fp16"; take one of these`) {
		t.Error(err)
	}
}

const head = "apiVersion: aob/v1\nkind: Profiles\nprofiles:\n"

func TestParse(t *testing.T) {
	list, complaints := Parse("profiles.yaml", []byte(head+`  line:
    from: small
    load: 2m
  small:
    from: orin-nano-fp16
    for: the cameras of line 3
    tensorrt: {workspace: [512MiB, 128MiB], timeout: 20m, dla: 0}
  big:
    from: cpu-fp32
    provider: cuda
    device: 1
    gpuMemory: 2GiB
`))
	if len(complaints) > 0 {
		t.Fatal(complaints)
	}
	small := find(t, "orin-nano-fp16")
	builder, zero := *small.Engine, 0
	builder.Workspace, builder.Timeout, builder.DLA = []delivery.Bytes{512 << 20, 128 << 20}, 20*minute, &zero
	small.Name, small.For, small.Engine = "small", "the cameras of line 3", &builder
	line := small
	line.Name, line.Load = "line", 2*minute
	big := find(t, "cpu-fp32")
	big.Name, big.Provider, big.Device, big.GPUMemory, big.Memory = "big", CUDA, 1, 2<<30, 0
	if d := cmp.Diff(append(Builtin(), big, line, small), list); d != "" {
		t.Error(d)
	}
	if find(t, "orin-nano-fp16").Engine.DLA != nil {
		t.Error("a file has changed a built-in profile")
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", "is empty"},
		{"another kind", "apiVersion: aob/v1\nkind: Model\nprofiles: {a: {from: cpu-fp32}}", "kind: want Profiles"},
		{"no profile", head[:len(head)-1] + " {}", "profiles: is empty"},
		{"a built-in name", head + "  cpu-fp32: {from: cpu-int8}", "profiles.cpu-fp32: is a profile of AOB"},
		{"no from", head + "  a: {threads: 1}", "profiles.a.from: missing: the profile that this one starts with"},
		{"unknown from", head + "  a: {from: b}", `profiles.a.from: there is no profile "b"; want one of cpu-fp32`},
		{"itself", head + "  a: {from: a}", "profiles.a.from: starts with itself: a -> a"},
		{"a circle", head + "  a: {from: b}\n  b: {from: a}", "starts with itself: a -> b -> a"},
		{"an unknown key", head + "  a: {from: cpu-fp32, thread: 1}", "did you mean threads?"},
		{"a provider", head + "  a: {from: cpu-fp32, provider: rocm}", "want cpu, cuda or tensorrt"},
		{"no unit", head + "  a: {from: cpu-fp32, memory: 100}", "want a size with its unit"},
		{"a negative number", head + "  a: {from: cpu-fp32, threads: -1}", "profiles.a.threads: want"},
		{"an engine on a CPU", head + "  a: {from: cpu-fp32, tensorrt: {level: 1}}", "is for provider tensorrt"},
		{"no engine", head + "  a: {from: cpu-fp32, provider: tensorrt}", "profiles.a.tensorrt: missing"},
		{"memory of a GPU", head + "  a: {from: t4-fp16, memory: 8GiB}", "MemoryMax= of systemd"},
		{"a GPU's number", head + "  a: {from: cpu-fp32, device: 1}", "is for GPUs"},
		{"a ladder that rises", head + "  a: {from: t4-fp16, tensorrt: {workspace: [1GiB, 2GiB]}}",
			"want sizes from large to small"},
		{"a step twice", head + "  a: {from: t4-fp16, tensorrt: {workspace: [1GiB, 1GiB]}}", "from large to small"},
		{"weak int8", head + "  a: {from: t4-int8, tensorrt: {typing: weak}}", "without having measured"},
		{"a DLA for fp32", head + "  a: {from: t4-fp16, precision: fp32, tensorrt: {dla: 0}}", "a DLA computes in"},
		{"a capability", head + "  a: {from: t4-fp16, compute: sm75}", "want a compute capability"},
		{"an alias", head + "  a: &x {from: cpu-fp32}\n  b: *x", "aliases"},
		{"JSON cut off", `{"apiVersion": "aob/v1", "kind": "Profiles"`, "profiles.yaml:1"},
	} {
		list, complaints := Parse("profiles.yaml", []byte(c.text))
		text := strings.Join(delivery.Each(complaints, delivery.Complaint.String), "\n")
		if list != nil || !strings.Contains(text, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, text, c.want)
		}
	}
	if _, complaints := Parse("p.json", []byte(`{"apiVersion": "aob/v1", "kind": "Profiles", "profiles":
		{"a": {"from": "cpu-fp32", "threads": 1}}}`)); len(complaints) > 0 {
		t.Error(complaints)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(head + "  a: {from: b, threads: 1}\n  b: {from: t4-fp16, tensorrt: {workspace: [1GiB]}}"))
	f.Add([]byte(head + "  a: {from: b}\n  b: {from: a}"))
	f.Add([]byte(head + "  a: {from: cpu-fp32, provider: tensorrt, tensorrt: {dla: 1, typing: weak}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, complaints := Parse("p.yaml", data)
		if (list == nil) != (len(complaints) > 0) {
			t.Fatalf("%d profiles and %d complaints", len(list), len(complaints))
		}
		for _, p := range list {
			if key, why := p.fault(); why != "" {
				t.Errorf("%s: %s %s", p.Name, key, why)
			}
			p.Session(Engine{}, "/cache")
			p.Bounds()
		}
	})
}

// Settings that change no number keep the results of evaluations; all others do not.
func TestResult(t *testing.T) {
	target := Target{GPU: "Tesla T4", Compute: "7.5", TensorRT: "10.3.0", CUDA: "12.6", L4T: "36.4.3"}
	base := find(t, "t4-fp16")
	first := base.Result(target)
	if cpu := find(t, "cpu-fp32").Result(target); cpu != "cpu" {
		t.Errorf("a CPU's results are of %s", cpu)
	}
	if cpu := find(t, "cpu-int8").Result(target); cpu != "cpu" {
		t.Errorf("int8: %s", cpu) // the model's digest is another one already
	}
	changed := func(change func(*Profile, *Target)) string {
		p, machine := base, target
		builder := *base.Engine
		p.Engine = &builder
		change(&p, &machine)
		return p.Result(machine)
	}
	for name, change := range map[string]func(*Profile, *Target){
		"name":      func(p *Profile, _ *Target) { p.Name, p.For = "other", "other" },
		"threads":   func(p *Profile, _ *Target) { p.Threads = 3 },
		"swap":      func(p *Profile, _ *Target) { p.Swap = StopFirst },
		"timeouts":  func(p *Profile, _ *Target) { p.Load, p.Engine.Timeout = 1, 1 },
		"workspace": func(p *Profile, _ *Target) { p.Engine.Workspace = nil },
	} {
		if got := changed(change); got != first {
			t.Errorf("%s: the results are other ones", name)
		}
	}
	for name, change := range map[string]func(*Profile, *Target){
		"provider":  func(p *Profile, _ *Target) { p.Provider = CUDA },
		"precision": func(p *Profile, _ *Target) { p.Precision = "int8" },
		"typing":    func(p *Profile, _ *Target) { p.Engine.Typing = Weak },
		"level":     func(p *Profile, _ *Target) { p.Engine.Level = 5 },
		"DLA":       func(p *Profile, _ *Target) { p.Engine.DLA = new(int) },
		"GPU":       func(_ *Profile, t *Target) { t.GPU = "L4" },
		"module":    func(_ *Profile, t *Target) { t.Module = "p3767-0003" }, // Jetsons have no name of a GPU
		"compute":   func(_ *Profile, t *Target) { t.Compute = "8.9" },
		"TensorRT":  func(_ *Profile, t *Target) { t.TensorRT = "10.4.0" },
		"CUDA":      func(_ *Profile, t *Target) { t.CUDA = "12.8" },
		"L4T":       func(_ *Profile, t *Target) { t.L4T = "36.5" },
	} {
		if got := changed(change); got == first {
			t.Errorf("%s: the results are the same", name)
		}
	}
}

func TestSession(t *testing.T) {
	digest := delivery.Sum([]byte("release"))
	cuda := map[string]string{"device_id": "0", "arena_extend_strategy": "kSameAsRequested",
		"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
	limited := find(t, "cuda-fp16")
	limited.Device, limited.GPUMemory = 2, 1<<30
	for _, c := range []struct {
		profile Profile
		want    []ProviderOptions
	}{
		{find(t, "cpu-fp32"), nil},
		{find(t, "cuda-fp32"), []ProviderOptions{{CUDAName, cuda}}},
		{limited, []ProviderOptions{{CUDAName, map[string]string{"device_id": "2",
			"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0",
			"gpu_mem_limit": "1073741824"}}}},
		{find(t, "orin-nano-fp16"), []ProviderOptions{{TensorRTName, map[string]string{"device_id": "0",
			"trt_engine_cache_enable": "0", "trt_engine_cache_path": "/cache/entry",
			"trt_engine_cache_prefix": digest.Hex()[:12]}}}},
	} {
		got := c.profile.Session(Engine{Release: digest}, "/cache/entry")
		if d := cmp.Diff(c.want, got.Providers); d != "" {
			t.Errorf("%s: %s", c.profile.Name, d)
		}
		for _, asked := range append(got.Providers, c.profile.Session(Engine{}, "").Providers...) {
			for key, value := range asked.Values {
				if value == "" {
					t.Errorf("%s: %s is empty, which ONNX Runtime refuses", c.profile.Name, key)
				}
			}
		}
		if got.Config["session.force_spinning_stop"] != "1" {
			t.Errorf("%s: %v", c.profile.Name, got.Config)
		}
	}
}

func TestEngine(t *testing.T) {
	base := Engine{Release: delivery.Sum([]byte("release")), Model: delivery.Sum([]byte("model")),
		Target:  Target{Module: "p3767-0003", Compute: "8.7", TensorRT: "10.3.0", CUDA: "12.6", L4T: "36.4.3"},
		Options: []string{"--stronglyTyped", "--builderOptimizationLevel=3"}}
	want := base.Release.Hex() + "/p3767-0003-sm87/trt-10.3.0/" + base.Key().Hex()[:12]
	if got := base.Folder(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	folders := map[string]string{base.Folder(): "the engine as it was"}
	for name, change := range map[string]func(*Engine){
		"the release":       func(e *Engine) { e.Release = delivery.Sum([]byte("other")) },
		"the weights":       func(e *Engine) { e.Model = delivery.Sum([]byte("other")) },
		"the module":        func(e *Engine) { e.Target.Module = "p3767-0005" },
		"the GPU":           func(e *Engine) { e.Target.GPU = "Orin" },
		"the capability":    func(e *Engine) { e.Target.Compute = "8.9" },
		"TensorRT":          func(e *Engine) { e.Target.TensorRT = "10.3.1" },
		"CUDA":              func(e *Engine) { e.Target.CUDA = "12.8" },
		"the system":        func(e *Engine) { e.Target.L4T = "36.5" },
		"the GPU's number":  func(e *Engine) { e.Device = 1 },
		"a builder option":  func(e *Engine) { e.Options = []string{"--fp16", "--builderOptimizationLevel=3"} },
		"a name with dots":  func(e *Engine) { e.Target.Module = "../.." },
		"a name with blank": func(e *Engine) { e.Target.Module, e.Target.GPU = "", "Tesla T4/8 é" },
	} {
		e := base
		change(&e)
		if other, taken := folders[e.Folder()]; taken {
			t.Errorf("%s has the folder of %s", name, other)
		}
		folders[e.Folder()] = name
		if parts := strings.Split(e.Folder(), "/"); len(parts) != 4 || slices.Contains(parts, "..") {
			t.Errorf("%s: %s", name, e.Folder())
		}
	}
	next := base
	next.Release, next.Model = "", ""
	if base.TimingCache() != next.TimingCache() {
		t.Error("another release has another timing cache")
	}
	next.Target.TensorRT = "10.4.0"
	if base.TimingCache() == next.TimingCache() {
		t.Error("another version of TensorRT has the same timing cache")
	}
}
