package plan

// This file reads the check of a model's dataset, and says what its gates can show.

import (
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
)

// readData fills the aob/data stage: the dataset's digest and checks, and the eval sets of the gates, also those of
// fleets. It reports whether the data can be used.
func (m *maker) readData(r *progress, gates []judged, fleets ...fleetGates) bool {
	for _, b := range fleets {
		gates = slices.Concat(gates, b.gates)
	}
	input := DataInput(r.model, delivery.Each(gates, func(j judged) delivery.Gate { return j.gate }))
	for _, name := range r.names { // of main's model, by its former name too
		if main, ok := m.w.Main.Intent.Models.Get(name); ok && main.Dataset != r.model.Dataset {
			input.Before = &main.Dataset
			break
		}
	}
	r.dataKey = delivery.DataKey(input)
	var stage Stage
	r.data, stage = resultOf[delivery.DataResult](r.run, delivery.RunSpec{Key: r.dataKey, Kind: delivery.RunData,
		Limit: m.w.Server.DataTime, Data: &input}, code.DataUnreadable)
	if stage.State == delivery.CheckSuccess {
		r.Data = &r.data
		r.DataChanged = m.changedData(r)
		if r.data.Failed() {
			stage = failed(findings(r.data.Findings, delivery.LevelError))
		} else {
			blind, missing := withoutTruths(r.model, gates, r.data)
			if !blind.IsZero() {
				stage = failed(blind)
			} else {
				facts := append([]delivery.Fact{dataFact(r.model, r.data), missing}, m.weak(r, gates)...)
				stage.Fact = several(append(facts, r.DataChanged)...)
			}
		}
	}
	r.stage(delivery.ContextData, stage.State, stage.Fact)
	return stage.State == delivery.CheckSuccess
}

// dataFact returns what a data run found.
func dataFact(mdl delivery.Model, result delivery.DataResult) delivery.Fact {
	return several(fact(code.DataReady, values{Dataset: mdl.Dataset.String(), Bundle: result.Content,
		Counts: map[string]int{"train": result.Images["train"], "valid": result.Images["valid"],
			"leftOut": result.LeftOut}}), warnings(result.Findings, ofDrift), warnings(result.Findings, ofScenes),
		findings(slices.DeleteFunc(slices.Clone(result.Findings), func(f delivery.Finding) bool {
			return slices.Contains(ofDrift, f.Code) || slices.Contains(ofScenes, f.Code)
		}), delivery.LevelWarning))
}

// warnings returns the first warning with one of some codes, and how many more there are.
func warnings(list []delivery.Finding, codes []string) delivery.Fact {
	return findings(slices.DeleteFunc(slices.Clone(list), func(f delivery.Finding) bool {
		return !slices.Contains(codes, f.Code)
	}), delivery.LevelWarning)
}

// withoutTruths returns why the gates' eval sets cannot decide: the first check that needs objects, on an eval set
// without any; or else the classes of the first eval set that has no object of them.
func withoutTruths(mdl delivery.Model, gates []judged, data delivery.DataResult) (blind, missing delivery.Fact) {
	for _, j := range gates {
		content, ok := contentOf(data, j.gate.Evaluate)
		if !ok {
			continue
		}
		var without []string
		has := 0
		classes := j.gate.LabelMap(mdl.Classes)
		for _, c := range classes[:len(j.gate.Classes)] {
			if len(classes.Called(c.Name, mdl.Classes.Names())) == 0 {
				continue // the model lacks it, which is said elsewhere
			}
			has++
			if !slices.ContainsFunc(c.Labels, func(l string) bool { return slices.Contains(content.Labels, l) }) {
				without = append(without, c.Name)
			}
		}
		needs := slices.IndexFunc(j.gate.Checks, gate.NeedsTruths)
		if len(without) == 0 || needs < 0 {
			continue
		}
		v := values{Gate: j.name, EvalSet: content.EvalSet.String(), Names: without,
			Metric: j.gate.Checks[needs].Metric}
		if len(without) == has {
			return fact(code.DataNoTruths, v), missing
		}
		if v.Metric = ""; missing.IsZero() {
			missing = fact(code.DataNoTruthOfClass, v)
		}
	}
	return blind, missing
}

// weak returns the checks that a model as good as the release is likely not to pass, because the eval set is too small:
// the worst one of each gate on main whose eval set has scores of the release.
func (m *maker) weak(r *progress, gates []judged) (list []delivery.Fact) {
	if r.Baseline == nil {
		return nil
	}
	for _, j := range gates {
		score, ok := m.storedScore(r.model, r.Baseline.Bundle, j.gate)
		if !ok {
			continue
		}
		var worst gate.Power
		for _, p := range m.power(j.name, r.Model, j.gate, score).Checks {
			if p.EqualPasses < 0.5 && p.Need > worst.Need {
				worst = p
			}
		}
		if worst.Need > 0 {
			list = append(list, fact(code.DataWeak, values{Gate: j.name, Images: worst.Images, Text: worst.Check,
				Count: max(1, int(100*worst.EqualPasses)), Limit: worst.Need}))
		}
	}
	return list
}

// findings returns the first finding of a level, and how many more there are.
func findings(list []delivery.Finding, level string) delivery.Fact {
	var first delivery.Fact
	n := 0
	for _, f := range list {
		if f.Level == level {
			if n == 0 {
				first = fact(code.Finding, values{File: f.Place(), Text: f.Text})
			}
			if n++; len(f.Places) == 0 {
				n += max(1, f.Count) - 1
			}
		}
	}
	first.Count = max(0, n-1)
	return first
}
