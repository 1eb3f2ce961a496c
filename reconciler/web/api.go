package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/explain"
)

// Limits of requests.
const (
	MaxBody = 64 << 10 // bytes of a request's body
	MaxText = 4 << 10  // bytes of a comment for a pull request
	// MaxTrial is the largest size of an experiment in bytes, and MaxVariants the largest number of its variants.
	MaxTrial    = 16 << 20
	MaxVariants = 256
	MaxNote     = 200 // characters of an experiment's note
)

// An Error is an error response of the API.
type Error struct {
	Code       int           `json:"-"` // HTTP status
	What       string        `json:"error"`
	Do         string        `json:"hint,omitempty"`
	RetryAfter time.Duration `json:"-"` // Retry-After; zero: none
}

func (e *Error) Error() string { return e.What }

// Hint returns what to do about the error.
func (e *Error) Hint() string { return e.Do }

// errorOf returns the response for an error.
func errorOf(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if u, ok := errors.AsType[explain.Unknown](err); ok {
		return &Error{Code: http.StatusNotFound, What: u.Error(), Do: u.Do}
	}
	if b, ok := errors.AsType[delivery.Blocked](err); ok {
		return &Error{Code: http.StatusConflict, What: b.What, Do: b.Do}
	}
	if w, ok := errors.AsType[delivery.Wait](err); ok {
		return &Error{Code: http.StatusServiceUnavailable, What: w.What, Do: "ask again in " + w.Rounded().String(),
			RetryAfter: w.For}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return &Error{Code: http.StatusNotFound, What: err.Error()}
	}
	return &Error{Code: http.StatusInternalServerError, What: err.Error()}
}

// API is the handler of the socket.
type API struct {
	Source Source
	Log    *slog.Logger
	Refuse error // if not nil, the response to every request that would change something
	// Bundles serves the released bundles under /v2/, as an OCI registry; nil: none.
	Bundles http.Handler
}

// Handler returns the API's handler. The package comment lists its routes.
func (a API) Handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, answer func(w http.ResponseWriter, r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			v, err := answer(w, r)
			if err == nil {
				err = writeJSON(w, http.StatusOK, v)
			}
			if err != nil {
				a.respondError(w, r, err)
			}
		})
	}
	get := func(path string, answer func(r *http.Request) (any, error)) {
		handle("GET "+path, func(_ http.ResponseWriter, r *http.Request) (any, error) { return answer(r) })
	}
	post := func(path string, answer func(r *http.Request, number int, body postBody) (any, error)) {
		handle("POST "+path, func(w http.ResponseWriter, r *http.Request) (any, error) {
			number, err := numberOf(r)
			if err != nil {
				return nil, err
			}
			var body postBody
			if err := readBody(w, r, MaxBody, &body); err != nil {
				return nil, err
			}
			user, _ := peerOf(r)
			a.Log.Info("request", "path", r.URL.Path, "user", user)
			return answer(r, number, body)
		})
	}
	a.handleLists(get)
	mux.HandleFunc("GET /v1/watch", a.serveWatch)
	get("/v1/prs/{number}", func(r *http.Request) (any, error) {
		number, err := numberOf(r)
		if err != nil {
			return nil, err
		}
		pr, err := a.Source.PR(r.Context(), number)
		return pr.withLists(), err
	})
	get("/v1/explain/{kind}/{id}", func(r *http.Request) (any, error) {
		limit, err := number(r.URL.Query().Get("limit"), "limit", math.MaxInt32)
		if err != nil {
			return nil, err
		}
		c, err := a.Source.Explain(r.Context(), explain.Kind(r.PathValue("kind")), r.PathValue("id"))
		c.Links = list(c.Links)
		if limit > 0 && len(c.Links) > limit {
			c.Links, c.More = c.Links[:limit], len(c.Links)-limit
		}
		return c, err
	})
	get("/v1/plan", func(r *http.Request) (any, error) {
		p, err := a.Source.Plan(r.Context())
		p.Steps = list(p.Steps)
		return p, err
	})
	get("/healthz", func(*http.Request) (any, error) { return map[string]string{"status": "ok"}, nil })
	post("/v1/prs/{number}/merge", func(r *http.Request, number int, body postBody) (any, error) {
		user, err := peerOf(r)
		if err != nil {
			return nil, err
		}
		if err := checkHead(body.Head); err != nil {
			return nil, err
		}
		commit, err := a.Source.Merge(r.Context(), number, body.Head, user)
		return merged{commit}, err
	})
	post("/v1/prs/{number}/adopt", func(r *http.Request, number int, body postBody) (any, error) {
		if err := checkHead(body.Head); err != nil {
			return nil, err
		}
		adopted, err := a.Source.Adopt(r.Context(), number, body.Head)
		return adoption{adopted}, err
	})
	post("/v1/prs/{number}/ask", func(r *http.Request, number int, body postBody) (any, error) {
		user, err := peerOf(r)
		if err != nil {
			return nil, err
		}
		if body.Text = strings.TrimSpace(body.Text); body.Text == "" || len(body.Text) > MaxText ||
			!utf8.ValidString(body.Text) {
			return nil, badRequest("", "text: want 1 to %d bytes of UTF-8, got %d bytes", MaxText, len(body.Text))
		}
		return struct{}{}, a.Source.Command(r.Context(), number, user, body.Text)
	})
	post("/v1/prs/{number}/recheck", func(r *http.Request, number int, _ postBody) (any, error) {
		return struct{}{}, a.Source.Recheck(r.Context(), number)
	})
	get("/v1/trials", func(r *http.Request) (any, error) {
		trials, err := a.Source.Trials(r.Context())
		return list(trials), err
	})
	get("/v1/spends", func(r *http.Request) (any, error) {
		spends, err := a.Source.Spends(r.Context())
		return list(spends), err
	})
	get("/v1/trials/{id}", func(r *http.Request) (any, error) { return a.Source.Trial(r.Context(), r.PathValue("id")) })
	get("/v1/gates/{gate}/power", func(r *http.Request) (any, error) {
		powers, err := a.Source.Power(r.Context(), r.PathValue("gate"))
		return list(powers), err
	})
	get("/v1/models/{model}/release", func(r *http.Request) (any, error) {
		version, err := strconv.Atoi(r.URL.Query().Get("version"))
		if err != nil || version < 0 {
			return nil, badRequest("", "version: want a number, got %q", truncate(r.URL.Query().Get("version")))
		}
		return a.Source.Release(r.Context(), r.PathValue("model"), version)
	})
	get("/v1/compare", func(r *http.Request) (any, error) {
		return a.Source.Compare(r.Context(), r.URL.Query().Get("a"), r.URL.Query().Get("b"))
	})
	handle("POST /v1/trials", func(w http.ResponseWriter, r *http.Request) (any, error) {
		body, err := readTrial(w, r)
		if err != nil {
			return nil, err
		}
		a.Log.Info("request", "path", r.URL.Path, "user", body.User, "variants", len(body.Variants))
		return a.Source.Try(r.Context(), body)
	})
	handle("DELETE /v1/trials/{id}", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return struct{}{}, a.Source.EndTrial(r.Context(), r.PathValue("id"))
	})
	handle("DELETE /v1/devices/{fleet}/{device}", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return struct{}{}, a.Source.ForgetDevice(r.Context(), r.PathValue("fleet"), r.PathValue("device"))
	})
	a.handleRetention(handle)
	mux.HandleFunc("GET /v1/runs/{run}/log", a.serveLog)
	if a.Bundles != nil {
		mux.Handle("GET /v2/", a.Bundles)
	}
	handle("/", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return nil, &Error{Code: http.StatusNotFound, What: fmt.Sprintf("the API has no %s %s", r.Method,
			truncate(r.URL.Path)), Do: "use an aob of the same version as the server's"}
	})
	if a.Refuse != nil {
		refuse := func(w http.ResponseWriter, r *http.Request) { a.respondError(w, r, a.Refuse) }
		readOnly := http.NewServeMux()
		readOnly.Handle("GET /", mux)
		readOnly.HandleFunc("/", refuse)
		readOnly.HandleFunc("GET /v1/compare", refuse) // it starts a run
		return readOnly
	}
	return mux
}

// checkHead rejects a head that cannot be an abbreviated commit.
func checkHead(head string) error {
	if len(head) < 7 || len(head) > 64 {
		return badRequest("", "head: want 7 to 64 digits of the reviewed commit, got %q", truncate(head))
	}
	return nil
}

// postBody is the body of a POST for a pull request.
type postBody struct {
	Head string `json:"head,omitempty"`
	Text string `json:"text,omitempty"`
}

// Responses to POSTs.
type (
	merged struct {
		Commit string `json:"commit"`
	}
	adoption struct {
		Number int `json:"number"`
	}
)

// list turns a nil list into an empty one, which JSON shows as [] and not as null.
func list[T any](v []T) []T {
	if v == nil {
		return []T{}
	}
	return v
}

func (p PR) withLists() PR {
	p.Checks, p.Runs = list(p.Checks), list(p.Runs)
	return p
}

func (s Status) withLists() Status {
	s.Main.Checks, s.Models, s.Runs, s.Notices = list(s.Main.Checks), list(s.Models), list(s.Runs), list(s.Notices)
	s.PRs = delivery.Each(s.PRs, PR.withLists)
	s.Fleets = delivery.Each(s.Fleets, func(f Fleet) Fleet {
		f.Devices = list(f.Devices)
		return f
	})
	return s
}

func numberOf(r *http.Request) (int, error) {
	n, err := strconv.Atoi(r.PathValue("number"))
	if err != nil || n < 1 || n > math.MaxInt32 {
		return 0, badRequest("", "want a pull request's number, got %q", truncate(r.PathValue("number")))
	}
	return n, nil
}

// readTrial decodes and checks a request for an experiment.
func readTrial(w http.ResponseWriter, r *http.Request) (body TrialRequest, err error) {
	if err := readBody(w, r, MaxTrial, &body); err != nil {
		return body, err
	}
	if body.User, err = peerOf(r); err != nil {
		return body, err
	}
	if n := utf8.RuneCountInString(body.Note); n > MaxNote || !utf8.ValidString(body.Note) {
		return body, badRequest("", "note: want at most %d characters of UTF-8, got %d", MaxNote, n)
	}
	if n := len(body.Variants); n == 0 || n > MaxVariants {
		return body, badRequest("", "want 1 to %d variants, got %d", MaxVariants, n)
	}
	return body, nil
}

// readBody decodes a request's body of at most limit bytes into v. An empty body leaves v unchanged.
func readBody(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &Error{Code: http.StatusRequestEntityTooLarge,
			What: fmt.Sprintf("the body is too large; want at most %d bytes", limit)}
	}
	if err != nil {
		return badRequest("", "the body could not be read: %s", err)
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	if err := delivery.ParseJSON(body, v); err != nil {
		return badRequest("use an aob of the same version as the server's",
			"the body is not valid for this request: %s", err)
	}
	return nil
}

func badRequest(do, format string, args ...any) *Error {
	return &Error{Code: http.StatusBadRequest, What: fmt.Sprintf(format, args...), Do: do}
}

func truncate(s string) string { return s[:min(len(s), 200)] }

func (a API) respondError(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		return // the client has left
	}
	e := errorOf(err)
	if e.Code >= http.StatusInternalServerError && e.RetryAfter == 0 {
		a.Log.Error("API", "path", truncate(r.URL.Path), "error", err.Error())
	}
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	if err := writeJSON(w, e.Code, e); err != nil {
		a.Log.Error("API", "path", truncate(r.URL.Path), "error", err.Error())
	}
}

// writeJSON encodes v before it writes the response, so that an encoding error never leaves half a response.
func writeJSON(w http.ResponseWriter, code int, v any) error {
	text, err := delivery.EncodeJSON(v)
	if err != nil {
		return fmt.Errorf("encode the response: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(code)
	w.Write(text) // an error means that the client has left
	return nil
}

// Headers of a log.
const (
	headerOffset = "Aob-Log-Offset"
	headerName   = "Aob-Log-Name"
	headerEnded  = "Aob-Log-Ended"
)

func (a API) serveLog(w http.ResponseWriter, r *http.Request) {
	var offset int64
	if s := r.URL.Query().Get("offset"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			a.respondError(w, r, badRequest("", "offset: want a number of bytes, got %q", truncate(s)))
			return
		}
		offset = n
	}
	log, err := a.Source.Log(r.Context(), r.PathValue("run"), offset)
	if err != nil {
		a.respondError(w, r, err)
		return
	}
	defer log.Close()
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set(headerOffset, strconv.FormatInt(log.Offset, 10))
	h.Set(headerName, log.Name)
	h.Set(headerEnded, strconv.FormatBool(log.Ended))
	io.Copy(w, log) // an error means that the client has left, or the log ends early
}
