package detect

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Inspect opens an untrusted model. It checks the names, types and shapes of inputs and outputs
// against the contract, makes the signature from the file's rfdetr_inference metadata, runs the golden
// input, and returns both. It takes at most Timeout.
//
// If the model is invalid the error is a *ModelError or, if it crashed the child or took too long, a
// *CrashError. When ctx is done the child is killed and the error wraps ctx's.
func (d Detector) Inspect(ctx context.Context, modelPath string) (delivery.Signature, Golden, error) {
	var sig delivery.Signature
	var golden Golden
	err := d.ask(ctx, "inspect", modelPath, nil, func(m message) (err error) {
		if m.Inspected == nil {
			return errors.New("unexpected message")
		}
		sig = m.Inspected.Signature
		if golden, err = ParseGolden(m.Inspected.Golden); err == nil {
			err = checkSignature(sig)
		}
		if err == nil {
			err = golden.check(sig, golden.Boxes, golden.Logits)
		}
		return err
	})
	if err != nil {
		return delivery.Signature{}, Golden{}, err
	}
	return sig, golden, nil
}

// A Declaration is what a model's file declares.
type Declaration struct {
	Inputs    []Port              `json:"inputs"`
	Outputs   []Port              `json:"outputs"`
	Slots     int                 `json:"slots"`               // of the logits
	Metadata  bool                `json:"metadata"`            // its file says which slot is which class
	Own       bool                `json:"own,omitempty"`       // and has the entry that AOB's trainers write
	Producer  string              `json:"producer,omitempty"`  // the version of RF-DETR that its metadata names
	Signature *delivery.Signature `json:"signature,omitempty"` // nil if it is unknown which slot is which class
}

// Describe opens an untrusted model as Inspect does, also an export of RF-DETR that has no rfdetr_inference metadata.
// slots are the classes of such a model's slots; with none, Describe says how many there are, and does not run the
// model. They are not used for a model with metadata. Errors are as Inspect's.
func (d Detector) Describe(ctx context.Context, modelPath string, slots []string) (Declaration, error) {
	var found Declaration
	err := d.ask(ctx, "describe", modelPath, slots, func(m message) error {
		if m.Described == nil {
			return errors.New("unexpected message")
		}
		found = *m.Described
		return found.check(slots)
	})
	if err != nil {
		return Declaration{}, err
	}
	return found, nil
}

// check rejects a description that Describe cannot have been asked for with these slots.
func (d Declaration) check(slots []string) error {
	if err := checkDeclared(d.Inputs, d.Outputs); err != nil {
		return err
	}
	for _, p := range slices.Concat(d.Inputs, d.Outputs) {
		if p.Type != "" && checkName(p.Type) != nil {
			return fmt.Errorf("%s has the type %.40q", p.Name, p.Type)
		}
	}
	switch {
	case len(d.Producer) > maxVersion || leadingNumber.FindString(d.Producer) != d.Producer:
		return fmt.Errorf("%.60q is no version", d.Producer)
	case d.Slots < 1 || d.Slots > maxSlots:
		return fmt.Errorf("%d slots, want 1 to %d", d.Slots, maxSlots)
	case d.Signature == nil && (d.Metadata || len(slots) > 0):
		return errors.New("no signature")
	case d.Signature == nil:
		return nil
	case len(d.Signature.Slots) != d.Slots, !d.Metadata && !slices.Equal(d.Signature.Slots, slots):
		return fmt.Errorf("the signature has the slots %.400q", d.Signature.Slots)
	}
	return checkSignature(*d.Signature)
}

// ask runs a subcommand on a model, and gives its one result to check. The child has run an untrusted model, so the
// result is checked again there. Slots are written to its standard input: they can be too long for an argument.
func (d Detector) ask(ctx context.Context, name, modelPath string, slots []string, check func(message) error) error {
	path, err := filepath.Abs(modelPath)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	args := []string{"--", path}
	if len(slots) > 0 {
		args = slices.Insert(args, 0, "--slots")
	}
	return d.onCPU().request(ctx, name, args, slots, check)
}

// onCPU returns the detector without its hardware profile. A golden is what the CPU computes.
func (d Detector) onCPU() Detector {
	d.Profile, d.Profiles = "", ""
	return d
}

// request runs a subcommand, which may read slots, and gives its one result to check.
func (d Detector) request(ctx context.Context, name string, args, slots []string, check func(message) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.timeout(), timeoutError{d.timeout()})
	defer cancel()
	c, err := d.start(ctx, name, args...)
	if err != nil {
		return err
	}
	defer c.cleanup()
	if len(slots) > 0 {
		// A write error means that the child has ended or is about to report why, which is handled below.
		_ = writeLine(c.stdin, slots)
		c.stdin.Close()
	}
	if err := c.readHello(); err != nil {
		return c.rootCause(ctx, err)
	}
	m, err := c.readMessage()
	if err != nil {
		return c.rootCause(ctx, err)
	}
	if err := check(m); err != nil {
		return c.rootCause(ctx, invalidOutput{err})
	}
	return nil
}
