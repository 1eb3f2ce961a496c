package delivery

// The keys. Each is a function of the content that decides the result, so a
// rebase, a squash, a revert, a restart or an upgrade finds what was computed,
// and nothing else does.

// DataKey is the key of a data run.
func DataKey(r DataRun) Digest { return DigestOf("data/4", r) } // 4: an eval set's truths are named by their own labels

// TrainKey is the run key of one training: the spec without what is resolved
// after training, the seed, and the digests of all that goes in.
func TrainKey(r TrainRun) Digest {
	spec := r.Spec
	spec.Thresholds, spec.Variants = nil, nil
	spec.Train.Seeds = nil
	spec.Dataset = "" // its content counts, not its name
	spec.Classes = make(Classes, len(r.Spec.Classes))
	for i, c := range r.Spec.Classes {
		spec.Classes[i].Name = c.Name
	}
	return DigestOf("train", map[string]any{
		"spec": spec, "seed": r.Seed, "training": r.Training, "trainer": r.Trainer, "parent": r.Parent,
		"accelerator": r.Accelerator,
	})
}

// DetectKey is the key of stored detections.
func DetectKey(model, signature, images Digest, numerics, provider string) Digest {
	return DigestOf("detect", map[string]any{
		"model": model, "signature": signature, "images": images, "numerics": numerics, "provider": provider,
	})
}

// ScoreKey is the key of an eval run: a corrected label or another evaluator
// scores stored detections again and infers nothing.
func ScoreKey(r EvalRun) Digest {
	parts := map[string]any{
		"detect": r.Detect, "truths": r.Truths, "classes": r.Classes, "protocol": r.Protocol,
		"thresholds": r.Thresholds, "seen": r.TrainingImages, "resamples": r.Resamples,
	}
	if len(r.Measures) > 0 { // scores without them keep their keys
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

// ThresholdKey is the key of a thresholds run: what is asked, of which bundle, by
// which detections and truths.
func ThresholdKey(r ThresholdRun) Digest {
	return DigestOf("thresholds", map[string]any{"bundle": r.Valid.Bundle, "valid": ScoreKey(r.Valid), "ask": r.Ask})
}

// VerdictKey is the key of a gate's answer: the gate and everything that it read.
func VerdictKey(gate Digest, inputs []Digest) Digest {
	return DigestOf("verdict", map[string]any{"gate": gate, "inputs": inputs})
}
