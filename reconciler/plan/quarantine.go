package plan

// This file finds bundles that main's quarantine forbids. An entry forbids a bundle's digest for every model. A bundle
// with the same weights, as with other thresholds, is forbidden too.

import (
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A quarantineBlock is why a bundle cannot be released.
type quarantineBlock struct {
	file string // the quarantine file in which it can be lifted
	why  delivery.Fact
}

// blocks says why a pull request cannot release the bundle, and where the quarantine can be lifted.
func (q quarantineBlock) blocks() delivery.Fact {
	return q.why.In(code.QuarantineBlocks, values{File: q.file})
}

// A QuarantineEntry is an entry that a quarantine file of main has or had.
type QuarantineEntry struct {
	delivery.Quarantined
	Lost string // the commit of main that removed it; empty while it is there
}

// FollowQuarantine applies the next content of a model's quarantine file, from a commit of main, to its entries. An
// entry stays until it is lifted, also if it was removed from the file. A removed entry ends when the file has a lift
// of the same bundle.
func FollowQuarantine(entries []QuarantineEntry, commit string, next delivery.Quarantine) []QuarantineEntry {
	matched := make([]bool, len(next.Entries))
	find := func(same func(delivery.Quarantined) bool) int {
		i := -1
		for j, e := range next.Entries {
			if i < 0 && !matched[j] && same(e) {
				i = j
			}
		}
		if i >= 0 {
			matched[i] = true
		}
		return i
	}
	list := make([]QuarantineEntry, len(entries))
	there := make([]bool, len(entries))
	// Identical entries are matched first, so that two about one bundle are not mixed up.
	for _, same := range []func(a, b delivery.Quarantined) bool{
		func(a, b delivery.Quarantined) bool { return a == b },
		func(a, b delivery.Quarantined) bool { a.Lifted, b.Lifted = "", ""; return a == b },
	} {
		for i, h := range entries {
			if there[i] {
				continue
			}
			if j := find(func(e delivery.Quarantined) bool { return same(h.Quarantined, e) }); j >= 0 {
				list[i], there[i] = QuarantineEntry{Quarantined: next.Entries[j]}, true
			}
		}
	}
	for i, h := range entries {
		if there[i] {
			continue
		}
		if list[i] = h; h.Lost == "" {
			list[i].Lost = commit
		}
		lifts := slices.IndexFunc(next.Entries, func(e delivery.Quarantined) bool {
			return e.Digest == h.Digest && e.Lifted != ""
		})
		if h.Lifted == "" && lifts >= 0 && !matched[lifts] {
			list[i].Lifted = next.Entries[lifts].Lifted
		}
	}
	for j, e := range next.Entries {
		if !matched[j] {
			list = append(list, QuarantineEntry{Quarantined: e})
		}
	}
	return list
}

// QuarantineOf returns the entries of a tree's quarantine files, without history.
func QuarantineOf(i delivery.Intent) map[string][]QuarantineEntry {
	entries := map[string][]QuarantineEntry{}
	for model, q := range i.Quarantines.All() {
		entries[model] = FollowQuarantine(nil, "", q)
	}
	return entries
}

// quarantined says why a bundle cannot be released as a model: it is in quarantine, the release that it is a variant of
// is, or a bundle with the same weights is. A release that main accepted before stays usable for rollbacks unless it is
// in quarantine itself.
func (m *maker) quarantined(names []string, bundle delivery.Digest) (quarantineBlock, bool) {
	accepted := m.w.acceptedAs(names, bundle) != ""
	releases := m.releasesOf(bundle)
	for _, model := range slices.Sorted(maps.Keys(m.w.Main.Quarantine)) {
		file := "models/" + model + ".quarantine.yaml"
		for _, e := range m.w.Main.Quarantine[model] {
			switch {
			case e.Lifted != "":
			case e.Digest == bundle, slices.ContainsFunc(releases, func(a delivery.Acceptance) bool {
				return a.Bundle == e.Digest // a release takes its variants with it
			}):
				return quarantineBlock{file, fact(code.BundleQuarantined, values{Bundle: e.Digest,
					Text: e.Why})}, true
			case !accepted && m.weights(bundle) != "" && m.weights(e.Digest) == m.weights(bundle):
				return quarantineBlock{file, fact(code.WeightsQuarantined,
					values{Bundle: bundle, FromBundle: e.Digest, Text: e.Why})}, true
			}
		}
	}
	return quarantineBlock{}, false
}

// weights caches [Evidence.weights], which searches for bundles that are gone.
func (m *maker) weights(bundle delivery.Digest) delivery.Digest {
	w, ok := m.weightsOf[bundle]
	if !ok {
		if m.weightsOf == nil {
			m.weightsOf = map[delivery.Digest]delivery.Digest{}
		}
		w = m.w.Evidence.weights(bundle)
		m.weightsOf[bundle] = w
	}
	return w
}

// weights returns the digest of a bundle's ONNX file, also if the store has no such bundle any more.
func (e Evidence) weights(bundle delivery.Digest) delivery.Digest {
	if b, ok := e.Bundles[bundle]; ok {
		return b.Model
	}
	if v, ok := e.variantOf(bundle); ok { // also with thresholds, which it may be known by
		return v.Result.Model
	}
	t, _ := e.Training(bundle)
	return t.Training.Result.Model
}

// forbidden lists the bundles that have an entry without a lift.
func forbidden(entries map[string][]QuarantineEntry) []delivery.Digest {
	var list []delivery.Digest
	for _, model := range slices.Sorted(maps.Keys(entries)) {
		for _, e := range entries[model] {
			if e.Lifted == "" && !slices.Contains(list, e.Digest) {
				list = append(list, e.Digest)
			}
		}
	}
	return list
}

// quarantineAfter returns main's entries as they will be after a proposal is merged.
func (m *maker) quarantineAfter(p Proposal) map[string][]QuarantineEntry {
	entries := map[string][]QuarantineEntry{}
	for model, list := range m.w.Main.Quarantine {
		entries[model] = FollowQuarantine(list, p.Head, p.Merged.Quarantines.Of(model))
	}
	for model, q := range p.Merged.Quarantines.All() {
		if _, known := entries[model]; !known {
			entries[model] = FollowQuarantine(nil, p.Head, q)
		}
	}
	return entries
}

// lifts counts how often a bundle was lifted in the quarantine files of a model's names.
func (m *maker) lifts(model string, bundle delivery.Digest) int {
	n := 0
	for _, name := range m.w.names(model) {
		for _, e := range m.w.Main.Quarantine[name] {
			if e.Digest == bundle && e.Lifted != "" {
				n++
			}
		}
	}
	return n
}

// shortened finds an entry or a lift that one tree's quarantine files have and another's lack. Files of removed and
// renamed models count too, because a quarantine holds for any model.
func shortened(from, to delivery.Intent) (where values, is bool) {
	for _, model := range from.Quarantines.Names() {
		before := FollowQuarantine(nil, "", from.Quarantines.Of(model))
		for i, e := range FollowQuarantine(before, "later", to.Quarantines.Of(model))[:len(before)] {
			if e.Lost != "" || before[i].Lifted != "" && e.Lifted != before[i].Lifted {
				return values{Model: model, Count: i + 1, Bundle: e.Digest}, true
			}
		}
	}
	return values{}, false
}

// lostEntries returns the entries that main's quarantine files lost without a lift.
func (m *maker) lostEntries() []delivery.Fact {
	var list []delivery.Fact
	for _, model := range slices.Sorted(maps.Keys(m.w.Main.Quarantine)) {
		for _, e := range m.w.Main.Quarantine[model] {
			if e.Lost != "" && e.Lifted == "" {
				list = append(list, fact(code.QuarantineEntryLost,
					values{Model: model, Bundle: e.Digest, Commit: e.Lost}))
			}
		}
	}
	return list
}
