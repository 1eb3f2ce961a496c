package main

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a network in memory whose connections can die silently: what is sent is lost, and nothing is received.
type pipes struct {
	accept chan net.Conn
	mu     sync.Mutex
	open   []*mortal
}

type mortal struct {
	net.Conn
	dead   atomic.Bool
	closed chan struct{}
	once   sync.Once
}

func (m *mortal) Write(p []byte) (int, error) {
	if m.dead.Load() {
		return len(p), nil
	}
	return m.Conn.Write(p)
}

func (m *mortal) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	if m.dead.Load() {
		<-m.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (m *mortal) Close() error {
	m.once.Do(func() { close(m.closed) })
	return m.Conn.Close()
}

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	c := &mortal{Conn: client, closed: make(chan struct{})}
	p.mu.Lock()
	p.open = append(p.open, c)
	p.mu.Unlock()
	p.accept <- server
	return c, nil
}

func (p *pipes) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.open {
		c.dead.Store(true)
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	c, ok := <-p.accept
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p *pipes) Close() error   { return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// A connection that died silently is closed soon, although a long poll waits on it: all requests share it.
func TestDeadConnectionIsClosed(t *testing.T) {
	certificate := httptest.NewTLSServer(nil)
	defer certificate.Close()
	synctest.Test(t, func(t *testing.T) {
		client, err := runOptions{}.client()
		if err != nil {
			t.Fatal(err)
		}
		network := &pipes{accept: make(chan net.Conn)}
		transport := client.Transport.(*http.Transport)
		transport.Proxy, transport.DialContext = nil, network.dial
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
		server := &http.Server{TLSConfig: &tls.Config{Certificates: certificate.TLS.Certificates},
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet { // a held request
					select {
					case <-time.After(55 * time.Second):
					case <-r.Context().Done():
					}
				}
				io.WriteString(w, r.Proto)
			})}
		served := make(chan error)
		go func() { served <- server.ServeTLS(network, "", "") }()
		ask := func(method string) (string, error) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, method, "https://server/", nil)
			if err != nil {
				return "", err
			}
			resp, err := client.Do(req)
			if err != nil {
				return "", err
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			return string(body), err
		}
		if proto, err := ask(http.MethodPost); proto != "HTTP/2.0" {
			t.Fatalf("%q, %v; this test is about HTTP/2", proto, err)
		}
		held := make(chan error)
		go func() { _, err := ask(http.MethodGet); held <- err }()
		synctest.Wait()
		network.kill()
		began := time.Now()
		for {
			if _, err := ask(http.MethodPost); err == nil {
				break
			}
			if time.Since(began) > time.Hour {
				break
			}
			time.Sleep(time.Second)
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("it took %s to close the dead connection", took)
		}
		if <-held == nil {
			t.Error("the request on the dead connection got a response")
		}
		transport.CloseIdleConnections()
		close(network.accept)
		server.Close()
		<-served
		for _, c := range network.open {
			c.Close()
		}
	})
}
