package work

import (
	"slices"
	"testing"
)

// A container sees what run.json names, and nothing else: a training its weights or its parent, a variant the model and
// the checkpoint that it is made of.
func TestInputsAreWhatRunJSONNames(t *testing.T) {
	for _, c := range []struct {
		run  trainerRun
		want []string
	}{
		{trainerRun{Dataset: "/d"}, []string{"/d"}},
		{trainerRun{Dataset: "/d", Weights: &trainerWeights{File: "/w"}}, []string{"/d", "/w"}},
		{trainerRun{Dataset: "/d", Parent: &trainerParent{Checkpoint: "/p"}}, []string{"/d", "/p"}},
		{trainerRun{Dataset: "/d", Variant: &trainerVariant{Model: "/m", Checkpoint: "/c"}},
			[]string{"/d", "/m", "/c"}},
		{trainerRun{Dataset: "/d", Variant: &trainerVariant{Model: "/m"}}, []string{"/d", "/m"}},
	} {
		if got := c.run.inputs(); !slices.Equal(got, c.want) {
			t.Errorf("%+v: got %q, want %q", c.run, got, c.want)
		}
	}
}
