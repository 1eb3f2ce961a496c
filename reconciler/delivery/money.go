package delivery

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Money is an amount of US dollars, in millionths. Its text is $12 or $0.45.
type Money int64

// Dollar is one dollar.
const Dollar Money = 1_000_000

// maxMoney is the largest amount that is read.
const maxMoney = 1_000_000 * Dollar

// Dollars returns the amount of a number of dollars, rounded up to a millionth. Numbers that make no sense are the
// largest amount: what is not known is not cheap.
func Dollars(d float64) Money {
	if math.IsNaN(d) || d > float64(maxMoney/Dollar) {
		return maxMoney
	}
	return Money(math.Ceil(max(0, d)*float64(Dollar) - 1e-6))
}

// Dollars returns the amount as a number of dollars.
func (m Money) Dollars() float64 { return float64(m) / float64(Dollar) }

// For returns what a time costs at m an hour, rounded up.
func (m Money) For(d time.Duration) Money { return Dollars(m.Dollars() * max(0, d.Hours())) }

// String returns the amount with cents. Less than a cent is shown in full, so that nothing looks free that is not.
func (m Money) String() string {
	switch {
	case m < 0:
		return "-" + (-m).String()
	case m == 0 || m%Dollar == 0:
		return fmt.Sprintf("$%d", m/Dollar)
	case m < Dollar/100:
		return "$" + strings.TrimRight(fmt.Sprintf("%.6f", m.Dollars()), "0")
	}
	return fmt.Sprintf("$%.2f", m.Dollars())
}

// ParseMoney parses $12, $0.9 or $1.006.
func ParseMoney(text string) (Money, error) {
	digits, ok := strings.CutPrefix(text, "$")
	whole, part, dot := strings.Cut(digits, ".")
	onlyDigits := func(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
	if !ok || !onlyDigits(whole) || dot && !onlyDigits(part) || len(whole) > 7 || len(part) > 6 {
		return 0, fmt.Errorf("want an amount of dollars, as in $12 or $0.50, got %q", text)
	}
	n, err := strconv.ParseInt(whole+part+strings.Repeat("0", 6-len(part)), 10, 64)
	if err != nil || Money(n) > maxMoney {
		return 0, fmt.Errorf("want at most %s, got %q", maxMoney, text)
	}
	return Money(n), nil
}

// MarshalText implements encoding.TextMarshaler.
func (m Money) MarshalText() ([]byte, error) {
	text := strconv.FormatInt(int64(m/Dollar), 10)
	if rest := m % Dollar; rest != 0 {
		text += strings.TrimRight(fmt.Sprintf(".%06d", rest), "0")
	}
	return []byte("$" + text), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *Money) UnmarshalText(text []byte) (err error) {
	*m, err = ParseMoney(string(text))
	return err
}

// A Price is what an instance costs in one region.
type Price struct {
	Region   string    `json:"region"`
	Instance string    `json:"instance"`
	OnDemand Money     `json:"onDemand"`       // an hour
	Spot     Money     `json:"spot,omitempty"` // an hour, in the region's most expensive zone; 0: not known
	At       time.Time `json:"at"`             // when it was so
	Source   string    `json:"source"`         // as "AWS", or the table that AOB has
}

// PerHour returns what a machine costs at most an hour. A spot instance never costs more than one on demand.
func (p Price) PerHour(spot bool) Money {
	if spot && p.Spot > 0 {
		return min(p.Spot, p.OnDemand)
	}
	return p.OnDemand
}
