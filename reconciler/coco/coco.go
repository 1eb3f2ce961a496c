package coco

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"math"
	"slices"
)

// Truth is a ground truth: the content of a COCO annotation file.
type Truth struct {
	Images      []Image
	Categories  []Category
	Annotations []Annotation
	Numbers     []int // of annotations among those of their image in the file, from 1; only of a lenient reading
}

// Image is one image of the ground truth.
type Image struct {
	ID            int64
	Width, Height int    // pixels; 0 if unknown
	FileName      string // may be empty
	Group         string // images of one group are resampled together; see Loader.Group
	Site, Time    string // where and when it was taken, as the file says it; see Loader.Scenes
}

// Category is one class of objects.
type Category struct {
	ID   int64
	Name string
}

// Annotation is one object of the ground truth.
type Annotation struct {
	ID       int64
	Image    int64
	Category int64
	Box      Box
	Area     float64 // of the object; for a segmented object less than the box's
	Crowd    bool    // a region of many objects; detections in it are ignored
}

// Detection is one object that a model detected.
type Detection struct {
	Image    int64
	Category int64
	Box      Box
	Score    float64
}

// Box is a rectangle in pixels: top left corner, width and height.
type Box struct {
	X, Y, W, H float64
}

// Within returns by how many pixels a box leaves an image of this size, and the smaller side of the part that is
// inside. Both may be negative.
func (b Box) Within(width, height int) (over, inside float64) {
	w, h := float64(width), float64(height)
	return max(-b.X, -b.Y, b.X+b.W-w, b.Y+b.H-h), min(min(b.X+b.W, w)-max(b.X, 0), min(b.Y+b.H, h)-max(b.Y, 0))
}

// A Mode is a treatment of annotation id 0. The zero value is Fixed.
type Mode int

const (
	// Fixed treats annotations with id 0 like any other.
	Fixed Mode = iota
	// Strict equals pycocotools to the last bit. There a detection matched to the annotation with id 0 is a false
	// positive, and stats[0] is -1 if 100 is not among MaxDets.
	Strict
)

var modes = []string{Fixed: "fixed", Strict: "strict"}

// MarshalText implements encoding.TextMarshaler: "fixed" or "strict".
func (m Mode) MarshalText() ([]byte, error) {
	if m < 0 || int(m) >= len(modes) {
		return nil, fmt.Errorf("coco: no such mode: %d", int(m))
	}
	return []byte(modes[m]), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *Mode) UnmarshalText(text []byte) error {
	i := slices.Index(modes, string(text))
	if i < 0 {
		return fmt.Errorf("coco: mode: want fixed or strict, got %q", text)
	}
	*m = Mode(i)
	return nil
}

// Params are the parameters of an evaluation. The zero value has COCO's defaults, in Fixed mode.
type Params struct {
	Mode Mode
	// MaxDets are three limits on the detections of a class in an image, in
	// ascending order; AP uses the last. All zero means 1, 10, 100.
	MaxDets [3]int
	// ScoreFloor is the least score of detections that are used; zero uses all.
	ScoreFloor float64
}

func (p Params) withDefaults() (Params, error) {
	if p.MaxDets == [3]int{} {
		p.MaxDets = [3]int{1, 10, 100}
	}
	if _, err := p.Mode.MarshalText(); err != nil {
		return p, err
	}
	m := p.MaxDets
	if m[0] < 1 || m[1] <= m[0] || m[2] <= m[1] || m[2] > maxMaxDets {
		return p, fmt.Errorf("coco: limits on detections: want three rising numbers from 1 to %d, got %v", maxMaxDets,
			m)
	}
	if math.IsNaN(p.ScoreFloor) || math.IsInf(p.ScoreFloor, 0) || p.ScoreFloor < 0 {
		return p, fmt.Errorf("coco: score floor: want a number from 0 up, got %v", p.ScoreFloor)
	}
	return p, nil
}

const (
	// evaluator names this implementation and its version. The version changes only when results change for some input.
	evaluator = "aob/coco@1"

	maxMaxDets = 1 << 20
	maxPixels  = 1e9 // no coordinate or side is larger: products stay finite
)

// A Protocol describes how scores were computed. Scores of different protocols must not be compared.
type Protocol struct {
	Evaluator  string  `json:"evaluator"` // implementation and version
	Mode       Mode    `json:"mode"`
	MaxDets    [3]int  `json:"max_dets"`
	ScoreFloor float64 `json:"score_floor"`
	ClipBoxes  bool    `json:"clip_boxes"` // always false: boxes are used as they are
	Area       string  `json:"area"`       // the source of annotations' areas: "field"
	Truth      string  `json:"truth"`      // Truth.Digest
}

// Digest returns the protocol's digest: "sha256:" and 64 hexadecimal digits.
func (p Protocol) Digest() string {
	text, _ := json.Marshal(p) // cannot fail: Match returns an error for an unknown mode
	sum := sha256.Sum256(text)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Digest returns the digest of the ground truth: "sha256:" and 64 hexadecimal digits. It does not depend on the order
// of images and categories, nor on groups. It depends on the order of annotations, which decides between annotations
// that have the same IoU with a detection.
func (t *Truth) Digest() string {
	d := digester{Hash: sha256.New()}
	images := slices.SortedFunc(slices.Values(t.Images), func(a, b Image) int { return cmp.Compare(a.ID, b.ID) })
	categories := slices.SortedFunc(slices.Values(t.Categories), func(a, b Category) int {
		return cmp.Compare(a.ID, b.ID)
	})
	d.text("aob/coco truth 1")
	d.int(int64(len(images)))
	for _, m := range images {
		d.int(m.ID)
		d.int(int64(m.Width))
		d.int(int64(m.Height))
		d.text(m.FileName)
	}
	d.int(int64(len(categories)))
	for _, c := range categories {
		d.int(c.ID)
		d.text(c.Name)
	}
	d.int(int64(len(t.Annotations)))
	for _, a := range t.Annotations {
		d.int(a.ID)
		d.int(a.Image)
		d.int(a.Category)
		for _, v := range [5]float64{a.Box.X, a.Box.Y, a.Box.W, a.Box.H, a.Area} {
			d.int(int64(math.Float64bits(v)))
		}
		crowd := int64(0)
		if a.Crowd {
			crowd = 1
		}
		d.int(crowd)
	}
	d.flush()
	return "sha256:" + hex.EncodeToString(d.Sum(nil))
}

// digester hashes numbers and length-prefixed texts.
type digester struct {
	hash.Hash
	buf []byte
}

func (d *digester) int(v int64) {
	d.buf = binary.LittleEndian.AppendUint64(d.buf, uint64(v))
	if len(d.buf) > 1<<14 {
		d.flush()
	}
}

func (d *digester) text(s string) {
	d.int(int64(len(s)))
	d.buf = append(d.buf, s...)
}

func (d *digester) flush() {
	d.Write(d.buf)
	d.buf = d.buf[:0]
}

// Protocol returns the protocol of these parameters, with an empty Truth.
func (p Params) Protocol() (Protocol, error) {
	p, err := p.withDefaults()
	return p.protocol(""), err
}

func (p Params) protocol(truth string) Protocol {
	return Protocol{
		Evaluator: evaluator, Mode: p.Mode, MaxDets: p.MaxDets, ScoreFloor: p.ScoreFloor,
		Area: "field", Truth: truth,
	}
}
