package detect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Client calls a server on a Unix socket. It is safe for concurrent use.
type Client struct{ connections *connections }

// NewClient returns a client. It does not connect.
func NewClient(socket string) Client { return Client{&connections{socket: socket}} }

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
	resp, err := c.send(ctx, http.MethodPost, path, image, "Accept: "+octets+"\r\n")
	if bad, ok := errors.AsType[*TensorError](err); ok {
		err = &ImageError{Why: bad.Why}
	}
	if err != nil {
		return found, timing, err
	}
	timing = parseTiming(resp.Header.Get("Server-Timing"))
	body, err := readAnswer(resp, maxResponse)
	switch {
	case err != nil:
	case resp.Header.Get("Content-Type") == octets:
		found, err = parseDetections(body)
	default:
		err = json.Unmarshal(body, &found)
	}
	if err != nil {
		return Detections{}, timing, fmt.Errorf("aob-detect: its answer: %w", err)
	}
	return found, timing, nil
}

func (c Client) get(ctx context.Context, path string, v any) error {
	resp, err := c.send(ctx, http.MethodGet, path, nil, "")
	if err != nil {
		return err
	}
	body, err := readAnswer(resp, maxResponse)
	if err != nil {
		return fmt.Errorf("aob-detect: %w", err)
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("aob-detect: decode its answer: %w", err)
	}
	return nil
}

// maxResponse is the largest answer that is read.
const maxResponse = 32 << 20

// send sends a request and returns an answer with status 200, whose body the caller closes. header has whole lines.
// Status 400 is a *TensorError.
func (c Client) send(ctx context.Context, method, path string, content []byte, header string) (*http.Response, error) {
	resp, err := c.connections.do(ctx, method, path, header, content)
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
