package delivery

// SignatureVersion is the newest Signature.SchemaVersion that this version of AOB reads. Version 1 has no scale, no
// clip and no edges. From version 3 on the file's metadata has an entry of AOB's own, which older versions do not read.
const SignatureVersion = 3

// Files of a bundle.
const (
	ModelFile      = "model.onnx"
	SignatureFile  = "signature.json"  // a Signature
	LabelsFile     = "labels.json"     // the model's classes, a list
	GoldenFile     = "golden.bin"      // test images with their detections, see detect.Golden
	ThresholdsFile = "thresholds.json" // by class the least score of a detection that counts; optional
)

// A Signature describes the inputs and outputs of a bundle's ONNX file. It is a superset of RF-DETR's rfdetr_inference
// metadata. Outputs and classes are matched by name, never by position or shape.
type Signature struct {
	SchemaVersion int       `json:"schemaVersion" check:"min=1,max=3"` // 1 to SignatureVersion
	Input         string    `json:"input" check:"port"`                // input
	Boxes         string    `json:"boxes" check:"port"`                // dets: [N,Q,4] cx,cy,w,h in 0..1
	Logits        string    `json:"logits" check:"port"`               // labels: [N,Q,slots]
	Width         int       `json:"width" check:"min=1,max=8192"`
	Height        int       `json:"height" check:"min=1,max=8192"`
	Resize        Resize    `json:"resize"`
	Scale         float64   `json:"scale,omitzero" check:"optional,min=0,max=1e6"` // multiplies each byte, 0: 1/255
	Means         []float64 `json:"means" check:"min=-1e6,max=1e6"`                // after the scale, RGB
	Stds          []float64 `json:"stds" check:"min=1e-6,max=1e6"`
	Slots         []string  `json:"slots" check:"nonempty,slot"`        // class names by slot; "": no class
	Background    int       `json:"background" check:"min=-1,max=4095"` // the slot for no object, -1: none
	Select        int       `json:"select" check:"min=1,max=10000"`     // of the Q*slots scores, highest first
	Clip          bool      `json:"clip,omitzero" check:"optional"`     // boxes are cut to the image's edges
	Edges         Edges     `json:"edges,omitzero" check:"optional"`
}

// Digest returns the signature's digest.
func (s Signature) Digest() Digest { return DigestOf("signature", s) }

// Resize says how an image is resized to the input's size.
type Resize struct {
	// bilinear: half-pixel centres, as torch with align_corners=False
	Algorithm string `json:"algorithm" check:"oneof=bilinear"`
	Antialias bool   `json:"antialias"`
	Padding   string `json:"padding" check:"oneof=none"` // none: the aspect ratio is not kept
	// float32; or uint8: values are rounded to bytes between resize and scale
	DType string `json:"dtype" check:"oneof=float32|uint8"`
}

// Edges are the upper edges of the histograms of what a model sees in service, ascending. Histograms of the same edges
// can be added over devices, and compared between releases. Empty ones are the defaults.
type Edges struct {
	Confidence []float64 `json:"confidence,omitempty" check:"optional,min=0,max=1e9"` // scores, 0 to 1
	Entropy    []float64 `json:"entropy,omitempty" check:"optional,min=0,max=1e9"`    // of scores in bits, 0 to 1
	Area       []float64 `json:"area,omitempty" check:"optional,min=0,max=1e9"`       // of boxes, share of the image
	Boxes      []float64 `json:"boxes,omitempty" check:"optional,min=0,max=1e9"`      // boxes in an image
}

// WithDefaults returns the edges with defaults for those that are empty.
func (e Edges) WithDefaults() Edges {
	or := func(edges []float64, defaults ...float64) []float64 {
		if len(edges) > 0 {
			return edges
		}
		return defaults
	}
	return Edges{
		Confidence: or(e.Confidence, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75,
			0.8, 0.85, 0.9, 0.95, 1),
		Entropy: or(e.Entropy, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1),
		Area:    or(e.Area, 1.0/16384, 1.0/4096, 1.0/1024, 1.0/256, 1.0/64, 1.0/16, 1.0/4, 1),
		Boxes:   or(e.Boxes, 0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377),
	}
}

// A Box is a detection, in pixels of the original image.
type Box struct {
	Class string  `json:"class"`
	Score float64 `json:"score"`
	X     float64 `json:"x"` // left
	Y     float64 `json:"y"` // top
	W     float64 `json:"w"`
	H     float64 `json:"h"`
}
