package profile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// The execution providers of ONNX Runtime that a profile can name.
const (
	CPU      = "cpu"
	CUDA     = "cuda"
	TensorRT = "tensorrt"
)

// How a server changes to another model.
const (
	// Overlap loads the new model beside the old one, so that no request waits.
	Overlap = "overlap"
	// StopFirst stops the old model first, because memory holds only one.
	StopFirst = "stop-first"
)

// The variants of a model that a profile can take.
var precisions = []string{"fp32", "fp16", "int8"}

// A Profile says how a machine runs a model.
type Profile struct {
	Name      string         `json:"name"`
	For       string         `json:"for"`      // the machines, for people
	Provider  string         `json:"provider"` // cpu, cuda or tensorrt
	Precision string         `json:"precision"`
	Threads   int            `json:"threads"`             // of the CPU; 0: one for each core
	Memory    delivery.Bytes `json:"memory,omitempty"`    // limit of the process's private memory; 0: none
	Swap      string         `json:"swap"`                // overlap or stop-first
	Load      Timeout        `json:"load"`                // for loading a model, without building an engine
	Device    int            `json:"device,omitempty"`    // number of the GPU
	GPUMemory delivery.Bytes `json:"gpuMemory,omitempty"` // limit of CUDA's arena; 0: none
	Compute   string         `json:"compute,omitempty"`   // compute capability that the GPU must have; "": any
	Engine    *Builder       `json:"engine,omitempty"`    // nil without TensorRT
}

// A Timeout is a time limit.
type Timeout = delivery.Duration

// A Builder says how a TensorRT engine is built.
type Builder struct {
	// Workspace has the limits of the memory for tactics. The build begins with the first, and takes the next one where
	// the machine has too little memory.
	Workspace []delivery.Bytes `json:"workspace"`
	Level     int              `json:"level"`  // of optimisation, 0 to 5
	Typing    string           `json:"typing"` // strong: by the types of the model; weak: see Weak
	Batch     int              `json:"batch"`  // largest batch, for models that leave it open
	DLA       *int             `json:"dla,omitempty"`
	Timeout   Timeout          `json:"timeout"`          // of one build
	Memory    delivery.Bytes   `json:"memory,omitempty"` // that must be available before a build
}

// How TensorRT chooses the number formats of an engine.
const (
	// Strong takes the types that the model's tensors have. All versions from 10 on can do it.
	Strong = "strong"
	// Weak takes a model in FP32 and lets TensorRT round it to the profile's precision where that is faster. Only
	// TensorRT 10 can do it, and models may lose much of their quality.
	Weak = "weak"
)

const minute = Timeout(time.Minute)

// builtinTimeout limits one build on a small machine.
const builtinTimeout = 45 * minute

// Builtin returns AOB's profiles in the order of the documentation.
func Builtin() []Profile {
	cpu := func(name, precision string) Profile {
		return Profile{Name: name, For: "any computer", Provider: CPU, Precision: precision, Memory: 4 << 30,
			Swap: Overlap, Load: 5 * minute}
	}
	cuda := func(name, precision string) Profile {
		return Profile{Name: name, For: "any NVIDIA GPU", Provider: CUDA, Precision: precision, Swap: Overlap,
			Load: 5 * minute}
	}
	jetson := func(name, machine, precision, compute, swap string, threads int, workspace ...delivery.Bytes) Profile {
		return Profile{Name: name, For: machine, Provider: TensorRT, Precision: precision, Threads: threads, Swap: swap,
			Load: 5 * minute, Compute: compute, Engine: &Builder{Workspace: workspace, Level: 3,
				Typing: Strong, Batch: 1, Timeout: builtinTimeout, Memory: workspace[len(workspace)-1] + 1<<30}}
	}
	server := func(name, machine, precision, compute string) Profile {
		p := jetson(name, machine, precision, compute, Overlap, 0, 4<<30, 2<<30, 1<<30)
		p.Engine.Batch, p.Engine.Timeout = 8, 30*minute
		return p
	}
	const mib = delivery.Bytes(1 << 20)
	return []Profile{
		cpu("cpu-fp32", "fp32"),
		cpu("cpu-int8", "int8"),
		cuda("cuda-fp32", "fp32"),
		cuda("cuda-fp16", "fp16"),
		jetson("orin-nano-fp16", "Jetson Orin Nano", "fp16", "8.7", StopFirst, 2, 1024*mib, 512*mib, 256*mib),
		jetson("orin-nano-int8", "Jetson Orin Nano", "int8", "8.7", StopFirst, 2, 1024*mib, 512*mib, 256*mib),
		jetson("orin-nx-fp16", "Jetson Orin NX", "fp16", "8.7", Overlap, 2, 1024*mib, 512*mib, 256*mib),
		jetson("orin-agx-fp16", "Jetson AGX Orin", "fp16", "8.7", Overlap, 4, 2048*mib, 1024*mib, 512*mib),
		jetson("orin-agx-int8", "Jetson AGX Orin", "int8", "8.7", Overlap, 4, 2048*mib, 1024*mib, 512*mib),
		jetson("thor-fp16", "Jetson Thor", "fp16", "11.0", Overlap, 4, 4096*mib, 2048*mib, 1024*mib),
		server("t4-fp16", "NVIDIA T4", "fp16", "7.5"),
		server("t4-int8", "NVIDIA T4", "int8", "7.5"),
		server("l4-fp16", "NVIDIA L4", "fp16", "8.9"),
		server("a10g-fp16", "NVIDIA A10G", "fp16", "8.6"),
	}
}

// Default is the profile that is used where none is named.
func Default() Profile { return Builtin()[0] }

// Names returns the names of profiles.
func Names(list []Profile) []string {
	return delivery.Each(list, func(p Profile) string { return p.Name })
}

// Find returns the profile with a name; Default for "".
func Find(list []Profile, name string) (Profile, error) {
	if name == "" {
		return Default(), nil
	}
	i := slices.IndexFunc(list, func(p Profile) bool { return p.Name == name })
	if i < 0 {
		return Profile{}, delivery.Blockedf("take one of these, or add it with --profiles FILE: "+
			strings.Join(Names(list), ", "), "there is no hardware profile %.100q", name)
	}
	return list[i], nil
}

// Ladder returns the sizes of the builder's workspace for people; - without TensorRT.
func (p Profile) Ladder() string {
	if p.Engine == nil {
		return "-"
	}
	return strings.Join(delivery.Each(p.Engine.Workspace, delivery.Bytes.String), ", ")
}

// fault returns what is wrong with a profile, and at which key; "" if nothing is.
func (p Profile) fault() (key, why string) {
	b := p.Engine
	switch {
	case p.Provider == TensorRT && b == nil:
		return "tensorrt", "missing: a profile with provider tensorrt needs it, as in {workspace: [1GiB, 512MiB]}"
	case p.Provider != TensorRT && b != nil:
		return "tensorrt", "is for provider tensorrt, and this profile has " + p.Provider
	case p.Provider == CPU && p.Device != 0:
		return "device", "is for GPUs, and this profile has provider cpu"
	case p.Provider == CPU && p.Compute != "":
		return "compute", "is for GPUs, and this profile has provider cpu"
	case p.Provider != CUDA && p.GPUMemory != 0:
		return "gpuMemory", "is for provider cuda, and this profile has " + p.Provider
	case p.Provider != CPU && p.Memory != 0:
		return "memory", "a GPU's driver takes address space far beyond this limit; limit the service instead, with " +
			"MemoryMax= of systemd"
	case b == nil:
		return "", ""
	case !falls(b.Workspace):
		return "tensorrt.workspace", "want sizes from large to small: each is tried where memory is too small for " +
			"the one before"
	case b.Typing == Weak && p.Precision == "int8":
		return "tensorrt.typing", "want strong: TensorRT would round to int8 without having measured the model"
	case b.DLA != nil && p.Precision == "fp32":
		return "tensorrt.dla", "a DLA computes in fp16 and int8, and this profile has precision fp32"
	}
	return "", ""
}

// falls reports whether each size is smaller than the one before it.
func falls(sizes []delivery.Bytes) bool {
	for i := 1; i < len(sizes); i++ {
		if sizes[i] >= sizes[i-1] {
			return false
		}
	}
	return true
}

// Result names what computes, for the key of evaluation results: cpu, or provider, precision and all that may change a
// number. Settings that change only time and memory are left out, so that changing them keeps the results. target is
// the machine; the CPU needs none.
func (p Profile) Result(target Target) string {
	if p.Provider == CPU {
		return CPU
	}
	parts := []string{p.Provider, p.Precision, target.Module, target.GPU, target.Compute, target.CUDA}
	if b := p.Engine; b != nil {
		parts = append(parts, target.TensorRT, target.L4T, b.Typing, fmt.Sprint("level ", b.Level), dlaName(b.DLA))
	}
	return p.Provider + "/" + delivery.DigestOf("provider", parts).Short()
}

func dlaName(core *int) string {
	if core == nil {
		return ""
	}
	return fmt.Sprint("dla ", *core)
}
