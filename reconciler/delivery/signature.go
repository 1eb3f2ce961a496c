package delivery

// SignatureVersion is the newest Signature.SchemaVersion that this version of AOB knows.
const SignatureVersion = 1

// A Signature is the contract between a bundle's ONNX file and whoever runs it:
// a superset of RF-DETR's own rfdetr_inference metadata. Outputs are matched by
// name and classes by name, never by position or shape.
type Signature struct {
	SchemaVersion int       `json:"schemaVersion"` // SignatureVersion
	Input         string    `json:"input"`         // input
	Boxes         string    `json:"boxes"`         // dets: [N,Q,4] cx,cy,w,h in 0..1
	Logits        string    `json:"logits"`        // labels: [N,Q,slots]
	Width         int       `json:"width"`
	Height        int       `json:"height"`
	Resize        Resize    `json:"resize"`
	Means         []float64 `json:"means"` // after division by 255, RGB
	Stds          []float64 `json:"stds"`
	Slots         []string  `json:"slots"`      // class name by slot; "" is a slot that is never a class
	Background    int       `json:"background"` // the no-object slot, -1 for none
	Select        int       `json:"select"`     // top K of Q*slots
}

// Digest names the signature.
func (s Signature) Digest() Digest { return DigestOf("signature", s) }

// Resize says exactly how an image becomes the input's size.
type Resize struct {
	Algorithm string `json:"algorithm"` // bilinear: half-pixel centres, as torch with align_corners=False
	Antialias bool   `json:"antialias"`
	Padding   string `json:"padding"` // none: a plain stretch
	DType     string `json:"dtype"`   // float32: no rounding between resize and normalise
}

// A Box is one detection on an image, in pixels of the original image.
type Box struct {
	Class string  `json:"class"`
	Score float64 `json:"score"`
	X     float64 `json:"x"` // left
	Y     float64 `json:"y"` // top
	W     float64 `json:"w"`
	H     float64 `json:"h"`
}
