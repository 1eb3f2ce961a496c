package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"

	"github.com/autonomos/aob/reconciler/detect"
)

// serve answers on the socket until SIGTERM or an interrupt, and then lets the
// calls in work end. It calls ready once it answers.
func serve(ctx context.Context, w detect.Worker, bundle, socket string, ready func() error) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	server, err := w.Open(bundle)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	server.Observe = observe(registry)

	listener, err := listen(socket)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/", server)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	h := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(netutil.LimitListener(listener, maxConnections)) }()
	if err := ready(); err != nil {
		return errors.Join(err, h.Close())
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := h.Shutdown(grace); err != nil {
		return errors.Join(fmt.Errorf("calls were cut off: %w", err), h.Close())
	}
	return server.Close()
}

// maxConnections is how many callers are served at one time; more of them wait.
const maxConnections = 64

// longestSocket is what the kernel takes as a Unix socket's path.
const longestSocket = 107

// listen makes the socket, in place of one that an earlier server left.
func listen(path string) (net.Listener, error) {
	if len(path) > longestSocket {
		return nil, fmt.Errorf("socket %s: the path has %d bytes, and a Unix socket's at most %d; use a shorter folder",
			path, len(path), longestSocket)
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("socket %s: there is something else in its place", path)
	default:
		if conn, err := net.Dial("unix", path); err == nil {
			conn.Close()
			return nil, fmt.Errorf("socket %s: another server answers there", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	return net.Listen("unix", path)
}

// observe makes the metrics and the function that counts.
func observe(registry *prometheus.Registry) func(detect.Inference) {
	calls := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "aob_detect_inferences_total",
		Help: "Calls of /infer by outcome: ok, image (it cannot be used), model (it failed), gone (the caller left).",
	}, []string{"outcome"})
	boxes := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "aob_detect_boxes_total",
		Help: "Boxes returned, of any score.",
	})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "aob_detect_stage_seconds",
		Help: "Time of each stage of a call that succeeded: decode (file to tensor), queue (for the model), run " +
			"(the model and its boxes).",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15), // 0.5 ms to 8 s
	}, []string{"stage"})
	registry.MustRegister(calls, boxes, seconds)
	for _, outcome := range []string{"ok", "image", "model", "gone"} {
		calls.WithLabelValues(outcome) // a rate needs its zero
	}
	return func(i detect.Inference) {
		calls.WithLabelValues(i.Outcome).Inc()
		if i.Outcome != "ok" {
			return
		}
		boxes.Add(float64(i.Boxes))
		for stage, d := range map[string]time.Duration{"decode": i.Decode, "queue": i.Queue, "run": i.Run} {
			seconds.WithLabelValues(stage).Observe(d.Seconds())
		}
	}
}
