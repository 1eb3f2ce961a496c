package plan

// This file keeps what cannot be read apart from what is not there. While a statement, or what main has said of a
// model, cannot be read, nothing is concluded from its absence: the models that it may be about wait, their fleets stay
// where they are, and all others go on.

import (
	"fmt"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// unsure says why nobody can tell which releases main has accepted under some names of one model; empty where it can be
// told.
func (m *maker) unsure(names []string) string {
	if why := m.unsureRelease(names); why != "" {
		return why
	}
	for _, name := range slices.Concat(names, []string{""}) {
		if why := m.w.Main.Unread[name]; why != "" {
			return fmt.Sprintf("what %s has said of %s cannot be read: %s", m.w.Main.Branch, names[0], why)
		}
	}
	return ""
}

// unsureOf says why nobody can tell what a model of a proposal has to be compared with.
func (m *maker) unsureOf(p Proposal, name string) string {
	list := [][]string{m.w.names(name)}
	for _, was := range formerly(m.w, p, name) {
		list = append(list, m.w.names(was))
	}
	for _, b := range m.bars(p, name) {
		if why := m.w.Main.UnreadFleets[b.fleet.Name]; why != "" {
			return fmt.Sprintf("which gates fleet %s brings cannot be read: %s", b.fleet.Name, why)
		}
		list = append(list, m.w.names(b.from))
	}
	for _, names := range list {
		if why := m.unsure(names); why != "" {
			return why
		}
	}
	return ""
}

// unsureRelease says why nobody can tell whether main has accepted the release that it names.
func (m *maker) unsureRelease(names []string) string {
	if m.w.Evidence.Unknown {
		return "the evidence about bundles cannot be read: " + m.w.Evidence.Stale
	}
	for _, name := range names {
		named, ok := m.w.Main.Intent.Releases[name]
		if !ok || m.w.Evidence.accepted(named) {
			continue
		}
		if m.w.Evidence.Stale != "" {
			return "the evidence about bundles cannot be read: " + m.w.Evidence.Stale
		}
		if u, ok := m.unreadStatement(named.Bundle, delivery.AcceptanceType, delivery.ReleaseType); ok {
			return fmt.Sprintf("a statement about bundle %s cannot be read: %s", named.Bundle.Short(), u.Why)
		}
	}
	return ""
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
func (m *maker) brokenFile(f delivery.Fleet) string {
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
			return fmt.Sprintf("%s cannot be read: %s", m.w.Main.Branch, c)
		}
	}
	return ""
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
func (m *maker) waitsFor(f delivery.Fleet) string {
	names := m.w.names(f.Runs)
	if why := m.unsureRelease(names); why != "" {
		return why
	}
	if why := m.w.Main.UnreadFleets[f.Name]; why != "" {
		return fmt.Sprintf("which gates fleet %s brings cannot be read: %s", f.Name, why)
	}
	if named, ok := m.w.Main.Intent.Releases[f.Runs]; ok && f.Version == 0 && m.w.Evidence.accepted(named) &&
		m.ships(f.Runs, named) {
		return "" // the past does not count
	}
	if f.Version > 0 {
		return "" // neither does it where the version is named
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
	if _, held := m.held([]string{f.Runs}, named.Bundle); held {
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
func (m *maker) stays(r FleetReport, why string) FleetReport {
	r.Text = why + "; the devices keep what they run"
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
