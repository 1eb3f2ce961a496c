package detect

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Inspect opens a model that nobody has opened before. It checks that inputs
// and outputs keep the contract by name, type and shape, makes the signature
// from the file's rfdetr_inference metadata, runs the golden input, and returns
// both. It takes at most Patience.
//
// A model at fault is a *ModelError or, where it brings the child down or takes
// too long, a *CrashError. When ctx ends, the child is killed and the error
// wraps ctx's.
func (d Detector) Inspect(ctx context.Context, modelPath string) (delivery.Signature, Golden, error) {
	fail := func(err error) (delivery.Signature, Golden, error) { return delivery.Signature{}, Golden{}, err }
	path, err := filepath.Abs(modelPath)
	if err != nil {
		return fail(fmt.Errorf("inspect: %w", err))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(d.patience(), func() { cancel(errPatience{d.patience()}) })
	defer timer.Stop()
	c, err := d.start(ctx, "inspect", "--", path)
	if err != nil {
		return fail(err)
	}
	defer c.release()
	if err := c.greet(); err != nil {
		return fail(c.explain(ctx, err))
	}
	m, err := c.hear()
	if err == nil && m.Inspected == nil {
		err = nonsense{errors.New("a message out of turn")}
	}
	if err != nil {
		return fail(c.explain(ctx, err))
	}
	// The child had a hostile model in it, so its answer is checked again here.
	sig := m.Inspected.Signature
	golden, err := ParseGolden(m.Inspected.Golden)
	if err == nil {
		err = checkSignature(sig)
	}
	if err == nil {
		err = golden.check(sig, golden.Boxes, golden.Logits)
	}
	if err != nil {
		return fail(c.explain(ctx, nonsense{err}))
	}
	return sig, golden, nil
}
