package gate_test

import (
	"testing"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
)

// repeats is a bench whose repeats take so many seconds.
func repeats(profile string, seconds ...float64) *delivery.Bench {
	b := &delivery.Bench{BenchRun: delivery.BenchRun{Profile: profile, Settings: delivery.GateBench()}}
	for _, s := range seconds {
		times := delivery.BenchTimes{P50: s, P90: s, P95: s, P99: s}
		b.Result.Repeats = append(b.Result.Repeats, delivery.BenchRepeat{
			Stages: map[string]delivery.BenchTimes{delivery.StageTotal: times}})
	}
	return b
}

func TestLatency(t *testing.T) {
	limit := delivery.Quantity("33ms")
	of := func(unsure string, profiles ...string) delivery.Gate {
		return delivery.Gate{Name: "g", Checks: []delivery.GateCheck{{Metric: "latency.p95", Max: &limit,
			Unsure: unsure, Profiles: delivery.Selection{All: len(profiles) == 0, Names: profiles}}}}
	}
	missing := delivery.Fact{Code: code.BenchMissing}
	for _, c := range []struct {
		name    string
		gate    delivery.Gate
		in      gate.Input
		want    delivery.Outcome
		why     delivery.Code
		awaited delivery.Code
	}{
		{"no profile", of("review"), gate.Input{}, delivery.NotApplicable, code.LatencyNoProfile, ""},
		{"another variant's", of("review", "nano"), gate.Input{Others: map[string]string{"nano": "int8"}},
			delivery.NotApplicable, code.LatencyOtherVariant, ""},
		{"all are another variant's", of("review"), gate.Input{Others: map[string]string{"nano": "int8"}},
			delivery.NotApplicable, code.LatencyOtherVariant, ""},
		{"one of two is another variant's", of("review", "nano", "agx"), gate.Input{
			Others: map[string]string{"nano": "int8"}, Benches: map[string]gate.Benched{
				"agx": {Bench: repeats("agx", .03, .03, .03, .03, .03)}}}, delivery.Pass, code.LatencyWithin, ""},
		{"fast", of("review", "nano"), gate.Input{Benches: map[string]gate.Benched{
			"nano": {Bench: repeats("nano", .03, .033, .03, .03, .03)}}}, delivery.Pass, code.LatencyWithin, ""},
		{"slow", of("review"), gate.Input{Profiles: []string{"nano"}, Benches: map[string]gate.Benched{
			"nano": {Bench: repeats("nano", .034, .034, .034, .034, .034)}}}, delivery.Fail, code.LatencyAbove, ""},
		{"both", of("review", "nano"), gate.Input{Benches: map[string]gate.Benched{
			"nano": {Bench: repeats("nano", .034, .034, .034, .034, .033)}}}, delivery.Unsure, code.LatencyMaybe, ""},
		{"noisy", of("review", "nano"), gate.Input{Benches: map[string]gate.Benched{
			"nano": {Bench: repeats("nano", .01, .01, .01, .02, .02)}}}, delivery.Unsure, code.BenchNoisy,
			code.BenchNoisy},
		{"few", of("review", "nano"), gate.Input{Benches: map[string]gate.Benched{
			"nano": {Bench: repeats("nano", .01, .01, .01, .01)}}}, delivery.Unsure, code.BenchFew, code.BenchFew},
		{"missing", of("review", "nano"), gate.Input{Benches: map[string]gate.Benched{"nano": {Why: missing}}},
			delivery.Unsure, code.BenchMissing, code.BenchMissing},
		{"missing, taken as a fail", of("fail", "nano"), gate.Input{Benches: map[string]gate.Benched{
			"nano": {Why: missing}}}, delivery.Fail, code.BenchMissing, code.BenchMissing},
		{"missing, ignored", of("ignore", "nano"), gate.Input{Benches: map[string]gate.Benched{
			"nano": {Why: missing}}}, delivery.Ignored, code.BenchMissing, ""},
		{"nothing known", of("review", "nano"), gate.Input{}, delivery.Unsure, code.BenchUnknown, code.BenchUnknown},
	} {
		v := gate.Judge("g", c.gate, c.in)
		if len(v.Checks) != 1 || v.Checks[0].Outcome != c.want || !v.Checks[0].Because[0].Has(c.why) {
			t.Errorf("%s: %+v", c.name, v.Checks)
		}
		awaited := gate.Awaited(c.gate, c.in)
		if (len(awaited) > 0) != (c.awaited != "") || c.awaited != "" && !awaited[0].Has(c.awaited) {
			t.Errorf("%s: awaits %v", c.name, awaited)
		}
	}
}

// Another bench gives another verdict.
func TestLatencyIsInTheKey(t *testing.T) {
	limit := delivery.Quantity("33ms")
	g := delivery.Gate{Name: "g", Checks: []delivery.GateCheck{{Metric: "latency.p95", Max: &limit,
		Profiles: delivery.Selection{Names: []string{"nano"}}}}}
	key := func(b *delivery.Bench) delivery.Digest {
		return gate.Judge("g", g, gate.Input{Benches: map[string]gate.Benched{"nano": {Bench: b}}}).Key
	}
	if a := key(repeats("nano", .01, .01, .01, .01, .01)); a == key(repeats("nano", .02, .01, .01, .01, .01)) ||
		a == key(nil) {
		t.Error("the key does not name the bench")
	}
}
