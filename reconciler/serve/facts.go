package serve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/durable"
)

// A Describer says what it runs. [detect.Served] is one.
type Describer interface {
	Describe(ctx context.Context) (detect.Description, error)
}

// defaultConfidence is the lowest score that is returned for a bundle without thresholds.
const defaultConfidence = 0.4

// ReadFacts returns the facts of the bundle in a folder, whose model a process runs, without name and version.
func ReadFacts(ctx context.Context, bundleDir string, running Describer) (Facts, error) {
	d, err := running.Describe(ctx)
	if err != nil {
		return Facts{}, err
	}
	if len(d.Inputs) != 1 || len(d.Inputs[0].Shape) != 4 || len(d.Outputs) != 2 {
		return Facts{}, fmt.Errorf("bundle %s: the model has %d inputs and %d outputs, want 1 and 2", bundleDir,
			len(d.Inputs), len(d.Outputs))
	}
	f := Facts{Inputs: d.Inputs, Outputs: d.Outputs, Batch: d.Batch, Content: d.Content}
	const maxJSON = 4 << 20
	read := func(name string, v any) error {
		data, err := durable.ReadFile(filepath.Join(bundleDir, name), maxJSON)
		if err == nil {
			err = delivery.ParseJSON(data, v)
		}
		if err != nil {
			return fmt.Errorf("bundle %s: %s: %w", bundleDir, name, err)
		}
		return nil
	}
	if err := read(delivery.LabelsFile, &f.Classes); err != nil {
		return Facts{}, err
	}
	var signature delivery.Signature
	if err := read(delivery.SignatureFile, &signature); err != nil {
		return Facts{}, err
	}
	f.Edges = signature.Edges
	// The process that runs the model applies the thresholds.
	var thresholds map[string]float64
	switch err := read(delivery.ThresholdsFile, &thresholds); {
	case errors.Is(err, fs.ErrNotExist):
		f.Confidence = defaultConfidence
	case err != nil:
		return Facts{}, err
	}
	return f, nil
}
