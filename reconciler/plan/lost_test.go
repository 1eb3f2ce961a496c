package plan_test

import (
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

func TestWeaker(t *testing.T) {
	floor := func(v float64) []delivery.GateCheck { return []delivery.GateCheck{{Metric: "mAP", Min: &v}} }
	was := delivery.Gate{Name: "g", Covers: []string{"shapes"}, Classes: []string{"a", "b"}, Checks: floor(0.5)}
	for name, c := range map[string]struct {
		model  delivery.Model
		change func(g *delivery.Gate)
		weaker bool
	}{
		"the same": {delivery.Model{Name: "shapes"}, func(*delivery.Gate) {}, false},
		"classes in another order": {delivery.Model{Name: "shapes"},
			func(g *delivery.Gate) { g.Classes = []string{"b", "a"} }, false},
		"a class less": {delivery.Model{Name: "shapes"}, func(g *delivery.Gate) { g.Classes = []string{"a"} }, true},
		"a class more": {delivery.Model{Name: "shapes"}, // an easy one lifts a mean
			func(g *delivery.Gate) { g.Classes = []string{"a", "b", "c"} }, true},
		"other labels": {delivery.Model{Name: "shapes"},
			func(g *delivery.Gate) { g.Labels = delivery.Labels{"a": {"a", "x"}} }, true},
		"a lower floor":     {delivery.Model{Name: "shapes"}, func(g *delivery.Gate) { g.Checks = floor(0.4) }, true},
		"a higher floor":    {delivery.Model{Name: "shapes"}, func(g *delivery.Gate) { g.Checks = floor(0.6) }, false},
		"the model is gone": {delivery.Model{Name: "other"}, func(g *delivery.Gate) { g.Covers = nil }, false},
		"the model is renamed, with its gate": {delivery.Model{Name: "forms", RenamedFrom: "shapes"},
			func(g *delivery.Gate) { g.Covers = []string{"forms"} }, false},
		"the model is renamed, and its gate is lower": {delivery.Model{Name: "forms", RenamedFrom: "shapes"},
			func(g *delivery.Gate) { g.Covers, g.Checks = []string{"forms"}, floor(0.4) }, true},
	} {
		g := was
		c.change(&g)
		tree := delivery.Intent{Models: delivery.NamedOf(map[string]delivery.Model{c.model.Name: c.model}),
			Gates: delivery.NamedOf(map[string]delivery.Gate{"g": g})}
		if got := plan.Weaker(was, tree); got != c.weaker {
			t.Errorf("%s: weaker is %v, want %v", name, got, c.weaker)
		}
	}
	from := was // before gates had classes
	from.Classes = nil
	tree := delivery.Intent{Models: delivery.NamedOf(map[string]delivery.Model{"shapes": {}}),
		Gates: delivery.NamedOf(map[string]delivery.Gate{"g": was})}
	if plan.Weaker(from, tree) {
		t.Error("a gate that gets classes is weaker")
	}
}
