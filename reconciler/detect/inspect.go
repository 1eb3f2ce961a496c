package detect

import (
	"context"
	"errors"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Inspect opens a model that nobody has opened before. It checks that inputs
// and outputs keep the contract by name, type and shape, makes the signature
// from the file's rfdetr_inference metadata, runs the golden input, and returns
// both. A model at fault is a *ModelError or, where it brings the child down, a
// *CrashError.
func (d Detector) Inspect(ctx context.Context, modelPath string) (delivery.Signature, Golden, error) {
	return delivery.Signature{}, Golden{}, errors.New("not there yet")
}
