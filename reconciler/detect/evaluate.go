package detect

import (
	"context"
	"errors"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Request asks for a model's boxes on images.
type Request struct {
	Model     string // path of the ONNX file
	Signature delivery.Signature
	Images    []ImageFile
}

// An ImageFile is one image to look at.
type ImageFile struct {
	ID   int64 // given back with the boxes
	Path string
}

// ImageDetections are the boxes found on one image: at most Signature.Select,
// best first, down to the lowest scores.
type ImageDetections struct {
	ID     int64          `json:"id"`
	Width  int            `json:"width"` // of the original image
	Height int            `json:"height"`
	Boxes  []delivery.Box `json:"boxes"`
}

// Evaluate runs a model over images and returns what it found, in the order of
// the request. The result depends on model, signature and images alone: not on
// Threads, for every image is computed on one. progress may be nil; it is
// called from one goroutine after each image.
//
// The first image or answer that is wrong ends it: *ImageError, *ModelError or
// *CrashError. When ctx ends, the child is killed and the error is ctx's.
func (d Detector) Evaluate(ctx context.Context, r Request, progress func(done, total int)) ([]ImageDetections, error) {
	return nil, errors.New("not there yet")
}
