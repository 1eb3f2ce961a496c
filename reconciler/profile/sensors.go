package profile

import (
	"bufio"
	"encoding/csv"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// ParseProcessor returns the name of the first processor from /proc/cpuinfo.
func ParseProcessor(data []byte) string {
	lines := bufio.NewScanner(strings.NewReader(string(data)))
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if key = strings.TrimSpace(key); key == "model name" || key == "Model" {
			return delivery.PlainText(strings.TrimSpace(value), 100)
		}
	}
	return ""
}

var powerModePattern = regexp.MustCompile(`\bpmode:([0-9]{1,4})\b`)

// ParsePowerMode returns the number of a Jetson's power mode from /var/lib/nvpmodel/status, as in pmode:0002.
func ParsePowerMode(data []byte) string {
	if m := powerModePattern.FindSubmatch(data); m != nil {
		n, _ := strconv.Atoi(string(m[1])) // digits
		return strconv.Itoa(n)
	}
	return ""
}

// A GPUReading is what nvidia-smi says of a GPU at one moment. A number that it does not tell is NaN.
type GPUReading struct {
	Watts, Temperature, Clock float64
	Slowed                    []string // why its clock is lower than it could be, but for being idle or set so
}

// WatchArgs are the arguments of nvidia-smi whose lines ParseGPUReading reads, without the number of the GPU.
var WatchArgs = []string{"--query-gpu=power.draw,temperature.gpu,clocks.sm,clocks_throttle_reasons.active",
	"--format=csv,noheader,nounits"}

// slowReasons are the bits of NVML's clock event reasons that mean that the GPU is slower than it was asked to be.
var slowReasons = []struct {
	bit  uint64
	name string
}{
	{0x04, "GPU: power cap"}, {0x08, "GPU: hardware slowdown"}, {0x20, "GPU: too hot"},
	{0x40, "GPU: too hot (hardware)"}, {0x80, "GPU: power brake"},
}

// ParseGPUReading reads a line that nvidia-smi prints; ok is false for any other line.
func ParseGPUReading(line string) (r GPUReading, ok bool) {
	c := csv.NewReader(strings.NewReader(line))
	c.TrimLeadingSpace = true
	fields, err := c.Read()
	if err != nil || len(fields) != 4 {
		return r, false
	}
	number := func(text string) float64 {
		v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil || !(v >= 0 && v < 1e6) {
			return math.NaN()
		}
		return v
	}
	r = GPUReading{Watts: number(fields[0]), Temperature: number(fields[1]), Clock: number(fields[2])}
	bits, err := strconv.ParseUint(strings.TrimPrefix(strings.TrimSpace(fields[3]), "0x"), 16, 64)
	if err != nil {
		bits = 0 // [N/A]
	}
	for _, s := range slowReasons {
		if bits&s.bit != 0 {
			r.Slowed = append(r.Slowed, s.name)
		}
	}
	return r, true
}

// MemoryArgs are the arguments of nvidia-smi whose output ParseGPUMemory reads, without the number of the GPU.
var MemoryArgs = []string{"--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"}

// ParseGPUMemory returns how much memory of the GPU a process has, in bytes; 0 if it is not listed.
func ParseGPUMemory(output []byte, pid int) int64 {
	for line := range strings.Lines(string(output)) {
		who, used, _ := strings.Cut(strings.TrimSpace(line), ",")
		n, err := strconv.ParseInt(strings.TrimSpace(used), 10, 64)
		if strings.TrimSpace(who) == strconv.Itoa(pid) && err == nil && n > 0 && n < 1<<30 {
			return n << 20
		}
	}
	return 0
}
