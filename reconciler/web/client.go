package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/explain"
	"github.com/autonomos/aob/reconciler/gate"
)

// maxResponse is the largest response in bytes.
const maxResponse = 256 << 20

// responseTimeout is the timeout for the start of a response. Some requests wait for the current turn of
// the loop to end.
const responseTimeout = 2 * time.Minute

// A Client calls a server over its socket. Its errors are [*Error] or the context's. It is safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

var _ Source = (*Client)(nil)

// NewClient returns a client of the server on a socket. It does not connect.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: dial, ResponseHeaderTimeout: responseTimeout, MaxIdleConns: 2, IdleConnTimeout: time.Minute}}}
}

// PR returns one pull request.
func (c *Client) PR(ctx context.Context, number int) (PR, error) {
	return get[PR](ctx, c, fmt.Sprintf("/v1/prs/%d", number))
}

// Explain returns the chain of causes of a thing.
func (c *Client) Explain(ctx context.Context, kind explain.Kind, id string) (explain.Chain, error) {
	return c.ExplainFirst(ctx, kind, id, 0)
}

// ExplainFirst is Explain with at most limit links; 0 is all.
func (c *Client) ExplainFirst(ctx context.Context, kind explain.Kind, id string, limit int) (explain.Chain, error) {
	path := "/v1/explain/" + url.PathEscape(string(kind)) + "/" + url.PathEscape(id)
	if limit > 0 {
		path += "?limit=" + strconv.Itoa(limit)
	}
	return get[explain.Chain](ctx, c, path)
}

// Plan returns the server's current plan.
func (c *Client) Plan(ctx context.Context) (Plan, error) { return get[Plan](ctx, c, "/v1/plan") }

// Merge merges a pull request of a local forge if its head is still the reviewed one. The server takes
// the user from the socket.
func (c *Client) Merge(ctx context.Context, number int, head, _ string) (string, error) {
	m, err := post[merged](ctx, c, number, "merge", postBody{Head: head})
	return m.Commit, err
}

// Adopt copies a fork's pull request into the repository if its head is still the reviewed one.
func (c *Client) Adopt(ctx context.Context, number int, head string) (int, error) {
	a, err := post[adoption](ctx, c, number, "adopt", postBody{Head: head})
	return a.Number, err
}

// Command posts a command of this user on a pull request. The server takes the user from the socket.
func (c *Client) Command(ctx context.Context, number int, _, text string) error {
	_, err := post[struct{}](ctx, c, number, "ask", postBody{Text: text})
	return err
}

// Recheck evaluates a pull request again and retries what has failed.
func (c *Client) Recheck(ctx context.Context, number int) error {
	_, err := post[struct{}](ctx, c, number, "recheck", postBody{})
	return err
}

// Try starts an experiment.
func (c *Client) Try(ctx context.Context, request TrialRequest) (Trial, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return Trial{}, err
	}
	return exchange[Trial](ctx, c, http.MethodPost, "/v1/trials", body)
}

// Trials returns all experiments.
func (c *Client) Trials(ctx context.Context) ([]Trial, error) {
	return get[[]Trial](ctx, c, "/v1/trials")
}

// Spends returns what trainings have cost.
func (c *Client) Spends(ctx context.Context) ([]delivery.Spend, error) {
	return get[[]delivery.Spend](ctx, c, "/v1/spends")
}

// Trial returns one experiment.
func (c *Client) Trial(ctx context.Context, id string) (Trial, error) {
	return get[Trial](ctx, c, "/v1/trials/"+url.PathEscape(id))
}

// EndTrial removes an experiment.
func (c *Client) EndTrial(ctx context.Context, id string) error {
	_, err := exchange[struct{}](ctx, c, http.MethodDelete, "/v1/trials/"+url.PathEscape(id), nil)
	return err
}

// ForgetDevice removes a device from a fleet.
func (c *Client) ForgetDevice(ctx context.Context, fleet, device string) error {
	_, err := exchange[struct{}](ctx, c, http.MethodDelete, "/v1/devices/"+url.PathEscape(fleet)+"/"+
		url.PathEscape(device), nil)
	return err
}

// Compare compares two models on their validation split.
func (c *Client) Compare(ctx context.Context, a, b string) (Comparison, error) {
	return get[Comparison](ctx, c, "/v1/compare?a="+url.QueryEscape(a)+"&b="+url.QueryEscape(b))
}

// Release returns a release that main has accepted.
func (c *Client) Release(ctx context.Context, model string, version int) (Released, error) {
	return get[Released](ctx, c, fmt.Sprintf("/v1/models/%s/release?version=%d", url.PathEscape(model), version))
}

// BundlesURL is the address of the server's bundles for the client that HTTP returns. Only its path matters.
const BundlesURL = "http://127.0.0.1/bundles"

// HTTP returns an HTTP client that connects to the socket, whatever the address is.
func (c *Client) HTTP() *http.Client { return c.http }

// Power returns the smallest drops that a gate can detect.
func (c *Client) Power(ctx context.Context, name string) ([]gate.ModelPower, error) {
	return get[[]gate.ModelPower](ctx, c, "/v1/gates/"+url.PathEscape(name)+"/power")
}

// Log opens a run's log at an offset in bytes. The caller must close it.
func (c *Client) Log(ctx context.Context, run string, offset int64) (Log, error) {
	path := "/v1/runs/" + url.PathEscape(run) + "/log?offset=" + strconv.FormatInt(offset, 10)
	resp, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return Log{}, err
	}
	h := resp.Header
	at, err := strconv.ParseInt(h.Get(headerOffset), 10, 64)
	if err != nil {
		resp.Body.Close()
		return Log{}, &Error{Code: http.StatusBadGateway, What: "the server's response has no log offset",
			Do: "use an aob of the same version as the server's"}
	}
	return Log{ReadCloser: resp.Body, Name: h.Get(headerName), Offset: at, Ended: h.Get(headerEnded) == "true"}, nil
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	return exchange[T](ctx, c, http.MethodGet, path, nil)
}

func post[T any](ctx context.Context, c *Client, number int, what string, request postBody) (T, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return *new(T), err
	}
	return exchange[T](ctx, c, http.MethodPost, fmt.Sprintf("/v1/prs/%d/%s", number, what), body)
}

func exchange[T any](ctx context.Context, c *Client, method, path string, body []byte) (v T, err error) {
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxResponse)).Decode(&v); err != nil {
		return v, &Error{Code: http.StatusBadGateway, What: "the response on " + c.socket +
			" cannot be decoded: " + err.Error(), Do: "use an aob of the same version as the server's"}
	}
	return v, nil
}

// send sends a request and returns the response if its status is 200.
func (c *Client) send(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://aob"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	e := &Error{Code: resp.StatusCode}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(e); err != nil || e.What == "" {
		e.What = "the response on " + c.socket + " is " + resp.Status
	}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	return nil, e
}

// unreachable returns the error of a request without a response.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	e := &Error{Code: http.StatusBadGateway}
	switch {
	case errors.Is(err, fs.ErrPermission):
		e.What, e.Do = "no permission to open "+c.socket, "run this as the user that runs aob serve"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		socket := c.socket
		if at, err := filepath.Abs(socket); err == nil { // a relative path is of another folder, perhaps
			socket = at
		}
		e.What, e.Do = "no aob serve is running on "+socket,
			"start it with aob serve --config aob.yaml, or name its socket with --socket or AOB_SOCKET"
	default:
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // its URL is not a real one
		}
		e.What = "aob serve does not respond on " + c.socket + ": " + err.Error()
	}
	return e
}
