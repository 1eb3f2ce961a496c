package profile

import (
	"encoding/csv"
	"regexp"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Some facts are missing on each machine. A fact that cannot be read is "".

var (
	tegraPattern   = regexp.MustCompile(`^# R([0-9]{1,3}) \(release\), REVISION: ([0-9]{1,3}(?:\.[0-9]{1,3}){0,2})`)
	modulePattern  = regexp.MustCompile(`^p[0-9]{4}-[0-9]{4}`)
	capablePattern = regexp.MustCompile(`^[1-9][0-9]?\.[0-9]$`)
	versionPattern = regexp.MustCompile(`"cuda"\s*:\s*\{[^{}]*"version"\s*:\s*"([0-9]{1,3}\.[0-9]{1,3})[0-9.]*"`)
)

// ParseTegra returns the version of a Jetson's system, such as 36.4.3, from /etc/nv_tegra_release.
func ParseTegra(data []byte) string {
	first, _, _ := strings.Cut(string(data), "\n")
	if m := tegraPattern.FindStringSubmatch(first); m != nil {
		return m[1] + "." + m[2]
	}
	return ""
}

// computeOf has the compute capability of Jetson's processors, whose GPUs nvidia-smi does not describe.
var computeOf = map[string]string{"nvidia,tegra234": "8.7", "nvidia,tegra264": "11.0"}

// ParseModule returns the module and the compute capability of a Jetson from /proc/device-tree/compatible, a list of
// texts that end with a NUL.
func ParseModule(data []byte) (module, compute string) {
	carried := false // the module was named with the board that carries it, as in nvidia,p3768-0000+p3767-0003
	for text := range strings.SplitSeq(string(data), "\x00") {
		name, ok := strings.CutPrefix(text, "nvidia,")
		if c, known := computeOf[text]; known {
			compute = c
		}
		plus := strings.LastIndexByte(name, '+')
		if m := modulePattern.FindString(name[plus+1:]); ok && m != "" && !carried {
			module, carried = m, plus >= 0
		}
	}
	return module, compute
}

// SMIArgs are the arguments of nvidia-smi whose output ParseSMI reads, without the number of the GPU.
var SMIArgs = []string{"--query-gpu=name,compute_cap", "--format=csv,noheader"}

// ParseSMI returns name and compute capability of a GPU from the output of nvidia-smi.
func ParseSMI(output []byte) (name, compute string) {
	r := csv.NewReader(strings.NewReader(string(output)))
	r.TrimLeadingSpace = true
	fields, err := r.Read()
	if err != nil || len(fields) != 2 {
		return "", ""
	}
	if c := strings.TrimSpace(fields[1]); capablePattern.MatchString(c) {
		compute = c
	}
	return delivery.PlainText(strings.TrimSpace(fields[0]), 80), compute
}

// ParseCUDA returns the version of CUDA, such as 12.6, from version.json of its toolkit.
func ParseCUDA(data []byte) string {
	if m := versionPattern.FindSubmatch(data); m != nil {
		return string(m[1])
	}
	return ""
}
