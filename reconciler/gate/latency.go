package gate

import (
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// Benched is what is known about how fast a bundle is on one hardware profile.
type Benched struct {
	Bench *delivery.Bench // nil if none counts
	Why   delivery.Fact   // why none counts
}

// NoData says why a quantile of a bench cannot be judged; zero if it can.
func NoData(b delivery.Bench, quantile string) delivery.Fact {
	least := delivery.GateBench()
	switch b.Fault(quantile) {
	case delivery.BenchFew:
		return fact(code.BenchFew, delivery.Values{Counts: map[string]int{"repeats": least.Repeats,
			"images": least.Images, "warmUp": least.WarmUp}})
	case delivery.BenchThrottled:
		return fact(code.BenchThrottled, delivery.Values{Names: b.Result.Throttled})
	case delivery.BenchNoisy:
		return fact(code.BenchNoisy, delivery.Values{Metric: quantile, Bound: delivery.MaxSpread,
			Value: b.Result.Time(delivery.StageTotal, quantile).Spread})
	}
	return delivery.Fact{}
}

// LatencyProfiles lists the hardware profiles that checks of latency are about, sorted. all are those that all stands
// for, and others those where the bundle does not run.
func LatencyProfiles(checks []delivery.GateCheck, all []string, others map[string]string) []string {
	var names []string
	for _, c := range checks {
		if ofProfile(c) {
			names = append(names, profiles(c, all, others)...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func profiles(c delivery.GateCheck, all []string, others map[string]string) []string {
	if c.Profiles.All {
		return all
	}
	return slices.DeleteFunc(slices.Clone(c.Profiles.Names), func(name string) bool {
		_, other := others[name]
		return other
	})
}

// Awaited says which latencies must be measured before a bundle is judged by a gate. Checks that are ignored where they
// are unsure do not wait.
func Awaited(g delivery.Gate, in Input) (list []delivery.Fact) {
	for _, c := range g.Checks {
		if !ofProfile(c) || c.Unsure == "ignore" {
			continue
		}
		for _, profile := range profiles(c, in.Profiles, in.Others) {
			why := noData(c, profile, in.Benches[profile])
			if !why.IsZero() && !slices.ContainsFunc(list, why.Is) {
				list = append(list, why)
			}
		}
	}
	return list
}

// noData says why a check cannot judge a profile; zero if it can.
func noData(c delivery.GateCheck, profile string, b Benched) delivery.Fact {
	of := delivery.Values{Names: []string{profile}}
	switch {
	case b.Bench != nil:
		return NoData(*b.Bench, delivery.MetricOfFigure(c.Metric).Quantile()).In(code.OfProfile, of)
	case b.Why.IsZero(): // the caller has no evidence
		return fact(code.BenchUnknown, of)
	}
	return b.Why
}

// latency judges a quantile on each profile by itself. Its repeats stand for what another bench would measure.
func latency(c delivery.GateCheck, limit float64, in Input) (list []delivery.CheckVerdict) {
	names := profiles(c, in.Profiles, in.Others)
	if len(names) == 0 {
		why := fact(code.LatencyNoProfile, delivery.Values{Metric: c.Metric, Model: in.Model})
		if others := slices.Sorted(maps.Keys(in.Others)); len(others) > 0 {
			why = fact(code.LatencyOtherVariant, delivery.Values{Metric: c.Metric, Model: in.Model, Names: others[:1],
				Variant: in.Others[others[0]]})
		}
		return []delivery.CheckVerdict{{Metric: c.Metric, Limit: &limit, Outcome: delivery.NotApplicable,
			Because: []delivery.Fact{why}}}
	}
	for _, profile := range names {
		v := delivery.CheckVerdict{Check: describe(c) + " on " + profile, Metric: c.Metric, Limit: &limit}
		if why := noData(c, profile, in.Benches[profile]); !why.IsZero() {
			v.Outcome, v.Because = delivery.Unsure, of(c.Metric, "", why)
			list = append(list, v)
			continue
		}
		f := in.Benches[profile].Bench.Result.Time(delivery.StageTotal, delivery.MetricOfFigure(c.Metric).Quantile())
		v.Value = &f.Value
		why := fact(code.LatencyMaybe, delivery.Values{Metric: c.Metric, Names: []string{profile}, Value: f.Value,
			Bound: limit, Low: f.Low, High: f.High})
		switch v.Outcome = delivery.Unsure; {
		case f.High <= limit:
			v.Outcome, why.Code = delivery.Pass, code.LatencyWithin
		case f.Low > limit:
			v.Outcome, why.Code = delivery.Fail, code.LatencyAbove
		}
		v.Because = []delivery.Fact{why}
		list = append(list, v)
	}
	return list
}
