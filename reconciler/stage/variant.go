package stage

// This file makes the variants of a trained model.

import (
	"context"
	"fmt"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// A Variant is a trained model in another number format.
type Variant struct {
	Variant    string                             `json:"variant"`
	Bundle     delivery.Digest                    `json:"bundle"` // with thresholds, if the model has any
	Run        delivery.Digest                    `json:"run"`
	Result     delivery.VariantResult             `json:"result"`
	Thresholds map[string]delivery.OperatingPoint `json:"thresholds,omitempty"` // by class; its own
}

// Variant makes a variant of a trained model, as the server does for a pull request.
func (l *Local) Variant(ctx context.Context, mdl delivery.Model, t Trained, name string) (Variant, error) {
	v := Variant{Variant: name}
	if !slices.Contains(mdl.Made(), name) {
		return v, delivery.Blockedf("add it: variants: [fp32, "+name+"]",
			"models/%s.yaml does not list %s under variants", mdl.Name, name)
	}
	input := delivery.VariantRun{Variant: name, Bundle: t.Result.Bundle, Model: t.Result.Model,
		Checkpoint: t.Result.Checkpoint, Train: t.Input}
	v.Run = delivery.VariantKey(input)
	var err error
	if v.Result, err = result[delivery.VariantResult](ctx, l, delivery.RunSpec{Key: v.Run,
		Kind: delivery.RunVariant, Limit: t.Input.Limit, Variant: &input}); err != nil {
		return v, fmt.Errorf("variant %s of %s: %w", name, mdl.Name, err)
	}
	v.Bundle = v.Result.Bundle
	if len(mdl.Thresholds) == 0 {
		return v, nil
	}
	v.Bundle, v.Thresholds, err = l.resolve(ctx, mdl, t, v.Bundle)
	return v, err
}

// resolve finds the thresholds of a bundle of a trained model on its validation split.
func (l *Local) resolve(ctx context.Context, mdl delivery.Model, t Trained, bundle delivery.Digest) (delivery.Digest,
	map[string]delivery.OperatingPoint, error) {
	t.Bundle = bundle
	valid, err := l.input(ctx, t, func(info plan.Bundle, without []delivery.Digest) delivery.EvalRun {
		return l.Server.OwnInput(mdl, t.Data.Valid, bundle, info, without)
	})
	if err != nil {
		return "", nil, err
	}
	found, err := l.thresholds(ctx, mdl.Name, delivery.ThresholdRun{Valid: valid, Ask: mdl.Thresholds})
	return found.Bundle, found.Points, err
}

// As returns the variant of a trained model as a model of its own; FP32 is the model itself.
func (t Trained) As(variant string) (Trained, error) {
	if variant == delivery.FP32 {
		return t, nil
	}
	v, ok := delivery.Find(t.Variants, func(v Variant) bool { return v.Variant == variant })
	if !ok {
		return t, delivery.Blockedf("train it with aob train "+t.Model+" --variant "+variant,
			"%s was trained without the variant %s", t.Model, variant)
	}
	t.Bundle = v.Bundle
	return t, nil
}
