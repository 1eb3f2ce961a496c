package coco

import (
	"fmt"
	"io"
	"math"
)

// Loader reads COCO files. The zero value reads any of them; fields narrow what
// is accepted or widen what is kept. Fields that COCO has and AOB does not use,
// such as segmentation, are passed over.
//
// What a file says wrongly is a *ParseError with the place. Errors of the
// reader are wrapped.
type Loader struct {
	// Group names the image field, a text or a whole number, whose value is
	// kept as Image.Group, for instance "video". Images without the field are
	// then an error. Empty keeps none.
	Group string
	// MaxBytes bounds the file. Zero means 4 GiB.
	MaxBytes int64
	// MaxItems bounds the images, the categories, the annotations and the
	// detections of a file, each. Zero means 20 million.
	MaxItems int
}

func (l Loader) withDefaults() Loader {
	if l.MaxBytes <= 0 {
		l.MaxBytes = 4 << 30
	}
	if l.MaxItems <= 0 || l.MaxItems > maxItems {
		l.MaxItems = maxItems
	}
	return l
}

const maxItems = 20_000_000 // indexes are 32 bits wide

// ReadTruth reads a COCO annotation file: an object with images, categories and
// annotations. Images need an id, categories an id and a name, annotations an
// id, image_id, category_id, bbox and area. Ids are whole numbers, each used
// once. The truth that it returns is sound: [Match] accepts it.
func ReadTruth(r io.Reader) (*Truth, error) { return Loader{}.ReadTruth(r) }

// ParseTruth is ReadTruth for a file in memory.
func ParseTruth(data []byte) (*Truth, error) { return Loader{}.ParseTruth(data) }

// ReadTruth is the function ReadTruth with the loader's settings.
func (l Loader) ReadTruth(r io.Reader) (*Truth, error) {
	t, _, err := l.readTruth(r, nil, false)
	return t, err
}

// ParseTruth is the function ParseTruth with the loader's settings.
func (l Loader) ParseTruth(data []byte) (*Truth, error) {
	t, _, err := l.readTruth(nil, data, false)
	return t, err
}

// ReadDetections reads COCO results: an array of objects with image_id,
// category_id, bbox and score. Ids that are not in truth are errors; a nil
// truth leaves that to Match.
func ReadDetections(r io.Reader, truth *Truth) ([]Detection, error) {
	return Loader{}.ReadDetections(r, truth)
}

// ParseDetections is ReadDetections for a file in memory.
func ParseDetections(data []byte, truth *Truth) ([]Detection, error) {
	return Loader{}.ParseDetections(data, truth)
}

// ReadDetections is the function ReadDetections with the loader's settings.
func (l Loader) ReadDetections(r io.Reader, truth *Truth) ([]Detection, error) {
	return l.readDetections(r, nil, truth, splitFrom)
}

// ParseDetections is the function ParseDetections with the loader's settings.
func (l Loader) ParseDetections(data []byte, truth *Truth) ([]Detection, error) {
	return l.readDetections(nil, data, truth, splitFrom)
}

// parser reads the values that COCO files are made of. Where it is lenient, it
// notes what is wrong with an item and goes on; else the first is the error.
type parser struct {
	scanner
	loader   Loader
	lenient  bool
	problems []Problem
	unlisted int                    // problems beyond maxProblems
	size     int64                  // bytes of the file; 0 where it cannot be known
	origin   int64                  // where the file begins in a reader that can seek
	stop     func(at position) bool // asked before each element of an array; nil goes on
	seen     uint32                 // fields of the current object
}

func newParser(l Loader, r io.Reader, data []byte) *parser {
	l = l.withDefaults()
	p := &parser{loader: l, scanner: newScanner(r, data, l.MaxBytes), size: int64(len(data))}
	if s, ok := r.(io.Seeker); ok {
		p.origin, p.size = extent(s)
	}
	return p
}

// extent is where a reader stands and how many bytes it has before its end; 0
// where it cannot tell, as a pipe.
func extent(s io.Seeker) (at, size int64) {
	at, err := s.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, 0
	}
	end, err := s.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, 0
	}
	if _, err := s.Seek(at, io.SeekStart); err != nil {
		return 0, 0 // reading will say so
	}
	return at, end - at
}

// expect says how many items a list will have, from the bytes that the n read
// so far took, so that memory is taken once. It is a guess, at least n+1, and not beyond what n
// can vouch for.
func (p *parser) expect(n int) int {
	if n < 1000 {
		return 1000
	}
	guess := n + n/4
	if read := p.base + int64(p.pos); p.size > read {
		rest := float64(p.size-read) / float64(read)
		guess = n + int(float64(float64(n)*rest)*1.01) + 100
	}
	return max(min(guess, n<<10, p.loader.MaxItems), n+1)
}

// complain notes a problem with an item.
func (p *parser) complain(at position, kind Kind, format string, args ...any) {
	switch {
	case p.err != nil:
	case !p.lenient:
		p.failAt(at, format, args...)
	case len(p.problems) == maxProblems:
		p.unlisted++
	default:
		p.problems = append(p.problems, Problem{
			Path: p.path(), Kind: kind, Text: fmt.Sprintf(format, args...),
			Offset: at.offset, Line: at.line, Column: at.column,
		})
	}
}

// array calls item for each element of an array, with the place of its start.
func (p *parser) array(list string, item func(at position)) {
	p.list, p.field, p.item = "", list, 0
	if p.take('[', "an array") {
		p.elements(list, item)
	}
}

// elements is array from the first element on.
func (p *parser) elements(list string, item func(at position)) {
	for first := true; p.next(first, ']'); first = false {
		if p.item == p.loader.MaxItems {
			p.fail("want at most %d %s", p.loader.MaxItems, list)
			return
		}
		p.list, p.field = list, ""
		p.peek()
		at := p.here()
		if p.stop != nil && p.stop(at) {
			return
		}
		item(at)
		p.field = ""
		p.item++
		if p.err != nil {
			return
		}
	}
	p.list, p.field = "", ""
}

// object calls field for each field of an object; field takes the value. It
// returns false, and complains, if the next value is no object.
func (p *parser) object(field func(name []byte)) bool {
	if p.peek() != '{' {
		p.mismatch("an object")
		return false
	}
	p.seen = 0
	p.pos++
	for first := true; p.next(first, '}'); first = false {
		name, ok := p.key()
		if !ok {
			return false
		}
		field(name)
		p.field = ""
		if p.err != nil {
			return false
		}
	}
	return p.err == nil
}

// enter begins a field that may be there once; n tells it from the others of
// its object. It returns false, having passed over the value, at the second.
func (p *parser) enter(n int, name string) bool {
	p.field = name
	p.peek()
	if p.seen&(1<<n) != 0 {
		p.complain(p.here(), DuplicateField, "a second field of this name")
		p.skip()
		return false
	}
	p.seen |= 1 << n
	return p.err == nil
}

// need complains of fields that the object at a place did not have.
func (p *parser) need(at position, names ...string) {
	for n, name := range names {
		if p.seen&(1<<n) != 0 {
			continue
		}
		kind := MissingField
		if name == "bbox" {
			kind = MissingBox
		}
		p.field = name
		p.complain(at, kind, "missing")
		p.field = ""
	}
}

// mismatch complains of the next value, and passes over it if it is one.
func (p *parser) mismatch(want string) {
	c := p.peek()
	if p.err != nil {
		return
	}
	if p.pos == len(p.buf) || !p.lenient {
		p.unexpected(want)
		return
	}
	at := p.here()
	if p.skip() {
		p.complain(at, WrongType, "want %s, got %s", want, describe(c))
	}
}

// whole reads a whole number between two bounds; 2.0 and 2e0 are whole too, as
// tools that know only one kind of number write them.
func (p *parser) whole(low, high int64) (int64, bool) {
	if !startsNumber(p.peek()) {
		p.mismatch("a whole number")
		return 0, false
	}
	at := p.here()
	v, n, whole, ok := p.number()
	if ok && !whole && v == math.Trunc(v) && math.Abs(v) <= 1<<53 {
		n, whole = int64(v), true
	}
	switch {
	case !ok:
		return 0, false
	case !whole:
		kind := WrongType
		if !finite(v) {
			kind = NotFinite
		}
		p.complain(at, kind, "want a whole number, got %v", v)
		return 0, false
	case n < low || n > high:
		p.complain(at, OutOfRange, "want a whole number from %d to %d, got %d", low, high, n)
		return 0, false
	}
	return n, true
}

// finite reads a number.
func (p *parser) finite() (float64, bool) {
	if !startsNumber(p.peek()) {
		p.mismatch("a number")
		return 0, false
	}
	at := p.here()
	v, _, _, ok := p.number()
	if !ok {
		return 0, false
	}
	if !finite(v) {
		p.complain(at, NotFinite, "want a finite number, got %v", v)
		return 0, false
	}
	return v, true
}

// box reads [x, y, width, height].
func (p *parser) box() (Box, bool) {
	if p.peek() != '[' {
		p.mismatch("an array [x, y, width, height]")
		return Box{}, false
	}
	at := p.here()
	p.pos++
	var v [4]float64
	n, sound := 0, true
	for first := true; p.next(first, ']'); first = false {
		if n >= len(v) {
			p.skip()
		} else if x, ok := p.finite(); ok {
			v[n] = x
		} else {
			sound = false
		}
		n++
	}
	b := Box{v[0], v[1], v[2], v[3]}
	switch {
	case p.err != nil:
		return Box{}, false
	case n != len(v):
		p.complain(at, WrongType, "want 4 numbers, got %d", n)
		return Box{}, false
	case !sound:
		return Box{}, false
	}
	if b.W < 0 || b.H < 0 {
		p.complain(at, EmptyBox, "want width and height from 0 up, got %v x %v", b.W, b.H)
		return Box{}, false
	}
	if text := b.fault(); text != "" {
		p.complain(at, OutOfRange, "%s", text)
		return Box{}, false
	}
	return b, true
}

// name reads a text.
func (p *parser) name() (string, bool) {
	if p.peek() != '"' {
		p.mismatch("a text")
		return "", false
	}
	b, ok := p.string(maxText)
	return string(b), ok
}

// flag reads a truth value: true, false, or a number of which 0 is false.
func (p *parser) flag() (value, ok bool) {
	switch c := p.peek(); {
	case c == 't' || c == 'f':
		return p.boolean()
	case startsNumber(c):
		at := p.here()
		v, ok := p.finite()
		if ok && v != 0 && v != 1 { // tools make of others what their arithmetic makes of them
			p.complain(at, WrongType, "want 0 or 1, got %v", v)
			return false, false
		}
		return v != 0, ok
	}
	p.mismatch("0 or 1")
	return false, false
}

// end refuses anything after the value.
func (p *parser) end() {
	p.list, p.field = "", ""
	if !p.ended() && p.err == nil {
		p.unexpected("the end of the file")
	}
}

// begin refuses a file without any content.
func (p *parser) begin(want string, opening byte) {
	if p.ended() {
		p.fail("empty file: want %s", want)
		return
	}
	if p.peek() != opening {
		p.unexpected(want)
	}
}
