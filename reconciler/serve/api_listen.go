package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
)

// drainTimeout is how long requests may take that are in progress when the server ends.
const drainTimeout = 30 * time.Second

// Serve answers on the listener until ctx is done. Then it says that it is not ready, so that load balancers send no
// more requests, and closes each connection after an answer. Requests that come nevertheless are taken for the time of
// Options.Drain. Then it accepts no more connections and finishes its requests. config may be nil, for connections
// without TLS.
func (a *API) Serve(ctx context.Context, listener net.Listener, config *tls.Config) error {
	listener = netutil.LimitListener(listener, a.o.Connections)
	if config != nil {
		listener = tls.NewListener(listener, config)
	}
	var handler http.Handler = a
	if a.o.Wrap != nil {
		handler = a.o.Wrap(a)
	}
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       readTimeout,
		WriteTimeout:      readTimeout + a.o.Timeout + writeTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ConnState:         a.count,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	close(a.draining)
	select {
	case err := <-ended:
		return err
	case <-time.After(a.o.Drain):
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		return errors.Join(fmt.Errorf("requests were cut off: %w", err), server.Close())
	}
	return nil
}

// ending says whether this server is about to end.
func (a *API) ending() bool {
	select {
	case <-a.draining:
		return true
	default:
		return false
	}
}

// count counts the connections.
func (a *API) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		a.conns.Add(1)
	case http.StateClosed, http.StateHijacked:
		a.conns.Add(-1)
	}
}

// crowded says whether most of the connections that there may be are there. Then each is closed after its answer:
// callers that keep a connection without using it would keep all others out.
func (a *API) crowded() bool { return 4*a.conns.Load() >= 3*int64(a.o.Connections) }
