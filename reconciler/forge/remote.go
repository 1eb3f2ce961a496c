package forge

// This file has what forges on a server share: their address, their HTTP client and their webhooks.

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// repository returns the address of a server, without a slash at its end, and the repository there. kind is the forge's
// name, for errors.
func (s Settings) repository(kind string) (base, owner, name string, err error) {
	if base, err = serverAddress(kind, s.URL); err != nil {
		return "", "", "", err
	}
	owner, name, _ = strings.Cut(s.Repo, "/")
	if owner == "" || name == "" || s.Token == nil {
		return "", "", "", delivery.Blockedf("configure all three",
			"the %s repository needs an owner, a name and a token", kind)
	}
	return base, owner, name, nil
}

// serverAddress returns the address of a server without a slash at its end. kind is the forge's name, for errors.
func serverAddress(kind, address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", delivery.Blockedf("write it as https://git.example.com",
			"the %s address is not an http or https URL", kind)
	}
	if u.User != nil {
		return "", delivery.Blockedf("configure the token separately; addresses are logged",
			"the %s address https://…@%s contains a user or a token", kind, u.Host)
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}

// transport closes a dead connection after 30 s.
func transport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = time.Minute
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second}
	return t
}

func httpClient(t http.RoundTripper) *http.Client {
	return &http.Client{Transport: t, Timeout: 2 * time.Minute, CheckRedirect: sameHost}
}

// sameHost allows redirects to the same host, as those of a renamed repository. Others would send the token to another
// host.
func sameHost(req *http.Request, via []*http.Request) error {
	if from := via[0].URL; req.URL.Host != from.Host || req.URL.Scheme != from.Scheme {
		return delivery.Blockedf("configure the new address", "the server redirects to another host, which aob refuses")
	}
	if len(via) >= 5 {
		return errors.New("the server redirects more than 5 times")
	}
	return nil
}

// webhooks records which webhooks have arrived. Its methods may be called from any goroutine.
type webhooks struct {
	mu                 sync.Mutex
	right, wrongSecret bool // one with a right signature, and one with a wrong one
}

// note records whether a webhook was read, or why not.
func (w *webhooks) note(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.right = w.right || err == nil
	w.wrongSecret = w.wrongSecret || errors.Is(err, ErrSignature)
}

func (w *webhooks) seen() (right, wrongSecret bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.right, w.wrongSecret
}

// withWebhook returns a connection that takes webhooks if there is a secret for them, and records those that arrive.
// take gets their content, and its error is the webhook's; nil takes none.
func (s Settings) withWebhook(f Forge, arrived *webhooks,
	take func(context.Context, http.Header, []byte) error) (Connection, error) {
	if s.HookSecret == "" {
		return Connection{Forge: f}, nil
	}
	read, err := signedBody(s.HookSecret)
	return Connection{Forge: f, Webhook: func(req *http.Request) (Event, error) {
		body, err := read(req)
		arrived.note(err)
		if err != nil {
			return Event{}, err
		}
		if take != nil {
			err = take(req.Context(), req.Header, body)
		}
		return event(req.Header, body), err
	}}, err
}
