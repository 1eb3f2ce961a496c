package web_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/web"
)

// generous limits end nothing while a test runs.
var generous = web.Limits{Connections: 40, PerAddress: 20, Request: time.Hour, Idle: time.Hour, Progress: time.Hour,
	Header: 16 << 10, Body: 1 << 20}

// serveOn serves a listener until the test ends.
func serveOn(t *testing.T, l web.Limits, listener net.Listener, h http.Handler) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Serve(ctx, listener, h, logger(io.Discard)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func dial(t *testing.T, address, sent string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(c, sent)
	return c
}

// What a client may send before it falls silent.
var slow = []string{
	"",
	"P",
	"POST /fleet/v1/reports HTTP/1.1\r\nHost: a\r\n",
	"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nx",
	"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nx",
	"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", // and stays connected
	strings.Repeat("GET /large HTTP/1.1\r\nHost: a\r\n\r\n", 20),
}

// handler holds /hold until release is closed, and reads /body.
func handler(held chan<- struct{}, release <-chan struct{}) http.Handler {
	site := web.Site{}.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hold":
			held <- struct{}{}
			select {
			case <-release:
				io.WriteString(w, "released")
			case <-r.Context().Done():
				io.WriteString(w, "cut off")
			}
		case "/body":
			body, err := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%d bytes, %v", len(body), err)
		case "/large":
			w.Write(make([]byte, 32<<20))
		default:
			site.ServeHTTP(w, r)
		}
	})
}

func get(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(body))
}

// In an attack with many connections the silent ones are closed, but neither a held request nor a new one.
func TestSlowConnectionsAreClosedFirst(t *testing.T) {
	held, release := make(chan struct{}), make(chan struct{})
	address := serveOn(t, generous, listen(t), handler(held, release))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer := make(chan string)
	go func() { answer <- get(t, client, "http://"+address+"/hold") }()
	<-held
	var conns []net.Conn
	for i := range 300 {
		conns = append(conns, dial(t, address, slow[i%len(slow)]))
		if i%20 == 0 {
			if got := get(t, client, "http://"+address+"/healthz"); got != `{"status":"ok"}` {
				t.Fatalf("beside %d slow connections: %s", i+1, got)
			}
		}
	}
	close(release)
	if got := <-answer; got != "released" {
		t.Errorf("the held request got %q", got)
	}
	// All but the last forty were closed: reading from them ends.
	for i, c := range conns[:200] {
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("connection %d, which sent %.20q, is still open", i, slow[i%len(slow)])
		}
	}
}

// The socket has its own limits, so that it works while the site is overloaded.
func TestSocketWorksWhileSiteIsFull(t *testing.T) {
	dir := t.TempDir()
	listening := make(chan string, 1)
	server := web.Server{Source: newMemorySource(), Metrics: web.NewMetrics(), Socket: filepath.Join(dir, "aob.sock"),
		Address: web.Address{Address: "127.0.0.1:0"}, Limits: generous}
	server.Log = logger(writerFunc(func(p []byte) (int, error) {
		if _, rest, ok := strings.Cut(string(p), "site="); ok {
			site, _, _ := strings.Cut(rest, " ")
			listening <- site
		}
		return len(p), nil
	}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- server.Run(ctx) }()
	address := <-listening
	for i := range 200 {
		dial(t, address, slow[i%len(slow)])
	}
	if _, err := web.NewClient(server.Socket).Status(t.Context()); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// remote is a listener whose connections come from addresses of the network.
type remote struct {
	net.Listener
	mu   sync.Mutex
	next []string
}

func (l *remote) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	from := "192.0.2.1:1"
	if len(l.next) > 0 {
		from, l.next = l.next[0], l.next[1:]
	}
	return remoteConn{c, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))}, nil
}

type remoteConn struct {
	net.Conn
	from net.Addr
}

func (c remoteConn) RemoteAddr() net.Addr { return c.from }

// One address cannot take all connections: only its own are closed.
func TestLimitPerAddress(t *testing.T) {
	limits := generous
	limits.PerAddress = 5
	l := &remote{Listener: listen(t), next: []string{"192.0.2.9:1", "192.0.2.9:2"}}
	for i := range 30 { // one machine with many addresses
		l.next = append(l.next, fmt.Sprintf("[2001:db8::%d]:1", i+1))
	}
	address := serveOn(t, limits, l, handler(nil, nil))
	const request = "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"
	first, second := dial(t, address, request), dial(t, address, request)
	var conns []net.Conn
	for range 30 {
		conns = append(conns, dial(t, address, request+"x"))
	}
	for i, c := range conns[:25] {
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("connection %d is still open", i)
		}
	}
	for _, c := range append(conns[25:], first, second) {
		io.WriteString(c, "xy")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(resp.Body); string(body) != "2 bytes, <nil>" {
			t.Errorf("got %q", body)
		}
	}
}

// A request that is not complete within the time limit is ended. A complete request that the server holds longer is
// not.
func TestSlowRequestsEnd(t *testing.T) {
	limits := generous
	limits.Request = 50 * time.Millisecond
	held, release := make(chan struct{}), make(chan struct{})
	address := serveOn(t, limits, listen(t), handler(held, release))
	answer := make(chan string)
	for _, request := range []string{
		"GET /hold HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"GET /hold HTTP/1.0\r\n\r\n",
	} {
		c := dial(t, address, request)
		<-held
		go func() {
			all, err := io.ReadAll(c)
			_, body, _ := strings.Cut(string(all), "\r\n\r\n")
			answer <- fmt.Sprint(strings.Trim(body, "8\r\n0"), err)
		}()
	}
	for _, sent := range slow[:6] {
		c := dial(t, address, sent)
		if sent == slow[5] {
			continue // a whole request; what follows it is Idle's
		}
		if all, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) || bytes.Contains(all, []byte("2 bytes")) {
			t.Errorf("%.50q was not ended: %s, %v", sent, all, err)
		}
	}
	close(release)
	for range 2 {
		if got := <-answer; got != "released<nil>" {
			t.Errorf("the held request got %q", got)
		}
	}
}

// A response to a client that does not read is ended.
func TestUnreadResponsesEnd(t *testing.T) {
	limits := generous
	limits.Progress = 50 * time.Millisecond
	file := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(file, make([]byte, 64<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 2)
	address := serveOn(t, limits, listen(t), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/file" {
			f, err := os.Open(file)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			_, err = io.Copy(w, f)
			ended <- err
			return
		}
		_, err := w.Write(make([]byte, 64<<20))
		ended <- err
	}))
	for _, path := range []string{"/file", "/memory"} {
		dial(t, address, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Limits do not change the content of responses.
func TestLimitedResponsesAreComplete(t *testing.T) {
	file := filepath.Join(t.TempDir(), "blob")
	content := bytes.Repeat([]byte("0123456789abcdef!"), 100_000)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key, pool := certify(t, t.TempDir(), 1)
	secure, err := web.Listen(web.Address{Address: "127.0.0.1:0", Certificate: cert, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/file":
			http.ServeFile(w, r, file)
		case "/memory":
			w.Write(content)
		case "/reader":
			io.Copy(w, struct{ io.Reader }{bytes.NewReader(content)})
		case "/limited":
			l := &io.LimitedReader{R: bytes.NewReader(content), N: int64(len(content)) + 5}
			io.Copy(w, l)
			if l.N != 5 {
				t.Errorf("%d bytes below the limit are left", l.N)
			}
		case "/echo":
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			w.Write(body)
		}
	})
	for url, client := range map[string]*http.Client{
		"http://" + serveOn(t, web.SiteLimits(), listen(t), h): http.DefaultClient,
		"https://" + serveOn(t, web.SiteLimits(), secure, h):   trusting(pool),
	} {
		for _, path := range []string{"/file", "/memory", "/reader", "/limited"} {
			if got := get(t, client, url+path); sha256.Sum256([]byte(got)) != sha256.Sum256(content) {
				t.Errorf("%s%s: %d bytes", url, path, len(got))
			}
		}
		sent := content[:900_000]
		resp, err := client.Post(url+"/echo", "text/plain", bytes.NewReader(sent))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%s/echo: %d bytes, %v", url, len(got), err)
		}
		resp.Body.Close()
		if url[:5] == "https" && resp.ProtoMajor != 2 {
			t.Errorf("HTTP/%d", resp.ProtoMajor)
		}
	}
}

// A body that is too large is refused before it is sent.
func TestLargeBodiesAreRefused(t *testing.T) {
	address := serveOn(t, generous, listen(t), handler(nil, nil))
	for sent, want := range map[string]string{
		"Content-Length: 99999999\r\n\r\n": "HTTP/1.1 413 ",
		// the handler sees the error
		"Transfer-Encoding: chunked\r\n\r\n200000\r\n" + strings.Repeat("x", 1<<20+1): "HTTP/1.1 200 ",
	} {
		c := dial(t, address, "POST /body HTTP/1.1\r\nHost: a\r\n"+sent)
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, want) {
			t.Errorf("%.40q: %q, %v", sent, line, err)
		}
	}
}

// Half of the file descriptors are reserved for the loop.
func TestLimitsReserveFiles(t *testing.T) {
	if l := web.SiteLimits(); l.Connections < 16 || l.Connections > 8192 || l.Request <= 0 || l.Idle <= 0 ||
		l.Progress <= 0 || l.Body <= 0 {
		t.Errorf("%+v", l)
	}
}
