package serve

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
)

// A fake is a Model with fixed boxes. Its outputs are computed from its input.
type fake struct {
	err  error         // of each call
	hold chan struct{} // if not nil, calls wait until it is closed or their caller leaves
	came chan struct{} // if not nil, gets a value when a call begins
}

func (f *fake) wait(ctx context.Context) error {
	if f.came != nil {
		f.came <- struct{}{}
	}
	if f.hold != nil {
		select {
		case <-f.hold:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return f.err
}

func (f *fake) Detect(ctx context.Context, image []byte, score float64) (found detect.Detections, t detect.Timing,
	err error) {
	if err := f.wait(ctx); err != nil {
		return found, t, err
	}
	if !isImage(image) {
		return found, t, &detect.ImageError{Why: "neither JPEG nor PNG"}
	}
	found = detect.Detections{Width: 64, Height: 48, Boxes: []delivery.Box{
		{Class: "red", Score: 0.9, X: 10, Y: 20, W: 4, H: 6},
		{Class: "deep, blue", Score: 0.5, X: 0, Y: 0, W: 1, H: 1},
		{Class: "red", Score: 0.2, X: 1, Y: 2, W: 3, H: 4}}}
	found.Boxes = slices.DeleteFunc(found.Boxes, func(b delivery.Box) bool { return b.Score < score })
	return found, detect.Timing{Infer: time.Millisecond, Batch: 1}, nil
}

func (f *fake) Run(ctx context.Context, in detect.Tensor) (out []detect.Tensor, t detect.Timing, err error) {
	if err := f.wait(ctx); err != nil {
		return nil, t, err
	}
	n := in.Shape[0]
	boxes := detect.Tensor{Shape: []int64{n, 2, 4}, Data: make([]float32, 8*n)}
	labels := detect.Tensor{Shape: []int64{n, 2, 3}, Data: make([]float32, 6*n)}
	copy(boxes.Data, in.Data)
	for i := range labels.Data {
		labels.Data[i] = in.Data[len(in.Data)-1-i]
	}
	return []detect.Tensor{boxes, labels}, t, nil
}

func testFacts() Facts {
	return Facts{Name: "bccd", Version: "3", Classes: []string{"red", "deep, blue"}, Confidence: 0.4, Batch: 2,
		Inputs: []detect.Port{{Name: "input", Type: "float32", Shape: []int64{-1, 3, 2, 4}}},
		Outputs: []detect.Port{{Name: "dets", Type: "float32", Shape: []int64{-1, 2, 4}},
			{Name: "labels", Type: "float32", Shape: []int64{-1, 2, 3}}}}
}

// one is a Models with a model that never changes.
type one struct {
	Facts Facts
	Model Model
}

// Lease implements Models.
func (o *one) Lease(context.Context) (*Facts, Model, func(), error) {
	return &o.Facts, o.Model, func() {}, nil
}

// Serving implements Models.
func (o *one) Serving() (Facts, error) { return o.Facts, nil }

func newTestAPI(m Model, change func(*Options)) *API {
	o := Options{Models: &one{testFacts(), m}, Version: "1.2"}
	if change != nil {
		change(&o)
	}
	return New(o)
}

const jpeg, png = "\xff\xd8 picture", "\x89PNG\r\n\x1a\n picture"

// A document checks responses against openapi.json.
type document struct {
	Paths map[string]map[string]struct {
		Security  []any
		Responses map[string]answer
	}
	Components struct{ Responses map[string]answer }

	mu      sync.Mutex
	schemas *jsonschema.Compiler
}

type answer struct {
	Ref     string `json:"$ref"`
	Content map[string]struct{ Schema any }
	Headers map[string]struct{ Required bool }
}

var readDocument = sync.OnceValues(func() (*document, error) {
	var d document
	if err := json.Unmarshal(openAPIDocument, &d); err != nil {
		return nil, err
	}
	raw, err := jsonschema.UnmarshalJSON(bytes.NewReader(openAPIDocument))
	if err != nil {
		return nil, err
	}
	d.schemas = jsonschema.NewCompiler()
	d.schemas.DefaultDraft(jsonschema.Draft2020)
	return &d, d.schemas.AddResource("openapi.json", raw)
})

// check returns an error if the document does not have the response to a request for a route's path.
func (d *document) check(method, path string, resp *http.Response, body []byte) error {
	operation, ok := d.Paths[path][strings.ToLower(method)]
	status := fmt.Sprint(resp.StatusCode)
	at := "#/paths/" + strings.ReplaceAll(path, "/", "~1") + "/" + strings.ToLower(method) + "/responses/" + status
	said, known := operation.Responses[status]
	if !ok || resp.StatusCode == http.StatusMethodNotAllowed || resp.StatusCode == http.StatusNotFound && !known {
		said, known = answer{Ref: "#/components/responses/" + status}, true
	}
	if !known {
		return fmt.Errorf("%s %s: status %s is not in openapi.json", method, path, status)
	}
	if said.Ref != "" {
		at = said.Ref
		said = d.Components.Responses[strings.TrimPrefix(said.Ref, "#/components/responses/")]
	}
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	if _, known := said.Content[kind]; !known {
		return fmt.Errorf("%s %s: %s: content type %q is not in openapi.json", method, path, status, kind)
	}
	for name, header := range said.Headers {
		if header.Required && resp.Header.Get(name) == "" {
			return fmt.Errorf("%s %s: %s: no header %s", method, path, status, name)
		}
	}
	if kind != "application/json" {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	schema, err := d.schemas.Compile("openapi.json" + at + "/content/application~1json/schema")
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	return schema.Validate(v)
}

// call sends a request and checks that the document has the response.
func call(t testing.TB, a *API, r *http.Request) (*http.Response, string) {
	t.Helper()
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	resp := w.Result()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	_, pattern := a.mux.Handler(r)
	_, path, _ := strings.Cut(pattern, " ")
	d, err := readDocument()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.check(r.Method, path, resp, body); err != nil {
		t.Errorf("%s %s: %v\n%s", r.Method, r.URL, err, body)
	}
	return resp, string(body)
}

func base64JSON(image, more string) string {
	return `{"image":{"type":"base64","value":"` + base64.StdEncoding.EncodeToString([]byte(image)) + `"}` + more + `}`
}

// tensor is the JSON of an input of one image with the values 0 to 23, between other fields.
func tensor(fields string) string {
	return `{"inputs":[{"name":"input","shape":[1,3,2,4],"datatype":"FP32"` + fields + `}]}`
}

const flat = `[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23]`

const dets = `{"name":"dets","datatype":"FP32","shape":[1,2,4],"data":[0,1,2,3,4,5,6,7]}`

func TestRequests(t *testing.T) {
	for _, c := range []struct {
		request, body string
		status        int
		want          string // in the response
	}{
		{"GET /healthz", "", 200, `{"status":"healthy"}`},
		{"GET /readyz", "", 200, `{"status":"ready"}`},
		{"GET /readiness", "", 200, `{"status":"ready"}`},
		{"GET /openapi.json", "", 200, `"/v1/detect"`},
		{"GET /info", "", 200, `"version":"1.2"`},
		{"GET /model/registry", "", 200, `{"models":[{"model_id":"bccd/3","task_type":"object-detection",` +
			`"batch_size":2,"input_height":2,"input_width":4}]}`},
		{"GET /nothing", "", 404, "see /openapi.json"},
		{"GET /v2/", "", 404, "no such path"},
		{"GET //v2", "", 404, "no such path"},
		{"GET /v1/../v2", "", 404, "no such path"},
		{"GET /v1/detect", "", 405, "GET is not allowed here, only POST"},
		{"DELETE /v2/models/bccd", "", 405, "only GET, HEAD"},
		{"POST /model/registry", "", 405, `only GET, HEAD"`},
		{"PUT /model/registry", "", 405, `only GET, HEAD"`},
		{"PUT /bccd/3", "", 405, `only POST"`},

		{"POST /v1/detect", jpeg, 200, `{"model":"bccd","version":"3","image":{"width":64,"height":48},"detections":[` +
			`{"class":"red","class_id":0,"confidence":0.9,"left":10,"top":20,"width":4,"height":6},` +
			`{"class":"deep, blue","class_id":1,"confidence":0.5,"left":0,"top":0,"width":1,"height":1}]}`},
		{"POST /v1/detect?confidence=0.1&classes=red", png, 200, `"confidence":0.2,`},
		{"POST /v1/detect?classes=deep,+blue&classes=red", png, 200, `"class_id":1,`},
		{"POST /v1/detect?confidence=0&max_detections=1", png, 200, `"detections":[{"class":"red","class_id":0,` +
			`"confidence":0.9,"left":10,"top":20,"width":4,"height":6}]}`},
		{"POST /v1/detect?confidence=1", png, 200, `"detections":[]}`},
		{"POST /v1/detect", "text", 400, "image: neither JPEG nor PNG"},
		{"POST /v1/detect", "", 400, "neither JPEG nor PNG"},
		{"POST /v1/detect?confidence=2", png, 400, `confidence is \"2\", want a number from 0 to 1`},
		{"POST /v1/detect?confidence=NaN", png, 400, `confidence is \"NaN\"`},
		{"POST /v1/detect?confidence=1&confidence=0", png, 400, `\"confidence\" is there 2 times`},
		{"POST /v1/detect?max_detections=0", png, 400, "from 1 to 100000"},
		{"POST /v1/detect?classes=green", png, 400, `no class \"green\"; the model has red, deep, blue`},
		{"POST /v1/detect?clases=red", png, 400, `unknown parameter \"clases\"`},
		{"POST /v1/detect?a=%zz", png, 400, "malformed"},

		{"GET /v2", "", 200, `"extensions":["binary_tensor_data"]`},
		{"GET /v2/health/live", "", 200, `{"live":true}`},
		{"GET /v2/health/ready", "", 200, `{"ready":true}`},
		{"GET /v2/models/bccd", "", 200, `{"name":"bccd","versions":["3"],"platform":"onnxruntime_onnx","inputs":[` +
			`{"name":"input","datatype":"FP32","shape":[-1,3,2,4]}],"outputs":[{"name":"dets","datatype":"FP32",` +
			`"shape":[-1,2,4]},{"name":"labels","datatype":"FP32","shape":[-1,2,3]}]}`},
		{"GET /v2/models/bccd/versions/3", "", 200, `"versions":["3"]`},
		{"GET /v2/models/bccd/versions/4", "", 404, `no version \"4\" of model bccd; this server has \"3\"`},
		{"GET /v2/models/other", "", 404, `no model \"other\"; this server has \"bccd\"`},
		{"GET /v2/models/bccd/ready", "", 200, `{"ready":true}`},
		{"GET /v2/models/bccd/versions/3/ready", "", 200, `{"ready":true}`},
		{"GET /v2/models/other/ready", "", 404, "no model"},
		{"POST /v2/models/other/infer", tensor(`,"data":` + flat), 404, "no model"},
		{"POST /v2/models/bccd/infer", tensor(`,"data":` + flat), 200, `{"model_name":"bccd","model_version":"3",` +
			`"outputs":[` + dets + `,{"name":"labels","datatype":"FP32","shape":[1,2,3],"data":[23,22,21,20,19,18]}]}`},
		{"POST /v2/models/bccd/versions/3/infer", `{"id":"a\"b","outputs":[{"name":"dets"}],` +
			tensor(`,"data":` + flat)[1:], 200, `"id":"a\"b","outputs":[` + dets + `]}`},
		{"POST /v2/models/bccd/infer", tensor(`,"parameters":{"binary_data_size":96}`), 400,
			"Inference-Header-Content-Length is missing"},
		{"POST /v2/models/bccd/infer", `{"model_name":"other",` + tensor(`,"data":` + flat)[1:], 400,
			`model_name is \"other\", but the path names bccd`},

		{"POST /infer/object_detection", base64JSON(jpeg, `,"model_id":"bccd/3","api_key":"k","other":{"a":[null]}`),
			200, `"image":{"width":64,"height":48},"predictions":[{"x":12,"y":23,"width":4,"height":6,` +
				`"confidence":0.9,"class":"red","class_id":0,"detection_id":"`},
		{"POST /infer/object_detection", base64JSON(jpeg, `,"confidence":0.1,"iou_threshold":0.3,"max_detections":1,`+
			`"class_filter":["deep, blue"],"visualize_predictions":false`), 200, `"predictions":[{"x":0.5,`},
		{"POST /infer/object_detection", `{"image":[` + base64JSON(jpeg, "")[9:] + `x`, 400, "JSON, at byte"},
		{"POST /infer/object_detection", `{"image":[{"type":"base64","value":"data:image/png;base64,/9g="}]}`, 200,
			`[{"inference_id":"`},
		{"POST /infer/object_detection", `{"image":{"type":"url","value":"http://localhost/"}}`, 400,
			"this server fetches no images"},
		{"POST /infer/object_detection", `{"image":{"type":"numpy","value":"x"}}`, 400, `type \"numpy\", want base64`},
		{"POST /infer/object_detection", `{"image":{"type":"base64","value":"data:text,x"}}`, 400, "not one of base64"},
		{"POST /infer/object_detection", `{"image":{"type":"base64","value":"%%%"}}`, 400, "is not base64"},
		{"POST /infer/object_detection", `{"image":{"type":"base64","value":"AAAA"}}`, 400, "neither JPEG nor PNG"},
		{"POST /infer/object_detection", `{"model_id":"bccd"}`, 400, "image is missing"},
		{"POST /infer/object_detection", `{"image":[]}`, 400, "image is missing"},
		{"POST /infer/object_detection", base64JSON(jpeg, `,"model_id":"bccd/2"`), 404, "no version"},
		{"POST /infer/object_detection", base64JSON(jpeg, `,"model_id":"x/2"`), 404, "no model"},
		{"POST /infer/object_detection", base64JSON(jpeg, `,"confidence":1.5`), 400, "confidence is 1.5, want 0 to 1"},
		{"POST /infer/object_detection", base64JSON(jpeg, `,"confidence":"0.5"`), 400, "want a number"},
		{"POST /infer/object_detection", base64JSON(jpeg, `,"max_detections":0`), 400, "want 1 to 100000"},
		{"POST /infer/object_detection", base64JSON(jpeg, `,"class_filter":["green"]`), 400, `no class \"green\"`},
		{"POST /infer/object_detection", base64JSON(jpeg, `,"visualize_predictions":true`), 400, "draws no pictures"},
		{"POST /infer/object_detection", base64JSON(jpeg, `,"image":null`), 400, `\"image\" is there twice`},
		{"POST /infer/object_detection", "", 400, "want an object"},

		{"POST /bccd/3", "/9gg\n", 200, `"predictions":[{"x":12,"y":23,`},
		{"POST /bccd/3", jpeg, 200, `"predictions":[{"x":12,"y":23,`},
		{"POST /bccd/3?api_key=k&confidence=40&overlap=30&format=json&max_detections=1&classes=red", "/9g=", 200,
			`"confidence":0.9`},
		{"POST /bccd/3?confidence=.1", "/9g=", 200, `"confidence":0.2`},
		{"POST /bccd/3?confidence=101", "/9g=", 400, "want a number from 0 to 1, or a percentage"},
		{"POST /bccd/3?overlap=x", "/9g=", 400, "overlap is"},
		{"POST /bccd/3?format=image", "/9g=", 400, "draws no pictures"},
		{"POST /bccd/3?image=http://localhost/", "", 400, "this server fetches no images"},
		{"POST /bccd/3?max_detections=-1", "/9g=", 400, "max_detections"},
		{"POST /bccd/3?classes=green", "/9g=", 400, "no class"},
		{"POST /bccd/3?%zz", "/9g=", 400, "malformed"},
		{"POST /bccd/3", "%", 400, "not base64"},
		{"POST /bccd/4", "/9g=", 404, "no version"},
		{"POST /any/thing", "/9g=", 404, "no model"},
	} {
		method, target, _ := strings.Cut(c.request, " ")
		resp, body := call(t, newTestAPI(&fake{}, nil), httptest.NewRequest(method, target, strings.NewReader(c.body)))
		if resp.StatusCode != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %.80q: %d %s\nwant %d %s", c.request, c.body, resp.StatusCode, body, c.status, c.want)
		}
		if resp.StatusCode == 200 && strings.HasPrefix(c.request, "POST /v1") &&
			!strings.Contains(resp.Header.Get("Server-Timing"), "infer;dur=1.000") {
			t.Errorf("%s: Server-Timing is %q", c.request, resp.Header.Get("Server-Timing"))
		}
	}
}

// The field file of a form is the image.
func TestForm(t *testing.T) {
	form := func(fields ...string) (*bytes.Buffer, string) {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		for i := 0; i < len(fields); i += 2 {
			part, err := w.CreateFormFile(fields[i], "a.jpg")
			if err == nil {
				_, err = io.WriteString(part, fields[i+1])
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return &b, w.FormDataContentType()
	}
	for _, c := range []struct {
		fields []string
		cut    int
		status int
		want   string
	}{
		{[]string{"other", "text", "file", jpeg}, 0, 200, `"x":12`},
		{[]string{"other", jpeg}, 0, 400, "no field named file"},
		{[]string{"file", jpeg}, 40, 400, "the body ends too early"},
		{[]string{"file", jpeg}, 150, 400, "no field named file"},
	} {
		b, kind := form(c.fields...)
		b.Truncate(b.Len() - c.cut)
		r := httptest.NewRequest("POST", "/bccd/3", b)
		r.Header.Set("Content-Type", kind)
		if resp, body := call(t, newTestAPI(&fake{}, nil), r); resp.StatusCode != c.status ||
			!strings.Contains(body, c.want) {
			t.Errorf("%v: %d %s", c, resp.StatusCode, body)
		}
	}
}

// floats are the bytes of values in little-endian order.
func floats(values ...float32) string {
	b, err := binary.Append(nil, binary.LittleEndian, values)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func upTo(n int) []float32 {
	list := make([]float32, n)
	for i := range list {
		list[i] = float32(i)
	}
	return list
}

func TestBinaryTensors(t *testing.T) {
	const size = `,"parameters":{"binary_data_size":96}`
	image := floats(upTo(24)...)
	for _, c := range []struct {
		name, json, data, length string // length: of the JSON, if it is another
		status                   int
		want, tail               string // in the JSON, and after it
	}{
		{"all", `{"parameters":{"binary_data_output":true},` + tensor(size)[1:], image, "", 200,
			`"outputs":[{"name":"dets","datatype":"FP32","shape":[1,2,4],"parameters":{"binary_data_size":32}},` +
				`{"name":"labels","datatype":"FP32","shape":[1,2,3],"parameters":{"binary_data_size":24}}]}`,
			floats(0, 1, 2, 3, 4, 5, 6, 7, 23, 22, 21, 20, 19, 18)},
		{"one", `{"outputs":[{"name":"labels","parameters":{"binary_data":true}},{"name":"dets"}],` +
			tensor(size)[1:], image, "", 200, `{"binary_data_size":24}},` + dets, floats(23, 22, 21, 20, 19, 18)},
		{"two images", strings.Replace(`{"parameters":{"binary_data_output":true},`+
			tensor(`,"parameters":{"binary_data_size":192}`)[1:], "[1,3", "[2,3", 1), floats(upTo(48)...), "", 200,
			`"shape":[2,2,4]`, floats(append(upTo(16), 47, 46, 45, 44, 43, 42, 41, 40, 39, 38, 37, 36)...)},
		{"binary out of JSON", `{"parameters":{"binary_data_output":true},` + tensor(`,"data":` + flat)[1:], "", "",
			200, `"binary_data_size":32`, floats(0, 1, 2, 3, 4, 5, 6, 7, 23, 22, 21, 20, 19, 18)},
		{"short", tensor(size), image[:95], "", 400, "95 bytes follow the JSON, want 96", ""},
		{"long", tensor(size), image + "x", "", 400, "97 bytes follow the JSON, want 96", ""},
		{"data and more", tensor(`,"data":` + flat), "x", "", 400, "1 bytes follow the JSON, want 0", ""},
		{"length 0", tensor(size), image, "0", 400, `is \"0\", want the length of the JSON`, ""},
		{"length -1", tensor(size), image, "-1", 400, "want the length of the JSON", ""},
		{"length of much", tensor(size), image, "100000000", 400, "want the length of the JSON", ""},
		{"length too small", tensor(size), image, "20", 400, "JSON, at byte", ""},
		{"another size", tensor(`,"parameters":{"binary_data_size":92}`), image, "", 400,
			"binary_data_size 92, want 96", ""},
		{"both", tensor(size + `,"data":` + flat), image, "", 400, "want one of them", ""},
	} {
		length := c.length
		if length == "" {
			length = fmt.Sprint(len(c.json))
		}
		for _, chunked := range []bool{false, true} {
			r := httptest.NewRequest("POST", "/v2/models/bccd/infer", strings.NewReader(c.json+c.data))
			r.Header.Set(lengthHeader, length)
			want := c.want
			if chunked {
				r.ContentLength = -1
				if strings.Contains(want, "bytes follow") {
					want = "" // the size is not known
				}
			}
			resp, body := call(t, newTestAPI(&fake{}, nil), r)
			tail := ""
			if resp.StatusCode == 200 {
				var n int
				if _, err := fmt.Sscan(resp.Header.Get(lengthHeader), &n); err != nil || n > len(body) {
					t.Errorf("%s: %d, %v", c.name, n, err)
					continue
				}
				body, tail = body[:n], body[n:]
			}
			if resp.StatusCode != c.status || !strings.Contains(body, want) || tail != c.tail {
				t.Errorf("%s (chunked %v): %d %s %q\nwant %d %s", c.name, chunked, resp.StatusCode, body, tail,
					c.status, want)
			}
		}
	}
}

func TestParseV2(t *testing.T) {
	facts := testFacts()
	nested := `[[[[0,1,2,3],[4,5,6,7]],[[8,9,10,11],[12,13,14,15]],[[16,17,18,19],[20,21,22,23]]]]`
	for _, c := range []struct{ json, want string }{
		{tensor(`,"data":` + flat), ""},
		{tensor(`,"data":` + nested), ""},
		{`{"inputs":[{"data":` + nested + `,"datatype":"FP32","shape":[1,3,2,4],"name":"input"}]}`, ""},
		{" \n" + `{ "parameters" : { "timeout" : 5 } , "model_version":null,"outputs": [ ] ,` +
			tensor(`, "data" : ` + strings.ReplaceAll(flat, ",", " ,\t"))[1:] + "\n", ""},
		{tensor(`,"data":[-0.5e1` + strings.Repeat(",1E+2", 23) + `]`), ""},
		{`{"id":null,"model_name":null,"parameters":null,"outputs":null,` +
			tensor(`,"parameters":null,"data":` + flat)[1:], ""},

		{``, "want an object"},
		{`[]`, "want an object"},
		{`{}`, "inputs is missing or empty, want one input named input"},
		{`{"inputs":[]}`, "inputs is missing or empty"},
		{`{"inputs":{}}`, "want an array"},
		{`{"inputs":[1]}`, "want an object"},
		{tensor(`,"data":`+flat) + "x", "there is data after the value"},
		{tensor(`,"data":` + flat)[:50], "a string does not end"},
		{`{"inputs":[],"inputs":[]}`, `"inputs" is there twice`},
		{`{"input":[]}`, `unknown name "input"`},
		{`{"id":7}`, "want a string"},
		{`{"id":"` + strings.Repeat("x", 257) + `"}`, "longer than 256"},
		{`{"id":"a` + "\n" + `"}`, "control character"},
		{`{"id":"` + "\xff" + `"}`, "not UTF-8"},
		{`{"id":"\x"}`, "malformed"},
		{`{"id":"a`, "a string does not end"},
		{`{"id":"a\`, "a string does not end"},
		{`{"parameters":{"sequence_id":1}}`, `unknown name "sequence_id"`},
		{`{"parameters":{"binary_data_output":1}}`, "want true or false"},
		{`{"parameters":{"timeout":-1}}`, "want a whole number"},
		{`{"outputs":[{"name":"boxes"}]}`, `output "boxes" is unknown; the model has dets and labels`},
		{`{"outputs":[{"name":"dets"},{"name":"dets"}]}`, "output dets is there twice"},
		{`{"outputs":[{"name":"dets","parameters":{"classification":3}}]}`, `unknown name "classification"`},
		{`{"outputs":[{}]}`, `output "" is unknown`},
		{`{"inputs":[{"name":"other","shape":[1,3,2,4],"datatype":"FP32","data":` + flat + `}]}`,
			`input "other" is unknown, want input`},
		{`{"inputs":[{"name":"input","shape":[1,3,2,4],"datatype":"FP16","data":` + flat + `}]}`,
			`datatype "FP16", want FP32`},
		{`{"inputs":[{"name":"input","datatype":"FP32","data":` + flat + `}]}`, "has no shape"},
		{tensor(""), "has neither data nor the parameter binary_data_size"},
		{tensor(`,"shape":[1]`), `"shape" is there twice`},
		{tensor(`,"data":` + strings.Replace(flat, "23", "23,24", 1)), "more than 24 values"},
		{tensor(`,"data":` + strings.Replace(flat, ",23", "", 1)), "has 23 values, want 24"},
		{tensor(`,"data":[]`), "has 0 values, want 24"},
		{tensor(`,"data":` + strings.Replace(nested, "[4,", "[", 1)), "has 3 values, want 4"},
		{tensor(`,"data":` + strings.Replace(nested, "[4,", "[4,4,", 1)), "more than 4 values"},
		{tensor(`,"data":` + strings.Replace(nested, "4,", "[4],", 1)), "want a number"},
		{tensor(`,"data":` + strings.Replace(nested, "[0,1,2,3]", "0,1,2,3", 1)), "want an array"},
		{tensor(`,"data":` + strings.Replace(flat, "23", "[23]", 1)), "want a number"},
		{tensor(`,"data":` + strings.Replace(flat, "23", "NaN", 1)), "want a number"},
		{tensor(`,"data":` + strings.Replace(flat, "23", "Infinity", 1)), "want a number"},
		{tensor(`,"data":` + strings.Replace(flat, "23", "1e39", 1)), "too large for FP32"},
		{tensor(`,"data":` + strings.Replace(flat, "23", "0x1p3", 1)), "want a comma"},
		{tensor(`,"data":` + strings.Replace(flat, "23", "01", 1)), "want a comma"},
		{tensor(`,"data":` + strings.Replace(flat, "23", "1.", 1)), "want a number"},
		{tensor(`,"data":` + strings.Replace(flat, "23", "1e", 1)), "want a number"},
		{tensor(`,"data":` + strings.Replace(flat, "23", "null", 1)), "want a number"},
		{tensor(`,"data":` + strings.Replace(flat, "23", `"23"`, 1)), "want a number"},
		{tensor(`,"data":"x"`), "want an array"},
		{`{"inputs":[{"data":` + strings.Repeat("[", 100), "nested too deep"},
	} {
		q, err := parseV2([]byte(c.json), &facts)
		if c.want == "" && (err != nil || len(q.Data) != 24) || c.want != "" && (err == nil ||
			!strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s:\ngot %v, %v, want %q", c.json, q.Data, err, c.want)
		}
		if c.want == "" && q.Data[0] == 0 && !slices.Equal(q.Data, upTo(24)) {
			t.Errorf("%s: %v", c.json, q.Data)
		}
	}
	for _, shape := range []string{"[]", "[3,3,2,4]", "[0,3,2,4]", "[1,3,2]", "[1,3,4,2]", "[1,3,2,4,1]", "[-1,3,2,4]",
		"[1.0,3,2,4]", "[9007199254740993,3,2,4]", "[4611686018427387905,4,2,4]"} {
		text := strings.Replace(tensor(`,"parameters":{"binary_data_size":96}`), "[1,3,2,4]", shape, 1)
		q, err := parseV2([]byte(text), &facts)
		if err == nil {
			t.Errorf("shape %s: %+v", shape, q)
		}
	}
}

// A request that is accepted is JSON, and has the values that encoding/json reads.
func FuzzParseV2(f *testing.F) {
	f.Add(tensor(`,"data":` + flat))
	f.Add(tensor(`,"data":[[[[0,1,2,3],[4,5,6,7]],[[8,9,1e1,11],[12,13,14,15]],[[16,17,18,19],[20,21,22,-0.5]]]]`))
	f.Add(`{"id":"\u00e4","parameters":{"timeout":5,"binary_data_output":true},"outputs":[{"name":"dets"}],` +
		tensor(`,"parameters":{"binary_data_size":96}`)[1:])
	facts := testFacts()
	f.Fuzz(func(t *testing.T, text string) {
		q, err := parseV2([]byte(text), &facts)
		if err != nil {
			if _, ok := errors.AsType[Problem](err); !ok {
				t.Errorf("%T", err)
			}
			return
		}
		var want struct {
			ID     string
			Inputs []struct {
				Name, Datatype string
				Shape          []int64
				Data           any
			}
			Outputs []struct{ Name string }
		}
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatalf("accepted: %v", err)
		}
		in := want.Inputs[0]
		if want.ID != q.ID || len(want.Inputs) != 1 || in.Name != "input" || in.Datatype != "FP32" ||
			!slices.Equal(in.Shape, q.Shape) || len(want.Outputs) != len(q.Outputs) {
			t.Errorf("%+v\n%+v", q, want)
		}
		var values []float32
		var flatten func(v any)
		flatten = func(v any) {
			if list, ok := v.([]any); ok {
				for _, v := range list {
					flatten(v)
				}
			} else if v != nil {
				values = append(values, float32(v.(float64)))
			}
		}
		flatten(in.Data)
		// Rounding to float64 first can change the last bit.
		if !slices.EqualFunc(values, q.Data, func(a, b float32) bool {
			return a == b || math.Nextafter32(a, b) == b
		}) {
			t.Errorf("%v\n%v", values, q.Data)
		}
	})
}

// Whatever comes, the answer is in openapi.json.
func FuzzRequests(f *testing.F) {
	f.Add("POST", "/v1/detect?confidence=0.5", "", jpeg)
	f.Add("POST", "/infer/object_detection", "", base64JSON(jpeg, `,"confidence":0.1`))
	f.Add("POST", "/bccd/3?confidence=40", "multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; "+
		"name=\"file\"\r\n\r\n\xff\xd8\r\n--x--\r\n")
	f.Add("POST", "/v2/models/bccd/infer", fmt.Sprint(len(tensor(`,"parameters":{"binary_data_size":96}`))),
		tensor(`,"parameters":{"binary_data_size":96}`)+floats(upTo(24)...))
	f.Add("GET", "/v2/models/bccd/versions/3/ready", "", "")
	f.Add("OPTIONS", "/a%2fb/../x", "", "")
	a := newTestAPI(&fake{}, nil)
	f.Fuzz(func(t *testing.T, method, target, header, body string) {
		r, err := http.NewRequest(method, "http://localhost"+target, strings.NewReader(body))
		if err != nil || r.Host == "" || !strings.HasPrefix(r.URL.Path, "/") || method == "CONNECT" || method == "" {
			return
		}
		r.Header.Set("Content-Type", header)
		r.Header.Set(lengthHeader, header)
		if strings.HasPrefix(header, "multipart") || header == "" {
			r.Header.Del(lengthHeader)
		}
		call(t, a, r)
	})
}

// Each route is in the document and the other way round, and open ones need no token there either.
func TestDocument(t *testing.T) {
	d, err := readDocument()
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for path, operations := range d.Paths {
		for method, operation := range operations {
			documented[strings.ToUpper(method)+" "+path] = operation.Security != nil && len(operation.Security) == 0
		}
	}
	for _, r := range routes {
		name := r.method + " " + r.path
		if open, ok := documented[name]; !ok || open != r.open {
			t.Errorf("%s: is in openapi.json %v, without a token %v", name, ok, open)
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("%s is in openapi.json only", name)
	}
	if !strings.Contains(string(openAPIDocument), `"maximum": `+fmt.Sprint(maxDetections)) {
		t.Error("openapi.json has another limit of detections")
	}
}

func TestToken(t *testing.T) {
	a := newTestAPI(&fake{}, func(o *Options) { o.Token = "secret" })
	for _, route := range routes {
		path := strings.NewReplacer("{model}", "bccd", "{project}", "bccd", "{version}", "3").Replace(route.path)
		for header, ok := range map[string]bool{"": false, "Bearer": false, "Bearer wrong": false, "Bearer ": false,
			"Basic secret": false, "Bearer secret2": false, "Bearer secret": true, "bearer secret": true} {
			r := httptest.NewRequest(route.method, path, nil)
			r.Header.Set("Authorization", header)
			resp, body := call(t, a, r)
			if refused := resp.StatusCode == http.StatusUnauthorized; refused != !(ok || route.open) {
				t.Errorf("%s with %q: %d %s", path, header, resp.StatusCode, body)
			} else if refused && resp.Header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s: no WWW-Authenticate", path)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	var log bytes.Buffer
	options := func(o *Options) {
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		o.Timeout = 50 * time.Millisecond
	}
	for _, c := range []struct {
		model  *fake
		status int
		want   string
		logged bool
	}{
		{&fake{err: &detect.ModelError{Path: "/private/model.onnx", Why: "is broken"}}, 500,
			"the model failed; the server's log says why", true},
		{&fake{err: fmt.Errorf("aob-detect: %w", &net.OpError{Op: "dial", Err: io.EOF})}, 503,
			"the model's process does not answer", true},
		{&fake{err: Unavailable{Why: "the model is loading", Retry: 1500 * time.Millisecond}}, 503, "is loading",
			false},
		{&fake{err: &detect.TensorError{Why: "input has the value NaN at 3"}}, 400, "NaN at 3", false},
		{&fake{hold: make(chan struct{})}, 504, "no answer within the timeout (50ms)", true},
	} {
		log.Reset()
		r := httptest.NewRequest("POST", "/v1/detect", strings.NewReader(jpeg))
		resp, body := call(t, newTestAPI(c.model, options), r)
		if resp.StatusCode != c.status || !strings.Contains(body, c.want) || strings.Contains(body, "private") ||
			c.logged != (log.Len() > 0) {
			t.Errorf("%v: %d %s\n%s", c.model.err, resp.StatusCode, body, &log)
		}
		if wait := resp.Header.Get("Retry-After"); c.want == "is loading" && wait != "2" {
			t.Errorf("Retry-After %q", wait)
		}
	}
	// A timeout of the request is shorter.
	r := httptest.NewRequest("POST", "/v2/models/bccd/infer", strings.NewReader(`{"parameters":{"timeout":1},`+
		tensor(`,"data":` + flat)[1:]))
	if resp, body := call(t, newTestAPI(&fake{hold: make(chan struct{})}, nil), r); resp.StatusCode != 504 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	// JSON has no NaN, binary data have.
	for request, status := range map[string]int{tensor(`,"parameters":{"binary_data_size":96}`): 500,
		`{"parameters":{"binary_data_output":true},` + tensor(`,"parameters":{"binary_data_size":96}`)[1:]: 200} {
		r := httptest.NewRequest("POST", "/v2/models/bccd/infer", strings.NewReader(request+
			floats(append([]float32{float32(math.NaN())}, upTo(23)...)...)))
		r.Header.Set(lengthHeader, fmt.Sprint(len(request)))
		if resp, body := call(t, newTestAPI(&fake{}, nil), r); resp.StatusCode != status {
			t.Errorf("NaN: %d %q", resp.StatusCode, body)
		}
	}
}

type none struct{}

func (none) Lease(context.Context) (*Facts, Model, func(), error) {
	return nil, nil, nil, Unavailable{Why: "the model is loading"}
}

func (none) Serving() (Facts, error) { return Facts{}, Unavailable{Why: "the model is loading"} }

func TestNoModel(t *testing.T) {
	a := newTestAPI(nil, func(o *Options) { o.Models = none{} })
	for _, route := range routes {
		path := strings.NewReplacer("{model}", "bccd", "{project}", "bccd", "{version}", "3").Replace(route.path)
		resp, body := call(t, a, httptest.NewRequest(route.method, path, strings.NewReader("{}")))
		alive := slices.Contains([]string{"/healthz", "/openapi.json", "/v2", "/v2/health/live", "/info"}, path)
		wait := resp.Header.Get("Retry-After")
		if strings.HasPrefix(path, "/model/") && resp.StatusCode == 403 { // with a model too
			continue
		}
		if alive != (resp.StatusCode == 200) || !alive && (resp.StatusCode != 503 || wait == "") {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
}

// A changing Models has another model for each lease.
type changing struct {
	facts []*Facts
	n     int
}

func (c *changing) Lease(context.Context) (*Facts, Model, func(), error) {
	f := c.facts[min(c.n, len(c.facts)-1)]
	c.n++
	return f, &fake{}, func() {}, nil
}

func (c *changing) Serving() (Facts, error) { return *c.facts[0], nil }

func TestModelChangesDuringRequest(t *testing.T) {
	one, same, other := testFacts(), testFacts(), testFacts()
	other.Version = "4"
	for _, c := range []struct {
		second *Facts
		status int
	}{{&one, 200}, {&same, 200}, {&other, 503}} {
		a := newTestAPI(nil, func(o *Options) { o.Models = &changing{facts: []*Facts{&one, c.second}} })
		r := httptest.NewRequest("POST", "/v2/models/bccd/infer", strings.NewReader(tensor(`,"data":`+flat)))
		if resp, body := call(t, a, r); resp.StatusCode != c.status {
			t.Errorf("%+v: %d %s", c.second, resp.StatusCode, body)
		}
	}
}

func TestLimits(t *testing.T) {
	post := func(target string, body io.Reader) *http.Request { return httptest.NewRequest("POST", target, body) }
	a := newTestAPI(&fake{}, func(o *Options) { o.Body = 100; o.Memory = 300 })
	for _, target := range []string{"/v1/detect", "/v2/models/bccd/infer", "/infer/object_detection", "/bccd/3"} {
		r := post(target, strings.NewReader(strings.Repeat("x", 101)))
		if resp, body := call(t, a, r); resp.StatusCode != 413 || !strings.Contains(body, "limit of 100 bytes") {
			t.Errorf("%s: %d %s", target, resp.StatusCode, body)
		}
		r = post(target, strings.NewReader(strings.Repeat("x", 101)))
		r.ContentLength = -1
		if resp, body := call(t, a, r); resp.StatusCode != 413 {
			t.Errorf("%s without a length: %d %s", target, resp.StatusCode, body)
		}
		r = post(target, strings.NewReader("x"))
		r.ContentLength = 50
		if resp, body := call(t, a, r); resp.StatusCode != 400 || !strings.Contains(body, "ends too early") {
			t.Errorf("%s cut off: %d %s", target, resp.StatusCode, body)
		}
		r = post(target, strings.NewReader("x"))
		r.Header.Set("Content-Encoding", "gzip")
		if resp, body := call(t, a, r); resp.StatusCode != 415 {
			t.Errorf("%s compressed: %d %s", target, resp.StatusCode, body)
		}
	}
	if !a.memory.TryAcquire(300) {
		t.Error("memory of ended requests is not free")
	}

	// What is in progress holds its place and its memory.
	m := &fake{hold: make(chan struct{}), came: make(chan struct{}, 10)}
	for name, change := range map[string]func(*Options){
		"2 requests are in progress":            func(o *Options) { o.Requests = 2 },
		"requests use all of the 30B of memory": func(o *Options) { o.Memory = 30 },
	} {
		a := newTestAPI(m, change)
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				resp, body := call(t, a, post("/v1/detect", strings.NewReader(jpeg+"1234")))
				if resp.StatusCode != 200 {
					t.Errorf("%d %s", resp.StatusCode, body)
				}
			})
			<-m.came
		}
		resp, body := call(t, a, post("/v1/detect", strings.NewReader(jpeg+"1234")))
		if resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "1" || !strings.Contains(body, name) {
			t.Errorf("%s: %d %s", name, resp.StatusCode, body)
		}
		if resp, _ := call(t, a, httptest.NewRequest("GET", "/readyz", nil)); resp.StatusCode != 200 {
			t.Errorf("a full server is not ready: %d", resp.StatusCode)
		}
		close(m.hold)
		all.Wait()
		m.hold = make(chan struct{})
		if len(a.requests) != 0 {
			t.Error("ended requests hold their places")
		}
	}
}

// When the server ends it finishes what is in progress, and no connection is accepted.
func TestDrain(t *testing.T) {
	m := &fake{hold: make(chan struct{}), came: make(chan struct{}, 1)}
	a := newTestAPI(m, nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Serve(ctx, listener, nil) }()
	url := "http://" + listener.Addr().String()
	answered := make(chan error, 1)
	go func() {
		resp, err := http.Post(url+"/v1/detect", "image/jpeg", strings.NewReader(jpeg))
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != 200 {
				err = errors.New(resp.Status)
			}
		}
		answered <- err
	}()
	<-m.came
	stop()
	<-a.draining
	if resp, body := call(t, a, httptest.NewRequest("GET", "/readyz", nil)); resp.StatusCode != 503 ||
		!strings.Contains(body, "this server is ending") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	select {
	case err := <-ended:
		t.Fatalf("it did not wait for the request: %v", err)
	default:
	}
	close(m.hold)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", listener.Addr().String()); err == nil {
		t.Error("a connection after the end")
	}
}

// The model stops working for a caller that has left.
func TestCallerLeaves(t *testing.T) {
	m := &fake{hold: make(chan struct{}), came: make(chan struct{}, 1)}
	a := newTestAPI(m, nil)
	server := httptest.NewServer(a)
	defer server.Close()
	for _, target := range []string{"/v1/detect", "/bccd/3"} {
		ctx, leave := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, "POST", server.URL+target, strings.NewReader(jpeg))
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { _, err := http.DefaultClient.Do(r); ended <- err }()
		<-m.came
		leave()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		a.requests <- struct{}{} // the whole room is free again in the end
		for range cap(a.requests) - 1 {
			a.requests <- struct{}{}
		}
		for range cap(a.requests) {
			<-a.requests
		}
	}
}

// A caller that closes its half of the connection is told so, and no server's fault is counted.
func TestCallerClosesItsHalf(t *testing.T) {
	m := &fake{hold: make(chan struct{}), came: make(chan struct{}, 1)}
	server := httptest.NewServer(newTestAPI(m, nil))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(jpeg),
		jpeg); err != nil {
		t.Fatal(err)
	}
	<-m.came
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != statusLeft {
		t.Errorf("%v, %v", resp, err)
	}
}
