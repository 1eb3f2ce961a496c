package delivery

import (
	"slices"
	"testing"
)

func TestFaster(t *testing.T) {
	times := func(fp32, variant float64, rounds ...Round) Times {
		return Times{FP32: Latency{P50: fp32}, Variant: Latency{P50: variant}, Rounds: rounds}
	}
	rounds := func(pairs ...float64) (list []Round) {
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, Round{FP32: pairs[i], Variant: pairs[i+1]})
		}
		return list
	}
	for name, c := range map[string]struct {
		times Times
		want  bool
	}{
		"faster in each round":   {times(2, 1, rounds(2, 1, 2, 1)...), true},
		"not in one round":       {times(2, 1, rounds(2, 1, 2, 2)...), false},
		"by less than the noise": {times(1, 0.96, rounds(1, 0.96)...), false},
		"by just the noise":      {times(1, 0.95, rounds(1, 0.95)...), true},
		"slower":                 {times(1, 2, rounds(1, 2)...), false},
		"not measured":           {Times{}, false},
		"no time at all":         {Times{FP32: Latency{P50: 1}, Rounds: rounds(1, 0)}, false},
	} {
		if got := c.times.Faster(); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if got := (Times{}).Speedup(); got != 0 {
		t.Errorf("without times the speed-up is %v", got)
	}
}

func TestLatencyOf(t *testing.T) {
	var list []float64
	for i := range 101 {
		list = append(list, float64(100-i))
	}
	if got := LatencyOf(list); got != (Latency{P50: 50, P95: 95}) {
		t.Errorf("of 0 to 100: %+v", got)
	}
	if !slices.IsSortedFunc(list, func(a, b float64) int { return int(b - a) }) {
		t.Error("the list was changed")
	}
	if got := LatencyOf(nil); got != (Latency{}) {
		t.Errorf("of none: %+v", got)
	}
}

func TestReportedParity(t *testing.T) {
	for report, want := range map[string]int{
		`{"parity": {"images": 32, "cosine": {"dets": 0.97}, "largest": {"dets": 0.03}}}`: 32,
		`{"parity": {"images": 3, "cosine": {"dets": 0.97}}}`:                             3,
		`{"parity": {"images": 3}}`:                                                       0,
		`{"parity": {"images": "3", "cosine": {"a": 1}}}`:                                 0,
		`{"parity": {"images": 3, "cosine": {"a": "1"}}}`:                                 0,
		`{"parity": [1]}`: 0,
		`{"bytes": 3}`:    0,
		`{"parity": {"images": 3, "cosine": {"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1}}}`: 0,
		``:     0,
		`null`: 0,
	} {
		p, ok := VariantResult{Reported: []byte(report)}.ReportedParity()
		if p.Images != want || ok != (want > 0) {
			t.Errorf("%s: %+v, %v", report, p, ok)
		}
	}
}
