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
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
)

// serveSocket serves the socket until SIGTERM or an interrupt, and then finishes its requests. It calls
// ready when it accepts requests.
func serveSocket(ctx context.Context, w detect.Worker, bundle, socket string, ready func() error) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	w.Stuck = func() {
		const text = "aob-detect: the model does not stop; this process ends so that another can take over"
		fmt.Fprintln(os.Stderr, delivery.Terminal(text))
		os.Exit(1)
	}
	debug.SetGCPercent(gcPercent)
	if procs := runtime.GOMAXPROCS(0); procs <= few {
		runtime.GOMAXPROCS(1)
		w.Slow = sync.OnceFunc(func() { runtime.GOMAXPROCS(procs) })
	}
	server, err := w.Open(ctx, bundle)
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
		return errors.Join(fmt.Errorf("requests were cut off: %w", err), h.Close())
	}
	return server.Close()
}

// few processors are too few to let Go's runtime have more than one. Almost all work is C code. While that runs on one
// of several of the runtime's processors, the runtime wakes up every 20 us to see whether Go code waits for it, which
// takes a thirtieth of an image's time and interrupts the C code. The only one it takes back at once, and sleeps.
const few = 2

// gcPercent makes Go's garbage collector run less often: a server's heap is small, and its garbage are images.
const gcPercent = 400

// maxConnections is the largest number of connections; further ones wait.
const maxConnections = 64

// maxSocketPath is the kernel's limit for a socket's path in bytes.
const maxSocketPath = 107

// listen creates the socket and replaces a stale one.
func listen(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("socket %s: the path has %d bytes, and the limit is %d; use a shorter folder",
			path, len(path), maxSocketPath)
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("socket %s: the path exists and is not a socket", path)
	default:
		if conn, err := net.Dial("unix", path); err == nil {
			conn.Close()
			return nil, fmt.Errorf("socket %s: another server is running on it", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	return net.Listen("unix", path)
}

// observe registers the metrics and returns the function that updates them.
func observe(registry *prometheus.Registry) func(detect.Inference) {
	calls := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "aob_detect_inferences_total",
		Help: "Calls of /infer by outcome: ok, image (it is invalid), model (it failed), gone (the caller has left).",
	}, []string{"outcome"})
	boxes := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "aob_detect_boxes_total",
		Help: "Boxes returned.",
	})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "aob_detect_stage_seconds",
		Help: "Time of each stage of a successful call: pre (file to tensor), queue (waiting for the model), infer " +
			"(the model), post (its outputs to boxes).",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15), // 0.5 ms to 8 s
	}, []string{"stage"})
	registry.MustRegister(calls, boxes, seconds)
	for _, outcome := range []string{"ok", "image", "model", "gone"} {
		calls.WithLabelValues(outcome) // so that the series exist from the start
	}
	return func(i detect.Inference) {
		calls.WithLabelValues(i.Outcome).Inc()
		if i.Outcome != "ok" {
			return
		}
		boxes.Add(float64(i.Boxes))
		for stage, d := range map[string]time.Duration{"pre": i.Pre, "queue": i.Queue, "infer": i.Infer,
			"post": i.Post} {
			seconds.WithLabelValues(stage).Observe(d.Seconds())
		}
	}
}
