package gate

import (
	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

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
