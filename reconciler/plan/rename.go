package plan

// This file follows a model from one name to the next. Its file says so: was: NAME. The gates of the former name judge
// it, its release is the baseline, its quarantine holds, and the versions go on. A release statement remembers the
// former name, so the line may go once a release of the new name is on main.

import (
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// names returns a model's name and its former ones, newest first. A former name that main has given to a model again is
// that model's.
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

// former is what a model was called before: by main's file, by the newest release that main accepted, or by the
// statement of the release that it has still to accept.
func (w World) former(model string) (was string) {
	if was = w.Main.Intent.Models[model].RenamedFrom; was != "" {
		return was
	}
	version := 0
	for _, a := range w.Evidence.Accepted[model] {
		if a.RenamedFrom != "" && a.Version > version {
			was, version = a.RenamedFrom, a.Version
		}
	}
	if r, ok := w.Main.Intent.Releases[model]; ok && was == "" && !w.Evidence.accepted(r) {
		if s, ok := w.Evidence.statement(r, ""); ok {
			return s.RenamedFrom
		}
	}
	return was
}

// called finds the model of main that has a name now, or had it before; empty where there is none.
func (w World) called(name string) string {
	for _, model := range slices.Sorted(maps.Keys(w.Main.Intent.Models)) {
		if slices.Contains(w.names(model), name) {
			return model
		}
	}
	return ""
}

// renames returns the model of main that a proposal renames to a name, empty for none, and all names of the renamed
// model, newest first.
func (w World) renames(p Proposal, name string) (from string, names []string) {
	was := p.Merged.Models[name].RenamedFrom
	if _, there := w.Main.Intent.Models[name]; there || was == "" {
		return "", w.names(name)
	}
	if from = w.called(was); from != "" {
		was = from
	}
	names = slices.DeleteFunc(w.names(was), func(n string) bool { return n == name })
	return from, append([]string{name}, names...)
}

// renamedAway reports whether a proposal renames a model of main.
func (m *maker) renamedAway(p Proposal, model string) bool {
	for name := range p.Merged.Models {
		if from, _ := m.w.renames(p, name); from == model {
			return true
		}
	}
	return false
}

// newModels names the models that a proposal adds without a former name.
func newModels(p Proposal) []string {
	var names []string
	for name, mdl := range p.Intent.Models {
		if _, there := p.Base.Models[name]; !there && mdl.RenamedFrom == "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// remembers reports whether a release that main accepted says what a model was called before.
func (e Evidence) remembers(model, was string) bool {
	return slices.ContainsFunc(e.Accepted[model], func(a delivery.Acceptance) bool { return a.RenamedFrom == was })
}

// wrongNames says where a proposal's was: names no model that it renames, or removes a former name that AOB does not
// remember yet.
func (m *maker) wrongNames(p Proposal) delivery.Fact {
	if p.Landed || m.w.Evidence.Unknown || !m.w.Blind().IsZero() {
		return delivery.Fact{} // nobody can tell which models main has had
	}
	main := m.w.Main.Intent.Models
	for _, name := range slices.Sorted(maps.Keys(p.Merged.Models)) {
		was := p.Merged.Models[name].RenamedFrom
		v := values{Model: name, FromModel: was, Branch: m.w.Main.Branch}
		before, there := main[name]
		if there && before.RenamedFrom != "" && before.RenamedFrom != was &&
			!m.w.Evidence.remembers(name, before.RenamedFrom) {
			v.FromModel = before.RenamedFrom
			return fact(code.WasForgotten, v)
		}
		if was == "" || there && slices.Contains(m.w.names(name), was) {
			continue
		}
		from := m.w.called(was)
		_, stays := p.Merged.Models[from]
		switch {
		case there:
			return fact(code.WasOfOldModel, v)
		case from == "" && len(m.w.Evidence.Accepted[was]) == 0:
			v.Names = slices.Sorted(maps.Keys(main))
			return fact(code.WasUnknown, v)
		case from != "" && stays:
			v.Names = []string{from}
			return fact(code.WasStays, v)
		case from != "" && from == was && main[from].RenamedFrom != "" && len(m.w.Evidence.Accepted[from]) == 0:
			v.Names = []string{main[from].RenamedFrom}
			return fact(code.WasUnreleased, v)
		}
	}
	return delivery.Fact{}
}

// goneFromMain says that main has renamed or removed a model since a proposal that
// changes it left main. To add a gate for it would bring the old model back.
func (m *maker) goneFromMain(p Proposal, name string) delivery.Fact {
	_, before := p.Base.Models[name]
	_, kept := p.Intent.Models[name]
	if _, there := m.w.Main.Intent.Models[name]; there || !before || !kept || p.Landed {
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
		if !old && slices.Contains(m.w.names(now), name) {
			return fact(code.ModelRenamedOnMain, values{Branch: branch, FromModel: name, Model: now, Commit: commit})
		}
	}
	return fact(code.ModelRemovedOnMain, values{Branch: branch, Model: name, Commit: commit})
}
