package plan

// This file handles data that cannot be read. Missing data is not taken for absent data: the models that it may concern
// wait, and their fleets stay as they are. Others go on.

import (
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// historyUnknown says why it is not known which releases main has accepted of a model; zero if it is known.
func (m *maker) historyUnknown(names []string) delivery.Fact {
	if why := m.acceptanceUnknown(names); !why.IsZero() {
		return why
	}
	for _, name := range slices.Concat(names, []string{""}) {
		if why := m.w.Main.Unread[name]; why != "" {
			return fact(code.HistoryUnread, values{Branch: m.w.Main.Branch, Model: names[0], Text: why})
		}
	}
	return delivery.Fact{}
}

// baselineUnknown says why it is not known what a proposal's model must be compared with.
func (m *maker) baselineUnknown(p Proposal, name string) delivery.Fact {
	_, names := m.w.renames(p, name)
	list := [][]string{names}
	for _, b := range m.fleetGatesFor(p, name) {
		if why := m.w.Main.UnreadFleets[b.fleet.Name]; why != "" {
			return fact(code.FleetGatesUnread, values{Fleet: b.fleet.Name, Text: why})
		}
		list = append(list, m.w.names(b.from))
	}
	for _, names := range list {
		if why := m.historyUnknown(names); !why.IsZero() {
			return why
		}
	}
	return delivery.Fact{}
}

// acceptanceUnknown says why it is not known whether main has accepted the release that it names.
func (m *maker) acceptanceUnknown(names []string) delivery.Fact {
	if m.w.Evidence.Unknown {
		return fact(code.EvidenceUnread, values{Text: m.w.Evidence.Stale})
	}
	for _, name := range names {
		named, ok := m.w.Main.Intent.Releases.Get(name)
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

// BrokenFleets lists the fleets whose files have complaints. Main's intent may lack them.
func (m Main) BrokenFleets() []string {
	var names []string
	for _, c := range m.Complaints {
		if file, ok := strings.CutPrefix(c.File, "fleets/"); ok {
			names = append(names, strings.TrimSuffix(file, ".yaml"))
		}
	}
	return names
}

// brokenFile returns a complaint about a file of main that may concern a fleet. These are the fleet's own file, the
// files of its model, and all quarantine files; and all gates if the fleet changes its model.
func (m *maker) brokenFile(f delivery.Fleet) delivery.Fact {
	models := m.w.names(f.Runs)
	published, known := m.documentOf(f.Name)
	if known {
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
			concerned = known && !m.sameLine(published.Model, f.Runs)
		}
		if concerned {
			return fact(code.MainBroken, values{Branch: m.w.Main.Branch, Text: c.String()})
		}
	}
	return delivery.Fact{}
}

// unreadStatement finds a statement about a bundle that cannot be read.
func (m *maker) unreadStatement(bundle delivery.Digest, types ...string) (UnreadStatement, bool) {
	return delivery.Find(m.w.Evidence.Unread, func(u UnreadStatement) bool {
		return u.Bundle == bundle && slices.Contains(types, u.Type)
	})
}

// unreadAborts lists the bundles that a fleet may have fallen back from, by aborts that cannot be read. The bundle that
// the fleet is told to run is not one of them.
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

// whyFleetWaits says why a fleet stays as it is: data that decides its target cannot be read.
func (m *maker) whyFleetWaits(f delivery.Fleet) delivery.Fact {
	names := m.w.names(f.Runs)
	if why := m.acceptanceUnknown(names); !why.IsZero() {
		return why
	}
	if why := m.w.Main.UnreadFleets[f.Name]; why != "" {
		return fact(code.FleetGatesUnread, values{Fleet: f.Name, Text: why})
	}
	if named, ok := m.w.Main.Intent.Releases.Get(f.Runs); ok && f.Version == 0 && m.w.Evidence.accepted(named) &&
		m.ships(f.Runs, named) {
		return delivery.Fact{} // the history is not needed
	}
	if f.Version > 0 {
		return delivery.Fact{} // nor is it for a pinned version
	}
	return m.historyUnknown(names)
}

// knownTarget returns the release that a fleet may continue with although main's accepted releases are not known: main
// names it, and the fleet was told to run it before or falls back to it.
func (m *maker) knownTarget(f delivery.Fleet) (delivery.Target, bool) {
	named, ok := m.w.Main.Intent.Releases.Get(f.Runs)
	clock, published := m.w.Clocks[f.Name], m.w.Published[f.Name]
	if !ok || f.Version > 0 || published.Model != f.Runs || m.w.Main.UnreadFleets[f.Name] != "" {
		return delivery.Target{}, false
	}
	bundle := named.Bundle
	if f.Ships() != delivery.FP32 { // the signed list of variants may be what cannot be read
		v, _ := delivery.Find(named.Variants, func(v delivery.ReleasedVariant) bool { return v.Variant == f.Ships() })
		bundle = v.Bundle
	}
	for _, b := range []delivery.Digest{named.Bundle, bundle} {
		if _, is := m.quarantined([]string{f.Runs}, b); is || b == "" {
			return delivery.Target{}, false
		}
	}
	target := delivery.Target{Version: named.Version, Bundle: bundle} // its version may have been edited on main
	underWay := clock.Target == target && published.Release == target
	back := clock.Base != nil && *clock.Base == target
	return target, underWay || back
}

// keepFleet leaves a fleet as it is. Its document is signed again before it expires.
func (m *maker) keepFleet(r FleetReport, why delivery.Fact) FleetReport {
	r.Facts = []delivery.Fact{why, fact(code.DevicesKeep, values{})}
	r.Decision.State = m.w.Clocks[r.Fleet]
	published, ok := m.w.Published[r.Fleet]
	if !ok {
		return r
	}
	r.Target = published.Release
	r.Variant, _ = m.variantOf(published.Release.Bundle)
	desired := published
	forbidden := m.aborted(delivery.Fleet{Name: r.Fleet, Runs: r.Model})
	if slices.Contains(forbidden, desired.Release.Bundle) { // no further device gets a bundle that is forbidden now
		desired.Share = 0
	}
	if desired.Previous != nil && slices.Contains(forbidden, desired.Previous.Bundle) {
		desired.Previous = nil
	}
	if published.Version == 0 {
		return r // it is lost, and cannot be rebuilt while main cannot be read
	}
	r.Decision.Desired = &desired
	if m.mustPublish(desired, &published) { // it expires soon
		m.step(Publish{Desired: desired, Devices: len(m.w.Devices[r.Fleet])})
	}
	return r
}
