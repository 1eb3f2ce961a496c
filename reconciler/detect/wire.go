package detect

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/profile"
)

// The child and its parent exchange lines of JSON. On the child's standard output the first line is a
// hello and the last one a result or a failure; evaluate writes one line per image between them.
// Standard input has evaluate's request: a header, then one line per image.

// A message is one line of the child's output. Exactly one field is set.
type message struct {
	Hello     *hello       `json:"hello,omitempty"`
	Image     *imageLine   `json:"image,omitempty"`     // evaluate, one per image, in order
	Done      *int         `json:"done,omitempty"`      // evaluate, last: the number of images
	Inspected *Inspection  `json:"inspected,omitempty"` // inspect, last
	Described *Declaration `json:"described,omitempty"` // describe, last
	Ready     *bool        `json:"ready,omitempty"`     // serve, when it is ready
	Provider  *string      `json:"provider,omitempty"`  // provider, last
	// Building is about the engine of a profile with TensorRT: serve, evaluate and build, before the rest.
	Building *profile.Progress `json:"building,omitempty"`
	Benching *BenchProgress    `json:"benching,omitempty"` // bench, while it measures
	Benched  *delivery.Bench   `json:"benched,omitempty"`  // bench, last
	Failure  *failure          `json:"failure,omitempty"`  // last
}

// A hello tells the versions of the child, so that results of different versions are never mixed.
type hello struct {
	Protocol int    `json:"protocol"`
	Numerics string `json:"numerics"`
}

// UnmarshalJSON decodes a hello of any version. Unknown fields are ignored: a later version may have more.
func (h *hello) UnmarshalJSON(data []byte) error {
	type known hello
	return json.Unmarshal(data, (*known)(h))
}

// wireForm is increased when the format of the lines changes so that an older program would misread it.
const wireForm = 1

// ourHello's protocol changes with the format of the lines and with the version of signatures. So an aob-detect that
// cannot read a bundle's signature gives a VersionError, and not an error about the bundle.
var ourHello = hello{Protocol: wireForm + delivery.SignatureVersion, Numerics: Numerics}

// An Inspection is the result of inspect.
type Inspection struct {
	Signature delivery.Signature `json:"signature"`
	Golden    []byte             `json:"golden"` // golden.bin
}

// An imageLine has the detections on one image. Boxes are slot, score, x, y, w, h; the parent has the
// slots' names in the signature.
type imageLine struct {
	ID     int64        `json:"id"`
	Width  int          `json:"width"`
	Height int          `json:"height"`
	Boxes  [][6]float64 `json:"boxes"`
	// Packed has the boxes in place of Boxes, in answer to a request for it: each number as float64, little-endian. To
	// write and read them as decimals takes longer than a small model takes for the image.
	Packed []byte `json:"packed,omitempty"`
	// Seconds is how long the model ran; only in answer to a timed request.
	Seconds float64 `json:"seconds,omitempty"`
}

// The subject of a failure.
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

// failureOf converts an error to a failure.
func failureOf(err error) *failure {
	if e, ok := errors.AsType[*ModelError](err); ok {
		return &failure{failModel, e.Path, delivery.PlainText(e.Why, maxWhy)}
	}
	if e, ok := errors.AsType[*ImageError](err); ok {
		return &failure{failImage, e.Path, delivery.PlainText(e.Why, maxWhy)}
	}
	return &failure{failRequest, "", delivery.PlainText(err.Error(), maxWhy)}
}

// err converts a failure back to an error.
func (f failure) err() error {
	why := delivery.PlainText(f.Why, maxWhy)
	switch f.About {
	case failModel:
		return &ModelError{Path: delivery.PlainText(f.Path, maxPath), Why: why}
	case failImage:
		return &ImageError{Path: delivery.PlainText(f.Path, maxPath), Why: why}
	}
	return errors.New(why)
}

// Limits of the lines.
const (
	maxLine = 16 << 20 // the longest line is a golden in base64
	maxWhy  = 2000
	maxPath = 4096

	maxSeconds = 1e6
)

// writeLine writes v as one line of JSON.
func writeLine(w io.Writer, v any) error {
	line, err := delivery.EncodeJSON(v)
	if err == nil {
		_, err = w.Write(line)
	}
	return err
}

// parseMessage decodes one line of a child's untrusted output.
func parseMessage(line []byte) (message, error) {
	var m message
	if err := delivery.ParseJSON(line, &m); err != nil {
		return message{}, err
	}
	parts := 0
	for _, set := range []bool{m.Hello != nil, m.Image != nil, m.Done != nil, m.Inspected != nil, m.Described != nil,
		m.Ready != nil, m.Provider != nil, m.Building != nil, m.Benching != nil, m.Benched != nil, m.Failure != nil} {
		if set {
			parts++
		}
	}
	if parts != 1 {
		return message{}, fmt.Errorf("message has %d fields, want one", parts)
	}
	return m, nil
}

// detections checks a line against the request and replaces slots by class names.
func (l imageLine) detections(image ImageFile, sig delivery.Signature) (ImageDetections, error) {
	if l.ID != image.ID {
		return ImageDetections{}, fmt.Errorf("got image %d, want image %d", l.ID, image.ID)
	}
	if l.Width < 1 || l.Height < 1 || int64(l.Width) > MaxPixels || int64(l.Height) > MaxPixels ||
		int64(l.Width)*int64(l.Height) > MaxPixels {
		return ImageDetections{}, fmt.Errorf("image %d: %d x %d pixels", l.ID, l.Width, l.Height)
	}
	if l.Packed != nil {
		var err error
		if l.Boxes, err = unpack(l.Packed); err != nil {
			return ImageDetections{}, fmt.Errorf("image %d: %w", l.ID, err)
		}
	}
	if len(l.Boxes) > sig.Select {
		return ImageDetections{}, fmt.Errorf("image %d: %d boxes, want at most %d", l.ID, len(l.Boxes), sig.Select)
	}
	if !(l.Seconds >= 0 && l.Seconds < maxSeconds) {
		return ImageDetections{}, fmt.Errorf("image %d: it took %v seconds", l.ID, l.Seconds)
	}
	list := make([]detection, len(l.Boxes))
	last := 1.0
	for i, b := range l.Boxes {
		f := detection{slot: int(b[0]), score: b[1], x: b[2], y: b[3], w: b[4], h: b[5]}
		switch {
		case float64(f.slot) != b[0] || f.slot < 0 || f.slot >= len(sig.Slots) || f.slot == sig.Background ||
			sig.Slots[f.slot] == "":
			return ImageDetections{}, fmt.Errorf("image %d: box %d: slot %v has no class", l.ID, i, b[0])
		case !(f.score >= 0 && f.score <= last):
			return ImageDetections{}, fmt.Errorf("image %d: box %d: score %v is not between 0 and %v", l.ID, i, f.score,
				last)
		case !(f.w >= 0 && f.h >= 0) || math.IsInf(f.x+f.y+f.w+f.h, 0):
			return ImageDetections{}, fmt.Errorf("image %d: box %d is not valid: %v", l.ID, i, b[2:])
		}
		last = f.score
		list[i] = f
	}
	return ImageDetections{l.ID, Detections{l.Width, l.Height, withClasses(sig, list)}, l.Seconds}, nil
}

// boxBytes is the size of a packed box.
const boxBytes = 6 * 8

// pack makes Packed of Boxes.
func pack(boxes [][6]float64) []byte {
	data := make([]byte, 0, boxBytes*len(boxes))
	for _, b := range boxes {
		for _, v := range b {
			data = binary.LittleEndian.AppendUint64(data, math.Float64bits(v))
		}
	}
	return data
}

// unpack reads what pack writes. NaN is refused, as JSON has none.
func unpack(data []byte) ([][6]float64, error) {
	if len(data)%boxBytes != 0 {
		return nil, fmt.Errorf("%d bytes are no boxes", len(data))
	}
	boxes := make([][6]float64, len(data)/boxBytes)
	for i := range boxes {
		for k := range boxes[i] {
			v := math.Float64frombits(binary.LittleEndian.Uint64(data[boxBytes*i+8*k:]))
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, fmt.Errorf("box %d has %v", i, v)
			}
			boxes[i][k] = v
		}
	}
	return boxes, nil
}

// A header is the first line of evaluate's request.
type header struct {
	Model     string             `json:"model"`
	Signature delivery.Signature `json:"signature"`
	Images    int                `json:"images"`
	Timed     bool               `json:"timed,omitempty"` // see Request
	Packed    bool               `json:"packed,omitempty"`
}

// MaxImages is the largest number of images of a request.
const MaxImages = 1_000_000
