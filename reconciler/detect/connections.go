package detect

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// connections are the connections of a client to a Unix socket. They speak HTTP/1.1.
//
// net/http's Transport moves each request and each answer through two goroutines of their own, which costs a call of
// the detector about 0.1 ms. Here the caller's goroutine writes the request and reads the answer.
type connections struct {
	socket string

	mu   sync.Mutex
	idle []*connection // the one used last is at the end
}

// A connection carries one request at a time.
type connection struct {
	net.Conn
	limit  *io.LimitedReader // what may still be read
	reader *bufio.Reader
	last   time.Time // when it was last used
}

const (
	maxIdle         = 64               // connections that are kept for the next calls: as many as a server accepts
	idleTime        = time.Minute      // how long they are kept; a server closes them after two minutes
	maxAnswerHeader = 64 << 10         // the largest header of an answer
	maxAnswer       = maxResponse + 16 // the largest body without a stated length; readers have limits of their own
)

// take returns a connection, and whether it has been used before.
func (c *connections) take(ctx context.Context) (conn *connection, used bool, err error) {
	c.mu.Lock()
	n := len(c.idle)
	if n > 0 {
		conn = c.idle[n-1]
		c.idle = c.idle[:n-1]
	}
	var old []*connection
	if conn == nil || time.Since(conn.last) > idleTime { // then all others are older
		old, c.idle = c.idle, nil
		if conn != nil {
			old = append(old, conn)
			conn = nil
		}
	}
	c.mu.Unlock()
	for _, o := range old {
		o.Close()
	}
	if conn != nil {
		return conn, true, nil
	}
	return c.dial(ctx)
}

func (c *connections) dial(ctx context.Context) (conn *connection, used bool, err error) {
	plain, err := (&net.Dialer{}).DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, false, err
	}
	limit := &io.LimitedReader{R: plain}
	return &connection{Conn: plain, limit: limit, reader: bufio.NewReader(limit)}, false, nil
}

// put keeps a connection for the next call.
func (c *connections) put(conn *connection) {
	conn.last = time.Now()
	c.mu.Lock()
	full := len(c.idle) >= maxIdle
	if !full {
		c.idle = append(c.idle, conn)
	}
	c.mu.Unlock()
	if full {
		conn.Close()
	}
}

// close closes the connections that no call uses.
func (c *connections) close() {
	c.mu.Lock()
	idle := c.idle
	c.idle = nil
	c.mu.Unlock()
	for _, conn := range idle {
		conn.Close()
	}
}

// do sends a request and returns the answer, whose body the caller closes. header has whole lines, each with its end.
// When ctx is done, the request ends with its error. Where no process listens the error is a *net.OpError for "dial",
// and nothing was sent; any other trouble of the connection is a *net.OpError too.
func (c *connections) do(ctx context.Context, method, path, header string, content []byte) (*http.Response, error) {
	conn, used, err := c.take(ctx)
	if err != nil {
		return nil, err
	}
	head := method + " /" + path + " HTTP/1.1\r\nHost: aob-detect\r\nContent-Length: " + strconv.Itoa(len(content)) +
		"\r\n" + header + "\r\n"
	for {
		stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // ends reads and writes
		resp, sent, err := conn.exchange(method, head, content)
		if err == nil {
			resp.Body = &answerBody{resp.Body, c, conn, stop, resp.Close}
			return resp, nil
		}
		stop()
		conn.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if !used || sent > 0 {
			return nil, err
		}
		// The process at the other end has closed the connection since the last call, and has not seen this one.
		if conn, used, err = c.dial(ctx); err != nil {
			return nil, err
		}
	}
}

// exchange writes a request and reads the head of its answer. sent is how many bytes were written.
func (c *connection) exchange(method, head string, content []byte) (resp *http.Response, sent int64, err error) {
	parts := net.Buffers{[]byte(head), content}
	sent, failed := parts.WriteTo(c.Conn)
	if failed != nil && sent == 0 {
		return nil, 0, failed
	}
	// A server that refuses a request may answer before it has read all of it.
	c.limit.N = maxAnswerHeader
	resp, err = http.ReadResponse(c.reader, &http.Request{Method: method})
	if failed != nil && err != nil {
		return nil, sent, failed
	}
	if err != nil {
		if _, ok := errors.AsType[*net.OpError](err); !ok {
			err = &net.OpError{Op: "read", Net: "unix", Err: err}
		}
		return nil, sent, err
	}
	c.limit.N = max(resp.ContentLength, 0)
	if resp.ContentLength < 0 {
		c.limit.N = maxAnswer
	}
	if failed != nil {
		resp.Close = true
	}
	return resp, sent, nil
}

// answerBody gives the connection back when it is closed after its end.
type answerBody struct {
	io.ReadCloser
	pool   *connections
	conn   *connection // nil: it is closed
	stop   func() bool
	broken bool // the connection can carry no further request
}

// Read implements io.Reader.
func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.broken = true
	}
	return n, err
}

// Close implements io.Closer.
func (b *answerBody) Close() error {
	if b.conn == nil {
		return nil
	}
	conn := b.conn
	b.conn = nil
	_, err := b.Read(make([]byte, 1))
	if b.stop() && err == io.EOF && !b.broken && conn.reader.Buffered() == 0 {
		b.pool.put(conn)
		return nil
	}
	return conn.Close()
}

// readAnswer reads an answer whose body has at most limit bytes, and closes it.
func readAnswer(resp *http.Response, limit int64) ([]byte, error) {
	defer resp.Body.Close()
	if resp.ContentLength > limit {
		return nil, fmt.Errorf("%d bytes, want at most %d", resp.ContentLength, limit)
	}
	if resp.ContentLength >= 0 {
		body := make([]byte, resp.ContentLength)
		_, err := io.ReadFull(resp.Body, body)
		return body, err
	}
	return io.ReadAll(io.LimitReader(resp.Body, limit))
}
