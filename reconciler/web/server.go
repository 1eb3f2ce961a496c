package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
)

// A Server serves the API on a socket, and the site on an address.
type Server struct {
	Source  Source
	Metrics *Metrics
	Log     *slog.Logger

	Socket string // path
	Refuse error  // see [API]; if not nil, only the socket is served
	// Bundles serves bundles on the socket; see [API].
	Bundles http.Handler

	Site           Site
	Address        Address // of the site
	MetricsAddress string  // for /metrics over plain HTTP; empty: no metrics
	DebugAddress   string  // for profiles, of this machine; empty: none

	// Listens is called after the site's listener is open, with a context that is done when it closes. It may be nil.
	Listens func(context.Context)

	Limits Limits // of the site; zero: SiteLimits
}

// Run serves until ctx is done, and then returns nil. It serves nothing before all listeners are open.
func (s Server) Run(ctx context.Context) error {
	if s.Refuse != nil {
		return s.runSocket(ctx)
	}
	site, err := Listen(s.Address)
	if err != nil {
		return err
	}
	defer site.Close()
	socket, err := ListenSocket(s.Socket)
	if err != nil {
		return err
	}
	defer socket.Close()
	handlers := map[net.Listener]http.Handler{
		socket: API{Source: s.Source, Log: s.Log, Bundles: s.Bundles}.Handler(),
		site:   s.Site.Handler(),
	}
	limits := map[net.Listener]Limits{socket: SocketLimits(), site: cmp.Or(s.Limits, SiteLimits())}
	if s.MetricsAddress != "" {
		l, err := Listen(Address{Address: s.MetricsAddress, Plain: true})
		if err != nil {
			return fmt.Errorf("listen.metrics: %w", err)
		}
		defer l.Close()
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", s.Metrics.Handler())
		handlers[l], limits[l] = mux, SiteLimits()
		if host, _, _ := net.SplitHostPort(l.Addr().String()); loopback(host) { // nobody else is expected there
			handlers[l] = fromHere(mux)
		}
		s.Log.Info("metrics", "address", l.Addr().String())
	}
	if s.DebugAddress != "" {
		l, err := ListenDebug(s.DebugAddress)
		if err != nil {
			return err
		}
		defer l.Close()
		handlers[l], limits[l] = Debug(), SocketLimits()
		s.Log.Info("profiles", "address", "http://"+l.Addr().String()+"/debug/pprof/")
	}
	s.Log.Info("listening", "site", site.Addr().String(), "socket", s.Socket)

	ctx, cancel := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer cancel()
	if s.Listens != nil {
		background.Go(func() { s.Listens(ctx) })
	}
	done := make(chan error, len(handlers))
	for l, h := range handlers {
		go func() {
			done <- limits[l].Serve(ctx, l, h, s.Log)
			cancel() // the others must not run alone
		}()
	}
	for range cap(done) {
		err = errors.Join(err, <-done)
	}
	return err
}

// runSocket serves only the socket, until ctx is done.
func (s Server) runSocket(ctx context.Context) error {
	socket, err := ListenSocket(s.Socket)
	if err != nil {
		return err
	}
	defer socket.Close()
	s.Log.Info("listening", "socket", s.Socket)
	return SocketLimits().Serve(ctx, socket, API{Source: s.Source, Log: s.Log, Refuse: s.Refuse,
		Bundles: s.Bundles}.Handler(), s.Log)
}
