package stage

// This file makes the variants of a trained model.

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/words"
)

// A Variant is a trained model in another number format.
type Variant struct {
	Variant    string                             `json:"variant"`
	Bundle     delivery.Digest                    `json:"bundle"` // with thresholds, if the model has any
	Run        delivery.Digest                    `json:"run"`
	Result     delivery.VariantResult             `json:"result"`
	Thresholds map[string]delivery.OperatingPoint `json:"thresholds,omitempty"` // by class; its own
}

// Variant makes a variant of a trained model, as the server does for a pull request: with the present trainer, unless
// the folder has it already.
func (l *Local) Variant(ctx context.Context, mdl delivery.Model, t Trained, name string, fresh bool) (Variant, error) {
	v := Variant{Variant: name}
	if !slices.Contains(mdl.Made(), name) {
		return v, delivery.Blockedf("add it: variants: [fp32, "+name+"]",
			"models/%s.yaml does not list %s under variants", mdl.Name, name)
	}
	now, why := l.Server.TrainInput(mdl, t.Seed, t.Input.Data, t.Data)
	if !why.IsZero() {
		return v, errors.New(words.Text(why))
	}
	train := t.Input
	train.Trainer, train.Environment = now.Trainer, now.Environment
	input := delivery.VariantRun{Variant: name, Bundle: t.Result.Bundle, Model: t.Result.Model,
		Checkpoint: t.Result.Checkpoint, Train: train}
	var err error
	if fresh {
		err = l.removeDone(delivery.VariantKey(input))
	} else {
		input, err = l.keptVariant(input)
	}
	if err != nil {
		return v, err
	}
	v.Run = delivery.VariantKey(input)
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
