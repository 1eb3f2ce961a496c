package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/plumbing/transport/file"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Remote says where the repository is, and how to be let in.
type Remote struct {
	URL       string                      // http(s) address without user, or a bare folder of this machine
	Auth      func() (user, token string) // asked before each request; nil is nobody. An empty user is "aob"
	Transport http.RoundTripper           // nil is one of the mirror's own
	Main      string                      // the branch that is brought before all others; empty is what HEAD names
}

// What a remote may answer at most, in bytes.
const (
	maxAdvertised = 64 << 20
	maxAnswer     = maxPack + 1<<20
)

// A remote is a Remote whose address was understood.
type remote struct {
	url    string // as people may see it
	folder string // where it is a folder of this machine
	main   string // the branch that is brought first; empty is what HEAD names
	auth   func() (user, token string)
	end    *transport.Endpoint
	client transport.Transport
	http   *http.Transport // the mirror's own; nil if it has none
}

func newRemote(r Remote) (*remote, error) {
	if !strings.Contains(r.URL, "://") {
		return newFolder(r.URL)
	}
	u, err := url.Parse(r.URL)
	if err != nil {
		return nil, delivery.Blockedf("write it as https://host/owner/name", "the repository's address is not one")
	}
	if u.User != nil {
		return nil, delivery.Blockedf("give the token by itself; what is in an address ends up in logs",
			"the repository's address https://…@%s holds a user or a token", u.Host)
	}
	switch u.Scheme {
	case "file":
		return newFolder(u.Path)
	case "http", "https":
	default:
		return nil, delivery.Blockedf("use http, https or a folder",
			"the repository's address %s: aob does not speak %s", r.URL, u.Scheme)
	}
	rem := &remote{url: strings.TrimSuffix(u.String(), "/"), main: r.Main, auth: r.Auth}
	if rem.end, err = transport.NewEndpoint(rem.url); err != nil {
		return nil, delivery.Blockedf("write it as https://host/owner/name", "the repository's address is not one")
	}
	trip := r.Transport
	if trip == nil {
		rem.http = Transport()
		trip = rem.http
	}
	rem.client = githttp.NewClientWithOptions(&http.Client{Transport: answers{trip}},
		&githttp.ClientOptions{RedirectPolicy: githttp.NoFollowRedirects})
	return rem, nil
}

// Transport is how a mirror reaches its remote where Remote.Transport is nil.
func Transport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.IdleConnTimeout = 10 * time.Minute // longer than a poll, so that the next finds the connection open
	t.ResponseHeaderTimeout = 2 * time.Minute
	// A connection that died without a word is left after 30 s, not when the kernel gives up.
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second}
	return t
}

func newFolder(path string) (*remote, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	return &remote{
		url:    abs,
		folder: abs,
		end:    &transport.Endpoint{Protocol: "file", Path: abs},
		client: file.DefaultClient,
	}, nil
}

func (r *remote) close() {
	if r.http != nil {
		r.http.CloseIdleConnections()
	}
}

// method returns who asks, afresh each time, since tokens are renewed.
func (r *remote) method() transport.AuthMethod {
	if r.auth == nil || r.folder != "" {
		return nil
	}
	user, token := r.auth()
	if token == "" {
		return nil
	}
	if user == "" {
		user = "aob"
	}
	return &githttp.BasicAuth{Username: user, Password: token}
}

// advertised asks for the refs. The session has been asked, and may be asked on.
func (r *remote) advertised(ctx context.Context) (transport.UploadPackSession, *packp.AdvRefs, error) {
	session, err := r.client.NewUploadPackSession(r.end, r.method())
	if err != nil {
		return nil, nil, r.explain("read", err)
	}
	adv, err := session.AdvertisedReferencesContext(ctx)
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		return session, packp.NewAdvRefs(), nil
	}
	if err != nil {
		return nil, nil, r.explain("read", err)
	}
	return session, adv, nil
}

// explain says what a person can do, takes go-git's wrapping off, and leaves
// nothing in the error that the remote was sent.
func (r *remote) explain(doing string, err error) error {
	err = unwrap(err)
	if b, ok := errors.AsType[delivery.Blocked](err); ok {
		b.What = fmt.Sprintf("%s %s: %s", doing, r.url, b.What)
		return b
	}
	if w, ok := errors.AsType[delivery.Wait](err); ok {
		w.What = fmt.Sprintf("%s %s: %s", doing, r.url, w.What)
		return w
	}
	if u, ok := errors.AsType[*packp.ErrUnexpectedData](err); ok &&
		bytes.Contains(u.Data, []byte("object-format=sha256")) {
		return objectFormat(doing+" "+r.url+": the repository", "sha256")
	}
	if errors.Is(err, transport.ErrRepositoryNotFound) {
		return delivery.Blockedf("check the address, and that aob may read it", "%s %s: there is no such repository",
			doing, r.url)
	}
	return fmt.Errorf("%s %s: %w", doing, r.url, err)
}

// unwrap takes go-git's wrapping off an error.
func unwrap(err error) error {
	for {
		var u *plumbing.UnexpectedError // does not unwrap
		if !errors.As(err, &u) {
			return err
		}
		err = u.Err
	}
}

// answers turns statuses into errors that say what to do, and bounds what is read.
type answers struct{ next http.RoundTripper }

func (a answers) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := a.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	limit := int64(maxAnswer)
	if strings.HasSuffix(req.URL.Path, "/info/refs") {
		limit = maxAdvertised
	}
	resp.Body = &body{body: resp.Body, left: limit}
	if err := statusError(resp); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

func statusError(resp *http.Response) error {
	switch code := resp.StatusCode; {
	case code < 300:
		return nil
	case code < 400:
		return elsewhere(resp)
	case code == http.StatusUnauthorized:
		return delivery.Blockedf("check the token: it may have expired", "the server does not know the token (401)")
	case code == http.StatusForbidden:
		return delivery.Blockedf(
			"give the token's user the role Write in the repository, and the token the scope write:repository",
			"the server denies access (403)")
	case code == http.StatusNotFound, code == http.StatusGone:
		return delivery.Blockedf("check the address, and that the token's user may see it",
			"the server knows no such repository (%d)", code)
	case code == http.StatusTooManyRequests, code >= 500:
		return delivery.Wait{For: retryAfter(resp.Header, time.Now()),
			What: fmt.Sprintf("the server asks for time (%d)", code)}
	default:
		return fmt.Errorf("the server answers %d", code)
	}
}

// elsewhere says where a redirect leads: a repository was renamed or transferred.
// An address on another host is not repeated: it may be anything.
func elsewhere(resp *http.Response) error {
	what := fmt.Sprintf("the server sends aob elsewhere (%d), and aob does not follow", resp.StatusCode)
	to, err := resp.Location()
	if err != nil || resp.Request == nil || to.Host != resp.Request.URL.Host {
		return delivery.Blockedf("the repository was renamed or transferred, or the server wants a login: give the "+
			"new address as `repository`",
			"%s: it names another host", what)
	}
	path := to.Path
	for _, end := range []string{"/info/refs", "/git-upload-pack", "/git-receive-pack"} {
		path = strings.TrimSuffix(path, end)
	}
	address := (&url.URL{Scheme: to.Scheme, Host: to.Host, Path: path}).String()
	return delivery.Blockedf(fmt.Sprintf(
		"write `repository: %s` into the server's configuration; and its name, where a forge is configured", address),
		"%s: the repository is at %s now", what, address)
}

// retryAfter reads the header's seconds or date, between a second and ten minutes.
func retryAfter(h http.Header, now time.Time) time.Duration {
	wait := 10 * time.Second
	if s := h.Get("Retry-After"); s != "" {
		if n, err := strconv.Atoi(s); err == nil && n < 1e6 {
			wait = time.Duration(n) * time.Second
		} else if t, err := http.ParseTime(s); err == nil {
			wait = t.Sub(now).Round(time.Second)
		}
	}
	return min(max(wait, time.Second), 10*time.Minute)
}

// A body is read up to a bound, and to its end on Close where that is near, so
// that the connection can be used again.
type body struct {
	body io.ReadCloser
	left int64
}

func (b *body) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("the server's answer is too large")
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.body.Read(p)
	b.left -= int64(n)
	return n, err
}

func (b *body) Close() error {
	io.CopyN(io.Discard, b.body, 4<<10)
	return b.body.Close()
}
