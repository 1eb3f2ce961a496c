package delivery

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Values in files have units, as in 24h, 10% and 120MB. The types here parse and format them.

// A Duration is a span of time, written as in 90s, 30m, 1h30m or 30d.
type Duration time.Duration

var (
	dayPattern = regexp.MustCompile(`^([0-9]+)d$`)
	// time.ParseDuration also accepts .5h and 1.s, which the JSON Schemas do not.
	durationPattern = regexp.MustCompile(`^([0-9]+(\.[0-9]+)?(h|ms|m|s|us|µs|ns))+$`)
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	if m := dayPattern.FindStringSubmatch(s); m != nil {
		days, err := strconv.Atoi(m[1])
		if err != nil || days > 36500 {
			return fmt.Errorf("want at most 36500d, got %q", s)
		}
		*d = Duration(time.Duration(days) * 24 * time.Hour)
		return nil
	}
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 || !durationPattern.MatchString(s) {
		return fmt.Errorf("want a duration with its unit, as in 90s, 30m, 24h or 7d, got %q", s)
	}
	*d = Duration(v)
	return nil
}

// MarshalText implements encoding.TextMarshaler. Zero parts at the end are left out: 24h, not 24h0m0s.
func (d Duration) MarshalText() ([]byte, error) {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return []byte(s), nil
}

func (d Duration) String() string { b, _ := d.MarshalText(); return string(b) }

var decimalPattern = regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?$`)

// parseDecimal parses a plain decimal number, without exponent, hexadecimal digits,
// underscores, infinity or NaN. It never returns a negative zero.
func parseDecimal(s string) (float64, error) {
	if !decimalPattern.MatchString(s) {
		return 0, strconv.ErrSyntax
	}
	v, err := strconv.ParseFloat(s, 64)
	return v + 0, err
}

// A Share is a part of a whole between 0 and 1, written as in 10% or 2.5%.
type Share float64

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Share) UnmarshalText(text []byte) error {
	s, ok := strings.CutSuffix(string(text), "%")
	v, err := parseDecimal(s)
	if !ok || err != nil || v < 0 || v > 100 {
		return fmt.Errorf("want a share with its unit, as in 10%%, between 0%% and 100%%, got %q", text)
	}
	*p = Share(v / 100)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (p Share) MarshalText() ([]byte, error) {
	return []byte(strconv.FormatFloat(math.Round(float64(p)*1e8)/1e6, 'g', -1, 64) + "%"), nil
}

func (p Share) String() string { b, _ := p.MarshalText(); return string(b) }

// A Wave is the size of one step of a rollout: a number of devices (1) or a share of the
// fleet (25%). Exactly one of the two is not zero.
type Wave struct {
	Devices int
	Share   Share
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (w *Wave) UnmarshalText(text []byte) error {
	var share Share
	if share.UnmarshalText(text) == nil && share > 0 {
		*w = Wave{Share: share}
		return nil
	}
	if n, err := strconv.Atoi(string(text)); err == nil && n >= 1 && n <= 1_000_000 {
		*w = Wave{Devices: n}
		return nil
	}
	return fmt.Errorf("want a wave: a number of devices as in 1, or a share as in 25%%, got %q", text)
}

// MarshalText implements encoding.TextMarshaler.
func (w Wave) MarshalText() ([]byte, error) {
	if w.Devices > 0 {
		return []byte(strconv.Itoa(w.Devices)), nil
	}
	return w.Share.MarshalText()
}

func (w Wave) String() string { b, _ := w.MarshalText(); return string(b) }

// A Bytes is a size, written as in 120MB (10^6) or 64MiB (2^20).
type Bytes int64

var byteUnits = []struct {
	name string
	size int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"kB", 1e3}, {"B", 1}}

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bytes) UnmarshalText(text []byte) error {
	for _, u := range byteUnits {
		num, ok := strings.CutSuffix(string(text), u.name)
		if !ok {
			continue
		}
		v, err := parseDecimal(num)
		if err != nil || v < 0 || v*float64(u.size) >= 1<<53 {
			break
		}
		*b = Bytes(math.Round(v * float64(u.size)))
		return nil
	}
	return fmt.Errorf("want a size with its unit, as in 120MB or 64MiB, got %q", text)
}

// MarshalText implements encoding.TextMarshaler. It uses the first unit that represents
// the size exactly: a decimal unit with at most three decimals, or a binary unit.
func (b Bytes) MarshalText() ([]byte, error) {
	for _, u := range []struct {
		name  string
		size  int64
		exact int64 // what the size must be a multiple of
	}{{"GB", 1e9, 1e6}, {"MB", 1e6, 1e3}, {"GiB", 1 << 30, 1 << 30}, {"MiB", 1 << 20, 1 << 20}, {"KB", 1e3, 1}} {
		if int64(b) >= u.size && int64(b)%u.exact == 0 {
			return []byte(strconv.FormatFloat(float64(b)/float64(u.size), 'f', -1, 64) + u.name), nil
		}
	}
	return []byte(strconv.FormatInt(int64(b), 10) + "B"), nil
}

func (b Bytes) String() string { t, _ := b.MarshalText(); return string(t) }
