package plan_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// Where a pull request takes another version of the trainer, its report says which defaults are others now.
func TestMovedDefaults(t *testing.T) {
	values := map[string]map[string]any{
		"x@1.10": {"grad_accum_steps": 4.0, "lr": 0.1, "gone": []any{}, "same": "a", "set": 1.0},
		"x@1.11": {"grad_accum_steps": 1.0, "lr": 0.1, "new": nil, "same": "a", "set": 2.0},
		"x@1.12": {"grad_accum_steps": 1.0, "lr": 0.1, "new": nil, "same": "a", "set": 2.0},
		"y@1":    {},
	}
	model := func(with string) delivery.Intent {
		m := delivery.Model{Name: "m", Classes: delivery.Classes{{Name: "a"}}, Train: delivery.Train{With: with,
			From: "none", Seeds: []int64{1}, Args: map[string]any{"set": 3.0}}}
		return delivery.Intent{Models: delivery.NamedOf(map[string]delivery.Model{"m": m})}
	}
	report := func(from, to string, without ...string) delivery.Fact {
		trainers := map[string]delivery.Trainer{}
		for with := range maps.Keys(values) {
			if !slices.Contains(without, with) {
				trainers[with] = delivery.Trainer{Values: values[with]}
			}
		}
		w := plan.World{ProposalsKnown: true, Main: plan.Main{Branch: "main", Commit: "c", Intent: model(from)},
			Server: plan.Server{Trainers: trainers}, Proposals: []plan.Proposal{{
				PullRequest: delivery.PullRequest{Number: 3, Head: "h", Base: "main"},
				Permission:  delivery.PermissionWrite, Bases: []string{"c"},
				Intent: model(to), Base: model(from), Merged: model(to)}}}
		p := plan.Make(w)
		if len(p.Proposals) != 1 || len(p.Proposals[0].Models) != 1 {
			t.Fatalf("%s -> %s: %+v", from, to, p.Proposals)
		}
		return p.Proposals[0].Models[0].Moved
	}
	got := report("x@1.10", "x@1.11")
	want := []string{"gone is gone: it was []", "grad_accum_steps 4 -> 1", "new is new: null"}
	if got.Code != code.DefaultsMoved || got.FromModel != "x@1.10" || !slices.Equal(got.Names, want) {
		t.Errorf("got %s, want %q", got, want)
	}
	if got := report("x@1.11", "x@1.12"); got.Code != code.DefaultsMoved || len(got.Names) > 0 {
		t.Errorf("without a change: %s", got)
	}
	if got := report("x@1.10", "x@1.11", "x@1.10"); got.Code != code.DefaultsUnknown {
		t.Errorf("of a version that the server no longer has: %s", got)
	}
	if got := report("x@1.10", "y@1"); !got.IsZero() {
		t.Errorf("another trainer: %s", got)
	}
}
