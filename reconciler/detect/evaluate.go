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
	"github.com/autonomos/aob/reconciler/profile"
)

// A Request is the input of Evaluate.
type Request struct {
	Model     string // path of the ONNX file
	Signature delivery.Signature
	// Bundle is the folder of the model's bundle, whose golden is replayed first. A model that has none yet runs on the
	// CPU, since nothing tells how near a GPU's answers are.
	Bundle string
	Images []ImageFile // at most MaxImages
	// Building is told what happens while the engine of a profile with TensorRT is built; nil: Detector.Progress is.
	Building func(profile.Progress)
	// Timed measures how long the model runs for each image. Then it uses all threads for one image, as when it serves,
	// and the last digits of the boxes may depend on their number.
	Timed bool
}

// An ImageFile is one image of a request, and a line of evaluate's request.
type ImageFile struct {
	ID   int64  `json:"id"` // returned with the boxes
	Path string `json:"path"`
}

// Detections are the detections on an image.
type Detections struct {
	Width  int            `json:"width"` // of the image, in pixels
	Height int            `json:"height"`
	Boxes  []delivery.Box `json:"boxes"` // highest score first, at most Signature.Select
}

// Above returns the boxes with at least a score.
func (d Detections) Above(score float64) []delivery.Box {
	n := 0
	for n < len(d.Boxes) && d.Boxes[n].Score >= score {
		n++
	}
	return d.Boxes[:n]
}

// ImageDetections are the detections on an image of a request, without a score threshold.
type ImageDetections struct {
	ID int64 `json:"id"`
	Detections
	Seconds float64 `json:"-"` // how long the model ran, if the request was timed
}

// Evaluate runs a model over images and returns the detections in the order of the request. The result
// depends only on model, signature, images and Provider, not on Threads: each image is computed on one thread.
// progress may be nil; it is called from one goroutine, after each image.
//
// The first invalid image or result ends it with an *ImageError, *ModelError or *CrashError. When ctx
// is done the child is killed and the error wraps ctx's.
func (d Detector) Evaluate(ctx context.Context, r Request, progress func(done, total int)) ([]ImageDetections, error) {
	if len(r.Images) > MaxImages {
		return nil, fmt.Errorf("evaluate: %d images, want at most %d", len(r.Images), MaxImages)
	}
	if err := checkSignature(r.Signature); err != nil {
		return nil, &ModelError{r.Model, err.Error()}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	args := []string{}
	if r.Bundle == "" {
		d = d.onCPU()
	} else {
		bundle, err := filepath.Abs(r.Bundle)
		if err != nil {
			return nil, fmt.Errorf("evaluate: %w", err)
		}
		args = append(args, "--bundle", bundle)
	}
	c, err := d.start(ctx, "evaluate", args...)
	if err != nil {
		return nil, err
	}
	defer c.cleanup()
	go func() {
		// A write error means that the child has ended or is about to report why, which is handled below.
		_ = r.write(c.stdin)
		c.stdin.Close()
	}()
	timer := time.AfterFunc(d.timeout(), func() { cancel(timeoutError{d.timeout()}) })
	defer timer.Stop()

	if err := c.readHello(); err != nil {
		return nil, c.rootCause(ctx, err)
	}
	found := make([]ImageDetections, 0, len(r.Images))
	for {
		m, err := c.readMessage()
		timer.Reset(d.timeout())
		switch {
		case err != nil:
		case m.Building != nil && len(found) == 0:
			if tell := r.Building; tell != nil {
				tell(*m.Building)
			} else if d.Progress != nil {
				d.Progress(*m.Building)
			}
			continue
		case m.Done != nil && *m.Done == len(r.Images) && len(found) == len(r.Images):
			return found, nil
		case m.Image != nil && len(found) < len(r.Images):
			var one ImageDetections
			if one, err = m.Image.detections(r.Images[len(found)], r.Signature); err != nil {
				err = invalidOutput{err}
				break
			}
			found = append(found, one)
			if progress != nil {
				progress(len(found), len(r.Images))
			}
			continue
		default:
			err = invalidOutput{errors.New("unexpected message")}
		}
		return nil, c.rootCause(ctx, err)
	}
}

// write writes the request as a worker reads it. Paths are made absolute, because the child has
// another working directory.
func (r Request) write(to io.Writer) error {
	w := bufio.NewWriter(to)
	model, err := filepath.Abs(r.Model)
	if err != nil {
		return err
	}
	if err := writeLine(w, header{model, r.Signature, len(r.Images), r.Timed, true}); err != nil {
		return err
	}
	for _, image := range r.Images {
		path, err := filepath.Abs(image.Path)
		if err != nil {
			return err
		}
		if err := writeLine(w, ImageFile{image.ID, path}); err != nil {
			return err
		}
	}
	return w.Flush()
}
