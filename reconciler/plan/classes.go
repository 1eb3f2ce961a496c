package plan

// This file checks that a model has the classes of its gates. Other classes of the model are shown and never counted.

import (
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// wrongClasses says which class of a gate a model lacks, or has twice.
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
				v.Names = otherClasses(mdl, reads)
				v.Labels = reads[i].Labels
				return fact(code.ClassMissing, v)
			case len(v.Names) > 1:
				return fact(code.ClassTwice, v)
			}
		}
	}
	return delivery.Fact{}
}

// classesOf lists those classes of a gate that a model has, by the gate's names.
func classesOf(mdl delivery.Model, g delivery.Gate) []string {
	reads := g.LabelMap(nil)
	return slices.DeleteFunc(slices.Clone(g.Classes), func(class string) bool {
		return len(reads.Called(class, mdl.Classes.Names())) == 0
	})
}

// otherClasses lists the classes of a model that a gate does not know.
func otherClasses(mdl delivery.Model, reads delivery.Classes) []string {
	return slices.DeleteFunc(mdl.Classes.Names(), func(name string) bool {
		return slices.ContainsFunc(reads, func(c delivery.Class) bool {
			return c.Name == name || slices.Contains(c.Labels, name)
		})
	})
}
