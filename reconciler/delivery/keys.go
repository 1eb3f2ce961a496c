package delivery

// A key is a digest of all the content that affects a result. After a rebase, a squash, a revert, a restart or an
// upgrade the same content has the same key, and the result is reused.

// DataKey is the key of a data run.
func DataKey(r DataRun) Digest { return DigestOf("data/5", r) } // 5: copies and boxes outside the image do not count

// TrainKey is the key of one training run. It leaves out thresholds and variants, which
// are found and made after it, and the dataset's name, whose content counts instead.
func TrainKey(r TrainRun) Digest {
	spec := r.Spec
	spec.Thresholds, spec.Variants = nil, nil
	spec.Train.Seeds = nil
	spec.Dataset = ""
	spec.Classes = make(Classes, len(r.Spec.Classes))
	for i, c := range r.Spec.Classes {
		spec.Classes[i].Name = c.Name
	}
	parent := r.Parent
	switch { // the content counts, not its name
	case r.Checkpoint != "":
		spec.Train.From, parent = StartRelease, r.Checkpoint
	case r.Weights != nil:
		spec.Train.From = StartWeights
	}
	parts := map[string]any{
		"spec": spec, "seed": r.Seed, "training": r.Training, "trainer": r.Trainer, "parent": parent,
		"accelerator": r.Accelerator,
	}
	if r.Weights != nil {
		parts["weights"] = *r.Weights
	}
	if r.Environment != nil { // so that trainings without one keep their keys
		parts["environment"] = *r.Environment
	}
	return DigestOf("train", parts)
}

// VariantKey is the key of the run that makes a variant. The model's content counts, and not how it was trained. The
// training input counts, because images of it calibrate the variant and are compared.
func VariantKey(r VariantRun) Digest {
	parts := map[string]any{"variant": r.Variant, "model": r.Model, "checkpoint": r.Checkpoint,
		"training": r.Train.Training, "seed": r.Train.Seed, "trainer": r.Train.Trainer}
	if r.Train.Environment != nil {
		parts["environment"] = *r.Train.Environment
	}
	return DigestOf("variant", parts)
}

// DetectKey is the key of a model's detections on a set of images.
func DetectKey(model, signature, images Digest, numerics, provider string) Digest {
	return DigestOf("detect", map[string]any{
		"model": model, "signature": signature, "images": images, "numerics": numerics, "provider": provider,
	})
}

// ScoreKey is the key of an eval run. It is separate from DetectKey, so that corrected
// annotations or a new evaluator reuse the stored detections.
func ScoreKey(r EvalRun) Digest {
	parts := map[string]any{
		"detect": r.Detect, "truths": r.Truths, "classes": r.Classes, "protocol": r.Protocol,
		"thresholds": r.Thresholds, "seen": r.TrainingImages, "resamples": r.Resamples,
	}
	if len(r.Measures) > 0 { // so that scores without them keep their keys
		parts["measures"] = r.Measures
	}
	return DigestOf("score/2", parts) // 2: resamples stay paired, class by class
}

// CompareKey is the key of a compare run.
func CompareKey(r CompareRun) Digest {
	return DigestOf("compare", map[string]any{
		"candidate": ScoreKey(r.Candidate), "baseline": ScoreKey(r.Baseline), "resamples": r.Resamples, "seed": r.Seed,
	})
}

// ThresholdKey is the key of a thresholds run.
func ThresholdKey(r ThresholdRun) Digest {
	return DigestOf("thresholds", map[string]any{"bundle": r.Valid.Bundle, "valid": ScoreKey(r.Valid), "ask": r.Ask})
}

// VerdictKey is the key of a gate's verdict. inputs are the keys of the scores and comparisons that it used.
func VerdictKey(gate Digest, inputs []Digest) Digest {
	return DigestOf("verdict", map[string]any{"gate": gate, "inputs": inputs})
}
