package delivery

import "math"

// Samples say how far a figure may be off: in ascending order, so that the k-th
// of n is a lower bound at a confidence of 1 - k/(n+1).
type Samples []float64

// Bounds gives the one-sided bounds, each at a confidence of its own choosing,
// as for an adjustment over many classes. Samples are finite in number: beyond
// a confidence of n/(n+1), for n of them, the bounds are the outermost ones and
// claim too much; see [Samples.Resolves]. Without samples they are infinite.
func (s Samples) Bounds(confidence float64) (lower, upper float64) {
	n := len(s)
	if n == 0 {
		return math.Inf(-1), math.Inf(1)
	}
	k := int(float64((1-confidence)*float64(n+1)) + 1e-9)
	k = min(max(k, 1), (n+1)/2)
	return s[k-1], s[n-k]
}

// Resolves says whether there are enough samples for [Samples.Bounds] at a
// confidence.
func (s Samples) Resolves(confidence float64) bool {
	return float64((1-confidence)*float64(len(s)+1)) > 1-1e-9
}
