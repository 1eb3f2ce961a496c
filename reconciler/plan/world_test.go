package plan

import (
	"slices"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// trainedOn is the evidence of a bundle and its training.
func trainedOn(bundle, seen, parent delivery.Digest) Trained {
	return Trained{Bundle: bundle, Training: delivery.Training{Run: "run-" + bundle,
		Input: delivery.TrainRun{Parent: parent}, Data: delivery.DataResult{TrainingImages: seen},
		Result: delivery.TrainResult{Bundle: bundle, Model: "model-" + bundle}}}
}

// What a model saw is what it was trained on and all that it was fine-tuned from were,
// also where thresholds were added.
func TestSeen(t *testing.T) {
	e := Evidence{ByRun: map[delivery.Digest]Trained{}, Bundles: map[delivery.Digest]Bundle{},
		Resolved: map[delivery.Digest]delivery.Resolved{
			"t": {Input: delivery.ThresholdRun{Valid: delivery.EvalRun{Bundle: "c", Model: "model-c"}},
				Result: delivery.ThresholdResult{Bundle: "with"}}}}
	for _, t := range []Trained{trainedOn("a", "gold", ""), trainedOn("b", "day", "a"), trainedOn("c", "night", "b"),
		trainedOn("round", "x", "round")} {
		e.ByRun[t.Training.Run] = t
	}
	for bundle, want := range map[delivery.Digest][]delivery.Digest{
		"a": {"gold"}, "c": {"day", "gold", "night"}, "with": {"day", "gold", "night"}, "round": {"x"}, "unknown": nil,
	} {
		if got := e.trainingImages(bundle); !slices.Equal(got, want) {
			t.Errorf("%s saw %v, want %v", bundle, got, want)
		}
	}
	// What a bundle weighs is known when the registry has lost it, too.
	e.Bundles["b"] = Bundle{Model: "model-b"}
	for bundle, want := range map[delivery.Digest]delivery.Digest{"a": "model-a", "b": "model-b", "with": "model-c",
		"unknown": ""} {
		if got := e.weights(bundle); got != want {
			t.Errorf("the weights of %s are %q, want %q", bundle, got, want)
		}
	}
}
