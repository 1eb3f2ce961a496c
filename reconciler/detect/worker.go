package detect

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/profile"
)

// A Tensor has its numbers in row-major order.
type Tensor struct {
	Shape []int64
	Data  []float32
}

// A Model is a loaded ONNX file. Run is safe for concurrent use.
type Model interface {
	// Run feeds the input and returns the outputs in the order of the names given to Load. When ctx is done it returns
	// ctx's error soon.
	Run(ctx context.Context, input Tensor) ([]Tensor, error)
	Close() error
}

// A Runtime opens models. Its errors count as the model's fault.
type Runtime interface {
	// Describe returns what a model's file declares.
	Describe(model []byte) (inputs, outputs []Port, err error)
	// Metadata returns the metadata entry of the given name in a model's file; empty if there is none.
	Metadata(model []byte, name string) (string, error)
	// Load prepares a model to run on the given number of threads.
	Load(model []byte, input string, outputs []string, threads int) (Model, error)
}

// A Worker is the side of a Detector inside aob-detect.
type Worker struct {
	Runtime Runtime
	JPEG    JPEG
	Threads int            // CPU cores to use; 0: all
	Memory  delivery.Bytes // limit of this process's memory, a quarter of which images may take; 0: none

	// Of a server: the largest number of images of one run, where the model takes batches; and how long an image
	// waits for others while the model runs.
	Batch     int
	BatchWait time.Duration

	// Stuck, if not nil, is called when a run of a server goes on for StuckAfter (10 s) after its callers have left. No
	// call can be answered in its place, so the process should end.
	Stuck      func()
	StuckAfter time.Duration

	// Slow, if not nil, is called before a server decodes a file by Go's own code, which takes the time of several JPEG
	// files.
	Slow func()

	// Provider names what computes the model, for descriptions; empty: Provider.
	Provider string
	TensorRT string // its version, with an engine of it
	// Bounds say how far the outputs may be from the golden ones; zero: Tolerance.
	Bounds profile.Bounds
}

// Hello writes the first line of every output.
func Hello(out io.Writer) error { return writeLine(out, message{Hello: &ourHello}) }

// Ready writes the line that says that a server is ready.
func Ready(out io.Writer) error {
	yes := true
	return writeLine(out, message{Ready: &yes})
}

// WriteProgress writes what happens while an engine is built.
func WriteProgress(out io.Writer, p profile.Progress) error {
	return writeLine(out, message{Building: &p})
}

// WriteProvider writes what computes, as [Detector.Provider] returns it.
func WriteProvider(out io.Writer, provider string) error {
	return writeLine(out, message{Provider: &provider})
}

// Fail writes the last line of an output that ends with an error.
func Fail(out io.Writer, err error) error { return writeLine(out, message{Failure: failureOf(err)}) }

// loaded is a model with its signature.
type loaded struct {
	path   string
	model  Model
	images imageDecoder
	sig    delivery.Signature
	inputs sync.Pool // of *[]float32: tensors of one image
}

func (w Worker) load(path string, data []byte, sig delivery.Signature, threads int) (*loaded, error) {
	model, err := w.Runtime.Load(data, sig.Input, []string{sig.Boxes, sig.Logits}, threads)
	if err != nil {
		return nil, &ModelError{path, fmt.Sprintf("does not load: %v", err)}
	}
	l := &loaded{path: path, model: model, images: newDecoder(w.JPEG, w.Memory), sig: sig}
	l.inputs.New = func() any { input := make([]float32, l.numbers()); return &input }
	return l, nil
}

// numbers is how many numbers the tensor of one image has.
func (l *loaded) numbers() int { return 3 * l.sig.Height * l.sig.Width }

// run runs the model on the tensors of n images and returns boxes and logits. Their shapes are checked against the
// signature, whatever the file declares.
func (l *loaded) run(ctx context.Context, input []float32, n int) (boxes, logits Tensor, err error) {
	fail := func(format string, args ...any) (Tensor, Tensor, error) {
		return Tensor{}, Tensor{}, &ModelError{l.path, fmt.Sprintf(format, args...)}
	}
	images := int64(n)
	shape := []int64{images, 3, int64(l.sig.Height), int64(l.sig.Width)}
	out, err := l.model.Run(ctx, Tensor{shape, input})
	if ctx.Err() != nil {
		return Tensor{}, Tensor{}, context.Cause(ctx)
	}
	if err != nil {
		return fail("does not run: %v", err)
	}
	b, s := out[0], out[1]
	if len(b.Shape) != 3 || b.Shape[0] != images || b.Shape[1] < 1 || b.Shape[1] > maxQueries || b.Shape[2] != 4 {
		return fail("output %s has shape %v, want [%d,Q,4]", l.sig.Boxes, b.Shape, n)
	}
	slots := int64(len(l.sig.Slots))
	if !slices.Equal(s.Shape, []int64{images, b.Shape[1], slots}) || b.Shape[1]*slots > maxOutputs {
		return fail("output %s has shape %v, want [%d,%d,%d]", l.sig.Logits, s.Shape, n, b.Shape[1], slots)
	}
	return b, s, nil
}

// golden runs the golden input twice and checks that both outputs are the same.
func (l *loaded) golden(ctx context.Context) (Golden, error) {
	g := Golden{Seed: goldenSeed, Width: l.sig.Width, Height: l.sig.Height, Slots: len(l.sig.Slots)}
	boxes, logits, err := l.run(ctx, g.Input(), 1)
	if err != nil {
		return Golden{}, err
	}
	g.Boxes, g.Logits = boxes.Data, logits.Data
	list, err := decode(l.sig, g.Boxes, g.Logits, g.Width, g.Height)
	if err != nil {
		return Golden{}, &ModelError{l.path, err.Error()}
	}
	g.Best = withClasses(l.sig, list[:min(len(list), goldenBest)])
	return g, l.replay(ctx, g)
}

func (l *loaded) replay(ctx context.Context, g Golden) error {
	boxes, logits, err := l.run(ctx, g.Input(), 1)
	if err != nil {
		return err
	}
	if err := g.check(l.sig, boxes.Data, logits.Data); err != nil {
		return &ModelError{l.path, err.Error()}
	}
	return nil
}

// separates says whether the golden's outputs are the same with another image in the batch. Some models compute across
// the images of a batch.
func (l *loaded) separates(ctx context.Context, g Golden) bool {
	input := g.Input()
	other := slices.Clone(input)
	slices.Reverse(other)
	boxes, logits, err := l.run(ctx, append(input, other...), 2)
	if err != nil {
		return false
	}
	return g.check(l.sig, share(boxes.Data, 0, 2), share(logits.Data, 0, 2)) == nil
}

// declared is what a model's file declares.
type declared struct {
	data            []byte
	inputs, outputs []Port
	entries         entries
}

func (w Worker) declared(path string) (d declared, err error) {
	if d.data, err = durable.ReadFile(path, MaxModelBytes); err != nil {
		return d, fmt.Errorf("model %s: %w", path, err)
	}
	if d.inputs, d.outputs, err = w.Runtime.Describe(d.data); err == nil {
		d.entries, err = w.entriesOf(d.data)
	}
	if err != nil {
		return d, &ModelError{path, fmt.Sprintf("does not load: %v", err)}
	}
	if err := checkDeclared(d.inputs, d.outputs); err != nil {
		return d, &ModelError{path, err.Error()}
	}
	return d, nil
}

// inspect runs the golden input on a model of this signature.
func (w Worker) inspect(ctx context.Context, path string, data []byte, sig delivery.Signature) (Golden, error) {
	model, err := w.load(path, data, sig, cores(w.Threads))
	if err != nil {
		return Golden{}, err
	}
	defer model.model.Close()
	return model.golden(ctx)
}

// Inspect opens the model at path, checks it against the contract, and runs the golden input.
func (w Worker) Inspect(ctx context.Context, path string) (Inspection, error) {
	d, err := w.declared(path)
	if err != nil {
		return Inspection{}, err
	}
	sig, err := signatureOf(d.entries, d.inputs, d.outputs)
	if err != nil {
		return Inspection{}, &ModelError{path, err.Error()}
	}
	golden, err := w.inspect(ctx, path, d.data, sig)
	if err != nil {
		return Inspection{}, err
	}
	encoded, err := golden.MarshalBinary()
	if err != nil {
		return Inspection{}, &ModelError{path, err.Error()}
	}
	return Inspection{sig, encoded}, nil
}

// WriteInspection writes the last line of inspect's output.
func WriteInspection(out io.Writer, i Inspection) error {
	return writeLine(out, message{Inspected: &i})
}

// Describe says what the model at path declares. It runs the model where it is known which slot is which class.
func (w Worker) Describe(ctx context.Context, path string, slots []string) (Declaration, error) {
	d, err := w.declared(path)
	if err != nil {
		return Declaration{}, err
	}
	found := Declaration{Inputs: d.inputs, Outputs: d.outputs, Metadata: d.entries.description != ""}
	var sig delivery.Signature
	switch {
	case found.Metadata:
		sig, err = signatureOf(d.entries, d.inputs, d.outputs)
		found.Slots, found.Own = len(sig.Slots), d.entries.own != ""
		found.Producer = producerOf(d.entries)
	case len(slots) > 0:
		sig, err = signatureOfSlots(slots, d.inputs, d.outputs)
		found.Slots = len(sig.Slots)
	default:
		sig = plainSignature()
		found.Slots, err = checkPorts(&sig, d.inputs, d.outputs)
	}
	if err == nil && len(sig.Slots) > 0 {
		if _, err := w.inspect(ctx, path, d.data, sig); err != nil {
			return Declaration{}, err
		}
		found.Signature = &sig
	}
	if err != nil {
		return Declaration{}, &ModelError{path, err.Error()}
	}
	return found, nil
}

// ReadSlots reads the classes of a model's slots as a Detector writes them: a list in JSON.
func ReadSlots(in io.Reader) ([]string, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxHeader+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxHeader {
		return nil, fmt.Errorf("the classes of the slots have more than %s", delivery.Bytes(maxHeader))
	}
	var slots []string
	err = delivery.ParseJSON(data, &slots)
	return slots, err
}

// WriteDeclaration writes the last line of describe's output.
func WriteDeclaration(out io.Writer, d Declaration) error {
	return writeLine(out, message{Described: &d})
}

// Evaluate reads a request from in and writes one line per image to out, in the request's order. It processes several
// images at the same time, each on one thread, so the results do not depend on the number of threads. bundle is the
// folder of the model's bundle, whose golden is replayed first; empty if the model has none yet.
func (w Worker) Evaluate(ctx context.Context, bundle string, in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxHeader)
	var h header
	if err := nextLine(lines, &h); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	if h.Images < 0 || h.Images > MaxImages {
		return fmt.Errorf("request: %d images, want at most %d", h.Images, MaxImages)
	}
	if err := checkSignature(h.Signature); err != nil {
		return &ModelError{h.Model, err.Error()}
	}
	data, err := durable.ReadFile(h.Model, MaxModelBytes)
	if err != nil {
		return fmt.Errorf("model %s: %w", h.Model, err)
	}
	images, threads := cores(w.Threads), 1
	if h.Timed {
		images, threads = 1, cores(w.Threads)
	}
	model, err := w.load(h.Model, data, h.Signature, threads)
	if err == nil && bundle != "" {
		err = w.known(ctx, bundle, model, data)
	}
	if err != nil {
		return err
	}
	data = nil // the runtime has its own copy, and images need the memory

	// The queue has the images in progress, in order, and those that are done before an earlier one. As many are in
	// progress as there are places.
	type result struct {
		line *imageLine
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	queue := make(chan chan result, images*aheadOf)
	places := make(chan struct{}, images)
	go func() {
		defer close(queue)
		for range h.Images {
			made := make(chan result, 1)
			select {
			case queue <- made:
			case <-ctx.Done():
				return
			}
			var request ImageFile
			if err := nextLine(lines, &request); err != nil {
				made <- result{err: fmt.Errorf("request: %w", err)}
				return
			}
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return
			}
			go func() {
				line, err := model.detect(ctx, request, h)
				<-places
				made <- result{line, err}
			}()
		}
	}()
	done := 0
	for made := range queue {
		a := <-made
		if a.err != nil {
			return a.err
		}
		if err := writeLine(out, message{Image: a.line}); err != nil {
			return err
		}
		done++
	}
	if done != h.Images {
		return context.Cause(ctx)
	}
	// No image is in progress any more. After an error the model is not closed, because the process is about to end.
	if err := model.model.Close(); err != nil {
		return err
	}
	return writeLine(out, message{Done: &done})
}

// aheadOf is how many images for each core may be done before an earlier one.
const aheadOf = 8

// known replays the golden of a model's bundle, and checks that the signature is the model's.
func (w Worker) known(ctx context.Context, bundle string, model *loaded, data []byte) error {
	if err := w.agree(data, model.sig); err != nil {
		return &ModelError{model.path, err.Error()}
	}
	content, err := durable.ReadFile(filepath.Join(bundle, delivery.GoldenFile), MaxGoldenBytes)
	if err != nil {
		return fmt.Errorf("bundle %s: %s: %s", bundle, delivery.GoldenFile, fileReason(err))
	}
	golden, err := ParseGolden(content)
	if err != nil {
		return fmt.Errorf("bundle %s: %s: %w", bundle, delivery.GoldenFile, err)
	}
	golden.bounds = w.Bounds
	return model.replay(ctx, golden)
}

const maxHeader = 4 << 20 // a signature with many slots

func nextLine(lines *bufio.Scanner, v any) error {
	if !lines.Scan() {
		if err := lines.Err(); err != nil {
			return err
		}
		return io.ErrUnexpectedEOF
	}
	return delivery.ParseJSON(lines.Bytes(), v)
}

// detect returns the detections on one image.
func (l *loaded) detect(ctx context.Context, request ImageFile, h header) (*imageLine, error) {
	data, err := durable.ReadFile(request.Path, MaxImageBytes)
	if err != nil {
		return nil, &ImageError{request.Path, fileReason(err)}
	}
	input := l.inputs.Get().(*[]float32)
	defer l.inputs.Put(input)
	image, err := l.images.fill(ctx, data, l.sig, *input)
	if bad, ok := errors.AsType[*ImageError](err); ok {
		bad.Path = request.Path
	}
	if err != nil {
		return nil, err
	}
	began := time.Now()
	boxes, logits, err := l.run(ctx, *input, 1)
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	list, err := decode(l.sig, boxes.Data, logits.Data, image.width, image.height)
	if err != nil {
		return nil, &ModelError{l.path, fmt.Sprintf("on image %s: %v", filepath.Base(request.Path), err)}
	}
	line := &imageLine{ID: request.ID, Width: image.width, Height: image.height,
		Boxes: make([][6]float64, len(list))}
	if h.Timed {
		line.Seconds = took.Seconds()
	}
	for i, f := range list {
		line.Boxes[i] = [6]float64{float64(f.slot), f.score, f.x, f.y, f.w, f.h}
	}
	if h.Packed {
		line.Packed, line.Boxes = pack(line.Boxes), nil
	}
	return line, nil
}

// fileReason removes the path from an error whose message will contain it anyway.
func fileReason(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}
