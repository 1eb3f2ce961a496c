package plan

// This file handles renamed models. A model's file names its former name, as was: NAME. The former name's gates judge
// it, its release is the baseline, its quarantine holds and its versions go on. A release statement records the former
// name, so the line may be removed after a release of the new name.

import (
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// names returns a model's name and its former names, newest first. A former name that another model on main has now
// does not count.
func (w World) names(model string) []string {
	names := []string{model}
	for {
		former := w.formerName(names[len(names)-1])
		if _, taken := w.Main.Intent.Models.Get(former); former == "" || taken || slices.Contains(names, former) {
			return names
		}
		names = append(names, former)
	}
}

// formerName returns a model's former name: from main's file, the newest accepted release that records one, or the
// statement of the release that main has not accepted yet.
func (w World) formerName(model string) (former string) {
	if former = w.Main.Intent.Models.Of(model).RenamedFrom; former != "" {
		return former
	}
	version := 0
	for _, a := range w.Evidence.Accepted[model] {
		if a.RenamedFrom != "" && a.Version > version {
			former, version = a.RenamedFrom, a.Version
		}
	}
	if r, ok := w.Main.Intent.Releases.Get(model); ok && former == "" && !w.Evidence.accepted(r) {
		if s, ok := w.Evidence.statement(r, ""); ok {
			return s.RenamedFrom
		}
	}
	return former
}

// modelNamed returns the model on main that has a name now or had it before; empty for none.
func (w World) modelNamed(name string) string {
	if w.Main.Intent.Models.Has(name) {
		return name // no other model's former name counts then
	}
	for _, model := range w.renamedModels() {
		if slices.Contains(w.names(model), name) {
			return model
		}
	}
	return ""
}

// renames returns the model on main that a proposal renames to a name, empty for none, and all names of the renamed
// model, newest first.
func (w World) renames(p Proposal, name string) (from string, names []string) {
	former := p.Merged.Models.Of(name).RenamedFrom
	if _, there := w.Main.Intent.Models.Get(name); there || former == "" {
		return "", w.names(name)
	}
	if from = w.modelNamed(former); from != "" {
		former = from
	}
	names = slices.DeleteFunc(w.names(former), func(n string) bool { return n == name })
	return from, append([]string{name}, names...)
}

// renamedAway reports whether a proposal renames a model of main.
func (m *maker) renamedAway(p Proposal, model string) bool {
	for name := range p.Merged.Models.All() {
		if from, _ := m.w.renames(p, name); from == model {
			return true
		}
	}
	return false
}

// newModels lists the models that a proposal adds without a former name.
func newModels(p Proposal) []string {
	return slices.DeleteFunc(p.Intent.Models.Names(), func(name string) bool {
		_, there := p.Base.Models.Get(name)
		return there || p.Intent.Models.Of(name).RenamedFrom != ""
	})
}

// recordsRename reports whether an accepted release records a model's former name.
func (e Evidence) recordsRename(model, former string) bool {
	return slices.ContainsFunc(e.Accepted[model], func(a delivery.Acceptance) bool { return a.RenamedFrom == former })
}

// wrongNames finds a was: line that names no model which the proposal renames, the removal of a line before a release
// has recorded the former name, and a new model with the former name of another one. The latter would take its history
// away, and fleets could be moved to it past the gates of the renamed model.
func (m *maker) wrongNames(p Proposal) delivery.Fact {
	if p.Landed || m.w.Evidence.Unknown || !m.w.MainUnknown().IsZero() {
		return delivery.Fact{} // it is not known which models main has had
	}
	main := m.w.Main.Intent.Models
	names := slices.Concat(main.Keyed(delivery.KeyRenamed), p.Merged.Models.Keyed(delivery.KeyRenamed),
		main.Changed(p.Merged.Models, func(string) bool { return true })) // the last are those that only one has
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if !p.Merged.Models.Has(name) {
			continue
		}
		former := p.Merged.Models.Of(name).RenamedFrom
		v := values{Model: name, FromModel: former, Branch: m.w.Main.Branch}
		before, there := main.Get(name)
		if there && before.RenamedFrom != "" && before.RenamedFrom != former &&
			!m.w.Evidence.recordsRename(name, before.RenamedFrom) {
			v.FromModel = before.RenamedFrom
			return fact(code.WasForgotten, v)
		}
		owner := ""
		if !there {
			owner = m.w.modelNamed(name)
		}
		if owner != "" && m.w.modelNamed(former) != owner {
			_, ownerStays := p.Merged.Models.Get(owner)
			if _, back := m.rollsBackTo(p, name); ownerStays || !back { // back: as in a git revert of the rename
				v.FromModel = owner
				if !ownerStays {
					v.Names = []string{owner}
				}
				return fact(code.WasTaken, v)
			}
		}
		if former == "" || there && slices.Contains(m.w.names(name), former) {
			continue
		}
		from := m.w.modelNamed(former)
		_, stays := p.Merged.Models.Get(from)
		switch {
		case there:
			return fact(code.WasOfOldModel, v)
		case from == "" && len(m.w.Evidence.Accepted[former]) == 0:
			v.Names = main.Names()
			return fact(code.WasUnknown, v)
		case from != "" && stays:
			v.Names = []string{from}
			return fact(code.WasStays, v)
		case from != "" && from == former && main.Of(from).RenamedFrom != "" && len(m.w.Evidence.Accepted[from]) == 0:
			v.Names = []string{main.Of(from).RenamedFrom}
			return fact(code.WasUnreleased, v)
		}
	}
	return delivery.Fact{}
}

// missingOnMain says that main has renamed or removed a model since the proposal's base. Otherwise the proposal would
// bring the old model back.
func (m *maker) missingOnMain(p Proposal, name string) delivery.Fact {
	_, before := p.Base.Models.Get(name)
	_, kept := p.Intent.Models.Get(name)
	if _, there := m.w.Main.Intent.Models.Get(name); there || !before || !kept || p.Landed {
		return delivery.Fact{}
	}
	var commit string
	var pulls []int
	for _, past := range m.history(name) {
		if past.Release == nil && !past.Side && commit == "" {
			commit = past.Commit
			if past.Pull > 0 {
				pulls = []int{past.Pull}
			}
		}
	}
	branch := m.w.Main.Branch
	for _, now := range m.w.Main.Intent.Models.Names() {
		_, old := p.Base.Models.Get(now)
		if !old && slices.Contains(m.w.names(now), name) {
			return fact(code.ModelRenamedOnMain, values{Branch: branch, FromModel: name, Model: now, Commit: commit,
				PRs: pulls})
		}
	}
	return fact(code.ModelRemovedOnMain, values{Branch: branch, Model: name, Commit: commit, PRs: pulls})
}
