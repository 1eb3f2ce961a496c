package coco

import (
	"math"
	"strconv"
)

const maxNumber = 512 // bytes of one number

func startsNumber(c byte) bool { return c == '-' || '0' <= c && c <= '9' || c == 'N' || c == 'I' }

// number reads a number. It accepts Python's NaN, Infinity and -Infinity, which many programs write although they are
// not JSON, so that the caller can name them in its error. If the number has no fraction and no exponent and fits,
// whole is true and integer is its value.
func (s *scanner) number() (v float64, integer int64, whole, ok bool) {
	at := s.here()
	raw := s.numberBytes()
	if s.err != nil {
		return 0, 0, false, false
	}
	v, integer, whole, ok = parseNumber(raw)
	if !ok {
		s.failAt(at, "want a number, got %.40q", raw)
	}
	return v, integer, whole, ok
}

// numberBytes returns and skips all bytes that may belong to a number.
func (s *scanner) numberBytes() []byte {
	from, i := s.pos, s.pos
	for {
		for i < len(s.buf) && isNumberByte[s.buf[i]] {
			i++
		}
		if i-from > maxNumber {
			s.fail("a number of more than %d bytes", maxNumber)
			return nil
		}
		if i < len(s.buf) {
			break
		}
		moved, ok := s.more(from)
		i, from = i-moved, from-moved
		if !ok {
			break
		}
	}
	s.pos = i
	return s.buf[from:i]
}

var isNumberByte = func() (t [256]bool) {
	for _, c := range "+-.0123456789eE" + "NaN" + "Infinity" {
		t[c] = true
	}
	return t
}()

var powersOf10 = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}

// parseNumber reads a JSON number, NaN, Infinity or -Infinity.
func parseNumber(b []byte) (v float64, integer int64, whole, ok bool) {
	rest, negative := b, len(b) > 0 && b[0] == '-'
	if negative {
		rest = b[1:]
	}
	mantissa, count := digits(rest, 0)
	if count == 0 {
		text := string(b)
		v, _ = strconv.ParseFloat(text, 64)
		return v, 0, false, text == "NaN" || text == "Infinity" || text == "-Infinity"
	}
	if count > 1 && rest[0] == '0' {
		return 0, 0, false, false
	}
	rest = rest[count:]
	whole = len(rest) == 0
	fraction := 0
	if !whole && rest[0] == '.' {
		if mantissa, fraction = digits(rest[1:], mantissa); fraction == 0 {
			return 0, 0, false, false
		}
		rest = rest[1+fraction:]
	}
	if len(rest) == 0 && count+fraction <= 15 {
		v, integer = float64(mantissa), int64(mantissa)
		if fraction > 0 {
			v /= powersOf10[fraction] // both are exact, so their quotient is the nearest float64
		}
		if negative {
			v, integer = -v, -integer
		}
		return v, integer, whole, true
	}
	if len(rest) > 0 {
		if rest[0] != 'e' && rest[0] != 'E' {
			return 0, 0, false, false
		}
		if rest = rest[1:]; len(rest) > 0 && (rest[0] == '+' || rest[0] == '-') {
			rest = rest[1:]
		}
		if _, n := digits(rest, 0); n == 0 || n < len(rest) {
			return 0, 0, false, false
		}
	}
	v, err := strconv.ParseFloat(string(b), 64) // an infinity if out of range, which the caller refuses
	ok = err == nil || math.IsInf(v, 0)
	if whole {
		integer, err = strconv.ParseInt(string(b), 10, 64)
		whole = err == nil
	}
	return v, integer, whole, ok
}

// digits appends the leading digits of b to a number, and counts them. It may overflow.
func digits(b []byte, v uint64) (uint64, int) {
	for i, c := range b {
		if c < '0' || c > '9' {
			return v, i
		}
		v = v*10 + uint64(c-'0')
	}
	return v, len(b)
}
