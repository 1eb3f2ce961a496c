package web

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Site combines the handlers that other machines reach. A nil handler has no route.
type Site struct {
	Fleet    http.Handler // below /fleet/v1/
	Bundles  http.Handler // below /v2/
	Pictures http.Handler // below /pictures/
	Webhook  http.Handler
	Ready    func() error // returns nil once the loop has observed everything
}

// Handler returns the site's handler. The package comment lists its routes.
func (s Site) Handler() http.Handler {
	mux := http.NewServeMux()
	mount := func(path string, h http.Handler) {
		if h != nil {
			mux.Handle(path, h)
		}
	}
	mount("/fleet/v1/", s.Fleet)
	mount("/v2/", s.Bundles)
	mount("GET /pictures/", s.Pictures)
	mount("/webhook", s.Webhook)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "This is aob serve. Pull requests link to pages here; aob status shows how everything "+
			"stands.\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		// The reason is only logged, because anybody may read this.
		if s.Ready != nil && s.Ready() != nil {
			writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "not ready"})
			return
		}
		writeJSON(w, http.StatusOK, map[string]string{"status": "ready"})
	})
	return mux
}

// An Address is where a site listens.
type Address struct {
	Address     string // host and port
	Certificate string // PEM file, used with Key; without both it is plain HTTP
	Key         string // PEM file
	Plain       bool   // allow plain HTTP on any address, such as behind a proxy that ends TLS
}

// Listen opens the listener of a site. Plain HTTP on an address that other machines reach is refused
// unless a.Plain is set. A certificate that is renewed in its file is used without a restart.
func Listen(a Address) (net.Listener, error) {
	host, _, err := net.SplitHostPort(a.Address)
	if err != nil {
		return nil, delivery.Blockedf("write host and port, such as 127.0.0.1:8370", "listen.address %q is not valid",
			a.Address)
	}
	secure := a.Certificate != "" || a.Key != ""
	if !secure && !a.Plain && !loopback(host) {
		return nil, delivery.Blockedf("set listen.certificate and listen.key, or listen on 127.0.0.1 behind a proxy "+
			"that ends TLS",
			"listen.address %s can be reached from other machines, and plain HTTP would expose the devices' tokens",
			a.Address)
	}
	var config *tls.Config
	if secure {
		c := &certificate{cert: a.Certificate, key: a.Key}
		if _, err := c.get(nil); err != nil {
			return nil, delivery.Blockedf("listen.certificate and listen.key must be PEM files that belong together",
				"the certificate cannot be used: %s", err)
		}
		config = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
			GetCertificate: c.get}
	}
	l, err := net.Listen("tcp", a.Address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", a.Address, err)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	return l, nil
}

// loopback reports whether a host can be reached only from this machine.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// A certificate is loaded again when its file changes.
type certificate struct {
	cert, key string

	mu     sync.Mutex
	loaded *tls.Certificate
	time   time.Time
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := os.Stat(c.cert)
	if err == nil && c.loaded != nil && info.ModTime().Equal(c.time) {
		return c.loaded, nil
	}
	var pair tls.Certificate
	if err == nil {
		pair, err = tls.LoadX509KeyPair(c.cert, c.key)
	}
	if err != nil {
		// The files may be renewed one after the other; the old certificate is used until both are valid.
		if c.loaded != nil {
			return c.loaded, nil
		}
		return nil, err
	}
	c.loaded, c.time = &pair, info.ModTime()
	return c.loaded, nil
}
