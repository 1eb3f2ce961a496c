package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

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
	timeout                     time.Duration
}

func (f *front) flags(flags *pflag.FlagSet) {
	flags.StringVar(&f.listen, "listen", "", "the address to serve HTTP on, such as :8380 (this machine only)")
	flags.StringVar(&f.name, "name", "detector", "the model's name for callers")
	flags.StringVar(&f.version, "model-version", "1", "the model's version for callers")
	flags.StringVar(&f.tokenFile, "token-file", "", "a file with a token that callers have to send")
	flags.StringVar(&f.tlsCert, "tls-cert", "", "PEM file of the server's certificates")
	flags.StringVar(&f.tlsKey, "tls-key", "", "PEM file of the certificate's key")
	flags.StringVar(&f.maxBody, "max-body", "64MiB", "the largest body of a request")
	flags.StringVar(&f.maxMemory, "max-request-memory", "512MiB", "memory of all requests together")
	flags.IntVar(&f.maxRequests, "max-requests", 64, "requests at the same time; further ones are refused")
	flags.IntVar(&f.maxConnections, "max-connections", 256, "connections at the same time; further ones wait")
	flags.DurationVar(&f.timeout, "timeout", 30*time.Second, "how long the model may take for a request")
}

// serve serves until SIGTERM or an interrupt, or until the model's process ends.
func (f front) serve(ctx context.Context, out io.Writer, o options, bundle string) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	settings, config, err := f.settings()
	if err != nil {
		return err
	}
	p, err := o.chosen()
	if err != nil {
		return err
	}
	memory, threads, err := o.limits(p)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
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
	detector := detect.Detector{Binary: self, Library: o.library, Threads: threads, MemoryLimit: memory,
		Profile: o.profile, Profiles: o.profiles, Engines: o.cache, Timeout: time.Duration(p.Load),
		Progress: func(b profile.Progress) {
			log.Info("engine", "stage", b.Stage, "profile", b.Profile, "workspace", b.Workspace, "seconds", b.Seconds,
				"text", b.Text)
		}}
	served, err := detector.Serve(ctx, bundle, filepath.Join(folder, "detect.sock"))
	if err != nil {
		return err
	}
	defer served.Close()
	facts, err := serve.ReadFacts(ctx, bundle, served)
	if err != nil {
		return err
	}
	facts.Name, facts.Version = f.name, f.version
	settings.Models = &serve.One{Facts: facts, Model: served}
	settings.Log = log

	// When the model's process ends, so does this one: what has started it starts it again.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		<-served.Done()
		cancel(served.Wait())
	}()
	scheme := "http"
	if config != nil {
		scheme = "https"
	}
	log.Info("serving", "url", scheme+"://"+listener.Addr().String(), "model", f.name, "version", f.version)
	if address, ok := listener.Addr().(*net.TCPAddr); ok && !address.IP.IsLoopback() && settings.Token == "" {
		log.Warn("all who reach this address can use the model; --token-file keeps others out")
	}
	err = serve.New(settings).Serve(ctx, listener, config)
	if crash, ok := errors.AsType[*detect.CrashError](context.Cause(ctx)); ok {
		return errors.Join(crash, err)
	}
	return err
}

// settings reads the files and limits that the flags name.
func (f front) settings() (o serve.Options, config *tls.Config, err error) {
	o = serve.Options{Timeout: f.timeout,
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
	if f.maxRequests < 1 || f.maxConnections < 1 || f.timeout <= 0 || o.Body < 1 || o.Memory < o.Body {
		return o, nil, errors.New("--max-requests, --max-connections, --max-body and --timeout have to be above 0, " +
			"and --max-request-memory not below --max-body")
	}
	if f.name == "" || f.version == "" || strings.Contains(f.name+f.version, "/") {
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
