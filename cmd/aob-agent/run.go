package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/net/netutil"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/edge"
	"github.com/autonomos/aob/reconciler/profile"
	"github.com/autonomos/aob/reconciler/trust"
)

type runOptions struct {
	server, bundles, ring, device, state    string
	trust, tokenFile, ca, detector, library string
	metrics                                 string
	labels                                  []string
	threads                                 int
	memory                                  string
	profile, profiles, engines              string
	heartbeat                               time.Duration
	bench                                   []string
}

// maxConnections is the largest number of connections to the metrics.
const maxConnections = 32

func runCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run --server URL --fleet NAME --device ID --state DIR --trust FILE --token-file FILE",
		Short: "Run the agent until it is stopped",
		Long: `Run works until SIGTERM or SIGINT, and then ends its detector. It logs JSON lines
to standard error. Clients reach the detector at DIR/serving.sock: see
aob-agent infer.

No environment variable is required. AOB_ONNXRUNTIME is the path of ONNX
Runtime's library if --library is not set.`,
		Example: `  aob-agent run --server https://aob.example:8443 --fleet warehouse-north --device dock-7 \
    --label site=north --label board=orin-nano --state /var/lib/aob \
    --trust /etc/aob/desired.pub --token-file /etc/aob/token --ca /etc/aob/ca.pem`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewJSONHandler(delivery.LogWriter{W: cmd.ErrOrStderr()}, nil))
			return run(cmd.Context(), o, log)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.server, "server", "", "URL of aob serve: https, or http on this machine")
	f.StringVar(&o.bundles, "bundles", "", "the OCI repository of the bundles (default: SERVER/bundles)")
	f.StringVar(&o.ring, "fleet", "", "the fleet that this device belongs to")
	f.StringVar(&o.device, "device", "", "this device's id: lower-case letters, digits and dashes")
	f.StringArrayVar(&o.labels, "label", nil,
		"a label by which fleets select devices, such as site=north; can be repeated")
	f.StringVar(&o.state, "state", "", "the agent's state folder")
	f.StringVar(&o.trust, "trust", "", "PEM file of the public keys that may sign desired state")
	f.StringVar(&o.tokenFile, "token-file", "",
		"a file with this device's token; aob device token FLEET DEVICE prints it on the server")
	f.StringVar(&o.ca, "ca", "", "PEM file of the CAs of the server's certificate (default: the system's)")
	f.StringVar(&o.detector, "detector", "", "path of aob-detect (default: beside this program, or on PATH)")
	f.StringVar(&o.library, "library", "",
		"path of ONNX Runtime's shared library (default: AOB_ONNXRUNTIME, else the installed one)")
	f.IntVar(&o.threads, "threads", 0, "CPU cores of the detector (default: all)")
	f.StringVar(&o.memory, "memory", "", "memory limit of the detector (default: the profile's, else 4GiB)")
	f.StringVar(&o.profile, "profile", "",
		"this device's hardware profile, such as orin-nano-fp16: see aob-detect profiles (default: the CPU)")
	f.StringVar(&o.profiles, "profiles", "", "YAML file with more hardware profiles")
	f.StringVar(&o.engines, "engines", "", "folder of TensorRT engines (default: engines in the state folder)")
	f.StringVar(&o.metrics, "metrics", "", "serve /metrics for Prometheus on this address, such as 127.0.0.1:9102")
	f.DurationVar(&o.heartbeat, "heartbeat", 5*time.Minute,
		"time between reports if nothing changes; the server may ask for a shorter one")
	f.StringArrayVar(&o.bench, "bench", nil,
		"measure models that are not released yet on this hardware profile, when the server asks; can be repeated")
	for _, name := range []string{"server", "fleet", "device", "state", "trust", "token-file"} {
		cmd.MarkFlagRequired(name)
	}
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "ring" { // as it was called before
			name = "fleet"
		}
		return pflag.NormalizedName(name)
	})
	return cmd
}

func run(ctx context.Context, o runOptions, log *slog.Logger) (err error) {
	c, err := o.config(ctx, log)
	if err != nil {
		return err
	}
	agent, err := edge.Open(c)
	if err != nil {
		return err
	}
	if whose, _, _ := strings.Cut(c.Token, ":"); whose != o.ring+"/"+o.device {
		return errors.Join(delivery.Blockedf("on the server, print it with: aob device token "+o.ring+" "+o.device,
			"--token-file: %s does not contain the token of device %s in fleet %s", o.tokenFile, o.device, o.ring),
			agent.Close())
	}
	if o.metrics == "" {
		return agent.Run(ctx)
	}
	listener, err := net.Listen("tcp", o.metrics)
	if err != nil {
		return errors.Join(fmt.Errorf("--metrics: %w", err), agent.Close())
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", c.Metrics.Handler())
	listener = netutil.LimitListener(listener, maxConnections) // keep file descriptors for the agent
	server := http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		MaxHeaderBytes: 16 << 10}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	err = errors.Join(agent.Run(ctx), server.Close())
	if serveErr := <-ended; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("metrics: %w", serveErr))
	}
	return err
}

// config converts the flags to the agent's configuration.
func (o runOptions) config(ctx context.Context, log *slog.Logger) (edge.Config, error) {
	var none edge.Config
	labels, err := parseLabels(o.labels)
	if err != nil {
		return none, err
	}
	keys, err := trust.LoadPublic(o.trust)
	if err != nil {
		return none, fmt.Errorf("--trust: %w", err)
	}
	token, err := readToken(o.tokenFile)
	if err != nil {
		return none, err
	}
	client, err := o.client()
	if err != nil {
		return none, err
	}
	server, err := parseServer(o.server)
	if err != nil {
		return none, err
	}
	if o.heartbeat < time.Second {
		return none, fmt.Errorf("--heartbeat: want a second or more, got %s", o.heartbeat)
	}
	d, err := o.detect(log)
	if err != nil {
		return none, err
	}
	prepare, err := prepares(ctx, d)
	if err != nil {
		return none, err
	}
	from := artifact.Source{URL: cmp.Or(o.bundles, server+"/"+artifact.Repository), Client: client}
	if o.bundles == "" {
		from.Token = token // the token is only for the server
	}
	c := edge.Config{
		Device: o.device, Ring: o.ring, Labels: labels, Dir: o.state,
		Server: server, Token: token, Client: client, Keys: keys,
		Fetch: edge.Bundles(from), Start: edge.Detector(d), Prepare: prepare,
		Heartbeat: o.heartbeat, Metrics: edge.NewMetrics(), Log: log,
	}
	if len(o.bench) > 0 {
		measure := detect.Detector{Binary: d.Binary, Library: d.Library, Threads: o.threads, Profiles: o.profiles,
			Engines: cmp.Or(o.engines, filepath.Join(o.state, "engines"))}
		c.Bench, c.Profiles = edge.Measure(measure), o.bench
	}
	return c, nil
}

// prepares returns what prepares a bundle for a detector: with TensorRT, a build of its engine. It fails if this device
// cannot compute as the detector's profile says.
func prepares(ctx context.Context, d detect.Detector) (func(ctx context.Context, bundleDir string) error, error) {
	provider, err := d.Provider(ctx)
	if err != nil {
		return nil, fmt.Errorf("--profile %s: %w", d.Profile, err)
	}
	if strings.HasPrefix(provider, profile.TensorRT+"/") {
		return d.Build, nil
	}
	return nil, nil
}

// detect returns the detector to start.
func (o runOptions) detect(log *slog.Logger) (detect.Detector, error) {
	d := detect.Detector{Binary: o.detector, Library: o.library, Threads: o.threads, Profile: o.profile}
	if o.memory != "" {
		if err := d.MemoryLimit.UnmarshalText([]byte(o.memory)); err != nil {
			return d, fmt.Errorf("--memory: %w", err)
		}
	}
	if o.profile == "" {
		if len(o.bench) == 0 && (o.profiles != "" || o.engines != "") {
			return d, errors.New("--profiles and --engines have no effect without --profile or --bench")
		}
		return d.Find()
	}
	d.Profiles, d.Engines = o.profiles, cmp.Or(o.engines, filepath.Join(o.state, "engines"))
	d.Progress = func(p profile.Progress) {
		log.Info("engine", "stage", p.Stage, "profile", p.Profile, "workspace", p.Workspace, "seconds", p.Seconds,
			"text", p.Text)
	}
	return d.Find()
}

func parseServer(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		strings.Trim(u.Path, "/") != "" {
		return "", errors.New("--server: want https://HOST[:PORT], without user, path or query")
	}
	ip := net.ParseIP(u.Hostname())
	local := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !local) {
		return "",
			fmt.Errorf("--server: want https; http is allowed only for this machine, because the token would be "+
				"readable on the way to %s", u.Host)
	}
	return strings.TrimRight(text, "/"), nil
}

func parseLabels(list []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, l := range list {
		k, v, ok := strings.Cut(l, "=")
		if !ok || k == "" || len(k) > 64 || len(v) > 64 {
			return nil, fmt.Errorf("--label: want name=value, each of at most 64 bytes, got %.80q", l)
		}
		if _, twice := labels[k]; twice {
			return nil, fmt.Errorf("--label: %s is given twice", k)
		}
		labels[k] = v
	}
	if len(labels) > 32 {
		return nil, fmt.Errorf("--label: want at most 32, got %d", len(labels))
	}
	return labels, nil
}

func readToken(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" || strings.ContainsAny(token, "\r\n") {
		return "", delivery.Blockedf("write this device's token into it, on one line; on the server, aob device "+
			"token prints it", "--token-file: %s contains no token", path)
	}
	return token, nil
}

// client returns the HTTP client for the server. The server may hold a long poll for a minute, so only
// the steps before the response have short timeouts.
func (o runOptions) client() (*http.Client, error) {
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 90 * time.Second,
		IdleConnTimeout:       2 * time.Minute,
		ForceAttemptHTTP2:     true,
		// A dead connection, such as behind a router that lost its state, is closed after 30 s. Under HTTP/2
		// all requests share one connection, so without this they would fail until the kernel gives up, after
		// about 15 minutes.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
	}
	if o.ca != "" {
		pem, err := os.ReadFile(o.ca)
		if err != nil {
			return nil, fmt.Errorf("--ca: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--ca: %s contains no PEM certificate", o.ca)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	return &http.Client{Transport: transport}, nil
}
