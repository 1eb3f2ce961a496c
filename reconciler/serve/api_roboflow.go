package serve

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// roboflowAnswer is the answer of Roboflow's inference server for one image.
type roboflowAnswer struct {
	InferenceID string               `json:"inference_id"`
	Time        float64              `json:"time"` // seconds
	Image       imageSize            `json:"image"`
	Predictions []roboflowPrediction `json:"predictions"`
}

type roboflowPrediction struct {
	X           float64 `json:"x"` // of the centre
	Y           float64 `json:"y"`
	Width       float64 `json:"width"`
	Height      float64 `json:"height"`
	Confidence  float64 `json:"confidence"`
	Class       string  `json:"class"`
	ClassID     int     `json:"class_id"`
	DetectionID string  `json:"detection_id"`
}

func (a *API) roboflowInfo(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, map[string]string{"name": "aob-detect", "version": a.o.Version, "uuid": a.id})
	return nil
}

func (a *API) roboflowRegistry(w http.ResponseWriter, r *http.Request) error {
	facts, err := a.facts(r)
	if err != nil {
		return err
	}
	writeRegistry(w, facts)
	return nil
}

// keyed reads a request's body, in JSON, and checks the api_key in it. factor is that of open. The caller calls release
// after its last use of the body.
func (a *API) keyed(w http.ResponseWriter, r *http.Request, factor int64) (data []byte, release func(), err error) {
	b, release, err := a.open(w, r, factor)
	if err != nil {
		return nil, nil, err
	}
	if data, err = b.all(); err == nil {
		err = a.keyIn(r, data)
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	return data, release, nil
}

// roboflowAdd is POST /model/add, by which Roboflow's server fetches a model. This server has one model, and operators
// change it.
func (a *API) roboflowAdd(w http.ResponseWriter, r *http.Request) error {
	data, release, err := a.keyed(w, r, 1)
	if err != nil {
		return err
	}
	defer release()
	var id string
	c := &cursor{data: data}
	if err := c.object(true, map[string]func() error{
		"model_id": func() (err error) { id, err = c.text(); return err },
	}); err != nil {
		return err
	}
	facts, err := a.facts(r)
	if err != nil {
		return err
	}
	name, version, _ := strings.Cut(id, "/")
	if err := facts.is(name, version); err != nil {
		return err
	}
	writeRegistry(w, facts)
	return nil
}

// roboflowRemove is POST /model/remove and /model/clear.
func (a *API) roboflowRemove(http.ResponseWriter, *http.Request) error {
	return Problem{Status: http.StatusForbidden,
		Why: "callers cannot remove the model; operators change it, with aob-detect load"}
}

// keyIn returns an error unless the request has the token in its header, its query, or as api_key in its JSON.
func (a *API) keyIn(r *http.Request, data []byte) error {
	if a.authorized(r, keyInQuery) {
		return nil
	}
	var key []byte
	c := &cursor{data: data}
	err := c.object(true, map[string]func() error{"api_key": func() (err error) {
		if !c.null() {
			key, err = c.bytes()
		}
		return err
	}})
	if err != nil || !a.isToken(string(key)) { // what is wrong with the JSON is for those with the token
		return errToken
	}
	return nil
}

func writeRegistry(w http.ResponseWriter, facts *Facts) {
	type model struct {
		ID     string `json:"model_id"`
		Task   string `json:"task_type"`
		Batch  int    `json:"batch_size"`
		Height int64  `json:"input_height"`
		Width  int64  `json:"input_width"`
	}
	shape := facts.Inputs[0].Shape
	writeJSON(w, http.StatusOK, map[string]any{"models": []model{{facts.Name + "/" + facts.Version, "object-detection",
		max(facts.Batch, 1), shape[2], shape[3]}}})
}

// maxImages is how many images one request may have.
const maxImages = 64

// A roboflowRequest is the body of /infer/object_detection.
type roboflowRequest struct {
	filter filter
	model  string
	images [][]byte // decoded
	list   bool     // the answer is a list, as the images were
}

// parseRoboflow reads the body of /infer/object_detection. Names that it does not know are ignored, as Roboflow's
// server does: its clients send many that are about their own pages.
func parseRoboflow(data []byte, facts *Facts) (roboflowRequest, error) {
	q := roboflowRequest{filter: filter{confidence: facts.Confidence}}
	c := &cursor{data: data}
	err := c.object(true, map[string]func() error{
		"model_id": c.optional(func() (err error) { q.model, err = c.text(); return err }),
		"confidence": c.optional(func() (err error) {
			q.filter.confidence, err = c.score("confidence")
			return err
		}),
		"iou_threshold": c.optional(func() error { _, err := c.score("iou_threshold"); return err }),
		"max_detections": c.optional(func() error {
			n, err := c.whole()
			if err == nil && (n < 1 || n > maxDetections) {
				return c.fail("max_detections is %d, want 1 to %d", n, maxDetections)
			}
			q.filter.most = int(n)
			return err
		}),
		"class_filter": c.optional(func() error {
			return c.array(func(int) error {
				name, err := c.text()
				if err != nil {
					return err
				}
				if facts.classID(name) < 0 {
					return q.filter.addClasses(facts, name) // says which there are
				}
				q.filter.classes = append(q.filter.classes, name)
				return nil
			})
		}),
		"visualize_predictions": c.optional(func() error {
			if draw, err := c.boolean(); err != nil || !draw {
				return err
			}
			return c.fail("visualize_predictions is not supported: this server draws no pictures")
		}),
		"image": func() error {
			if c.next() != '[' {
				return q.image(c)
			}
			q.list = true
			return c.array(func(i int) error {
				if i == maxImages {
					return c.fail("more than %d images", maxImages)
				}
				return q.image(c)
			})
		},
	})
	if err == nil {
		err = c.end()
	}
	if err == nil && len(q.images) == 0 {
		err = invalid(`image is missing: want {"type": "base64", "value": "..."}`)
	}
	return q, err
}

// image reads {"type": "base64", "value": "..."}.
func (q *roboflowRequest) image(c *cursor) error {
	var kind string
	var value []byte
	err := c.object(true, map[string]func() error{
		"type": func() (err error) { kind, err = c.text(); return err },
		"value": func() (err error) {
			if c.null() {
				return nil
			}
			value, err = c.bytes()
			return err
		},
	})
	if err != nil {
		return err
	}
	if kind != "base64" {
		if kind == "url" {
			return errURL
		}
		return invalid("the image has type %.40q, want base64", kind)
	}
	image, err := decodeBase64(value)
	q.images = append(q.images, image)
	return err
}

// errURL refuses to fetch an image: a server that fetches what callers name reaches what they cannot.
var errURL = Problem{Status: http.StatusBadRequest,
	Why: "this server fetches no images; send the image itself, as base64"}

// score reads a number from 0 to 1.
func (c *cursor) score(name string) (float64, error) {
	v, err := c.float()
	if err == nil && !(v >= 0 && v <= 1) {
		return 0, c.fail("%s is %v, want 0 to 1", name, v)
	}
	return v, err
}

// decodeBase64 decodes an image, which may begin as a data URL does.
func decodeBase64(text []byte) ([]byte, error) {
	if bytes.HasPrefix(text, []byte("data:")) {
		head, rest, _ := bytes.Cut(text, []byte(","))
		if !bytes.HasSuffix(head, []byte(";base64")) {
			return nil, invalid("the image is a data URL, but not one of base64")
		}
		text = rest
	}
	out := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(out, text)
	if err != nil {
		return nil, invalid("the image is not base64: %v", err)
	}
	return out[:n], nil
}

// roboflowInfer is POST /infer/object_detection.
func (a *API) roboflowInfer(w http.ResponseWriter, r *http.Request) error {
	began := time.Now()
	data, release, err := a.keyed(w, r, 2)
	if err != nil {
		return err
	}
	defer release()
	ctx, facts, model, done, err := a.lease(r)
	if err != nil {
		return err
	}
	defer done()
	q, err := parseRoboflow(data, facts)
	if err != nil {
		return err
	}
	name, version, _ := strings.Cut(q.model, "/")
	if q.model != "" {
		if err := facts.is(name, version); err != nil {
			return err
		}
	}
	var answers []roboflowAnswer
	for _, image := range q.images {
		answer, err := roboflowDetect(ctx, w, facts, model, image, q.filter, began)
		if err != nil {
			return err
		}
		answers = append(answers, answer)
		began = time.Now()
	}
	if q.list {
		writeJSON(w, http.StatusOK, answers)
	} else {
		writeJSON(w, http.StatusOK, answers[0])
	}
	return nil
}

// roboflowLegacy is POST /{project}/{version}, as Roboflow's hosted API has it.
func (a *API) roboflowLegacy(w http.ResponseWriter, r *http.Request) error {
	began := time.Now()
	b, release, err := a.open(w, r, 2)
	if err != nil {
		return err
	}
	defer release()
	image, wrong := legacyImage(b, r.Header.Get("Content-Type")) // told after what the path and the query say
	ctx, facts, model, done, err := a.lease(r)
	if err != nil {
		return err
	}
	defer done()
	if err := facts.is(r.PathValue("project"), r.PathValue("version")); err != nil {
		return err
	}
	filter, err := parseLegacyQuery(facts, r.URL.RawQuery)
	if err != nil {
		return err
	}
	if wrong != nil {
		return wrong
	}
	answer, err := roboflowDetect(ctx, w, facts, model, image, filter, began)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, answer)
	return nil
}

// parseLegacyQuery reads the query of /{project}/{version}. Names that it does not know are ignored.
func parseLegacyQuery(facts *Facts, query string) (filter, error) {
	f := filter{confidence: facts.Confidence}
	values, err := url.ParseQuery(query)
	if err != nil {
		return f, invalid("the query is malformed")
	}
	if values.Has("image") {
		return f, errURL
	}
	if format := values.Get("format"); format != "" && format != "json" {
		return f, invalid("format is %.40q, want json: this server draws no pictures", format)
	}
	// From 1 on it is a percentage.
	percent := func(name string) (float64, error) {
		v, err := strconv.ParseFloat(values.Get(name), 64)
		if err != nil || !(v >= 0 && v <= 100) {
			return 0, invalid("%s is %.40q, want a number from 0 to 1, or a percentage", name, values.Get(name))
		}
		if v >= 1 {
			v /= 100
		}
		return v, nil
	}
	if values.Get("confidence") != "" {
		if f.confidence, err = percent("confidence"); err != nil {
			return f, err
		}
	}
	if values.Get("overlap") != "" { // of boxes, which this kind of model does not suppress
		if _, err = percent("overlap"); err != nil {
			return f, err
		}
	}
	if text := values.Get("max_detections"); text != "" {
		if f.most, err = count("max_detections", text); err != nil {
			return f, err
		}
	}
	if text := values.Get("classes"); text != "" {
		err = f.addClasses(facts, text)
	}
	return f, err
}

// legacyImage reads the image: the field file of a form, base64, or the file itself.
func legacyImage(b body, contentType string) ([]byte, error) {
	kind, params, err := mime.ParseMediaType(contentType)
	if err == nil && kind == "multipart/form-data" {
		form := multipart.NewReader(b.r, params["boundary"])
		for {
			part, err := form.NextRawPart()
			if errors.Is(err, io.EOF) {
				return nil, invalid("the form has no field named file with an image")
			}
			if err != nil {
				_, large := errors.AsType[*http.MaxBytesError](err)
				_, refused := errors.AsType[Problem](err)
				if large || refused || errors.Is(err, os.ErrDeadlineExceeded) {
					return nil, b.failed(err)
				}
				return nil, invalid("the form is malformed")
			}
			if part.FormName() == "file" {
				data, err := io.ReadAll(part)
				return data, b.failed(err)
			}
		}
	}
	data, err := b.all()
	if err != nil || isImage(data) {
		return data, err
	}
	return decodeBase64(bytes.TrimSpace(data))
}

// roboflowDetect makes the answer for one image.
func roboflowDetect(ctx context.Context, w http.ResponseWriter, facts *Facts, model Model, image []byte, f filter,
	began time.Time) (roboflowAnswer, error) {
	all, timing, err := model.Detect(ctx, image, f.confidence)
	if err != nil {
		return roboflowAnswer{}, err
	}
	setTiming(w, timing)
	return roboflowAnswer{newID(), math.Round(time.Since(began).Seconds()*1e6) / 1e6, imageSize{all.Width, all.Height},
		delivery.Each(f.choose(all.Boxes), func(b delivery.Box) roboflowPrediction {
			return roboflowPrediction{b.X + b.W/2, b.Y + b.H/2, b.W, b.H, b.Score, b.Class, facts.classID(b.Class),
				newID()}
		})}, nil
}

// newID returns a random UUID.
func newID() string {
	const hex = "0123456789abcdef"
	var id [36]byte
	high, low := rand.Uint64(), rand.Uint64()
	for i := range id {
		switch i {
		case 8, 13, 18, 23:
			id[i] = '-'
			continue
		}
		id[i] = hex[high&15]
		high = high>>4 | low<<60
		low >>= 4
	}
	id[14] = '4'
	id[19] = "89ab"[rand.IntN(4)]
	return string(id[:])
}
