package delivery

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
	"unicode/utf8"
)

// A BenchRun says what a bench measures: how fast a machine runs a bundle.
type BenchRun struct {
	Bundle   Digest        `json:"bundle"`
	Profile  string        `json:"profile"` // the hardware profile, such as orin-nano-fp16
	Settings BenchSettings `json:"settings"`
}

// BenchSettings say how much is measured.
type BenchSettings struct {
	Version int `json:"version"` // BenchVersion
	WarmUp  int `json:"warmUp"`  // images before the first repeat
	Images  int `json:"images"`  // of each repeat
	Repeats int `json:"repeats"`
	// Pictures is the digest of the pictures; empty: the built-in ones.
	Pictures Digest `json:"pictures,omitempty"`
}

// BenchVersion changes with what a bench measures. Results of different versions are not compared.
const BenchVersion = 1

// The settings of a bench by default, and the least that a gate accepts.
const (
	BenchWarmUp  = 20
	BenchImages  = 100
	BenchRepeats = 5
)

// GateBench are the settings of the benches that gates are judged by.
func GateBench() BenchSettings {
	return BenchSettings{Version: BenchVersion, WarmUp: BenchWarmUp, Images: BenchImages, Repeats: BenchRepeats}
}

// A Bench is what a machine measured.
type Bench struct {
	BenchRun
	Model    Digest       `json:"model"`           // of model.onnx
	Hardware Digest       `json:"hardwareProfile"` // of the profile's content
	Machine  BenchMachine `json:"machine"`
	Result   BenchResult  `json:"result"`
	// Fleet and Device name the device that was asked; empty for other machines.
	Fleet  string    `json:"fleet,omitempty"`
	Device string    `json:"device,omitempty"`
	At     time.Time `json:"at"` // when it ended, by the machine's clock
}

// A BenchMachine is a machine and its settings. A fact that it does not tell is empty.
type BenchMachine struct {
	Processor string `json:"processor,omitempty"`
	Cores     int    `json:"cores"`
	Threads   int    `json:"threads"` // that the model had
	Memory    int64  `json:"memory,omitempty"`
	Platform  string `json:"platform"`         // as in linux/arm64
	Kernel    string `json:"kernel,omitempty"` // its version
	Module    string `json:"module,omitempty"` // of a Jetson
	GPU       string `json:"gpu,omitempty"`
	Compute   string `json:"compute,omitempty"`
	TensorRT  string `json:"tensorrt,omitempty"`
	CUDA      string `json:"cuda,omitempty"`
	L4T       string `json:"l4t,omitempty"`
	Runtime   string `json:"runtime,omitempty"`   // version of ONNX Runtime
	PowerMode string `json:"powerMode,omitempty"` // of a Jetson: the number of its mode
	Governor  string `json:"governor,omitempty"`  // of the CPU's clock
	Numerics  string `json:"numerics"`            // of aob-detect
	AOB       string `json:"aob,omitempty"`       // version
}

// Settings is the digest of what makes two results of one machine comparable: not the versions of AOB and of the
// kernel.
func (m BenchMachine) Settings() Digest {
	m.AOB, m.Kernel = "", ""
	return DigestOf("bench machine", m)
}

// A BenchResult has what was measured.
type BenchResult struct {
	Repeats []BenchRepeat `json:"repeats"`
	Clients int           `json:"clients"` // that sent images at the same time, for the throughput
	Memory  BenchMemory   `json:"memory"`
	Energy  *BenchEnergy  `json:"energy,omitempty"` // nil: the board does not tell
	// Temperature is the highest of the machine's sensors in degrees Celsius, and Clock the frequency of its processor
	// (of the GPU, if that computes) in MHz.
	Temperature *BenchRange `json:"temperature,omitempty"`
	Clock       *BenchRange `json:"clock,omitempty"`
	// Throttled lists why the machine has slowed itself down; nil: it has not, or does not tell.
	Throttled []string `json:"throttled,omitempty"`
}

// A BenchRepeat is one of the repeats.
type BenchRepeat struct {
	// Stages has the times of one client: decode, pre, infer, post and total.
	Stages     map[string]BenchTimes `json:"stages"`
	Throughput float64               `json:"throughput"` // images in a second
}

// The stages of an image. Total is from the file to the boxes.
const (
	StageDecode = "decode"
	StagePre    = "pre"
	StageInfer  = "infer"
	StagePost   = "post"
	StageTotal  = "total"
)

// BenchStages lists the stages in their order.
var BenchStages = []string{StageDecode, StagePre, StageInfer, StagePost, StageTotal}

// BenchTimes are quantiles of the time for one image, in seconds.
type BenchTimes struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// Quantiles lists the names of the quantiles in their order.
var Quantiles = []string{"p50", "p90", "p95", "p99"}

// Of returns a quantile by its name.
func (t BenchTimes) Of(quantile string) float64 {
	return map[string]float64{"p50": t.P50, "p90": t.P90, "p95": t.P95, "p99": t.P99}[quantile]
}

// BenchTimesOf returns the quantiles of times in seconds. Each is one of the times.
func BenchTimesOf(seconds []float64) BenchTimes {
	if len(seconds) == 0 {
		return BenchTimes{}
	}
	sorted := slices.Sorted(slices.Values(seconds))
	at := func(q float64) float64 { return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)] }
	return BenchTimes{P50: at(0.5), P90: at(0.9), P95: at(0.95), P99: at(0.99)}
}

// BenchMemory is the memory that a bench took, in bytes.
type BenchMemory struct {
	Peak int64 `json:"peak"`          // of the process, resident
	GPU  int64 `json:"gpu,omitempty"` // of the process, where nvidia-smi tells
}

// BenchEnergy is what images cost in energy, while one client sends them.
type BenchEnergy struct {
	Source string  `json:"source"` // what was measured, as in VDD_IN: all that is behind this sensor counts
	Joules float64 `json:"joules"` // for one image
	Watts  float64 `json:"watts"`  // on average
}

// A BenchRange is the range of a value that was read again and again.
type BenchRange struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// A BenchFigure is one figure of a result.
type BenchFigure struct {
	Value  float64 `json:"value"`  // the median of the repeats
	Low    float64 `json:"low"`    // of the repeats
	High   float64 `json:"high"`   // of the repeats
	Spread float64 `json:"spread"` // see spreadOf
}

// MaxSpread is the largest spread of a figure that can be judged.
const MaxSpread = 0.2

// Time returns a quantile of the time of a stage, in seconds.
func (r BenchResult) Time(stage, quantile string) BenchFigure {
	return figureOf(Each(r.Repeats, func(b BenchRepeat) float64 { return b.Stages[stage].Of(quantile) }))
}

// Throughput returns how many images a second were answered while all clients sent.
func (r BenchResult) Throughput() BenchFigure {
	return figureOf(Each(r.Repeats, func(b BenchRepeat) float64 { return b.Throughput }))
}

// figureOf returns the figure of the repeats' values. The spread is the range of the values divided by their median;
// with five values or more it leaves out the lowest and the highest, so that one disturbed repeat does not count.
func figureOf(values []float64) BenchFigure {
	n := len(values)
	if n == 0 {
		return BenchFigure{}
	}
	slices.Sort(values)
	f := BenchFigure{Value: values[n/2], Low: values[0], High: values[n-1]}
	if n%2 == 0 {
		f.Value = (values[n/2-1] + values[n/2]) / 2
	}
	inner := values
	if n >= 5 {
		inner = values[1 : n-1]
	}
	if f.Value > 0 {
		f.Spread = (inner[len(inner)-1] - inner[0]) / f.Value
	}
	return f
}

// A BenchFault is a reason why a bench says nothing: its result is no data.
type BenchFault string

// The reasons.
const (
	BenchSound     BenchFault = ""
	BenchFew       BenchFault = "few"       // too few repeats or images
	BenchThrottled BenchFault = "throttled" // the machine has slowed itself down
	BenchNoisy     BenchFault = "noisy"     // the repeats differ too much
)

// Fault returns why a quantile of the whole time says nothing; BenchSound if it does.
func (b Bench) Fault(quantile string) BenchFault {
	least := GateBench()
	switch {
	case len(b.Result.Repeats) < least.Repeats || b.Settings.Images < least.Images || b.Settings.WarmUp < least.WarmUp:
		return BenchFew
	case len(b.Result.Throttled) > 0:
		return BenchThrottled
	case b.Result.Time(StageTotal, quantile).Spread > MaxSpread:
		return BenchNoisy
	}
	return BenchSound
}

// Limits of a bench. One that a device reports is input from outside.
const (
	MaxBenchImages  = 1_000_000
	MaxBenchRepeats = 100
	maxBenchText    = 200
	maxBenchSeconds = 3600
	maxBenchNumber  = 1e15
)

// Check returns what is wrong with settings.
func (s BenchSettings) Check() error {
	switch {
	case s.Version != BenchVersion:
		return fmt.Errorf("version: want %d, got %d", BenchVersion, s.Version)
	case s.WarmUp < 0 || s.WarmUp > MaxBenchImages:
		return fmt.Errorf("warmUp: want 0 to %d, got %d", MaxBenchImages, s.WarmUp)
	case s.Images < 1 || s.Images > MaxBenchImages:
		return fmt.Errorf("images: want 1 to %d, got %d", MaxBenchImages, s.Images)
	case s.Repeats < 1 || s.Repeats > MaxBenchRepeats:
		return fmt.Errorf("repeats: want 1 to %d, got %d", MaxBenchRepeats, s.Repeats)
	}
	return optionalDigest("pictures", s.Pictures)
}

// Check returns what is wrong with a run.
func (r BenchRun) Check() error {
	if _, err := ParseDigest(string(r.Bundle)); err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	if r.Profile == "" || benchText(r.Profile) != nil {
		return fmt.Errorf("profile: want a name, got %.80q", r.Profile)
	}
	return r.Settings.Check()
}

func optionalDigest(name string, d Digest) error {
	if d == "" {
		return nil
	}
	if _, err := ParseDigest(string(d)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// benchText returns an error for text that no machine says of itself.
func benchText(text string) error {
	if len(text) > maxBenchText || !utf8.ValidString(text) || text != PlainText(text, maxBenchText) {
		return fmt.Errorf("want plain text of at most %d bytes, got %.80q", maxBenchText, text)
	}
	return nil
}

// Check returns what is wrong with a bench, whose every value may come from outside.
func (b Bench) Check() error {
	if err := b.BenchRun.Check(); err != nil {
		return err
	}
	for name, d := range map[string]Digest{"model": b.Model, "hardwareProfile": b.Hardware} {
		if _, err := ParseDigest(string(d)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if b.At.Year() < 2000 || b.At.Year() > 9999 {
		return fmt.Errorf("at: want a time, got %s", b.At)
	}
	for _, text := range []string{b.Fleet, b.Device} {
		if err := benchText(text); err != nil {
			return fmt.Errorf("fleet and device: %w", err)
		}
	}
	if err := b.Machine.check(); err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	if n := len(b.Result.Repeats); n != b.Settings.Repeats {
		return fmt.Errorf("result: %d repeats, want %d", n, b.Settings.Repeats)
	}
	return b.Result.check()
}

func (m BenchMachine) check() error {
	for name, text := range map[string]string{"processor": m.Processor, "platform": m.Platform, "kernel": m.Kernel,
		"module": m.Module, "gpu": m.GPU, "compute": m.Compute, "tensorrt": m.TensorRT, "cuda": m.CUDA, "l4t": m.L4T,
		"runtime": m.Runtime, "powerMode": m.PowerMode, "governor": m.Governor, "numerics": m.Numerics, "aob": m.AOB} {
		if err := benchText(text); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	const mostCores = 1 << 16
	if m.Cores < 1 || m.Cores > mostCores || m.Threads < 1 || m.Threads > mostCores || m.Memory < 0 ||
		m.Memory > maxBenchNumber {
		return fmt.Errorf("%d cores, %d threads and %d bytes of memory", m.Cores, m.Threads, m.Memory)
	}
	return nil
}

func (r BenchResult) check() error {
	for i, repeat := range r.Repeats {
		if got := slices.Sorted(maps.Keys(repeat.Stages)); !slices.Equal(got,
			slices.Sorted(slices.Values(BenchStages))) {
			return fmt.Errorf("result: repeat %d has the stages %.200q, want %q", i+1, got, BenchStages)
		}
		for stage, t := range repeat.Stages {
			last := 0.0
			for _, q := range Quantiles {
				v := t.Of(q)
				if !(v >= last && v <= maxBenchSeconds) || stage == StageTotal && v == 0 {
					return fmt.Errorf("result: repeat %d: %s of %s is %v seconds", i+1, q, stage, v)
				}
				last = v
			}
		}
		if !(repeat.Throughput > 0 && repeat.Throughput <= maxBenchNumber) {
			return fmt.Errorf("result: repeat %d: %v images in a second", i+1, repeat.Throughput)
		}
	}
	number := func(v float64) bool { return v >= 0 && v <= maxBenchNumber }
	const mostClients, mostReasons = 1 << 16, 32
	switch e := r.Energy; {
	case r.Clients < 1 || r.Clients > mostClients:
		return fmt.Errorf("result: %d clients", r.Clients)
	case r.Memory.Peak < 0 || !number(float64(r.Memory.Peak)) || r.Memory.GPU < 0 || !number(float64(r.Memory.GPU)):
		return fmt.Errorf("result: memory of %d and %d bytes", r.Memory.Peak, r.Memory.GPU)
	case e != nil && !(number(e.Joules) && number(e.Watts)):
		return fmt.Errorf("result: %v joules and %v watts", e.Joules, e.Watts)
	case e != nil && (e.Source == "" || benchText(e.Source) != nil):
		return fmt.Errorf("result: energy of %.80q", e.Source)
	case len(r.Throttled) > mostReasons:
		return fmt.Errorf("result: throttled for %d reasons, want at most %d", len(r.Throttled), mostReasons)
	}
	for name, span := range map[string]*BenchRange{"temperature": r.Temperature, "clock": r.Clock} {
		if span != nil && !(span.Low >= -300 && span.Low <= span.High && span.High <= maxBenchNumber) {
			return fmt.Errorf("result: %s from %v to %v", name, span.Low, span.High)
		}
	}
	for _, why := range r.Throttled {
		if err := benchText(why); err != nil || why == "" {
			return fmt.Errorf("result: throttled: want a reason, got %.80q", why)
		}
	}
	return nil
}

// ComparesWith reports whether two benches, of two bundles, say which one is faster on a profile: one machine made both
// with the same settings and with the built-in pictures, and both are sound.
func (b Bench) ComparesWith(a Bench) bool {
	return a.Profile == b.Profile && a.Hardware == b.Hardware && a.Fleet == b.Fleet && a.Device == b.Device &&
		a.Machine.Settings() == b.Machine.Settings() &&
		a.Settings.Version == BenchVersion && b.Settings.Version == BenchVersion &&
		a.Settings.Pictures == "" && b.Settings.Pictures == "" &&
		a.Fault("p50") == BenchSound && b.Fault("p50") == BenchSound
}

// FasterThan returns how many times as fast as another bundle this one is, from the image's file to the boxes. It
// reports false unless it is faster by more than NoiseOfTimes, and each repeat is faster than every one of the other.
func (b Bench) FasterThan(a Bench) (times float64, ok bool) {
	mine, other := b.Result.Time(StageTotal, "p50"), a.Result.Time(StageTotal, "p50")
	if !(mine.Value > 0) {
		return 0, false
	}
	times = other.Value / mine.Value
	return times, mine.Value <= (1-NoiseOfTimes)*other.Value && mine.High < other.Low
}
