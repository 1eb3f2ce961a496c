package forge

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// maxResponse is the largest response that is read, in bytes.
const maxResponse = 32 << 20

// maxComments is the largest list of comments that is read, in bytes. It is read one comment at a time.
const maxComments = 512 << 20

// responseLimit is the context key of another limit than maxResponse, an int64.
type responseLimit struct{}

// calls is a transport that adds the token, limits the size of responses, and returns an
// error for every status of 400 or more.
type calls struct {
	next   http.RoundTripper
	token  func() string
	scheme string // before the token; "token" if empty
}

func (c *calls) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	token := c.token()
	if token != "" {
		req.Header.Set("Authorization", cmp.Or(c.scheme, "token")+" "+token)
	}
	resp, err := c.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 400 {
		limit := int64(maxResponse)
		if other, ok := req.Context().Value(responseLimit{}).(int64); ok {
			limit = other
		}
		resp.Body = struct {
			io.Reader
			io.Closer
		}{&bounded{resp.Body, limit, limit}, resp.Body}
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	failed := &statusError{code: resp.StatusCode, text: message(text, token),
		after: delivery.RetryAfter(resp.Header.Get("Retry-After"), time.Now())}
	failed.limits(resp.Header, time.Now())
	return nil, failed
}

// limits notes that a response refuses requests for some time. GitHub does so with 429, or with 403 and one of:
// Retry-After, no request left before X-RateLimit-Reset, or a message about its secondary limit. GitLab's headers have
// no X.
func (s *statusError) limits(h http.Header, now time.Time) {
	left, named := cmp.Or(h.Get("X-RateLimit-Remaining"), h.Get("RateLimit-Remaining")), h.Get("Retry-After") != ""
	s.limited = s.code == http.StatusTooManyRequests || s.code == http.StatusForbidden && (named || left == "0" ||
		strings.Contains(strings.ToLower(s.text), "secondary rate limit"))
	if !s.limited || named {
		return
	}
	reset, err := strconv.ParseInt(cmp.Or(h.Get("X-RateLimit-Reset"), h.Get("RateLimit-Reset")), 10, 64)
	if left == "0" && err == nil {
		s.after = min(max(time.Unix(reset, 0).Sub(now), time.Second), time.Hour)
	} else if s.code == http.StatusForbidden {
		s.after = time.Minute // GitHub asks for no less where it names no time
	}
}

// bounded is a reader that fails after limit bytes.
type bounded struct {
	r           io.Reader
	left, limit int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("the server's response has more than %d MiB", b.limit>>20)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// A statusError is a response with a status of 400 or more.
type statusError struct {
	code    int
	text    string // the server's message, shortened
	after   time.Duration
	limited bool // the server answers again later
}

func (s *statusError) Error() string {
	if s.text == "" {
		return fmt.Sprintf("status %d", s.code)
	}
	return fmt.Sprintf("status %d: %s", s.code, s.text)
}

// refusal returns the response that an error is.
func refusal(err error) (*statusError, bool) { return errors.AsType[*statusError](err) }

// message returns the message of an error response, shortened and without the token.
func message(data []byte, token string) string {
	text := string(data)
	var m struct {
		Message string `json:"message"`
		Error   string `json:"error"` // of GitLab
		Why     string `json:"error_description"`
	}
	if json.Unmarshal(data, &m) == nil {
		text = cmp.Or(m.Message, strings.TrimSpace(m.Error+" "+m.Why))
	}
	if token != "" {
		text = strings.ReplaceAll(text, token, "…")
	}
	return delivery.Cut(delivery.Terminal(text), 200)
}
