package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Roles has the model that answers and, while asked for, a shadow that sees a share of the same images. It is a Models,
// and an http.Handler that operators control it by:
//
//	GET    /status   a Status
//	PUT    /bundle   a Bundle: the model that answers from now on; the response comes when it does
//	PUT    /shadow   a Bundle with "share", 0 to 1: the shadow
//	DELETE /shadow   ends the shadow
//
// An error response is {"error": "..."} with 409, and nothing has changed.
type Roles struct {
	o       RolesOptions
	main    *Host
	mux     *http.ServeMux
	current atomic.Pointer[Models] // what Lease uses

	changing sync.Mutex
	shadows  int // that were started; held by changing
	mu       sync.Mutex
	shadow   *Host // nil: none
	compare  *Shadow
	share    float64
	seen     Agreement
	bundles  map[string]Bundle // by role
}

// RolesOptions are the settings of Roles.
type RolesOptions struct {
	Host    HostOptions // of the main model
	Shadow  HostOptions // of the shadow; it should have the lowest priority
	Metrics *Metrics
	Score   float64 // boxes below it are not compared
}

// A Status says what serves.
type Status struct {
	Main   RoleStatus    `json:"main"`
	Shadow *ShadowStatus `json:"shadow,omitempty"`
}

// A RoleStatus says what serves in a role.
type RoleStatus struct {
	Bundle
	Model   string `json:"model"`
	Trouble string `json:"trouble,omitempty"` // why none serves
}

// A ShadowStatus says what a shadow has seen.
type ShadowStatus struct {
	RoleStatus
	Share     float64   `json:"share"`
	Agreement Agreement `json:"agreement"`
	F1        float64   `json:"f1"`
}

// NewRoles returns Roles without a model.
func NewRoles(o RolesOptions) *Roles {
	o.Host, o.Shadow = o.Metrics.watch("main", o.Host), o.Metrics.watch("shadow", o.Shadow)
	r := &Roles{o: o, main: NewHost("main", o.Host), mux: http.NewServeMux(), bundles: map[string]Bundle{}}
	r.use(o.Metrics.Calls("main", r.main))
	r.mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { reply(w, r.Status(), nil) })
	r.mux.HandleFunc("PUT /bundle", r.putBundle)
	r.mux.HandleFunc("PUT /shadow", r.putShadow)
	r.mux.HandleFunc("DELETE /shadow", func(w http.ResponseWriter, _ *http.Request) {
		r.EndShadow()
		reply(w, r.Status(), nil)
	})
	return r
}

func (r *Roles) use(m Models) { r.current.Store(&m) }

// Lease implements Models.
func (r *Roles) Lease(ctx context.Context) (*Facts, Model, func(), error) {
	return (*r.current.Load()).Lease(ctx)
}

// Serving implements Models.
func (r *Roles) Serving() (Facts, error) { return r.main.Serving() }

// ServeHTTP implements http.Handler.
func (r *Roles) ServeHTTP(w http.ResponseWriter, req *http.Request) { r.mux.ServeHTTP(w, req) }

// Load makes a bundle's model the one that answers. See Host.Load.
func (r *Roles) Load(ctx context.Context, b Bundle) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	if err := r.main.Load(ctx, b); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bundles["main"] = b
	r.seen = Agreement{}
	return nil
}

// StartShadow lets a bundle's model see a share of the images, in place of the shadow before.
func (r *Roles) StartShadow(ctx context.Context, b Bundle, share float64) error {
	if !(share > 0 && share <= 1) {
		return fmt.Errorf("share is %v, want a number above 0 and at most 1", share)
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	if r.o.Host.StopFirst {
		return errors.New("this machine's memory holds one model, so there can be no shadow")
	}
	o := r.o.Shadow
	r.shadows++ // the one before still has its socket
	o.Socket = "shadow" + strconv.Itoa(r.shadows) + "-"
	host := NewHost("shadow", o)
	if err := host.Load(ctx, b); err != nil {
		return errors.Join(err, host.Close())
	}
	r.endShadow()
	host.announce() // the one before may have had the same name
	main := r.o.Metrics.Calls("main", r.main)
	compare := NewShadow(ShadowOptions{Main: main, Second: r.o.Metrics.Calls("shadow", host), Share: share,
		Score: r.o.Score, Log: r.o.Shadow.Log, Seen: r.saw})
	r.mu.Lock()
	r.shadow, r.compare, r.share, r.seen, r.bundles["shadow"] = host, compare, share, Agreement{}, b
	r.mu.Unlock()
	r.use(compare)
	return nil
}

func (r *Roles) saw(result ShadowResult) {
	r.o.Metrics.Compared(result)
	if result.Outcome != "compared" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = r.seen.Add(result.Agreement)
}

// EndShadow ends the shadow if there is one.
func (r *Roles) EndShadow() {
	r.changing.Lock()
	defer r.changing.Unlock()
	r.endShadow()
}

func (r *Roles) endShadow() {
	r.mu.Lock()
	host, compare := r.shadow, r.compare
	r.shadow, r.compare = nil, nil
	r.mu.Unlock()
	if host == nil {
		return
	}
	r.use(r.o.Metrics.Calls("main", r.main))
	compare.Close()
	if err := host.Close(); err != nil && r.o.Shadow.Log != nil {
		r.o.Shadow.Log.Warn("shadow did not end well", "err", err)
	}
}

// Status returns what serves.
func (r *Roles) Status() Status {
	of := func(h *Host, b Bundle) RoleStatus {
		s := RoleStatus{Bundle: b}
		facts, err := h.Serving()
		if s.Model = facts.Name; err != nil {
			s.Trouble = err.Error()
		}
		return s
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{Main: of(r.main, r.bundles["main"])}
	if r.shadow != nil {
		s.Shadow = &ShadowStatus{of(r.shadow, r.bundles["shadow"]), r.share, r.seen, r.seen.F1()}
	}
	return s
}

// Close ends both models after their calls.
func (r *Roles) Close() error {
	r.EndShadow()
	return r.main.Close()
}

// wanted is the body of a request to change a role.
type wanted struct {
	Bundle
	Share float64 `json:"share,omitempty"`
}

func (r *Roles) putBundle(w http.ResponseWriter, req *http.Request) {
	want, err := readWanted(w, req)
	if err == nil {
		err = r.Load(req.Context(), want.Bundle)
	}
	reply(w, r.Status(), err)
}

func (r *Roles) putShadow(w http.ResponseWriter, req *http.Request) {
	want, err := readWanted(w, req)
	if err == nil {
		err = r.StartShadow(req.Context(), want.Bundle, want.Share)
	}
	reply(w, r.Status(), err)
}

func readWanted(w http.ResponseWriter, req *http.Request) (want wanted, err error) {
	decoder := json.NewDecoder(http.MaxBytesReader(w, req.Body, 64<<10))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&want); err != nil {
		return want, fmt.Errorf("want a JSON object with bundle and version: %w", err)
	}
	if want.Dir == "" || want.Version == "" {
		return want, errors.New("want a JSON object with bundle, a folder's path, and version")
	}
	return want, nil
}

// reply writes a response, or an error.
func reply(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusConflict)
		v = map[string]string{"error": delivery.PlainText(err.Error(), 4000)}
	}
	_ = json.NewEncoder(w).Encode(v) // an error means that the caller has left
}
