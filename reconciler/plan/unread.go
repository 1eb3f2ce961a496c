package plan

// This file keeps what cannot be read apart from what is not there. While a statement, or what main has said of a
// model, cannot be read, nothing is concluded from its absence: the models that it may be about wait, their fleets stay
// where they are, and all others go on.

import (
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// unsure says why nobody can tell which releases main has accepted under some names of one model; empty where it can be
// told.
func (m *maker) unsure(names []string) delivery.Fact {
	if why := m.unsureRelease(names); !why.IsZero() {
		return why
	}
	for _, name := range slices.Concat(names, []string{""}) {
		if why := m.w.Main.Unread[name]; why != "" {
			return fact(code.HistoryUnread, values{Branch: m.w.Main.Branch, Model: names[0], Text: why})
		}
	}
	return delivery.Fact{}
}

// unsureOf says why nobody can tell what a model of a proposal has to be compared with.
func (m *maker) unsureOf(p Proposal, name string) delivery.Fact {
	_, names := m.w.renames(p, name)
	list := [][]string{names}
	for _, b := range m.bars(p, name) {
		if why := m.w.Main.UnreadFleets[b.fleet.Name]; why != "" {
			return fact(code.FleetGatesUnread, values{Fleet: b.fleet.Name, Text: why})
		}
		list = append(list, m.w.names(b.from))
	}
	for _, names := range list {
		if why := m.unsure(names); !why.IsZero() {
			return why
		}
	}
	return delivery.Fact{}
}

// unsureRelease says why nobody can tell whether main has accepted the release that it names.
func (m *maker) unsureRelease(names []string) delivery.Fact {
	if m.w.Evidence.Unknown {
		return fact(code.EvidenceUnread, values{Text: m.w.Evidence.Stale})
	}
	for _, name := range names {
		named, ok := m.w.Main.Intent.Releases[name]
		if !ok || m.w.Evidence.accepted(named) {
			continue
		}
		if m.w.Evidence.Stale != "" {
			return fact(code.EvidenceUnread, values{Text: m.w.Evidence.Stale})
		}
		if u, ok := m.unreadStatement(named.Bundle, delivery.AcceptanceType, delivery.ReleaseType); ok {
			return fact(code.StatementUnread, values{Bundle: named.Bundle, Text: u.Why})
		}
	}
	return delivery.Fact{}
}

// BrokenFleets names the fleets whose own files have complaints. They may be missing in main's intent.
func (m Main) BrokenFleets() []string {
	var names []string
	for _, c := range m.Complaints {
		if file, ok := strings.CutPrefix(c.File, "fleets/"); ok {
			names = append(names, strings.TrimSuffix(file, ".yaml"))
		}
	}
	return names
}

// brokenFile says which broken file of main may be about a fleet; empty where none is. A fleet that stays with its
// model needs its own file, the files of that model, and all quarantines, as those are of bundles. One that changes its
// model needs all gates as well.
func (m *maker) brokenFile(f delivery.Fleet) delivery.Fact {
	models := m.w.names(f.Runs)
	published, told := m.w.Published[f.Name]
	if told {
		models = append(models, m.w.names(published.Model)...)
	}
	for _, c := range m.w.Main.Complaints {
		folder, file, _ := strings.Cut(c.File, "/")
		name, _, _ := strings.Cut(file, ".")
		concerned := true
		switch {
		case strings.HasSuffix(file, ".quarantine.yaml"):
		case folder == "models":
			concerned = slices.Contains(models, name)
		case folder == "fleets":
			concerned = name == f.Name
		case folder == "gates":
			concerned = told && !m.sameLine(published.Model, f.Runs)
		}
		if concerned {
			return fact(code.MainBroken, values{Branch: m.w.Main.Branch, Text: c.String()})
		}
	}
	return delivery.Fact{}
}

// unreadStatement finds a statement about a bundle that cannot be read.
func (m *maker) unreadStatement(bundle delivery.Digest, types ...string) (UnreadStatement, bool) {
	i := slices.IndexFunc(m.w.Evidence.Unread, func(u UnreadStatement) bool {
		return u.Bundle == bundle && slices.Contains(types, u.Type)
	})
	if i < 0 {
		return UnreadStatement{}, false
	}
	return m.w.Evidence.Unread[i], true
}

// unreadAborts lists the bundles that a fleet may have fallen back from, as an abort cannot be read. What it is told to
// run now it has not fallen back from.
func (m *maker) unreadAborts(fleet string) []delivery.Digest {
	var list []delivery.Digest
	for _, u := range m.w.Evidence.Unread {
		if u.Type == delivery.AbortType && m.w.Published[fleet].Release.Bundle != u.Bundle &&
			!slices.Contains(list, u.Bundle) {
			list = append(list, u.Bundle)
		}
	}
	return list
}

// waitsFor says why a fleet stays as it is: what would tell where it goes cannot be read.
func (m *maker) waitsFor(f delivery.Fleet) delivery.Fact {
	names := m.w.names(f.Runs)
	if why := m.unsureRelease(names); !why.IsZero() {
		return why
	}
	if why := m.w.Main.UnreadFleets[f.Name]; why != "" {
		return fact(code.FleetGatesUnread, values{Fleet: f.Name, Text: why})
	}
	if named, ok := m.w.Main.Intent.Releases[f.Runs]; ok && f.Version == 0 && m.w.Evidence.accepted(named) &&
		m.ships(f.Runs, named) {
		return delivery.Fact{} // the past does not count
	}
	if f.Version > 0 {
		return delivery.Fact{} // neither does it where the version is named
	}
	return m.unsure(names)
}

// wayKnown finds the release that a fleet may go on to although nobody can tell which releases main has accepted: main
// names it, and the fleet was told to run it before, or falls back to it.
func (m *maker) wayKnown(f delivery.Fleet) (delivery.Target, bool) {
	named, ok := m.w.Main.Intent.Releases[f.Runs]
	clock, published := m.w.Clocks[f.Name], m.w.Published[f.Name]
	if !ok || f.Version > 0 || published.Model != f.Runs || m.w.Main.UnreadFleets[f.Name] != "" {
		return delivery.Target{}, false
	}
	if _, is := m.quarantined([]string{f.Runs}, named.Bundle); is {
		return delivery.Target{}, false
	}
	underWay := clock.Target.Bundle == named.Bundle && published.Release.Bundle == named.Bundle
	back := clock.Base != nil && clock.Base.Bundle == named.Bundle
	if !underWay && !back {
		return delivery.Target{}, false
	}
	return delivery.Target{Version: named.Version, Bundle: named.Bundle}, true
}

// stays leaves a fleet as it is. Its document is signed again before it expires.
func (m *maker) stays(r FleetReport, why delivery.Fact) FleetReport {
	r.Facts = []delivery.Fact{why, fact(code.DevicesKeep, values{})}
	r.Decision.State = m.w.Clocks[r.Fleet]
	published, ok := m.w.Published[r.Fleet]
	if !ok {
		return r
	}
	r.Target = published.Release
	desired := published
	forbidden := m.aborted(delivery.Fleet{Name: r.Fleet, Runs: r.Model})
	if slices.Contains(forbidden, desired.Release.Bundle) { // what was forbidden since is given to nobody new
		desired.Share = 0
	}
	if desired.Previous != nil && slices.Contains(forbidden, desired.Previous.Bundle) {
		desired.Previous = nil
	}
	if published.Version == 0 {
		return r // it is lost, and nothing is made up while main cannot be read
	}
	r.Decision.Desired = &desired
	if m.news(desired, &published) { // only its time is over soon
		m.step(Publish{Desired: desired, Devices: len(m.w.Devices[r.Fleet])})
	}
	return r
}
