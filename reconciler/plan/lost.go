package plan

// This file finds what main's gates no longer ask for. A pull request may lower a
// gate: its reviewers see it. A push, or a merge that took the wrong side, lowers
// one unseen.

import (
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A LostGate is a gate as it was before a commit of main removed or weakened it, and
// no pull request showed that.
type LostGate struct {
	Gate   delivery.Gate
	Commit string
}

// lostGates says which gates main lost unseen.
func (m *maker) lostGates() []delivery.Fact {
	var list []delivery.Fact
	for _, l := range m.w.Main.Lost {
		c := code.GateLost
		if _, there := m.w.Main.Intent.Gates[l.Gate.Name]; there {
			c = code.GateWeakened
		}
		list = append(list, fact(c, values{Branch: m.w.Main.Branch, Gate: l.Gate.Name, Commit: l.Commit}))
	}
	return list
}

// Weaker reports whether a tree asks less than a gate did: of a model that the tree
// still has, or by the gate's owners. A gate that is renamed, or asks for more, asks
// no less.
func Weaker(was delivery.Gate, tree delivery.Intent) bool {
	for _, model := range was.Covers {
		if _, there := tree.Models[model]; !there {
			if model = renamedTo(model, tree); model == "" {
				continue
			}
		}
		if !slices.ContainsFunc(tree.Covering(model), func(name string) bool {
			return asksAtLeast(tree.Gates[name], was)
		}) {
			return true
		}
	}
	return false
}

// renamedTo is what a tree says that a model is called now; empty where it does not say so.
func renamedTo(was string, tree delivery.Intent) string {
	for _, name := range slices.Sorted(maps.Keys(tree.Models)) {
		if tree.Models[name].RenamedFrom == was {
			return name
		}
	}
	return ""
}

// asksAtLeast reports whether whatever passes a gate would pass another.
func asksAtLeast(g, other delivery.Gate) bool {
	if g.Evaluate != other.Evaluate || g.Looks != other.Looks && (g.Looks == 0 || other.Looks != 0 &&
		g.Looks > other.Looks) ||
		delivery.DigestOf("labels", g.Labels) != delivery.DigestOf("labels", other.Labels) {
		return false
	}
	if len(other.Classes) > 0 && !slices.Equal(slices.Sorted(slices.Values(g.Classes)),
		slices.Sorted(slices.Values(other.Classes))) { // a gate from before named none
		return false
	}
	for _, owner := range g.Owners { // who may settle a doubt
		if !slices.Contains(other.Owners, owner) {
			return false
		}
	}
	for _, c := range other.Checks {
		if !slices.ContainsFunc(g.Checks, func(n delivery.GateCheck) bool { return holdsTo(n, c) }) {
			return false
		}
	}
	return true
}

// holdsTo reports whether a check is at least as strict as another.
func holdsTo(c, other delivery.GateCheck) bool {
	if c.Min != nil && other.Min != nil && *c.Min >= *other.Min {
		c.Min = other.Min
	}
	if c.MaxDrop != nil && other.MaxDrop != nil && *c.MaxDrop <= *other.MaxDrop {
		c.MaxDrop = other.MaxDrop
	}
	return delivery.DigestOf("check", c) == delivery.DigestOf("check", other)
}
