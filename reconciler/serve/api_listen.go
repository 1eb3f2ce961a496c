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

// Serve answers on the listener until ctx is done. Then it says that it is not ready, accepts no more connections and
// finishes its requests. config may be nil, for connections without TLS.
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
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	close(a.draining)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		return errors.Join(fmt.Errorf("requests were cut off: %w", err), server.Close())
	}
	return nil
}
