package plan

import (
	"slices"
	"testing"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// An eval set without objects is an error only for a check that needs some. Classes without objects are told.
func TestWithoutTruths(t *testing.T) {
	mdl := delivery.Model{Name: "shapes", Classes: delivery.Classes{{Name: "circle", Labels: []string{"disc"}},
		{Name: "square", Labels: []string{"square"}}}}
	e := delivery.EvalSet{Dataset: delivery.Dataset{Source: "dir", Path: "gold"}, Split: "test"}
	half := 0.5
	share := delivery.GateCheck{Metric: "mAP", Min: &half}
	wrong := delivery.GateCheck{Metric: delivery.MetricFalsePositives}
	size := delivery.GateCheck{Metric: delivery.MetricSize}
	type checks = []delivery.GateCheck
	both := []string{"circle", "square"}
	for name, test := range map[string]struct {
		labels  []string
		checks  checks
		classes []string // of the gate
		code    delivery.Code
		names   []string
	}{
		"objects of all":          {both, checks{share}, both, "", nil},
		"none":                    {nil, checks{size, share}, both, code.DataNoTruths, both},
		"none is needed":          {nil, checks{wrong, size}, both, "", nil},
		"one class":               {[]string{"square"}, checks{wrong, share}, both, code.DataNoTruthOfClass, both[:1]},
		"other classes only":      {[]string{"star"}, checks{share}, both, code.DataNoTruths, both},
		"the model's label":       {[]string{"disc", "square"}, checks{share}, both, code.DataNoTruthOfClass, both[:1]},
		"a class it has not got":  {both, checks{share}, append(both, "star"), "", nil},
		"a class not in the gate": {[]string{"square"}, checks{share}, []string{"square"}, "", nil},
	} {
		g := delivery.Gate{Evaluate: e, Classes: test.classes, Checks: test.checks}
		data := delivery.DataResult{EvalSets: []delivery.EvalSetContent{{EvalSet: e, Labels: test.labels}}}
		blind, missing := withoutTruths(mdl, []judged{{name: "production", gate: g}}, data)
		got := blind
		if blind.IsZero() {
			got = missing
		} else if !missing.IsZero() {
			t.Errorf("%s: two facts", name)
		}
		if got.Code != test.code || !slices.Equal(got.Names, test.names) {
			t.Errorf("%s: got %s of %v, want %s of %v", name, got.Code, got.Names, test.code, test.names)
		}
	}
}
