package plan

// This file follows a model from one name to the next. A rename sheds nothing:
// the gates of the old name judge the new one, its release is the baseline, its
// quarantine holds, and the versions go on.

import (
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// names returns a model's name and those that it had before, newest first. A name
// that main has given to a model again is that model's.
func (w World) names(model string) []string {
	names := []string{model}
	for {
		was := w.former(names[len(names)-1])
		if _, taken := w.Main.Intent.Models[was]; was == "" || taken || slices.Contains(names, was) {
			return names
		}
		names = append(names, was)
	}
}

// former is what a model of main was called before, by what main accepted, or by
// the statement of what it has still to accept.
func (w World) former(model string) string {
	for _, a := range w.Evidence.Accepted[model] {
		if a.Was != "" {
			return a.Was
		}
	}
	if r, ok := w.Main.Intent.Releases[model]; ok && !w.Evidence.accepted(r) {
		if s, ok := w.Evidence.statement(r, ""); ok {
			return s.Was
		}
	}
	return ""
}

// formerly is what a proposal renames to name; empty for a model that is new, or
// was there before. It is a model of main's that the proposal removes: the one
// with the same spec, or whose fleet or gate now names this one, or else the only
// one that goes while only this one comes. Where people mean to replace a model
// by an unrelated one, they take two pull requests. Of several that it may be, one
// may have an easier bar than another: which it is, nobody can say.
func formerly(w World, p Proposal, name string) []string {
	if _, there := p.Base.Models[name]; there {
		return nil
	}
	if _, there := w.Main.Intent.Models[name]; there {
		return nil
	}
	var gone, was []string
	for _, old := range slices.Sorted(maps.Keys(p.Base.Models)) {
		_, kept := p.Intent.Models[old]
		if _, onMain := w.Main.Intent.Models[old]; !onMain || kept {
			continue
		}
		gone = append(gone, old)
		if p.Base.Models[old].SpecDigest() == p.Intent.Models[name].SpecDigest() || runsInstead(p, old, name) ||
			coversInstead(p, old, name) {
			was = append(was, old)
		}
	}
	if len(was) == 0 && len(gone) == 1 && added(p) == 1 {
		return gone
	}
	return was
}

func runsInstead(p Proposal, old, name string) bool {
	for fleet, f := range p.Base.Fleets {
		if f.Runs == old && p.Intent.Fleets[fleet].Runs == name {
			return true
		}
	}
	return false
}

func coversInstead(p Proposal, old, name string) bool {
	for gate, g := range p.Base.Gates {
		if slices.Contains(g.Covers, old) && slices.Contains(p.Intent.Gates[gate].Covers, name) &&
			!slices.Contains(g.Covers, name) {
			return true
		}
	}
	return false
}

func added(p Proposal) int {
	n := 0
	for name := range p.Intent.Models {
		if _, there := p.Base.Models[name]; !there {
			n++
		}
	}
	return n
}

// goneFromMain says that main has renamed or removed a model since a proposal that
// changes it left main. To add a gate for it would bring the old model back.
func (m *maker) goneFromMain(p Proposal, name string) delivery.Fact {
	was, before := p.Base.Models[name]
	if _, there := m.w.Main.Intent.Models[name]; there || !before {
		return delivery.Fact{}
	}
	var commit string
	for _, past := range m.w.Main.History[name] {
		if past.Release == nil && !past.Side && commit == "" {
			commit = past.Commit
		}
	}
	branch := m.w.Main.Branch
	for _, now := range slices.Sorted(maps.Keys(m.w.Main.Intent.Models)) {
		_, old := p.Base.Models[now]
		if !old && (slices.Contains(m.w.names(now), name) ||
			m.w.Main.Intent.Models[now].SpecDigest() == was.SpecDigest()) {
			return fact(code.ModelRenamedOnMain, values{Branch: branch, FromModel: name, Model: now, Commit: commit})
		}
	}
	return fact(code.ModelRemovedOnMain, values{Branch: branch, Model: name, Commit: commit})
}
