package delivery

import (
	"math"
	"slices"
)

// Samples are the bootstrap samples of a figure, in ascending order. The k-th of n is a lower bound at a confidence of
// 1 - k/(n+1).
type Samples []float64

// Bounds returns the one-sided bounds, each at the given confidence. Without samples they are infinite. Beyond a
// confidence of n/(n+1), for n samples, they are the least and the greatest sample, which is too narrow; see
// [Samples.Resolves].
func (s Samples) Bounds(confidence float64) (lower, upper float64) {
	n := len(s)
	if n == 0 {
		return math.Inf(-1), math.Inf(1)
	}
	k := int(float64((1-confidence)*float64(n+1)) + 1e-9)
	k = min(max(k, 1), (n+1)/2)
	return s[k-1], s[n-k]
}

// Resolves reports whether there are enough samples for [Samples.Bounds] at the given confidence.
func (s Samples) Resolves(confidence float64) bool {
	return float64((1-confidence)*float64(len(s)+1)) > 1-1e-9
}

// Below returns the share of samples below a value.
func (s Samples) Below(v float64) float64 {
	n, _ := slices.BinarySearch(s, v)
	return float64(n) / float64(max(len(s), 1))
}
