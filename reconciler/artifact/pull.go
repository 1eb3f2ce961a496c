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

// A Source is a registry or folder from which bundles are pulled.
type Source struct {
	// URL is https://HOST[:PORT]/REPOSITORY of an OCI registry, for example
	// https://aob.example:8443/bundles for a server's Handler, or file:///DIR for a copy of
	// a layout, for example on a USB stick. http is only allowed for loopback addresses.
	URL string
	// Client sends the requests; nil means http.DefaultClient. Redirects to http are always
	// refused, except on loopback.
	Client *http.Client
	// Token, if not empty, is sent as a bearer token to the host and port of URL only.
	Token string
}

// A SourceError is a failure of the source or of the network: no response, an interrupted
// body, or wrong content. It says nothing about the bundle, so another attempt may succeed.
type SourceError struct {
	Err    error
	Status int // HTTP status; 0 if there was no response or its status was 200
}

func (e *SourceError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *SourceError) Unwrap() error { return e.Err }

// ErrOtherContent is the error if a response does not match the digest: for example a
// login page, or bytes that were changed or cut in transit.
var ErrOtherContent = errors.New("the source sent other content than requested")

// A ContentError is an error in a bundle itself: all bytes match their digests, but the
// content is invalid. Another attempt gives the same result.
type ContentError struct{ Err error }

func (e *ContentError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ContentError) Unwrap() error { return e.Err }

// A NewerError is the error of a bundle with something that this version of AOB does not support, such as an unknown
// file or media type, because a later version has packed it. Neither the bundle nor the machine is at fault.
type NewerError struct{ Err error }

func (e *NewerError) Error() string {
	return fmt.Sprintf("a later version of AOB has packed this bundle; update AOB's programs on this machine (%v)",
		e.Err)
}

// Unwrap returns the cause.
func (e *NewerError) Unwrap() error { return e.Err }

// contentError returns the NewerError or ContentError of a bundle whose bytes match their digests.
func contentError(err error) error {
	if _, ok := errors.AsType[unknown](err); ok {
		return &NewerError{err}
	}
	return &ContentError{err}
}

// Pull downloads a bundle into the store and unpacks it into dir, as Unpack does. Blobs
// that the store has are not downloaded. Downloads are checked against digest and size,
// and are never larger than the manifest says or than MaxBundle.
//
// Errors: syscall.ENOSPC if the disk has too little space for the missing blobs, before any of them is downloaded; a
// *SourceError if the source or the network fails, which wraps fs.ErrNotExist if the source does not have the bundle; a
// *NewerError if a later version of AOB has packed the bundle; a *ContentError if the bundle is invalid.
//
// After an error, complete blobs and the received part of an interrupted one stay in the store, and the next call
// continues from there. downloaded is the number of bytes of manifest, config and files that were received, also with
// an error. Pull has no timeout of its own: use ctx or the client's.
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
	if err != nil { // missing or damaged in the store
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
	// The index comes last, so that a bundle in it always has all its files.
	if _, err = s.putManifest(ctx, data); err == nil {
		err = s.revive(ctx, bundle, m)
	}
	return m, err
}

// fetchManifest downloads a manifest, whose size is not known.
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

// A source reads a registry or a layout with oras-go.
type source interface {
	content.Fetcher
	manifest(context.Context, delivery.Digest) (io.ReadCloser, error)
}

func (f Source) open() (source, error) {
	u, err := url.Parse(f.URL)
	if err != nil {
		return nil, errors.New("source: not a URL") // err would quote it, with its secrets
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
			return nil, fmt.Errorf("source: http is only allowed for loopback addresses; use https for %s", u.Host)
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

// A client adds the token to requests, but not after a redirect to another scheme, host or port.
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

// A wireReader counts the bytes received and turns read errors into SourceErrors, so that
// they differ from errors of writing to the disk.
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
