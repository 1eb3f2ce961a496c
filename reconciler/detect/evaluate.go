package detect

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Request asks for a model's boxes on images.
type Request struct {
	Model     string // path of the ONNX file
	Signature delivery.Signature
	Images    []ImageFile // at most MaxImages
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
// *CrashError. When ctx ends, the child is killed and the error wraps ctx's.
func (d Detector) Evaluate(ctx context.Context, r Request, progress func(done, total int)) ([]ImageDetections, error) {
	if len(r.Images) > MaxImages {
		return nil, fmt.Errorf("evaluate: %d images, want at most %d", len(r.Images), MaxImages)
	}
	if err := checkSignature(r.Signature); err != nil {
		return nil, &ModelError{r.Model, err.Error()}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c, err := d.start(ctx, "evaluate")
	if err != nil {
		return nil, err
	}
	defer c.release()
	go func() {
		// A child that stops reading is dead or about to say why, so an error
		// here is not news.
		_ = r.write(c.stdin)
		c.stdin.Close()
	}()
	timer := time.AfterFunc(d.patience(), func() { cancel(errPatience{d.patience()}) })
	defer timer.Stop()

	if err := c.greet(); err != nil {
		return nil, c.explain(ctx, err)
	}
	found := make([]ImageDetections, 0, len(r.Images))
	for {
		m, err := c.hear()
		timer.Reset(d.patience())
		switch {
		case err != nil:
		case m.Done != nil && *m.Done == len(r.Images) && len(found) == len(r.Images):
			return found, nil
		case m.Image != nil && len(found) < len(r.Images):
			var one ImageDetections
			if one, err = m.Image.detections(r.Images[len(found)], r.Signature); err != nil {
				err = nonsense{err}
				break
			}
			found = append(found, one)
			if progress != nil {
				progress(len(found), len(r.Images))
			}
			continue
		default:
			err = nonsense{errors.New("a message out of turn")}
		}
		return nil, c.explain(ctx, err)
	}
}

// write writes the request in the form that a worker reads. Paths become
// absolute, for the child works in another folder.
func (r Request) write(to io.Writer) error {
	w := bufio.NewWriter(to)
	model, err := filepath.Abs(r.Model)
	if err != nil {
		return err
	}
	if err := writeLine(w, header{model, r.Signature, len(r.Images)}); err != nil {
		return err
	}
	for _, image := range r.Images {
		path, err := filepath.Abs(image.Path)
		if err != nil {
			return err
		}
		if err := writeLine(w, imageRequest{image.ID, path}); err != nil {
			return err
		}
	}
	return w.Flush()
}
