package coco

import (
	"bytes"
	"io"
)

// splitFrom is the size of a file from which two parsers are faster than one.
const splitFrom = 1 << 20

// half is the second half of a file, which is being read beside the first. That
// it begins where an element of the array does is only a guess until the first
// half has been read; where the guess is wrong, or anything in it is, the first
// parser goes on to the end, and finds what there is to find at its place.
type half struct {
	*detectionParser
	at   int64         // where it begins in the file
	done chan struct{} // closed when it has been read
}

// split begins to read the second half of a file, if there is a way to.
func (p *detectionParser) split(r io.Reader, data []byte, from int64) *half {
	if p.err != nil || p.size < from || p.size > p.loader.MaxBytes {
		return nil
	}
	file, ok := r.(io.ReaderAt)
	switch {
	case data != nil:
		file = bytes.NewReader(data)
	case !ok:
		return nil
	}
	at := p.size/2 + betweenObjects(io.NewSectionReader(file, p.origin+p.size/2, 1<<16))
	if at == p.size/2 {
		return nil
	}
	h := &half{at: at, done: make(chan struct{})}
	rest := io.NewSectionReader(file, p.origin+at, p.size-at)
	h.detectionParser = &detectionParser{parser: newParser(p.loader, rest, nil), known: p.known}
	go func() {
		defer close(h.done)
		h.elements("detections", h.detection)
		h.end()
	}()
	return h
}

// continues waits for the second half and says whether it follows on a place
// where the first parser expects an element.
func (h *half) continues(at position, first *parser) bool {
	if at.offset != h.at {
		return false
	}
	<-h.done
	return h.err == nil && first.err == nil && first.item+h.item <= first.loader.MaxItems
}

// betweenObjects finds the brace that opens an object after another, or 0.
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
