package delivery

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
)

// benchOf has a repeat for each of the times.
func benchOf(totals ...float64) Bench {
	b := Bench{Model: Sum([]byte("model")), Hardware: Sum([]byte("profile")), At: time.Unix(1.8e9, 0).UTC(),
		BenchRun: BenchRun{Bundle: Sum([]byte("bundle")), Profile: "cpu-fp32", Settings: GateBench()},
		Machine:  BenchMachine{Cores: 2, Threads: 2, Platform: "linux/arm64"}}
	b.Settings.Repeats, b.Result.Clients = len(totals), 4
	for _, total := range totals {
		stages := map[string]BenchTimes{}
		for _, stage := range BenchStages {
			stages[stage] = BenchTimes{P50: total, P90: total, P95: total, P99: total}
		}
		b.Result.Repeats = append(b.Result.Repeats, BenchRepeat{Stages: stages, Throughput: 1 / total})
	}
	return b
}

func TestBenchTimes(t *testing.T) {
	var list []float64
	for i := range 100 {
		list = append(list, float64(100-i))
	}
	if got := BenchTimesOf(list); got != (BenchTimes{50, 90, 95, 99}) {
		t.Errorf("%+v", got)
	}
	if got := BenchTimesOf([]float64{3}); got != (BenchTimes{3, 3, 3, 3}) {
		t.Errorf("%+v", got)
	}
	if got := BenchTimesOf(nil); got != (BenchTimes{}) {
		t.Errorf("%+v", got)
	}
}

func TestBenchFault(t *testing.T) {
	for _, c := range []struct {
		name   string
		totals []float64
		change func(*Bench)
		want   BenchFault
		spread float64
	}{
		{"steady", []float64{10, 10, 10, 11, 10}, nil, BenchSound, 0},
		{"one disturbed repeat", []float64{10, 11, 10, 90, 10}, nil, BenchSound, 0.1},
		{"noisy", []float64{10, 13, 10, 90, 10}, nil, BenchNoisy, 0.3},
		{"too few repeats", []float64{10, 10, 10, 10}, nil, BenchFew, 0},
		{"too few images", []float64{10, 10, 10, 10, 10}, func(b *Bench) { b.Settings.Images = 99 }, BenchFew, 0},
		{"too few to warm up", []float64{10, 10, 10, 10, 10}, func(b *Bench) { b.Settings.WarmUp = 0 }, BenchFew, 0},
		{"too hot", []float64{10, 10, 10, 10, 10}, func(b *Bench) { b.Result.Throttled = []string{"CPU: too hot"} },
			BenchThrottled, 0},
	} {
		b := benchOf(c.totals...)
		if c.change != nil {
			c.change(&b)
		}
		if err := b.Check(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		f := b.Result.Time(StageTotal, "p95")
		if got := b.Fault("p95"); got != c.want || math.Abs(f.Spread-c.spread) > 1e-9 || f.Value != 10 {
			t.Errorf("%s: %q, %+v", c.name, got, f)
		}
	}
}

// A change of what makes results comparable changes the digest, and an update of AOB does not.
func TestBenchMachineSettings(t *testing.T) {
	m := BenchMachine{Cores: 6, Threads: 2, Platform: "linux/arm64", PowerMode: "0", AOB: "v1", Kernel: "5.15"}
	same, other := m, m
	same.AOB, same.Kernel = "v2", "5.15.1"
	other.PowerMode = "2"
	if m.Settings() != same.Settings() || m.Settings() == other.Settings() {
		t.Error("the wrong settings count")
	}
}

func TestBenchCheck(t *testing.T) {
	long := strings.Repeat("x", 201)
	for want, change := range map[string]func(*Bench){
		"bundle: ":                func(b *Bench) { b.Bundle = "latest" },
		"profile: want a name":    func(b *Bench) { b.Profile = "" },
		"version: want 1":         func(b *Bench) { b.Settings.Version = 2 },
		"warmUp: want":            func(b *Bench) { b.Settings.WarmUp = -1 },
		"images: want":            func(b *Bench) { b.Settings.Images = 1e9 },
		"repeats: want":           func(b *Bench) { b.Settings.Repeats = 0 },
		"pictures: ":              func(b *Bench) { b.Settings.Pictures = "x" },
		"model: ":                 func(b *Bench) { b.Model = "" },
		"at: want a time":         func(b *Bench) { b.At = time.Time{} },
		"fleet and device: ":      func(b *Bench) { b.Device = "a\x1b[2J" },
		"machine: gpu: ":          func(b *Bench) { b.Machine.GPU = long },
		"machine: 0 cores":        func(b *Bench) { b.Machine.Cores = 0 },
		"result: 5 repeats, want": func(b *Bench) { b.Settings.Repeats = 6 },
		"result: repeat 1 has the": func(b *Bench) {
			b.Result.Repeats[0].Stages = map[string]BenchTimes{"total": {1, 1, 1, 1}}
		},
		"p90 of total is 9": func(b *Bench) {
			b.Result.Repeats[0].Stages["total"] = BenchTimes{P50: 10, P90: 9, P95: 11, P99: 12}
		},
		"p50 of total is 0": func(b *Bench) { b.Result.Repeats[0].Stages["total"] = BenchTimes{} },
		"p50 of pre is -1":  func(b *Bench) { b.Result.Repeats[0].Stages["pre"] = BenchTimes{P50: -1} },
		"images in a second": func(b *Bench) {
			b.Result.Repeats[4].Throughput = math.Inf(1)
		},
		"result: 0 clients":    func(b *Bench) { b.Result.Clients = 0 },
		"result: memory of -1": func(b *Bench) { b.Result.Memory.Peak = -1 },
		"joules and":           func(b *Bench) { b.Result.Energy = &BenchEnergy{Source: "x", Joules: math.NaN()} },
		"result: energy of":    func(b *Bench) { b.Result.Energy = &BenchEnergy{Joules: 1, Watts: 1} },
		"throttled for 33":     func(b *Bench) { b.Result.Throttled = make([]string, 33) },
		"throttled: want":      func(b *Bench) { b.Result.Throttled = []string{""} },
		"clock from 3 to 2":    func(b *Bench) { b.Result.Clock = &BenchRange{Low: 3, High: 2} },
		"temperature from NaN": func(b *Bench) { b.Result.Temperature = &BenchRange{Low: math.NaN(), High: 2} },
	} {
		b := benchOf(10, 10, 10, 10, 10)
		change(&b)
		if err := b.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// Whatever a bench from outside says, looking at it works.
func FuzzBench(f *testing.F) {
	good, err := json.Marshal(benchOf(10, 11, 10, 10, 10))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"result":{"repeats":[{"stages":{"total":{"p50":1e308}}}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var b Bench
		if json.Unmarshal(data, &b) != nil || b.Check() != nil {
			return
		}
		for _, stage := range BenchStages {
			for _, q := range Quantiles {
				v := b.Result.Time(stage, q)
				if !(v.Low >= 0 && v.Low <= v.Value && v.Value <= v.High && v.Spread >= 0) || v.High > 3600 {
					t.Errorf("%s of %s: %+v", q, stage, v)
				}
				b.Fault(q)
			}
		}
		if v := b.Result.Throughput(); !(v.Value > 0) {
			t.Errorf("throughput %+v", v)
		}
		if _, err := json.Marshal(b); err != nil {
			t.Error(err)
		}
	})
}

func TestFasterThan(t *testing.T) {
	slow := benchOf(0.0100, 0.0101, 0.0102, 0.0101, 0.0100)
	fast := benchOf(0.0050, 0.0051, 0.0050, 0.0049, 0.0050)
	if times, ok := fast.FasterThan(slow); !ok || math.Abs(times-2.02) > 1e-9 || !fast.ComparesWith(slow) {
		t.Errorf("%v times, %t", times, ok)
	}
	for name, b := range map[string]Bench{
		"slower":               slow,
		"within the noise":     benchOf(0.0097, 0.0097, 0.0097, 0.0097, 0.0097),
		"one repeat as slow":   benchOf(0.0050, 0.0101, 0.0050, 0.0049, 0.0050),
		"no times":             benchOf(0, 0, 0, 0, 0),
		"nothing was measured": benchOf(),
	} {
		if times, ok := b.FasterThan(slow); ok {
			t.Errorf("%s: %v times as fast", name, times)
		}
	}
	for name, change := range map[string]func(*Bench){
		"another profile":   func(b *Bench) { b.Profile = "orin-nano-fp16" },
		"another content":   func(b *Bench) { b.Hardware = Sum([]byte("other")) },
		"another device":    func(b *Bench) { b.Device = "dock-2" },
		"another mode":      func(b *Bench) { b.Machine.PowerMode = "1" },
		"other pictures":    func(b *Bench) { b.Settings.Pictures = Sum([]byte("own")) },
		"throttled":         func(b *Bench) { b.Result.Throttled = []string{"heat"} },
		"too few repeats":   func(b *Bench) { b.Result.Repeats = b.Result.Repeats[:2] },
		"another version":   func(b *Bench) { b.Settings.Version = 2 },
		"repeats that vary": func(b *Bench) { *b = benchOf(0.001, 0.002, 0.003, 0.004, 0.005) },
	} {
		b := benchOf(0.0050, 0.0051, 0.0050, 0.0049, 0.0050)
		if change(&b); b.ComparesWith(slow) || slow.ComparesWith(b) {
			t.Errorf("%s: they are compared", name)
		}
	}
}
