package rollout

import (
	"math"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// NotRuledOut returns the highest failure rate that is still possible, with 95 % confidence, after so
// many failures among so many devices: the exact one-sided binomial bound (Clopper and Pearson). With
// no failure it is 1-0.05^(1/n). With no device it is 1.
func NotRuledOut(failures, devices int) float64 {
	if devices <= 0 || failures >= devices {
		return 1
	}
	// The probability of at most so many failures falls as the rate grows, so bisection finds the bound.
	low, high := 0.0, 1.0
	for range 60 {
		mid := (low + high) / 2
		if atMost(failures, devices, mid) > 0.05 {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}

// atMost returns the probability of at most k failures among n devices at failure rate p.
func atMost(k, n int, p float64) float64 {
	sum := 0.0
	lnN, _ := math.Lgamma(float64(n + 1))
	for i := 0; i <= k; i++ {
		a, _ := math.Lgamma(float64(i + 1))
		b, _ := math.Lgamma(float64(n - i + 1))
		sum += math.Exp(lnN - a - b + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
	}
	return sum
}

// failureRate is about the failures among n devices and the failure rate not ruled out.
func failureRate(failures, n int) []delivery.Fact {
	if n == 0 {
		return nil
	}
	return one(code.FailureRate, values{Count: failures, Total: n, High: NotRuledOut(failures, n)})
}
