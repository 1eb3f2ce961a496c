package coco

import (
	"math"
	"strconv"
)

const maxNumber = 512 // bytes of one number

func startsNumber(c byte) bool { return c == '-' || '0' <= c && c <= '9' || c == 'N' || c == 'I' }

// number reads a number that is next. Python's NaN, Infinity and -Infinity,
// which JSON does not allow but many programs write, are read as what they
// mean, for the caller to refuse. Whole says that there was neither fraction
// nor exponent, and integer is then its value, unless it does not fit.
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

// numberBytes takes all bytes that may belong to a number.
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

// parseNumber reads a JSON number, or what Python writes for those that JSON
// lacks.
func parseNumber(b []byte) (v float64, integer int64, whole, ok bool) {
	i := 0
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		i++
	}
	first := i
	var digits uint64
	for ; i < len(b) && isDigit(b[i]); i++ {
		digits = digits*10 + uint64(b[i]-'0') // may overflow: used only when short
	}
	count := i - first
	if count == 0 {
		switch string(b) {
		case "NaN":
			return math.NaN(), 0, false, true
		case "Infinity":
			return math.Inf(1), 0, false, true
		case "-Infinity":
			return math.Inf(-1), 0, false, true
		}
		return 0, 0, false, false
	}
	if b[first] == '0' && count > 1 {
		return 0, 0, false, false
	}
	if i == len(b) {
		if count > 15 {
			v, err := strconv.ParseFloat(string(b), 64)
			integer, notInt := strconv.ParseInt(string(b), 10, 64)
			return v, integer, notInt == nil, err == nil || math.IsInf(v, 0)
		}
		integer = int64(digits)
		v = float64(digits)
		if negative {
			integer, v = -integer, -v
		}
		return v, integer, true, true
	}
	fraction := 0
	if b[i] == '.' {
		i++
		for ; i < len(b) && isDigit(b[i]); i++ {
			digits = digits*10 + uint64(b[i]-'0')
			fraction++
		}
		if fraction == 0 {
			return 0, 0, false, false
		}
	}
	if i == len(b) && count+fraction <= 15 {
		// Both are exact, so their quotient is the nearest float64.
		v = float64(digits) / powersOf10[fraction]
		if negative {
			v = -v
		}
		return v, 0, false, true
	}
	if i < len(b) { // an exponent
		if b[i] != 'e' && b[i] != 'E' {
			return 0, 0, false, false
		}
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		start := i
		for i < len(b) && isDigit(b[i]) {
			i++
		}
		if i == start || i < len(b) {
			return 0, 0, false, false
		}
	}
	// Out of range gives an infinity, which the caller refuses by that name.
	v, err := strconv.ParseFloat(string(b), 64)
	return v, 0, false, err == nil || math.IsInf(v, 0)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
