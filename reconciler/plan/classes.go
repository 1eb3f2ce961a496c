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
		branch := ""
		if !j.proposed {
			branch = m.w.Main.Branch
		}
		if why := wrongClass(mdl, j.name, j.gate, branch); !why.IsZero() {
			return why
		}
	}
	return delivery.Fact{}
}

// wrongClass says which class of a gate a model lacks, or has twice. branch is where the gate is, if not in the model's
// own tree.
func wrongClass(mdl delivery.Model, name string, g delivery.Gate, branch string) delivery.Fact {
	reads := g.LabelMap(nil)
	for i, class := range g.Classes {
		v := values{Model: mdl.Name, Gate: name, Class: class, Names: reads.Called(class, mdl.Classes.Names()),
			Branch: branch}
		switch {
		case len(v.Names) == 0:
			v.Names = otherClasses(mdl, reads)
			v.Labels = reads[i].Labels
			return fact(code.ClassMissing, v)
		case len(v.Names) > 1:
			return fact(code.ClassTwice, v)
		}
	}
	return delivery.Fact{}
}

// WrongClasses says of models, by name, which class they lack that a gate of the same tree requires, or have twice.
func WrongClasses(in delivery.Intent) map[string][]delivery.Fact {
	found := map[string][]delivery.Fact{}
	for _, name := range in.Gates.Names() {
		for _, model := range in.Gates.Of(name).Covers {
			if mdl, ok := in.Models.Get(model); ok {
				if why := wrongClass(mdl, name, in.Gates.Of(name), ""); !why.IsZero() {
					found[model] = append(found[model], why)
				}
			}
		}
	}
	return found
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
