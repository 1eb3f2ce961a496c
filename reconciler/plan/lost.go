package plan

// This file finds gates that main removed or weakened although no pull request showed it to reviewers, as by a push or
// by a merge that kept the wrong side.

import (
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A LostGate is a gate before a commit of main removed or weakened it, where no pull request showed that.
type LostGate struct {
	Gate   delivery.Gate
	Commit string
}

// lostGates says which gates main lost.
func (m *maker) lostGates() []delivery.Fact {
	var list []delivery.Fact
	for _, l := range m.w.Main.Lost {
		c := code.GateLost
		if _, there := m.w.Main.Intent.Gates.Get(l.Gate.Name); there {
			c = code.GateWeakened
		}
		list = append(list, fact(c, values{Branch: m.w.Main.Branch, Gate: l.Gate.Name, Commit: l.Commit}))
	}
	return list
}

// Weaker reports whether a tree's gates are less strict than a gate was, for a model that the tree still has. A gate
// that is renamed or made stricter is not weaker.
func Weaker(old delivery.Gate, tree delivery.Intent) bool {
	for _, model := range old.Covers {
		if _, there := tree.Models.Get(model); !there {
			if model = renamedTo(model, tree); model == "" {
				continue
			}
		}
		if !slices.ContainsFunc(tree.Covering(model), func(name string) bool {
			return atLeastAsStrict(tree.Gates.Of(name), old)
		}) {
			return true
		}
	}
	return false
}

// renamedTo returns the present name of a renamed model; empty where the tree does not tell.
func renamedTo(old string, tree delivery.Intent) string {
	for _, name := range tree.Models.Names() {
		if tree.Models.Of(name).RenamedFrom == old {
			return name
		}
	}
	return ""
}

// atLeastAsStrict reports whether gate g is at least as strict as another.
func atLeastAsStrict(g, other delivery.Gate) bool {
	if g.Evaluate != other.Evaluate || g.Looks != other.Looks && (g.Looks == 0 || other.Looks != 0 &&
		g.Looks > other.Looks) ||
		delivery.DigestOf("labels", g.Labels) != delivery.DigestOf("labels", other.Labels) {
		return false
	}
	if len(other.Classes) > 0 && !slices.Equal(slices.Sorted(slices.Values(g.Classes)),
		slices.Sorted(slices.Values(other.Classes))) { // gates of older versions have no classes
		return false
	}
	for _, owner := range g.Owners { // owners may accept unsure verdicts
		if !slices.Contains(other.Owners, owner) {
			return false
		}
	}
	for _, licence := range g.Licences() {
		if !slices.Contains(other.Licences(), licence) {
			return false
		}
	}
	for _, c := range other.Checks {
		if !slices.ContainsFunc(g.Checks, func(n delivery.GateCheck) bool { return checkAtLeastAsStrict(n, c) }) {
			return false
		}
	}
	return true
}

// checkAtLeastAsStrict reports whether a check is at least as strict as another.
func checkAtLeastAsStrict(c, other delivery.GateCheck) bool {
	if c.Min != nil && other.Min != nil && *c.Min >= *other.Min {
		c.Min = other.Min
	}
	if c.MaxDrop != nil && other.MaxDrop != nil && *c.MaxDrop <= *other.MaxDrop {
		c.MaxDrop = other.MaxDrop
	}
	return delivery.DigestOf("check", c) == delivery.DigestOf("check", other)
}
