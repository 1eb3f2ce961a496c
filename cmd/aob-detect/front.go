package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/pflag"
	"golang.org/x/net/netutil"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/profile"
	"github.com/autonomos/aob/reconciler/serve"
)

// A front has the flags of serve --listen.
type front struct {
	listen, name, version       string
	tokenFile, tlsCert, tlsKey  string
	maxBody, maxMemory          string
	maxRequests, maxConnections int
	timeout, drain              time.Duration
	control, metrics            string
	triton, stopFirst           bool
	batch                       int
	batchWait                   time.Duration
}

func (f *front) flags(flags *pflag.FlagSet) {
	flags.StringVar(&f.listen, "listen", "", "the address to serve HTTP on, such as :8380 (this machine only)")
	flags.StringVar(&f.name, "name", "detector", "the model's name for callers")
	flags.StringVar(&f.version, "model-version", "",
		"the model's version for callers and metrics (default: the first 12 digits of model.onnx's SHA-256)")
	flags.StringVar(&f.control, "control", "", "a Unix socket for aob-detect load, shadow and status")
	flags.StringVar(&f.metrics, "metrics", "",
		"the address to serve GET /metrics on, such as :8381 (this machine only)")
	flags.BoolVar(&f.triton, "triton-metrics", false, "add metrics with the names of Triton's, nv_inference_...")
	flags.BoolVar(&f.stopFirst, "stop-first", false,
		"memory holds one model: end it before the next one is loaded; calls wait meanwhile")
	flags.StringVar(&f.tokenFile, "token-file", "", "a file with a token that callers have to send")
	flags.StringVar(&f.tlsCert, "tls-cert", "", "PEM file of the server's certificates")
	flags.StringVar(&f.tlsKey, "tls-key", "", "PEM file of the certificate's key")
	flags.StringVar(&f.maxBody, "max-body", "64MiB", "the largest body of a request")
	flags.StringVar(&f.maxMemory, "max-request-memory", "512MiB", "memory of all requests together")
	flags.IntVar(&f.maxRequests, "max-requests", 64, "requests at the same time; further ones are refused")
	flags.IntVar(&f.maxConnections, "max-connections", 256, "connections at the same time; further ones wait")
	flags.DurationVar(&f.timeout, "timeout", 30*time.Second, "how long the model may take for a request")
	flags.DurationVar(&f.drain, "drain", time.Second,
		"after SIGTERM, how long new requests are still taken while /readyz answers 503")
}

// serve serves until SIGTERM or an interrupt. A model whose process ends is started again.
func (f front) serve(ctx context.Context, out io.Writer, o options, bundle string) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	settings, config, err := f.settings()
	if err != nil {
		return err
	}
	debug.SetGCPercent(gcPercent)
	// A request costs this process some 0.2 ms, and the model's process many times that. With a thread for each core
	// the two would take cores from each other at each call.
	runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/2))
	listener, err := net.Listen("tcp", onThisMachine(f.listen))
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	defer listener.Close()
	folder, err := os.MkdirTemp("", "aob-serve-") // only this user can open it
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	log := slog.New(slog.NewTextHandler(delivery.LogWriter{W: out}, nil))
	settings.Log = log
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics := serve.NewMetrics(registry, f.triton)
	detector, p, err := o.detector(log)
	if err != nil {
		return err
	}
	detector.Batch, detector.BatchWait = f.batch, f.batchWait
	host := serve.HostOptions{Start: start(detector), Name: f.name, Sockets: folder, Log: log,
		StopFirst: f.stopFirst || p.Swap == profile.StopFirst}
	shadow := host
	detector.Background = true
	shadow.Start = start(detector)
	roles := serve.NewRoles(serve.RolesOptions{Host: host, Shadow: shadow, Metrics: metrics})
	if err := f.load(ctx, roles, bundle); err != nil {
		return errors.Join(err, roles.Close())
	}
	settings.Models = roles
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	go func() {
		for range reload {
			if err := f.load(ctx, roles, bundle); err != nil {
				log.Error("bundle not loaded; the one before serves", "bundle", bundle, "err", err)
			}
		}
	}()
	ended, err := f.operators(ctx, log, roles, promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	if err != nil {
		return errors.Join(err, roles.Close())
	}

	scheme := "http"
	if config != nil {
		scheme = "https"
	}
	log.Info("serving", "url", scheme+"://"+listener.Addr().String(), "model", f.name)
	settings.Wrap = metrics.Requests
	if settings.Token == "" {
		here := onlyHere(listener)
		if !here {
			log.Warn("all who reach this address can use the model; --token-file keeps others out")
		}
		settings.Wrap = func(h http.Handler) http.Handler { return metrics.Requests(serve.FromHere(h, here)) }
	}
	err = serve.New(settings).Serve(ctx, listener, config)
	return errors.Join(err, ended(), roles.Close())
}

// detector returns the Detector that starts this program as a child, with its profile.
func (o options) detector(log *slog.Logger) (detect.Detector, profile.Profile, error) {
	p, err := o.chosen()
	if err != nil {
		return detect.Detector{}, p, err
	}
	memory, threads, err := o.limits(p)
	if err != nil {
		return detect.Detector{}, p, err
	}
	self, err := os.Executable()
	if err != nil {
		return detect.Detector{}, p, err
	}
	return detect.Detector{Binary: self, Library: o.library, Threads: threads, MemoryLimit: memory,
		Profile: o.profile, Profiles: o.profiles, Engines: o.cache, Timeout: time.Duration(p.Load),
		Progress: func(b profile.Progress) {
			log.Info("engine", "stage", b.Stage, "profile", b.Profile, "workspace", b.Workspace, "seconds", b.Seconds,
				"text", b.Text)
		}}, p, nil
}

// start returns a StartFunc of a detector.
func start(d detect.Detector) serve.StartFunc {
	return func(ctx context.Context, bundle, socket string) (serve.Child, error) {
		s, err := d.Serve(ctx, bundle, socket)
		if err != nil {
			return nil, err // not s: a nil *detect.Served in an interface is not nil
		}
		return s, nil
	}
}

// load makes a bundle's folder the one that serves.
func (f front) load(ctx context.Context, roles *serve.Roles, bundle string) error {
	b, err := bundleOf(bundle, f.version)
	if err != nil {
		return err
	}
	return roles.Load(ctx, b)
}

// bundleOf returns a bundle's folder with its version. A link is followed now, so that the bundle stays the same if the
// link is changed later.
func bundleOf(dir, version string) (serve.Bundle, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return serve.Bundle{}, fmt.Errorf("bundle: %w", err)
	}
	if version == "" {
		file, err := os.Open(filepath.Join(real, delivery.ModelFile))
		if err != nil {
			return serve.Bundle{}, fmt.Errorf("bundle: %w", err)
		}
		defer file.Close()
		digest := sha256.New()
		if _, err := io.Copy(digest, io.LimitReader(file, detect.MaxModelBytes)); err != nil {
			return serve.Bundle{}, fmt.Errorf("bundle: %w", err)
		}
		version = hex.EncodeToString(digest.Sum(nil))[:12]
	}
	return serve.Bundle{Dir: real, Version: version}, nil
}

// operators serves the control socket and the metrics, where the flags name them. The returned function ends both.
func (f front) operators(ctx context.Context, log *slog.Logger, roles *serve.Roles,
	metrics http.Handler) (end func() error, err error) {
	var servers []*http.Server
	end = func() error {
		var errs []error
		for _, s := range servers {
			errs = append(errs, s.Close())
		}
		return errors.Join(errs...)
	}
	add := func(l net.Listener, handler http.Handler, write time.Duration) {
		s := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
			WriteTimeout: write, MaxHeaderBytes: 16 << 10,
			BaseContext: func(net.Listener) context.Context { return ctx }}
		servers = append(servers, s)
		// The metrics' address may be open to others, who must not take the descriptors of those who ask the model.
		go s.Serve(netutil.LimitListener(l, maxConnections))
	}
	if f.control != "" {
		l, err := listen(f.control)
		if err != nil {
			return nil, fmt.Errorf("--control: %w", err)
		}
		if err := os.Chmod(f.control, 0o600); err != nil {
			return nil, errors.Join(err, l.Close())
		}
		mux := http.NewServeMux()
		mux.Handle("/", roles)
		mux.Handle("GET /metrics", metrics)
		add(l, mux, 0) // a model may take long to load
	}
	if f.metrics != "" {
		l, err := net.Listen("tcp", onThisMachine(f.metrics))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("--metrics: %w", err), end())
		}
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", metrics)
		add(l, serve.FromHere(mux, onlyHere(l)), 30*time.Second)
		log.Info("metrics", "url", "http://"+l.Addr().String()+"/metrics") // --metrics :0 takes any port
	}
	return end, nil
}

// settings reads the files and limits that the flags name.
func (f front) settings() (o serve.Options, config *tls.Config, err error) {
	o = serve.Options{Timeout: f.timeout, Drain: f.drain,
		Limits: serve.Limits{Requests: f.maxRequests, Connections: f.maxConnections}}
	if build, ok := debug.ReadBuildInfo(); ok {
		o.Version = cmp.Or(build.Main.Version, "unknown")
	}
	for _, size := range []struct {
		flag, text string
		to         *delivery.Bytes
	}{{"--max-body", f.maxBody, &o.Body}, {"--max-request-memory", f.maxMemory, &o.Memory}} {
		if err := size.to.UnmarshalText([]byte(size.text)); err != nil {
			return o, nil, fmt.Errorf("%s: %w", size.flag, err)
		}
	}
	if f.maxRequests < 1 || f.maxConnections < 1 || f.timeout <= 0 || f.drain < 0 || o.Body < 1 || o.Memory < o.Body {
		return o, nil, errors.New("--max-requests, --max-connections, --max-body and --timeout have to be above 0, " +
			"--drain not below 0, and --max-request-memory not below --max-body")
	}
	if f.name == "" || strings.Contains(f.name+f.version, "/") {
		return o, nil, errors.New("--name and --model-version have to be a name without a slash")
	}
	if f.tokenFile != "" {
		const maxToken = 4 << 10
		data, err := durable.ReadFile(f.tokenFile, maxToken)
		if err != nil {
			return o, nil, fmt.Errorf("--token-file: %w", err)
		}
		o.Token = strings.TrimSpace(string(data))
		if o.Token == "" || strings.ContainsAny(o.Token, "\r\n") {
			return o, nil, delivery.Blockedf("write the token into it, on one line; openssl rand -hex 32 makes one",
				"--token-file: %s contains no token", f.tokenFile)
		}
	}
	if f.tlsCert == "" && f.tlsKey == "" {
		return o, nil, nil
	}
	pair, err := tls.LoadX509KeyPair(f.tlsCert, f.tlsKey)
	if err != nil {
		return o, nil, fmt.Errorf("--tls-cert and --tls-key: %w", err)
	}
	return o, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

// onlyHere says whether others than this machine cannot reach a listener.
func onlyHere(l net.Listener) bool {
	address, ok := l.Addr().(*net.TCPAddr)
	return ok && address.IP.IsLoopback()
}

// onThisMachine adds the host of this machine to an address that has none.
func onThisMachine(address string) string {
	if !strings.Contains(address, ":") {
		return "127.0.0.1:" + address
	}
	if strings.HasPrefix(address, ":") {
		return "127.0.0.1" + address
	}
	return address
}
