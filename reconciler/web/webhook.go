package web

import (
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// maxHooks is how many webhooks are read at one time. The body is read before its
// signature is checked, so anybody can make AOB read one.
const maxHooks = 16

var hooks = make(chan struct{}, maxHooks)

// MaxWebhook is how many bytes of a webhook are read.
const MaxWebhook = 1 << 20

// A Webhook serves a forge's webhooks. A valid request wakes the loop, which then reads
// the forge; the request's content is only logged.
type Webhook struct {
	// Read checks a request's signature and returns its event for the log.
	Read     func(*http.Request) (event string, err error)
	Unsigned error // Read's error, by errors.Is, for a wrong signature
	Wake     func()
	Metrics  *Metrics // may be nil
	Log      *slog.Logger
}

// ServeHTTP implements http.Handler.
func (h Webhook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		h.refuse(w, http.StatusMethodNotAllowed, "a webhook must be a POST")
		return
	}
	select {
	case hooks <- struct{}{}:
		defer func() { <-hooks }()
	default:
		h.count("refused")
		w.Header().Set("Retry-After", "10")
		h.refuse(w, http.StatusServiceUnavailable, "too many webhooks are being read")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, MaxWebhook)
	event, err := h.Read(r)
	_, large := errors.AsType[*http.MaxBytesError](err)
	switch {
	case err == nil:
		h.count("taken")
		h.Log.Debug("webhook", "event", event)
		h.Wake()
		w.WriteHeader(http.StatusNoContent)
	case large:
		h.count("refused")
		h.refuse(w, http.StatusRequestEntityTooLarge, "at most "+strconv.Itoa(MaxWebhook)+" bytes are read")
	case errors.Is(err, h.Unsigned):
		h.count("unsigned")
		if n, due := unsigned.add(time.Now()); due {
			h.Log.Warn("webhook refused", "error", err.Error(), "refused", n)
		}
		h.refuse(w, http.StatusUnauthorized, "the signature is missing or wrong")
	default:
		h.count("refused")
		h.Log.Warn("webhook refused", "error", err.Error())
		h.refuse(w, http.StatusBadRequest, err.Error())
	}
}

func (h Webhook) refuse(w http.ResponseWriter, code int, what string) {
	writeJSON(w, code, &Error{What: what})
}

func (h Webhook) count(result string) {
	if h.Metrics != nil {
		h.Metrics.Webhook(result)
	}
}

// unsigned counts webhooks with a wrong signature. Anybody can send them, so the log gets at most one line a minute.
var unsigned refusals

type refusals struct {
	mu sync.Mutex
	n  int // since the last log line
	at time.Time
}

// add counts one. If a log line is due, it returns the number since the last line.
func (r *refusals) add(now time.Time) (n int, due bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	if !r.at.IsZero() && now.Sub(r.at) < time.Minute {
		return 0, false
	}
	n, r.n, r.at = r.n, 0, now
	return n, true
}
