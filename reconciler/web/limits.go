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

// Limits bound the resources that clients can take from a server by being slow or many.
type Limits struct {
	// Connections is the largest number of open connections. If there are more, the one that has kept the
	// server waiting for the longest time is closed.
	Connections int
	// PerAddress is the largest number of connections of one address. Addresses of this machine are not
	// limited, because a local proxy forwards all clients.
	PerAddress int
	// Request is the time limit for sending a request with its body.
	Request time.Duration
	// Idle is how long a connection may stay open between requests.
	Idle time.Duration
	// Progress is the time limit for reading 128 KiB of a response.
	Progress time.Duration
	// Header and Body are the largest sizes of a request's parts in bytes.
	Header int
	Body   int64
}

// Largest numbers of connections of the site and of the socket.
const (
	maxConnections       = 8192
	maxSocketConnections = 256
)

// SiteLimits are the limits of addresses that other machines reach. Half of the file descriptors of
// the process are reserved for the loop, the socket and the runs.
func SiteLimits() Limits {
	connections := maxConnections
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil && files.Cur/2 < maxConnections {
		connections = max(16, int(files.Cur/2))
	}
	return Limits{Connections: connections, PerAddress: connections / 2, Request: 10 * time.Second,
		Idle: 2 * time.Minute, Progress: time.Minute, Header: 16 << 10, Body: MaxWebhook}
}

// SocketLimits are the limits of the socket, which only the server's own user can open.
func SocketLimits() Limits {
	return Limits{Connections: maxSocketConnections, PerAddress: maxSocketConnections, Request: time.Minute,
		Idle: 2 * time.Minute, Progress: time.Minute, Header: 16 << 10, Body: MaxTrial}
}

// Serve serves a listener until ctx is done, and then returns nil. The context of each request is
// cancelled with ctx, which ends long polls. Requests that are still running 1.5 s later are cut off.
func (l Limits) Serve(ctx context.Context, listener net.Listener, h http.Handler, log *slog.Logger) error {
	open := &connections{limits: l, log: log, byConn: map[net.Conn]*connection{}, byAddress: map[netip.Addr]*address{}}
	srv := &http.Server{
		Handler:           open.limit(h),
		ReadHeaderTimeout: l.Request,
		ReadTimeout:       l.Request,
		IdleTimeout:       l.Idle,
		MaxHeaderBytes:    l.Header,
		// mostly failed TLS handshakes of strangers
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return open.add(withPeer(ctx, c), c)
		},
		ConnState: func(c net.Conn, s http.ConnState) {
			if s == http.StateClosed || s == http.StateHijacked {
				open.remove(c)
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
	open.closeUnused()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 1500*time.Millisecond)
	defer cancel()
	err := srv.Shutdown(stop)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	<-done
	return err
}

// connections are the open connections of a listener.
type connections struct {
	limits Limits
	log    *slog.Logger

	mu        sync.Mutex
	byConn    map[net.Conn]*connection
	byAddress map[netip.Addr]*address
	waiting   linked.List // of *connection: those that keep the server waiting, the longest first
	closed    int         // because of the limits, since the last log line
	logged    time.Time
}

// An address counts the connections from one client address.
type address struct {
	open    int
	waiting linked.List // like connections.waiting
}

// A connection keeps the server waiting from its start to the end of a request's body, and while a
// response is written. It does not while a handler runs or holds a long poll.
type connection struct {
	conn    net.Conn
	from    netip.Addr // not valid if the address is not limited
	used    bool       // a handler has received a request
	working int        // requests in handlers that do not wait for the client; HTTP/2 has several at the same time
	closing bool

	inAll, inAddress *linked.Element // nil if it is not in the lists of waiting connections
}

type connectionKey struct{}

// add counts a new connection, and closes connections above the limits.
func (cs *connections) add(ctx context.Context, conn net.Conn) context.Context {
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
		cs.unwait(c) // so that it is not chosen again before it is removed
	}
	cs.logClosed(len(close))
	cs.mu.Unlock()
	for _, c := range close {
		cs.remove(c.conn)
		abort(c.conn)
	}
	return context.WithValue(ctx, connectionKey{}, c)
}

// oldest returns the connection that has kept the server waiting for the longest time, or the new
// connection c if none does.
func oldest(waiting *linked.List, c *connection) *connection {
	if e := waiting.Front(); e != nil {
		return e.Value.(*connection)
	}
	return c
}

// logClosed logs how many connections were closed, at most once a minute.
func (cs *connections) logClosed(n int) {
	if cs.closed += n; cs.closed > 0 && time.Since(cs.logged) > time.Minute {
		cs.log.Warn("too many connections: those that send or read nothing are closed first", "open", len(cs.byConn),
			"closed", cs.closed)
		cs.closed, cs.logged = 0, time.Now()
	}
}

// abort closes a connection without a TLS close message, which could block.
func abort(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	conn.Close()
}

func (cs *connections) remove(conn net.Conn) {
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

// wait appends a connection to the lists of waiting ones.
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

// closeUnused closes the connections on which no request has begun. Responses in progress are not
// cut: Shutdown closes their connections afterwards.
func (cs *connections) closeUnused() {
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

// addWorking adds n to the requests of a connection that do not wait for the client.
func (cs *connections) addWorking(c *connection, n int) {
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

// origin returns the address that a connection is counted for. For IPv6 it is the /64 network, because
// one machine has many addresses. It is not valid for loopback addresses.
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

// limit wraps a handler with the limits.
func (cs *connections) limit(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := r.Context().Value(connectionKey{}).(*connection)
		answer := &limitedWriter{ResponseWriter: w, controller: http.NewResponseController(w), all: cs, conn: c}
		answer.renew()
		if c != nil {
			cs.mu.Lock()
			c.used = true
			cs.mu.Unlock()
		}
		if r.ContentLength > cs.limits.Body {
			w.Header().Set("Connection", "close")
			writeJSON(answer, http.StatusRequestEntityTooLarge,
				&Error{What: fmt.Sprintf("the body is too large; want at most %d bytes", cs.limits.Body)})
			return
		}
		body := &limitedBody{ReadCloser: http.MaxBytesReader(w, r.Body, cs.limits.Body), complete: func() {
			// A read deadline that passes while a handler holds the request would end the request. An error
			// means that there is no deadline.
			_ = answer.controller.SetReadDeadline(time.Time{})
			answer.addWorking(1)
		}}
		if r.Body == nil || r.Body == http.NoBody {
			body.once.Do(body.complete)
		} else {
			r.Body = body
		}
		defer func() { answer.addWorking(-answer.working) }()
		h.ServeHTTP(answer, r)
	})
}

// A limitedBody calls complete when a request's body was read completely.
type limitedBody struct {
	io.ReadCloser
	complete func()
	once     sync.Once
}

// Read implements io.Reader.
func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.once.Do(b.complete)
	}
	return n, err
}

// progress is how many bytes a client must read within Limits.Progress.
const progress = 128 << 10

// A limitedWriter extends the write deadline of a response as long as the client reads.
type limitedWriter struct {
	http.ResponseWriter
	controller *http.ResponseController
	all        *connections
	conn       *connection
	working    int // 1 after the request was read completely
}

func (w *limitedWriter) addWorking(n int) {
	w.working += n
	w.all.addWorking(w.conn, n)
}

func (w *limitedWriter) renew() {
	// An error means that there is no deadline.
	_ = w.controller.SetWriteDeadline(time.Now().Add(w.all.limits.Progress))
}

// send writes a part of the response. Meanwhile the connection counts as waiting for its client.
func (w *limitedWriter) send(part func() (int64, error)) (int64, error) {
	w.renew()
	w.all.addWorking(w.conn, -w.working)
	defer w.all.addWorking(w.conn, w.working)
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

// ReadFrom implements io.ReaderFrom, so that a file is copied to the socket by the kernel.
func (w *limitedWriter) ReadFrom(r io.Reader) (written int64, err error) {
	left := int64(-1) // no limit
	if l, ok := r.(*io.LimitedReader); ok {
		r, left = l.R, l.N // the kernel can copy a file below one LimitedReader
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

// Unwrap gives http.ResponseController access to the inner writer.
func (w *limitedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
