package profile

import (
	"path"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Target is what an engine is bound to besides its model: the machine and its software.
type Target struct {
	Module   string `json:"module,omitempty"` // of a Jetson, such as p3767-0003
	GPU      string `json:"gpu,omitempty"`    // name, such as Tesla T4
	Compute  string `json:"compute"`          // compute capability, such as 8.7
	TensorRT string `json:"tensorrt"`         // version, such as 10.3.0
	CUDA     string `json:"cuda,omitempty"`   // version, such as 12.6
	L4T      string `json:"l4t,omitempty"`    // version of a Jetson's system, such as 36.4.3
}

// Software is the part of a target that an update changes.
func (t Target) Software() string {
	return strings.Join([]string{"tensorrt " + t.TensorRT, "cuda " + t.CUDA, "l4t " + t.L4T}, ", ")
}

// An Engine names a TensorRT engine by all that it is built of.
type Engine struct {
	Release delivery.Digest `json:"release"` // of the bundle's files
	Model   delivery.Digest `json:"model"`   // of model.onnx, weights included
	Target  Target          `json:"target"`
	Device  int             `json:"device"`
	Options []string        `json:"options"` // of the builder, as trtexec gets them, without paths and memory
}

// Key is the digest of all that an engine is built of.
func (e Engine) Key() delivery.Digest { return delivery.DigestOf("tensorrt/1", e) }

// Folder returns the engine's folder in a cache: release, GPU, version of TensorRT and key. Two releases never share
// one, even if their graphs are equal.
func (e Engine) Folder() string {
	gpu := e.Target.Module
	if gpu == "" {
		gpu = e.Target.GPU
	}
	gpu += "-sm" + strings.ReplaceAll(e.Target.Compute, ".", "")
	return path.Join(e.Release.Hex(), segment(gpu), segment("trt-"+e.Target.TensorRT), e.Key().Hex()[:12])
}

// TimingCache returns the file with the measured times of tactics. It is kept from one release to the next, and bound
// to the GPU and its software.
func (e Engine) TimingCache() string {
	return "timing-" + delivery.DigestOf("timing/1", e.Target).Hex()[:12] + ".bin"
}

// Prefix is the start of file names that belong to the engine's release.
func (e Engine) Prefix() string {
	if e.Release == "" {
		return ""
	}
	return e.Release.Hex()[:12]
}

// segment returns text as a name in a path.
func segment(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '-', r == '_':
			return r
		}
		return '-'
	}, delivery.Cut(text, 80))
}

// ReleaseOf returns the digest that stands for a bundle's content: the digests of its files by name.
func ReleaseOf(files map[string]delivery.Digest) delivery.Digest {
	return delivery.DigestOf("release", files)
}
