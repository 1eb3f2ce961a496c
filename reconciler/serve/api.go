package serve

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
)

// A Model runs in another process. [detect.Served] is one.
type Model interface {
	// Detect returns the detections on a JPEG or PNG file whose score is at least the given one.
	Detect(ctx context.Context, image []byte, score float64) (detect.Detections, detect.Timing, error)
	// Run returns the model's outputs for a tensor [N,3,H,W], in the order of Facts.Outputs.
	Run(ctx context.Context, input detect.Tensor) ([]detect.Tensor, detect.Timing, error)
}

// Facts are what callers may know about a model.
type Facts struct {
	Name, Version   string
	Classes         []string      // their places are the class ids of the answers
	Confidence      float64       // the lowest score that is returned if the caller asks for none
	Inputs, Outputs []detect.Port // one input
	Batch           int           // the largest number of images of one tensor
	Edges           delivery.Edges
	Content         string // a digest of the bundle's files
}

// Models gives the model that serves.
type Models interface {
	// Lease returns the model that serves now. It serves until done is called, also if another one takes its place
	// in the meantime. If none serves, the error is an Unavailable.
	Lease(ctx context.Context) (facts *Facts, model Model, done func(), err error)
	// Serving returns the facts of the model that serves now, without waiting for one.
	Serving() (Facts, error)
}

// Unavailable says that no model serves now, and for how long callers should wait.
type Unavailable struct {
	Why   string
	Retry time.Duration
}

func (e Unavailable) Error() string { return e.Why }

// Options are the settings of an API. A limit of zero is its default.
type Options struct {
	Models  Models
	Version string        // of this program
	Token   string        // that callers have to send (Authorization: Bearer TOKEN); empty: none
	Log     *slog.Logger  // of failures of models, whose reasons callers are not told
	Timeout time.Duration // of a request, without the time to read it
	Drain   time.Duration // how long requests are still taken when the server ends
	Limits
	Wrap func(http.Handler) http.Handler // around all requests, for metrics; nil: nothing
}

// Limits bound what callers can make the front hold.
type Limits struct {
	Connections int            // 256
	Requests    int            // at the same time: 64
	Body        delivery.Bytes // of one request: 64MiB
	Memory      delivery.Bytes // of all requests: 512MiB
}

func (l Limits) withDefaults() Limits {
	l.Connections, l.Requests = cmp.Or(l.Connections, 256), cmp.Or(l.Requests, 64)
	l.Body, l.Memory = cmp.Or(l.Body, detect.MaxImageBytes), cmp.Or(l.Memory, 512<<20)
	return l
}

const defaultTimeout = 30 * time.Second

// An API is the HTTP front of a model. It is an http.Handler.
type API struct {
	o        Options
	mux      *http.ServeMux
	token    [sha256.Size]byte
	memory   pool
	others   pool // of requests without the token, until their key is known
	requests chan struct{}
	started  time.Time
	id       string        // of this process, for Roboflow's clients
	draining chan struct{} // closed when the server ends
	conns    atomic.Int64  // connections
}

// A route is one operation of openapi.json.
type route struct {
	method, path string
	open         bool // without a token
	model        bool // has a body for the model
	key          int  // where it takes the token besides the header
	do           func(*API, http.ResponseWriter, *http.Request) error
}

var routes = []route{
	{method: "GET", path: "/healthz", open: true, do: (*API).healthz},
	{method: "GET", path: "/readyz", open: true, do: (*API).readyz},
	{method: "GET", path: "/openapi.json", open: true, do: (*API).openAPI},
	{method: "POST", path: "/v1/detect", model: true, do: (*API).detect},

	{method: "GET", path: "/v2", do: (*API).v2Server},
	{method: "GET", path: "/v2/health/live", open: true, do: (*API).v2Live},
	{method: "GET", path: "/v2/health/ready", open: true, do: (*API).v2Ready},
	{method: "GET", path: "/v2/models/{model}", do: (*API).v2Model},
	{method: "GET", path: "/v2/models/{model}/ready", do: (*API).v2ModelReady},
	{method: "POST", path: "/v2/models/{model}/infer", model: true, do: (*API).v2Infer},
	{method: "GET", path: "/v2/models/{model}/versions/{version}", do: (*API).v2Model},
	{method: "GET", path: "/v2/models/{model}/versions/{version}/ready", do: (*API).v2ModelReady},
	{method: "POST", path: "/v2/models/{model}/versions/{version}/infer", model: true, do: (*API).v2Infer},

	// Roboflow's clients send no key with these two.
	{method: "GET", path: "/info", open: true, do: (*API).roboflowInfo},
	{method: "GET", path: "/model/registry", open: true, do: (*API).roboflowRegistry},
	{method: "GET", path: "/readiness", open: true, do: (*API).readyz},
	{method: "POST", path: "/model/add", model: true, key: keyInBody, do: (*API).roboflowAdd},
	{method: "POST", path: "/model/remove", key: keyInQuery, do: (*API).roboflowRemove},
	{method: "POST", path: "/model/clear", key: keyInQuery, do: (*API).roboflowRemove},
	{method: "POST", path: "/infer/object_detection", model: true, key: keyInBody, do: (*API).roboflowInfer},
	{method: "POST", path: "/{project}/{version}", model: true, key: keyInQuery, do: (*API).roboflowLegacy},
}

// legacyPattern is the route that takes any path of two parts.
const legacyPattern = "POST /{project}/{version}"

// New returns an API.
func New(o Options) *API {
	o.Limits = o.Limits.withDefaults()
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	a := &API{
		o:        o,
		mux:      http.NewServeMux(),
		token:    sha256.Sum256([]byte(o.Token)),
		memory:   newPool(int64(o.Memory)),
		others:   newPool(int64(o.Memory) / 4),
		requests: make(chan struct{}, o.Requests),
		started:  time.Now(),
		id:       newID(),
		draining: make(chan struct{}),
	}
	for _, r := range routes {
		a.mux.Handle(r.method+" "+r.path, a.handle(r))
	}
	return a
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if a.ending() || a.crowded() {
		w.Header().Set("Connection", "close") // this server closes it after the answer, and the caller knows that
	}
	// The mux would answer a path that is not clean with a redirect.
	if path.Clean(r.URL.Path) != r.URL.Path {
		a.fail(w, r, Problem{Status: http.StatusNotFound, Why: "no such path; see /openapi.json"})
		return
	}
	handler, pattern := a.mux.Handler(r)
	if other := *r; pattern == legacyPattern {
		// A path of another route is not a model's name.
		other.Method = http.MethodGet
		if _, known := a.mux.Handler(&other); known != "" {
			a.notAllowed(w, r, "GET, HEAD")
			return
		}
	}
	if pattern != "" {
		a.mux.ServeHTTP(w, r)
		return
	}
	var refused statusOnly
	if handler.ServeHTTP(&refused, r); refused.status == http.StatusMethodNotAllowed {
		allow := refused.Header().Get("Allow")
		if strings.HasPrefix(allow, "GET, ") {
			allow = "GET, HEAD" // no route has both
		}
		a.notAllowed(w, r, allow)
		return
	}
	a.fail(w, r, Problem{Status: http.StatusNotFound, Why: "no such path; see /openapi.json"})
}

func (a *API) notAllowed(w http.ResponseWriter, r *http.Request, allow string) {
	w.Header().Set("Allow", allow)
	a.fail(w, r, Problem{Status: http.StatusMethodNotAllowed, Why: fmt.Sprintf("%s is not allowed here, only %s",
		delivery.PlainText(r.Method, 20), allow)})
}

// statusOnly keeps what the mux says about a request that no route takes.
type statusOnly struct {
	header http.Header
	status int
}

func (s *statusOnly) Header() http.Header {
	if s.header == nil {
		s.header = http.Header{}
	}
	return s.header
}
func (s *statusOnly) Write(p []byte) (int, error) { return len(p), nil }
func (s *statusOnly) WriteHeader(status int)      { s.status = status }

// handle checks the token and the limits around a route.
func (a *API) handle(route route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !route.open && route.key != keyInBody && !a.authorized(r, route.key) {
			a.fail(w, r, errToken)
			return
		}
		if route.model {
			if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
				a.fail(w, r, Problem{Status: http.StatusUnsupportedMediaType,
					Why: "the body is compressed; send it without Content-Encoding"})
				return
			}
		}
		if err := route.do(a, w, r); err != nil {
			a.fail(w, r, err)
		}
	})
}

// errToken refuses a request without the token.
var errToken = Problem{Status: http.StatusUnauthorized,
	Why: "want the header Authorization: Bearer TOKEN with the token of this server; Roboflow's clients send it as " +
		"api_key"}

// Where a route takes the token besides the header, as Roboflow's clients send their key.
const (
	keyInHeader = iota
	keyInQuery
	keyInBody // or in the query; the handler asks for it once it has read the body
)

func (a *API) authorized(r *http.Request, key int) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") && a.isToken(token) {
		return true
	}
	return a.isToken("") || key != keyInHeader && a.isToken(r.URL.Query().Get("api_key"))
}

// isToken compares in constant time.
func (a *API) isToken(text string) bool {
	got := sha256.Sum256([]byte(text))
	return subtle.ConstantTimeCompare(got[:], a.token[:]) == 1
}

// A Problem is an error that callers are told.
type Problem struct {
	Status int
	Why    string
	Retry  time.Duration // after which the same request may succeed; 0: none
}

func (p Problem) Error() string { return p.Why }

// invalid is the Problem of a request that is wrong.
func invalid(format string, args ...any) error {
	return Problem{Status: http.StatusBadRequest, Why: fmt.Sprintf(format, args...)}
}

func full(why string) error {
	return Problem{Status: http.StatusTooManyRequests, Why: why + "; try again", Retry: time.Second}
}

// statusLeft is the status code of requests whose caller has left, as nginx has it.
const statusLeft = 499

// problem says what a caller is told about an error.
func (a *API) problem(r *http.Request, err error) Problem {
	if p, ok := errors.AsType[Problem](err); ok {
		return p
	}
	if bad, ok := errors.AsType[*detect.ImageError](err); ok {
		return Problem{Status: http.StatusBadRequest, Why: "image: " + bad.Why}
	}
	if bad, ok := errors.AsType[*detect.TensorError](err); ok {
		return Problem{Status: http.StatusBadRequest, Why: bad.Why}
	}
	if none, ok := errors.AsType[Unavailable](err); ok {
		return Problem{Status: http.StatusServiceUnavailable, Why: none.Why, Retry: max(none.Retry, time.Second)}
	}
	if r.Context().Err() != nil { // for metrics, and for a caller that has closed its half of the connection
		return Problem{Status: statusLeft, Why: "the caller closed the connection before the answer"}
	}
	// After this the reason is not the caller's, and may name paths of this machine.
	a.o.Log.Error("a request failed", "path", delivery.PlainText(r.URL.Path, 200), "err", err)
	if errors.Is(err, context.DeadlineExceeded) {
		return Problem{Status: http.StatusGatewayTimeout,
			Why: fmt.Sprintf("the model gave no answer within the timeout (%s)", a.o.Timeout)}
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return Problem{Status: http.StatusServiceUnavailable, Why: "the model's process does not answer; try again",
			Retry: time.Second}
	}
	return Problem{Status: http.StatusInternalServerError, Why: "the model failed; the server's log says why"}
}

// fail writes an error response.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := a.problem(r, err)
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if p.Retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((p.Retry+time.Second-1)/time.Second)))
	}
	// Clients of the protocol V2 read error, Roboflow's read message.
	writeJSON(w, p.Status, failure{p.Why, p.Why})
}

type failure struct {
	Error   string `json:"error"`
	Message string `json:"message"`
}

// writeTimeout bounds how long a caller may take to read a response.
const writeTimeout = 30 * time.Second

func writeJSON(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil { // such as a NaN
		status, text = http.StatusInternalServerError, []byte(`{"error":"no JSON","message":"no JSON"}`)
	}
	writeBody(w, status, "application/json", text)
}

func writeBody(w http.ResponseWriter, status int, contentType string, parts ...[]byte) {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	// An error means that the connection has no deadlines, as in tests.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(size))
	w.WriteHeader(status)
	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			return // the caller has left
		}
	}
}

// lease takes one of the places for requests, and returns the model and a context with the timeout of a request.
// Handlers read the body before: a slow caller holds no place, and no model that is being replaced.
func (a *API) lease(r *http.Request) (ctx context.Context, facts *Facts, model Model, done func(), err error) {
	select {
	case a.requests <- struct{}{}:
	default:
		return nil, nil, nil, nil, full(fmt.Sprintf("%d requests are in progress, which is the limit", a.o.Requests))
	}
	ctx, cancel := context.WithTimeout(r.Context(), a.o.Timeout)
	facts, model, end, err := a.o.Models.Lease(ctx)
	if err != nil {
		cancel()
		<-a.requests
		return nil, nil, nil, nil, err
	}
	return ctx, facts, model, func() { end(); cancel(); <-a.requests }, nil
}

// facts returns the facts of the model that serves.
func (a *API) facts(r *http.Request) (*Facts, error) {
	ctx, cancel := context.WithTimeout(r.Context(), a.o.Timeout)
	defer cancel()
	facts, _, done, err := a.o.Models.Lease(ctx)
	if err != nil {
		return nil, err
	}
	done()
	return facts, nil
}

// ready returns the facts of the model, or an error if requests should go to another server.
func (a *API) ready() (Facts, error) {
	if a.ending() {
		return Facts{}, Unavailable{Why: "this server is ending"}
	}
	return a.o.Models.Serving()
}

type status struct {
	Status string `json:"status"`
}

func (a *API) healthz(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, status{"healthy"})
	return nil
}

func (a *API) readyz(w http.ResponseWriter, _ *http.Request) error {
	if _, err := a.ready(); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, status{"ready"})
	return nil
}

//go:embed openapi.json
var openAPIDocument []byte

func (a *API) openAPI(w http.ResponseWriter, _ *http.Request) error {
	writeBody(w, http.StatusOK, "application/json", openAPIDocument)
	return nil
}

// setTiming tells the caller how long each stage took.
func setTiming(w http.ResponseWriter, t detect.Timing) { w.Header().Set("Server-Timing", t.Header()) }

// classID returns the id of a class.
func (f *Facts) classID(name string) int { return slices.Index(f.Classes, name) }

// is returns an error if the caller asks for another model. version may be empty.
func (f *Facts) is(name, version string) error {
	if name != f.Name {
		return Problem{Status: http.StatusNotFound,
			Why: fmt.Sprintf("no model %.100q; this server has %q", name, f.Name)}
	}
	if version != "" && version != f.Version {
		return Problem{Status: http.StatusNotFound,
			Why: fmt.Sprintf("no version %.100q of model %s; this server has %q", version, name, f.Version)}
	}
	return nil
}

// isImage says whether bytes begin as a JPEG or PNG file does.
func isImage(data []byte) bool {
	return bytes.HasPrefix(data, []byte("\xff\xd8")) || bytes.HasPrefix(data, []byte("\x89PNG\r\n\x1a\n"))
}
