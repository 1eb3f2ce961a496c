package detect

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// answering listens on a socket, and answers each connection by the function.
func answering(t *testing.T, socket string, answer func(net.Conn, *bufio.Reader)) net.Listener {
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				answer(conn, bufio.NewReader(conn))
			}()
		}
	}()
	return l
}

// ok reads a request and answers it with its body.
func ok(conn net.Conn, r *bufio.Reader) bool {
	req, err := http.ReadRequest(r)
	if err != nil {
		return false
	}
	body, _ := io.ReadAll(req.Body)
	resp := http.Response{StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(body)),
		Body: io.NopCloser(strings.NewReader(string(body)))}
	return resp.Write(conn) == nil
}

func post(ctx context.Context, c *connections, body string) (string, error) {
	resp, err := c.do(ctx, http.MethodPost, "run", "", []byte(body))
	if err != nil {
		return "", err
	}
	got, err := readAnswer(resp, 1<<20)
	return string(got), err
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	var accepted atomic.Int32
	socket := filepath.Join(t.TempDir(), "s")
	answering(t, socket, func(conn net.Conn, r *bufio.Reader) {
		accepted.Add(1)
		for ok(conn, r) {
		}
	})
	c := &connections{socket: socket}
	for range 5 {
		if got, err := post(t.Context(), c, "hello"); got != "hello" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if accepted.Load() != 1 {
		t.Errorf("%d connections, want 1", accepted.Load())
	}
	c.close()
	got, err := post(t.Context(), c, strings.Repeat("x", 1<<20))
	if len(got) != 1<<20 || err != nil || accepted.Load() != 2 {
		t.Errorf("%d bytes, %v, %d connections", len(got), err, accepted.Load())
	}
}

// A server that has ended since the last call did not see the next one, which so goes to its successor.
func TestConnectionsOfAServerThatEnded(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	ended := make(chan struct{})
	first := answering(t, socket, func(conn net.Conn, r *bufio.Reader) {
		ok(conn, r)
		conn.Close()
		close(ended)
	})
	c := &connections{socket: socket}
	if _, err := post(t.Context(), c, "1"); err != nil {
		t.Fatal(err)
	}
	<-ended
	first.Close()
	_, err := post(t.Context(), c, "2")
	if e, ok := errors.AsType[*net.OpError](err); !ok || e.Op != "dial" {
		t.Errorf("without a server: %v, want an error of dial", err)
	}
	answering(t, socket, func(conn net.Conn, r *bufio.Reader) {
		for ok(conn, r) {
		}
	})
	if got, err := post(t.Context(), c, "3"); got != "3" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestConnectionsFaults(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":          "",
		"no HTTP":          "hello\r\n\r\n",
		"a cut header":     "HTTP/1.1 200 OK\r\nContent-Le",
		"a cut body":       "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
		"a long header":    "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n",
		"a long body":      "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\nhello",
		"a negative count": "HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nhello",
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "s")
			answering(t, socket, func(conn net.Conn, r *bufio.Reader) {
				if _, err := http.ReadRequest(r); err == nil {
					_, _ = io.WriteString(conn, text)
				}
			})
			c := &connections{socket: socket}
			if got, err := post(t.Context(), c, ""); err == nil {
				t.Errorf("%q, no error", got)
			}
			if len(c.idle) != 0 {
				t.Error("the connection is kept")
			}
		})
	}
}

// A server may refuse a request before it has read all of it.
func TestConnectionsEarlyAnswer(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	answering(t, socket, func(conn net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
		}
	})
	c := &connections{socket: socket}
	resp, err := c.do(t.Context(), http.MethodPost, "run", "", make([]byte, 32<<20))
	if err != nil {
		t.Fatal(err)
	}
	if body, err := readAnswer(resp, 100); resp.StatusCode != http.StatusRequestEntityTooLarge || string(body) != "no" {
		t.Errorf("%s %q, %v", resp.Status, body, err)
	}
	if len(c.idle) != 0 {
		t.Error("the connection is kept, with half a request on it")
	}
}

func TestConnectionsCancel(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	arrived, left := make(chan struct{}), make(chan struct{})
	answering(t, socket, func(_ net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err == nil {
			close(arrived)
			_, _ = r.ReadByte() // until the caller leaves
			close(left)
		}
	})
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-arrived
		cancel(why)
	}()
	c := &connections{socket: socket}
	if _, err := post(ctx, c, ""); !errors.Is(err, why) {
		t.Errorf("%v, want %v", err, why)
	}
	<-left
	if _, err := post(ctx, c, ""); err == nil {
		t.Error("a call after the end: no error")
	}
}
