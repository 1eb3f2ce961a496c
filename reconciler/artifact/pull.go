package artifact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"

	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Source is where bundles are pulled from.
type Source struct {
	// URL is https://HOST[:PORT]/REPOSITORY of an OCI registry, as
	// https://aob.example:8443/bundles for a server's Handler, or file:///DIR for
	// a copy of a layout, as on a USB stick. http is for loopback alone.
	URL string
	// Client makes the requests; nil is http.DefaultClient. Redirects to http, save
	// on loopback, are refused whatever it says.
	Client *http.Client
	// Token is sent as a bearer token, where it is not empty, to the host and port of URL.
	Token string
}

// A SourceError is a failure of the source or of the way to it, as no answer,
// a body that breaks off, or other content than was asked for. It says nothing
// about the bundle, which another try may bring whole.
type SourceError struct {
	Err    error
	Status int // of the answer over HTTP; 0: there was none, or it said 200
}

func (e *SourceError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *SourceError) Unwrap() error { return e.Err }

// ErrOtherContent is the error of an answer that is not what was asked for: a
// login page, or bytes that were altered or cut on the way.
var ErrOtherContent = errors.New("other content than was asked for")

// A ContentError is a fault of a bundle itself: every byte that was read matched
// its digest, and what they say is wrong. Another try brings the same.
type ContentError struct{ Err error }

func (e *ContentError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ContentError) Unwrap() error { return e.Err }

// A NewerError is of a bundle that has something that this version of AOB does not know, as a file or a media type. A
// later version has packed it: the bundle is not at fault, and neither is the machine that cannot use it.
type NewerError struct{ Err error }

func (e *NewerError) Error() string {
	return fmt.Sprintf("a later version of AOB has packed this bundle; update AOB's programs on this machine (%v)",
		e.Err)
}

// Unwrap returns the cause.
func (e *NewerError) Unwrap() error { return e.Err }

// contentError is the error of a bundle whose bytes match their digests and that cannot be used.
func contentError(err error) error {
	if _, ok := errors.AsType[unknown](err); ok {
		return &NewerError{err}
	}
	return &ContentError{err}
}

// Pull brings a bundle into the store, and lays it into dir as Unpack does. What
// the store holds already is not fetched; what is fetched is checked against
// digest and length, and is never more than the manifest promises nor more than
// MaxBundle. Where the disk has no room for what is missing, nothing of it is
// fetched, and the error is syscall.ENOSPC. The error is a *SourceError where the
// source is at fault, with fs.ErrNotExist in it where the source has no such
// bundle. It is a *NewerError where a later version of AOB has packed the bundle,
// and a *ContentError where the bundle itself is at fault.
//
// Files that arrived whole stay when a later one fails, and so does the part of a
// file that arrived before the connection broke: the next try goes on from there.
// downloaded counts the bytes of manifest, config and files that crossed the wire,
// also beside an error. How long it may take is for ctx and the client's timeouts
// to say: a server may always be slow.
//
// On a device the store is the cache that both slots share.
func (s *Store) Pull(ctx context.Context, from Source, bundle delivery.Digest, dir string) (downloaded int64,
	err error) {
	var wire atomic.Int64
	m, err := s.pull(ctx, from, bundle, &wire)
	if err == nil {
		err = s.unpack(ctx, m, bundle, dir)
	}
	if err != nil {
		return wire.Load(), fmt.Errorf("pull bundle %s: %w", bundle, err)
	}
	return wire.Load(), nil
}

func (s *Store) pull(ctx context.Context, from Source, bundle delivery.Digest, wire *atomic.Int64) (bundleManifest,
	error) {
	var none bundleManifest
	if _, err := delivery.ParseDigest(string(bundle)); err != nil {
		return none, err
	}
	source, err := from.open()
	if err != nil {
		return none, err
	}
	data, err := s.readBlob(bundle, maxManifest)
	if err != nil { // not here, or damaged here
		data, err = fetchManifest(ctx, source, bundle, wire)
	}
	if err != nil {
		return none, fmt.Errorf("manifest: %w", err)
	}
	m, err := parseBundle(data)
	if err != nil {
		return none, contentError(err)
	}
	fetch := func(what, mediaType string, b blob) error {
		if s.verifyBlob(ctx, b) == nil {
			return nil
		}
		if err := s.receive(ctx, source, mediaType, b, wire); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	}
	if err := s.dropPartials(m); err != nil {
		return none, err
	}
	if err := s.checkRoom(m); err != nil {
		return none, err
	}
	if err := fetch("config", configType, m.config); err != nil {
		return none, err
	}
	config, err := s.readBlob(m.config.digest, maxSmall)
	if err != nil {
		return none, err
	}
	if err := parseConfig(config, m); err != nil {
		return none, contentError(err)
	}
	for f, b := range m.each() {
		if err := fetch(f.name, f.mediaType, b); err != nil {
			return none, err
		}
	}
	// Last, so that a bundle that the index names has all its files.
	_, err = s.putManifest(ctx, data)
	return m, err
}

// fetchManifest reads a manifest of which only the digest is known.
func fetchManifest(ctx context.Context, source source, want delivery.Digest, wire *atomic.Int64) ([]byte, error) {
	body, err := source.manifest(ctx, want)
	if err != nil {
		return nil, sourceError(err)
	}
	defer body.Close()
	var buf bytes.Buffer
	got, err := copyAndSum(ctx, &buf, wireReader{body, wire}, maxManifest)
	if errors.Is(err, errTooLong) || err == nil && got.digest != want {
		err = &SourceError{Err: fmt.Errorf("%w: want %s", ErrOtherContent, want)}
	}
	if err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func sourceError(err error) error {
	if errors.Is(err, errdef.ErrNotFound) {
		err = fmt.Errorf("the source does not have it: %w", fs.ErrNotExist)
	}
	e := &SourceError{Err: err}
	var answer *errcode.ErrorResponse
	switch {
	case errors.As(err, &answer):
		e.Status = answer.StatusCode
	case errors.Is(err, fs.ErrNotExist):
		e.Status = http.StatusNotFound
	}
	return e
}

// A source is a registry or a layout, as oras-go reads them.
type source interface {
	content.Fetcher
	manifest(context.Context, delivery.Digest) (io.ReadCloser, error)
}

func (f Source) open() (source, error) {
	u, err := url.Parse(f.URL)
	if err != nil {
		return nil, errors.New("source: not a URL") // the error would quote it, secrets and all
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("source: want a URL without user, query and fragment, got one for %s", u.Host)
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") {
			return nil, fmt.Errorf("source: want file:///DIR, got %q", clip(f.URL))
		}
		return layoutSource{oci.NewStorageFromFS(os.DirFS(u.Path))}, nil
	case "https":
	case "http":
		if !loopback(u.Hostname()) {
			return nil, fmt.Errorf("source: http is for loopback alone; use https for %s", u.Host)
		}
	default:
		return nil, fmt.Errorf("source: want https or file, got %q", clip(f.URL))
	}
	repo, err := remote.NewRepository(u.Host + "/" + strings.Trim(u.Path, "/"))
	if err != nil {
		return nil, fmt.Errorf("source: want https://HOST/REPOSITORY: %w", err)
	}
	repo.PlainHTTP = u.Scheme == "http"
	repo.MaxMetadataBytes = maxManifest
	repo.Client = newClient(f.Client, f.Token)
	return registrySource{repo}, nil
}

type registrySource struct{ *remote.Repository }

func (r registrySource) manifest(ctx context.Context, d delivery.Digest) (io.ReadCloser, error) {
	_, body, err := r.Manifests().FetchReference(ctx, string(d))
	return body, err
}

type layoutSource struct{ *oci.ReadOnlyStorage }

func (l layoutSource) manifest(ctx context.Context, d delivery.Digest) (io.ReadCloser, error) {
	return l.Fetch(ctx, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: godigest.Digest(d)})
}

// A client adds the token to requests. A redirect to another scheme, host or port
// is followed without it.
type client struct {
	http  *http.Client
	token string
}

func newClient(base *http.Client, token string) *client {
	if base == nil {
		base = http.DefaultClient
	}
	c := *base
	c.CheckRedirect = func(to *http.Request, via []*http.Request) error {
		if to.URL.Scheme != "https" && !(to.URL.Scheme == "http" && loopback(to.URL.Hostname())) {
			return fmt.Errorf("redirected to %s, which is not https", to.URL.Host)
		}
		// The standard client keeps the header for other ports and for subdomains.
		if from := via[0].URL; to.URL.Host != from.Host || to.URL.Scheme != from.Scheme {
			to.Header.Del("Authorization")
		}
		if base.CheckRedirect != nil {
			return base.CheckRedirect(to, via)
		}
		if len(via) >= 5 {
			return errors.New("redirected 5 times")
		}
		return nil
	}
	return &client{&c, token}
}

func (c *client) Do(r *http.Request) (*http.Response, error) {
	if c.token != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	return c.http.Do(r)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// wireReader counts what was read of the wire, and says whose errors are whose:
// writing what was read may fail, too.
type wireReader struct {
	r io.Reader
	n *atomic.Int64
}

func (w wireReader) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.n.Add(int64(n))
	if err != nil && err != io.EOF {
		err = &SourceError{Err: err}
	}
	return n, err
}
