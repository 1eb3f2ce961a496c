package serve

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"
)

// A cursor reads JSON strictly: a value has to have the expected type, a name may be in an object once, and nothing
// may follow the value. It makes no tree, because a request can have millions of numbers.
type cursor struct {
	data []byte
	at   int
}

// maxDepth is how deep values may be nested.
const maxDepth = 32

func (c *cursor) fail(format string, args ...any) error {
	return invalid("JSON, at byte %d: %s", c.at, fmt.Sprintf(format, args...))
}

// next skips white space and returns the next byte, 0 at the end.
func (c *cursor) next() byte {
	for c.at < len(c.data) {
		switch b := c.data[c.at]; b {
		case ' ', '\t', '\n', '\r':
			c.at++
		default:
			return b
		}
	}
	return 0
}

// expect reads one byte.
func (c *cursor) expect(b byte, what string) error {
	if c.next() != b {
		return c.fail("want %s", what)
	}
	c.at++
	return nil
}

// end returns an error if there is more.
func (c *cursor) end() error {
	if c.next(); c.at != len(c.data) {
		return c.fail("there is data after the value")
	}
	return nil
}

// object reads an object. fields has a reader for the value of each known name. The value of an unknown name is an
// error, or is skipped if others is true.
func (c *cursor) object(others bool, fields map[string]func() error) error {
	if err := c.expect('{', "an object"); err != nil {
		return err
	}
	var seen []string
	if c.next() == '}' {
		c.at++
		return nil
	}
	for {
		at := c.at
		name, err := c.text()
		if err != nil {
			return err
		}
		if err := c.expect(':', "a colon after the name"); err != nil {
			return err
		}
		read, known := fields[name]
		switch {
		case known && slices.Contains(seen, name):
			c.at = at
			return c.fail("%q is there twice", name)
		case known:
			seen = append(seen, name)
			err = read()
		case others:
			err = c.skip(maxDepth)
		default:
			c.at = at
			return c.fail("unknown name %.100q", name)
		}
		if err != nil {
			return err
		}
		more, err := c.more('}', "the object")
		if !more {
			return err
		}
	}
}

// more reads a comma, or the end of an array or object.
func (c *cursor) more(end byte, what string) (bool, error) {
	switch c.next() {
	case ',':
		c.at++
		return true, nil
	case end:
		c.at++
		return false, nil
	}
	return false, c.fail("want a comma or the end of %s", what)
}

// array reads an array; each reads its value number i.
func (c *cursor) array(each func(i int) error) error {
	if err := c.expect('[', "an array"); err != nil {
		return err
	}
	if c.next() == ']' {
		c.at++
		return nil
	}
	for i := 0; ; i++ {
		if err := each(i); err != nil {
			return err
		}
		more, err := c.more(']', "the array")
		if !more {
			return err
		}
	}
}

// text reads a string.
func (c *cursor) text() (string, error) {
	b, err := c.bytes()
	return string(b), err
}

// bytes reads a string. It shares the memory of the JSON if the string has no escapes.
func (c *cursor) bytes() ([]byte, error) {
	if err := c.expect('"', "a string"); err != nil {
		return nil, err
	}
	begin, escaped := c.at, false
	for ; c.at < len(c.data); c.at++ {
		switch b := c.data[c.at]; {
		case b == '"':
			content := c.data[begin:c.at]
			c.at++
			if !utf8.Valid(content) {
				return nil, c.fail("the string is not UTF-8")
			}
			if !escaped {
				return content, nil
			}
			var s string
			if err := json.Unmarshal(c.data[begin-1:c.at], &s); err != nil {
				return nil, c.fail("the string is malformed")
			}
			return []byte(s), nil
		case b == '\\':
			escaped = true
			c.at++
		case b < ' ':
			return nil, c.fail("a control character in a string")
		}
	}
	return nil, c.fail("a string does not end")
}

// number reads the text of a number.
func (c *cursor) number() ([]byte, error) {
	c.next()
	begin, d := c.at, c.data
	digits := func() bool {
		from := c.at
		for c.at < len(d) && d[c.at] >= '0' && d[c.at] <= '9' {
			c.at++
		}
		return c.at > from
	}
	is := func(b byte) bool { return c.at < len(d) && d[c.at] == b }
	if is('-') {
		c.at++
	}
	ok := true
	if is('0') {
		c.at++
	} else {
		ok = digits()
	}
	if ok && is('.') {
		c.at++
		ok = digits()
	}
	if ok && (is('e') || is('E')) {
		c.at++
		if is('+') || is('-') {
			c.at++
		}
		ok = digits()
	}
	if !ok {
		c.at = begin
		return nil, c.fail("want a number")
	}
	return d[begin:c.at], nil
}

// whole reads a whole number from 0 to 2^53.
func (c *cursor) whole() (int64, error) {
	text, err := c.number()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(string(text), 10, 53)
	if err != nil {
		return 0, c.fail("want a whole number that is not negative, got %.40s", text)
	}
	return int64(n), nil
}

func (c *cursor) float() (float64, error) {
	text, err := c.number()
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return 0, c.fail("the number %.40s is too large", text)
	}
	return v, nil
}

func (c *cursor) boolean() (bool, error) {
	c.next()
	for _, v := range []bool{true, false} {
		if c.word(strconv.FormatBool(v)) {
			return v, nil
		}
	}
	return false, c.fail("want true or false")
}

// null reads null, if it is next.
func (c *cursor) null() bool {
	c.next()
	return c.word("null")
}

// optional is for a name whose value may be null, which clients write for what they leave out.
func (c *cursor) optional(read func() error) func() error {
	return func() error {
		if c.null() {
			return nil
		}
		return read()
	}
}

func (c *cursor) word(word string) bool {
	if len(c.data)-c.at < len(word) || string(c.data[c.at:c.at+len(word)]) != word {
		return false
	}
	c.at += len(word)
	return true
}

// skip reads any value.
func (c *cursor) skip(depth int) error {
	if depth == 0 {
		return c.fail("values are nested too deep")
	}
	switch b := c.next(); {
	case b == '{':
		c.at++
		if c.next() == '}' {
			c.at++
			return nil
		}
		for {
			if _, err := c.bytes(); err != nil {
				return err
			}
			if err := c.expect(':', "a colon after the name"); err != nil {
				return err
			}
			if err := c.skip(depth - 1); err != nil {
				return err
			}
			if more, err := c.more('}', "the object"); !more {
				return err
			}
		}
	case b == '[':
		return c.array(func(int) error { return c.skip(depth - 1) })
	case b == '"':
		_, err := c.bytes()
		return err
	case b == 't' || b == 'f':
		_, err := c.boolean()
		return err
	case b == 'n':
		if !c.null() {
			return c.fail("want a value")
		}
		return nil
	case b == '-' || b >= '0' && b <= '9':
		_, err := c.number()
		return err
	}
	return c.fail("want a value")
}

// tensor reads the values of a tensor: in one array, or nested as the shape is.
func (c *cursor) tensor(shape []int64) ([]float32, error) {
	if c.next() != '[' {
		return nil, c.fail("want an array")
	}
	inside := cursor{c.data, c.at + 1}
	n := elements(shape)
	if inside.next() != '[' {
		shape = []int64{n} // one array
	}
	var out []float32
	if int64(len(c.data)-c.at) > 2*n { // a digit and a comma or bracket each; else an array ends too early
		out = make([]float32, n)
	}
	return out, c.floats(out, 0, shape)
}

// floats reads the values of an array of a shape into out, from an index on. out is nil if there are too few.
func (c *cursor) floats(out []float32, from int64, shape []int64) error {
	want, step := shape[0], elements(shape[1:])
	got := int64(0)
	err := c.array(func(i int) error {
		if got = int64(i) + 1; got > want {
			return c.fail("an array of data has more than %d values", want)
		}
		if len(shape) > 1 {
			return c.floats(out, from+int64(i)*step, shape[1:])
		}
		text, err := c.number()
		if err != nil {
			return err
		}
		v, err := strconv.ParseFloat(string(text), 32)
		if err != nil {
			return c.fail("the number %.40s is too large for FP32", text)
		}
		if out != nil {
			out[from+int64(i)] = float32(v)
		}
		return nil
	})
	if err == nil && got < want {
		return c.fail("an array of data has %d values, want %d", got, want)
	}
	return err
}
