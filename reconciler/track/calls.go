package track

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Settings are where an MLflow server is, and how AOB logs in.
type Settings struct {
	URL string
	// Bearer returns a token, and Basic USER:PASSWORD. They are called for each request, so that a secret may be
	// replaced. At most one of them is set.
	Bearer, Basic func() (string, error)
	Now           func() time.Time
}

// An MLflow is a client of one server. Its methods may be called from any goroutine.
type MLflow struct {
	settings Settings
	http     *http.Client
}

// Limits of one call. A decoded object takes many times the bytes that it has in an answer.
const (
	callTime   = 20 * time.Second
	maxAnswer  = 8 << 20
	maxObjects = 100_000 // objects and lists of one answer
	maxText    = 300     // of the server's message that is shown
)

// New returns a client.
func New(s Settings) *MLflow {
	return &MLflow{settings: s, http: &http.Client{Timeout: callTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// A Refused is an answer with which the server refuses one request, or one that cannot be used. Other requests may
// succeed.
type Refused struct {
	Status int
	Code   string // as RESOURCE_DOES_NOT_EXIST; empty for an answer that cannot be used
	Text   string
}

func (r Refused) Error() string {
	if r.Code == "" {
		return r.Text
	}
	return fmt.Sprintf("MLflow refuses it (%d %s): %s", r.Status, r.Code, r.Text)
}

// is reports whether an error is a refusal with a code.
func is(err error, code string) bool {
	r, ok := errors.AsType[Refused](err)
	return ok && r.Code == code
}

// Codes of refusals.
const (
	missing = "RESOURCE_DOES_NOT_EXIST"
	exists  = "RESOURCE_ALREADY_EXISTS"
)

// login returns the Authorization header, and a mask of the secret.
func (m *MLflow) login() (header string, mask delivery.Mask, err error) {
	scheme, read := "Bearer ", m.settings.Bearer
	if m.settings.Basic != nil {
		scheme, read = "Basic ", m.settings.Basic
	}
	if read == nil {
		return "", mask, nil
	}
	secret, err := read()
	if err != nil {
		return "", mask, delivery.Blockedf("correct secrets: in the server's configuration", "no login: %s", err)
	}
	values := []string{secret}
	if m.settings.Basic != nil {
		encoded := base64.StdEncoding.EncodeToString([]byte(secret))
		_, password, ok := strings.Cut(secret, ":")
		if !ok {
			return "", mask, delivery.Blockedf("write USER:PASSWORD into it", "the secret of basic: has no colon")
		}
		values, secret = append(values, encoded, password), encoded
	}
	return scheme + secret, delivery.NewMask(slices.Values(values)), nil
}

// call sends a request and decodes the answer. path begins with a slash. in may be nil, and so may out.
func (m *MLflow) call(ctx context.Context, method, path string, in, out any) error {
	login, mask, err := m.login()
	if err != nil {
		return err
	}
	// Text of the server is masked before it is shortened, since a part of a secret would not be found.
	short := func(text string, most int) string { return delivery.PlainText(mask.Text(text), most) }
	var body io.Reader
	if in != nil {
		data, err := delivery.EncodeJSON(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(m.settings.URL, "/")+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if login != "" {
		req.Header.Set("Authorization", login)
	}
	resp, err := m.http.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return fmt.Errorf("no answer from %s: %s", m.settings.URL, short(err.Error(), maxText))
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	// It may be about one record alone, as a run to which somebody else has added very much.
	if err == nil && len(data) > maxAnswer {
		return Refused{Status: resp.StatusCode, Text: fmt.Sprintf("the answer of %s cannot be read: it has more "+
			"than %d MiB", m.settings.URL, maxAnswer>>20)}
	}
	if n := bytes.Count(data, []byte("{")) + bytes.Count(data, []byte("[")); err == nil && n > maxObjects {
		return Refused{Status: resp.StatusCode, Text: fmt.Sprintf("the answer of %s cannot be read: it has more "+
			"than %d objects", m.settings.URL, maxObjects)}
	}
	if err != nil {
		return fmt.Errorf("the answer of %s cannot be read: %s", m.settings.URL, short(err.Error(), maxText))
	}
	if resp.StatusCode != http.StatusOK {
		return m.refusal(req, resp, data, short)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return delivery.Blockedf("check url: of the tracker", "%s answers with %s, and not as MLflow does",
			m.settings.URL, cmp.Or(short(resp.Header.Get("Content-Type"), 50), "data of no type"))
	}
	return nil
}

// refusal returns the error of an answer with another status than 200. short masks and shortens text of the server.
func (m *MLflow) refusal(req *http.Request, resp *http.Response, data []byte,
	short func(text string, most int) string) error {
	var said struct {
		Code string `json:"error_code"`
		Text string `json:"message"`
	}
	structured := json.Unmarshal(data, &said) == nil && said.Code != ""
	if !structured {
		said.Text = string(data)
	}
	status := resp.StatusCode
	// A message may quote a whole SQL statement.
	first, _, _ := strings.Cut(strings.TrimSpace(said.Text), "\n")
	text := short(first, maxText)
	switch {
	case status >= 300 && status < 400:
		to := "another address"
		if u, err := resp.Location(); err == nil {
			to = short(u.Scheme+"://"+u.Host, 200)
		}
		return delivery.Blockedf("write the address that answers itself into url:", "%s redirects to %s",
			m.settings.URL, to)
	case status == http.StatusUnauthorized:
		return delivery.Blockedf("check the secret that the tracker's bearer: or basic: names",
			"%s refuses AOB's login (401)", m.settings.URL)
	case status == http.StatusForbidden && strings.Contains(said.Text, "Host header"):
		host := req.URL.Host
		return delivery.Blockedf(fmt.Sprintf("start it with mlflow server --allowed-hosts %s,localhost:*", host),
			"MLflow does not accept its name %s in the Host header (403)", host)
	case status == http.StatusForbidden:
		return delivery.Blockedf("give AOB's user there permission to write", "%s forbids it (403): %s", m.settings.URL,
			text)
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		return delivery.Wait{For: delivery.RetryAfter(resp.Header.Get("Retry-After"), m.settings.Now()),
			What: fmt.Sprintf("%s is busy (%d)", m.settings.URL, status)}
	case status == http.StatusNotFound && !structured:
		return delivery.Blockedf("check url: of the tracker; AOB needs MLflow 3", "%s has no %s (404)", m.settings.URL,
			req.URL.Path)
	case !structured: // an error of MLflow itself is one of this request
		return fmt.Errorf("%s answers with the error %d: %s", m.settings.URL, status, text)
	}
	return Refused{Status: status, Code: short(said.Code, 50), Text: text}
}

const api = "/api/2.0/mlflow/"

func (m *MLflow) post(ctx context.Context, path string, in, out any) error {
	return m.call(ctx, http.MethodPost, api+path, in, out)
}

func (m *MLflow) get(ctx context.Context, path string, query url.Values, out any) error {
	return m.call(ctx, http.MethodGet, api+path+"?"+query.Encode(), nil, out)
}

func (m *MLflow) patch(ctx context.Context, path string, in any) error {
	return m.call(ctx, http.MethodPatch, api+path, in, nil)
}

// Address returns the server's address.
func (m *MLflow) Address() string { return m.settings.URL }

// Check says whether AOB can use the server.
func (m *MLflow) Check(ctx context.Context) error {
	var found struct{}
	return m.get(ctx, "experiments/search", url.Values{"max_results": {"1"}}, &found)
}
