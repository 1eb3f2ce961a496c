package web_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/web"
)

func TestSocketMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "aob.sock")
	l, err := web.ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&fs.ModeSocket == 0 || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v; want a socket with mode 0600", info, err)
	}
	if _, err := web.ListenSocket(path); !blocked(err, "another aob serve is running on "+path) {
		t.Errorf("a second server: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 { // the lock file remains
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if l, err = web.ListenSocket(path); err != nil {
		t.Fatalf("again: %v", err)
	}
	l.Close()
}

func blocked(err error, what string) bool {
	b, ok := errors.AsType[delivery.Blocked](err)
	return ok && b.Do != "" && strings.Contains(b.What, what)
}

// TestMain lets the test binary be a server that is killed.
func TestMain(m *testing.M) {
	if path := os.Getenv("WEB_TEST_LISTEN"); path != "" {
		if _, err := web.ListenSocket(path); err != nil {
			panic(err)
		}
		os.Stdout.WriteString("listening\n")
		select {}
	}
	os.Exit(m.Run())
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "aob.sock")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	server := exec.Command(self)
	server.Env = append(os.Environ(), "WEB_TEST_LISTEN="+path)
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make([]byte, len("listening\n"))
	if _, err := io.ReadFull(out, ready); err != nil {
		t.Fatal(err)
	}
	if _, err := web.ListenSocket(path); !blocked(err, "another aob serve") {
		t.Errorf("while the server runs: %v", err)
	}
	if err := server.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	server.Wait()
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("the socket of the killed server is missing: %v", err)
	}
	l, err := web.ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestSocketRefused(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := web.ListenSocket(file); !blocked(err, "is not a socket") {
		t.Errorf("a file: %v", err)
	}
	if data, err := os.ReadFile(file); string(data) != "mine" {
		t.Errorf("the file is %q, %v", data, err)
	}
	if _, err := web.ListenSocket(filepath.Join(dir, strings.Repeat("x", 200))); !blocked(err, "bytes") {
		t.Errorf("a long path: %v", err)
	}
	other := filepath.Join(dir, "other")
	l, err := net.Listen("unix", other)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := web.ListenSocket(other); !blocked(err, "another") {
		t.Errorf("somebody else's: %v", err)
	}
}

func TestPlainHTTPNeedsLoopback(t *testing.T) {
	for address, ok := range map[string]bool{
		"127.0.0.1:0": true, "localhost:0": true, "127.1.2.3:0": true,
		"0.0.0.0:0": false, ":0": false, "[::]:0": false, "192.0.2.1:0": false, "example.com:0": false,
		"127.0.0.1.example.com:0": false,
	} {
		l, err := web.Listen(web.Address{Address: address})
		if ok && err != nil {
			t.Errorf("%s: %v", address, err)
		}
		if !ok && !blocked(err, "plain HTTP") {
			t.Errorf("%s: %v, want Blocked", address, err)
		}
		if l != nil {
			l.Close()
		}
	}
	l, err := web.Listen(web.Address{Address: ":0", Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := web.Listen(web.Address{Address: "8370"}); !blocked(err, "listen.address") {
		t.Errorf("no port: %v", err)
	}
	if _, err := web.Listen(web.Address{Address: "127.0.0.1:0", Certificate: "missing.pem",
		Key: "missing.key"}); !blocked(err, "certificate") {
		t.Errorf("no certificate: %v", err)
	}
}

// certify writes a certificate for 127.0.0.1 and returns a pool that trusts it.
func certify(t *testing.T, dir string, serial int64) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY",
		Bytes: pkcs}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AddCert(parsed)
	return cert, key, pool
}

// trusting is a client over HTTP/2.
func trusting(pool *x509.CertPool) *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true,
		DisableKeepAlives: true}}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key, pool := certify(t, dir, 1)
	l, err := web.Listen(web.Address{Address: "127.0.0.1:0", Certificate: cert, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- web.SiteLimits().Serve(ctx, l, web.Site{}.Handler(), logger(t.Output())) }()
	ask := func(pool *x509.CertPool) (*http.Response, error) {
		return trusting(pool).Get("https://" + l.Addr().String() + "/healthz")
	}
	resp, err := ask(pool)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 || resp.ProtoMajor != 2 {
		t.Errorf("%s over HTTP/%d", resp.Status, resp.ProtoMajor)
	}
	if resp, err := http.Get("http://" + l.Addr().String() + "/healthz"); err == nil {
		resp.Body.Close()
		if resp.StatusCode == 200 {
			t.Error("plain HTTP works too")
		}
	}

	// A renewed certificate is used. While only one of the two files is renewed, the old one is used.
	before := time.Now().Add(-time.Minute)
	os.Chtimes(cert, before, before)
	if resp, err = ask(pool); err != nil {
		t.Fatalf("touched: %v", err)
	}
	resp.Body.Close()
	_, _, renewed := certify(t, dir, 2)
	if resp, err = ask(renewed); err != nil {
		t.Fatalf("renewed: %v", err)
	}
	resp.Body.Close()
	if err := os.WriteFile(cert, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if resp, err = ask(renewed); err != nil {
		t.Fatalf("half renewed: %v", err)
	}
	resp.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestSite(t *testing.T) {
	part := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name+" "+r.URL.Path) })
	}
	ready := errors.New("the repository at https://git.example.com does not answer")
	site := web.Site{Fleet: part("fleet"), Bundles: part("bundles"), Webhook: part("webhook"),
		Ready: func() error { return ready }}.Handler()
	ask := func(h http.Handler, method, path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w.Code, strings.TrimSpace(w.Body.String())
	}
	for path, want := range map[string]string{
		"/fleet/v1/desired/demo": "fleet /fleet/v1/desired/demo", "/v2/": "bundles /v2/",
		"/v2/bundles/blobs/x": "bundles /v2/bundles/blobs/x",
		"/webhook":            "webhook /webhook", "/healthz": `{"status":"ok"}`,
	} {
		if code, body := ask(site, "GET", path); code != 200 || body != want {
			t.Errorf("%s: %d %q, want %q", path, code, body, want)
		}
	}
	for path, want := range map[string]int{"/": 200, "/index.html": 404, "/metrics": 404, "/v1/status": 404,
		"/fleet": 404} {
		if code, _ := ask(site, "GET", path); code != want {
			t.Errorf("%s: %d, want %d", path, code, want)
		}
	}
	if code, body := ask(site, "GET", "/readyz"); code != 503 || strings.Contains(body, "example.com") {
		t.Errorf("not ready: %d %q", code, body)
	}
	ready = nil
	if code, _ := ask(site, "GET", "/readyz"); code != 200 {
		t.Errorf("ready: %d", code)
	}
	if code, _ := ask(web.Site{}.Handler(), "GET", "/webhook"); code != 404 {
		t.Errorf("no webhook: %d", code)
	}
}

// Held requests end when the server ends.
func TestServeEnds(t *testing.T) {
	l, err := web.Listen(web.Address{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	held := make(chan struct{})
	hold := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(held)
		<-r.Context().Done()
		io.WriteString(w, "let go")
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- web.SiteLimits().Serve(ctx, l, hold, logger(t.Output())) }()
	answer := make(chan string)
	go func() {
		resp, err := http.Get("http://" + l.Addr().String())
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		data, _ := io.ReadAll(resp.Body)
		answer <- string(data)
	}()
	<-held
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := <-answer; got != "let go" {
		t.Errorf("the held request got %q", got)
	}
}

func TestServerRuns(t *testing.T) {
	dir := t.TempDir()
	metrics := web.NewMetrics()
	server := web.Server{Source: newMemorySource(), Metrics: metrics, Log: logger(t.Output()),
		Socket: filepath.Join(dir, "aob.sock"), Address: web.Address{Address: "127.0.0.1:0"},
		MetricsAddress: "127.0.0.1:0", DebugAddress: "127.0.0.1:0"}
	ctx, cancel := context.WithCancel(t.Context())
	metricsAt, profilesAt := "", ""
	listening := make(chan struct{})
	server.Log = logger(writerFunc(func(p []byte) (int, error) {
		if _, address, ok := strings.Cut(string(p), "msg=metrics address="); ok {
			metricsAt = strings.TrimSpace(address)
		}
		if _, address, ok := strings.Cut(string(p), "msg=profiles address="); ok {
			profilesAt = strings.TrimSpace(address)
		}
		if strings.Contains(string(p), "listening") {
			close(listening)
		}
		return len(p), nil
	}))
	reached, left := make(chan struct{}), make(chan struct{})
	server.Listens = func(ctx context.Context) { close(reached); <-ctx.Done(); close(left) }
	done := make(chan error)
	go func() { done <- server.Run(ctx) }()
	<-listening
	<-reached
	server.Listens = func(context.Context) { t.Error("Listens was called although listening failed") }
	if s, err := web.NewClient(server.Socket).Status(t.Context()); err != nil || s.Main.Branch != "main" {
		t.Errorf("%+v, %v", s.Main, err)
	}
	// The metrics have their own address.
	resp, err := http.Get("http://" + metricsAt + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("metrics: %s", resp.Status)
	}
	for _, address := range []string{profilesAt + "heap", "http://" + metricsAt + "/metrics"} {
		for _, c := range []struct {
			host, site string
			want       int
		}{
			{"", "", http.StatusOK}, {"", "none", http.StatusOK}, {"", "same-origin", http.StatusOK},
			{"attacker.example:6060", "", http.StatusForbidden}, {"", "cross-site", http.StatusForbidden},
			{"", "same-site", http.StatusForbidden},
		} {
			req, err := http.NewRequestWithContext(t.Context(), "GET", address, nil)
			if err != nil {
				t.Fatal(err)
			}
			if req.Host = c.host; c.site != "" {
				req.Header.Set("Sec-Fetch-Site", c.site)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != c.want {
				t.Errorf("%s for host %q from site %q: %s, want %d", address, c.host, c.site, resp.Status, c.want)
			}
		}
	}
	for _, address := range []string{"0.0.0.0:6060", ":6060", "example.com:6060", "127.0.0.1"} {
		if _, err := web.ListenDebug(address); !blocked(err, "--debug-address") {
			t.Errorf("profiles on %s: %v", address, err)
		}
	}
	if err := server.Run(t.Context()); !blocked(err, "another aob serve") {
		t.Errorf("a second server: %v", err)
	}
	taken := server
	if taken.Address.Address, _, _ = strings.Cut(metricsAt, " "); taken.Run(t.Context()) == nil {
		t.Error("no error for an address that is in use")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	<-left
	if _, err := os.Lstat(server.Socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket still exists: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
