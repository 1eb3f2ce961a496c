package profile

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/delivery"
)

func TestOptions(t *testing.T) {
	weak := find(t, "t4-fp16")
	builder := *weak.Engine
	builder.Typing = Weak
	weak.Engine = &builder
	full := weak
	full.Precision = "fp32"
	dla := find(t, "orin-agx-int8")
	onDLA, one := *dla.Engine, 1
	onDLA.DLA, onDLA.Level = &one, 5
	dla.Engine = &onDLA
	for _, c := range []struct {
		name    string
		profile Profile
		version string
		want    string // options, or part of the error
		note    string
	}{
		{"strong", find(t, "orin-nano-fp16"), "10.3.0", "--stronglyTyped --builderOptimizationLevel=3", ""},
		{"strong from 11 on", find(t, "thor-fp16"), "11.1.0", "--builderOptimizationLevel=3", ""},
		{"weak", weak, "10.16.0", "--fp16 --builderOptimizationLevel=3", ""},
		{"weak in full precision", full, "10.16.0", "--noTF32 --builderOptimizationLevel=3", ""},
		{"weak from 11 on", weak, "11.0.0", "which TensorRT 11.0.0 does not have any more; set typing: strong", ""},
		{"too old", find(t, "t4-fp16"), "8.5.2", "TensorRT 8.5.2 is too old; install TensorRT 10", ""},
		{"a DLA", dla, "10.7.0",
			"--stronglyTyped --builderOptimizationLevel=5 --useDLACore=1 --allowGPUFallback", ""},
		{"a DLA that 10.8 does not have", dla, "10.8.0", "--stronglyTyped --builderOptimizationLevel=5",
			"TensorRT 10.8.0 has no DLA, so the GPU computes all"},
		{"a DLA that 11.0 does not have", dla, "11.0.0", "--builderOptimizationLevel=5", "no DLA"},
		{"a DLA of 11.4", dla, "11.4.1", "--builderOptimizationLevel=5 --useDLACore=1 --allowGPUFallback", ""},
		{"no version", dla, "", "the version of TensorRT is", ""},
		{"no engine", find(t, "cpu-fp32"), "10.3.0", "which has no engines", ""},
	} {
		options, note, err := c.profile.Options(c.version)
		got := strings.Join(options, " ")
		if err != nil {
			got = err.Error()
		}
		if (err == nil && got != c.want) || !strings.Contains(got, c.want) || !strings.Contains(note, c.note) ||
			c.note == "" && note != "" {
			t.Errorf("%s: got %q and %q, want %q and %q", c.name, got, note, c.want, c.note)
		}
	}
}

func TestBuildArgs(t *testing.T) {
	b := Build{Model: "/b/model.onnx", Engine: "/c/engine.plan", TimingCache: "/c/t.bin", Input: "input",
		Shape: []int64{1, 3, 384, 512}, Workspace: 512 << 20, Options: []string{"--stronglyTyped"}}
	want := []string{"--onnx=/b/model.onnx", "--saveEngine=/c/engine.plan", "--stronglyTyped",
		"--memPoolSize=workspace:512", "--timingCacheFile=/c/t.bin", "--device=1", "--skipInference"}
	got, err := b.Args(1, 8)
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("a closed batch: %q, %v", got, err)
	}
	b.Shape[0] = -1
	want = append(want, "--minShapes=input:1x3x384x512", "--optShapes=input:1x3x384x512",
		"--maxShapes=input:8x3x384x512")
	if got, err = b.Args(1, 8); err != nil || !cmp.Equal(got, want) {
		t.Errorf("an open batch: %q, %v", got, err)
	}
	b.Shape[2] = -1
	if _, err = b.Args(0, 1); err == nil || !strings.Contains(err.Error(), "only the batch may be open") {
		t.Error(err)
	}
	b.Shape[2], b.Input = 384, "a:1x1,b"
	if _, err = b.Args(0, 1); err == nil || !strings.Contains(err.Error(), "cannot name the input") {
		t.Error(err)
	}
}

const passes = `&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=m.onnx
[11/30/2026-07:00:01] [I] TensorRT version: 10.3.0
[11/30/2026-07:00:01] [W] [TRT] a warning: out of memory may follow
[11/30/2026-07:08:22] [I] Engine built in 480.55 sec.
[11/30/2026-07:08:33] [I] === Performance summary ===
[11/30/2026-07:08:33] [I] Throughput: 181.206 qps
[11/30/2026-07:08:33] [I] Latency: min = 5.4 ms, max = 6.25 ms, mean = 5.51 ms, median = 5.5 ms, ` +
	`percentile(90%) = 5.6 ms, percentile(95%) = 5.7 ms, percentile(99%) = 6 ms
[11/30/2026-07:08:33] [I] Enqueue Time: min = 1 ms, max = 2 ms, mean = 1 ms, median = 1 ms
&&&& PASSED TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=m.onnx
`

func TestParseLog(t *testing.T) {
	for _, c := range []struct {
		name, output string
		want         Log
	}{
		{"nothing", "", Log{}},
		{"help", "&&&& RUNNING TensorRT.trtexec [TensorRT v101301] [b43] # trtexec --help\n=== Model Options ===\n",
			Log{Version: "10.13.1"}},
		{"an old version", "&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # trtexec", Log{Version: "8.5.2"}},
		{"a file named as a banner", "[I] &&&& PASSED TensorRT.trtexec [TensorRT v100300]", Log{}},
		{"passed, then failed", "&&&& PASSED TensorRT.trtexec\n&&&& FAILED TensorRT.trtexec\n", Log{}},
		{"all", strings.ReplaceAll(passes, "[W] [TRT] a warning: out of memory may follow", "[W] [TRT] a warning"),
			Log{Version: "10.3.0", Passed: true, Seconds: 480.55}},
		{"no implementation", "[11/30/2026-07:00:01] [E] Error[10]: Error Code: 10: Internal Error (Could not find " +
			"any implementation for node {ForeignNode[/conv]}.)\n&&&& FAILED TensorRT.trtexec [TensorRT v100300]\n",
			Log{Version: "10.3.0", Memory: true, Errors: []string{"Error[10]: Error Code: 10: Internal Error (Could " +
				"not find any implementation for node {ForeignNode[/conv]}.)"}}},
		{"out of memory", "[11/30/2026-07:00:01] [E] [TRT] Requested amount of GPU memory (1073741824 bytes) could " +
			"not be allocated.\n", Log{Memory: true, Errors: []string{"Requested amount of GPU memory (1073741824 " +
			"bytes) could not be allocated."}}},
		{"C++ ends it", "terminate called after throwing an instance of 'std::bad_alloc'\n", Log{Memory: true,
			Errors: []string{"terminate called after throwing an instance of 'std::bad_alloc'"}}},
		{"another error", "[11/30/2026-07:00:01] [E] Unknown option: --fp17 \n",
			Log{Errors: []string{"Unknown option: --fp17"}}},
		{"a wrong number", "[I] Engine built in x sec.",
			Log{}},
	} {
		if d := cmp.Diff(c.want, ParseLog([]byte(c.output))); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
	if l := ParseLog([]byte(passes)); !l.Memory || l.Errors != nil {
		t.Errorf("a warning about memory: %+v", l)
	}
}

func FuzzParseLog(f *testing.F) {
	f.Add([]byte(passes))
	f.Add([]byte("[E] [TRT] out of memory\n&&&& FAILED TensorRT.trtexec [TensorRT v110100]"))
	f.Fuzz(func(t *testing.T, output []byte) {
		l := ParseLog(output)
		if len(l.Errors) > maxErrors || l.Seconds < 0 {
			t.Errorf("%+v", l)
		}
		for _, e := range l.Errors {
			if len(e) > maxErrorText || strings.ContainsAny(e, "\n\x1b") {
				t.Errorf("%q", e)
			}
		}
		if _, err := delivery.EncodeJSON(l); err != nil {
			t.Error(err)
		}
	})
}

func TestHardware(t *testing.T) {
	for text, want := range map[string]string{
		"# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n# more\n": "36.4.3",
		"# R39 (release), REVISION: 2, GCID: 1":                                                   "39.2",
		"# R36":                                                                                   "", "": "",
	} {
		if got := ParseTegra([]byte(text)); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
	for text, want := range map[string][2]string{
		"nvidia,p3768-0000+p3767-0003\x00nvidia,p3767-0003\x00nvidia,tegra234\x00": {"p3767-0003", "8.7"},
		"nvidia,p3768-0000+p3767-0005-super\x00nvidia,tegra234\x00":                {"p3767-0005", "8.7"},
		"nvidia,p3701-0004\x00nvidia,tegra234\x00":                                 {"p3701-0004", "8.7"},
		"nvidia,p4071-0000+p3834-0008\x00nvidia,tegra264\x00":                      {"p3834-0008", "11.0"},
		"raspberrypi,4-model-b\x00brcm,bcm2711\x00":                                {},
		"": {},
	} {
		if module, compute := ParseModule([]byte(text)); module != want[0] || compute != want[1] {
			t.Errorf("%q: %s, %s", text, module, compute)
		}
	}
	for text, want := range map[string][2]string{
		"Tesla T4, 7.5\n":           {"Tesla T4", "7.5"},
		"NVIDIA H200, 9.0":          {"NVIDIA H200", "9.0"},
		"Orin (nvgpu), [N/A]\n":     {"Orin (nvgpu)", ""},
		"NVIDIA-SMI has failed\n":   {},
		"a \x1b[31mname, 8.9\nmore": {"a  [31mname", "8.9"},
		"":                          {},
	} {
		name, compute := ParseSMI([]byte(text))
		hostile := strings.Contains(text, "\x1b")
		if strings.Contains(name, "\x1b") || compute != want[1] || !hostile && name != want[0] {
			t.Errorf("%q: %q, %q", text, name, compute)
		}
	}
	for text, want := range map[string]string{
		`{"cuda": {"name": "CUDA SDK", "version": "12.6.11"}, "cuda_cudart": {"version": "12.6.68"}}`: "12.6",
		`{"cuda_cudart": {"version": "12.6.68"}}`:                                                     "",
		``: "",
	} {
		if got := ParseCUDA([]byte(text)); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func FuzzHardware(f *testing.F) {
	f.Add([]byte("nvidia,p3768-0000+p3767-0003\x00nvidia,tegra234"))
	f.Add([]byte("Tesla T4, 7.5"))
	f.Fuzz(func(t *testing.T, data []byte) {
		ParseTegra(data)
		ParseCUDA(data)
		ParseModule(data)
		if name, _ := ParseSMI(data); len(name) > 80 {
			t.Errorf("%q", name)
		}
	})
}
