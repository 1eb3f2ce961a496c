package reconciler

// Stories of latency: what devices measure before a model is released.

import (
	"slices"
	"testing"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// answers lets the device that was asked say how long its repeats took, in seconds.
func (f *simFleet) answers(seconds ...float64) {
	i := slices.IndexFunc(f.asked, func(a delivery.BenchAsked) bool { return a.Answer == nil })
	if i < 0 {
		f.sim.fail("no device was asked")
	}
	r := f.asked[i].Request
	b := delivery.Bench{BenchRun: r.BenchRun, Model: delivery.Sum([]byte("model")),
		Hardware: delivery.Sum([]byte("profile")), At: f.sim.now,
		Machine: delivery.BenchMachine{Cores: 6, Threads: 2, Platform: "linux/arm64"}}
	for _, s := range seconds {
		stages := map[string]delivery.BenchTimes{}
		for _, stage := range delivery.BenchStages {
			stages[stage] = delivery.BenchTimes{P50: s, P90: s, P95: s, P99: s}
		}
		b.Result.Repeats = append(b.Result.Repeats, delivery.BenchRepeat{Stages: stages, Throughput: 1 / s})
	}
	b.Result.Clients = 4
	a := delivery.BenchAnswer{Key: r.Key(), Bench: &b}
	if err := a.Check(r); err != nil {
		f.sim.fail("the answer is refused: %v", err)
	}
	f.asked[i].Answer = &a
	f.sim.wake()
}

// benchWorld has a gate with a bound of latency, and a bench device in the fleet.
func benchWorld(t *testing.T) *sim {
	s, _ := begun(t)
	s.fleet.add("demo", "bench-1")
	last := &s.fleet.devices[len(s.fleet.devices)-1]
	last.Report.Labels = map[string]string{"site": "demo", "board": "orin-nano", "role": "bench"}
	s.pushMain(map[string]string{
		"gates/production.yaml": gateFile("production", "shapes", 0.3) +
			"  - {metric: latency.p95, profiles: all, max: 33ms}\n",
		"fleets/demo.yaml": fleetFile + "profiles: {orin-nano-fp16: {board: orin-nano}}\n" +
			"bench: {match: {role: bench}}\n"})
	s.settle()
	return s
}

// A model waits until the fleet's bench device has measured it. Its bench is signed and judged once, whatever the pull
// request's commits are.
func TestBenchDevice(t *testing.T) {
	s := benchWorld(t)
	s.propose("first", 8)
	s.settle()
	s.wantContext("first", delivery.ContextGate+"production", delivery.CheckPending, code.BenchMissing, "bench-1")
	if len(s.fleet.asked) != 1 || s.fleet.asked[0].Request.Device != "bench-1" {
		t.Fatalf("asked: %+v", s.fleet.asked)
	}
	s.fleet.answers(.02, .02, .02, .02, .02)
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
	for _, list := range s.signed.index.Benches {
		if len(list) != 1 || list[0].Device != "bench-1" || list[0].Fleet != "demo" {
			t.Errorf("signed: %+v", list)
		}
	}
	if len(s.signed.index.Benches) != 1 {
		t.Errorf("benches of %d bundles are signed, want 1", len(s.signed.index.Benches))
	}
	s.quiet()
	s.merge("first")
	s.settle()
	s.quiet()
}

// A noisy bench is no data: the device measures again, and what it says then counts.
func TestNoisyBench(t *testing.T) {
	s := benchWorld(t)
	s.propose("first", 8)
	s.settle()
	s.fleet.answers(.02, .03, .02, .03, .02)
	s.settle()
	s.wantContext("first", delivery.ContextGate+"production", delivery.CheckPending, code.BenchMissing)
	s.fleet.answers(.04, .04, .04, .04, .04)
	s.settle()
	s.wantContext("first", delivery.ContextGate+"production", delivery.CheckFailure, code.LatencyAbove, "40.00 ms")
	s.quiet()
}
