package profile

import (
	"strconv"
)

// A Session is what ONNX Runtime gets to load a model.
type Session struct {
	// Providers are asked in this order for the parts of a model; what none of them takes runs on the CPU.
	Providers []ProviderOptions
	// Config has the session's own entries.
	Config map[string]string
}

// ProviderOptions are an execution provider and its options. ONNX Runtime documents them.
type ProviderOptions struct {
	Name   string // CUDAExecutionProvider or TensorrtExecutionProvider
	Values map[string]string
}

// The names of execution providers in ONNX Runtime.
const (
	CPUName      = "CPUExecutionProvider"
	CUDAName     = "CUDAExecutionProvider"
	TensorRTName = "TensorrtExecutionProvider"
)

// Session returns the options of ONNX Runtime. engine and folder are of a TensorRT engine, and empty otherwise.
//
// ONNX Runtime can build and cache engines itself. Its cache is keyed by the graph and not by the weights: a model that
// was trained again has the same key, and would get the engine of the old weights. So that cache is switched off, and
// an engine gets to ONNX Runtime as bytes, with the digest of the model that it was built of. Should something switch
// the cache on, its path and prefix are those of this one engine.
func (p Profile) Session(engine Engine, folder string) Session {
	s := Session{Config: map[string]string{
		// Between two operators of a run its threads wait without sleeping: to wake one up takes longer than many an
		// operator. Once no run is in progress they sleep, and leave the CPU to other processes.
		"session.intra_op.allow_spinning": "1",
		"session.force_spinning_stop":     "1",
	}}
	cuda := ProviderOptions{CUDAName, map[string]string{
		"device_id":             strconv.Itoa(p.Device),
		"arena_extend_strategy": "kSameAsRequested", // grow by what is needed, and not to the next power of two
		// The fastest algorithm is found by measuring, which may give another one, and other numbers, at each start.
		"cudnn_conv_algo_search": "HEURISTIC",
		"use_tf32":               "0", // FP32 means 23 bits, as on the CPU
	}}
	if p.GPUMemory > 0 {
		cuda.Values["gpu_mem_limit"] = strconv.FormatInt(int64(p.GPUMemory), 10)
	}
	switch p.Provider {
	case CUDA:
		s.Providers = []ProviderOptions{cuda}
	case TensorRT:
		trt := ProviderOptions{TensorRTName, map[string]string{
			"device_id":               strconv.Itoa(p.Device),
			"trt_engine_cache_enable": "0",
		}}
		if folder != "" { // ONNX Runtime refuses empty values
			trt.Values["trt_engine_cache_path"], trt.Values["trt_engine_cache_prefix"] = folder, engine.Prefix()
		}
		s.Providers = []ProviderOptions{trt}
	}
	return s
}
