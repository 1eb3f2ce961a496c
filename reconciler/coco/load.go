package coco

import (
	"fmt"
	"io"
	"math"
)

// A Loader reads COCO files. The zero value reads all of them. Fields that AOB does not use, such as segmentation, are
// skipped. What is wrong in a file is a *ParseError with the place; errors of the reader are wrapped.
type Loader struct {
	// Group names the field of images, a text or a whole number, that becomes Image.Group, such as "video". An image
	// without it is then an error. If Group is empty, images have no group.
	Group string
	// Scenes reads where and when images were taken: the field date_captured or datetime, and the field site, camera,
	// location or video, of an image or of its field extra or attributes.
	Scenes bool
	// Size returns the size of an image's file in pixels, or zeros if it is not known. An image that is -1 x -1, which
	// VGG Image Annotator 3 writes, then has the size of its file. Where an annotation file says another size than the
	// image's own, boxes are not compared with the image: which of the two they were drawn for is not known.
	Size     func(Image) (width, height int)
	MaxBytes int64 // of a file; zero means 4 GiB
	MaxItems int   // of images, categories, annotations or detections in a file; zero means 20 million
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

// ReadTruth reads a COCO annotation file: an object with images, categories and annotations. Images need an id,
// categories an id and a name, annotations an id, image_id, category_id, bbox and area. Ids are whole numbers without
// duplicates. [Match] accepts the truth that it returns.
func (l Loader) ReadTruth(r io.Reader) (*Truth, error) {
	t, _, err := l.readTruth(r, false)
	return t, err
}

// ReadTruthLenient reads an annotation file and returns what is wrong in it, in the order of the file and at most
// 10,000 problems, with a truth of the items that are valid. It returns an error if the file is not JSON, or has not
// the shape of an annotation file.
func (l Loader) ReadTruthLenient(r io.Reader) (*Truth, []Problem, error) { return l.readTruth(r, true) }

// ReadDetections reads COCO results: an array of objects with image_id, category_id, bbox and score. An id that is not
// in truth is an error, unless truth is nil.
func (l Loader) ReadDetections(r io.Reader, truth *Truth) ([]Detection, error) {
	return l.readDetections(r, truth, splitFrom)
}

// A parser reads the values in COCO files. If it is lenient, it records what is wrong with an item and goes on;
// otherwise the first problem is its error.
type parser struct {
	scanner
	loader   Loader
	lenient  bool
	problems []Problem
	unlisted int                    // problems beyond maxProblems
	size     int64                  // of the file in bytes; 0 if unknown
	origin   int64                  // offset of the file in a reader that can seek
	stop     func(at position) bool // called before each element of an array; true ends the array
	later    bool                   // complaints about empty lists wait for the end of the annotation
	empty    []emptyList            // fields of the current annotation
	fields   uint32                 // a bit for each field of the current object that was read
}

func newParser(l Loader, r io.Reader) *parser {
	l = l.withDefaults()
	p := &parser{loader: l, scanner: newScanner(r, l.MaxBytes)}
	if s, ok := r.(io.Seeker); ok {
		p.origin, p.size = extent(s)
	}
	return p
}

// extent returns the reader's offset and the number of bytes from there to its end; 0 if it cannot seek, like a pipe.
func extent(s io.Seeker) (at, size int64) {
	at, err := s.Seek(0, io.SeekCurrent)
	end, endErr := s.Seek(0, io.SeekEnd)
	if _, backErr := s.Seek(at, io.SeekStart); err != nil || endErr != nil || backErr != nil {
		return 0, 0
	}
	return at, end - at
}

// expect estimates how many items a list will have, from the size of the first n, so that memory is allocated once. The
// estimate is at least n+1, and at most 1024 n because the size of a file may be wrong.
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

// complain records a problem with an item.
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

// array calls item with the position of each element of an array.
func (p *parser) array(list string, item func(at position)) {
	p.list, p.field, p.item = "", list, 0
	if p.take('[', "an array") {
		p.elements(list, item)
	}
}

// elements does what array does, after the opening bracket.
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

// object calls field for each field of an object; field reads the value. If the next value is not an object, it
// complains and returns false.
func (p *parser) object(field func(name []byte)) bool {
	if p.peek() != '{' {
		p.mismatch("an object")
		return false
	}
	p.fields = 0
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

// enter begins to read field n of an object, counted from 0. If the object had the field before, it complains, skips
// the value and returns false.
func (p *parser) enter(n int, name string) bool {
	p.field = name
	p.peek()
	if p.fields&(1<<n) != 0 {
		p.complain(p.here(), DuplicateField, "a second field of this name")
		p.skip()
		return false
	}
	p.fields |= 1 << n
	return p.err == nil
}

// id reads field n of an object, a whole number.
func (p *parser) id(n int, name string, v *int64) (ok bool) {
	if p.enter(n, name) {
		*v, ok = p.whole(math.MinInt64, math.MaxInt64)
	}
	return ok
}

// need complains about each of the fields that the object at a position lacks.
func (p *parser) need(at position, names ...string) {
	for n, name := range names {
		if p.fields&(1<<n) != 0 {
			continue
		}
		kind, text := MissingField, "missing"
		switch name {
		case "bbox":
			kind = MissingBox
		case "area":
			text += "; without a mask it is the width of the box times its height"
		}
		p.field = name
		p.complain(at, kind, "%s", text)
		p.field = ""
	}
}

// mismatch complains about the next value and skips it.
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

// whole reads a whole number between two bounds. 2.0 and 2e0 are whole too, since some programs write them.
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

// finite reads a finite number.
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
	n, valid := 0, true
	for first := true; p.next(first, ']'); first = false {
		if n >= len(v) || !valid { // one problem of a box is enough
			p.skip()
		} else if x, ok := p.finite(); ok {
			v[n] = x
		} else {
			valid = false
		}
		n++
	}
	b := Box{v[0], v[1], v[2], v[3]}
	switch text := b.fault(); {
	case p.err != nil:
	case n == 0 && p.later:
		p.empty = append(p.empty, emptyList{at, "bbox"})
	case !valid:
	case n != len(v):
		p.complain(at, WrongType, "want 4 numbers, got %d", n)
	case b.W < 0 || b.H < 0:
		before := len(p.problems)
		if p.complain(at, NegativeBox, "want width and height from 0 up, got %v x %v", b.W, b.H); before <
			len(p.problems) {
			p.problems[before].Got = b
		}
	case text != "":
		p.complain(at, OutOfRange, "%s", text)
	default:
		return b, true
	}
	return Box{}, false
}

// name reads a string.
func (p *parser) name() (string, bool) {
	if p.peek() != '"' {
		p.mismatch("a text")
		return "", false
	}
	b, ok := p.string(maxText)
	return string(b), ok
}

// flag reads true, false, 0 or 1.
func (p *parser) flag() (value, ok bool) {
	switch c := p.peek(); {
	case c == 't' || c == 'f':
		return p.boolean()
	case startsNumber(c):
		at := p.here()
		v, ok := p.finite()
		if ok && v != 0 && v != 1 { // programs disagree about other numbers
			p.complain(at, WrongType, "want 0 or 1, got %v", v)
			return false, false
		}
		return v != 0, ok
	}
	p.mismatch("0 or 1")
	return false, false
}

// end fails unless the file ends here.
func (p *parser) end() {
	p.list, p.field = "", ""
	if !p.ended() && p.err == nil {
		p.unexpected("the end of the file")
	}
}

// begin fails unless the file begins with the opening byte.
func (p *parser) begin(want string, opening byte) {
	if p.ended() {
		p.fail("empty file: want %s", want)
		return
	}
	if p.peek() != opening {
		p.unexpected(want)
	}
}
