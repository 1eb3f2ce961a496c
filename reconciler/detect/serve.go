package detect

import (
	"context"
	"errors"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Served is a model that runs behind a Unix socket.
type Served struct{}

// Serve starts a server for the bundle in a folder (model.onnx, signature.json,
// golden.bin, labels.json) on a Unix socket, and returns once it has loaded the
// model and replayed the golden. ctx bounds the start only; the server runs
// until Close, or until this process ends.
func (d Detector) Serve(ctx context.Context, bundleDir, socket string) (*Served, error) {
	return nil, errors.New("not there yet")
}

// Health runs the golden through the running server.
func (s *Served) Health(ctx context.Context) error { return errors.New("not there yet") }

// Infer returns the boxes on a JPEG or PNG image, best first, at most
// Signature.Select of them.
func (s *Served) Infer(ctx context.Context, image []byte) ([]delivery.Box, error) {
	return nil, errors.New("not there yet")
}

// Done is closed when the server has ended, asked or not.
func (s *Served) Done() <-chan struct{} { return nil }

// Wait blocks until the server has ended: nil after Close, else how it ended.
func (s *Served) Wait() error { return errors.New("not there yet") }

// Close ends the server: SIGTERM, and SIGKILL to whatever is left.
func (s *Served) Close() error { return nil }
