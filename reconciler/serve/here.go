package serve

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// FromHere returns a handler that keeps web pages of others out of a server without a token. A browser on this machine
// reaches servers that the network does not. A page can send it requests; and once its own name stands for this
// machine's address (DNS rebinding), the page can also read the answers.
//
// named says that the server listens on this machine alone: then the request's host has to be an address, or a name
// that no site of the internet can have.
func FromHere(next http.Handler, named bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Sec-Fetch-Site") == "cross-site":
			forbid(w, "a web page of another site sent this request; with --token-file the server takes it from those "+
				"who have the token")
		case named && !localName(r.Host):
			forbid(w, "the request is for the host "+delivery.PlainText(r.Host, 100)+", and this server answers as "+
				"localhost or by its address; behind a proxy, let it send one of these as Host, or use --token-file")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func forbid(w http.ResponseWriter, why string) {
	writeJSON(w, http.StatusForbidden, failure{why, why})
}

// localName says whether a host, with or without a port, is an address or a name that is not of the internet.
func localName(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil || !strings.Contains(name, ".") {
		return true
	}
	for _, local := range []string{".localhost", ".local", ".internal"} {
		if strings.HasSuffix(name, local) {
			return true
		}
	}
	return false
}
