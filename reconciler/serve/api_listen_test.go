package serve

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// A short text reserves no memory for the large tensor that it announces.
func TestShortTensor(t *testing.T) {
	facts := testFacts()
	facts.Inputs[0].Shape = []int64{-1, 3, 2000, 2000}
	text := []byte(`{"inputs":[{"name":"input","shape":[2,3,2000,2000],"datatype":"FP32","data":[0]}]}`)
	var err error
	bytes := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			_, err = parseV2(text, &facts)
		}
	}).AllocedBytesPerOp()
	if err == nil || !strings.Contains(err.Error(), "has 1 values, want 24000000") || bytes > 1<<20 {
		t.Errorf("%d bytes, %v", bytes, err)
	}
}

// The answer says whose timeout is over.
func TestTimeoutOfRequest(t *testing.T) {
	m := &fake{hold: make(chan struct{})}
	text := `{"parameters":{"timeout":1},` + tensor(`,"data":` + flat)[1:]
	resp, body := call(t, newTestAPI(m, nil), httptest.NewRequest("POST", "/v2/models/bccd/infer",
		strings.NewReader(text)))
	if resp.StatusCode != 504 || !strings.Contains(body, "timeout of the request (1µs)") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	resp, body = call(t, newTestAPI(m, func(o *Options) { o.Timeout = 1 }),
		httptest.NewRequest("POST", "/v1/detect", strings.NewReader(jpeg)))
	if resp.StatusCode != 504 || !strings.Contains(body, "within the timeout (1ns)") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

// listening serves the API, and returns its address.
func listening(t *testing.T, a *API) (address string, stop func(), end func() error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Serve(ctx, listener, nil) }()
	return listener.Addr().String(), stop, func() error { listener.Close(); return <-ended }
}

// ask1 sends a request on a connection, and returns the status and whether the connection is closed after it.
func ask1(t *testing.T, conn net.Conn, method, path, content string) (status int, closes bool) {
	t.Helper()
	if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", method, path,
		len(content), content); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode, resp.Close
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// A server that ends says so before it stops taking requests, on old and new connections, and closes each connection
// after an answer that says it.
func TestDrainIsSeen(t *testing.T) {
	a := newTestAPI(&fake{}, func(o *Options) { o.Drain = time.Hour })
	address, stop, end := listening(t, a)
	old, other := dial(t, address), dial(t, address)
	for _, conn := range []net.Conn{old, other} {
		if status, closes := ask1(t, conn, "GET", "/readyz", ""); status != 200 || closes {
			t.Errorf("at first: %d, closes %v", status, closes)
		}
	}
	stop()
	<-a.draining
	for path, conn := range map[string]net.Conn{"/readyz": old, "/v2/health/ready": dial(t, address)} {
		if status, closes := ask1(t, conn, "GET", path, ""); status != 503 || !closes {
			t.Errorf("%s: %d, closes %v", path, status, closes)
		}
	}
	for _, conn := range []net.Conn{other, dial(t, address)} {
		if status, closes := ask1(t, conn, "POST", "/v1/detect", jpeg); status != 200 || !closes {
			t.Errorf("a late request: %d, closes %v", status, closes)
		}
	}
	if err := end(); err == nil {
		t.Error("it ended before its time")
	}
}

// Connections that are kept without use leave room for others.
func TestIdleConnections(t *testing.T) {
	a := newTestAPI(&fake{}, func(o *Options) { o.Connections = 4 })
	address, stop, end := listening(t, a)
	defer end()
	defer stop()
	for i := range 20 {
		status, closes := ask1(t, dial(t, address), "GET", "/healthz", "")
		if status != 200 || closes != (i >= 2) {
			t.Errorf("connection %d: %d, closes %v", i, status, closes)
		}
	}
}
