package detect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// A Server serves one bundle inside aob-detect. It is an http.Handler:
//
//	POST /infer   the body is a JPEG or PNG file; the response is {"width", "height", "boxes": [...]}
//	GET  /health  replays the golden; the response is {"ok": true}, or 500 and the reason
//
// An error response is {"error": "..."}: 400 for an invalid image, 413 for one that is too large, 500
// for a model that failed. It is safe for concurrent use.
type Server struct {
	// Observe, if not nil, is called after each call of Infer. Set it before the first call.
	Observe func(Inference)

	model      *loaded
	golden     Golden
	thresholds map[string]float64 // lowest returned score by class; nil: no thresholds
	modelLock  chan struct{}      // held while the model runs; one run uses all cores
	imageSlots chan struct{}      // held while an image is in memory
	mux        *http.ServeMux
}

// An Inference describes one call of Infer, for metrics.
type Inference struct {
	Outcome            string        // ok, image (it is invalid), model (it failed), gone (the caller has left)
	Decode, Queue, Run time.Duration // decoding to a tensor; waiting for the model; running it and decoding its outputs
	Boxes              int
}

// Open loads the bundle in a folder and replays its golden.
func (w Worker) Open(bundleDir string) (*Server, error) {
	const maxJSON = 4 << 20
	var sig delivery.Signature
	var labels []string
	var thresholds map[string]float64
	var golden Golden
	var data []byte
	for _, f := range []struct {
		name  string
		limit int64
		parse func([]byte) error
	}{
		{delivery.SignatureFile, maxJSON, func(b []byte) error {
			if err := delivery.ParseJSON(b, &sig); err != nil {
				return err
			}
			return checkSignature(sig)
		}},
		{delivery.LabelsFile, maxJSON, func(b []byte) error {
			if err := delivery.ParseJSON(b, &labels); err != nil {
				return err
			}
			return checkLabels(labels, sig)
		}},
		{delivery.ThresholdsFile, maxJSON, func(b []byte) error { return delivery.ParseJSON(b, &thresholds) }},
		{delivery.GoldenFile, MaxGoldenBytes, func(b []byte) (err error) { golden, err = ParseGolden(b); return err }},
		{delivery.ModelFile, MaxModelBytes, func(b []byte) error { data = b; return nil }},
	} {
		content, err := durable.ReadFile(filepath.Join(bundleDir, f.name), f.limit)
		if f.name == delivery.ThresholdsFile && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = f.parse(content)
		}
		if err != nil {
			return nil, fmt.Errorf("bundle %s: %s: %s", bundleDir, f.name, fileReason(err))
		}
	}
	model, err := w.load(filepath.Join(bundleDir, delivery.ModelFile), data, sig, cores(w.Threads))
	if err != nil {
		return nil, err
	}
	if err := model.replay(golden); err != nil {
		return nil, errors.Join(err, model.model.Close())
	}
	s := &Server{
		model:      model,
		golden:     golden,
		thresholds: thresholds,
		modelLock:  make(chan struct{}, 1),
		imageSlots: make(chan struct{}, cores(w.Threads)+1),
		mux:        http.NewServeMux(),
	}
	s.mux.HandleFunc("GET /health", s.serveHealth)
	s.mux.HandleFunc("POST /infer", s.serveInfer)
	return s, nil
}

// checkLabels returns an error if a label is not a class of the signature.
func checkLabels(labels []string, sig delivery.Signature) error {
	for _, label := range labels {
		if slot := slices.Index(sig.Slots, label); label == "" || slot < 0 || slot == sig.Background {
			return fmt.Errorf("it has the class %.100q but %s does not: they belong to different models", label,
				delivery.SignatureFile)
		}
	}
	return nil
}

// Close frees the model. It must not be called during another call.
func (s *Server) Close() error { return s.model.model.Close() }

// Health replays the golden.
func (s *Server) Health(ctx context.Context) error {
	if err := acquire(ctx, s.modelLock); err != nil {
		return err
	}
	defer func() { <-s.modelLock }()
	return s.model.replay(s.golden)
}

// Infer returns the detections on a JPEG or PNG file.
func (s *Server) Infer(ctx context.Context, data []byte) (found Detections, err error) {
	var observed Inference
	defer func() {
		if s.Observe == nil {
			return
		}
		_, badImage := errors.AsType[*ImageError](err)
		switch {
		case err == nil:
			observed.Outcome = "ok"
		case badImage:
			observed.Outcome = "image"
		case ctx.Err() != nil:
			observed.Outcome = "gone"
		default:
			observed.Outcome = "model"
		}
		observed.Boxes = len(found.Boxes)
		s.Observe(observed)
	}()
	began := time.Now()
	img, release, err := decodeImage(data, s.model.jpeg)
	if err != nil {
		return Detections{}, &ImageError{Why: err.Error()}
	}
	width, height := img.Bounds().Dx(), img.Bounds().Dy()
	input := toTensor(img, s.model.sig)
	release()
	observed.Decode = time.Since(began)

	began = time.Now()
	if err := acquire(ctx, s.modelLock); err != nil {
		return Detections{}, err
	}
	defer func() { <-s.modelLock }()
	observed.Queue = time.Since(began)

	began = time.Now()
	boxes, logits, err := s.model.run(input)
	if err != nil {
		return Detections{}, err
	}
	list, err := decode(s.model.sig, boxes, logits, width, height)
	if err != nil {
		return Detections{}, &ModelError{s.model.path, err.Error()}
	}
	observed.Run = time.Since(began)
	return Detections{width, height, s.aboveThreshold(withClasses(s.model.sig, list))}, nil
}

// aboveThreshold drops detections below the threshold of their class. It is used for serving only: evaluation
// needs all scores.
func (s *Server) aboveThreshold(boxes []delivery.Box) []delivery.Box {
	if len(s.thresholds) == 0 {
		return boxes
	}
	return slices.DeleteFunc(boxes, func(b delivery.Box) bool {
		score, ok := s.thresholds[b.Class]
		return ok && b.Score < score
	})
}

func acquire(ctx context.Context, modelLock chan struct{}) error {
	select {
	case modelLock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) {
	if err := s.Health(r.Context()); err != nil {
		writeJSON(w, http.StatusInternalServerError, map[string]any{"error": err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"ok": true})
}

func (s *Server) serveInfer(w http.ResponseWriter, r *http.Request) {
	// A request waits here before its image is read into memory.
	if acquire(r.Context(), s.imageSlots) != nil {
		return
	}
	defer func() { <-s.imageSlots }()
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxImageBytes))
	if err != nil {
		code := http.StatusBadRequest
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			code = http.StatusRequestEntityTooLarge
		}
		writeJSON(w, code, map[string]any{"error": err.Error()})
		return
	}
	found, err := s.Infer(r.Context(), data)
	if bad, ok := errors.AsType[*ImageError](err); ok {
		writeJSON(w, http.StatusBadRequest, map[string]any{"error": bad.Why})
		return
	}
	if err != nil {
		writeJSON(w, http.StatusInternalServerError, map[string]any{"error": err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, found)
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // an error means that the caller has left
}
