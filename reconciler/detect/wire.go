package detect

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// The child speaks in lines of JSON. On its standard output the first is a
// hello, the last a result or a failure, and evaluate writes one for each image
// between them. Standard input carries evaluate's request: a header line, then
// a line for each image.

// A message is one line of the child's: exactly one part is set.
type message struct {
	Hello     *hello      `json:"hello,omitempty"`
	Image     *imageLine  `json:"image,omitempty"`     // evaluate, one an image, in order
	Done      *int        `json:"done,omitempty"`      // evaluate, last: how many images
	Inspected *Inspection `json:"inspected,omitempty"` // inspect, last
	Ready     *bool       `json:"ready,omitempty"`     // serve, once it answers
	Failure   *failure    `json:"failure,omitempty"`   // last
}

// A hello keeps programs of different versions from mixing their numbers.
type hello struct {
	Protocol int    `json:"protocol"`
	Numerics string `json:"numerics"`
}

// UnmarshalJSON reads a hello of any version: a later one may say more.
func (h *hello) UnmarshalJSON(data []byte) error {
	type known hello
	return json.Unmarshal(data, (*known)(h))
}

// wireForm is one less than the number of forms that the lines had. It rises where an older program would misread them.
const wireForm = 0

// ourHello has another protocol for each form of the lines and for each version of signatures, so that an aob-detect
// that cannot read a bundle's signature is told from a bundle that is at fault.
var ourHello = hello{Protocol: wireForm + delivery.SignatureVersion, Numerics: Numerics}

// An Inspection is what aob-detect finds in a model.
type Inspection struct {
	Signature delivery.Signature `json:"signature"`
	Golden    []byte             `json:"golden"` // golden.bin
}

// An imageLine is what was found on one image. Boxes are slot, score, x, y, w,
// h: names come from the signature, which the other side has.
type imageLine struct {
	ID     int64        `json:"id"`
	Width  int          `json:"width"`
	Height int          `json:"height"`
	Boxes  [][6]float64 `json:"boxes"`
}

// What a failure is about.
const (
	failModel   = "model"
	failImage   = "image"
	failRequest = "request"
)

type failure struct {
	About string `json:"about"`
	Path  string `json:"path,omitempty"`
	Why   string `json:"why"`
}

// failureOf puts an error on the wire.
func failureOf(err error) *failure {
	if e, ok := errors.AsType[*ModelError](err); ok {
		return &failure{failModel, e.Path, tidy(e.Why, maxWhy)}
	}
	if e, ok := errors.AsType[*ImageError](err); ok {
		return &failure{failImage, e.Path, tidy(e.Why, maxWhy)}
	}
	return &failure{failRequest, "", tidy(err.Error(), maxWhy)}
}

// err takes it off again.
func (f failure) err() error {
	why := tidy(f.Why, maxWhy)
	switch f.About {
	case failModel:
		return &ModelError{Path: tidy(f.Path, maxPath), Why: why}
	case failImage:
		return &ImageError{Path: tidy(f.Path, maxPath), Why: why}
	}
	return errors.New(why)
}

// Bounds of the wire.
const (
	maxLine = 16 << 20 // a golden in base64 is the largest
	maxWhy  = 2000
	maxPath = 4096
)

// tidy makes text from a child fit to print: what a hostile model says may
// reach a terminal, a log or a comment.
func tidy(s string, limit int) string {
	s = delivery.Terminal(s)
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}

// writeLine writes v as one line of JSON.
func writeLine(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

// parseLine reads one line of JSON into v. It refuses unknown fields and
// anything after the value.
func parseLine(line []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("more than one value")
	}
	return nil
}

// parseMessage reads one line of a child's, which may be anything.
func parseMessage(line []byte) (message, error) {
	var m message
	if err := parseLine(line, &m); err != nil {
		return message{}, err
	}
	parts := 0
	for _, set := range []bool{m.Hello != nil, m.Image != nil, m.Done != nil, m.Inspected != nil, m.Ready != nil,
		m.Failure != nil} {
		if set {
			parts++
		}
	}
	if parts != 1 {
		return message{}, fmt.Errorf("%d parts, want one", parts)
	}
	return m, nil
}

// detections checks a line against the request and puts names to slots.
func (l imageLine) detections(image ImageFile, sig delivery.Signature) (ImageDetections, error) {
	if l.ID != image.ID {
		return ImageDetections{}, fmt.Errorf("image %d where %d was asked", l.ID, image.ID)
	}
	if l.Width < 1 || l.Height < 1 || int64(l.Width) > MaxPixels || int64(l.Height) > MaxPixels ||
		int64(l.Width)*int64(l.Height) > MaxPixels {
		return ImageDetections{}, fmt.Errorf("image %d: %d x %d pixels", l.ID, l.Width, l.Height)
	}
	if len(l.Boxes) > sig.Select {
		return ImageDetections{}, fmt.Errorf("image %d: %d boxes, want at most %d", l.ID, len(l.Boxes), sig.Select)
	}
	list := make([]found, len(l.Boxes))
	last := 1.0
	for i, b := range l.Boxes {
		f := found{slot: int(b[0]), score: b[1], x: b[2], y: b[3], w: b[4], h: b[5]}
		switch {
		case float64(f.slot) != b[0] || f.slot < 0 || f.slot >= len(sig.Slots) || f.slot == sig.Background ||
			sig.Slots[f.slot] == "":
			return ImageDetections{}, fmt.Errorf("image %d: box %d: slot %v is no class", l.ID, i, b[0])
		case !(f.score >= 0 && f.score <= last):
			return ImageDetections{}, fmt.Errorf("image %d: box %d: score %v after %v", l.ID, i, f.score, last)
		case !(f.w >= 0 && f.h >= 0) || math.IsInf(f.x+f.y+f.w+f.h, 0):
			return ImageDetections{}, fmt.Errorf("image %d: box %d: %v", l.ID, i, b[2:])
		}
		last = f.score
		list[i] = f
	}
	return ImageDetections{ID: l.ID, Width: l.Width, Height: l.Height, Boxes: named(sig, list)}, nil
}

// A header is the first line of evaluate's request.
type header struct {
	Model     string             `json:"model"`
	Signature delivery.Signature `json:"signature"`
	Images    int                `json:"images"`
}

// MaxImages bounds a request.
const MaxImages = 1_000_000

// An imageRequest is each further line of it.
type imageRequest struct {
	ID   int64  `json:"id"`
	Path string `json:"path"`
}
