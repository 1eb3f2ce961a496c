package detect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"
)

// A TensorError says that a tensor does not fit the model.
type TensorError struct{ Why string }

func (e *TensorError) Error() string { return "tensor: " + e.Why }

// shapeHeader has a tensor's shape as numbers with commas between them. A response has one for each output. The body
// has the numbers of the tensors one after the other, float32 in little-endian order.
const shapeHeader = "Aob-Shape"

func formatShape(shape []int64) string {
	text := make([]string, len(shape))
	for i, n := range shape {
		text[i] = strconv.FormatInt(n, 10)
	}
	return strings.Join(text, ",")
}

// parseShape returns the shape and how many numbers it has, at most limit.
func parseShape(text string, limit int64) (shape []int64, count int64, err error) {
	count = 1
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.ParseInt(part, 10, 64)
		if err != nil || n < 1 || n > limit/count || len(shape) == 8 {
			return nil, 0, fmt.Errorf("shape %.100q: want numbers above 0 with commas between them, of at most %d "+
				"values", text, limit)
		}
		shape, count = append(shape, n), count*n
	}
	return shape, count, nil
}

// FloatsOf returns the numbers that little-endian bytes hold. They share the bytes' memory if that is aligned, which
// fresh memory is; both processors that AOB runs on are little-endian.
func FloatsOf(data []byte) []float32 {
	if len(data) < 4 {
		return nil
	}
	if uintptr(unsafe.Pointer(unsafe.SliceData(data)))%4 != 0 {
		data = slices.Clone(data)
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(data))), len(data)/4)
}

// BytesOf returns the numbers' bytes in little-endian order, in the same memory.
func BytesOf(numbers []float32) []byte {
	if len(numbers) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(numbers))), 4*len(numbers))
}

// Run runs the model on a tensor [N,3,H,W] and returns boxes and logits. NaN and infinite numbers are refused.
func (s *Server) Run(ctx context.Context, input Tensor) (boxes, logits Tensor, timing Timing, err error) {
	n := int64(0)
	if len(input.Shape) == 4 {
		n = input.Shape[0]
	}
	want := []int64{n, 3, int64(s.sig.Height), int64(s.sig.Width)}
	if n < 1 || n > int64(s.engine.batch) || !slices.Equal(input.Shape, want) ||
		int64(len(input.Data)) != n*want[1]*want[2]*want[3] {
		return boxes, logits, timing, &TensorError{fmt.Sprintf("input %s has shape %v and %d values, want [%s,3,%d,%d]",
			s.sig.Input, input.Shape, len(input.Data), batchText(s.engine.batch), s.sig.Height, s.sig.Width)}
	}
	for i, v := range input.Data {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return boxes, logits, timing, &TensorError{fmt.Sprintf("input %s has the value %v at %d", s.sig.Input, v,
				i)}
		}
	}
	s.engine.calls.Add(1)
	defer s.engine.calls.Add(-1)
	if n == 1 {
		b, l, timing, err := s.engine.run(ctx, input.Data)
		slots := int64(len(s.sig.Slots))
		return Tensor{[]int64{1, int64(len(b) / 4), 4}, b}, Tensor{[]int64{1, int64(len(l)) / slots, slots}, l}, timing,
			err
	}
	return s.engine.once(ctx, input.Data, int(n))
}

func batchText(n int) string {
	if n == 1 {
		return "1"
	}
	return fmt.Sprintf("1 to %d", n)
}

func (s *Server) serveRun(w http.ResponseWriter, r *http.Request) {
	perImage := int64(3 * s.sig.Width * s.sig.Height)
	shape, count, err := parseShape(r.Header.Get(shapeHeader), perImage*int64(s.engine.batch))
	if err != nil {
		writeError(w, &TensorError{err.Error()})
		return
	}
	data, release, err := s.body(w, r, 4*count)
	defer release()
	if err == nil && int64(len(data)) != 4*count {
		err = &TensorError{fmt.Sprintf("the body has %d bytes, want %d", len(data), 4*count)}
	}
	if err != nil {
		writeError(w, err)
		return
	}
	boxes, logits, timing, err := s.Run(r.Context(), Tensor{shape, FloatsOf(data)})
	if err != nil {
		writeError(w, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", octets)
	h.Set("Content-Length", strconv.Itoa(4*(len(boxes.Data)+len(logits.Data))))
	h.Set("Server-Timing", timing.Header())
	h[shapeHeader] = []string{formatShape(boxes.Shape), formatShape(logits.Shape)}
	_, err = w.Write(BytesOf(boxes.Data))
	if err == nil {
		_, _ = w.Write(BytesOf(logits.Data)) // an error means that the caller has left
	}
}

// Run runs the model on a tensor [N,3,H,W], already resized and normalised, and returns its outputs, boxes and logits.
// A tensor that does not fit the model is a *TensorError.
func (c Client) Run(ctx context.Context, input Tensor) (outputs []Tensor, timing Timing, err error) {
	resp, err := c.send(ctx, http.MethodPost, "run", BytesOf(input.Data),
		shapeHeader+": "+formatShape(input.Shape)+"\r\n")
	if err != nil {
		return nil, timing, err
	}
	defer resp.Body.Close()
	for _, text := range resp.Header.Values(shapeHeader) {
		shape, count, err := parseShape(text, maxOutputs*MaxBatch)
		if err != nil {
			return nil, timing, fmt.Errorf("aob-detect: %w", err)
		}
		data := make([]float32, count)
		if _, err := io.ReadFull(resp.Body, BytesOf(data)); err != nil {
			return nil, timing, fmt.Errorf("aob-detect: %w", err)
		}
		outputs = append(outputs, Tensor{shape, data})
	}
	if len(outputs) != 2 {
		return nil, timing, errors.New("aob-detect: its response has not two tensors")
	}
	return outputs, parseTiming(resp.Header.Get("Server-Timing")), nil
}

// Header is the timing as the header Server-Timing (W3C), in milliseconds.
func (t Timing) Header() string {
	ms := func(d time.Duration) string { return strconv.FormatFloat(d.Seconds()*1e3, 'f', 3, 64) }
	return "pre;dur=" + ms(t.Pre) + ", queue;dur=" + ms(t.Queue) + ", infer;dur=" + ms(t.Infer) + ", post;dur=" +
		ms(t.Post) + ", batch;dur=" + strconv.Itoa(t.Batch)
}

// parseTiming reads what Header writes. What it does not know is left out.
func parseTiming(header string) (t Timing) {
	for part := range strings.SplitSeq(header, ",") {
		name, text, _ := strings.Cut(strings.TrimSpace(part), ";dur=")
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || !(v >= 0 && v < 1e9) {
			continue
		}
		d := time.Duration(v * float64(time.Millisecond))
		switch name {
		case "pre":
			t.Pre = d
		case "queue":
			t.Queue = d
		case "infer":
			t.Infer = d
		case "post":
			t.Post = d
		case "batch":
			t.Batch = int(v)
		}
	}
	return t
}
