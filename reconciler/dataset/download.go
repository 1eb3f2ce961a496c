package dataset

// This file downloads a file from an address that another server gave. The address is not trusted: the connection must
// be encrypted and must not go to this server's own network.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Limits of a download.
const (
	maxRedirects = 5
	maxTries     = 8           // in a row that bring nothing new
	idleLimit    = time.Minute // without a byte
	maxPause     = time.Minute // between two tries
	maxAskedWait = 5 * time.Minute
)

// internal are networks that are not on the internet, beside those that netip knows.
var internal = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),   // carriers
	netip.MustParsePrefix("192.0.0.0/24"),    // protocols
	netip.MustParsePrefix("192.0.2.0/24"),    // documentation
	netip.MustParsePrefix("198.18.0.0/15"),   // measurements
	netip.MustParsePrefix("198.51.100.0/24"), // documentation
	netip.MustParsePrefix("203.0.113.0/24"),  // documentation
	netip.MustParsePrefix("240.0.0.0/4"),     // reserved
	netip.MustParsePrefix("64:ff9b::/96"),    // IPv4 behind a translator
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("2001::/32"), // Teredo
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"), // 6to4
	netip.MustParsePrefix("::/96"),     // IPv4, as it was once written
	netip.MustParsePrefix("fec0::/10"), // this site, as it was once written
	netip.MustParsePrefix("100::/64"),  // nowhere
	netip.MustParsePrefix("3fff::/20"), // documentation
}

// public reports whether an address is one of the internet, and not of this machine or its network.
func public(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("") // no network has an address with a zone
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() {
		return false
	}
	for _, p := range internal {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}

// newTransport returns a transport that connects to public addresses, and to one host and port that the server's
// configuration names. The address is checked when the connection is made, after the name was resolved.
func newTransport(trusted string) *http.Transport {
	checked := net.Dialer{Timeout: 30 * time.Second,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			at, err := netip.ParseAddrPort(address)
			if err != nil || !public(at.Addr()) {
				return delivery.Blockedf("find out why the server that exports datasets sends such an address",
					"the download leads to %s, which is not an address of the internet", address)
			}
			return nil
		}}
	free := net.Dialer{Timeout: 30 * time.Second}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == trusted {
				return free.DialContext(ctx, network, address)
			}
			return checked.DialContext(ctx, network, address)
		},
		ForceAttemptHTTP2: true, TLSHandshakeTimeout: 30 * time.Second, ResponseHeaderTimeout: time.Minute,
		DisableCompression: true, // so that lengths are those of the file
	}
}

// hostPort returns the host and port that a connection to an address is made to.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// withoutAddress returns the error of a request without the address, which may have a key or a signature in its query.
func withoutAddress(err error) error {
	for {
		e, ok := errors.AsType[*url.Error](err)
		if !ok {
			return err
		}
		if err = e.Err; strings.Contains(err.Error(), "Location header") {
			return errors.New("it redirects to something that is no address") // the error has the address
		}
	}
}

// pause waits before a try. The first waits about a second, and each one after it twice as long.
func pause(ctx context.Context, try int) error {
	d := min(time.Second<<min(try, 10), maxPause)
	return sleep(ctx, d*4/5+rand.N(d*2/5))
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// askedWait returns how long a server asks to wait, and whether it does.
func askedWait(h http.Header) (time.Duration, bool) {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.Atoi(text); err == nil && seconds >= 0 {
		return time.Duration(min(seconds, 1<<30)) * time.Second, true
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(time.Until(at), 0), true
	}
	return 0, false
}

// A download is a file that is fetched from a link.
type download struct {
	client *http.Client
	to     *os.File
	most   int64 // bytes
	tell   func(done, total int64)
	room   func(n int) error // whether the disk has room for n more bytes

	// link returns the address. It is asked again when the address has expired.
	link func(ctx context.Context) (*url.URL, error)

	have int64
	etag string
}

// errExpired means that an address is not valid any more.
var errExpired = errors.New("the link has expired")

// fetch downloads the file. A connection that breaks or stalls goes on where it was.
func (d *download) fetch(ctx context.Context) error {
	var at *url.URL
	links, failed := 0, 0
	for {
		if at == nil {
			if links++; links > 4 {
				return delivery.Blockedf("try again later", "each of %d links to the dataset was refused", links-1)
			}
			var err error
			if at, err = d.link(ctx); err != nil {
				return err
			}
		}
		before := d.have
		wait, err := d.try(ctx, at)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, blocked := errors.AsType[delivery.Blocked](err); blocked {
			return err
		}
		if errors.Is(err, errExpired) {
			at = nil
			continue
		}
		if failed++; d.have > before {
			failed = 0
		}
		if failed >= maxTries {
			return fmt.Errorf("download from %s: %w", at.Hostname(), err)
		}
		if wait > 0 {
			err = sleep(ctx, wait)
		} else {
			err = pause(ctx, failed)
		}
		if err != nil {
			return err
		}
	}
}

// try downloads the rest of the file. It returns how long the server asks to wait.
func (d *download) try(parent context.Context, at *url.URL) (wait time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	idle := time.AfterFunc(2*idleLimit, func() { // longer than a response may take to begin
		cancel(fmt.Errorf("%s sent nothing for a long time", at.Hostname()))
	})
	defer idle.Stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return 0, withoutAddress(err)
	}
	if d.have > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.have))
		if d.etag != "" {
			request.Header.Set("If-Range", d.etag)
		}
	}
	response, err := d.client.Do(request)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return 0, cause
		}
		return 0, withoutAddress(err)
	}
	defer response.Body.Close()
	switch code := response.StatusCode; {
	case code == http.StatusPartialContent && response.Header.Get("Content-Range") != "" &&
		strings.HasPrefix(response.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", d.have)):
	case code == http.StatusOK || code == http.StatusPartialContent || code == http.StatusRequestedRangeNotSatisfiable:
		if err := d.restart(); err != nil {
			return 0, err
		}
		if code != http.StatusOK {
			return 0, fmt.Errorf("the server sent another part of the file (status %d)", code)
		}
	case code == http.StatusTooManyRequests || code >= 500:
		if asked, ok := askedWait(response.Header); ok && asked <= maxAskedWait {
			wait = max(asked, time.Second)
		}
		return wait, fmt.Errorf("status %d", code)
	case code >= 400:
		return 0, errors.Join(errExpired, d.restart())
	default:
		return 0, delivery.Blockedf("try again later", "%s answers with status %d", at.Hostname(), code)
	}
	total := int64(0)
	if response.ContentLength >= 0 {
		total = d.have + response.ContentLength
	}
	if total > d.most {
		return 0, tooLarge()
	}
	d.etag = response.Header.Get("ETag")
	if strings.HasPrefix(d.etag, "W/") {
		d.etag = ""
	}
	buffer := make([]byte, 64<<10)
	for {
		idle.Reset(idleLimit)
		n, err := response.Body.Read(buffer)
		if err := d.room(n); err != nil {
			return 0, err
		}
		if _, werr := d.to.Write(buffer[:n]); werr != nil {
			return 0, delivery.Blockedf("look at the disk of the server", "the download cannot be written: %s",
				pathless(werr))
		}
		if d.have += int64(n); d.have > d.most {
			return 0, tooLarge()
		}
		d.tell(d.have, total)
		switch {
		case err == io.EOF && d.have >= total:
			return 0, nil
		case err == io.EOF:
			return 0, io.ErrUnexpectedEOF
		case err != nil:
			if cause := context.Cause(ctx); cause != nil {
				return 0, cause
			}
			return 0, err
		}
	}
}

// restart forgets what was downloaded.
func (d *download) restart() error {
	d.have, d.etag = 0, ""
	_, err := d.to.Seek(0, io.SeekStart)
	return errors.Join(err, d.to.Truncate(0))
}

// mayRedirect follows redirects that are encrypted, or that stay at the trusted host.
func mayRedirect(trusted *url.URL) func(*http.Request, []*http.Request) error {
	return func(to *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return delivery.Blockedf("try again later", "the download has more than %d redirects", maxRedirects)
		}
		to.Header.Del("Referer") // it has the signature of the address before
		return mayDownload(to.URL, trusted)
	}
}

// mayDownload refuses addresses that are not encrypted. The host that the configuration names may be asked as it is
// there.
func mayDownload(at, trusted *url.URL) error {
	if at.Scheme == "https" && at.Hostname() != "" && at.User == nil ||
		at.Scheme == trusted.Scheme && at.Host == trusted.Host && at.User == nil {
		return nil
	}
	return delivery.Blockedf("find out why the server that exports datasets sends such an address",
		"the download leads to %s://%s, and not to https", cutName(at.Scheme), cutName(at.Hostname()))
}
