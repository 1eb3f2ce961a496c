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
)

// A Server answers for one bundle, inside aob-detect. As an http.Handler:
//
//	POST /infer   a JPEG or PNG file; answers {"width", "height", "boxes": [...]}
//	GET  /health  replays the golden; answers {"ok": true}, or 500 and why not
//
// An answer that is not 200 is {"error": "..."}: 400 for an image that cannot be
// used, 413 for one that is too large, 500 for a model that failed.
type Server struct {
	// Observe, where it is set, is told of every call of Infer. Set it before
	// the first.
	Observe func(Inference)

	model  *loaded
	golden Golden
	scores map[string]float64 // by class: what is less sure is not answered; nil for no thresholds
	turn   chan struct{}      // held while the model runs: it uses all cores itself
	room   chan struct{}      // held while an image is in memory
	mux    *http.ServeMux
}

// An Inference is how one call of Infer went.
type Inference struct {
	Outcome            string        // ok, image (it cannot be used), model (it failed), gone (the caller left)
	Decode, Queue, Run time.Duration // to pixels and tensor; waiting for the model; the model and its boxes
	Boxes              int
}

// Open loads the bundle in a folder and replays its golden.
func (w Worker) Open(bundleDir string) (*Server, error) {
	read := func(name string, limit int64) ([]byte, error) {
		data, err := readFile(filepath.Join(bundleDir, name), limit)
		if err != nil {
			return nil, fmt.Errorf("bundle %s: %s: %s", bundleDir, name, fileTrouble(err))
		}
		return data, nil
	}
	const maxJSON = 4 << 20
	signature, err := read(SignatureFile, maxJSON)
	if err != nil {
		return nil, err
	}
	var sig delivery.Signature
	if err := parseLine(signature, &sig); err != nil {
		return nil, fmt.Errorf("bundle %s: %s: %w", bundleDir, SignatureFile, err)
	}
	if err := checkSignature(sig); err != nil {
		return nil, fmt.Errorf("bundle %s: %s: %w", bundleDir, SignatureFile, err)
	}
	list, err := read(LabelsFile, maxJSON)
	if err != nil {
		return nil, err
	}
	var labels []string
	if err := parseLine(list, &labels); err != nil {
		return nil, fmt.Errorf("bundle %s: %s: %w", bundleDir, LabelsFile, err)
	}
	for _, label := range labels {
		if slot := slices.Index(sig.Slots, label); label == "" || slot < 0 || slot == sig.Background {
			return nil, fmt.Errorf("bundle %s: %s has the class %.100q and %s has not: they belong to different models",
				bundleDir, LabelsFile, label, SignatureFile)
		}
	}
	var scores map[string]float64
	thresholds, err := readFile(filepath.Join(bundleDir, ThresholdsFile), maxJSON)
	if err == nil {
		err = parseLine(thresholds, &scores)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("bundle %s: %s: %s", bundleDir, ThresholdsFile, fileTrouble(err))
	}
	encoded, err := read(GoldenFile, MaxGoldenBytes)
	if err != nil {
		return nil, err
	}
	golden, err := ParseGolden(encoded)
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %s: %w", bundleDir, GoldenFile, err)
	}
	data, err := read(ModelFile, MaxModelBytes)
	if err != nil {
		return nil, err
	}
	model, err := w.load(filepath.Join(bundleDir, ModelFile), data, sig, w.threads())
	if err != nil {
		return nil, err
	}
	if err := model.replay(golden); err != nil {
		return nil, errors.Join(err, model.model.Close())
	}
	s := &Server{
		model:  model,
		golden: golden,
		scores: scores,
		turn:   make(chan struct{}, 1),
		room:   make(chan struct{}, w.threads()+1),
		mux:    http.NewServeMux(),
	}
	s.mux.HandleFunc("GET /health", s.serveHealth)
	s.mux.HandleFunc("POST /infer", s.serveInfer)
	return s, nil
}

// Close frees the model. No call may be going on.
func (s *Server) Close() error { return s.model.model.Close() }

// Health replays the golden.
func (s *Server) Health(ctx context.Context) error {
	if err := take(ctx, s.turn); err != nil {
		return err
	}
	defer func() { <-s.turn }()
	return s.model.replay(s.golden)
}

// Infer finds what is on a JPEG or PNG file.
func (s *Server) Infer(ctx context.Context, data []byte) (found ImageDetections, err error) {
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
	img, err := decodeImage(data)
	if err != nil {
		return ImageDetections{}, &ImageError{Why: err.Error()}
	}
	width, height := img.Bounds().Dx(), img.Bounds().Dy()
	input := toTensor(img, s.model.sig)
	observed.Decode = time.Since(began)

	began = time.Now()
	if err := take(ctx, s.turn); err != nil {
		return ImageDetections{}, err
	}
	defer func() { <-s.turn }()
	observed.Queue = time.Since(began)

	began = time.Now()
	boxes, logits, err := s.model.run(input)
	if err != nil {
		return ImageDetections{}, err
	}
	list, err := decode(s.model.sig, boxes, logits, width, height)
	if err != nil {
		return ImageDetections{}, &ModelError{s.model.path, err.Error()}
	}
	observed.Run = time.Since(began)
	return ImageDetections{Width: width, Height: height, Boxes: s.sure(named(s.model.sig, list))}, nil
}

// sure drops what is below its class's threshold, where the bundle has some. Those
// who score a model get all that it finds.
func (s *Server) sure(boxes []delivery.Box) []delivery.Box {
	if len(s.scores) == 0 {
		return boxes
	}
	return slices.DeleteFunc(boxes, func(b delivery.Box) bool {
		score, ok := s.scores[b.Class]
		return ok && b.Score < score
	})
}

func take(ctx context.Context, turn chan struct{}) error {
	select {
	case turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) {
	if err := s.Health(r.Context()); err != nil {
		answer(w, http.StatusInternalServerError, map[string]any{"error": err.Error()})
		return
	}
	answer(w, http.StatusOK, map[string]any{"ok": true})
}

func (s *Server) serveInfer(w http.ResponseWriter, r *http.Request) {
	// Waiting callers keep their image to themselves until there is room.
	if take(r.Context(), s.room) != nil {
		return
	}
	defer func() { <-s.room }()
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxImageBytes))
	if err != nil {
		code := http.StatusBadRequest
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			code = http.StatusRequestEntityTooLarge
		}
		answer(w, code, map[string]any{"error": err.Error()})
		return
	}
	found, err := s.Infer(r.Context(), data)
	if bad, ok := errors.AsType[*ImageError](err); ok {
		answer(w, http.StatusBadRequest, map[string]any{"error": bad.Why})
		return
	}
	if err != nil {
		answer(w, http.StatusInternalServerError, map[string]any{"error": err.Error()})
		return
	}
	answer(w, http.StatusOK, inferAnswer{found.Width, found.Height, found.Boxes})
}

// An inferAnswer is what /infer says.
type inferAnswer struct {
	Width  int            `json:"width"` // of the image, pixels
	Height int            `json:"height"`
	Boxes  []delivery.Box `json:"boxes"` // best first
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the caller left
}
