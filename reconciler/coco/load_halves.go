package coco

import "io"

// splitFrom is the least size of a file, in bytes, for which two parsers are faster than one.
const splitFrom = 1 << 20

// A half is the second half of a file, which is read at the same time as the first. It begins at a guess of where an
// element of the array begins. If the guess is wrong or the half has an error, the first parser reads on to the end and
// reports the error at its place.
type half struct {
	*detectionParser
	at   int64         // its offset in the file
	done chan struct{} // closed when all of it is read
}

// split begins to read the second half of a file. It returns nil if that is not possible, or the file is too small.
func (p *detectionParser) split(r io.Reader, from int64) *half {
	file, ok := r.(io.ReaderAt)
	if !ok || p.err != nil || p.size < from || p.size > p.loader.MaxBytes {
		return nil
	}
	at := p.size/2 + betweenObjects(io.NewSectionReader(file, p.origin+p.size/2, 1<<16))
	if at == p.size/2 {
		return nil
	}
	h := &half{at: at, done: make(chan struct{})}
	rest := io.NewSectionReader(file, p.origin+at, p.size-at)
	h.detectionParser = &detectionParser{parser: newParser(p.loader, rest), known: p.known}
	go func() {
		defer close(h.done)
		h.elements("detections", h.detection)
		h.end()
	}()
	return h
}

// continues waits for the second half, and reports whether it begins at an element that the first parser would read
// next, and is valid.
func (h *half) continues(at position, first *parser) bool {
	if at.offset != h.at {
		return false
	}
	<-h.done
	return h.err == nil && first.err == nil && first.item+h.item <= first.loader.MaxItems
}

// betweenObjects returns the offset of the first object that follows another one, or 0.
func betweenObjects(r io.Reader) int64 {
	text, err := io.ReadAll(r)
	if err != nil {
		return 0
	}
	var before byte // the last two bytes that are not white space are } and ,
	comma := false
	for i, c := range text {
		switch {
		case c == ' ' || c == '\n' || c == '\r' || c == '\t':
			continue
		case c == '{' && comma && before == '}':
			return int64(i)
		case c == ',':
			comma = true
			continue
		}
		before, comma = c, false
	}
	return 0
}
