package plan

// This file holds a model to the classes that gates name. What else it detects is shown and never counted.

import (
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// wrongClasses says where a model lacks a class of a gate, or has two that mean the same one.
func (m *maker) wrongClasses(mdl delivery.Model, gates []judged) delivery.Fact {
	for _, j := range gates {
		reads := j.gate.LabelMap(nil)
		for i, class := range j.gate.Classes {
			v := values{Model: mdl.Name, Gate: j.name, Class: class, Names: reads.Called(class, mdl.Classes.Names())}
			if !j.proposed {
				v.Branch = m.w.Main.Branch
			}
			switch {
			case len(v.Names) == 0:
				v.Names = strangers(mdl, reads)
				v.Labels = reads[i].Labels
				return fact(code.ClassMissing, v)
			case len(v.Names) > 1:
				return fact(code.ClassTwice, v)
			}
		}
	}
	return delivery.Fact{}
}

// classesOf lists the classes of a gate that a model has, by the gate's names.
func classesOf(mdl delivery.Model, g delivery.Gate) []string {
	reads := g.LabelMap(nil)
	return slices.DeleteFunc(slices.Clone(g.Classes), func(class string) bool {
		return len(reads.Called(class, mdl.Classes.Names())) == 0
	})
}

// strangers are a model's classes that a gate does not know.
func strangers(mdl delivery.Model, reads delivery.Classes) []string {
	return slices.DeleteFunc(mdl.Classes.Names(), func(name string) bool {
		return slices.ContainsFunc(reads, func(c delivery.Class) bool {
			return c.Name == name || slices.Contains(c.Labels, name)
		})
	})
}
