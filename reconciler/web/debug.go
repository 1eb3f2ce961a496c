package web

import (
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"

	"github.com/autonomos/aob/reconciler/delivery"
)

// ListenDebug opens the listener of profiles. Only addresses of this machine are allowed: a profile shows the names of
// functions, and taking one costs processor time.
func ListenDebug(address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil || !loopback(host) {
		return nil, delivery.Blockedf("write an address of this machine, such as 127.0.0.1:6060",
			"--debug-address %.80q is not valid", address)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("--debug-address: %w", err)
	}
	return l, nil
}

// Debug serves the profiles of net/http/pprof below /debug/pprof/, to this machine alone; see [fromHere].
func Debug() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	return fromHere(mux)
}

// fromHere refuses what a page of another site has a browser send. Such a page reaches this machine by its address, or
// by a name of its own that leads here, and could then read the answers.
func fromHere(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if !loopback(host) {
			http.Error(w, "this is served to this machine's own addresses only", http.StatusForbidden)
			return
		}
		if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "none" && site != "same-origin" {
			http.Error(w, "this is not served to pages of other sites", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}
