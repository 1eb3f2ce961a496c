package delivery

import (
	"encoding/json"
	"math"
	"testing"
	"time"
)

func TestMoney(t *testing.T) {
	for text, want := range map[string]struct {
		amount Money
		shown  string
	}{"$12": {12 * Dollar, "$12"}, "$0.9": {900_000, "$0.90"}, "$1.006": {1_006_000, "$1.01"}, "$0": {0, "$0"},
		"$0.0001": {100, "$0.0001"}, "$1000000": {maxMoney, "$1000000"}} {
		got, err := ParseMoney(text)
		if err != nil || got != want.amount || got.String() != want.shown {
			t.Errorf("%s: %d (%s), %v; want %d (%s)", text, got, got, err, want.amount, want.shown)
		}
		var again Money
		written, err := json.Marshal(got)
		if err != nil || json.Unmarshal(written, &again) != nil || again != got {
			t.Errorf("%s: as JSON %s, and back %d, %v", text, written, again, err)
		}
	}
	for _, text := range []string{"", "12", "$", "$.5", "$1.", "$-1", "$1e3", "$1,000", "€1", "$ 1", "$1.0000001",
		"$1000000.1", "$99999999", "$0x1", "$٣"} {
		if got, err := ParseMoney(text); err == nil {
			t.Errorf("%q is %s", text, got)
		}
	}
	for d, want := range map[float64]Money{-1: 0, 0: 0, 0.0000001: 1, 1.5: 1_500_000, 2e9: maxMoney,
		math.Inf(1): maxMoney, math.NaN(): maxMoney} {
		if got := Dollars(d); got != want {
			t.Errorf("%g dollars are %d, want %d", d, got, want)
		}
	}
	if got := Money(1_258_000).For(90 * time.Minute); got != 1_887_000 {
		t.Errorf("90 minutes at $1.258 cost %d", got)
	}
	p := Price{OnDemand: 2 * Dollar, Spot: Dollar}
	if p.PerHour(true) != Dollar || p.PerHour(false) != 2*Dollar || (Price{OnDemand: Dollar}).PerHour(true) != Dollar ||
		(Price{OnDemand: Dollar, Spot: 2 * Dollar}).PerHour(true) != Dollar {
		t.Error("the price of an hour")
	}
}

func FuzzParseMoney(f *testing.F) {
	for _, seed := range []string{"$12", "$0.9", "$", "$1.0000001", "12"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseMoney(text)
		if err != nil {
			return
		}
		written, _ := m.MarshalText()
		if again, err := ParseMoney(string(written)); err != nil || again != m || m < 0 || m > maxMoney {
			t.Errorf("%q is %d, written %s, read %d, %v", text, m, written, again, err)
		}
	})
}
