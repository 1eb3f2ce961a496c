package engine

import (
	"bufio"
	"context"
	"math"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/profile"
)

// This file reads a machine's settings and sensors while a bench runs.

// Describe returns the machine and its settings, as far as it tells them. gpu is the number of the GPU that computes;
// below 0 none does.
func (m Machine) Describe(ctx context.Context, gpu int) delivery.BenchMachine {
	d := delivery.BenchMachine{Cores: runtime.NumCPU(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Processor: profile.ParseProcessor(m.read("proc/cpuinfo")),
		Kernel:    m.text("proc/sys/kernel/osrelease"),
		PowerMode: profile.ParsePowerMode(m.read("var/lib/nvpmodel/status")),
		Governor:  m.text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")}
	d.Memory, _ = m.kilobytes("proc/meminfo", "MemTotal:")
	if gpu < 0 {
		d.Module, _ = profile.ParseModule(m.read("proc/device-tree/compatible"))
		d.L4T = profile.ParseTegra(m.read("etc/nv_tegra_release"))
		return d
	}
	t := m.Target(ctx, gpu)
	d.Module, d.GPU, d.Compute, d.CUDA, d.L4T = t.Module, t.GPU, t.Compute, t.CUDA, t.L4T
	return d
}

// text returns a short file as text.
func (m Machine) text(path string) string {
	return delivery.PlainText(strings.TrimSpace(string(m.read(path))), 100)
}

// PeakMemory returns the largest resident memory that a process had, in bytes; 0 if the machine does not tell.
func (m Machine) PeakMemory(pid int) int64 {
	n, _ := m.kilobytes(filepath.Join("proc", strconv.Itoa(pid), "status"), "VmHWM:")
	return n
}

// GPUMemory returns how much memory of the GPU a process has, in bytes; 0 if nvidia-smi does not tell.
func (m Machine) GPUMemory(ctx context.Context, gpu, pid int) int64 {
	smi := m.SMI
	if smi == nil {
		smi = runSMI
	}
	out, err := smi(ctx, append([]string{"--id=" + strconv.Itoa(gpu)}, profile.MemoryArgs...)...)
	if err != nil {
		return 0
	}
	return profile.ParseGPUMemory(out, pid)
}

// number returns a file's number; NaN if it has none.
func (m Machine) number(path string) float64 {
	v, err := strconv.ParseFloat(m.text(path), 64)
	if err != nil || math.IsInf(v, 0) {
		return math.NaN()
	}
	return v
}

// glob returns the paths that match, as read takes them.
func (m Machine) glob(pattern string) []string {
	root := filepath.Join("/", m.Root)
	list, _ := filepath.Glob(filepath.Join(root, pattern)) // the pattern is correct
	return delivery.Each(list, func(path string) string { return strings.TrimPrefix(path, root) })
}

// A sensor gives watts, or joules that only grow.
type sensor struct {
	name    string
	watts   func() float64 // nil for a counter
	counter func() float64 // of joules
	wrap    float64        // the counter's largest value, in joules; after it, 0 comes
}

// sensors returns those whose energy counts: a Jetson's input where there is one, else the processors' packages.
func (m Machine) sensors() []sensor {
	for _, folder := range append(m.glob("sys/bus/i2c/devices/*/hwmon/hwmon*"), m.glob("sys/class/hwmon/hwmon*")...) {
		for channel := 1; channel <= 8; channel++ {
			file := func(kind, what string) string {
				return filepath.Join(folder, kind+strconv.Itoa(channel)+"_"+what)
			}
			if label := m.text(file("in", "label")); label != "VDD_IN" && label != "VIN_SYS_5V0" {
				continue
			}
			return []sensor{{name: m.text(file("in", "label")), watts: func() float64 { // millivolts and milliamperes
				return m.number(file("in", "input")) / 1e3 * m.number(file("curr", "input")) / 1e3
			}}}
		}
	}
	var list []sensor
	for _, folder := range m.glob("sys/class/powercap/intel-rapl:*") {
		if strings.Count(filepath.Base(folder), ":") != 1 { // a part of a package
			continue
		}
		counter := func() float64 { return m.number(filepath.Join(folder, "energy_uj")) / 1e6 }
		if !math.IsNaN(counter()) { // most systems let only root read it
			list = append(list, sensor{name: "RAPL " + m.text(filepath.Join(folder, "name")), counter: counter,
				wrap: m.number(filepath.Join(folder, "max_energy_range_uj")) / 1e6})
		}
	}
	return list
}

// A Watch reads a machine's sensors while a bench runs. Begin and End enclose the time whose energy counts.
type Watch struct {
	m        Machine
	sensors  []sensor
	zones    []string // files of temperatures
	clock    string   // file of a frequency in Hz or kHz
	perMHz   float64  // its unit
	alarms   []string // files that are 1 while the machine is slowed down
	counters []string // files that count how often it was
	before   []float64
	smi      *exec.Cmd
	stop     chan struct{}
	ended    sync.WaitGroup

	mu          sync.Mutex
	counting    bool
	at          time.Time
	last        []float64 // of each sensor
	joules      float64
	seconds     float64
	known       bool // whether each reading of energy gave a number
	temperature *delivery.BenchRange
	frequency   *delivery.BenchRange
	slowed      []string
	gpu         profile.GPUReading // the last one
	gpuKnown    bool
}

const watchEvery = 100 * time.Millisecond

// Watch begins to read the sensors. gpu is the number of the GPU that computes; below 0 none does.
func (m Machine) Watch(ctx context.Context, gpu int) *Watch {
	w := &Watch{m: m, stop: make(chan struct{}), known: true, sensors: m.sensors(),
		zones:    m.glob("sys/class/thermal/thermal_zone*/temp"),
		alarms:   m.glob("sys/bus/i2c/devices/*/hwmon/hwmon*/curr*_crit_alarm"),
		counters: m.glob("sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"),
		clock:    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", perMHz: 1e3}
	w.before = delivery.Each(w.counters, m.number)
	if gpu >= 0 {
		for _, folder := range m.glob("sys/class/devfreq/*") {
			if strings.Contains(m.text(filepath.Join(folder, "device/of_node/name")), "gpu") {
				w.clock, w.perMHz = filepath.Join(folder, "cur_freq"), 1e6
			}
		}
		w.watchGPU(ctx, gpu)
	}
	w.ended.Go(func() {
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			select {
			case <-w.stop:
				return
			case <-tick.C:
				w.read()
			}
		}
	})
	return w
}

// watchGPU lets nvidia-smi print its readings, if there is one.
func (w *Watch) watchGPU(ctx context.Context, gpu int) {
	path, err := find("nvidia-smi", "/usr/bin/nvidia-smi", "/usr/local/nvidia/bin/nvidia-smi")
	if err != nil || w.m.Root != "" {
		return
	}
	cmd := exec.CommandContext(ctx, path, append([]string{"--id=" + strconv.Itoa(gpu),
		"--loop-ms=" + strconv.FormatInt(watchEvery.Milliseconds(), 10)}, profile.WatchArgs...)...)
	// It ends when nobody reads what it prints.
	out, err := cmd.StdoutPipe()
	if err != nil || cmd.Start() != nil {
		return
	}
	w.smi = cmd
	w.ended.Go(func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if r, ok := profile.ParseGPUReading(lines.Text()); ok {
				w.mu.Lock()
				w.gpu, w.gpuKnown = r, true
				w.mu.Unlock()
			}
		}
	})
}

// Begin starts to count energy, and End ends it.
func (w *Watch) Begin() { w.count(true) }

// End ends what Begin started.
func (w *Watch) End() { w.count(false) }

func (w *Watch) count(on bool) {
	w.read()
	w.mu.Lock()
	w.counting = on
	w.mu.Unlock()
}

// read reads all sensors once.
func (w *Watch) read() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	elapsed := now.Sub(w.at).Seconds()
	first := w.at.IsZero()
	w.at = now
	values := make([]float64, 0, len(w.sensors)+1)
	joules := 0.0
	add := func(s sensor, value float64) {
		i := len(values)
		values = append(values, value)
		switch {
		case first || i >= len(w.last):
		case s.watts != nil:
			joules += (value + w.last[i]) / 2 * elapsed
		case value < w.last[i]:
			joules += value + s.wrap - w.last[i]
		default:
			joules += value - w.last[i]
		}
	}
	for _, s := range w.sensors {
		if s.watts != nil {
			add(s, s.watts())
		} else {
			add(s, s.counter())
		}
	}
	if w.gpuKnown {
		add(sensor{watts: func() float64 { return 0 }}, w.gpu.Watts)
	}
	if w.counting && !first {
		w.seconds += elapsed
		w.joules += joules
		w.known = w.known && !math.IsNaN(joules) && len(values) == len(w.last)
	}
	w.last = values
	for _, zone := range w.zones {
		if t := w.m.number(zone) / 1e3; t > 0 && t < 200 { // an absent sensor says -256
			w.temperature = widen(w.temperature, t)
		}
	}
	if f := w.m.number(w.clock) / w.perMHz; f > 0 {
		w.frequency = widen(w.frequency, f)
	}
	for _, alarm := range w.alarms {
		if w.m.number(alarm) == 1 {
			w.slow("overcurrent of " + w.m.text(strings.Replace(strings.Replace(alarm, "curr", "in", 1),
				"_crit_alarm", "_label", 1)))
		}
	}
	if w.gpuKnown {
		if w.gpu.Temperature > 0 {
			w.temperature = widen(w.temperature, w.gpu.Temperature)
		}
		if w.counting && w.gpu.Clock > 0 {
			w.frequency = widen(w.frequency, w.gpu.Clock)
		}
		for _, why := range w.gpu.Slowed {
			w.slow(why)
		}
	}
}

// slow notes why the machine is slowed down. The caller holds w.mu.
func (w *Watch) slow(why string) {
	if w.counting && !slices.Contains(w.slowed, why) {
		w.slowed = append(w.slowed, why)
	}
}

func widen(r *delivery.BenchRange, v float64) *delivery.BenchRange {
	if r == nil {
		return &delivery.BenchRange{Low: v, High: v}
	}
	r.Low, r.High = min(r.Low, v), max(r.High, v)
	return r
}

// Close ends the reading and fills in what was read. images is the number of images between Begin and End.
func (w *Watch) Close(r *delivery.BenchResult, images int) {
	close(w.stop)
	if w.smi != nil {
		_ = w.smi.Process.Kill() // an error means that it has ended
		_ = w.smi.Wait()
	}
	w.ended.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	r.Temperature, r.Clock, r.Throttled = w.temperature, w.frequency, w.slowed
	for i, counter := range w.counters {
		if now := w.m.number(counter); now > w.before[i] {
			r.Throttled = append(r.Throttled, "CPU: too hot")
			break
		}
	}
	names := delivery.Each(w.sensors, func(s sensor) string { return s.name })
	if w.gpuKnown {
		names = append(names, "GPU")
	}
	if len(names) > 0 && w.known && w.joules > 0 && w.seconds > 0 && images > 0 {
		r.Energy = &delivery.BenchEnergy{Source: delivery.PlainText(strings.Join(names, ", "), 100),
			Joules: w.joules / float64(images), Watts: w.joules / w.seconds}
	}
}
