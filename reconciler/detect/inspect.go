package detect

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Inspect opens an untrusted model. It checks the names, types and shapes of inputs and outputs
// against the contract, makes the signature from the file's rfdetr_inference metadata, runs the golden
// input, and returns both. It takes at most Timeout.
//
// If the model is invalid the error is a *ModelError or, if it crashed the child or took too long, a
// *CrashError. When ctx is done the child is killed and the error wraps ctx's.
func (d Detector) Inspect(ctx context.Context, modelPath string) (delivery.Signature, Golden, error) {
	fail := func(err error) (delivery.Signature, Golden, error) { return delivery.Signature{}, Golden{}, err }
	path, err := filepath.Abs(modelPath)
	if err != nil {
		return fail(fmt.Errorf("inspect: %w", err))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, d.timeout(), timeoutError{d.timeout()})
	defer cancel()
	c, err := d.start(ctx, "inspect", "--", path)
	if err != nil {
		return fail(err)
	}
	defer c.cleanup()
	if err := c.readHello(); err != nil {
		return fail(c.rootCause(ctx, err))
	}
	m, err := c.readMessage()
	if err == nil && m.Inspected == nil {
		err = invalidOutput{errors.New("unexpected message")}
	}
	if err != nil {
		return fail(c.rootCause(ctx, err))
	}
	// The child has run an untrusted model, so its result is checked again here.
	sig := m.Inspected.Signature
	golden, err := ParseGolden(m.Inspected.Golden)
	if err == nil {
		err = checkSignature(sig)
	}
	if err == nil {
		err = golden.check(sig, golden.Boxes, golden.Logits)
	}
	if err != nil {
		return fail(c.rootCause(ctx, invalidOutput{err}))
	}
	return sig, golden, nil
}
