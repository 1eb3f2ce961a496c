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

// A Server is the API on a socket, and the site on an address.
type Server struct {
	Source  Source
	Metrics *Metrics
	Log     *slog.Logger

	Socket string // path
	Refuse error  // see [API]; nothing but the socket is listened on then

	Address     string // of the site; see [Address] for this and the next three
	Certificate string
	Key         string
	Plain       bool

	MetricsAddress string // of /metrics, which is plain HTTP; empty: there is none

	Fleet    http.Handler // of the site; see [Site] for this and the next four
	Bundles  http.Handler
	Pictures http.Handler
	Webhook  http.Handler
	Ready    func() error

	// Listens is called once the site is listened on, with a context that ends when it no longer is. May be nil.
	Listens func(context.Context)

	Limits Limits // of the site; SiteLimits where empty
}

// Run answers until ctx ends, and returns nil then. Nothing is answered before
// both addresses are listened on.
func (s Server) Run(ctx context.Context) error {
	if s.Refuse != nil {
		return s.runSocket(ctx)
	}
	site, err := Listen(Address{s.Address, s.Certificate, s.Key, s.Plain})
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
		socket: API{Source: s.Source, Log: s.Log}.Handler(),
		site: Site{Fleet: s.Fleet, Bundles: s.Bundles, Pictures: s.Pictures, Webhook: s.Webhook,
			Ready: s.Ready}.Handler(),
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
		s.Log.Info("metrics", "address", l.Addr().String())
	}
	s.Log.Info("listening", "site", site.Addr().String(), "socket", s.Socket)

	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	if s.Listens != nil {
		beside.Go(func() { s.Listens(ctx) })
	}
	done := make(chan error, len(handlers))
	for l, h := range handlers {
		go func() {
			done <- limits[l].Serve(ctx, l, h, s.Log)
			cancel() // one without the other is no server
		}()
	}
	for range cap(done) {
		err = errors.Join(err, <-done)
	}
	return err
}

// runSocket answers on the socket alone, until ctx ends.
func (s Server) runSocket(ctx context.Context) error {
	socket, err := ListenSocket(s.Socket)
	if err != nil {
		return err
	}
	defer socket.Close()
	s.Log.Info("listening", "socket", s.Socket)
	return SocketLimits().Serve(ctx, socket, API{Source: s.Source, Log: s.Log, Refuse: s.Refuse}.Handler(), s.Log)
}
