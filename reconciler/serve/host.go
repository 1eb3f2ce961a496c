package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/detect"
)

// A Child is a model in a process of its own. [detect.Served] is one.
type Child interface {
	Model
	// Live returns nil if the process answers, also while its model runs.
	Live(ctx context.Context) error
	Describer
	// Done is closed when the process has ended, and Wait says why.
	Done() <-chan struct{}
	Wait() error
	// Close lets the process finish its calls, and ends it.
	Close() error
}

// A StartFunc starts a child for the bundle in a folder, on a Unix socket. It returns when the child has loaded the
// model and replayed its golden. ctx limits the start only.
type StartFunc func(ctx context.Context, bundleDir, socket string) (Child, error)

// HostOptions are the settings of a Host. A time of zero is its default.
type HostOptions struct {
	Start     StartFunc
	Name      string // of the model, for callers
	Sockets   string // folder for the children's sockets; its path is short
	Socket    string // how the sockets' names begin; default: the role
	StopFirst bool   // memory holds one model: it ends before the next one starts
	Log       *slog.Logger
	Patience  time.Duration                    // how long a call waits while no model serves: 5s
	Heartbeat time.Duration                    // between two questions whether the child answers: 5s
	Backoff   func(failures int) time.Duration // the wait before a start, after failures in a row; nil: Backoff
	Serves    func(f Facts, now bool)          // is told when a model begins to serve, and when its process ends
	Retired   func(Facts)                      // is told of a model that serves no longer, after its last call
}

// A Host keeps a model running in a child process. It starts the child again when that ends, and changes to another
// model without losing a call. It is a Models, and safe for concurrent use.
type Host struct {
	role string
	o    HostOptions

	loading sync.Mutex // held while a child starts

	mu      sync.Mutex
	serving *lease        // nil: none serves
	changed chan struct{} // closed when serving changes
	bundle  Bundle        // that shall serve
	content string        // of the last bundle that was loaded
	trouble Unavailable   // why none serves
	last    Facts         // of the last child that served
	starts  int           // of children, for the names of sockets

	ctx    context.Context // done when the host is closed
	end    context.CancelFunc
	guards sync.WaitGroup
}

// A Bundle is a bundle's folder.
type Bundle struct {
	Dir     string `json:"bundle"`
	Version string `json:"version"` // for callers and metrics
}

// A lease is a child with its calls.
type lease struct {
	child    Child
	facts    Facts
	since    time.Time
	failures int // in a row before it served
	calls    sync.WaitGroup
	retired  chan struct{} // closed when it no longer serves
}

// NewHost returns a host that serves nothing yet. role is a word for logs.
func NewHost(role string, o HostOptions) *Host {
	o.Patience, o.Heartbeat = cmp.Or(o.Patience, 5*time.Second), cmp.Or(o.Heartbeat, 5*time.Second)
	o.Log, o.Socket = cmp.Or(o.Log, slog.New(slog.DiscardHandler)), cmp.Or(o.Socket, role)
	if o.Serves == nil {
		o.Serves = func(Facts, bool) {}
	}
	if o.Retired == nil {
		o.Retired = func(Facts) {}
	}
	if o.Backoff == nil {
		o.Backoff = Backoff
	}
	ctx, end := context.WithCancel(context.Background())
	return &Host{role: role, o: o, changed: make(chan struct{}), ctx: ctx, end: end,
		trouble: Unavailable{"no model is loaded yet", time.Second}}
}

// Backoff is how long a start waits after failures in a row: 0.1 s, doubled each time, at most 30 s.
func Backoff(failures int) time.Duration {
	return min(100*time.Millisecond<<min(failures-1, 10), 30*time.Second)
}

// healthyAfter is how long a child serves before its failures are forgotten.
const healthyAfter = time.Minute

// Load makes the bundle in a folder the one that serves. It returns when that answers calls, and the old one has
// finished its own. If the new one does not start, the error says why and the old one goes on serving; with StopFirst
// it is started again.
func (h *Host) Load(ctx context.Context, b Bundle) error {
	h.loading.Lock()
	defer h.loading.Unlock()
	h.mu.Lock()
	old, before := h.serving, h.bundle
	h.mu.Unlock()
	if h.ctx.Err() != nil {
		return errEnding
	}
	if h.o.StopFirst && old != nil {
		h.put(nil, b, Unavailable{"the next model is being loaded", time.Second})
		h.retire(old)
	}
	next, err := h.start(ctx, b)
	if err == nil {
		h.mu.Lock()
		last := h.last
		h.content = next.facts.Content
		h.mu.Unlock()
		h.put(next, b, Unavailable{})
		if !h.o.StopFirst && old != nil {
			h.retire(old)
		}
		if last.Version != "" && last.Version != next.facts.Version {
			h.o.Retired(last)
		}
		return nil
	}
	if h.o.StopFirst && old != nil {
		h.put(nil, before, Unavailable{"the next model did not start; the one before it is being loaded", time.Second})
		h.guards.Go(func() { h.revive(before, 0) })
	}
	return err
}

var errEnding = errors.New("the server is ending")

// start starts a child.
func (h *Host) start(ctx context.Context, b Bundle) (*lease, error) {
	h.mu.Lock()
	h.starts++
	socket := filepath.Join(h.o.Sockets, h.o.Socket+strconv.Itoa(h.starts))
	h.mu.Unlock()
	child, err := h.o.Start(ctx, b.Dir, socket)
	if err != nil {
		return nil, err
	}
	facts, err := ReadFacts(ctx, b.Dir, child)
	if err != nil {
		return nil, errors.Join(err, child.Close())
	}
	facts.Name, facts.Version = h.o.Name, b.Version
	return &lease{child: child, facts: facts, since: time.Now(), retired: make(chan struct{})}, nil
}

// put makes a child the one that serves, or says why none does.
func (h *Host) put(next *lease, b Bundle, why Unavailable) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.serving != nil {
		close(h.serving.retired)
		h.o.Serves(h.serving.facts, false)
	}
	h.serving, h.bundle, h.trouble = next, b, why
	close(h.changed)
	h.changed = make(chan struct{})
	if next != nil {
		h.last = next.facts
		h.o.Serves(next.facts, true)
		h.o.Log.Info("model serves", "role", h.role, "model", next.facts.Name, "version", next.facts.Version)
		h.guards.Go(func() { h.guard(next) })
	}
}

// retire ends a child after its calls.
func (h *Host) retire(old *lease) {
	old.calls.Wait()
	if err := old.child.Close(); err != nil {
		h.o.Log.Warn("detector did not end well", "role", h.role, "err", err)
	}
}

// guard watches a child until it is retired. One that ends, or does not answer twice in a row, is started again.
func (h *Host) guard(l *lease) {
	tick := time.NewTicker(h.o.Heartbeat)
	defer tick.Stop()
	var why error
	for missed := 0; why == nil; {
		select {
		case <-l.retired:
			return
		case <-l.child.Done():
			why = l.child.Wait()
		case <-tick.C:
			if err := h.live(l.child); err == nil {
				missed = 0
			} else if missed++; missed == 2 {
				why = fmt.Errorf("the detector does not answer: %w", err)
			}
		}
	}
	h.mu.Lock()
	current, b := h.serving == l, h.bundle
	h.mu.Unlock()
	if !current || h.ctx.Err() != nil {
		return
	}
	failures := l.failures + 1
	if time.Since(l.since) > healthyAfter {
		failures = 1
	}
	h.o.Log.Error("detector ended", "role", h.role, "version", l.facts.Version, "err", why)
	if !h.drop(l, Unavailable{"the detector ended and is being started again", h.o.Backoff(failures)}) {
		return
	}
	if err := l.child.Close(); err != nil {
		h.o.Log.Warn("detector did not end well", "role", h.role, "err", err)
	}
	h.guards.Go(func() { h.revive(b, failures) })
}

func (h *Host) live(c Child) error {
	ctx, cancel := context.WithTimeout(h.ctx, h.o.Heartbeat)
	defer cancel()
	return c.Live(ctx)
}

// drop makes none serve in place of a child, and returns whether that served.
func (h *Host) drop(l *lease, why Unavailable) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.serving != l {
		return false
	}
	close(l.retired)
	h.o.Serves(l.facts, false)
	h.serving, h.trouble = nil, why
	close(h.changed)
	h.changed = make(chan struct{})
	return true
}

// revive starts a bundle's child until it serves, or another bundle shall serve.
func (h *Host) revive(b Bundle, failures int) {
	for {
		if failures > 0 {
			select {
			case <-time.After(h.o.Backoff(failures)):
			case <-h.ctx.Done():
				return
			}
		}
		h.loading.Lock()
		h.mu.Lock()
		moot := h.serving != nil || h.bundle != b || h.ctx.Err() != nil
		h.mu.Unlock()
		if moot {
			h.loading.Unlock()
			return
		}
		next, err := h.again(b)
		if err == nil {
			next.failures = failures
			h.put(next, b, Unavailable{})
			h.loading.Unlock()
			return
		}
		failures++
		h.mu.Lock()
		h.trouble = Unavailable{"the detector does not start; the server's log says why", h.o.Backoff(failures)}
		h.mu.Unlock()
		h.loading.Unlock()
		h.o.Log.Error("detector does not start", "role", h.role, "failures", failures, "err", err)
	}
}

// again starts a child for the bundle that was loaded last, unless its files have changed since: they would serve under
// a version that is not theirs, and nobody has asked for them.
func (h *Host) again(b Bundle) (*lease, error) {
	next, err := h.start(h.ctx, b)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	content := h.content
	h.mu.Unlock()
	if next.facts.Content != content {
		return nil, errors.Join(fmt.Errorf("the files of bundle %s have changed since it was loaded as version %s: "+
			"put them back, or load them with aob-detect load or SIGHUP", b.Dir, b.Version), next.child.Close())
	}
	return next, nil
}

// Lease implements Models. While no model serves it waits for one, for the host's patience.
func (h *Host) Lease(ctx context.Context) (facts *Facts, model Model, done func(), err error) {
	var patience *time.Timer
	for {
		h.mu.Lock()
		if l := h.serving; l != nil {
			l.calls.Add(1) // before it can be retired
			h.mu.Unlock()
			return &l.facts, hosted{l.child, h, l}, l.calls.Done, nil
		}
		changed, why := h.changed, h.trouble
		h.mu.Unlock()
		if patience == nil {
			patience = time.NewTimer(h.o.Patience)
			defer patience.Stop()
		}
		select {
		case <-changed:
		case <-patience.C:
			return nil, nil, nil, why
		case <-h.ctx.Done():
			return nil, nil, nil, Unavailable{errEnding.Error(), time.Second}
		case <-ctx.Done():
			return nil, nil, nil, context.Cause(ctx)
		}
	}
}

// hosted is a child's model. A call that the child did not get, because it has just ended, goes to the one that is
// started in its place. A call that it got is not repeated: it may be what ended the child.
type hosted struct {
	Child
	host  *Host
	lease *lease
}

// Detect implements Model.
func (m hosted) Detect(ctx context.Context, image []byte, score float64) (detect.Detections, detect.Timing, error) {
	found, timing, err := m.Child.Detect(ctx, image, score)
	if notSent(err) {
		if _, next, done, again := m.next(ctx); again == nil {
			defer done()
			return next.Detect(ctx, image, score)
		}
	}
	return found, timing, err
}

// Run implements Model.
func (m hosted) Run(ctx context.Context, input detect.Tensor) ([]detect.Tensor, detect.Timing, error) {
	outputs, timing, err := m.Child.Run(ctx, input)
	if notSent(err) {
		if _, next, done, again := m.next(ctx); again == nil {
			defer done()
			return next.Run(ctx, input)
		}
	}
	return outputs, timing, err
}

// next leases the process after one that has ended. Another version has other classes, so it cannot answer in its
// place.
func (m hosted) next(ctx context.Context) (*Facts, Model, func(), error) {
	select {
	case <-m.lease.retired:
		facts, model, done, err := m.host.Lease(ctx)
		if err == nil && facts.Version != m.lease.facts.Version {
			done()
			return nil, nil, nil, errEnding
		}
		return facts, model, done, err
	case <-time.After(m.host.o.Patience):
		return nil, nil, nil, errEnding
	case <-ctx.Done():
		return nil, nil, nil, context.Cause(ctx)
	}
}

// notSent says whether a call failed because no process listens on the child's socket.
func notSent(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "dial"
}

// Serving implements Models.
func (h *Host) Serving() (Facts, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.serving == nil {
		return Facts{}, h.trouble
	}
	return h.serving.facts, nil
}

// announce tells HostOptions.Serves again what serves.
func (h *Host) announce() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last.Version != "" {
		h.o.Serves(h.last, h.serving != nil)
	}
}

// Close ends the child after its calls. It must be called once.
func (h *Host) Close() error {
	h.end()
	h.loading.Lock() // what is being loaded serves by now, and nothing is loaded any more
	h.mu.Lock()
	l, last := h.serving, h.last
	h.mu.Unlock()
	h.loading.Unlock() // a guard may be about to take it, to see that this host has ended
	var err error
	if l != nil && h.drop(l, Unavailable{errEnding.Error(), time.Second}) {
		l.calls.Wait()
		err = l.child.Close()
	}
	h.guards.Wait()
	if last.Version != "" {
		h.o.Retired(last)
	}
	return err
}
