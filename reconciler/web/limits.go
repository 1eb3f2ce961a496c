package web

import (
	linked "container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// Limits bound what strangers can take of a server by being slow or many.
type Limits struct {
	// Connections is how many are open at one time. When there are more, the one
	// that has kept the server waiting for longest is closed.
	Connections int
	// PerAddress is how many of them one address may have. Addresses of this
	// machine are not counted: a proxy there speaks for everybody.
	PerAddress int
	// Request is how long a client may take to send a request with its body.
	Request time.Duration
	// Idle is how long a connection may stay open between requests.
	Idle time.Duration
	// Progress is how long a client may take to read 128 KiB of an answer.
	Progress time.Duration
	// Header and Body are how many bytes of a request are read.
	Header int
	Body   int64
}

// The most connections of the site, and of the socket.
const (
	maxConnections       = 8192
	maxSocketConnections = 256
)

// SiteLimits are the limits of what other machines reach. Half of the files that
// the process may open are left to the loop, the socket and the runs.
func SiteLimits() Limits {
	connections := maxConnections
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil && files.Cur/2 < maxConnections {
		connections = max(16, int(files.Cur/2))
	}
	return Limits{Connections: connections, PerAddress: connections / 2, Request: 10 * time.Second,
		Idle:     2 * time.Minute,
		Progress: time.Minute, Header: 16 << 10, Body: MaxWebhook}
}

// SocketLimits are the limits of the socket, which only AOB's own user reaches.
func SocketLimits() Limits {
	return Limits{Connections: maxSocketConnections, PerAddress: maxSocketConnections, Request: time.Minute,
		Idle:     2 * time.Minute,
		Progress: time.Minute, Header: 16 << 10, Body: MaxTrial}
}

// Serve answers on a listener until ctx ends, and returns nil then. Requests get
// a context that ends with ctx, so held ones let go; what still goes on 5 s
// later is cut off.
func (l Limits) Serve(ctx context.Context, listener net.Listener, h http.Handler, log *slog.Logger) error {
	open := &connections{limits: l, log: log, byConn: map[net.Conn]*connection{}, byAddress: map[netip.Addr]*address{}}
	srv := &http.Server{
		Handler:           open.limit(h),
		ReadHeaderTimeout: l.Request,
		ReadTimeout:       l.Request,
		IdleTimeout:       l.Idle,
		MaxHeaderBytes:    l.Header,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // strangers' broken handshakes, mostly
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return open.begin(withPeer(ctx, c), c)
		},
		ConnState: func(c net.Conn, s http.ConnState) {
			if s == http.StateClosed || s == http.StateHijacked {
				open.end(c)
			}
		},
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(listener) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	open.closeUnasked()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 1500*time.Millisecond)
	defer cancel()
	err := srv.Shutdown(stop)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	<-done
	return err
}

// Serve is Serve of [SiteLimits].
func Serve(ctx context.Context, listener net.Listener, h http.Handler, log *slog.Logger) error {
	return SiteLimits().Serve(ctx, listener, h, log)
}

// connections are those that are open.
type connections struct {
	limits Limits
	log    *slog.Logger

	mu        sync.Mutex
	byConn    map[net.Conn]*connection
	byAddress map[netip.Addr]*address
	waiting   linked.List // of *connection: those that keep the server waiting, the longest first
	closed    int         // for the limits, since the last line in the log
	logged    time.Time
}

// An address is where connections come from.
type address struct {
	open    int
	waiting linked.List // as above
}

// A connection waits for its client from its start to the end of a request's
// body, and while an answer is written. It does not while a handler works or
// holds the request.
type connection struct {
	conn     net.Conn
	from     netip.Addr // not valid where addresses do not count
	used     bool       // a handler has had a request
	requests int        // requests that a handler has; HTTP/2 has several at one time
	working  int        // those of them for which the client is not waited for
	closing  bool

	inAll, inAddress *linked.Element // nil while it does not wait
}

type connectionKey struct{}

// begin counts a connection, and closes what is too many.
func (cs *connections) begin(ctx context.Context, conn net.Conn) context.Context {
	c := &connection{conn: conn, from: origin(conn.RemoteAddr())}
	cs.mu.Lock()
	var close []*connection
	if c.from.IsValid() {
		a := cs.byAddress[c.from]
		if a == nil {
			a = &address{}
			cs.byAddress[c.from] = a
		}
		if a.open++; a.open > cs.limits.PerAddress {
			close = append(close, oldest(&a.waiting, c))
		}
	}
	cs.byConn[conn] = c
	if len(cs.byConn)-len(close) > cs.limits.Connections {
		close = append(close, oldest(&cs.waiting, c))
	}
	cs.wait(c)
	for _, c := range close {
		c.closing = true
		cs.unwait(c) // it is not chosen again before it is gone
	}
	cs.tell(len(close))
	cs.mu.Unlock()
	for _, c := range close {
		cs.end(c.conn)
		abort(c.conn)
	}
	return context.WithValue(ctx, connectionKey{}, c)
}

// oldest is the connection that has kept the server waiting for longest, or c,
// the new one, where all others are served.
func oldest(waiting *linked.List, c *connection) *connection {
	if e := waiting.Front(); e != nil {
		return e.Value.(*connection)
	}
	return c
}

// tell logs that connections were closed, now and then.
func (cs *connections) tell(n int) {
	if cs.closed += n; cs.closed > 0 && time.Since(cs.logged) > time.Minute {
		cs.log.Warn("too many connections: those that send or read nothing are closed first", "open", len(cs.byConn),
			"closed", cs.closed)
		cs.closed, cs.logged = 0, time.Now()
	}
}

// abort closes a connection without a word, as a farewell could block.
func abort(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	conn.Close()
}

func (cs *connections) end(conn net.Conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.byConn[conn]
	if c == nil {
		return
	}
	delete(cs.byConn, conn)
	cs.unwait(c)
	if a := cs.byAddress[c.from]; a != nil {
		if a.open--; a.open == 0 {
			delete(cs.byAddress, c.from)
		}
	}
}

// wait puts a connection behind those that wait already.
func (cs *connections) wait(c *connection) {
	cs.unwait(c)
	if c.closing {
		return
	}
	c.inAll = cs.waiting.PushBack(c)
	if a := cs.byAddress[c.from]; a != nil {
		c.inAddress = a.waiting.PushBack(c)
	}
}

func (cs *connections) unwait(c *connection) {
	if c.inAll != nil {
		cs.waiting.Remove(c.inAll)
	}
	if c.inAddress != nil {
		cs.byAddress[c.from].waiting.Remove(c.inAddress)
	}
	c.inAll, c.inAddress = nil, nil
}

// closeUnasked closes the connections on which no request has begun. An answer that
// is being written is not cut: Shutdown closes a connection after its answer.
func (cs *connections) closeUnasked() {
	cs.mu.Lock()
	var close []net.Conn
	for conn, c := range cs.byConn {
		if !c.used {
			close = append(close, conn)
		}
	}
	cs.mu.Unlock()
	for _, conn := range close {
		abort(conn)
	}
}

// ask says that a handler has n more requests of a connection.
func (cs *connections) ask(c *connection, n int) {
	if c != nil {
		cs.mu.Lock()
		c.used = true
		c.requests += n
		cs.mu.Unlock()
	}
}

// work says that n more requests of a connection are worked on.
func (cs *connections) work(c *connection, n int) {
	if c == nil {
		return
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.byConn[c.conn] != c {
		return
	}
	if c.working += n; c.working > 0 {
		cs.unwait(c)
	} else {
		cs.wait(c)
	}
}

// origin is the address that a connection counts for: of IPv6 the network, as
// one machine has many addresses.
func origin(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	if addr.IsLoopback() {
		return netip.Addr{}
	}
	if addr.Is6() {
		if network, err := addr.Prefix(64); err == nil {
			return network.Addr()
		}
	}
	return addr
}

// limit puts a handler behind the limits.
func (cs *connections) limit(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := r.Context().Value(connectionKey{}).(*connection)
		answer := &limitedWriter{ResponseWriter: w, controller: http.NewResponseController(w), all: cs, conn: c}
		answer.renew()
		cs.ask(c, 1)
		defer cs.ask(c, -1)
		if r.ContentLength > cs.limits.Body {
			w.Header().Set("Connection", "close")
			writeJSON(answer, http.StatusRequestEntityTooLarge,
				&Error{What: fmt.Sprintf("the body is too large; want at most %d bytes", cs.limits.Body)})
			return
		}
		body := &limitedBody{ReadCloser: http.MaxBytesReader(w, r.Body, cs.limits.Body), arrived: func() {
			// A read deadline that ends while a handler holds the request would end
			// the request. Where none can be set there is none.
			_ = answer.controller.SetReadDeadline(time.Time{})
			answer.work(1)
		}}
		if r.Body == nil || r.Body == http.NoBody {
			body.once.Do(body.arrived)
		} else {
			r.Body = body
		}
		defer func() { answer.work(-answer.working) }()
		h.ServeHTTP(answer, r)
	})
}

// A limitedBody says when a request has arrived whole.
type limitedBody struct {
	io.ReadCloser
	arrived func()
	once    sync.Once
}

// Read implements io.Reader.
func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.once.Do(b.arrived)
	}
	return n, err
}

// progress is how many bytes a client must read within Limits.Progress.
const progress = 128 << 10

// A limitedWriter moves the deadline of an answer as long as its client reads.
type limitedWriter struct {
	http.ResponseWriter
	controller *http.ResponseController
	all        *connections
	conn       *connection
	working    int // 1 once the request is there
}

func (w *limitedWriter) work(n int) {
	w.working += n
	w.all.work(w.conn, n)
}

func (w *limitedWriter) renew() {
	// Where deadlines cannot be set there are none.
	_ = w.controller.SetWriteDeadline(time.Now().Add(w.all.limits.Progress))
}

// send writes a part of the answer, for which the client is waited for.
func (w *limitedWriter) send(part func() (int64, error)) (int64, error) {
	w.renew()
	w.all.work(w.conn, -w.working)
	defer w.all.work(w.conn, w.working)
	return part()
}

// WriteHeader implements http.ResponseWriter.
func (w *limitedWriter) WriteHeader(code int) {
	w.renew()
	w.ResponseWriter.WriteHeader(code)
}

// Write implements io.Writer.
func (w *limitedWriter) Write(p []byte) (written int, err error) {
	for first := true; first || len(p) > 0 && err == nil; first = false {
		part := p[:min(len(p), progress)]
		var n int64
		n, err = w.send(func() (int64, error) {
			n, err := w.ResponseWriter.Write(part)
			return int64(n), err
		})
		written, p = written+int(n), p[n:]
	}
	return written, err
}

// ReadFrom implements io.ReaderFrom, so that a file goes to the socket without
// passing here.
func (w *limitedWriter) ReadFrom(r io.Reader) (written int64, err error) {
	left := int64(-1) // without end
	if l, ok := r.(*io.LimitedReader); ok {
		r, left = l.R, l.N // below one limit the file is still found
		defer func() { l.N -= written }()
	}
	for left != 0 {
		part := int64(progress)
		if left > 0 {
			part = min(part, left)
		}
		n, err := w.send(func() (int64, error) { return io.CopyN(w.ResponseWriter, r, part) })
		written += n
		if left > 0 {
			left -= n
		}
		if err == io.EOF {
			return written, nil
		}
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// Unwrap lets http.ResponseController reach the writer below.
func (w *limitedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
