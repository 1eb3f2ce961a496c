package detect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Client calls a server on a Unix socket. It is safe for concurrent use.
type Client struct{ http *http.Client }

// maxIdle is how many connections are kept for the next calls: as many as a server accepts.
const maxIdle = 64

// NewClient returns a client. It does not connect.
func NewClient(socket string) Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return Client{&http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConns: maxIdle,
		MaxIdleConnsPerHost: maxIdle, IdleConnTimeout: time.Minute, DisableCompression: true}}}
}

// Live returns nil if the server answers, also while its model runs.
func (c Client) Live(ctx context.Context) error { return c.get(ctx, "live", nil) }

// Health replays the golden in the server.
func (c Client) Health(ctx context.Context) error { return c.get(ctx, "health", nil) }

// Describe returns what the server runs.
func (c Client) Describe(ctx context.Context) (d Description, err error) {
	err = c.get(ctx, "describe", &d)
	return d, err
}

// Infer returns the detections on a JPEG or PNG image. If the image is invalid the error is an
// *ImageError, and if no server answers a [net.Error].
func (c Client) Infer(ctx context.Context, image []byte) (Detections, error) {
	found, _, err := c.Detect(ctx, image, 0)
	return found, err
}

// Detect is Infer without the detections below a score, with the time of each stage. Few boxes are much faster to
// return than all.
func (c Client) Detect(ctx context.Context, image []byte, score float64) (found Detections, timing Timing, err error) {
	if len(image) > MaxImageBytes {
		return found, timing, &ImageError{Why: fmt.Sprintf("%d bytes, want at most %d", len(image), MaxImageBytes)}
	}
	path := "infer"
	if score > 0 {
		path += "?score=" + strconv.FormatFloat(score, 'g', -1, 64)
	}
	resp, err := c.send(ctx, http.MethodPost, path, image, "", "")
	if bad, ok := errors.AsType[*TensorError](err); ok {
		err = &ImageError{Why: bad.Why}
	}
	if err != nil {
		return found, timing, err
	}
	return found, parseTiming(resp.Header.Get("Server-Timing")), readJSON(resp, &found)
}

func (c Client) get(ctx context.Context, path string, v any) error {
	resp, err := c.send(ctx, http.MethodGet, path, nil, "", "")
	if err != nil {
		return err
	}
	return readJSON(resp, v)
}

// maxResponse is the largest response that is read.
const maxResponse = 32 << 20

// send sends a request and returns a response with status 200, whose body the caller closes. Status 400 is a
// *TensorError.
func (c Client) send(ctx context.Context, method, path string, content []byte, header, value string) (*http.Response,
	error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://aob-detect/"+path, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	if header != "" {
		req.Header.Set(header, value)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("aob-detect: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var wrong failed
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxWhy*8))
	if err == nil {
		_ = json.Unmarshal(body, &wrong) // if it is not JSON the status is enough
	}
	why := delivery.PlainText(wrong.Error, maxWhy)
	if resp.StatusCode == http.StatusBadRequest {
		return nil, &TensorError{Why: why}
	}
	return nil, fmt.Errorf("aob-detect: %s: %s", resp.Status, why)
}

// readJSON decodes a response into v if v is not nil, and closes it.
func readJSON(resp *http.Response, v any) error {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse))
	if err != nil {
		return fmt.Errorf("aob-detect: %w", err)
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("aob-detect: decode its response: %w", err)
	}
	return nil
}
