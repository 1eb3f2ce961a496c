package git

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/plumbing/transport/file"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Remote is the address of the repository and the credentials for it.
type Remote struct {
	URL       string                      // http(s) address without user, or path of a local bare repository
	Auth      func() (user, token string) // called before each request; nil: no credentials; empty user: "aob"
	Transport http.RoundTripper           // nil: a transport of its own
	// Present returns the present address of the repository, for URL, and an error if it must not be used; nil: it is
	// always URL. It is called before each session.
	Present  func(ctx context.Context, url string) (string, error)
	Main     string                      // the branch that is fetched before all others; empty: the target of HEAD
	Pulls    string                      // prefix of the remote's refs of pull requests; empty: [Pull]
	Refusals map[string]delivery.Blocked // why the remote refuses a push, by a text in its output
}

// Maximum sizes of responses in bytes.
const (
	maxAdvertised = 64 << 20
	maxAnswer     = maxPack + 1<<20
)

// A remote is a Remote with a parsed address.
type remote struct {
	url      string // without secrets
	folder   string // path of a local repository, else empty
	main     string // Remote.Main
	pulls    string // Remote.Pulls
	refusals map[string]delivery.Blocked
	auth     func() (user, token string)
	present  func(ctx context.Context, url string) (string, error)
	endpoint *transport.Endpoint
	client   transport.Transport
	http     *http.Transport // the mirror's own transport, or nil
}

func newRemote(r Remote) (*remote, error) {
	if !strings.Contains(r.URL, "://") {
		return newFolder(r.URL)
	}
	u, err := url.Parse(r.URL)
	if err != nil {
		return nil, delivery.Blockedf("write it as https://host/owner/name", "the repository's address is not a URL")
	}
	if u.User != nil {
		return nil, delivery.Blockedf("configure the token separately; addresses appear in logs",
			"the repository's address https://…@%s contains a user or a token", u.Host)
	}
	switch u.Scheme {
	case "file":
		return newFolder(u.Path)
	case "http", "https":
	default:
		return nil, delivery.Blockedf("use http, https or a folder",
			"the repository's address %s: aob does not support %s", r.URL, u.Scheme)
	}
	rem := &remote{url: strings.TrimSuffix(u.String(), "/"), main: r.Main, auth: r.Auth, pulls: cmp.Or(r.Pulls, Pull),
		refusals: r.Refusals, present: r.Present}
	if rem.endpoint, err = transport.NewEndpoint(rem.url); err != nil {
		return nil, delivery.Blockedf("write it as https://host/owner/name", "the repository's address is not a URL")
	}
	trip := r.Transport
	if trip == nil {
		rem.http = Transport()
		trip = rem.http
	}
	rem.client = githttp.NewClientWithOptions(&http.Client{Transport: checkedTransport{trip}},
		&githttp.ClientOptions{RedirectPolicy: githttp.NoFollowRedirects})
	return rem, nil
}

// Transport returns a new transport with the settings that a mirror uses if Remote.Transport is nil.
func Transport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.IdleConnTimeout = 10 * time.Minute // longer than the poll interval, so that connections are reused
	t.ResponseHeaderTimeout = 2 * time.Minute
	// Detect a dead connection after 30 s, and not after the kernel's much longer timeout.
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second}
	return t
}

func newFolder(path string) (*remote, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	return &remote{
		url:      abs,
		folder:   abs,
		endpoint: &transport.Endpoint{Protocol: "file", Path: abs},
		client:   file.DefaultClient,
	}, nil
}

func (r *remote) close() {
	if r.http != nil {
		r.http.CloseIdleConnections()
	}
}

// credentials returns the present credentials. They are read for each session, since tokens may be replaced.
func (r *remote) credentials() transport.AuthMethod {
	if r.auth == nil || r.folder != "" {
		return nil
	}
	user, token := r.auth()
	if token == "" {
		return nil
	}
	return &githttp.BasicAuth{Username: cmp.Or(user, "aob"), Password: token}
}

// now returns where the repository is at present.
func (r *remote) now(ctx context.Context) (*transport.Endpoint, error) {
	if r.present == nil {
		return r.endpoint, nil
	}
	url, err := r.present(ctx, r.url)
	if err != nil || url == r.url {
		return r.endpoint, err
	}
	return transport.NewEndpoint(url)
}

// advertised requests the list of refs. The returned session can be used to fetch.
func (r *remote) advertised(ctx context.Context) (transport.UploadPackSession, *packp.AdvRefs, error) {
	endpoint, err := r.now(ctx)
	if err != nil {
		return nil, nil, err
	}
	session, err := r.client.NewUploadPackSession(endpoint, r.credentials())
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
	if r.pulls != "" && r.pulls != Pull {
		adv.References = renamedPulls(adv.References, r.pulls)
	}
	return session, adv, nil
}

// renamedPulls gives the refs of pull requests the names that they have in AOB, and
// leaves out any other ref of such a name.
func renamedPulls(refs map[string]plumbing.Hash, prefix string) map[string]plumbing.Hash {
	renamed := make(map[string]plumbing.Hash, len(refs))
	for name, hash := range refs {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			renamed[Pull+rest] = hash
		} else if !strings.HasPrefix(name, Pull) {
			renamed[name] = hash
		}
	}
	return renamed
}

// explain adds what was done and the remote's address to an error, removes go-git's wrapping,
// and turns errors that a person can resolve into Blocked.
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

// unwrap removes go-git's wrapping from an error.
func unwrap(err error) error {
	for {
		var u *plumbing.UnexpectedError // has no Unwrap method
		if !errors.As(err, &u) {
			return err
		}
		err = u.Err
	}
}

// A checkedTransport turns HTTP error statuses into errors with hints, and limits the size of bodies.
type checkedTransport struct{ next http.RoundTripper }

func (a checkedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
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
		return redirectError(resp)
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
		return delivery.Wait{For: delivery.RetryAfter(resp.Header.Get("Retry-After"), time.Now()),
			What: fmt.Sprintf("the server is overloaded or down (%d)", code)}
	default:
		return fmt.Errorf("the server returned the status %d", code)
	}
}

// redirectError returns the error of a redirect, which means that a repository was renamed or transferred. It shows the
// new address only if that is on the same host, since another one is untrusted.
func redirectError(resp *http.Response) error {
	what := fmt.Sprintf("the server redirects to another address (%d), and aob does not follow redirects",
		resp.StatusCode)
	to, err := resp.Location()
	if err != nil || resp.Request == nil || to.Host != resp.Request.URL.Host {
		return delivery.Blockedf("the repository was renamed or transferred, or the server wants a login: write the "+
			"new address as `repository` into the server's configuration", "%s: it is on another host", what)
	}
	path := to.Path
	for _, end := range []string{"/info/refs", "/git-upload-pack", "/git-receive-pack"} {
		path = strings.TrimSuffix(path, end)
	}
	address := (&url.URL{Scheme: to.Scheme, Host: to.Host, Path: path}).String()
	return delivery.Blockedf(fmt.Sprintf(
		"write `repository: %s` into the server's configuration, and its new name under `forge`, if there is one",
		address), "%s: the repository is at %s now", what, address)
}

// A body is a response body with a maximum size. Close reads a short rest, so that the connection can be reused.
type body struct {
	body io.ReadCloser
	left int64
}

func (b *body) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("the server's response is too large")
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
