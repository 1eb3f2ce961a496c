package detect

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// A Server serves one bundle inside aob-detect. It is an http.Handler:
//
//	POST /infer     the body is a JPEG or PNG file; the response is {"width", "height", "boxes": [...]}; with
//	                ?score=0.4 without the boxes of lower scores; with Accept: application/octet-stream it is in the
//	                form of appendDetections
//	POST /run       tensors in and out, see Client.Run
//	GET  /describe  a Description
//	GET  /health    replays the golden; the response is {"ok": true}, or 500 and the reason
//	GET  /live      {"ok": true}, also while the model runs
//
// An error response is {"error": "..."}: 400 for an invalid image or tensor, 413 for one that is too large, 500 for a
// model that failed. When the caller leaves, its run of the model is stopped. It is safe for concurrent use.
type Server struct {
	// Observe, if not nil, is called after each call of Infer. Set it before the first call.
	Observe func(Inference)

	engine      *engine
	sig         delivery.Signature
	path        string // of the model
	images      imageDecoder
	slow        func() // see Worker
	golden      Golden
	description Description
	thresholds  map[string]float64  // lowest returned score by class; nil: no thresholds
	imageSlots  chan struct{}       // held while an image's file is in memory
	files       *semaphore.Weighted // bytes of these files
	filesSize   int64
	mux         *http.ServeMux
}

// An Inference describes one call of Infer, for metrics.
type Inference struct {
	Outcome string // ok, image (it is invalid), model (it failed), gone (the caller has left)
	Timing
	Boxes int
}

// Timing is how long the stages of a call took, and how many images its run had.
type Timing struct {
	Pre, Queue, Infer, Post time.Duration // file to tensor; waiting for the model; the model; its outputs to boxes
	Decode                  time.Duration // the part of Pre from the file to pixels; only inside the server
	Batch                   int
}

// A Description describes a server.
type Description struct {
	Inputs   []Port `json:"inputs"` // one; the first size is -1 where the model takes batches
	Outputs  []Port `json:"outputs"`
	Provider string `json:"provider"`
	Threads  int    `json:"threads"`
	Batch    int    `json:"batch"`   // the largest number of images of a run
	Content  string `json:"content"` // a digest of the bundle's files, as they were read
}

// Open loads the bundle in a folder and replays its golden.
func (w Worker) Open(ctx context.Context, bundleDir string) (*Server, error) {
	const maxJSON = 4 << 20
	var sig delivery.Signature
	var labels []string
	var thresholds map[string]float64
	var golden Golden
	var data []byte
	digest := sha256.New()
	for _, f := range []struct {
		name  string
		limit int64
		parse func([]byte) error
	}{
		{delivery.SignatureFile, maxJSON, func(b []byte) (err error) {
			sig, err = parseSignature(b)
			return err
		}},
		{delivery.LabelsFile, maxJSON, func(b []byte) error {
			if err := delivery.ParseJSON(b, &labels); err != nil {
				return err
			}
			return checkLabels(labels, sig)
		}},
		{delivery.ThresholdsFile, maxJSON, func(b []byte) error { return delivery.ParseJSON(b, &thresholds) }},
		{delivery.GoldenFile, MaxGoldenBytes, func(b []byte) (err error) {
			golden, err = ParseGolden(b)
			golden.bounds = w.Bounds
			return err
		}},
		{delivery.ModelFile, MaxModelBytes, func(b []byte) error { data = b; return w.agree(b, sig) }},
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
		fmt.Fprintf(digest, "%s %d ", f.name, len(content))
		digest.Write(content)
	}
	s := &Server{
		sig:        sig,
		path:       filepath.Join(bundleDir, delivery.ModelFile),
		images:     newDecoder(w.JPEG, w.Memory),
		slow:       w.Slow,
		golden:     golden,
		thresholds: thresholds,
		imageSlots: make(chan struct{}, 2*cores(w.Threads)+max(w.Batch, 1)),
		filesSize:  max(int64(w.Memory)/8, 2*MaxImageBytes),
		mux:        http.NewServeMux(),
	}
	s.files = semaphore.NewWeighted(s.filesSize)
	var err error
	if s.engine, err = w.engine(ctx, s.path, data, sig, golden); err != nil {
		return nil, err
	}
	s.description = s.describe(cores(w.Threads))
	s.description.Provider = cmp.Or(w.Provider, Provider)
	s.description.Content = hex.EncodeToString(digest.Sum(nil))
	s.mux.HandleFunc("GET /live", func(w http.ResponseWriter, _ *http.Request) { writeOK(w) })
	s.mux.HandleFunc("GET /health", s.serveHealth)
	s.mux.HandleFunc("GET /describe", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, s.description)
	})
	s.mux.HandleFunc("POST /infer", s.serveInfer)
	s.mux.HandleFunc("POST /run", s.serveRun)
	return s, nil
}

// engine loads the model and replays its golden on each session.
func (w Worker) engine(ctx context.Context, path string, data []byte, sig delivery.Signature,
	golden Golden) (*engine, error) {
	threads := cores(w.Threads)
	e := &engine{places: threads, free: threads, arrived: make(chan struct{}, 1), batch: 1, wait: w.BatchWait,
		stuck: w.Stuck, stuckAfter: cmp.Or(w.StuckAfter, 10*time.Second),
		inputs: sync.Pool{New: func() any { return new([]float32) }}}
	cpu := cmp.Or(w.Provider, Provider) == Provider
	if w.Batch > 1 {
		inputs, _, err := w.Runtime.Describe(data)
		if err != nil {
			return nil, &ModelError{path, fmt.Sprintf("does not load: %v", err)}
		}
		if len(inputs) == 1 && len(inputs[0].Shape) == 4 && inputs[0].Shape[0] == -1 {
			e.batch = min(w.Batch, MaxBatch, w.largestBatch(data))
		}
	}
	var err error
	// A GPU computes one run after the other, and its memory may not hold the model twice.
	one := threads
	if cpu {
		one = 1
	}
	if e.crowd, err = w.load(path, data, sig, one); err != nil {
		return nil, err
	}
	e.alone = e.crowd
	// On one thread first: while a model that computes without end is loaded, the others keep the other cores.
	if err = e.crowd.replay(ctx, golden); err == nil && one < threads {
		var all *loaded
		if all, err = w.load(path, data, sig, threads); err == nil {
			e.alone = all
			err = all.replay(ctx, golden)
		}
	}
	if !cpu {
		e.decode = make(chan struct{}, threads)
	}
	if err == nil && e.batch > 1 && !e.alone.separates(ctx, golden) {
		e.batch = 1
	}
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

// describe makes the description. The number of queries is the golden's.
func (s *Server) describe(threads int) Description {
	images, queries := int64(1), int64(len(s.golden.Boxes)/4)
	if s.engine.batch > 1 {
		images = -1
	}
	return Description{
		Inputs: []Port{{s.sig.Input, "float32", []int64{images, 3, int64(s.sig.Height), int64(s.sig.Width)}}},
		Outputs: []Port{{s.sig.Boxes, "float32", []int64{images, queries, 4}},
			{s.sig.Logits, "float32", []int64{images, queries, int64(len(s.sig.Slots))}}},
		Provider: Provider, Threads: threads, Batch: s.engine.batch,
	}
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

// Close waits for the runs in progress and frees the model. It must not be called during another call.
func (s *Server) Close() error { return s.engine.close() }

// Health replays the golden.
func (s *Server) Health(ctx context.Context) error {
	boxes, logits, _, err := s.engine.run(ctx, s.golden.Input())
	if err != nil {
		return err
	}
	if err := s.golden.check(s.sig, boxes, logits); err != nil {
		return &ModelError{s.path, err.Error()}
	}
	return nil
}

// Infer returns the detections on a JPEG or PNG file whose score is at least the given one.
func (s *Server) Infer(ctx context.Context, data []byte, score float64) (found Detections, timing Timing, err error) {
	defer func() {
		if s.Observe == nil {
			return
		}
		outcome := "model"
		_, badImage := errors.AsType[*ImageError](err)
		switch {
		case err == nil:
			outcome = "ok"
		case badImage:
			outcome = "image"
		case ctx.Err() != nil:
			outcome = "gone"
		}
		s.Observe(Inference{outcome, timing, len(found.Boxes)})
	}()
	e := s.engine
	e.calls.Add(1)
	defer e.calls.Add(-1)
	free, slow, err := s.images.reserve(ctx, data) // before a place for a run, which it would keep from others
	if err != nil {
		return Detections{}, timing, err
	}
	defer free()
	r := s.outputs(ctx, data, free, slow)
	timing = r.timing
	timing.Pre, timing.Decode = r.pre, r.filled.decode
	if r.err != nil {
		return Detections{}, timing, r.err
	}
	began := time.Now()
	list, err := decodeAbove(s.sig, r.boxes, r.logits, r.width, r.height, score)
	if err != nil {
		return Detections{}, timing, &ModelError{s.path, err.Error()}
	}
	found = Detections{r.width, r.height, s.aboveThreshold(withClasses(s.sig, list))}
	timing.Post = time.Since(began)
	return found, timing, nil
}

// outputs returns the model's outputs for an image. free gives back the room for its pixels, and slow
// says that it takes long to decode.
func (s *Server) outputs(ctx context.Context, data []byte, free func(), slow bool) result {
	e := s.engine
	fill := func(input []float32) (f filled, err error) {
		if s.slow != nil && bytes.HasPrefix(data, pngStart) {
			s.slow()
		}
		threads := 1
		if e.calls.Load() <= 1 {
			threads = e.places
		}
		f, err = fillOfFile(data, s.images.jpeg, s.sig, input, threads)
		free()
		if err != nil {
			return f, &ImageError{Why: err.Error()}
		}
		return f, nil
	}
	if e.decode == nil {
		c := newCall(ctx, fill)
		c.leads = slow
		return e.do(c)
	}
	arrived := time.Now()
	if err := acquire(ctx, e.decode); err != nil {
		return result{err: err}
	}
	queued := time.Since(arrived)
	input := e.inputs.Get().(*[]float32)
	part := e.part(input, 0)
	f, err := fill(part)
	<-e.decode
	r := result{filled: f, err: err}
	if err == nil {
		r.boxes, r.logits, r.timing, r.err = e.run(ctx, part)
	}
	if r.err == nil { // otherwise a run may still read it
		e.inputs.Put(input)
	}
	r.timing.Queue += queued
	return r
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

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) {
	if err := s.Health(r.Context()); err != nil {
		writeError(w, err)
		return
	}
	writeOK(w)
}

func (s *Server) serveInfer(w http.ResponseWriter, r *http.Request) {
	score := 0.0
	if text := r.URL.Query().Get("score"); text != "" {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || !(v >= 0 && v <= 1) {
			writeJSON(w, http.StatusBadRequest, failed{fmt.Sprintf("score is %.40q, want a number from 0 to 1", text)})
			return
		}
		score = v
	}
	data, release, err := s.body(w, r, MaxImageBytes)
	defer release()
	if err != nil {
		writeError(w, err)
		return
	}
	found, timing, err := s.Infer(r.Context(), data, score)
	if err != nil {
		writeError(w, err)
		return
	}
	h := w.Header()
	h.Set("Server-Timing", timing.Header())
	if r.Header.Get("Accept") != octets {
		writeJSON(w, http.StatusOK, found)
		return
	}
	body := appendDetections(nil, found)
	h.Set("Content-Type", octets)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // an error means that the caller has left
}

// body reads the body of a request. It waits before that for room in memory, and release frees it.
func (s *Server) body(w http.ResponseWriter, r *http.Request, limit int64) (data []byte, release func(), err error) {
	select {
	case s.imageSlots <- struct{}{}:
	case <-r.Context().Done():
		return nil, func() {}, context.Cause(r.Context())
	}
	release = func() { <-s.imageSlots }
	if r.ContentLength > limit {
		return nil, release, &http.MaxBytesError{Limit: limit}
	}
	need := r.ContentLength
	if need < 0 {
		need = limit
	}
	need = min(need, s.filesSize)
	if err := s.files.Acquire(r.Context(), need); err != nil {
		return nil, release, context.Cause(r.Context())
	}
	release = func() { s.files.Release(need); <-s.imageSlots }
	if r.ContentLength < 0 {
		data, err = io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
		return data, release, err
	}
	data = make([]byte, r.ContentLength)
	_, err = io.ReadFull(r.Body, data)
	return data, release, err
}

// failed is the body of an error response.
type failed struct {
	Error string `json:"error"`
}

func writeError(w http.ResponseWriter, err error) {
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		writeJSON(w, http.StatusRequestEntityTooLarge, failed{err.Error()})
		return
	}
	if bad, ok := errors.AsType[*ImageError](err); ok {
		writeJSON(w, http.StatusBadRequest, failed{bad.Why})
		return
	}
	if bad, ok := errors.AsType[*TensorError](err); ok {
		writeJSON(w, http.StatusBadRequest, failed{bad.Why})
		return
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		writeJSON(w, http.StatusBadRequest, failed{"the body ends too early"})
		return
	}
	writeJSON(w, http.StatusInternalServerError, failed{err.Error()})
}

func writeOK(w http.ResponseWriter) { writeJSON(w, http.StatusOK, map[string]bool{"ok": true}) }

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // an error means that the caller has left
}
