package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
)

// lengthHeader has the length of the JSON in front of binary tensors.
const lengthHeader = "Inference-Header-Content-Length"

// maxV2Header is the largest JSON in front of binary tensors.
const maxV2Header = 1 << 20

// maxV2Timeout in microseconds is longer than any timeout of a server.
const maxV2Timeout = 1e12

func (a *API) v2Server(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, map[string]any{"name": "aob-detect", "version": a.o.Version,
		"extensions": []string{"binary_tensor_data"}})
	return nil
}

func (a *API) v2Live(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, map[string]bool{"live": true})
	return nil
}

func (a *API) v2Ready(w http.ResponseWriter, _ *http.Request) error {
	if _, err := a.ready(); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, map[string]bool{"ready": true})
	return nil
}

// v2Port describes an input or output.
type v2Port struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"`
}

func (a *API) v2Model(w http.ResponseWriter, r *http.Request) error {
	facts, err := a.facts(r)
	if err != nil {
		return err
	}
	if err := facts.is(r.PathValue("model"), r.PathValue("version")); err != nil {
		return err
	}
	ports := func(list []detect.Port) []v2Port {
		return delivery.Each(list, func(p detect.Port) v2Port { return v2Port{p.Name, "FP32", p.Shape} })
	}
	writeJSON(w, http.StatusOK, struct {
		Name     string   `json:"name"`
		Versions []string `json:"versions"`
		Platform string   `json:"platform"`
		Inputs   []v2Port `json:"inputs"`
		Outputs  []v2Port `json:"outputs"`
	}{facts.Name, []string{facts.Version}, "onnxruntime_onnx", ports(facts.Inputs), ports(facts.Outputs)})
	return nil
}

func (a *API) v2ModelReady(w http.ResponseWriter, r *http.Request) error {
	facts, err := a.ready()
	if err != nil {
		return err
	}
	if err := facts.is(r.PathValue("model"), r.PathValue("version")); err != nil {
		return err
	}
	return a.v2Ready(w, r)
}

// A v2Request is a request to infer.
type v2Request struct {
	ID      string
	Model   string        // empty if it names none
	Timeout time.Duration // 0: none
	Binary  bool          // outputs are binary if none are named
	Outputs []v2Output
	Shape   []int64
	Data    []float32 // nil if the data are binary
	Size    int64     // of binary data in bytes
}

// A v2Output is an output that the caller asks for.
type v2Output struct {
	Name   string
	Binary bool
}

// parseV2 reads the JSON of a request for the model.
func parseV2(data []byte, facts *Facts) (v2Request, error) {
	var q v2Request
	input := false
	c := &cursor{data: data}
	err := c.object(false, map[string]func() error{
		"id": c.optional(func() (err error) {
			if q.ID, err = c.text(); err == nil && utf8.RuneCountInString(q.ID) > 256 {
				return c.fail("id is longer than 256 characters")
			}
			return err
		}),
		"model_name":    c.optional(func() (err error) { q.Model, err = c.text(); return err }),
		"model_version": func() error { return c.skip(1) },
		"parameters": c.optional(func() error {
			return c.object(false, map[string]func() error{
				"binary_data_output": func() (err error) { q.Binary, err = c.boolean(); return err },
				"timeout": func() error {
					us, err := c.whole()
					q.Timeout = time.Duration(min(us, maxV2Timeout)) * time.Microsecond
					return err
				},
			})
		}),
		"inputs": func() error {
			return c.array(func(i int) error {
				if i > 0 {
					return c.fail("there is a second input, want one")
				}
				input = true
				return q.input(c, facts)
			})
		},
		"outputs": c.optional(func() error {
			return c.array(func(i int) error { return q.output(c, facts) })
		}),
	})
	if err == nil {
		err = c.end()
	}
	if err == nil && !input {
		err = invalid("inputs is missing or empty, want one input named %s", facts.Inputs[0].Name)
	}
	return q, err
}

// input reads the description of the input, and its data if they are not binary.
func (q *v2Request) input(c *cursor, facts *Facts) error {
	want := facts.Inputs[0]
	var name, datatype string
	var data *cursor // where the data are, if they come before the shape
	var size, here bool
	begin := c.at
	err := c.object(false, map[string]func() error{
		"name":     func() (err error) { name, err = c.text(); return err },
		"datatype": func() (err error) { datatype, err = c.text(); return err },
		"shape": func() (err error) {
			q.Shape, err = parseShape(c, facts)
			return err
		},
		"parameters": c.optional(func() error {
			return c.object(false, map[string]func() error{
				"binary_data_size": func() (err error) { size = true; q.Size, err = c.whole(); return err },
			})
		}),
		"data": func() (err error) {
			here = true
			if q.Shape == nil {
				data = &cursor{c.data, c.at}
				return c.skip(maxDepth)
			}
			q.Data, err = c.tensor(q.Shape)
			return err
		},
	})
	if err != nil {
		return err
	}
	switch {
	case name != want.Name:
		return invalid("input %.100q is unknown, want %s", name, want.Name)
	case datatype != "FP32":
		return invalid("input %s has datatype %.40q, want FP32", name, datatype)
	case q.Shape == nil:
		return invalid("input %s has no shape", name)
	case size && here:
		return invalid("input %s has data and binary_data_size, want one of them", name)
	case !size && !here:
		return invalid("input %s (JSON, from byte %d) has neither data nor the parameter binary_data_size", name, begin)
	case size && q.Size != 4*elements(q.Shape):
		return invalid("input %s has binary_data_size %d, want %d for its shape", name, q.Size, 4*elements(q.Shape))
	case data != nil:
		q.Data, err = data.tensor(q.Shape)
	}
	return err
}

// elements is the number of values of a shape that parseShape has returned.
func elements(shape []int64) int64 {
	n := int64(1)
	for _, size := range shape {
		n *= size
	}
	return n
}

// parseShape reads the shape of the input, which has to fit the model.
func parseShape(c *cursor, facts *Facts) ([]int64, error) {
	want := facts.Inputs[0]
	shape := []int64{}
	err := c.array(func(i int) error {
		size, err := c.whole()
		if i >= len(want.Shape) {
			return c.fail("the shape has more than %d sizes", len(want.Shape))
		}
		shape = append(shape, size)
		return err
	})
	if err != nil {
		return nil, err
	}
	fits := len(shape) == len(want.Shape) && shape[0] >= 1 && shape[0] <= int64(max(facts.Batch, 1)) &&
		slices.Equal(shape[1:], want.Shape[1:])
	if !fits {
		return nil, invalid("input %s has shape %v, want %v with 1 to %d images", want.Name, shape, want.Shape,
			max(facts.Batch, 1))
	}
	return shape, nil
}

// output reads an output that the caller asks for.
func (q *v2Request) output(c *cursor, facts *Facts) error {
	var o v2Output
	err := c.object(false, map[string]func() error{
		"name": func() (err error) { o.Name, err = c.text(); return err },
		"parameters": c.optional(func() error {
			return c.object(false, map[string]func() error{
				"binary_data": func() (err error) { o.Binary, err = c.boolean(); return err },
			})
		}),
	})
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(facts.Outputs, func(p detect.Port) bool { return p.Name == o.Name }) {
		return invalid("output %.100q is unknown; the model has %s and %s", o.Name, facts.Outputs[0].Name,
			facts.Outputs[1].Name)
	}
	if slices.ContainsFunc(q.Outputs, func(other v2Output) bool { return other.Name == o.Name }) {
		return invalid("output %s is there twice", o.Name)
	}
	q.Outputs = append(q.Outputs, o)
	return nil
}

// v2Infer is POST /v2/models/{model}/infer.
func (a *API) v2Infer(w http.ResponseWriter, r *http.Request) error {
	before, err := a.facts(r)
	if err != nil {
		return err
	}
	if err := before.is(r.PathValue("model"), r.PathValue("version")); err != nil {
		return err
	}
	q, release, err := a.readV2(w, r, before)
	defer release()
	if err != nil {
		return err
	}
	// The model is not kept from being replaced while a caller sends.
	ctx, facts, model, done, err := a.lease(r)
	if err != nil {
		return err
	}
	defer done()
	if facts != before && !facts.takesWhat(before) {
		return Unavailable{Why: "the model was replaced during the request; send it again"}
	}
	if q.Model != "" && q.Model != facts.Name {
		return invalid("model_name is %.100q, but the path names %s", q.Model, facts.Name)
	}
	if q.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, q.Timeout, Problem{Status: http.StatusGatewayTimeout,
			Why: fmt.Sprintf("the model gave no answer within the timeout of the request (%s)", q.Timeout)})
		defer cancel()
	}
	outputs, timing, err := model.Run(ctx, detect.Tensor{Shape: q.Shape, Data: q.Data})
	if late, ok := errors.AsType[Problem](context.Cause(ctx)); ok && err != nil {
		return late // not what the error is at the other end of the socket
	}
	if err != nil {
		return err
	}
	setTiming(w, timing)
	return writeV2(w, facts, q, outputs)
}

// takesWhat says whether a request for another model is one for this.
func (f *Facts) takesWhat(other *Facts) bool {
	same := func(a, b detect.Port) bool { return a.Name == b.Name && slices.Equal(a.Shape, b.Shape) }
	return f.Name == other.Name && f.Version == other.Version && slices.EqualFunc(f.Inputs, other.Inputs, same) &&
		slices.EqualFunc(f.Outputs, other.Outputs, same) && f.Batch == other.Batch
}

// readV2 reads a request. Binary data go from the connection to where the model takes them from.
func (a *API) readV2(w http.ResponseWriter, r *http.Request, facts *Facts) (q v2Request, release func(), err error) {
	text := r.Header.Get(lengthHeader)
	factor := int64(3) // a number may have 2 bytes in JSON, and has 4 in memory
	if text != "" {
		factor = 1
	}
	b, release, err := a.open(w, r, factor)
	if err != nil {
		return q, func() {}, err
	}
	if text == "" {
		data, err := b.all()
		if err == nil {
			q, err = parseV2(data, facts)
		}
		if err == nil && q.Data == nil {
			err = invalid("the input's data are binary, but the header %s is missing", lengthHeader)
		}
		return q, release, err
	}
	length, err := strconv.ParseUint(text, 10, 31)
	if err != nil || length < 1 || length > maxV2Header || b.size >= 0 && int64(length) > b.size {
		return q, release, invalid("%s is %.40q, want the length of the JSON, from 1 to %d and within the body",
			lengthHeader, text, maxV2Header)
	}
	data := make([]byte, length)
	if _, err := io.ReadFull(b.r, data); err != nil {
		return q, release, b.failed(err)
	}
	if q, err = parseV2(data, facts); err != nil {
		return q, release, err
	}
	if b.size >= 0 && b.size != int64(length)+q.Size {
		return q, release, invalid("%d bytes follow the JSON, want %d", b.size-int64(length), q.Size)
	}
	if q.Size > 0 {
		q.Data, err = exactly(elements(q.Shape), func(part []float32) error {
			_, err := io.ReadFull(b.r, detect.BytesOf(part))
			return err
		})
		if err != nil {
			return q, release, b.failed(err)
		}
	}
	if n, err := b.r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		return q, release, invalid("more than %d bytes follow the JSON", q.Size)
	}
	return q, release, nil
}

// writeV2 writes the outputs that were asked for, in the order of the request.
func writeV2(w http.ResponseWriter, facts *Facts, q v2Request, outputs []detect.Tensor) error {
	asked := q.Outputs
	if len(asked) == 0 {
		asked = delivery.Each(facts.Outputs, func(p detect.Port) v2Output { return v2Output{p.Name, q.Binary} })
	}
	parts := [][]byte{nil} // the JSON is the first
	text := appendText([]byte(`{"model_name":`), facts.Name)
	text = appendText(append(text, `,"model_version":`...), facts.Version)
	if q.ID != "" {
		text = appendText(append(text, `,"id":`...), q.ID)
	}
	text = append(text, `,"outputs":[`...)
	for i, o := range asked {
		tensor := outputs[slices.IndexFunc(facts.Outputs, func(p detect.Port) bool { return p.Name == o.Name })]
		if i > 0 {
			text = append(text, ',')
		}
		text = appendText(append(text, `{"name":`...), o.Name)
		text = append(text, `,"datatype":"FP32","shape":[`...)
		for k, size := range tensor.Shape {
			if k > 0 {
				text = append(text, ',')
			}
			text = strconv.AppendInt(text, size, 10)
		}
		if o.Binary {
			content := detect.BytesOf(tensor.Data)
			parts = append(parts, content)
			text = append(text, `],"parameters":{"binary_data_size":`...)
			text = append(strconv.AppendInt(text, int64(len(content)), 10), `}}`...)
			continue
		}
		text = append(text, `],"data":[`...)
		for k, v := range tensor.Data {
			if k > 0 {
				text = append(text, ',')
			}
			if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
				return Problem{Status: http.StatusInternalServerError,
					Why: "output " + o.Name + " has values that are not finite; JSON has none, ask for binary data"}
			}
			text = strconv.AppendFloat(text, float64(v), 'g', -1, 32)
		}
		text = append(text, `]}`...)
	}
	parts[0] = append(text, `]}`...)
	if len(parts) == 1 {
		writeBody(w, http.StatusOK, "application/json", parts...)
		return nil
	}
	w.Header().Set(lengthHeader, strconv.Itoa(len(parts[0])))
	writeBody(w, http.StatusOK, "application/octet-stream", parts...)
	return nil
}

// appendText appends a JSON string.
func appendText(to []byte, s string) []byte {
	text, err := json.Marshal(s)
	if err != nil {
		return append(to, `""`...) // strings have a JSON form
	}
	return append(to, text...)
}
