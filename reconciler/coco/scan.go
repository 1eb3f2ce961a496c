package coco

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A ParseError is what is wrong in a file, with the place.
type ParseError struct {
	Offset int64  // bytes from the start
	Line   int    // from 1
	Column int    // in bytes, from 1
	Path   string // like annotations[12].bbox; may be empty
	Text   string
}

// Error returns, for example, "3:14 (byte 210): annotations[12].bbox: want 4 numbers, got 3".
func (e *ParseError) Error() string {
	where := fmt.Sprintf("%d:%d (byte %d): ", e.Line, e.Column, e.Offset)
	if e.Path != "" {
		where += e.Path + ": "
	}
	return where + e.Text
}

const (
	maxDepth   = 64      // of nested values that are skipped
	maxText    = 4096    // bytes of one name, with escapes
	bufferSize = 1 << 18 // bytes; larger than any token except a skipped string
)

// A position is a place in a file.
type position struct {
	offset int64
	line   int
	column int
}

// A scanner reads JSON from a stream, one token at a time. It keeps the first error; after it all methods return zero
// values and false.
type scanner struct {
	from  io.Reader // nil after its end
	buf   []byte
	pos   int   // of the next byte in buf
	base  int64 // offset of buf[0]
	limit int64 // bytes; more is an error
	line  int
	start int64 // offset of the current line
	err   error
	text  []byte // an unescaped string

	// The place in errors is list[item].field.
	list, field string
	item        int
}

func newScanner(from io.Reader, limit int64) scanner {
	return scanner{from: from, buf: make([]byte, 0, bufferSize), limit: limit, line: 1}
}

func (s *scanner) here() position {
	offset := s.base + int64(s.pos)
	return position{offset, s.line, int(offset-s.start) + 1}
}

// mark skips the mark of UTF-8 that some editors of Windows write at the start of a file. A file in UTF-16 is an error.
func (s *scanner) mark() {
	for len(s.buf) < 3 {
		if _, ok := s.more(0); !ok {
			break
		}
	}
	switch start := string(s.buf[:min(3, len(s.buf))]); {
	case start == "\xef\xbb\xbf":
		s.pos = len(start)
	case strings.HasPrefix(start, "\xff\xfe"), strings.HasPrefix(start, "\xfe\xff"),
		strings.Contains(start, "\x00"):
		s.fail("the file is in UTF-16; save it as UTF-8")
	}
}

// path returns, for example, annotations[12].bbox.
func (s *scanner) path() string {
	switch {
	case s.list == "":
		return s.field
	case s.field == "":
		return fmt.Sprintf("%s[%d]", s.list, s.item)
	}
	return fmt.Sprintf("%s[%d].%s", s.list, s.item, s.field)
}

// fail sets the error at the current position, unless there is one already.
func (s *scanner) fail(format string, args ...any) { s.failAt(s.here(), format, args...) }

func (s *scanner) failAt(at position, format string, args ...any) {
	if s.err == nil {
		s.err = &ParseError{Offset: at.offset, Line: at.line, Column: at.column, Path: s.path(),
			Text: fmt.Sprintf(format, args...)}
	}
}

// more reads more bytes. It keeps the buffer from index keep on, and returns by how much those bytes moved to the
// front. ok is false at the end of the stream and after an error.
func (s *scanner) more(keep int) (moved int, ok bool) {
	if s.from == nil || s.err != nil {
		return 0, false
	}
	if len(s.buf)-keep >= bufferSize {
		s.fail("a text or number of more than %d bytes", bufferSize)
		return 0, false
	}
	n := copy(s.buf[:cap(s.buf)], s.buf[keep:])
	s.buf, s.base, s.pos = s.buf[:n], s.base+int64(keep), s.pos-keep
	for range 100 {
		n, err := s.from.Read(s.buf[len(s.buf):cap(s.buf)])
		s.buf = s.buf[:len(s.buf)+n]
		if s.base+int64(len(s.buf)) > s.limit {
			s.fail("want at most %d bytes, got more", s.limit)
			return keep, false
		}
		if err != nil {
			s.from = nil
			if err != io.EOF && s.err == nil {
				s.err = fmt.Errorf("read at byte %d: %w", s.base+int64(len(s.buf)), err)
				return keep, false
			}
		}
		if n > 0 {
			return keep, true
		}
		if err != nil {
			return keep, false
		}
	}
	s.err = fmt.Errorf("read at byte %d: %w", s.base+int64(len(s.buf)), io.ErrNoProgress)
	return keep, false
}

// peek skips white space and returns the next byte; 0 at the end.
func (s *scanner) peek() byte {
	if s.err != nil {
		return 0
	}
	for {
		for s.pos < len(s.buf) {
			c := s.buf[s.pos]
			if c > ' ' {
				return c
			}
			switch c {
			case '\n':
				s.line++
				s.start = s.base + int64(s.pos) + 1
			case ' ', '\t', '\r':
			default:
				return c
			}
			s.pos++
		}
		if _, ok := s.more(s.pos); !ok {
			return 0
		}
	}
}

// ended reports whether the file has ended.
func (s *scanner) ended() bool { return s.peek() == 0 && s.err == nil && s.pos == len(s.buf) }

// unexpected fails with what is wanted and what the file has.
func (s *scanner) unexpected(want string) {
	c := s.peek()
	switch {
	case s.err != nil:
	case s.pos == len(s.buf):
		s.fail("want %s, got the end of the file", want)
	default:
		s.fail("want %s, got %s", want, describe(c))
	}
}

// describe returns the kind of value that begins with a byte.
func describe(c byte) string {
	switch {
	case c == '{':
		return "an object"
	case c == '[':
		return "an array"
	case c == '"':
		return "a text"
	case c == 't' || c == 'f':
		return "true or false"
	case c == 'n':
		return "null"
	case startsNumber(c):
		return "a number"
	}
	return strconv.QuoteRune(rune(c))
}

// take skips one byte. It fails if the next byte is another one.
func (s *scanner) take(c byte, want string) bool {
	if s.peek() != c || s.err != nil {
		s.unexpected(want)
		return false
	}
	s.pos++
	return true
}

// next moves to the next element of an array or object, after the opening byte; first is true for the first element. If
// there is no more element, it skips the closing byte and returns false.
func (s *scanner) next(first bool, closing byte) bool {
	c := s.peek()
	if s.err != nil {
		return false
	}
	if c == closing {
		s.pos++
		return false
	}
	if first {
		return true // the element's parser checks what it is
	}
	if c != ',' {
		s.unexpected("a comma or " + strconv.QuoteRune(rune(closing)))
		return false
	}
	s.pos++
	if s.peek() == closing {
		s.fail("a comma before %q", closing)
		return false
	}
	return s.err == nil
}

// key reads a field's name and the colon. The bytes are valid until the next call.
func (s *scanner) key() ([]byte, bool) {
	if s.peek() != '"' {
		s.unexpected("a field's name in quotes")
		return nil, false
	}
	name, ok := s.string(maxText)
	if !ok {
		return nil, false
	}
	// The name may be in the buffer, and reading up to the colon may move the buffer.
	if s.pos < len(s.buf) && s.buf[s.pos] == ':' {
		s.pos++
		return name, true
	}
	s.text = append(s.text[:0], name...)
	return s.text, s.take(':', "a colon")
}

// string reads a string, whose opening quote is next. The bytes are valid until the next call.
func (s *scanner) string(limit int) ([]byte, bool) {
	at := s.here()
	from := s.pos
	i := from + 1
	plain := true
	for {
		for i < len(s.buf) && s.buf[i] != '"' && s.buf[i] != '\\' && s.buf[i] >= ' ' {
			i++
		}
		if i-from > limit+1 {
			s.failAt(at, "want a text of at most %d bytes", limit)
			return nil, false
		}
		if i+1 >= len(s.buf) && (i >= len(s.buf) || s.buf[i] == '\\') {
			moved, ok := s.more(from)
			i, from = i-moved, from-moved
			if !ok {
				s.failAt(at, "a text without an end")
				return nil, false
			}
			continue
		}
		switch s.buf[i] {
		case '"':
			raw := s.buf[from : i+1]
			s.pos = i + 1
			if plain && utf8.Valid(raw) {
				return raw[1 : len(raw)-1], true
			}
			var text string
			switch {
			case !utf8.Valid(raw):
				s.failAt(at, "a text that is not in UTF-8; save the file as UTF-8")
				return nil, false
			case json.Unmarshal(raw, &text) != nil:
				s.failAt(at, "a text that is not valid JSON")
				return nil, false
			}
			s.text = append(s.text[:0], text...)
			return s.text, true
		case '\\':
			plain = false
			i += 2
		default:
			s.pos = i
			s.fail("a control character in a text")
			return nil, false
		}
	}
}

// boolean reads true or false.
func (s *scanner) boolean() (value, ok bool) {
	if s.peek() == 't' {
		return true, s.word("true")
	}
	return false, s.word("false")
}

// word skips a literal.
func (s *scanner) word(word string) bool {
	for s.pos+len(word) > len(s.buf) {
		if _, ok := s.more(s.pos); !ok {
			break
		}
	}
	if s.err != nil {
		return false
	}
	if s.pos+len(word) > len(s.buf) || string(s.buf[s.pos:s.pos+len(word)]) != word {
		s.fail("want %s", word)
		return false
	}
	s.pos += len(word)
	return true
}

// skip skips one value of any kind. It fails if the value is not JSON.
func (s *scanner) skip() bool { return s.skipNested(0) }

func (s *scanner) skipNested(depth int) bool {
	if depth > maxDepth {
		s.fail("nested more than %d deep", maxDepth)
		return false
	}
	switch c := s.peek(); {
	case s.err != nil:
		return false
	case c == '{':
		s.pos++
		for first := true; s.next(first, '}'); first = false {
			if s.peek() != '"' {
				s.unexpected("a field's name in quotes")
				return false
			}
			if !s.skipString() || !s.take(':', "a colon") || !s.skipNested(depth+1) {
				return false
			}
		}
	case c == '[':
		s.pos++
		for first := true; s.next(first, ']'); first = false {
			if !s.skipNested(depth + 1) {
				return false
			}
		}
	case c == '"':
		return s.skipString()
	case c == 't' || c == 'f':
		_, ok := s.boolean()
		return ok
	case c == 'n':
		return s.word("null")
	case startsNumber(c):
		_, _, _, ok := s.number()
		return ok
	default:
		s.unexpected("a value")
	}
	return s.err == nil
}

// skipString skips a string of any length.
func (s *scanner) skipString() bool {
	at := s.here()
	s.pos++
	for {
		for s.pos < len(s.buf) {
			c := s.buf[s.pos]
			if c == '\\' {
				if s.pos+1 == len(s.buf) {
					break // the escaped byte is not read yet
				}
				if !strings.ContainsRune(`"\/bfnrtu`, rune(s.buf[s.pos+1])) {
					s.fail("an escape that JSON does not have")
					return false
				}
				s.pos += 2
				continue
			}
			if c < ' ' {
				s.fail("a control character in a text")
				return false
			}
			s.pos++
			if c == '"' {
				return true
			}
		}
		if _, ok := s.more(s.pos); !ok {
			s.failAt(at, "a text without an end")
			return false
		}
	}
}
