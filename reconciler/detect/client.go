package detect

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Client calls a server on a Unix socket. It is safe for concurrent use.
type Client struct{ http *http.Client }

// NewClient returns a client. It does not connect.
func NewClient(socket string) Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return Client{&http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConns: 8,
		IdleConnTimeout: time.Minute}}}
}

// Health replays the golden in the server.
func (c Client) Health(ctx context.Context) error {
	return c.call(ctx, http.MethodGet, "health", nil, nil)
}

// Infer returns the detections on a JPEG or PNG image. If the image is invalid the error is an
// *ImageError, and if no server answers a [net.Error].
func (c Client) Infer(ctx context.Context, image []byte) (found Detections, err error) {
	if len(image) > MaxImageBytes {
		return found, &ImageError{Why: fmt.Sprintf("%d bytes, want at most %d", len(image), MaxImageBytes)}
	}
	return found, c.call(ctx, http.MethodPost, "infer", image, &found)
}

// call sends a request and decodes the response into v if v is not nil.
func (c Client) call(ctx context.Context, method, path string, content []byte, v any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://aob-detect/"+path, bytes.NewReader(content))
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("aob-detect: %w", err)
	}
	defer resp.Body.Close()
	const maxResponse = 32 << 20
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse))
	if err != nil {
		return fmt.Errorf("aob-detect: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var wrong struct{ Error string }
		_ = json.Unmarshal(body, &wrong) // if it is not JSON the status is enough
		why := delivery.PlainText(wrong.Error, maxWhy)
		if resp.StatusCode == http.StatusBadRequest {
			return &ImageError{Why: why}
		}
		return fmt.Errorf("aob-detect: %s: %s", resp.Status, why)
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("aob-detect: decode its response: %w", err)
	}
	return nil
}
